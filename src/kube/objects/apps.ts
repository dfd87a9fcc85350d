// The group apps/v1: Deployment, ReplicaSet, StatefulSet, DaemonSet, ControllerRevision. Only fields we use.

import type { Condition, IntOrString, KubeObject, LabelSelector, ObjectMeta, Time } from './meta.ts'
import type { PodTemplateSpec } from './pod.ts'

export interface Deployment extends KubeObject {
	readonly apiVersion: 'apps/v1'
	readonly kind: 'Deployment'
	readonly spec?: DeploymentSpec
	readonly status?: DeploymentStatus
}

export interface DeploymentSpec {
	readonly replicas?: number
	readonly selector: LabelSelector
	readonly template: PodTemplateSpec
	readonly strategy?: {
		readonly type?: 'Recreate' | 'RollingUpdate'
		readonly rollingUpdate?: { readonly maxUnavailable?: IntOrString; readonly maxSurge?: IntOrString }
	}
	readonly minReadySeconds?: number
	readonly revisionHistoryLimit?: number
	readonly paused?: boolean
	readonly progressDeadlineSeconds?: number
}

export interface DeploymentStatus {
	readonly observedGeneration?: number
	readonly replicas?: number
	readonly updatedReplicas?: number
	readonly readyReplicas?: number
	readonly availableReplicas?: number
	readonly unavailableReplicas?: number
	readonly terminatingReplicas?: number
	readonly collisionCount?: number
	readonly conditions?: readonly DeploymentCondition[]
}

export interface DeploymentCondition extends Condition {
	readonly lastUpdateTime?: Time
}

export interface ReplicaSet extends KubeObject {
	readonly apiVersion: 'apps/v1'
	readonly kind: 'ReplicaSet'
	readonly spec?: ReplicaSetSpec
	readonly status?: ReplicaSetStatus
}

export interface ReplicaSetSpec {
	readonly replicas?: number
	readonly minReadySeconds?: number
	readonly selector: LabelSelector
	readonly template?: PodTemplateSpec
}

export interface ReplicaSetStatus {
	readonly replicas: number
	readonly fullyLabeledReplicas?: number
	readonly readyReplicas?: number
	readonly availableReplicas?: number
	readonly terminatingReplicas?: number
	readonly observedGeneration?: number
	readonly conditions?: readonly Condition[]
}

export interface StatefulSet extends KubeObject {
	readonly apiVersion: 'apps/v1'
	readonly kind: 'StatefulSet'
	readonly spec?: StatefulSetSpec
	readonly status?: StatefulSetStatus
}

export interface StatefulSetSpec {
	readonly replicas?: number
	readonly selector: LabelSelector
	readonly template: PodTemplateSpec
	readonly volumeClaimTemplates?: readonly { readonly metadata?: Partial<ObjectMeta>; readonly spec?: unknown }[]
	readonly serviceName?: string
	readonly podManagementPolicy?: 'OrderedReady' | 'Parallel'
	readonly updateStrategy?: {
		readonly type?: 'RollingUpdate' | 'OnDelete'
		readonly rollingUpdate?: { readonly partition?: number; readonly maxUnavailable?: IntOrString }
	}
	readonly revisionHistoryLimit?: number
	readonly minReadySeconds?: number
	readonly ordinals?: { readonly start?: number }
}

export interface StatefulSetStatus {
	readonly observedGeneration?: number
	readonly replicas: number
	readonly readyReplicas?: number
	readonly currentReplicas?: number
	readonly updatedReplicas?: number
	readonly availableReplicas?: number
	readonly currentRevision?: string
	readonly updateRevision?: string
	readonly collisionCount?: number
	readonly conditions?: readonly Condition[]
}

export interface DaemonSet extends KubeObject {
	readonly apiVersion: 'apps/v1'
	readonly kind: 'DaemonSet'
	readonly spec?: DaemonSetSpec
	readonly status?: DaemonSetStatus
}

export interface DaemonSetSpec {
	readonly selector: LabelSelector
	readonly template: PodTemplateSpec
	readonly updateStrategy?: {
		readonly type?: 'RollingUpdate' | 'OnDelete'
		readonly rollingUpdate?: { readonly maxUnavailable?: IntOrString; readonly maxSurge?: IntOrString }
	}
	readonly minReadySeconds?: number
	readonly revisionHistoryLimit?: number
}

export interface DaemonSetStatus {
	readonly currentNumberScheduled: number
	readonly numberMisscheduled: number
	readonly desiredNumberScheduled: number
	readonly numberReady: number
	readonly observedGeneration?: number
	readonly updatedNumberScheduled?: number
	readonly numberAvailable?: number
	readonly numberUnavailable?: number
	readonly collisionCount?: number
	readonly conditions?: readonly Condition[]
}

export interface ControllerRevision extends KubeObject {
	readonly apiVersion: 'apps/v1'
	readonly kind: 'ControllerRevision'
	readonly data?: unknown
	readonly revision: number
}

/** autoscaling/v1 Scale: the body of the scale subresource. */
export interface Scale extends KubeObject {
	readonly apiVersion: 'autoscaling/v1'
	readonly kind: 'Scale'
	readonly spec?: { readonly replicas?: number }
	readonly status?: { readonly replicas: number; readonly selector?: string }
}
