// The names and types of everything in our tables, and the chains a packet enters by. What is common to all pods is
// here; the chains of single policies are in rules.ts.

import {
	addresses,
	connectionState,
	count,
	decide,
	fieldsOf,
	l4proto,
	localSource,
	type Part,
	th,
	verdictMap,
} from '../../linux/nft/build.ts'
import { type Field, field, protocols } from '../../linux/nft/datatype.ts'
import type { Expression } from '../../linux/nft/expr/expression.ts'
import type { BaseChain, NftChain, NftRule, NftSet } from '../../linux/nft/program.ts'
import type { Direction } from '../../model/policy.ts'
import type { PolicyProfile } from '../../model/policy-profile.ts'
import type { LogConfig } from './log.ts'

/** Our tables: `ip podwire-policy`, `ip6 podwire-policy`. There only while a policy selects a pod of the node. */
export const tableName = 'podwire-policy'

export const names = {
	/** The pods of this node that a policy isolates: each leads to the chain of its policies. */
	ingress: 'ingress-pods',
	egress: 'egress-pods',
	/** Those pods, to themselves. */
	self: 'self',
} as const satisfies Record<Direction | 'self', string>

/** Which direction's policies a chain of ours asks; undefined for other chains. */
export function directionOf(at: { readonly table: string; readonly chain: string }): Direction | undefined {
	if (at.table !== tableName) return undefined
	return at.chain.startsWith('ingress-') ? 'ingress' : at.chain.startsWith('egress-') ? 'egress' : undefined
}

export type Family = 'ip' | 'ip6'
export const families: readonly Family[] = ['ip', 'ip6']

export interface PolicyConfig {
	/**
	 * Interface that packets of other nodes come in by. What a pod of this node once sent may come back by it (through
	 * another node's port), and left by its policies then. Undefined: every packet counts as coming from its sender.
	 */
	readonly uplink?: string
	/**
	 * Connections that are established are asked again with each packet, so that a policy that comes cuts them.
	 * Otherwise (and by default) policies are for new connections.
	 */
	readonly cutEstablished?: boolean
	/** How the corners that the API leaves open are filled; `established` aside, which is `cutEstablished`. */
	readonly profile?: PolicyProfile
	/** What is logged, and where to. Undefined: nothing. */
	readonly log?: LogConfig
}

/** Whether a pod may always reach itself. */
export function hasSelf({ profile }: PolicyConfig): boolean {
	return profile?.hairpin !== 'by-policy'
}

type Declaration = Omit<NftSet, 'elements'>

export const addressType = { ip: 'ipv4_addr', ip6: 'ipv6_addr' } as const
const none: Declaration['flags'] = []
const interval: Declaration['flags'] = ['interval']

function perFamily<T>(make: (family: Family) => T): Readonly<Record<Family, T>> {
	return { ip: make('ip'), ip6: make('ip6') }
}

/** Addresses alone are declared by type: a set is asked for sources by one chain, for destinations by another. */
const addressFields = perFamily((family): readonly Field[] => [field(addressType[family])])
const addressPortFields = perFamily((family): readonly Field[] => [
	field(addressType[family]),
	field('inet_proto'),
	field('inet_service'),
])
const portFields: readonly Field[] = fieldsOf([l4proto, th.dport])

export function podMap(family: Family, direction: Direction): Declaration {
	return {
		name: names[direction],
		key: addressFields[family],
		data: 'verdict',
		flags: none,
		comment: `pods of this node that policies isolate for ${direction}`,
	}
}

export function selfSet(family: Family): Declaration {
	const { saddr, daddr } = addresses(family)
	return { name: names.self, key: fieldsOf([saddr, daddr]), flags: none, comment: 'isolated pods, to themselves' }
}

/** Addresses of pods that a peer of a rule selects. */
export function peerSet(family: Family, name: string, comment: string): Declaration {
	return { name, key: addressFields[family], flags: none, comment }
}

/** Addresses of pods and the port that a name means on each. */
export function namedSet(family: Family, name: string, comment: string): Declaration {
	return { name, key: addressPortFields[family], flags: none, comment }
}

export function blockSet(family: Family, name: string, comment: string): Declaration {
	return { name, key: addressFields[family], flags: interval, comment }
}

export function portSet(name: string, comment: string): Declaration {
	return { name, key: portFields, flags: none, comment }
}

/** The address of the other side. */
export function peerAddress(family: Family, direction: Direction): Part {
	const { saddr, daddr } = addresses(family)
	return direction === 'ingress' ? saddr : daddr
}

/** `meta l4proto . th dport`. */
export const portKey: readonly Part[] = [l4proto, th.dport]

/**
 * Beside the chains of other programs: before `filter`, after what refuses connections to Services that nobody serves.
 * At input after everything else, since IPVS takes its connections there, at 98 and 99: what comes after is for the node.
 */
const filter = -5
const afterIpvs = 110

function base(hook: BaseChain['hook'], priority: number): BaseChain {
	return { type: 'filter', hook, priority, policy: 'accept' }
}

export function baseChains(family: Family, config: PolicyConfig): NftChain[] {
	const { saddr, daddr } = addresses(family)
	const fromWire = config.uplink === undefined ? [] : notFrom(config.uplink)
	const egress: NftRule = {
		expressions: [...fromWire, ...verdictMap([saddr], names.egress)],
		comment: 'what pods of this node send',
	}
	const egressOfNode: NftRule = {
		expressions: verdictMap([saddr], names.egress),
		comment: 'what pods of this node send, by IPVS',
	}
	const ingress: NftRule = {
		expressions: verdictMap([daddr], names.ingress),
		comment: 'what pods of this node are sent',
	}
	const neighbours: NftRule[] =
		family === 'ip'
			? []
			: [{ expressions: neighbourDiscovery, comment: 'neighbour discovery is not for policies to deny' }]
	const fromNode: NftRule = {
		expressions: [...localSource, count, decide('accept')],
		comment: "traffic from the pod's own node is always allowed",
	}
	const known = knownConnections(config.cutEstablished === true)
	return [
		{ name: 'forward', base: base('forward', filter), rules: [...known, egress, ingress] },
		{ name: 'input', base: base('input', afterIpvs), rules: [...known, ...neighbours, egress] },
		{ name: 'output', base: base('output', filter), rules: [...known, fromNode, egressOfNode, ingress] },
	]
}

/** Answers, and errors about a connection, need no permission of their own. */
function knownConnections(cut: boolean): NftRule[] {
	const accept = decide('accept')
	if (!cut)
		return [
			{
				expressions: [...connectionState('established', 'related'), accept],
				comment: 'answers, and errors about connections that were allowed',
			},
		]
	return [
		{ expressions: [...connectionState('related'), accept], comment: 'errors about connections that were allowed' },
		{
			expressions: [
				...connectionState('established'),
				{ kind: 'ct', key: 'direction', to: 0 },
				{ kind: 'cmp', op: 'eq', from: 0, value: '01' },
				accept,
			],
			comment: 'answers; questions are asked again',
		},
	]
}

/** `iifname != "eth0"`. */
function notFrom(name: string): Expression[] {
	const value = Buffer.alloc(16)
	value.write(name)
	return [
		{ kind: 'meta', key: 'iifname', to: 0 },
		{ kind: 'cmp', op: 'neq', from: 0, value: value.toString('hex') },
	]
}

/** `icmpv6 type nd-router-solicit-nd-redirect accept`. */
const neighbourDiscovery: readonly Expression[] = [
	l4proto.load(0),
	{ kind: 'cmp', op: 'eq', from: 0, value: protocols['ipv6-icmp'].toString(16).padStart(2, '0') },
	{ kind: 'payload', base: 'transport', offset: 0, length: 1, to: 0 },
	{ kind: 'cmp', op: 'gte', from: 0, value: '85' },
	{ kind: 'cmp', op: 'lte', from: 0, value: '89' },
	decide('accept'),
]
