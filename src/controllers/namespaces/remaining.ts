// What a namespace that is being deleted still waits for, in its conditions. Pure.

import type { Namespace } from '../../kube/objects/core.ts'
import type { Condition, KubeObject } from '../../kube/objects/meta.ts'
import { conditionOf, timestamp, withoutCondition } from '../conditions.ts'

/** Objects left of one resource, named as `pods.` or `deployments.apps`. */
export interface Remaining {
	readonly resource: string
	readonly objects: readonly KubeObject[]
}

/** The conditions for what is left, in the words of Kubernetes. */
export function remainingConditions(
	namespace: Namespace,
	remaining: readonly Remaining[],
	now: number,
): readonly Condition[] {
	const finalizers = new Map<string, number>()
	for (const { objects } of remaining) {
		for (const object of objects) {
			for (const name of object.metadata.finalizers ?? []) finalizers.set(name, (finalizers.get(name) ?? 0) + 1)
		}
	}
	const content = remaining
		.filter(({ objects }) => objects.length > 0)
		.map(({ resource, objects }) => `${resource} has ${objects.length} resource instances`)
	const held = [...finalizers].map(([name, count]) => `${name} in ${count} resource instances`)
	const say = (
		type: string,
		left: readonly string[],
		some: string,
		reasons: readonly [string, string],
		none: string,
	) => {
		const status = left.length > 0 ? 'True' : 'False'
		const before = conditionOf(namespace.status?.conditions, type)
		const since = before?.status === status ? before.lastTransitionTime : undefined
		return {
			type,
			status,
			lastTransitionTime: since ?? timestamp(now),
			reason: status === 'True' ? reasons[0] : reasons[1],
			message: status === 'True' ? `${some}: ${[...left].sort().join(', ')}` : none,
		} satisfies Condition
	}
	const ofContent = say(
		'NamespaceContentRemaining',
		content,
		'Some resources are remaining',
		['SomeResourcesRemain', 'ContentRemoved'],
		'All content successfully removed',
	)
	const ofFinalizers = say(
		'NamespaceFinalizersRemaining',
		held,
		'Some content in the namespace has finalizers remaining',
		['SomeFinalizersRemain', 'ContentHasNoFinalizers'],
		'All content-preserving finalizers finished',
	)
	const others = withoutCondition(withoutCondition(namespace.status?.conditions, ofContent.type), ofFinalizers.type)
	return [...others, ofContent, ofFinalizers]
}
