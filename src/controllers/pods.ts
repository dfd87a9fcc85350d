// Facts about one pod that several controllers ask for, and how a pod is made from a template.

import type { ObjectMeta, OwnerReference } from '../kube/objects/meta.ts'
import type { Pod, PodCondition, PodSpec, PodTemplateSpec } from '../kube/objects/pod.ts'

/** A pod to be created: the server fills in the rest. */
export interface NewPod {
	readonly apiVersion: 'v1'
	readonly kind: 'Pod'
	readonly metadata: Partial<ObjectMeta>
	readonly spec: PodSpec
}

export function podCondition(pod: Pod, type: string): PodCondition | undefined {
	return pod.status?.conditions?.find((c) => c.type === type)
}

/** The condition Ready is True: containers and readiness gates alike. */
export function isPodReady(pod: Pod): boolean {
	return podCondition(pod, 'Ready')?.status === 'True'
}

/** Succeeded or Failed: it will never run again. */
export function isPodTerminal(pod: Pod): boolean {
	return pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed'
}

/** Counts as a replica: neither ended nor being deleted. */
export function isPodActive(pod: Pod): boolean {
	return !isPodTerminal(pod) && pod.metadata.deletionTimestamp === undefined
}

/** Being deleted but not yet ended: what `terminatingReplicas` counts. */
export function isPodTerminating(pod: Pod): boolean {
	return !isPodTerminal(pod) && pod.metadata.deletionTimestamp !== undefined
}

/** Milliseconds since the epoch of an API time, 0 when absent. */
export function millisOf(time: string | undefined | null): number {
	return time === undefined || time === null ? 0 : Date.parse(time)
}

/**
 * Milliseconds until a ready pod counts as available: 0 when it does already, undefined when it is not ready at all.
 * `minReadySeconds` counts from the moment the pod became ready.
 */
export function untilAvailable(pod: Pod, minReadySeconds: number, now: number): number | undefined {
	const ready = podCondition(pod, 'Ready')
	if (ready?.status !== 'True') return undefined
	if (minReadySeconds === 0) return 0
	const since = millisOf(ready.lastTransitionTime)
	if (since === 0) return minReadySeconds * 1000
	return Math.max(0, since + minReadySeconds * 1000 - now)
}

export function isPodAvailable(pod: Pod, minReadySeconds: number, now: number): boolean {
	return untilAvailable(pod, minReadySeconds, now) === 0
}

/** Of several waits the shortest positive one, or undefined when there is none. */
export function soonest(waits: Iterable<number | undefined>): number | undefined {
	let least: number | undefined
	for (const wait of waits) if (wait !== undefined && wait > 0 && (least === undefined || wait < least)) least = wait
	return least
}

/**
 * A pod made from a template: its labels, annotations and finalizers are copied, and `owner` is its controller.
 * With `name` the pod has that name; otherwise the server appends five characters to `<owner>-`.
 */
export function podFromTemplate(
	template: PodTemplateSpec,
	owner: OwnerReference,
	namespace: string,
	name?: string,
): NewPod {
	const from = template.metadata
	return {
		apiVersion: 'v1',
		kind: 'Pod',
		metadata: {
			...(name === undefined ? { generateName: `${owner.name}-` } : { name }),
			namespace,
			...(from?.labels === undefined ? {} : { labels: { ...from.labels } }),
			...(from?.annotations === undefined ? {} : { annotations: { ...from.annotations } }),
			...(from?.finalizers === undefined ? {} : { finalizers: [...from.finalizers] }),
			ownerReferences: [owner],
		},
		spec: template.spec!,
	}
}
