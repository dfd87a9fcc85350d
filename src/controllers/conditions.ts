// Conditions of a status: set, kept and removed the way the workload controllers do it.

import type { Condition } from '../kube/objects/meta.ts'

/** An API time: UTC, to the second. */
export function timestamp(ms: number): string {
	return new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z')
}

/** An API time to the microsecond, as events and leases carry it. */
export function microTimestamp(ms: number): string {
	return new Date(ms).toISOString().replace(/(\.\d{3})Z$/, '$1000Z')
}

export function conditionOf<C extends Condition>(conditions: readonly C[] | undefined, type: string): C | undefined {
	return conditions?.find((c) => c.type === type)
}

/**
 * Puts `next` among `conditions`. One of the same status and reason stays as it is, so that its times keep telling
 * when it began; one of the same status keeps its transition time. The newest stands last.
 */
export function withCondition<C extends Condition>(conditions: readonly C[] | undefined, next: C): readonly C[] {
	const before = conditionOf(conditions, next.type)
	if (before !== undefined && before.status === next.status && before.reason === next.reason) return conditions ?? []
	const kept = before !== undefined && before.status === next.status ? before.lastTransitionTime : undefined
	const placed = kept === undefined ? next : { ...next, lastTransitionTime: kept }
	return [...withoutCondition(conditions, next.type), placed]
}

export function withoutCondition<C extends Condition>(
	conditions: readonly C[] | undefined,
	type: string,
): readonly C[] {
	return (conditions ?? []).filter((c) => c.type !== type)
}
