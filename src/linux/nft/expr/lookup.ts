// Looks a register up in a set; of a map it takes the data, or the verdict.

import { readString } from '../../netlink/decode.ts'
import { keyLength, writeFields } from '../datatype.ts'
import { registerNumber, registerWord, type VerdictName } from '../wire.ts'
import { type ExpressionCodec, u32 } from './codec.ts'
import type { Decision } from './machine.ts'
import { masked } from './printer.ts'

export interface LookupExpression {
	readonly kind: 'lookup'
	readonly set: string
	readonly from: number
	/** Of a map: where its data goes. */
	readonly to?: number | 'verdict'
	readonly invert?: true
}

export const lookup: ExpressionCodec<LookupExpression> = {
	name: 'lookup',
	encode(e, out) {
		out.string(1, e.set).u32be(2, registerNumber(e.from))
		if (e.to !== undefined) out.u32be(3, e.to === 'verdict' ? 0 : registerNumber(e.to))
		if (e.invert === true) out.u32be(5, 1)
	},
	decode(a) {
		const to = a.has(3) ? u32(a, 3) : undefined
		return {
			kind: 'lookup',
			set: readString(a.get(1) ?? Buffer.alloc(0)),
			from: registerWord(u32(a, 2)),
			...(to === undefined ? {} : { to: to === 0 ? ('verdict' as const) : registerWord(to) }),
			...((u32(a, 5) & 1) !== 0 ? { invert: true as const } : {}),
		}
	},
	print(e, printer) {
		const set = printer.set(e.set)
		const term = printer.concatenation(e.from, set === undefined ? 4 : keyLength(set.key))
		printer.used(term)
		const key = masked(term)
		if (e.to === 'verdict') printer.say(`${key} vmap ${printer.reference(e.set)}`)
		else if (e.to !== undefined) {
			const data = set?.data
			printer.load(e.to, {
				text: `${key} map ${printer.reference(e.set)}`,
				fields: Array.isArray(data) ? data : [{ type: 'integer', bytes: 4 }],
			})
		} else printer.say(`${key} ${e.invert === true ? '!= ' : ''}${printer.reference(e.set)}`, { match: true })
	},
	evaluate(e, machine) {
		const set = machine.findSet(e.set)
		const length = keyLength(set.key)
		const found = machine.findElement(set, machine.registers.subarray(e.from * 4, e.from * 4 + length))
		if (found === undefined) return e.invert === true ? undefined : 'break'
		machine.note(set, found.key, found.element)
		if (e.invert === true) return 'break'
		if (e.to === undefined) return undefined
		const data = found.element.data ?? ''
		if (e.to === 'verdict') return parseVerdict(data)
		if (set.data !== undefined && set.data !== 'verdict') writeFields(set.data, data, machine.registers, e.to * 4)
		return undefined
	},
}

/** `goto pick-12`, `drop`. */
export function parseVerdict(text: string): Decision {
	const [verdict = '', chain] = text.split(' ')
	return { verdict: verdict as VerdictName, ...(chain === undefined ? {} : { chain }) }
}
