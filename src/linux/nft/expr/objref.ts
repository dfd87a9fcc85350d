// Uses a named object of the table: a counter, a quota, a limit.

import { readString } from '../../netlink/decode.ts'
import { type ExpressionCodec, u32 } from './codec.ts'
import { NotEvaluable } from './machine.ts'

const types: Record<number, string> = {
	1: 'counter',
	2: 'quota',
	3: 'ct helper',
	4: 'limit',
	7: 'ct timeout',
	9: 'ct expectation',
}

export interface ObjrefExpression {
	readonly kind: 'objref'
	/** The kernel's number of the object's type. */
	readonly type: number
	readonly name: string
}

export const objref: ExpressionCodec<ObjrefExpression> = {
	name: 'objref',
	encode(e, out) {
		out.u32be(1, e.type).string(2, e.name)
	},
	decode(a) {
		return { kind: 'objref', type: u32(a, 1), name: readString(a.get(2) ?? Buffer.alloc(0)) }
	},
	print(e, printer) {
		const type = types[e.type] ?? `object ${e.type}`
		printer.say(type.startsWith('ct ') ? `${type} set "${e.name}"` : `${type} name "${e.name}"`)
	},
	evaluate(e) {
		if (e.type === 1) return undefined
		throw new NotEvaluable(`the state of object ${JSON.stringify(e.name)} is not known`)
	},
}
