// An OpenAPI 2 document in the protobuf form that clients of Kubernetes ask for (gnostic's openapi.v2.Document).
// Only what our documents have is written. Field numbers: gnostic-models, openapiv2/OpenAPIv2.proto.

import { isObject, type Json, type JsonObject } from '../../kube/schema/json.ts'
import { WireWriter } from '../protobuf/wire.ts'

/** Writes a field's content; fields come in descending order of number. */
type Write = (out: WireWriter) => void

export function encodeSwagger(document: JsonObject): Uint8Array {
	const out = new WireWriter()
	writeNamed(out, 9, object(document.definitions), writeSchema)
	message(out, 8, (paths) => {
		for (const [name, item] of entries(document.paths).reverse())
			message(paths, 2, (entry) => {
				message(entry, 2, (value) => writePath(value, object(item)))
				text(entry, 1, name)
			})
	})
	message(out, 2, (info) => {
		const about = object(document.info)
		text(info, 2, about.version)
		text(info, 1, about.title)
	})
	text(out, 1, document.swagger)
	return out.finish()
}

function object(value: Json | undefined): JsonObject {
	return isObject(value) ? value : {}
}

function entries(value: Json | undefined): [string, Json][] {
	return Object.entries(object(value)).filter((entry): entry is [string, Json] => entry[1] !== undefined)
}

function list(value: Json | undefined): readonly Json[] {
	return Array.isArray(value) ? (value as readonly Json[]) : []
}

function message(out: WireWriter, number: number, write: Write): void {
	const before = out.size
	write(out)
	out.close(number, before)
}

function text(out: WireWriter, number: number, value: Json | undefined): void {
	if (typeof value !== 'string') return
	message(out, number, () => out.text(value))
}

function flag(out: WireWriter, number: number, value: Json | undefined): void {
	if (value !== true) return
	out.varint(1)
	out.tag(number, 0)
}

/** `Any` with its content as YAML, of which JSON is a part. */
function any(out: WireWriter, number: number, value: Json): void {
	message(out, number, () => text(out, 2, `${JSON.stringify(value)}\n`))
}

/** Repeated { name = 1, value = 2 } under the one field of a wrapping message. */
function writeNamed(
	out: WireWriter,
	number: number,
	items: JsonObject,
	write: (out: WireWriter, value: JsonObject) => void,
): void {
	message(out, number, () => {
		for (const [name, item] of entries(items).reverse())
			message(out, 1, () => {
				message(out, 2, () => write(out, object(item)))
				text(out, 1, name)
			})
	})
}

function writeExtensions(out: WireWriter, number: number, from: JsonObject): void {
	for (const [name, value] of entries(from).reverse())
		if (name.startsWith('x-'))
			message(out, number, () => {
				any(out, 2, value)
				text(out, 1, name)
			})
}

function writeSchema(out: WireWriter, schema: JsonObject): void {
	writeExtensions(out, 31, schema)
	if (schema.properties !== undefined) writeNamed(out, 25, object(schema.properties), writeSchema)
	for (const inner of [...list(schema.allOf)].reverse()) message(out, 24, () => writeSchema(out, object(inner)))
	if (schema.items !== undefined) message(out, 23, () => message(out, 1, () => writeSchema(out, object(schema.items))))
	if (typeof schema.type === 'string') message(out, 22, () => text(out, 1, schema.type))
	const additional = schema.additionalProperties
	if (isObject(additional)) message(out, 21, () => message(out, 1, () => writeSchema(out, additional)))
	else if (additional === true) message(out, 21, () => flag(out, 2, true))
	for (const value of [...list(schema.enum)].reverse()) any(out, 20, value)
	for (const name of [...list(schema.required)].reverse()) text(out, 19, name)
	if (typeof schema.pattern === 'string') text(out, 13, schema.pattern)
	if (schema.default !== undefined) any(out, 5, schema.default)
	text(out, 4, schema.description)
	text(out, 2, schema.format)
	text(out, 1, schema.$ref)
}

const operations = [
	['patch', 8],
	['delete', 5],
	['post', 4],
	['put', 3],
	['get', 2],
] as const

function writePath(out: WireWriter, item: JsonObject): void {
	for (const parameter of [...list(item.parameters)].reverse())
		message(out, 9, () => writeParameter(out, object(parameter)))
	for (const [method, number] of operations) {
		const operation = item[method]
		if (isObject(operation)) message(out, number, () => writeOperation(out, operation))
	}
}

function writeOperation(out: WireWriter, operation: JsonObject): void {
	writeExtensions(out, 13, operation)
	message(out, 9, () => {
		for (const [code, response] of entries(operation.responses).reverse())
			message(out, 1, () => {
				message(out, 2, () => message(out, 1, () => writeResponse(out, object(response))))
				text(out, 1, code)
			})
	})
	for (const parameter of [...list(operation.parameters)].reverse())
		message(out, 8, () => writeParameter(out, object(parameter)))
	for (const type of [...list(operation.consumes)].reverse()) text(out, 7, type)
	for (const type of [...list(operation.produces)].reverse()) text(out, 6, type)
	text(out, 5, operation.operationId)
	text(out, 3, operation.description)
}

function writeResponse(out: WireWriter, response: JsonObject): void {
	const { schema } = response
	if (isObject(schema)) message(out, 2, () => message(out, 1, () => writeSchema(out, schema)))
	text(out, 1, response.description)
}

/** ParametersItem { parameter = 1 { body = 1 | other = 2 { query = 3 | path = 4 } } } */
function writeParameter(out: WireWriter, parameter: JsonObject): void {
	const place = parameter.in
	message(out, 1, () => {
		if (place === 'body') {
			message(out, 1, () => {
				const { schema } = parameter
				if (isObject(schema)) message(out, 5, () => writeSchema(out, schema))
				flag(out, 4, parameter.required)
				text(out, 3, place)
				text(out, 2, parameter.name)
				text(out, 1, parameter.description)
			})
			return
		}
		const isQuery = place === 'query'
		message(out, 2, () =>
			message(out, isQuery ? 3 : 4, () => {
				flag(out, isQuery ? 20 : 19, parameter.uniqueItems)
				text(out, isQuery ? 6 : 5, parameter.type)
				text(out, 4, parameter.name)
				text(out, 3, parameter.description)
				text(out, 2, place)
				flag(out, 1, parameter.required)
			}),
		)
	})
}
