// Pods by label, so that checking many selectors does not look at every pod each time.

import type { LabelSelector, Pod } from '../network.ts'
import { selectorMatches } from '../selector.ts'

export interface PodIndex {
	/** Pods of the namespace that match, by key. */
	select(namespace: string, selector: LabelSelector): readonly Pod[]
	/** Pods of any namespace that match. */
	selectAnywhere(selector: LabelSelector): readonly Pod[]
	inNamespace(namespace: string): readonly Pod[]
}

export function indexPods(pods: Iterable<Pod>): PodIndex {
	const all = [...pods].sort((a, b) => (a.key < b.key ? -1 : 1))
	const namespaces = new Map<string, Pod[]>()
	const labels = new Map<string, Pod[]>()
	for (const pod of all) {
		add(namespaces, pod.namespace, pod)
		for (const [key, value] of Object.entries(pod.labels)) {
			add(labels, labelId(pod.namespace, key, value), pod)
			add(labels, labelId('', key, value), pod)
		}
	}
	const narrow = (namespace: string, selector: LabelSelector, otherwise: readonly Pod[]) => {
		let best = otherwise
		for (const [key, value] of Object.entries(selector.matchLabels)) {
			const list = labels.get(labelId(namespace, key, value)) ?? []
			if (list.length < best.length) best = list
		}
		return best.filter((pod) => selectorMatches(selector, pod.labels))
	}
	return {
		select: (namespace, selector) => narrow(namespace, selector, namespaces.get(namespace) ?? []),
		selectAnywhere: (selector) => narrow('', selector, all),
		inNamespace: (namespace) => namespaces.get(namespace) ?? [],
	}
}

function add(map: Map<string, Pod[]>, key: string, pod: Pod): void {
	const list = map.get(key)
	if (list === undefined) map.set(key, [pod])
	else list.push(pod)
}

function labelId(namespace: string, key: string, value: string): string {
	return `${namespace} ${key}=${value}`
}
