// Model to program, incrementally: only pods, addresses, namespaces and policies that changed since the last call are
// looked at. What is kept between calls is a memory of the model; the result depends on the model alone.

import { familyOf, type Ip } from '../../base/ip.ts'
import { diffTables, emptyTable, type Table, tableOf } from '../../base/table.ts'
import { emptyProgram, type NftProgram, tableKey } from '../../linux/nft/program.ts'
import { namespaceNameLabel } from '../../model/labels.ts'
import type {
	AddressOwner,
	Namespace,
	NetworkModel,
	NodeName,
	Pod,
	Policy,
	PolicyRule,
	TieredPolicy,
	TieredRule,
} from '../../model/network.ts'
import type { ObjectKey } from '../../model/origin.ts'
import { type Direction, inOrder, selecting } from '../../model/policy.ts'
import { tierSelects } from '../../model/policy-match.ts'
import type { ResolvedNames } from '../../model/resolved-names.ts'
import { selectorMatches } from '../../model/selector.ts'
import { originComment } from '../origin.ts'
import { type DomainSet, meansName } from './domains.ts'
import { FamilyTable } from './family-table.ts'
import { type Family, families, hasSelf, names, type PolicyConfig } from './layout.ts'
import { clip, keysOf, type Membership, MembershipIndex } from './members.ts'
import { chainName, chainsOf, type Group, groupKey, namedPortsOf } from './rules.ts'

/** A pod's wiring on this node: it is there before the API says which address the pod has. */
export interface LocalPod {
	readonly uid: string
	readonly pod: ObjectKey
	readonly ips: readonly Ip[]
}

type PolicyModel = Pick<
	NetworkModel,
	'pods' | 'addresses' | 'namespaces' | 'policies' | 'tieredPolicies' | 'nodes' | 'resolvedNames'
>

const directions: readonly Direction[] = ['ingress', 'egress']
const familyName = (ip: Ip): Family => (familyOf(ip) === 4 ? 'ip' : 'ip6')

/** A pod of this node at one address, and the groups whose chains it goes through. */
interface Subject {
	readonly namespace: string
	/** Undefined: it is wired, and the model does not know it yet. */
	readonly pod?: Pod
	readonly groups: Readonly<Partial<Record<Direction, ActiveGroup>>>
}

interface ActiveGroup {
	group: Group
	readonly key: string
	readonly name: string
	/** Addresses that go through it. */
	readonly uses: Record<Family, number>
}

interface ActiveMembership extends Membership {
	/** Chains that ask for it. */
	readonly uses: Record<Family, number>
	/** The addresses in it and the elements they have there; only those of named ports, where they differ. */
	readonly keys: Map<Ip, readonly string[]>
}

interface ActiveDomains extends DomainSet {
	readonly uses: Record<Family, number>
	/** The addresses in it, each with the names that brought it. */
	readonly names: Map<Ip, Set<string>>
}

const noNames: ResolvedNames = emptyTable()

export class PolicyCompiler {
	readonly #node: NodeName
	readonly #config: PolicyConfig
	#model: PolicyModel
	#local: Table<string, LocalPod> = emptyTable()
	/** Pods by the address they have; of several that claim one its owner. */
	readonly #peers = new Map<Ip, Pod>()
	readonly #ipsOfNamespace = new Map<string, Set<Ip>>()
	readonly #wired = new Map<Ip, LocalPod>()
	readonly #wiredByPod = new Map<ObjectKey, Set<Ip>>()
	/** Those of the tiers, in their order. */
	#tiers: readonly TieredPolicy[] = []
	readonly #policies = new Map<string, Map<ObjectKey, Policy>>()
	readonly #subjects = new Map<Ip, Subject>()
	readonly #subjectsOfNamespace = new Map<string, Set<Ip>>()
	readonly #groups = new Map<string, ActiveGroup>()
	readonly #memberships = new Map<string, ActiveMembership>()
	readonly #index = new MembershipIndex<ActiveMembership>()
	readonly #domains = new Map<string, ActiveDomains>()
	readonly #tables: Readonly<Record<Family, FamilyTable>>
	#program: NftProgram = emptyProgram

	constructor(node: NodeName, config: PolicyConfig) {
		this.#node = node
		this.#config = config
		this.#model = {
			pods: emptyTable(),
			addresses: emptyTable(),
			namespaces: emptyTable(),
			policies: emptyTable(),
			tieredPolicies: emptyTable(),
			nodes: emptyTable(),
		}
		this.#tables = { ip: new FamilyTable('ip', config), ip6: new FamilyTable('ip6', config) }
	}

	get node(): NodeName {
		return this.#node
	}

	/** After an exception the memory is half a step ahead: whoever catches it begins with a new compiler. */
	update(model: PolicyModel, local: Table<string, LocalPod>): NftProgram {
		const before = this.#model
		this.#model = model
		const touched = this.#touchPods(before, model)
		const subjects = new Set<Ip>()
		this.#touchLocal(local, subjects)
		for (const key of touched.pods) for (const ip of this.#wiredByPod.get(key) ?? []) subjects.add(ip)
		this.#movePeers(touched.ips, subjects)
		this.#touchNamespaces(before, model, subjects)
		this.#touchNames(before.resolvedNames ?? noNames, model.resolvedNames ?? noNames)
		const rebuilt = this.#touchPolicies(before, model, subjects)
		this.#touchTiers(before, model, subjects, rebuilt)
		if (before.nodes !== model.nodes) this.#touchNodes(rebuilt)
		for (const ip of subjects) this.#settle(ip)
		for (const group of rebuilt) if (this.#groups.get(group.key) === group) this.#rebuild(group)
		return this.#finish()
	}

	/** The pods that changed and the addresses whose owner may be another one, or another version of it. */
	#touchPods(before: PolicyModel, model: PolicyModel): { readonly pods: Set<ObjectKey>; readonly ips: Set<Ip> } {
		const pods = new Set<ObjectKey>()
		const ips = new Set<Ip>()
		diffTables(before.pods, model.pods, (key, a, b) => {
			if (a !== undefined && b !== undefined && sameForPolicies(a, b)) return
			pods.add(key)
			for (const ip of [...(a?.ips ?? []), ...(b?.ips ?? [])]) ips.add(ip)
		})
		diffTables<Ip, AddressOwner>(before.addresses, model.addresses, (ip, a, b) => {
			if (a?.kind === 'pod' || b?.kind === 'pod') ips.add(ip)
		})
		return { pods, ips }
	}

	#touchLocal(local: Table<string, LocalPod>, subjects: Set<Ip>): void {
		const gone: LocalPod[] = []
		const come: LocalPod[] = []
		diffTables(this.#local, local, (_, a, b) => {
			if (a !== undefined && b !== undefined && a.pod === b.pod && a.uid === b.uid && a.ips.join() === b.ips.join())
				return
			if (a !== undefined) gone.push(a)
			if (b !== undefined) come.push(b)
		})
		this.#local = local
		for (const wired of gone) {
			for (const ip of wired.ips) {
				subjects.add(ip)
				if (this.#wired.get(ip)?.uid !== wired.uid) continue
				this.#wired.delete(ip)
				removeFrom(this.#wiredByPod, wired.pod, ip)
			}
		}
		for (const wired of come) {
			for (const ip of wired.ips) {
				subjects.add(ip)
				const other = this.#wired.get(ip)
				if (other !== undefined) removeFrom(this.#wiredByPod, other.pod, ip)
				this.#wired.set(ip, wired)
				addTo(this.#wiredByPod, wired.pod, ip)
			}
		}
	}

	#movePeers(ips: Iterable<Ip>, subjects: Set<Ip>): void {
		for (const ip of ips) {
			const before = this.#peers.get(ip)
			const owner = this.#model.addresses.get(ip)
			const after = owner?.kind === 'pod' ? this.#model.pods.get(owner.pod) : undefined
			if (before === after) continue
			if (before?.node === this.#node || after?.node === this.#node) subjects.add(ip)
			if (after === undefined) this.#peers.delete(ip)
			else this.#peers.set(ip, after)
			if (before !== undefined && before.namespace !== after?.namespace)
				removeFrom(this.#ipsOfNamespace, before.namespace, ip)
			if (after !== undefined) addTo(this.#ipsOfNamespace, after.namespace, ip)
			const candidates = new Set<ActiveMembership>()
			if (before !== undefined) for (const m of this.#index.candidates(before)) candidates.add(m)
			if (after !== undefined) for (const m of this.#index.candidates(after)) candidates.add(m)
			for (const m of candidates) this.#place(m, ip, after)
		}
	}

	/** Labels of a namespace decide about all of its pods. */
	#touchNamespaces(before: PolicyModel, model: PolicyModel, subjects: Set<Ip>): void {
		const changed: string[] = []
		diffTables<string, Namespace>(before.namespaces, model.namespaces, (name, a, b) => {
			if (a?.labels !== b?.labels) changed.push(name)
		})
		for (const name of changed) {
			if (this.#tiers.length > 0) for (const ip of this.#subjectsOfNamespace.get(name) ?? []) subjects.add(ip)
			for (const ip of this.#ipsOfNamespace.get(name) ?? []) {
				const pod = this.#peers.get(ip)
				if (pod === undefined) continue
				for (const m of this.#index.candidates(pod)) if (m.namespaces !== undefined) this.#place(m, ip, pod)
			}
		}
	}

	#touchNames(before: ResolvedNames, after: ResolvedNames): void {
		if (this.#domains.size === 0) return
		diffTables(before, after, (name, had, has) => {
			for (const set of this.#domains.values()) if (meansName(set, name)) this.#nameIn(set, name, had, has)
		})
	}

	/** Puts a name's addresses into the set, in place of those it had. */
	#nameIn(set: ActiveDomains, name: string, had: readonly Ip[] = [], has: readonly Ip[] = []): void {
		const touched = new Set([...had, ...has])
		for (const ip of touched) {
			const names = set.names.get(ip) ?? new Set<string>()
			if (has.includes(ip)) names.add(name)
			else names.delete(name)
			if (names.size === 0) set.names.delete(ip)
			else set.names.set(ip, names)
			const element = names.size === 0 ? undefined : { comment: clip([...names].sort().join(', ')) }
			this.#tables[familyName(ip)].edit(set.name, ip, element)
		}
	}

	/** Puts the pod's elements at `ip` into the set, or takes them out. */
	#place(m: ActiveMembership, ip: Ip, pod: Pod | undefined): void {
		const table = this.#tables[familyName(ip)]
		const before = m.keys.get(ip) ?? []
		const after = pod === undefined ? [] : keysOf(m, this.#model, pod, ip)
		if (before.length === 0 && after.length === 0) return
		for (const key of before) if (!after.includes(key)) table.edit(m.name, key, undefined)
		for (const key of after) if (!before.includes(key)) table.edit(m.name, key, {})
		if (after.length === 0) m.keys.delete(ip)
		else m.keys.set(ip, after)
	}

	/** Groups whose policies say something else now. Pods that are selected by other policies now are added to `subjects`. */
	#touchPolicies(before: PolicyModel, model: PolicyModel, subjects: Set<Ip>): Set<ActiveGroup> {
		const changed: { readonly before: Policy | undefined; readonly after: Policy | undefined }[] = []
		diffTables(before.policies, model.policies, (key, a, b) => {
			changed.push({ before: a, after: b })
			const namespace = (a ?? b)?.namespace ?? ''
			const list = this.#policies.get(namespace) ?? new Map<ObjectKey, Policy>()
			if (b === undefined) list.delete(key)
			else list.set(key, b)
			if (list.size === 0) this.#policies.delete(namespace)
			else this.#policies.set(namespace, list)
		})
		const edited = new Set<ObjectKey>()
		for (const { before: a, after: b } of changed) {
			if (a !== undefined && b !== undefined) edited.add(b.key)
			for (const ip of this.#subjectsOfNamespace.get((a ?? b)?.namespace ?? '') ?? []) {
				const pod = this.#subjects.get(ip)?.pod
				// A name of a port may mean something in the edited policy that was not asked for before.
				if (pod === undefined || [a, b].some((p) => p !== undefined && selectorMatches(p.subject, pod.labels)))
					subjects.add(ip)
			}
		}
		const rebuilt = new Set<ActiveGroup>()
		if (edited.size === 0) return rebuilt
		for (const active of this.#groups.values()) {
			if (!active.group.policies.some((p) => edited.has(p.key))) continue
			rebuilt.add(active)
		}
		return rebuilt
	}

	/** Policies of the tiers are few and select across namespaces: all pods of the node are looked at again. */
	#touchTiers(before: PolicyModel, model: PolicyModel, subjects: Set<Ip>, rebuilt: Set<ActiveGroup>): void {
		if (before.tieredPolicies !== model.tieredPolicies) {
			this.#tiers = inOrder(model.tieredPolicies.values())
			for (const ip of this.#subjects.keys()) subjects.add(ip)
			for (const active of this.#groups.values()) if (active.group.tiers.length > 0) rebuilt.add(active)
		}
	}

	/** Nodes are few: chains that name them are written again. */
	#touchNodes(rebuilt: Set<ActiveGroup>): void {
		const inBlocks = this.#config.profile?.blocksMatchNodes !== false
		const names = ({ peers }: PolicyRule | TieredRule) =>
			peers.some((peer) => peer.kind === 'nodes' || (!inBlocks && peer.kind === 'block'))
		for (const active of this.#groups.values()) {
			const { tiers, policies, direction } = active.group
			if ([...tiers, ...policies].some((policy) => policy[direction]?.some(names) === true)) rebuilt.add(active)
		}
	}

	#subjectAt(ip: Ip): Pick<Subject, 'namespace' | 'pod'> | undefined {
		const wired = this.#wired.get(ip)
		if (wired !== undefined) {
			const pod = this.#model.pods.get(wired.pod)
			const namespace = wired.pod.slice(0, Math.max(0, wired.pod.indexOf('/')))
			// A pod of the same name may be a later one.
			return pod === undefined || pod.uid !== wired.uid ? { namespace } : { namespace, pod }
		}
		const pod = this.#peers.get(ip)
		return pod?.node === this.#node ? { namespace: pod.namespace, pod } : undefined
	}

	/** Brings the address to the chains that its pod belongs to now. */
	#settle(ip: Ip): void {
		const family = familyName(ip)
		const table = this.#tables[family]
		const before = this.#subjects.get(ip)
		const subject = this.#subjectAt(ip)
		const groups: Partial<Record<Direction, ActiveGroup>> = {}
		for (const direction of directions) {
			const group = subject === undefined ? undefined : this.#groupOf(subject, direction)
			if (group !== undefined) groups[direction] = this.#acquire(group, family)
		}
		// Released only now: what both have in common stays.
		for (const direction of directions) {
			const old = before?.groups[direction]
			if (old !== undefined) this.#release(old, family)
			const now = groups[direction]
			if (now !== undefined && subject !== undefined) {
				const comment = originComment({ kind: 'Pod', key: subject.pod?.key ?? this.#wired.get(ip)?.pod ?? '' })
				table.edit(names[direction], ip, { data: `jump ${now.name}`, comment })
			} else if (old !== undefined) table.edit(names[direction], ip, undefined)
		}
		const isolated = groups.ingress !== undefined || groups.egress !== undefined
		const was = before?.groups.ingress !== undefined || before?.groups.egress !== undefined
		if (isolated !== was && hasSelf(this.#config)) table.edit(names.self, `${ip} . ${ip}`, isolated ? {} : undefined)
		if (before !== undefined && before.namespace !== subject?.namespace)
			removeFrom(this.#subjectsOfNamespace, before.namespace, ip)
		if (subject === undefined) this.#subjects.delete(ip)
		else {
			this.#subjects.set(ip, { ...subject, groups })
			addTo(this.#subjectsOfNamespace, subject.namespace, ip)
		}
	}

	/** Undefined: no policy isolates the pod in this direction. */
	#groupOf({ namespace, pod }: Pick<Subject, 'namespace' | 'pod'>, direction: Direction): Group | undefined {
		const all = this.#policies.get(namespace)
		const tiered = this.#tiers.filter((policy) => policy[direction].length > 0)
		if (all === undefined && tiered.length === 0) return undefined
		if (pod === undefined) {
			const any = [...(all?.values() ?? [])].some((p) => p[direction] !== undefined)
			const labels = this.#model.namespaces.get(namespace)?.labels ?? { [namespaceNameLabel]: namespace }
			const tier = tiered.some((p) => selectorMatches(p.subject.namespaces, labels))
			return any || tier ? { direction, namespace, policies: [], tiers: [], named: new Map() } : undefined
		}
		const policies = all === undefined ? [] : selecting(all.values(), pod, direction)
		const tiers = tiered.filter((policy) => tierSelects(policy, this.#model, pod))
		if (policies.length === 0 && tiers.length === 0) return undefined
		const named =
			direction === 'ingress' ? namedPortsOf([...policies, ...tiers], pod) : new Map<string, readonly number[]>()
		return { direction, namespace, policies, tiers, named }
	}

	#acquire(group: Group, family: Family): ActiveGroup {
		const key = groupKey(group)
		let active = this.#groups.get(key)
		if (active === undefined) {
			active = { group, key, name: chainName(group), uses: { ip: 0, ip6: 0 } }
			this.#groups.set(key, active)
		}
		active.group = group
		if (active.uses[family]++ === 0) this.#build(active, family)
		return active
	}

	#release(active: ActiveGroup, family: Family): void {
		if (--active.uses[family] > 0) return
		for (const name of this.#tables[family].removeChains(active.name)) this.#forget(name, family)
		if (active.uses.ip + active.uses.ip6 === 0) this.#groups.delete(active.key)
	}

	#rebuild(active: ActiveGroup): void {
		const policies = active.group.policies.flatMap((p) => this.#model.policies.get(p.key) ?? [])
		const { tiers: before } = active.group
		const tiers = this.#tiers.filter((p) => before.some((b) => b.kind === p.kind && b.key === p.key))
		active.group = { ...active.group, policies, tiers }
		for (const family of families) if (active.uses[family] > 0) this.#build(active, family)
	}

	#build(active: ActiveGroup, family: Family): void {
		const chains = chainsOf(active.group, family, this.#config, this.#model.nodes)
		for (const m of chains.memberships) this.#remember(m, family)
		for (const set of chains.domains) this.#rememberNames(set, family)
		const dropped = this.#tables[family].setChains(active.name, chains)
		for (const name of dropped) this.#forget(name, family)
	}

	/** One more chain asks for it; filled when it is the first. */
	#remember(m: Membership, family: Family): void {
		let active = this.#memberships.get(m.name)
		if (active === undefined) {
			active = { ...m, uses: { ip: 0, ip6: 0 }, keys: new Map() }
			this.#memberships.set(m.name, active)
			this.#index.add(active)
			const ips = m.scope === undefined ? this.#peers.keys() : (this.#ipsOfNamespace.get(m.scope) ?? [])
			for (const ip of ips) this.#place(active, ip, this.#peers.get(ip))
		}
		active.uses[family]++
	}

	#rememberNames(set: DomainSet, family: Family): void {
		let active = this.#domains.get(set.name)
		if (active === undefined) {
			active = { ...set, uses: { ip: 0, ip6: 0 }, names: new Map() }
			this.#domains.set(set.name, active)
			for (const [name, ips] of this.#model.resolvedNames ?? noNames)
				if (meansName(active, name)) this.#nameIn(active, name, [], ips)
		}
		active.uses[family]++
	}

	#forget(name: string, family: Family): void {
		const membership = this.#memberships.get(name)
		const active = membership ?? this.#domains.get(name)
		if (active === undefined) return
		active.uses[family]--
		if (active.uses.ip + active.uses.ip6 > 0) return
		this.#domains.delete(name)
		if (membership !== undefined) {
			this.#memberships.delete(name)
			this.#index.delete(membership)
		}
		for (const each of families) this.#tables[each].clear(name)
	}

	#finish(): NftProgram {
		const tables = families.flatMap((family) => this.#tables[family].finish() ?? [])
		const old = this.#program.tables
		const same = tables.length === old.size && tables.every((t) => old.get(tableKey(t.family, t.name)) === t)
		if (!same) this.#program = { tables: tableOf(tables.map((t) => [tableKey(t.family, t.name), t] as const)) }
		return this.#program
	}
}

/** Most changes of a pod (it becomes ready, its status is written) are none for policies. */
function sameForPolicies(a: Pod, b: Pod): boolean {
	return (
		a.labels === b.labels &&
		a.ips === b.ips &&
		a.ports === b.ports &&
		a.uid === b.uid &&
		a.node === b.node &&
		a.hostNetwork === b.hostNetwork &&
		a.phase === b.phase
	)
}

function addTo<K, V>(map: Map<K, Set<V>>, key: K, value: V): void {
	const set = map.get(key)
	if (set === undefined) map.set(key, new Set([value]))
	else set.add(value)
}

function removeFrom<K, V>(map: Map<K, Set<V>>, key: K, value: V): void {
	const set = map.get(key)
	if (set?.delete(value) === true && set.size === 0) map.delete(key)
}
