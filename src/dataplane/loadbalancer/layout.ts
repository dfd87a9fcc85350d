// The names, sets and chains of the appliance's tables in the router's namespace: the one place that knows their layout.

import type { Cidr } from '../../base/ip.ts'
import {
	addresses,
	connectionState,
	count,
	decide,
	dnatByMap,
	fieldsOf,
	inSet,
	l4proto,
	load,
	matchProtocol,
	type Part,
	rejectPort,
	rejectTcp,
	th,
	verdictMap,
} from '../../linux/nft/build.ts'
import { field, protocols } from '../../linux/nft/datatype.ts'
import type { Expression } from '../../linux/nft/expr/expression.ts'
import type { BaseChain, NftChain, NftRule, NftSet } from '../../linux/nft/program.ts'

/** `ip podwire-balancer`, `ip6 podwire-balancer`. */
export const tableName = 'podwire-balancer'

export const names = {
	/** Addresses the router itself has. */
	addresses: 'addresses',
	/** Addresses that only the nodes' network reaches. */
	internal: 'internal',
	/** What is handed on, and among how many nodes. */
	frontends: 'frontends',
	/** Where each goes. */
	targets: 'targets',
	/** Those with source ranges, and the ranges. */
	ranged: 'ranged',
	sourceRanges: 'source-ranges',
	/** What is routed from outside as it is. */
	routed: 'routed',
} as const

export type Family = 'ip' | 'ip6'

/** Comments of the rules that drop what is not routed from outside at all. */
export const unrouted = {
	internal: 'internal load balancers',
	elsewhere: 'pod and Service networks end inside the cluster',
} as const

/** How a new connection gets its node: each the next one, or each client always the same. */
export type Picking = 'next' | 'client'

export interface Shape {
	readonly family: Family
	/** Counts of nodes that occur, with how they are picked: `next-3`, sorted. */
	readonly picks: readonly string[]
	readonly edge: Edge
}

/** The router's two sides. */
export interface Edge {
	readonly outsideInterface: string
	readonly nodesInterface: string
	/** The nodes' network, of the family. */
	readonly nodes: readonly Cidr[]
}

export function pickChain(picking: Picking, of: number): string {
	return `${picking}-${of}`
}

function frontendKey(family: Family): readonly Part[] {
	return [addresses(family).daddr, l4proto, th.dport]
}

/** Declared as random is: the modulus in a declaration only gives the type. */
const slotField = field('integer', 'numgen inc mod 65536', 4)

function slot(family: Family, picking: Picking, of: number): Part {
	return {
		field: slotField,
		load(to) {
			if (picking === 'next') return { kind: 'numgen', mode: 'inc', modulus: of, offset: 0, to }
			// The client's address is loaded behind it first (see pickRule).
			const length = family === 'ip' ? 4 : 16
			return { kind: 'hash', type: 'jhash', from: to + 1, length, to, modulus: of, seed, offset: 0 }
		},
	}
}

/** Any but the kernel's random one: the same client has the same node also after the table was made anew. */
const seed = 0x706f6477

function pickRule(family: Family, picking: Picking, of: number): Expression[] {
	const key = [...frontendKey(family), slot(family, picking, of)]
	const expressions = dnatByMap(family, key, names.targets)
	if (picking === 'next') return expressions
	const loads = key.length
	const words = family === 'ip' ? 4 : 7
	return [...expressions.slice(0, loads - 1), addresses(family).saddr.load(words), ...expressions.slice(loads - 1)]
}

type Declaration = Omit<NftSet, 'elements'>

export function declarationsOf(family: Family): Readonly<Record<keyof typeof names, Declaration>> {
	const { saddr, daddr } = addresses(family)
	const frontend = fieldsOf(frontendKey(family))
	return {
		addresses: {
			name: names.addresses,
			key: fieldsOf([daddr]),
			flags: [],
			comment: 'addresses of load balancers here',
		},
		internal: { name: names.internal, key: fieldsOf([daddr]), flags: [], comment: 'not to be reached from outside' },
		frontends: {
			name: names.frontends,
			// nft lists verdict maps by type only: declared so, a listing loaded again is the same.
			key: frontend.map(({ type, bytes }) => ({ type, bytes })),
			data: 'verdict',
			flags: [],
			comment: 'Service ports, by how many nodes take them',
		},
		targets: {
			name: names.targets,
			key: [...frontend, slotField],
			data: fieldsOf([daddr, th.dport]),
			flags: [],
			comment: 'node ports of the nodes that pass their health checks',
		},
		ranged: { name: names.ranged, key: frontend, flags: [], comment: 'Service ports with loadBalancerSourceRanges' },
		sourceRanges: {
			name: names.sourceRanges,
			key: fieldsOf([...frontendKey(family), saddr]),
			flags: ['interval'],
			comment: 'loadBalancerSourceRanges: who may ask',
		},
		routed: { name: names.routed, key: fieldsOf([daddr]), flags: [], comment: 'routed from outside as they are' },
	}
}

function base(type: BaseChain['type'], hook: BaseChain['hook'], priority: number): BaseChain {
	return { type, hook, priority, policy: 'accept' }
}

function rule(expressions: readonly Expression[], comment?: string): NftRule {
	return { expressions, ...(comment === undefined ? {} : { comment }) }
}

function throughInterface(key: 'iifname' | 'oifname', name: string): Expression[] {
	const value = Buffer.alloc(16)
	value.write(name, 'latin1')
	return [
		{ kind: 'meta', key, to: 0 },
		{ kind: 'cmp', op: 'eq', from: 0, value: value.toString('hex') },
	]
}

const dstnat = -100
const beforeTranslation = -110
const filter = 0
const srcnat = 100

export function chainsOf({ family, picks, edge }: Shape): NftChain[] {
	const { saddr, daddr } = addresses(family)
	const fromOutside = throughInterface('iifname', edge.outsideInterface)
	return [
		{
			name: 'admit',
			base: base('filter', 'prerouting', beforeTranslation),
			rules: [
				rule([...fromOutside, ...inSet([daddr], names.internal), count, decide('drop')], unrouted.internal),
				rule(
					[
						...inSet(frontendKey(family), names.ranged),
						...load([...frontendKey(family), saddr]),
						{ kind: 'lookup', set: names.sourceRanges, from: 0, invert: true },
						count,
						decide('drop'),
					],
					'clients outside of the source ranges',
				),
			],
		},
		{
			name: 'prerouting',
			base: base('nat', 'prerouting', dstnat),
			rules: [
				rule(
					[...inSet([daddr], names.addresses), ...verdictMap(frontendKey(family), names.frontends)],
					'load balancers',
				),
			],
		},
		...picks.map((chain) => {
			const [picking, of] = chain.split('-') as [Picking, string]
			const what = picking === 'next' ? 'round robin' : 'by client'
			return {
				name: chain,
				rules: [rule(pickRule(family, picking, Number(of)), `${what}, ${of} ${of === '1' ? 'node' : 'nodes'}`)],
			}
		}),
		{
			name: 'input',
			base: base('filter', 'input', filter),
			rules: [
				rule(
					[...inSet([daddr], names.addresses), ...matchProtocol(protocols.tcp), count, rejectTcp],
					'no such port, or no node that passes its health check',
				),
				...[protocols.udp, protocols.sctp].map((protocol) =>
					rule(
						[...inSet([daddr], names.addresses), ...matchProtocol(protocol), count, rejectPort(family)],
						'no such port, or no node that passes its health check',
					),
				),
			],
		},
		{
			name: 'forward',
			base: base('filter', 'forward', filter),
			rules: [
				rule([...connectionState('established', 'related'), decide('accept')]),
				rule(
					[...fromOutside, ...inSet([daddr], names.routed), decide('accept')],
					'addresses of nodes, and those they announce',
				),
				rule([...fromOutside, count, decide('drop')], unrouted.elsewhere),
			],
		},
		{
			name: 'postrouting',
			base: base('nat', 'postrouting', srcnat),
			rules: [
				rule(
					[
						...throughInterface('iifname', edge.nodesInterface),
						...throughInterface('oifname', edge.nodesInterface),
						count,
						{ kind: 'masquerade' },
					],
					'from the cluster into the cluster: the answer must come back through here',
				),
			],
		},
	]
}
