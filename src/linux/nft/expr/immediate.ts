// Puts a constant into a register, or decides: accept, drop, jump, goto, return.

import { attributesOf, readString } from '../../netlink/decode.ts'
import type { NetlinkEncoder } from '../../netlink/encode.ts'
import { registerNumber, registerWord, VERDICT_REGISTER, type VerdictName, verdictCodes, verdictName } from '../wire.ts'
import { dataValue, type ExpressionCodec, u32 } from './codec.ts'

export interface ImmediateExpression {
	readonly kind: 'immediate'
	readonly to: number
	/** Hexadecimal. */
	readonly value: string
}

export interface VerdictExpression {
	readonly kind: 'verdict'
	readonly verdict: VerdictName
	/** Of jump and goto. */
	readonly chain?: string
}

export const immediate: ExpressionCodec<ImmediateExpression> = {
	name: 'immediate',
	encode(e, out) {
		out.u32be(1, registerNumber(e.to))
		const data = out.nest(2)
		out.attr(1, Buffer.from(e.value, 'hex')).close(data)
	},
	decode(a) {
		return { kind: 'immediate', to: registerWord(u32(a, 1)), value: dataValue(a, 2) }
	},
	print(e, printer) {
		printer.load(e.to, {
			text: `0x${e.value}`,
			fields: [{ type: 'integer', bytes: e.value.length / 2 }],
			value: e.value,
		})
	},
	evaluate(e, { registers }) {
		const value = Buffer.from(e.value, 'hex')
		registers.fill(0, e.to * 4, e.to * 4 + ((value.length + 3) & ~3))
		value.copy(registers, e.to * 4)
		return undefined
	},
}

export const verdict: ExpressionCodec<VerdictExpression> = {
	name: 'immediate',
	encode(e, out) {
		out.u32be(1, VERDICT_REGISTER)
		const data = out.nest(2)
		writeVerdict(out, 2, e.verdict, e.chain)
		out.close(data)
	},
	decode(a) {
		const inner = attributesOf(a.get(2) ?? Buffer.alloc(0))
		return { kind: 'verdict', ...readVerdict(inner.get(2) ?? Buffer.alloc(0)) }
	},
	print(e, printer) {
		printer.say(e.chain === undefined ? e.verdict : `${e.verdict} ${e.chain}`)
	},
	evaluate(e) {
		return { verdict: e.verdict, ...(e.chain === undefined ? {} : { chain: e.chain }) }
	},
}

export function writeVerdict(out: NetlinkEncoder, type: number, name: VerdictName, chain?: string): void {
	const nest = out.nest(type)
	out.u32be(1, verdictCodes[name] >>> 0)
	if (chain !== undefined) out.string(2, chain)
	out.close(nest)
}

/** Of the attributes inside NFTA_DATA_VERDICT. */
export function readVerdict(bytes: Buffer): { readonly verdict: VerdictName; readonly chain?: string } {
	const a = attributesOf(bytes)
	const chain = a.get(2)
	return {
		verdict: verdictName(a.get(1)?.readInt32BE(0) ?? 0),
		...(chain === undefined ? {} : { chain: readString(chain) }),
	}
}
