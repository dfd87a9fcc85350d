// What compiled expressions do when they run: reading fields and items, calling functions, going through lists and maps, counting the work.

import { type Budget, isOf, type Overload } from './functions.ts'
import type { LoopForm } from './syntax.ts'
import {
	CelBudgetError,
	CelError,
	Entries,
	type Key,
	keyOf,
	List,
	ListValue,
	MapValue,
	Optional,
	type Value,
} from './values.ts'

export interface Frame {
	/** By number: the variables given, then those of loops. */
	readonly slots: Value[]
	readonly budget: Budget
}
export type Run = (frame: Frame) => Value

export function spend(frame: Frame, amount: number): void {
	frame.budget.left -= amount
	if (frame.budget.left < 0) throw new CelBudgetError('operation cancelled: actual cost limit exceeded')
}

export function fieldOf(target: Value, field: string): Value | undefined {
	if (!(target instanceof MapValue)) throw new CelError('no such overload')
	return target.get(field)
}

/** `soft`: what is not there is undefined instead of an error. */
export function itemOf(target: Value, index: Value, soft: boolean): Value | undefined {
	if (target instanceof ListValue) {
		const at = keyOf(index)
		if (typeof at !== 'bigint') throw new CelError('no such overload')
		if (at >= 0n && at < BigInt(target.size)) return target.at(Number(at))
		if (soft) return undefined
		throw new CelError(`index out of bounds: ${at}`)
	}
	if (target instanceof MapValue) {
		const key = keyOf(index)
		if (key === undefined) throw new CelError('no such overload')
		const value = target.get(key)
		if (value !== undefined || soft) return value
		throw new CelError(`no such key: ${String(key)}`)
	}
	throw new CelError('no such overload')
}

/** `a && b`, `a || b`: one side that is what `decides` is enough, even if the other one fails. */
export function eitherDecides(
	left: (frame: Frame) => boolean,
	right: (frame: Frame) => boolean,
	decides: boolean,
): Run {
	return (frame) => {
		let failure: CelError | undefined
		try {
			if (left(frame) === decides) return decides
		} catch (e) {
			if (!(e instanceof CelError)) throw e
			failure = e
		}
		const other = right(frame)
		if (other === decides || failure === undefined) return other
		throw failure
	}
}

/** A function whose arguments are known to fit. */
export function callOf({ call }: Overload, args: readonly Run[]): Run {
	const [one, two] = args
	if (args.length === 1)
		return (frame) => {
			spend(frame, 1)
			return call([one!(frame)], frame.budget)
		}
	if (args.length === 2)
		return (frame) => {
			spend(frame, 1)
			return call([one!(frame), two!(frame)], frame.budget)
		}
	return (frame) => {
		spend(frame, 1)
		return call(
			args.map((arg) => arg(frame)),
			frame.budget,
		)
	}
}

/** The first of the functions of one name that takes what the arguments turn out to be. */
export function callFitting(overloads: readonly Overload[], args: readonly Run[]): Run {
	return (frame) => {
		spend(frame, 1)
		const values = args.map((arg) => arg(frame))
		for (const overload of overloads)
			if (overload.args.every((formal, i) => isOf(values[i]!, formal))) return overload.call(values, frame.budget)
		throw new CelError('no such overload')
	}
}

/** `[a, ?b]` */
export function makeList(items: readonly { readonly run: Run; readonly optional: boolean }[], frame: Frame): Value {
	spend(frame, 10)
	const out: Value[] = []
	for (const { run, optional } of items) {
		const value = run(frame)
		if (!optional) out.push(value)
		else if (!(value instanceof Optional)) throw new CelError('no such overload')
		else if (value.value !== undefined) out.push(value.value)
	}
	return new List(out)
}

/** `{a: b, ?c: d}` */
export function makeMap(
	entries: readonly { readonly key: Run; readonly value: Run; readonly optional: boolean }[],
	frame: Frame,
): Value {
	spend(frame, 30)
	const out = new Map<Key, Value>()
	for (const entry of entries) {
		const key = keyOf(entry.key(frame))
		if (key === undefined) throw new CelError('unsupported key type')
		if (out.has(key)) throw new CelError(`Failed with repeated key: ${String(key)}`)
		const value = entry.value(frame)
		if (!entry.optional) out.set(key, value)
		else if (!(value instanceof Optional)) throw new CelError('no such overload')
		else if (value.value !== undefined) out.set(key, value.value)
	}
	return new Entries(out)
}

export interface Loop {
	readonly form: LoopForm
	/** Two variables: index and item, or key and value. */
	readonly two: boolean
	readonly set: (frame: Frame, one: Value, other: Value) => void
	readonly body: Run
	readonly filter: ((frame: Frame) => boolean) | undefined
}

/** What the variables of a loop go through. */
function* pairsOf(range: Value, two: boolean): Generator<readonly [Value, Value], void, undefined> {
	if (range instanceof ListValue) {
		for (let i = 0; i < range.size; i++) {
			const item = range.at(i)
			yield two ? [BigInt(i), item] : [item, null]
		}
		return
	}
	if (!(range instanceof MapValue)) throw new CelError('no such overload')
	for (const key of range.keys()) yield [key, two ? range.get(key)! : null]
}

export function runLoop(loop: Loop, range: Value, frame: Frame): Value {
	const { form, two, set, body, filter } = loop
	switch (form) {
		case 'all':
		case 'exists': {
			const decides = form === 'exists'
			let failure: CelError | undefined
			for (const [one, other] of pairsOf(range, two)) {
				spend(frame, 1)
				set(frame, one, other)
				try {
					if (body(frame) === decides) return decides
				} catch (e) {
					// Another item may decide: then this one's failure does not count.
					if (!(e instanceof CelError)) throw e
					failure ??= e
				}
			}
			if (failure !== undefined) throw failure
			return !decides
		}
		case 'existsOne': {
			let count = 0
			for (const [one, other] of pairsOf(range, two)) {
				spend(frame, 1)
				set(frame, one, other)
				if (body(frame) === true) count++
			}
			return count === 1
		}
		case 'filter':
		case 'map': {
			const out: Value[] = []
			for (const [one, other] of pairsOf(range, two)) {
				spend(frame, 2)
				set(frame, one, other)
				if (form === 'filter') {
					if (body(frame) === true) out.push(one)
				} else if (filter === undefined || filter(frame)) out.push(body(frame))
			}
			return new List(out)
		}
		case 'transformMap':
		case 'transformMapEntry': {
			const out = new Map<Key, Value>()
			const put = (key: Key, value: Value): void => {
				if (out.has(key)) throw new CelError(`insert failed: key ${String(key)} already exists`)
				out.set(key, value)
			}
			for (const [one, other] of pairsOf(range, two)) {
				spend(frame, 2)
				set(frame, one, other)
				if (filter !== undefined && !filter(frame)) continue
				const made = body(frame)
				if (form === 'transformMap') put(keyOf(one)!, made)
				else if (made instanceof MapValue) for (const key of made.keys()) put(key, made.get(key)!)
				else throw new CelError('no such overload')
			}
			return new Entries(out)
		}
		default:
			return form satisfies never
	}
}
