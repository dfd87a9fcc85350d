// The end of a namespace: everything in it is deleted, then it is let go. Nothing new can come meanwhile (the server
// refuses), so the copies only have to catch up; before the last step the API itself is asked.

import { isConflict, isNotFound } from '../../kube/answer.ts'
import { events, type Kind, namespaces } from '../../kube/kinds.ts'
import type { Namespace } from '../../kube/objects/core.ts'
import { byNamespace } from '../children.ts'
import { type Cluster, type Controller, createController, type Turn } from '../controller.ts'
import { canonicalJson } from '../hash.ts'
import type { Inventory } from '../inventory.ts'
import type { View } from '../view.ts'
import { type Remaining, remainingConditions } from './remaining.ts'

const finalizer = 'kubernetes'

export function namespaceFinalizer(cluster: Cluster, inventory: Inventory): Controller {
	const view = cluster.views.of(namespaces)
	const controller = createController(cluster, {
		name: 'namespace-controller',
		async reconcile(name, turn) {
			const namespace = view.get(name)
			if (namespace?.metadata.deletionTimestamp === undefined) return undefined
			if (!(namespace.spec?.finalizers ?? []).includes(finalizer)) return undefined
			const contents = [...inventory.views()].filter((v) => v.kind.namespaced)
			const full = contents.filter((v) => byNamespace(v).count(name) > 0)
			await Promise.all(full.map((v) => clear(turn, v, name)))
			const remaining = full.map((v) => remainingIn(v, name)).filter((r) => r.objects.length > 0)
			if (remaining.length > 0) {
				await writeConditions(turn, namespace, remaining)
				return undefined
			}
			await cluster.client.deleteCollection(events, { namespace: name })
			const behind = await Promise.all(contents.map((v) => isEmpty(cluster, v.kind, name)))
			// Something the copies do not show yet: they will, and that is another turn; or in a moment.
			if (behind.includes(false)) return 50
			await release(turn, namespace)
			return undefined
		},
	})
	const due = controller.queue.add
	view.onChange((key, _, after) => {
		if (after?.metadata.deletionTimestamp !== undefined) due(key)
	})
	inventory.onView((v) => {
		if (!v.kind.namespaced) return
		byNamespace(v)
		v.onChange((_, before, after) => {
			const name = (after ?? before)!.metadata.namespace!
			if (view.get(name)?.metadata.deletionTimestamp !== undefined) due(name)
		})
	})
	return controller
}

function remainingIn(view: View, namespace: string): Remaining {
	const { group, plural } = view.kind
	return { resource: `${plural}.${group}`, objects: [...byNamespace(view).get(namespace)] }
}

/** Deletes what is not being deleted already. */
async function clear(turn: Turn, view: View, namespace: string): Promise<void> {
	const objects = [...byNamespace(view).get(namespace)].filter((o) => o.metadata.deletionTimestamp === undefined)
	const outcomes = await Promise.allSettled(
		objects.map((object) => turn.delete(view.kind, object, { propagationPolicy: 'Background' })),
	)
	for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason
}

async function isEmpty(cluster: Cluster, kind: Kind, namespace: string): Promise<boolean> {
	try {
		return (await cluster.client.list(kind, { namespace })).items.length === 0
	} catch (e) {
		if (isNotFound(e)) return true
		throw e
	}
}

async function writeConditions(turn: Turn, namespace: Namespace, remaining: readonly Remaining[]): Promise<void> {
	const conditions = remainingConditions(namespace, remaining, turn.now)
	if (canonicalJson(conditions) === canonicalJson(namespace.status?.conditions ?? [])) return
	try {
		await turn.update(
			namespaces,
			{ ...namespace, status: { ...namespace.status, conditions } },
			{ subresource: 'status' },
		)
	} catch (e) {
		if (!isConflict(e) && !isNotFound(e)) throw e
	}
}

/** Takes the finalizer away; the server removes a namespace without any. */
async function release(turn: Turn, namespace: Namespace): Promise<void> {
	const finalizers = (namespace.spec?.finalizers ?? []).filter((f) => f !== finalizer)
	try {
		await turn.update(
			namespaces,
			{ ...namespace, spec: { ...namespace.spec, finalizers } },
			{ subresource: 'finalize' },
		)
	} catch (e) {
		if (!isNotFound(e)) throw e
	}
}
