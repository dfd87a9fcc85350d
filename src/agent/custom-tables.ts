// Tables of custom resources that the model reads: followed while the cluster has their definition, empty while it has
// not. A cluster without them is whole.

import type { Table } from '../base/table.ts'
import type { KubeClient } from '../kube/client.ts'
import { createInformer, type Informer, type InformerOptions } from '../kube/informer.ts'
import type { Kind } from '../kube/kinds.ts'
import type { KubeObject, ObjectKey } from '../kube/objects/meta.ts'
import { resourceOf } from '../kube/resources.ts'
import { type CustomTable, customKinds } from '../model/state.ts'

/** As much of a CustomResourceDefinition as says whether a kind is served. */
interface Definition extends KubeObject {
	readonly spec?: {
		readonly group: string
		readonly names: { readonly plural: string }
		readonly versions: readonly { readonly name: string; readonly served: boolean }[]
	}
	readonly status?: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] }
}

export interface CustomTables {
	start(): void
	/** Definitions have been listed once, and so has every kind they define. */
	readonly synced: Promise<void>
	/** The tables that are there now. */
	tables(): Iterable<readonly [CustomTable, Table<ObjectKey, KubeObject>]>
	/** For those who wait until all is caught up: the definitions first, then every kind they define now. */
	readonly definitions: readonly [Informer<KubeObject>, Kind]
	followed(): Iterable<readonly [Informer<KubeObject>, Kind]>
	stop(): void
}

export function followCustomTables(
	client: KubeClient,
	options: InformerOptions & { readonly onChange: () => void },
): CustomTables {
	const { onChange, ...rest } = options
	const definitionKind = resourceOf('apiextensions.k8s.io/v1', 'CustomResourceDefinition')
	const definitions = createInformer<Definition>(client, definitionKind as Kind as Kind<Definition>, rest)
	const informers = new Map<CustomTable, readonly [Informer<KubeObject>, Kind]>()

	function look(): void {
		let gone = false
		for (const { table, ...kind } of customKinds) {
			const served = isServed(definitions.store.get(`${kind.plural}.${kind.group}`), kind.version)
			const followed = informers.get(table)
			if (served && followed === undefined) {
				const informer = createInformer<KubeObject>(client, kind, rest)
				informer.onChange(onChange)
				informers.set(table, [informer, kind])
				informer.start()
			}
			if (!served && followed !== undefined) {
				followed[0].stop()
				informers.delete(table)
				gone = true
			}
		}
		if (gone) onChange()
	}
	definitions.onChange(look)
	return {
		start: () => definitions.start(),
		synced: definitions.synced.then(async () => {
			look()
			await Promise.all([...informers.values()].map(([informer]) => informer.synced))
		}),
		*tables() {
			for (const [table, [informer]] of informers) yield [table, informer.store]
		},
		definitions: [definitions as unknown as Informer<KubeObject>, definitionKind],
		followed: () => informers.values(),
		stop() {
			definitions.stop()
			for (const [informer] of informers.values()) informer.stop()
		},
	}
}

function isServed(definition: Definition | undefined, version: string): boolean {
	const established = definition?.status?.conditions?.some((c) => c.type === 'Established' && c.status === 'True')
	return established === true && definition!.spec!.versions.some((v) => v.served && v.name === version)
}
