// DNS on sockets that were made elsewhere (inside a pod's network namespace) and handed over as file descriptors.

import { createSocket } from 'node:dgram'
import { createServer, type Socket } from 'node:net'
import type { Clock } from '../../base/clock.ts'
import type { IpFamily } from '../../base/ip.ts'
import type { DnsResponder } from './responder.ts'

export interface DnsSockets {
	/** Bound UDP sockets. An IPv6 one may take IPv4 packets, too. */
	readonly udp: readonly { readonly fd: number; readonly family: IpFamily }[]
	/** Bound TCP sockets; they need not listen yet. */
	readonly tcp: readonly { readonly fd: number }[]
}

export interface DnsServerOptions {
	readonly clock: Clock
	/** TCP connections at once, each socket for itself. */
	readonly connections?: number
	/** Milliseconds a TCP client has for each message, from the end of the one before. */
	readonly patience?: number
	/** Trouble of a socket. One packet's is not reported. */
	readonly onError?: (error: Error) => void
}

export interface DnsServer {
	/** Closes all sockets; connections end with them. */
	close(): Promise<void>
}

/** undefined: no answer. A promise never rejects. */
export type Answers = Pick<DnsResponder, 'respond'>

/** Takes over the descriptors: they are closed with the server, also when this throws. */
export function serveDns(responder: Answers, sockets: DnsSockets, options: DnsServerOptions): DnsServer {
	const closing: (() => Promise<void>)[] = []
	const onError = options.onError ?? (() => {})
	for (const { fd, family } of sockets.udp) closing.push(serveUdp(responder, fd, family, onError))
	for (const { fd } of sockets.tcp) closing.push(serveTcp(responder, fd, options, onError))
	return {
		async close() {
			await Promise.all(closing.map((close) => close()))
		},
	}
}

function serveUdp(responder: Answers, fd: number, family: IpFamily, onError: (e: Error) => void): () => Promise<void> {
	const socket = createSocket({
		type: family === 4 ? 'udp4' : 'udp6',
		// Addresses are numbers already; without this every answer would wait a turn of the event loop.
		lookup: (address, _options, callback) => callback(null, address, family),
	})
	// A packet that cannot be sent (its sender is gone, no route) is the sender's loss.
	const ignore = () => {}
	socket.on('message', (query, from) => {
		const answer = responder.respond(query, 'udp')
		if (answer === undefined) return
		if (answer instanceof Uint8Array) socket.send(answer, from.port, from.address, ignore)
		else void answer.then((late) => late && !closed && socket.send(late, from.port, from.address, ignore))
	})
	socket.on('error', onError)
	let closed = false
	socket.bind({ fd })
	return () => {
		closed = true
		const { promise, resolve } = Promise.withResolvers<void>()
		socket.close(resolve)
		return promise
	}
}

function serveTcp(
	responder: Answers,
	fd: number,
	{ clock, connections = 256, patience = 10_000 }: DnsServerOptions,
	onError: (e: Error) => void,
): () => Promise<void> {
	const open = new Set<Socket>()
	const server = createServer({ allowHalfOpen: true }, (socket) => {
		open.add(socket)
		serveConnection(responder, socket, clock, patience)
		socket.on('close', () => open.delete(socket))
	})
	server.maxConnections = connections
	server.on('error', onError)
	server.listen({ fd })
	return () => {
		const { promise, resolve } = Promise.withResolvers<void>()
		server.close(() => resolve())
		for (const socket of open) socket.destroy()
		return promise
	}
}

/** Unsent answers of a client that does not read. Octets. */
const mostUnsent = 1024 * 1024

/** Messages with a length of two octets before each (RFC 1035 §4.2.2), any number on one connection (RFC 7766). */
function serveConnection(responder: Answers, socket: Socket, clock: Clock, patience: number): void {
	let held: Buffer = Buffer.alloc(0)
	let waiting = 0
	let ended = false
	let cancel = () => {}
	const wait = () => {
		cancel()
		cancel = clock.after(patience, () => socket.destroy())
	}
	const finish = () => {
		if (ended && waiting === 0) socket.end()
	}
	const send = (answer: Uint8Array | undefined) => {
		if (answer === undefined || socket.destroyed) return
		const length = Buffer.from([answer.length >> 8, answer.length & 255])
		socket.write(Buffer.concat([length, answer]))
		if (socket.writableLength > mostUnsent) socket.destroy()
	}
	wait()
	socket.on('data', (chunk) => {
		held = held.length === 0 ? chunk : Buffer.concat([held, chunk])
		let at = 0
		while (held.length - at >= 2 && !socket.destroyed) {
			const end = at + 2 + held.readUInt16BE(at)
			if (end > held.length) break
			const answer = responder.respond(held.subarray(at + 2, end), 'tcp')
			at = end
			wait()
			if (answer === undefined || answer instanceof Uint8Array) {
				send(answer)
				continue
			}
			waiting++
			void answer.then((late) => {
				waiting--
				send(late)
				finish()
			})
		}
		held = held.subarray(at)
	})
	socket.on('end', () => {
		ended = true
		finish()
	})
	// Resets are the client's way to hang up.
	socket.on('error', () => socket.destroy())
	socket.on('close', () => cancel())
}
