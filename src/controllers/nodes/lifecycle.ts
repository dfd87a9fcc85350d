// What the cluster makes of a node that is silent: its conditions, its taints, and whether its pods may be driven out.
// Rules: Kubernetes documentation, "Nodes" (heartbeats, node controller, rate limits on eviction), KEP-589 (leases),
// "Taints and Tolerations" (taint nodes by condition). Pure.

import type { Lease } from '../../kube/objects/coordination.ts'
import type { Node, NodeCondition, Taint } from '../../kube/objects/core.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { conditionOf, timestamp } from '../conditions.ts'
import { millisOf } from '../pods.ts'
import { tolerates, unschedulableTaint } from '../scheduler/node-rules.ts'

export const unreachableTaint = 'node.kubernetes.io/unreachable'
export const notReadyTaint = 'node.kubernetes.io/not-ready'

/** The condition Ready of a node; undefined: its kubelet has said nothing yet. */
export function readiness(node: Node): NodeCondition['status'] | undefined {
	return conditionOf(node.status?.conditions, 'Ready')?.status
}

/** Changes with each sign of life: a renewed lease, or a status with a new heartbeat. */
export function signOfLife(node: Node, lease: Lease | undefined): string {
	return `${lease?.spec?.renewTime ?? ''} ${conditionOf(node.status?.conditions, 'Ready')?.lastHeartbeatTime ?? ''}`
}

const kubeletConditions = ['Ready', 'MemoryPressure', 'DiskPressure', 'PIDPressure']

/** The conditions of a node that has gone silent, or undefined where they say so already. */
export function silentConditions(node: Node, now: number): readonly NodeCondition[] | undefined {
	const before = node.status?.conditions ?? []
	const at = timestamp(now)
	let changed = false
	const ours = kubeletConditions.map((type): NodeCondition => {
		const old = conditionOf(before, type)
		if (old?.status === 'Unknown') return old
		changed = true
		return old === undefined
			? {
					type,
					status: 'Unknown',
					lastHeartbeatTime: node.metadata.creationTimestamp ?? at,
					lastTransitionTime: at,
					reason: 'NodeStatusNeverUpdated',
					message: 'Kubelet never posted node status.',
				}
			: {
					...old,
					status: 'Unknown',
					lastTransitionTime: at,
					reason: 'NodeStatusUnknown',
					message: 'Kubelet stopped posting node status.',
				}
	})
	if (!changed) return undefined
	return [...before.filter(({ type }) => !kubeletConditions.includes(type)), ...ours]
}

/**
 * `evict`: drive pods out of silent nodes. `hold`: most of the zone is silent, rather ours is the fault: drive no further
 * nodes out. `none`: every node of the cluster is silent: nobody is driven out at all.
 */
export type EvictionMode = 'evict' | 'hold' | 'none'

/** A zone is as good as lost when so large a part of it, and more than two nodes, are silent. */
const lostPart = 0.55
/** The mode of each zone (region and zone label together). */
export function evictionModes(nodes: Iterable<Node>): (node: Node) => EvictionMode {
	const zones = new Map<string, { ready: number; silent: number }>()
	for (const node of nodes) {
		const key = zoneOf(node)
		let zone = zones.get(key)
		if (zone === undefined) zones.set(key, (zone = { ready: 0, silent: 0 }))
		const ready = readiness(node)
		if (ready === 'True') zone.ready++
		else if (ready !== undefined) zone.silent++
	}
	const all = [...zones.values()]
	if (all.some(({ silent }) => silent > 0) && all.every(({ ready }) => ready === 0)) return () => 'none'
	return (node) => {
		const { ready, silent } = zones.get(zoneOf(node)) ?? { ready: 0, silent: 0 }
		return ready > 0 && silent > 2 && silent / (silent + ready) >= lostPart ? 'hold' : 'evict'
	}
}

function zoneOf(node: Node): string {
	const { labels } = node.metadata
	return `${labels?.['topology.kubernetes.io/region'] ?? ''}/${labels?.['topology.kubernetes.io/zone'] ?? ''}`
}

/** The taint of each condition in a state. */
const conditionTaints: readonly { readonly type: string; readonly status: string; readonly key: string }[] = [
	{ type: 'Ready', status: 'False', key: notReadyTaint },
	{ type: 'Ready', status: 'Unknown', key: unreachableTaint },
	{ type: 'MemoryPressure', status: 'True', key: 'node.kubernetes.io/memory-pressure' },
	{ type: 'DiskPressure', status: 'True', key: 'node.kubernetes.io/disk-pressure' },
	{ type: 'PIDPressure', status: 'True', key: 'node.kubernetes.io/pid-pressure' },
	{ type: 'NetworkUnavailable', status: 'True', key: 'node.kubernetes.io/network-unavailable' },
]

/** The taints the node should have, or undefined where it has them. Taints of others stay. */
export function planTaints(node: Node, mode: EvictionMode, now: number): readonly Taint[] | undefined {
	const have = node.spec?.taints ?? []
	const want: Taint[] = []
	for (const { type, status, key } of conditionTaints) {
		if (conditionOf(node.status?.conditions, type)?.status !== status) continue
		want.push({ key, effect: 'NoSchedule' })
		if (type !== 'Ready' || mode === 'none') continue
		const isThere = have.some((taint) => taint.effect === 'NoExecute' && isOfReadiness(taint))
		if (mode === 'evict' || isThere) want.push({ key, effect: 'NoExecute', timeAdded: timestamp(now) })
	}
	if (node.spec?.unschedulable === true) want.push({ key: unschedulableTaint, effect: 'NoSchedule' })
	const kept = have.filter((taint) => !isManaged(taint) || want.some((w) => sameTaint(w, taint)))
	const added = want.filter((w) => !have.some((taint) => sameTaint(w, taint)))
	return added.length === 0 && kept.length === have.length ? undefined : [...kept, ...added]
}

function sameTaint(a: Taint, b: Taint): boolean {
	return a.key === b.key && a.effect === b.effect
}

function isOfReadiness({ key }: Taint): boolean {
	return key === notReadyTaint || key === unreachableTaint
}

function isManaged(taint: Taint): boolean {
	if (taint.effect === 'NoExecute') return isOfReadiness(taint)
	if (taint.effect !== 'NoSchedule') return false
	return taint.key === unschedulableTaint || conditionTaints.some(({ key }) => key === taint.key)
}

/**
 * When the pod has to leave a node with these taints: a time in milliseconds since the epoch (past: now), or undefined
 * where it may stay. Each NoExecute taint counts from its `timeAdded`, or from `seen` where it has none.
 */
export function evictionTime(pod: Pod, taints: readonly Taint[], seen: number): number | undefined {
	let at: number | undefined
	for (const taint of taints) {
		if (taint.effect !== 'NoExecute') continue
		const toleration = pod.spec?.tolerations?.find((t) => tolerates(t, taint))
		const added = taint.timeAdded === undefined ? seen : millisOf(taint.timeAdded)
		const leave =
			toleration === undefined
				? added
				: toleration.tolerationSeconds === undefined
					? Number.POSITIVE_INFINITY
					: added + Math.max(0, toleration.tolerationSeconds) * 1000
		if (leave !== Number.POSITIVE_INFINITY && (at === undefined || leave < at)) at = leave
	}
	return at
}
