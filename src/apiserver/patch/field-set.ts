// Sets of fields of an object, as managedFields keep them (`fieldsV1`): a tree whose edges are path elements.
// An element is `f:name` (a field or key), `k:{"name":"a"}` (an item of a list by its keys), `v:"a"` (a value of a set).
// The format is described by k8s.io/apimachinery's FieldsV1.

import { isObject, type JsonObject } from '../../kube/schema/json.ts'

export interface FieldSet {
	/** The place itself belongs to the set, not only what is under it. */
	readonly member: boolean
	readonly children: ReadonlyMap<string, FieldSet>
}

export const emptySet: FieldSet = { member: false, children: new Map() }

export function isEmptySet(set: FieldSet): boolean {
	return !set.member && set.children.size === 0
}

/** A set under construction. */
export class FieldSetBuilder {
	private readonly root: Draft = { member: false, children: new Map() }

	add(path: readonly string[]): void {
		let node = this.root
		for (const element of path) {
			let next = node.children.get(element)
			if (!next) node.children.set(element, (next = { member: false, children: new Map() }))
			node = next
		}
		node.member = true
	}

	done(): FieldSet {
		return this.root
	}
}

interface Draft {
	member: boolean
	readonly children: Map<string, Draft>
}

/** Combines two sets node by node; `keep` decides by the membership on either side. */
function combine(
	a: FieldSet | undefined,
	b: FieldSet | undefined,
	keep: (a: boolean, b: boolean) => boolean,
): FieldSet | undefined {
	const children = new Map<string, FieldSet>()
	for (const [element, child] of a?.children ?? []) {
		const result = combine(child, b?.children.get(element), keep)
		if (result) children.set(element, result)
	}
	for (const [element, child] of b?.children ?? []) {
		if (a?.children.has(element)) continue
		const result = combine(undefined, child, keep)
		if (result) children.set(element, result)
	}
	const member = keep(a?.member ?? false, b?.member ?? false)
	return member || children.size > 0 ? { member, children } : undefined
}

export function union(a: FieldSet, b: FieldSet): FieldSet {
	if (isEmptySet(a)) return b
	if (isEmptySet(b)) return a
	return combine(a, b, (x, y) => x || y) ?? emptySet
}

export function intersection(a: FieldSet, b: FieldSet): FieldSet {
	return combine(a, b, (x, y) => x && y) ?? emptySet
}

/** What is in `a` and not in `b`; what lies under a member of `b` stays. Parts that `b` does not touch are shared. */
export function difference(a: FieldSet, b: FieldSet): FieldSet {
	return subtract(a, b) ?? emptySet
}

function subtract(a: FieldSet, b: FieldSet | undefined): FieldSet | undefined {
	if (b === undefined || isEmptySet(b)) return isEmptySet(a) ? undefined : a
	const member = a.member && !b.member
	let same = member === a.member
	const children = new Map<string, FieldSet>()
	for (const [element, child] of a.children) {
		const result = subtract(child, b.children.get(element))
		if (result !== child) same = false
		if (result) children.set(element, result)
	}
	if (same) return a
	return member || children.size > 0 ? { member, children } : undefined
}

/** What is in `a`, without the members of `b` and without all that lies under them. */
export function without(a: FieldSet, b: FieldSet): FieldSet {
	return exclude(a, b) ?? emptySet
}

function exclude(a: FieldSet, b: FieldSet | undefined): FieldSet | undefined {
	if (!b) return a
	if (b.member) return undefined
	const children = new Map<string, FieldSet>()
	for (const [element, child] of a.children) {
		const result = exclude(child, b.children.get(element))
		if (result) children.set(element, result)
	}
	return a.member || children.size > 0 ? { member: a.member, children } : undefined
}

export function hasPath(set: FieldSet, path: readonly string[]): boolean {
	let node: FieldSet | undefined = set
	for (const element of path) node = node?.children.get(element)
	return node?.member ?? false
}

/** Every member, parents first, siblings by name. */
export function pathsOf(set: FieldSet): string[][] {
	const paths: string[][] = []
	const visit = (node: FieldSet, path: string[]): void => {
		if (node.member && path.length > 0) paths.push(path)
		for (const element of [...node.children.keys()].sort()) visit(node.children.get(element)!, [...path, element])
	}
	visit(set, [])
	return paths
}

/** As error messages write a path: `.spec.containers[name="web"].image`. */
export function printPath(path: readonly string[]): string {
	return path
		.map((element) => {
			const rest = element.slice(2)
			switch (element[0]) {
				case 'f':
					return `.${rest}`
				case 'k':
					return `[${Object.entries(JSON.parse(rest) as JsonObject)
						.map(([name, value]) => `${name}=${JSON.stringify(value)}`)
						.join(',')}]`
				case 'v':
					return `[=${rest}]`
				default:
					return `[${rest}]`
			}
		})
		.join('')
}

/**
 * What was written for which set, both ways: most claims of an object outlive most writes, and reading and writing them
 * was the greater part of a write's cost. A result may be shared and must not be changed.
 */
const written = new WeakMap<FieldSet, JsonObject>()
const read = new WeakMap<JsonObject, FieldSet>()

/** The JSON of `fieldsV1`. */
export function toFieldsV1(set: FieldSet): JsonObject {
	const known = written.get(set)
	if (known !== undefined) return known
	const json = writeFields(set)
	written.set(set, json)
	read.set(json, set)
	return json
}

function writeFields(set: FieldSet): JsonObject {
	const out: Record<string, JsonObject> = {}
	for (const element of [...set.children.keys()].sort()) {
		const child = set.children.get(element)!
		const inner = writeFields(child)
		out[element] = child.member && child.children.size > 0 ? { '.': {}, ...inner } : inner
	}
	return out
}

/** Reads `fieldsV1`; undefined if it is none. */
export function fromFieldsV1(fields: unknown): FieldSet | undefined {
	const known = isObject(fields) ? read.get(fields) : undefined
	if (known !== undefined) return known
	const set = readFields(fields, 0)
	// What is not frozen may still change under us.
	if (set !== undefined && isObject(fields) && Object.isFrozen(fields)) {
		read.set(fields, set)
		written.set(set, fields)
	}
	return set
}

function readFields(fields: unknown, depth: number): FieldSet | undefined {
	if (!isObject(fields) || depth > 500) return undefined
	const children = new Map<string, FieldSet>()
	let member = Object.keys(fields).length === 0 && depth > 0
	for (const key of Object.keys(fields)) {
		if (key === '.') {
			member = true
			continue
		}
		const element = readElement(key)
		const child = readFields(fields[key], depth + 1)
		if (element === undefined || child === undefined) return undefined
		children.set(element, child)
	}
	return { member, children }
}

function readElement(key: string): string | undefined {
	if (key.startsWith('f:')) return key
	if (/^i:-?\d+$/.test(key)) return key
	if (!key.startsWith('k:') && !key.startsWith('v:')) return undefined
	try {
		const value: unknown = JSON.parse(key.slice(2))
		if (key[0] === 'v') return `v:${JSON.stringify(value)}`
		return isObject(value) ? keyElement(value) : undefined
	} catch {
		return undefined
	}
}

/** The element of a list item with these keys. */
export function keyElement(keys: JsonObject): string {
	const sorted: Record<string, unknown> = {}
	for (const name of Object.keys(keys).sort()) sorted[name] = keys[name]
	return `k:${JSON.stringify(sorted)}`
}
