// Are the values of an object those its schema allows? In the words of the real server, which has them from its OpenAPI
// library. What was so before an update and is unchanged stays (KEP-4008, ratcheting).

import type { StatusCause } from '../../kube/objects/meta.ts'
import { isObject, type Json, type JsonObject, sameJson } from '../../kube/schema/json.ts'
import { cause } from '../status.ts'
import { regexOf } from './cel/regex.ts'
import { compareTexts, lengthOf } from './cel/values.ts'
import { isFormat } from './formats.ts'
import { childPath, keyOfItem, type Schema } from './schema.ts'

const mostCauses = 100

/** The faults of an object; `before`: what it takes the place of. apiVersion, kind and metadata are not looked at. */
export function checkSchema(object: JsonObject, before: JsonObject | undefined, schema: Schema): StatusCause[] {
	const causes: StatusCause[] = []
	check(object, before, schema, '', causes)
	if (causes.length === 0) checkLists(object, before, schema, '', causes)
	return causes.slice(0, mostCauses)
}

/** The faults of one value, such as a default. */
export function checkValue(value: Json, schema: Schema, path: string): StatusCause[] {
	const causes: StatusCause[] = []
	check(value, undefined, schema, path, causes)
	if (causes.length === 0) checkLists(value, undefined, schema, path, causes)
	return causes
}

function typeOfJson(value: Json): string {
	if (value === null) return 'null'
	if (Array.isArray(value)) return 'array'
	if (typeof value === 'object') return 'object'
	return typeof value === 'number' ? (Number.isInteger(value) ? 'integer' : 'number') : typeof value
}

function check(
	value: Json,
	before: Json | undefined,
	schema: Schema,
	path: string,
	causes: StatusCause[],
	loose = false,
): void {
	if (causes.length >= mostCauses) return
	if (before !== undefined && sameJson(value, before)) return
	if (value === null && schema.nullable) return
	const type = typeOfJson(value)
	if (!isOfType(type, schema)) {
		const wanted = schema.intOrString ? 'integer,string' : schema.type
		causes.push({
			reason: 'FieldValueTypeInvalid',
			message: `Invalid value: ${JSON.stringify(type)}: ${path} in body must be of type ${wanted}: ${JSON.stringify(type)}`,
			field: path,
		})
		return
	}
	if (schema.enum !== undefined && !schema.enum.some((allowed) => sameJson(allowed, value))) {
		const supported = schema.enum.map((allowed) => (typeof allowed === 'string' ? allowed : JSON.stringify(allowed)))
		causes.push(cause.notSupported(path, value, supported))
	}
	checkLogic(value, schema, path, causes)
	if (typeof value === 'string') checkText(value, schema, path, causes)
	else if (typeof value === 'number') checkNumber(value, schema, path, causes)
	else if (Array.isArray(value)) checkArray(value as readonly Json[], before, schema, path, causes, loose)
	else if (isObject(value)) checkObject(value, before, schema, path, causes, loose)
}

function isOfType(type: string, schema: Schema): boolean {
	if (schema.intOrString) return type === 'integer' || type === 'string'
	if (schema.type === '') return true
	return schema.type === type || (schema.type === 'number' && type === 'integer')
}

function body(path: string, value: unknown, why: string): StatusCause {
	return cause.invalid(path, value, `${path} in body ${why}`)
}

function checkText(value: string, schema: Schema, path: string, causes: StatusCause[]): void {
	const { minLength, maxLength, pattern, format } = schema
	if (maxLength !== undefined || minLength !== undefined) {
		const length = lengthOf(value)
		if (maxLength !== undefined && length > maxLength)
			causes.push({
				reason: 'FieldValueTooLong',
				message: `Too long: may not be more than ${maxLength} bytes`,
				field: path,
			})
		if (minLength !== undefined && length < minLength)
			causes.push(body(path, value, `should be at least ${minLength} chars long`))
	}
	if (pattern !== '' && !regexOf(pattern).test(value)) causes.push(body(path, value, `should match '${pattern}'`))
	if (format !== '' && !schema.intOrString && !isFormat(format, value))
		causes.push(body(path, value, `must be of type ${format}: ${JSON.stringify(value)}`))
}

const bounds: Readonly<Record<string, number>> = { int32: 2 ** 31, int64: 2 ** 63 }

function checkNumber(value: number, schema: Schema, path: string, causes: StatusCause[]): void {
	const { minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf, format } = schema
	if (maximum !== undefined && (exclusiveMaximum ? value >= maximum : value > maximum))
		causes.push(body(path, value, `should be less than ${exclusiveMaximum ? '' : 'or equal to '}${maximum}`))
	if (minimum !== undefined && (exclusiveMinimum ? value <= minimum : value < minimum))
		causes.push(body(path, value, `should be greater than ${exclusiveMinimum ? '' : 'or equal to '}${minimum}`))
	if (multipleOf !== undefined && multipleOf > 0) {
		const times = value / multipleOf
		if (Math.abs(times - Math.round(times)) > 1e-9)
			causes.push(body(path, value, `should be a multiple of ${multipleOf}`))
	}
	const bound = schema.type === 'integer' || schema.intOrString ? bounds[format] : undefined
	if (bound !== undefined && (value >= bound || value < -bound))
		causes.push(cause.invalid(path, value, `Checked value must be of type integer with format ${format} in ${path}`))
}

function checkArray(
	value: readonly Json[],
	before: Json | undefined,
	schema: Schema,
	path: string,
	causes: StatusCause[],
	loose: boolean,
): void {
	const { minItems, maxItems, items } = schema
	if (maxItems !== undefined && value.length > maxItems) causes.push(tooMany(path, value.length, maxItems))
	if (minItems !== undefined && value.length < minItems)
		causes.push(body(path, value.length, `should have at least ${minItems} items`))
	if (items === undefined) return
	const old = previousItems(value, before, schema)
	for (const [i, item] of value.entries()) check(item, old(item), items, `${path}[${i}]`, causes, loose)
}

/** What an item was before; only the items of lists with keys can be told apart. */
export function previousItems(
	value: readonly Json[],
	before: Json | undefined,
	schema: Schema,
): (item: Json) => Json | undefined {
	if (!Array.isArray(before) || schema.listType !== 'map' || value.length === 0) return () => undefined
	const known = new Map<string | undefined, Json>()
	for (const item of before as readonly Json[]) known.set(keyOfItem(item, schema), item)
	known.delete(undefined)
	return (item) => known.get(keyOfItem(item, schema))
}

function tooMany(path: string, have: number, most: number): StatusCause {
	return { reason: 'FieldValueTooMany', message: `Too many: ${have}: must have at most ${most} items`, field: path }
}

function checkObject(
	value: JsonObject,
	before: Json | undefined,
	schema: Schema,
	path: string,
	causes: StatusCause[],
	loose: boolean,
): void {
	const { minProperties, maxProperties, required, properties, additional } = schema
	const keys = Object.keys(value).filter((key) => value[key] !== undefined)
	if (maxProperties !== undefined && keys.length > maxProperties) causes.push(tooMany(path, keys.length, maxProperties))
	if (minProperties !== undefined && keys.length < minProperties)
		causes.push(body(path, keys.length, `should have at least ${minProperties} properties`))
	for (const name of required)
		if (!Object.hasOwn(value, name) || value[name] === undefined) causes.push(cause.required(childPath(path, name)))
	if (schema.embedded && !loose) checkEmbedded(value, path, causes)
	const old = isObject(before) && !schema.atomicMap ? before : undefined
	const isRoot = path === '' && !loose
	for (const key of keys) {
		if (isRoot && (key === 'apiVersion' || key === 'kind' || key === 'metadata')) continue
		const own = properties?.get(key)
		const below = own ?? (additional === true ? undefined : additional)
		if (below === undefined) continue
		const was = old !== undefined && Object.hasOwn(old, key) ? old[key] : undefined
		check(value[key]!, was, below, own ? childPath(path, key) : childPath(path, key), causes, loose)
	}
}

/** An object within an object has a version, a kind and metadata. */
function checkEmbedded(value: JsonObject, path: string, causes: StatusCause[]): void {
	for (const name of ['apiVersion', 'kind'] as const) {
		const at = childPath(path, name)
		if (typeof value[name] !== 'string' || value[name] === '') causes.push(cause.required(at, 'must not be empty'))
	}
	if (value.metadata !== undefined && !isObject(value.metadata))
		causes.push(cause.invalid(childPath(path, 'metadata'), typeOfJson(value.metadata), 'must be an object'))
}

/** allOf, anyOf, oneOf, not. They say nothing about where fields are, so they are walked loosely. */
function checkLogic(value: Json, schema: Schema, path: string, causes: StatusCause[]): void {
	const shown = JSON.stringify(path)
	const faults = (one: Schema): StatusCause[] => {
		const found: StatusCause[] = []
		check(value, undefined, one, path, found, true)
		return found
	}
	const { anyOf, oneOf, allOf, not } = schema
	if (anyOf.length > 0) {
		const all = anyOf.map(faults)
		if (!all.some((found) => found.length === 0)) {
			causes.push(cause.invalid(path, '', `${shown} must validate at least one schema (anyOf)`))
			causes.push(...nearest(all))
		}
	}
	if (oneOf.length > 0) {
		const all = oneOf.map(faults)
		const valid = all.filter((found) => found.length === 0).length
		if (valid !== 1) {
			const why = valid === 0 ? 'Found none valid' : `Found ${valid} valid alternatives`
			causes.push(cause.invalid(path, '', `${shown} must validate one and only one schema (oneOf). ${why}`))
			if (valid === 0) causes.push(...nearest(all))
		}
	}
	if (allOf.length > 0) {
		const all = allOf.map(faults)
		const broken = all.filter((found) => found.length > 0)
		if (broken.length > 0) {
			const valid = all.length - broken.length
			const why = valid === 0 ? 'None validated' : ''
			causes.push(
				cause.invalid(path, '', `${shown} must validate all the schemas (allOf)${why === '' ? '' : `. ${why}`}`),
			)
			causes.push(...broken.flat())
		}
	}
	if (not !== undefined && faults(not).length === 0)
		causes.push(cause.invalid(path, '', `${shown} must not validate the schema (not)`))
}

/** Of several alternatives the one with the fewest faults: most likely the one that is meant. */
function nearest(all: readonly StatusCause[][]): StatusCause[] {
	return all.reduce((best, found) => (found.length < best.length ? found : best))
}

/** Sets hold no value twice, lists with keys no key. Where it was so before, it may stay. */
function checkLists(value: Json, before: Json | undefined, schema: Schema, path: string, causes: StatusCause[]): void {
	if (before !== undefined && sameJson(value, before)) return
	if (Array.isArray(value)) {
		const list = value as readonly Json[]
		if (schema.listType !== 'atomic') {
			const seen = new Set<string>()
			for (const [i, item] of list.entries()) {
				const key = schema.listType === 'set' ? canonicalText(item) : keyOfItem(item, schema)
				if (key === undefined) continue
				if (seen.has(key)) {
					const shown =
						schema.listType === 'set' || !isObject(item)
							? item
							: Object.fromEntries(
									schema.listKeys.map((name) => [name, item[name] ?? schema.items?.properties?.get(name)?.default]),
								)
					causes.push(cause.duplicate(`${path}[${i}]`, shown))
				}
				seen.add(key)
			}
		}
		const { items } = schema
		if (items === undefined) return
		const old = previousItems(list, before, schema)
		for (const [i, item] of list.entries()) checkLists(item, old(item), items, `${path}[${i}]`, causes)
		return
	}
	if (!isObject(value)) return
	for (const key of Object.keys(value)) {
		const own = schema.properties?.get(key)
		const below = own ?? (schema.additional === true ? undefined : schema.additional)
		if (below === undefined || value[key] === undefined) continue
		const was = isObject(before) && Object.hasOwn(before, key) ? before[key] : undefined
		checkLists(value[key], was, below, childPath(path, key), causes)
	}
}

/** Equal values have equal texts. */
function canonicalText(value: Json): string {
	if (Array.isArray(value)) return `[${(value as readonly Json[]).map(canonicalText).join(',')}]`
	if (!isObject(value)) return JSON.stringify(value)
	const keys = Object.keys(value).sort(compareTexts)
	return `{${keys.map((key) => `${JSON.stringify(key)}:${canonicalText(value[key] ?? null)}`).join(',')}}`
}
