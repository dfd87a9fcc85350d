// Logs the packet to the kernel log or to a netlink group.

import { readString } from '../../netlink/decode.ts'
import { type ExpressionCodec, u32 } from './codec.ts'

const levels = ['emerg', 'alert', 'crit', 'err', 'warn', 'notice', 'info', 'debug', 'audit'] as const

export interface LogExpression {
	readonly kind: 'log'
	readonly prefix?: string
	/** Netlink group; without it the kernel log. */
	readonly group?: number
	readonly snaplen?: number
	readonly queueThreshold?: number
	/** Of the kernel log. */
	readonly level?: number
	readonly flags?: number
}

export const log: ExpressionCodec<LogExpression> = {
	name: 'log',
	encode(e, out) {
		if (e.group !== undefined) out.u16be(1, e.group)
		if (e.prefix !== undefined) out.string(2, e.prefix)
		if (e.snaplen !== undefined) out.u32be(3, e.snaplen)
		if (e.queueThreshold !== undefined) out.u16be(4, e.queueThreshold)
		if (e.level !== undefined) out.u32be(5, e.level)
		if (e.flags !== undefined) out.u32be(6, e.flags)
	},
	decode(a) {
		const prefix = a.get(2)
		return {
			kind: 'log',
			...(prefix === undefined ? {} : { prefix: readString(prefix) }),
			...(a.has(1) ? { group: a.get(1)?.readUInt16BE(0) ?? 0 } : {}),
			...(u32(a, 3) === 0 ? {} : { snaplen: u32(a, 3) }),
			...(a.has(4) ? { queueThreshold: a.get(4)?.readUInt16BE(0) ?? 0 } : {}),
			...(a.has(5) ? { level: u32(a, 5) } : {}),
			...(u32(a, 6) === 0 ? {} : { flags: u32(a, 6) }),
		}
	},
	print(e, printer) {
		let text = 'log'
		if (e.prefix !== undefined) text += ` prefix "${e.prefix}"`
		if (e.group !== undefined) text += ` group ${e.group}`
		if (e.snaplen !== undefined) text += ` snaplen ${e.snaplen}`
		if (e.queueThreshold !== undefined) text += ` queue-threshold ${e.queueThreshold}`
		// warn is the kernel's default.
		if (e.group === undefined && e.level !== undefined && e.level !== 4) text += ` level ${levels[e.level] ?? e.level}`
		if (((e.flags ?? 0) & 31) === 31) text += ' flags all'
		printer.say(text)
	},
	evaluate() {
		return undefined
	},
}
