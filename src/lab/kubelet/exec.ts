// exec, logs and port-forward of the lab: host programs inside a pod's namespaces, the workloads' logs, sockets made
// inside the pod.

import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { ExecRequest, ExecResult, KubeletApi, LogRequest } from '../../apiserver/kubelet.ts'
import { Failure, isFailure, messageOf } from '../../base/failure.ts'
import { ipToBytes, parseIp } from '../../base/ip.ts'
import { inNetnsAt } from '../../linux/netns.ts'
import { findProgram, spawnInPod } from '../pod-process.ts'
import type { Kubelet } from './kubelet.ts'
import { noKernel, type PodRuntime } from './runtime.ts'

export interface ExecOptions {
	readonly kubelet: Kubelet
	readonly runtime: PodRuntime
	/** The lab's runtime folder. */
	readonly lab: string
}

export function createKubeletApi(options: ExecOptions): KubeletApi {
	const { kubelet, runtime } = options

	const isKnown = ({ pod, container }: ContainerOfPod) =>
		runtime.find(pod.metadata.uid as string)?.status.containers.some((c) => c.name === container.name) === true

	const runsProgram = ({ pod, container }: ContainerOfPod) => {
		const known = runtime.find(pod.metadata.uid as string)
		return (
			known?.pod.containers.some((c) => c.name === container.name && c.kind === 'program') === true &&
			known.status.containers.some((c) => c.name === container.name && c.state.state === 'running')
		)
	}

	return {
		async exec(request) {
			const target = kubelet.find(request.namespace, request.pod, request.container)
			const run = await kubelet.programRun(target, request.command)
			if (
				findProgram(request.command[0] ?? '', run.env.PATH ?? process.env.PATH ?? '', run.workingDir ?? '/') ===
				undefined
			) {
				return {
					exitCode: 127,
					error: `exec: ${JSON.stringify(request.command[0] ?? '')}: executable file not found in $PATH (programs of the host run in pods: there are no images)`,
				}
			}
			if (request.tty) {
				const { runOnTerminal } = await import('./terminal.ts')
				return runOnTerminal(run, target.wiring.netns, options.lab, request)
			}
			return runPiped(run, target.wiring.netns, options.lab, request)
		},
		async attach(request) {
			const target = kubelet.locate(request.namespace, request.pod, request.container)
			if (!isKnown(target)) {
				for await (const { text } of notRun(target)) request.stdout?.write(`${text}\n`)
				return { exitCode: 0 }
			}
			const { attachToLog, attachToProgram } = await import('./attach.ts')
			if (runsProgram(target)) return attachToProgram(target, runtime, request)
			return attachToLog(target, runtime, request)
		},
		async *logs(request) {
			const target = kubelet.locate(request.namespace, request.pod, request.container)
			if (!isKnown(target)) {
				yield* formatLog(notRun(target), request)
				return
			}
			yield* formatLog(
				runtime.logs(
					{
						uid: target.pod.metadata.uid as string,
						container: target.container.name,
						follow: request.follow,
						previous: request.previous,
						...(request.tailLines === undefined ? {} : { tailLines: request.tailLines }),
						...sinceOf(request),
					},
					request.signal,
				),
				request,
			)
		},
		async dial({ namespace, pod, port, ip }) {
			const target = kubelet.find(namespace, pod)
			return dialInPod(target.wiring.netns, port, ip)
		},
	}
}

type ContainerOfPod = ReturnType<Kubelet['locate']>

/** The log of a container that nothing was run for: why. Throws Failure BadRequest while it has yet to begin. */
async function* notRun({ pod, container }: ContainerOfPod) {
	const statuses = [...(pod.status?.containerStatuses ?? []), ...(pod.status?.initContainerStatuses ?? [])]
	const state = statuses.find((s) => s.name === container.name)?.state
	if (state?.terminated === undefined) {
		throw new Failure(
			'BadRequest',
			`container "${container.name}" in pod "${pod.metadata.name}" is waiting to start: ${state?.waiting?.reason ?? 'ContainerCreating'}`,
		)
	}
	const { message, finishedAt } = state.terminated
	if (message !== undefined) yield { time: Date.parse(finishedAt ?? ''), text: message }
}

/** The paper data plane's: every call says that there is no kernel. */
export const paperKubeletApi: KubeletApi = {
	async exec() {
		throw new Failure('BadRequest', noKernel('there is nothing to run a program in'))
	},
	async attach() {
		throw new Failure('BadRequest', noKernel('there is nothing to attach to'))
	},
	// biome-ignore lint/correctness/useYield: it only refuses.
	async *logs() {
		throw new Failure('BadRequest', noKernel('there are no logs'))
	},
	async dial() {
		throw new Failure('BadRequest', noKernel('there is no port to forward to'))
	},
}

async function runPiped(
	run: Parameters<typeof spawnInPod>[0],
	netns: string,
	lab: string,
	request: ExecRequest,
): Promise<ExecResult> {
	const child = spawnInPod(run, {
		netns,
		lab,
		contained: false,
		stdio: [request.stdin === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
	})
	const end = () => {
		try {
			if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
		} catch {
			// It has ended.
		}
	}
	request.signal.addEventListener('abort', end, { once: true })
	if (request.signal.aborted) end()
	child.stdin?.on('error', () => {})
	request.stdin?.on('error', () => {})
	if (child.stdin) request.stdin?.pipe(child.stdin)
	// What nobody reads must not fill the pipe.
	if (request.stdout !== undefined) child.stdout?.pipe(request.stdout, { end: false })
	else child.stdout?.resume()
	if (request.stderr !== undefined) child.stderr?.pipe(request.stderr, { end: false })
	else child.stderr?.resume()
	return new Promise((resolve) => {
		child.once('error', (e) => resolve({ exitCode: 127, error: e.message }))
		// close, not exit: all output has been passed on.
		child.once('close', (code, signal) => {
			request.signal.removeEventListener('abort', end)
			request.stdin?.unpipe()
			resolve({ exitCode: code ?? 128 + signalNumber(signal) })
		})
	})
}

const signals: Readonly<Record<string, number>> = {
	SIGHUP: 1,
	SIGINT: 2,
	SIGQUIT: 3,
	SIGABRT: 6,
	SIGKILL: 9,
	SIGSEGV: 11,
	SIGPIPE: 13,
	SIGTERM: 15,
}

export function signalNumber(signal: NodeJS.Signals | null): number {
	return signal === null ? 0 : (signals[signal] ?? 9)
}

function sinceOf(request: LogRequest): { readonly since?: number } {
	if (request.sinceTime !== undefined) {
		const since = Date.parse(request.sinceTime)
		if (Number.isNaN(since))
			throw new Failure('BadRequest', `Cannot read sinceTime ${JSON.stringify(request.sinceTime)}`)
		return { since }
	}
	return request.sinceSeconds === undefined ? {} : { since: Date.now() - request.sinceSeconds * 1000 }
}

async function* formatLog(
	lines: AsyncIterable<{ readonly time: number; readonly text: string }>,
	request: LogRequest,
): AsyncIterable<Uint8Array> {
	let left = request.limitBytes ?? Number.POSITIVE_INFINITY
	try {
		for await (const line of lines) {
			const stamp = request.timestamps ? `${new Date(line.time).toISOString().replace('Z', '000000Z')} ` : ''
			const bytes = Buffer.from(`${stamp}${line.text}\n`)
			if (bytes.length >= left) {
				yield bytes.subarray(0, left)
				return
			}
			left -= bytes.length
			yield bytes
		}
	} catch (e) {
		if (request.signal.aborted) return
		if (isFailure(e)) throw e
		throw new Failure('Unavailable', `Cannot read the log: ${messageOf(e)}`)
	}
}

/** A connection from inside the pod to its own port: over loopback as a port-forward makes it, or to its address. */
/** `ip` undefined: the pod's own loopback, of IPv4 and then of IPv6, as container runtimes try them. */
async function dialInPod(netns: string, port: number, ip?: string): Promise<Duplex> {
	if (ip !== undefined) return dialAddress(netns, port, ip)
	try {
		return await dialAddress(netns, port, '127.0.0.1')
	} catch (e) {
		return dialAddress(netns, port, '::1').catch(() => {
			throw e
		})
	}
}

async function dialAddress(netns: string, port: number, ip: string): Promise<Duplex> {
	const bytes = ipToBytes(parseIp(ip))
	const { AF_INET, AF_INET6, SOCK_NONBLOCK, SOCK_STREAM, close, connect, inetAddress, socket } = await import(
		'../../linux/syscalls.ts'
	)
	const { SO_ERROR, SOL_SOCKET, POLLOUT, getsockoptInt, waitReady, errnoFailure } = await import(
		'../../linux/syscalls.ts'
	)
	const fd = inNetnsAt(netns, () => socket(bytes.length === 4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0))
	try {
		const connected = connect(fd, inetAddress(bytes, port))
		if (!connected) {
			const [events] = await waitReady([{ fd, events: POLLOUT }], 10_000)
			if (events === 0) throw new Failure('ETIMEDOUT', `Cannot connect to port ${port} of the pod: no answer in 10 s`)
			const errno = getsockoptInt(fd, SOL_SOCKET, SO_ERROR)
			if (errno !== 0) throw errnoFailure(errno, `connect to port ${port} inside the pod`)
		}
	} catch (e) {
		close(fd)
		throw e
	}
	return new Socket({ fd, readable: true, writable: true, allowHalfOpen: true })
}
