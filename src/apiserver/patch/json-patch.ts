// JSON Patch, RFC 6902.

import { Failure } from '../../base/failure.ts'
import { isObject, type Json, type JsonObject, keyOf, sameJson, setKey } from '../../kube/schema/json.ts'

const mostOperations = 10_000

/** Applies a list of operations. BadRequest: the list is malformed; Invalid: an operation cannot be done on `document`. */
export function jsonPatch(document: JsonObject, operations: unknown): JsonObject {
	if (!Array.isArray(operations))
		throw new Failure('BadRequest', 'cannot read the JSON patch: it is not a list of operations')
	if (operations.length > mostOperations)
		throw new Failure(
			'RequestEntityTooLarge',
			`cannot apply the JSON patch: it has ${operations.length} operations, ${mostOperations} are allowed`,
		)
	let result: Json = document
	operations.forEach((operation: unknown, i) => {
		result = applyOperation(result, operation, i)
	})
	if (!isObject(result)) throw new Failure('Invalid', 'cannot apply the JSON patch: the result is not an object')
	return result
}

function applyOperation(document: Json, operation: unknown, index: number): Json {
	if (!isObject(operation))
		throw new Failure('BadRequest', `cannot read the JSON patch: operation ${index} is not an object`)
	const { op, path, from, value } = operation
	if (typeof op !== 'string' || typeof path !== 'string')
		throw new Failure('BadRequest', `cannot read the JSON patch: operation ${index} has no "op" or no "path"`)
	const fail = (why: string): never => {
		throw new Failure('Invalid', `cannot apply the JSON patch: operation ${index} (${op} ${path}): ${why}`, {
			causes: [{ reason: 'FieldValueInvalid', message: why, field: path }],
		})
	}
	const at = pointer(path, fail)
	const needValue = (): Json => {
		if (value === undefined)
			throw new Failure('BadRequest', `cannot read the JSON patch: operation ${index} (${op} ${path}) has no "value"`)
		return value
	}
	switch (op) {
		case 'add':
			return put(document, at, needValue(), true, fail)
		case 'replace':
			if (find(document, at) === undefined) fail('there is nothing to replace')
			return put(document, at, needValue(), false, fail)
		case 'remove':
			return remove(document, at, fail)
		case 'test': {
			const have = find(document, at)
			const want = value ?? null
			if (!sameJson(have ?? null, want)) fail(`the value is ${JSON.stringify(have)}, not ${JSON.stringify(want)}`)
			return document
		}
		case 'move':
		case 'copy': {
			if (typeof from !== 'string')
				throw new Failure('BadRequest', `cannot read the JSON patch: operation ${index} (${op} ${path}) has no "from"`)
			const source = pointer(from, fail)
			const moved = find(document, source) ?? fail(`there is nothing at ${from}`)
			if (op === 'copy') return put(document, at, moved, true, fail)
			if (path.startsWith(`${from}/`)) fail(`${from} cannot be moved into itself`)
			return put(remove(document, source, fail), at, moved, true, fail)
		}
		default:
			throw new Failure('BadRequest', `cannot read the JSON patch: operation ${index} is "${op}"`)
	}
}

function pointer(path: string, fail: (why: string) => never): string[] {
	if (path === '') return []
	if (!path.startsWith('/')) return fail('a path begins with "/"')
	return path
		.slice(1)
		.split('/')
		.map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'))
}

function find(document: Json, at: readonly string[]): Json | undefined {
	let value: Json | undefined = document
	for (const part of at) {
		if (Array.isArray(value))
			value = /^(0|[1-9]\d*)$/.test(part) ? (value[Number(part)] as Json | undefined) : undefined
		else if (isObject(value)) value = keyOf(value, part)
		else return undefined
	}
	return value
}

/** A copy with `value` at the place: what lies beside it is shared. */
function put(document: Json, at: readonly string[], value: Json, insert: boolean, fail: (why: string) => never): Json {
	const [part, ...rest] = at
	if (part === undefined) return value
	if (Array.isArray(document)) {
		const items = [...(document as readonly Json[])]
		const index = part === '-' && rest.length === 0 && insert ? items.length : indexOf(part, items.length, fail)
		if (rest.length > 0) {
			const item = items[index] ?? fail(`the list has no item ${part}`)
			items[index] = put(item, rest, value, insert, fail)
		} else if (insert) items.splice(index, 0, value)
		else items[index] = value
		return items
	}
	if (!isObject(document)) return fail(`there is nothing that could hold "${part}"`)
	const copy = copyOf(document)
	if (rest.length === 0) setKey(copy, part, value)
	else setKey(copy, part, put(keyOf(document, part) ?? fail(`there is no "${part}"`), rest, value, insert, fail))
	return copy
}

function remove(document: Json, at: readonly string[], fail: (why: string) => never): Json {
	const [part, ...rest] = at
	if (part === undefined) return fail('the whole object cannot be removed')
	if (Array.isArray(document)) {
		const items = [...(document as readonly Json[])]
		const index = indexOf(part, items.length - 1, fail)
		if (rest.length === 0) items.splice(index, 1)
		else items[index] = remove(items[index]!, rest, fail)
		return items
	}
	const inner = isObject(document) ? keyOf(document, part) : undefined
	if (!isObject(document) || inner === undefined) return fail('there is nothing to remove')
	const copy = copyOf(document)
	if (rest.length === 0) delete copy[part]
	else setKey(copy, part, remove(inner, rest, fail))
	return copy
}

function copyOf(object: JsonObject): Record<string, Json | undefined> {
	const copy: Record<string, Json | undefined> = {}
	for (const key of Object.keys(object)) setKey(copy, key, object[key])
	return copy
}

function indexOf(part: string, last: number, fail: (why: string) => never): number {
	if (!/^(0|[1-9]\d*)$/.test(part)) return fail(`"${part}" is no place in a list`)
	const index = Number(part)
	return index <= last ? index : fail(`the list has no item ${part}`)
}
