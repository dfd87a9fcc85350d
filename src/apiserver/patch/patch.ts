// PATCH: from a content type, a body and the current object to the new object. Pure.

import type { JsonObject } from '../../kube/schema/json.ts'
import type { TypeSchema } from '../../kube/schema/schema.ts'

export const patchTypes = {
	json: 'application/json-patch+json',
	merge: 'application/merge-patch+json',
	strategic: 'application/strategic-merge-patch+json',
	applyYaml: 'application/apply-patch+yaml',
	applyCbor: 'application/apply-patch+cbor',
} as const

export interface PatchContext {
	/** `typeOf(apiVersion, kind)`, or the type of a CRD's version; absent: lists are atomic, maps granular. */
	readonly schema?: TypeSchema
	/** The version the request names (`apps/v1`): what managedFields entries say. */
	readonly apiVersion: string
	/** `?fieldManager=`; required by server-side apply, elsewhere the User-Agent's first word is the default. */
	readonly fieldManager: string
	/** `?force=true`, of server-side apply alone. */
	readonly force: boolean
	/** `status`, `scale`; absent for the object itself. */
	readonly subresource?: string
	/** RFC 3339 with seconds, `2026-01-01T00:00:00Z`. */
	readonly now: string
	/** Custom resources take no strategic merge patch. */
	readonly custom?: boolean
}

/**
 * Applies one PATCH body.
 *
 * `current` is the stored object with apiVersion and kind; for server-side apply it may be absent: then the
 * result is an object to create. For apply, the result's `metadata.managedFields` is already right (do NOT call
 * updateManagedFields for it); for the other kinds call `updateManagedFields` after defaults.
 * The caller then applies defaults, validates fields and values, checks immutable fields and the resourceVersion the
 * patch may carry, and stores. If apply changed nothing, the result deep-equals `current`, managedFields included
 * (times are kept): store nothing then.
 *
 * Failures (code is the reason of the Status to answer): `UnsupportedMediaType` (415), `BadRequest` (400: body is not
 * JSON/YAML, a patch operation is malformed), `Invalid` (422: JSON patch test failed or path is missing),
 * `Conflict` (409: apply conflicts; details.causes are Status causes, message as the real server says it).
 */
export declare function patch(
	contentType: string,
	body: Uint8Array,
	current: JsonObject | undefined,
	context: PatchContext,
): { readonly object: JsonObject }
