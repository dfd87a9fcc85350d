// A hash of a register (or of the connection) below a modulus.

import { registerNumber, registerWord } from '../wire.ts'
import { type ExpressionCodec, u32 } from './codec.ts'

export interface HashExpression {
	readonly kind: 'hash'
	readonly type: 'jhash' | 'symhash'
	/** jhash: what is hashed. */
	readonly from?: number
	readonly length?: number
	readonly to: number
	readonly modulus: number
	readonly seed?: number
	readonly offset: number
}

export const hash: ExpressionCodec<HashExpression> = {
	name: 'hash',
	encode(e, out) {
		if (e.from !== undefined) out.u32be(1, registerNumber(e.from))
		out.u32be(2, registerNumber(e.to))
		if (e.length !== undefined) out.u32be(3, e.length)
		out.u32be(4, e.modulus)
		if (e.seed !== undefined) out.u32be(5, e.seed)
		out.u32be(6, e.offset).u32be(7, e.type === 'jhash' ? 0 : 1)
	},
	decode(a) {
		return {
			kind: 'hash',
			type: u32(a, 7) === 0 ? 'jhash' : 'symhash',
			...(a.has(1) ? { from: registerWord(u32(a, 1)) } : {}),
			...(a.has(3) ? { length: u32(a, 3) } : {}),
			to: registerWord(u32(a, 2)),
			modulus: u32(a, 4),
			...(a.has(5) ? { seed: u32(a, 5) } : {}),
			offset: u32(a, 6),
		}
	},
	print(e, printer) {
		const of = e.from === undefined ? '' : ` ${printer.concatenation(e.from, e.length ?? 4).text}`
		const seed = e.seed === undefined ? '' : ` seed 0x${e.seed.toString(16)}`
		const offset = e.offset === 0 ? '' : ` offset ${e.offset}`
		printer.load(e.to, {
			text: `${e.type}${of} mod ${e.modulus}${seed}${offset}`,
			fields: [{ type: 'integer', bytes: 4 }],
		})
	},
	evaluate(e, machine) {
		// The seed of the kernel is its own secret unless given: over all clients every value comes up alike.
		machine.choose(e.modulus, (value) => machine.registers.writeUInt32LE(e.offset + value, e.to * 4))
		return undefined
	},
}
