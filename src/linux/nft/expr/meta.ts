// Reads or writes a property of the packet that is not in its headers: mark, interface, protocol.

import { dataType, type Field } from '../datatype.ts'
import { registerNumber, registerWord } from '../wire.ts'
import { type ExpressionCodec, u32 } from './codec.ts'
import { NotEvaluable } from './machine.ts'
import { protocolNumber } from './payload.ts'

/** By the kernel's number (enum nft_meta_keys); text as nft prints it. */
const keys = {
	length: { number: 0, text: 'meta length', type: 'integer', bytes: 4 },
	protocol: { number: 1, text: 'meta protocol', type: 'ether_type', bytes: 2 },
	priority: { number: 2, text: 'meta priority', type: 'integer', bytes: 4 },
	mark: { number: 3, text: 'meta mark', type: 'mark', bytes: 4 },
	iif: { number: 4, text: 'iif', type: 'iface_index', bytes: 4 },
	oif: { number: 5, text: 'oif', type: 'iface_index', bytes: 4 },
	iifname: { number: 6, text: 'iifname', type: 'ifname', bytes: 16 },
	oifname: { number: 7, text: 'oifname', type: 'ifname', bytes: 16 },
	iiftype: { number: 8, text: 'iiftype', type: 'integer', bytes: 2 },
	oiftype: { number: 9, text: 'oiftype', type: 'integer', bytes: 2 },
	skuid: { number: 10, text: 'meta skuid', type: 'uid', bytes: 4 },
	skgid: { number: 11, text: 'meta skgid', type: 'gid', bytes: 4 },
	nftrace: { number: 12, text: 'meta nftrace', type: 'integer', bytes: 1 },
	nfproto: { number: 15, text: 'meta nfproto', type: 'nf_proto', bytes: 1 },
	l4proto: { number: 16, text: 'meta l4proto', type: 'inet_proto', bytes: 1 },
	pkttype: { number: 19, text: 'meta pkttype', type: 'pkt_type', bytes: 1 },
	cpu: { number: 20, text: 'meta cpu', type: 'integer', bytes: 4 },
	cgroup: { number: 23, text: 'meta cgroup', type: 'integer', bytes: 4 },
} as const

export type MetaKey = keyof typeof keys | `key ${number}`

export interface MetaExpression {
	readonly kind: 'meta'
	readonly key: MetaKey
	/** Load: destination word. */
	readonly to?: number
	/** Write: source word. */
	readonly from?: number
}

function describe(key: MetaKey): { readonly number: number; readonly text: string; readonly field: Field } {
	const known = (keys as Record<string, { number: number; text: string; type: string; bytes: number } | undefined>)[key]
	if (known === undefined)
		return { number: Number(key.slice(4)), text: `meta ${key}`, field: { type: 'integer', bytes: 4 } }
	return { number: known.number, text: known.text, field: { type: known.type, bytes: known.bytes } }
}

export const meta: ExpressionCodec<MetaExpression> = {
	name: 'meta',
	encode(e, out) {
		if (e.to !== undefined) out.u32be(1, registerNumber(e.to))
		out.u32be(2, describe(e.key).number)
		if (e.from !== undefined) out.u32be(3, registerNumber(e.from))
	},
	decode(a) {
		const number = u32(a, 2)
		const name = Object.entries(keys).find(([, k]) => k.number === number)?.[0] ?? `key ${number}`
		return {
			kind: 'meta',
			key: name as MetaKey,
			...(a.has(1) ? { to: registerWord(u32(a, 1)) } : {}),
			...(a.has(3) ? { from: registerWord(u32(a, 3)) } : {}),
		}
	},
	print(e, printer) {
		const { text, field } = describe(e.key)
		if (e.to !== undefined) printer.load(e.to, { text, fields: [field] })
		else if (e.from !== undefined) printer.say(`${text} set ${printer.printAs(e.from, [field])}`)
	},
	evaluate(e, machine) {
		const { field } = describe(e.key)
		const { packet, registers } = machine
		if (e.from !== undefined) {
			if (e.key === 'mark') machine.packet = { ...packet, mark: registers.readUInt32LE(e.from * 4) }
			else if (e.key !== 'nftrace' && e.key !== 'priority') throw new NotEvaluable(`the rule sets meta ${e.key}`)
			return undefined
		}
		if (e.to === undefined) return undefined
		const at = e.to * 4
		registers.fill(0, at, at + ((field.bytes + 3) & ~3))
		switch (e.key) {
			case 'mark':
				registers.writeUInt32LE(packet.mark, at)
				return undefined
			case 'l4proto':
				registers[at] = protocolNumber(packet, machine.family)
				return undefined
			case 'nfproto':
				registers[at] = machine.family === 'ip' ? 2 : 10
				return undefined
			case 'protocol':
				registers.writeUInt16BE(dataType('ether_type').symbols?.[machine.family] ?? 0, at)
				return undefined
			case 'nftrace':
			case 'priority':
				return undefined
			case 'iifname':
			case 'oifname': {
				const name = e.key === 'iifname' ? packet.inInterface : packet.outInterface
				const here =
					e.key === 'iifname' ? machine.hook !== 'output' : machine.hook !== 'prerouting' && machine.hook !== 'input'
				// No such interface at this hook: the expression does not match.
				if (!here) return e.key === 'oifname' ? 'break' : undefined
				if (name === undefined) throw new NotEvaluable(`${e.key} of the packet is not known`)
				registers.write(name, at, 16, 'utf8')
				return undefined
			}
			default:
				throw new NotEvaluable(`meta ${e.key} is not known of this packet`)
		}
	},
}
