// metadata.managedFields: who owns which field.

import type { JsonObject } from '../../kube/schema/json.ts'
import type { TypeSchema } from '../../kube/schema/schema.ts'

/**
 * The object `after` with its `metadata.managedFields` as the server keeps it once `manager` created (no `before`)
 * or updated it by POST, PUT or a patch other than apply.
 *
 * Call it after defaults and before storing. `after.metadata.managedFields` as the client sent it is honoured as
 * the real server does: absent means "as it was", an empty list means "reset".
 */
export declare function updateManagedFields(change: {
	readonly before?: JsonObject
	readonly after: JsonObject
	readonly schema?: TypeSchema
	readonly manager: string
	readonly apiVersion: string
	readonly subresource?: string
	readonly now: string
}): JsonObject
