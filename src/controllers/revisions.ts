// The history of a StatefulSet's or a DaemonSet's pod template as ControllerRevisions: what `kubectl rollout history`
// lists and `rollout undo` goes back to. Pure.

import type { ControllerRevision, DaemonSet, StatefulSet } from '../kube/objects/apps.ts'
import type { PodTemplateSpec } from '../kube/objects/pod.ts'
import { canonicalJson, templateHash } from './hash.ts'
import { controllerReference } from './owners.ts'

export const revisionHashLabel = 'controller-revision-hash'
const hashLabel = 'controller.kubernetes.io/hash'

export type Revised = StatefulSet | DaemonSet

export interface RevisionPlan {
	/** The revision of the present template: to be created, moved to the end of the history, or there already. */
	readonly update: ControllerRevision
	readonly write: 'create' | 'renumber' | undefined
	/** In order of their numbers, without `update` if that is new. */
	readonly history: readonly ControllerRevision[]
}

/** Finds the revision of the template among those owned, or says which to write. */
export function planRevision(owner: Revised, owned: readonly ControllerRevision[]): RevisionPlan {
	const history = [...owned].sort((a, b) => a.revision - b.revision || (a.metadata.name < b.metadata.name ? -1 : 1))
	const last = history.at(-1)
	const data = revisionData(owner.spec!.template)
	const text = canonicalJson(data)
	const equal = history.findLast((revision) => canonicalJson(revision.data) === text)
	if (equal !== undefined && equal === last) return { update: equal, write: undefined, history }
	const number = (last?.revision ?? 0) + 1
	if (equal !== undefined) return { update: { ...equal, revision: number }, write: 'renumber', history }
	const hash = templateHash(data, owner.status?.collisionCount ?? 0)
	const update: ControllerRevision = {
		apiVersion: 'apps/v1',
		kind: 'ControllerRevision',
		metadata: {
			name: `${owner.metadata.name}-${hash}`,
			namespace: owner.metadata.namespace!,
			labels: { ...owner.spec!.template.metadata?.labels, [hashLabel]: hash },
			annotations: { ...owner.metadata.annotations },
			ownerReferences: [controllerReference(owner)],
		},
		data,
		revision: number,
	}
	return { update, write: 'create', history }
}

/** The template as the strategic patch that brings it back. */
function revisionData(template: PodTemplateSpec): unknown {
	return { spec: { template: { ...template, $patch: 'replace' } } }
}

/** The template a revision holds. */
export function templateOf(revision: ControllerRevision): PodTemplateSpec {
	const { $patch: _, ...template } = (revision.data as { spec: { template: PodTemplateSpec & { $patch?: string } } })
		.spec.template
	return template
}

/** The hash a DaemonSet's pods carry (a StatefulSet's carry the name of the revision). */
export function hashOf(revision: ControllerRevision): string {
	return revision.metadata.labels?.[hashLabel] ?? revision.metadata.name
}

/** The oldest revisions beyond `limit` that no pod is of and that are not in use. */
export function surplusRevisions(
	history: readonly ControllerRevision[],
	isUsed: (revision: ControllerRevision) => boolean,
	limit: number,
): readonly ControllerRevision[] {
	const unused = history.filter((revision) => !isUsed(revision))
	return unused.slice(0, Math.max(0, unused.length - limit))
}
