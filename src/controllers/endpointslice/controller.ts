// Keeps the EndpointSlices of every Service that selects pods. The path from a pod that becomes ready to the node that
// sends it traffic leads through here: one change, one write, no delay on purpose.

import { endpointSlices, nodes, pods, services } from '../../kube/kinds.ts'
import { type EndpointSlice, managedByLabel, serviceNameLabel } from '../../kube/objects/discovery.ts'
import { keyOf, namespacedKey } from '../../kube/objects/meta.ts'
import { type Cluster, type Controller, createController } from '../controller.ts'
import { isNamespaceGoing } from '../replicaset/controller.ts'
import { planSlices, sliceManager } from './plan.ts'
import { createSelection, onSelectionChange } from './selection.ts'
import { isTopologyAuto, shareText, zoneShares } from './topology.ts'
import { createTriggerTimes } from './trigger.ts'

export function endpointSliceController(cluster: Cluster): Controller {
	const { views } = cluster
	const serviceView = views.of(services)
	const podView = views.of(pods)
	const nodeView = views.of(nodes)
	const sliceView = views.of(endpointSlices)
	const selection = createSelection(serviceView, podView)
	const slicesOf = sliceView.index('service', (slice) => {
		const service = serviceOf(slice)
		return service === undefined ? [] : [service]
	})

	const triggers = createTriggerTimes()
	const controller = createController(cluster, {
		name: 'endpointslice-controller',
		async reconcile(key, turn) {
			const service = serviceView.get(key)
			const slices = [...slicesOf.get(key)]
			if (service === undefined) {
				triggers.forget(key)
				await Promise.all(slices.map((slice) => turn.delete(endpointSlices, slice)))
				return undefined
			}
			const selected = [...selection.podsOf(service)]
			const plan = planSlices({
				service,
				pods: selected,
				slices,
				shares: () => zoneShares(nodeView.values()),
				changedAt: triggers.next(service, selected),
				nodeOf: (name) => nodeView.get(name),
			})
			// What is added comes before what is taken away: an endpoint that moves is never missing.
			await Promise.all([
				...plan.create.map((slice) => turn.create(endpointSlices, slice)),
				...plan.update.map((slice) => turn.update(endpointSlices, slice)),
			]).catch((e: unknown) => {
				if (!isNamespaceGoing(e)) throw e
			})
			await Promise.all(plan.remove.map((slice) => turn.delete(endpointSlices, slice)))
			return undefined
		},
	})
	const due = controller.queue.add
	onSelectionChange(selection, { services: serviceView, pods: podView, nodes: nodeView }, due)
	nodeView.onChange((_, before, after) => {
		if (shareText(before) === shareText(after)) return
		for (const service of serviceView.values()) if (isTopologyAuto(service)) due(keyOf(service))
	})
	sliceView.onChange((_, before, after) => {
		for (const slice of [before, after]) {
			const service = slice === undefined ? undefined : serviceOf(slice)
			if (service !== undefined) due(service)
		}
	})
	return controller
}

/** The key of the Service whose slice this is, if it is ours. */
function serviceOf(slice: EndpointSlice): string | undefined {
	const { labels, namespace = '' } = slice.metadata
	const name = labels?.[serviceNameLabel]
	return name !== undefined && labels?.[managedByLabel] === sliceManager ? namespacedKey(namespace, name) : undefined
}
