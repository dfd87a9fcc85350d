// Translates the source or the destination to an address (and port) in registers, to the address of the output
// interface (masquerade), or to this host (redirect). Only the first packet of a connection comes here.

import { type Ip, ipFromBytes } from '../../../base/ip.ts'
import type { Packet } from '../../../base/packet.ts'
import { field } from '../datatype.ts'
import { registerNumber, registerWord } from '../wire.ts'
import { type ExpressionCodec, nameAt, u32 } from './codec.ts'
import { type Decision, NotEvaluable } from './machine.ts'
import { masked, type RulePrinter } from './printer.ts'

const types = ['snat', 'dnat'] as const
/** NF_NAT_RANGE_*: address and port are implied by their registers. */
const implied = 1 | 2
const flagNames: readonly (readonly [number, string])[] = [
	[4, 'random'],
	[16, 'fully-random'],
	[8, 'persistent'],
]

export interface NatExpression {
	readonly kind: 'nat'
	readonly type: (typeof types)[number]
	readonly family: 'ip' | 'ip6'
	/** Words. */
	readonly address?: number
	readonly addressMax?: number
	readonly port?: number
	readonly portMax?: number
	readonly flags?: number
}

export interface MasqueradeExpression {
	readonly kind: 'masquerade'
	readonly flags?: number
	readonly port?: number
	readonly portMax?: number
}

export interface RedirectExpression {
	readonly kind: 'redirect'
	readonly flags?: number
	readonly port?: number
	readonly portMax?: number
}

function optional<K extends string>(name: K, a: ReadonlyMap<number, Buffer>, type: number): { [P in K]?: number } {
	return (a.has(type) ? { [name]: registerWord(u32(a, type)) } : {}) as { [P in K]?: number }
}

function optionalFlags(a: ReadonlyMap<number, Buffer>, type: number): { flags?: number } {
	const flags = u32(a, type) & ~implied
	return flags === 0 ? {} : { flags }
}

function printFlags(flags = 0): string {
	const names = flagNames.filter(([bit]) => (flags & bit) !== 0).map(([, name]) => name)
	return names.length === 0 ? '' : ` ${names.join(',')}`
}

export const nat: ExpressionCodec<NatExpression> = {
	name: 'nat',
	encode(e, out) {
		out.u32be(1, types.indexOf(e.type)).u32be(2, e.family === 'ip' ? 2 : 10)
		// The kernel fills in an absent maximum; sent as nft sends it.
		if (e.address !== undefined) out.u32be(3, registerNumber(e.address))
		if (e.addressMax !== undefined) out.u32be(4, registerNumber(e.addressMax))
		if (e.port !== undefined) out.u32be(5, registerNumber(e.port))
		if (e.portMax !== undefined) out.u32be(6, registerNumber(e.portMax))
		if (e.flags !== undefined) out.u32be(7, e.flags)
	},
	decode(a) {
		const { addressMax, ...address } = { ...optional('address', a, 3), ...optional('addressMax', a, 4) }
		const { portMax, ...port } = { ...optional('port', a, 5), ...optional('portMax', a, 6) }
		return {
			kind: 'nat',
			type: nameAt(types, u32(a, 1), 'translation'),
			family: u32(a, 2) === 10 ? 'ip6' : 'ip',
			...address,
			...(addressMax === undefined || addressMax === address.address ? {} : { addressMax }),
			...port,
			...(portMax === undefined || portMax === port.port ? {} : { portMax }),
			...optionalFlags(a, 7),
		}
	},
	print(e, printer) {
		const addressField = [field(e.family === 'ip' ? 'ipv4_addr' : 'ipv6_addr')]
		const term = e.address === undefined ? undefined : printer.term(e.address)
		const fromMap = term !== undefined && term.fields.length > 1
		const named = printer.family === 'inet' || fromMap ? ` ${e.family}` : ''
		let to = ''
		if (e.address !== undefined && term !== undefined) {
			const print = (word: number) => printer.printAs(word, addressField)
			to = fromMap ? masked(term) : print(e.address)
			if (e.addressMax !== undefined) to += `-${print(e.addressMax)}`
			if (e.family === 'ip6' && e.port !== undefined && !fromMap) to = `[${to}]`
		}
		if (e.port !== undefined && !fromMap) to += ports(e.port, e.portMax, printer)
		printer.say(`${e.type}${named} to ${to}${printFlags(e.flags)}`)
	},
	evaluate(e, machine) {
		if (e.addressMax !== undefined || e.portMax !== undefined) throw new NotEvaluable(`${e.type} to a range`)
		const { registers, packet } = machine
		let changed: Packet = packet
		if (e.address !== undefined) {
			const at = e.address * 4
			const ip = ipFromBytes(registers.subarray(at, at + (e.family === 'ip' ? 4 : 16)))
			changed = e.type === 'dnat' ? { ...changed, destination: ip } : { ...changed, source: ip }
		}
		if (e.port !== undefined) {
			const port = registers.readUInt16BE(e.port * 4)
			changed = e.type === 'dnat' ? { ...changed, destinationPort: port } : { ...changed, sourcePort: port }
		}
		machine.packet = changed
		machine.translated = true
		return accepted
	},
}

const accepted: Decision = { verdict: 'accept' }

function ports(word: number, max: number | undefined, printer: RulePrinter): string {
	const f = [field('inet_service')]
	return `:${printer.printAs(word, f)}${max === undefined ? '' : `-${printer.printAs(max, f)}`}`
}

export const masquerade: ExpressionCodec<MasqueradeExpression> = {
	name: 'masq',
	encode(e, out) {
		if (e.flags !== undefined) out.u32be(1, e.flags)
		if (e.port !== undefined) out.u32be(2, registerNumber(e.port))
		if (e.portMax !== undefined) out.u32be(3, registerNumber(e.portMax))
	},
	decode(a) {
		const { portMax, ...port } = { ...optional('port', a, 2), ...optional('portMax', a, 3) }
		return {
			kind: 'masquerade',
			...port,
			...(portMax === undefined || portMax === port.port ? {} : { portMax }),
			...optionalFlags(a, 1),
		}
	},
	print(e, printer) {
		const to = e.port === undefined ? '' : ` to ${ports(e.port, e.portMax, printer)}`
		printer.say(`masquerade${to}${printFlags(e.flags)}`)
	},
	evaluate(_, machine) {
		const address = machine.context.masqueradeAddress?.(machine.packet)
		if (address === undefined) throw new NotEvaluable('the address of the output interface is not known')
		machine.packet = { ...machine.packet, source: address as Ip }
		machine.translated = true
		return accepted
	},
}

export const redirect: ExpressionCodec<RedirectExpression> = {
	name: 'redir',
	encode(e, out) {
		if (e.port !== undefined) out.u32be(1, registerNumber(e.port))
		if (e.portMax !== undefined) out.u32be(2, registerNumber(e.portMax))
		if (e.flags !== undefined) out.u32be(3, e.flags)
	},
	decode(a) {
		const { portMax, ...port } = { ...optional('port', a, 1), ...optional('portMax', a, 2) }
		return {
			kind: 'redirect',
			...port,
			...(portMax === undefined || portMax === port.port ? {} : { portMax }),
			...optionalFlags(a, 3),
		}
	},
	print(e, printer) {
		const to = e.port === undefined ? '' : ` to ${ports(e.port, e.portMax, printer)}`
		printer.say(`redirect${to}${printFlags(e.flags)}`)
	},
	evaluate() {
		throw new NotEvaluable('the address a redirect goes to is not known')
	},
}
