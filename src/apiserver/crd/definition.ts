// A CustomResourceDefinition as the server reads it, and the names it asks for.

import type { UnknownObject } from '../../kube/objects/meta.ts'
import type { JsonObject } from '../../kube/schema/json.ts'

export const definitionsStorage = 'customresourcedefinitions.apiextensions.k8s.io'
/** Holds a definition that is deleted until its objects are gone. */
export const cleanupFinalizer = 'customresourcecleanup.apiextensions.k8s.io'

export interface Names {
	readonly plural: string
	readonly singular: string
	readonly kind: string
	readonly listKind: string
	readonly shortNames?: readonly string[]
	readonly categories?: readonly string[]
}

export interface Version {
	readonly name: string
	readonly served: boolean
	readonly storage: boolean
	readonly deprecated?: boolean
	readonly deprecationWarning?: string
	readonly schema?: { readonly openAPIV3Schema?: JsonObject }
	readonly subresources?: {
		readonly status?: object
		readonly scale?: {
			readonly specReplicasPath: string
			readonly statusReplicasPath: string
			readonly labelSelectorPath?: string
		}
	}
	readonly additionalPrinterColumns?: readonly PrinterColumn[]
	readonly selectableFields?: readonly { readonly jsonPath: string }[]
}

export interface PrinterColumn {
	readonly name: string
	readonly type: string
	readonly format?: string
	readonly description?: string
	readonly priority?: number
	readonly jsonPath: string
}

/** Where a webhook is: a URL or a Service. */
export interface WebhookClient {
	readonly url?: string
	readonly service?: {
		readonly namespace: string
		readonly name: string
		readonly path?: string
		readonly port?: number
	}
	/** PEM, in base64. */
	readonly caBundle?: string
}

export interface Condition {
	readonly type: string
	readonly status: 'True' | 'False' | 'Unknown'
	readonly lastTransitionTime?: string
	readonly reason?: string
	readonly message?: string
}

export interface Definition extends UnknownObject {
	readonly spec: {
		readonly group: string
		readonly scope: 'Namespaced' | 'Cluster'
		readonly names: Names
		readonly versions: readonly Version[]
		readonly conversion?: {
			readonly strategy?: string
			readonly webhook?: {
				readonly clientConfig?: WebhookClient
				readonly conversionReviewVersions?: readonly string[]
			}
		}
		readonly preserveUnknownFields?: boolean
	}
	readonly status?: {
		readonly conditions?: readonly Condition[] | null
		readonly acceptedNames?: Partial<Names>
		readonly storedVersions?: readonly string[] | null
	}
}

export function conditionOf(definition: Definition, type: string): Condition | undefined {
	return definition.status?.conditions?.find((condition) => condition.type === type)
}

export function isEstablished(definition: Definition): boolean {
	return conditionOf(definition, 'Established')?.status === 'True'
}

/** v10 before v2 before v2beta1 before v2alpha1 before others: the order versions are offered in. */
export function compareVersions(a: string, b: string): number {
	const x = rankOf(a)
	const y = rankOf(b)
	for (let i = 0; i < x.length; i++) if (x[i] !== y[i]) return y[i]! - x[i]!
	return a < b ? -1 : a > b ? 1 : 0
}

function rankOf(version: string): readonly [number, number, number] {
	const m = /^v([1-9]\d*)(?:(alpha|beta)([1-9]\d*))?$/.exec(version)
	if (m === null) return [0, 0, 0]
	return [m[2] === undefined ? 3 : m[2] === 'beta' ? 2 : 1, Number(m[1]), Number(m[3] ?? 0)]
}
