// Between the byte order of this host and that of the network. nft puts one before a lookup in an interval set wherever
// its type of a field is a number of the host, also where a field of one byte leaves nothing to turn.

import { endianness } from 'node:os'
import { registerNumber, registerWord } from '../wire.ts'
import { type ExpressionCodec, nameAt, u32 } from './codec.ts'

const operations = ['ntoh', 'hton'] as const

export interface ByteorderExpression {
	readonly kind: 'byteorder'
	readonly op: (typeof operations)[number]
	readonly from: number
	readonly to: number
	readonly length: number
	/** Bytes of each number among them. */
	readonly size: number
}

export const byteorder: ExpressionCodec<ByteorderExpression> = {
	name: 'byteorder',
	encode(e, out) {
		out.u32be(1, registerNumber(e.from)).u32be(2, registerNumber(e.to))
		out.u32be(3, operations.indexOf(e.op)).u32be(4, e.length).u32be(5, e.size)
	},
	decode(a) {
		return {
			kind: 'byteorder',
			op: nameAt(operations, u32(a, 3), 'byte order'),
			from: registerWord(u32(a, 1)),
			to: registerWord(u32(a, 2)),
			length: u32(a, 4),
			size: u32(a, 5),
		}
	},
	print(e, printer) {
		// The same value in words: nft does not list it.
		if (e.to !== e.from) printer.load(e.to, printer.term(e.from))
	},
	evaluate(e, { registers }) {
		const bytes = registers.subarray(e.from * 4, e.from * 4 + e.length)
		const turned = Buffer.from(bytes)
		if (endianness() === 'LE')
			for (let at = 0; at + e.size <= e.length; at += e.size) turned.subarray(at, at + e.size).reverse()
		turned.copy(registers, e.to * 4)
		return undefined
	},
}
