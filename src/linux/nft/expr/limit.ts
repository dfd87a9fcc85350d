// Matches while a rate is not exceeded (or, inverted, once it is).

import { type ExpressionCodec, u32, u64 } from './codec.ts'

export interface LimitExpression {
	readonly kind: 'limit'
	readonly of: 'packets' | 'bytes'
	readonly rate: number
	/** Seconds. */
	readonly per: number
	readonly burst: number
	readonly over?: true
}

const units: Record<number, string> = { 1: 'second', 60: 'minute', 3600: 'hour', 86400: 'day', 604800: 'week' }

export const limit: ExpressionCodec<LimitExpression> = {
	name: 'limit',
	encode(e, out) {
		out.u64be(1, BigInt(e.rate)).u64be(2, BigInt(e.per)).u32be(3, e.burst)
		out.u32be(4, e.of === 'packets' ? 0 : 1).u32be(5, e.over === true ? 1 : 0)
	},
	decode(a) {
		return {
			kind: 'limit',
			of: u32(a, 4) === 0 ? 'packets' : 'bytes',
			rate: u64(a, 1),
			per: u64(a, 2),
			burst: u32(a, 3),
			...((u32(a, 5) & 1) !== 0 ? { over: true as const } : {}),
		}
	},
	print(e, printer) {
		printer.say(`limit rate ${e.over === true ? 'over ' : ''}${rate(e)}`)
	},
	evaluate(e) {
		// One packet alone never exceeds a rate.
		return e.over === true ? 'break' : undefined
	},
}

function rate(e: LimitExpression): string {
	const per = units[e.per] ?? `${e.per}s`
	if (e.of === 'packets') return `${e.rate}/${per}${e.burst === 0 || e.burst === 5 ? '' : ` burst ${e.burst} packets`}`
	const [value, unit] = size(e.rate)
	const [burst, burstUnit] = size(e.burst)
	return `${value} ${unit}/${per}${e.burst === 0 ? '' : ` burst ${burst} ${burstUnit}`}`
}

function size(bytes: number): readonly [number, string] {
	if (bytes > 0 && bytes % 1048576 === 0) return [bytes / 1048576, 'mbytes']
	if (bytes > 0 && bytes % 1024 === 0) return [bytes / 1024, 'kbytes']
	return [bytes, 'bytes']
}
