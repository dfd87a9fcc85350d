// JSON values as types: what the API server keeps, patches and encodes.

export type Json = null | boolean | number | string | readonly Json[] | JsonObject
export interface JsonObject {
	readonly [key: string]: Json | undefined
}

export function isObject(value: unknown): value is JsonObject {
	return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Deep equality of JSON values; the order of keys does not matter, `undefined` counts as absent. */
export function sameJson(a: Json | undefined, b: Json | undefined): boolean {
	if (a === b) return true
	if (Array.isArray(a)) {
		if (!Array.isArray(b) || a.length !== b.length) return false
		return a.every((item, i) => sameJson(item, b[i]))
	}
	if (!isObject(a) || !isObject(b)) return false
	for (const key in a) if (!sameJson(a[key], b[key])) return false
	for (const key in b) if (b[key] !== undefined && a[key] === undefined) return false
	return true
}

/** Sets a key that may come from a user: `__proto__` is a key like any other. */
export function setKey(object: Record<string, Json | undefined>, key: string, value: Json | undefined): void {
	if (key === '__proto__')
		Object.defineProperty(object, key, { value, enumerable: true, writable: true, configurable: true })
	else object[key] = value
}

/** The value of an own key: nothing is inherited. */
export function keyOf(object: JsonObject, key: string): Json | undefined {
	return Object.hasOwn(object, key) ? object[key] : undefined
}
