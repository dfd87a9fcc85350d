// What a Deployment has to have done next, as data: one step of a rollout, of scaling, or only its status.
// Follows the Deployment controller of Kubernetes; no clock, no client.

import type { Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet } from '../../kube/objects/apps.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { conditionOf, withCondition } from '../conditions.ts'
import { isPodTerminal } from '../pods.ts'
import {
	annotatedNumber,
	desiredReplicasAnnotation,
	isRolling,
	newSetReplicas,
	type Resize,
	replicasOf,
	replicasWanted,
	scaleOnly,
	shrinkOld,
} from './replicas.ts'
import { countStatus, hasDeadline, isComplete, progressing, rolloutStatus, untilDeadline } from './status.ts'
import {
	annotationsToSet,
	findNewSet,
	makeSet,
	nextRevision,
	revisionAnnotation,
	revisionOf,
	sizeAnnotations,
} from './template.ts'

export interface DeploymentFacts {
	readonly deployment: Deployment
	/** The ReplicaSets it controls. */
	readonly sets: readonly ReplicaSet[]
	/** The pods of one of them; asked for only by the strategy Recreate. */
	podsOf(set: ReplicaSet): Iterable<Pod>
	/** Milliseconds since the epoch. */
	readonly now: number
}

/** A change of one ReplicaSet. */
export interface SetChange {
	readonly set: ReplicaSet
	/** The new size, when it changes. */
	readonly replicas?: number
	readonly annotations?: Readonly<Record<string, string>>
	readonly minReadySeconds?: number
}

export interface DeploymentPlan {
	readonly create?: ReplicaSet
	readonly changes: readonly SetChange[]
	readonly remove: readonly ReplicaSet[]
	/** The Deployment's own revision annotation, when it has to change. */
	readonly revision?: string
	/** The whole status, as it should read. */
	readonly status: DeploymentStatus
	/** Milliseconds after which time alone may change the plan. */
	readonly after?: number
}

/** The next step. Applying it and planning again on what results comes to rest when the rollout is done. */
export function planDeployment(facts: DeploymentFacts): DeploymentPlan {
	const { deployment, sets, now } = facts
	const newSet = findNewSet(deployment, sets)
	const olds = sets.filter((set) => set !== newSet)
	if (deployment.metadata.deletionTimestamp !== undefined) {
		const conditions = deployment.status?.conditions ?? []
		return { changes: [], remove: [], status: countStatus({ deployment, conditions, newSet, olds, now }) }
	}
	const draft = startDraft(facts, newSet, olds)
	if (deployment.spec!.paused === true || isScaling(deployment, sets)) planScaling(draft)
	else if (isRolling(deployment)) planRolling(draft)
	else planRecreate(draft, facts)
	return finish(draft)
}

interface Draft {
	readonly deployment: Deployment
	readonly existing: ReplicaSet | undefined
	readonly olds: readonly ReplicaSet[]
	readonly now: number
	readonly revision: number
	readonly changes: Map<
		ReplicaSet,
		{ replicas?: number; annotations: Record<string, string>; minReadySeconds?: number }
	>
	create: ReplicaSet | undefined
	conditions: readonly DeploymentCondition[]
	remove: readonly ReplicaSet[]
	/** Whether the status tells of the rollout's progress (it does not while scaling or paused). */
	rollout: boolean
}

function startDraft(facts: DeploymentFacts, newSet: ReplicaSet | undefined, olds: readonly ReplicaSet[]): Draft {
	const { deployment, now } = facts
	const draft: Draft = {
		deployment,
		existing: newSet,
		olds,
		now,
		revision: nextRevision(olds),
		changes: new Map(),
		create: undefined,
		conditions: pausedCondition(deployment, now),
		remove: [],
		rollout: true,
	}
	if (newSet === undefined) return draft
	const annotations = annotationsToSet(deployment, newSet, draft.revision)
	const minReady = deployment.spec!.minReadySeconds ?? 0
	if (Object.keys(annotations).length > 0) Object.assign(changeOf(draft, newSet).annotations, annotations)
	if ((newSet.spec!.minReadySeconds ?? 0) !== minReady) changeOf(draft, newSet).minReadySeconds = minReady
	if (hasDeadline(deployment) && conditionOf(draft.conditions, 'Progressing') === undefined) {
		const message = `Found new replica set "${newSet.metadata.name}"`
		draft.conditions = withCondition(draft.conditions, progressing('True', 'FoundNewReplicaSet', message, now))
	}
	return draft
}

function changeOf(draft: Draft, set: ReplicaSet) {
	let change = draft.changes.get(set)
	if (change === undefined) draft.changes.set(set, (change = { annotations: {} }))
	return change
}

/** A size for an existing ReplicaSet, with the annotations that remember whose idea it was. */
function resize(draft: Draft, { set, replicas }: Resize): void {
	const sizes = sizeAnnotations(draft.deployment)
	const stale = Object.entries(sizes).filter(([key, value]) => set.metadata.annotations?.[key] !== value)
	if (replicas === replicasOf(set) && stale.length === 0) return
	const change = changeOf(draft, set)
	if (replicas !== replicasOf(set)) change.replicas = replicas
	Object.assign(change.annotations, Object.fromEntries(stale))
}

/** A live ReplicaSet was last sized for another number of replicas than the Deployment now wants. */
function isScaling(deployment: Deployment, sets: readonly ReplicaSet[]): boolean {
	const wanted = replicasWanted(deployment)
	return sets.some((set) => {
		const desired = annotatedNumber(set, desiredReplicasAnnotation)
		return replicasOf(set) > 0 && desired !== undefined && desired !== wanted
	})
}

function planScaling(draft: Draft): void {
	for (const step of scaleOnly(draft.deployment, draft.existing, draft.olds)) resize(draft, step)
	// A ReplicaSet already of the right size only takes the annotation, or scaling would never end.
	const single = draft.existing !== undefined && draft.olds.every((set) => replicasOf(set) === 0)
	if (single) resize(draft, { set: draft.existing!, replicas: replicasWanted(draft.deployment) })
	if (draft.deployment.spec!.paused === true) draft.remove = surplusSets(draft.deployment, draft.olds)
	draft.rollout = false
}

function planRolling(draft: Draft): void {
	const { deployment, existing, olds } = draft
	if (existing === undefined) {
		createNewSet(draft, newSetReplicas(deployment, olds, 0))
		return
	}
	const wanted = replicasWanted(deployment)
	const size = replicasOf(existing)
	const target = size > wanted ? wanted : size === wanted ? size : newSetReplicas(deployment, [...olds, existing], size)
	if (target !== size) {
		resize(draft, { set: existing, replicas: target })
		return
	}
	const shrunk = shrinkOld(deployment, existing, olds)
	for (const step of shrunk) resize(draft, step)
	if (shrunk.length === 0 && isComplete(deployment, deployment.status)) draft.remove = surplusSets(deployment, olds)
}

function planRecreate(draft: Draft, facts: DeploymentFacts): void {
	const { deployment, existing, olds } = draft
	const live = olds.filter((set) => replicasOf(set) > 0)
	for (const set of live) resize(draft, { set, replicas: 0 })
	if (live.length > 0) return
	for (const set of olds) for (const pod of facts.podsOf(set)) if (!isPodTerminal(pod)) return
	const wanted = replicasWanted(deployment)
	if (existing === undefined) createNewSet(draft, wanted)
	else if (replicasOf(existing) !== wanted) resize(draft, { set: existing, replicas: wanted })
	else if (isComplete(deployment, deployment.status)) draft.remove = surplusSets(deployment, olds)
}

function createNewSet(draft: Draft, replicas: number): void {
	draft.create = makeSet(draft.deployment, draft.revision, replicas)
	if (!hasDeadline(draft.deployment)) return
	const message = `Created new replica set "${draft.create.metadata.name}"`
	draft.conditions = withCondition(draft.conditions, progressing('True', 'NewReplicaSetCreated', message, draft.now))
}

/** Empty old ReplicaSets beyond the history limit, the lowest revisions first. */
function surplusSets(deployment: Deployment, olds: readonly ReplicaSet[]): readonly ReplicaSet[] {
	const limit = deployment.spec!.revisionHistoryLimit ?? 10
	const alive = olds.filter((set) => set.metadata.deletionTimestamp === undefined)
	const surplus = alive.length - limit
	if (surplus <= 0) return []
	return alive
		.sort((a, b) => revisionOf(a) - revisionOf(b))
		.slice(0, surplus)
		.filter(
			(set) =>
				(set.status?.replicas ?? 0) === 0 &&
				replicasOf(set) === 0 &&
				(set.metadata.generation ?? 0) <= (set.status?.observedGeneration ?? 0),
		)
}

/** Pausing and resuming are told in Progressing, unless it tells of a missed deadline already. */
function pausedCondition(deployment: Deployment, now: number): readonly DeploymentCondition[] {
	const conditions = deployment.status?.conditions ?? []
	const current = conditionOf(conditions, 'Progressing')
	if (!hasDeadline(deployment) || current?.reason === 'ProgressDeadlineExceeded') return conditions
	const paused = current?.reason === 'DeploymentPaused'
	if (deployment.spec!.paused === true && !paused) {
		return withCondition(conditions, progressing('Unknown', 'DeploymentPaused', 'Deployment is paused', now))
	}
	if (deployment.spec!.paused !== true && paused) {
		return withCondition(conditions, progressing('Unknown', 'DeploymentResumed', 'Deployment is resumed', now))
	}
	return conditions
}

function finish(draft: Draft): DeploymentPlan {
	const { deployment, existing, olds, now, conditions } = draft
	// The set about to be created counts with the size it will have, not yet with any pod.
	const facts = { deployment, conditions, newSet: draft.create ?? existing, olds: withSizes(draft, olds), now }
	const newSet = facts.newSet === undefined ? undefined : withSizes(draft, [facts.newSet])[0]
	const status = draft.rollout ? rolloutStatus({ ...facts, newSet }) : countStatus({ ...facts, newSet })
	const after = draft.rollout ? untilDeadline(deployment, status, now) : undefined
	const revision = revisionToSet(draft)
	return {
		...(draft.create === undefined ? {} : { create: draft.create }),
		changes: [...draft.changes].map(([set, { annotations, ...change }]) => ({
			set,
			...change,
			...(Object.keys(annotations).length === 0 ? {} : { annotations }),
		})),
		remove: draft.remove,
		...(revision === undefined ? {} : { revision }),
		status,
		...(after === undefined ? {} : { after }),
	}
}

function withSizes(draft: Draft, sets: readonly ReplicaSet[]): readonly ReplicaSet[] {
	return sets.map((set) => {
		const replicas = draft.changes.get(set)?.replicas
		return replicas === undefined ? set : { ...set, spec: { ...set.spec!, replicas } }
	})
}

function revisionToSet(draft: Draft): string | undefined {
	const { deployment, existing } = draft
	let revision: string | undefined
	if (draft.create !== undefined) revision = String(draft.revision)
	else if (existing !== undefined) revision = String(Math.max(draft.revision, revisionOf(existing)))
	if (revision === undefined || deployment.metadata.annotations?.[revisionAnnotation] === revision) return undefined
	return revision
}
