// Connections that last: a server that answers every line, clients that keep one socket and ask again and again.

import { createServer, type Server, Socket } from 'node:net'
import { Failure } from '../../src/base/failure.ts'
import { type Ip, ipToBytes } from '../../src/base/ip.ts'
import { inNetnsAt } from '../../src/linux/netns.ts'
import {
	AF_INET,
	AF_INET6,
	bind,
	close,
	connect,
	getsockoptInt,
	inetAddress,
	listen,
	POLLIN,
	POLLOUT,
	recv,
	SO_ERROR,
	SO_REUSEADDR,
	SOCK_DGRAM,
	SOCK_NONBLOCK,
	SOCK_STREAM,
	SOL_SOCKET,
	send,
	setsockopt,
	socket,
	waitReady,
} from '../../src/linux/syscalls.ts'

export interface Talk {
	/** What comes back now: the server's name, an errno name, or `timeout`. */
	ask(timeout?: number): Promise<string>
	close(): void
}

/** Answers each chunk of a connection with `name`, until the client ends it. */
export function echoServer(netns: string, port: number, name: string): Server {
	const fd = inNetnsAt(netns, () => socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0))
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, 1)
	bind(fd, inetAddress(ipToBytes('::' as Ip), port))
	listen(fd, 64)
	const server = createServer((connection) => {
		connection.on('error', () => {})
		connection.on('data', () => connection.write(name))
	})
	return server.listen({ fd })
}

/** Connects, and keeps the connection. Throws where that fails. */
export async function talkTcp(netns: string, to: Ip, port: number): Promise<Talk> {
	const fd = inNetnsAt(netns, () => socket(to.includes(':') ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0))
	connect(fd, inetAddress(ipToBytes(to), port))
	const [ready = 0] = await waitReady([{ fd, events: POLLOUT }], 8000)
	if (ready === 0 || getsockoptInt(fd, SOL_SOCKET, SO_ERROR) !== 0) {
		close(fd)
		throw new Error(`Cannot connect to ${to} port ${port}`)
	}
	const connection = new Socket({ fd })
	connection.on('error', () => {})
	return {
		ask: (timeout = 8000) =>
			new Promise((resolve) => {
				const done = (result: string) => {
					clearTimeout(timer)
					connection.removeAllListeners('data').removeAllListeners('close')
					resolve(result)
				}
				const timer = setTimeout(() => done('timeout'), timeout)
				connection.once('data', (data) => done(data.toString()))
				connection.once('close', () => done('closed'))
				connection.write('?')
			}),
		close: () => connection.destroy(),
	}
}

/** What a raw socket for SCTP hears: the first packet of an association, as `SOURCE -> PORT`. No kernel SCTP is needed. */
export interface Ear {
	/** The next one, or `silence`. */
	hear(timeout: number): Promise<string>
	close(): void
}

const IPPROTO_SCTP = 132
const SOCK_RAW = 3

export function listenSctp(netns: string): Ear {
	const fd = inNetnsAt(netns, () => socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK, IPPROTO_SCTP))
	return {
		async hear(timeout) {
			const [ready = 0] = await waitReady([{ fd, events: POLLIN }], timeout)
			if (ready === 0) return 'silence'
			const packet = Buffer.alloc(1500)
			recv(fd, packet)
			const sctp = (packet.readUInt8(0) & 15) * 4
			return `${[...packet.subarray(12, 16)].join('.')} -> ${packet.readUInt16BE(sctp + 2)}`
		},
		close: () => close(fd),
	}
}

/** Begins an association and waits so many milliseconds for a refusal: an errno name, else `sent`. */
export async function sendSctp(netns: string, to: Ip, port: number, timeout: number): Promise<string> {
	const fd = inNetnsAt(netns, () => socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK, IPPROTO_SCTP))
	try {
		connect(fd, inetAddress(ipToBytes(to), 0))
		// Common header and an INIT chunk (RFC 9260, 3.1 and 3.3.2).
		const packet = Buffer.alloc(32)
		packet.writeUInt16BE(40_000 + (port % 1000), 0)
		packet.writeUInt16BE(port, 2)
		packet.writeUInt8(1, 12)
		packet.writeUInt16BE(20, 14)
		packet.writeUInt32BE(0x1234, 16)
		packet.writeUInt32BE(65_536, 20)
		packet.writeUInt16BE(1, 24)
		packet.writeUInt16BE(1, 26)
		packet.writeUInt32BE(1, 28)
		packet.writeUInt32LE(crc32c(packet), 8)
		send(fd, packet)
		await waitReady([{ fd, events: 0 }], timeout)
		const errno = getsockoptInt(fd, SOL_SOCKET, SO_ERROR)
		return errno === 0 ? 'sent' : errno === 111 ? 'ECONNREFUSED' : `errno ${errno}`
	} catch (e) {
		if (e instanceof Failure) return e.code
		throw e
	} finally {
		close(fd)
	}
}

/** RFC 9260, appendix A; without it connection tracking takes no notice of the packet. */
function crc32c(bytes: Buffer): number {
	let crc = 0xffffffff
	for (const byte of bytes) {
		crc ^= byte
		for (let k = 0; k < 8; k++) crc = (crc & 1) === 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
	}
	return ~crc >>> 0
}

/** One socket with one source port, whatever comes back. */
export function talkUdp(netns: string, to: Ip, port: number): Talk {
	const fd = inNetnsAt(netns, () => socket(to.includes(':') ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0))
	connect(fd, inetAddress(ipToBytes(to), port))
	return {
		async ask(timeout = 8000) {
			try {
				send(fd, Buffer.from('?'))
				const [ready = 0] = await waitReady([{ fd, events: POLLIN }], timeout)
				if (ready === 0) return 'timeout'
				const answer = Buffer.alloc(512)
				return answer.toString('utf8', 0, recv(fd, answer) ?? 0)
			} catch (e) {
				if (e instanceof Failure) return e.code
				throw e
			}
		},
		close: () => close(fd),
	}
}
