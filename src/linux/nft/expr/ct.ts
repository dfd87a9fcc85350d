// Reads or writes what connection tracking knows of the packet's connection.

import { ipToBytes } from '../../../base/ip.ts'
import type { Packet } from '../../../base/packet.ts'
import { dataType, type Field } from '../datatype.ts'
import { registerNumber, registerWord } from '../wire.ts'
import { type ExpressionCodec, u32 } from './codec.ts'
import { type Machine, NotEvaluable } from './machine.ts'
import { protocolNumber } from './payload.ts'

/** By the kernel's number (enum nft_ct_keys). */
const keys = {
	state: { number: 0, type: 'ct_state', bytes: 4 },
	direction: { number: 1, type: 'ct_dir', bytes: 1 },
	status: { number: 2, type: 'ct_status', bytes: 4 },
	mark: { number: 3, type: 'mark', bytes: 4 },
	expiration: { number: 5, type: 'integer', bytes: 4 },
	saddr: { number: 8, type: 'ipv4_addr', bytes: 4 },
	daddr: { number: 9, type: 'ipv4_addr', bytes: 4 },
	protocol: { number: 10, type: 'inet_proto', bytes: 1 },
	'proto-src': { number: 11, type: 'inet_service', bytes: 2 },
	'proto-dst': { number: 12, type: 'inet_service', bytes: 2 },
	zone: { number: 16, type: 'integer', bytes: 2 },
	'ip saddr': { number: 19, type: 'ipv4_addr', bytes: 4 },
	'ip daddr': { number: 20, type: 'ipv4_addr', bytes: 4 },
	'ip6 saddr': { number: 21, type: 'ipv6_addr', bytes: 16 },
	'ip6 daddr': { number: 22, type: 'ipv6_addr', bytes: 16 },
} as const

export type CtKey = keyof typeof keys | `key ${number}`

export interface CtExpression {
	readonly kind: 'ct'
	readonly key: CtKey
	readonly direction?: 'original' | 'reply'
	readonly to?: number
	readonly from?: number
}

function describe(key: CtKey): { readonly number: number; readonly field: Field } {
	const known = (keys as Record<string, { number: number; type: string; bytes: number } | undefined>)[key]
	if (known === undefined) return { number: Number(key.slice(4)), field: { type: 'integer', bytes: 4 } }
	return { number: known.number, field: { type: known.type, bytes: known.bytes } }
}

export const ct: ExpressionCodec<CtExpression> = {
	name: 'ct',
	encode(e, out) {
		if (e.to !== undefined) out.u32be(1, registerNumber(e.to))
		out.u32be(2, describe(e.key).number)
		if (e.direction !== undefined) out.u8(3, e.direction === 'original' ? 0 : 1)
		if (e.from !== undefined) out.u32be(4, registerNumber(e.from))
	},
	decode(a) {
		const number = u32(a, 2)
		const name = Object.entries(keys).find(([, k]) => k.number === number)?.[0] ?? `key ${number}`
		const direction = a.get(3)?.[0]
		return {
			kind: 'ct',
			key: name as CtKey,
			...(direction === undefined ? {} : { direction: direction === 0 ? ('original' as const) : ('reply' as const) }),
			...(a.has(1) ? { to: registerWord(u32(a, 1)) } : {}),
			...(a.has(4) ? { from: registerWord(u32(a, 4)) } : {}),
		}
	},
	print(e, printer) {
		const { field } = describe(e.key)
		const text = e.direction === undefined ? `ct ${e.key}` : `ct ${e.direction} ${e.key}`
		if (e.to !== undefined) printer.load(e.to, { text, fields: [field] })
		else if (e.from !== undefined) printer.say(`${text} set ${printer.printAs(e.from, [field])}`)
	},
	evaluate(e, machine) {
		if (e.from !== undefined) {
			if (e.key !== 'mark') throw new NotEvaluable(`the rule sets ct ${e.key}`)
			return undefined
		}
		const at = (e.to ?? 0) * 4
		const { packet, registers } = machine
		if (e.key === 'state') {
			registers.writeUInt32LE(dataType('ct_state').symbols?.[packet.state] ?? 0, at)
			return undefined
		}
		if (e.key === 'status') {
			const status = machine.context.connectionStatus ?? (packet.state === 'new' ? 0 : undefined)
			if (status === undefined) throw new NotEvaluable('ct status of the connection is not known')
			registers.writeUInt32LE(machine.translated ? status | 32 : status, at)
			return undefined
		}
		if (packet.state === 'new' && e.key === 'mark') {
			registers.writeUInt32LE(0, at)
			return undefined
		}
		if (packet.state === 'new' && e.key === 'direction') {
			registers.writeUInt32LE(0, at)
			return undefined
		}
		const original = e.direction === 'original' ? originalOf(machine) : undefined
		const bytes = original === undefined ? undefined : tupleBytes(original, e.key, machine.family)
		if (bytes === undefined) throw new NotEvaluable(`ct ${e.key} of the connection is not known`)
		// A register is filled to whole words (nft_reg_store8, nft_reg_store16).
		registers.fill(0, at, at + Math.ceil(bytes.length / 4) * 4)
		registers.set(bytes, at)
		return undefined
	},
}

function originalOf({ context, packet, translated }: Machine): Packet | undefined {
	if (context.original !== undefined) return context.original
	// As for the status: who says nothing of a new connection says that nothing has translated it.
	return packet.state === 'new' && !translated && (context.connectionStatus ?? 0) === 0 ? packet : undefined
}

/** What the original direction of a connection says, as connection tracking keeps it; undefined: not of the packet. */
function tupleBytes(original: Packet, key: CtKey, family: 'ip' | 'ip6'): Uint8Array | undefined {
	switch (key) {
		case 'ip saddr':
			return family === 'ip' ? ipToBytes(original.source) : undefined
		case 'ip6 saddr':
			return family === 'ip6' ? ipToBytes(original.source) : undefined
		case 'saddr':
			return ipToBytes(original.source)
		case 'ip daddr':
			return family === 'ip' ? ipToBytes(original.destination) : undefined
		case 'ip6 daddr':
			return family === 'ip6' ? ipToBytes(original.destination) : undefined
		case 'daddr':
			return ipToBytes(original.destination)
		case 'protocol':
			return Uint8Array.of(protocolNumber(original, family))
		case 'proto-src':
			return original.protocol === 'ICMP' ? undefined : portBytes(original.sourcePort)
		case 'proto-dst':
			return original.protocol === 'ICMP' ? undefined : portBytes(original.destinationPort)
		default:
			return undefined
	}
}

function portBytes(port: number): Uint8Array {
	return Uint8Array.of(port >> 8, port & 255)
}
