// Runs StatefulSets: revisions first, then one step of the plan, then the status.

import { messageOf } from '../../base/failure.ts'
import { isAlreadyExists } from '../../kube/answer.ts'
import { controllerRevisions, type Kind, pods, statefulSets } from '../../kube/kinds.ts'
import type { ControllerRevision, StatefulSet } from '../../kube/objects/apps.ts'
import { keyOf, namespacedKey } from '../../kube/objects/meta.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { resourceOf } from '../../kube/resources.ts'
import { matchesLabelSelector } from '../../kube/selector.ts'
import { byController, claimChildren, onChildChange, onOrphan } from '../children.ts'
import { type Cluster, type Controller, createController, type Turn, writeStatus } from '../controller.ts'
import { canonicalJson } from '../hash.ts'
import { isNamespaceGoing } from '../replicaset/controller.ts'
import {
	planRevision,
	type Revised,
	type RevisionPlan,
	revisionHashLabel,
	surplusRevisions,
	templateOf,
} from '../revisions.ts'
import { planStatefulSet } from './plan.ts'
import { type Claim, claimsOf, identityLabels, makePod, ordinalOf, podNameOf } from './pods.ts'

const component = 'statefulset-controller'

export function statefulSetController(cluster: Cluster): Controller {
	const sets = cluster.views.of(statefulSets)
	const podView = cluster.views.of(pods)
	const revisionView = cluster.views.of(controllerRevisions)
	const revisionsOf = byController(revisionView)
	const selects = (set: StatefulSet, pod: Pod): boolean =>
		matchesLabelSelector(set.spec?.selector, pod.metadata.labels) && ordinalOf(set, pod) !== undefined

	const controller = createController(cluster, {
		name: component,
		async reconcile(key, turn) {
			const set = sets.get(key)
			if (set === undefined) return undefined
			const mine = await claimChildren(turn, set, pods, podView, (pod) => selects(set, pod))
			const planned = planRevision(set, [...revisionsOf.get(set.metadata.uid!)])
			const update = await writeRevision(cluster, turn, statefulSets, set, planned)
			if (update === undefined) return undefined
			const named = planned.history.find((r) => r.metadata.name === set.status?.currentRevision)
			const current = named ?? update
			const plan = planStatefulSet({
				set,
				pods: mine,
				current: current.metadata.name,
				update: update.metadata.name,
				now: turn.now,
			})
			await Promise.all(mine.map((pod) => repairIdentity(turn, set, pod)))
			await Promise.all(
				plan.create.map(({ ordinal, revision }) =>
					createPod(cluster, turn, set, revision === 'current' ? current : update, ordinal),
				),
			)
			await Promise.all(plan.remove.map((pod) => removePod(cluster, turn, set, pod)))
			await writeStatus(turn, statefulSets, set, plan.status)
			const used = new Set([current.metadata.name, update.metadata.name])
			for (const pod of mine) used.add(pod.metadata.labels?.[revisionHashLabel] ?? '')
			const limit = set.spec!.revisionHistoryLimit ?? 10
			const surplus = surplusRevisions(planned.history, (r) => used.has(r.metadata.name), limit)
			await Promise.all(surplus.map((revision) => turn.delete(controllerRevisions, revision)))
			return plan.after
		},
	})
	const due = controller.queue.add
	sets.onChange(due)
	onChildChange(podView, 'StatefulSet', due)
	onOrphan(sets, podView, selects, due)
	return controller
}

/** Writes the revision of the present template; undefined when its name is taken and another turn has to find one. */
export async function writeRevision<T extends Revised>(
	cluster: Cluster,
	turn: Turn,
	kind: Kind<T>,
	owner: T,
	{ update, write }: RevisionPlan,
): Promise<ControllerRevision | undefined> {
	if (write === undefined) return update
	if (write === 'renumber') {
		return await turn.patch(controllerRevisions, keyOf(update), { revision: update.revision })
	}
	try {
		return await turn.create(controllerRevisions, update)
	} catch (e) {
		if (isNamespaceGoing(e)) return undefined
		if (!isAlreadyExists(e)) throw e
		const taken = await cluster.client.get(controllerRevisions, keyOf(update))
		if (canonicalJson(taken.data) === canonicalJson(update.data)) return taken
		const collisionCount = (owner.status?.collisionCount ?? 0) + 1
		await turn.update(kind, { ...owner, status: { ...owner.status, collisionCount } }, { subresource: 'status' })
		return undefined
	}
}

const persistentVolumeClaims = resourceOf('v1', 'PersistentVolumeClaim') as Kind as Kind<Claim>

async function createPod(
	cluster: Cluster,
	turn: Turn,
	set: StatefulSet,
	revision: ControllerRevision,
	ordinal: number,
): Promise<void> {
	const name = podNameOf(set, ordinal)
	const said = `Pod ${name} in StatefulSet ${set.metadata.name}`
	try {
		for (const claim of claimsOf(set, ordinal)) await createClaim(cluster, turn, set, name, claim)
		await turn.create(pods, makePod(set, templateOf(revision), revision.metadata.name, ordinal))
		cluster.recorder.record(component, set, 'Normal', 'SuccessfulCreate', `create ${said} successful`)
	} catch (e) {
		if (isNamespaceGoing(e)) return
		const message = `create ${said} failed error: ${messageOf(e)}`
		cluster.recorder.record(component, set, 'Warning', 'FailedCreate', message)
		throw e
	}
}

/** A claim that is there already is the storage of an earlier pod of this ordinal: the pod gets it back. */
async function createClaim(cluster: Cluster, turn: Turn, set: StatefulSet, pod: string, claim: Claim): Promise<void> {
	const key = namespacedKey(claim.metadata.namespace!, claim.metadata.name)
	if ((await cluster.client.find(persistentVolumeClaims, key)) !== undefined) return
	await turn.create(persistentVolumeClaims, claim)
	const message = `create Claim ${claim.metadata.name} Pod ${pod} in StatefulSet ${set.metadata.name} success`
	cluster.recorder.record(component, set, 'Normal', 'SuccessfulCreate', message)
}

async function removePod(cluster: Cluster, turn: Turn, set: StatefulSet, pod: Pod): Promise<void> {
	await turn.delete(pods, pod)
	const message = `delete Pod ${pod.metadata.name} in StatefulSet ${set.metadata.name} successful`
	cluster.recorder.record(component, set, 'Normal', 'SuccessfulDelete', message)
}

async function repairIdentity(turn: Turn, set: StatefulSet, pod: Pod): Promise<void> {
	const labels = identityLabels(pod, ordinalOf(set, pod)!)
	if (labels === undefined || pod.metadata.deletionTimestamp !== undefined) return
	await turn.patch(pods, keyOf(pod), { metadata: { uid: pod.metadata.uid, labels } })
}
