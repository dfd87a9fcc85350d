// The chains of a table: a packet's path through our rules. They depend only on which classes of Services there are
// now, never on how many Services: a cluster of 10,000 has as many rules as one of 10.

import { type Cidr, familyOf } from '../../base/ip.ts'
import {
	addresses,
	connectionState,
	connectionStatus,
	count,
	decide,
	dnatByMap,
	inRanges,
	inSet,
	load,
	localSource,
	matchPrefix,
	matchProtocol,
	rejectPort,
	rejectTcp,
	th,
	verdictMap,
} from '../../linux/nft/build.ts'
import { protocols } from '../../linux/nft/datatype.ts'
import type { Expression } from '../../linux/nft/expr/expression.ts'
import type { BaseChain, NftChain, NftRule } from '../../linux/nft/program.ts'
import {
	affinitySet,
	type Choice,
	choices,
	clientKey,
	countManyOf,
	endpointsOf,
	type Family,
	frontendKey,
	largestClass,
	names,
	pickChain,
	rangeKey,
	slotKey,
} from './layout.ts'

/** Protocols of Services, as nft writes them. */
export const protocolNames = ['tcp', 'udp', 'sctp'] as const
export type ProtocolName = (typeof protocolNames)[number]

/** What the chains depend on. */
export interface Shape {
	readonly family: Family
	readonly serviceCidrs: readonly Cidr[]
	readonly podCidrs: readonly Cidr[]
	/** Some ClusterIP lies outside of the Service networks. */
	readonly outside: boolean
	/** Some frontend is external; some of those lie inside of the Service networks. */
	readonly external: boolean
	readonly externalInside: boolean
	/** Protocols of the external frontends with policy Cluster. */
	readonly policyCluster: readonly ProtocolName[]
	readonly policyLocal: boolean
	/** A pod of another node may reach itself through a node port of this one. */
	readonly hairpinElsewhere: boolean
	readonly restricted: boolean
	/** Endpoint counts that occur, ascending. */
	readonly counts: Readonly<Record<Choice, readonly number[]>>
	/** Seconds of session affinity that occur, ascending. */
	readonly affinities: readonly number[]
}

export function shapeText(shape: Shape): string {
	return JSON.stringify(shape)
}

function rule(expressions: readonly Expression[], comment?: string): NftRule {
	return { expressions, ...(comment === undefined ? {} : { comment }) }
}

function base(type: BaseChain['type'], hook: BaseChain['hook'], priority: number): BaseChain {
	return { type, hook, priority, policy: 'accept' }
}

const dstnat = -100
const srcnat = 100
/** Before the filter chains of others: a rejection is heard even where they drop silently; after translation at output. */
const beforeFilter = -10

export function chainsOf(shape: Shape): NftChain[] {
	const { family } = shape
	const filter = [
		...(shape.external || shape.affinities.length > 0 ? [established] : []),
		...entrances(shape, names.unserved, names.externalUnserved, false),
		...shape.affinities.map((seconds) => rule(remembering(family, seconds), 'Service with session affinity')),
	]
	const fromElsewhere = shape.policyLocal || shape.restricted ? names.external : names.services
	const fromHere = shape.restricted ? names.externalFromHere : names.services
	return [
		{
			name: 'prerouting',
			base: base('nat', 'prerouting', dstnat),
			rules: entrances(shape, names.services, fromElsewhere, true),
		},
		{ name: 'output', base: base('nat', 'output', dstnat), rules: entrances(shape, names.services, fromHere, true) },
		...externalChains(shape),
		{ name: names.services, rules: choiceRules(shape, 'all') },
		...(shape.policyLocal ? [{ name: names.localServices, rules: choiceRules(shape, 'local') }] : []),
		...choices.flatMap((choice) => picks(shape, choice)),
		{ name: 'filter-forward', base: base('filter', 'forward', beforeFilter), rules: filter },
		{ name: 'filter-input', base: base('filter', 'input', beforeFilter), rules: filter },
		{ name: 'filter-output', base: base('filter', 'output', beforeFilter), rules: filter },
		{ name: names.unserved, rules: unservedRules(family) },
		...(shape.external ? [{ name: names.externalUnserved, rules: externalUnservedRules(shape) }] : []),
		{
			name: names.reject,
			rules: [rule([...matchProtocol(protocols.tcp), rejectTcp]), rule([rejectPort(family)])],
		},
		{
			name: 'postrouting',
			base: base('nat', 'postrouting', srcnat),
			rules: [rule([...connectionStatus('dnat'), decide('goto', names.masquerade)], 'translated connections')],
		},
		{ name: names.masquerade, rules: masqueradeRules(shape) },
	]
}

/** Cheaper than to look for what only the first packet of a connection can be. */
const established = rule([...connectionState('established', 'related'), decide('accept')], 'nothing new')

/** One comparison sends what is for a Service on; all other traffic pays that comparison. */
function entrances(shape: Shape, chain: string, externalChain: string, counted: boolean): NftRule[] {
	const { daddr } = addresses(shape.family)
	const go = (to: string, how: 'goto' | 'jump' = 'goto') => [...(counted ? [count] : []), decide(how, to)]
	const rules = ofFamily(shape.serviceCidrs, shape.family).map((cidr) =>
		rule([...matchPrefix(daddr, cidr), ...go(chain)], 'addresses of Services'),
	)
	if (shape.outside)
		rules.push(rule([...inSet([daddr], names.clusterIps), ...go(chain)], 'Services outside the Service networks'))
	if (shape.external) {
		// A hostNetwork endpoint may have such an address, too: its packets come back from there, to be remembered.
		const how = counted ? 'goto' : 'jump'
		const found = [...inSet([daddr], names.externalIps), ...go(externalChain, how)]
		const external = rule(found, 'other addresses of Services')
		if (shape.externalInside) rules.unshift(external)
		else rules.push(external)
	}
	return rules
}

function ofFamily(cidrs: readonly Cidr[], family: Family): readonly Cidr[] {
	return cidrs.filter((cidr) => (familyOf(cidr) === 4) === (family === 'ip'))
}

/** Where connections to external frontends come in, as far as not everybody's go to `services` at once. */
function externalChains(shape: Shape): NftChain[] {
	const { family, restricted, policyLocal } = shape
	const rest = rule([decide('goto', names.services)])
	const ask = rule(
		[...inSet(frontendKey(family), names.restricted), decide('jump', names.firewall)],
		'loadBalancerSourceRanges',
	)
	const chains: NftChain[] = []
	if (restricted || policyLocal) {
		// What comes in over a wire: only pods are of the cluster.
		const local = [
			...ofFamily(shape.podCidrs, family).map((cidr) =>
				rule([...matchPrefix(addresses(family).saddr, cidr), decide('goto', names.services)], 'pods: every endpoint'),
			),
			rule(
				[...inSet(frontendKey(family), names.policyLocal), decide('goto', names.localServices)],
				'from outside: endpoints of this node',
			),
		]
		const rules = [...(restricted ? [ask] : []), ...(policyLocal ? local : []), rest]
		chains.push({ name: names.external, rules })
	}
	if (restricted) {
		chains.push(
			{ name: names.externalFromHere, rules: [ask, rest] },
			{
				name: names.firewall,
				rules: [
					rule([...inRanges(rangeKey(family), names.sourceRanges), decide('return')], 'client in the source ranges'),
					rule([count, decide('drop')], 'client outside of loadBalancerSourceRanges'),
				],
			},
		)
	}
	return chains
}

function choiceRules(shape: Shape, choice: Choice): NftRule[] {
	const { family } = shape
	const rules: NftRule[] = []
	const counts = shape.counts[choice]
	for (const seconds of shape.affinities) {
		// The set first: what clients remember of a Service without affinity now does not count.
		rules.push(
			rule(
				[...inSet(frontendKey(family), affinitySet(seconds)), ...dnatByMap(family, clientKey(family), names.clients)],
				'the endpoint this client had before',
			),
		)
	}
	for (const n of counts) {
		if (n > largestClass) continue
		const what = n === 1 ? 'Services with 1 endpoint' : `Services with ${n} endpoints`
		rules.push(rule(dnatByMap(family, slotKey(family, n), endpointsOf(choice, n)), placed(what, choice)))
	}
	if (counts.some((n) => n > largestClass)) {
		const what = placed(`Services with more than ${largestClass} endpoints`, choice)
		rules.push(rule(verdictMap(frontendKey(family), countManyOf(choice)), what))
	}
	return rules
}

function placed(text: string, choice: Choice): string {
	return choice === 'all' ? text : `${text} on this node`
}

function picks(shape: Shape, choice: Choice): NftChain[] {
	return shape.counts[choice]
		.filter((n) => n > largestClass)
		.map((n) => ({
			name: pickChain(choice, n),
			rules: [
				rule(
					dnatByMap(shape.family, slotKey(shape.family, n), endpointsOf(choice, n)),
					placed(`Services with ${n} endpoints`, choice),
				),
			],
		}))
}

/** The frontend a translated connection was asked for, as conntrack keeps it: `frontendKey` from word `from` on. */
function originalFrontend(family: Family, from: number): Expression[] {
	const six = family === 'ip6'
	const words = six ? 4 : 1
	return [
		{ kind: 'ct', key: six ? 'ip6 daddr' : 'ip daddr', direction: 'original', to: from },
		{ kind: 'meta', key: 'l4proto', to: from + words },
		{ kind: 'ct', key: 'proto-dst', direction: 'original', to: from + words + 1 },
	]
}

/**
 * After translation: the client's address and the frontend it asked for (conntrack's original direction) keep the
 * endpoint it was given. Again at every new connection, which also renews the time.
 */
function remembering(family: Family, seconds: number): Expression[] {
	const six = family === 'ip6'
	const client: Expression = { kind: 'ct', key: six ? 'ip6 saddr' : 'ip saddr', direction: 'original', to: 0 }
	const words = six ? 4 : 1
	const after = words + words + 2
	return [
		...connectionState('new'),
		...originalFrontend(family, 0),
		{ kind: 'lookup', set: affinitySet(seconds), from: 0 },
		client,
		...originalFrontend(family, words),
		...load([addresses(family).daddr, th.dport], after),
		{ kind: 'dynset', op: 'update', set: names.clients, key: 0, data: after, timeout: seconds * 1000 },
	]
}

/** What is still addressed to a Service after translation: nobody took it. */
function unservedRules(family: Family): NftRule[] {
	return [
		// A packet that conntrack cannot place was not translated on purpose: an answer would break the connection.
		rule([...connectionState('invalid'), count, decide('drop')], 'belongs to no connection'),
		...refusals(family),
		rule(
			[...inSet([addresses(family).daddr], names.clusterIps), count, decide('goto', names.reject)],
			'no such port of the Service',
		),
		rule([count, decide('drop')], 'address of no Service'),
	]
}

function refusals(family: Family): NftRule[] {
	return [
		rule([...inSet(frontendKey(family), names.noLocalEndpoints), count, decide('drop')], 'no endpoint on this node'),
		rule([...inSet(frontendKey(family), names.noEndpoints), count, decide('goto', names.reject)], 'no endpoint'),
	]
}

/** The same where only some ports of an address are a Service's: the others are the business of whoever has it. */
function externalUnservedRules(shape: Shape): NftRule[] {
	const { family } = shape
	const invalid = (set: string) =>
		rule(
			[...connectionState('invalid'), ...inSet(frontendKey(family), set), count, decide('drop')],
			'belongs to no connection',
		)
	return [
		...(shape.policyCluster.length > 0 ? [invalid(names.policyCluster)] : []),
		...(shape.policyLocal ? [invalid(names.policyLocal)] : []),
		...refusals(family),
	]
}

/** The port stays what it was while it is free: a connection can be recognised on both sides of the node. */
const masquerade: readonly Expression[] = [count, { kind: 'masquerade' }]

/**
 * Of connections that somebody translated, those that a Service did are found by the address and port they were asked
 * for, which conntrack keeps: no mark is needed to remember the decision from one hook to the next.
 */
function masqueradeRules(shape: Shape): NftRule[] {
	const { family } = shape
	const { saddr, daddr } = addresses(family)
	const originalAddress: Expression = {
		kind: 'ct',
		key: family === 'ip' ? 'ip daddr' : 'ip6 daddr',
		direction: 'original',
		to: 0,
	}
	const askedFor = (set: string): Expression[] => [originalAddress, { kind: 'lookup', set, from: 0 }]
	const rules = [
		rule(
			[...inSet([saddr, daddr], names.hairpin), ...masquerade],
			'a pod that reached itself through a Service answers through the node',
		),
	]
	if (shape.hairpinElsewhere) {
		rules.push(
			rule(
				[...inSet([saddr, daddr], names.hairpinElsewhere), ...masquerade],
				'a pod of another node that reached itself through a node port here answers through this node',
			),
		)
	}
	// A rule a protocol: nft (1.0.6) reads `ct original proto-dst` only where it knows whose port that is.
	for (const protocol of shape.policyCluster) {
		rules.push(
			rule(
				[
					...matchProtocol(protocols[protocol]),
					...originalFrontend(family, 0),
					{ kind: 'lookup', set: names.policyCluster, from: 0 },
					...masquerade,
				],
				'externalTrafficPolicy Cluster: the endpoint may be on another node, the answer must come back through this one',
			),
		)
	}
	for (const cidr of ofFamily(shape.podCidrs, family))
		rules.push(rule([...matchPrefix(saddr, cidr), decide('return')], 'pods keep their address'))
	rules.push(
		rule(
			[...askedFor(names.clusterIps), ...masquerade],
			'the client of a ClusterIP is no pod: the answer must come back through this node',
		),
	)
	if (shape.policyLocal) {
		rules.push(
			rule(
				[...localSource, ...askedFor(names.externalIps), ...masquerade],
				'this node itself asks: the answer must come back to it',
			),
		)
	}
	return rules
}
