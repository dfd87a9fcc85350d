// The group batch/v1: Job. Only fields we use.

import type { Condition, KubeObject, LabelSelector, Time } from './meta.ts'
import type { PodTemplateSpec } from './pod.ts'

export interface Job extends KubeObject {
	readonly apiVersion: 'batch/v1'
	readonly kind: 'Job'
	readonly spec?: JobSpec
	readonly status?: JobStatus
}

export interface JobSpec {
	readonly parallelism?: number
	readonly completions?: number
	readonly activeDeadlineSeconds?: number
	readonly backoffLimit?: number
	readonly selector?: LabelSelector
	readonly manualSelector?: boolean
	readonly template: PodTemplateSpec
	readonly ttlSecondsAfterFinished?: number
	readonly completionMode?: 'NonIndexed' | 'Indexed'
	readonly suspend?: boolean
}

export interface JobStatus {
	readonly conditions?: readonly Condition[]
	readonly startTime?: Time
	readonly completionTime?: Time
	readonly active?: number
	readonly ready?: number
	readonly succeeded?: number
	readonly failed?: number
	readonly terminating?: number
	readonly completedIndexes?: string
	readonly failedIndexes?: string
	readonly uncountedTerminatedPods?: { readonly succeeded?: readonly string[]; readonly failed?: readonly string[] }
}
