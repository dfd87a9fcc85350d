// What every API object has (apimachinery meta/v1), and the key we know it by. Only fields we use.

/** RFC 3339, UTC. */
export type Time = string
/** Microsecond precision: `2026-01-02T03:04:05.000000Z`. */
export type MicroTime = string
export type Labels = Readonly<Record<string, string>>
/** Numbers are ports or counts, strings are names or percentages. */
export type IntOrString = number | string
/** `100m`, `1Gi`. */
export type Quantity = string

/** `namespace/name`, or `name` for cluster-scoped objects. */
export type ObjectKey = string

export interface TypeMeta {
	readonly apiVersion: string
	readonly kind: string
}

export interface ObjectMeta {
	readonly name: string
	readonly generateName?: string
	readonly namespace?: string
	readonly uid?: string
	readonly resourceVersion?: string
	readonly generation?: number
	readonly creationTimestamp?: Time
	readonly deletionTimestamp?: Time
	readonly deletionGracePeriodSeconds?: number
	readonly labels?: Labels
	readonly annotations?: Readonly<Record<string, string>>
	readonly ownerReferences?: readonly OwnerReference[]
	readonly finalizers?: readonly string[]
	readonly managedFields?: readonly ManagedFieldsEntry[]
}

export interface OwnerReference {
	readonly apiVersion: string
	readonly kind: string
	readonly name: string
	readonly uid: string
	readonly controller?: boolean
	readonly blockOwnerDeletion?: boolean
}

export interface ManagedFieldsEntry {
	readonly manager?: string
	readonly operation?: 'Apply' | 'Update'
	readonly apiVersion?: string
	readonly time?: Time
	readonly fieldsType?: 'FieldsV1'
	readonly fieldsV1?: Readonly<Record<string, unknown>>
	readonly subresource?: string
}

/** Any API object, as long as nobody asks what is inside. */
export interface KubeObject extends TypeMeta {
	readonly metadata: ObjectMeta
}

/** An object of a kind we have no type for. */
export interface UnknownObject extends KubeObject {
	readonly [field: string]: unknown
}

export interface ListMeta {
	readonly resourceVersion?: string
	readonly continue?: string
	readonly remainingItemCount?: number
}

export interface KubeList<T extends KubeObject = KubeObject> extends TypeMeta {
	readonly metadata: ListMeta
	readonly items: readonly T[]
}

export interface LabelSelector {
	readonly matchLabels?: Labels
	readonly matchExpressions?: readonly LabelSelectorRequirement[]
}

export interface LabelSelectorRequirement {
	readonly key: string
	readonly operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist'
	readonly values?: readonly string[]
}

export interface Condition {
	readonly type: string
	readonly status: 'True' | 'False' | 'Unknown'
	readonly observedGeneration?: number
	readonly lastTransitionTime?: Time
	readonly reason?: string
	readonly message?: string
}

/** The body of every answer that is not 2xx. */
export interface Status {
	readonly apiVersion: 'v1'
	readonly kind: 'Status'
	readonly metadata: ListMeta
	readonly status?: 'Success' | 'Failure'
	readonly message?: string
	readonly reason?: string
	readonly code?: number
	readonly details?: StatusDetails
}

export interface StatusDetails {
	readonly name?: string
	readonly group?: string
	readonly kind?: string
	readonly uid?: string
	readonly retryAfterSeconds?: number
	readonly causes?: readonly StatusCause[]
}

export interface StatusCause {
	readonly reason?: string
	readonly message?: string
	readonly field?: string
}

/** One line of a watch. An ERROR carries a Status. */
export type WatchEvent<T extends KubeObject = KubeObject> =
	| { readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'; readonly object: T }
	| { readonly type: 'BOOKMARK'; readonly object: KubeObject }
	| { readonly type: 'ERROR'; readonly object: Status }

export function keyOf(object: KubeObject): ObjectKey {
	const { namespace, name } = object.metadata
	return namespace === undefined || namespace === '' ? name : `${namespace}/${name}`
}

export function namespacedKey(namespace: string, name: string): ObjectKey {
	return namespace === '' ? name : `${namespace}/${name}`
}

/** `namespace` is '' for the key of a cluster-scoped object. */
export function splitKey(key: ObjectKey): { readonly namespace: string; readonly name: string } {
	const slash = key.indexOf('/')
	return slash < 0 ? { namespace: '', name: key } : { namespace: key.slice(0, slash), name: key.slice(slash + 1) }
}

/** The reference with `controller: true`, of which an object has at most one. */
export function controllerOf(object: KubeObject): OwnerReference | undefined {
	return object.metadata.ownerReferences?.find((owner) => owner.controller === true)
}

/** `apps/v1` → group `apps`, version `v1`; `v1` → group ''. */
export function splitApiVersion(apiVersion: string): { readonly group: string; readonly version: string } {
	const slash = apiVersion.indexOf('/')
	return slash < 0
		? { group: '', version: apiVersion }
		: { group: apiVersion.slice(0, slash), version: apiVersion.slice(slash + 1) }
}
