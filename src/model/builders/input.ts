// What every builder reads and writes: the new state, the last build to compare with, and the model in the making.

import { diffTables, emptyTable, type Table } from '../../base/table.ts'
import type { KubeObject } from '../../kube/objects/meta.ts'
import type { AddressOwner, NetworkConfig, NetworkModel } from '../network.ts'
import type { ObjectKey } from '../origin.ts'
import { type ClusterState, type ObjectTables, sourceKey } from '../state.ts'
import type { FrontendClaim } from './frontends.ts'

/** Every part of the model a builder makes; findings come after. */
export type ModelParts = Omit<NetworkModel, 'findings'>

/** Indexes that make the next build cheap. They follow from the state alone. */
export interface BuildIndex {
	/** EndpointSlices by the Service they are labelled with. */
	readonly slicesByService: Table<ObjectKey, readonly ObjectKey[]>
	/** Pods by each object their wiring's origin names: `ReplicaSet default/web-1`, `Deployment default/web`. */
	readonly podsByOwner: Table<string, readonly ObjectKey[]>
	/** Everyone who says an address is theirs, the owner first. */
	readonly claims: Table<string, readonly AddressOwner[]>
	/** Everyone who says a frontend is theirs, by address or node port, the owner of each first. */
	readonly frontendClaims: Table<string, readonly FrontendClaim[]>
}

export interface LastBuild {
	readonly state: ClusterState
	readonly parts: ModelParts
	readonly index: BuildIndex
}

export interface BuildInput {
	readonly state: ClusterState
	readonly config: NetworkConfig
	/** Undefined: build all. */
	readonly last?: LastBuild
	/** True where the configuration every object depends on changed. */
	readonly all: boolean
}

/**
 * The keys of the objects of one kind that are new, changed or gone, or whose place in the manifests changed.
 */
export function changedKeys(input: BuildInput, kind: string, table: keyof ObjectTables): Set<ObjectKey> {
	const keys = new Set<ObjectKey>()
	const now = input.state[table] as Table<ObjectKey, KubeObject>
	if (input.last === undefined || input.all) for (const key of now.keys()) keys.add(key)
	const before = (input.last?.state[table] ?? emptyTable()) as Table<ObjectKey, KubeObject>
	diffTables(before, now, (key) => keys.add(key))
	for (const key of changedSources(input, kind)) if (now.has(key)) keys.add(key)
	return keys
}

/** Keys of the objects of `kind` whose source was set, changed or taken away since the last build. */
export function changedSources(input: BuildInput, kind: string): ObjectKey[] {
	const keys: ObjectKey[] = []
	const prefix = sourceKey(kind, '')
	if (input.last !== undefined && input.last.state.sources !== input.state.sources) {
		diffTables(input.last.state.sources, input.state.sources, (id) => {
			if (id.startsWith(prefix)) keys.push(id.slice(prefix.length))
		})
	}
	return keys
}

/** A table of sorted lists with `key` moved from the lists `before` to the lists `after`. */
export function moveInIndex(
	index: Table<string, readonly ObjectKey[]>,
	key: ObjectKey,
	before: readonly string[],
	after: readonly string[],
): Table<string, readonly ObjectKey[]> {
	for (const group of before) {
		if (after.includes(group)) continue
		const rest = (index.get(group) ?? []).filter((k) => k !== key)
		index = rest.length === 0 ? index.delete(group) : index.set(group, rest)
	}
	for (const group of after) {
		const list = index.get(group) ?? []
		if (!list.includes(key)) index = index.set(group, [...list, key].sort())
	}
	return index
}
