// Sets of addresses and ports that iptables rules look up (`-m set`), and the nfnetlink messages that make, fill, list
// and swap them. Attributes: linux/netfilter/ipset/ip_set.h, protocol 7 (kernel 5.10 and later; 6 before); the text of
// an entry is that of ipset(8).

import { type Cidr, cidrContains, familyOf, type Ip, type IpFamily, ipFromBytes, ipToBytes } from '../../base/ip.ts'
import { attributesOf, elementsOf, type NetlinkMessage, readString } from '../netlink/decode.ts'
import {
	NetlinkEncoder,
	NLA_F_NET_BYTEORDER,
	NLM_F_ACK,
	NLM_F_CREATE,
	NLM_F_DUMP,
	NLM_F_EXCL,
} from '../netlink/encode.ts'
import { NETLINK_NETFILTER, NetlinkSocket } from '../netlink/socket.ts'
import { AF_INET, AF_INET6 } from '../syscalls.ts'

export type SetType = 'hash:ip' | 'hash:ip,port' | 'hash:ip,port,ip' | 'hash:ip,port,net' | 'bitmap:port'

export interface SetHeader {
	/** At most 31 characters. */
	readonly name: string
	readonly type: SetType
	/** bitmap:port has none: its entries are of every family. */
	readonly family?: IpFamily
}

export interface IpSet extends SetHeader {
	/** As ipset prints them: `10.96.0.1,tcp:80`, `10.0.0.1,udp:53,10.0.0.0/8`, `30080`. */
	readonly entries: readonly string[]
}

export type SetProtocol = 'tcp' | 'udp' | 'sctp'

/** The parts of an entry. */
export interface SetEntry {
	readonly ip?: Ip
	readonly protocol?: SetProtocol
	readonly port?: number
	readonly ip2?: Ip
	readonly net?: Cidr
}

const subsystem = 6 << 8
const command = { create: 2, destroy: 3, flush: 4, swap: 6, list: 7, add: 9, del: 10 } as const
const attribute = {
	protocol: 1,
	name: 2,
	type: 3,
	name2: 3,
	revision: 4,
	family: 5,
	data: 7,
	adt: 8,
	lineno: 9,
} as const
const data = {
	ip: 1,
	cidr: 3,
	port: 4,
	portTo: 5,
	proto: 7,
	ip2: 20,
	cidr2: 21,
	maxElements: 19,
	hashSize: 18,
} as const
const ipv4 = 1
const ipv6 = 2
const protocolVersion = 6
const protocolNumbers: Readonly<Record<SetProtocol, number>> = { tcp: 6, udp: 17, sctp: 132 }

/** kube-proxy's limits: a quarter of a million would not fit its default; ours may grow further. */
const maxElements = 1 << 20

// --- entries as text ---

export function writeEntry(type: SetType, entry: SetEntry): string {
	if (type === 'bitmap:port') return String(entry.port)
	if (type === 'hash:ip') return String(entry.ip)
	const head = `${entry.ip},${entry.protocol}:${entry.port}`
	if (type === 'hash:ip,port') return head
	return `${head},${type === 'hash:ip,port,ip' ? entry.ip2 : shortNet(entry.net)}`
}

/** A network of one address is printed as that address. */
function shortNet(net: Cidr | undefined): string {
	return net === undefined ? '' : net.replace(/^([^:]+)\/32$|^(.*:.*)\/128$/, '$1$2')
}

/** Throws an Error where the text is not an entry of the type. */
export function parseEntry(type: SetType, text: string): SetEntry {
	if (type === 'bitmap:port') return { port: Number(text) }
	const [ip = '', middle = '', last] = text.split(',')
	if (type === 'hash:ip') return { ip: ip as Ip }
	const match = /^(tcp|udp|sctp):(\d+)$/.exec(middle)
	if (match === null) throw new Error(`not an entry of a set of type ${type}: ${text}`)
	const head = { ip: ip as Ip, protocol: match[1] as SetProtocol, port: Number(match[2]) }
	if (type === 'hash:ip,port' || last === undefined) return head
	if (type === 'hash:ip,port,ip') return { ...head, ip2: last as Ip }
	const net = last.includes('/') ? last : `${last}/${last.includes(':') ? 128 : 32}`
	return { ...head, net: net as Cidr }
}

/** The entry that the fields of a packet are in. `dst,dst,src`: address, port, second address. */
export function findEntry(
	set: Pick<IpSet, 'type'> & { readonly entries: Pick<ReadonlySet<string>, 'has'> & Iterable<string> },
	fields: { readonly ip: Ip; readonly protocol: SetProtocol; readonly port: number; readonly ip2: Ip },
): string | undefined {
	const { type, entries } = set
	if (type === 'hash:ip,port,net') {
		// Few: source ranges of load balancers.
		for (const text of entries) {
			const e = parseEntry(type, text)
			const same = e.ip === fields.ip && e.protocol === fields.protocol && e.port === fields.port
			if (same && e.net !== undefined && cidrContains(e.net, fields.ip2)) return text
		}
		return undefined
	}
	const text = writeEntry(type, fields)
	return entries.has(text) ? text : undefined
}

// --- messages ---

function begin(e: NetlinkEncoder, cmd: number, flags: number, family: number): void {
	e.begin(subsystem | cmd, flags)
		.nfgen(family)
		.u8(attribute.protocol, protocolVersion)
}

function familyNumber(set: Pick<SetHeader, 'family'>): number {
	return set.family === 6 ? AF_INET6 : AF_INET
}

/** Makes an empty set; refused where one of the name is there. */
export function createSet(e: NetlinkEncoder, set: SetHeader): void {
	begin(e, command.create, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, familyNumber(set))
	e.string(attribute.name, set.name)
	e.string(attribute.type, set.type)
	// The first revision of each type has all that is used here; kernels keep it.
	e.u8(attribute.revision, revisions[set.type])
	e.u8(attribute.family, set.type === 'bitmap:port' ? 0 : familyNumber(set))
	const mark = e.nest(attribute.data)
	if (set.type === 'bitmap:port') {
		e.u16be(data.port | NLA_F_NET_BYTEORDER, 0)
		e.u16be(data.portTo | NLA_F_NET_BYTEORDER, 65535)
	} else {
		e.u32be(data.hashSize | NLA_F_NET_BYTEORDER, 1024)
		e.u32be(data.maxElements | NLA_F_NET_BYTEORDER, maxElements)
	}
	e.close(mark).end()
}

/** Oldest revision that has a comma-separated port with protocol. */
const revisions: Readonly<Record<SetType, number>> = {
	'hash:ip': 0,
	'hash:ip,port': 1,
	'hash:ip,port,ip': 1,
	'hash:ip,port,net': 2,
	'bitmap:port': 0,
}

/** Refused while a rule refers to it. */
export function destroySet(e: NetlinkEncoder, name: string): void {
	begin(e, command.destroy, NLM_F_ACK, AF_INET)
	e.string(attribute.name, name).end()
}

export function flushSet(e: NetlinkEncoder, name: string): void {
	begin(e, command.flush, NLM_F_ACK, AF_INET)
	e.string(attribute.name, name).end()
}

/** The two exchange what they hold: rules that refer to one see the other's entries at once. */
export function swapSets(e: NetlinkEncoder, a: string, b: string): void {
	begin(e, command.swap, NLM_F_ACK, AF_INET)
	e.string(attribute.name, a).string(attribute.name2, b).end()
}

/** Adds or deletes one entry. An entry that is there already (not there any more) is no error. */
export function changeEntry(e: NetlinkEncoder, op: 'add' | 'del', set: SetHeader, text: string): void {
	// Without NLM_F_EXCL the kernel ignores that it is there, or is not.
	begin(e, command[op], NLM_F_ACK, familyNumber(set))
	e.string(attribute.name, set.name)
	const mark = e.nest(attribute.data)
	const entry = parseEntry(set.type, text)
	if (entry.ip !== undefined) writeIp(e, data.ip, entry.ip)
	if (entry.port !== undefined) e.u16be(data.port | NLA_F_NET_BYTEORDER, entry.port)
	if (entry.protocol !== undefined) e.u8(data.proto, protocolNumbers[entry.protocol])
	if (entry.ip2 !== undefined) writeIp(e, data.ip2, entry.ip2)
	if (entry.net !== undefined) {
		const [ip = '', length] = entry.net.split('/')
		writeIp(e, data.ip2, ip as Ip)
		e.u8(data.cidr2, Number(length))
	}
	e.u32be(attribute.lineno | NLA_F_NET_BYTEORDER, 0)
	e.close(mark).end()
}

function writeIp(e: NetlinkEncoder, type: number, ip: Ip): void {
	const mark = e.nest(type)
	e.attr((familyOf(ip) === 4 ? ipv4 : ipv6) | NLA_F_NET_BYTEORDER, ipToBytes(ip))
	e.close(mark)
}

/**
 * What one message of a listing says of a set. A large one comes in several, of which only the first says what it is:
 * `known` has those that came before. Undefined: of a type not known here.
 */
export function decodeSet(
	message: Pick<NetlinkMessage, 'body'>,
	known: (name: string) => SetHeader | undefined = () => undefined,
): IpSet | undefined {
	const all = attributesOf(message.body, 4)
	const name = readString(all.get(attribute.name) ?? Buffer.alloc(0))
	const before = known(name)
	const type = before?.type ?? (readString(all.get(attribute.type) ?? Buffer.alloc(0)) as SetType)
	if (!(type in revisions)) return undefined
	const entries: string[] = []
	for (const element of elementsOf(all.get(attribute.adt) ?? Buffer.alloc(0))) {
		entries.push(writeEntry(type, decodeEntry(type, attributesOf(element))))
	}
	if (before !== undefined) return { ...before, entries }
	const family = all.get(attribute.family)?.[0] === AF_INET6 ? 6 : 4
	return { name, type, ...(type === 'bitmap:port' ? {} : { family }), entries }
}

function decodeEntry(type: SetType, all: ReadonlyMap<number, Buffer>): SetEntry {
	const ip = (key: number): Ip => {
		const nested = attributesOf(all.get(key) ?? Buffer.alloc(0))
		return ipFromBytes(nested.get(ipv4) ?? nested.get(ipv6) ?? Buffer.alloc(4))
	}
	const port = all.get(data.port)?.readUInt16BE(0) ?? 0
	if (type === 'bitmap:port') return { port }
	if (type === 'hash:ip') return { ip: ip(data.ip) }
	const number = all.get(data.proto)?.[0]
	const protocol = (Object.keys(protocolNumbers) as SetProtocol[]).find((p) => protocolNumbers[p] === number)
	const head = { ip: ip(data.ip), port, protocol: protocol ?? 'tcp' }
	if (type === 'hash:ip,port') return head
	if (type === 'hash:ip,port,ip') return { ...head, ip2: ip(data.ip2) }
	const address = ip(data.ip2)
	const length = all.get(data.cidr2)?.[0] ?? (familyOf(address) === 4 ? 32 : 128)
	return { ...head, net: `${address}/${length}` as Cidr }
}

/** ipset of the namespace the calling thread is in; it stays that one's. */
export class IpSets {
	readonly #socket: NetlinkSocket

	/** Throws Failure where the kernel has no ipset. */
	constructor() {
		this.#socket = new NetlinkSocket(NETLINK_NETFILTER, { sendBuffer: 1 << 20 })
	}

	/** Sends what `write` encodes. Throws the first refusal; the messages before and after it are in force. */
	request(write: (e: NetlinkEncoder) => void): void {
		const e = new NetlinkEncoder()
		write(e)
		if (e.messages > 0) this.#socket.request(e)
	}

	/** All sets of types known here, each whole. */
	list(): IpSet[] {
		const messages = this.#socket.dump((e) => {
			begin(e, command.list, NLM_F_DUMP, AF_INET)
			e.end()
		})
		const sets = new Map<string, SetHeader & { entries: string[] }>()
		for (const message of messages) {
			const part = decodeSet(message, (name) => sets.get(name))
			if (part === undefined) continue
			const { entries, ...header } = part
			const known = sets.get(part.name)
			if (known === undefined) sets.set(part.name, { ...header, entries: [...entries] })
			else known.entries.push(...entries)
		}
		return [...sets.values()]
	}

	close(): void {
		this.#socket.close()
	}
}
