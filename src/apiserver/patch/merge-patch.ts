// JSON Merge Patch, RFC 7386.

import { isObject, type Json, type JsonObject, keyOf, setKey } from '../../kube/schema/json.ts'

/** `document` with the keys of `patch` set, and those removed that it says are null. */
export function mergePatch(document: JsonObject, patch: JsonObject): JsonObject {
	const out: Record<string, Json | undefined> = {}
	for (const key of Object.keys(document)) if (keyOf(patch, key) !== null) setKey(out, key, document[key])
	for (const key of Object.keys(patch)) {
		const value = patch[key]
		if (value === null || value === undefined) continue
		const have = keyOf(document, key)
		setKey(out, key, isObject(value) ? mergePatch(isObject(have) ? have : {}, value) : value)
	}
	return out
}
