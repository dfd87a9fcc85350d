// Kinds that CustomResourceDefinitions make: those among the user's manifests, and those the cluster has already.

import type { KubeClient } from '../kube/client.ts'
import type { Kind } from '../kube/kinds.ts'
import type { KubeObject } from '../kube/objects/meta.ts'
import { apiVersionOf, type Resource, resourceOf } from '../kube/resources.ts'

interface Definition extends KubeObject {
	readonly spec?: {
		readonly group?: string
		readonly scope?: string
		readonly names?: { readonly plural?: string; readonly kind?: string; readonly singular?: string }
		readonly versions?: readonly { readonly name: string; readonly served?: boolean }[]
	}
	readonly status?: {
		readonly conditions?:
			| readonly { readonly type: string; readonly status: string; readonly message?: string }[]
			| null
	}
}

export const definitions = resourceOf(
	'apiextensions.k8s.io/v1',
	'CustomResourceDefinition',
) as Resource as Kind<Definition> & Resource

/** A kind of a definition, and the name of that definition. */
export interface CustomKind {
	readonly resource: Resource
	readonly definition: string
}

export function isDefinition(object: KubeObject): object is Definition {
	return object.kind === definitions.kind && object.apiVersion === apiVersionOf(definitions)
}

/** By `apiVersion kind`; what is no definition, or none that can be read, gives nothing. */
export function kindsOf(objects: Iterable<KubeObject>): ReadonlyMap<string, CustomKind> {
	const kinds = new Map<string, CustomKind>()
	for (const object of objects) {
		if (!isDefinition(object)) continue
		const { group, scope, names, versions = [] } = object.spec ?? {}
		if (!group || !names?.plural || !names.kind || !Array.isArray(versions)) continue
		for (const { name, served } of versions) {
			if (served === false) continue
			const resource: Resource = {
				group,
				version: name,
				kind: names.kind,
				plural: names.plural,
				singular: names.singular ?? names.kind.toLowerCase(),
				shortNames: [],
				categories: [],
				namespaced: scope !== 'Cluster',
				verbs: [],
				subresources: [],
				stored: true,
			}
			kinds.set(`${apiVersionOf(resource)} ${resource.kind}`, { resource, definition: object.metadata.name })
		}
	}
	return kinds
}

/** The definitions the cluster has. */
export async function definitionsOf(client: KubeClient): Promise<readonly KubeObject[]> {
	return (await client.list(definitions)).items
}

/**
 * Ends when the cluster serves what these definitions define; undefined, or why it does not.
 * A definition whose names another one has is never served.
 */
export async function whenServed(client: KubeClient, names: readonly string[]): Promise<string | undefined> {
	for (const name of names) {
		const watch = client.watch<Definition>(definitions, { fieldSelector: `metadata.name=${name}`, timeoutSeconds: 10 })
		let why = `CustomResourceDefinition ${name} is not established after 10 s`
		for await (const event of watch) {
			if (event.type === 'BOOKMARK') continue
			const { type, object } = event
			const condition = (of: string) => object.status?.conditions?.find((c) => c.type === of)
			if (type === 'DELETED') why = `CustomResourceDefinition ${name} was deleted`
			else if (condition('Established')?.status === 'True') why = ''
			else if (condition('NamesAccepted')?.status === 'False')
				why = `CustomResourceDefinition ${name} is not served: ${condition('NamesAccepted')?.message ?? 'its names are taken'}`
			else continue
			break
		}
		if (why !== '') return why
	}
	return undefined
}
