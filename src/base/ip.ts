// IP addresses and networks. One type each: a branded canonical string, so that equality is ===,
// a Map can be keyed by it, and JSON shows what a person would write. RFC 5952 for the IPv6 text form.

declare const ipBrand: unique symbol
declare const cidrBrand: unique symbol

/** An IPv4 or IPv6 address in canonical text (RFC 5952). Never a bare string past the edge. */
export type Ip = string & { readonly [ipBrand]: true }

/** A network `address/length` with the host bits zero, canonical text. */
export type Cidr = string & { readonly [cidrBrand]: true }

export type IpFamily = 4 | 6

export class InvalidAddress extends Error {
	readonly code = 'InvalidAddress'
}

/** 4 or 6. */
export function familyOf(ip: Ip | Cidr): IpFamily {
	return ip.includes(':') ? 6 : 4
}

/** Parses an address; refuses leading zeros (KEP-4858) and IPv4-mapped IPv6. Throws InvalidAddress. */
export function parseIp(text: string): Ip {
	const ip = tryParseIp(text)
	if (ip === undefined) throw new InvalidAddress(`Cannot read IP address ${JSON.stringify(text)}`)
	return ip
}

/** As parseIp, undefined where it would throw. */
export function tryParseIp(text: string): Ip | undefined {
	if (text.includes(':')) {
		const bytes = readIp6(text)
		return bytes === undefined ? undefined : ipFromBytes(bytes)
	}
	return readIp4(text) === undefined ? undefined : (text as Ip)
}

function readIp4(text: string): number | undefined {
	let value = 0
	let octet = -1
	let dots = 0
	for (let i = 0; i < text.length; i++) {
		const c = text.charCodeAt(i)
		if (c === 46) {
			if (octet < 0) return undefined
			value = value * 256 + octet
			octet = -1
			if (++dots > 3) return undefined
		} else if (c >= 48 && c <= 57) {
			if (octet === 0) return undefined
			octet = octet < 0 ? c - 48 : octet * 10 + (c - 48)
			if (octet > 255) return undefined
		} else return undefined
	}
	return dots === 3 && octet >= 0 ? value * 256 + octet : undefined
}

function readIp6(text: string): Uint8Array | undefined {
	const halves = text.split('::')
	if (halves.length > 2) return undefined
	const groups = (part: string): number[] | undefined => {
		if (part === '') return []
		const out: number[] = []
		const pieces = part.split(':')
		for (const [i, piece] of pieces.entries()) {
			if (i === pieces.length - 1 && piece.includes('.')) {
				const v4 = readIp4(piece)
				if (v4 === undefined) return undefined
				out.push(Math.floor(v4 / 65536), v4 % 65536)
			} else if (/^[0-9a-fA-F]{1,4}$/.test(piece)) out.push(Number.parseInt(piece, 16))
			else return undefined
		}
		return out
	}
	const head = groups(halves[0] ?? '')
	const tail = halves.length === 2 ? groups(halves[1] ?? '') : []
	if (head === undefined || tail === undefined) return undefined
	const missing = 8 - head.length - tail.length
	if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined
	const all = [...head, ...Array<number>(missing).fill(0), ...tail]
	const bytes = new Uint8Array(16)
	for (const [i, group] of all.entries()) {
		bytes[i * 2] = group >> 8
		bytes[i * 2 + 1] = group & 255
	}
	return bytes
}

/** Network byte order: 4 bytes for IPv4, 16 for IPv6. */
export function ipToBytes(ip: Ip): Uint8Array {
	if (familyOf(ip) === 6) return readIp6(ip) as Uint8Array
	const bytes = new Uint8Array(4)
	let at = 0
	let octet = 0
	for (let i = 0; i < ip.length; i++) {
		const c = ip.charCodeAt(i)
		if (c === 46) {
			bytes[at++] = octet
			octet = 0
		} else octet = octet * 10 + (c - 48)
	}
	bytes[at] = octet
	return bytes
}

/** From 4 or 16 bytes in network order. Throws InvalidAddress on another length. */
export function ipFromBytes(bytes: Uint8Array): Ip {
	if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}` as Ip
	if (bytes.length !== 16) throw new InvalidAddress(`An IP address has 4 or 16 bytes, not ${bytes.length}`)
	const groups: number[] = []
	for (let i = 0; i < 16; i += 2) groups.push(((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0))
	// The longest run of two or more zero groups becomes "::"; the first of equals (RFC 5952 §4.2.3).
	let best = -1
	let length = 1
	for (let i = 0; i < 8; i++) {
		let n = 0
		while (i + n < 8 && groups[i + n] === 0) n++
		if (n > length) {
			best = i
			length = n
		}
		if (n > 0) i += n - 1
	}
	const hex = (part: number[]) => part.map((g) => g.toString(16)).join(':')
	if (best < 0) return hex(groups) as Ip
	return `${hex(groups.slice(0, best))}::${hex(groups.slice(best + length))}` as Ip
}

/** The address as an unsigned number of 32 or 128 bits. */
export function ipToBigInt(ip: Ip): bigint {
	let n = 0n
	for (const byte of ipToBytes(ip)) n = (n << 8n) | BigInt(byte)
	return n
}

export function ipFromBigInt(value: bigint, family: IpFamily): Ip {
	const bytes = new Uint8Array(family === 4 ? 4 : 16)
	let rest = value
	for (let i = bytes.length - 1; i >= 0; i--) {
		bytes[i] = Number(rest & 255n)
		rest >>= 8n
	}
	return ipFromBytes(bytes)
}

/** Parses `address/length`. Throws InvalidAddress, also when host bits are set unless `mask` says to clear them. */
export function parseCidr(text: string, options: { mask?: boolean } = {}): Cidr {
	const cidr = tryParseCidr(text, options)
	if (cidr === undefined) throw new InvalidAddress(`Cannot read CIDR ${JSON.stringify(text)}`)
	return cidr
}

export function tryParseCidr(text: string, options: { mask?: boolean } = {}): Cidr | undefined {
	const slash = text.indexOf('/')
	if (slash < 0) return undefined
	const ip = tryParseIp(text.slice(0, slash))
	const tail = text.slice(slash + 1)
	if (ip === undefined || !/^(0|[1-9]\d{0,2})$/.test(tail)) return undefined
	const length = Number(tail)
	const bits = familyOf(ip) === 4 ? 32 : 128
	if (length > bits) return undefined
	const network = maskIp(ip, length)
	if (network !== ip && options.mask !== true) return undefined
	return `${network}/${length}` as Cidr
}

export function maskIp(ip: Ip, length: number): Ip {
	const bytes = ipToBytes(ip)
	for (let i = 0; i < bytes.length; i++) {
		const keep = Math.min(8, Math.max(0, length - i * 8))
		bytes[i] = (bytes[i] ?? 0) & (0xff00 >> keep) & 0xff
	}
	return ipFromBytes(bytes)
}

/** The network of one address: /32 or /128. */
export function hostCidr(ip: Ip): Cidr {
	return `${ip}/${familyOf(ip) === 4 ? 32 : 128}` as Cidr
}

export function cidrAddress(cidr: Cidr): Ip {
	return cidr.slice(0, cidr.indexOf('/')) as Ip
}

export function cidrLength(cidr: Cidr): number {
	return Number(cidr.slice(cidr.indexOf('/') + 1))
}

export function cidrContains(cidr: Cidr, ip: Ip): boolean {
	return familyOf(cidr) === familyOf(ip) && maskIp(ip, cidrLength(cidr)) === cidrAddress(cidr)
}

/** Number of addresses in the network. */
export function cidrSize(cidr: Cidr): bigint {
	return 1n << BigInt((familyOf(cidr) === 4 ? 32 : 128) - cidrLength(cidr))
}

/** The address `offset` places after the network address. Throws InvalidAddress outside the network. */
export function cidrNth(cidr: Cidr, offset: bigint): Ip {
	if (offset < 0n || offset >= cidrSize(cidr)) {
		throw new InvalidAddress(`Address ${offset} is outside ${cidr}`)
	}
	return ipFromBigInt(ipToBigInt(cidrAddress(cidr)) + offset, familyOf(cidr))
}
