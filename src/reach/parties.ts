// Who takes part, as a person names them: workloads, with the classes and addresses of their pods.

import { familyOf, type Ip } from '../base/ip.ts'
import type { NetworkModel, NodeName, Pod } from '../model/network.ts'
import type { ObjectKey, Origin } from '../model/origin.ts'
import { anyPod } from './classes.ts'
import { ConnectionPool } from './connections.ts'
import type { Reach } from './engine.ts'

export type Member =
	/** Pods of one class; on which nodes they run. */
	| {
			readonly kind: 'pods'
			readonly class: number
			readonly pods: ObjectKey[]
			readonly nodes: Map<NodeName, number>
	  }
	/** An address of a node: a hostNetwork pod, or the node itself. */
	| { readonly kind: 'host'; readonly ip: Ip; readonly node: NodeName }

export interface Party {
	/** `shop/deploy/web`; unique. */
	readonly name: string
	readonly kind: string
	readonly namespace: string
	readonly key: ObjectKey
	readonly hostNetwork: boolean
	readonly pods: number
	readonly members: readonly Member[]
	/** A pod of it: for its ports and its origin. */
	readonly sample: Pod
	readonly origin: Origin
}

const shortKinds: Readonly<Record<string, string>> = {
	Deployment: 'deploy',
	StatefulSet: 'sts',
	DaemonSet: 'ds',
	ReplicaSet: 'rs',
	ReplicationController: 'rc',
	CronJob: 'cj',
}

/** `shop/deploy/web`; names are the same in every run. */
export function partyName(owner: Pod['owner']): string {
	const slash = owner.key.indexOf('/')
	return `${owner.key.slice(0, slash)}/${shortKinds[owner.kind] ?? owner.kind.toLowerCase()}/${owner.key.slice(slash + 1)}`
}

/** Workloads by name. Pods that have finished take no part. */
export function partiesOf(model: Pick<NetworkModel, 'pods'>, reach: Reach): readonly Party[] {
	const found = new Map<string, Party & { members: Member[]; pods: number; hostNetwork: boolean }>()
	for (const pod of [...model.pods.values()].sort((a, b) => (a.key < b.key ? -1 : 1))) {
		if (pod.phase === 'Succeeded' || pod.phase === 'Failed') continue
		const name = partyName(pod.owner)
		let party = found.get(name)
		if (party === undefined) {
			const { kind, key } = pod.owner
			party = {
				name,
				kind,
				namespace: pod.namespace,
				key,
				hostNetwork: pod.hostNetwork,
				pods: 0,
				members: [],
				sample: pod,
				origin: originOf(pod),
			}
			found.set(name, party)
		}
		party.pods++
		party.members.push(...membersOf(reach, pod, party.members))
	}
	return [...found.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
}

/** The workload at the line of its template: the names of its pods are made up. */
function originOf(pod: Pod): Origin {
	const { origin, owner } = pod
	if (owner.kind === 'Pod' || 'default' in origin) return origin
	return {
		kind: owner.kind,
		key: owner.key,
		field: 'spec.template',
		...(origin.source === undefined ? {} : { source: origin.source }),
	}
}

/** New members for a pod; where its class is one already, that one counts it. */
function membersOf(reach: Reach, pod: Pod, have: readonly Member[]): Member[] {
	const added: Member[] = []
	if (pod.hostNetwork) {
		for (const ip of pod.ips)
			if (!have.some((m) => m.kind === 'host' && m.ip === ip)) added.push({ kind: 'host', ip, node: pod.node ?? '' })
		return added
	}
	for (const id of reach.classesOf(pod.key)) {
		let member = have.find((m) => m.kind === 'pods' && m.class === id) as Extract<Member, { kind: 'pods' }> | undefined
		if (member === undefined) added.push((member = { kind: 'pods', class: id, pods: [], nodes: new Map() }))
		member.pods.push(pod.key)
		if (pod.node !== undefined) member.nodes.set(pod.node, (member.nodes.get(pod.node) ?? 0) + 1)
	}
	return added
}

/** Stands for any pod that may come. */
export const anyMember: Member = { kind: 'pods', class: anyPod, pods: [], nodes: new Map() }

export interface Allowed {
	/** Between at least one pair of pods; a number of the pool. */
	readonly some: number
	/** Between every pair. */
	readonly every: number
}

/** Undefined: there is no pair (other family, or one pod alone with itself). */
export function allowedBetween(reach: Reach, from: readonly Member[], to: readonly Member[]): Allowed | undefined {
	const { pool } = reach
	let some = -1
	let every = -1
	for (const a of from) {
		for (const b of to) {
			const pair = ofMembers(reach, a, b)
			if (pair === undefined) continue
			some = some < 0 ? pair.some : pool.unite(some, pair.some)
			every = every < 0 ? pair.every : pool.intersect(every, pair.every)
		}
	}
	return some < 0 ? undefined : { some, every }
}

function ofMembers(reach: Reach, a: Member, b: Member): Allowed | undefined {
	if (a.kind === 'pods' && b.kind === 'pods') {
		if (reach.classes[a.class]!.family !== reach.classes[b.class]!.family) return undefined
		// A pod always reaches itself; that says nothing.
		if (a.pods.length === 1 && b.pods.length === 1 && a.pods[0] === b.pods[0]) return undefined
		const both = reach.between(a.class, b.class)
		return { some: both, every: both }
	}
	if (a.kind === 'pods' && b.kind === 'host') {
		if (reach.classes[a.class]!.family !== familyOf(b.ip)) return undefined
		const out = reach.withAddress('egress', a.class, b.ip)
		return { some: out, every: out }
	}
	if (a.kind === 'host' && b.kind === 'pods') {
		if (reach.classes[b.class]!.family !== familyOf(a.ip)) return undefined
		const into = reach.withAddress('ingress', b.class, a.ip)
		// A pod's own node always gets through.
		const here = b.nodes.get(a.node) ?? 0
		return {
			some: here > 0 ? ConnectionPool.all : into,
			every: here === b.pods.length && here > 0 ? ConnectionPool.all : into,
		}
	}
	return a.kind === 'host' && b.kind === 'host' && familyOf(a.ip) === familyOf(b.ip)
		? { some: ConnectionPool.all, every: ConnectionPool.all }
		: undefined
}
