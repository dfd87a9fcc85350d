// Adds the packet's key to a set, refreshes it there, or takes it out.

import { readString } from '../../netlink/decode.ts'
import { keyLength } from '../datatype.ts'
import { registerNumber, registerWord } from '../wire.ts'
import { type ExpressionCodec, nameAt, u32, u64 } from './codec.ts'
import { duration, masked } from './printer.ts'

const operations = ['add', 'update', 'delete'] as const

export interface DynsetExpression {
	readonly kind: 'dynset'
	readonly op: (typeof operations)[number]
	readonly set: string
	/** Word of the key. */
	readonly key: number
	/** Of a map: word of the data. */
	readonly data?: number
	/** Milliseconds. */
	readonly timeout?: number
}

export const dynset: ExpressionCodec<DynsetExpression> = {
	name: 'dynset',
	encode(e, out) {
		out.string(1, e.set).u32be(3, operations.indexOf(e.op)).u32be(4, registerNumber(e.key))
		if (e.data !== undefined) out.u32be(5, registerNumber(e.data))
		if (e.timeout !== undefined) out.u64be(6, BigInt(e.timeout))
	},
	decode(a) {
		const timeout = u64(a, 6)
		return {
			kind: 'dynset',
			op: nameAt(operations, u32(a, 3), 'set operation'),
			set: readString(a.get(1) ?? Buffer.alloc(0)),
			key: registerWord(u32(a, 4)),
			...(a.has(5) ? { data: registerWord(u32(a, 5)) } : {}),
			...(timeout === 0 ? {} : { timeout }),
		}
	},
	print(e, printer) {
		const set = printer.set(e.set)
		const key = printer.concatenation(e.key, set === undefined ? 4 : keyLength(set.key))
		const timeout = e.timeout === undefined ? '' : ` timeout ${duration(e.timeout)}`
		let data = ''
		if (e.data !== undefined) {
			const fields = set === undefined || set.data === undefined || set.data === 'verdict' ? [] : set.data
			const parts: string[] = []
			let word = e.data
			const first = printer.term(word)
			if (first.value === undefined) parts.push(masked(printer.concatenation(word, keyLength(fields))))
			else {
				for (const f of fields) {
					parts.push(printer.printAs(word, [f]))
					word += ((f.bytes + 3) & ~3) / 4
				}
			}
			data = ` : ${parts.join(' . ')}`
		}
		printer.say(`${e.op} @${e.set} { ${masked(key)}${timeout}${data} }`)
	},
	evaluate() {
		// What the next packet finds there is not this packet's affair.
		return undefined
	},
}
