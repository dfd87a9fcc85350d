// Which pods go first when there are too many. The order is the one of the ReplicaSet controller of Kubernetes:
// what serves nobody goes before what serves, what is doubled up on a node before what stands alone, the young before
// the old.

import type { Pod } from '../../kube/objects/pod.ts'
import { isPodActive, isPodReady, millisOf, podCondition } from '../pods.ts'

/** An integer; pods with a lower cost are deleted first (KEP-2255). */
export const deletionCostAnnotation = 'controller.kubernetes.io/pod-deletion-cost'

const phaseOrder: Readonly<Record<string, number>> = { Pending: 0, Unknown: 1, Running: 2 }

/**
 * The `count` pods of `pods` to delete first. `related` are the pods of all ReplicaSets of the same owner (those of
 * `pods` among them): a node that holds more of them gives up one sooner. `now` in milliseconds since the epoch.
 */
export function podsToDelete(pods: readonly Pod[], count: number, related: Iterable<Pod>, now: number): readonly Pod[] {
	if (count >= pods.length) return pods
	const onNode = new Map<string, number>()
	for (const pod of related) {
		const node = pod.spec?.nodeName
		if (node !== undefined && isPodActive(pod)) onNode.set(node, (onNode.get(node) ?? 0) + 1)
	}
	const crowd = (pod: Pod): number => onNode.get(pod.spec?.nodeName ?? '') ?? 0
	return [...pods].sort((a, b) => compare(a, b, crowd, now)).slice(0, count)
}

function compare(a: Pod, b: Pod, crowd: (pod: Pod) => number, now: number): number {
	const ready = isPodReady(a)
	return (
		rank(isAssigned(a)) - rank(isAssigned(b)) ||
		(phaseOrder[a.status?.phase ?? 'Pending'] ?? 0) - (phaseOrder[b.status?.phase ?? 'Pending'] ?? 0) ||
		rank(ready) - rank(isPodReady(b)) ||
		deletionCost(a) - deletionCost(b) ||
		crowd(b) - crowd(a) ||
		(ready ? compareAges(a, b, readySince(a), readySince(b), now) : 0) ||
		restarts(b) - restarts(a) ||
		compareAges(a, b, millisOf(a.metadata.creationTimestamp), millisOf(b.metadata.creationTimestamp), now)
	)
}

const rank = (holds: boolean): number => (holds ? 1 : 0)

function isAssigned(pod: Pod): boolean {
	return pod.spec?.nodeName !== undefined && pod.spec.nodeName !== ''
}

function deletionCost(pod: Pod): number {
	const text = pod.metadata.annotations?.[deletionCostAnnotation]
	return text !== undefined && /^-?(0|[1-9]\d{0,9})$/.test(text) ? Number(text) : 0
}

function readySince(pod: Pod): number {
	return millisOf(podCondition(pod, 'Ready')?.lastTransitionTime)
}

function restarts(pod: Pod): number {
	return Math.max(0, ...(pod.status?.containerStatuses ?? []).map((c) => c.restartCount))
}

/**
 * Ages count by powers of two (KEP-2185): among pods about equally old the choice falls by uid, so that it is not
 * always the newest replica, and with it always the same node, that goes. No time counts as the youngest.
 */
function compareAges(a: Pod, b: Pod, since: number, other: number, now: number): number {
	if (since === other) return 0
	if (since === 0 || other === 0) return since === 0 ? -1 : 1
	const difference = magnitude(now - since) - magnitude(now - other)
	if (difference !== 0) return difference
	return (a.metadata.uid ?? '') < (b.metadata.uid ?? '') ? -1 : 1
}

function magnitude(ms: number): number {
	return ms <= 0 ? -1 : Math.trunc(Math.log2(ms * 1e6))
}
