// Loads bytes of a packet header into a register, or writes a register into the packet.

import { ipToBytes } from '../../../base/ip.ts'
import type { Packet } from '../../../base/packet.ts'
import { dataType, type Field, protocols } from '../datatype.ts'
import { registerNumber, registerWord } from '../wire.ts'
import { type ExpressionCodec, nameAt, u32 } from './codec.ts'
import { type Machine, NotEvaluable } from './machine.ts'
import type { RulePrinter, Term } from './printer.ts'

const bases = ['link', 'network', 'transport', 'inner'] as const

export interface PayloadExpression {
	readonly kind: 'payload'
	readonly base: (typeof bases)[number]
	/** Bytes from the start of that header. */
	readonly offset: number
	readonly length: number
	/** Load: destination word. */
	readonly to?: number
	/** Write: source word, and how the checksum is kept right. */
	readonly from?: number
	readonly checksum?: { readonly type: number; readonly offset: number; readonly flags: number }
}

export const payload: ExpressionCodec<PayloadExpression> = {
	name: 'payload',
	encode(e, out) {
		if (e.to !== undefined) out.u32be(1, registerNumber(e.to))
		out.u32be(2, bases.indexOf(e.base)).u32be(3, e.offset).u32be(4, e.length)
		if (e.from !== undefined) out.u32be(5, registerNumber(e.from))
		if (e.checksum !== undefined) out.u32be(6, e.checksum.type).u32be(7, e.checksum.offset).u32be(8, e.checksum.flags)
	},
	decode(a) {
		const from = a.has(5) ? { from: registerWord(u32(a, 5)) } : {}
		const checksum = a.has(5) ? { checksum: { type: u32(a, 6), offset: u32(a, 7), flags: u32(a, 8) } } : {}
		return {
			kind: 'payload',
			base: nameAt(bases, u32(a, 2), 'payload base'),
			offset: u32(a, 3),
			length: u32(a, 4),
			...(a.has(1) ? { to: registerWord(u32(a, 1)) } : {}),
			...from,
			...checksum,
		}
	},
	print(e, printer) {
		const term = payloadTerm(e, printer)
		if (e.to !== undefined) printer.load(e.to, term)
		else if (e.from !== undefined) {
			printer.used(term)
			printer.say(`${term.text} set ${printer.printAs(e.from, term.fields)}`)
		}
	},
	evaluate(e, machine) {
		if (e.to === undefined) throw new NotEvaluable('the rule rewrites bytes of the packet')
		const header = headerBytes(e.base, machine)
		for (let i = 0; i < e.length; i++) {
			const byte = header[e.offset + i]
			if (byte === undefined) {
				throw new NotEvaluable(`byte ${e.offset + i} of the ${e.base} header is not known of this packet`)
			}
			machine.registers[e.to * 4 + i] = byte
		}
		for (let i = e.length; i % 4 !== 0; i++) machine.registers[e.to * 4 + i] = 0
		return undefined
	},
}

type HeaderField = readonly [offset: number, length: number, name: string, type: string]
const headers: Record<string, readonly HeaderField[]> = {
	ip: [
		[1, 1, 'dscp', 'integer'],
		[2, 2, 'length', 'integer'],
		[4, 2, 'id', 'integer'],
		[6, 2, 'frag-off', 'integer'],
		[8, 1, 'ttl', 'integer'],
		[9, 1, 'protocol', 'inet_proto'],
		[12, 4, 'saddr', 'ipv4_addr'],
		[16, 4, 'daddr', 'ipv4_addr'],
	],
	ip6: [
		[4, 2, 'length', 'integer'],
		[6, 1, 'nexthdr', 'inet_proto'],
		[7, 1, 'hoplimit', 'integer'],
		[8, 16, 'saddr', 'ipv6_addr'],
		[24, 16, 'daddr', 'ipv6_addr'],
	],
	ether: [
		[0, 6, 'daddr', 'ether_addr'],
		[6, 6, 'saddr', 'ether_addr'],
		[12, 2, 'type', 'ether_type'],
	],
	tcp: [
		[0, 2, 'sport', 'inet_service'],
		[2, 2, 'dport', 'inet_service'],
		[13, 1, 'flags', 'tcp_flag'],
	],
	udp: [
		[0, 2, 'sport', 'inet_service'],
		[2, 2, 'dport', 'inet_service'],
		[4, 2, 'length', 'integer'],
		[6, 2, 'checksum', 'integer'],
	],
	icmp: [
		[0, 1, 'type', 'icmp_type'],
		[1, 1, 'code', 'integer'],
		[2, 2, 'checksum', 'integer'],
	],
	icmpv6: [
		[0, 1, 'type', 'icmpv6_type'],
		[1, 1, 'code', 'integer'],
		[2, 2, 'checksum', 'integer'],
	],
	th: [
		[0, 2, 'sport', 'inet_service'],
		[2, 2, 'dport', 'inet_service'],
	],
}
headers.sctp = headers.th as readonly HeaderField[]
headers.dccp = headers.th as readonly HeaderField[]
headers.udplite = headers.th as readonly HeaderField[]

function payloadTerm(e: PayloadExpression, printer: RulePrinter): Term {
	const header =
		e.base === 'link'
			? 'ether'
			: e.base === 'network'
				? printer.network
				: e.base === 'transport'
					? transportHeader(printer.l4proto)
					: undefined
	const found = header === undefined ? undefined : findField(header, e)
	const layer = e.base === 'inner' ? undefined : e.base
	if (header !== undefined && found !== undefined) {
		const [, length, name, type] = found
		const f: Field = { type, bytes: dataType(type).bytes === 0 ? length : dataType(type).bytes }
		return {
			text: `${header} ${name}`,
			fields: [f],
			...(layer === undefined ? {} : { layer }),
			...(e.length < length ? { prefixBytes: e.length } : {}),
		}
	}
	const parts = header === undefined ? undefined : neighbours(header, e, layer)
	if (parts !== undefined) {
		return { text: parts.map((p) => p.text).join(' . '), fields: parts.flatMap((p) => p.fields), parts }
	}
	const short = { link: 'll', network: 'nh', transport: 'th', inner: 'ih' }[e.base]
	return { text: `@${short},${e.offset * 8},${e.length * 8}`, fields: [{ type: 'integer', bytes: e.length }] }
}

function transportHeader(l4proto: string | undefined): string {
	if (l4proto === 'ipv6-icmp') return 'icmpv6'
	return l4proto !== undefined && headers[l4proto] !== undefined ? l4proto : 'th'
}

function findField(header: string, e: PayloadExpression): HeaderField | undefined {
	// nft loads only the leading bytes of an address compared with a prefix of whole bytes.
	return headers[header]?.find(
		([offset, length, , type]) =>
			offset === e.offset && (length === e.length || (e.length < length && dataType(type).style === 'ip')),
	)
}

/** The fields that together are exactly what is loaded. */
function neighbours(header: string, e: PayloadExpression, layer: Term['layer']): Term[] | undefined {
	const terms: Term[] = []
	let at = e.offset
	while (at < e.offset + e.length) {
		const next = headers[header]?.find(([offset]) => offset === at)
		if (next === undefined) return undefined
		const [, length, name, type] = next
		const field = { type, bytes: dataType(type).bytes === 0 ? length : dataType(type).bytes }
		terms.push({ text: `${header} ${name}`, fields: [field], ...(layer === undefined ? {} : { layer }) })
		at += length
	}
	return at === e.offset + e.length && terms.length > 1 ? terms : undefined
}

/** The bytes of a header that the packet says; holes are undefined. */
function headerBytes(base: PayloadExpression['base'], machine: Machine): (number | undefined)[] {
	const { packet, family } = machine
	const bytes: (number | undefined)[] = []
	const put = (at: number, values: Iterable<number>) => {
		let i = at
		for (const value of values) bytes[i++] = value
	}
	if (base === 'network') {
		put(family === 'ip' ? 9 : 6, [protocolNumber(packet, family)])
		put(family === 'ip' ? 12 : 8, ipToBytes(packet.source))
		put(family === 'ip' ? 16 : 24, ipToBytes(packet.destination))
	} else if (base === 'transport') {
		if (packet.protocol === 'ICMP') {
			// A new ICMP flow is an echo request. Its checksum stands where other protocols have the destination port:
			// 0 here, so that a lookup by protocol and port misses, as it does in the kernel.
			if (packet.state === 'new') put(0, [family === 'ip' ? 8 : 128, 0])
			put(2, [0, 0])
		} else {
			put(0, [
				packet.sourcePort >> 8,
				packet.sourcePort & 255,
				packet.destinationPort >> 8,
				packet.destinationPort & 255,
			])
			if (packet.protocol === 'TCP' && packet.state === 'new') put(13, [2])
		}
	}
	return bytes
}

export function protocolNumber(packet: Packet, family: 'ip' | 'ip6'): number {
	switch (packet.protocol) {
		case 'TCP':
			return protocols.tcp
		case 'UDP':
			return protocols.udp
		case 'SCTP':
			return protocols.sctp
		case 'ICMP':
			return family === 'ip' ? protocols.icmp : protocols['ipv6-icmp']
		default: {
			const never: never = packet.protocol
			return never
		}
	}
}
