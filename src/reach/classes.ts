// Identities: addresses of pods that no policy can tell apart. Equal namespace, labels, named ports, family and smallest
// network that a policy names make one class, however many pods it has and wherever they run.

import { cidrAddress, familyOf, type Ip, type IpFamily } from '../base/ip.ts'
import { controllerLabels } from '../model/labels.ts'
import type { NetworkModel, Pod } from '../model/network.ts'
import type { ObjectKey } from '../model/origin.ts'
import { type AddressSpace, type Network, type Position, positionOf } from './addresses.ts'

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
	/** The smallest network with its addresses that a policy names: tells all that have them. */
	readonly network: Network | undefined
	/** Its pods; empty where all have gone. */
	readonly pods: Set<ObjectKey>
}

/** Class 0 is nobody that exists: any pod that may come, in any namespace, with any labels. */
export const anyPod = 0

/** What other networks did to the classes. */
export interface Division {
	/** Classes that are new, with the class that their first pod was of. */
	readonly made: readonly { readonly id: number; readonly from: number }[]
	/** Classes that lost or won pods, or are no more. */
	readonly moved: ReadonlySet<number>
}

/** What of a class's key is not its network. */
interface Kind {
	readonly namespace: string
	readonly rest: string
}

interface Address {
	readonly family: IpFamily
	readonly position: Position
}

interface Placed {
	readonly addresses: readonly Address[]
	readonly ids: readonly number[]
}

export class ClassIndex {
	readonly classes: EndClass[]
	readonly postings = new Map<string, number[]>()
	readonly byNamespace = new Map<string, number[]>()
	readonly #ids = new Map<string, number>()
	readonly #kinds: Kind[] = [{ namespace: '', rest: '' }]
	readonly #ofPod = new Map<ObjectKey, Placed>()
	readonly #ports = new Map<string, number>([['', 0]])
	readonly #named: ReadonlySet<string>
	readonly #fallback: Ip
	/** Numbers of classes that are no more. */
	readonly #free: number[] = []
	#space: AddressSpace

	/** `named`: the label keys that selectors name. */
	constructor(model: Pick<NetworkModel, 'config'>, named: ReadonlySet<string>, space: AddressSpace) {
		this.#named = named
		this.#space = space
		this.#fallback = fallbackIp(model)
		this.classes = [
			{
				id: anyPod,
				namespace: '',
				labels: {},
				namedPorts: [],
				portsId: 0,
				family: familyOf(this.#fallback),
				network: undefined,
				pods: new Set(),
			},
		]
	}

	/** Whether a selector may ask for this key without all classes being made anew. */
	knows(key: string): boolean {
		return this.#named.has(key) || !controllerLabels.has(key)
	}

	classesOf(pod: ObjectKey): readonly number[] {
		return this.#ofPod.get(pod)?.ids ?? []
	}

	/** The classes of the pod's addresses; `onNew` is called for each that did not exist. */
	add(pod: Pod, onNew: (id: number) => void): readonly number[] {
		const namedPorts = namedPortsOf(pod)
		const portsText = namedPorts.length === 0 ? '' : namedPorts.map((p) => `${p.name}/${p.protocol}/${p.port}`).join()
		let portsId = this.#ports.get(portsText)
		if (portsId === undefined) this.#ports.set(portsText, (portsId = this.#ports.size))
		const kind = { namespace: pod.namespace, rest: `${portsId}\n${this.#labelsText(pod.labels)}` }
		const ids: number[] = []
		const ips = pod.ips.length === 0 ? [this.#fallback] : pod.ips
		const addresses = ips.map((ip) => ({ family: familyOf(ip), position: positionOf(ip) }))
		for (const { family, position } of addresses) {
			const network = this.#space.networkOf(family, position)
			let id = this.#ids.get(keyOf(kind, family, network))
			if (id === undefined) {
				id = this.#make(kind, { labels: pod.labels, namedPorts, portsId, family, network })
				onNew(id)
			}
			this.classes[id]!.pods.add(pod.key)
			if (!ids.includes(id)) ids.push(id)
		}
		this.#ofPod.set(pod.key, { addresses, ids })
		return ids
	}

	remove(pod: ObjectKey): readonly number[] {
		const ids = this.classesOf(pod)
		for (const id of ids) this.classes[id]!.pods.delete(pod)
		this.#ofPod.delete(pod)
		return ids
	}

	/** Policies name other networks: pods of those that came or went move, every other stays in its class. */
	divide(space: AddressSpace): Division {
		const before = this.#space
		this.#space = space
		const fresh = [...space.networks.values()].filter(({ cidr }) => !before.networks.has(cidr))
		const gone = new Set([...before.networks.keys()].filter((cidr) => !space.networks.has(cidr)))
		/** Where pods may be that move: in what is gone, and right around what is new. */
		const concerned = new Set<string>(gone)
		for (const network of fresh) {
			let around = network.around
			while (around !== undefined && !before.networks.has(around.cidr)) around = around.around
			concerned.add(around?.cidr ?? `outside ${network.family}`)
		}
		const leaving = new Set<ObjectKey>()
		for (const { network, family, pods } of this.classes) {
			if (pods.size === 0 || !concerned.has(network?.cidr ?? `outside ${family}`)) continue
			for (const pod of pods)
				for (const { family, position } of this.#ofPod.get(pod)!.addresses)
					if (space.networkOf(family, position)?.cidr !== before.networkOf(family, position)?.cidr) leaving.add(pod)
		}
		const made: { readonly id: number; readonly from: number }[] = []
		const moved = new Set<number>()
		for (const key of leaving) {
			const { addresses, ids } = this.#ofPod.get(key)!
			const kind = this.#kinds[ids[0]!]!
			const next = new Set<number>()
			for (const { family, position } of addresses) {
				const network = space.networkOf(family, position)
				let id = this.#ids.get(keyOf(kind, family, network))
				if (id === undefined) {
					const from = this.#ids.get(keyOf(kind, family, before.networkOf(family, position)))!
					id = this.#make(kind, { ...this.classes[from]!, network })
					made.push({ id, from })
				}
				next.add(id)
			}
			for (const id of ids) this.classes[id]!.pods.delete(key)
			for (const id of next) this.classes[id]!.pods.add(key)
			for (const id of [...ids, ...next]) moved.add(id)
			this.#ofPod.set(key, { addresses, ids: [...next] })
		}
		for (const { id, network } of this.classes) {
			if (network === undefined || !gone.has(network.cidr) || !this.#forget(id)) continue
			moved.add(id)
		}
		return { made, moved }
	}

	#make(kind: Kind, like: Omit<EndClass, 'id' | 'namespace' | 'pods'>): number {
		const id = this.#free.pop() ?? this.classes.length
		const { labels, namedPorts, portsId, family, network } = like
		const { namespace } = kind
		this.classes[id] = { id, namespace, labels, namedPorts, portsId, family, network, pods: new Set() }
		this.#kinds[id] = kind
		this.#ids.set(keyOf(kind, family, network), id)
		for (const [name, value] of Object.entries(labels)) post(this.postings, `${name}=${value}`, id)
		post(this.byNamespace, namespace, id)
		return id
	}

	/** The number is another class's the next time one is made. False: it was free before. */
	#forget(id: number): boolean {
		const { family, network, namespace, labels } = this.classes[id]!
		const key = keyOf(this.#kinds[id]!, family, network)
		if (this.#ids.get(key) !== id) return false
		this.#ids.delete(key)
		this.#free.push(id)
		for (const [name, value] of Object.entries(labels)) unpost(this.postings, `${name}=${value}`, id)
		unpost(this.byNamespace, namespace, id)
		return true
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

function keyOf({ namespace, rest }: Kind, family: IpFamily, network: Network | undefined): string {
	return `${namespace}\n${network?.cidr ?? family}\n${rest}`
}

function post(map: Map<string, number[]>, key: string, id: number): void {
	const list = map.get(key)
	if (list === undefined) map.set(key, [id])
	else list.push(id)
}

function unpost(map: Map<string, number[]>, key: string, id: number): void {
	const list = map.get(key)
	const at = list?.indexOf(id) ?? -1
	if (at >= 0) list!.splice(at, 1)
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
