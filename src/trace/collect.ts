// The state of a cluster as its API gives it now, with the places its objects were read from.

import type { Clock } from '../base/clock.ts'
import { isFailure } from '../base/failure.ts'
import type { KubeClient } from '../kube/client.ts'
import { resourceOf } from '../kube/resources.ts'
import type { ResolvedNames } from '../model/resolved-names.ts'
import {
	type ClusterConfig,
	type ClusterState,
	customKinds,
	emptyState,
	type ObjectSource,
	setObject,
	setSource,
	stateKinds,
} from '../model/state.ts'

export interface Collected {
	readonly state: ClusterState
	/** Kinds the API refused or does not have, with the reason: the model lacks them. */
	readonly missing: readonly string[]
	/** When the lists were read, milliseconds since the epoch. */
	readonly at: number
}

/** Lists every kind the model reads. Throws Failure where the API server cannot be reached at all. */
export async function collectState(
	client: KubeClient,
	options: {
		readonly config?: Partial<ClusterConfig>
		readonly sources?: Readonly<Record<string, ObjectSource>>
		/** Further objects, which the API does not have. */
		readonly objects?: readonly Parameters<typeof setObject>[1][]
		readonly resolvedNames?: ResolvedNames
		readonly clock: Clock
	},
): Promise<Collected> {
	const missing: string[] = []
	const lists = await Promise.all(
		Object.entries(stateKinds).map(async ([kind, { apiVersion }]) => {
			const custom = customKinds.find((c) => c.kind === kind)
			try {
				return (await client.list(custom ?? resourceOf(apiVersion, kind))).items.map((o) => ({
					...o,
					apiVersion,
					kind,
				}))
			} catch (e) {
				if (!isFailure(e, 'Forbidden') && !isFailure(e, 'NotFound')) throw e
				// A cluster without the custom resource misses nothing.
				if (custom !== undefined && isFailure(e, 'NotFound')) return []
				missing.push(`${kind}: ${e.message}`)
				return []
			}
		}),
	)
	let state = emptyState(options.config)
	if (options.resolvedNames !== undefined) state = { ...state, resolvedNames: options.resolvedNames }
	for (const items of lists) for (const object of items) state = setObject(state, object)
	for (const object of options.objects ?? []) state = setObject(state, object)
	for (const [id, source] of Object.entries(options.sources ?? {})) {
		const space = id.indexOf(' ')
		state = setSource(state, id.slice(0, space), id.slice(space + 1), source)
	}
	return { state, missing, at: options.clock.now() }
}
