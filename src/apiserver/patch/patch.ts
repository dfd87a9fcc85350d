// PATCH: from a content type, a body and the current object to the new object. Pure.

import { createRequire } from 'node:module'
import { Failure } from '../../base/failure.ts'
import { isObject, type JsonObject } from '../../kube/schema/json.ts'
import type { TypeSchema } from '../../kube/schema/schema.ts'
import { applyConfig } from './apply.ts'
import { jsonPatch } from './json-patch.ts'
import { mergePatch } from './merge-patch.ts'
import { strategicMergePatch } from './strategic.ts'

export const patchTypes = {
	json: 'application/json-patch+json',
	merge: 'application/merge-patch+json',
	strategic: 'application/strategic-merge-patch+json',
	applyYaml: 'application/apply-patch+yaml',
} as const

export interface PatchContext {
	/** `typeOf(apiVersion, kind)`, or the type of a CRD's version; absent: lists are atomic, maps granular. */
	readonly schema?: TypeSchema
	/** The version the request names (`apps/v1`): what managedFields entries say. */
	readonly apiVersion: string
	/** `?fieldManager=`; required by server-side apply. */
	readonly fieldManager: string
	/** `?force=true`, of server-side apply alone. */
	readonly force: boolean
	/** `status`, `scale`; absent for the object itself. */
	readonly subresource?: string
	/** RFC 3339 with whole seconds, `2026-01-01T00:00:00Z`. */
	readonly now: string
	/** Custom resources take no strategic merge patch. */
	readonly custom?: boolean
	/** As ManagerOptions.resetFields. */
	readonly resetFields?: readonly string[]
}

/**
 * Applies one PATCH body.
 *
 * `current` is the stored object with apiVersion and kind; for server-side apply it may be absent: then the
 * result is an object to create. For apply, the result's `metadata.managedFields` is already right (do NOT call
 * updateManagedFields for it); for the other kinds call `updateManagedFields` after defaults.
 * The caller then applies defaults, checks fields and values, checks immutable fields and the resourceVersion the
 * patch may carry, and stores. If apply changed nothing, the result is `current` itself: store nothing then.
 *
 * Failures (code is the reason of the Status to answer): `UnsupportedMediaType` (415), `BadRequest` (400: body is not
 * JSON/YAML, a patch operation is malformed), `RequestEntityTooLarge` (413), `Invalid` (422: JSON patch test failed or
 * path is missing), `NotFound` (404: no object, and the patch is not an apply),
 * `Conflict` (409: apply conflicts; details.causes are Status causes, message as the real server says it).
 */
export function patch(
	contentType: string,
	body: Uint8Array,
	current: JsonObject | undefined,
	context: PatchContext,
): { readonly object: JsonObject } {
	const type = contentType.split(';')[0]!.trim().toLowerCase()
	if (type === patchTypes.applyYaml) {
		const config = readYaml(body)
		if (!isObject(config)) throw new Failure('BadRequest', 'cannot apply: the body is not an object')
		return { object: applyConfig(current, config, { ...context, manager: context.fieldManager }) }
	}
	const known: readonly string[] = Object.values(patchTypes)
	if (!known.includes(type) || (type === patchTypes.strategic && context.custom)) {
		const supported = known.filter((name) => name !== patchTypes.strategic || !context.custom)
		throw new Failure(
			'UnsupportedMediaType',
			`the body of the request was in an unknown format - accepted media types include: ${supported.join(', ')}`,
			{ contentType },
		)
	}
	if (!current) throw new Failure('NotFound', 'cannot patch: there is no such object')
	const content = readJson(body)
	if (type === patchTypes.json) return { object: jsonPatch(current, content) }
	if (!isObject(content)) throw new Failure('BadRequest', 'cannot apply the patch: the body is not an object')
	if (type === patchTypes.merge) return { object: mergePatch(current, content) }
	return { object: strategicMergePatch(current, content, context.schema) }
}

function readJson(body: Uint8Array): unknown {
	try {
		return JSON.parse(new TextDecoder().decode(body))
	} catch (e) {
		throw new Failure('BadRequest', `cannot read the patch: ${(e as Error).message}`)
	}
}

/** kubectl sends JSON as YAML: the YAML reader is loaded only for what is not JSON. */
function readYaml(body: Uint8Array): unknown {
	const text = new TextDecoder().decode(body)
	try {
		return JSON.parse(text)
	} catch {
		const yaml = createRequire(import.meta.url)('yaml') as typeof import('yaml')
		try {
			return yaml.parse(text, {
				version: '1.1',
				merge: true,
				// Times stay text, as in JSON.
				customTags: (tags) => tags.filter((tag) => typeof tag === 'string' || !/:(timestamp|binary)$/.test(tag.tag)),
			})
		} catch (e) {
			throw new Failure('BadRequest', `cannot apply: the body is not YAML: ${(e as Error).message}`)
		}
	}
}
