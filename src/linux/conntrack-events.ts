// Connections as conntrack learns of them and forgets them, as one namespace's listener hears it (`conntrack -E`). The
// kernel makes these events only while somebody listens (net.netfilter.nf_conntrack_events 2, or 1: always).
// Reference: linux/netfilter/nfnetlink_conntrack.h, nfnetlink.h (groups).

import { type Connection, decodeConnection } from './conntrack.ts'
import { attributesOf, type NetlinkMessage } from './netlink/decode.ts'
import { NETLINK_NETFILTER, NetlinkSocket } from './netlink/socket.ts'

const NFNLGRP_CONNTRACK_NEW = 1
const NFNLGRP_CONNTRACK_DESTROY = 3
const CT_NEW = 1 << 8
const CT_DELETE = (1 << 8) | 2
const NLM_F_CREATE = 0x400
const TUPLE_ORIG = 1
const TUPLE_PROTO = 2
/** ICMP: type, code; ICMPv6 the same. */
const ICMP = [
	[5, 6],
	[8, 9],
] as const
const COUNTERS_ORIG = 9
const COUNTERS_REPLY = 10
const COUNTER_PACKETS = 1
const COUNTER_BYTES = 2

export interface ConnectionEvent {
	/** new: its first packet has left by postrouting or come in by input: no rule of this namespace dropped it. */
	readonly event: 'new' | 'end'
	readonly connection: Connection
	/** Of the first packet, where it is ICMP. */
	readonly icmp?: { readonly type: number; readonly code: number }
	/** Of the end, where the namespace counts (net.netfilter.nf_conntrack_acct). */
	readonly counted?: Readonly<Record<'original' | 'reply', { readonly packets: number; readonly bytes: number }>>
}

/** A listener in the calling thread's namespace; what it could not take in time shows in `overruns`. */
export function openConnectionEvents(): NetlinkSocket {
	return new NetlinkSocket(NETLINK_NETFILTER, {
		groups: [NFNLGRP_CONNTRACK_NEW, NFNLGRP_CONNTRACK_DESTROY],
		receiveBuffer: 2 << 20,
	})
}

/** What waits, in the kernel's order. Never blocks. */
export function readConnectionEvents(socket: NetlinkSocket): ConnectionEvent[] {
	return socket.receive().flatMap(decodeConnectionEvent)
}

export function decodeConnectionEvent(message: NetlinkMessage): ConnectionEvent[] {
	const { type } = message
	// Without the flag it is news of a connection that was known.
	if (type === CT_NEW && (message.flags & NLM_F_CREATE) === 0) return []
	if (type !== CT_NEW && type !== CT_DELETE) return []
	const [connection] = decodeConnection({ ...message, type: CT_NEW })
	if (connection === undefined) return []
	const attributes = attributesOf(message.body, 4)
	const icmp = connection.original.protocol === 'ICMP' ? icmpOf(attributes.get(TUPLE_ORIG)) : undefined
	const what = icmp === undefined ? { connection } : { connection, icmp }
	if (type === CT_NEW) return [{ event: 'new', ...what }]
	const original = countersOf(attributes.get(COUNTERS_ORIG))
	const reply = countersOf(attributes.get(COUNTERS_REPLY))
	const counted = original === undefined || reply === undefined ? {} : { counted: { original, reply } }
	return [{ event: 'end', ...what, ...counted }]
}

function icmpOf(tuple: Buffer | undefined): { readonly type: number; readonly code: number } | undefined {
	const proto = tuple === undefined ? undefined : attributesOf(tuple).get(TUPLE_PROTO)
	if (proto === undefined) return undefined
	const parts = attributesOf(proto)
	for (const [type, code] of ICMP) {
		const found = parts.get(type)
		if (found !== undefined) return { type: found.readUInt8(0), code: parts.get(code)?.readUInt8(0) ?? 0 }
	}
	return undefined
}

function countersOf(value: Buffer | undefined): { readonly packets: number; readonly bytes: number } | undefined {
	if (value === undefined) return undefined
	const parts = attributesOf(value)
	const number = (type: number) => Number(parts.get(type)?.readBigUInt64BE(0) ?? 0n)
	return { packets: number(COUNTER_PACKETS), bytes: number(COUNTER_BYTES) }
}
