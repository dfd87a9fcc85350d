// From Kubernetes' protobuf to the JSON object the server would have got as JSON.

import { Failure } from '../../base/failure.ts'
import { canonical } from '../../kube/schema/canonical.ts'
import { isObject, type Json, type JsonObject } from '../../kube/schema/json.ts'
import { type TypeSchema, typeOf, type ValueSchema } from '../../kube/schema/schema.ts'
import { printTime } from '../../kube/schema/time.ts'
import { malformed, WireReader } from './wire.ts'

export const protobufType = 'application/vnd.kubernetes.protobuf'

const magic = [0x6b, 0x38, 0x73, 0x00]
/** Real types nest some twenty deep; only JSON schemas in a CRD can go on. */
const deepest = 200

type Mutable = Record<string, Json>

/**
 * Reads a body of `application/vnd.kubernetes.protobuf`: the envelope `k8s\0`, the name of the type, the object.
 * The result is in canonical form, with `kind` and `apiVersion`.
 *
 * `expected` names the type where the envelope does not (DeleteOptions of some clients).
 * Throws Failure BadRequest for what cannot be read (with the field and the byte), and for a type that is not built in.
 */
export function decodeProtobuf(
	bytes: Uint8Array,
	expected?: { readonly apiVersion: string; readonly kind: string },
): JsonObject {
	return decodeEnvelope(bytes, expected, 0)
}

function decodeEnvelope(
	bytes: Uint8Array,
	expected: { readonly apiVersion: string; readonly kind: string } | undefined,
	depth: number,
): JsonObject {
	if (!isProtobuf(bytes))
		throw new Failure('BadRequest', 'cannot read the protobuf body: it does not begin with the bytes "k8s\\0"')
	const envelope = new WireReader(bytes, magic.length)
	let apiVersion = ''
	let kind = ''
	let content: WireReader | undefined
	while (!envelope.done) {
		const tag = envelope.varint('the envelope')
		if (tag === 10) {
			const meta = envelope.nested('the envelope')
			while (!meta.done) {
				const metaTag = meta.varint('the envelope')
				if (metaTag === 10) apiVersion = meta.nested('apiVersion').text()
				else if (metaTag === 18) kind = meta.nested('kind').text()
				else meta.skip(metaTag & 7, 'the envelope')
			}
		} else if (tag === 18) content = envelope.nested('the envelope')
		else if (tag === 26 || tag === 34) {
			const name = tag === 26 ? 'contentEncoding' : 'contentType'
			const text = envelope.nested('the envelope').text()
			if (text !== '' && text !== protobufType)
				throw new Failure('BadRequest', `cannot read the protobuf body: ${name} "${text}" is not understood`)
		} else envelope.skip(tag & 7, 'the envelope')
	}
	apiVersion ||= expected?.apiVersion ?? ''
	kind ||= expected?.kind ?? ''
	const type = typeOf(apiVersion, kind)
	if (!type)
		throw new Failure(
			'BadRequest',
			`cannot read the protobuf body: no kind "${kind}" is built in for "${apiVersion}"`,
			{
				apiVersion,
				kind,
			},
		)
	const object = canonical(decodeMessage(content ?? new WireReader(new Uint8Array()), type, '', depth), type)
	return type.topLevel ? { kind, apiVersion, ...object } : object
}

export function isProtobuf(bytes: Uint8Array): boolean {
	return magic.every((byte, i) => bytes[i] === byte)
}

/** Reads one message of a known type, as loose JSON: empty fields are as they came. */
function decodeMessage(reader: WireReader, type: TypeSchema, path: string, depth: number, into?: Mutable): Mutable {
	if (depth > deepest) throw malformed(path, reader.position, `it is nested deeper than ${deepest}`)
	const out: Mutable = into ?? {}
	while (!reader.done) {
		const at = reader.position
		const tag = reader.varint(path)
		const number = Math.floor(tag / 8)
		const wireType = tag & 7
		if (tag < 8) throw malformed(path, at, 'a field has no number')
		const field = type.wire?.find((f) => f.number === number)
		if (!field) {
			reader.skip(wireType, path)
			continue
		}
		if (field.name === undefined) {
			expectWire(wireType, 2, path, at)
			const inner = field.value
			if (inner.type === 'object') decodeMessage(reader.nested(path), inner.object, path, depth + 1, out)
			continue
		}
		const name = field.name
		const where = path === '' ? name : `${path}.${name}`
		const schema = field.value
		if (schema.type === 'list' && !schema.wrapped) {
			const list = (out[name] as Json[] | undefined) ?? (out[name] = [] as Json[])
			decodeItem(reader, wireType, schema.items, `${where}[${(list as Json[]).length}]`, at, depth, list as Json[])
		} else if (schema.type === 'map') {
			expectWire(wireType, 2, where, at)
			const map = (out[name] as Mutable | undefined) ?? (out[name] = {})
			decodeEntry(reader.nested(where), schema.value, where, depth, map as Mutable)
		} else if (schema.type === 'object' && isObject(out[name])) {
			// A message given twice is merged.
			expectWire(wireType, 2, where, at)
			decodeMessage(reader.nested(where), schema.object, where, depth + 1, out[name] as Mutable)
		} else out[name] = decodeValue(reader, wireType, schema, where, at, depth)
	}
	return out
}

/** One element of a repeated field; numbers may come packed. */
function decodeItem(
	reader: WireReader,
	wireType: number,
	items: ValueSchema,
	where: string,
	at: number,
	depth: number,
	list: Json[],
): void {
	const packable = items.type === 'integer' || items.type === 'number' || items.type === 'boolean'
	if (packable && wireType === 2) {
		const packed = reader.nested(where)
		const inner = items.type === 'number' ? 1 : 0
		while (!packed.done) list.push(decodeValue(packed, inner, items, where, at, depth))
	} else list.push(decodeValue(reader, wireType, items, where, at, depth))
}

function decodeEntry(entry: WireReader, value: ValueSchema, where: string, depth: number, map: Mutable): void {
	let key = ''
	let item: Json = null
	while (!entry.done) {
		const at = entry.position
		const tag = entry.varint(where)
		if (tag === 10) key = entry.nested(where).text()
		else if (tag >>> 3 === 2) item = decodeValue(entry, tag & 7, value, `${where}[${key}]`, at, depth)
		else entry.skip(tag & 7, where)
	}
	if (key === '__proto__')
		Object.defineProperty(map, key, { value: item, enumerable: true, writable: true, configurable: true })
	else map[key] = item
}

function decodeValue(
	reader: WireReader,
	wireType: number,
	schema: ValueSchema,
	where: string,
	at: number,
	depth: number,
): Json {
	switch (schema.type) {
		case 'boolean':
			expectWire(wireType, 0, where, at)
			return reader.varint(where) !== 0
		case 'integer': {
			expectWire(wireType, 0, where, at)
			const value = reader.varint(where)
			return schema.format === 'int32' ? value | 0 : schema.format === 'uint32' ? value >>> 0 : value
		}
		case 'number':
			expectWire(wireType, 1, where, at)
			return reader.double(where)
		case 'object':
			expectWire(wireType, 2, where, at)
			return decodeMessage(reader.nested(where), schema.object, where, depth + 1)
		case 'list': {
			expectWire(wireType, 2, where, at)
			const wrapper = reader.nested(where)
			const list: Json[] = []
			while (!wrapper.done) {
				const inner = wrapper.position
				const tag = wrapper.varint(where)
				if (tag >>> 3 !== 1) wrapper.skip(tag & 7, where)
				else decodeItem(wrapper, tag & 7, schema.items, `${where}[${list.length}]`, inner, depth, list)
			}
			return list
		}
		case 'map':
			throw malformed(where, at, 'a map stands where the type has none')
		case 'any':
			expectWire(wireType, 2, where, at)
			return decodeAny(reader.nested(where), schema.format, where, depth + 1)
		case 'string':
			expectWire(wireType, 2, where, at)
			return decodeString(reader.nested(where), schema.format, where)
	}
}

function expectWire(have: number, want: number, where: string, at: number): void {
	if (have !== want) throw malformed(where, at, `it has wire type ${have} where ${want} belongs`)
}

function decodeString(reader: WireReader, format: string | undefined, where: string): Json {
	switch (format) {
		case 'byte': {
			const bytes = reader.rest()
			return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64')
		}
		case 'time':
		case 'microtime': {
			if (reader.done) return null
			const [seconds = 0, nanos = 0] = decodeNumbers(reader, where)
			if (Math.abs(seconds) > 253402300799) throw malformed(where, reader.position, 'the time is out of range')
			return printTime({ seconds, nanos }, format === 'microtime')
		}
		case 'duration':
			return printDuration(decodeNumbers(reader, where)[0] ?? 0)
		case 'quantity': {
			let text = '0'
			while (!reader.done) {
				const tag = reader.varint(where)
				if (tag === 10) text = reader.nested(where).text()
				else reader.skip(tag & 7, where)
			}
			return text === '' ? '0' : text
		}
		case 'intOrString': {
			let isString = false
			let number = 0
			let text = ''
			while (!reader.done) {
				const tag = reader.varint(where)
				if (tag === 8) isString = reader.varint(where) !== 0
				else if (tag === 16) number = reader.varint(where) | 0
				else if (tag === 26) text = reader.nested(where).text()
				else reader.skip(tag & 7, where)
			}
			return isString ? text : number
		}
		default:
			return reader.text()
	}
}

/** The varint fields 1 and 2 of a small message. */
function decodeNumbers(reader: WireReader, where: string): number[] {
	const numbers: number[] = []
	while (!reader.done) {
		const tag = reader.varint(where)
		if (tag === 8 || tag === 16) numbers[(tag >>> 3) - 1] = reader.varint(where)
		else reader.skip(tag & 7, where)
	}
	return numbers
}

function decodeAny(reader: WireReader, format: string | undefined, where: string, depth: number): Json {
	if (depth > deepest) throw malformed(where, reader.position, `it is nested deeper than ${deepest}`)
	if (format === 'raw' || format === 'fields' || format === 'json') {
		let result: Json = null
		while (!reader.done) {
			const tag = reader.varint(where)
			if (tag !== 10) {
				reader.skip(tag & 7, where)
				continue
			}
			const raw = reader.nested(where)
			const at = raw.position
			const bytes = raw.rest()
			if (bytes.length === 0) result = null
			else if (format === 'raw' && isProtobuf(bytes)) result = decodeEnvelope(bytes, undefined, depth)
			else result = parseJson(bytes, where, at)
		}
		return result
	}
	const schemaType = typeOf('apiextensions.k8s.io/v1', 'CustomResourceDefinition') && jsonSchemaProps()
	let single: Json | undefined
	let allows = false
	const many: Json[] = []
	while (!reader.done) {
		const tag = reader.varint(where)
		if (format === 'schemaOrBool' && tag === 8) allows = reader.varint(where) !== 0
		else if (tag === (format === 'schemaOrBool' ? 18 : 10))
			single = decodeMessage(reader.nested(where), schemaType!, where, depth + 1)
		else if (format === 'schemaOrArray' && tag === 18)
			many.push(decodeMessage(reader.nested(where), schemaType!, where, depth + 1))
		else if (format === 'schemaOrStrings' && tag === 18) many.push(reader.nested(where).text())
		else reader.skip(tag & 7, where)
	}
	if (format === 'schemaOrBool') return single === undefined ? allows : canonical(single as JsonObject, schemaType!)
	if (many.length > 0)
		return format === 'schemaOrStrings' ? many : many.map((item) => canonical(item as JsonObject, schemaType!))
	return single === undefined ? null : canonical(single as JsonObject, schemaType!)
}

/** The type of a schema inside a CRD, found where the CRD's type refers to it. */
export function jsonSchemaProps(): TypeSchema {
	const path = ['spec', 'versions', 'schema', 'openAPIV3Schema']
	let type = typeOf('apiextensions.k8s.io/v1', 'CustomResourceDefinition')!
	for (const name of path) {
		let value = type.fields.get(name)!.value
		if (value.type === 'list') value = value.items
		if (value.type !== 'object') throw new Error(`the schema table has no object at ${name}`)
		type = value.object
	}
	return type
}

function parseJson(bytes: Uint8Array, where: string, at: number): Json {
	try {
		return JSON.parse(new TextDecoder().decode(bytes)) as Json
	} catch (e) {
		throw malformed(where, at, `it holds JSON that cannot be read: ${(e as Error).message}`)
	}
}

/** Go's spelling of a duration in nanoseconds: `1h2m3.5s`. */
export function printDuration(nanos: number): string {
	if (nanos === 0) return '0s'
	const sign = nanos < 0 ? '-' : ''
	const value = Math.abs(nanos)
	if (value < 1000) return `${sign}${value}ns`
	if (value < 1e6) return `${sign}${value / 1e3}µs`
	if (value < 1e9) return `${sign}${value / 1e6}ms`
	const hours = Math.floor(value / 3.6e12)
	const minutes = Math.floor((value % 3.6e12) / 6e10)
	const seconds = (value % 6e10) / 1e9
	return `${sign}${hours > 0 ? `${hours}h` : ''}${hours > 0 || minutes > 0 ? `${minutes}m` : ''}${seconds}s`
}
