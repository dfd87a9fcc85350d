// exec and attach: the streams of a command over a WebSocket's channels (kubectl from 1.31 on) or SPDY/3.1 streams
// (older kubectl, client-go's NewSPDYExecutor). Source: kubelet pkg/cri/streaming/remotecommand, its protocols.

import { PassThrough, type Readable, type Writable } from 'node:stream'
import { messageOf } from '../../base/failure.ts'
import type { Call } from '../api.ts'
import type { ExecResult } from '../kubelet.ts'
import { kubeletOf, podFor } from '../log.ts'
import { badRequest, refuse } from '../status.ts'
import { acceptSpdy, acceptWebSocket, type Upgrade, upgradeKind } from './handshake.ts'
import { SpdyConnection, type SpdyStream } from './spdy.ts'
import { Sizes } from './terminal-sizes.ts'
import { channelIn, channelOut } from './websocket-channels.ts'

type Target = Pick<Call, 'api' | 'served' | 'namespace' | 'name'>

interface Wanted {
	readonly stdin: boolean
	readonly stdout: boolean
	readonly stderr: boolean
	readonly tty: boolean
}

/** A client's end of a command, whatever carries it. */
interface Ends {
	readonly stdin?: Readable
	readonly stdout?: Writable
	readonly stderr?: Writable
	readonly sizes: Sizes
	/** Aborted when the client is gone. */
	readonly signal: AbortSignal
	/** The last word; after it the connection ends. */
	finish(result: ExecResult | { readonly failure: string }): void
}

/** Takes the connection over and runs the command. Throws Refusal for what cannot be run. */
export async function runCommand(
	target: Target,
	request: Upgrade,
	query: URLSearchParams,
	what: 'exec' | 'attach',
): Promise<void> {
	const flag = (name: string) => query.get(name) === 'true' || query.get(name) === '1'
	const { container } = podFor(target, what, query.get('container') ?? '')
	const kubelet = kubeletOf(target)
	const command = query.getAll('command')
	const tty = flag('tty')
	// Some clients ask for stderr with a terminal, where there is none.
	const wanted = { stdin: flag('stdin'), stdout: flag('stdout'), stderr: flag('stderr') && !tty, tty }
	if (what === 'exec' && command.length === 0) throw badRequest('you must specify at least 1 command for the container')
	if (!wanted.stdin && !wanted.stdout && !wanted.stderr)
		throw badRequest('you must specify at least 1 of stdin, stdout, stderr')
	if (what === 'attach' && kubelet.attach === undefined) {
		throw refuse('NotImplemented', 'attach is not served: this kubelet cannot attach to a running container', {})
	}
	const run = async (ends: Ends) => {
		const { stdin, stdout, stderr } = ends
		const common = {
			namespace: target.namespace,
			pod: target.name ?? '',
			container,
			tty,
			...(stdin === undefined ? {} : { stdin }),
			...(stdout === undefined ? {} : { stdout }),
			...(stderr === undefined ? {} : { stderr }),
			resize: ends.sizes,
			signal: ends.signal,
		}
		let result: ExecResult | { readonly failure: string }
		try {
			result = what === 'exec' ? await kubelet.exec({ ...common, command }) : await kubelet.attach!(common)
		} catch (e) {
			result = { failure: messageOf(e) }
		}
		await Promise.all([finished(stdout), finished(stderr)])
		ends.sizes.end()
		ends.finish(result)
	}
	if (upgradeKind(request) === 'spdy') runOnStreams(target, request, { ...wanted, stderrToo: flag('stderr') }, run)
	else await runOnChannels(target, request, wanted, run)
}

const channel = { stdin: 0, stdout: 1, stderr: 2, error: 3, resize: 4, close: 255 } as const

async function runOnChannels(
	{ api }: Target,
	request: Upgrade,
	wanted: Wanted,
	run: (ends: Ends) => Promise<void>,
): Promise<void> {
	const { socket, protocol } = await acceptWebSocket(request, ['v5.channel.k8s.io', 'v4.channel.k8s.io'] as const)
	const ending = new AbortController()
	const stdin = wanted.stdin ? new PassThrough({ highWaterMark: 1024 * 1024 }) : undefined
	const stdout = wanted.stdout ? channelOut(socket, channel.stdout) : undefined
	const stderr = wanted.stderr ? channelOut(socket, channel.stderr) : undefined
	for (const stream of [stdin, stdout, stderr]) stream?.on('error', () => {})
	const sizes = new Sizes()
	socket.on('message', (data: Buffer, binary: boolean) => {
		const message = Buffer.isBuffer(data) ? data : Buffer.from(data)
		if (message.length === 0) return
		const number = binary ? message[0]! : message[0]! - 48
		const rest = message.subarray(1)
		switch (number) {
			case channel.stdin:
				if (stdin !== undefined && rest.length > 0) channelIn(stdin, socket, rest, api.clock)
				return
			case channel.resize:
				sizes.push(rest)
				return
			case channel.close:
				if (protocol === 'v5.channel.k8s.io' && rest[0] === channel.stdin) stdin?.end()
				return
			default:
				// Other channels are ours to write.
				return
		}
	})
	socket.on('close', () => {
		ending.abort()
		stdin?.end()
		sizes.end()
	})
	// An empty message tells the client that the command is being run.
	const first = wanted.stdout ? channel.stdout : wanted.stderr ? channel.stderr : channel.error
	socket.send(Buffer.from([first]))
	void run({
		...(stdin === undefined ? {} : { stdin }),
		...(stdout === undefined ? {} : { stdout }),
		...(stderr === undefined ? {} : { stderr }),
		sizes,
		signal: ending.signal,
		finish(result) {
			if (socket.readyState === socket.OPEN) {
				socket.send(Buffer.concat([Buffer.from([channel.error]), Buffer.from(JSON.stringify(statusOfResult(result)))]))
				socket.close(1000)
			}
			stdin?.destroy()
		},
	})
}

/** The best first. v2 and v3 tell an exit code in words only; v3 adds sizes. */
const streamProtocols = ['v4.channel.k8s.io', 'v3.channel.k8s.io', 'v2.channel.k8s.io', 'channel.k8s.io'] as const

/** How long the client may take to open the streams it announced. */
const streamPatience = 30_000

function runOnStreams(
	{ api }: Target,
	request: Upgrade,
	wanted: Wanted & { readonly stderrToo: boolean },
	run: (ends: Ends) => Promise<void>,
): void {
	const protocol = acceptSpdy(request, streamProtocols)
	const ending = new AbortController()
	const sizes = new Sizes()
	const streams = new Map<string, SpdyStream>()
	let begun = false
	const missing = () =>
		!streams.has('error') ||
		(wanted.stdin && !streams.has('stdin')) ||
		(wanted.stdout && !streams.has('stdout')) ||
		(wanted.stderr && !streams.has('stderr'))
	const connection = new SpdyConnection(request.socket, request.head, {
		clock: api.clock,
		onStream(stream) {
			const kind = stream.headers.get('streamtype') ?? ''
			const known =
				kind === 'error' ||
				(kind === 'stdin' && wanted.stdin) ||
				(kind === 'stdout' && wanted.stdout) ||
				(kind === 'stderr' && wanted.stderrToo) ||
				(kind === 'resize' && wanted.tty)
			if (!known || streams.has(kind)) {
				stream.destroy()
				return
			}
			streams.set(kind, stream)
			if (kind === 'resize') readSizes(stream, sizes)
			// What is ours to write is not read; the client half-closes it.
			else if (kind !== 'stdin') stream.resume()
			if (begun || missing()) return
			begun = true
			cancel()
			const [stdin, stdout, stderr] = ['stdin', 'stdout', 'stderr'].map((name) => streams.get(name))
			void run({
				...(stdin === undefined ? {} : { stdin }),
				...(stdout === undefined ? {} : { stdout }),
				...(stderr === undefined || wanted.tty ? {} : { stderr }),
				sizes,
				signal: ending.signal,
				finish(result) {
					const errors = streams.get('error')!
					const status = statusOfResult(result)
					const text =
						protocol === 'v4.channel.k8s.io'
							? JSON.stringify(status)
							: status.status === 'Success'
								? ''
								: (status.message ?? '')
					errors.end(text, () => {
						if (wanted.tty) stderr?.end()
						connection.end()
					})
				},
			})
		},
		onClose() {
			cancel()
			ending.abort()
			sizes.end()
		},
	})
	const cancel = api.clock.after(streamPatience, () => connection.end())
}

/** Sizes on a stream: JSON values one after the other. */
function readSizes(stream: SpdyStream, sizes: Sizes): void {
	let text = ''
	stream.on('data', (chunk: Buffer) => {
		text += chunk.toString('latin1')
		for (;;) {
			const end = text.indexOf('}')
			if (end < 0) break
			sizes.push(Buffer.from(text.slice(0, end + 1)))
			text = text.slice(end + 1)
		}
		// No size is that long.
		if (text.length > 1024) text = ''
	})
}

interface ResultStatus {
	readonly status: 'Success' | 'Failure'
	readonly message?: string
}

function statusOfResult(result: ExecResult | { readonly failure: string }): ResultStatus {
	const error = 'failure' in result ? result.failure : result.error
	if (error !== undefined) {
		const status = {
			metadata: {},
			status: 'Failure' as const,
			message: error,
			reason: 'InternalError',
			details: { causes: [{ message: error }] },
			code: 500,
		}
		return status
	}
	if ('failure' in result || result.exitCode === 0) return { metadata: {}, status: 'Success' } as ResultStatus
	const status = {
		metadata: {},
		status: 'Failure' as const,
		message: `command terminated with non-zero exit code: exit status ${result.exitCode}`,
		reason: 'NonZeroExitCode',
		details: { causes: [{ reason: 'ExitCode', message: String(result.exitCode) }] },
	}
	return status
}

function finished(stream: Writable | undefined): Promise<void> {
	return new Promise((resolve) => {
		if (stream === undefined || stream.destroyed || stream.writableFinished) return resolve()
		stream.once('finish', resolve)
		stream.once('close', resolve)
		stream.once('error', () => resolve())
		if (!stream.writableEnded) stream.end()
	})
}
