// Every kind of object the cluster stores, built in or defined by a CRD, each with its view: what the garbage
// collector and the end of a namespace have to know of.

import type { Kind } from '../kube/kinds.ts'
import type { KubeObject } from '../kube/objects/meta.ts'
import { apiVersionOf, resourceOf, resources } from '../kube/resources.ts'
import type { View, Views } from './view.ts'

/** As much of a CustomResourceDefinition as says what it defines. */
interface Definition extends KubeObject {
	readonly spec?: {
		readonly group: string
		readonly scope: 'Namespaced' | 'Cluster'
		readonly names: { readonly plural: string; readonly kind: string }
		readonly versions: readonly { readonly name: string; readonly served: boolean; readonly storage: boolean }[]
	}
	readonly status?: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] }
}

export interface Inventory {
	/** Views of all kinds known now. */
	views(): Iterable<View>
	/** The kind of `apiVersion` and `kind` in any served version, if there is one. */
	find(apiVersion: string, kind: string): Kind | undefined
	/** Hears of every view: those there are, then those that come with a CRD. */
	onView(listener: (view: View) => void): void
}

/** To be made before the views start; those of CRDs start by themselves. */
export function createInventory(views: Views): Inventory {
	const definitions = views.of(
		resourceOf('apiextensions.k8s.io/v1', 'CustomResourceDefinition') as Kind as Kind<Definition>,
	)
	const known = new Map<string, View>()
	/** Every served version of a kind leads to the one that is watched. */
	const kinds = new Map<string, Kind>()
	const listeners: ((view: View) => void)[] = []

	const enter = (view: View, versions: readonly string[]): void => {
		known.set(nameOf(view.kind), view)
		for (const version of versions) kinds.set(`${apiVersionOf({ ...view.kind, version })} ${view.kind.kind}`, view.kind)
		for (const listener of listeners) listener(view)
	}
	for (const resource of resources) {
		// Events own nothing, are owned by nothing, and are many.
		if (!resource.stored || !resource.verbs.includes('watch') || resource.kind === 'Event') continue
		enter(views.of(resource), [resource.version])
	}

	definitions.onChange((_, before, after) => {
		const gone = before === undefined ? undefined : kindOf(before)
		const here = after === undefined || !isEstablished(after) ? undefined : kindOf(after)
		if (gone !== undefined && (here === undefined || nameOf(gone) !== nameOf(here))) {
			known.delete(nameOf(gone))
			for (const [name, kind] of kinds) if (nameOf(kind) === nameOf(gone)) kinds.delete(name)
			views.drop(gone)
		}
		if (here === undefined || known.has(nameOf(here))) return
		const view = views.of(here)
		enter(
			view,
			after!.spec!.versions.filter((v) => v.served).map((v) => v.name),
		)
		view.informer.start()
	})

	return {
		views: () => known.values(),
		find: (apiVersion, kind) => kinds.get(`${apiVersion} ${kind}`),
		onView(listener) {
			listeners.push(listener)
			for (const view of known.values()) listener(view)
		},
	}
}

function nameOf(kind: Kind): string {
	return `${apiVersionOf(kind)} ${kind.plural}`
}

function isEstablished(definition: Definition): boolean {
	return definition.status?.conditions?.some((c) => c.type === 'Established' && c.status === 'True') ?? false
}

/** The kind in the version it is stored in, or else the first that is served. */
function kindOf({ spec }: Definition): Kind | undefined {
	const version = spec?.versions.find((v) => v.storage && v.served) ?? spec?.versions.find((v) => v.served)
	if (spec === undefined || version === undefined) return undefined
	const { plural, kind } = spec.names
	return { group: spec.group, version: version.name, plural, kind, namespaced: spec.scope === 'Namespaced' }
}
