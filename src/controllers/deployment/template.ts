// A Deployment's ReplicaSets told apart by their pod templates, and the annotations that number them.

import type { Deployment, ReplicaSet } from '../../kube/objects/apps.ts'
import type { PodTemplateSpec } from '../../kube/objects/pod.ts'
import { canonicalJson, templateHash } from '../hash.ts'
import { controllerReference } from '../owners.ts'
import { byCreation, desiredReplicasAnnotation, maxReplicasAnnotation, maxSurge, replicasWanted } from './replicas.ts'

export const templateHashLabel = 'pod-template-hash'
export const revisionAnnotation = 'deployment.kubernetes.io/revision'
export const revisionHistoryAnnotation = 'deployment.kubernetes.io/revision-history'

/** Annotations that belong to one object and are not handed on from a Deployment to its ReplicaSets. */
const notCopied: ReadonlySet<string> = new Set([
	'kubectl.kubernetes.io/last-applied-configuration',
	'deprecated.deployment.rollback.to',
	revisionAnnotation,
	revisionHistoryAnnotation,
	desiredReplicasAnnotation,
	maxReplicasAnnotation,
])

const texts = new WeakMap<PodTemplateSpec, string>()

/** The template as text, without the label the controller adds itself. Templates are immutable, so it is kept. */
function templateText(template: PodTemplateSpec): string {
	let text = texts.get(template)
	if (text === undefined) {
		const { [templateHashLabel]: _, ...labels } = template.metadata?.labels ?? {}
		text = canonicalJson({ ...template, metadata: { ...template.metadata, labels } })
		texts.set(template, text)
	}
	return text
}

/** The oldest ReplicaSet whose template is the Deployment's: the one to roll out to, or undefined. */
export function findNewSet(deployment: Deployment, sets: readonly ReplicaSet[]): ReplicaSet | undefined {
	const wanted = templateText(deployment.spec!.template)
	return [...sets].sort(byCreation).find((set) => templateText(set.spec!.template!) === wanted)
}

export function sameTemplate(deployment: Deployment, set: ReplicaSet): boolean {
	return templateText(deployment.spec!.template) === templateText(set.spec!.template!)
}

export function revisionOf(object: Deployment | ReplicaSet): number {
	const text = object.metadata.annotations?.[revisionAnnotation]
	return text !== undefined && /^\d+$/.test(text) ? Number(text) : 0
}

/** The revision a template rolled out now gets. */
export function nextRevision(olds: readonly ReplicaSet[]): number {
	return Math.max(0, ...olds.map(revisionOf)) + 1
}

/**
 * The annotations of the new ReplicaSet that have to change: those of the Deployment, and its revision. A ReplicaSet
 * that is rolled out again (a rollback) takes a new revision and remembers the one it had.
 */
export function annotationsToSet(
	deployment: Deployment,
	set: ReplicaSet | undefined,
	revision: number,
): Readonly<Record<string, string>> {
	const have = set?.metadata.annotations ?? {}
	const change: Record<string, string> = {}
	for (const [key, value] of Object.entries(deployment.metadata.annotations ?? {})) {
		if (!notCopied.has(key) && have[key] !== value) change[key] = value
	}
	const before = set === undefined ? 0 : revisionOf(set)
	if (before < revision) {
		change[revisionAnnotation] = String(revision)
		if (before > 0) {
			const history = have[revisionHistoryAnnotation]
			change[revisionHistoryAnnotation] =
				history === undefined || history === '' ? String(before) : `${history},${before}`
		}
	}
	return change
}

/** The annotations every ReplicaSet carries that was scaled by a Deployment of this size. */
export function sizeAnnotations(deployment: Deployment): Readonly<Record<string, string>> {
	const wanted = replicasWanted(deployment)
	return {
		[desiredReplicasAnnotation]: String(wanted),
		[maxReplicasAnnotation]: String(wanted + maxSurge(deployment)),
	}
}

/** The ReplicaSet for the Deployment's present template. */
export function makeSet(deployment: Deployment, revision: number, replicas: number): ReplicaSet {
	const { template, selector, minReadySeconds } = deployment.spec!
	const hash = templateHash(template, deployment.status?.collisionCount ?? 0)
	const labels = { ...template.metadata?.labels, [templateHashLabel]: hash }
	return {
		apiVersion: 'apps/v1',
		kind: 'ReplicaSet',
		metadata: {
			name: `${deployment.metadata.name}-${hash}`,
			namespace: deployment.metadata.namespace!,
			labels,
			annotations: { ...annotationsToSet(deployment, undefined, revision), ...sizeAnnotations(deployment) },
			ownerReferences: [controllerReference(deployment)],
		},
		spec: {
			replicas,
			...(minReadySeconds ? { minReadySeconds } : {}),
			selector: { ...selector, matchLabels: { ...selector.matchLabels, [templateHashLabel]: hash } },
			template: { ...template, metadata: { ...template.metadata, labels } },
		},
	}
}
