// What becomes of an object of a custom kind before it is looked at: fields the schema does not have go, values the
// schema has defaults for are filled in.

import { isObject, type Json, type JsonObject, setKey } from '../../kube/schema/json.ts'
import { childPath, type Schema, schemaAt } from './schema.ts'

/** Fields every object has, whatever its schema says. */
const everywhere: ReadonlySet<string> = new Set(['apiVersion', 'kind', 'metadata'])

/**
 * The object without the fields its schema does not have; their paths are added to `unknown`. The metadata of the object
 * itself is left alone. The same object where nothing goes.
 */
export function prune(object: JsonObject, schema: Schema, unknown: string[]): JsonObject {
	return pruneObject(object, schema, '', unknown, true)
}

function pruneValue(value: Json, schema: Schema | undefined, path: string, unknown: string[]): Json {
	if (schema === undefined) return value
	if (isObject(value)) return pruneObject(value, schema, path, unknown, schema.embedded)
	if (!Array.isArray(value)) return value
	const { items } = schema
	if (items === undefined) return value
	const list = value as readonly Json[]
	const pruned = list.map((item, i) => pruneValue(item, items, `${path}[${i}]`, unknown))
	return pruned.every((item, i) => item === list[i]) ? value : pruned
}

function pruneObject(
	object: JsonObject,
	schema: Schema,
	path: string,
	unknown: string[],
	isResource: boolean,
): JsonObject {
	let changed = false
	const out: Record<string, Json | undefined> = {}
	for (const key of Object.keys(object)) {
		const value = object[key]
		if (value === undefined) continue
		if (isResource && everywhere.has(key)) {
			setKey(out, key, value)
			continue
		}
		const own = schema.properties?.get(key)
		if (own === undefined && schema.additional === undefined && !schema.preserveUnknown) {
			// What has no structure at all is no object of known fields.
			unknown.push(childPath(path, key))
			changed = true
			continue
		}
		const at = own === undefined && schema.additional !== undefined ? `${path}[${key}]` : childPath(path, key)
		const pruned = pruneValue(value, own ?? schemaAt(schema, key), at, unknown)
		if (pruned !== value) changed = true
		setKey(out, key, pruned)
	}
	return changed ? out : object
}

/** The object with defaults, and without nulls where null is no value. The same object where nothing changes. */
export function withSchemaDefaults(object: JsonObject, schema: Schema): JsonObject {
	return fillObject(object, schema)
}

function fillValue(value: Json, schema: Schema | undefined): Json {
	if (schema === undefined) return value
	if (isObject(value)) return fillObject(value, schema)
	if (!Array.isArray(value)) return value
	const { items } = schema
	if (items === undefined) return value
	const list = value as readonly Json[]
	const filled = list.map((item) => {
		if (item === null && !items.nullable && items.default !== undefined) return fillValue(items.default, items)
		return fillValue(item, items)
	})
	return filled.every((item, i) => item === list[i]) ? value : filled
}

function fillObject(object: JsonObject, schema: Schema): JsonObject {
	let out: Record<string, Json | undefined> | undefined
	const draft = (): Record<string, Json | undefined> => (out ??= { ...object })
	for (const key of Object.keys(object)) {
		const value = object[key]
		if (value === undefined) continue
		const below = schemaAt(schema, key)
		if (below === undefined) continue
		if (value === null && !below.nullable) {
			// Nulls of fields that have a default become the default below; those of others are as if absent.
			if (below.default !== undefined) setKey(draft(), key, fillValue(below.default, below))
			else if (schema.properties?.has(key)) delete draft()[key]
			continue
		}
		const filled = fillValue(value, below)
		if (filled !== value) setKey(draft(), key, filled)
	}
	if (schema.hasDefaults && schema.properties !== undefined) {
		for (const [key, below] of schema.properties) {
			if (below.default === undefined || Object.hasOwn(object, key)) continue
			setKey(draft(), key, fillValue(below.default, below))
		}
	}
	return out ?? object
}
