// Whether a pod may be on a node by what both say of themselves: selectors, affinity to nodes, taints and tolerations.
// Rules: Kubernetes documentation, "Assigning Pods to Nodes", "Taints and Tolerations".

import type { Node, Taint } from '../../kube/objects/core.ts'
import type { NodeSelectorTerm, PodSpec, Toleration } from '../../kube/objects/pod.ts'
import { matchesLabels, meets } from '../../kube/selector.ts'

export const unschedulableTaint = 'node.kubernetes.io/unschedulable'

/** All of nodeSelector, and one of the required node affinity's terms. */
export function matchesNode(spec: PodSpec, node: Node): boolean {
	if (spec.nodeSelector !== undefined && !matchesLabels(spec.nodeSelector, node.metadata.labels)) return false
	const required = spec.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution
	return required === undefined || required.nodeSelectorTerms.some((term) => matchesTerm(term, node))
}

/** An empty term matches no node. */
export function matchesTerm(term: NodeSelectorTerm, node: Node): boolean {
	const labels = term.matchExpressions ?? []
	const fields = term.matchFields ?? []
	if (labels.length === 0 && fields.length === 0) return false
	const values = { 'metadata.name': node.metadata.name }
	return (
		labels.every((r) => meets({ ...r, values: r.values ?? [] }, node.metadata.labels)) &&
		fields.every((r) => meets({ ...r, values: r.values ?? [] }, values))
	)
}

export function tolerates(toleration: Toleration, taint: Taint): boolean {
	if (toleration.effect !== undefined && toleration.effect !== taint.effect) return false
	if (toleration.key !== undefined && toleration.key !== '' && toleration.key !== taint.key) return false
	switch (toleration.operator ?? 'Equal') {
		case 'Exists':
			return true
		case 'Equal':
			return (toleration.value ?? '') === (taint.value ?? '')
		case 'Gt':
		case 'Lt': {
			// KEP-5471: numeric comparison of the taint's value with the toleration's.
			const [have, want] = [Number(taint.value ?? Number.NaN), Number(toleration.value ?? Number.NaN)]
			return toleration.operator === 'Gt' ? have > want : have < want
		}
		default:
			return false
	}
}

/** The first taint with one of these effects that the pod does not tolerate. */
export function untolerated(spec: PodSpec, node: Node, effects: readonly Taint['effect'][]): Taint | undefined {
	return node.spec?.taints?.find(
		(taint) => effects.includes(taint.effect) && !spec.tolerations?.some((t) => tolerates(t, taint)),
	)
}

/** How many taints say that the pod had better not come. */
export function discouragements(spec: PodSpec, node: Node): number {
	let count = 0
	for (const taint of node.spec?.taints ?? []) {
		if (taint.effect === 'PreferNoSchedule' && !spec.tolerations?.some((t) => tolerates(t, taint))) count++
	}
	return count
}

/** A cordoned node takes only pods that tolerate it. */
export function isCordoned(spec: PodSpec, node: Node): boolean {
	const taint: Taint = { key: unschedulableTaint, effect: 'NoSchedule' }
	return node.spec?.unschedulable === true && !spec.tolerations?.some((t) => tolerates(t, taint))
}
