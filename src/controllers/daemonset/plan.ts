// What a DaemonSet does next: a pod on every node that wants one, none elsewhere, and a new version node by node.
// Follows the DaemonSet controller of Kubernetes. Pure.

import type { DaemonSet, DaemonSetStatus } from '../../kube/objects/apps.ts'
import type { Node } from '../../kube/objects/core.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { resolvePercent } from '../deployment/replicas.ts'
import { isPodReady, isPodTerminal, millisOf, soonest, untilAvailable } from '../pods.ts'
import { revisionHashLabel } from '../revisions.ts'
import { nodeOfDaemon, wants } from './pods.ts'

export interface DaemonSetFacts {
	readonly set: DaemonSet
	/** The pods it controls. */
	readonly pods: readonly Pod[]
	readonly nodes: readonly Node[]
	/** The hash of the revision to go to. */
	readonly hash: string
	readonly now: number
}

export interface DaemonSetPlan {
	/** Names of nodes that get a pod. */
	readonly create: readonly string[]
	readonly remove: readonly Pod[]
	readonly status: DaemonSetStatus
	readonly after?: number
}

/** One node that wants a daemon, with the live ones on it. */
interface Post {
	readonly node: string
	readonly old: Pod | undefined
	readonly new: Pod | undefined
}

export function planDaemonSet(facts: DaemonSetFacts): DaemonSetPlan {
	const { set, nodes, hash, now } = facts
	const minReady = set.spec!.minReadySeconds ?? 0
	const status = countStatus(facts)
	const after = minReady === 0 ? undefined : soonest(facts.pods.map((pod) => untilAvailable(pod, minReady, now)))
	const wait = after === undefined ? {} : { after }
	if (set.metadata.deletionTimestamp !== undefined) return { create: [], remove: [], status, ...wait }

	const create: string[] = []
	const remove: Pod[] = []
	const posts: Post[] = []
	const byNode = Map.groupBy(facts.pods, (pod) => nodeOfDaemon(pod) ?? '')
	for (const node of nodes) {
		const name = node.metadata.name
		const here = byNode.get(name) ?? []
		byNode.delete(name)
		const { run, keep } = wants(set, node)
		if (!keep) {
			remove.push(...here.filter(isLive))
			continue
		}
		const live = here.filter(isLive)
		const ended = live.filter(isPodTerminal)
		remove.push(...ended)
		const running = live.filter((pod) => !ended.includes(pod)).sort(byAge)
		const isNew = (pod: Pod): boolean => pod.metadata.labels?.[revisionHashLabel] === hash
		const [old, ...olds] = running.filter((pod) => !isNew(pod))
		const [fresh, ...twins] = running.filter(isNew)
		remove.push(...olds, ...twins)
		if (run && here.length === 0) create.push(name)
		if (run) posts.push({ node: name, old, new: fresh })
	}
	// Nodes that are no more: nobody else ends a pod that was never bound to one.
	for (const strays of byNode.values()) remove.push(...strays.filter(isLive))

	if (set.spec!.updateStrategy?.type !== 'OnDelete') {
		const step = rollOut(facts, posts, create.length)
		create.push(...step.create)
		remove.push(...step.remove)
	}
	return { create, remove, status, ...wait }
}

function rollOut(
	{ set, now }: DaemonSetFacts,
	posts: readonly Post[],
	missing: number,
): { readonly create: readonly string[]; readonly remove: readonly Pod[] } {
	const minReady = set.spec!.minReadySeconds ?? 0
	const available = (pod: Pod): boolean => untilAvailable(pod, minReady, now) === 0
	const rolling = set.spec!.updateStrategy?.rollingUpdate
	const surge = resolvePercent(rolling?.maxSurge ?? 0, posts.length, 'up')
	const may = resolvePercent(rolling?.maxUnavailable ?? 1, posts.length, 'up')
	const remove: Pod[] = []
	const create: string[] = []
	if (surge === 0) {
		let unavailable = missing
		const candidates: Pod[] = []
		for (const post of posts) {
			if (post.old !== undefined && post.new !== undefined) {
				// Left over from a strategy with surge.
				remove.push(post.old)
				if (!available(post.new)) unavailable++
			} else if (post.new !== undefined) {
				if (!available(post.new)) unavailable++
			} else if (post.old === undefined) {
				if (missing === 0) unavailable++
			} else if (available(post.old)) candidates.push(post.old)
			else {
				unavailable++
				remove.push(post.old)
			}
		}
		remove.push(...candidates.slice(0, Math.max(0, may - unavailable)))
		return { create, remove }
	}
	let surging = 0
	const candidates: string[] = []
	for (const post of posts) {
		if (post.old === undefined) continue
		if (post.new === undefined) {
			if (available(post.old)) candidates.push(post.node)
			else create.push(post.node)
		} else if (available(post.new)) remove.push(post.old)
		else surging++
	}
	create.push(...candidates.slice(0, Math.max(0, surge - surging - create.length)))
	return { create, remove }
}

function countStatus({ set, pods, nodes, hash, now }: DaemonSetFacts): DaemonSetStatus {
	const minReady = set.spec!.minReadySeconds ?? 0
	let [desired, current, misscheduled, ready, updated, available] = [0, 0, 0, 0, 0, 0]
	const byNode = Map.groupBy(pods.filter(isLive), (pod) => nodeOfDaemon(pod) ?? '')
	for (const node of nodes) {
		const here = (byNode.get(node.metadata.name) ?? []).sort(byAge)
		const [oldest] = here
		if (!wants(set, node).run) {
			if (oldest !== undefined) misscheduled++
			continue
		}
		desired++
		if (oldest === undefined) continue
		current++
		if (here.some(isPodReady)) ready++
		if (here.some((pod) => untilAvailable(pod, minReady, now) === 0)) available++
		if (here.some((pod) => pod.metadata.labels?.[revisionHashLabel] === hash)) updated++
	}
	return {
		currentNumberScheduled: current,
		numberMisscheduled: misscheduled,
		desiredNumberScheduled: desired,
		numberReady: ready,
		observedGeneration: set.metadata.generation ?? 0,
		...(updated === 0 ? {} : { updatedNumberScheduled: updated }),
		...(available === 0 ? {} : { numberAvailable: available }),
		...(desired - available === 0 ? {} : { numberUnavailable: desired - available }),
		...(set.status?.collisionCount === undefined ? {} : { collisionCount: set.status.collisionCount }),
		...(set.status?.conditions === undefined ? {} : { conditions: set.status.conditions }),
	}
}

function isLive(pod: Pod): boolean {
	return pod.metadata.deletionTimestamp === undefined
}

function byAge(a: Pod, b: Pod): number {
	return (
		millisOf(a.metadata.creationTimestamp) - millisOf(b.metadata.creationTimestamp) ||
		(a.metadata.name < b.metadata.name ? -1 : 1)
	)
}
