// The objects a controller owns or may adopt, found through indexes, and the adoption itself.

import type { Kind } from '../kube/kinds.ts'
import { controllerOf, type KubeObject, keyOf, namespacedKey, type ObjectKey } from '../kube/objects/meta.ts'
import type { Turn } from './controller.ts'
import { adoptionPatch, claim, releasePatch } from './owners.ts'
import type { Index, View } from './view.ts'

/** Objects of one kind by the uid of their controller. */
export function byController<T extends KubeObject>(view: View<T>): Index<T> {
	return view.index('controller', (object) => {
		const owner = controllerOf(object)
		return owner === undefined ? [] : [owner.uid]
	})
}

/** Objects of one kind without any controller, by namespace. */
export function orphansOf<T extends KubeObject>(view: View<T>): Index<T> {
	return view.index('orphan', (object) => (controllerOf(object) === undefined ? [object.metadata.namespace ?? ''] : []))
}

export function byNamespace<T extends KubeObject>(view: View<T>): Index<T> {
	return view.index('namespace', (object) => [object.metadata.namespace ?? ''])
}

/** Calls `due` with the key of the controller of every child that changes, before and after, if it is of `kind`. */
export function onChildChange<T extends KubeObject>(
	children: View<T>,
	kind: string,
	due: (owner: ObjectKey, before: T | undefined, after: T | undefined) => void,
): void {
	children.onChange((_, before, after) => {
		const old = before === undefined ? undefined : controllerOf(before)
		const now = after === undefined ? undefined : controllerOf(after)
		const namespace = (after ?? before)!.metadata.namespace ?? ''
		if (old?.kind === kind && old.uid !== now?.uid) due(namespacedKey(namespace, old.name), before, after)
		if (now?.kind === kind) due(namespacedKey(namespace, now.name), before, after)
	})
}

/** Calls `due` with the key of every owner in the namespace that selects a child which has no controller. */
export function onOrphan<O extends KubeObject, T extends KubeObject>(
	owners: View<O>,
	children: View<T>,
	selects: (owner: O, child: T) => boolean,
	due: (owner: ObjectKey) => void,
): void {
	const inNamespace = byNamespace(owners)
	children.onChange((_, before, after) => {
		if (after === undefined || controllerOf(after) !== undefined) return
		if (before !== undefined && before.metadata.labels === after.metadata.labels) return
		for (const owner of inNamespace.get(after.metadata.namespace ?? '')) if (selects(owner, after)) due(keyOf(owner))
	})
}

/** The children `owner` has after adopting and releasing what has to be. */
export async function claimChildren<T extends KubeObject>(
	turn: Turn,
	owner: KubeObject,
	kind: Kind<T>,
	view: View<T>,
	matches: (child: T) => boolean,
): Promise<readonly T[]> {
	const owned = byController(view).get(owner.metadata.uid!)
	const orphans = orphansOf(view).get(owner.metadata.namespace ?? '')
	const claims = claim(owner, [...owned, ...orphans], matches)
	if (claims.adopt.length === 0 && claims.release.length === 0) return claims.owned
	const uid = new Set([owner.metadata.uid!])
	await Promise.all(claims.release.map((child) => turn.patch(kind, keyOf(child), releasePatch(uid, child))))
	const adopted = await Promise.all(
		claims.adopt.map((child) => turn.patch(kind, keyOf(child), adoptionPatch(owner, child))),
	)
	return [...claims.owned, ...adopted]
}
