// attach in the lab. To a program: its output as bytes and, where its container has one, its standard input and terminal.
// To a stand-in, or after the end: what it wrote, followed; what a client types goes nowhere then, and it is told so.

import type { Writable } from 'node:stream'
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
	const whole = container.stdin === true
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
			if (!to.write(`${line.text}${ended}`)) await roomIn(to, signal)
			if (signal.aborted) break
		}
	} catch (e) {
		if (!signal.aborted) throw e
	}
	return { exitCode: 0 }
}

/**
 * Resolves when the program's run ends or the client leaves; the program runs on in the second case. Throws Failure
 * BadRequest where none runs.
 */
export async function attachToProgram(
	{ pod, container }: { readonly pod: Pod; readonly container: Container },
	runtime: PodRuntime,
	request: AttachRequest,
): Promise<{ readonly exitCode: number }> {
	const { stdin, stdout, signal } = request
	const at = { uid: pod.metadata.uid as string, container: container.name }
	const stderr = request.stderr ?? (container.tty === true ? stdout : undefined)
	if (stdin !== undefined && container.stdin === true) void type()
	else if (stdin !== undefined) {
		stderr?.write(
			`podwire: container ${container.name} has no standard input (stdin: true); what you type goes nowhere\r\n`,
		)
		stdin.on('error', () => {}).resume()
	}
	void followSize()

	async function type(): Promise<void> {
		try {
			for await (const chunk of stdin!.iterator({ destroyOnReturn: false })) {
				await runtime.input({ ...at, data: (chunk as Buffer).toString('base64') })
			}
		} catch {
			// The client left without a word.
		}
		await runtime.input({ ...at, end: true }).catch(() => {})
	}
	async function followSize(): Promise<void> {
		try {
			for await (const { width, height } of request.resize ?? []) await runtime.resize({ ...at, width, height })
		} catch {
			// It has ended.
		}
	}

	try {
		for await (const { stream, data } of runtime.attach(at, signal)) {
			const to = stream === 'stderr' ? stderr : stdout
			if (to === undefined || to.destroyed) continue
			if (!to.write(Buffer.from(data, 'base64'))) await roomIn(to, signal)
			if (signal.aborted) break
		}
	} catch (e) {
		if (!signal.aborted) throw e
	}
	return { exitCode: 0 }
}

function roomIn(to: Writable, signal: AbortSignal): Promise<void> {
	return new Promise((resolve) => {
		to.once('drain', resolve)
		to.once('close', resolve)
		signal.addEventListener('abort', () => resolve(), { once: true })
	})
}
