// Compares a register with two bounds.

import { printFields } from '../datatype.ts'
import { registerNumber, registerWord } from '../wire.ts'
import { dataValue, type ExpressionCodec, u32 } from './codec.ts'

export interface RangeExpression {
	readonly kind: 'range'
	readonly op: 'eq' | 'neq'
	readonly from: number
	/** Hexadecimal, both inclusive. */
	readonly low: string
	readonly high: string
}

export const range: ExpressionCodec<RangeExpression> = {
	name: 'range',
	encode(e, out) {
		out.u32be(1, registerNumber(e.from)).u32be(2, e.op === 'eq' ? 0 : 1)
		const low = out.nest(3)
		out.attr(1, Buffer.from(e.low, 'hex')).close(low)
		const high = out.nest(4)
		out.attr(1, Buffer.from(e.high, 'hex')).close(high)
	},
	decode(a) {
		return {
			kind: 'range',
			op: u32(a, 2) === 0 ? 'eq' : 'neq',
			from: registerWord(u32(a, 1)),
			low: dataValue(a, 3),
			high: dataValue(a, 4),
		}
	},
	print(e, printer) {
		const low = Buffer.from(e.low, 'hex')
		const term = printer.concatenation(e.from, low.length)
		printer.used(term)
		const bounds = `${printFields(term.fields, low)}-${printFields(term.fields, Buffer.from(e.high, 'hex'))}`
		printer.say(`${term.text} ${e.op === 'eq' ? '' : '!= '}${bounds}`, { match: true })
	},
	evaluate(e, { registers }) {
		const low = Buffer.from(e.low, 'hex')
		const value = registers.subarray(e.from * 4, e.from * 4 + low.length)
		const inside = Buffer.compare(value, low) >= 0 && Buffer.compare(value, Buffer.from(e.high, 'hex')) <= 0
		return inside === (e.op === 'eq') ? undefined : 'break'
	},
}
