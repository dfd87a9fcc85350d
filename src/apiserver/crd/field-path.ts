// Paths that definitions write: of rules (`.spec.x['a.b']`), of selectable fields and of the scale subresource.

import { Failure } from '../../base/failure.ts'
import { isObject, type Json } from '../../kube/schema/json.ts'
import type { Schema } from './schema.ts'

const step = /\.([^.[\]']+)|\['((?:[^'\\]|\\.)*)'\]/y
const escapes: Readonly<Record<string, string>> = { a: '\x07', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v' }

/** The steps of a path; undefined: it is none. */
export function stepsOf(path: string): readonly { readonly name: string; readonly quoted: boolean }[] | undefined {
	const out: { name: string; quoted: boolean }[] = []
	let at = 0
	while (at < path.length) {
		step.lastIndex = at
		const found = step.exec(path)
		if (found === null) return undefined
		const quoted = found[2] !== undefined
		const name = found[1] ?? found[2]!.replace(/\\(.)/g, (_, char: string) => escapes[char] ?? char)
		out.push({ name, quoted })
		at += found[0].length
	}
	return out.length === 0 ? undefined : out
}

/** The schema at a path; Failure Invalid: there is no such field. */
export function schemaAtPath(path: string, schema: Schema): Schema {
	const steps = stepsOf(path)
	if (steps === undefined) throw new Failure('Invalid', 'expected [ or . and the name of a field')
	let at: Schema = schema
	for (const { name } of steps) {
		const below: Schema | true | undefined = at.properties ? at.properties.get(name) : at.additional
		if (below === undefined || below === true) throw new Failure('Invalid', 'does not refer to a valid field')
		at = below
	}
	return at
}

/** `.a['b.c']` as it is added to the path of a value: `.a.b.c`; the keys of maps in brackets. */
export function parseFieldPath(path: string, schema: Schema): string {
	schemaAtPath(path, schema)
	let at: Schema = schema
	let out = ''
	for (const { name } of stepsOf(path)!) {
		const isMap = at.properties === undefined
		out += isMap ? `[${name}]` : `.${name}`
		at = (at.properties?.get(name) ?? at.additional) as Schema
	}
	return out
}

/** The value at a path. */
export function valueAtPath(value: Json | undefined, path: string): Json | undefined {
	let at = value
	for (const { name } of stepsOf(path) ?? []) {
		if (!isObject(at) || !Object.hasOwn(at, name)) return undefined
		at = at[name]
	}
	return at
}

/** The object with a value at a path; objects on the way are made. */
export function withValueAtPath(object: Json | undefined, path: string, value: Json): Json {
	const set = (at: Json | undefined, names: readonly string[]): Json => {
		const [first, ...rest] = names
		if (first === undefined) return value
		const here = isObject(at) ? at : {}
		return { ...here, [first]: set(Object.hasOwn(here, first) ? here[first] : undefined, rest) }
	}
	return set(
		object,
		(stepsOf(path) ?? []).map(({ name }) => name),
	)
}
