// Objects walked along their schema: which fields they have, how two differ, how a configuration is merged into one,
// what is left when fields are removed. The rules are those of server-side apply (KEP-555, "merge strategy" in its
// documentation): granular structs, maps and lists by keys; everything else is one leaf.

import { isObject, type Json, type JsonObject, keyOf, sameJson, setKey } from '../../kube/schema/json.ts'
import type { TypeSchema, ValueSchema } from '../../kube/schema/schema.ts'
import { emptySet, type FieldSet, FieldSetBuilder, keyElement } from './field-set.ts'

/** `undefined` where there is no schema: maps are granular then, lists are leaves. */
export type Shape = ValueSchema | undefined

type Form =
	| { readonly form: 'leaf' }
	| { readonly form: 'map'; readonly child: (key: string) => Shape; readonly named: (key: string) => boolean }
	| { readonly form: 'list'; readonly items: Shape; readonly element: (item: Json) => string }

const leaf: Form = { form: 'leaf' }
const text: ValueSchema = { type: 'string' }

export function shapeOf(type: TypeSchema | undefined): Shape {
	return type && { type: 'object', object: type, atomic: false }
}

function formOf(shape: Shape, value: Json | undefined): Form {
	if (shape === undefined) return isObject(value) ? { form: 'map', child: () => undefined, named: () => false } : leaf
	switch (shape.type) {
		case 'object': {
			const { object } = shape
			if (shape.atomic || object.atomic || (!isObject(value) && value !== undefined && value !== null)) return leaf
			const isTypeMeta = (key: string) => object.topLevel && (key === 'kind' || key === 'apiVersion')
			return {
				form: 'map',
				child: (key) => object.fields.get(key)?.value ?? (isTypeMeta(key) ? text : undefined),
				named: (key) => object.fields.has(key) || isTypeMeta(key),
			}
		}
		case 'map':
			if (shape.atomic || (!isObject(value) && value !== undefined && value !== null)) return leaf
			return { form: 'map', child: () => shape.value, named: () => false }
		case 'list': {
			if (shape.listType === 'atomic' || (!Array.isArray(value) && value !== undefined && value !== null)) return leaf
			return {
				form: 'list',
				items: shape.items,
				element:
					shape.listType === 'set'
						? (item) => `v:${JSON.stringify(item)}`
						: (item) => elementByKeys(item, shape.listMapKeys, shape.items),
			}
		}
		default:
			return leaf
	}
}

function elementByKeys(item: Json, keys: readonly string[], items: ValueSchema): string {
	const found: Record<string, Json> = {}
	for (const key of keys) {
		const value = isObject(item) ? keyOf(item, key) : undefined
		const preset = items.type === 'object' ? items.object.fields.get(key)?.default : undefined
		const known = value ?? (preset as Json | undefined)
		if (known !== undefined) found[key] = known
	}
	return keyElement(found)
}

/** The fields an object has. */
export function fieldsOf(value: Json, shape: Shape): FieldSet {
	const set = new FieldSetBuilder()
	collect(value, shape, [], set)
	return set.done()
}

function collect(value: Json, shape: Shape, path: string[], set: FieldSetBuilder): void {
	const form = formOf(shape, value)
	switch (form.form) {
		case 'leaf':
			if (path.length > 0) set.add(path)
			return
		case 'map':
			if (!isObject(value)) return
			for (const key of Object.keys(value)) {
				const item = value[key]
				if (item === undefined) continue
				const at = [...path, `f:${key}`]
				collect(item, form.child(key), at, set)
				if (item === null || (isObject(item) && isBare(item)) || !form.named(key)) set.add(at)
			}
			return
		case 'list': {
			if (!Array.isArray(value)) return
			const items = groupItems(value as readonly Json[], form.element)
			for (const [element, same] of items) {
				const at = [...path, element]
				if (same.length === 1) collect(same[0]!, form.items, at, set)
				set.add(at)
			}
			return
		}
	}
}

function isBare(object: JsonObject): boolean {
	for (const key in object) if (object[key] !== undefined) return false
	return true
}

function groupItems(list: readonly Json[], element: (item: Json) => string): Map<string, Json[]> {
	const groups = new Map<string, Json[]>()
	for (const item of list) {
		const key = element(item)
		const group = groups.get(key)
		if (group) group.push(item)
		else groups.set(key, [item])
	}
	return groups
}

export interface Comparison {
	readonly added: FieldSet
	readonly modified: FieldSet
	readonly removed: FieldSet
}

/** How `after` differs from `before`. No field is in two of the sets; parents that appear or go are members too. */
export function compare(before: Json | undefined, after: Json | undefined, shape: Shape): Comparison {
	const sets = { added: new FieldSetBuilder(), modified: new FieldSetBuilder(), removed: new FieldSetBuilder() }
	if (before !== undefined || after !== undefined) compareAt(before, after, shape, [], sets)
	const strip = (set: FieldSetBuilder): FieldSet => {
		const { children } = set.done()
		return children.size === 0 ? emptySet : { member: false, children }
	}
	return { added: strip(sets.added), modified: strip(sets.modified), removed: strip(sets.removed) }
}

type Sets = { added: FieldSetBuilder; modified: FieldSetBuilder; removed: FieldSetBuilder }

function compareAt(lhs: Json | undefined, rhs: Json | undefined, shape: Shape, path: string[], sets: Sets): void {
	// The same value, not an equal one: what a write left alone is still the stored object's.
	if (lhs === rhs && lhs !== undefined) return
	const left = formOf(shape, lhs)
	const right = formOf(shape, rhs)
	const form = rhs === undefined || (rhs === null && lhs !== undefined) ? left : right
	const differ = lhs !== undefined && rhs !== undefined && lhs !== null && rhs !== null && left.form !== right.form
	if (form.form === 'leaf' || differ || (isNothing(lhs) && isNothing(rhs))) {
		if (lhs === undefined) sets.added.add(path)
		else if (rhs === undefined) sets.removed.add(path)
		else if (!sameJson(lhs, rhs)) sets.modified.add(path)
		return
	}
	if (form.form === 'map') {
		const a = isObject(lhs) ? lhs : {}
		const b = isObject(rhs) ? rhs : {}
		for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
			const x = keyOf(a, key)
			const y = keyOf(b, key)
			if (x !== undefined || y !== undefined) compareAt(x, y, form.child(key), [...path, `f:${key}`], sets)
		}
	} else {
		const a = groupItems(Array.isArray(lhs) ? (lhs as readonly Json[]) : [], form.element)
		const b = groupItems(Array.isArray(rhs) ? (rhs as readonly Json[]) : [], form.element)
		for (const element of new Set([...a.keys(), ...b.keys()])) {
			const x = a.get(element) ?? []
			const y = b.get(element) ?? []
			const at = [...path, element]
			// Items with the same keys are one leaf.
			if (x.length <= 1 && y.length <= 1) compareAt(x[0], y[0], form.items, at, sets)
			else if (x.length >= 2 && y.length >= 2) {
				if (!sameJson(x, y)) sets.modified.add(at)
			} else if (x.length >= 2) {
				if (y.length > 0) compareAt(undefined, y[0], form.items, at, sets)
				sets.removed.add(at)
			} else {
				if (x.length > 0) compareAt(x[0], undefined, form.items, at, sets)
				sets.added.add(at)
			}
		}
	}
	if (lhs === undefined) sets.added.add(path)
	else if (rhs === undefined) sets.removed.add(path)
}

/** Absent, null or empty: then the place is a leaf, so that absent, null and empty stay distinct. */
function isNothing(value: Json | undefined): boolean {
	if (value === undefined || value === null) return true
	return Array.isArray(value) ? value.length === 0 : isObject(value) && isBare(value)
}

/**
 * Merges a configuration into an object; undefined: nothing is left.
 * Throws what `duplicate` makes of an element that the configuration names twice.
 */
export function mergeConfig(
	live: Json | undefined,
	config: Json | undefined,
	shape: Shape,
	duplicate: (path: readonly string[]) => Error,
	path: readonly string[] = [],
): Json | undefined {
	const left = formOf(shape, live)
	const right = formOf(shape, config)
	const form = config === undefined || (config === null && live !== undefined) ? left : right
	const differ =
		live !== undefined && live !== null && config !== undefined && config !== null && left.form !== right.form
	if (form.form === 'leaf' || differ || (isNothing(live) && isNothing(config)))
		return config !== undefined ? config : live
	if (form.form === 'map') {
		const a = isObject(live) ? live : {}
		const b = isObject(config) ? config : {}
		const out: Record<string, Json | undefined> = {}
		for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
			const x = keyOf(a, key)
			const y = keyOf(b, key)
			const merged =
				x === undefined && y === undefined
					? undefined
					: mergeConfig(x, y, form.child(key), duplicate, [...path, `f:${key}`])
			if (merged !== undefined) setKey(out, key, merged)
		}
		return isBare(out) ? undefined : out
	}
	const merged = mergeLists(
		Array.isArray(live) ? (live as readonly Json[]) : [],
		Array.isArray(config) ? (config as readonly Json[]) : [],
		form,
		duplicate,
		path,
	)
	return merged.length > 0 ? merged : undefined
}

/** Items of both in the order of the configuration, the live ones keeping their place between them. */
function mergeLists(
	live: readonly Json[],
	config: readonly Json[],
	form: Extract<Form, { form: 'list' }>,
	duplicate: (path: readonly string[]) => Error,
	path: readonly string[],
): Json[] {
	const wanted = new Map<string, Json>()
	for (const item of config) {
		const element = form.element(item)
		if (wanted.has(element)) throw duplicate([...path, element])
		wanted.set(element, item)
	}
	const left = live.map(form.element)
	const right = [...wanted.keys()]
	const liveItems = new Map<string, Json | undefined>()
	// Items the object has twice are replaced, not merged.
	left.forEach((element, i) => {
		liveItems.set(element, liveItems.has(element) ? undefined : live[i]!)
	})
	const shared = right.filter((element) => liveItems.has(element))
	const out: Json[] = []
	const done = new Set<string>()
	const take = (element: string, alone?: Json): void => {
		const item =
			alone ?? mergeConfig(liveItems.get(element), wanted.get(element), form.items, duplicate, [...path, element])
		if (item !== undefined) out.push(item)
	}
	let next = 0 // in shared
	let l = 0
	let r = 0
	while (l < left.length || r < right.length) {
		if (l < left.length && r < right.length) {
			if (left[l] === right[r]) {
				done.add(left[l]!)
				take(left[l]!)
				l++
				r++
				next++
				continue
			}
			if (wanted.has(left[l]!) && next < shared.length && shared[next] !== left[l]) {
				l++ // comes later, where the configuration wants it
				continue
			}
		}
		if (l < left.length) {
			if (!wanted.has(left[l]!)) {
				take(left[l]!, live[l])
				l++
				continue
			}
			if (done.has(left[l]!)) l++
		}
		if (r < right.length) {
			done.add(right[r]!)
			take(right[r]!)
			if (shared[next] === right[r]) next++
			r++
		}
	}
	return out
}

/**
 * The object without the fields of a set; undefined: nothing is left. Atomic values go only as a whole.
 * `emptied`: what a value in a map leaves that lost all it had. Null tells it from one that was removed itself.
 */
export function removeFields(value: Json, set: FieldSet, shape: Shape, emptied?: null): Json | undefined {
	const form = formOf(shape, value)
	if (form.form === 'leaf') {
		const atomic = isObject(value) || Array.isArray(value)
		return atomic && shape !== undefined && set.children.size > 0 ? undefined : value
	}
	if (form.form === 'map') {
		if (!isObject(value)) return undefined
		const out: Record<string, Json | undefined> = {}
		for (const key of Object.keys(value)) {
			const item = value[key]
			const child = set.children.get(`f:${key}`)
			if (item === undefined || child?.member) continue
			const left =
				child && child.children.size > 0 ? (removeFields(item, child, form.child(key), emptied) ?? emptied) : item
			if (left !== undefined) setKey(out, key, left)
		}
		return isBare(out) ? undefined : out
	}
	if (!Array.isArray(value)) return undefined
	const out: Json[] = []
	for (const item of value as readonly Json[]) {
		const child = set.children.get(form.element(item))
		if (child?.member) continue
		const left = child && child.children.size > 0 ? removeFields(item, child, form.items, emptied) : item
		if (left !== undefined) out.push(left)
	}
	return out.length > 0 ? out : undefined
}

/** The set with every named field of a struct that has something under it as a member too. */
export function withParents(set: FieldSet, shape: Shape): FieldSet {
	const form = formOf(shape, undefined)
	const children = new Map<string, FieldSet>()
	for (const [element, child] of set.children) {
		const name = element.slice(2)
		const inner =
			form.form === 'map' && element.startsWith('f:')
				? form.child(name)
				: form.form === 'list' && element.startsWith('k:')
					? form.items
					: undefined
		const filled = withParents(child, inner)
		const named = form.form === 'map' && element.startsWith('f:') && form.named(name)
		children.set(element, {
			member: child.member || (named && child.children.size > 0),
			children: filled.children,
		})
	}
	return { member: set.member, children }
}
