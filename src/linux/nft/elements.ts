// Elements of sets to netlink and back. A load is mostly elements (200,000 for 50,000 Services), so they are written by
// hand into one buffer; the attributes and their order are those nft sends.

import { elementsOf } from '../netlink/decode.ts'
import { commentData, commentLimit, readComment } from './comment.ts'
import { type Field, fieldWriter, keyLength, printFields, writeFields } from './datatype.ts'
import { readVerdict } from './expr/immediate.ts'
import { parseVerdict } from './expr/lookup.ts'
import type { NftElement, NftSet } from './program.ts'
import { ELEMENT, ELEMENT_FLAG, verdictCodes } from './wire.ts'

/** Largest list of elements in one message: a nested attribute has 16 bits of length, an element at most 1 KiB here. */
const listLimit = 60000
/** Most bytes of one: two keys and data of 64 bytes, a comment, twice for the two ends of an interval. */
const elementLimit = 1024
const NESTED = 0x8000

export type ElementSet = Pick<NftSet, 'name' | 'key' | 'data' | 'flags'>

/** Collects elements of one set until they fill a message. */
export class ElementWriter {
	readonly #set: ElementSet
	readonly #keyBytes: number
	readonly #dataBytes: number
	readonly #interval: boolean
	readonly #concatenated: boolean
	readonly #writeKey: ReturnType<typeof fieldWriter>
	readonly #writeData: ReturnType<typeof fieldWriter> | undefined
	readonly #buffer: Buffer
	#at = 0
	/** Where each element begins in the list, for the mapping of errors. */
	readonly starts: number[] = []

	/** `count`: how many elements will come, at most. */
	constructor(set: ElementSet, count = Number.POSITIVE_INFINITY) {
		this.#set = set
		this.#buffer = Buffer.allocUnsafe(Math.min(listLimit + elementLimit, count * elementLimit))
		this.#keyBytes = keyLength(set.key)
		this.#dataBytes = set.data === undefined || set.data === 'verdict' ? 0 : keyLength(set.data)
		this.#interval = set.flags.includes('interval')
		this.#concatenated = set.key.length > 1
		this.#writeKey = fieldWriter(set.key)
		this.#writeData = set.data === undefined || set.data === 'verdict' ? undefined : fieldWriter(set.data)
	}

	get full(): boolean {
		return this.#at >= listLimit
	}

	/** The list so far: a view, valid until the next add. The writer is empty after. */
	take(): Buffer {
		const list = this.#buffer.subarray(0, this.#at)
		this.#at = 0
		this.starts.length = 0
		return list
	}

	/** `keyOnly` for a deletion. Throws InvalidAddress where the text is not of the set's types. */
	add(key: string, element: NftElement, keyOnly = false): void {
		this.starts.push(this.#at)
		if (!this.#interval) {
			this.#element(key, undefined, element, keyOnly, 0)
			return
		}
		const { low, high } = bounds(this.#set.key, key)
		if (this.#concatenated) {
			this.#element(low, high, element, keyOnly, 0)
			return
		}
		this.#element(low, undefined, element, keyOnly, 0)
		const end = Buffer.alloc(this.#keyBytes)
		writeFields(this.#set.key, high, end, 0)
		// The end is the first value after the interval; none after the last value there is.
		if (increment(end)) this.#bytes(end, ELEMENT_FLAG.INTERVAL_END)
	}

	#bytes(key: Buffer, flags: number): void {
		const start = this.#open()
		this.#at = this.#value(ELEMENT.KEY, key)
		this.#flags(flags)
		this.#close(start)
	}

	#element(key: string, end: string | undefined, element: NftElement, keyOnly: boolean, flags: number): void {
		const start = this.#open()
		this.#text(ELEMENT.KEY, this.#writeKey, this.#keyBytes, key)
		if (end !== undefined) this.#text(ELEMENT.KEY_END, this.#writeKey, this.#keyBytes, end)
		if (flags !== 0) this.#flags(flags)
		if (!keyOnly) {
			if (this.#writeData !== undefined) this.#text(ELEMENT.DATA, this.#writeData, this.#dataBytes, element.data ?? '')
			else if (this.#set.data === 'verdict') this.#verdict(element.data ?? '')
			if (element.timeout !== undefined) {
				this.#header(12, ELEMENT.TIMEOUT)
				this.#at = this.#buffer.writeBigUInt64BE(BigInt(element.timeout), this.#at)
			}
			if (element.comment !== undefined) this.#comment(element.comment)
		}
		this.#close(start)
	}

	/** NFTA_SET_ELEM_USERDATA; as commentData, in place. */
	#comment(text: string): void {
		const head = this.#at
		let length = this.#buffer.write(text, head + 6, 'utf8')
		if (length > commentLimit) {
			const cut = commentData(text, 'element')
			cut.copy(this.#buffer, head + 4)
			length = cut.length - 3
		}
		this.#header(length + 7, ELEMENT.USERDATA)
		this.#buffer[this.#at++] = 0
		this.#buffer[this.#at++] = length + 1
		this.#at += length
		this.#buffer[this.#at++] = 0
		this.#pad()
	}

	#open(): number {
		const start = this.#at
		this.#at += 4
		return start
	}

	#close(start: number): void {
		const length = this.#at - start
		const b = this.#buffer
		b[start] = length
		b[start + 1] = length >>> 8
		b[start + 2] = 1
		b[start + 3] = NESTED >>> 8
	}

	#header(length: number, type: number): void {
		const b = this.#buffer
		b[this.#at++] = length
		b[this.#at++] = length >>> 8
		b[this.#at++] = type
		b[this.#at++] = type >>> 8
	}

	/** A nested { NFTA_DATA_VALUE } with the bytes of a text. */
	#text(type: number, write: ReturnType<typeof fieldWriter>, length: number, text: string): void {
		this.#header(8 + length, type | NESTED)
		this.#header(4 + length, 1)
		write(text, this.#buffer, this.#at)
		this.#at += length
		this.#pad()
	}

	#value(type: number, bytes: Buffer): number {
		this.#header(8 + bytes.length, type | NESTED)
		this.#header(4 + bytes.length, 1)
		bytes.copy(this.#buffer, this.#at)
		this.#at += bytes.length
		this.#pad()
		return this.#at
	}

	#flags(flags: number): void {
		this.#header(8, ELEMENT.FLAGS)
		this.#at = this.#buffer.writeUInt32BE(flags, this.#at)
	}

	#verdict(text: string): void {
		const { verdict, chain } = parseVerdict(text)
		if (verdict === 'reject') throw new Error('reject is not a verdict of a map')
		const name = chain === undefined ? undefined : Buffer.from(`${chain}\0`)
		const chainLength = name === undefined ? 0 : 4 + ((name.length + 3) & ~3)
		this.#header(4 + 4 + 8 + chainLength, ELEMENT.DATA | NESTED)
		this.#header(4 + 8 + chainLength, 2 | NESTED)
		this.#header(8, 1)
		this.#at = this.#buffer.writeInt32BE(verdictCodes[verdict], this.#at)
		if (name !== undefined) {
			this.#header(4 + name.length, 2)
			name.copy(this.#buffer, this.#at)
			this.#at += name.length
			this.#pad()
		}
	}

	#pad(): void {
		while ((this.#at & 3) !== 0) this.#buffer[this.#at++] = 0
	}
}

/** First and last value of an interval's text, part by part: `10.0.0.0/8 . 80-90`. */
export function bounds(fields: readonly Field[], text: string): { readonly low: string; readonly high: string } {
	const parts = text.split(' . ')
	const lows: string[] = []
	const highs: string[] = []
	for (const [i, part] of parts.entries()) {
		const slash = part.indexOf('/')
		const dash = part.indexOf('-')
		if (slash > 0) {
			const f = fields[i] as Field
			const bits = Number(part.slice(slash + 1))
			const bytes = Buffer.alloc(f.bytes)
			writeFields([f], part.slice(0, slash), bytes, 0)
			for (let k = 0; k < f.bytes; k++) {
				const keep = Math.min(8, Math.max(0, bits - k * 8))
				bytes[k] = (bytes[k] ?? 0) | (0xff >> keep)
			}
			lows.push(part.slice(0, slash))
			highs.push(printFields([f], bytes))
		} else if (dash > 0) {
			lows.push(part.slice(0, dash))
			highs.push(part.slice(dash + 1))
		} else {
			lows.push(part)
			highs.push(part)
		}
	}
	return { low: lows.join(' . '), high: highs.join(' . ') }
}

/** False on overflow: the value was the last one. Big-endian. */
function increment(bytes: Buffer): boolean {
	for (let i = bytes.length - 1; i >= 0; i--) {
		const next = ((bytes[i] ?? 0) + 1) & 0xff
		bytes[i] = next
		if (next !== 0) return true
	}
	return false
}

function decrement(bytes: Buffer): void {
	for (let i = bytes.length - 1; i >= 0; i--) {
		const byte = bytes[i] ?? 0
		bytes[i] = (byte - 1) & 0xff
		if (byte !== 0) return
	}
}

/** An interval as nft prints it: a prefix where it is one, else both ends. */
export function printInterval(f: Field, low: Buffer, high: Buffer): string {
	const first = printFields([f], low)
	if (low.equals(high)) return first
	if (f.type.endsWith('_addr')) {
		const mask = Buffer.alloc(low.length)
		for (let i = 0; i < low.length; i++) mask[i] = (low[i] ?? 0) ^ (high[i] ?? 0)
		// A prefix: the ends differ in trailing bits only, all 0 in the low end and all 1 in the high one.
		let host = 0n
		for (const byte of mask) host = (host << 8n) | BigInt(byte)
		let value = 0n
		for (const byte of low) value = (value << 8n) | BigInt(byte)
		if ((host & (host + 1n)) === 0n && (value & host) === 0n)
			return `${first}/${low.length * 8 - host.toString(2).length}`
	}
	return `${first}-${printFields([f], high)}`
}

export interface DecodedElement {
	readonly key: Buffer
	readonly keyEnd?: Buffer
	readonly end: boolean
	readonly element: NftElement
}

/** Reads NFTA_SET_ELEM_LIST_ELEMENTS of one message. Catch-all elements are left out (`*`, of maps only). */
export function decodeElements(set: ElementSet, list: Buffer): DecodedElement[] {
	const decoded: DecodedElement[] = []
	for (const body of elementsOf(list)) {
		let key: Buffer | undefined
		let keyEnd: Buffer | undefined
		let flags = 0
		let data: string | undefined
		let comment: string | undefined
		let timeout: number | undefined
		let expires: number | undefined
		for (let at = 0; at + 4 <= body.length; ) {
			const length = body.readUInt16LE(at)
			const value = body.subarray(at + 4, at + length)
			switch (body.readUInt16LE(at + 2) & 0x3fff) {
				case ELEMENT.KEY:
					key = value.subarray(4)
					break
				case ELEMENT.KEY_END:
					keyEnd = value.subarray(4)
					break
				case ELEMENT.FLAGS:
					flags = value.readUInt32BE(0)
					break
				case ELEMENT.DATA:
					data = decodeData(set, value)
					break
				case ELEMENT.USERDATA:
					comment = readComment(value, 'element')
					break
				case ELEMENT.TIMEOUT:
					timeout = Number(value.readBigUInt64BE(0))
					break
				case ELEMENT.EXPIRATION:
					expires = Number(value.readBigUInt64BE(0))
					break
				default:
					break
			}
			at += (length + 3) & ~3
		}
		if (key === undefined || (flags & ELEMENT_FLAG.CATCHALL) !== 0) continue
		decoded.push({
			key,
			...(keyEnd === undefined ? {} : { keyEnd }),
			end: (flags & ELEMENT_FLAG.INTERVAL_END) !== 0,
			element: {
				...(data === undefined ? {} : { data }),
				...(comment === undefined ? {} : { comment }),
				...(timeout === undefined ? {} : { timeout }),
				...(expires === undefined ? {} : { expires }),
			},
		})
	}
	return decoded
}

function decodeData(set: ElementSet, value: Buffer): string | undefined {
	if (set.data === undefined) return undefined
	if (set.data === 'verdict') {
		const { verdict, chain } = readVerdict(value.subarray(4))
		return chain === undefined ? verdict : `${verdict} ${chain}`
	}
	return printFields(set.data, value.subarray(4))
}

/** The text keys of what was decoded; the two halves of an interval become one. */
export function textKeys(set: ElementSet, decoded: readonly DecodedElement[]): (readonly [string, NftElement])[] {
	const interval = set.flags.includes('interval')
	if (!interval) return decoded.map((d) => [printFields(set.key, d.key), d.element] as const)
	if (set.key.length > 1) {
		return decoded.map((d) => {
			const parts: string[] = []
			let at = 0
			for (const f of set.key) {
				parts.push(printInterval(f, d.key.subarray(at, at + f.bytes), (d.keyEnd ?? d.key).subarray(at, at + f.bytes)))
				at += (f.bytes + 3) & ~3
			}
			return [parts.join(' . '), d.element] as const
		})
	}
	const only = set.key[0] as Field
	// An end sorts before a start of the same value: adjacent intervals.
	const sorted = [...decoded].sort((a, b) => Buffer.compare(a.key, b.key) || Number(b.end) - Number(a.end))
	const texts: (readonly [string, NftElement])[] = []
	for (const [i, d] of sorted.entries()) {
		if (d.end) continue
		const next = sorted[i + 1]
		const high = next === undefined ? Buffer.alloc(d.key.length, 0xff) : Buffer.from(next.key)
		if (next !== undefined) decrement(high)
		texts.push([printInterval(only, d.key, high), d.element])
	}
	return texts
}
