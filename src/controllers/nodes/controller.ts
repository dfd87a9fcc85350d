// Nodes: each gets its pod networks; pods on a node that is no more are removed.

import { isNotFound } from '../../kube/answer.ts'
import { nodes, pods } from '../../kube/kinds.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { type Cluster, type Controller, createController } from '../controller.ts'
import { type PodNetwork, planNodeCidrs } from './cidrs.ts'

/** Gives nodes their `spec.podCIDR(s)`. One turn serves all nodes, so that no share is given twice. */
export function nodeCidrController(cluster: Cluster, networks: readonly PodNetwork[]): Controller {
	const view = cluster.views.of(nodes)
	const controller = createController(cluster, {
		name: 'node-ipam-controller',
		parallel: 1,
		async reconcile(_, turn) {
			const { assign, full } = planNodeCidrs(view.values(), networks)
			for (const name of full) {
				const message = `Node ${name} status is now: CIDRNotAvailable`
				cluster.recorder.record('cidrAllocator', view.get(name)!, 'Normal', 'CIDRNotAvailable', message)
			}
			await Promise.all(
				[...assign].map(async ([name, podCIDRs]) => {
					const { uid, resourceVersion } = view.get(name)!.metadata
					const patch = { metadata: { uid, resourceVersion }, spec: { podCIDR: podCIDRs[0], podCIDRs } }
					await turn.patch(nodes, name, patch).catch((e: unknown) => {
						if (!isNotFound(e)) throw e
					})
				}),
			)
			return undefined
		},
	})
	view.onChange((_, before, after) => {
		// A share that comes free may serve a node that has none.
		if (after === undefined || (before?.spec?.podCIDR ?? after.spec?.podCIDR) === undefined)
			controller.queue.add('nodes')
	})
	return controller
}

/** A node may come back, or only be late: its pods are kept for so long. */
const quarantine = 40_000

/** Deletes, at once and without grace, the pods of a node that does not exist: nobody is there to end them. */
export function podCollector(cluster: Cluster): Controller {
	const nodeView = cluster.views.of(nodes)
	const podView = cluster.views.of(pods)
	const byNode = podView.index('node', (pod) => (pod.spec?.nodeName === undefined ? [] : [pod.spec.nodeName]))
	const missingSince = new Map<string, number>()
	const controller = createController(cluster, {
		name: 'pod-garbage-collector',
		parallel: 4,
		async reconcile(name, turn) {
			const orphans = [...byNode.get(name)]
			if (nodeView.get(name) !== undefined || orphans.length === 0) {
				missingSince.delete(name)
				return undefined
			}
			const since = missingSince.get(name) ?? turn.now
			missingSince.set(name, since)
			if (turn.now < since + quarantine) return since + quarantine - turn.now
			if ((await cluster.client.find(nodes, name)) !== undefined) return undefined
			await Promise.all(orphans.map((pod) => turn.delete(pods, pod, { gracePeriodSeconds: 0 })))
			missingSince.delete(name)
			return undefined
		},
	})
	const due = (pod: Pod): void => {
		const node = pod.spec?.nodeName
		if (node !== undefined && nodeView.get(node) === undefined) controller.queue.add(node)
	}
	podView.onChange((_, before, after) => {
		if (after !== undefined && before?.spec?.nodeName !== after.spec?.nodeName) due(after)
	})
	nodeView.onChange((key, before, after) => {
		if ((before === undefined) !== (after === undefined)) controller.queue.add(key)
	})
	return controller
}
