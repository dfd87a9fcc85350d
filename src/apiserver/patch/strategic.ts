// Strategic merge patch: lists merge by the key the type names, and the patch may hold directives ($patch, $retainKeys,
// $deleteFromPrimitiveList/…, $setElementOrder/…). Rules: the documentation "Update API Objects in Place Using kubectl
// patch" and contributors/devel/sig-api-machinery/strategic-merge-patch.md.

import { Failure } from '../../base/failure.ts'
import { isObject, type Json, type JsonObject, keyOf, sameJson, setKey } from '../../kube/schema/json.ts'
import type { FieldSchema, TypeSchema, ValueSchema } from '../../kube/schema/schema.ts'

const deletePrefix = '$deleteFromPrimitiveList/'
const orderPrefix = '$setElementOrder/'

type Fields = Record<string, Json | undefined>

/** How one field merges. */
interface Rule {
	readonly strategy: 'merge' | 'replace' | undefined
	readonly mergeKey: string | undefined
	/** The type of the object, of the values of the map, or of the items of the list. */
	readonly inner: Inner
}
/** A struct's type, or the values of a map, which have no fields of their own. */
type Inner = { readonly type?: TypeSchema; readonly values?: ValueSchema }

/** Failure BadRequest: the patch is malformed. */
export function strategicMergePatch(document: JsonObject, patch: JsonObject, type: TypeSchema | undefined): JsonObject {
	return mergeMaps(document, patch, type ? { type } : {}, '')
}

function bad(path: string, why: string): Failure {
	return new Failure('BadRequest', `cannot apply the strategic merge patch at ${path || 'its root'}: ${why}`, {
		field: path,
	})
}

function ruleOf(inner: Inner, key: string): Rule {
	const field: Pick<FieldSchema, 'value' | 'patchStrategy' | 'patchMergeKey'> | undefined =
		inner.type?.fields.get(key) ?? (inner.values && { value: inner.values, patchStrategy: [] })
	if (!field) return { strategy: undefined, mergeKey: undefined, inner: {} }
	const strategy = field.patchStrategy.find((s) => s !== 'retainKeys')
	const value = field.value.type === 'list' ? field.value.items : field.value
	return {
		strategy: strategy === 'merge' || strategy === 'replace' ? strategy : undefined,
		mergeKey: field.patchMergeKey,
		inner: value.type === 'object' ? { type: value.object } : value.type === 'map' ? { values: value.value } : {},
	}
}

function mergeMaps(original: JsonObject, patch: JsonObject, inner: Inner, path: string): JsonObject {
	const directive = keyOf(patch, '$patch')
	if (directive !== undefined) {
		if (directive === 'replace') return dropInside(patch)
		if (directive === 'delete') return {}
		if (directive !== 'merge')
			throw bad(path, `"$patch" is ${JSON.stringify(directive)}, not "replace", "merge" or "delete"`)
	}
	const rest = withoutKeys(patch, ['$patch', '$retainKeys'])
	const out: Fields = withoutKeys(original, [])
	const retained = keyOf(patch, '$retainKeys')
	if (retained !== undefined) retainKeys(out, rest, retained, path)

	const done = new Set<string>()
	for (const key of Object.keys(rest).filter((k) => k.startsWith(orderPrefix))) {
		const name = key.slice(orderPrefix.length)
		orderList(out, name, keyOf(rest, name), rest[key]!, ruleOf(inner, name), at(path, name))
		done.add(key)
		done.add(name)
	}
	for (const key of Object.keys(rest).filter((k) => k.startsWith(deletePrefix))) {
		const name = key.slice(deletePrefix.length)
		const gone = rest[key]
		if (!Array.isArray(gone)) throw bad(at(path, key), 'it is not a list')
		const have = keyOf(out, name)
		if (Array.isArray(have)) out[name] = have.filter((item: Json) => !gone.some((g: Json) => sameJson(g, item)))
		done.add(key)
	}
	for (const key of Object.keys(rest)) {
		if (done.has(key)) continue
		const value = rest[key]
		if (value === null || value === undefined) {
			delete out[key]
			continue
		}
		const have = keyOf(out, key)
		const where = at(path, key)
		if (isObject(have) && isObject(value)) {
			const rule = ruleOf(inner, key)
			setKey(out, key, rule.strategy === 'replace' ? dropInside(value) : mergeMaps(have, value, rule.inner, where))
		} else if (Array.isArray(have) && Array.isArray(value))
			setKey(out, key, mergeLists(have as Json[], value as Json[], ruleOf(inner, key), where))
		else {
			const kept = dropDirectives(value)
			if (kept !== undefined) setKey(out, key, kept)
			else delete out[key]
		}
	}
	return out
}

function at(path: string, key: string): string {
	return path === '' ? key : `${path}.${key}`
}

function withoutKeys(object: JsonObject, keys: readonly string[]): Fields {
	const out: Fields = {}
	for (const key of Object.keys(object)) if (!keys.includes(key)) setKey(out, key, object[key])
	return out
}

/** Removes from `out` what the list does not name; the patch may set nothing else. */
function retainKeys(out: Fields, patch: JsonObject, names: Json, path: string): void {
	if (!Array.isArray(names)) throw bad(path, '"$retainKeys" is not a list')
	for (const [key, value] of Object.entries(patch)) {
		if (value === null || key.startsWith(deletePrefix) || key.startsWith(orderPrefix)) continue
		if (!names.includes(key)) throw bad(at(path, key), 'it is set, but "$retainKeys" does not name it')
	}
	for (const key of Object.keys(out)) if (!names.includes(key)) delete out[key]
}

/** Values that are new to the object: nulls are absent, and so is every map that holds a directive. */
function dropDirectives(value: Json): Json | undefined {
	if (Array.isArray(value)) return (value as readonly Json[]).map(dropDirectives).filter((item) => item !== undefined)
	if (!isObject(value)) return value
	if (keyOf(value, '$patch') !== undefined) return undefined
	return dropInside(value)
}

function dropInside(value: JsonObject): JsonObject {
	const out: Fields = {}
	for (const key of Object.keys(value)) {
		const item = value[key]
		if (item === null || item === undefined || key === '$patch' || key === '$retainKeys') continue
		if (key.startsWith(deletePrefix) || key.startsWith(orderPrefix)) continue
		const kept = dropDirectives(item)
		if (kept !== undefined) setKey(out, key, kept)
	}
	return out
}

function dropInLists(items: readonly Json[]): Json[] {
	return dropDirectives(items) as Json[]
}

/** A list under `$setElementOrder`: merged, then brought into the order the patch gives. */
function orderList(out: Fields, name: string, patch: Json | undefined, order: Json, rule: Rule, path: string): void {
	if (!Array.isArray(order)) throw bad(path, '"$setElementOrder" is not a list')
	if (patch === null) {
		delete out[name]
		return
	}
	if (patch !== undefined && !Array.isArray(patch)) throw bad(path, 'it is not a list')
	const have = keyOf(out, name)
	const original = Array.isArray(have) ? (have as readonly Json[]) : undefined
	const patched = patch as readonly Json[] | undefined
	if (patched) checkOrder(patched, order as readonly Json[], rule.mergeKey, path)
	if (!original && !patched) return
	const merged = !original ? dropInLists(patched!) : patched ? mergeLists(original, patched, rule, path) : original
	setKey(out, name, sortItems(merged, order as readonly Json[], original ?? [], rule.mergeKey))
}

/** Items of the patch come in the order of the list beside it. */
function checkOrder(patch: readonly Json[], order: readonly Json[], mergeKey: string | undefined, path: string): void {
	let next = 0
	for (const item of patch) {
		if (isObject(item) && item.$patch !== undefined) continue
		while (next < order.length && !isSame(item, order[next]!, mergeKey)) next++
		if (next++ >= order.length)
			throw bad(
				path,
				'the order in the patch does not match the order in "$setElementOrder", or an item is missing there',
			)
	}
}

function isSame(a: Json, b: Json, mergeKey: string | undefined): boolean {
	if (isObject(a) && isObject(b) && mergeKey !== undefined) return sameJson(a[mergeKey], b[mergeKey])
	return sameJson(a, b)
}

function mergeLists(original: readonly Json[], patch: readonly Json[], rule: Rule, path: string): Json[] {
	if (rule.strategy !== 'merge') return dropInLists(patch)
	if (original.length === 0 && patch.length === 0) return []
	const isMaps = [...original, ...patch].some(isObject)
	if (!isMaps) {
		const merged: Json[] = []
		for (const item of [...original, ...patch]) if (!merged.some((have) => sameJson(have, item))) merged.push(item)
		return sortItems(merged, patch, original, undefined)
	}
	const { mergeKey } = rule
	if (mergeKey === undefined) throw bad(path, 'its items cannot be merged: the type names no merge key')
	const keyAt = (item: Json, i: number): Json => {
		const key = isObject(item) ? keyOf(item, mergeKey) : undefined
		if (key === undefined) throw bad(`${path}[${i}]`, `the item does not say its merge key "${mergeKey}"`)
		return key
	}
	let base: readonly Json[] = original
	const wanted: Json[] = []
	let isReplaced = false
	patch.forEach((item, i) => {
		const directive = isObject(item) ? keyOf(item, '$patch') : undefined
		if (directive === undefined) wanted.push(item)
		else if (directive === 'delete') {
			const key = keyAt(item, i)
			base = base.filter((have) => !isObject(have) || !sameJson(have[mergeKey], key))
		} else if (directive === 'replace') isReplaced = true
		else throw bad(`${path}[${i}]`, `"$patch" is ${JSON.stringify(directive)}, not "replace" or "delete"`)
	})
	if (isReplaced) return dropInLists(wanted)
	const merged = [...base]
	wanted.forEach((item, i) => {
		const key = keyAt(item, i)
		const index = merged.findIndex((have) => isObject(have) && sameJson(have[mergeKey], key))
		if (index < 0) merged.push(dropInside(item as JsonObject))
		else merged[index] = mergeMaps(merged[index] as JsonObject, item as JsonObject, rule.inner, `${path}[${i}]`)
	})
	return sortItems(merged, wanted, original, mergeKey)
}

/**
 * The items the patch names in the order of the patch, the others where they were among those that both know:
 * an item of the server alone stays before the next item it preceded.
 */
function sortItems(
	merged: readonly Json[],
	order: readonly Json[],
	server: readonly Json[],
	mergeKey: string | undefined,
): Json[] {
	const placeIn = (list: readonly Json[], item: Json): number =>
		list.findIndex((other) => isSame(item, other, mergeKey))
	const named = merged.filter((item) => placeIn(order, item) >= 0)
	const others = merged.filter((item) => placeIn(order, item) < 0)
	named.sort((a, b) => placeIn(order, a) - placeIn(order, b))
	others.sort((a, b) => placeIn(server, a) - placeIn(server, b))
	const out: Json[] = []
	let i = 0
	let j = 0
	while (i < others.length || j < named.length) {
		if (j >= named.length) out.push(others[i++]!)
		else if (i >= others.length) out.push(named[j++]!)
		else {
			const left = placeIn(server, others[i]!)
			const right = placeIn(server, named[j]!)
			out.push(left >= 0 && right >= 0 && left < right ? others[i++]! : named[j++]!)
		}
	}
	return out
}
