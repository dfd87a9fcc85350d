// What CEL expressions compute with. Integers are bigint, doubles number; lists and maps are looked at through one
// interface, so that objects of the API need not be converted before a rule asks for a part of them.

/** What an evaluation ends with where it has no value. `&&`, `||`, all and exists may do without the failing side. */
export class CelError extends Error {}

/** The expression did more work than it may; nothing does without that. */
export class CelBudgetError extends Error {}

export class Uint {
	readonly value: bigint
	constructor(value: bigint) {
		if (value < 0n || value >= 1n << 64n) throw new CelError('unsigned integer overflow')
		this.value = value
	}
}

/** Nanoseconds since the epoch. */
export class Timestamp {
	readonly nanos: bigint
	constructor(nanos: bigint) {
		if (nanos < minTime || nanos > maxTime) throw new CelError('timestamp overflow')
		this.nanos = nanos
	}
}
const minTime = -62135596800n * 1_000_000_000n
const maxTime = 253402300799n * 1_000_000_000n + 999_999_999n

export class Duration {
	readonly nanos: bigint
	constructor(nanos: bigint) {
		if (nanos >= 1n << 63n || nanos < -(1n << 63n)) throw new CelError('duration overflow')
		this.nanos = nanos
	}
}

/** A type as a value, by its name. */
export class TypeName {
	readonly name: string
	constructor(name: string) {
		this.name = name
	}
}

export class Optional {
	/** undefined: none. */
	readonly value: Value | undefined
	constructor(value: Value | undefined) {
		this.value = value
	}
}
export const none = new Optional(undefined)

/** A value of an extension library: a URL, an address, a quantity. */
export abstract class Opaque {
	abstract readonly typeName: string
	abstract equals(other: Opaque): boolean
}

/** What of a list counts when it is compared or added to: `x-kubernetes-list-type`. */
export type Merge = { readonly by: 'value' } | { readonly by: 'keys'; readonly keys: readonly string[] } | undefined

export abstract class ListValue {
	abstract readonly size: number
	abstract at(index: number): Value
	/** Order counts unless this says otherwise. */
	get merge(): Merge {
		return undefined
	}
	*[Symbol.iterator](): Generator<Value, void, undefined> {
		for (let i = 0; i < this.size; i++) yield this.at(i)
	}
}

/** What keys are told apart by: uint and int of the same amount are one key. */
export type Key = string | bigint | boolean

export abstract class MapValue {
	abstract readonly size: number
	abstract get(key: Key): Value | undefined
	abstract has(key: Key): boolean
	abstract keys(): Iterable<Key>
}

export type Value =
	| null
	| boolean
	| bigint
	| number
	| string
	| Uint8Array
	| Uint
	| Timestamp
	| Duration
	| TypeName
	| Optional
	| Opaque
	| ListValue
	| MapValue

export class List extends ListValue {
	readonly items: readonly Value[]
	readonly #merge: Merge
	constructor(items: readonly Value[], merge?: Merge) {
		super()
		this.items = items
		this.#merge = merge
	}
	override get merge(): Merge {
		return this.#merge
	}
	get size(): number {
		return this.items.length
	}
	at(index: number): Value {
		return this.items[index]!
	}
}

export class Entries extends MapValue {
	readonly entries: ReadonlyMap<Key, Value>
	constructor(entries: ReadonlyMap<Key, Value>) {
		super()
		this.entries = entries
	}
	get size(): number {
		return this.entries.size
	}
	get(key: Key): Value | undefined {
		return this.entries.get(key)
	}
	has(key: Key): boolean {
		return this.entries.has(key)
	}
	keys(): Iterable<Key> {
		return this.entries.keys()
	}
}

/** undefined: not good as a key. */
export function keyOf(value: Value): Key | undefined {
	if (typeof value === 'string' || typeof value === 'bigint' || typeof value === 'boolean') return value
	if (value instanceof Uint) return value.value
	if (typeof value === 'number' && Number.isInteger(value)) return BigInt(value)
	return undefined
}

/** The name of the type of a value, as messages and type() have it. */
export function typeNameOf(value: Value): string {
	switch (typeof value) {
		case 'boolean':
			return 'bool'
		case 'bigint':
			return 'int'
		case 'number':
			return 'double'
		case 'string':
			return 'string'
		default:
	}
	if (value === null) return 'null_type'
	if (value instanceof Uint8Array) return 'bytes'
	if (value instanceof ListValue) return 'list'
	if (value instanceof MapValue) return 'map'
	if (value instanceof Uint) return 'uint'
	if (value instanceof Timestamp) return 'google.protobuf.Timestamp'
	if (value instanceof Duration) return 'google.protobuf.Duration'
	if (value instanceof TypeName) return 'type'
	if (value instanceof Optional) return 'optional_type'
	return value.typeName
}

/** Equality of CEL: numbers by amount, lists and maps by content, different types are never equal. */
export function equal(a: Value, b: Value): boolean {
	if (a === b) return true
	if (a === null || b === null) return false
	const x = amountOf(a)
	const y = amountOf(b)
	// biome-ignore lint/suspicious/noDoubleEquals: bigint and number are compared by amount
	if (x !== undefined && y !== undefined) return x == y
	if (typeof a !== 'object' || typeof b !== 'object') return false
	if (a instanceof ListValue) return b instanceof ListValue && sameLists(a, b)
	if (a instanceof MapValue) return b instanceof MapValue && sameMaps(a, b)
	if (a instanceof Uint8Array) return b instanceof Uint8Array && compareBytes(a, b) === 0
	if (a instanceof Timestamp) return b instanceof Timestamp && a.nanos === b.nanos
	if (a instanceof Duration) return b instanceof Duration && a.nanos === b.nanos
	if (a instanceof TypeName) return b instanceof TypeName && a.name === b.name
	if (a instanceof Optional) {
		if (!(b instanceof Optional)) return false
		if (a.value === undefined || b.value === undefined) return a.value === b.value
		return equal(a.value, b.value)
	}
	return a instanceof Opaque && b instanceof Opaque && a.typeName === b.typeName && a.equals(b)
}

/** Of numbers. */
export function amountOf(value: Value): number | bigint | undefined {
	if (typeof value === 'number' || typeof value === 'bigint') return value
	return value instanceof Uint ? value.value : undefined
}

function sameLists(a: ListValue, b: ListValue): boolean {
	if (a.size !== b.size) return false
	const merge = a.merge ?? b.merge
	if (merge === undefined) {
		for (let i = 0; i < a.size; i++) if (!equal(a.at(i), b.at(i))) return false
		return true
	}
	for (const item of a) {
		const other = findSame(b, item, merge)
		if (other === undefined || !equal(item, other)) return false
	}
	return true
}

/** The item of a list that is the same by the list's own measure; undefined: none is. */
export function findSame(list: ListValue, item: Value, merge: NonNullable<Merge>): Value | undefined {
	for (const other of list)
		if (merge.by === 'value' ? equal(item, other) : haveSameKeys(item, other, merge.keys)) return other
	return undefined
}

function haveSameKeys(a: Value, b: Value, keys: readonly string[]): boolean {
	if (!(a instanceof MapValue) || !(b instanceof MapValue)) return false
	return keys.every((key) => {
		const x = a.get(key)
		const y = b.get(key)
		return x === undefined || y === undefined ? x === y : equal(x, y)
	})
}

function sameMaps(a: MapValue, b: MapValue): boolean {
	if (a.size !== b.size) return false
	for (const key of a.keys()) {
		const other = b.get(key)
		if (other === undefined || !equal(a.get(key)!, other)) return false
	}
	return true
}

export function compareBytes(a: Uint8Array, b: Uint8Array): number {
	for (let i = 0; i < a.length && i < b.length; i++) if (a[i] !== b[i]) return a[i]! - b[i]!
	return a.length - b.length
}

const surrogate = /[\ud800-\udfff]/

/** The code points of a text: what positions and sizes count. */
export function pointsOf(text: string): readonly string[] {
	return Array.from(text)
}

export function lengthOf(text: string): number {
	return surrogate.test(text) ? pointsOf(text).length : text.length
}

/** Code points from `start` to `end`; undefined: out of range. */
export function sliceOf(text: string, start: number, end: number): string | undefined {
	const length = lengthOf(text)
	if (start < 0 || end < start || end > length) return undefined
	return length === text.length ? text.slice(start, end) : pointsOf(text).slice(start, end).join('')
}

/** Texts by their code points, as Go compares them. */
export function compareTexts(a: string, b: string): number {
	if (a === b) return 0
	if (!surrogate.test(a) && !surrogate.test(b)) return a < b ? -1 : 1
	return Buffer.compare(Buffer.from(a), Buffer.from(b))
}
