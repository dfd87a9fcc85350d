// From JSON objects to Kubernetes' protobuf, as the server's own encoder writes it (fields in order of number, keys of
// maps sorted), so that equal objects have equal bytes.

import { Failure } from '../../base/failure.ts'
import { isObject, type Json, type JsonObject } from '../../kube/schema/json.ts'
import { type TypeSchema, typeOf, type ValueSchema, type WireField } from '../../kube/schema/schema.ts'
import { parseTime } from '../../kube/schema/time.ts'
import { jsonSchemaProps } from './decode.ts'
import { WireWriter } from './wire.ts'

/**
 * The body `application/vnd.kubernetes.protobuf` of an object in canonical form; undefined: its type is not built in
 * (answer JSON then). A value that does not fit the type is a Failure InternalError: check fields before storing.
 */
export function encodeProtobuf(object: JsonObject): Uint8Array | undefined {
	const apiVersion = String(object.apiVersion ?? '')
	const kind = String(object.kind ?? '')
	const type = typeOf(apiVersion, kind)
	return type && encodeAs(object, type, apiVersion, kind)
}

/** As encodeProtobuf, for objects that do not say what they are (items of a list, WatchEvent). */
export function encodeAs(object: JsonObject, type: TypeSchema, apiVersion: string, kind: string): Uint8Array {
	const out = new WireWriter()
	// contentType and contentEncoding are written although they are empty.
	out.varint(0)
	out.tag(4, 2)
	out.varint(0)
	out.tag(3, 2)
	let before = out.size
	encodeMessage(out, object, type, '')
	out.close(2, before)
	before = out.size
	writeText(out, 2, kind)
	writeText(out, 1, apiVersion)
	out.close(1, before)
	out.bytes(new Uint8Array([0x6b, 0x38, 0x73, 0x00]))
	return out.finish()
}

/**
 * One frame of a watch in `application/vnd.kubernetes.protobuf;stream=watch`: length (4 bytes, big end first), then the
 * event without envelope, its object with one. Undefined: the object's type is not built in.
 */
export function encodeWatchEvent(event: {
	readonly type: string
	readonly object: JsonObject
}): Uint8Array | undefined {
	const object = encodeProtobuf(event.object)
	if (!object) return undefined
	const out = new WireWriter()
	const before = out.size
	out.bytes(object)
	out.close(1, before)
	out.close(2, before)
	writeText(out, 1, event.type)
	const length = out.size
	out.bytes(new Uint8Array([length >>> 24, (length >>> 16) & 255, (length >>> 8) & 255, length & 255]))
	return out.finish()
}

function writeText(out: WireWriter, number: number, text: string): void {
	const before = out.size
	out.text(text)
	out.close(number, before)
}

function encodeMessage(out: WireWriter, object: JsonObject, type: TypeSchema, path: string): void {
	const wire = type.wire
	if (!wire) throw mismatch(path, 'a built-in type', type.name)
	for (let i = wire.length - 1; i >= 0; i--) encodeField(out, object, wire[i]!, path)
}

function encodeField(out: WireWriter, object: JsonObject, field: WireField, path: string): void {
	const schema = field.value
	if (field.name === undefined) {
		if (schema.type !== 'object') return
		const inner = schema.object
		if (field.pointer && ![...inner.fields.keys()].some((name) => isPresent(object[name]))) return
		const before = out.size
		encodeMessage(out, object, inner, path)
		out.close(field.number, before)
		return
	}
	const value = object[field.name]
	const where = path === '' ? field.name : `${path}.${field.name}`
	if (schema.type === 'list' && !schema.wrapped) {
		if (!isPresent(value)) return
		if (!Array.isArray(value)) throw mismatch(where, 'a list', value)
		for (let i = value.length - 1; i >= 0; i--)
			encodeValue(out, field.number, value[i] as Json, schema.items, `${where}[${i}]`)
		return
	}
	if (schema.type === 'map') {
		if (!isPresent(value)) return
		if (!isObject(value)) throw mismatch(where, 'a map', value)
		for (const key of Object.keys(value).sort(byCodePoint).reverse()) {
			const before = out.size
			encodeValue(out, 2, value[key] ?? null, schema.value, `${where}[${key}]`)
			writeText(out, 1, key)
			out.close(field.number, before)
		}
		return
	}
	if (!isPresent(value)) {
		if (field.pointer) return
		if (schema.type === 'list' || (schema.type === 'string' && schema.format === 'byte')) return
	}
	encodeValue(out, field.number, value ?? null, schema, where)
}

function isPresent(value: Json | undefined): value is Exclude<Json, null> {
	return value !== undefined && value !== null
}

/** Go sorts strings by their bytes; UTF-16 sorts characters beyond the basic plane before U+E000. */
function byCodePoint(a: string, b: string): number {
	return Buffer.compare(Buffer.from(a), Buffer.from(b))
}

/** Content, then tag; null is the zero value of the type. */
function encodeValue(out: WireWriter, number: number, value: Json, schema: ValueSchema, where: string): void {
	const before = out.size
	switch (schema.type) {
		case 'boolean':
			if (value !== null && typeof value !== 'boolean') throw mismatch(where, 'true or false', value)
			out.varint(value === true ? 1 : 0)
			out.tag(number, 0)
			return
		case 'integer':
			if (value !== null && !Number.isInteger(value)) throw mismatch(where, 'an integer', value)
			out.varint((value as number | null) ?? 0)
			out.tag(number, 0)
			return
		case 'number':
			if (value !== null && typeof value !== 'number') throw mismatch(where, 'a number', value)
			out.double(value ?? 0)
			out.tag(number, 1)
			return
		case 'object':
			if (value !== null && !isObject(value)) throw mismatch(where, 'an object', value)
			encodeMessage(out, value ?? {}, schema.object, where)
			break
		case 'list':
			if (value !== null && !Array.isArray(value)) throw mismatch(where, 'a list', value)
			for (let i = (value?.length ?? 0) - 1; i >= 0; i--)
				encodeValue(out, 1, value![i]!, schema.items, `${where}[${i}]`)
			break
		case 'map':
			throw mismatch(where, 'no map inside a list or map', value)
		case 'any':
			encodeAny(out, value, schema.format, where)
			break
		case 'string':
			encodeString(out, value, schema.format, where)
			break
	}
	out.close(number, before)
}

function encodeString(out: WireWriter, value: Json, format: string | undefined, where: string): void {
	switch (format) {
		case 'byte':
			if (value !== null) out.bytes(Buffer.from(text(value, where), 'base64'))
			return
		case 'time':
		case 'microtime': {
			if (value === null) return
			const instant = parseTime(text(value, where))
			if (!instant) throw mismatch(where, 'a time (RFC 3339)', value)
			// Whole seconds only; of a MicroTime, whole microseconds.
			out.varint(format === 'time' ? 0 : Math.floor(instant.nanos / 1000) * 1000)
			out.tag(2, 0)
			out.varint(instant.seconds)
			out.tag(1, 0)
			return
		}
		case 'duration':
			out.varint(value === null ? 0 : parseDuration(text(value, where), where))
			out.tag(1, 0)
			return
		case 'quantity':
			writeText(out, 1, value === null ? '0' : typeof value === 'number' ? String(value) : text(value, where))
			return
		case 'intOrString': {
			const isText = typeof value === 'string'
			if (!isText && value !== null && !Number.isInteger(value)) throw mismatch(where, 'a string or an integer', value)
			writeText(out, 3, isText ? value : '')
			out.varint(isText ? 0 : ((value as number | null) ?? 0))
			out.tag(2, 0)
			out.varint(isText ? 1 : 0)
			out.tag(1, 0)
			return
		}
		default:
			if (value !== null) out.text(text(value, where))
	}
}

function text(value: Json, where: string): string {
	if (typeof value !== 'string') throw mismatch(where, 'a string', value)
	return value
}

function encodeAny(out: WireWriter, value: Json, format: string | undefined, where: string): void {
	if (format === 'raw' || format === 'fields' || format === 'json') {
		if (value !== null) writeText(out, 1, JSON.stringify(value))
		return
	}
	const schema: ValueSchema = { type: 'object', object: jsonSchemaProps(), atomic: false }
	if (format === 'schemaOrBool') {
		if (isObject(value)) encodeValue(out, 2, value, schema, where)
		out.varint(value === false || value === null ? 0 : 1)
		out.tag(1, 0)
		return
	}
	if (Array.isArray(value)) {
		const items: ValueSchema = format === 'schemaOrStrings' ? { type: 'string' } : schema
		for (let i = value.length - 1; i >= 0; i--) encodeValue(out, 2, value[i] as Json, items, `${where}[${i}]`)
	} else if (value !== null) encodeValue(out, 1, value, schema, where)
}

const units: Readonly<Record<string, number>> = { h: 3.6e12, m: 6e10, s: 1e9, ms: 1e6, us: 1e3, µs: 1e3, ns: 1 }

function parseDuration(value: string, where: string): number {
	if (!/^[+-]?(\d+(\.\d*)?(h|m|s|ms|us|µs|ns))+$|^0$/.test(value)) throw mismatch(where, 'a duration', value)
	let nanos = 0
	for (const m of value.matchAll(/(\d+(?:\.\d*)?)(h|ms|m|s|us|µs|ns)/g)) nanos += Number(m[1]) * units[m[2]!]!
	return Math.round(value.startsWith('-') ? -nanos : nanos)
}

function mismatch(where: string, want: string, have: Json | undefined): Failure {
	return new Failure(
		'InternalError',
		`cannot write protobuf at ${where}: ${want} belongs there, not ${JSON.stringify(have)}`,
		{
			field: where,
		},
	)
}
