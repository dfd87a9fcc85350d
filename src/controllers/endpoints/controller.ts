// Keeps the Endpoints object of every Service that selects pods.

import { endpoints, nodes, pods, services } from '../../kube/kinds.ts'
import { type Cluster, type Controller, createController } from '../controller.ts'
import { createSelection, onSelectionChange } from '../endpointslice/selection.ts'
import { createTriggerTimes } from '../endpointslice/trigger.ts'
import { isNamespaceGoing } from '../replicaset/controller.ts'
import { planEndpoints } from './plan.ts'

export function endpointsController(cluster: Cluster): Controller {
	const { views } = cluster
	const serviceView = views.of(services)
	const podView = views.of(pods)
	const nodeView = views.of(nodes)
	const view = views.of(endpoints)
	const selection = createSelection(serviceView, podView)
	const triggers = createTriggerTimes()
	const controller = createController(cluster, {
		name: 'endpoint-controller',
		// The slices come first: these are for old clients.
		parallel: 4,
		async reconcile(key, turn) {
			const service = serviceView.get(key)
			const existing = view.get(key)
			if (service === undefined) {
				triggers.forget(key)
				if (existing !== undefined && isOurs(existing)) await turn.delete(endpoints, existing)
				return undefined
			}
			const selected = [...selection.podsOf(service)]
			const plan = planEndpoints({
				service,
				pods: selected,
				existing,
				changedAt: triggers.next(service, selected),
				nodeOf: (name) => nodeView.get(name),
			})
			try {
				if (plan.do === 'create') await turn.create(endpoints, plan.endpoints)
				else if (plan.do === 'update') await turn.update(endpoints, plan.endpoints)
			} catch (e) {
				if (!isNamespaceGoing(e)) throw e
			}
			return undefined
		},
	})
	const due = controller.queue.add
	onSelectionChange(selection, { services: serviceView, pods: podView, nodes: nodeView }, due)
	view.onChange((key, before, after) => {
		if (before !== undefined && (after === undefined || after.subsets !== before.subsets)) due(key)
		else if (before === undefined && serviceView.get(key) === undefined) due(key)
	})
	return controller
}

function isOurs(object: { readonly metadata: { readonly labels?: Readonly<Record<string, string>> } }): boolean {
	return object.metadata.labels?.['endpoints.kubernetes.io/managed-by'] === 'endpoint-controller'
}
