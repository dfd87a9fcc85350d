// Data types of set keys, map data and packet fields, as nft names them: their number, width, byte order and text.
// Elements are kept as the text nft prints; these functions turn it into register bytes and back.

import { InvalidAddress, ipFromBytes, ipToBytes, tryParseIp } from '../../base/ip.ts'

export interface DataType {
	readonly name: string
	/** nft's own number (its enum datatypes), stored in the kernel only for listings. */
	readonly id: number
	/** Bytes of a value; 0: whatever the expression has. */
	readonly bytes: number
	/** Byte order of the value in a register. */
	readonly order: 'big' | 'host'
	readonly symbols?: Readonly<Record<string, number>>
	/** Elements nft prints on a line of a listing. */
	readonly perLine: number
	readonly style: 'ip' | 'number' | 'hex' | 'string' | 'mac'
	/** Flags joined by commas. */
	readonly bitmask?: true
}

function number(name: string, id: number, bytes: number, order: 'big' | 'host', perLine: number): DataType {
	return { name, id, bytes, order, perLine, style: 'number' }
}

function symbols(base: DataType, table: Record<string, number>): DataType {
	return { ...base, symbols: table }
}

export const protocols = {
	ip: 0,
	icmp: 1,
	igmp: 2,
	tcp: 6,
	udp: 17,
	dccp: 33,
	esp: 50,
	ah: 51,
	'ipv6-icmp': 58,
	comp: 108,
	sctp: 132,
	udplite: 136,
} as const

const list: readonly DataType[] = [
	symbols(number('nf_proto', 2, 1, 'host', 5), { ipv4: 2, ipv6: 10 }),
	number('integer', 4, 0, 'host', 5),
	{ name: 'string', id: 5, bytes: 0, order: 'host', perLine: 1, style: 'string' },
	{ name: 'ipv4_addr', id: 7, bytes: 4, order: 'big', perLine: 2, style: 'ip' },
	{ name: 'ipv6_addr', id: 8, bytes: 16, order: 'big', perLine: 1, style: 'ip' },
	{ name: 'ether_addr', id: 9, bytes: 6, order: 'big', perLine: 1, style: 'mac' },
	symbols(number('ether_type', 10, 2, 'big', 1), { ip: 0x800, arp: 0x806, ip6: 0x86dd, '8021q': 0x8100 }),
	symbols(number('inet_proto', 12, 1, 'big', 5), protocols),
	number('inet_service', 13, 2, 'big', 5),
	symbols(number('icmp_type', 14, 1, 'big', 1), {
		'echo-reply': 0,
		'destination-unreachable': 3,
		'source-quench': 4,
		redirect: 5,
		'echo-request': 8,
		'router-advertisement': 9,
		'router-solicitation': 10,
		'time-exceeded': 11,
		'parameter-problem': 12,
		'timestamp-request': 13,
		'timestamp-reply': 14,
	}),
	{
		...symbols(number('tcp_flag', 15, 1, 'host', 5), {
			fin: 1,
			syn: 2,
			rst: 4,
			psh: 8,
			ack: 16,
			urg: 32,
			ecn: 64,
			cwr: 128,
		}),
		bitmask: true,
	},
	{ name: 'mark', id: 19, bytes: 4, order: 'host', perLine: 5, style: 'hex' },
	number('iface_index', 20, 4, 'host', 5),
	number('uid', 24, 4, 'host', 5),
	number('gid', 25, 4, 'host', 5),
	{
		...symbols(number('ct_state', 26, 4, 'host', 2), {
			invalid: 1,
			established: 2,
			related: 4,
			new: 8,
			untracked: 64,
		}),
		bitmask: true,
	},
	symbols(number('ct_dir', 27, 1, 'host', 5), { original: 0, reply: 1 }),
	{
		...symbols(number('ct_status', 28, 4, 'host', 2), {
			expected: 1,
			'seen-reply': 2,
			assured: 4,
			confirmed: 8,
			snat: 16,
			dnat: 32,
			dying: 512,
		}),
		bitmask: true,
	},
	symbols(number('icmpv6_type', 29, 1, 'big', 1), {
		'destination-unreachable': 1,
		'packet-too-big': 2,
		'time-exceeded': 3,
		'parameter-problem': 4,
		'echo-request': 128,
		'echo-reply': 129,
		'nd-router-solicit': 133,
		'nd-router-advert': 134,
		'nd-neighbor-solicit': 135,
		'nd-neighbor-advert': 136,
		'nd-redirect': 137,
	}),
	symbols(number('pkt_type', 31, 1, 'host', 2), { host: 0, unicast: 0, broadcast: 1, multicast: 2, other: 3 }),
	symbols(number('fib_addrtype', 38, 4, 'host', 1), {
		unspec: 0,
		unicast: 1,
		local: 2,
		broadcast: 3,
		anycast: 4,
		multicast: 5,
		blackhole: 6,
		unreachable: 7,
		prohibit: 8,
	}),
	symbols(number('boolean', 39, 1, 'host', 1), { exists: 1, missing: 0 }),
	{ name: 'ifname', id: 41, bytes: 16, order: 'host', perLine: 1, style: 'string' },
]

const byName = new Map(list.map((type) => [type.name, type]))
const byId = new Map(list.map((type) => [type.id, type]))

/** Throws on a name this table lacks: our bug. */
export function dataType(name: string): DataType {
	const type = byName.get(name)
	if (type === undefined) throw new Error(`unknown nftables data type ${JSON.stringify(name)}`)
	return type
}

export function dataTypeById(id: number): DataType | undefined {
	return byId.get(id)
}

/** One part of a set's key or data. */
export interface Field {
	readonly type: string
	/** Bytes of the value, without the padding to words inside a concatenation. */
	readonly bytes: number
	/** The expression of a `typeof` declaration: `ip daddr`. */
	readonly expression?: string
}

/** `integer` needs the length. */
export function field(type: string, expression?: string, bytes = dataType(type).bytes): Field {
	return { type, bytes, ...(expression === undefined ? {} : { expression }) }
}

/** Bytes of a key: a lone field as it is, each field of a concatenation padded to 4. */
export function keyLength(fields: readonly Field[]): number {
	const [only] = fields
	if (fields.length === 1 && only !== undefined) return only.bytes
	return fields.reduce((sum, f) => sum + ((f.bytes + 3) & ~3), 0)
}

/** The kernel's number of a (concatenated) type: 6 bits a field. */
export function typeNumber(fields: readonly Field[]): number {
	return fields.reduce((id, f) => (id << 6) | dataType(f.type).id, 0) >>> 0
}

/** The fields of a type number, high bits first; undefined where it holds a type unknown here. */
export function fieldsOfType(id: number, length: number): Field[] | undefined {
	const types: DataType[] = []
	for (let rest = id; rest !== 0; rest = Math.floor(rest / 64)) {
		const type = byId.get(rest & 63)
		if (type === undefined) return undefined
		types.unshift(type)
	}
	if (types.length === 0) return undefined
	if (types.length === 1) return [{ type: (types[0] as DataType).name, bytes: length }]
	// A single part without a width of its own gets what the others leave.
	const known = types.reduce((sum, t) => sum + ((t.bytes + 3) & ~3), 0)
	const open = types.filter((t) => t.bytes === 0).length
	const each = open === 0 ? 0 : (length - known) / open
	return types.map((t) => ({ type: t.name, bytes: t.bytes === 0 ? each : t.bytes }))
}

/** Writes the value that text[from…to) spells; false where it is not of the type. */
type Writer = (text: string, from: number, to: number, into: Buffer, at: number) => boolean

const writers = new Map<string, Writer>()

/** The writer of a field, made once: an element's text is read in place, without cutting it into parts. */
function writerOf(f: Field): Writer {
	const key = `${f.type} ${f.bytes}`
	let writer = writers.get(key)
	if (writer === undefined) {
		writer = makeWriter(dataType(f.type), f.bytes)
		writers.set(key, writer)
	}
	return writer
}

function makeWriter(type: DataType, size: number): Writer {
	switch (type.style) {
		case 'ip':
			return size === 4 ? writeIp4 : writeIp6
		case 'string':
			return (text, from, to, into, at) => {
				const part = text.slice(from, to)
				const bare = part.startsWith('"') && part.endsWith('"') ? part.slice(1, -1) : part
				if (Buffer.byteLength(bare) > size) return false
				into.fill(0, at, at + size)
				into.write(bare, at, 'utf8')
				return true
			}
		case 'mac':
			return (text, from, to, into, at) => {
				const parts = text.slice(from, to).split(':')
				if (parts.length !== 6 || !parts.every((p) => /^[0-9a-fA-F]{2}$/.test(p))) return false
				for (const [i, p] of parts.entries()) into[at + i] = Number.parseInt(p, 16)
				return true
			}
		case 'number':
		case 'hex': {
			const limit = 2 ** (8 * size)
			const big = type.order === 'big'
			return (text, from, to, into, at) => {
				let rest = readDecimal(text, from, to)
				if (rest < 0) {
					const value = readNumber(type, text.slice(from, to))
					if (value === undefined) return false
					rest = value
				}
				if (rest >= limit) return false
				for (let i = 0; i < size; i++) {
					into[big ? at + size - 1 - i : at + i] = rest % 256
					rest = Math.floor(rest / 256)
				}
				return true
			}
		}
		default: {
			const never: never = type.style
			throw new Error(`unknown style ${never}`)
		}
	}
}

/** Plain decimal digits; -1 for anything else. */
function readDecimal(text: string, from: number, to: number): number {
	if (from === to) return -1
	let value = 0
	for (let i = from; i < to; i++) {
		const c = text.charCodeAt(i)
		if (c < 48 || c > 57) return -1
		value = value * 10 + (c - 48)
	}
	return value
}

function readNumber(type: DataType, text: string): number | undefined {
	const first = text.charCodeAt(0)
	if (first >= 48 && first <= 57) {
		const value = Number(text)
		return Number.isSafeInteger(value) ? value : undefined
	}
	if (type.bitmask === true && text.includes(',')) {
		let value = 0
		for (const part of text.split(',')) {
			const bit = type.symbols?.[part]
			if (bit === undefined) return undefined
			value |= bit
		}
		return value
	}
	return type.symbols?.[text]
}

function writeIp4(text: string, from: number, to: number, into: Buffer, at: number): boolean {
	let octet = -1
	let out = at
	for (let i = from; i < to; i++) {
		const c = text.charCodeAt(i)
		if (c === 46) {
			if (octet < 0 || out >= at + 3) return false
			into[out++] = octet
			octet = -1
		} else if (c >= 48 && c <= 57) {
			octet = octet < 0 ? c - 48 : octet * 10 + (c - 48)
			if (octet > 255) return false
		} else return false
	}
	if (octet < 0 || out !== at + 3) return false
	into[out] = octet
	return true
}

function writeIp6(text: string, from: number, to: number, into: Buffer, at: number): boolean {
	const ip = tryParseIp(text.slice(from, to))
	if (ip === undefined) return false
	const bytes = ipToBytes(ip)
	if (bytes.length !== 16) return false
	into.set(bytes, at)
	return true
}

/** Text of one value as nft prints it. */
export function printValue(f: Field, bytes: Uint8Array): string {
	const type = dataType(f.type)
	switch (type.style) {
		case 'ip':
			return ipFromBytes(bytes.subarray(0, f.bytes))
		case 'string': {
			const end = bytes.indexOf(0)
			return `"${Buffer.from(bytes.subarray(0, end < 0 ? f.bytes : end)).toString('utf8')}"`
		}
		case 'mac':
			return [...bytes.subarray(0, 6)].map((b) => b.toString(16).padStart(2, '0')).join(':')
		case 'number':
		case 'hex':
			return printNumber(type, readUint(bytes, type.order, f.bytes))
		default: {
			const never: never = type.style
			return never
		}
	}
}

export function printNumber(type: DataType, value: number): string {
	if (type.symbols !== undefined) {
		const exact = symbolOf(type, value)
		if (exact !== undefined) return exact
		if (type.bitmask === true && value !== 0) {
			const names: string[] = []
			let rest = value
			for (const [name, bit] of Object.entries(type.symbols)) {
				if ((value & bit) === bit) {
					names.push(name)
					rest &= ~bit
				}
			}
			if (rest === 0) return names.join(',')
		}
		if (type.bitmask === true) return `0x${value.toString(16)}`
	}
	return type.style === 'hex' ? `0x${value.toString(16).padStart(8, '0')}` : String(value)
}

function symbolOf(type: DataType, value: number): string | undefined {
	for (const [name, number] of Object.entries(type.symbols ?? {})) if (number === value) return name
	return undefined
}

/** Unsigned value of up to 6 bytes. */
export function readUint(bytes: Uint8Array, order: 'big' | 'host', length: number): number {
	let value = 0
	for (let i = 0; i < length; i++) value = value * 256 + (bytes[order === 'big' ? i : length - 1 - i] ?? 0)
	return value
}

/**
 * Writes the text of a key or data (`10.96.0.1 . tcp . 80`) into `into` at `at`: keyLength(fields) bytes, zeros in the
 * padding. Throws InvalidAddress where a part is not of its type.
 */
export function writeFields(fields: readonly Field[], text: string, into: Buffer, at: number): number {
	return fieldWriter(fields)(text, into, at)
}

/** writeFields for many texts of the same fields. */
export function fieldWriter(fields: readonly Field[]): (text: string, into: Buffer, at: number) => number {
	const writers = fields.map(writerOf)
	const sizes = fields.map((f) => f.bytes)
	const last = fields.length - 1
	return (text, into, at) => {
		let from = 0
		let out = at
		for (let i = 0; i <= last; i++) {
			const next = i === last ? text.length : text.indexOf(' . ', from)
			if (next < 0 || !(writers[i] as Writer)(text, from, next, into, out)) throw notOfType(text, fields)
			const size = sizes[i] as number
			out += size
			if (last > 0) for (let pad = size; (pad & 3) !== 0; pad++) into[out++] = 0
			from = next + 3
		}
		return out - at
	}
}

function notOfType(text: string, fields: readonly Field[]): InvalidAddress {
	return new InvalidAddress(
		`Cannot read ${JSON.stringify(text)} as ${fields.map((f) => f.type).join(' . ')} of an nftables set`,
	)
}

/** The text of a key or data. */
export function printFields(fields: readonly Field[], bytes: Uint8Array): string {
	if (fields.length === 1) return printValue(fields[0] as Field, bytes)
	let text = ''
	let at = 0
	for (const f of fields) {
		if (at > 0) text += ' . '
		text += printValue(f, bytes.subarray(at, at + f.bytes))
		at += (f.bytes + 3) & ~3
	}
	return text
}

/** How nft orders the elements of a listing: the unpadded bytes of a concatenation read as one little-endian number. */
export function sortKey(fields: readonly Field[], text: string): string {
	const bytes = Buffer.alloc(keyLength(fields))
	writeFields(fields, text, bytes, 0)
	if (fields.length === 1) {
		const only = fields[0] as Field
		const ordered = dataType(only.type).order === 'big' ? bytes : bytes.reverse()
		return ordered.toString('latin1')
	}
	const packed: number[] = []
	let at = 0
	for (const f of fields) {
		for (let i = 0; i < f.bytes; i++) packed.push(bytes[at + i] ?? 0)
		at += (f.bytes + 3) & ~3
	}
	return Buffer.from(packed.reverse()).toString('latin1')
}
