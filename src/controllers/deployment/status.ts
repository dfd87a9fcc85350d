// A Deployment's status: counts over its ReplicaSets, and the conditions Available, Progressing, ReplicaFailure.

import type { Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet } from '../../kube/objects/apps.ts'
import { conditionOf, timestamp, withCondition, withoutCondition } from '../conditions.ts'
import { millisOf } from '../pods.ts'
import { maxUnavailable, replicasWanted, sumReplicas, sumStatus } from './replicas.ts'

const noDeadline = 2_147_483_647

export function hasDeadline(deployment: Deployment): boolean {
	const seconds = deployment.spec!.progressDeadlineSeconds
	return seconds !== undefined && seconds !== noDeadline
}

export function progressing(
	status: DeploymentCondition['status'],
	reason: string,
	message: string,
	now: number,
): DeploymentCondition {
	const time = timestamp(now)
	return { type: 'Progressing', status, reason, message, lastUpdateTime: time, lastTransitionTime: time }
}

/** Everything rolled out, nothing old left, all available. */
export function isComplete(deployment: Deployment, status: DeploymentStatus | undefined): boolean {
	const wanted = replicasWanted(deployment)
	return (
		status !== undefined &&
		(status.updatedReplicas ?? 0) === wanted &&
		(status.replicas ?? 0) === wanted &&
		(status.availableReplicas ?? 0) === wanted &&
		(status.observedGeneration ?? 0) >= (deployment.metadata.generation ?? 0)
	)
}

export interface StatusFacts {
	readonly deployment: Deployment
	/** Conditions so far, including what this turn has to say of the new ReplicaSet. */
	readonly conditions: readonly DeploymentCondition[]
	readonly newSet: ReplicaSet | undefined
	readonly olds: readonly ReplicaSet[]
	readonly now: number
}

/** The counts, and whether enough is available. */
export function countStatus({ deployment, conditions, newSet, olds, now }: StatusFacts): DeploymentStatus {
	const all = newSet === undefined ? olds : [...olds, newSet]
	const available = sumStatus(all, 'availableReplicas')
	const enough = available >= replicasWanted(deployment) - maxUnavailable(deployment)
	const time = timestamp(now)
	const updated = newSet?.status?.replicas ?? 0
	const ready = sumStatus(all, 'readyReplicas')
	const total = sumStatus(all, 'replicas')
	const unavailable = Math.max(0, sumReplicas(all) - available)
	const terminating = sumStatus(all, 'terminatingReplicas')
	return {
		observedGeneration: deployment.metadata.generation ?? 0,
		...(total === 0 ? {} : { replicas: total }),
		...(updated === 0 ? {} : { updatedReplicas: updated }),
		...(ready === 0 ? {} : { readyReplicas: ready }),
		...(available === 0 ? {} : { availableReplicas: available }),
		...(unavailable === 0 ? {} : { unavailableReplicas: unavailable }),
		terminatingReplicas: terminating,
		...(deployment.status?.collisionCount === undefined ? {} : { collisionCount: deployment.status.collisionCount }),
		conditions: withCondition(conditions, {
			type: 'Available',
			status: enough ? 'True' : 'False',
			reason: enough ? 'MinimumReplicasAvailable' : 'MinimumReplicasUnavailable',
			message: enough ? 'Deployment has minimum availability.' : 'Deployment does not have minimum availability.',
			lastUpdateTime: time,
			lastTransitionTime: time,
		}),
	}
}

/** The status during a rollout: the counts, how far it got, and what keeps ReplicaSets from creating pods. */
export function rolloutStatus(facts: StatusFacts): DeploymentStatus {
	const { deployment, newSet, olds, now } = facts
	const counted = countStatus(facts)
	let conditions = counted.conditions ?? []
	if (!hasDeadline(deployment)) conditions = withoutCondition(conditions, 'Progressing')
	const current = conditionOf(conditions, 'Progressing')
	const settled =
		(counted.replicas ?? 0) === (counted.updatedReplicas ?? 0) && current?.reason === 'NewReplicaSetAvailable'
	if (hasDeadline(deployment) && !settled) {
		const subject =
			newSet === undefined ? `Deployment "${deployment.metadata.name}"` : `ReplicaSet "${newSet.metadata.name}"`
		if (isComplete(deployment, counted)) {
			const message = `${subject} has successfully progressed.`
			conditions = withCondition(conditions, progressing('True', 'NewReplicaSetAvailable', message, now))
		} else if (hasProgressed(deployment.status, counted)) {
			const next = progressing('True', 'ReplicaSetUpdated', `${subject} is progressing.`, now)
			const since = current?.status === 'True' ? current.lastTransitionTime : undefined
			const placed = since === undefined ? next : { ...next, lastTransitionTime: since }
			conditions = [...withoutCondition(conditions, 'Progressing'), placed]
		} else if (hasTimedOut(deployment, current, now)) {
			const message = `${subject} has timed out progressing.`
			conditions = withCondition(conditions, progressing('False', 'ProgressDeadlineExceeded', message, now))
		}
	}
	const failure = replicaFailure(newSet, olds)
	conditions =
		failure === undefined ? withoutCondition(conditions, 'ReplicaFailure') : withCondition(conditions, failure)
	return { ...counted, conditions }
}

/** Milliseconds until the deadline of a rollout that does not progress has to be looked at, or undefined. */
export function untilDeadline(deployment: Deployment, status: DeploymentStatus, now: number): number | undefined {
	const current = conditionOf(status.conditions, 'Progressing')
	if (!hasDeadline(deployment) || current === undefined) return undefined
	if (isComplete(deployment, status) || current.reason === 'ProgressDeadlineExceeded') return undefined
	const deadline = millisOf(current.lastUpdateTime) + deployment.spec!.progressDeadlineSeconds! * 1000
	return Math.max(0, deadline - now) + 1000
}

/** More updated, ready or available pods, or fewer old ones, than the status said before. */
function hasProgressed(before: DeploymentStatus | undefined, after: DeploymentStatus): boolean {
	const old = (s: DeploymentStatus | undefined): number => (s?.replicas ?? 0) - (s?.updatedReplicas ?? 0)
	return (
		(after.updatedReplicas ?? 0) > (before?.updatedReplicas ?? 0) ||
		old(after) < old(before) ||
		(after.readyReplicas ?? 0) > (before?.readyReplicas ?? 0) ||
		(after.availableReplicas ?? 0) > (before?.availableReplicas ?? 0)
	)
}

function hasTimedOut(deployment: Deployment, current: DeploymentCondition | undefined, now: number): boolean {
	if (current === undefined || current.reason === 'NewReplicaSetAvailable') return false
	if (current.reason === 'ProgressDeadlineExceeded') return true
	return millisOf(current.lastUpdateTime) + deployment.spec!.progressDeadlineSeconds! * 1000 < now
}

/** The failure to create pods of the newest ReplicaSet that reports one. */
function replicaFailure(newSet: ReplicaSet | undefined, olds: readonly ReplicaSet[]): DeploymentCondition | undefined {
	for (const set of newSet === undefined ? olds : [newSet, ...olds]) {
		const failure = conditionOf(set.status?.conditions, 'ReplicaFailure')
		if (failure === undefined) continue
		return {
			type: 'ReplicaFailure',
			status: failure.status,
			...(failure.reason === undefined ? {} : { reason: failure.reason }),
			...(failure.message === undefined ? {} : { message: failure.message }),
			...(failure.lastTransitionTime === undefined
				? {}
				: { lastTransitionTime: failure.lastTransitionTime, lastUpdateTime: failure.lastTransitionTime }),
		}
	}
	return undefined
}
