// Netlink messages, read: split a datagram into messages, walk attributes. Numbers in host order are little-endian:
// `value.readUInt32LE(0)`; nfnetlink writes most of its numbers in network order: `value.readUInt32BE(0)`.

export const NLMSG_NOOP = 1
export const NLMSG_ERROR = 2
export const NLMSG_DONE = 3

export interface NetlinkMessage {
	readonly type: number
	readonly flags: number
	readonly sequence: number
	/** What follows the 16-byte header: the family header, then attributes. */
	readonly body: Buffer
}

/** Splits one datagram. The bodies are views: copy the datagram first if its buffer is used again. */
export function readMessages(datagram: Buffer): NetlinkMessage[] {
	const messages: NetlinkMessage[] = []
	let at = 0
	while (at + 16 <= datagram.length) {
		const length = datagram.readUInt32LE(at)
		if (length < 16 || at + length > datagram.length) {
			throw new Error(`a netlink message of ${length} bytes does not fit its datagram (${datagram.length - at} left)`)
		}
		messages.push({
			type: datagram.readUInt16LE(at + 4),
			flags: datagram.readUInt16LE(at + 6),
			sequence: datagram.readUInt32LE(at + 8),
			body: datagram.subarray(at + 16, at + length),
		})
		at += (length + 3) & ~3
	}
	return messages
}

/** Calls `visit` for every attribute from `offset` on; the type comes without its flag bits. */
export function eachAttribute(body: Buffer, offset: number, visit: (type: number, value: Buffer) => void): void {
	let at = offset
	while (at + 4 <= body.length) {
		const length = body.readUInt16LE(at)
		if (length < 4 || at + length > body.length) {
			throw new Error(`a netlink attribute of ${length} bytes does not fit (${body.length - at} left)`)
		}
		visit(body.readUInt16LE(at + 2) & 0x3fff, body.subarray(at + 4, at + length))
		at += (length + 3) & ~3
	}
}

/** Attributes by type; of several with one type (list elements) the last. */
export function attributesOf(body: Buffer, offset = 0): Map<number, Buffer> {
	const all = new Map<number, Buffer>()
	eachAttribute(body, offset, (type, value) => all.set(type, value))
	return all
}

/** The values of a nested list in order, whatever type each element has. */
export function elementsOf(body: Buffer, offset = 0): Buffer[] {
	const all: Buffer[] = []
	eachAttribute(body, offset, (_, value) => all.push(value))
	return all
}

/** Text up to the closing zero byte. */
export function readString(value: Buffer): string {
	const end = value.indexOf(0)
	return value.toString('utf8', 0, end < 0 ? value.length : end)
}
