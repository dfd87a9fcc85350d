// Objects of custom kinds as rules see them: types and values of CEL by the schema. Nothing is converted before a rule
// asks for it. Source: https://kubernetes.io/docs/reference/using-api/cel/ (type system integration).

import { isObject, type Json, type JsonObject } from '../../kube/schema/json.ts'
import { parseDuration, parseTimestamp } from './cel/standard.ts'
import { type Type, types } from './cel/types.ts'
import { CelError, Entries, type Key, List, ListValue, MapValue, type Merge, type Value } from './cel/values.ts'
import type { Schema } from './schema.ts'

/** A schema for rules. */
export interface Adapter {
	readonly type: Type
	/** Throws CelError where the value is not of the schema. */
	value(json: Json): Value
}

const keywords: ReadonlySet<string> = new Set(
	'true false null in as break const continue else for function if import let loop package namespace return var void while'.split(
		' ',
	),
)

/** The name of a field in rules: `__namespace__`, `a__dash__b`; undefined: rules cannot name it. */
export function escapeName(name: string): string | undefined {
	if (!/^[A-Za-z_./-][A-Za-z0-9_./-]*$/.test(name)) return undefined
	if (keywords.has(name)) return `__${name}__`
	const escaped = name
		.replaceAll('__', '__underscores__')
		.replaceAll('.', '__dot__')
		.replaceAll('-', '__dash__')
		.replaceAll('/', '__slash__')
	return /^[0-9]/.test(escaped) ? undefined : escaped
}

const plain = (type: Type, value: (json: Json) => Value): Adapter => ({ type, value })

function wrong(json: Json, wanted: string): never {
	throw new CelError(`invalid data, expected ${wanted}, got ${json === null ? 'null' : typeof json}`)
}

const text = plain(types.string, (json) => (typeof json === 'string' ? json : wrong(json, 'string')))
const boolean = plain(types.bool, (json) => (typeof json === 'boolean' ? json : wrong(json, 'a bool')))
const integer = plain(types.int, (json) =>
	Number.isInteger(json) ? BigInt(json as number) : wrong(json, 'an integer'),
)
const double = plain(types.double, (json) => (typeof json === 'number' ? json : wrong(json, 'a number')))
const bytes = plain(types.bytes, (json) =>
	typeof json === 'string' ? new Uint8Array(Buffer.from(json, 'base64')) : wrong(json, 'base64'),
)
const duration = plain(types.duration, (json) => {
	const found = typeof json === 'string' ? parseDuration(json) : undefined
	return found ?? wrong(json, 'a duration')
})
const time = plain(types.timestamp, (json) => {
	const found = typeof json === 'string' ? parseTimestamp(json.length === 10 ? `${json}T00:00:00Z` : json) : undefined
	return found ?? wrong(json, 'a time')
})
const intOrString = plain(types.dyn, (json) => {
	if (typeof json === 'string') return json
	return typeof json === 'number'
		? Number.isInteger(json)
			? BigInt(json)
			: json
		: wrong(json, 'an integer or a string')
})

/** JSON without a schema. */
export function looseValue(json: Json): Value {
	if (typeof json === 'number') return Number.isInteger(json) ? BigInt(json) : json
	if (Array.isArray(json)) return new List((json as readonly Json[]).map(looseValue))
	if (!isObject(json)) return json as string | boolean | null
	return new Entries(
		new Map(
			Object.keys(json)
				.filter((key) => json[key] !== undefined)
				.map((key) => [key, looseValue(json[key]!)]),
		),
	)
}

const adapters = new WeakMap<Schema, Adapter | 'none'>()
const rootAdapters = new WeakMap<Schema, Adapter>()

/**
 * The adapter of a schema; undefined: rules cannot see such values (nothing is known of them).
 * `isResource`: it is a whole object, so apiVersion, kind and the name are there too.
 */
export function adapterOf(schema: Schema, isResource = schema.embedded): Adapter | undefined {
	if (isResource) {
		const known = rootAdapters.get(schema)
		if (known !== undefined) return known
		const made = objectAdapter(schema, schema.properties ?? new Map(), true)
		rootAdapters.set(schema, made)
		return made
	}
	const known = adapters.get(schema)
	if (known !== undefined) return known === 'none' ? undefined : known
	const made = makeAdapter(schema)
	const adapter = made !== undefined && schema.nullable ? nullableOf(made) : made
	adapters.set(schema, adapter ?? 'none')
	return adapter
}

function nullableOf(adapter: Adapter): Adapter {
	return { type: adapter.type, value: (json) => (json === null ? null : adapter.value(json)) }
}

function makeAdapter(schema: Schema): Adapter | undefined {
	if (schema.intOrString) return intOrString
	switch (schema.type) {
		case 'string':
			if (schema.format === 'byte') return bytes
			if (schema.format === 'duration') return duration
			return schema.format === 'date' || schema.format === 'date-time' ? time : text
		case 'boolean':
			return boolean
		case 'integer':
			return integer
		case 'number':
			return double
		case 'array': {
			const items = schema.items && adapterOf(schema.items)
			if (items === undefined) return undefined
			const merge: Merge =
				schema.listType === 'set'
					? { by: 'value' }
					: schema.listType === 'map'
						? { by: 'keys', keys: schema.listKeys.map((key) => escapeName(key) ?? key) }
						: undefined
			return plain(types.list(items.type), (json) =>
				Array.isArray(json) ? new JsonList(json as readonly Json[], items, merge) : wrong(json, 'an array'),
			)
		}
		case 'object': {
			if (schema.properties === undefined && schema.additional !== undefined) {
				if (schema.additional === true) return undefined
				const values = adapterOf(schema.additional)
				if (values === undefined) return undefined
				return plain(types.map(types.string, values.type), (json) =>
					isObject(json) ? new JsonMap(json, values) : wrong(json, 'an object'),
				)
			}
			return objectAdapter(schema, schema.properties ?? new Map(), false)
		}
		default:
			return undefined
	}
}

interface Field {
	/** In JSON. */
	readonly name: string
	readonly adapter: Adapter
}

const metadataFields: ReadonlyMap<string, Field> = new Map(
	['name', 'generateName'].map((name) => [name, { name, adapter: text }]),
)
const metadata = fieldsAdapter(metadataFields)

function fieldsAdapter(fields: ReadonlyMap<string, Field>): Adapter {
	const type: Type = { kind: 'object', fields: new Map([...fields].map(([name, field]) => [name, field.adapter.type])) }
	return { type, value: (json) => (isObject(json) ? new JsonObjectValue(json, fields) : wrong(json, 'an object')) }
}

function objectAdapter(schema: Schema, properties: ReadonlyMap<string, Schema>, isResource: boolean): Adapter {
	let made: Adapter | undefined
	// Made when first asked for: schemas are large and rules look at little of them.
	const make = (): Adapter => {
		if (made !== undefined) return made
		const fields = new Map<string, Field>()
		for (const [name, below] of properties) {
			if (isResource && (name === 'apiVersion' || name === 'kind' || name === 'metadata')) continue
			const escaped = escapeName(name)
			const adapter = escaped === undefined ? undefined : adapterOf(below)
			if (escaped !== undefined && adapter !== undefined) fields.set(escaped, { name, adapter })
		}
		if (isResource) {
			for (const name of ['apiVersion', 'kind']) fields.set(name, { name, adapter: text })
			fields.set('metadata', { name: 'metadata', adapter: metadata })
		}
		return (made = fieldsAdapter(fields))
	}
	const type: Type = {
		kind: 'object',
		get fields() {
			return (make().type as { fields: ReadonlyMap<string, Type> }).fields
		},
	}
	const value = (json: Json): Value => make().value(json)
	return schema.nullable && !isResource ? nullableOf({ type, value }) : { type, value }
}

class JsonList extends ListValue {
	readonly #json: readonly Json[]
	readonly #items: Adapter
	readonly #merge: Merge
	readonly #made: Value[] = []
	constructor(json: readonly Json[], items: Adapter, merge: Merge) {
		super()
		this.#json = json
		this.#items = items
		this.#merge = merge
	}
	override get merge(): Merge {
		return this.#merge
	}
	get size(): number {
		return this.#json.length
	}
	at(index: number): Value {
		const known = this.#made[index]
		if (known !== undefined) return known
		return (this.#made[index] = this.#items.value(this.#json[index]!))
	}
}

class JsonMap extends MapValue {
	readonly #json: JsonObject
	readonly #values: Adapter
	constructor(json: JsonObject, values: Adapter) {
		super()
		this.#json = json
		this.#values = values
	}
	get size(): number {
		return Object.keys(this.#json).length
	}
	has(key: Key): boolean {
		return typeof key === 'string' && Object.hasOwn(this.#json, key)
	}
	get(key: Key): Value | undefined {
		return this.has(key) ? this.#values.value(this.#json[key as string]!) : undefined
	}
	keys(): Iterable<Key> {
		return Object.keys(this.#json)
	}
}

class JsonObjectValue extends MapValue {
	readonly #json: JsonObject
	readonly #fields: ReadonlyMap<string, Field>
	readonly #made = new Map<string, Value>()
	constructor(json: JsonObject, fields: ReadonlyMap<string, Field>) {
		super()
		this.#json = json
		this.#fields = fields
	}
	get size(): number {
		return [...this.keys()].length
	}
	has(key: Key): boolean {
		const field = typeof key === 'string' ? this.#fields.get(key) : undefined
		return field !== undefined && Object.hasOwn(this.#json, field.name) && this.#json[field.name] !== undefined
	}
	get(key: Key): Value | undefined {
		if (typeof key !== 'string' || !this.has(key)) return undefined
		const known = this.#made.get(key)
		if (known !== undefined) return known
		const field = this.#fields.get(key)!
		const value = field.adapter.value(this.#json[field.name]!)
		this.#made.set(key, value)
		return value
	}
	*keys(): Generator<Key, void, undefined> {
		for (const name of this.#fields.keys()) if (this.has(name)) yield name
	}
}
