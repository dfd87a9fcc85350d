// Connection tracking by nfnetlink (ctnetlink): read, find and delete entries of one namespace.
// Reference: linux/netfilter/nfnetlink_conntrack.h. All numbers on the wire are in network order.

import { isFailure } from '../base/failure.ts'
import { familyOf, type Ip, ipFromBytes, ipToBytes } from '../base/ip.ts'
import type { Protocol } from '../base/packet.ts'
import { attributesOf, type NetlinkMessage } from './netlink/decode.ts'
import { NetlinkEncoder, NLM_F_ACK, NLM_F_DUMP } from './netlink/encode.ts'
import { NETLINK_NETFILTER, NetlinkSocket } from './netlink/socket.ts'
import { AF_INET, AF_INET6 } from './syscalls.ts'

const SUBSYSTEM = 1 << 8
const CT_NEW = SUBSYSTEM | 0
const CT_GET = SUBSYSTEM | 1
const CT_DELETE = SUBSYSTEM | 2

const CTA_TUPLE_ORIG = 1
const CTA_TUPLE_REPLY = 2
const CTA_STATUS = 3
const CTA_PROTOINFO = 4
const CTA_TIMEOUT = 7
const CTA_MARK = 8
const CTA_COUNTERS_ORIG = 9
const CTA_COUNTERS_REPLY = 10
const CTA_ID = 12
const CTA_FILTER = 25
const CTA_FILTER_ORIG_FLAGS = 1
const CTA_FILTER_REPLY_FLAGS = 2
const CTA_TUPLE_IP = 1
const CTA_TUPLE_PROTO = 2
const CTA_IP_V4_SRC = 1
const CTA_IP_V4_DST = 2
const CTA_IP_V6_SRC = 3
const CTA_IP_V6_DST = 4
const CTA_PROTO_NUM = 1
const CTA_PROTO_SRC_PORT = 2
const CTA_PROTO_DST_PORT = 3
const CTA_PROTO_ICMP_ID = 4
const CTA_PROTO_ICMP_TYPE = 5
const CTA_PROTO_ICMP_CODE = 6
const CTA_PROTOINFO_TCP = 1
const CTA_PROTOINFO_TCP_STATE = 1

/** Which fields of a tuple a dump is filtered by (kernel 5.8 on; an older one sends all, and we filter). */
const FILTER_SOURCE = 1 << 0
const FILTER_DESTINATION = 1 << 1
const FILTER_PROTOCOL = 1 << 3
const FILTER_SOURCE_PORT = 1 << 4
const FILTER_DESTINATION_PORT = 1 << 5

const IPS_ASSURED = 1 << 2
const IPS_SEEN_REPLY = 1 << 1
const IPS_SRC_NAT = 1 << 4
const IPS_DST_NAT = 1 << 5

const tcpStates = [
	'NONE',
	'SYN_SENT',
	'SYN_RECV',
	'ESTABLISHED',
	'FIN_WAIT',
	'CLOSE_WAIT',
	'LAST_ACK',
	'TIME_WAIT',
	'CLOSE',
	'SYN_SENT2',
]

const protocolNumbers = new Map<Protocol, number>([
	['ICMP', 1],
	['TCP', 6],
	['UDP', 17],
	['SCTP', 132],
])
const protocolNames = new Map<number, Protocol>([
	...[...protocolNumbers].map(([name, n]) => [n, name] as const),
	[58, 'ICMP'],
])

/** One direction of a connection. ICMP: the source port is the query's id, the destination port 0. */
export interface Tuple {
	readonly protocol: Protocol
	readonly source: Ip
	readonly sourcePort: number
	readonly destination: Ip
	readonly destinationPort: number
}

export interface Connection {
	readonly original: Tuple
	/** As replies come in: differs from the reversed original where an address was translated. */
	readonly reply: Tuple
	/** TCP only, as `conntrack -L` writes it: ESTABLISHED. */
	readonly state?: string
	readonly seenReply: boolean
	readonly assured: boolean
	readonly translated: { readonly source: boolean; readonly destination: boolean }
	/** Seconds until it is forgotten. */
	readonly timeout: number
	readonly mark: number
	readonly id: number
	/** Packets each way, where accounting is on (net.netfilter.nf_conntrack_acct). */
	readonly packets?: { readonly original: number; readonly reply: number }
}

export type TupleFilter = Partial<Tuple>

export interface ConnectionFilter {
	readonly original?: TupleFilter
	readonly reply?: TupleFilter
}

/** A socket for the functions below, in the calling thread's namespace. */
export function openConntrack(): NetlinkSocket {
	return new NetlinkSocket(NETLINK_NETFILTER, { receiveBuffer: 1 << 20 })
}

/** The connections a filter lets through, all without one; of `version`, which the addresses of the filter say, else 4. */
export function readConntrack(socket: NetlinkSocket, filter: ConnectionFilter = {}, version?: 4 | 6): Connection[] {
	const family = version === undefined ? filterFamily(filter) : version === 6 ? AF_INET6 : AF_INET
	const ask = (withFilter: boolean) =>
		socket
			.dump((e) => {
				e.begin(CT_GET, NLM_F_DUMP).nfgen(family)
				if (withFilter) writeFilter(e, filter)
				e.end()
			})
			.flatMap(decodeConnection)
			.filter((c) => matches(filter.original, c.original) && matches(filter.reply, c.reply))
	if (filter.original === undefined && filter.reply === undefined) return ask(false)
	try {
		return ask(true)
	} catch (e) {
		// A kernel that takes no such filter: everything, filtered here.
		if (isFailure(e, 'EOPNOTSUPP') || isFailure(e, 'EINVAL')) return ask(false)
		throw e
	}
}

/** The connection with this original tuple; undefined where the kernel knows none. */
export function findConnection(socket: NetlinkSocket, original: Tuple): Connection | undefined {
	const e = new NetlinkEncoder(256)
	e.begin(CT_GET, NLM_F_ACK).nfgen(tupleFamily(original))
	writeTuple(e, CTA_TUPLE_ORIG, original)
	e.end()
	try {
		return socket.request(e).flatMap(decodeConnection)[0]
	} catch (failure) {
		if (isFailure(failure, 'ENOENT')) return undefined
		throw failure
	}
}

/** Deletes connections by their original tuples; those already gone do not matter. Returns how many were there. */
export function deleteConnections(
	socket: NetlinkSocket,
	connections: Iterable<{ readonly original: Tuple; readonly id?: number }>,
): number {
	const e = new NetlinkEncoder(4096)
	let deleted = 0
	const flush = () => {
		const count = e.messages
		if (count === 0) return
		try {
			socket.request(e)
			deleted += count
		} catch (failure) {
			if (!isFailure(failure)) throw failure
			const errors = (failure.details.errors ?? []) as readonly { readonly errno: number }[]
			if (errors.length === 0 || errors.some((error) => error.errno !== 2)) throw failure
			deleted += count - errors.length
		}
	}
	for (const { original, id } of connections) {
		e.begin(CT_DELETE, NLM_F_ACK).nfgen(tupleFamily(original))
		writeTuple(e, CTA_TUPLE_ORIG, original)
		// With the id a newer connection that took the same tuple is left alone.
		if (id !== undefined) e.u32be(CTA_ID, id)
		e.end()
		if (e.messages === 200) flush()
	}
	flush()
	return deleted
}

/** Forgets every connection of the namespace. */
export function flushConntrack(socket: NetlinkSocket): void {
	const e = new NetlinkEncoder(64)
	for (const family of [AF_INET, AF_INET6]) e.begin(CT_DELETE, NLM_F_ACK).nfgen(family).end()
	socket.request(e)
}

export function decodeConnection(message: NetlinkMessage): Connection[] {
	if (message.type !== CT_NEW) return []
	const attributes = attributesOf(message.body, 4)
	const original = decodeTuple(attributes.get(CTA_TUPLE_ORIG))
	const reply = decodeTuple(attributes.get(CTA_TUPLE_REPLY))
	// Protocols beyond ours (GRE, DCCP) are no connection of a Service.
	if (original === undefined || reply === undefined) return []
	const number = (type: number) => attributes.get(type)?.readUInt32BE(0) ?? 0
	const status = number(CTA_STATUS)
	const state = tcpState(attributes.get(CTA_PROTOINFO))
	const sent = packetsOf(attributes.get(CTA_COUNTERS_ORIG))
	const received = packetsOf(attributes.get(CTA_COUNTERS_REPLY))
	return [
		{
			original,
			reply,
			...(state === undefined ? {} : { state }),
			seenReply: (status & IPS_SEEN_REPLY) !== 0,
			assured: (status & IPS_ASSURED) !== 0,
			translated: { source: (status & IPS_SRC_NAT) !== 0, destination: (status & IPS_DST_NAT) !== 0 },
			timeout: number(CTA_TIMEOUT),
			mark: number(CTA_MARK),
			id: number(CTA_ID),
			...(sent === undefined || received === undefined ? {} : { packets: { original: sent, reply: received } }),
		},
	]
}

function tcpState(info: Buffer | undefined): string | undefined {
	if (info === undefined) return undefined
	const tcp = attributesOf(info).get(CTA_PROTOINFO_TCP)
	const state = tcp === undefined ? undefined : attributesOf(tcp).get(CTA_PROTOINFO_TCP_STATE)
	return state === undefined ? undefined : tcpStates[state.readUInt8(0)]
}

function packetsOf(counters: Buffer | undefined): number | undefined {
	const packets = counters === undefined ? undefined : attributesOf(counters).get(1)
	return packets === undefined ? undefined : Number(packets.readBigUInt64BE(0))
}

function decodeTuple(value: Buffer | undefined): Tuple | undefined {
	if (value === undefined) return undefined
	const parts = attributesOf(value)
	const ips = parts.get(CTA_TUPLE_IP)
	const proto = parts.get(CTA_TUPLE_PROTO)
	if (ips === undefined || proto === undefined) return undefined
	const address = attributesOf(ips)
	const source = address.get(CTA_IP_V4_SRC) ?? address.get(CTA_IP_V6_SRC)
	const destination = address.get(CTA_IP_V4_DST) ?? address.get(CTA_IP_V6_DST)
	const fields = attributesOf(proto)
	const protocol = protocolNames.get(fields.get(CTA_PROTO_NUM)?.readUInt8(0) ?? 0)
	if (source === undefined || destination === undefined || protocol === undefined) return undefined
	const port = (type: number) => fields.get(type)?.readUInt16BE(0) ?? 0
	return {
		protocol,
		source: ipFromBytes(source),
		sourcePort: protocol === 'ICMP' ? port(CTA_PROTO_ICMP_ID) : port(CTA_PROTO_SRC_PORT),
		destination: ipFromBytes(destination),
		destinationPort: port(CTA_PROTO_DST_PORT),
	}
}

function writeTuple(e: NetlinkEncoder, type: number, tuple: TupleFilter): void {
	const outer = e.nest(type)
	if (tuple.source !== undefined || tuple.destination !== undefined) {
		const six = tupleFamily(tuple) === AF_INET6
		const ip = e.nest(CTA_TUPLE_IP)
		if (tuple.source !== undefined) e.attr(six ? CTA_IP_V6_SRC : CTA_IP_V4_SRC, ipToBytes(tuple.source))
		if (tuple.destination !== undefined) e.attr(six ? CTA_IP_V6_DST : CTA_IP_V4_DST, ipToBytes(tuple.destination))
		e.close(ip)
	}
	if (tuple.protocol !== undefined) {
		const proto = e.nest(CTA_TUPLE_PROTO)
		const six = tupleFamily(tuple) === AF_INET6
		e.u8(CTA_PROTO_NUM, tuple.protocol === 'ICMP' && six ? 58 : protocolNumber(tuple.protocol))
		if (tuple.protocol === 'ICMP') {
			// An echo request; the kernel keys on type and code as well.
			e.u16be(CTA_PROTO_ICMP_ID, tuple.sourcePort ?? 0)
				.u8(CTA_PROTO_ICMP_TYPE, 8)
				.u8(CTA_PROTO_ICMP_CODE, 0)
		} else {
			if (tuple.sourcePort !== undefined) e.u16be(CTA_PROTO_SRC_PORT, tuple.sourcePort)
			if (tuple.destinationPort !== undefined) e.u16be(CTA_PROTO_DST_PORT, tuple.destinationPort)
		}
		e.close(proto)
	}
	e.close(outer)
}

function writeFilter(e: NetlinkEncoder, filter: ConnectionFilter): void {
	// Ports only make sense to the kernel beside their protocol; ICMP ids are left to the check on our side.
	const flags = (tuple: TupleFilter | undefined): number => {
		if (tuple === undefined) return 0
		const ports = tuple.protocol !== undefined && tuple.protocol !== 'ICMP'
		return (
			(tuple.source === undefined ? 0 : FILTER_SOURCE) |
			(tuple.destination === undefined ? 0 : FILTER_DESTINATION) |
			(tuple.protocol === undefined ? 0 : FILTER_PROTOCOL) |
			(ports && tuple.sourcePort !== undefined ? FILTER_SOURCE_PORT : 0) |
			(ports && tuple.destinationPort !== undefined ? FILTER_DESTINATION_PORT : 0)
		)
	}
	if (filter.original !== undefined) writeTuple(e, CTA_TUPLE_ORIG, filter.original)
	if (filter.reply !== undefined) writeTuple(e, CTA_TUPLE_REPLY, filter.reply)
	const nest = e.nest(CTA_FILTER)
	e.u32(CTA_FILTER_ORIG_FLAGS, flags(filter.original)).u32(CTA_FILTER_REPLY_FLAGS, flags(filter.reply)).close(nest)
}

function matches(filter: TupleFilter | undefined, tuple: Tuple): boolean {
	if (filter === undefined) return true
	return (Object.keys(filter) as (keyof Tuple)[]).every(
		(key) => filter[key] === undefined || filter[key] === tuple[key],
	)
}

function filterFamily(filter: ConnectionFilter): number {
	return tupleFamily({ ...filter.reply, ...filter.original })
}

function tupleFamily(tuple: TupleFilter): number {
	const ip = tuple.source ?? tuple.destination
	return ip !== undefined && familyOf(ip) === 6 ? AF_INET6 : AF_INET
}

/** The IP protocol number: 6 for TCP. */
export function protocolNumber(protocol: Protocol): number {
	return protocolNumbers.get(protocol) as number
}
