// Garbage collection by ownerReferences: what lost all its owners is deleted; an owner deleted in the foreground waits
// for its dependents, one deleted with orphaning lets them go first. Keys are uids.

import { isNotFound } from '../../kube/answer.ts'
import { type KubeObject, keyOf, namespacedKey, type OwnerReference, splitApiVersion } from '../../kube/objects/meta.ts'
import { apiVersionOf, findResource } from '../../kube/resources.ts'
import { type Cluster, type Controller, createController, type Turn } from '../controller.ts'
import type { Inventory } from '../inventory.ts'
import { releasePatch } from '../owners.ts'
import {
	createGraph,
	foregroundFinalizer,
	type Graph,
	hasFinalizer,
	type Item,
	isDeleting,
	isWaiting,
	judge,
	type OwnerState,
	orphanFinalizer,
} from './graph.ts'

export function garbageCollector(cluster: Cluster, inventory: Inventory): Controller {
	const graph = createGraph()
	const controller = createController(cluster, {
		name: 'garbage-collector',
		parallel: 32,
		async reconcile(uid, turn) {
			const item = graph.get(uid)
			if (item === undefined) return undefined
			if (isDeleting(item.object)) {
				if (hasFinalizer(item.object, orphanFinalizer)) await orphan(turn, graph, item)
				else if (isWaiting(item.object)) await waitForDependents(turn, graph, item, due)
				return undefined
			}
			await collect(cluster, inventory, turn, graph, item)
			return undefined
		},
	})
	const due = controller.queue.add
	inventory.onView((view) => {
		// Of a kind that came late: whoever has an owner of it could not be judged before.
		const { kind, group } = view.kind
		const names = ({ apiVersion, kind: named }: OwnerReference): boolean =>
			named === kind && splitApiVersion(apiVersion).group === group
		const isBuiltIn = findResource({ apiVersion: apiVersionOf(view.kind), kind }) !== undefined
		if (!isBuiltIn) {
			void view.informer.synced.then(
				() => {
					for (const { object } of graph.items()) {
						if (object.metadata.ownerReferences?.some(names)) due(object.metadata.uid!)
					}
				},
				// The definition went before its objects were read.
				() => {},
			)
		}
		view.onChange((_, before, after) => {
			graph.change(view.kind, before, after)
			const replaced = before !== undefined && before.metadata.uid !== after?.metadata.uid
			if (replaced) {
				for (const { object } of graph.dependentsOf(before.metadata.uid!)) due(object.metadata.uid!)
			}
			// An owner that waits has one dependent less to wait for.
			if (before !== undefined) wakeWaiting(graph, before, after, due)
			if (after === undefined) return
			if (!concerns(before, after)) return
			due(after.metadata.uid!)
			if (isWaiting(after)) for (const { object } of graph.dependentsOf(after.metadata.uid!)) due(object.metadata.uid!)
		})
	})
	return controller
}

/** The change is one of those the collector acts on. */
function concerns(before: KubeObject | undefined, after: KubeObject): boolean {
	const now = after.metadata
	if (now.ownerReferences === undefined && now.deletionTimestamp === undefined) return false
	if (before === undefined) return true
	const was = before.metadata
	return (
		was.uid !== now.uid ||
		was.deletionTimestamp !== now.deletionTimestamp ||
		JSON.stringify([was.ownerReferences, was.finalizers]) !== JSON.stringify([now.ownerReferences, now.finalizers])
	)
}

function wakeWaiting(
	graph: Graph,
	before: KubeObject,
	after: KubeObject | undefined,
	due: (uid: string) => void,
): void {
	for (const { uid } of before.metadata.ownerReferences ?? []) {
		if (after?.metadata.ownerReferences?.some((r) => r.uid === uid)) continue
		const owner = graph.get(uid)
		if (owner !== undefined && isWaiting(owner.object)) due(uid)
	}
}

async function collect(cluster: Cluster, inventory: Inventory, turn: Turn, graph: Graph, item: Item): Promise<void> {
	const { object, kind } = item
	const owners = object.metadata.ownerReferences ?? []
	if (owners.length === 0) return
	const states = await Promise.all(
		owners.map(async (owner) => ({ owner, state: await stateOf(cluster, inventory, graph, object, owner) })),
	)
	const hasDependents = !graph.dependentsOf(object.metadata.uid!)[Symbol.iterator]().next().done
	const verdict = judge(object, states, hasDependents)
	switch (verdict.do) {
		case 'nothing':
			return
		case 'forget':
			await turn.patch(kind, keyOf(object), releasePatch(verdict.owners, object))
			return
		case 'delete':
			// The version too: whoever gave it a new owner meanwhile is not overruled (a conflict is tried again).
			await turn.delete(kind, object, {
				propagationPolicy: verdict.policy,
				preconditions: { resourceVersion: object.metadata.resourceVersion! },
			})
			return
		default:
			verdict satisfies never
	}
}

/** Absence is asked of the API itself: the copies may be behind, and an owner of another uid is another object. */
async function stateOf(
	cluster: Cluster,
	inventory: Inventory,
	graph: Graph,
	object: KubeObject,
	owner: OwnerReference,
): Promise<OwnerState> {
	const known = graph.get(owner.uid)
	if (known !== undefined) {
		const { namespace } = known.object.metadata
		// An owner in another namespace is none, whatever its uid.
		if (namespace !== undefined && namespace !== object.metadata.namespace) return 'unknown'
		return isWaiting(known.object) ? 'waiting' : 'solid'
	}
	const kind = inventory.find(owner.apiVersion, owner.kind)
	if (kind === undefined) return 'unknown'
	const namespace = object.metadata.namespace ?? ''
	if (kind.namespaced && namespace === '') return 'unknown'
	const key = kind.namespaced ? namespacedKey(namespace, owner.name) : owner.name
	const found = await cluster.client.find(kind, key)
	if (found === undefined || found.metadata.uid !== owner.uid) return 'dangling'
	return isWaiting(found) ? 'waiting' : 'solid'
}

/** Takes itself from the owners of all its dependents, then lets itself go. */
async function orphan(turn: Turn, graph: Graph, { kind, object }: Item): Promise<void> {
	const uid = object.metadata.uid!
	const dependents = [...graph.dependentsOf(uid)]
	await Promise.all(
		dependents.map(async (dependent) => {
			try {
				await turn.patch(dependent.kind, keyOf(dependent.object), releasePatch(new Set([uid]), dependent.object))
			} catch (e) {
				if (!isNotFound(e)) throw e
			}
		}),
	)
	await removeFinalizer(turn, { kind, object }, orphanFinalizer)
}

/** Goes when no dependent is left that wants to be waited for. */
async function waitForDependents(turn: Turn, graph: Graph, item: Item, due: (uid: string) => void): Promise<void> {
	const uid = item.object.metadata.uid!
	let blocked = false
	for (const { object } of graph.dependentsOf(uid)) {
		if (!isDeleting(object)) due(object.metadata.uid!)
		if (object.metadata.ownerReferences?.some((r) => r.uid === uid && r.blockOwnerDeletion === true)) blocked = true
	}
	if (!blocked) await removeFinalizer(turn, item, foregroundFinalizer)
}

async function removeFinalizer(turn: Turn, { kind, object }: Item, finalizer: string): Promise<void> {
	const { uid, resourceVersion, finalizers = [] } = object.metadata
	const left = finalizers.filter((f) => f !== finalizer)
	const patch = { metadata: { uid, resourceVersion, finalizers: left.length === 0 ? null : left } }
	try {
		await turn.patch(kind, keyOf(object), patch)
	} catch (e) {
		if (!isNotFound(e)) throw e
	}
}
