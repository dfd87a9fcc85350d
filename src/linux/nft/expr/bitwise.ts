// value & mask ^ xor, from one register to another.

import { registerNumber, registerWord } from '../wire.ts'
import { dataValue, type ExpressionCodec, u32 } from './codec.ts'

export interface BitwiseExpression {
	readonly kind: 'bitwise'
	readonly from: number
	readonly to: number
	readonly length: number
	/** Hexadecimal, `length` bytes each. */
	readonly mask: string
	readonly xor: string
}

/** Shifts and the two-register forms of newer kernels are not among them: they decode to an unknown expression. */
export function isMaskXor(a: ReadonlyMap<number, Buffer>): boolean {
	return u32(a, 6) === 0 && a.has(4) && a.has(5)
}

export const bitwise: ExpressionCodec<BitwiseExpression> = {
	name: 'bitwise',
	encode(e, out) {
		out.u32be(1, registerNumber(e.from)).u32be(2, registerNumber(e.to)).u32be(3, e.length)
		const mask = out.nest(4)
		out.attr(1, Buffer.from(e.mask, 'hex')).close(mask)
		const xor = out.nest(5)
		out.attr(1, Buffer.from(e.xor, 'hex')).close(xor)
	},
	decode(a) {
		return {
			kind: 'bitwise',
			from: registerWord(u32(a, 1)),
			to: registerWord(u32(a, 2)),
			length: u32(a, 3),
			mask: dataValue(a, 4),
			xor: dataValue(a, 5),
		}
	},
	print(e, printer) {
		printer.load(e.to, { ...printer.concatenation(e.from, e.length), mask: e.mask, xor: e.xor })
	},
	evaluate(e, { registers }) {
		const mask = Buffer.from(e.mask, 'hex')
		const xor = Buffer.from(e.xor, 'hex')
		for (let i = 0; i < e.length; i++) {
			registers[e.to * 4 + i] = ((registers[e.from * 4 + i] ?? 0) & (mask[i] ?? 0)) ^ (xor[i] ?? 0)
		}
		return undefined
	},
}
