// Network interfaces by rtnetlink: requests and what a dump says. Reference: linux/if_link.h, man 7 rtnetlink.
// Write functions append one acknowledged message to an encoder, so that a whole pod rides in one send().

import { attributesOf, type NetlinkMessage, readString } from '../netlink/decode.ts'
import { NetlinkEncoder, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL } from '../netlink/encode.ts'
import type { NetlinkSocket } from '../netlink/socket.ts'

const RTM_NEWLINK = 16
const RTM_DELLINK = 17
const RTM_GETLINK = 18
const IFF_UP = 1
const IFF_LOOPBACK = 8
const IFF_RUNNING = 0x40

const IFLA_ADDRESS = 1
const IFLA_IFNAME = 3
const IFLA_MTU = 4
const IFLA_LINK = 5
const IFLA_MASTER = 10
const IFLA_LINKINFO = 18
const IFLA_IFALIAS = 20
const IFLA_GROUP = 27
const IFLA_NET_NS_FD = 28
const IFLA_EXT_MASK = 29
const IFLA_NUM_TX_QUEUES = 31
const IFLA_NUM_RX_QUEUES = 32
const IFLA_LINK_NETNSID = 37
const IFLA_INFO_KIND = 1
const IFLA_INFO_DATA = 2
const VETH_INFO_PEER = 1
/** No statistics in a dump: cheaper. */
const RTEXT_FILTER_SKIP_STATS = 8

/** Index of the loopback interface: the first in every namespace. */
export const LOOPBACK = 1

/** A MAC address as `ee:ee:ee:ee:ee:ee`. */
export type Mac = string

export interface Link {
	readonly index: number
	readonly name: string
	/** `veth`, `bridge`, …; undefined for loopback and hardware. */
	readonly kind?: string
	readonly mac?: Mac
	readonly mtu: number
	/** Set up by an administrator. */
	readonly up: boolean
	/** Up, and so is the far side. */
	readonly running: boolean
	readonly loopback: boolean
	/** Index of the bridge it is a port of. */
	readonly master?: number
	/** Index of the other end of a veth, in the namespace it lives in. */
	readonly peer?: number
	/** The kernel's id, in this namespace, of the namespace the other end lives in. */
	readonly peerNetns?: number
	readonly alias?: string
	readonly group: number
}

export interface VethRequest {
	readonly name: string
	/** Chosen index; the kernel chooses when absent. Taken already: EBUSY. */
	readonly index?: number
	readonly mac?: Mac
	readonly mtu?: number
	readonly master?: number
	readonly group?: number
	readonly up?: boolean
	/**
	 * Queues of both ends, each way; one for each CPU when absent. They only matter to XDP and NAPI on the veth, and cost
	 * time and memory: with 2 CPUs a pair with one queue is made in two thirds of the time.
	 */
	readonly queues?: number
	readonly peer: {
		readonly name: string
		readonly index?: number
		readonly mac?: Mac
		readonly mtu?: number
		/** Descriptor of the namespace the peer is born in; the same namespace when absent. */
		readonly netns?: number
	}
}

/** Both ends of a veth. The peer is born down: up at birth is ENOTCONN, for it opens before the two are joined. */
export function addVeth(e: NetlinkEncoder, request: VethRequest): void {
	e.begin(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
	const flags = request.up === true ? IFF_UP : 0
	e.raw(ifinfomsg(request.index ?? 0, flags, flags)).string(IFLA_IFNAME, request.name)
	if (request.mac !== undefined) e.attr(IFLA_ADDRESS, macToBytes(request.mac))
	if (request.mtu !== undefined) e.u32(IFLA_MTU, request.mtu)
	if (request.master !== undefined) e.u32(IFLA_MASTER, request.master)
	if (request.group !== undefined) e.u32(IFLA_GROUP, request.group)
	writeQueues(e, request.queues)
	const info = e.nest(IFLA_LINKINFO)
	e.string(IFLA_INFO_KIND, 'veth')
	const data = e.nest(IFLA_INFO_DATA)
	// The peer's value starts with a header, not an attribute: no nested flag.
	const { peer } = request
	const end = e.nest(VETH_INFO_PEER, 0)
	e.raw(ifinfomsg(peer.index ?? 0, 0, 0)).string(IFLA_IFNAME, peer.name)
	if (peer.mac !== undefined) e.attr(IFLA_ADDRESS, macToBytes(peer.mac))
	if (peer.mtu !== undefined) e.u32(IFLA_MTU, peer.mtu)
	writeQueues(e, request.queues)
	if (peer.netns !== undefined) e.u32(IFLA_NET_NS_FD, peer.netns)
	e.close(end).close(data).close(info).end()
}

function writeQueues(e: NetlinkEncoder, queues: number | undefined): void {
	if (queues !== undefined) e.u32(IFLA_NUM_TX_QUEUES, queues).u32(IFLA_NUM_RX_QUEUES, queues)
}

export function addBridge(
	e: NetlinkEncoder,
	request: { readonly name: string; readonly index?: number; readonly mac?: Mac; readonly mtu?: number },
): void {
	e.begin(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
	e.raw(ifinfomsg(request.index ?? 0, IFF_UP, IFF_UP)).string(IFLA_IFNAME, request.name)
	if (request.mac !== undefined) e.attr(IFLA_ADDRESS, macToBytes(request.mac))
	if (request.mtu !== undefined) e.u32(IFLA_MTU, request.mtu)
	const info = e.nest(IFLA_LINKINFO)
	e.string(IFLA_INFO_KIND, 'bridge').close(info).end()
}

export interface LinkChange {
	readonly index: number
	readonly up?: boolean
	readonly name?: string
	readonly mac?: Mac
	readonly mtu?: number
	/** 0 takes it out of its bridge. */
	readonly master?: number
	/** Free text shown by `ip link`, at most 255 bytes. */
	readonly alias?: string
	readonly group?: number
	/** Descriptor of the namespace to move it to. */
	readonly netns?: number
}

export function setLink(e: NetlinkEncoder, change: LinkChange): void {
	e.begin(RTM_NEWLINK, NLM_F_ACK)
	e.raw(ifinfomsg(change.index, change.up === true ? IFF_UP : 0, change.up === undefined ? 0 : IFF_UP))
	if (change.name !== undefined) e.string(IFLA_IFNAME, change.name)
	if (change.mac !== undefined) e.attr(IFLA_ADDRESS, macToBytes(change.mac))
	if (change.mtu !== undefined) e.u32(IFLA_MTU, change.mtu)
	if (change.master !== undefined) e.u32(IFLA_MASTER, change.master)
	if (change.alias !== undefined) e.attr(IFLA_IFALIAS, Buffer.from(change.alias))
	if (change.group !== undefined) e.u32(IFLA_GROUP, change.group)
	if (change.netns !== undefined) e.u32(IFLA_NET_NS_FD, change.netns)
	e.end()
}

/**
 * Deletes one interface (and a veth's other end). Blocks some 16 ms (RCU grace periods): on an event loop delete a
 * whole group, or let the namespace go.
 */
export function deleteLink(e: NetlinkEncoder, which: { readonly index: number } | { readonly name: string }): void {
	e.begin(RTM_DELLINK, NLM_F_ACK)
	if ('index' in which) e.raw(ifinfomsg(which.index, 0, 0))
	else e.raw(ifinfomsg(0, 0, 0)).string(IFLA_IFNAME, which.name)
	e.end()
}

/** Deletes all interfaces of a group at once (33 ms for 100 veths). ENODEV where the group is empty. */
export function deleteGroup(e: NetlinkEncoder, group: number): void {
	e.begin(RTM_DELLINK, NLM_F_ACK)
		.raw(ifinfomsg(0, 0, 0))
		.u32(IFLA_GROUP, group)
		.end()
}

/** All interfaces of the socket's namespace. */
export function readLinks(socket: NetlinkSocket): Link[] {
	return socket
		.dump((e) =>
			e
				.begin(RTM_GETLINK, NLM_F_DUMP)
				.raw(ifinfomsg(0, 0, 0))
				.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
				.end(),
		)
		.map(decodeLink)
}

/**
 * One interface by name or index. Throws Failure ENODEV. Other than a dump it also makes the kernel act on a change of
 * carrier that it has only noted (kernel 6.7 on): of a veth, the end that came up first sends nothing until then.
 */
export function readLink(socket: NetlinkSocket, which: string | number): Link {
	const e = new NetlinkEncoder(128)
	e.begin(RTM_GETLINK, NLM_F_ACK).raw(ifinfomsg(typeof which === 'number' ? which : 0, 0, 0))
	if (typeof which === 'string') e.string(IFLA_IFNAME, which)
	e.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS).end()
	return decodeLink(socket.request(e)[0] as NetlinkMessage)
}

export function decodeLink(message: NetlinkMessage): Link {
	const { body } = message
	const flags = body.readUInt32LE(8)
	const attributes = attributesOf(body, 16)
	const number = (type: number) => attributes.get(type)?.readUInt32LE(0)
	const info = attributes.get(IFLA_LINKINFO)
	const kind = info === undefined ? undefined : attributesOf(info).get(IFLA_INFO_KIND)
	const mac = attributes.get(IFLA_ADDRESS)
	const master = number(IFLA_MASTER)
	const peer = number(IFLA_LINK)
	const peerNetns = attributes.get(IFLA_LINK_NETNSID)?.readInt32LE(0)
	const alias = attributes.get(IFLA_IFALIAS)
	return {
		index: body.readInt32LE(4),
		name: readString(attributes.get(IFLA_IFNAME) ?? Buffer.alloc(0)),
		...(kind === undefined ? {} : { kind: readString(kind) }),
		...(mac === undefined ? {} : { mac: macFromBytes(mac) }),
		mtu: number(IFLA_MTU) ?? 0,
		up: (flags & IFF_UP) !== 0,
		running: (flags & IFF_RUNNING) !== 0,
		loopback: (flags & IFF_LOOPBACK) !== 0,
		...(master === undefined || master === 0 ? {} : { master }),
		...(peer === undefined ? {} : { peer }),
		...(peerNetns === undefined ? {} : { peerNetns }),
		...(alias === undefined ? {} : { alias: readString(alias) }),
		group: number(IFLA_GROUP) ?? 0,
	}
}

function ifinfomsg(index: number, flags: number, change: number): Uint8Array {
	const bytes = new Uint8Array(16)
	const view = new DataView(bytes.buffer)
	view.setInt32(4, index, true)
	view.setUint32(8, flags, true)
	view.setUint32(12, change, true)
	return bytes
}

/** 6 bytes of `ee:ee:ee:ee:ee:ee`. */
export function macToBytes(mac: Mac): Uint8Array {
	return Uint8Array.from(mac.split(':'), (octet) => Number.parseInt(octet, 16))
}

export function macFromBytes(bytes: Uint8Array): Mac {
	return Array.from(bytes, (octet) => octet.toString(16).padStart(2, '0')).join(':')
}
