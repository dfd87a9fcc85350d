// Runs Jobs: the plan, then the status that notes what ended, then the finalizers of what is noted.

import { isNotFound } from '../../kube/answer.ts'
import { jobs, pods } from '../../kube/kinds.ts'
import type { Job } from '../../kube/objects/batch.ts'
import { controllerOf, keyOf, namespacedKey } from '../../kube/objects/meta.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { matchesLabelSelector } from '../../kube/selector.ts'
import { byController, claimChildren, onChildChange } from '../children.ts'
import { conditionOf } from '../conditions.ts'
import { type Cluster, type Controller, createController, inBatches, type Turn, writeStatus } from '../controller.ts'
import { isNamespaceGoing } from '../replicaset/controller.ts'
import { planJob } from './plan.ts'
import { isIndexed, isTracked, makeJobPod, trackingFinalizer } from './pods.ts'

const component = 'job-controller'

export function jobControllers(cluster: Cluster): readonly Controller[] {
	const view = cluster.views.of(jobs)
	const podView = cluster.views.of(pods)
	byController(podView)
	const controller = createController(cluster, {
		name: component,
		async reconcile(key, turn) {
			const job = view.get(key)
			if (job === undefined) return undefined
			const selects = (pod: Pod): boolean =>
				job.spec?.selector === undefined
					? pod.metadata.labels?.['batch.kubernetes.io/controller-uid'] === job.metadata.uid
					: matchesLabelSelector(job.spec.selector, pod.metadata.labels)
			const mine = await claimChildren(turn, job, pods, podView, selects)
			const plan = planJob({ job, pods: mine, now: turn.now })
			if (plan.expired) {
				await turn.delete(jobs, job, { propagationPolicy: 'Foreground' })
				return undefined
			}
			const { error } = await inBatches(plan.create.length, async (i) => {
				const made = await turn.create(pods, makeJobPod(job, isIndexed(job) ? plan.create[i] : undefined))
				cluster.recorder.record(component, job, 'Normal', 'SuccessfulCreate', `Created pod: ${made.metadata.name}`)
			})
			await Promise.all(
				plan.remove.map(async (pod) => {
					await turn.delete(pods, pod)
					cluster.recorder.record(component, job, 'Normal', 'SuccessfulDelete', `Deleted pod: ${pod.metadata.name}`)
				}),
			)
			await writeStatus(turn, jobs, job, plan.status)
			tell(cluster, job, plan.status)
			await Promise.all(plan.release.map((pod) => release(turn, pod)))
			if (error !== undefined && !isNamespaceGoing(error)) throw error
			return plan.after
		},
	})
	const due = controller.queue.add
	view.onChange(due)
	onChildChange(podView, 'Job', due)
	return [controller, strayController(cluster)]
}

/** A pod whose Job is gone is counted by nobody: it must not stay for that. */
function strayController(cluster: Cluster): Controller {
	const view = cluster.views.of(jobs)
	const podView = cluster.views.of(pods)
	const isStray = (pod: Pod): boolean => {
		const owner = controllerOf(pod)
		if (!isTracked(pod) || (owner !== undefined && owner.kind !== 'Job')) return false
		return (
			owner === undefined || view.get(namespacedKey(pod.metadata.namespace!, owner.name))?.metadata.uid !== owner.uid
		)
	}
	const controller = createController(cluster, {
		name: 'job-stray-pods',
		async reconcile(key, turn) {
			const pod = podView.get(key)
			if (pod !== undefined && isStray(pod)) await release(turn, pod)
			return undefined
		},
	})
	const due = controller.queue.add
	const owned = byController(podView)
	podView.onChange((key, _, after) => {
		if (after?.metadata.deletionTimestamp !== undefined && isTracked(after)) due(key)
	})
	view.onChange((_, before, after) => {
		if (before === undefined || after !== undefined) return
		for (const pod of owned.get(before.metadata.uid!)) due(keyOf(pod))
	})
	return controller
}

function tell(cluster: Cluster, job: Job, status: Job['status']): void {
	for (const [type, kind] of [
		['Complete', 'Normal'],
		['Failed', 'Warning'],
	] as const) {
		const now = conditionOf(status?.conditions, type)
		if (now === undefined || conditionOf(job.status?.conditions, type) !== undefined) continue
		const reason = type === 'Complete' ? 'Completed' : (now.reason ?? 'Failed')
		cluster.recorder.record(component, job, kind, reason, type === 'Complete' ? 'Job completed' : (now.message ?? ''))
	}
}

async function release(turn: Turn, pod: Pod): Promise<void> {
	const { uid, resourceVersion, finalizers = [] } = pod.metadata
	if (!finalizers.includes(trackingFinalizer)) return
	const left = finalizers.filter((f) => f !== trackingFinalizer)
	try {
		const patch = { metadata: { uid, resourceVersion, finalizers: left.length === 0 ? null : left } }
		await turn.patch(pods, keyOf(pod), patch)
	} catch (e) {
		if (!isNotFound(e)) throw e
	}
}
