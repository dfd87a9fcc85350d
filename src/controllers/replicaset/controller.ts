// Keeps as many pods as a ReplicaSet or a ReplicationController asks for.

import { messageOf } from '../../base/failure.ts'
import { isForbidden, isNotFound } from '../../kube/answer.ts'
import { type Kind, pods, replicaSets, replicationControllers } from '../../kube/kinds.ts'
import type { ReplicaSet } from '../../kube/objects/apps.ts'
import type { ReplicationController } from '../../kube/objects/core.ts'
import { controllerOf } from '../../kube/objects/meta.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { matchesLabelSelector, matchesLabels } from '../../kube/selector.ts'
import { byController, claimChildren, onChildChange, onOrphan } from '../children.ts'
import { type Cluster, type Controller, createController, inBatches, type Turn, writeStatus } from '../controller.ts'
import { controllerReference } from '../owners.ts'
import { podFromTemplate } from '../pods.ts'
import { planReplicas, type ReplicaFailure, type ReplicaOwner, replicaStatus } from './plan.ts'

export function replicaSetController(cluster: Cluster): Controller {
	const siblings = byController(cluster.views.of(replicaSets))
	const owned = byController(cluster.views.of(pods))
	return replicaController<ReplicaSet>(cluster, {
		name: 'replicaset-controller',
		kind: replicaSets,
		selects: (set, pod) => matchesLabelSelector(set.spec?.selector, pod.metadata.labels),
		*related(set) {
			const owner = controllerOf(set)
			if (owner === undefined) yield* owned.get(set.metadata.uid!)
			else for (const sibling of siblings.get(owner.uid)) yield* owned.get(sibling.metadata.uid!)
		},
	})
}

export function replicationController(cluster: Cluster): Controller {
	const owned = byController(cluster.views.of(pods))
	return replicaController<ReplicationController>(cluster, {
		name: 'replication-controller',
		kind: replicationControllers,
		selects: ({ spec }, pod) => spec?.selector !== undefined && matchesLabels(spec.selector, pod.metadata.labels),
		related: (controller) => owned.get(controller.metadata.uid!),
	})
}

interface ReplicaKind<O extends ReplicaOwner> {
	readonly name: string
	readonly kind: Kind<O>
	selects(owner: O, pod: Pod): boolean
	/** The pods of all of the same owner, the given one's among them. */
	related(owner: O): Iterable<Pod>
}

function replicaController<O extends ReplicaOwner>(cluster: Cluster, of: ReplicaKind<O>): Controller {
	const owners = cluster.views.of(of.kind)
	const podView = cluster.views.of(pods)
	byController(podView)
	const controller = createController(cluster, {
		name: of.name,
		async reconcile(key, turn) {
			const owner = owners.get(key)
			if (owner === undefined) return undefined
			const mine = await claimChildren(turn, owner, pods, podView, (pod) => of.selects(owner, pod))
			const facts = { owner, pods: mine, related: () => of.related(owner), now: turn.now }
			const plan = planReplicas(facts)
			const outcome = await resize(cluster, of.name, turn, owner, plan.create, plan.remove)
			await writeStatus<ReplicaOwner>(turn, of.kind, owner, replicaStatus(facts, outcome?.failure))
			if (outcome !== undefined) throw outcome.error
			return plan.after
		},
	})
	const due = controller.queue.add
	owners.onChange(due)
	onChildChange(podView, of.kind.kind, due)
	onOrphan(owners, podView, of.selects, due)
	return controller
}

/** Makes and deletes pods; the result tells what stood against it. */
async function resize(
	cluster: Cluster,
	component: string,
	turn: Turn,
	owner: ReplicaOwner,
	count: number,
	remove: readonly Pod[],
): Promise<{ readonly failure: ReplicaFailure; readonly error: unknown } | undefined> {
	const { recorder } = cluster
	if (count > 0) {
		const reference = controllerReference(owner)
		const pod = podFromTemplate(owner.spec!.template!, reference, owner.metadata.namespace!)
		const { error } = await inBatches(count, async () => {
			const made = await turn.create(pods, pod)
			recorder.record(component, owner, 'Normal', 'SuccessfulCreate', `Created pod: ${made.metadata.name}`)
		})
		if (error === undefined || isNamespaceGoing(error)) return undefined
		recorder.record(component, owner, 'Warning', 'FailedCreate', `Error creating: ${messageOf(error)}`)
		return { failure: { reason: 'FailedCreate', message: messageOf(error) }, error }
	}
	const results = await Promise.allSettled(
		remove.map(async (pod) => {
			await turn.delete(pods, pod)
			recorder.record(component, owner, 'Normal', 'SuccessfulDelete', `Deleted pod: ${pod.metadata.name}`)
		}),
	)
	const failed = results.find((r) => r.status === 'rejected')
	if (failed === undefined) return undefined
	const error: unknown = failed.reason
	recorder.record(component, owner, 'Warning', 'FailedDelete', `Error deleting: ${messageOf(error)}`)
	return { failure: { reason: 'FailedDelete', message: messageOf(error) }, error }
}

/** Nothing can be created in a namespace that is being deleted, and nothing needs to be. */
export function isNamespaceGoing(error: unknown): boolean {
	return (isForbidden(error) && messageOf(error).includes('being terminated')) || isNotFound(error)
}
