// What every expression file provides: to netlink and back, as nft prints it, and what it does to a packet.

import type { NetlinkEncoder } from '../../netlink/encode.ts'
import type { Machine, Step } from './machine.ts'
import type { RulePrinter } from './printer.ts'

export interface ExpressionCodec<E> {
	/** The kernel's name, NFTA_EXPR_NAME. */
	readonly name: string
	/** Writes the attributes of NFTA_EXPR_DATA. */
	encode(expression: E, out: NetlinkEncoder): void
	/** Reads them; numbers are in network order. */
	decode(attributes: ReadonlyMap<number, Buffer>): E
	print(expression: E, printer: RulePrinter): void
	/** What the expression does; throws NotEvaluable where the packet does not say enough. */
	evaluate(expression: E, machine: Machine): Step
}

export function u32(attributes: ReadonlyMap<number, Buffer>, type: number, fallback = 0): number {
	return attributes.get(type)?.readUInt32BE(0) ?? fallback
}

export function u64(attributes: ReadonlyMap<number, Buffer>, type: number): number {
	return Number(attributes.get(type)?.readBigUInt64BE(0) ?? 0n)
}

/** The value inside a nested data attribute, as hexadecimal text. */
export function dataValue(attributes: ReadonlyMap<number, Buffer>, type: number): string {
	// NFTA_DATA_VALUE is the only attribute inside; its own length leaves the padding out.
	const inner = attributes.get(type)
	return inner === undefined ? '' : inner.toString('hex', 4, inner.readUInt16LE(0))
}

/** Unsigned number of a C enum whose names are listed in order. */
export function nameAt<T extends string>(names: readonly T[], at: number, what: string): T {
	const name = names[at]
	if (name === undefined) throw new Error(`unknown ${what} ${at} of nf_tables`)
	return name
}
