// Policies as sets of classes and ports. A selector is evaluated once for all classes, however many policies write it.

import { type Cidr, cidrLength, hostCidr } from '../base/ip.ts'
import { unitePorts } from '../base/ports.ts'
import { namespaceNameLabel } from '../model/labels.ts'
import type {
	LabelSelector,
	NetworkModel,
	Policy,
	PolicyPort,
	TieredPeer,
	TieredPolicy,
	TieredRule,
} from '../model/network.ts'
import type { Origin } from '../model/origin.ts'
import type { PolicyProfile } from '../model/policy-profile.ts'
import { selectorMatches } from '../model/selector.ts'
import { intervalOf, isWithin } from './addresses.ts'
import { Bits } from './bits.ts'
import { anyPod, type ClassIndex, type EndClass } from './classes.ts'
import { type ConnectionPool, connectionsOf, noConnections } from './connections.ts'

/** A predicate over classes and its value for each of them. */
export interface Matcher {
	readonly kind: 'pods' | 'namespaces' | 'block'
	readonly bits: Bits
	matches(end: EndClass): boolean
}

export interface Block {
	/** What a profile may keep from meaning nodes; undefined: an address of a node that the rule names as one. */
	readonly network?: true
	readonly cidr: Cidr
	readonly except: readonly Cidr[]
}

export interface CompiledPeer {
	/** All must match. Empty: no class does. */
	readonly matchers: readonly Matcher[]
	/** Addresses that are no pod's: networks without their exceptions. */
	readonly blocks: readonly Block[]
	readonly origin: Origin
}

export interface CompiledRule {
	readonly action: TieredRule['action']
	/** Undefined: anybody. */
	readonly peers?: readonly CompiledPeer[]
	/** Ports by number. */
	readonly fixed: number
	/** Ports by name: what they are depends on the destination. */
	readonly names: readonly PolicyPort[]
	/** By `portsId` of the destination. */
	readonly resolved: Map<number, number>
	readonly origin: Origin
}

export interface CompiledPolicy {
	readonly serial: number
	readonly key: string
	/** Undefined: NetworkPolicy. */
	readonly tier?: TieredPolicy['tier']
	/** On trial: it denies nothing by itself. */
	readonly audit: boolean
	readonly subject: readonly Matcher[]
	readonly ingress?: readonly CompiledRule[]
	readonly egress?: readonly CompiledRule[]
	readonly cidrs: readonly Cidr[]
	readonly origin: Origin
}

export class Compiler {
	readonly matchers = new Map<string, Matcher>()
	readonly #index: ClassIndex
	readonly #pool: ConnectionPool
	#namespaces: NetworkModel['namespaces']
	readonly #nodes: NetworkModel['nodes'] | undefined
	readonly #profile: PolicyProfile
	#serial = 0

	constructor(
		index: ClassIndex,
		pool: ConnectionPool,
		model: Pick<NetworkModel, 'namespaces'> & Partial<Pick<NetworkModel, 'nodes'>>,
		profile: PolicyProfile,
	) {
		this.#profile = profile
		this.#index = index
		this.#pool = pool
		this.#namespaces = model.namespaces
		this.#nodes = model.nodes
	}

	/** A class that is new: what every matcher says of it. */
	addClass(id: number): void {
		const end = this.#index.classes[id]!
		for (const matcher of this.matchers.values()) matcher.bits.set(id, matcher.matches(end))
	}

	/** A class that was part of another until a network divided them: only networks tell them apart. */
	divideClass(id: number, from: number): void {
		const end = this.#index.classes[id]!
		for (const { kind, bits, matches } of this.matchers.values())
			bits.set(id, kind === 'block' ? matches(end) : bits.has(from))
	}

	/** Labels of namespaces changed: their classes may match otherwise. */
	setNamespaces(namespaces: NetworkModel['namespaces'], changed: Iterable<number>): void {
		this.#namespaces = namespaces
		const ends = [...changed].map((id) => this.#index.classes[id]!)
		for (const matcher of this.matchers.values()) {
			if (matcher.kind === 'namespaces') for (const end of ends) matcher.bits.set(end.id, matcher.matches(end))
		}
	}

	compile(policy: Policy): CompiledPolicy {
		const rules = (list: Policy['ingress']) =>
			list?.map(({ peers, ports, origin }) =>
				this.#rule('Accept', peers.length === 0 ? undefined : peers, ports, origin, policy.namespace),
			)
		const ingress = rules(policy.ingress)
		const egress = rules(policy.egress)
		return {
			serial: ++this.#serial,
			key: policy.key,
			audit: policy.audit !== undefined,
			subject: [this.#inNamespace(policy.namespace), this.#pods(policy.subject)],
			...(ingress === undefined ? {} : { ingress }),
			...(egress === undefined ? {} : { egress }),
			cidrs: cidrsOfPolicy(policy, this.#nodes),
			origin: policy.origin,
		}
	}

	compileTier(policy: TieredPolicy): CompiledPolicy {
		const rules = (list: TieredPolicy['ingress']) =>
			list.map(({ action, peers, ports, origin }) => this.#rule(action, peers, ports, origin, ''))
		const { namespaces, pods } = policy.subject
		return {
			serial: ++this.#serial,
			key: `${policy.kind} ${policy.key}`,
			tier: policy.tier,
			audit: false,
			subject: [this.#namespacesOf(namespaces), ...(pods === undefined ? [] : [this.#pods(pods)])],
			ingress: rules(policy.ingress),
			egress: rules(policy.egress),
			cidrs: cidrsOfPolicy(policy, this.#nodes),
			origin: policy.origin,
		}
	}

	/** The ports a rule allows at a destination with these named ports. */
	portsOf(rule: CompiledRule, destination: EndClass | undefined): number {
		if (rule.names.length === 0 || destination === undefined) return rule.fixed
		let id = rule.resolved.get(destination.portsId)
		if (id === undefined) {
			let set = this.#pool.setOf(rule.fixed)
			for (const { port: name, protocol } of rule.names) {
				for (const port of destination.namedPorts)
					if (port.name === name && port.protocol === protocol)
						set = unitePorts(set, connectionsOf(protocol, port.port))
			}
			rule.resolved.set(destination.portsId, (id = this.#pool.idOf(set)))
		}
		return id
	}

	#rule(
		action: CompiledRule['action'],
		peers: readonly TieredPeer[] | undefined,
		ports: readonly PolicyPort[],
		origin: Origin,
		namespace: string,
	): CompiledRule {
		let fixed = noConnections
		const names: PolicyPort[] = []
		for (const port of ports) {
			if (typeof port.port === 'string') names.push(port)
			else fixed = unitePorts(fixed, connectionsOf(port.protocol, port.port, port.endPort ?? port.port))
		}
		return {
			action,
			...(peers === undefined ? {} : { peers: peers.map((peer) => this.#peer(peer, namespace)) }),
			fixed: ports.length === 0 ? 1 : this.#pool.idOf(fixed),
			names,
			resolved: new Map(),
			origin,
		}
	}

	#peer(peer: TieredPeer, namespace: string): CompiledPeer {
		const { origin } = peer
		switch (peer.kind) {
			case 'block': {
				const { cidr, except } = peer
				return { matchers: [this.#block(cidr, except)], blocks: [{ network: true, cidr, except }], origin }
			}
			case 'nodes':
				return { matchers: [this.#nobody()], blocks: this.#addressesOf(peer.nodes), origin }
			case 'domains':
				// Which addresses a name has no manifest says.
				return { matchers: [this.#nobody()], blocks: [], origin }
			case 'pods': {
				const where = peer.namespaces === undefined ? this.#inNamespace(namespace) : this.#namespacesOf(peer.namespaces)
				return { matchers: peer.pods === undefined ? [where] : [where, this.#pods(peer.pods)], blocks: [], origin }
			}
			default: {
				const never: never = peer
				throw new Error(`No such peer: ${JSON.stringify(never)}`)
			}
		}
	}

	#addressesOf(selector: LabelSelector): readonly Block[] {
		return nodeAddresses(this.#nodes, selector).map((cidr) => ({ cidr, except: [] }))
	}

	#nobody(): Matcher {
		return this.#matcher('nobody', () => ({ kind: 'pods', matches: () => false }), [])
	}

	#matcher(key: string, make: () => Omit<Matcher, 'bits'>, candidates: Iterable<number> | undefined): Matcher {
		let matcher = this.matchers.get(key)
		if (matcher === undefined) {
			const bits = new Bits()
			const made = make()
			matcher = { ...made, bits }
			this.matchers.set(key, matcher)
			const { classes } = this.#index
			if (candidates === undefined) for (const end of classes) bits.set(end.id, made.matches(end))
			else for (const id of candidates) bits.set(id, made.matches(classes[id]!))
		}
		return matcher
	}

	#pods(selector: LabelSelector): Matcher {
		let candidates: readonly number[] | undefined
		for (const [key, value] of Object.entries(selector.matchLabels)) {
			const list = this.#index.postings.get(`${key}=${value}`) ?? []
			if (candidates === undefined || list.length < candidates.length) candidates = list
		}
		const isEmpty = isEverything(selector)
		return this.#matcher(
			`pods ${keyOfSelector(selector)}`,
			() => ({
				kind: 'pods',
				matches: (end) => (end.id === anyPod ? isEmpty : selectorMatches(selector, end.labels)),
			}),
			candidates,
		)
	}

	#namespacesOf(selector: LabelSelector): Matcher {
		const isEmpty = isEverything(selector)
		return this.#matcher(
			`namespaces ${keyOfSelector(selector)}`,
			() => {
				// Every class of a namespace gets the same answer; asked again when namespaces change.
				let asked: NetworkModel['namespaces'] | undefined
				const answers = new Map<string, boolean>()
				return {
					kind: 'namespaces',
					matches: (end) => {
						if (end.id === anyPod) return isEmpty
						if (asked !== this.#namespaces) {
							answers.clear()
							asked = this.#namespaces
						}
						let answer = answers.get(end.namespace)
						if (answer === undefined) {
							const labels = this.#namespaces.get(end.namespace)?.labels ?? { [namespaceNameLabel]: end.namespace }
							answers.set(end.namespace, (answer = selectorMatches(selector, labels)))
						}
						return answer
					},
				}
			},
			undefined,
		)
	}

	#inNamespace(name: string): Matcher {
		return this.#matcher(
			`namespace ${name}`,
			() => ({ kind: 'pods', matches: (end) => end.id !== anyPod && end.namespace === name }),
			this.#index.byNamespace.get(name) ?? [],
		)
	}

	#block(cidr: Cidr, except: readonly Cidr[]): Matcher {
		const means = this.#profile.blocksMatchPods
		const whole = intervalOf(cidr)
		const holes = except.map(intervalOf)
		return this.#matcher(
			`block ${cidr} ${[...except].sort().join()}`,
			() => ({
				kind: 'block',
				matches: ({ id, family, network }) =>
					means &&
					(id === anyPod
						? whole.family === family && cidrLength(cidr) === 0 && except.length === 0
						: network !== undefined && isWithin(network, whole) && !holes.some((hole) => isWithin(network, hole))),
			}),
			undefined,
		)
	}
}

function isEverything(selector: LabelSelector): boolean {
	return Object.keys(selector.matchLabels).length === 0 && selector.matchExpressions.length === 0
}

function keyOfSelector({ matchLabels, matchExpressions }: LabelSelector): string {
	return JSON.stringify([Object.entries(matchLabels).sort(([a], [b]) => (a < b ? -1 : 1)), matchExpressions])
}

type PolicyLike = Pick<Policy | TieredPolicy, 'ingress' | 'egress'>

/** The networks that divide the address space: those of blocks, and the addresses of nodes that are peers. */
export function cidrsOfPolicy(policy: PolicyLike, nodes: NetworkModel['nodes'] | undefined): readonly Cidr[] {
	const cidrs: Cidr[] = []
	for (const peer of peersOf(policy)) {
		if (peer.kind === 'block') cidrs.push(peer.cidr, ...peer.except)
		else if (peer.kind === 'nodes') cidrs.push(...nodeAddresses(nodes, peer.nodes))
	}
	return cidrs
}

function peersOf(policy: PolicyLike): readonly TieredPeer[] {
	return [...(policy.ingress ?? []), ...(policy.egress ?? [])].flatMap((rule): readonly TieredPeer[] => rule.peers)
}

export function nodeAddresses(nodes: NetworkModel['nodes'] | undefined, selector?: LabelSelector): readonly Cidr[] {
	const found: Cidr[] = []
	for (const node of nodes?.values() ?? [])
		if (selector === undefined || selectorMatches(selector, node.labels)) found.push(...node.addresses.map(hostCidr))
	return found.sort()
}

/** The label keys that the selectors over pods name. */
export function* labelKeysOf(
	policy: PolicyLike & { readonly subject: Policy['subject'] | TieredPolicy['subject'] },
): Iterable<string> {
	const { subject } = policy
	yield* 'matchLabels' in subject ? keysOf(subject) : subject.pods === undefined ? [] : keysOf(subject.pods)
	for (const peer of peersOf(policy)) if (peer.kind === 'pods' && peer.pods !== undefined) yield* keysOf(peer.pods)
}

function* keysOf(selector: LabelSelector): Iterable<string> {
	yield* Object.keys(selector.matchLabels)
	for (const { key } of selector.matchExpressions) yield key
}
