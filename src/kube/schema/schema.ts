// The types of the Kubernetes API as data: what drives protobuf, field validation, patches, managedFields and OpenAPI.

/** What may stand at one place of a JSON document. */
export type ValueSchema =
	| ScalarSchema
	| { readonly type: 'object'; /** Resolved when first asked, since types may contain themselves. */ readonly object: TypeSchema }
	| { readonly type: 'map'; readonly value: ValueSchema; readonly atomic: boolean }
	| {
			readonly type: 'list'
			readonly items: ValueSchema
			/** How server-side apply merges it. */
			readonly listType: 'atomic' | 'set' | 'map'
			readonly listMapKeys: readonly string[]
	  }
	/** Any JSON: kept as it is, owned as a whole (RawExtension, FieldsV1, JSON, IntOrString excepted). */
	| { readonly type: 'any' }

export interface ScalarSchema {
	readonly type: 'string' | 'boolean' | 'integer' | 'number'
	/** int32, int64, uint32 …, double; of strings: byte (base64), time, microtime, duration, quantity, intOrString. */
	readonly format?: string
	/** The values allowed, where the type is an enumeration. */
	readonly enum?: readonly string[]
	readonly nullable?: boolean
}

export interface FieldSchema {
	/** The name in JSON. */
	readonly name: string
	readonly value: ValueSchema
	readonly required: boolean
	/** A null is allowed and means absent (pointers, lists and maps of built-in types). */
	readonly nullable: boolean
	readonly patchStrategy: readonly ('merge' | 'replace' | 'retainKeys')[]
	readonly patchMergeKey?: string
	/** Set where the type itself says a default (list map keys such as `protocol: TCP`; CRD defaults). */
	readonly default?: unknown
}

/** One object type. May be built at run time, for CRDs. */
export interface TypeSchema {
	/** As OpenAPI v3 names it: `io.k8s.api.core.v1.Pod`. */
	readonly name: string
	/** By JSON name, in the order of declaration; inlined structs are already flattened. */
	readonly fields: ReadonlyMap<string, FieldSchema>
	/** Server-side apply owns it as a whole. */
	readonly atomic: boolean
	/** Fields that are not listed are kept (x-kubernetes-preserve-unknown-fields), instead of dropped or refused. */
	readonly preserveUnknown: boolean
}
