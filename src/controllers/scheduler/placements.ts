// Where pods are, as the scheduler knows it: what the API says, and what it has decided and the API does not show yet.

import type { Node } from '../../kube/objects/core.ts'
import { controllerOf, type Labels } from '../../kube/objects/meta.ts'
import type { Container, Pod } from '../../kube/objects/pod.ts'
import { parseQuantity } from '../../kube/schema/quantity.ts'

/** One node with what is on it. */
export interface Place {
	readonly node: Node
	/** By uid. */
	readonly pods: ReadonlyMap<string, Pod>
	/** Requested by the pods on it, in billionths of a unit, by resource. */
	readonly requested: ReadonlyMap<string, bigint>
	/** How many pods of one controller (its uid) are on it. */
	readonly owned: ReadonlyMap<string, number>
}

/** What the scheduler decides on. */
export interface World {
	/** By name of the node. */
	readonly places: ReadonlyMap<string, Place>
	/** Placed pods that keep others away (required anti-affinity), with their node. By uid. */
	readonly repelling: ReadonlyMap<string, { readonly pod: Pod; readonly node: string }>
	labelsOfNamespace(name: string): Labels | undefined
}

interface MutablePlace extends Place {
	node: Node
	readonly pods: Map<string, Pod>
	readonly requested: Map<string, bigint>
	readonly owned: Map<string, number>
}

/** Keeps a World current. Pods on nodes not known yet are remembered until the node comes. */
export class Placements implements World {
	readonly places = new Map<string, MutablePlace>()
	readonly repelling = new Map<string, { readonly pod: Pod; readonly node: string }>()
	readonly labelsOfNamespace: (name: string) => Labels | undefined
	readonly #at = new Map<string, { readonly pod: Pod; readonly node: string }>()
	readonly #homeless = new Map<string, Map<string, Pod>>()

	constructor(labelsOfNamespace: (name: string) => Labels | undefined) {
		this.labelsOfNamespace = labelsOfNamespace
	}

	/** The node the pod of this uid is on or will be on. */
	nodeOf(uid: string): string | undefined {
		return this.#at.get(uid)?.node
	}

	setNode(node: Node): void {
		const name = node.metadata.name
		const place = this.places.get(name)
		if (place !== undefined) {
			place.node = node
			return
		}
		this.places.set(name, { node, pods: new Map(), requested: new Map(), owned: new Map() })
		const waiting = this.#homeless.get(name)
		this.#homeless.delete(name)
		for (const pod of waiting?.values() ?? []) this.#enter(pod, name)
	}

	removeNode(name: string): void {
		const place = this.places.get(name)
		if (place === undefined) return
		this.places.delete(name)
		if (place.pods.size > 0) this.#homeless.set(name, place.pods)
	}

	/** Puts a pod on a node, moving it there if it was elsewhere. */
	put(pod: Pod, node: string): void {
		this.remove(pod.metadata.uid!)
		this.#at.set(pod.metadata.uid!, { pod, node })
		if (hasRequiredAntiAffinity(pod)) this.repelling.set(pod.metadata.uid!, { pod, node })
		this.#enter(pod, node)
	}

	remove(uid: string): void {
		const at = this.#at.get(uid)
		if (at === undefined) return
		this.#at.delete(uid)
		this.repelling.delete(uid)
		this.#homeless.get(at.node)?.delete(uid)
		const place = this.places.get(at.node)
		if (place === undefined || !place.pods.delete(uid)) return
		for (const [resource, amount] of requestsOf(at.pod)) {
			place.requested.set(resource, (place.requested.get(resource) ?? 0n) - amount)
		}
		const owner = controllerOf(at.pod)?.uid
		if (owner === undefined) return
		const left = (place.owned.get(owner) ?? 1) - 1
		if (left === 0) place.owned.delete(owner)
		else place.owned.set(owner, left)
	}

	#enter(pod: Pod, node: string): void {
		const uid = pod.metadata.uid!
		const place = this.places.get(node)
		if (place === undefined) {
			const waiting = this.#homeless.get(node) ?? new Map<string, Pod>()
			this.#homeless.set(node, waiting.set(uid, pod))
			return
		}
		place.pods.set(uid, pod)
		for (const [resource, amount] of requestsOf(pod)) {
			place.requested.set(resource, (place.requested.get(resource) ?? 0n) + amount)
		}
		const owner = controllerOf(pod)?.uid
		if (owner !== undefined) place.owned.set(owner, (place.owned.get(owner) ?? 0) + 1)
	}
}

function hasRequiredAntiAffinity(pod: Pod): boolean {
	const terms = pod.spec?.affinity?.podAntiAffinity?.requiredDuringSchedulingIgnoredDuringExecution
	return terms !== undefined && terms.length > 0
}

/** Resources by name, in billionths of a unit. */
export type Amounts = ReadonlyMap<string, bigint>

const known = new WeakMap<object, Amounts>()

/**
 * What a pod asks of a node: the sum over containers and sidecars, or the largest init container with the sidecars
 * started before it, whichever is more (KEP-753), and the overhead; and one pod.
 */
export function requestsOf(pod: Pod): Amounts {
	const spec = pod.spec
	if (spec === undefined) return new Map()
	let amounts = known.get(spec)
	if (amounts === undefined) known.set(spec, (amounts = countRequests(spec)))
	return amounts
}

function countRequests(spec: NonNullable<Pod['spec']>): Amounts {
	const sidecars = new Map<string, bigint>()
	const start = new Map<string, bigint>()
	for (const container of spec.initContainers ?? []) {
		const own = amountsOf(container)
		if (container.restartPolicy === 'Always') addTo(sidecars, own)
		else raise(start, sum(sidecars, own))
	}
	const total = new Map(sidecars)
	for (const container of spec.containers) addTo(total, amountsOf(container))
	raise(total, start)
	addTo(total, quantities(spec.overhead))
	total.set('pods', 1_000_000_000n)
	return total
}

function amountsOf(container: Container): Amounts {
	// A limit without a request asks for as much (the server's default; harmless to repeat).
	return quantities({ ...container.resources?.limits, ...container.resources?.requests })
}

export function quantities(from: Readonly<Record<string, string>> | undefined): Amounts {
	const amounts = new Map<string, bigint>()
	for (const [resource, text] of Object.entries(from ?? {})) {
		const quantity = parseQuantity(String(text))
		if (quantity !== undefined) amounts.set(resource, quantity.nano)
	}
	return amounts
}

function addTo(to: Map<string, bigint>, amounts: Amounts): void {
	for (const [resource, amount] of amounts) to.set(resource, (to.get(resource) ?? 0n) + amount)
}

function sum(a: Amounts, b: Amounts): Amounts {
	const both = new Map(a)
	addTo(both, b)
	return both
}

function raise(to: Map<string, bigint>, amounts: Amounts): void {
	for (const [resource, amount] of amounts) if (amount > (to.get(resource) ?? 0n)) to.set(resource, amount)
}
