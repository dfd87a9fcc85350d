// The group policy/v1: PodDisruptionBudget.

import type { Condition, KubeObject, LabelSelector, Time } from './meta.ts'

export interface PodDisruptionBudget extends KubeObject {
	readonly apiVersion: 'policy/v1'
	readonly kind: 'PodDisruptionBudget'
	readonly spec?: {
		/** A number or a percentage; at most one of the two is set. */
		readonly minAvailable?: number | string
		readonly maxUnavailable?: number | string
		/** Absent: no pod. Empty: every pod of the namespace. */
		readonly selector?: LabelSelector
		readonly unhealthyPodEvictionPolicy?: 'IfHealthyBudget' | 'AlwaysAllow'
	}
	readonly status?: PodDisruptionBudgetStatus
}

export interface PodDisruptionBudgetStatus {
	readonly observedGeneration?: number
	/** Pods whose eviction was granted but that do not show it yet, and when that was. */
	readonly disruptedPods?: Readonly<Record<string, Time>>
	readonly disruptionsAllowed: number
	readonly currentHealthy: number
	readonly desiredHealthy: number
	readonly expectedPods: number
	readonly conditions?: readonly Condition[]
}
