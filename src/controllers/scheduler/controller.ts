// Gives every pod that has none a node. A decision counts at once for the next one, before the API shows it; a pod that
// fits nowhere says why and is tried again when something changes that may let it in.

import { isConflict, isNotFound } from '../../kube/answer.ts'
import { type Kind, namespaces, nodes, pods } from '../../kube/kinds.ts'
import type { Node } from '../../kube/objects/core.ts'
import type { KubeObject } from '../../kube/objects/meta.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { timestamp } from '../conditions.ts'
import { type Cluster, type Controller, createController, type Turn } from '../controller.ts'
import { canonicalJson } from '../hash.ts'
import { isPodTerminal, podCondition } from '../pods.ts'
import { Placements } from './placements.ts'
import { schedule } from './plan.ts'

export const schedulerName = 'default-scheduler'

/** The body of pods/binding. */
interface Binding extends KubeObject {
	readonly target: { readonly apiVersion: 'v1'; readonly kind: 'Node'; readonly name: string }
}
const bindings: Kind<Binding> = pods as Kind as Kind<Binding>

export function schedulerController(cluster: Cluster): Controller {
	const podView = cluster.views.of(pods)
	const nodeView = cluster.views.of(nodes)
	const namespaceView = cluster.views.of(namespaces)
	const placements = new Placements((name) => namespaceView.get(name)?.metadata.labels)
	/** Keys of pods that found no node. */
	const waiting = new Set<string>()

	const controller = createController(cluster, {
		name: schedulerName,
		parallel: 64,
		async reconcile(key, turn) {
			const pod = podView.get(key)
			if (pod === undefined || !isToSchedule(pod)) {
				waiting.delete(key)
				return undefined
			}
			const uid = pod.metadata.uid!
			if (placements.nodeOf(uid) !== undefined) return undefined
			if ((pod.spec?.schedulingGates ?? []).length > 0) {
				const message = 'Scheduling is blocked due to non-empty scheduling gates'
				await writeUnscheduled(turn, pod, key, 'SchedulingGated', message)
				return undefined
			}
			const decision = schedule(pod, placements)
			if ('unschedulable' in decision) {
				waiting.add(key)
				const { unschedulable: message } = decision
				if (podCondition(pod, 'PodScheduled')?.message !== message) {
					cluster.recorder.record(schedulerName, pod, 'Warning', 'FailedScheduling', message)
				}
				await writeUnscheduled(turn, pod, key, 'Unschedulable', message)
				return undefined
			}
			waiting.delete(key)
			placements.put(pod, decision.node)
			try {
				await bind(cluster, pod, decision.node)
			} catch (e) {
				// Unless the API shows it somewhere meanwhile, the place is free again.
				if (podView.get(key)?.spec?.nodeName === undefined) placements.remove(uid)
				if (isNotFound(e)) return undefined
				if (isConflict(e) && podView.get(key)?.spec?.nodeName !== undefined) return undefined
				throw e
			}
			const message = `Successfully assigned ${key} to ${decision.node}`
			cluster.recorder.record(schedulerName, pod, 'Normal', 'Scheduled', message)
			return undefined
		},
	})

	const due = controller.queue.add
	const retry = (): void => {
		for (const key of waiting) due(key)
	}
	podView.onChange((key, before, after) => {
		if (before !== undefined && before.metadata.uid !== after?.metadata.uid) placements.remove(before.metadata.uid!)
		if (after === undefined) {
			waiting.delete(key)
			if (before?.spec?.nodeName !== undefined) retry()
			return
		}
		const node = after.spec?.nodeName
		if (node === undefined) {
			// Only what the scheduler does not write itself makes it look again.
			if (
				before === undefined ||
				before.metadata.generation !== after.metadata.generation ||
				!sameGates(before, after)
			) {
				due(key)
			}
		} else if (isPodTerminal(after)) {
			placements.remove(after.metadata.uid!)
			if (before !== undefined && !isPodTerminal(before)) retry()
		} else if (before?.spec?.nodeName !== node || before.metadata.labels !== after.metadata.labels) {
			placements.put(after, node)
			if (before?.spec?.nodeName !== node) retry()
		}
	})
	nodeView.onChange((key, before, after) => {
		if (after === undefined) placements.removeNode(key)
		else placements.setNode(after)
		if (after !== undefined && (before === undefined || !sameForPods(before, after))) retry()
	})
	namespaceView.onChange((_, before, after) => {
		if (before !== undefined && after !== undefined && before.metadata.labels !== after.metadata.labels) retry()
	})
	return controller
}

function isToSchedule(pod: Pod): boolean {
	const name = pod.spec?.schedulerName ?? schedulerName
	return (
		pod.spec?.nodeName === undefined &&
		name === schedulerName &&
		pod.metadata.deletionTimestamp === undefined &&
		!isPodTerminal(pod)
	)
}

function sameGates(a: Pod, b: Pod): boolean {
	return (a.spec?.schedulingGates ?? []).length === (b.spec?.schedulingGates ?? []).length
}

/** A heartbeat of a node lets no pod in. */
function sameForPods(a: Node, b: Node): boolean {
	const facts = ({ metadata, spec, status }: Node) => [
		metadata.labels,
		spec?.unschedulable,
		spec?.taints,
		status?.allocatable,
	]
	return canonicalJson(facts(a)) === canonicalJson(facts(b))
}

async function bind(cluster: Cluster, pod: Pod, node: string): Promise<void> {
	const { name, namespace, uid } = pod.metadata
	await cluster.client.create(
		bindings,
		{
			apiVersion: 'v1',
			kind: 'Binding',
			metadata: { name, namespace: namespace!, uid: uid! },
			target: { apiVersion: 'v1', kind: 'Node', name: node },
		},
		{ subresource: 'binding' },
	)
}

async function writeUnscheduled(turn: Turn, pod: Pod, key: string, reason: string, message: string): Promise<void> {
	const before = podCondition(pod, 'PodScheduled')
	if (before?.status === 'False' && before.reason === reason && before.message === message) return
	const condition = {
		type: 'PodScheduled',
		status: 'False',
		reason,
		message,
		lastProbeTime: null,
		lastTransitionTime: before?.status === 'False' ? before.lastTransitionTime : timestamp(turn.now),
	}
	const patch = { metadata: { uid: pod.metadata.uid }, status: { conditions: [condition] } }
	await turn.patch(pods, key, patch, { subresource: 'status', type: 'strategic' })
}
