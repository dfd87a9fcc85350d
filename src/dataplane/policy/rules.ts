// The chain of the policies that select a pod: a rule for each way in which one of them allows a connection (return: the
// other direction is asked next), and at the end what becomes of everything else.

import { type Cidr, familyOf, type Ip } from '../../base/ip.ts'
import { type Table, tableOf } from '../../base/table.ts'
import {
	addresses,
	count,
	decide,
	inSet,
	load,
	matchPort,
	matchPrefix,
	matchProtocol,
	notInSet,
	th,
} from '../../linux/nft/build.ts'
import type { Expression } from '../../linux/nft/expr/expression.ts'
import { bareElement, type NftChain, type NftElement, type NftRule, type NftSet } from '../../linux/nft/program.ts'
import type {
	NetworkModel,
	Node,
	Pod,
	Policy,
	PolicyPeer,
	PolicyPort,
	PolicyRule,
	TieredPolicy,
	TieredRule,
} from '../../model/network.ts'
import type { Origin } from '../../model/origin.ts'
import type { Direction } from '../../model/policy.ts'
import { type PolicyProfile, policyProfiles } from '../../model/policy-profile.ts'
import { isNothing, selectorMatches } from '../../model/selector.ts'
import { originComment } from '../origin.ts'
import { type Block, rangesOf } from './blocks.ts'
import { type DomainSet, domainSetOf } from './domains.ts'
import {
	addressType,
	blockSet,
	type Family,
	hasSelf,
	names,
	type PolicyConfig,
	peerAddress,
	peerSet,
	portKey,
	portSet,
} from './layout.ts'
import { type LoggedVerdict, logRules } from './log.ts'
import { clip, digest, type Membership, membershipOf, protocolName, protocolNumber } from './members.ts'

/** Pods whose connections in one direction the same policies decide. */
export interface Group {
	readonly direction: Direction
	readonly namespace: string
	/** By key. */
	readonly policies: readonly Policy[]
	/** Policies of the tiers that select the pods and have rules for the direction, in their order. */
	readonly tiers: readonly TieredPolicy[]
	/** What the names of ports in the policies mean on these pods, for ingress: `TCP http` → numbers. */
	readonly named: ReadonlyMap<string, readonly number[]>
}

export interface GroupChains {
	/** The first is the group's; it goes on to the others. */
	readonly chains: readonly NftChain[]
	readonly memberships: readonly Membership[]
	readonly domains: readonly DomainSet[]
	/** Sets with the contents they have for good. */
	readonly constants: readonly NftSet[]
}

type TransportProtocol = 'TCP' | 'UDP' | 'SCTP'

export function groupKey({ direction, namespace, policies, tiers, named }: Group): string {
	const inTiers = tiers.map((p) => `${p.kind} ${p.key}`)
	return JSON.stringify([direction, namespace, policies.map((p) => p.key), inTiers, [...named]])
}

/** The pods are not known yet, and some policy may select them. */
export function isUnknown({ policies, tiers }: Group): boolean {
	return policies.length === 0 && tiers.length === 0
}

/** The same for the same policies on every node and after every restart. */
export function chainName(group: Group): string {
	const { direction, namespace } = group
	return `${direction}-${namespace}-${isUnknown(group) ? 'unknown' : digest(groupKey(group))}`
}

/** What the names in the policies' ingress rules mean on the pod. */
export function namedPortsOf(
	policies: readonly (Policy | TieredPolicy)[],
	pod: Pod,
): ReadonlyMap<string, readonly number[]> {
	const named = new Map<string, readonly number[]>()
	for (const policy of policies) {
		for (const rule of policy.ingress ?? []) {
			for (const { port, protocol } of rule.ports) {
				if (typeof port !== 'string' || named.has(`${protocol} ${port}`)) continue
				const found = pod.ports.filter((p) => p.name === port && p.protocol === protocol).map((p) => p.port)
				named.set(
					`${protocol} ${port}`,
					[...new Set(found)].sort((a, b) => a - b),
				)
			}
		}
	}
	return new Map([...named].sort(([a], [b]) => (a < b ? -1 : 1)))
}

/** The tiers and the policies in their order: Admin, NetworkPolicy, Baseline, and what holds where nobody decided. */
export function chainsOf(group: Group, family: Family, config: PolicyConfig, nodes: Nodes): GroupChains {
	const { direction, policies, tiers } = group
	const memberships = new Map<string, Membership>()
	const domains = new Map<string, DomainSet>()
	const constants = new Map<string, NftSet>()
	const profile = config.profile ?? policyProfiles.default
	const context: RuleContext = {
		direction,
		named: group.named,
		family,
		nodes,
		profile,
		memberships,
		domains,
		constants,
	}
	const name = chainName(group)
	const { saddr, daddr } = addresses(family)
	const self: NftRule[] = !hasSelf(config)
		? []
		: [
				{
					expressions: [...inSet([saddr, daddr], names.self), count, decide('return')],
					comment: 'a pod may always reach itself',
				},
			]
	const rulesOf = (rule: PolicyRule | TieredRule, scope: string | undefined, end: End, chain: string): NftRule[] => {
		const comment = originComment(rule.origin)
		return matchesOf(context, scope, rule).flatMap((match) => [
			...(end.says === undefined ? [] : logRules(config.log, end.says, chain, end.because ?? comment, match)),
			{ expressions: [...match, count, end.verdict], comment },
		])
	}
	const tierRules = (tier: TieredPolicy['tier'], accept: End, pass: End, chain: string): NftRule[] => {
		const ends = { Accept: accept, Deny: deny, Pass: pass }
		const rules = tiers.filter((policy) => policy.tier === tier).flatMap((policy) => policy[direction])
		return rules.flatMap((rule) => rulesOf(rule, undefined, ends[rule.action], chain))
	}
	const next = `${name}-next`
	const first = tierRules('Admin', allow, { verdict: decide('goto', next) }, name)
	const passes = tiers.some((p) => p.tier === 'Admin' && p[direction].some((rule) => rule.action === 'Pass'))
	const rest: NftRule[] = []
	const chain = passes ? next : name
	for (const policy of policies) {
		for (const rule of policy[direction] ?? []) rest.push(...rulesOf(rule, policy.namespace, allow, chain))
	}
	// Under a tier it comes before everything that may deny; else only what is about to be denied asks for it.
	const tiered = tiers.length > 0
	if (!tiered) rest.push(...self)
	rest.push(...lastRules(group, chain, config, (open) => tierRules('Baseline', open, open, chain)))
	const goOn: NftRule = { expressions: [count, decide('goto', next)], comment: 'no rule of the tier' }
	const chains = passes
		? [
				{ name, rules: [...self, ...first, goOn] },
				{ name: next, rules: rest },
			]
		: [{ name, rules: tiered ? [...self, ...first, ...rest] : rest }]
	return {
		chains,
		memberships: [...memberships.values()],
		domains: [...domains.values()],
		constants: [...constants.values()],
	}
}

/** What a rule that matches does, and what it is called in the log; the log has no word for going on to another tier. */
interface End {
	readonly verdict: Expression
	readonly says?: LoggedVerdict
	/** What is logged as the reason; the rule itself where it is absent. */
	readonly because?: string
}
const allow: End = { verdict: decide('return'), says: 'allow' }
const deny: End = { verdict: decide('drop'), says: 'deny' }

/**
 * What no rule allowed is dropped, unless all policies that say so are on trial: then the Baseline tier is asked, as where
 * there are none, and what passes that is logged.
 */
function lastRules(
	group: Group,
	chain: string,
	config: PolicyConfig,
	baseline: (open: End) => readonly NftRule[],
): NftRule[] {
	const { namespace, policies } = group
	const end = (verdict: LoggedVerdict, comment: string): NftRule[] => [
		...logRules(config.log, verdict, chain, comment),
		{ expressions: [count, decide(verdict === 'deny' ? 'drop' : 'return')], comment },
	]
	if (isUnknown(group))
		return end('deny', clip(`the pod is not known yet, and policies of namespace ${namespace} may select it`))
	const inForce = policies.filter((p) => p.audit === undefined)
	if (inForce.length > 0) return end('deny', reasons(inForce.map((p) => p.origin)))
	if (policies.length === 0) return [...baseline(allow)]
	// What that tier lets pass, the policies in force would not: they come before it.
	const because = reasons(policies.map((p) => p.origin))
	return [...baseline({ ...allow, says: 'audit', because }), ...end('audit', because)]
}

/** One policy as every origin is written; of several their keys. */
function reasons(origins: readonly Origin[]): string {
	const [first] = origins
	if (first !== undefined && origins.length === 1) return originComment(first)
	return clip(`NetworkPolicy ${origins.map((o) => ('key' in o ? o.key : o.default)).join(', ')}`)
}

export type Nodes = NetworkModel['nodes']

interface RuleContext {
	readonly direction: Direction
	readonly named: Group['named']
	readonly family: Family
	readonly nodes: Nodes
	readonly profile: PolicyProfile
	/** What the rules ask for is noted here. */
	readonly memberships: Map<string, Membership>
	readonly domains: Map<string, DomainSet>
	readonly constants: Map<string, NftSet>
}

/** Every combination of a peer and a port of the rule: what must hold of a packet, any of them. */
function matchesOf(context: RuleContext, scope: string | undefined, rule: PolicyRule | TieredRule): Expression[][] {
	const { direction, family, profile, memberships, domains, constants } = context
	const address = peerAddress(family, direction)
	const use = (m: Membership) => {
		memberships.set(m.name, m)
		return m.name
	}
	const useNames = (set: DomainSet) => {
		domains.set(set.name, set)
		return set.name
	}
	const keep = (set: NftSet) => {
		constants.set(set.name, set)
		return set.name
	}
	/** Where a network means none of the pods, or none of the nodes, that lie in it. */
	const notOfCluster = () => {
		const nodes = profile.blocksMatchNodes ? [] : addressesOf(context.nodes.values(), family)
		return [
			...(profile.blocksMatchPods ? [] : notInSet([address], use(membershipOf({})))),
			...(nodes.length === 0 ? [] : notInSet([address], keep(nodeSet(family, nodes)))),
		]
	}
	const { ports, names: portNames } = portMatches(context, rule.ports, keep)
	const matches: Expression[][] = []
	for (const peer of peersOf(context, scope, rule)) {
		const expressions =
			peer.kind === 'any'
				? []
				: peer.kind === 'pods'
					? inSet([address], use(membershipOf(peer.who)))
					: peer.kind === 'nodes'
						? inSet([address], keep(nodeSet(family, peer.addresses)))
						: peer.kind === 'domains'
							? inSet([address], useNames(peer.set))
							: [...matchBlocks(peer.blocks, family, direction, keep), ...(peer.anyone ? [] : notOfCluster())]
		for (const port of ports) matches.push([...expressions, ...port])
		// A name means another number on each pod: address and port are looked up together.
		for (const port of portNames) {
			// Nodes have no ports with names, nor has what lies outside.
			if (peer.kind === 'nodes' || (peer.kind === 'blocks' && !profile.blocksMatchPods)) continue
			const who = peer.kind === 'pods' ? peer.who : peer.kind === 'blocks' ? { blocks: peer.blocks } : {}
			const set = use(membershipOf({ ...who, port }))
			const named = peer.kind === 'domains' ? expressions : []
			matches.push([...named, ...inSet([address, ...portKey], set)])
		}
	}
	return matches
}

type Peer =
	| { readonly kind: 'any' }
	| { readonly kind: 'pods'; readonly who: Pick<Membership, 'scope' | 'namespaces' | 'pods'> }
	/** `anyone`: whoever has such an address, whatever the profile says. */
	| { readonly kind: 'blocks'; readonly blocks: readonly Block[]; readonly anyone: boolean }
	| { readonly kind: 'nodes'; readonly addresses: readonly Ip[] }
	| { readonly kind: 'domains'; readonly set: DomainSet }

/**
 * Peers of the rule that the family can have; what cannot be read matches nobody. No peers: anybody where the rule is a
 * NetworkPolicy's, which has a `scope` (its namespace), and nobody in the tiers.
 */
function peersOf({ family, nodes }: RuleContext, scope: string | undefined, rule: PolicyRule | TieredRule): Peer[] {
	const { peers } = rule
	if (peers.length === 0) return scope === undefined ? [] : [{ kind: 'any' }]
	const found: Peer[] = []
	const blocks: Block[] = []
	for (const peer of peers) {
		if (peer.kind === 'block') {
			if ((familyOf(peer.cidr) === 4) === (family === 'ip')) blocks.push(blockOf(peer))
		} else if (peer.kind === 'nodes') {
			const addresses = addressesOf(
				[...nodes.values()].filter((node) => selectorMatches(peer.nodes, node.labels)),
				family,
			)
			if (addresses.length > 0) found.push({ kind: 'nodes', addresses })
		} else if (peer.kind === 'pods') {
			if (isNothing(peer.pods) || isNothing(peer.namespaces)) continue
			const { namespaces, pods } = peer
			const where = namespaces !== undefined ? { namespaces } : scope === undefined ? {} : { scope }
			found.push({ kind: 'pods', who: { ...where, ...(pods === undefined ? {} : { pods }) } })
		} else found.push({ kind: 'domains', set: domainSetOf(peer.names) })
	}
	// What cannot be read is closed for everybody.
	if (blocks.length > 0) found.push({ kind: 'blocks', blocks, anyone: 'unreadable' in rule })
	return found
}

function addressesOf(nodes: Iterable<Node>, family: Family): readonly Ip[] {
	const all = [...nodes].flatMap((n) => n.addresses).filter((ip) => (familyOf(ip) === 4) === (family === 'ip'))
	return [...new Set(all)].sort()
}

function blockOf({ cidr, except }: Extract<PolicyPeer, { kind: 'block' }>): Block {
	return { cidr, except: except.filter((hole) => familyOf(hole) === familyOf(cidr)) }
}

/** One network is compared, several are looked up. */
function matchBlocks(
	blocks: readonly Block[],
	family: Family,
	direction: Direction,
	keep: (set: NftSet) => string,
): Expression[] {
	const part = peerAddress(family, direction)
	const only = blocks[0]
	if (blocks.length === 1 && only?.except.length === 0) return matchPrefix(part, only.cidr as Cidr)
	const ranges = rangesOf(blocks, family === 'ip' ? 4 : 6)
	const text = blocks.map((b) => `${b.cidr}${b.except.length === 0 ? '' : ` except ${b.except.join(', ')}`}`)
	const name = `blocks-${digest([addressType[family], text])}`
	keep({ ...blockSet(family, name, clip(text.join('; '))), elements: bare(ranges) })
	return inSet([part], name)
}

function nodeSet(family: Family, list: readonly Ip[]): NftSet {
	const set = peerSet(family, `nodes-${digest([addressType[family], list])}`, 'addresses of nodes')
	return { ...set, elements: bare(list) }
}

function bare(keys: Iterable<string>): Table<string, NftElement> {
	return tableOf([...keys].map((key) => [key, bareElement] as const))
}

interface PortMatches {
	readonly ports: readonly (readonly Expression[])[]
	/** Names to look up on the other side's pods. */
	readonly names: readonly NonNullable<Membership['port']>[]
}

/** Single ports are one lookup, ranges and whole protocols one comparison each. */
function portMatches(context: RuleContext, list: readonly PolicyPort[], keep: (set: NftSet) => string): PortMatches {
	if (list.length === 0) return { ports: [[]], names: [] }
	const single = new Map<string, Expression[]>()
	const ranges = new Map<string, Expression[]>()
	const names = new Map<string, NonNullable<Membership['port']>>()
	for (const { protocol: p, port, endPort } of list) {
		if (p === 'ICMP') continue
		const protocol: TransportProtocol = p
		const one = (number: number) =>
			single.set(`${protocolName(protocol)} . ${number}`, [
				...matchProtocol(protocolNumber(protocol)),
				...matchPort(th.dport, number),
			])
		if (port === undefined) ranges.set(protocol, matchProtocol(protocolNumber(protocol)))
		else if (typeof port === 'string') {
			if (context.direction === 'egress') names.set(`${protocol} ${port}`, { name: port, protocol })
			else for (const number of context.named.get(`${protocol} ${port}`) ?? []) one(number)
		} else if (endPort === undefined || endPort === port) one(port)
		else if (endPort > port) ranges.set(`${protocol} ${port}-${endPort}`, matchRange(protocol, port, endPort))
	}
	const ports: (readonly Expression[])[] = []
	const [first] = single.values()
	if (single.size === 1 && first !== undefined) ports.push(first)
	else if (single.size > 1) {
		const keys = [...single.keys()].sort()
		const name = `ports-${digest(keys)}`
		keep({ ...portSet(name, clip(keys.map((k) => k.replace(' . ', '/')).join(', '))), elements: bare(keys) })
		ports.push(inSet(portKey, name))
	}
	return { ports: [...ports, ...ranges.values()], names: [...names.values()] }
}

/** `tcp dport 9000-9100` */
function matchRange(protocol: TransportProtocol, low: number, high: number): Expression[] {
	const value = (port: number) => port.toString(16).padStart(4, '0')
	return [
		...matchProtocol(protocolNumber(protocol)),
		...load([th.dport]),
		{ kind: 'cmp', op: 'gte', from: 0, value: value(low) },
		{ kind: 'cmp', op: 'lte', from: 0, value: value(high) },
	]
}
