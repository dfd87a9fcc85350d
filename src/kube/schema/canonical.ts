// The one form in which the API server keeps and answers an object: what is left of JSON once it went through the
// server's types. Unknown fields go, empty fields go or appear as the type says, quantities and times get one spelling.

import { isObject, type Json, type JsonObject, setKey } from './json.ts'
import { canonicalQuantity } from './quantity.ts'
import type { FieldSchema, TypeSchema, ValueSchema } from './schema.ts'
import { parseTime, printTime } from './time.ts'

/**
 * The canonical form of `object`, new where it differs and frozen nowhere. Values of a wrong JSON type are kept as they
 * are: check with `checkFields` (src/apiserver/validate) first.
 * Types built at run time (CRDs) have no rules about empty fields: there only unknown fields go.
 */
export function canonical(object: JsonObject, type: TypeSchema): JsonObject {
	return canonicalObject(object, type)
}

function canonicalObject(object: JsonObject, type: TypeSchema): JsonObject {
	const out: Record<string, Json> = {}
	if (type.topLevel) {
		if (typeof object.kind === 'string' && object.kind !== '') out.kind = object.kind
		if (typeof object.apiVersion === 'string' && object.apiVersion !== '') out.apiVersion = object.apiVersion
	}
	for (const field of type.fields.values()) {
		const value = type.wire ? canonicalField(object[field.name], field) : keepField(object[field.name], field)
		if (value !== undefined) out[field.name] = value
	}
	if (type.preserveUnknown)
		for (const key of Object.keys(object))
			if (!type.fields.has(key) && object[key] !== undefined) setKey(out, key, object[key])
	return out
}

function keepField(value: Json | undefined, field: FieldSchema): Json | undefined {
	return value === undefined || value === null ? value : canonicalValue(value, field.value)
}

function canonicalField(value: Json | undefined, field: FieldSchema): Json | undefined {
	if (value === undefined || value === null) {
		if (field.pointer) return field.omit === 'never' ? null : undefined
		const schema = field.value
		if (schema.type === 'object') {
			if (field.omit === 'zero') return undefined
			return canonicalObject({}, schema.object)
		}
		// Structs with a form of their own are never empty for Go's encoder: Quantity, IntOrString, times.
		if (field.omit === 'empty' && isStruct(schema)) return zeroOf(schema)
		return field.omit === 'never' ? absentOf(schema) : undefined
	}
	const result = canonicalValue(value, field.value)
	if (field.pointer || field.omit === 'never') return result
	if (field.value.type === 'object')
		return field.omit === 'zero' && isZero(result, field.value.object) ? undefined : result
	return isEmpty(result, field.value) ? undefined : result
}

function isStruct(schema: ValueSchema): boolean {
	switch (schema.type) {
		case 'string':
			return (
				schema.format === 'quantity' ||
				schema.format === 'intOrString' ||
				schema.format === 'time' ||
				schema.format === 'microtime'
			)
		case 'any':
			return schema.format === 'raw'
		default:
			return false
	}
}

function isEmpty(value: Json, schema: ValueSchema): boolean {
	if (isStruct(schema)) return false
	return (
		value === '' || value === 0 || value === false || (Array.isArray(value) && value.length === 0) || isEmptyMap(value)
	)
}

function isEmptyMap(value: Json): boolean {
	if (!isObject(value)) return false
	for (const _ in value) return false
	return true
}

function isZero(value: Json, type: TypeSchema): boolean {
	if (!isObject(value)) return false
	const zero = canonicalObject({}, type)
	return JSON.stringify(value) === JSON.stringify(zero)
}

/** What an absent field that is always written looks like. */
function absentOf(schema: ValueSchema): Json {
	return schema.type === 'list' || schema.type === 'map' || (schema.type === 'string' && schema.format === 'byte')
		? null
		: zeroOf(schema)
}

/** What a null inside a list or map becomes. */
function zeroOf(schema: ValueSchema): Json {
	switch (schema.type) {
		case 'object':
			return canonicalObject({}, schema.object)
		case 'map':
		case 'list':
		case 'any':
			return null
		case 'boolean':
			return false
		case 'integer':
		case 'number':
			return 0
		case 'string':
			switch (schema.format) {
				case 'quantity':
					return '0'
				case 'intOrString':
					return 0
				case 'time':
				case 'microtime':
				case 'byte':
					return null
				default:
					return ''
			}
	}
}

function canonicalValue(value: Json, schema: ValueSchema): Json {
	if (value === null) return zeroOf(schema)
	switch (schema.type) {
		case 'object':
			return isObject(value) ? canonicalObject(value, schema.object) : value
		case 'map': {
			if (!isObject(value)) return value
			const out: Record<string, Json> = {}
			for (const key of Object.keys(value)) {
				const item = value[key]
				if (item !== undefined) setKey(out, key, canonicalValue(item, schema.value))
			}
			return out
		}
		case 'list':
			return Array.isArray(value) ? value.map((item: Json) => canonicalValue(item, schema.items)) : value
		case 'any':
		case 'boolean':
		case 'integer':
		case 'number':
			return value
		case 'string':
			return canonicalString(value, schema.format)
	}
}

function canonicalString(value: Json, format: string | undefined): Json {
	switch (format) {
		case 'quantity':
			return typeof value === 'string' || typeof value === 'number' ? (canonicalQuantity(value) ?? value) : value
		case 'time':
		case 'microtime': {
			if (typeof value !== 'string') return value
			const instant = parseTime(value)
			return instant ? printTime(instant, format === 'microtime') : value
		}
		case 'byte':
			return typeof value === 'string' ? value.replace(/[\r\n]/g, '') : value
		default:
			return value
	}
}
