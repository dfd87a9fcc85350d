// One real connection made with plain sockets from inside a namespace, without blocking the event loop: what the
// application of a probe would see. TCP: a handshake, then what the far side says. UDP: one datagram, one answer.

import { Failure, isFailure } from '../base/failure.ts'
import { type Ip, ipFromBytes, ipToBytes } from '../base/ip.ts'
import { inNetns } from '../linux/netns.ts'
import {
	AF_INET,
	AF_INET6,
	bind,
	close,
	connect,
	errnoFailure,
	getsockname,
	getsockoptInt,
	inetAddress,
	MSG_DONTWAIT,
	MSG_NOSIGNAL,
	POLLERR,
	POLLHUP,
	POLLIN,
	POLLOUT,
	readInetAddress,
	recv,
	SO_ERROR,
	SOCK_DGRAM,
	SOCK_NONBLOCK,
	SOCK_STREAM,
	SOL_SOCKET,
	send,
	socket,
	waitReady,
} from '../linux/syscalls.ts'

export interface ConnectionResult {
	readonly outcome: 'connected' | 'refused' | 'timeout' | 'unreachable' | 'error'
	readonly errno?: string
	/** Milliseconds from connect() to the handshake's end, the answer, or the refusal. */
	readonly elapsed: number
	/** What came back first, at most 4 KiB. */
	readonly answer?: Buffer
}

const answerLimit = 4096
/** How long a TCP server may take to speak first, milliseconds. */
const patience = 200
/** How long an ICMP error of the sender's own kernel may take, milliseconds. */
const ownAnswerTime = 20
/** How long an answer to our greeting may take, milliseconds. */
const answerTime = 1000

/** A bound socket, not yet connected: its port is known, so that tracing can be set up for it. Close it. */
export class ProbeConnection {
	readonly ip: Ip
	readonly port: number
	readonly #fd: number
	readonly #protocol: 'TCP' | 'UDP'
	#open = true

	/** Throws Failure, EADDRNOTAVAIL where the namespace does not have the address. */
	constructor(netns: number, source: Ip, protocol: 'TCP' | 'UDP') {
		const bytes = ipToBytes(source)
		this.#protocol = protocol
		const kind = (protocol === 'TCP' ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK
		this.#fd = inNetns(netns, () => socket(bytes.length === 4 ? AF_INET : AF_INET6, kind, 0))
		try {
			bind(this.#fd, inetAddress(bytes, 0))
			const own = readInetAddress(getsockname(this.#fd))
			this.ip = ipFromBytes(own.ip)
			this.port = own.port
		} catch (e) {
			close(this.#fd)
			throw e
		}
	}

	/**
	 * Connects, waits at most `timeout` milliseconds, listens to the answer. `payload`: what to say; without it TCP lets
	 * the far side speak first and then asks as a browser would, UDP sends one line.
	 */
	async run(to: Ip, port: number, timeout: number, payload?: Uint8Array): Promise<ConnectionResult> {
		const start = performance.now()
		const since = () => performance.now() - start
		try {
			const done = connect(this.#fd, inetAddress(ipToBytes(to), port))
			if (this.#protocol === 'TCP') {
				if (!done) {
					const [ready] = await waitReady([{ fd: this.#fd, events: POLLOUT }], timeout)
					if (ready === 0) return { outcome: 'timeout', elapsed: since() }
					this.#check(to, port)
				}
				const elapsed = since()
				const answer = await this.#converse(to, port, payload)
				return { outcome: 'connected', elapsed, ...(answer === undefined ? {} : { answer }) }
			}
			await this.#sendDatagram(payload ?? Buffer.from('podwire probe\n'))
			const answer = await this.#read(timeout)
			if (answer === undefined) return { outcome: 'timeout', elapsed: since() }
			return { outcome: 'connected', elapsed: since(), answer }
		} catch (e) {
			if (!isFailure(e)) throw e
			return { outcome: outcomeOf(e.code), errno: e.code, elapsed: since() }
		}
	}

	close(): void {
		if (!this.#open) return
		this.#open = false
		close(this.#fd)
	}

	async #converse(to: Ip, port: number, payload: Uint8Array | undefined): Promise<Buffer | undefined> {
		try {
			if (payload === undefined) {
				const said = await this.#read(patience)
				if (said !== undefined) return said.length === 0 ? undefined : said
			}
			const host = to.includes(':') ? `[${to}]` : to
			const greeting = `GET / HTTP/1.1\r\nHost: ${host}:${port}\r\nUser-Agent: podwire-probe\r\nConnection: close\r\n\r\n`
			send(this.#fd, payload ?? Buffer.from(greeting), MSG_NOSIGNAL)
			const parts: Buffer[] = []
			let size = 0
			for (const end = performance.now() + answerTime; performance.now() < end && size < answerLimit; ) {
				const part = await this.#read(end - performance.now(), answerLimit - size)
				if (part === undefined || part.length === 0) break
				parts.push(part)
				size += part.length
				// Our own payload asks for one answer; only the greeting asked for the connection to be closed after it.
				if (payload !== undefined) break
			}
			return size === 0 ? undefined : Buffer.concat(parts)
		} catch (e) {
			// Connected all the same; a server that hangs up on such a question has only not answered.
			if (isFailure(e)) return undefined
			throw e
		}
	}

	/**
	 * The sender's own rules refuse a datagram before it leaves: send() says EPERM, whether they drop or reject. Only
	 * where they reject, the ICMP error follows at once.
	 */
	async #sendDatagram(payload: Uint8Array): Promise<void> {
		try {
			send(this.#fd, payload, MSG_NOSIGNAL)
		} catch (e) {
			if (isFailure(e, 'EPERM')) await this.#read(ownAnswerTime)
			throw e
		}
	}

	/** undefined on timeout, empty at the end of the stream. */
	async #read(timeout: number, limit = answerLimit): Promise<Buffer | undefined> {
		const [ready = 0] = await waitReady([{ fd: this.#fd, events: POLLIN }], timeout)
		if ((ready & (POLLIN | POLLERR | POLLHUP)) === 0) return undefined
		const buffer = Buffer.allocUnsafeSlow(limit)
		const n = recv(this.#fd, buffer, MSG_DONTWAIT)
		return n === undefined ? undefined : buffer.subarray(0, n)
	}

	#check(to: Ip, port: number): void {
		const errno = getsockoptInt(this.#fd, SOL_SOCKET, SO_ERROR)
		if (errno !== 0) throw errnoFailure(errno, `connect to ${to}:${port}`)
	}
}

function outcomeOf(code: string): ConnectionResult['outcome'] {
	switch (code) {
		case 'ECONNREFUSED':
		case 'ECONNRESET':
			return 'refused'
		case 'ETIMEDOUT':
			return 'timeout'
		case 'EHOSTUNREACH':
		case 'ENETUNREACH':
		case 'EACCES':
			return 'unreachable'
		default:
			return 'error'
	}
}

/** TCP or UDP; others are refused with Failure Unsupported. */
export function probeProtocol(protocol: string): 'TCP' | 'UDP' {
	if (protocol === 'TCP' || protocol === 'UDP') return protocol
	throw new Failure('Unsupported', `Cannot probe ${protocol}: a probe makes TCP connections and UDP exchanges only`)
}
