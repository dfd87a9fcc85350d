// Rolls Deployments out: applies each plan and waits for what changes next.

import { isAlreadyExists } from '../../kube/answer.ts'
import { deployments, pods, replicaSets } from '../../kube/kinds.ts'
import type { Deployment, ReplicaSet } from '../../kube/objects/apps.ts'
import { controllerOf, keyOf, namespacedKey } from '../../kube/objects/meta.ts'
import { matchesLabelSelector } from '../../kube/selector.ts'
import { byController, claimChildren, onChildChange, onOrphan } from '../children.ts'
import { type Cluster, type Controller, createController, type Turn, writeStatus } from '../controller.ts'
import { isNamespaceGoing } from '../replicaset/controller.ts'
import { planDeployment, type SetChange } from './plan.ts'
import { isRolling, replicasOf } from './replicas.ts'
import { revisionAnnotation, sameTemplate } from './template.ts'

const component = 'deployment-controller'

export function deploymentController(cluster: Cluster): Controller {
	const view = cluster.views.of(deployments)
	const sets = cluster.views.of(replicaSets)
	const podView = cluster.views.of(pods)
	const podsOf = byController(podView)
	const selects = (deployment: Deployment, set: ReplicaSet): boolean =>
		matchesLabelSelector(deployment.spec?.selector, set.metadata.labels)

	const controller = createController(cluster, {
		name: component,
		async reconcile(key, turn) {
			const deployment = view.get(key)
			if (deployment === undefined) return undefined
			const owned = await claimChildren(turn, deployment, replicaSets, sets, (set) => selects(deployment, set))
			const plan = planDeployment({
				deployment,
				sets: owned,
				podsOf: (set) => podsOf.get(set.metadata.uid!),
				now: turn.now,
			})
			if (plan.create !== undefined && !(await createSet(cluster, turn, deployment, plan.create))) return undefined
			await Promise.all(plan.changes.map((change) => changeSet(cluster, turn, deployment, change)))
			await Promise.all(plan.remove.map((set) => turn.delete(replicaSets, set)))
			let current = deployment
			if (plan.revision !== undefined) {
				const patch = { metadata: { annotations: { [revisionAnnotation]: plan.revision } } }
				current = await turn.patch(deployments, key, patch)
			}
			await writeStatus(turn, deployments, current, plan.status)
			return plan.after
		},
	})
	const due = controller.queue.add
	view.onChange(due)
	onChildChange(sets, 'Deployment', due)
	onOrphan(view, sets, selects, due)
	// The strategy Recreate waits for the last pod of the old version to end.
	onChildChange(podView, 'ReplicaSet', (key, before, after) => {
		if (after !== undefined && after.status?.phase === before?.status?.phase) return
		const set = sets.get(key)
		const owner = set === undefined ? undefined : controllerOf(set)
		if (owner?.kind !== 'Deployment') return
		const deployment = view.get(namespacedKey(set!.metadata.namespace!, owner.name))
		if (deployment !== undefined && !isRolling(deployment)) due(keyOf(deployment))
	})
	return controller
}

/** False when the name is taken by a ReplicaSet of another template: the next turn tries another hash. */
async function createSet(cluster: Cluster, turn: Turn, deployment: Deployment, set: ReplicaSet): Promise<boolean> {
	try {
		await turn.create(replicaSets, set)
	} catch (e) {
		if (isNamespaceGoing(e)) return false
		if (!isAlreadyExists(e)) throw e
		const taken = await cluster.client.get(replicaSets, keyOf(set))
		if (controllerOf(taken)?.uid === deployment.metadata.uid && sameTemplate(deployment, taken)) return true
		const collisionCount = (deployment.status?.collisionCount ?? 0) + 1
		await turn.update(
			deployments,
			{ ...deployment, status: { ...deployment.status, collisionCount } },
			{ subresource: 'status' },
		)
		return false
	}
	if (replicasOf(set) > 0) recordScaling(cluster, deployment, set, 0, replicasOf(set))
	return true
}

async function changeSet(cluster: Cluster, turn: Turn, deployment: Deployment, change: SetChange): Promise<void> {
	const { set, replicas, annotations, minReadySeconds } = change
	await turn.patch(replicaSets, keyOf(set), {
		metadata: { resourceVersion: set.metadata.resourceVersion, ...(annotations === undefined ? {} : { annotations }) },
		spec: {
			...(replicas === undefined ? {} : { replicas }),
			...(minReadySeconds === undefined ? {} : { minReadySeconds }),
		},
	})
	if (replicas !== undefined) recordScaling(cluster, deployment, set, replicasOf(set), replicas)
}

function recordScaling(cluster: Cluster, deployment: Deployment, set: ReplicaSet, from: number, to: number): void {
	const message = `Scaled ${to > from ? 'up' : 'down'} replica set ${set.metadata.name} from ${from} to ${to}`
	cluster.recorder.record(component, deployment, 'Normal', 'ScalingReplicaSet', message)
}
