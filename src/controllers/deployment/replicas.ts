// The arithmetic of a rollout: how many replicas each ReplicaSet of a Deployment should have next.
// The rules are those of the Deployment API (maxSurge rounds up, maxUnavailable rounds down, proportional scaling).

import type { Deployment, ReplicaSet } from '../../kube/objects/apps.ts'
import { millisOf } from '../pods.ts'

export const desiredReplicasAnnotation = 'deployment.kubernetes.io/desired-replicas'
export const maxReplicasAnnotation = 'deployment.kubernetes.io/max-replicas'

/** A number as it is, or a percentage of `total`. */
export function resolvePercent(value: number | string | undefined, total: number, round: 'up' | 'down'): number {
	if (value === undefined) return 0
	if (typeof value === 'number') return value
	const percent = /^(\d+)%$/.exec(value)
	if (percent === null) return 0
	const exact = (Number(percent[1]) * total) / 100
	return round === 'up' ? Math.ceil(exact) : Math.floor(exact)
}

export function replicasWanted(deployment: Deployment): number {
	return deployment.spec!.replicas ?? 1
}

export function isRolling(deployment: Deployment): boolean {
	return deployment.spec!.strategy?.type !== 'Recreate'
}

/** How many pods above and below the wanted number a rollout may have; at least one of the two is not 0. */
export function fenceposts(deployment: Deployment): { readonly surge: number; readonly unavailable: number } {
	if (!isRolling(deployment)) return { surge: 0, unavailable: 0 }
	const wanted = replicasWanted(deployment)
	const rolling = deployment.spec!.strategy?.rollingUpdate
	const surge = resolvePercent(rolling?.maxSurge ?? '25%', wanted, 'up')
	const unavailable = resolvePercent(rolling?.maxUnavailable ?? '25%', wanted, 'down')
	return surge === 0 && unavailable === 0 ? { surge, unavailable: 1 } : { surge, unavailable }
}

export function maxSurge(deployment: Deployment): number {
	return fenceposts(deployment).surge
}

/** Never more than there are. */
export function maxUnavailable(deployment: Deployment): number {
	const wanted = replicasWanted(deployment)
	if (!isRolling(deployment) || wanted === 0) return 0
	return Math.min(fenceposts(deployment).unavailable, wanted)
}

export function replicasOf(set: ReplicaSet): number {
	return set.spec!.replicas ?? 1
}

export function sumReplicas(sets: Iterable<ReplicaSet>): number {
	let sum = 0
	for (const set of sets) sum += replicasOf(set)
	return sum
}

export function sumStatus(
	sets: Iterable<ReplicaSet>,
	field: 'replicas' | 'readyReplicas' | 'availableReplicas' | 'terminatingReplicas',
): number {
	let sum = 0
	for (const set of sets) sum += set.status?.[field] ?? 0
	return sum
}

export function byCreation(a: ReplicaSet, b: ReplicaSet): number {
	const order = millisOf(a.metadata.creationTimestamp) - millisOf(b.metadata.creationTimestamp)
	return order !== 0 ? order : a.metadata.name < b.metadata.name ? -1 : a.metadata.name > b.metadata.name ? 1 : 0
}

/** The size the newest ReplicaSet may have now, given all of them (it included, if it exists). */
export function newSetReplicas(deployment: Deployment, all: readonly ReplicaSet[], newReplicas: number): number {
	const wanted = replicasWanted(deployment)
	if (!isRolling(deployment)) return wanted
	const room = wanted + maxSurge(deployment) - sumReplicas(all)
	if (room <= 0) return newReplicas
	return newReplicas + Math.min(room, wanted - newReplicas)
}

/** A new size for a ReplicaSet. */
export interface Resize {
	readonly set: ReplicaSet
	readonly replicas: number
}

/**
 * One step of a rolling update on the side of the old ReplicaSets: first pods that are not available go (they serve
 * nobody), then as many available ones as may be missing. `olds` in any order; the oldest shrink first.
 */
export function shrinkOld(deployment: Deployment, newSet: ReplicaSet, olds: readonly ReplicaSet[]): readonly Resize[] {
	const oldest = [...olds].sort(byCreation)
	if (sumReplicas(oldest) === 0) return []
	const minAvailable = replicasWanted(deployment) - maxUnavailable(deployment)
	const newUnavailable = replicasOf(newSet) - (newSet.status?.availableReplicas ?? 0)
	const mayGo = sumReplicas(oldest) + replicasOf(newSet) - minAvailable - newUnavailable
	if (mayGo <= 0) return []

	const size = new Map(oldest.map((set) => [set, replicasOf(set)]))
	let gone = 0
	for (const set of oldest) {
		if (gone >= mayGo) break
		const unhealthy = size.get(set)! - (set.status?.availableReplicas ?? 0)
		if (size.get(set)! === 0 || unhealthy <= 0) continue
		const step = Math.min(mayGo - gone, unhealthy)
		size.set(set, size.get(set)! - step)
		gone += step
	}

	const available = sumStatus(oldest, 'availableReplicas') + (newSet.status?.availableReplicas ?? 0)
	let spare = available - minAvailable
	for (const set of oldest) {
		if (spare <= 0) break
		const step = Math.min(size.get(set)!, spare)
		size.set(set, size.get(set)! - step)
		spare -= step
	}
	return oldest.filter((set) => size.get(set) !== replicasOf(set)).map((set) => ({ set, replicas: size.get(set)! }))
}

/**
 * Scales without rolling out: a single live ReplicaSet takes the wanted size; a finished rollout empties the old ones;
 * in the middle of a rollout the difference is spread over all in proportion to their sizes, the largest taking what
 * rounding leaves.
 */
export function scaleOnly(
	deployment: Deployment,
	newSet: ReplicaSet | undefined,
	olds: readonly ReplicaSet[],
): readonly Resize[] {
	const wanted = replicasWanted(deployment)
	const single = activeOrLatest(newSet, olds)
	if (single !== undefined) return replicasOf(single) === wanted ? [] : [{ set: single, replicas: wanted }]
	if (newSet !== undefined && isSaturated(deployment, newSet)) {
		return olds.filter((set) => replicasOf(set) > 0).map((set) => ({ set, replicas: 0 }))
	}
	if (!isRolling(deployment)) return []
	const live = [...olds, ...(newSet === undefined ? [] : [newSet])].filter((set) => replicasOf(set) > 0)
	const allowed = wanted > 0 ? wanted + maxSurge(deployment) : 0
	const toAdd = allowed - sumReplicas(live)
	live.sort((a, b) => {
		const bySize = replicasOf(b) - replicasOf(a)
		if (bySize !== 0) return bySize
		return toAdd > 0 ? byCreation(b, a) : byCreation(a, b)
	})
	const sizes = new Map<ReplicaSet, number>()
	let added = 0
	for (const set of live) {
		const share = toAdd === 0 ? 0 : proportion(deployment, set, toAdd, added)
		sizes.set(set, replicasOf(set) + share)
		added += share
	}
	const largest = live[0]
	if (largest !== undefined && toAdd !== 0) sizes.set(largest, Math.max(0, sizes.get(largest)! + toAdd - added))
	return live.map((set) => ({ set, replicas: sizes.get(set)! }))
}

/** The only ReplicaSet with replicas; when none has any, the newest. Undefined when several have. */
export function activeOrLatest(newSet: ReplicaSet | undefined, olds: readonly ReplicaSet[]): ReplicaSet | undefined {
	const all = [...olds, ...(newSet === undefined ? [] : [newSet])]
	const live = all.filter((set) => replicasOf(set) > 0)
	if (live.length > 1) return undefined
	return live[0] ?? newSet ?? [...olds].sort(byCreation).at(-1)
}

/** The new ReplicaSet carries the whole Deployment, and all its pods are available. */
export function isSaturated(deployment: Deployment, set: ReplicaSet): boolean {
	const wanted = replicasWanted(deployment)
	const desired = annotatedNumber(set, desiredReplicasAnnotation)
	return desired === wanted && replicasOf(set) === wanted && (set.status?.availableReplicas ?? 0) === wanted
}

export function annotatedNumber(set: ReplicaSet, annotation: string): number | undefined {
	const text = set.metadata.annotations?.[annotation]
	return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined
}

function proportion(deployment: Deployment, set: ReplicaSet, toAdd: number, added: number): number {
	const size = replicasOf(set)
	if (size === 0 || toAdd === added) return 0
	const share = fraction(deployment, set)
	const left = toAdd - added
	return toAdd > 0 ? Math.min(share, left) : Math.max(share, left)
}

/** How much `set` would change if it kept its share of the Deployment's largest allowed size. */
function fraction(deployment: Deployment, set: ReplicaSet): number {
	const wanted = replicasWanted(deployment)
	const size = replicasOf(set)
	if (wanted === 0) return -size
	const before = annotatedNumber(set, maxReplicasAnnotation) ?? deployment.status?.replicas ?? 0
	if (before === 0) return 0
	return Math.round((size * (wanted + maxSurge(deployment))) / before) - size
}
