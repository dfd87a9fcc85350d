// Who owns whom, over all kinds, by uid; and what an object's owners mean for it. Pure but for the graph itself.

import type { Kind } from '../../kube/kinds.ts'
import type { KubeObject, OwnerReference } from '../../kube/objects/meta.ts'

export const foregroundFinalizer = 'foregroundDeletion'
export const orphanFinalizer = 'orphan'

export interface Item {
	readonly kind: Kind
	readonly object: KubeObject
}

export interface Graph {
	get(uid: string): Item | undefined
	items(): Iterable<Item>
	/** What names this uid among its owners. */
	dependentsOf(uid: string): Iterable<Item>
	/** Takes over a change of one object. */
	change(kind: Kind, before: KubeObject | undefined, after: KubeObject | undefined): void
}

export function createGraph(): Graph {
	const items = new Map<string, Item>()
	const dependents = new Map<string, Set<string>>()
	const unlink = (uid: string, owner: string): void => {
		const set = dependents.get(owner)
		set?.delete(uid)
		if (set?.size === 0) dependents.delete(owner)
	}
	return {
		get: (uid) => items.get(uid),
		items: () => items.values(),
		*dependentsOf(uid) {
			for (const dependent of dependents.get(uid) ?? []) {
				const item = items.get(dependent)
				if (item !== undefined) yield item
			}
		},
		change(kind, before, after) {
			const old = before?.metadata.uid
			const uid = after?.metadata.uid
			if (old !== undefined) for (const owner of before?.metadata.ownerReferences ?? []) unlink(old, owner.uid)
			if (old !== undefined && old !== uid) items.delete(old)
			if (after === undefined || uid === undefined) return
			items.set(uid, { kind, object: after })
			for (const owner of after.metadata.ownerReferences ?? []) {
				const set = dependents.get(owner.uid)
				if (set === undefined) dependents.set(owner.uid, new Set([uid]))
				else set.add(uid)
			}
		},
	}
}

/**
 * What an owner is to its dependent: `solid` keeps it alive; `dangling` does not exist; `waiting` is being deleted in
 * the foreground and stays until its dependents are gone; `unknown` is of a kind nobody can look up.
 */
export type OwnerState = 'solid' | 'dangling' | 'waiting' | 'unknown'

export type Verdict =
	| { readonly do: 'nothing' }
	/** Some owners are no more, another lives: forget those (by uid). */
	| { readonly do: 'forget'; readonly owners: ReadonlySet<string> }
	| { readonly do: 'delete'; readonly policy: 'Background' | 'Foreground' | 'Orphan' }

export function isDeleting(object: KubeObject): boolean {
	return object.metadata.deletionTimestamp !== undefined
}

export function hasFinalizer(object: KubeObject, finalizer: string): boolean {
	return object.metadata.finalizers?.includes(finalizer) ?? false
}

/** Being deleted, and held until its dependents are gone. */
export function isWaiting(object: KubeObject): boolean {
	return isDeleting(object) && hasFinalizer(object, foregroundFinalizer)
}

/** What becomes of an object that is not being deleted, given what each of its owners is to it. */
export function judge(
	object: KubeObject,
	states: readonly { readonly owner: OwnerReference; readonly state: OwnerState }[],
	hasDependents: boolean,
): Verdict {
	const of = (state: OwnerState) => states.filter((s) => s.state === state).map((s) => s.owner.uid)
	if (of('unknown').length > 0) return { do: 'nothing' }
	const gone = [...of('dangling'), ...of('waiting')]
	if (gone.length === 0) return { do: 'nothing' }
	if (of('solid').length > 0) return { do: 'forget', owners: new Set(gone) }
	// Its owner waits for it, and it has dependents of its own: they go first.
	if (of('waiting').length > 0 && hasDependents) return { do: 'delete', policy: 'Foreground' }
	if (hasFinalizer(object, orphanFinalizer)) return { do: 'delete', policy: 'Orphan' }
	if (hasFinalizer(object, foregroundFinalizer)) return { do: 'delete', policy: 'Foreground' }
	return { do: 'delete', policy: 'Background' }
}
