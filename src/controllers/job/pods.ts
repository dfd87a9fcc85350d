// The pods of a Job: their labels, index and the finalizer that keeps each until it has been counted.

import type { Job } from '../../kube/objects/batch.ts'
import type { Container, Pod } from '../../kube/objects/pod.ts'
import { controllerReference } from '../owners.ts'
import { type NewPod, podFromTemplate } from '../pods.ts'

/** KEP-2307: a pod that ended stays until the Job's status counts it. */
export const trackingFinalizer = 'batch.kubernetes.io/job-tracking'
export const indexAnnotation = 'batch.kubernetes.io/job-completion-index'

export function isIndexed(job: Job): boolean {
	return job.spec?.completionMode === 'Indexed'
}

export function indexOf(pod: Pod): number | undefined {
	const text = pod.metadata.annotations?.[indexAnnotation]
	return text !== undefined && /^(0|[1-9]\d{0,8})$/.test(text) ? Number(text) : undefined
}

/** `index` only for an indexed Job. */
export function makeJobPod(job: Job, index: number | undefined): NewPod {
	const pod = podFromTemplate(job.spec!.template, controllerReference(job), job.metadata.namespace!)
	const { name } = job.metadata
	const uid = job.metadata.uid!
	const labels: Record<string, string> = {
		...pod.metadata.labels,
		'batch.kubernetes.io/controller-uid': uid,
		'batch.kubernetes.io/job-name': name,
		'controller-uid': uid,
		'job-name': name,
	}
	const finalizers = [...(pod.metadata.finalizers ?? []), trackingFinalizer]
	if (index === undefined) return { ...pod, metadata: { ...pod.metadata, labels, finalizers } }
	labels[indexAnnotation] = String(index)
	const env = {
		name: 'JOB_COMPLETION_INDEX',
		valueFrom: { fieldRef: { fieldPath: `metadata.labels['${indexAnnotation}']` } },
	}
	const withIndex = (container: Container): Container => ({
		...container,
		env: [...(container.env ?? []).filter((e) => e.name !== env.name), env],
	})
	return {
		...pod,
		metadata: {
			...pod.metadata,
			generateName: `${name}-${index}-`,
			labels,
			annotations: { ...pod.metadata.annotations, [indexAnnotation]: String(index) },
			finalizers,
		},
		spec: {
			...pod.spec,
			hostname: `${name}-${index}`,
			containers: pod.spec.containers.map(withIndex),
			...(pod.spec.initContainers === undefined ? {} : { initContainers: pod.spec.initContainers.map(withIndex) }),
		},
	}
}

/** Counts as failed: it ended so, or it is being taken away before it could succeed. */
export function hasFailed(pod: Pod): boolean {
	if (pod.status?.phase === 'Failed') return true
	return pod.metadata.deletionTimestamp !== undefined && pod.status?.phase !== 'Succeeded'
}

export function isTracked(pod: Pod): boolean {
	return pod.metadata.finalizers?.includes(trackingFinalizer) ?? false
}
