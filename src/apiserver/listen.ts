// The server on a socket: HTTPS with client certificates on loopback (or a socket handed in), and the same handler for
// any node:http server (the lab's control socket). HTTP/1.1 only: see docs/decisions/listener.md.

import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { type Duplex, Readable } from 'node:stream'
import { Failure, messageOf } from '../base/failure.ts'
import { failed } from './answer.ts'
import type { User } from './api.ts'
import { impersonated } from './auth/impersonate.ts'
import { largestBody, tooLarge } from './body.ts'
import type { Certificates } from './certificates.ts'
import type { ApiServer } from './server.ts'
import { refuse } from './status.ts'

export interface ListenOptions {
	readonly certificates: Certificates
	/** A listening socket that is already open; else `host` and `port` (127.0.0.1, a free one). */
	readonly fd?: number
	readonly host?: string
	readonly port?: number
}

export interface Listener {
	readonly host: string
	readonly port: number
	/** Ends all connections and stops listening. */
	close(): Promise<void>
}

/** Serves HTTPS. Throws Failure `CannotListen`. */
export async function listen(server: ApiServer, options: ListenOptions): Promise<Listener> {
	const { createServer } = await import('node:https')
	const { authority, server: own } = options.certificates
	const http = createServer({
		cert: own.certificate,
		key: own.key,
		ca: authority.certificate,
		minVersion: 'TLSv1.2',
		ALPNProtocols: ['http/1.1'],
		requestCert: true,
		// Who has no certificate is anonymous, not refused: health and version are for everyone.
		rejectUnauthorized: false,
	})
	serve(http, (request) => server.api.authenticator.identify(request), server)
	// Node forgets a connection once it is upgraded, and close() would wait for it for ever: we remember them all.
	const connections = new Set<Socket>()
	http.on('connection', (connection: Socket) => {
		connections.add(connection)
		connection.once('close', () => connections.delete(connection))
	})
	const where =
		options.fd !== undefined ? `socket ${options.fd}` : `${options.host ?? '127.0.0.1'}:${options.port ?? 0}`
	await new Promise<void>((resolve, reject) => {
		http.once('error', (cause) => {
			reject(new Failure('CannotListen', `Cannot serve the API on ${where}: ${messageOf(cause)}`, {}, { cause }))
		})
		if (options.fd !== undefined) http.listen({ fd: options.fd }, resolve)
		else http.listen({ host: options.host ?? '127.0.0.1', port: options.port ?? 0 }, resolve)
	})
	const address = http.address() as AddressInfo
	return { host: address.address, port: address.port, close: () => closeServer(http, connections) }
}

/** Makes a node:http server answer for the API server. `prefix` is cut from paths; others get 404. */
export function serve(
	http: Server,
	identify: (request: IncomingMessage) => User,
	server: ApiServer,
	prefix = '',
): void {
	// Much longer than clients keep idle connections (Go: 90 s), so that it is they who close them.
	http.keepAliveTimeout = 600_000
	http.on('request', (request, response) => void answerRequest(server, request, response, { identify, prefix }))
	http.on('upgrade', (request, socket, head) => answerUpgrade(server, request, socket, head, { identify, prefix }))
	http.on('clientError', (_, socket) => {
		if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n')
		else socket.destroy()
	})
}

export interface Manner {
	/** Who asks. Throws Refusal 401. */
	readonly identify: (request: IncomingMessage) => User
	/** Cut from the path, `/kube`. */
	readonly prefix?: string
}

/** Answers one request of a node:http server. Never rejects. */
export async function answerRequest(
	server: ApiServer,
	incoming: IncomingMessage,
	outgoing: ServerResponse,
	manner: Manner,
): Promise<void> {
	const ending = new AbortController()
	outgoing.on('close', () => ending.abort())
	outgoing.on('error', () => ending.abort())
	let response: Response
	try {
		const path = pathOf(incoming, manner.prefix ?? '')
		// A proxied body is passed on as it comes, however long.
		const bytes = isProxied(path) ? streamed(incoming) : await collect(incoming)
		const body = bytes instanceof Uint8Array && bytes.length === 0 ? undefined : bytes
		const request = new Request(`http://kubernetes${path}`, {
			method: incoming.method ?? 'GET',
			headers: headersOf(incoming),
			signal: ending.signal,
			...(body !== undefined && incoming.method !== 'GET' && incoming.method !== 'HEAD'
				? { body, duplex: 'half' }
				: {}),
		})
		response = await server.handle(request, manner.identify(incoming))
	} catch (e) {
		if (ending.signal.aborted) return
		// The Request itself could not be made: a method fetch does not know, a broken header.
		response = failed(e instanceof TypeError ? refuse('BadRequest', `Cannot read the request: ${e.message}`) : e)
	}
	await send(response, outgoing, incoming.method === 'HEAD', ending.signal)
}

/** Answers one upgrade (exec, attach, port-forward). */
export function answerUpgrade(
	server: ApiServer,
	incoming: IncomingMessage,
	socket: Duplex,
	head: Buffer,
	manner: Manner,
): void {
	socket.on('error', () => socket.destroy())
	void (async () => {
		const { upgrade, refuseUpgrade } = await import('./upgrade.ts')
		try {
			const path = pathOf(incoming, manner.prefix ?? '')
			const user = impersonated(server.api.authorizer, manner.identify(incoming), headersOf(incoming))
			await upgrade(server.api, { incoming, socket, head, path, user })
		} catch (e) {
			refuseUpgrade(socket, e)
		}
	})()
}

function pathOf(request: IncomingMessage, prefix: string): string {
	const url = request.url ?? ''
	if (!url.startsWith('/')) throw refuse('BadRequest', `Cannot read the request: ${JSON.stringify(url)} is not a path`)
	if (prefix === '') return url
	const rest = url.slice(prefix.length)
	if (!url.startsWith(prefix) || (rest !== '' && !/^[/?]/.test(rest)))
		throw refuse('NotFound', `nothing is served at ${url}`)
	return rest.startsWith('/') ? rest : `/${rest}`
}

function headersOf(request: IncomingMessage): Headers {
	const headers = new Headers()
	const raw = request.rawHeaders
	for (let i = 0; i + 1 < raw.length; i += 2) headers.append(raw[i]!, raw[i + 1]!)
	return headers
}

function isProxied(path: string): boolean {
	return /^\/api\/v1\/namespaces\/[^/?]+\/(?:pods|services)\/[^/?]+\/proxy(?:[/?]|$)/.test(path)
}

/** The body as a stream; undefined where there is none. */
function streamed(request: IncomingMessage): ReadableStream<Uint8Array> | undefined {
	const { 'content-length': length, 'transfer-encoding': coding } = request.headers
	if ((length === undefined || length === '0') && coding === undefined) return undefined
	return Readable.toWeb(request) as unknown as ReadableStream<Uint8Array>
}

/** The body. One that is too large is read to its end (so that the client sees the answer) and refused. */
function collect(request: IncomingMessage): Promise<Uint8Array<ArrayBuffer>> {
	return new Promise((resolve, reject) => {
		const chunks: Buffer[] = []
		let size = 0
		request.on('data', (chunk: Buffer) => {
			size += chunk.length
			if (size <= largestBody) chunks.push(chunk)
			else if (chunks.length > 0) chunks.length = 0
			// Who sends without end is cut off.
			if (size > 100 * largestBody) request.destroy()
		})
		request.on('end', () => {
			if (size > largestBody) reject(tooLarge())
			else resolve(Buffer.concat(chunks) as Uint8Array<ArrayBuffer>)
		})
		request.on('error', reject)
		request.on('close', () => reject(new Error('the connection was closed')))
	})
}

async function send(
	response: Response,
	outgoing: ServerResponse,
	headOnly: boolean,
	signal: AbortSignal,
): Promise<void> {
	outgoing.writeHead(response.status, Object.fromEntries(response.headers))
	if (response.body === null || headOnly) {
		outgoing.end()
		await response.body?.cancel()
		return
	}
	const reader = response.body.getReader()
	// An abort must end a watch that has nothing to say, too.
	const stop = () => void reader.cancel().catch(() => {})
	signal.addEventListener('abort', stop, { once: true })
	if (signal.aborted) stop()
	try {
		// Headers first: a watch without events must still be seen to have begun.
		outgoing.flushHeaders()
		for (;;) {
			const { done, value } = await reader.read()
			if (done || signal.aborted) break
			if (!outgoing.write(value)) await drained(outgoing)
		}
		outgoing.end()
	} catch {
		// The answer broke off in the middle: the client must not take it for whole.
		outgoing.destroy()
	} finally {
		signal.removeEventListener('abort', stop)
	}
}

function drained(outgoing: ServerResponse): Promise<void> {
	return new Promise((resolve) => {
		const done = () => {
			outgoing.off('drain', done)
			outgoing.off('close', done)
			resolve()
		}
		outgoing.on('drain', done)
		outgoing.on('close', done)
		if (outgoing.destroyed) done()
	})
}

function closeServer(http: Server, connections: ReadonlySet<Socket>): Promise<void> {
	return new Promise((resolve) => {
		http.close(() => resolve())
		for (const connection of connections) connection.destroy()
	})
}
