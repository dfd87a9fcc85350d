// What a new pod gets that its author did not say. Rules: admission plugins ServiceAccount, DefaultTolerationSeconds
// and Priority.

import type { UnknownObject } from '../../kube/objects/meta.ts'
import { isObject, type Json, type JsonObject } from '../../kube/schema/json.ts'

/** Seconds a pod stays on a node that is not ready or not reachable. */
const stay = 300
const conditions = ['node.kubernetes.io/not-ready', 'node.kubernetes.io/unreachable'] as const

export function preparePod(pod: UnknownObject): UnknownObject {
	const spec = isObject(pod.spec) ? pod.spec : undefined
	if (spec === undefined) return pod
	const next: Record<string, Json | undefined> = { ...spec }
	const account = spec.serviceAccountName || spec.serviceAccount || 'default'
	next.serviceAccountName = account
	// The old name of the same field is kept equal.
	next.serviceAccount = account
	const tolerations = Array.isArray(spec.tolerations) ? (spec.tolerations as readonly JsonObject[]) : []
	const added = conditions
		.filter((key) => !tolerations.some((t) => isObject(t) && tolerates(t, key)))
		.map((key) => ({ key, operator: 'Exists', effect: 'NoExecute', tolerationSeconds: stay }))
	if (added.length > 0) next.tolerations = [...tolerations, ...added]
	if ((spec.priorityClassName ?? '') === '') {
		next.priority = 0
		next.preemptionPolicy = spec.preemptionPolicy ?? 'PreemptLowerPriority'
	}
	return { ...pod, spec: next }
}

function tolerates(toleration: JsonObject, key: string): boolean {
	const effect = toleration.effect ?? ''
	return (toleration.key === key || (toleration.key ?? '') === '') && (effect === '' || effect === 'NoExecute')
}
