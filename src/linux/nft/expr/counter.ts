// Counts packets and bytes.

import { type ExpressionCodec, u64 } from './codec.ts'

export interface CounterExpression {
	readonly kind: 'counter'
	readonly packets: number
	readonly bytes: number
}

export const counter: ExpressionCodec<CounterExpression> = {
	name: 'counter',
	encode(e, out) {
		out.u64be(1, BigInt(e.bytes)).u64be(2, BigInt(e.packets))
	},
	decode(a) {
		return { kind: 'counter', packets: u64(a, 2), bytes: u64(a, 1) }
	},
	print(e, printer) {
		printer.say(`counter packets ${e.packets} bytes ${e.bytes}`)
	},
	evaluate() {
		return undefined
	},
}
