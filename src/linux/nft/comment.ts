// What nft keeps in the kernel beside the rules ("userdata"): comments of tables, chains, sets, elements and rules, and
// the expressions of `typeof` sets, so that `nft list ruleset` prints all of it. Type-length-value, one byte each.

import { dataType, type Field } from './datatype.ts'

/** nft refuses to load a longer comment again. Bytes, without the closing zero. */
export const commentLimit = 127

type Carrier = 'table' | 'chain' | 'rule' | 'set' | 'element'
const commentType: Record<Carrier, number> = { table: 0, chain: 0, rule: 0, set: 7, element: 0 }

/** One TLV with the text and its closing zero; text over the limit is cut at a character. */
export function commentData(text: string, carrier: Carrier): Buffer {
	let bytes = Buffer.from(text, 'utf8')
	if (bytes.length > commentLimit) {
		let end = commentLimit
		while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--
		bytes = bytes.subarray(0, end)
	}
	return Buffer.concat([Buffer.from([commentType[carrier], bytes.length + 1]), bytes, Buffer.from([0])])
}

export function readComment(userdata: Buffer | undefined, carrier: Carrier): string | undefined {
	if (userdata === undefined) return undefined
	for (const { type, value } of readTlvs(userdata)) {
		if (type === commentType[carrier] && value.length > 0 && value.at(-1) === 0)
			return value.toString('utf8', 0, value.length - 1)
	}
	return undefined
}

function readTlvs(bytes: Buffer): { readonly type: number; readonly value: Buffer }[] {
	const all: { type: number; value: Buffer }[] = []
	for (let at = 0; at + 2 <= bytes.length; ) {
		const length = bytes[at + 1] ?? 0
		if (at + 2 + length > bytes.length) break
		all.push({ type: bytes[at] ?? 0, value: bytes.subarray(at + 2, at + 2 + length) })
		at += 2 + length
	}
	return all
}

function tlv(type: number, ...parts: readonly Buffer[]): Buffer {
	const value = Buffer.concat(parts)
	if (value.length > 255) throw new Error(`userdata of type ${type} has ${value.length} bytes, at most 255 fit`)
	return Buffer.concat([Buffer.from([type, value.length]), value])
}

function u32(value: number): Buffer {
	const b = Buffer.alloc(4)
	b.writeUInt32LE(value >>> 0)
	return b
}

// Numbers of nft's own enums, as nft 1.0.6 stores them (found by creating each set with nft and reading it back).
const CONCAT = 13
const PAYLOAD = 7
const META = 9
const NUMGEN = 23
const protocolHeaders: Record<string, { readonly id: number; readonly fields: Record<string, number> }> = {
	ip: { id: 12, fields: { saddr: 11, daddr: 12 } },
	ip6: { id: 13, fields: { saddr: 8, daddr: 9 } },
	th: { id: 11, fields: { sport: 1, dport: 2 } },
}
const metaKeys: Record<string, number> = { mark: 3, iifname: 6, oifname: 7, l4proto: 16 }

/** The userdata of one `typeof` expression; undefined where its form is not known here. */
function typeofData(expression: string): Buffer | undefined {
	const [first = '', second = '', ...rest] = expression.split(' ')
	const header = protocolHeaders[first]
	if (header !== undefined) {
		const at = header.fields[second]
		if (at === undefined) return undefined
		return Buffer.concat([tlv(0, u32(PAYLOAD)), tlv(1, tlv(0, u32(header.id)), tlv(1, u32(at)))])
	}
	if (first === 'meta' || first === 'iifname' || first === 'oifname') {
		const key = metaKeys[first === 'meta' ? second : first]
		return key === undefined ? undefined : Buffer.concat([tlv(0, u32(META)), tlv(1, tlv(0, u32(key)))])
	}
	if (first === 'numgen' && rest[0] === 'mod') {
		const type = second === 'random' ? 1 : 0
		const offset = rest[2] === 'offset' ? Number(rest[3]) : 0
		return Buffer.concat([
			tlv(0, u32(NUMGEN)),
			tlv(1, tlv(0, u32(type)), tlv(1, u32(Number(rest[1]))), tlv(2, u32(offset))),
		])
	}
	return undefined
}

function typeofText(value: Buffer): string | undefined {
	const parts = new Map(readTlvs(value).map((t) => [t.type, t.value]))
	const kind = parts.get(0)
	const data = parts.get(1)
	if (kind?.length !== 4 || data === undefined) return undefined
	const numbers = new Map(readTlvs(data).map((t) => [t.type, t.value.length === 4 ? t.value.readUInt32LE() : 0]))
	switch (kind.readUInt32LE()) {
		case PAYLOAD: {
			for (const [name, header] of Object.entries(protocolHeaders)) {
				if (header.id !== numbers.get(0)) continue
				for (const [fieldName, at] of Object.entries(header.fields))
					if (at === numbers.get(1)) return `${name} ${fieldName}`
			}
			return undefined
		}
		case META: {
			const name = Object.keys(metaKeys).find((key) => metaKeys[key] === numbers.get(0))
			if (name === undefined) return undefined
			return name === 'iifname' || name === 'oifname' ? name : `meta ${name}`
		}
		case NUMGEN: {
			const offset = numbers.get(2) ?? 0
			return `numgen ${numbers.get(0) === 1 ? 'random' : 'inc'} mod ${numbers.get(1)}${offset === 0 ? '' : ` offset ${offset}`}`
		}
		default:
			return undefined
	}
}

/** The typeof TLV of a key or data: of a concatenation without expressions an empty list, as nft writes it. */
function typeofTlv(type: number, fields: readonly Field[]): Buffer | undefined {
	const known = fields.map((f) => (f.expression === undefined ? undefined : typeofData(f.expression)))
	const complete = known.every((data) => data !== undefined)
	if (fields.length === 1) return complete ? tlv(type, known[0] as Buffer) : undefined
	const list = complete ? known.map((data, i) => tlv(i, data as Buffer)) : []
	return tlv(type, tlv(0, u32(CONCAT)), tlv(1, ...list))
}

function byteOrder(fields: readonly Field[]): number {
	if (fields.length > 1) return 0
	return dataType((fields[0] as Field).type).order === 'host' ? 1 : 2
}

/** NFTA_SET_USERDATA as nft writes it; the kernel keeps it unread, nft needs it to print the set. */
export function setUserdata(
	key: readonly Field[],
	data: readonly Field[] | 'verdict' | undefined,
	comment?: string,
): Buffer {
	const parts = [tlv(0, u32(byteOrder(key)))]
	if (data !== undefined) parts.push(tlv(1, u32(data === 'verdict' ? 0 : byteOrder(data))))
	const keyOf = typeofTlv(3, key)
	if (keyOf !== undefined) parts.push(keyOf)
	// nft prints `typeof` only when the key and the data both have it; the data of a concatenated type alone gets none.
	if (data !== undefined && data !== 'verdict' && data.every((f) => f.expression !== undefined)) {
		const dataOf = typeofTlv(4, data)
		if (dataOf !== undefined) parts.push(dataOf)
	}
	if (data !== undefined) parts.push(tlv(6, u32(0)))
	if (comment !== undefined) parts.push(commentData(comment, 'set'))
	return Buffer.concat(parts)
}

/** The typeof expressions stored with a set, one a field; undefined where there are none or one is not known here. */
export function readTypeof(userdata: Buffer | undefined, part: 'key' | 'data'): string[] | undefined {
	const value =
		userdata === undefined ? undefined : readTlvs(userdata).find((t) => t.type === (part === 'key' ? 3 : 4))?.value
	if (value === undefined) return undefined
	const parts = new Map(readTlvs(value).map((t) => [t.type, t.value]))
	const kind = parts.get(0)
	if (kind?.length === 4 && kind.readUInt32LE() === CONCAT) {
		const texts = readTlvs(parts.get(1) ?? Buffer.alloc(0)).map((t) => typeofText(t.value))
		return texts.length > 0 && texts.every((t) => t !== undefined) ? (texts as string[]) : undefined
	}
	const text = typeofText(value)
	return text === undefined ? undefined : [text]
}
