// The chain of the policies that select a pod: a rule for each way in which one of them allows a connection (return: the
// other direction is asked next), and at the end what becomes of everything else.

import { type Cidr, familyOf } from '../../base/ip.ts'
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
	th,
} from '../../linux/nft/build.ts'
import type { Expression } from '../../linux/nft/expr/expression.ts'
import { bareElement, type NftChain, type NftElement, type NftRule, type NftSet } from '../../linux/nft/program.ts'
import type { Pod, Policy, PolicyPeer, PolicyPort, PolicyRule } from '../../model/network.ts'
import type { Origin } from '../../model/origin.ts'
import type { Direction } from '../../model/policy.ts'
import { isNothing } from '../../model/selector.ts'
import { originComment } from '../origin.ts'
import { type Block, rangesOf } from './blocks.ts'
import {
	addressType,
	blockSet,
	type Family,
	names,
	type PolicyConfig,
	peerAddress,
	portKey,
	portSet,
} from './layout.ts'
import { logRules } from './log.ts'
import { clip, digest, type Membership, membershipOf, protocolName, protocolNumber } from './members.ts'

/** Pods whose connections in one direction the same policies decide. */
export interface Group {
	readonly direction: Direction
	readonly namespace: string
	/** By key; empty: the pods are not known yet, and some policy of their namespace may select them. */
	readonly policies: readonly Policy[]
	/** What the names of ports in the policies mean on these pods, for ingress: `TCP http` → numbers. */
	readonly named: ReadonlyMap<string, readonly number[]>
}

export interface GroupChain {
	readonly chain: NftChain
	readonly memberships: readonly Membership[]
	/** Sets with the contents they have for good. */
	readonly constants: readonly NftSet[]
}

type TransportProtocol = 'TCP' | 'UDP' | 'SCTP'

export function groupKey({ direction, namespace, policies, named }: Group): string {
	return JSON.stringify([direction, namespace, policies.map((p) => p.key), [...named]])
}

/** The same for the same policies on every node and after every restart. */
export function chainName(group: Group): string {
	const { direction, namespace, policies } = group
	return `${direction}-${namespace}-${policies.length === 0 ? 'unknown' : digest(groupKey(group))}`
}

/** What the names in the policies' ingress rules mean on the pod. */
export function namedPortsOf(policies: readonly Policy[], pod: Pod): ReadonlyMap<string, readonly number[]> {
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

export function chainOf(group: Group, family: Family, config: PolicyConfig): GroupChain {
	const { direction, policies } = group
	const name = chainName(group)
	const memberships = new Map<string, Membership>()
	const constants = new Map<string, NftSet>()
	const rules: NftRule[] = []
	for (const policy of policies) {
		for (const rule of policy[direction] ?? []) {
			const matches = matchesOf(group, policy, rule, family, memberships, constants)
			const comment = originComment(rule.origin)
			for (const match of matches) {
				rules.push(...logRules(config.log, 'allow', name, comment, match))
				rules.push({ expressions: [...match, count, decide('return')], comment })
			}
		}
	}
	const { saddr, daddr } = addresses(family)
	rules.push({
		expressions: [...inSet([saddr, daddr], names.self), count, decide('return')],
		comment: 'a pod may always reach itself',
	})
	rules.push(...lastRules(group, name, config))
	return {
		chain: { name, rules },
		memberships: [...memberships.values()],
		constants: [...constants.values()],
	}
}

/** What no rule allowed is dropped, unless all policies that say so are on trial: then it is logged only. */
function lastRules({ namespace, policies }: Group, chain: string, config: PolicyConfig): NftRule[] {
	const audited = policies.length > 0 && policies.every((p) => p.audit !== undefined)
	const comment =
		policies.length === 0
			? clip(`the pod is not known yet, and policies of namespace ${namespace} may select it`)
			: reasons(policies.filter((p) => audited || p.audit === undefined).map((p) => p.origin))
	return [
		...logRules(config.log, audited ? 'audit' : 'deny', chain, comment),
		{ expressions: [count, decide(audited ? 'return' : 'drop')], comment },
	]
}

/** One policy as every origin is written; of several their keys. */
function reasons(origins: readonly Origin[]): string {
	const [first] = origins
	if (first !== undefined && origins.length === 1) return originComment(first)
	return clip(`NetworkPolicy ${origins.map((o) => ('key' in o ? o.key : o.default)).join(', ')}`)
}

/** Every combination of a peer and a port of the rule: what must hold of a packet, any of them. */
function matchesOf(
	group: Group,
	policy: Policy,
	rule: PolicyRule,
	family: Family,
	memberships: Map<string, Membership>,
	constants: Map<string, NftSet>,
): Expression[][] {
	const address = peerAddress(family, group.direction)
	const use = (m: Membership) => {
		memberships.set(m.name, m)
		return m.name
	}
	const keep = (set: NftSet) => {
		constants.set(set.name, set)
		return set.name
	}
	const { ports, names: portNames } = portMatches(group, rule.ports, keep)
	const matches: Expression[][] = []
	for (const peer of peersOf(policy, rule, family)) {
		const expressions =
			peer.kind === 'any'
				? []
				: peer.kind === 'pods'
					? inSet([address], use(membershipOf(peer.who)))
					: matchBlocks(peer.blocks, family, group.direction, keep)
		for (const port of ports) matches.push([...expressions, ...port])
		// A name means another number on each pod: address and port are looked up together.
		for (const port of portNames) {
			const who = peer.kind === 'any' ? {} : peer.kind === 'pods' ? peer.who : { blocks: peer.blocks }
			const set = use(membershipOf({ ...who, port }))
			matches.push(inSet([address, ...portKey], set))
		}
	}
	return matches
}

type Peer =
	| { readonly kind: 'any' }
	| { readonly kind: 'pods'; readonly who: Pick<Membership, 'scope' | 'namespaces' | 'pods'> }
	| { readonly kind: 'blocks'; readonly blocks: readonly Block[] }

/** Peers of the rule that the family can have; what cannot be read matches nobody. */
function peersOf(policy: Policy, { peers }: PolicyRule, family: Family): Peer[] {
	if (peers.length === 0) return [{ kind: 'any' }]
	const found: Peer[] = []
	const blocks: Block[] = []
	for (const peer of peers) {
		if (peer.kind === 'block') {
			if ((familyOf(peer.cidr) === 4) === (family === 'ip')) blocks.push(blockOf(peer))
		} else if (!isNothing(peer.pods)) {
			const { namespaces, pods } = peer
			const scope = namespaces === undefined ? { scope: policy.namespace } : { namespaces }
			found.push({ kind: 'pods', who: { ...scope, ...(pods === undefined ? {} : { pods }) } })
		}
	}
	if (blocks.length > 0) found.push({ kind: 'blocks', blocks })
	return found
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

function bare(keys: Iterable<string>): Table<string, NftElement> {
	return tableOf([...keys].map((key) => [key, bareElement] as const))
}

interface PortMatches {
	readonly ports: readonly (readonly Expression[])[]
	/** Names to look up on the other side's pods. */
	readonly names: readonly NonNullable<Membership['port']>[]
}

/** Single ports are one lookup, ranges and whole protocols one comparison each. */
function portMatches(group: Group, list: readonly PolicyPort[], keep: (set: NftSet) => string): PortMatches {
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
			if (group.direction === 'egress') names.set(`${protocol} ${port}`, { name: port, protocol })
			else for (const number of group.named.get(`${protocol} ${port}`) ?? []) one(number)
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
