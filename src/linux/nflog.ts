// Packets that rules log to a netlink group (`log group N prefix "…"`), as one namespace's listener hears them: the prefix,
// where the packet was, and its headers. Reference: linux/netfilter/nfnetlink_log.h; what the kernel puts where:
// net/netfilter/nfnetlink_log.c.

import { type Ip, ipFromBytes } from '../base/ip.ts'
import type { Hook, Protocol } from '../base/packet.ts'
import { tcpFlagsText } from './capture.ts'
import { attributesOf, type NetlinkMessage, readString } from './netlink/decode.ts'
import { NetlinkEncoder, NLM_F_ACK } from './netlink/encode.ts'
import { NETLINK_NETFILTER, NetlinkSocket } from './netlink/socket.ts'

const SUBSYSTEM = 4 << 8
const MSG_PACKET = SUBSYSTEM | 0
const MSG_CONFIG = SUBSYSTEM | 1

const CFG_CMD = 1
const CFG_MODE = 2
const CFG_TIMEOUT = 4
const CFG_QTHRESH = 5
const CFG_FLAGS = 6
const CMD_BIND = 1
const COPY_PACKET = 2
/** Number the packets of the group: a gap is what was lost. */
const FLAG_SEQ = 1

const PACKET_HDR = 1
const MARK = 2
const TIMESTAMP = 3
const IFINDEX_INDEV = 4
const IFINDEX_OUTDEV = 5
const HWADDR = 8
const PAYLOAD = 9
const PREFIX = 10
const SEQ = 12

const hooks: readonly Hook[] = ['prerouting', 'input', 'forward', 'output', 'postrouting']
const protocolNames = new Map<number, Protocol>([
	[1, 'ICMP'],
	[6, 'TCP'],
	[17, 'UDP'],
	[58, 'ICMP'],
	[132, 'SCTP'],
])

/** IPv6 with a few extension headers and a TCP header with its options: nothing of what was said. */
const copiedBytes = 160
/** The kernel gathers so many packets, or so long (hundredths of a second), into one datagram. */
export interface Gathered {
	readonly packets: number
	readonly time: number
}
const usual: Gathered = { packets: 32, time: 5 }

export interface LoggedPacket {
	readonly prefix: string
	readonly hook?: Hook
	/** Indexes of the interfaces, in the namespace the packet was in. */
	readonly inIndex?: number
	readonly outIndex?: number
	readonly mark: number
	/** Kernel time, milliseconds since the epoch; the kernel stamps no packet that starts in the namespace itself. */
	readonly time?: number
	/** Source address on the link, where there is one: `ee:ee:ee:ee:ee:ee`. */
	readonly hardwareAddress?: string
	/** Counts the packets of the group, of 32 bits. */
	readonly sequence?: number
	/** Undefined: not IP, or cut off. */
	readonly packet?: PacketHeaders
}

export interface PacketHeaders {
	readonly source: Ip
	readonly destination: Ip
	/** IP protocol number: 6 for TCP. */
	readonly protocolNumber: number
	/** Undefined: one that the Kubernetes API does not know. */
	readonly protocol?: Protocol
	/** 0 where the protocol has none, in a later fragment and where the packet is cut off. */
	readonly sourcePort: number
	readonly destinationPort: number
	/** As tcpdump writes them: `S`. TCP only. */
	readonly tcpFlags?: string
	readonly icmp?: { readonly type: number; readonly code: number }
	/** Bytes of the whole packet on the wire. */
	readonly length: number
}

/**
 * Hears a group, in the calling thread's namespace; one listener per group. Throws Failure: EBUSY (another one has the
 * group), EPERM, EINVAL where the kernel has no nfnetlink_log.
 */
export function openLog(
	group: number,
	options: { readonly receiveBuffer?: number; readonly gathered?: Gathered } = {},
): NetlinkSocket {
	const socket = new NetlinkSocket(NETLINK_NETFILTER, { receiveBuffer: options.receiveBuffer ?? 1 << 20 })
	try {
		const e = new NetlinkEncoder(256)
		writeConfig(e, group, options.gathered)
		socket.request(e)
		return socket
	} catch (e) {
		socket.close()
		throw e
	}
}

export function writeConfig(e: NetlinkEncoder, group: number, gathered: Gathered = usual): void {
	e.begin(MSG_CONFIG, NLM_F_ACK).nfgen(0, group).attr(CFG_CMD, Uint8Array.of(CMD_BIND)).end()
	// struct nfulnl_msg_config_mode: range in network order, mode, padding.
	const mode = new Uint8Array(6)
	new DataView(mode.buffer).setUint32(0, copiedBytes)
	mode[4] = COPY_PACKET
	e.begin(MSG_CONFIG, NLM_F_ACK)
		.nfgen(0, group)
		.attr(CFG_MODE, mode)
		.u32be(CFG_TIMEOUT, gathered.time)
		.u32be(CFG_QTHRESH, gathered.packets)
		.u16be(CFG_FLAGS, FLAG_SEQ)
		.end()
}

/** The packets that wait. Never blocks. What was lost on the way shows in their sequence, and in `overruns`. */
export function readLog(socket: NetlinkSocket): LoggedPacket[] {
	return socket.receive().flatMap(decodeLogged)
}

export function decodeLogged(message: NetlinkMessage): LoggedPacket[] {
	if (message.type !== MSG_PACKET) return []
	const a = attributesOf(message.body, 4)
	const number = (type: number) => a.get(type)?.readUInt32BE(0)
	const header = a.get(PACKET_HDR)
	const hook = header === undefined ? undefined : hooks[header.readUInt8(2)]
	const inIndex = number(IFINDEX_INDEV)
	const outIndex = number(IFINDEX_OUTDEV)
	const sequence = number(SEQ)
	const stamp = a.get(TIMESTAMP)
	const payload = a.get(PAYLOAD)
	const packet = payload === undefined ? undefined : readHeaders(payload)
	const hardwareAddress = hardwareAddressOf(a.get(HWADDR))
	return [
		{
			prefix: readString(a.get(PREFIX) ?? Buffer.alloc(0)),
			...(hook === undefined ? {} : { hook }),
			...(inIndex === undefined ? {} : { inIndex }),
			...(outIndex === undefined ? {} : { outIndex }),
			mark: number(MARK) ?? 0,
			...(stamp === undefined
				? {}
				: { time: Number(stamp.readBigUInt64BE(0)) * 1000 + Number(stamp.readBigUInt64BE(8)) / 1000 }),
			...(hardwareAddress === undefined ? {} : { hardwareAddress }),
			...(sequence === undefined ? {} : { sequence }),
			...(packet === undefined ? {} : { packet }),
		},
	]
}

function hardwareAddressOf(value: Buffer | undefined): string | undefined {
	if (value === undefined || value.length < 4) return undefined
	const bytes = value.subarray(4, 4 + value.readUInt16BE(0))
	return bytes.length === 0 ? undefined : [...bytes].map((b) => b.toString(16).padStart(2, '0')).join(':')
}

/** The headers of an IP packet that may be cut off anywhere; undefined where it has no whole IP header. */
export function readHeaders(packet: Buffer): PacketHeaders | undefined {
	if (packet.length < 20) return undefined
	const version = packet.readUInt8(0) >> 4
	if (version === 4) {
		const laterFragment = (packet.readUInt16BE(6) & 0x1fff) !== 0
		return transport(packet, (packet.readUInt8(0) & 15) * 4, packet.readUInt8(9), laterFragment, {
			source: ipFromBytes(packet.subarray(12, 16)),
			destination: ipFromBytes(packet.subarray(16, 20)),
			length: packet.readUInt16BE(2),
		})
	}
	if (version !== 6 || packet.length < 40) return undefined
	let next = packet.readUInt8(6)
	let at = 40
	let laterFragment = false
	// RFC 8200: hop-by-hop, routing and destination options say their length in units of 8, a fragment header has 8.
	while ((next === 0 || next === 43 || next === 44 || next === 60) && at + 8 <= packet.length) {
		if (next === 44 && packet.readUInt16BE(at + 2) >> 3 !== 0) laterFragment = true
		const length = next === 44 ? 8 : (packet.readUInt8(at + 1) + 1) * 8
		next = packet.readUInt8(at)
		at += length
	}
	return transport(packet, at, next, laterFragment, {
		source: ipFromBytes(packet.subarray(8, 24)),
		destination: ipFromBytes(packet.subarray(24, 40)),
		length: 40 + packet.readUInt16BE(4),
	})
}

function transport(
	packet: Buffer,
	at: number,
	protocolNumber: number,
	laterFragment: boolean,
	network: Pick<PacketHeaders, 'source' | 'destination' | 'length'>,
): PacketHeaders {
	const protocol = protocolNames.get(protocolNumber)
	const rest = laterFragment ? packet.subarray(0, 0) : packet.subarray(at)
	const ports = rest.length >= 4 && protocol !== undefined && protocol !== 'ICMP'
	return {
		...network,
		protocolNumber,
		...(protocol === undefined ? {} : { protocol }),
		sourcePort: ports ? rest.readUInt16BE(0) : 0,
		destinationPort: ports ? rest.readUInt16BE(2) : 0,
		...(protocol === 'TCP' && rest.length >= 14 ? { tcpFlags: tcpFlagsText(rest.readUInt8(13)) } : {}),
		...(protocol === 'ICMP' && rest.length >= 2 ? { icmp: { type: rest.readUInt8(0), code: rest.readUInt8(1) } } : {}),
	}
}
