// The pod of a DaemonSet on one node: which nodes want one, and how it is tied to its node.

import type { ControllerRevision, DaemonSet } from '../../kube/objects/apps.ts'
import type { Node } from '../../kube/objects/core.ts'
import type { Pod, PodSpec, PodTemplateSpec, Toleration } from '../../kube/objects/pod.ts'
import { controllerReference } from '../owners.ts'
import { type NewPod, podFromTemplate } from '../pods.ts'
import { hashOf, revisionHashLabel } from '../revisions.ts'
import { matchesNode, untolerated } from '../scheduler/node-rules.ts'

const generationAnnotation = 'deprecated.daemonset.template.generation'

/** A daemon stays on a node in trouble: it may be what gets it out of it. */
function daemonTolerations(spec: PodSpec): readonly Toleration[] {
	const added: Toleration[] = [
		{ key: 'node.kubernetes.io/not-ready', operator: 'Exists', effect: 'NoExecute' },
		{ key: 'node.kubernetes.io/unreachable', operator: 'Exists', effect: 'NoExecute' },
		{ key: 'node.kubernetes.io/disk-pressure', operator: 'Exists', effect: 'NoSchedule' },
		{ key: 'node.kubernetes.io/memory-pressure', operator: 'Exists', effect: 'NoSchedule' },
		{ key: 'node.kubernetes.io/pid-pressure', operator: 'Exists', effect: 'NoSchedule' },
		{ key: 'node.kubernetes.io/unschedulable', operator: 'Exists', effect: 'NoSchedule' },
	]
	if (spec.hostNetwork === true) {
		added.push({ key: 'node.kubernetes.io/network-unavailable', operator: 'Exists', effect: 'NoSchedule' })
	}
	const have = spec.tolerations ?? []
	const isThere = (t: Toleration) =>
		have.some((h) => h.key === t.key && h.effect === t.effect && (h.operator ?? 'Equal') === t.operator)
	return [...have, ...added.filter((t) => !isThere(t))]
}

/** Whether a node wants a daemon, and whether one that is there may stay. */
export function wants(set: DaemonSet, node: Node): { readonly run: boolean; readonly keep: boolean } {
	const template = set.spec!.template.spec!
	if (template.nodeName !== undefined && template.nodeName !== '' && template.nodeName !== node.metadata.name) {
		return { run: false, keep: false }
	}
	const spec = { ...template, tolerations: daemonTolerations(template) }
	if (!matchesNode(spec, node)) return { run: false, keep: false }
	if (untolerated(spec, node, ['NoExecute']) !== undefined) return { run: false, keep: false }
	return { run: untolerated(spec, node, ['NoSchedule']) === undefined, keep: true }
}

/** Bound to its node by affinity, so that the scheduler still has its say (host ports, resources). */
export function makeDaemon(
	set: DaemonSet,
	template: PodTemplateSpec,
	revision: ControllerRevision,
	node: string,
): NewPod {
	const pod = podFromTemplate(template, controllerReference(set), set.metadata.namespace!)
	const generation = set.metadata.annotations?.[generationAnnotation]
	const { affinity } = pod.spec
	const onlyHere = {
		nodeSelectorTerms: [{ matchFields: [{ key: 'metadata.name', operator: 'In' as const, values: [node] }] }],
	}
	return {
		...pod,
		metadata: {
			...pod.metadata,
			labels: {
				...pod.metadata.labels,
				[revisionHashLabel]: hashOf(revision),
				...(generation === undefined ? {} : { 'pod-template-generation': generation }),
			},
		},
		spec: {
			...pod.spec,
			affinity: {
				...affinity,
				nodeAffinity: { ...affinity?.nodeAffinity, requiredDuringSchedulingIgnoredDuringExecution: onlyHere },
			},
			tolerations: daemonTolerations(pod.spec),
		},
	}
}

/** The node a daemon is on or was made for. */
export function nodeOfDaemon(pod: Pod): string | undefined {
	if (pod.spec?.nodeName !== undefined) return pod.spec.nodeName
	const terms = pod.spec?.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms
	const field = terms?.[0]?.matchFields?.find((f) => f.key === 'metadata.name' && f.operator === 'In')
	return field?.values?.[0]
}
