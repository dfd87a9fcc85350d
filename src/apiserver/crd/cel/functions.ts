// The functions of CEL by name, each with its overloads. A library is a list of signatures with what they do.

import { parseType, type Type } from './types.ts'
import { Duration, ListValue, MapValue, Opaque, Optional, Timestamp, TypeName, Uint, type Value } from './values.ts'

/** How much work an evaluation may still do. */
export interface Budget {
	left: number
}

export interface Overload {
	readonly name: string
	/** Called as target.name(…): the target is the first argument. */
	readonly member: boolean
	readonly args: readonly Type[]
	readonly result: Type
	readonly call: (args: readonly Value[], budget: Budget) => Value
}

/** Signature → what it does: `string.charAt(int) string`, `isURL(string) bool`. */
export type Library = Readonly<Record<string, (args: never, budget: Budget) => Value>>

export type Functions = ReadonlyMap<string, readonly Overload[]>

export function functionsOf(libraries: readonly Library[]): Functions {
	const all = new Map<string, Overload[]>()
	for (const library of libraries) {
		for (const [signature, call] of Object.entries(library)) {
			const overload = readSignature(signature, call as Overload['call'])
			const same = all.get(overload.name)
			if (same === undefined) all.set(overload.name, [overload])
			else same.push(overload)
		}
	}
	return all
}

/** `target.name(args) result`; the name of a function of a namespace holds its dot: `:sets.contains(…)`. */
function readSignature(signature: string, call: Overload['call']): Overload {
	const open = signature.indexOf('(')
	const close = signature.lastIndexOf(')')
	const head = signature.slice(0, open)
	// The target may be generic and have a dot of its own; the last dot is the one before the name.
	const dot = head.startsWith(':') ? -1 : head.lastIndexOf('.')
	const target = dot < 0 ? undefined : head.slice(0, dot)
	const inner = signature.slice(open + 1, close)
	const args = splitArgs(inner).map(parseType)
	return {
		name: head.startsWith(':') ? head.slice(1) : head.slice(dot + 1),
		member: target !== undefined,
		args: target === undefined ? args : [parseType(target), ...args],
		result: parseType(signature.slice(close + 1)),
		call,
	}
}

function splitArgs(text: string): string[] {
	const out: string[] = []
	let depth = 0
	let part = ''
	for (const char of text) {
		if (char === '<') depth++
		else if (char === '>') depth--
		if (char === ',' && depth === 0) {
			out.push(part)
			part = ''
		} else part += char
	}
	if (part.trim() !== '') out.push(part)
	return out
}

/** Whether a value is of a type as far as its outside shows; what is inside a list is known by how it was made. */
export function isOf(value: Value, type: Type): boolean {
	switch (type.kind) {
		case 'dyn':
		case 'param':
		case 'nothing':
			return true
		case 'bool':
			return typeof value === 'boolean'
		case 'int':
			return typeof value === 'bigint'
		case 'uint':
			return value instanceof Uint
		case 'double':
			return typeof value === 'number'
		case 'string':
			return typeof value === 'string'
		case 'bytes':
			return value instanceof Uint8Array
		case 'null_type':
			return value === null
		case 'timestamp':
			return value instanceof Timestamp
		case 'duration':
			return value instanceof Duration
		case 'type':
			return value instanceof TypeName
		case 'list':
			return (
				value instanceof ListValue && (type.item.kind === 'param' || value.size === 0 || isOf(value.at(0), type.item))
			)
		case 'map':
		case 'object':
			return value instanceof MapValue
		case 'optional':
			return value instanceof Optional
		case 'opaque':
			return value instanceof Opaque && value.typeName === type.name
		default:
			return type satisfies never
	}
}
