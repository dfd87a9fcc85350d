// What stands in for an image that cannot be run: listens on the container's ports inside the pod's network
// namespace and says who it is. HTTP/1.1 and HTTP/2 without TLS: any request is answered with JSON, a gRPC health
// check with SERVING. Any other TCP stream is echoed byte for byte. UDP: one datagram back, a JSON line of who it is,
// then the payload. Nothing is sent unasked.

import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import {
	createServer as createHttpServer,
	type Server as HttpServer,
	type IncomingMessage,
	type ServerResponse,
} from 'node:http'
import type { Http2Server, Http2ServerRequest, Http2ServerResponse } from 'node:http2'
import { createServer, type Server, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { answerGrpc } from './grpc.ts'
import type { ContainerLog } from './log.ts'
import type { Listener, StandInContainer, WorkloadPod } from './protocol.ts'
import { bindInPod } from './sockets.ts'

export interface StandIn {
	/** Opens what is new and closes what is gone; what stays is not touched. Throws Failure (EADDRINUSE, …). */
	listen(listeners: readonly Listener[]): void
	/** Stops accepting at once; resolves when every connection has ended, after `grace` milliseconds at the latest. */
	stop(grace: number): Promise<void>
}

/** The HTTP side of all stand-ins of a process: connections are handed to it once they turn out to speak HTTP. */
export interface StandInHttp {
	serve(connection: Socket, answer: (request: IncomingMessage, response: ServerResponse) => void): void
	/** As `serve` for a connection that began with the preface of HTTP/2 (RFC 9113 §3.4). */
	serveHttp2(connection: Socket, answer: (request: Http2ServerRequest, response: Http2ServerResponse) => void): void
}

export function createStandInHttp(): StandInHttp {
	const answers = new WeakMap<Socket, (request: IncomingMessage, response: ServerResponse) => void>()
	const server: HttpServer = createHttpServer({ keepAliveTimeout: 75_000 }, (request, response) => {
		answers.get(request.socket)?.(request, response)
	})
	// Loaded when the first connection speaks it.
	let http2: Promise<Http2Server> | undefined
	const http2Answers = new WeakMap<object, (request: Http2ServerRequest, response: Http2ServerResponse) => void>()
	const openHttp2 = async () => {
		const { createServer: createHttp2Server } = await import('node:http2')
		const made = createHttp2Server((request, response) => {
			const { session } = request.stream
			if (session !== undefined) http2Answers.get(session)?.(request, response)
		})
		made.on('sessionError', () => {})
		return made
	}
	return {
		serve(connection, answer) {
			answers.set(connection, answer)
			server.emit('connection', connection)
		},
		serveHttp2(connection, answer) {
			http2 ??= openHttp2()
			void http2.then((made) => {
				if (connection.destroyed) return
				made.once('session', (session) => http2Answers.set(session, answer))
				made.emit('connection', connection)
			})
		},
	}
}

/** Milliseconds for the connections that were on their way when the last Service let go. */
const queueDelay = 30
/** Milliseconds a connection that has not asked anything yet may still take to do so. */
const firstRequestDelay = 1_000

/** The first bytes of a request line (RFC 9112 §3): a method token and a space. */
const httpMethods = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH', 'TRACE', 'CONNECT'].map((m) => `${m} `)
const udpPayloadLimit = 65_507

/** RFC 9113 §3.4. */
const http2Preface = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'

type Sniffed = 'http' | 'http2' | 'raw' | 'undecided'

function sniff(bytes: Buffer): Sniffed {
	const text = bytes.toString('latin1', 0, http2Preface.length)
	if (text === http2Preface) return 'http2'
	if (http2Preface.startsWith(text)) return 'undecided'
	if (httpMethods.some((m) => text.startsWith(m))) return 'http'
	return httpMethods.some((m) => m.startsWith(text)) ? 'undecided' : 'raw'
}

export function openStandIn(
	pod: WorkloadPod,
	container: StandInContainer,
	log: ContainerLog,
	http: StandInHttp,
): StandIn {
	const open = new Map<string, { close(): void }>()
	const connections = new Map<Socket, { active: number; served: number }>()
	let stopping = false

	const identity = {
		pod: pod.name,
		namespace: pod.namespace,
		node: pod.node,
		ip: pod.ips[0],
		container: container.name,
		image: container.image,
		standIn: true,
	}

	function answer(request: IncomingMessage, response: ServerResponse): void {
		const connection = request.socket
		const state = connections.get(connection)
		if (state !== undefined) state.active++
		response.once('close', () => {
			if (state !== undefined) {
				state.active--
				state.served++
			}
			if (stopping) connection.end()
		})
		const client = clientOf(connection)
		const body = `${JSON.stringify({
			...identity,
			port: connection.localPort,
			client,
			protocol: `HTTP/${request.httpVersion}`,
			method: request.method,
			path: request.url,
			headers: request.headers,
		})}\n`
		log.write('stdout', `${client} "${request.method} ${request.url} HTTP/${request.httpVersion}" 200`)
		// The body of the request is read to its end, or a keep-alive connection would stop there.
		request.resume()
		const headers: Record<string, string | number> = {
			'content-type': 'application/json',
			'content-length': Buffer.byteLength(body),
			'x-podwire-stand-in': `${pod.namespace}/${pod.name}`,
		}
		if (stopping) headers.connection = 'close'
		response.writeHead(200, headers)
		response.end(body)
	}

	function answerHttp2(request: Http2ServerRequest, response: Http2ServerResponse): void {
		const connection = request.stream.session?.socket as Socket
		const client = clientOf(connection)
		const isGrpc = String(request.headers['content-type'] ?? '').startsWith('application/grpc')
		log.write('stdout', `${client} "${request.method} ${request.url} HTTP/2.0"${isGrpc ? ' gRPC' : ' 200'}`)
		if (isGrpc) {
			answerGrpc(request, response, pod)
			return
		}
		request.resume()
		response.writeHead(200, {
			'content-type': 'application/json',
			'x-podwire-stand-in': `${pod.namespace}/${pod.name}`,
		})
		response.end(
			`${JSON.stringify({
				...identity,
				port: connection.localPort,
				client,
				protocol: 'HTTP/2.0',
				method: request.method,
				path: request.url,
				headers: request.headers,
			})}\n`,
		)
	}

	function accept(connection: Socket): void {
		connections.set(connection, { active: 0, served: 0 })
		connection.on('close', () => connections.delete(connection))
		connection.on('error', () => {})
		let head: Buffer = Buffer.alloc(0)
		const read = (chunk: Buffer) => {
			head = head.length === 0 ? chunk : Buffer.concat([head, chunk])
			const kind = sniff(head)
			if (kind === 'undecided') return
			connection.off('data', read)
			connection.off('end', ended)
			connection.pause()
			if (kind === 'http2') {
				connection.unshift(head)
				http.serveHttp2(connection, answerHttp2)
				return
			}
			if (kind === 'http') {
				connection.unshift(head)
				http.serve(connection, answer)
			} else {
				log.write('stdout', `${clientOf(connection)} TCP echo`)
				connection.write(head)
				connection.pipe(connection)
			}
			connection.resume()
		}
		// The other side closed before it said enough to tell: give back what it said.
		const ended = () => connection.end(head)
		connection.on('data', read)
		connection.on('end', ended)
	}

	function openTcp(listener: Listener): { close(): void } {
		const { fd } = bindInPod(pod, listener)
		const server: Server = createServer({ allowHalfOpen: true, noDelay: true }, accept)
		server.on('error', (e) => log.write('stderr', `TCP ${listener.port}: ${e.message}`))
		server.listen({ fd })
		return { close: () => server.close() }
	}

	function openUdp(listener: Listener): { close(): void } {
		const { fd, family } = bindInPod(pod, listener)
		const udp: UdpSocket = createSocket(family === 6 ? 'udp6' : 'udp4')
		udp.on('error', (e) => log.write('stderr', `UDP ${listener.port}: ${e.message}`))
		udp.on('message', (payload, from) => {
			const client = `${plain(from.address)}:${from.port}`
			const line = Buffer.from(`${JSON.stringify({ ...identity, port: listener.port, client, protocol: 'UDP' })}\n`)
			log.write('stdout', `${client} UDP ${payload.length} bytes`)
			const reply = Buffer.concat([line, payload])
			udp.send(reply.length > udpPayloadLimit ? payload : reply, from.port, from.address, () => {})
		})
		udp.bind({ fd })
		return { close: () => udp.close() }
	}

	return {
		listen(listeners) {
			const want = new Map(listeners.map((l) => [`${l.protocol}/${l.port}`, l]))
			for (const [key, listener] of open) {
				if (want.has(key)) continue
				listener.close()
				open.delete(key)
				log.write('stdout', `no longer listening on ${key}`)
			}
			for (const [key, listener] of want) {
				if (open.has(key)) continue
				open.set(key, listener.protocol === 'TCP' ? openTcp(listener) : openUdp(listener))
				log.write('stdout', `stand-in for image ${container.image}: listening on ${key}`)
			}
		},
		async stop(grace) {
			if (grace > 0) {
				// Nobody is sent here any more, but what was sent just now waits in the accept queue: closing the
				// listener would reset it.
				await sleep(Math.min(grace, queueDelay))
			}
			stopping = true
			for (const listener of open.values()) listener.close()
			open.clear()
			for (const [connection, state] of connections) if (state.served > 0 && state.active === 0) connection.end()
			const finish = setTimeout(
				() => {
					for (const [connection, state] of connections) if (state.active === 0) connection.end()
				},
				Math.min(grace, firstRequestDelay),
			)
			const cut = setTimeout(() => {
				for (const connection of connections.keys()) connection.destroy()
			}, grace)
			await Promise.all(
				[...connections.keys()].map((c) => new Promise<void>((resolve) => c.once('close', () => resolve()))),
			)
			clearTimeout(finish)
			clearTimeout(cut)
		},
	}
}

/** `::ffff:10.0.0.1` of a dual-stack socket is 10.0.0.1. */
function plain(address: string): string {
	return address.startsWith('::ffff:') ? address.slice(7) : address
}

function clientOf(connection: Socket): string {
	const address = plain(connection.remoteAddress ?? '')
	return address.includes(':') ? `[${address}]:${connection.remotePort}` : `${address}:${connection.remotePort}`
}
