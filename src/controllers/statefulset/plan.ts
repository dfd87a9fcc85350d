// What a StatefulSet does next: pods come in order of their ordinals and go in the reverse order, each waiting for the
// one before to be available (OrderedReady), or all at once (Parallel); an update goes from the highest ordinal down to
// the partition. Follows the StatefulSet controller of Kubernetes. Pure.

import type { StatefulSet, StatefulSetStatus } from '../../kube/objects/apps.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { resolvePercent } from '../deployment/replicas.ts'
import { isPodReady, isPodTerminal, soonest, untilAvailable } from '../pods.ts'
import { revisionHashLabel } from '../revisions.ts'
import { ordinalOf } from './pods.ts'

export interface StatefulSetFacts {
	readonly set: StatefulSet
	readonly pods: readonly Pod[]
	/** Names of the revision that is in use and of the one to go to. */
	readonly current: string
	readonly update: string
	readonly now: number
}

export interface StatefulSetPlan {
	/** Pods to create, by ordinal, each of one of the two revisions. */
	readonly create: readonly { readonly ordinal: number; readonly revision: 'current' | 'update' }[]
	readonly remove: readonly Pod[]
	readonly status: StatefulSetStatus
	/** Milliseconds until a ready pod becomes available by time alone. */
	readonly after?: number
}

interface Slot {
	readonly ordinal: number
	readonly pod: Pod | undefined
}

export function planStatefulSet(facts: StatefulSetFacts): StatefulSetPlan {
	const { set, pods, now } = facts
	const minReady = set.spec!.minReadySeconds ?? 0
	const status = countStatus(facts)
	const after = minReady === 0 ? undefined : soonest(pods.map((pod) => untilAvailable(pod, minReady, now)))
	const wait = after === undefined ? {} : { after }
	if (set.metadata.deletionTimestamp !== undefined) return { create: [], remove: [], status, ...wait }

	const start = startOf(set)
	const count = replicasOf(set)
	const byOrdinal = new Map<number, Pod>()
	for (const pod of pods) {
		const ordinal = ordinalOf(set, pod)
		if (ordinal !== undefined) byOrdinal.set(ordinal, pod)
	}
	const slots = Array.from({ length: count }, (_, i) => ({ ordinal: start + i, pod: byOrdinal.get(start + i) }))
	const condemned = [...byOrdinal]
		.filter(([ordinal]) => ordinal < start || ordinal >= start + count)
		.sort(([a], [b]) => b - a)
		.map(([ordinal, pod]) => ({ ordinal, pod }))
	const step = stepOf(facts, slots, condemned)
	return { create: step.create ?? [], remove: step.remove ?? [], status, ...wait }
}

type Step = { create?: StatefulSetPlan['create']; remove?: readonly Pod[] }

function stepOf(facts: StatefulSetFacts, slots: readonly Slot[], condemned: readonly { pod: Pod }[]): Step {
	const { set, now } = facts
	const minReady = set.spec!.minReadySeconds ?? 0
	const ordered = set.spec!.podManagementPolicy !== 'Parallel'
	const available = (pod: Pod): boolean => isRunningAndReady(pod) && untilAvailable(pod, minReady, now) === 0

	const create: { ordinal: number; revision: 'current' | 'update' }[] = []
	const ended: Pod[] = []
	for (const { ordinal, pod } of slots) {
		if (pod === undefined) {
			create.push({ ordinal, revision: revisionFor(facts, ordinal) })
			if (ordered) return { create }
		} else if (isPodTerminal(pod)) {
			// A pod that has ended is replaced: it goes now, and its ordinal is free in the next turn.
			if (!isTerminating(pod)) ended.push(pod)
			if (ordered) return { remove: ended }
		} else if (ordered && (isTerminating(pod) || !available(pod))) return {}
	}
	if (create.length > 0 || ended.length > 0) return { create, remove: ended }

	const unhealthy = firstUnhealthy(slots, condemned)
	const goners: Pod[] = []
	for (const { pod } of condemned) {
		if (isTerminating(pod)) {
			if (ordered) return {}
			continue
		}
		if (ordered && !available(pod) && pod !== unhealthy) return {}
		goners.push(pod)
		if (ordered) return { remove: goners }
	}
	if (goners.length > 0) return { remove: goners }
	if (set.spec!.updateStrategy?.type === 'OnDelete') return {}
	return { remove: outdated(facts, slots, available) }
}

/** From the highest ordinal down: what is of another revision goes, as long as no more are missing than may be. */
function outdated(facts: StatefulSetFacts, slots: readonly Slot[], available: (pod: Pod) => boolean): readonly Pod[] {
	const { set, update } = facts
	const rolling = set.spec!.updateStrategy?.rollingUpdate
	const may = Math.max(1, resolvePercent(rolling?.maxUnavailable ?? 1, replicasOf(set), 'up'))
	const lowest = startOf(set) + (rolling?.partition ?? 0)
	const targets = slots.filter((slot) => slot.ordinal >= lowest).reverse()
	let missing = slots.filter(({ pod }) => pod === undefined || isTerminating(pod) || !available(pod)).length
	const remove: Pod[] = []
	for (const { pod } of targets) {
		if (pod === undefined) continue
		const healthy = !isTerminating(pod) && available(pod)
		if (revisionOf(pod) === update || isTerminating(pod)) {
			if (!healthy && may === 1) break
			continue
		}
		// One that is missing already may be replaced without making more of them missing.
		if (healthy && missing >= may) break
		if (healthy) missing++
		remove.push(pod)
		if (may === 1) break
	}
	return remove
}

/** A pod below the partition, or one lost before the update came to it, comes back as it was. */
function revisionFor({ set, current, update }: StatefulSetFacts, ordinal: number): 'current' | 'update' {
	if (current === update || set.spec!.updateStrategy?.type === 'OnDelete') return 'update'
	const partition = set.spec!.updateStrategy?.rollingUpdate?.partition
	const kept = partition === undefined ? (set.status?.currentReplicas ?? 0) : partition
	return ordinal < startOf(set) + kept ? 'current' : 'update'
}

function firstUnhealthy(slots: readonly Slot[], condemned: readonly { pod: Pod }[]): Pod | undefined {
	const inOrder = [...slots, ...[...condemned].reverse()]
	return inOrder.find(({ pod }) => pod !== undefined && (!isRunningAndReady(pod) || isTerminating(pod)))?.pod
}

function countStatus({ set, pods, current, update, now }: StatefulSetFacts): StatefulSetStatus {
	const minReady = set.spec!.minReadySeconds ?? 0
	let [ready, available, atCurrent, atUpdate] = [0, 0, 0, 0]
	const wanted = replicasOf(set)
	for (const pod of pods) {
		if (isRunningAndReady(pod)) {
			ready++
			if (untilAvailable(pod, minReady, now) === 0) available++
		}
		if (isTerminating(pod)) continue
		if (revisionOf(pod) === current) atCurrent++
		if (revisionOf(pod) === update) atUpdate++
	}
	const complete =
		set.spec!.updateStrategy?.type !== 'OnDelete' && atUpdate === wanted && ready === wanted && pods.length === wanted
	return {
		observedGeneration: set.metadata.generation ?? 0,
		replicas: pods.length,
		...(ready === 0 ? {} : { readyReplicas: ready }),
		...((complete ? atUpdate : atCurrent) === 0 ? {} : { currentReplicas: complete ? atUpdate : atCurrent }),
		...(atUpdate === 0 ? {} : { updatedReplicas: atUpdate }),
		availableReplicas: available,
		currentRevision: complete ? update : current,
		updateRevision: update,
		collisionCount: set.status?.collisionCount ?? 0,
		...(set.status?.conditions === undefined ? {} : { conditions: set.status.conditions }),
	}
}

function isRunningAndReady(pod: Pod): boolean {
	return pod.status?.phase === 'Running' && isPodReady(pod)
}

function isTerminating(pod: Pod): boolean {
	return pod.metadata.deletionTimestamp !== undefined
}

function revisionOf(pod: Pod): string {
	return pod.metadata.labels?.[revisionHashLabel] ?? ''
}

function replicasOf(set: StatefulSet): number {
	return set.spec!.replicas ?? 1
}

function startOf(set: StatefulSet): number {
	return set.spec!.ordinals?.start ?? 0
}
