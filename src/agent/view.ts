// The cluster as informers see it, as the model's input: one state, and the model built from it when asked for.

import type { Clock } from '../base/clock.ts'
import { emptyTable, tableOf } from '../base/table.ts'
import type { KubeClient } from '../kube/client.ts'
import { createInformer, type Informer } from '../kube/informer.ts'
import type { Kind } from '../kube/kinds.ts'
import {
	daemonSets,
	deployments,
	endpointSlices,
	jobs,
	namespaces,
	networkPolicies,
	nodes,
	pods,
	replicaSets,
	services,
	statefulSets,
} from '../kube/kinds.ts'
import { type KubeObject, keyOf } from '../kube/objects/meta.ts'
import { build } from '../model/build.ts'
import type { NetworkModel } from '../model/network.ts'
import type { ResolvedNames } from '../model/resolved-names.ts'
import {
	type ClusterConfig,
	type ClusterState,
	customKinds,
	emptyState,
	type ObjectSource,
	type ObjectTables,
	setTable,
} from '../model/state.ts'
import { followCustomTables } from './custom-tables.ts'

const none = emptyTable<string, never>()

export interface ClusterView {
	start(): void
	/** Every kind has been listed once. */
	readonly synced: Promise<void>
	readonly state: ClusterState
	/** Of the state now; built from the last one's difference. */
	readonly model: NetworkModel
	informer<T extends ViewTable>(table: T): Informer<ObjectOf<T>>
	setSources(sources: Readonly<Record<string, ObjectSource>>): void
	/** What the cluster's DNS servers answered with, and still holds. */
	setResolvedNames(names: ResolvedNames): void
	onChange(listener: () => void): void
	/** Resolves when the view shows everything the API has now. */
	caughtUp(): Promise<void>
	stop(): void
}

/** Tables of built-in kinds, which every cluster has. */
export type ViewTable = keyof typeof kindOf

type ObjectOf<T extends keyof ObjectTables> =
	ObjectTables[T] extends Iterable<readonly [string, infer O extends KubeObject]> ? O : never

/** What the data planes need; owners of pods only matter to those who explain. */
export const dataplaneTables = [
	'nodes',
	'namespaces',
	'pods',
	'services',
	'endpointSlices',
	'networkPolicies',
] as const satisfies readonly (keyof ObjectTables)[]

export const allTables = [
	...dataplaneTables,
	'deployments',
	'replicaSets',
	'statefulSets',
	'daemonSets',
	'jobs',
] as const satisfies readonly (keyof ObjectTables)[]

const kindOf = {
	nodes,
	namespaces,
	pods,
	services,
	endpointSlices,
	networkPolicies,
	deployments,
	replicaSets,
	statefulSets,
	daemonSets,
	jobs,
} as const

export function createClusterView(options: {
	readonly client: KubeClient
	readonly clock: Clock
	readonly tables: readonly ViewTable[]
	readonly config?: Partial<ClusterConfig>
	readonly onFailure?: (error: unknown) => void
}): ClusterView {
	const { client, clock, tables } = options
	const listeners: (() => void)[] = []
	const changed = () => {
		for (const listener of listeners) listener()
	}
	const informers = new Map(
		tables.map((table) => {
			const informer = createInformer<KubeObject>(client, kindOf[table], {
				clock,
				...(options.onFailure === undefined ? {} : { onFailure: options.onFailure }),
			})
			informer.onChange(changed)
			return [table, informer] as const
		}),
	)
	const custom = followCustomTables(client, {
		clock,
		onChange: changed,
		...(options.onFailure === undefined ? {} : { onFailure: options.onFailure }),
	})
	let state = emptyState(options.config)
	let built: { readonly state: ClusterState; readonly model: NetworkModel } | undefined

	function current(): ClusterState {
		for (const [table, informer] of informers) state = setTable(state, table, informer.store as never)
		const there = new Map(custom.tables())
		for (const { table } of customKinds) state = setTable(state, table, (there.get(table) ?? none) as never)
		return state
	}
	return {
		start() {
			for (const informer of informers.values()) informer.start()
			custom.start()
		},
		synced: Promise.all([...[...informers.values()].map((i) => i.synced), custom.synced]).then(() => {}),
		get state() {
			return current()
		},
		get model() {
			const now = current()
			if (built?.state !== now) built = { state: now, model: build(now, built) }
			return built.model
		},
		informer(table) {
			const informer = informers.get(table)
			if (informer === undefined) throw new Error(`the view does not follow ${table}`)
			return informer as never
		},
		setSources(sources) {
			state = { ...state, sources: tableOf(Object.entries(sources)) }
			changed()
		},
		setResolvedNames(names) {
			state = { ...state, resolvedNames: names }
			changed()
		},
		onChange(listener) {
			listeners.push(listener)
		},
		async caughtUp() {
			const builtIn = [...informers].map(([table, informer]) => [informer, kindOf[table] as Kind] as const)
			await Promise.all([...builtIn, custom.definitions].map((f) => catchUp(client, ...f)))
			// A definition that has just come brings its kind with it.
			await Promise.all([...custom.followed()].map((f) => catchUp(client, ...f)))
		},
		stop() {
			for (const informer of informers.values()) informer.stop()
			custom.stop()
		},
	}
}

async function catchUp(client: KubeClient, informer: Informer<KubeObject>, kind: Kind): Promise<void> {
	const { items, metadata } = await client.list(kind)
	const listed = BigInt(metadata.resourceVersion || '0')
	const versions = new Map(items.map((item) => [keyOf(item), item.metadata]))
	await informer.until((store) => {
		for (const [key, { resourceVersion }] of versions) {
			const seen = store.get(key)?.metadata.resourceVersion
			if (seen === undefined || BigInt(seen) < BigInt(resourceVersion ?? '0')) return false
		}
		// What the list no longer has must have gone, unless it came after the list.
		for (const [key, object] of store) {
			if (!versions.has(key) && BigInt(object.metadata.resourceVersion ?? '0') <= listed) return false
		}
		return true
	})
}
