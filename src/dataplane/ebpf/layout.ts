// The maps of this data plane and the form of their keys and values: the one place that knows the bytes. Addresses and
// ports are in network order, all else in the machine's (little-endian).

import { familyOf, type Ip, type IpFamily, ipFromBytes, ipToBytes } from '../../base/ip.ts'
import type { Protocol } from '../../base/packet.ts'
import { kernelBuffer, type MapDeclaration } from '../../linux/bpf/system.ts'
import type { Address, EbpfFrontend, EbpfNamespace } from './program.ts'

/** Protocols that sockets translate; SCTP has no hooks at its sockets. */
export const protocolNumbers = { TCP: 0, UDP: 1 } as const
export type SocketProtocol = keyof typeof protocolNumbers

export function isSocketProtocol(protocol: Protocol): protocol is SocketProtocol {
	return protocol === 'TCP' || protocol === 'UDP'
}

/**
 * A wide address: 16 bytes of IPv6 (IPv4 as ::ffff:a.b.c.d, as sockets of both families write it), port, two bytes
 * more. The `frontends4` key is the end of the wide form: address at +12, port at +16, protocol and chunk at +18.
 */
export const wide = { bytes: 20, ip4: 12, port: 16, more: 18 } as const

/** Of a frontend's key: the protocol in the upper two bits, in the others the number of the chunk. */
export const protocolShift = 14
export const chunkMask = (1 << protocolShift) - 1

/** A value of `frontends4` and `frontends6`: this header, then so many endpoints. Every chunk has the header. */
export const header = { bytes: 8, count: 0, flags: 2, affinity: 4 } as const
/** Pods are left to packets: they need a masquerade. */
export const NODE_ONLY = 1
/** Some pod of this node is one of the endpoints: see `members`. */
export const OWN_ENDPOINTS = 2
export const mostEndpoints = 0xffff

/** An endpoint is its address, its port, and padding. The value's size fills one slab of the kernel (128, 192). */
export const chunks = {
	4: { endpoints: 7, bytes: 8, port: 4 },
	6: { endpoints: 5, bytes: 20, port: 16 },
} as const

/** A value of `namespaces`. */
export const place = { bytes: 24, kind: 0, ip4: 4, ip6: 8, pod: 1, node: 2 } as const

/** A value of `clients` and `datagrams`: wide endpoint, padding, nanoseconds since boot until which it counts. */
export const choice = { bytes: 32, until: 24 } as const
/** A key of them: wide frontend, padding, cookie. */
export const chooser = { bytes: 32, cookie: 24 } as const
/** A key of `replies`: cookie, wide endpoint, padding. */
export const reply = { bytes: 32, endpoint: 8 } as const
/** A value of `peers`: whose it is (a socket's cookie, 0: nobody's), wide endpoint, wide frontend. */
export const peer = { bytes: 48, cookie: 0, endpoint: 8, frontend: 28 } as const
/**
 * A socket's place is its cookie modulo this, a power of two. Cookies are given one after the other, so that a place is
 * taken from a socket when so many others connected since: as an LRU map would, at a tenth of its cost.
 */
export const peerPlaces = 16_384
/** A key of `members`: wide frontend, wide endpoint. */
export const member = { bytes: 40, endpoint: 20 } as const

const commentBytes = 128
/** Of each LRU map; the least used ones give way, and choose again. */
const remembered = 8192

const frontendsOf = (family: IpFamily) => {
	const { endpoints, bytes } = chunks[family]
	// 8 + 7 × 8 = 64; 8 + 5 × 20 = 108, made 112.
	return Math.ceil((header.bytes + endpoints * bytes) / 8) * 8
}

export const mapNames = [
	'namespaces',
	'frontends4',
	'frontends6',
	'origins4',
	'origins6',
	'members',
	'clients',
	'datagrams',
	'replies',
	'peers',
] as const
export type MapName = (typeof mapNames)[number]

const declare = (
	keySize: number,
	valueSize: number,
	type: MapDeclaration['type'] = 'hash',
	capacity = 0,
): Omit<MapDeclaration, 'name'> => ({ type, keySize, valueSize, capacity })

/** Capacity 0: by what it is to hold. */
export const mapLayouts: Readonly<Record<MapName, Omit<MapDeclaration, 'name'>>> = {
	namespaces: declare(8, place.bytes),
	frontends4: declare(8, frontendsOf(4)),
	frontends6: declare(wide.bytes, frontendsOf(6)),
	origins4: declare(8, commentBytes),
	origins6: declare(wide.bytes, commentBytes),
	members: declare(member.bytes, 4),
	clients: declare(chooser.bytes, choice.bytes, 'lru-hash', remembered),
	datagrams: declare(chooser.bytes, choice.bytes, 'lru-hash', remembered),
	replies: declare(reply.bytes, wide.bytes, 'lru-hash', remembered),
	peers: declare(4, peer.bytes, 'array', peerPlaces),
}

// --- writing ---

/** The 4 or 16 bytes of an address, at `at`. */
export function writeIp(into: Uint8Array, at: number, ip: Ip): void {
	if (familyOf(ip) === 6) {
		into.set(ipToBytes(ip), at)
		return
	}
	// By hand: of 10,000 Services it is done 40,000 times.
	let octet = 0
	for (let i = 0; i < ip.length; i++) {
		const c = ip.charCodeAt(i)
		if (c === 46) {
			into[at++] = octet
			octet = 0
		} else octet = octet * 10 + (c - 48)
	}
	into[at] = octet
}

function writeWide(into: Uint8Array, at: number, ip: Ip, port: number, more: number): void {
	if (familyOf(ip) === 4) {
		into.fill(0, at, at + 10)
		into[at + 10] = 0xff
		into[at + 11] = 0xff
		writeIp(into, at + wide.ip4, ip)
	} else writeIp(into, at, ip)
	into[at + wide.port] = port >> 8
	into[at + wide.port + 1] = port & 255
	into[at + wide.more] = more & 255
	into[at + wide.more + 1] = more >> 8
}

/** The key of a frontend's chunk in its family's map. */
export function writeFrontendKey(into: Uint8Array, at: number, frontend: FrontendId, chunk: number): void {
	const more = (protocolNumbers[frontend.protocol] << protocolShift) | chunk
	if (familyOf(frontend.ip) === 6) {
		writeWide(into, at, frontend.ip, frontend.port, more)
		return
	}
	writeIp(into, at, frontend.ip)
	into[at + 4] = frontend.port >> 8
	into[at + 5] = frontend.port & 255
	into[at + 6] = more & 255
	into[at + 7] = more >> 8
}

export type FrontendId = Pick<EbpfFrontend, 'ip' | 'port' | 'protocol'>

export function chunksOf(frontend: Pick<EbpfFrontend, 'ip' | 'endpoints'>): number {
	return Math.ceil(frontend.endpoints.length / chunks[familyOf(frontend.ip)].endpoints)
}

/** A chunk's value; `into` is zero there. */
export function writeChunk(into: Uint8Array, at: number, frontend: EbpfFrontend, chunk: number): void {
	const { endpoints: size, bytes, port } = chunks[familyOf(frontend.ip)]
	const { endpoints, affinity = 0 } = frontend
	const flags = (frontend.nodeOnly === true ? NODE_ONLY : 0) | (hasOwn(frontend) ? OWN_ENDPOINTS : 0)
	into[at] = endpoints.length & 255
	into[at + 1] = endpoints.length >> 8
	into[at + header.flags] = flags
	into[at + header.affinity] = affinity & 255
	into[at + header.affinity + 1] = (affinity >> 8) & 255
	into[at + header.affinity + 2] = affinity >> 16
	const last = Math.min(endpoints.length, (chunk + 1) * size)
	let place = at + header.bytes
	for (let i = chunk * size; i < last; i++) {
		const endpoint = endpoints[i] as Address
		writeIp(into, place, endpoint.ip)
		into[place + port] = endpoint.port >> 8
		into[place + port + 1] = endpoint.port & 255
		place += bytes
	}
}

/** Port 0 among the members: a pod of this node by its address alone. */
function hasOwn(frontend: EbpfFrontend): boolean {
	return frontend.members.some((m) => m.port === 0)
}

export function memberKey(frontend: FrontendId, endpoint: Address): Uint8Array<ArrayBuffer> {
	const key = kernelBuffer(member.bytes)
	writeWide(key, 0, frontend.ip, frontend.port, protocolNumbers[frontend.protocol] << protocolShift)
	writeWide(key, member.endpoint, endpoint.ip, endpoint.port, 0)
	return key
}

export function cookieKey(cookie: bigint): Uint8Array<ArrayBuffer> {
	const key = kernelBuffer(8)
	new DataView(key.buffer).setBigUint64(0, cookie, true)
	return key
}

export function namespaceValue(namespace: Pick<EbpfNamespace, 'place' | 'ips'>): Uint8Array<ArrayBuffer> {
	const value = kernelBuffer(place.bytes)
	value[place.kind] = place[namespace.place]
	for (const ip of [...namespace.ips].reverse()) writeIp(value, familyOf(ip) === 4 ? place.ip4 : place.ip6, ip)
	return value
}

/** A comment that is too long loses its end; originComment writes none that is. `into` is zero there. */
export function writeComment(into: Buffer, at: number, comment: string): void {
	into.write(comment, at, commentBytes - 1, 'utf8')
}

// --- reading ---

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

function readWide(bytes: Uint8Array, at: number): Address & { readonly more: number } {
	const view = viewOf(bytes)
	const mapped = view.getUint32(at + 8) === 0xffff && view.getBigUint64(at) === 0n
	return {
		ip: ipFromBytes(mapped ? bytes.subarray(at + wide.ip4, at + 16) : bytes.subarray(at, at + 16)),
		port: view.getUint16(at + wide.port),
		more: view.getUint16(at + wide.more, true),
	}
}

function identify(ip: Ip, port: number, more: number): { readonly id: FrontendId; readonly chunk: number } {
	const protocol = more >> protocolShift === protocolNumbers.UDP ? 'UDP' : 'TCP'
	return { id: { ip, port, protocol }, chunk: more & chunkMask }
}

export function readFrontendKey(bytes: Uint8Array, family: IpFamily): ReturnType<typeof identify> {
	if (family === 6) {
		const { ip, port, more } = readWide(bytes, 0)
		return identify(ip, port, more)
	}
	const view = viewOf(bytes)
	return identify(ipFromBytes(bytes.subarray(0, 4)), view.getUint16(4), view.getUint16(6, true))
}

export interface Chunk {
	/** Of the whole frontend. */
	readonly count: number
	readonly nodeOnly: boolean
	readonly affinity: number
	readonly endpoints: readonly Address[]
}

export function readChunk(bytes: Uint8Array, family: IpFamily, chunk: number): Chunk {
	const view = viewOf(bytes)
	const form = chunks[family]
	const count = view.getUint16(header.count, true)
	const endpoints: Address[] = []
	for (let i = 0; i < Math.min(form.endpoints, count - chunk * form.endpoints); i++) {
		const at = header.bytes + i * form.bytes
		const port = view.getUint16(at + form.port)
		endpoints.push({ ip: ipFromBytes(bytes.subarray(at, at + form.port)), port })
	}
	return {
		count,
		nodeOnly: (view.getUint8(header.flags) & NODE_ONLY) !== 0,
		affinity: view.getUint32(header.affinity, true),
		endpoints,
	}
}

export function readMember(bytes: Uint8Array): { readonly id: FrontendId; readonly endpoint: Address } {
	const frontend = readWide(bytes, 0)
	const { ip, port } = readWide(bytes, member.endpoint)
	return { id: identify(frontend.ip, frontend.port, frontend.more).id, endpoint: { ip, port } }
}

export function readNamespace(bytes: Uint8Array): Pick<EbpfNamespace, 'place' | 'ips'> {
	const ips: Ip[] = []
	const view = viewOf(bytes)
	if (view.getUint32(place.ip4) !== 0) ips.push(ipFromBytes(bytes.subarray(place.ip4, place.ip4 + 4)))
	const six = bytes.subarray(place.ip6, place.ip6 + 16)
	if (six.some((b) => b !== 0)) ips.push(ipFromBytes(six))
	return { place: view.getUint32(place.kind, true) === place.node ? 'node' : 'pod', ips }
}

export function readComment(bytes: Uint8Array): string {
	const end = bytes.indexOf(0)
	return Buffer.from(bytes.subarray(0, end < 0 ? bytes.length : end)).toString('utf8')
}

export interface Remembered {
	readonly cookie: bigint
	readonly id: FrontendId
	readonly endpoint: Address
	/** Nanoseconds since boot. */
	readonly until: bigint
}

/** An element of `clients`. */
export function readRemembered(key: Uint8Array, value: Uint8Array): Remembered {
	const frontend = readWide(key, 0)
	const { ip, port } = readWide(value, 0)
	return {
		cookie: viewOf(key).getBigUint64(chooser.cookie, true),
		id: identify(frontend.ip, frontend.port, frontend.more).id,
		endpoint: { ip, port },
		until: viewOf(value).getBigUint64(choice.until, true),
	}
}

export function chooserKey(cookie: bigint, frontend: FrontendId): Uint8Array<ArrayBuffer> {
	const key = kernelBuffer(chooser.bytes)
	writeWide(key, 0, frontend.ip, frontend.port, protocolNumbers[frontend.protocol] << protocolShift)
	new DataView(key.buffer).setBigUint64(chooser.cookie, cookie, true)
	return key
}

export function choiceValue(endpoint: Address, until: bigint): Uint8Array<ArrayBuffer> {
	const value = kernelBuffer(choice.bytes)
	writeWide(value, 0, endpoint.ip, endpoint.port, 0)
	new DataView(value.buffer).setBigUint64(choice.until, until, true)
	return value
}
