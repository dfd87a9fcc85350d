// A netlink socket: requests are synchronous (the kernel has answered when send() returns, so nothing ever waits),
// multicast is drained without blocking. It belongs to the namespace its maker was in, for ever.

import { Failure, isFailure } from '../../base/failure.ts'
import {
	AF_NETLINK,
	bind,
	close,
	errnoName,
	errnoText,
	MSG_DONTWAIT,
	MSG_TRUNC,
	POLLIN,
	recv,
	SO_RCVBUF,
	SO_RCVBUFFORCE,
	SO_SNDBUF,
	SO_SNDBUFFORCE,
	SOCK_RAW,
	SOL_NETLINK,
	SOL_SOCKET,
	send,
	setsockopt,
	socket,
	trySetsockopt,
	waitReady,
} from '../syscalls.ts'
import {
	eachAttribute,
	type NetlinkMessage,
	NLMSG_DONE,
	NLMSG_ERROR,
	NLMSG_NOOP,
	readMessages,
	readString,
} from './decode.ts'
import { NetlinkEncoder, NLM_F_ACK, NLM_F_DUMP_INTR } from './encode.ts'

export const NETLINK_ROUTE = 0
export const NETLINK_NETFILTER = 12

const NETLINK_ADD_MEMBERSHIP = 1
const NETLINK_CAP_ACK = 10
const NETLINK_EXT_ACK = 11
/** Flags of an NLMSG_ERROR: the request is not repeated after its header; attributes follow. */
const NLM_F_CAPPED = 0x100
const NLM_F_ACK_TLVS = 0x200

export interface NetlinkOptions {
	/** Multicast groups to join (numbers, not a mask). */
	readonly groups?: readonly number[]
	/** Bytes; the largest batch one send() can carry. Without the right to force it: at most wmem_max. */
	readonly sendBuffer?: number
	readonly receiveBuffer?: number
}

/** One message the kernel refused. */
export interface NetlinkError {
	readonly sequence: number
	readonly errno: number
	/** The kernel's own sentence (extended acknowledgement), where it gave one. */
	readonly text?: string
	/** Byte offset of the attribute at fault, from the start of its message. */
	readonly offset?: number
}

// Larger than any datagram of the kernel: it fills dumps to at most 32 KiB. One buffer for all sockets of the thread:
// receiving is synchronous and every datagram is copied out at once.
const datagramSize = 1 << 16
let datagram: Buffer | undefined

export class NetlinkSocket {
	readonly fd: number
	/** Multicast overruns seen: each one means that messages were lost. */
	overruns = 0
	#open = true

	/** Opens a socket in the calling thread's namespace. Throws Failure (EPERM, EPROTONOSUPPORT, …). */
	constructor(protocol: number, options: NetlinkOptions = {}) {
		this.fd = socket(AF_NETLINK, SOCK_RAW, protocol)
		try {
			trySetsockopt(this.fd, SOL_NETLINK, NETLINK_CAP_ACK, 1)
			trySetsockopt(this.fd, SOL_NETLINK, NETLINK_EXT_ACK, 1)
			// FORCE needs CAP_NET_ADMIN in the first user namespace; without it the plain option, capped by the system.
			if (options.sendBuffer !== undefined) this.#size(SO_SNDBUFFORCE, SO_SNDBUF, options.sendBuffer)
			if (options.receiveBuffer !== undefined) this.#size(SO_RCVBUFFORCE, SO_RCVBUF, options.receiveBuffer)
			const address = new Uint8Array(12)
			address[0] = AF_NETLINK
			bind(this.fd, address)
			for (const group of options.groups ?? []) setsockopt(this.fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
		} catch (e) {
			close(this.fd)
			throw e
		}
	}

	/**
	 * Sends a batch in one send() and returns the data messages of the reply (of gets and dumps), in order; an
	 * encoder is reset. `acks`: acknowledgements and dump ends that must come; by default those the encoder asked
	 * for (an nfnetlink batch has to say: its end is acknowledged, too). Throws the first refusal as a Failure:
	 * code = errno name, details.errors = all NetlinkError. rtnetlink has then applied the other messages of the
	 * batch, an nfnetlink batch nothing.
	 */
	request(batch: NetlinkEncoder | Uint8Array, acks?: number): NetlinkMessage[] {
		const bytes = batch instanceof NetlinkEncoder ? batch.bytes() : batch
		const owed = acks ?? (batch instanceof NetlinkEncoder ? batch.acks : countAcks(bytes))
		try {
			const sent = send(this.fd, bytes)
			if (sent !== bytes.length) throw new Failure('EMSGSIZE', `Cannot send ${bytes.length} bytes: ${sent} taken`)
			return this.#replies(owed)
		} finally {
			if (batch instanceof NetlinkEncoder) batch.reset()
		}
	}

	/** A dump, asked again while the kernel says that it changed under our hands. `write` encodes the request. */
	dump(write: (encoder: NetlinkEncoder) => void): NetlinkMessage[] {
		for (let attempt = 0; ; attempt++) {
			const encoder = new NetlinkEncoder(256)
			write(encoder)
			const messages = this.request(encoder)
			if (attempt === 20 || !messages.some((m) => (m.flags & NLM_F_DUMP_INTR) !== 0)) return messages
		}
	}

	/** What multicast messages wait, without blocking. Overruns are counted in `overruns`, not thrown. */
	receive(): NetlinkMessage[] {
		const messages: NetlinkMessage[] = []
		while (this.#open) {
			try {
				const next = this.#take()
				if (next === undefined) break
				messages.push(...readMessages(next))
			} catch (e) {
				if (!isFailure(e, 'ENOBUFS')) throw e
				this.overruns++
			}
		}
		return messages
	}

	/** Waits at most `timeout` milliseconds for multicast messages (see syscalls.waitReady), then drains them. */
	async wait(timeout: number): Promise<NetlinkMessage[]> {
		await waitReady([{ fd: this.fd, events: POLLIN }], timeout)
		return this.receive()
	}

	close(): void {
		if (!this.#open) return
		this.#open = false
		close(this.fd)
	}

	[Symbol.dispose](): void {
		this.close()
	}

	#size(force: number, plain: number, bytes: number): void {
		if (trySetsockopt(this.fd, SOL_SOCKET, force, bytes) < 0) trySetsockopt(this.fd, SOL_SOCKET, plain, bytes)
	}

	#take(): Buffer | undefined {
		const buffer = (datagram ??= Buffer.allocUnsafeSlow(datagramSize))
		const n = recv(this.fd, buffer, MSG_DONTWAIT | MSG_TRUNC)
		if (n === undefined) return undefined
		if (n > datagramSize) throw new Failure('EMSGSIZE', `Cannot read a netlink datagram of ${n} bytes`)
		return Buffer.from(buffer.subarray(0, n))
	}

	#replies(owed: number): NetlinkMessage[] {
		const data: NetlinkMessage[] = []
		const errors: NetlinkError[] = []
		let settled = 0
		// Drained to the end, also after an error: a reply left behind would be taken for the next request's.
		for (;;) {
			const next = this.#take()
			if (next === undefined) break
			for (const message of readMessages(next)) {
				if (message.type === NLMSG_ERROR) {
					settled++
					const errno = -message.body.readInt32LE(0)
					if (errno !== 0) errors.push(readError(message, errno))
				} else if (message.type === NLMSG_DONE) {
					settled++
					// The dump's own result: negative when it failed midway.
					const errno = message.body.length >= 4 ? -message.body.readInt32LE(0) : 0
					if (errno > 0) errors.push({ sequence: message.sequence, errno })
				} else if (message.type !== NLMSG_NOOP) data.push(message)
			}
		}
		if (errors.length > 0) throw netlinkFailure(errors)
		if (settled < owed) {
			throw new Failure('EPROTO', `The kernel answered ${settled} of ${owed} netlink messages`)
		}
		return data
	}
}

function countAcks(bytes: Uint8Array): number {
	const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
	let acks = 0
	for (const message of readMessages(view)) if ((message.flags & NLM_F_ACK) !== 0) acks++
	return acks
}

function readError(message: NetlinkMessage, errno: number): NetlinkError {
	const { body } = message
	let text: string | undefined
	let offset: number | undefined
	if ((message.flags & NLM_F_ACK_TLVS) !== 0) {
		// struct nlmsgerr: the errno, the header of the request, and its payload unless capped.
		const from = 4 + ((message.flags & NLM_F_CAPPED) !== 0 ? 16 : (body.readUInt32LE(4) + 3) & ~3)
		eachAttribute(body, from, (type, value) => {
			if (type === 1) text = readString(value)
			else if (type === 2) offset = value.readUInt32LE(0)
		})
	}
	return {
		sequence: body.readUInt32LE(12),
		errno,
		...(text === undefined ? {} : { text }),
		...(offset === undefined ? {} : { offset }),
	}
}

function netlinkFailure(errors: readonly NetlinkError[]): Failure {
	const first = errors[0] as NetlinkError
	const code = errnoName(first.errno)
	const why = first.text === undefined ? '' : `: ${first.text}`
	const more = errors.length > 1 ? ` (and ${errors.length - 1} more)` : ''
	return new Failure(code, `The kernel refused a netlink message: ${errnoText(first.errno)} (${code})${why}${more}`, {
		errno: first.errno,
		sequence: first.sequence,
		errors,
	})
}
