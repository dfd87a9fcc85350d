// Which pods a Service selects and which Services select a pod, without looking at all of either.

import type { Node, Service } from '../../kube/objects/core.ts'
import { keyOf, type Labels, type ObjectKey } from '../../kube/objects/meta.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { matchesLabels } from '../../kube/selector.ts'
import { isPodReady } from '../pods.ts'
import type { View } from '../view.ts'
import { selectsPods } from './endpoints.ts'

export interface Selection {
	podsOf(service: Service): Iterable<Pod>
	servicesOf(pod: Pod): Iterable<Service>
	podsOn(node: string): Iterable<Pod>
}

/** To be made before the views start. */
export function createSelection(services: View<Service>, pods: View<Pod>): Selection {
	const byLabel = pods.index('label', (pod) => labelPairs(pod.metadata.namespace ?? '', pod.metadata.labels))
	const byNode = pods.index('node', (pod) => (pod.spec?.nodeName === undefined ? [] : [pod.spec.nodeName]))
	// One pair is enough to find the Service by: a pod it selects has them all.
	const bySelector = services.index('selector', (service) =>
		selectsPods(service) ? labelPairs(service.metadata.namespace ?? '', service.spec?.selector).slice(0, 1) : [],
	)
	return {
		*podsOf(service) {
			const selector = service.spec?.selector ?? {}
			const pairs = labelPairs(service.metadata.namespace ?? '', selector)
			let rarest = pairs[0]
			for (const pair of pairs) if (byLabel.count(pair) < byLabel.count(rarest!)) rarest = pair
			if (rarest === undefined) return
			for (const pod of byLabel.get(rarest)) if (matchesLabels(selector, pod.metadata.labels)) yield pod
		},
		*servicesOf(pod) {
			for (const pair of labelPairs(pod.metadata.namespace ?? '', pod.metadata.labels)) {
				for (const service of bySelector.get(pair)) {
					if (matchesLabels(service.spec!.selector!, pod.metadata.labels)) yield service
				}
			}
		},
		podsOn: (node) => byNode.get(node),
	}
}

function labelPairs(namespace: string, labels: Labels | undefined): string[] {
	return Object.entries(labels ?? {}).map(([key, value]) => `${namespace} ${key}=${value}`)
}

/** Calls `due` with the Services whose endpoints a change of a pod, a Service or a node may alter. */
export function onSelectionChange(
	selection: Selection,
	views: { readonly services: View<Service>; readonly pods: View<Pod>; readonly nodes: View<Node> },
	due: (service: ObjectKey) => void,
): void {
	views.services.onChange(due)
	views.pods.onChange((_, before, after) => {
		if (before !== undefined && after !== undefined && sameToServices(before, after)) return
		if (before !== undefined) for (const service of selection.servicesOf(before)) due(keyOf(service))
		if (after !== undefined) for (const service of selection.servicesOf(after)) due(keyOf(service))
	})
	views.nodes.onChange((key, before, after) => {
		if (before !== undefined && after !== undefined && zoneOf(before) === zoneOf(after)) return
		for (const pod of selection.podsOn(key)) for (const service of selection.servicesOf(pod)) due(keyOf(service))
	})
}

function zoneOf(node: Node): string | undefined {
	return node.metadata.labels?.['topology.kubernetes.io/zone']
}

/** Nothing an endpoint shows has changed between two states of a pod. Asked at every change of every pod. */
function sameToServices(a: Pod, b: Pod): boolean {
	return (
		a.metadata.uid === b.metadata.uid &&
		(a.metadata.deletionTimestamp === undefined) === (b.metadata.deletionTimestamp === undefined) &&
		a.spec?.nodeName === b.spec?.nodeName &&
		a.status?.phase === b.status?.phase &&
		a.status?.podIP === b.status?.podIP &&
		isPodReady(a) === isPodReady(b) &&
		sameLabels(a.metadata.labels, b.metadata.labels) &&
		sameAddresses(a.status?.podIPs, b.status?.podIPs)
	)
}

function sameLabels(a: Labels = {}, b: Labels = {}): boolean {
	if (a === b) return true
	const keys = Object.keys(a)
	return keys.length === Object.keys(b).length && keys.every((key) => a[key] === b[key])
}

type Addresses = NonNullable<Pod['status']>['podIPs']

function sameAddresses(a: Addresses = [], b: Addresses = []): boolean {
	return a.length === b.length && a.every(({ ip }, i) => ip === b[i]!.ip)
}
