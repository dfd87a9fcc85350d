// Netlink messages, written into one growing buffer so that a batch of any size goes to the kernel in one send().
// Numbers are in host order (little-endian machines only) unless the name says be. Layout: man 7 netlink.

export const NLM_F_REQUEST = 1
export const NLM_F_MULTI = 2
export const NLM_F_ACK = 4
export const NLM_F_DUMP_INTR = 0x10
export const NLM_F_DUMP = 0x300
/** Modifiers of NEW requests. */
export const NLM_F_REPLACE = 0x100
export const NLM_F_EXCL = 0x200
export const NLM_F_CREATE = 0x400
export const NLM_F_APPEND = 0x800
export const NLA_F_NESTED = 0x8000
export const NLA_F_NET_BYTEORDER = 0x4000

/** Position of an open nested attribute. */
export type Mark = number

/**
 * Appends messages: `begin(type, flags)`, family header by `raw`, attributes, `end()`. Methods return the encoder.
 * Writing past the limits of the format (an attribute over 65,535 bytes) is our bug: an Error.
 */
export class NetlinkEncoder {
	/** Messages begun since the last reset. */
	messages = 0
	/** Acknowledgements or dump ends the kernel owes for them. */
	acks = 0
	/** Sequence number of the last message; each message has its own. */
	sequence = 0
	#bytes: Buffer
	#length = 0
	#start = 0

	constructor(size = 4096) {
		this.#bytes = Buffer.allocUnsafeSlow(size)
	}

	/** Bytes written. */
	get length(): number {
		return this.#length
	}

	/** The messages written so far: a view, valid until the next write. */
	bytes(): Buffer {
		return this.#bytes.subarray(0, this.#length)
	}

	/** Forgets the messages, keeps the memory and the sequence. */
	reset(): this {
		this.#length = 0
		this.messages = 0
		this.acks = 0
		return this
	}

	/** Opens a message; NLM_F_REQUEST is added. */
	begin(type: number, flags: number): this {
		this.#grow(16)
		this.#start = this.#length
		this.sequence = (this.sequence + 1) >>> 0
		this.messages++
		if ((flags & NLM_F_ACK) !== 0 || (flags & NLM_F_DUMP) === NLM_F_DUMP) this.acks++
		const b = this.#bytes
		const at = this.#length
		this.#put32(at, 16)
		b[at + 4] = type
		b[at + 5] = type >>> 8
		const all = flags | NLM_F_REQUEST
		b[at + 6] = all
		b[at + 7] = all >>> 8
		this.#put32(at + 8, this.sequence)
		this.#put32(at + 12, 0)
		this.#length += 16
		return this
	}

	/** Closes the message: writes its length. */
	end(): this {
		this.#put32(this.#start, this.#length - this.#start)
		return this
	}

	/** Bytes as they are, padded with zeros to a multiple of 4: a family header. */
	raw(bytes: Uint8Array): this {
		const padded = (bytes.length + 3) & ~3
		this.#grow(padded)
		this.#bytes.set(bytes, this.#length)
		this.#length += bytes.length
		this.#pad(padded - bytes.length)
		return this
	}

	/** struct nfgenmsg, the header of every nfnetlink message; `resource` goes in network order. */
	nfgen(family: number, resource = 0): this {
		this.#grow(4)
		const b = this.#bytes
		b[this.#length++] = family
		b[this.#length++] = 0
		b[this.#length++] = resource >>> 8
		b[this.#length++] = resource
		return this
	}

	attr(type: number, value: Uint8Array): this {
		this.#header(type, value.length)
		this.#bytes.set(value, this.#length)
		this.#length += value.length
		this.#pad(-value.length & 3)
		return this
	}

	/** An attribute without a value. */
	flag(type: number): this {
		this.#header(type, 0)
		return this
	}

	u8(type: number, value: number): this {
		this.#header(type, 1)
		this.#bytes[this.#length++] = value
		this.#pad(3)
		return this
	}

	u16(type: number, value: number): this {
		this.#header(type, 2)
		this.#bytes[this.#length++] = value
		this.#bytes[this.#length++] = value >>> 8
		this.#pad(2)
		return this
	}

	u16be(type: number, value: number): this {
		this.#header(type, 2)
		this.#bytes[this.#length++] = value >>> 8
		this.#bytes[this.#length++] = value
		this.#pad(2)
		return this
	}

	/** Negative numbers are written in two's complement. */
	u32(type: number, value: number): this {
		this.#header(type, 4)
		this.#put32(this.#length, value)
		this.#length += 4
		return this
	}

	u32be(type: number, value: number): this {
		this.#header(type, 4)
		const b = this.#bytes
		b[this.#length++] = value >>> 24
		b[this.#length++] = value >>> 16
		b[this.#length++] = value >>> 8
		b[this.#length++] = value
		return this
	}

	u64(type: number, value: bigint): this {
		this.#header(type, 8)
		this.#length = this.#bytes.writeBigUInt64LE(BigInt.asUintN(64, value), this.#length)
		return this
	}

	u64be(type: number, value: bigint): this {
		this.#header(type, 8)
		this.#length = this.#bytes.writeBigUInt64BE(BigInt.asUintN(64, value), this.#length)
		return this
	}

	/** UTF-8 with the closing zero byte. */
	string(type: number, value: string): this {
		const size = Buffer.byteLength(value) + 1
		this.#header(type, size)
		this.#bytes.write(value, this.#length, 'utf8')
		this.#length += size - 1
		this.#bytes[this.#length++] = 0
		this.#pad(-size & 3)
		return this
	}

	/** Opens a nested attribute; `close` it with the returned mark. */
	nest(type: number, flag: number = NLA_F_NESTED): Mark {
		const mark = this.#length
		this.#header(type | flag, 0)
		return mark
	}

	close(mark: Mark): this {
		const size = this.#length - mark
		if (size > 65535) throw new Error(`a netlink attribute has at most 65535 bytes, this one has ${size}`)
		this.#bytes[mark] = size
		this.#bytes[mark + 1] = size >>> 8
		return this
	}

	#header(type: number, size: number): void {
		if (size > 65531) throw new Error(`a netlink attribute has at most 65535 bytes, this one has ${size + 4}`)
		this.#grow(size + 8)
		const b = this.#bytes
		b[this.#length++] = size + 4
		b[this.#length++] = (size + 4) >>> 8
		b[this.#length++] = type
		b[this.#length++] = type >>> 8
	}

	#put32(at: number, value: number): void {
		const b = this.#bytes
		b[at] = value
		b[at + 1] = value >>> 8
		b[at + 2] = value >>> 16
		b[at + 3] = value >>> 24
	}

	#pad(count: number): void {
		for (let i = 0; i < count; i++) this.#bytes[this.#length++] = 0
	}

	#grow(more: number): void {
		const need = this.#length + more
		if (need <= this.#bytes.length) return
		const larger = Buffer.allocUnsafeSlow(Math.max(this.#bytes.length * 2, need))
		larger.set(this.#bytes.subarray(0, this.#length))
		this.#bytes = larger
	}
}
