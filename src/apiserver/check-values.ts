// seam
import type { StatusCause, UnknownObject } from '../kube/objects/meta.ts'
import type { JsonObject } from '../kube/schema/json.ts'
import { applyDefaults } from './defaults/defaults.ts'
import type { Served } from './registry.ts'
import { cause, invalid } from './status.ts'

export function withDefaults(object: UnknownObject): UnknownObject {
	return applyDefaults(object as unknown as JsonObject) as unknown as UnknownObject
}
export function checkMetadata(served: Served, object: UnknownObject, _before?: UnknownObject): void {
	const causes: StatusCause[] = []
	if (!object.metadata.name) causes.push(cause.required('metadata.name', 'name or generateName is required'))
	if (causes.length > 0) throw invalid(served.resource, object.metadata.name ?? '', causes)
}
export function checkValues(_served: Served, _object: UnknownObject, _before: UnknownObject | undefined): void {}
