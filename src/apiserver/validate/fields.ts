// Are the fields of an object known to its type, once, and of the right JSON type? (What the values may be is another
// question: see objects.ts.)

import { Failure } from '../../base/failure.ts'
import { canonical } from '../../kube/schema/canonical.ts'
import { isObject, type Json, type JsonObject } from '../../kube/schema/json.ts'
import { parseQuantity } from '../../kube/schema/quantity.ts'
import type { ScalarSchema, TypeSchema, ValueSchema } from '../../kube/schema/schema.ts'
import { parseTime } from '../../kube/schema/time.ts'

export interface TypeFault {
	/** `spec.containers[0].ports[0].containerPort` */
	readonly path: string
	/** `a string` with the value, shortened. */
	readonly found: string
	readonly wanted: string
}

export interface FieldReport {
	/** Paths of fields the type has not. */
	readonly unknown: readonly string[]
	readonly wrongTypes: readonly TypeFault[]
}

/** `?fieldValidation=`: what to do about unknown and duplicate fields. */
export type FieldValidation = 'Strict' | 'Warn' | 'Ignore'

/** Deeper JSON is refused: everything that walks objects may then recurse. */
export const deepestNesting = 500

/**
 * Reads a body as an object of a type: what a server does between JSON and its own types.
 * The object comes back in canonical form (unknown fields dropped, quantities and times in one spelling).
 *
 * `text` is the JSON body where there is one: duplicate fields show only there.
 * Failure BadRequest: a value of a wrong JSON type (always), unknown or duplicate fields (level Strict). At Warn they
 * come back as texts for `Warning` headers, at Ignore not at all.
 */
export function readObject(
	object: JsonObject,
	type: TypeSchema,
	level: FieldValidation,
	text?: string,
): { readonly object: JsonObject; readonly warnings: readonly string[] } {
	const report = checkFields(object, type)
	const kind = typeof object.kind === 'string' ? object.kind : ''
	const version = String(object.apiVersion ?? '')
		.split('/')
		.at(-1)
	const refuse = (why: string, causes: readonly JsonObject[]): Failure =>
		new Failure('BadRequest', `${kind} in version "${version}" cannot be handled as a ${kind}: ${why}`, { causes })
	if (report.wrongTypes.length > 0)
		throw refuse(
			report.wrongTypes.map((f) => `${f.path}: expected ${f.wanted}, got ${f.found}`).join(', '),
			report.wrongTypes.map((f) => ({
				reason: 'FieldValueTypeInvalid',
				field: f.path,
				message: `expected ${f.wanted}, got ${f.found}`,
			})),
		)
	let warnings: string[] = []
	if (level !== 'Ignore') {
		warnings = report.unknown.map((path) => `unknown field "${path}"`)
		if (text !== undefined) warnings.push(...duplicateFields(text).map((path) => `duplicate field "${path}"`))
		if (level === 'Strict' && warnings.length > 0)
			throw refuse(
				`strict decoding error: ${warnings.join(', ')}`,
				warnings.map((message) => ({ reason: 'FieldValueInvalid', field: message.split('"')[1] ?? '', message })),
			)
	}
	return { object: canonical(object, type), warnings }
}

/** Unknown fields and values of a wrong JSON type. Failure BadRequest: nested too deep. */
export function checkFields(object: JsonObject, type: TypeSchema): FieldReport {
	const report = { unknown: [] as string[], wrongTypes: [] as TypeFault[] }
	checkObject(object, type, '', 0, report)
	return report
}

type Report = { unknown: string[]; wrongTypes: TypeFault[] }

function checkObject(object: JsonObject, type: TypeSchema, path: string, depth: number, report: Report): void {
	for (const key of Object.keys(object)) {
		const value = object[key]
		if (value === undefined) continue
		const where = path === '' ? key : `${path}.${key}`
		const field = type.fields.get(key)
		if (field) checkValue(value, field.value, where, depth + 1, report)
		else if (type.topLevel && (key === 'kind' || key === 'apiVersion'))
			checkValue(value, { type: 'string' }, where, depth, report)
		else if (type.preserveUnknown) checkDepth(value, where, depth + 1)
		else report.unknown.push(where)
	}
}

function checkValue(value: Json, schema: ValueSchema, path: string, depth: number, report: Report): void {
	if (depth > deepestNesting) throw tooDeep(path)
	if (value === null) return
	const wrong = (wanted: string): void => {
		report.wrongTypes.push({ path, found: describe(value), wanted })
	}
	switch (schema.type) {
		case 'object':
			if (isObject(value)) checkObject(value, schema.object, path, depth, report)
			else wrong('an object')
			return
		case 'map':
			if (!isObject(value)) {
				wrong('an object')
				return
			}
			for (const key of Object.keys(value)) checkValue(value[key]!, schema.value, `${path}.${key}`, depth + 1, report)
			return
		case 'list':
			if (!Array.isArray(value)) {
				wrong('a list')
				return
			}
			value.forEach((item: Json, i) => {
				checkValue(item, schema.items, `${path}[${i}]`, depth + 1, report)
			})
			return
		case 'any':
			checkDepth(value, path, depth)
			if (schema.format === 'fields' && !isObject(value)) wrong('an object')
			return
		default: {
			const wanted = scalarFault(value, schema)
			if (wanted) wrong(wanted)
		}
	}
}

const ranges: Readonly<Record<string, readonly [number, number]>> = {
	int32: [-(2 ** 31), 2 ** 31 - 1],
	uint32: [0, 2 ** 32 - 1],
	uint64: [0, 2 ** 64],
	int64: [-(2 ** 63), 2 ** 63],
}

/** What belongs there instead; undefined: the value is right. */
function scalarFault(value: Json, schema: ScalarSchema): string | undefined {
	switch (schema.type) {
		case 'boolean':
			return typeof value === 'boolean' ? undefined : 'true or false'
		case 'number':
			return typeof value === 'number' ? undefined : 'a number'
		case 'integer': {
			if (typeof value !== 'number' || !Number.isInteger(value)) return 'an integer'
			const range = schema.format && ranges[schema.format]
			return range && (value < range[0] || value > range[1]) ? `an integer that fits ${schema.format}` : undefined
		}
		case 'string':
			break
	}
	switch (schema.format) {
		case 'quantity':
			return (typeof value === 'string' || typeof value === 'number') && parseQuantity(String(value))
				? undefined
				: 'a quantity such as 100m, 2 or 1Gi'
		case 'intOrString':
			return typeof value === 'string' || isInt32(value) ? undefined : 'a string or an integer that fits int32'
		case 'time':
		case 'microtime':
			return typeof value === 'string' && parseTime(value) ? undefined : 'a time such as 2006-01-02T15:04:05Z'
		case 'byte':
			return typeof value === 'string' && isBase64(value) ? undefined : 'base64'
		default:
			return typeof value === 'string' ? undefined : 'a string'
	}
}

function isInt32(value: Json): boolean {
	return typeof value === 'number' && Number.isInteger(value) && Math.abs(value) <= 2 ** 31
}

function isBase64(value: string): boolean {
	const plain = value.replace(/[\r\n]/g, '')
	return plain.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(plain)
}

function describe(value: Json): string {
	if (Array.isArray(value)) return 'a list'
	if (isObject(value)) return 'an object'
	const text = JSON.stringify(value)
	const short = text.length > 60 ? `${text.slice(0, 57)}…` : text
	return typeof value === 'string' ? `the string ${short}` : short
}

function checkDepth(value: Json, path: string, depth: number): void {
	if (depth > deepestNesting) throw tooDeep(path)
	if (typeof value !== 'object' || value === null) return
	for (const item of Object.values(value)) if (item !== undefined) checkDepth(item, path, depth + 1)
}

function tooDeep(path: string): Failure {
	const short = path.length > 200 ? `${path.slice(0, 200)}…` : path
	return new Failure('BadRequest', `cannot read the object: it is nested deeper than ${deepestNesting} at ${short}`)
}

/** Paths of the keys that a JSON text says twice in one object. The text must be valid JSON. */
export function duplicateFields(text: string): string[] {
	const found: string[] = []
	// A stack instead of recursion: the text may be nested without end.
	const stack: { keys: Set<string> | undefined; path: string; index: number }[] = []
	let path = ''
	let isKey = false
	for (let i = 0; i < text.length; i++) {
		const c = text[i]
		if (c === '"') {
			const start = i
			while (text[++i] !== '"') {
				if (i >= text.length) return found
				if (text[i] === '\\') i++
			}
			const top = stack.at(-1)
			if (!isKey || !top?.keys) continue
			const key = JSON.parse(text.slice(start, i + 1)) as string
			path = top.path === '' ? key : `${top.path}.${key}`
			if (top.keys.has(key)) found.push(path)
			top.keys.add(key)
			isKey = false
		} else if (c === '{') {
			stack.push({ keys: new Set(), path, index: 0 })
			isKey = true
		} else if (c === '[') {
			stack.push({ keys: undefined, path, index: 0 })
			path = `${path}[0]`
		} else if (c === '}' || c === ']') {
			path = stack.pop()?.path ?? ''
		} else if (c === ',') {
			const top = stack.at(-1)
			if (top?.keys) isKey = true
			else if (top) path = `${top.path}[${++top.index}]`
		}
	}
	return found
}
