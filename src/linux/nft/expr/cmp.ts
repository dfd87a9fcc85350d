// Compares a register with a constant; the rule ends where the comparison fails.

import { dataType, type Field, printFields, readUint } from '../datatype.ts'
import { registerNumber, registerWord } from '../wire.ts'
import { dataValue, type ExpressionCodec, nameAt, u32 } from './codec.ts'
import { masked, prefixLength, type RulePrinter, type Term } from './printer.ts'

const operators = ['eq', 'neq', 'lt', 'lte', 'gt', 'gte'] as const
const symbols = { eq: '', neq: '!= ', lt: '< ', lte: '<= ', gt: '> ', gte: '>= ' } as const

export interface CmpExpression {
	readonly kind: 'cmp'
	readonly op: (typeof operators)[number]
	readonly from: number
	/** Hexadecimal. */
	readonly value: string
}

export const cmp: ExpressionCodec<CmpExpression> = {
	name: 'cmp',
	encode(e, out) {
		out.u32be(1, registerNumber(e.from)).u32be(2, operators.indexOf(e.op))
		const data = out.nest(3)
		out.attr(1, Buffer.from(e.value, 'hex')).close(data)
	},
	decode(a) {
		return {
			kind: 'cmp',
			op: nameAt(operators, u32(a, 2), 'comparison'),
			from: registerWord(u32(a, 1)),
			value: dataValue(a, 3),
		}
	},
	print: printComparison,
	evaluate(e, { registers }) {
		const value = Buffer.from(e.value, 'hex')
		const order = Buffer.compare(registers.subarray(e.from * 4, e.from * 4 + value.length), value)
		const matches = {
			eq: order === 0,
			neq: order !== 0,
			lt: order < 0,
			lte: order <= 0,
			gt: order > 0,
			gte: order >= 0,
		}
		return matches[e.op] ? undefined : 'break'
	},
}

function printComparison(e: CmpExpression, printer: RulePrinter): void {
	const bytes = Buffer.from(e.value, 'hex')
	const term = printer.concatenation(e.from, bytes.length)
	if (term.parts !== undefined && term.mask === undefined && e.op === 'eq') {
		let at = 0
		for (const part of term.parts) {
			const f = part.fields[0] as Field
			printer.used(part)
			printer.say(`${part.text} ${printFields([f], bytes.subarray(at, at + f.bytes))}`, { match: true })
			at += f.bytes
		}
		return
	}
	printer.used(term)
	const only = term.fields[0] as Field
	const value = printInterface(only, bytes) ?? (term.prefixBytes === undefined ? printFields(term.fields, bytes) : '')
	const whole = wholeComparison(e, term, bytes, value)
	if (whole !== undefined) {
		printer.say(whole, { match: true })
		return
	}
	const last = printer.last()
	if (e.op === 'lte' && last?.from?.term === term.text) {
		last.text = `${term.text} ${last.from.value}-${numeric(term.fields, bytes)}`
		return
	}
	noteDependency(e, term, value, printer)
	const from = e.op === 'gte' ? { from: { term: term.text, value: numeric(term.fields, bytes) } } : {}
	printer.say(`${term.text} ${symbols[e.op]}${value}`, { ...from, ...implication(e, term), match: true })
}

/** Comparisons of a part of a field: flags, prefixes, masked numbers. undefined: a plain one. */
function wholeComparison(e: CmpExpression, term: Term, bytes: Buffer, value: string): string | undefined {
	const only = term.fields[0] as Field
	const type = dataType(only.type)
	const symbol = symbols[e.op]
	if (term.mask !== undefined) {
		const mask = Buffer.from(term.mask, 'hex')
		if (type.bitmask === true && bytes.every((b) => b === 0)) {
			// `ct state new`: any of these bits.
			if (e.op === 'neq') return `${term.text} ${printFields([only], mask)}`
			if (e.op === 'eq') return `${term.text} ! ${printFields([only], mask)}`
		}
		const bits = type.style === 'ip' && /^0*$/.test(term.xor ?? '') ? prefixLength(mask) : undefined
		if (bits !== undefined) return `${term.text} ${symbol}${value}/${bits}`
		return `${masked(term)} ${symbol === '' ? '== ' : symbol}${value}`
	}
	if (term.prefixBytes !== undefined) {
		const padded = Buffer.concat([bytes, Buffer.alloc(only.bytes - bytes.length)])
		return `${term.text} ${symbol}${printFields([only], padded)}/${term.prefixBytes * 8}`
	}
	return type.bitmask === true && e.op === 'eq' ? `${term.text} == ${value}` : undefined
}

/** An interface name compared with fewer bytes than a name has is a prefix: `iifname "veth*"`. */
function printInterface(field: Field, bytes: Buffer): string | undefined {
	if (field.type !== 'ifname' || bytes.length >= 16 || bytes.includes(0)) return undefined
	return `"${bytes.toString('utf8')}*"`
}

/** In a range nft prints numbers for what has a name. */
function numeric(fields: readonly Field[], bytes: Buffer): string {
	const type = dataType((fields[0] as Field).type)
	return type.style === 'number' && type.symbols !== undefined
		? String(readUint(bytes, type.order, bytes.length))
		: printFields(fields, bytes)
}

function noteDependency(e: CmpExpression, term: Term, value: string, printer: RulePrinter): void {
	if (e.op !== 'eq') return
	if (term.text === 'meta l4proto' || term.text === 'ip protocol' || term.text === 'ip6 nexthdr')
		printer.l4proto = value
	if (term.text === 'meta nfproto') printer.network = value === 'ipv4' ? 'ip' : 'ip6'
}

function implication(e: CmpExpression, term: Term): { implies?: 'l4proto' | 'nfproto' } {
	if (e.op !== 'eq') return {}
	if (term.text === 'meta l4proto') return { implies: 'l4proto' }
	if (term.text === 'meta nfproto') return { implies: 'nfproto' }
	return {}
}
