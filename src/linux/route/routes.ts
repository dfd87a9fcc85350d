// Routes by rtnetlink. Reference: linux/rtnetlink.h, man 7 rtnetlink. Single-path routes only.

import { type Cidr, cidrAddress, cidrLength, familyOf, type Ip, ipFromBytes, ipToBytes } from '../../base/ip.ts'
import { attributesOf, type NetlinkMessage } from '../netlink/decode.ts'
import { type NetlinkEncoder, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE } from '../netlink/encode.ts'
import type { NetlinkSocket } from '../netlink/socket.ts'
import { AF_INET, AF_INET6 } from '../syscalls.ts'

const RTM_NEWROUTE = 24
const RTM_DELROUTE = 25
const RTM_GETROUTE = 26
const RTA_DST = 1
const RTA_OIF = 4
const RTA_GATEWAY = 5
const RTA_PRIORITY = 6
const RTA_PREFSRC = 7
const RTA_METRICS = 8
const RTA_MULTIPATH = 9
const RTA_TABLE = 15
const RTAX_MTU = 2
const RTNH_F_ONLINK = 4
const RTM_F_CLONED = 0x200
const SCOPE_LINK = 253
const SCOPE_UNIVERSE = 0
/** In a deletion: whatever its scope. */
const SCOPE_NOWHERE = 255

export const TABLE_MAIN = 254
export const TABLE_LOCAL = 255

/** Who made a route (/etc/iproute2/rt_protos). */
export const PROTOCOL_KERNEL = 2
export const PROTOCOL_BOOT = 3
export const PROTOCOL_STATIC = 4

const kinds = [
	'unspec',
	'unicast',
	'local',
	'broadcast',
	'anycast',
	'multicast',
	'blackhole',
	'unreachable',
	'prohibit',
] as const
export type RouteKind = (typeof kinds)[number] | 'other'

export interface KernelRoute {
	readonly kind: RouteKind
	readonly destination: Cidr
	readonly via?: Ip
	/** Index of the interface; undefined where the route has none (unreachable). */
	readonly index?: number
	readonly table: number
	readonly protocol: number
	readonly scope: number
	readonly source?: Ip
	readonly metric?: number
	readonly mtu?: number
	/** True where it spreads over several next hops, which are not decoded. */
	readonly multipath?: true
}

export interface RouteRequest {
	readonly destination: Cidr
	/** unicast unless set. */
	readonly kind?: 'unicast' | 'local' | 'unreachable' | 'blackhole' | 'prohibit'
	/** undefined: on link. */
	readonly via?: Ip
	readonly index?: number
	/** Takes `via` as reachable on the interface although no route says so. */
	readonly onlink?: boolean
	readonly table?: number
	readonly protocol?: number
	readonly source?: Ip
	readonly metric?: number
}

/** Adds a route, or replaces the one with the same destination and metric. */
export function addRoute(e: NetlinkEncoder, request: RouteRequest): void {
	const { kind = 'unicast', via } = request
	e.begin(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)
	// An on-link route has link scope, or the kernel does not take it as the way to another route's gateway.
	const scope = kind === 'unicast' && via === undefined ? SCOPE_LINK : SCOPE_UNIVERSE
	writeRoute(e, request, kinds.indexOf(kind), request.protocol ?? PROTOCOL_STATIC, scope)
}

/** Deletes the route with this destination and whatever else the request names. ESRCH where there is none. */
export function deleteRoute(e: NetlinkEncoder, request: RouteRequest): void {
	e.begin(RTM_DELROUTE, NLM_F_ACK)
	const kind = request.kind === undefined ? 0 : kinds.indexOf(request.kind)
	writeRoute(e, request, kind, request.protocol ?? 0, SCOPE_NOWHERE)
}

function writeRoute(e: NetlinkEncoder, request: RouteRequest, kind: number, protocol: number, scope: number): void {
	const { destination, via, table = TABLE_MAIN } = request
	const length = cidrLength(destination)
	const header = new Uint8Array(12)
	header[0] = familyOf(destination) === 6 ? AF_INET6 : AF_INET
	header[1] = length
	header[4] = table < 256 ? table : 0
	header[5] = protocol
	header[6] = scope
	header[7] = kind
	header[8] = request.onlink === true ? RTNH_F_ONLINK : 0
	e.raw(header)
	if (length > 0) e.attr(RTA_DST, ipToBytes(cidrAddress(destination)))
	if (via !== undefined) e.attr(RTA_GATEWAY, ipToBytes(via))
	if (request.index !== undefined) e.u32(RTA_OIF, request.index)
	if (request.metric !== undefined) e.u32(RTA_PRIORITY, request.metric)
	if (request.source !== undefined) e.attr(RTA_PREFSRC, ipToBytes(request.source))
	if (table >= 256) e.u32(RTA_TABLE, table)
	e.end()
}

/** All routes of the socket's namespace, of every table; without entries of the route cache. */
export function readRoutes(socket: NetlinkSocket): KernelRoute[] {
	return socket
		.dump((e) => e.begin(RTM_GETROUTE, NLM_F_DUMP).raw(new Uint8Array(12)).end())
		.filter((m) => (m.body.readUInt32LE(8) & RTM_F_CLONED) === 0)
		.flatMap(decodeRoute)
}

/** The route the kernel takes now for a packet to `ip` made on this machine. Throws Failure ENETUNREACH, EHOSTUNREACH. */
export function lookUpRoute(socket: NetlinkSocket, e: NetlinkEncoder, ip: Ip): KernelRoute | undefined {
	const bytes = ipToBytes(ip)
	const header = new Uint8Array(12)
	header[0] = bytes.length === 4 ? AF_INET : AF_INET6
	header[1] = bytes.length * 8
	e.begin(RTM_GETROUTE, 0).raw(header).attr(RTA_DST, bytes).end()
	const answer = socket.request(e)[0]
	return answer === undefined ? undefined : decodeRoute(answer)[0]
}

function decodeRoute(message: NetlinkMessage): KernelRoute[] {
	const { body } = message
	const family = body.readUInt8(0)
	if (family !== AF_INET && family !== AF_INET6) return []
	const attributes = attributesOf(body, 12)
	const number = (type: number) => attributes.get(type)?.readUInt32LE(0)
	const address = (type: number) => {
		const value = attributes.get(type)
		return value === undefined ? undefined : ipFromBytes(value)
	}
	const any = family === AF_INET ? '0.0.0.0' : '::'
	const via = address(RTA_GATEWAY)
	const index = number(RTA_OIF)
	const source = address(RTA_PREFSRC)
	const metric = number(RTA_PRIORITY)
	const metrics = attributes.get(RTA_METRICS)
	const mtu = metrics === undefined ? undefined : attributesOf(metrics).get(RTAX_MTU)?.readUInt32LE(0)
	return [
		{
			kind: kinds[body.readUInt8(7)] ?? 'other',
			destination: `${address(RTA_DST) ?? any}/${body.readUInt8(1)}` as Cidr,
			...(via === undefined ? {} : { via }),
			...(index === undefined ? {} : { index }),
			table: number(RTA_TABLE) ?? body.readUInt8(4),
			protocol: body.readUInt8(5),
			scope: body.readUInt8(6),
			...(source === undefined ? {} : { source }),
			...(metric === undefined ? {} : { metric }),
			...(mtu === undefined ? {} : { mtu }),
			...(attributes.has(RTA_MULTIPATH) ? { multipath: true as const } : {}),
		},
	]
}
