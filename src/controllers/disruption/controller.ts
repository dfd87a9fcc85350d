// Keeps the status of every PodDisruptionBudget: the eviction API asks nothing else.

import {
	deployments,
	podDisruptionBudgets,
	pods,
	replicaSets,
	replicationControllers,
	statefulSets,
} from '../../kube/kinds.ts'
import { controllerOf, keyOf, namespacedKey } from '../../kube/objects/meta.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { matchesLabelSelector } from '../../kube/selector.ts'
import { type Cluster, type Controller, createController, writeStatus } from '../controller.ts'
import { planDisruption } from './plan.ts'

export function disruptionController(cluster: Cluster): Controller {
	const { views } = cluster
	const budgetView = views.of(podDisruptionBudgets)
	const podView = views.of(pods)
	const setView = views.of(replicaSets)
	const deploymentView = views.of(deployments)
	const statefulView = views.of(statefulSets)
	const replicationView = views.of(replicationControllers)
	const inNamespace = podView.index('namespace', (pod) => [pod.metadata.namespace ?? ''])
	const budgetsIn = budgetView.index('namespace', (budget) => [budget.metadata.namespace ?? ''])

	function scaleOf(pod: Pod): { readonly key: string; readonly replicas: number } | undefined {
		const namespace = pod.metadata.namespace ?? ''
		const owner = controllerOf(pod)
		if (owner === undefined) return undefined
		const find = <T extends { readonly metadata: { readonly uid?: string }; readonly spec?: { replicas?: number } }>(
			object: T | undefined,
			uid: string,
		) => (object?.metadata.uid === uid ? { key: uid, replicas: object.spec?.replicas ?? 1 } : undefined)
		const key = namespacedKey(namespace, owner.name)
		switch (owner.kind) {
			case 'ReplicaSet': {
				const set = setView.get(key)
				if (set?.metadata.uid !== owner.uid) return undefined
				const above = controllerOf(set)
				if (above?.kind !== 'Deployment') return find(set, owner.uid)
				return find(deploymentView.get(namespacedKey(namespace, above.name)), above.uid)
			}
			case 'StatefulSet':
				return find(statefulView.get(key), owner.uid)
			case 'ReplicationController':
				return find(replicationView.get(key), owner.uid)
			default:
				return undefined
		}
	}

	const controller = createController(cluster, {
		name: 'disruption-controller',
		parallel: 4,
		async reconcile(key, turn) {
			const budget = budgetView.get(key)
			if (budget === undefined || budget.metadata.deletionTimestamp !== undefined) return undefined
			const { selector } = budget.spec ?? {}
			const selected = [...inNamespace.get(budget.metadata.namespace ?? '')].filter(
				(pod) => selector !== undefined && matchesLabelSelector(selector, pod.metadata.labels),
			)
			const plan = planDisruption({ budget, pods: selected, scaleOf, now: turn.now })
			if (plan.fault !== undefined) {
				const text = `Failed to calculate the number of expected pods: ${plan.fault}`
				cluster.recorder.record('controllermanager', budget, 'Warning', 'CalculateExpectedPodCountFailed', text)
			}
			await writeStatus(turn, podDisruptionBudgets, budget, plan.status)
			return plan.wait
		},
	})

	const dueIn = (namespace: string): void => {
		for (const budget of budgetsIn.get(namespace)) controller.queue.add(keyOf(budget))
	}
	budgetView.onChange((key) => controller.queue.add(key))
	podView.onChange((_, before, after) => {
		for (const budget of budgetsIn.get((after ?? before)?.metadata.namespace ?? '')) {
			const { selector } = budget.spec ?? {}
			const concerns = (pod: Pod | undefined): boolean =>
				pod !== undefined && selector !== undefined && matchesLabelSelector(selector, pod.metadata.labels)
			if (concerns(before) || concerns(after)) controller.queue.add(keyOf(budget))
		}
	})
	for (const view of [setView, deploymentView, statefulView, replicationView]) {
		view.onChange((_: string, before: Scaled | undefined, after: Scaled | undefined) => {
			if (before?.spec?.replicas !== after?.spec?.replicas) dueIn((after ?? before)?.metadata.namespace ?? '')
		})
	}
	return controller
}

interface Scaled {
	readonly metadata: { readonly namespace?: string }
	readonly spec?: { readonly replicas?: number }
}
