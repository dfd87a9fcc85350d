// Who can talk to whom, as the policies say: for every pair of classes the allowed connections, exactly as
// `decide` (model/policy.ts) would answer for each pair of pods and each port. Follows the difference between models.

import { type Cidr, familyOf, type Ip } from '../base/ip.ts'
import { diffTables } from '../base/table.ts'
import type { NetworkModel, Pod, Policy, TieredPolicy } from '../model/network.ts'
import type { ObjectKey, Origin } from '../model/origin.ts'
import { type Direction, inOrder } from '../model/policy.ts'
import { type PolicyProfile, policyProfiles } from '../model/policy-profile.ts'
import { type AddressSpace, cutAddresses, positionOf } from './addresses.ts'
import { ClassIndex, type EndClass, hasIdentity } from './classes.ts'
import {
	type CompiledPolicy,
	type CompiledRule,
	Compiler,
	cidrsOfPolicy,
	labelKeysOf,
	nodeAddresses,
} from './compile.ts'
import { ConnectionPool } from './connections.ts'
import { byKey, eachSubject, matchesClass } from './profile.ts'
import { Profiles } from './profiles.ts'
import { Rows } from './rows.ts'

export type ReachModel = Pick<NetworkModel, 'config' | 'pods' | 'namespaces' | 'policies'> &
	Partial<Pick<NetworkModel, 'nodes' | 'tieredPolicies'>>

export interface ReachInput {
	readonly model: ReachModel
	/** Fills in what the API leaves open. Stays the same for the life of an engine. */
	readonly profile?: PolicyProfile
}

export interface ReachChange {
	/** Everything was made anew; numbers of classes mean something else. */
	readonly rebuilt: boolean
	/** Classes that are new, or with a pair that may have changed. */
	readonly classes: ReadonlySet<number>
	/** Classes that lost or won a pod: what they may say stands, for whom it counts changed. */
	readonly members: ReadonlySet<number>
}

/** A rule that matches the other end, or a policy that isolates and has none. */
export interface Reason {
	readonly policy: Origin
	/** Undefined: the policy isolates the pod, and none of its rules matches. */
	readonly rule?: Origin
	readonly action: CompiledRule['action']
	/** What the rule speaks of, a number of the pool. */
	readonly connections: number
}

/** More matchers or classes than this many times those of the first build, and all is made anew: what nobody names any more goes. */
const growth = 2

/** What a change of the cluster touches, by number of class. */
interface Touched {
	/** Lost or won a pod. */
	readonly members: Set<number>
	/** May be subject to other policies. */
	readonly subjects: Set<number>
	/** New, of a pod that no class was like. */
	readonly made: Set<number>
	/** Of namespaces with other labels. */
	readonly relabelled: Set<number>
}

export class Reach {
	readonly pool = new ConnectionPool()
	readonly #profile: PolicyProfile
	#model: ReachModel
	#tiers: readonly TieredPolicy[]
	#index!: ClassIndex
	#compiler!: Compiler
	#space!: AddressSpace
	#profiles!: Profiles
	#rows!: Rows
	#policies = new Map<ObjectKey, CompiledPolicy>()
	#byNamespace = new Map<string, Set<CompiledPolicy>>()
	#compiledTiers: readonly CompiledPolicy[] = []
	#atFirst = { matchers: 0, classes: 0 }

	constructor(input: ReachInput) {
		this.#profile = input.profile ?? policyProfiles.default
		this.#model = input.model
		this.#tiers = inOrder(input.model.tieredPolicies?.values() ?? [])
		this.#build()
	}

	/** By number; 0 stands for any pod that may come. Some have no pod any more, and their numbers may come to others. */
	get classes(): readonly EndClass[] {
		return this.#index.classes
	}

	get space(): AddressSpace {
		return this.#space
	}

	/** Number of different rule lists, both directions. */
	get profileCount(): number {
		return this.#profiles.size
	}

	/** One class for each address. None for hostNetwork pods and those that have finished. */
	classesOf(pod: ObjectKey): readonly number[] {
		return this.#index.classesOf(pod)
	}

	/** What the source may say to the destination: 0 where they are of different families. Numbers of `pool`. */
	between(source: number, destination: number): number {
		const { classes } = this.#index
		if (classes[source]!.family !== classes[destination]!.family) return ConnectionPool.none
		const out = this.egress(source, destination)
		return out === ConnectionPool.none ? out : this.pool.intersect(out, this.ingress(destination, source))
	}

	/** What the policies of the destination let in. */
	ingress(destination: number, source: number): number {
		return this.#rows.withClass(this.#profiles.of('ingress', destination), source)
	}

	/** What the policies of the source let out. */
	egress(source: number, destination: number): number {
		return this.#rows.withClass(this.#profiles.of('egress', source), destination)
	}

	/** What the class lets in from, or out to, addresses that are no pod's. */
	withPiece(direction: Direction, own: number, piece: number): number {
		return this.#rows.withPiece(this.#profiles.of(direction, own), piece)
	}

	withAddress(direction: Direction, own: number, ip: Ip): number {
		const family = familyOf(ip)
		if (this.#index.classes[own]!.family !== family) return ConnectionPool.none
		return this.withPiece(direction, own, this.#space.pieceOf(family, positionOf(ip)))
	}

	pieceOfAddress(ip: Ip): number {
		return this.#space.pieceOf(familyOf(ip), positionOf(ip))
	}

	/** Whether anything but the default decides for the class in this direction. */
	isSubject(direction: Direction, own: number): boolean {
		return !this.#profiles.of(direction, own).open
	}

	/** Whether a NetworkPolicy isolates the class in this direction. */
	isIsolated(direction: Direction, own: number): boolean {
		return this.#profiles.of(direction, own).rules !== undefined
	}

	/** Where classes have equal objects here, their policies treat them alike. */
	profileOf(direction: Direction, own: number): object {
		return this.#profiles.of(direction, own)
	}

	/** Every rule that matches the other end, and every policy that isolates without one. In the order of policies. */
	reasons(
		direction: Direction,
		own: number,
		other: { readonly class: number } | { readonly piece: number },
	): readonly Reason[] {
		const profile = this.#profiles.of(direction, own)
		const reasons: Reason[] = []
		for (const policy of profile.policies) {
			let some = false
			for (const rule of policy[direction] ?? []) {
				if (!('class' in other ? matchesClass(rule, other.class) : this.#rows.matchesPiece(rule, other.piece))) continue
				const destination =
					direction === 'ingress'
						? profile.destination
						: 'class' in other
							? this.#index.classes[other.class]
							: undefined
				const connections = this.#compiler.portsOf(rule, destination)
				if (connections === ConnectionPool.none) continue
				some = true
				reasons.push({ policy: policy.origin, rule: rule.origin, action: rule.action, connections })
			}
			if (!some && policy.tier === undefined && !policy.audit)
				reasons.push({ policy: policy.origin, action: 'Deny', connections: ConnectionPool.all })
		}
		return reasons
	}

	/** Follows a new state of the cluster. */
	update(input: ReachInput): ReachChange {
		const before = this.#model
		const { model } = input
		this.#model = model
		const tiers = inOrder(model.tieredPolicies?.values() ?? [])
		const sameTiers =
			tiers.length === this.#tiers.length &&
			tiers.every((t, i) => t === this.#tiers[i]) &&
			(before.nodes === model.nodes || (tiers.length === 0 && this.#profile.blocksMatchNodes))
		this.#tiers = tiers
		if (!sameTiers || before.config !== model.config || this.#hasOutgrown()) return this.#rebuild()

		const changedPolicies: [ObjectKey, Policy | undefined][] = []
		diffTables(before.policies, model.policies, (key, _, after) => changedPolicies.push([key, after]))
		for (const [, policy] of changedPolicies) {
			if (policy === undefined) continue
			for (const key of labelKeysOf(policy)) if (!this.#index.knows(key)) return this.#rebuild()
		}

		const touched: Touched = { members: new Set(), subjects: new Set(), made: new Set(), relabelled: new Set() }
		const { members, subjects, made, relabelled } = touched
		diffTables(before.namespaces, model.namespaces, (name) => {
			for (const id of this.#index.byNamespace.get(name) ?? []) relabelled.add(id)
		})
		this.#compiler.setNamespaces(model.namespaces, relabelled)
		if (tiers.length > 0) for (const id of relabelled) subjects.add(id)

		if (changedPolicies.length > 0) {
			for (const [key] of changedPolicies) this.#dropPolicy(key, subjects)
			for (const [, policy] of changedPolicies) if (policy !== undefined) this.#addPolicy(policy, subjects)
			this.#recut(touched)
		}

		diffTables(before.pods, model.pods, (key, was, now) => {
			const ids = this.#index.remove(key)
			const next = now !== undefined && hasIdentity(now) ? this.#addPod(now, touched) : []
			if (was !== undefined && now !== undefined && ids.join() === next.join()) return
			for (const id of [...ids, ...next]) members.add(id)
		})
		for (const id of subjects) this.#assign(id)
		for (const profile of this.#profiles.all()) {
			for (const id of made) this.#rows.refresh(profile, id)
			if (profile.asksNamespaces) for (const id of relabelled) this.#rows.refresh(profile, id)
		}
		return { rebuilt: false, classes: new Set([...subjects, ...made, ...relabelled]), members }
	}

	#hasOutgrown(): boolean {
		return (
			this.#compiler.matchers.size > growth * this.#atFirst.matchers + 1000 ||
			this.#index.classes.length > growth * this.#atFirst.classes + 1000
		)
	}

	#rebuild(): ReachChange {
		this.#build()
		const all = new Set(this.#index.classes.keys())
		return { rebuilt: true, classes: all, members: all }
	}

	#build(): void {
		const { pods, policies } = this.#model
		const named = new Set<string>()
		const cidrs: Cidr[] = []
		for (const policy of [...policies.values(), ...this.#tiers]) {
			for (const key of labelKeysOf(policy)) named.add(key)
			cidrs.push(...cidrsOfPolicy(policy, this.#model.nodes))
		}
		this.#space = cutAddresses([...cidrs, ...this.#nodesApart()])
		this.#index = new ClassIndex(this.#model, named, this.#space)
		this.#compiler = new Compiler(this.#index, this.pool, this.#model, this.#profile)
		this.#profiles = new Profiles()
		this.#rows = new Rows(this.#index, this.#compiler, this.pool, this.#space, this.#nodePieces())
		this.#policies = new Map()
		this.#byNamespace = new Map()
		// By key, so that numbers do not depend on the order of events.
		for (const pod of [...pods.values()].filter(hasIdentity).sort(byKey)) this.#index.add(pod, () => {})
		for (const policy of [...policies.values()].sort(byKey)) this.#addPolicy(policy, undefined)
		this.#compiledTiers = this.#tiers.map((policy) => this.#compiler.compileTier(policy))
		this.#atFirst = { matchers: this.#compiler.matchers.size, classes: this.#index.classes.length }
		for (const { id } of this.#index.classes) this.#assign(id)
	}

	#addPolicy(policy: Policy, subjects: Set<number> | undefined): void {
		const compiled = this.#compiler.compile(policy)
		this.#policies.set(policy.key, compiled)
		const list = this.#byNamespace.get(policy.namespace)
		if (list === undefined) this.#byNamespace.set(policy.namespace, new Set([compiled]))
		else list.add(compiled)
		if (subjects !== undefined) eachSubject(compiled, (id) => subjects.add(id))
	}

	#dropPolicy(key: ObjectKey, subjects: Set<number>): void {
		const compiled = this.#policies.get(key)
		if (compiled === undefined) return
		this.#policies.delete(key)
		this.#byNamespace.get(key.slice(0, key.indexOf('/')))?.delete(compiled)
		eachSubject(compiled, (id) => subjects.add(id))
	}

	/** Policies name other networks: classes are divided where one of them lies across a boundary now. */
	#recut({ members, subjects, relabelled }: Touched): void {
		const cidrs: Cidr[] = []
		for (const policy of [...this.#policies.values(), ...this.#compiledTiers]) cidrs.push(...policy.cidrs)
		const space = cutAddresses([...cidrs, ...this.#nodesApart()])
		if (space.key === this.#space.key) return
		this.#space = space
		this.#rows.recut(space, this.#nodePieces(), this.#profiles.all())
		const { made, moved } = this.#index.divide(space)
		for (const id of moved) members.add(id)
		for (const { id, from } of made) {
			this.#compiler.divideClass(id, from)
			subjects.add(id)
			if (relabelled.has(from)) relabelled.add(id)
		}
		// Whoever names a network that came or went has no row yet, or is not asked any more.
		for (const profile of this.#profiles.all()) this.#rows.copy(profile, made)
	}

	#nodesApart(): readonly Cidr[] {
		return this.#profile.blocksMatchNodes ? [] : nodeAddresses(this.#model.nodes)
	}

	#nodePieces(): ReadonlySet<number> {
		return new Set(this.#nodesApart().map((cidr) => this.#space.piecesOf(cidr).from))
	}

	#addPod(pod: Pod, { made, subjects }: Touched): readonly number[] {
		return this.#index.add(pod, (id) => {
			this.#compiler.addClass(id)
			made.add(id)
			subjects.add(id)
		})
	}

	#assign(id: number): void {
		const end = this.#index.classes[id]!
		const selects = (policy: CompiledPolicy) => policy.subject.every((m) => m.bits.has(id))
		const selecting = [...(this.#byNamespace.get(end.namespace) ?? [])].filter(selects).sort(byKey)
		this.#profiles.assign(end, selecting, this.#compiledTiers.filter(selects))
	}
}
