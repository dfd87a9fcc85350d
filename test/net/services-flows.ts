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
	const [ready = 0] = await waitReady([{ fd, events: POLLOUT }], 2000)
	if (ready === 0 || getsockoptInt(fd, SOL_SOCKET, SO_ERROR) !== 0) {
		close(fd)
		throw new Error(`Cannot connect to ${to} port ${port}`)
	}
	const connection = new Socket({ fd })
	connection.on('error', () => {})
	return {
		ask: (timeout = 2000) =>
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

/** One socket with one source port, whatever comes back. */
export function talkUdp(netns: string, to: Ip, port: number): Talk {
	const fd = inNetnsAt(netns, () => socket(to.includes(':') ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0))
	connect(fd, inetAddress(ipToBytes(to), port))
	return {
		async ask(timeout = 500) {
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
