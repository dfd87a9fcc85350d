// Neighbours (ARP, neighbour discovery) by rtnetlink. Reference: linux/neighbour.h, man 7 rtnetlink.

import { familyOf, type Ip, ipFromBytes, ipToBytes } from '../../base/ip.ts'
import { attributesOf, type NetlinkMessage } from '../netlink/decode.ts'
import { type NetlinkEncoder, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE } from '../netlink/encode.ts'
import type { NetlinkSocket } from '../netlink/socket.ts'
import { AF_INET, AF_INET6 } from '../syscalls.ts'
import { type Mac, macFromBytes, macToBytes } from './links.ts'

const RTM_NEWNEIGH = 28
const RTM_DELNEIGH = 29
const RTM_GETNEIGH = 30
const NDA_DST = 1
const NDA_LLADDR = 2
const states = new Map<number, NeighbourState>([
	[0x01, 'incomplete'],
	[0x02, 'reachable'],
	[0x04, 'stale'],
	[0x08, 'delay'],
	[0x10, 'probe'],
	[0x20, 'failed'],
	[0x40, 'noarp'],
	[0x80, 'permanent'],
])
const NUD_PERMANENT = 0x80
const NTF_PROXY = 0x08

export type NeighbourState =
	| 'incomplete'
	| 'reachable'
	| 'stale'
	| 'delay'
	| 'probe'
	| 'failed'
	| 'noarp'
	| 'permanent'
	| 'none'

export interface Neighbour {
	readonly index: number
	readonly ip: Ip
	readonly mac?: Mac
	readonly state: NeighbourState
}

/** Adds or replaces a permanent entry: the kernel never asks for this address. */
export function addNeighbour(e: NetlinkEncoder, index: number, ip: Ip, mac: Mac): void {
	e.begin(RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE).raw(ndmsg(ip, index, NUD_PERMANENT))
	e.attr(NDA_DST, ipToBytes(ip)).attr(NDA_LLADDR, macToBytes(mac)).end()
}

/** ENOENT where there is none. */
export function deleteNeighbour(e: NetlinkEncoder, index: number, ip: Ip): void {
	e.begin(RTM_DELNEIGH, NLM_F_ACK)
		.raw(ndmsg(ip, index, 0))
		.attr(NDA_DST, ipToBytes(ip))
		.end()
}

/** This host answers for the address on the interface, if a route of it leads to another one. Exists: no error. */
export function addProxyNeighbour(e: NetlinkEncoder, index: number, ip: Ip): void {
	e.begin(RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE).raw(ndmsg(ip, index, NUD_PERMANENT, NTF_PROXY))
	e.attr(NDA_DST, ipToBytes(ip)).end()
}

/** ENOENT where there is none. */
export function deleteProxyNeighbour(e: NetlinkEncoder, index: number, ip: Ip): void {
	e.begin(RTM_DELNEIGH, NLM_F_ACK)
		.raw(ndmsg(ip, index, 0, NTF_PROXY))
		.attr(NDA_DST, ipToBytes(ip))
		.end()
}

/** What this host answers for on each interface. */
export function readProxyNeighbours(socket: NetlinkSocket): Pick<Neighbour, 'index' | 'ip'>[] {
	const header = new Uint8Array(12)
	header[10] = NTF_PROXY
	return socket
		.dump((e) => e.begin(RTM_GETNEIGH, NLM_F_DUMP).raw(header).end())
		.flatMap(decodeNeighbour)
		.map(({ index, ip }) => ({ index, ip }))
}

/** All neighbours of the socket's namespace that belong to an IP address. */
export function readNeighbours(socket: NetlinkSocket): Neighbour[] {
	return socket.dump((e) => e.begin(RTM_GETNEIGH, NLM_F_DUMP).raw(new Uint8Array(12)).end()).flatMap(decodeNeighbour)
}

function decodeNeighbour(message: NetlinkMessage): Neighbour[] {
	const { body } = message
	const family = body.readUInt8(0)
	if (family !== AF_INET && family !== AF_INET6) return []
	const attributes = attributesOf(body, 12)
	const ip = attributes.get(NDA_DST)
	if (ip === undefined) return []
	const mac = attributes.get(NDA_LLADDR)
	return [
		{
			index: body.readInt32LE(4),
			ip: ipFromBytes(ip),
			...(mac === undefined ? {} : { mac: macFromBytes(mac) }),
			state: states.get(body.readUInt16LE(8)) ?? 'none',
		},
	]
}

function ndmsg(ip: Ip, index: number, state: number, flags = 0): Uint8Array {
	const bytes = new Uint8Array(12)
	const view = new DataView(bytes.buffer)
	bytes[0] = familyOf(ip) === 6 ? AF_INET6 : AF_INET
	view.setInt32(4, index, true)
	view.setUint16(8, state, true)
	bytes[10] = flags
	return bytes
}
