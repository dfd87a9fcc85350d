// Watches over the nodes: one that shows no sign of life for a while is not ready, its pods neither, new pods are kept
// away and those on it driven out. When it is back, so is everything. And pods leave nodes whose taints they do not
// tolerate, whoever put them there.

import { leases, nodes, pods } from '../../kube/kinds.ts'
import type { Node, Taint } from '../../kube/objects/core.ts'
import { keyOf } from '../../kube/objects/meta.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { timestamp } from '../conditions.ts'
import { type Cluster, type Controller, createController } from '../controller.ts'
import { canonicalJson } from '../hash.ts'
import { isPodActive, isPodReady, isPodTerminal } from '../pods.ts'
import { evictionModes, evictionTime, planTaints, readiness, signOfLife, silentConditions } from './lifecycle.ts'

const leaseNamespace = 'kube-node-lease'
/** A node whose kubelet has never said anything is given more time. */
const startupFactor = 1.5

/** `grace`: milliseconds without a sign of life until a node counts as silent (kube-controller-manager: 40 s). */
export function nodeMonitor(cluster: Cluster, grace: number): Controller {
	const { clock, views, signal } = cluster
	const nodeView = views.of(nodes)
	const leaseView = views.of(leases)
	const byNode = views.of(pods).index('node', onNode)
	/** The last sign of life of each node, and when we saw it by our own clock: those of the nodes may differ. */
	const seen = new Map<string, { readonly sign: string; readonly at: number }>()

	const look = (name: string, now: number): number => {
		const node = nodeView.get(name)
		if (node === undefined) {
			seen.delete(name)
			return now
		}
		const sign = signOfLife(node, leaseView.get(`${leaseNamespace}/${name}`))
		const last = seen.get(name)
		if (last?.sign === sign) return last.at
		seen.set(name, { sign, at: now })
		return now
	}
	const isOverdue = (node: Node, now: number): boolean =>
		now - look(node.metadata.name, now) > (readiness(node) === undefined ? grace * startupFactor : grace)

	const controller = createController(cluster, {
		name: 'node-lifecycle-controller',
		async reconcile(name, turn) {
			const node = nodeView.get(name)
			if (node === undefined) {
				look(name, turn.now)
				return undefined
			}
			const { uid, resourceVersion } = node.metadata
			if (isOverdue(node, turn.now)) {
				const conditions = silentConditions(node, turn.now)
				if (conditions !== undefined) {
					const patch = { metadata: { uid, resourceVersion }, status: { conditions } }
					await turn.patch(nodes, name, patch, { subresource: 'status' })
					const message = `Node ${name} status is now: NodeNotReady`
					cluster.recorder.record('node-controller', node, 'Normal', 'NodeNotReady', message)
					// What follows from it follows when the copy shows it.
					return undefined
				}
			}
			const ready = readiness(node)
			await Promise.all([
				writeTaints(node),
				...(ready === undefined || ready === 'True' ? [] : [...byNode.get(name)].map(markNotReady)),
			])
			return undefined

			async function writeTaints(of: Node): Promise<void> {
				const taints = planTaints(of, evictionModes(nodeView.values())(of), turn.now)
				if (taints !== undefined)
					await turn.patch(nodes, name, { metadata: { uid, resourceVersion }, spec: { taints } })
			}

			/** The kubelet that would say so is silent: Services must not send there any more. */
			async function markNotReady(pod: Pod): Promise<void> {
				if (!isPodReady(pod) || isPodTerminal(pod)) return
				const conditions = (pod.status?.conditions ?? []).map((c) =>
					c.type === 'Ready' ? { ...c, status: 'False' as const, lastTransitionTime: timestamp(turn.now) } : c,
				)
				const metadata = { uid: pod.metadata.uid, resourceVersion: pod.metadata.resourceVersion }
				await turn.patch(pods, keyOf(pod), { metadata, status: { conditions } }, { subresource: 'status' })
				cluster.recorder.record('node-controller', pod, 'Warning', 'NodeNotReady', 'Node is not ready')
			}
		},
	})

	leaseView.onChange((key) => {
		if (key.startsWith(`${leaseNamespace}/`)) look(key.slice(leaseNamespace.length + 1), clock.now())
	})
	nodeView.onChange((name, before, after) => {
		look(name, clock.now())
		controller.queue.add(name)
		// How many are silent decides about all of them.
		const changed = (before && readiness(before)) !== (after && readiness(after))
		if (changed) for (const node of nodeView.values()) controller.queue.add(node.metadata.name)
	})
	views.of(pods).onChange((_, before, after) => {
		// Ready, or bound, on a node that is not: a kubelet's last word that came late.
		const name = after?.spec?.nodeName
		if (name === undefined || (before !== undefined && isPodReady(before)) || !isPodReady(after!)) return
		const node = nodeView.get(name)
		if (node !== undefined && readiness(node) !== 'True') controller.queue.add(name)
	})

	const period = grace / 8
	let last = clock.now()
	let cancel = (): void => {}
	const tick = (): void => {
		const now = clock.now()
		// We have slept ourselves (a suspended machine, a stopped process): what we did not see proves nothing.
		const slept = now - last - period
		if (slept > period) for (const [name, { sign, at }] of seen) seen.set(name, { sign, at: at + slept })
		last = now
		for (const node of nodeView.values()) {
			if (readiness(node) !== 'Unknown' && isOverdue(node, now)) controller.queue.add(node.metadata.name)
		}
		cancel = clock.after(period, tick)
	}
	cancel = clock.after(period, tick)
	signal.addEventListener('abort', () => cancel(), { once: true })
	return controller
}

function onNode(pod: Pod): readonly string[] {
	return pod.spec?.nodeName === undefined ? [] : [pod.spec.nodeName]
}

/** Deletes pods that do not, or no longer, tolerate a NoExecute taint of their node. */
export function taintEviction(cluster: Cluster): Controller {
	const { clock, views } = cluster
	const nodeView = views.of(nodes)
	const podView = views.of(pods)
	const byNode = podView.index('node', onNode)
	/** When we first saw each taint that does not say itself since when it is there. */
	const seen = new Map<string, number>()
	const taintsOf = (node: Node | undefined): readonly Taint[] =>
		(node?.spec?.taints ?? []).filter((taint) => taint.effect === 'NoExecute')
	const controller = createController(cluster, {
		name: 'taint-eviction-controller',
		async reconcile(key, turn) {
			const pod = podView.get(key)
			const name = pod?.spec?.nodeName
			if (pod === undefined || name === undefined || !isPodActive(pod)) return undefined
			const taints = taintsOf(nodeView.get(name))
			const at = evictionTime(pod, taints, seen.get(name) ?? turn.now)
			if (at === undefined) return undefined
			if (at > turn.now) return at - turn.now
			const condition = {
				type: 'DisruptionTarget',
				status: 'True' as const,
				lastTransitionTime: timestamp(turn.now),
				reason: 'DeletionByTaintManager',
				message: 'Taint manager: deleting due to NoExecute taint',
			}
			const others = (pod.status?.conditions ?? []).filter(({ type }) => type !== condition.type)
			const { uid, resourceVersion } = pod.metadata
			const patch = { metadata: { uid, resourceVersion }, status: { conditions: [...others, condition] } }
			await turn.patch(pods, key, patch, { subresource: 'status' })
			cluster.recorder.record(
				'taint-eviction-controller',
				pod,
				'Normal',
				'TaintManagerEviction',
				`Marking for deletion Pod ${key}`,
			)
			await turn.delete(pods, pod)
			return undefined
		},
	})
	nodeView.onChange((name, before, after) => {
		const taints = taintsOf(after)
		if (canonicalJson(taints) === canonicalJson(taintsOf(before))) return
		if (taints.length === 0) {
			seen.delete(name)
			return
		}
		seen.set(name, clock.now())
		for (const pod of byNode.get(name)) controller.queue.add(keyOf(pod))
	})
	podView.onChange((key, before, after) => {
		if (after?.spec?.nodeName === undefined || taintsOf(nodeView.get(after.spec.nodeName)).length === 0) return
		if (before?.spec?.nodeName !== after.spec.nodeName || before.spec.tolerations !== after.spec.tolerations) {
			controller.queue.add(key)
		}
	})
	return controller
}
