// The closed list of expressions, and one place each to encode, decode, print and evaluate any of them.

import { attributesOf, elementsOf, readString } from '../../netlink/decode.ts'
import type { NetlinkEncoder } from '../../netlink/encode.ts'
import { EXPR, LIST_ELEM } from '../wire.ts'
import { type BitwiseExpression, bitwise, isMaskXor } from './bitwise.ts'
import { type ByteorderExpression, byteorder } from './byteorder.ts'
import { type CmpExpression, cmp } from './cmp.ts'
import type { ExpressionCodec } from './codec.ts'
import { type CounterExpression, counter } from './counter.ts'
import { type CtExpression, ct } from './ct.ts'
import { type DynsetExpression, dynset } from './dynset.ts'
import { type FibExpression, fib } from './fib.ts'
import { type HashExpression, hash } from './hash.ts'
import { type ImmediateExpression, immediate, type VerdictExpression, verdict } from './immediate.ts'
import { type LimitExpression, limit } from './limit.ts'
import { type LogExpression, log } from './log.ts'
import { type LookupExpression, lookup } from './lookup.ts'
import type { Machine, Step } from './machine.ts'
import { type MetaExpression, meta } from './meta.ts'
import {
	type MasqueradeExpression,
	masquerade,
	type NatExpression,
	nat,
	type RedirectExpression,
	redirect,
} from './nat.ts'
import { type NotrackExpression, notrack } from './notrack.ts'
import { type NumgenExpression, numgen } from './numgen.ts'
import { type ObjrefExpression, objref } from './objref.ts'
import { type PayloadExpression, payload } from './payload.ts'
import type { RulePrinter } from './printer.ts'
import { type RangeExpression, range } from './range.ts'
import { type RejectExpression, reject } from './reject.ts'
import { type UnknownExpression, unknown } from './unknown.ts'

export type Expression =
	| BitwiseExpression
	| ByteorderExpression
	| CmpExpression
	| CounterExpression
	| CtExpression
	| DynsetExpression
	| FibExpression
	| HashExpression
	| ImmediateExpression
	| LimitExpression
	| LogExpression
	| LookupExpression
	| MasqueradeExpression
	| MetaExpression
	| NatExpression
	| NotrackExpression
	| NumgenExpression
	| ObjrefExpression
	| PayloadExpression
	| RangeExpression
	| RedirectExpression
	| RejectExpression
	| UnknownExpression
	| VerdictExpression

type Known = Exclude<Expression, UnknownExpression>
const codecs: { readonly [K in Known['kind']]: ExpressionCodec<Extract<Known, { kind: K }>> } = {
	bitwise,
	byteorder,
	cmp,
	counter,
	ct,
	dynset,
	fib,
	hash,
	immediate,
	limit,
	log,
	lookup,
	masquerade,
	meta,
	nat,
	notrack,
	numgen,
	objref,
	payload,
	range,
	redirect,
	reject,
	verdict,
}
const byName = new Map(
	Object.values(codecs)
		.filter((codec) => codec !== verdict)
		.map((codec) => [codec.name, codec as ExpressionCodec<Expression>]),
)

function codecOf(kind: Known['kind']): ExpressionCodec<Expression> {
	return codecs[kind] as ExpressionCodec<Expression>
}

/** Writes one element of NFTA_RULE_EXPRESSIONS. */
export function encodeExpression(e: Expression, out: NetlinkEncoder): void {
	const element = out.nest(LIST_ELEM)
	if (e.kind === 'unknown') {
		out.string(EXPR.NAME, e.name)
		if (e.data !== '') out.attr(EXPR.DATA | 0x8000, Buffer.from(e.data, 'hex'))
	} else {
		const codec = codecOf(e.kind)
		out.string(EXPR.NAME, codec.name)
		const data = out.nest(EXPR.DATA)
		codec.encode(e, out)
		out.close(data)
	}
	out.close(element)
}

/** Reads NFTA_RULE_EXPRESSIONS. */
export function decodeExpressions(list: Buffer): Expression[] {
	return elementsOf(list).map(decodeExpression)
}

function decodeExpression(element: Buffer): Expression {
	const parts = attributesOf(element)
	const name = readString(parts.get(EXPR.NAME) ?? Buffer.alloc(0))
	const data = parts.get(EXPR.DATA) ?? Buffer.alloc(0)
	const attributes = attributesOf(data)
	const codec = byName.get(name)
	if (name === 'immediate' && attributesOf(attributes.get(2) ?? Buffer.alloc(0)).has(2))
		return verdict.decode(attributes)
	if (
		codec === undefined ||
		(name === 'bitwise' && !isMaskXor(attributes)) ||
		(name === 'dynset' && hasInner(attributes))
	) {
		return { kind: 'unknown', name, data: data.toString('hex') }
	}
	return codec.decode(attributes)
}

/** A dynset with expressions of its own (`limit`, `counter` per element) is kept byte for byte. */
function hasInner(attributes: ReadonlyMap<number, Buffer>): boolean {
	return attributes.has(7) || attributes.has(10)
}

export function printExpression(e: Expression, printer: RulePrinter): void {
	if (e.kind === 'unknown') unknown.print(e, printer)
	else codecOf(e.kind).print(e, printer)
}

/** Throws NotEvaluable. */
export function evaluateExpression(e: Expression, machine: Machine): Step {
	return e.kind === 'unknown' ? unknown.evaluate(e, machine) : codecOf(e.kind).evaluate(e, machine)
}

/** Sets and chains a rule names: what must exist before it, and cannot go before it goes. */
export function references(expressions: readonly Expression[]): {
	readonly sets: readonly string[]
	readonly chains: readonly string[]
} {
	const sets: string[] = []
	const chains: string[] = []
	for (const e of expressions) {
		if (e.kind === 'lookup' || e.kind === 'dynset') sets.push(e.set)
		else if (e.kind === 'verdict' && e.chain !== undefined) chains.push(e.chain)
	}
	return { sets, chains }
}
