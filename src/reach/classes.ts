// Identities: addresses of pods that no policy can tell apart. Equal namespace, labels, named ports, family and piece of
// the address space make one class, however many pods it has and wherever they run.

import { cidrAddress, familyOf, type Ip, type IpFamily } from '../base/ip.ts'
import { controllerLabels } from '../model/labels.ts'
import type { NetworkModel, Pod } from '../model/network.ts'
import type { ObjectKey } from '../model/origin.ts'
import { type AddressSpace, type Position, positionOf } from './addresses.ts'

export interface NamedPort {
	readonly name: string
	readonly protocol: string
	readonly port: number
}

export interface EndClass {
	readonly id: number
	readonly namespace: string
	/** Those of one of its pods: all that a selector may ask for are alike. */
	readonly labels: Readonly<Record<string, string>>
	readonly namedPorts: readonly NamedPort[]
	/** Equal named ports, equal number. */
	readonly portsId: number
	readonly family: IpFamily
	/** Lowest and highest address that any of its pods ever had. */
	low: Position
	high: Position
	/** Its pods; empty where all have gone. */
	readonly pods: Set<ObjectKey>
}

/** Class 0 is nobody that exists: any pod that may come, in any namespace, with any labels. */
export const anyPod = 0

export class ClassIndex {
	readonly classes: EndClass[]
	readonly postings = new Map<string, number[]>()
	readonly byNamespace = new Map<string, number[]>()
	readonly #ids = new Map<string, number>()
	readonly #ofPod = new Map<ObjectKey, readonly number[]>()
	readonly #ports = new Map<string, number>([['', 0]])
	readonly #named: ReadonlySet<string>
	#fallback: Ip

	/** `named`: the label keys that selectors name. */
	constructor(model: Pick<NetworkModel, 'config'>, named: ReadonlySet<string>) {
		this.#named = named
		this.#fallback = fallbackIp(model)
		const position = positionOf(this.#fallback)
		this.classes = [
			{
				id: anyPod,
				namespace: '',
				labels: {},
				namedPorts: [],
				portsId: 0,
				family: familyOf(this.#fallback),
				low: position,
				high: position,
				pods: new Set(),
			},
		]
	}

	/** Whether a selector may ask for this key without all classes being made anew. */
	knows(key: string): boolean {
		return this.#named.has(key) || !controllerLabels.has(key)
	}

	classesOf(pod: ObjectKey): readonly number[] {
		return this.#ofPod.get(pod) ?? []
	}

	/** The classes of the pod's addresses; `onNew` is called for each that did not exist. */
	add(pod: Pod, space: AddressSpace, onNew: (id: number) => void): readonly number[] {
		const labels = this.#labelsText(pod.labels)
		const named = namedPortsOf(pod)
		const portsText = named.length === 0 ? '' : named.map((p) => `${p.name}/${p.protocol}/${p.port}`).join()
		let portsId = this.#ports.get(portsText)
		if (portsId === undefined) this.#ports.set(portsText, (portsId = this.#ports.size))
		const ids: number[] = []
		for (const ip of pod.ips.length === 0 ? [this.#fallback] : pod.ips) {
			const family = familyOf(ip)
			const position = positionOf(ip)
			const key = `${pod.namespace}\n${space.pieceOf(family, position)}\n${portsId}\n${labels}`
			let id = this.#ids.get(key)
			if (id === undefined) {
				id = this.classes.length
				this.#ids.set(key, id)
				this.classes.push({
					id,
					namespace: pod.namespace,
					labels: pod.labels,
					namedPorts: named,
					portsId,
					family,
					low: position,
					high: position,
					pods: new Set(),
				})
				for (const [name, value] of Object.entries(pod.labels)) post(this.postings, `${name}=${value}`, id)
				post(this.byNamespace, pod.namespace, id)
				onNew(id)
			}
			const found = this.classes[id]!
			if (position < found.low) found.low = position
			if (position > found.high) found.high = position
			found.pods.add(pod.key)
			if (!ids.includes(id)) ids.push(id)
		}
		this.#ofPod.set(pod.key, ids)
		return ids
	}

	remove(pod: ObjectKey): readonly number[] {
		const ids = this.classesOf(pod)
		for (const id of ids) this.classes[id]!.pods.delete(pod)
		this.#ofPod.delete(pod)
		return ids
	}

	/** Whether every class still lies within one piece, so that a network holds all of it or nothing. */
	fits(space: AddressSpace): boolean {
		return this.classes.every((c) => space.pieceOf(c.family, c.low) === space.pieceOf(c.family, c.high))
	}

	/** Pieces are numbered anew: the keys of classes must be those of the new space. */
	renumber(space: AddressSpace): void {
		const entries = [...this.#ids]
		this.#ids.clear()
		for (const [key, id] of entries) {
			const [namespace, , ...rest] = key.split('\n')
			const { family, low } = this.classes[id]!
			this.#ids.set([namespace, space.pieceOf(family, low), ...rest].join('\n'), id)
		}
	}

	#labelsText(labels: Readonly<Record<string, string>>): string {
		const parts: string[] = []
		for (const key in labels) {
			if (Object.hasOwn(labels, key) && (!controllerLabels.has(key) || this.#named.has(key)))
				parts.push(`${key}=${labels[key]}`)
		}
		return parts.length > 1 ? parts.sort().join() : parts.join()
	}
}

function post(map: Map<string, number[]>, key: string, id: number): void {
	const list = map.get(key)
	if (list === undefined) map.set(key, [id])
	else list.push(id)
}

function namedPortsOf(pod: Pod): readonly NamedPort[] {
	const named: NamedPort[] = []
	for (const { name, protocol, port } of pod.ports) if (name !== undefined) named.push({ name, protocol, port })
	return named.length > 1
		? named.sort((a, b) => (`${a.name}/${a.protocol}/${a.port}` < `${b.name}/${b.protocol}/${b.port}` ? -1 : 1))
		: named
}

/** Stands for "some address of the pod network" where a pod has none yet; no pod ever has the network's own address. */
function fallbackIp(model: Pick<NetworkModel, 'config'>): Ip {
	const cidr = model.config.podCidrs[0]
	return cidr === undefined ? ('0.0.0.0' as Ip) : cidrAddress(cidr)
}

/** A pod with an address of its own that may send and receive: not hostNetwork, not finished. */
export function hasIdentity(pod: Pod): boolean {
	return !pod.hostNetwork && pod.phase !== 'Succeeded' && pod.phase !== 'Failed'
}
