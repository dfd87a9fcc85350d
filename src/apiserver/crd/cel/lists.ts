// Functions of lists, sets and optional values: the Kubernetes list library, cel-go's sets and optionals.

import type { Budget, Library } from './functions.ts'
import {
	amountOf,
	CelError,
	compareTexts,
	Duration,
	equal,
	ListValue,
	MapValue,
	none,
	Optional,
	Timestamp,
	Uint,
	type Value,
} from './values.ts'

function charge(budget: Budget, ...lists: readonly ListValue[]): void {
	budget.left -= lists.reduce((product, list) => product * Math.max(1, list.size), 1)
}

function compare(a: Value, b: Value): number {
	const x = amountOf(a)
	const y = amountOf(b)
	if (x !== undefined && y !== undefined) return x < y ? -1 : x > y ? 1 : 0
	if (typeof a === 'string' && typeof b === 'string') return compareTexts(a, b)
	if (typeof a === 'boolean' && typeof b === 'boolean') return Number(a) - Number(b)
	if ((a instanceof Timestamp && b instanceof Timestamp) || (a instanceof Duration && b instanceof Duration))
		return Number(a.nanos > b.nanos) - Number(a.nanos < b.nanos)
	throw new CelError('no such overload')
}

function extreme(list: ListValue, sign: 1 | -1, name: string): Value {
	if (list.size === 0) throw new CelError(`${name} called on empty list`)
	let best = list.at(0)
	for (const item of list) if (compare(item, best) * sign > 0) best = item
	return best
}

function add(a: Value, b: Value): Value {
	if (typeof a === 'bigint' && typeof b === 'bigint') {
		const sum = a + b
		if (sum >= 1n << 63n || sum < -(1n << 63n)) throw new CelError('integer overflow')
		return sum
	}
	if (typeof a === 'number' && typeof b === 'number') return a + b
	if (a instanceof Uint && b instanceof Uint) return new Uint(a.value + b.value)
	if (a instanceof Duration && b instanceof Duration) return new Duration(a.nanos + b.nanos)
	throw new CelError('no such overload')
}

function sum(list: ListValue, zero: Value): Value {
	let total: Value = zero
	for (const item of list) total = add(total, item)
	return total
}

function position(list: ListValue, item: Value, last: boolean): bigint {
	let found = -1n
	for (let i = 0; i < list.size; i++) {
		if (!equal(list.at(i), item)) continue
		found = BigInt(i)
		if (!last) break
	}
	return found
}

function contains(list: ListValue, others: ListValue): boolean {
	for (const item of others) if (position(list, item, false) < 0n) return false
	return true
}

const summed: Readonly<Record<string, Value>> = { int: 0n, uint: new Uint(0n), double: 0, duration: new Duration(0n) }
const ordered = ['int', 'uint', 'double', 'bool', 'duration', 'timestamp', 'string', 'bytes']

function orderLibrary(): Library {
	const out: Record<string, (args: never, budget: Budget) => Value> = {}
	for (const [kind, zero] of Object.entries(summed))
		out[`list<${kind}>.sum() ${kind}`] = ([list]: readonly [ListValue], budget: Budget) => {
			charge(budget, list)
			return sum(list, zero)
		}
	for (const kind of ordered) {
		out[`list<${kind}>.min() ${kind}`] = ([list]: readonly [ListValue], budget: Budget) => {
			charge(budget, list)
			return extreme(list, -1, 'min')
		}
		out[`list<${kind}>.max() ${kind}`] = ([list]: readonly [ListValue], budget: Budget) => {
			charge(budget, list)
			return extreme(list, 1, 'max')
		}
		out[`list<${kind}>.isSorted() bool`] = ([list]: readonly [ListValue], budget: Budget) => {
			charge(budget, list)
			for (let i = 1; i < list.size; i++) if (compare(list.at(i - 1), list.at(i)) > 0) return false
			return true
		}
	}
	return out
}

const listLibrary: Library = {
	'list<A>.indexOf(A) int': ([list, item]: readonly [ListValue, Value], budget) => {
		charge(budget, list)
		return position(list, item, false)
	},
	'list<A>.lastIndexOf(A) int': ([list, item]: readonly [ListValue, Value], budget) => {
		charge(budget, list)
		return position(list, item, true)
	},
	':sets.contains(list<A>, list<A>) bool': ([a, b]: readonly [ListValue, ListValue], budget) => {
		charge(budget, a, b)
		return contains(a, b)
	},
	':sets.equivalent(list<A>, list<A>) bool': ([a, b]: readonly [ListValue, ListValue], budget) => {
		charge(budget, a, b)
		return contains(a, b) && contains(b, a)
	},
	':sets.intersects(list<A>, list<A>) bool': ([a, b]: readonly [ListValue, ListValue], budget) => {
		charge(budget, a, b)
		for (const item of b) if (position(a, item, false) >= 0n) return true
		return false
	},
}

function isZero(value: Value): boolean {
	if (value === null || value === false || value === '') return true
	const amount = amountOf(value)
	// biome-ignore lint/suspicious/noDoubleEquals: bigint and number are compared by amount
	if (amount !== undefined) return amount == 0
	if (value instanceof Uint8Array) return value.length === 0
	if (value instanceof ListValue || value instanceof MapValue) return value.size === 0
	if (value instanceof Duration || value instanceof Timestamp) return value.nanos === 0n
	return false
}

const optionals: Library = {
	':optional.of(A) optional<A>': ([value]: readonly [Value]) => new Optional(value),
	':optional.ofNonZeroValue(A) optional<A>': ([value]: readonly [Value]) =>
		isZero(value) ? none : new Optional(value),
	':optional.none() optional<A>': () => none,
	'optional<A>.hasValue() bool': ([opt]: readonly [Optional]) => opt.value !== undefined,
	'optional<A>.value() A': ([opt]: readonly [Optional]) => {
		if (opt.value === undefined) throw new CelError('optional.none() dereference')
		return opt.value
	},
	'optional<A>.or(optional<A>) optional<A>': ([a, b]: readonly [Optional, Optional]) => (a.value === undefined ? b : a),
	'optional<A>.orValue(A) A': ([a, b]: readonly [Optional, Value]) => (a.value === undefined ? b : a.value),
}

export const lists: readonly Library[] = [orderLibrary(), listLibrary, optionals]
