// DNS messages on the wire: RFC 1035 §4 (format, compression), RFC 2782 (SRV), RFC 3596 (AAAA), RFC 6891 (EDNS0).
// Both directions are total: a packet of any bytes is decoded as far as it goes and says what is wrong with it.

import { type Ip, ipFromBytes, ipToBytes } from '../../base/ip.ts'
import type { RecordData } from '../../model/zone.ts'

export const typeCodes = { A: 1, NS: 2, CNAME: 5, SOA: 6, PTR: 12, TXT: 16, AAAA: 28, SRV: 33, ANY: 255 } as const
export type TypeName = keyof typeof typeCodes
const typeNames: ReadonlyMap<number, TypeName> = new Map(
	Object.entries(typeCodes).map(([name, code]) => [code, name as TypeName]),
)
const optCode = 41

export const rcodes = ['NOERROR', 'FORMERR', 'SERVFAIL', 'NXDOMAIN', 'NOTIMP', 'REFUSED'] as const
/** `RCODE16` and the like for those without a name here. */
export type Rcode = (typeof rcodes)[number] | `RCODE${number}`

export interface Question {
	/** Without the final dot, as it was asked (case kept); dots inside a label and other bytes escaped (RFC 1035 §5.1). */
	readonly name: string
	/** `A`, or `TYPE65` for those without a name here. */
	readonly type: TypeName | `TYPE${number}`
	/** 1 is IN. */
	readonly class: number
}

export type WireRecord = {
	readonly name: string
	readonly class: number
	/** Seconds. */
	readonly ttl: number
} & (RecordData | { readonly type: `TYPE${number}`; readonly data: Uint8Array })

/** The OPT pseudo-record. */
export interface Edns {
	/** The largest UDP message the sender takes. */
	readonly size: number
	readonly version: number
	readonly dnssecOk: boolean
}

export interface DnsMessage {
	readonly id: number
	readonly response: boolean
	readonly opcode: number
	readonly authoritative: boolean
	readonly truncated: boolean
	readonly recursionDesired: boolean
	readonly recursionAvailable: boolean
	readonly rcode: Rcode
	readonly questions: readonly Question[]
	readonly answers: readonly WireRecord[]
	readonly authorities: readonly WireRecord[]
	readonly additionals: readonly WireRecord[]
	readonly edns?: Edns
	/** What is wrong; the rest is what could be read before it. */
	readonly malformed?: string
}

class Malformed extends Error {}

/** A query for one name. `id` 0…65535. */
export function encodeQuery(
	name: string,
	type: TypeName,
	options: { readonly id?: number; readonly ednsSize?: number; readonly recursionDesired?: boolean } = {},
): Uint8Array {
	return encodeMessage({
		id: options.id ?? 0x5057,
		response: false,
		opcode: 0,
		authoritative: false,
		truncated: false,
		recursionDesired: options.recursionDesired ?? true,
		recursionAvailable: false,
		rcode: 'NOERROR',
		questions: [{ name: name.endsWith('.') ? name.slice(0, -1) : name, type, class: 1 }],
		answers: [],
		authorities: [],
		additionals: [],
		...(options.ednsSize === undefined ? {} : { edns: { size: options.ednsSize, version: 0, dnssecOk: false } }),
	})
}

/**
 * The bytes of a message, at most `limit` of them: records that do not fit are left out from the end, with the TC bit
 * where an answer or authority is missing (RFC 2181 §9). Names and texts that no message can hold throw RangeError.
 */
export function encodeMessage(message: DnsMessage, limit = 65535): Uint8Array {
	const writer = new Writer()
	writer.uint16(message.id)
	writer.uint16(0)
	for (let i = 0; i < 4; i++) writer.uint16(0)
	for (const question of message.questions) {
		writer.name(question.name)
		writer.uint16(codeOf(question.type))
		writer.uint16(question.class)
	}
	const rcode = rcodeNumber(message.rcode)
	const reserved = message.edns === undefined ? 0 : 11
	let truncated = message.truncated
	const section = (records: readonly WireRecord[]): number => {
		for (const [i, record] of records.entries()) {
			const before = writer.length
			writer.record(record)
			if (writer.length + reserved <= limit) continue
			writer.rewind(before)
			return i
		}
		return records.length
	}
	const answers = section(message.answers)
	const authorities = answers < message.answers.length ? 0 : section(message.authorities)
	if (answers < message.answers.length || authorities < message.authorities.length) truncated = true
	let additionals = truncated ? 0 : section(message.additionals)
	if (message.edns !== undefined) {
		writer.opt(message.edns, rcode >> 4)
		additionals++
	}
	const flags =
		(message.response ? 0x8000 : 0) |
		((message.opcode & 15) << 11) |
		(message.authoritative ? 0x0400 : 0) |
		(truncated ? 0x0200 : 0) |
		(message.recursionDesired ? 0x0100 : 0) |
		(message.recursionAvailable ? 0x0080 : 0) |
		(rcode & 15)
	return writer.finish([flags, message.questions.length, answers, authorities, additionals])
}

function codeOf(type: string): number {
	return typeCodes[type as TypeName] ?? Number(type.slice(4))
}

function rcodeNumber(rcode: Rcode): number {
	const at = (rcodes as readonly string[]).indexOf(rcode)
	return at >= 0 ? at : Number(rcode.slice(5))
}

class Writer {
	#bytes = new Uint8Array(512)
	#view = new DataView(this.#bytes.buffer)
	length = 0
	/** Where each name (suffix) was written, for pointers to it. */
	readonly #names = new Map<string, number>()

	#room(more: number): void {
		if (this.length + more <= this.#bytes.length) return
		const bytes = new Uint8Array(Math.max(this.#bytes.length * 2, this.length + more))
		bytes.set(this.#bytes.subarray(0, this.length))
		this.#bytes = bytes
		this.#view = new DataView(bytes.buffer)
	}
	uint8(value: number): void {
		this.#room(1)
		this.#bytes[this.length++] = value
	}
	uint16(value: number): void {
		this.#room(2)
		this.#view.setUint16(this.length, value)
		this.length += 2
	}
	uint32(value: number): void {
		this.#room(4)
		this.#view.setUint32(this.length, value)
		this.length += 4
	}
	bytes(value: Uint8Array): void {
		this.#room(value.length)
		this.#bytes.set(value, this.length)
		this.length += value.length
	}
	/** Suffixes are compared without case, so a record's name takes the case of the question. `compress`: SRV targets must not be pointers (RFC 2782), though every name may be pointed to. */
	name(name: string, compress = true): void {
		const labels = splitName(name)
		let octets = 1
		for (const label of labels) octets += label.length + 1
		if (octets > 255) throw new RangeError(`The name ${JSON.stringify(name)} has more than 255 octets`)
		for (const [i, label] of labels.entries()) {
			const suffix = labels.slice(i).map(comparable).join('')
			const known = this.#names.get(suffix)
			if (known !== undefined && compress) {
				this.uint16(0xc000 | known)
				return
			}
			if (known === undefined && this.length < 0x4000) this.#names.set(suffix, this.length)
			this.uint8(label.length)
			this.bytes(label)
		}
		this.uint8(0)
	}
	record(record: WireRecord): void {
		this.name(record.name)
		this.uint16(codeOf(record.type))
		this.uint16(record.class)
		this.uint32(record.ttl)
		this.uint16(0)
		const start = this.length
		this.#data(record)
		this.#view.setUint16(start - 2, this.length - start)
	}
	#data(record: WireRecord): void {
		switch (record.type) {
			case 'A':
			case 'AAAA':
				this.bytes(ipToBytes(record.address))
				break
			case 'NS':
			case 'CNAME':
			case 'PTR':
				this.name(record.target)
				break
			case 'SRV':
				this.uint16(record.priority)
				this.uint16(record.weight)
				this.uint16(record.port)
				this.name(record.target, false)
				break
			case 'TXT':
				for (const text of record.texts) {
					const bytes = new TextEncoder().encode(text)
					if (bytes.length > 255) throw new RangeError('A text of a TXT record has more than 255 octets')
					this.uint8(bytes.length)
					this.bytes(bytes)
				}
				break
			case 'SOA':
				this.name(record.primary)
				this.name(record.mailbox)
				for (const value of [record.serial, record.refresh, record.retry, record.expire, record.minimum])
					this.uint32(value)
				break
			default:
				this.bytes(record.data)
		}
	}
	opt(edns: Edns, extendedRcode: number): void {
		this.uint8(0)
		this.uint16(optCode)
		this.uint16(edns.size)
		this.uint8(extendedRcode)
		this.uint8(edns.version)
		this.uint16(edns.dnssecOk ? 0x8000 : 0)
		this.uint16(0)
	}
	rewind(length: number): void {
		this.length = length
		for (const [name, at] of this.#names) if (at >= length) this.#names.delete(name)
	}
	/** Flags and counts follow the id. */
	finish(words: readonly number[]): Uint8Array {
		for (const [i, word] of words.entries()) this.#view.setUint16(2 + i * 2, word)
		return this.#bytes.slice(0, this.length)
	}
}

/** A label with its length, A to Z in lower case; other octets differ as they are (RFC 4343). */
function comparable(label: Uint8Array): string {
	let text = String.fromCharCode(label.length)
	for (const octet of label) text += String.fromCharCode(octet >= 65 && octet <= 90 ? octet + 32 : octet)
	return text
}

/** The labels of a name in text form. Throws RangeError for labels that are empty or longer than 63 octets. */
export function splitName(name: string): Uint8Array[] {
	if (name === '') return []
	const labels: Uint8Array[] = []
	let label: number[] = []
	const end = () => {
		if (label.length === 0 || label.length > 63) {
			throw new RangeError(
				`A label of the name ${JSON.stringify(name)} has ${label.length} octets; it may have 1 to 63`,
			)
		}
		labels.push(Uint8Array.from(label))
		label = []
	}
	if (!/[^\x21-\x7e]|\\/.test(name)) {
		for (const part of name.split('.')) {
			for (let i = 0; i < part.length; i++) label.push(part.charCodeAt(i))
			end()
		}
		return labels
	}
	const bytes = new TextEncoder().encode(name)
	for (let i = 0; i < bytes.length; i++) {
		const byte = bytes[i]!
		if (byte === 46) end()
		else if (byte === 92) {
			const digits = /^\d{3}/.exec(String.fromCharCode(...bytes.subarray(i + 1, i + 4)))?.[0]
			if (digits !== undefined && Number(digits) < 256) {
				label.push(Number(digits))
				i += 3
			} else label.push(bytes[++i] ?? 92)
		} else label.push(byte)
	}
	end()
	return labels
}

/** What the bytes say, as far as they can be read; `malformed` says why no further. */
export function decodeMessage(bytes: Uint8Array): DnsMessage {
	const reader = new Reader(bytes)
	const questions: Question[] = []
	const sections: [WireRecord[], WireRecord[], WireRecord[]] = [[], [], []]
	let id = 0
	let flags = 0
	let edns: Edns | undefined
	let extended = 0
	let malformed: string | undefined
	try {
		id = reader.uint16()
		flags = reader.uint16()
		const counts = [reader.uint16(), reader.uint16(), reader.uint16(), reader.uint16()] as const
		for (let i = 0; i < counts[0]; i++) {
			questions.push({ name: reader.name(), type: typeOf(reader.uint16()), class: reader.uint16() })
		}
		for (const [i, section] of sections.entries()) {
			for (let n = 0; n < counts[i + 1]!; n++) {
				const record = reader.record()
				if (!('edns' in record)) section.push(record)
				else if (edns !== undefined) throw new Malformed('more than one OPT record')
				else {
					edns = record.edns
					extended = record.rcode
				}
			}
		}
		if (reader.at < bytes.length) malformed = `${bytes.length - reader.at} bytes follow the message`
	} catch (e) {
		if (!(e instanceof Malformed)) throw e
		malformed = e.message
	}
	const rcode = (extended << 4) | (flags & 15)
	return {
		id,
		response: (flags & 0x8000) !== 0,
		opcode: (flags >> 11) & 15,
		authoritative: (flags & 0x0400) !== 0,
		truncated: (flags & 0x0200) !== 0,
		recursionDesired: (flags & 0x0100) !== 0,
		recursionAvailable: (flags & 0x0080) !== 0,
		rcode: rcodes[rcode] ?? `RCODE${rcode}`,
		questions,
		answers: sections[0],
		authorities: sections[1],
		additionals: sections[2],
		...(edns === undefined ? {} : { edns }),
		...(malformed === undefined ? {} : { malformed }),
	}
}

function typeOf(code: number): Question['type'] {
	return typeNames.get(code) ?? `TYPE${code}`
}

class Reader {
	readonly #bytes: Uint8Array
	readonly #view: DataView
	at = 0
	constructor(bytes: Uint8Array) {
		this.#bytes = bytes
		this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
	}
	#take(count: number): number {
		const at = this.at
		if (at + count > this.#bytes.length)
			throw new Malformed(`the message ends at byte ${this.#bytes.length}, in the middle of a field`)
		this.at = at + count
		return at
	}
	uint16(): number {
		return this.#view.getUint16(this.#take(2))
	}
	uint32(): number {
		return this.#view.getUint32(this.#take(4))
	}
	name(): string {
		let text = ''
		let octets = 1
		let at = this.at
		/** Where the name goes on after the first pointer. */
		let after: number | undefined
		for (;;) {
			const length = this.#bytes[at]
			if (length === undefined) throw new Malformed('a name goes on past the end of the message')
			if (length === 0) {
				this.at = after ?? at + 1
				return text
			}
			if (length >= 0xc0) {
				const low = this.#bytes[at + 1]
				if (low === undefined) throw new Malformed('a name goes on past the end of the message')
				after ??= at + 2
				const target = ((length & 0x3f) << 8) | low
				// Backward only: so every chain of pointers ends.
				if (target >= at) throw new Malformed('a compressed name points forward or to itself')
				at = target
				continue
			}
			if (length > 63) throw new Malformed('a label has an unknown form')
			octets += length + 1
			if (octets > 255) throw new Malformed('a name has more than 255 octets')
			if (at + 1 + length > this.#bytes.length) throw new Malformed('a name goes on past the end of the message')
			if (text !== '') text += '.'
			for (let i = at + 1; i <= at + length; i++) text += textOf(this.#bytes[i]!)
			at += length + 1
		}
	}
	record(): WireRecord | { readonly edns: Edns; readonly rcode: number } {
		const name = this.name()
		const code = this.uint16()
		const cls = this.uint16()
		const ttl = this.uint32()
		const length = this.uint16()
		const start = this.#take(length)
		if (code === optCode) {
			const edns = { size: cls, version: (ttl >> 16) & 255, dnssecOk: (ttl & 0x8000) !== 0 }
			return { edns, rcode: ttl >>> 24 }
		}
		const end = this.at
		this.at = start
		// Only what lies inside the data may be read, but names in it may point before it.
		const inside = end === this.#bytes.length ? this : new Reader(this.#bytes.subarray(0, end))
		inside.at = start
		const data = inside.#data(code, end)
		if (inside.at !== end) throw new Malformed(`the data of a ${typeOf(code)} record has the wrong length`)
		this.at = end
		return { name, class: cls, ttl, ...data }
	}
	#data(code: number, end: number): RecordData | { type: `TYPE${number}`; data: Uint8Array } {
		const type = typeOf(code)
		switch (type) {
			case 'A':
			case 'AAAA':
				return { type, address: this.#ip(type === 'A' ? 4 : 16) }
			case 'NS':
			case 'CNAME':
			case 'PTR':
				return { type, target: this.name() }
			case 'SRV':
				return { type, priority: this.uint16(), weight: this.uint16(), port: this.uint16(), target: this.name() }
			case 'TXT': {
				const texts: string[] = []
				while (this.at < end) {
					const length = this.#bytes[this.#take(1)]!
					const start = this.#take(length)
					texts.push(new TextDecoder().decode(this.#bytes.subarray(start, start + length)))
				}
				return { type, texts }
			}
			case 'SOA':
				return {
					type,
					primary: this.name(),
					mailbox: this.name(),
					serial: this.uint32(),
					refresh: this.uint32(),
					retry: this.uint32(),
					expire: this.uint32(),
					minimum: this.uint32(),
				}
			default: {
				const start = this.#take(end - this.at)
				return { type: `TYPE${code}`, data: this.#bytes.slice(start, end) }
			}
		}
	}
	#ip(length: number): Ip {
		const start = this.#take(length)
		return ipFromBytes(this.#bytes.subarray(start, start + length))
	}
}

/** One octet of a label in text form: dots and backslashes escaped, what is not printable as \DDD. */
function textOf(byte: number): string {
	if (byte === 46 || byte === 92) return `\\${String.fromCharCode(byte)}`
	return byte > 32 && byte < 127 ? String.fromCharCode(byte) : `\\${String(byte).padStart(3, '0')}`
}
