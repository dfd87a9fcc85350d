// The cluster as reach, diff and policy see it: the state, the model, and the objects besides that say who needs whom.

import { systemClock } from '../base/clock.ts'
import { isFailure } from '../base/failure.ts'
import type { KubeObject } from '../kube/objects/meta.ts'
import { resourceOf } from '../kube/resources.ts'
import { build } from '../model/build.ts'
import type { NetworkModel } from '../model/network.ts'
import { type PolicyProfile, policyProfiles } from '../model/policy-profile.ts'
import type { ClusterState } from '../model/state.ts'
import { backendsOf, type IngressBackend } from '../reach/ingresses.ts'
import { collectState } from '../trace/collect.ts'
import type { ClusterOptions } from './options.ts'
import { progressOn } from './output.ts'
import { openCluster } from './source.ts'

export interface ReachCluster {
	readonly state: ClusterState
	readonly model: NetworkModel
	readonly ingresses: readonly IngressBackend[]
	/** How the cluster itself reads what the API of policies leaves open. */
	readonly policyProfile: PolicyProfile
	/** Objects of the kinds asked for, by kind. */
	readonly others: ReadonlyMap<string, readonly KubeObject[]>
}

/** Opens the cluster the options name, reads it and closes it. Throws CommandError. */
export async function readCluster(
	options: ClusterOptions,
	kinds: readonly (readonly [string, string])[] = [],
): Promise<ReachCluster> {
	const progress = progressOn(process.stderr, { quiet: options.quiet === true, verbose: options.verbose === true })
	const cluster = await openCluster(options, progress)
	try {
		progress.say('reading the cluster')
		const { state, missing } = await collectState(cluster.client, {
			clock: systemClock,
			...(cluster.config === undefined ? {} : { config: cluster.config }),
			...(cluster.sources === undefined ? {} : { sources: cluster.sources }),
			...(cluster.objects === undefined ? {} : { objects: cluster.objects }),
		})
		const lacking = [...missing]
		const others = new Map<string, readonly KubeObject[]>()
		for (const [apiVersion, kind] of [['networking.k8s.io/v1', 'Ingress'] as const, ...kinds]) {
			try {
				const { items } = await cluster.client.list(resourceOf(apiVersion, kind))
				others.set(
					kind,
					items.map((item) => ({ ...item, apiVersion, kind })),
				)
			} catch (e) {
				if (!isFailure(e, 'Forbidden') && !isFailure(e, 'NotFound')) throw e
				lacking.push(`${kind}: ${e.message}`)
			}
		}
		progress.done()
		for (const text of lacking) process.stderr.write(`podwire: not readable: ${text}\n`)
		const model = build(state)
		const ingresses = backendsOf(model, state, others.get('Ingress') ?? [])
		return { state, model, ingresses, policyProfile: cluster.policyProfile ?? policyProfiles.default, others }
	} finally {
		progress.done()
		await cluster.close()
	}
}
