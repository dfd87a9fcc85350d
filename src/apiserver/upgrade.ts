// exec, attach and port-forward over WebSocket, in the channel protocols of Kubernetes: each message begins with the
// number of its channel. Source: k8s.io/apimachinery/pkg/util/remotecommand constants, KEP-4006.

import type { IncomingMessage } from 'node:http'
import { type Duplex, PassThrough, Writable } from 'node:stream'
import type { WebSocket } from 'ws'
import { messageOf } from '../base/failure.ts'
import { failed } from './answer.ts'
import type { Api, Call, User } from './api.ts'
import { attributesOf } from './auth/attributes.ts'
import { isAdmin } from './auth/rbac.ts'
import type { ExecResult } from './kubelet.ts'
import { kubeletOf, podFor } from './log.ts'
import { readPath } from './route.ts'
import { badRequest, noSuchResource, refuse } from './status.ts'

export interface Upgrade {
	readonly incoming: IncomingMessage
	readonly socket: Duplex
	readonly head: Buffer
	/** Path and query. */
	readonly path: string
	readonly user: User
}

const protocols = ['v5.channel.k8s.io', 'v4.channel.k8s.io'] as const
type Protocol = (typeof protocols)[number]

/** Takes the connection over, or throws what `refuseUpgrade` answers. Returns when the connection is taken over. */
export async function upgrade(api: Api, request: Upgrade): Promise<void> {
	const { incoming, user } = request
	const mark = request.path.indexOf('?')
	const query = new URLSearchParams(mark < 0 ? '' : request.path.slice(mark + 1))
	const path = mark < 0 ? request.path : request.path.slice(0, mark)
	const target = readPath(path)
	if (!isAdmin(user)) {
		const asked = attributesOf(incoming.method ?? 'GET', path, target, query)
		api.authorizer.require(user, asked)
		// A WebSocket begins with GET; what is done here is more than to read (Kubernetes 1.35, KEP-4006).
		if (!('path' in asked) && asked.verb !== 'create') api.authorizer.require(user, { ...asked, verb: 'create' })
	}
	const served = target && api.registry.find(target.group, target.version, target.plural)
	if (target === undefined || served === undefined || served.storage !== 'pods') throw noSuchResource()
	const { name = '', namespace = '', subresource } = target
	const call = { api, served, namespace, name }
	switch (subresource) {
		case 'exec':
		case 'attach':
			return runCommand(call, request, query, subresource)
		case 'portforward':
			return forwardPorts(call, request, query)
		default:
			throw incoming.headers.upgrade === undefined ? noSuchResource() : badRequest('this path cannot be upgraded')
	}
}

type Target = Pick<Call, 'api' | 'served' | 'namespace' | 'name'>

/** Answers an upgrade that is refused: a Status, as to any other request. */
export function refuseUpgrade(socket: Duplex, error: unknown): void {
	if (socket.destroyed || !socket.writable) return
	const response = failed(error)
	void response.text().then((body) => {
		const length = Buffer.byteLength(body)
		socket.end(
			`HTTP/1.1 ${response.status} Refused\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\nconnection: close\r\n\r\n${body}`,
		)
	})
}

/** The WebSocket handshake. Throws Refusal where the client speaks none of our protocols. */
async function accept(request: Upgrade): Promise<{ readonly socket: WebSocket; readonly protocol: Protocol }> {
	const { incoming } = request
	const kind = (incoming.headers.upgrade ?? '').toLowerCase()
	if (kind !== 'websocket') {
		throw badRequest(
			`unable to upgrade: this server speaks WebSocket (kubectl 1.31 or newer), the client asked for ${JSON.stringify(incoming.headers.upgrade ?? '')}`,
		)
	}
	const offered = (incoming.headers['sec-websocket-protocol'] ?? '').split(',').map((p) => p.trim())
	const protocol = protocols.find((p) => offered.includes(p))
	if (protocol === undefined) {
		throw badRequest(
			`unable to upgrade: none of the protocols ${JSON.stringify(offered)} is one of ${protocols.join(', ')}`,
		)
	}
	const { WebSocketServer } = await import('ws')
	const accepting = new WebSocketServer({
		noServer: true,
		clientTracking: false,
		perMessageDeflate: false,
		handleProtocols: () => protocol,
		maxPayload: 32 * 1024 * 1024,
	})
	return new Promise((resolve) => {
		accepting.handleUpgrade(incoming, request.socket, request.head, (socket) => resolve({ socket, protocol }))
	})
}

const channel = { stdin: 0, stdout: 1, stderr: 2, error: 3, resize: 4, close: 255 } as const

/** A stream whose chunks go out on a channel; a chunk is done when the connection took it. */
function outgoing(socket: WebSocket, number: number): Writable {
	return new Writable({
		highWaterMark: 64 * 1024,
		write(chunk: Buffer, _, done) {
			if (socket.readyState !== socket.OPEN) return done(new Error('the client went away'))
			const message = Buffer.allocUnsafe(chunk.length + 1)
			message[0] = number
			chunk.copy(message, 1)
			socket.send(message, (e) => done(e ?? null))
		},
	})
}

/** Messages of a channel as a stream; the connection is not read further while the reader does not keep up. */
function incomingTo(stream: PassThrough, socket: WebSocket, data: Buffer): void {
	if (stream.writableEnded || stream.destroyed) return
	if (stream.write(data)) return
	socket.pause()
	const go = () => socket.resume()
	stream.once('drain', go)
	stream.once('close', go)
}

async function runCommand(
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
	const wants = { stdin: flag('stdin'), stdout: flag('stdout'), stderr: flag('stderr') && !tty }
	if (what === 'exec' && command.length === 0) throw badRequest('you must specify at least 1 command for the container')
	if (!wants.stdin && !wants.stdout && !wants.stderr)
		throw badRequest('you must specify at least 1 of stdin, stdout, stderr')
	if (what === 'attach' && kubelet.attach === undefined) {
		throw refuse('NotImplemented', 'attach is not served: this kubelet cannot attach to a running container', {})
	}
	const { socket, protocol } = await accept(request)
	const ending = new AbortController()
	const stdin = wants.stdin ? new PassThrough({ highWaterMark: 1024 * 1024 }) : undefined
	const stdout = wants.stdout ? outgoing(socket, channel.stdout) : undefined
	const stderr = wants.stderr ? outgoing(socket, channel.stderr) : undefined
	for (const stream of [stdin, stdout, stderr]) stream?.on('error', () => {})
	const sizes = new Sizes()
	socket.on('message', (data: Buffer, binary: boolean) => {
		const message = Buffer.isBuffer(data) ? data : Buffer.from(data)
		if (message.length === 0) return
		const number = binary ? message[0]! : message[0]! - 48
		const rest = message.subarray(1)
		switch (number) {
			case channel.stdin:
				if (stdin !== undefined && rest.length > 0) incomingTo(stdin, socket, rest)
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
	socket.on('error', () => {})
	// An empty message tells the client that the command is being run.
	const first = wants.stdout ? channel.stdout : wants.stderr ? channel.stderr : channel.error
	socket.send(Buffer.from([first]))
	const streams = {
		...(stdin === undefined ? {} : { stdin }),
		...(stdout === undefined ? {} : { stdout }),
		...(stderr === undefined ? {} : { stderr }),
	}
	void (async () => {
		let status: object
		try {
			const common = {
				namespace: target.namespace,
				pod: target.name ?? '',
				container,
				tty,
				...streams,
				resize: sizes,
				signal: ending.signal,
			}
			const result = what === 'exec' ? await kubelet.exec({ ...common, command }) : await kubelet.attach!(common)
			status = statusOfResult(result)
		} catch (e) {
			status = { metadata: {}, status: 'Failure', message: messageOf(e), reason: 'InternalError', code: 500 }
		}
		await Promise.all([finish(stdout), finish(stderr)])
		if (socket.readyState === socket.OPEN) {
			socket.send(Buffer.concat([Buffer.from([channel.error]), Buffer.from(JSON.stringify(status))]))
			socket.close(1000)
		}
		stdin?.destroy()
		sizes.end()
	})()
}

function statusOfResult(result: ExecResult): object {
	if (result.error !== undefined) {
		return {
			metadata: {},
			status: 'Failure',
			message: result.error,
			reason: 'InternalError',
			details: { causes: [{ message: result.error }] },
			code: 500,
		}
	}
	if (result.exitCode === 0) return { metadata: {}, status: 'Success' }
	return {
		metadata: {},
		status: 'Failure',
		message: `command terminated with non-zero exit code: exit status ${result.exitCode}`,
		reason: 'NonZeroExitCode',
		details: { causes: [{ reason: 'ExitCode', message: String(result.exitCode) }] },
	}
}

function finish(stream: Writable | undefined): Promise<void> {
	return new Promise((resolve) => {
		if (stream === undefined || stream.destroyed || stream.writableFinished) return resolve()
		stream.once('finish', resolve)
		stream.once('close', resolve)
		stream.once('error', () => resolve())
		if (!stream.writableEnded) stream.end()
	})
}

interface Size {
	readonly width: number
	readonly height: number
}

/** Terminal sizes; only the newest matters to a reader that is behind. */
class Sizes implements AsyncIterable<Size> {
	#newest: Size | undefined
	#ended = false
	#wake: (() => void) | undefined

	push(message: Buffer): void {
		try {
			const { Width, Height } = JSON.parse(message.toString()) as { Width?: unknown; Height?: unknown }
			if (!Number.isInteger(Width) || !Number.isInteger(Height)) return
			this.#newest = { width: Width as number, height: Height as number }
			this.#wake?.()
		} catch {
			// A size that cannot be read changes nothing.
		}
	}

	end(): void {
		this.#ended = true
		this.#wake?.()
	}

	async *[Symbol.asyncIterator](): AsyncGenerator<Size, void, undefined> {
		for (;;) {
			if (this.#newest !== undefined) {
				const size = this.#newest
				this.#newest = undefined
				yield size
			} else if (this.#ended) return
			else {
				await new Promise<void>((resolve) => {
					this.#wake = resolve
				})
				this.#wake = undefined
			}
		}
	}
}

/** Each port has two channels, data and error; the first message on each is the port's number. */
async function forwardPorts(target: Target, request: Upgrade, query: URLSearchParams): Promise<void> {
	const { pod } = podFor(target, 'portforward', firstContainer(target))
	const kubelet = kubeletOf(target)
	const ports = query
		.getAll('ports')
		.flatMap((value) => value.split(','))
		.map(Number)
	if (ports.length === 0) throw badRequest('you must specify at least 1 port to forward')
	for (const port of ports) {
		if (!Number.isInteger(port) || port < 1 || port > 65535) throw badRequest(`port ${port} is not a port number`)
	}
	const { namespace = '', name } = pod.metadata
	const { socket } = await accept(request)
	socket.on('error', () => {})
	const inputs: PassThrough[] = []
	for (const [i, port] of ports.entries()) {
		const announce = Buffer.from([0, port & 255, port >> 8])
		for (const number of [i * 2, i * 2 + 1]) {
			announce[0] = number
			socket.send(Buffer.from(announce))
		}
		const input = new PassThrough({ highWaterMark: 1024 * 1024 })
		input.on('error', () => {})
		inputs.push(input)
		void (async () => {
			try {
				const stream = await kubelet.dial({ namespace, pod: name, port })
				socket.once('close', () => stream.destroy())
				stream.on('error', (e) => sendError(i, port, e))
				const out = outgoing(socket, i * 2)
				out.on('error', () => stream.destroy())
				input.pipe(stream)
				stream.pipe(out)
				out.on('finish', () => {
					// The protocol has no way to end one port: the connection ends with its only one.
					if (ports.length === 1) socket.close(1000)
				})
			} catch (e) {
				sendError(i, port, e)
			}
		})()
	}
	function sendError(i: number, port: number, e: unknown): void {
		if (socket.readyState !== socket.OPEN) return
		const text = `error forwarding port ${port} to pod ${name}: ${messageOf(e)}`
		socket.send(Buffer.concat([Buffer.from([i * 2 + 1]), Buffer.from(text)]))
	}
	socket.on('message', (data: Buffer) => {
		const message = Buffer.isBuffer(data) ? data : Buffer.from(data)
		const input = message.length > 1 && message[0]! % 2 === 0 ? inputs[message[0]! / 2] : undefined
		if (input !== undefined) incomingTo(input, socket, message.subarray(1))
	})
	socket.on('close', () => {
		for (const input of inputs) input.end()
	})
}

function firstContainer(target: Target): string {
	const entry = target.api.store.get('pods', `${target.namespace}/${target.name}`)
	const spec = entry?.object.spec as { containers?: readonly { name: string }[] } | undefined
	return spec?.containers?.[0]?.name ?? ''
}
