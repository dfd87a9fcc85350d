// Who owns what: the controller reference, and which of the objects at hand a controller may call its own.

import { controllerOf, type KubeObject, type OwnerReference } from '../kube/objects/meta.ts'

/** The reference an owner puts on what it creates. */
export function controllerReference(owner: KubeObject): OwnerReference {
	return {
		apiVersion: owner.apiVersion,
		kind: owner.kind,
		name: owner.metadata.name,
		uid: owner.metadata.uid!,
		controller: true,
		blockOwnerDeletion: true,
	}
}

export interface Claims<T> {
	/** Owned already and still selected. */
	readonly owned: readonly T[]
	/** Selected, without any controller: to be adopted. */
	readonly adopt: readonly T[]
	/** Owned, but selected no longer: to be let go. */
	readonly release: readonly T[]
}

/**
 * Sorts `candidates` as client-go's ControllerRefManager does: what names `owner` as its controller and matches is
 * owned, what does not match any more is released, what matches and has no controller is adopted. An owner or an
 * object that is being deleted neither adopts nor is adopted; a released object that is being deleted is left alone.
 */
export function claim<T extends KubeObject>(
	owner: KubeObject,
	candidates: Iterable<T>,
	matches: (object: T) => boolean,
): Claims<T> {
	const owned: T[] = []
	const adopt: T[] = []
	const release: T[] = []
	const ownerLives = owner.metadata.deletionTimestamp === undefined
	for (const object of candidates) {
		const reference = controllerOf(object)
		const objectLives = object.metadata.deletionTimestamp === undefined
		if (reference !== undefined) {
			if (reference.uid !== owner.metadata.uid) continue
			if (matches(object)) owned.push(object)
			else if (ownerLives && objectLives) release.push(object)
		} else if (ownerLives && objectLives && matches(object)) adopt.push(object)
	}
	return { owned, adopt, release }
}

/** The merge patch that makes `owner` the controller of `object`, provided nobody has changed it meanwhile. */
export function adoptionPatch(owner: KubeObject, object: KubeObject): object {
	return ownersPatch(object, [...(object.metadata.ownerReferences ?? []), controllerReference(owner)])
}

/** The merge patch that removes the owners with these uids from `object`, provided nobody has changed it meanwhile. */
export function releasePatch(owners: ReadonlySet<string>, object: KubeObject): object {
	return ownersPatch(
		object,
		(object.metadata.ownerReferences ?? []).filter((r) => !owners.has(r.uid)),
	)
}

/** A merge patch replaces a list whole; the uid and version keep it from undoing what somebody else did to it. */
function ownersPatch(object: KubeObject, owners: readonly OwnerReference[]): object {
	const { uid, resourceVersion } = object.metadata
	return { metadata: { uid, resourceVersion, ownerReferences: owners.length === 0 ? null : owners } }
}
