// Who can talk to whom, as the policies say: for every pair of classes the allowed connections, exactly as
// `decide` (model/policy.ts) would answer for each pair of pods and each port. Follows the difference between models.

import { type Cidr, familyOf, type Ip } from '../base/ip.ts'
import { diffTables } from '../base/table.ts'
import type { NetworkModel, Pod, Policy, TieredPolicy } from '../model/network.ts'
import type { ObjectKey, Origin } from '../model/origin.ts'
import { type Direction, inOrder } from '../model/policy.ts'
import { type PolicyProfile, policyProfiles } from '../model/policy-profile.ts'
import { type AddressSpace, cutAddresses, type Pieces, positionOf } from './addresses.ts'
import { eachOfAll } from './bits.ts'
import { ClassIndex, type EndClass, hasIdentity } from './classes.ts'
import {
	type Block,
	type CompiledPolicy,
	type CompiledRule,
	Compiler,
	cidrsOfPolicy,
	labelKeysOf,
	nodeAddresses,
} from './compile.ts'
import { ConnectionPool } from './connections.ts'
import { byKey, eachSubject, holds, isOpen, isOrdered, matchesClass, type Profile } from './profile.ts'

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
	/** Classes with a pair that may have changed. */
	readonly classes: ReadonlySet<number>
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

/** More matchers than this many times those of the first build, and all is made anew: what nobody names any more goes. */
const growth = 2

export class Reach {
	readonly pool = new ConnectionPool()
	readonly #profile: PolicyProfile
	#model: ReachModel
	/** Pieces that are a node's address, where networks do not mean nodes. */
	#nodePieces: ReadonlySet<number> = new Set()
	#tiers: readonly TieredPolicy[]
	#index!: ClassIndex
	#compiler!: Compiler
	#space!: AddressSpace
	#policies = new Map<ObjectKey, CompiledPolicy>()
	#byNamespace = new Map<string, Set<CompiledPolicy>>()
	#compiledTiers: readonly CompiledPolicy[] = []
	#profiles: Record<Direction, Map<string, Profile>> = { ingress: new Map(), egress: new Map() }
	#assigned: Record<Direction, Profile[]> = { ingress: [], egress: [] }
	#keys: Record<Direction, string[]> = { ingress: [], egress: [] }
	#matchersAtFirst = 0

	constructor(input: ReachInput) {
		this.#profile = input.profile ?? policyProfiles.default
		this.#model = input.model
		this.#tiers = inOrder(input.model.tieredPolicies?.values() ?? [])
		this.#build()
	}

	/** By number; 0 stands for any pod that may come. Some have no pod any more. */
	get classes(): readonly EndClass[] {
		return this.#index.classes
	}

	get space(): AddressSpace {
		return this.#space
	}

	/** Number of different rule lists, both directions. */
	get profileCount(): number {
		return this.#profiles.ingress.size + this.#profiles.egress.size
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
		return this.#at('ingress', destination, source)
	}

	/** What the policies of the source let out. */
	egress(source: number, destination: number): number {
		return this.#at('egress', source, destination)
	}

	/** What the class lets in from, or out to, addresses that are no pod's. */
	withPiece(direction: Direction, own: number, piece: number): number {
		const profile = this.#assigned[direction][own]!
		if (isOpen(profile)) return ConnectionPool.all
		profile.pieces ??= this.#fillPieces(profile)
		return profile.pieces[piece]!
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
		return !isOpen(this.#assigned[direction][own]!)
	}

	/** Whether a NetworkPolicy isolates the class in this direction. */
	isIsolated(direction: Direction, own: number): boolean {
		return this.#assigned[direction][own]!.rules !== undefined
	}

	/** Where classes have equal numbers here, their policies treat them alike. */
	profileOf(direction: Direction, own: number): object {
		return this.#assigned[direction][own]!
	}

	/** Every rule that matches the other end, and every policy that isolates without one. In the order of policies. */
	reasons(
		direction: Direction,
		own: number,
		other: { readonly class: number } | { readonly piece: number },
	): readonly Reason[] {
		const profile = this.#assigned[direction][own]!
		const reasons: Reason[] = []
		for (const policy of profile.policies) {
			let some = false
			for (const rule of policy[direction] ?? []) {
				if (!('class' in other ? matchesClass(rule, other.class) : this.#matchesPiece(rule, other.piece))) continue
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
		const tiers = inOrder(input.model.tieredPolicies?.values() ?? [])
		const sameTiers =
			tiers.length === this.#tiers.length &&
			tiers.every((t, i) => t === this.#tiers[i]) &&
			(before.nodes === model.nodes || (tiers.length === 0 && this.#profile.blocksMatchNodes))
		this.#tiers = tiers
		const touched = new Set<number>()
		if (
			!sameTiers ||
			before.config !== model.config ||
			this.#compiler.matchers.size > growth * this.#matchersAtFirst + 1000
		)
			return this.#rebuild()

		const changedPolicies: [ObjectKey, Policy | undefined][] = []
		diffTables(before.policies, model.policies, (key, _, after) => changedPolicies.push([key, after]))
		for (const [, policy] of changedPolicies) {
			if (policy === undefined) continue
			for (const key of labelKeysOf(policy)) if (!this.#index.knows(key)) return this.#rebuild()
		}

		/** Classes that are new, and classes whose namespace has other labels. */
		const columns = new Set<number>()
		const relabelled = new Set<number>()
		const stale = new Set<number>()
		diffTables(before.namespaces, model.namespaces, (name) => {
			for (const id of this.#index.byNamespace.get(name) ?? []) relabelled.add(id)
		})
		this.#compiler.setNamespaces(model.namespaces, relabelled)
		if (tiers.length > 0) for (const id of relabelled) stale.add(id)

		if (changedPolicies.length > 0) {
			for (const [key] of changedPolicies) this.#dropPolicy(key, stale)
			for (const [, policy] of changedPolicies) if (policy !== undefined) this.#addPolicy(policy, stale)
			if (!this.#recut()) return this.#rebuild()
		}

		diffTables(before.pods, model.pods, (key, was, now) => {
			const ids = this.#index.remove(key)
			const next = now !== undefined && hasIdentity(now) ? this.#addPod(now, columns, stale) : []
			if (was !== undefined && now !== undefined && ids.join() === next.join()) return
			// The pairs of a class that lost or won a pod stand as they were; who counts pods wants to know.
			for (const id of [...ids, ...next]) touched.add(id)
		})
		for (const id of stale) this.#assign(id)
		for (const id of columns) this.#refreshColumn(id, () => true)
		for (const id of relabelled) this.#refreshColumn(id, (profile) => profile.asksNamespaces)
		for (const id of [...stale, ...columns, ...relabelled]) touched.add(id)
		return { rebuilt: false, classes: touched }
	}

	#rebuild(): ReachChange {
		this.#build()
		return { rebuilt: true, classes: new Set(this.#index.classes.keys()) }
	}

	#build(): void {
		const { pods, policies } = this.#model
		const named = new Set<string>()
		const cidrs: Cidr[] = []
		for (const policy of [...policies.values(), ...this.#tiers]) {
			for (const key of labelKeysOf(policy)) named.add(key)
			cidrs.push(...cidrsOfPolicy(policy, this.#model.nodes))
		}
		this.#cut(cidrs)
		this.#index = new ClassIndex(this.#model, named)
		this.#compiler = new Compiler(this.#index, this.pool, this.#model, this.#profile)
		this.#policies = new Map()
		this.#byNamespace = new Map()
		this.#profiles = { ingress: new Map(), egress: new Map() }
		this.#assigned = { ingress: [], egress: [] }
		this.#keys = { ingress: [], egress: [] }
		// By key, so that numbers do not depend on the order of events.
		for (const pod of [...pods.values()].filter(hasIdentity).sort(byKey)) this.#index.add(pod, this.#space, () => {})
		for (const policy of [...policies.values()].sort(byKey)) this.#addPolicy(policy, undefined)
		this.#compiledTiers = this.#tiers.map((policy) => this.#compiler.compileTier(policy))
		this.#matchersAtFirst = this.#compiler.matchers.size
		for (const { id } of this.#index.classes) this.#assign(id)
	}

	#addPolicy(policy: Policy, stale: Set<number> | undefined): void {
		const compiled = this.#compiler.compile(policy)
		this.#policies.set(policy.key, compiled)
		const list = this.#byNamespace.get(policy.namespace)
		if (list === undefined) this.#byNamespace.set(policy.namespace, new Set([compiled]))
		else list.add(compiled)
		if (stale !== undefined) eachSubject(compiled, (id) => stale.add(id))
	}

	#dropPolicy(key: ObjectKey, stale: Set<number>): void {
		const compiled = this.#policies.get(key)
		if (compiled === undefined) return
		this.#policies.delete(key)
		this.#byNamespace.get(key.slice(0, key.indexOf('/')))?.delete(compiled)
		eachSubject(compiled, (id) => stale.add(id))
	}

	/** False: classes must be made anew, for one of them lies across a boundary now. */
	#recut(): boolean {
		const cidrs: Cidr[] = []
		for (const policy of [...this.#policies.values(), ...this.#compiledTiers]) cidrs.push(...policy.cidrs)
		const space = cutAddresses([...cidrs, ...this.#nodesApart()])
		if (space.key === this.#space.key) return true
		if (!this.#index.fits(space)) return false
		this.#index.renumber(space)
		this.#space = space
		this.#markNodes()
		for (const profiles of Object.values(this.#profiles))
			for (const profile of profiles.values()) profile.pieces = undefined
		return true
	}

	#cut(cidrs: readonly Cidr[]): void {
		this.#space = cutAddresses([...cidrs, ...this.#nodesApart()])
		this.#markNodes()
	}

	#nodesApart(): readonly Cidr[] {
		return this.#profile.blocksMatchNodes ? [] : nodeAddresses(this.#model.nodes)
	}

	#markNodes(): void {
		this.#nodePieces = new Set(this.#nodesApart().map((cidr) => this.#space.piecesOf(cidr).from))
	}

	#addPod(pod: Pod, columns: Set<number>, stale: Set<number>): readonly number[] {
		return this.#index.add(pod, this.#space, (id) => {
			this.#compiler.addClass(id)
			columns.add(id)
			stale.add(id)
		})
	}

	#assign(id: number): void {
		const end = this.#index.classes[id]!
		const selecting: CompiledPolicy[] = []
		for (const policy of this.#byNamespace.get(end.namespace) ?? [])
			if (policy.subject.every((m) => m.bits.has(id))) selecting.push(policy)
		selecting.sort(byKey)
		const tiers = this.#compiledTiers.filter((policy) => policy.subject.every((m) => m.bits.has(id)))
		for (const direction of ['ingress', 'egress'] as const) {
			const isolating = selecting.filter((policy) => policy[direction] !== undefined)
			const all = [
				...tiers.filter((t) => t.tier === 'Admin'),
				...isolating,
				...tiers.filter((t) => t.tier === 'Baseline'),
			]
			const rulesOf = (list: readonly CompiledPolicy[]) => list.flatMap((policy) => policy[direction] ?? [])
			const named = direction === 'ingress' && rulesOf(all).some((rule) => rule.names.length > 0)
			const key = `${all.map((p) => p.serial).join()}${named ? ` ${end.portsId}` : ''}`
			const profiles = this.#profiles[direction]
			const old = this.#assigned[direction][id]
			if (old !== undefined) {
				const oldKey = this.#keys[direction][id]!
				if (oldKey === key) continue
				if (--old.users === 0) profiles.delete(oldKey)
			}
			let profile = profiles.get(key)
			if (profile === undefined) {
				profile = {
					admin: rulesOf(tiers.filter((t) => t.tier === 'Admin')),
					rules: isolating.length === 0 ? undefined : rulesOf(isolating),
					trial: isolating.length > 0 && isolating.every((policy) => policy.audit),
					baseline: rulesOf(tiers.filter((t) => t.tier === 'Baseline')),
					policies: all,
					destination: named ? end : undefined,
					asksNamespaces: rulesOf(all).some((rule) =>
						rule.peers?.some((peer) => peer.matchers.some((m) => m.kind === 'namespaces')),
					),
					users: 0,
					row: undefined,
					pieces: undefined,
				}
				profiles.set(key, profile)
			}
			profile.users++
			this.#assigned[direction][id] = profile
			this.#keys[direction][id] = key
		}
	}

	#at(direction: Direction, own: number, other: number): number {
		const profile = this.#assigned[direction][own]!
		if (isOpen(profile)) return ConnectionPool.all
		profile.row ??= this.#fillRow(profile)
		return profile.row[other]!
	}

	#fillRow(profile: Profile): Uint32Array {
		const { classes } = this.#index
		const size = classes.length
		// Room for classes to come.
		const row = new Uint32Array(size + (size >> 2) + 16)
		if (isOrdered(profile)) {
			for (let id = 0; id < size; id++) row[id] = this.#cell(profile, id)
			return row
		}
		const { pool } = this
		for (const rule of profile.rules ?? []) {
			const fixed = rule.names.length === 0 || profile.destination !== undefined
			const id = fixed ? this.#compiler.portsOf(rule, profile.destination) : 0
			const add = (c: number) => {
				const more = fixed ? id : this.#compiler.portsOf(rule, classes[c])
				const has = row[c]!
				row[c] = has === 0 ? more : pool.unite(has, more)
			}
			if (rule.peers === undefined) for (let c = 0; c < size; c++) add(c)
			else
				for (const { matchers } of rule.peers)
					eachOfAll(
						matchers.map((m) => m.bits),
						add,
					)
		}
		return row
	}

	#refreshColumn(id: number, concerns: (profile: Profile) => boolean): void {
		for (const profiles of Object.values(this.#profiles)) {
			for (const profile of profiles.values()) {
				if (profile.row === undefined || !concerns(profile)) continue
				// No room left: made anew when asked for.
				if (id >= profile.row.length) profile.row = undefined
				else profile.row[id] = this.#cell(profile, id)
			}
		}
	}

	#cell(profile: Profile, other: number): number {
		const end = this.#index.classes[other]!
		if (!isOrdered(profile)) {
			let id: number = ConnectionPool.none
			for (const rule of profile.rules ?? [])
				if (matchesClass(rule, other))
					id = this.pool.unite(id, this.#compiler.portsOf(rule, profile.destination ?? end))
			return id
		}
		return this.#fold(
			profile,
			(rule) => matchesClass(rule, other) || (other === 0 && rule.action === 'Deny'),
			(rule) => this.#compiler.portsOf(rule, profile.destination ?? end),
		)
	}

	#fillPieces(profile: Profile): Uint32Array {
		const { size } = this.#space
		const row = new Uint32Array(size)
		if (isOrdered(profile)) {
			for (let piece = 0; piece < size; piece++)
				row[piece] = this.#fold(
					profile,
					(rule) => this.#matchesPiece(rule, piece),
					(rule) => this.#compiler.portsOf(rule, profile.destination),
				)
			return row
		}
		for (const rule of profile.rules ?? []) {
			const id = this.#compiler.portsOf(rule, profile.destination)
			const ranges =
				rule.peers === undefined
					? [{ from: 0, to: size }]
					: rule.peers.flatMap((peer) => peer.blocks.flatMap((block) => this.#piecesOf(block)))
			for (const { from, to } of ranges)
				for (let piece = from; piece < to; piece++) row[piece] = this.pool.unite(row[piece]!, id)
		}
		return row
	}

	#piecesOf(block: Block): readonly Pieces[] {
		let ranges: Pieces[] = [this.#space.piecesOf(block.cidr)]
		for (const except of block.except) {
			const hole = this.#space.piecesOf(except)
			ranges = ranges.flatMap(({ from, to }) =>
				[
					{ from, to: Math.min(to, hole.from) },
					{ from: Math.max(from, hole.to), to },
				].filter((r) => r.from < r.to),
			)
		}
		if (block.network === undefined || this.#nodePieces.size === 0) return ranges
		return ranges.flatMap(({ from, to }) =>
			Array.from({ length: to - from }, (_, i) => ({ from: from + i, to: from + i + 1 })).filter(
				(piece) => !this.#nodePieces.has(piece.from),
			),
		)
	}

	#matchesPiece(rule: CompiledRule, piece: number): boolean {
		if (rule.peers === undefined) return true
		const { family, first } = this.#space.intervalOf(piece)
		return rule.peers.some(({ blocks }) =>
			blocks.some((block) => holds(block, family, first) && !(block.network === true && this.#nodePieces.has(piece))),
		)
	}

	/** Admin tier → NetworkPolicy → Baseline tier → allowed. */
	#fold(profile: Profile, matches: (rule: CompiledRule) => boolean, portsOf: (rule: CompiledRule) => number): number {
		const { pool } = this
		let allowed: number = ConnectionPool.none
		let open: number = ConnectionPool.all
		const tier = (rules: readonly CompiledRule[]) => {
			let passed: number = ConnectionPool.none
			for (const rule of rules) {
				if (open === ConnectionPool.none) break
				if (!matches(rule)) continue
				const part = pool.intersect(open, portsOf(rule))
				open = pool.subtract(open, part)
				if (rule.action === 'Accept') allowed = pool.unite(allowed, part)
				else if (rule.action === 'Pass') passed = pool.unite(passed, part)
			}
			open = pool.unite(open, passed)
		}
		tier(profile.admin)
		if (profile.rules !== undefined) {
			let named: number = ConnectionPool.none
			for (const rule of profile.rules) if (matches(rule)) named = pool.unite(named, portsOf(rule))
			allowed = pool.unite(allowed, pool.intersect(open, named))
			if (!profile.trial) return allowed
			open = pool.subtract(open, named)
		}
		tier(profile.baseline)
		return pool.unite(allowed, open)
	}
}
