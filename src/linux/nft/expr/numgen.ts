// A number below a modulus: at random or counted up. In an evaluation every value is one outcome.

import { registerNumber, registerWord } from '../wire.ts'
import { type ExpressionCodec, nameAt, u32 } from './codec.ts'

const modes = ['inc', 'random'] as const

export interface NumgenExpression {
	readonly kind: 'numgen'
	readonly mode: (typeof modes)[number]
	readonly modulus: number
	readonly offset: number
	readonly to: number
}

export const numgen: ExpressionCodec<NumgenExpression> = {
	name: 'numgen',
	encode(e, out) {
		out.u32be(1, registerNumber(e.to)).u32be(2, e.modulus).u32be(3, modes.indexOf(e.mode)).u32be(4, e.offset)
	},
	decode(a) {
		return {
			kind: 'numgen',
			mode: nameAt(modes, u32(a, 3), 'number generator'),
			modulus: u32(a, 2),
			offset: u32(a, 4),
			to: registerWord(u32(a, 1)),
		}
	},
	print(e, printer) {
		const offset = e.offset === 0 ? '' : ` offset ${e.offset}`
		printer.load(e.to, {
			text: `numgen ${e.mode} mod ${e.modulus}${offset}`,
			fields: [{ type: 'integer', bytes: 4 }],
		})
	},
	evaluate(e, machine) {
		// The kernel leaves the number in host order.
		machine.choose(e.modulus, (value) => machine.registers.writeUInt32LE(e.offset + value, e.to * 4))
		return undefined
	},
}
