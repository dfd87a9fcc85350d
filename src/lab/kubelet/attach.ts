// attach in the lab: what a container writes, followed. Containers of the lab have no standard input (a stand-in reads
// none, a program is started without one), so what a client types goes nowhere, and it is told so.

import type { KubeletApi } from '../../apiserver/kubelet.ts'
import type { Container, Pod } from '../../kube/objects/pod.ts'
import type { PodRuntime } from './runtime.ts'

type AttachRequest = Parameters<NonNullable<KubeletApi['attach']>>[0]

/** Keys that end an attachment on a terminal: nothing else could, as no program hears them (Ctrl-C, Ctrl-D). */
const leaving = [3, 4]

/**
 * Resolves when the container's run ends or the client leaves. Success either way, as with a real kubelet: a command's
 * exit code is in the pod's status. Throws Failure Unavailable where the log cannot be read.
 */
export async function attachToLog(
	{ pod, container }: { readonly pod: Pod; readonly container: Container },
	runtime: PodRuntime,
	request: AttachRequest,
): Promise<{ readonly exitCode: number }> {
	const { stdin, stdout, tty } = request
	const stderr = request.stderr ?? (tty ? stdout : undefined)
	const left = new AbortController()
	const ended = tty ? '\r\n' : '\n'
	if (stdin !== undefined) {
		stderr?.write(
			`podwire: container ${container.name} has no standard input here; this only shows what it writes${tty ? ' (Ctrl-C leaves)' : ''}${ended}`,
		)
		stdin.on('error', () => {})
		stdin.on('data', (chunk: Buffer) => {
			if (tty && chunk.some((byte) => leaving.includes(byte))) left.abort()
		})
	}
	const signal = AbortSignal.any([request.signal, left.signal])
	// Made to be attached to (kubectl run -i): its client wants all of it, however quick it was. Else: from now on.
	const whole = (container as { readonly stdin?: boolean }).stdin === true
	const lines = runtime.logs(
		{
			uid: pod.metadata.uid as string,
			container: container.name,
			follow: true,
			previous: false,
			...(whole ? {} : { tailLines: 0 }),
		},
		signal,
	)
	try {
		for await (const line of lines) {
			const to = line.stream === 'stderr' ? stderr : stdout
			if (to === undefined || to.destroyed) continue
			if (!to.write(`${line.text}${ended}`)) {
				await new Promise<void>((resolve) => {
					to.once('drain', resolve)
					to.once('close', resolve)
					signal.addEventListener('abort', () => resolve(), { once: true })
				})
			}
			if (signal.aborted) break
		}
	} catch (e) {
		if (!signal.aborted) throw e
	}
	return { exitCode: 0 }
}
