// What nftables tells about packets whose `meta nftrace` is set: one message for every rule that matched, every
// return and every chain policy (`nft monitor trace` reads the same). Reference: linux/netfilter/nf_tables.h.

import { type Ip, ipFromBytes } from '../base/ip.ts'
import { attributesOf, type NetlinkMessage, readString } from './netlink/decode.ts'
import { NETLINK_NETFILTER, NetlinkSocket } from './netlink/socket.ts'

const NFNLGRP_NFTRACE = 9
const NFT_MSG_TRACE = (10 << 8) | 17

const TABLE = 1
const CHAIN = 2
const RULE_HANDLE = 3
const TYPE = 4
const VERDICT = 5
const ID = 6
const NETWORK_HEADER = 8
const TRANSPORT_HEADER = 9
const IIF = 10
const OIF = 12
const MARK = 14
const NFPROTO = 15
const POLICY = 16
const VERDICT_CODE = 1
const VERDICT_CHAIN = 2

const kinds = ['unspec', 'policy', 'return', 'rule'] as const
const families = new Map([
	[1, 'inet'],
	[2, 'ip'],
	[3, 'arp'],
	[5, 'netdev'],
	[7, 'bridge'],
	[10, 'ip6'],
])

export interface TraceMessage {
	/** The kernel's number of the packet on its way through one namespace. */
	readonly id: number
	/** rule: a rule matched; return: a chain ended without a verdict; policy: a base chain's policy decided. */
	readonly kind: (typeof kinds)[number]
	/** Family of the table. */
	readonly family: string
	readonly table: string
	readonly chain: string
	/** Of the rule that matched. */
	readonly handle?: number
	/** `accept`, `drop`, `continue`, `goto`, `jump`, `return`, `queue`, `stolen`. */
	readonly verdict: string
	/** Target of a jump or goto. */
	readonly target?: string
	/** Indexes of the interfaces, in the namespace the packet is in. */
	readonly inIndex?: number
	readonly outIndex?: number
	readonly mark: number
	/** The packet's addresses at this rule; only the first message of each base chain has them. */
	readonly packet?: TracedPacket
}

export interface TracedPacket {
	readonly protocol: number
	readonly source: Ip
	readonly sourcePort: number
	readonly destination: Ip
	readonly destinationPort: number
	readonly tcpFlags?: number
}

/**
 * A listener in the calling thread's namespace. `receive()` it with readTraces; an overrun shows in its `overruns`.
 * In a user namespace it works where the kernel lets its root listen (CAP_NET_ADMIN over the network namespace).
 */
export function openTraces(): NetlinkSocket {
	return new NetlinkSocket(NETLINK_NETFILTER, { groups: [NFNLGRP_NFTRACE], receiveBuffer: 4 << 20 })
}

/** The messages that wait, in the order the kernel sent them. Never blocks. */
export function readTraces(socket: NetlinkSocket): TraceMessage[] {
	return socket.receive().flatMap(decodeTrace)
}

export function decodeTrace(message: NetlinkMessage): TraceMessage[] {
	if (message.type !== NFT_MSG_TRACE) return []
	const attributes = attributesOf(message.body, 4)
	const number = (type: number) => attributes.get(type)?.readUInt32BE(0)
	const text = (type: number) => readString(attributes.get(type) ?? Buffer.alloc(0))
	const said = kinds[number(TYPE) ?? 0] ?? 'unspec'
	const handle = attributes.get(RULE_HANDLE)
	// Newer kernels (seen on 6.18) announce the end of a chain as a rule, but one without a handle.
	const kind = said === 'rule' && handle === undefined ? 'return' : said
	const inIndex = number(IIF)
	const outIndex = number(OIF)
	const packet = decodePacket(attributes.get(NETWORK_HEADER), attributes.get(TRANSPORT_HEADER))
	const decided = decodeVerdict(attributes.get(VERDICT))
	const policy = number(POLICY)
	return [
		{
			id: number(ID) ?? 0,
			kind,
			// The table's own family: NFPROTO says the packet's, which differs for inet tables.
			family: families.get(message.body.readUInt8(0)) ?? families.get(number(NFPROTO) ?? 0) ?? '',
			table: text(TABLE),
			chain: text(CHAIN),
			...(handle === undefined ? {} : { handle: Number(handle.readBigUInt64BE(0)) }),
			verdict: kind === 'policy' && policy !== undefined ? verdictName(policy) : decided.verdict,
			...(decided.target === undefined ? {} : { target: decided.target }),
			...(inIndex === undefined ? {} : { inIndex }),
			...(outIndex === undefined ? {} : { outIndex }),
			mark: number(MARK) ?? 0,
			...(packet === undefined ? {} : { packet }),
		},
	]
}

function decodeVerdict(value: Buffer | undefined): { verdict: string; target?: string } {
	if (value === undefined) return { verdict: 'continue' }
	const parts = attributesOf(value)
	const code = parts.get(VERDICT_CODE)?.readInt32BE(0) ?? -1
	const target = parts.get(VERDICT_CHAIN)
	return { verdict: verdictName(code), ...(target === undefined ? {} : { target: readString(target) }) }
}

function verdictName(code: number): string {
	switch (code) {
		case 0:
			return 'drop'
		case 1:
			return 'accept'
		case 2:
			return 'stolen'
		case -1:
			return 'continue'
		case -2:
			return 'break'
		case -3:
			return 'jump'
		case -4:
			return 'goto'
		case -5:
			return 'return'
		default:
			return (code & 0xff) === 3 ? 'queue' : `verdict ${code}`
	}
}

function decodePacket(network: Buffer | undefined, transport: Buffer | undefined): TracedPacket | undefined {
	if (network === undefined || network.length < 20) return undefined
	const four = network.readUInt8(0) >> 4 === 4
	if (!four && network.length < 40) return undefined
	const protocol = network.readUInt8(four ? 9 : 6)
	const ports =
		transport !== undefined && transport.length >= 4 && (protocol === 6 || protocol === 17 || protocol === 132)
	return {
		protocol,
		source: ipFromBytes(four ? network.subarray(12, 16) : network.subarray(8, 24)),
		sourcePort: ports ? transport.readUInt16BE(0) : 0,
		destination: ipFromBytes(four ? network.subarray(16, 20) : network.subarray(24, 40)),
		destinationPort: ports ? transport.readUInt16BE(2) : 0,
		...(protocol === 6 && transport !== undefined && transport.length >= 14
			? { tcpFlags: transport.readUInt8(13) }
			: {}),
	}
}
