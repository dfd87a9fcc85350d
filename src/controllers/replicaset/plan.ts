// How many pods a ReplicaSet (or a ReplicationController, which is the same with an older selector) makes or deletes
// next, and what its status says. Pure.

import type { ReplicaSet, ReplicaSetStatus } from '../../kube/objects/apps.ts'
import type { ReplicationController } from '../../kube/objects/core.ts'
import type { Condition } from '../../kube/objects/meta.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { matchesLabels } from '../../kube/selector.ts'
import { timestamp, withCondition, withoutCondition } from '../conditions.ts'
import { isPodActive, isPodReady, isPodTerminating, soonest, untilAvailable } from '../pods.ts'
import { podsToDelete } from './deletion.ts'

/** Both kinds have these fields. */
export type ReplicaOwner = ReplicaSet | ReplicationController

/** How many pods one turn makes or deletes at most. */
export const burst = 500

export interface ReplicaFacts {
	readonly owner: ReplicaOwner
	/** The pods it controls, in any state. */
	readonly pods: readonly Pod[]
	/** The pods of all ReplicaSets of the same owner, asked for only when some are to be deleted. */
	related(): Iterable<Pod>
	readonly now: number
}

export interface ReplicaPlan {
	/** How many pods to create. */
	readonly create: number
	readonly remove: readonly Pod[]
	/** Milliseconds until a ready pod becomes available by time alone. */
	readonly after?: number
}

export function planReplicas({ owner, pods, related, now }: ReplicaFacts): ReplicaPlan {
	const active = pods.filter(isPodActive)
	const minReady = owner.spec?.minReadySeconds ?? 0
	const after = minReady === 0 ? undefined : soonest(active.map((pod) => untilAvailable(pod, minReady, now)))
	const wait = after === undefined ? {} : { after }
	if (owner.metadata.deletionTimestamp !== undefined) return { create: 0, remove: [], ...wait }
	const missing = (owner.spec?.replicas ?? 1) - active.length
	if (missing >= 0) return { create: Math.min(missing, burst), remove: [], ...wait }
	return { create: 0, remove: podsToDelete(active, Math.min(-missing, burst), related(), now), ...wait }
}

/** Why pods could not be created or deleted. */
export interface ReplicaFailure {
	readonly reason: 'FailedCreate' | 'FailedDelete'
	readonly message: string
}

/** The status as it should read for these pods. */
export function replicaStatus(
	{ owner, pods, now }: Pick<ReplicaFacts, 'owner' | 'pods' | 'now'>,
	failure?: ReplicaFailure,
): ReplicaSetStatus {
	const labels = owner.spec?.template?.metadata?.labels ?? {}
	const minReady = owner.spec?.minReadySeconds ?? 0
	let replicas = 0
	let fullyLabeled = 0
	let ready = 0
	let available = 0
	let terminating = 0
	for (const pod of pods) {
		if (isPodTerminating(pod)) terminating++
		if (!isPodActive(pod)) continue
		replicas++
		if (matchesLabels(labels, pod.metadata.labels)) fullyLabeled++
		if (!isPodReady(pod)) continue
		ready++
		if (untilAvailable(pod, minReady, now) === 0) available++
	}
	const conditions = failureCondition(owner.status?.conditions, failure, now)
	return {
		replicas,
		...(fullyLabeled === 0 ? {} : { fullyLabeledReplicas: fullyLabeled }),
		...(ready === 0 ? {} : { readyReplicas: ready }),
		...(available === 0 ? {} : { availableReplicas: available }),
		...(owner.kind === 'ReplicaSet' ? { terminatingReplicas: terminating } : {}),
		observedGeneration: owner.metadata.generation ?? 0,
		...(conditions.length === 0 ? {} : { conditions }),
	}
}

function failureCondition(
	conditions: readonly Condition[] | undefined,
	failure: ReplicaFailure | undefined,
	now: number,
): readonly Condition[] {
	if (failure === undefined) return withoutCondition(conditions, 'ReplicaFailure')
	if (conditions?.some((c) => c.type === 'ReplicaFailure')) return conditions
	return withCondition(conditions, {
		type: 'ReplicaFailure',
		status: 'True',
		...failure,
		lastTransitionTime: timestamp(now),
	})
}
