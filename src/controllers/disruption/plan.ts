// How many pods of a PodDisruptionBudget may be evicted now. Rules: Kubernetes documentation, "Specifying a Disruption
// Budget for your Application"; API reference of policy/v1. Pure.

import type { Pod } from '../../kube/objects/pod.ts'
import type { PodDisruptionBudget, PodDisruptionBudgetStatus } from '../../kube/objects/policy.ts'
import { timestamp, withCondition } from '../conditions.ts'
import { isPodActive, isPodReady, isPodTerminal, millisOf } from '../pods.ts'

/** A granted eviction that the pod does not show after so long did not happen. */
const deletionTimeout = 120_000

export interface DisruptionFacts {
	readonly budget: PodDisruptionBudget
	/** The pods its selector selects. */
	readonly pods: readonly Pod[]
	/** The replicas wanted by whoever controls a pod, with a key to count each once; undefined: nobody says. */
	scaleOf(pod: Pod): { readonly key: string; readonly replicas: number } | undefined
	readonly now: number
}

export interface DisruptionPlan {
	readonly status: PodDisruptionBudgetStatus
	/** Milliseconds until the status is due by time alone. */
	readonly wait?: number
	/** Why the budget cannot be computed; nothing may be evicted meanwhile. */
	readonly fault?: string
}

export function planDisruption({ budget, pods, scaleOf, now }: DisruptionFacts): DisruptionPlan {
	const counted = pods.filter((pod) => !isPodTerminal(pod))
	const { minAvailable, maxUnavailable } = budget.spec ?? {}
	const before = budget.status
	const generation = budget.metadata.generation
	let expected = counted.length
	// A number of pods needs no scale to compare with.
	if (maxUnavailable !== undefined || typeof minAvailable === 'string') {
		const scales = new Map<string, number>()
		for (const pod of counted) {
			const scale = scaleOf(pod)
			if (scale === undefined) {
				const fault = `found no controllers for pod ${JSON.stringify(pod.metadata.name)}`
				const status = { currentHealthy: 0, desiredHealthy: 0, expectedPods: 0, ...before, disruptionsAllowed: 0 }
				return { status: finish(status, 'SyncFailed', fault), fault }
			}
			scales.set(scale.key, scale.replicas)
		}
		expected = [...scales.values()].reduce((sum, replicas) => sum + replicas, 0)
	}
	const desired =
		maxUnavailable !== undefined
			? Math.max(0, expected - scaled(maxUnavailable, expected))
			: scaled(minAvailable, expected)

	const disrupted: Record<string, string> = {}
	let wait: number | undefined
	for (const pod of pods) {
		const granted = before?.disruptedPods?.[pod.metadata.name]
		if (granted === undefined || pod.metadata.deletionTimestamp !== undefined) continue
		const left = millisOf(granted) + deletionTimeout - now
		if (left <= 0) continue
		disrupted[pod.metadata.name] = granted
		wait = Math.min(wait ?? left, left)
	}
	const healthy = counted.filter(
		(pod) => isPodActive(pod) && isPodReady(pod) && disrupted[pod.metadata.name] === undefined,
	).length
	const allowed = expected > 0 ? Math.max(0, healthy - desired) : 0
	const status = finish(
		{
			...(Object.keys(disrupted).length === 0 ? {} : { disruptedPods: disrupted }),
			disruptionsAllowed: allowed,
			currentHealthy: healthy,
			desiredHealthy: desired,
			expectedPods: expected,
		},
		allowed > 0 ? 'SufficientPods' : 'InsufficientPods',
		'',
	)
	return { status, ...(wait === undefined ? {} : { wait }) }

	function finish(status: PodDisruptionBudgetStatus, reason: string, message: string): PodDisruptionBudgetStatus {
		const conditions = withCondition(before?.conditions, {
			type: 'DisruptionAllowed',
			status: reason === 'SufficientPods' ? 'True' : 'False',
			...(generation === undefined ? {} : { observedGeneration: generation }),
			lastTransitionTime: timestamp(now),
			reason,
			message,
		})
		return { ...status, ...(generation === undefined ? {} : { observedGeneration: generation }), conditions }
	}
}

/** A percentage of pods is rounded up. */
function scaled(value: number | string | undefined, of: number): number {
	if (value === undefined) return 0
	if (typeof value === 'number') return value
	return Math.ceil((Number.parseInt(value, 10) * of) / 100)
}
