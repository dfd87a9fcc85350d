// The chains of a table: a packet's path through our rules. They depend only on which classes of Services there are
// now, never on how many Services: a cluster of 10,000 has as many rules as one of 10.

import { type Cidr, familyOf } from '../../base/ip.ts'
import {
	addresses,
	connectionState,
	count,
	decide,
	dnatByMap,
	inSet,
	load,
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
	clientKey,
	endpointsOf,
	type Family,
	frontendKey,
	largestClass,
	names,
	pickChain,
	slotKey,
} from './layout.ts'

/** What the chains depend on. */
export interface Shape {
	readonly family: Family
	readonly serviceCidrs: readonly Cidr[]
	/** Some Service has an address outside those networks. */
	readonly outside: boolean
	/** Endpoint counts that occur, ascending. */
	readonly counts: readonly number[]
	/** Seconds of session affinity that occur, ascending. */
	readonly affinities: readonly number[]
}

export function shapeText(shape: Shape): string {
	return JSON.stringify([shape.family, shape.serviceCidrs, shape.outside, shape.counts, shape.affinities])
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
	const translate = entrances(shape, names.services, true)
	const refuse = entrances(shape, names.unserved, false)
	const remember = shape.affinities.map((seconds) =>
		rule(remembering(family, seconds), 'Service with session affinity'),
	)
	const chains: NftChain[] = [
		{ name: 'prerouting', base: base('nat', 'prerouting', dstnat), rules: translate },
		{ name: 'output', base: base('nat', 'output', dstnat), rules: translate },
		{ name: names.services, rules: servicesRules(shape) },
		...picks(shape),
		{ name: 'filter-forward', base: base('filter', 'forward', beforeFilter), rules: [...refuse, ...remember] },
		{ name: 'filter-input', base: base('filter', 'input', beforeFilter), rules: [...refuse, ...remember] },
		{ name: 'filter-output', base: base('filter', 'output', beforeFilter), rules: [...refuse, ...remember] },
		{ name: names.unserved, rules: unservedRules(family) },
		{
			name: names.reject,
			rules: [rule([...matchProtocol(protocols.tcp), rejectTcp]), rule([rejectPort(family)])],
		},
		{
			name: 'postrouting',
			base: base('nat', 'postrouting', srcnat),
			rules: [
				rule(
					[...inSet([addresses(family).saddr, addresses(family).daddr], names.hairpin), count, { kind: 'masquerade' }],
					'a pod that reached itself through a Service answers through the node',
				),
			],
		},
	]
	return chains
}

/** One comparison sends what is for a Service on; all other traffic pays that comparison. */
function entrances(shape: Shape, chain: string, counted: boolean): NftRule[] {
	const { daddr } = addresses(shape.family)
	const go = [...(counted ? [count] : []), decide('goto', chain)]
	const rules = shape.serviceCidrs
		.filter((cidr) => (familyOf(cidr) === 4) === (shape.family === 'ip'))
		.map((cidr) => rule([...matchPrefix(daddr, cidr), ...go], 'addresses of Services'))
	if (shape.outside)
		rules.push(rule([...inSet([daddr], names.clusterIps), ...go], 'Services outside the Service networks'))
	return rules
}

function servicesRules(shape: Shape): NftRule[] {
	const { family } = shape
	const rules: NftRule[] = []
	for (const seconds of shape.affinities) {
		// The set first: what clients remember of a Service without affinity now does not count.
		rules.push(
			rule(
				[...inSet(frontendKey(family), affinitySet(seconds)), ...dnatByMap(family, clientKey(family), names.clients)],
				'the endpoint this client had before',
			),
		)
	}
	for (const n of shape.counts) {
		if (n > largestClass) continue
		const what = n === 1 ? 'Services with 1 endpoint' : `Services with ${n} endpoints`
		rules.push(rule(dnatByMap(family, slotKey(family, n), endpointsOf(n)), what))
	}
	if (shape.counts.some((n) => n > largestClass)) {
		rules.push(
			rule(verdictMap(frontendKey(family), names.countMany), `Services with more than ${largestClass} endpoints`),
		)
	}
	return rules
}

function picks(shape: Shape): NftChain[] {
	return shape.counts
		.filter((n) => n > largestClass)
		.map((n) => ({
			name: pickChain(n),
			rules: [rule(dnatByMap(shape.family, slotKey(shape.family, n), endpointsOf(n)), `Services with ${n} endpoints`)],
		}))
}

/**
 * After translation: the client's address and the frontend it asked for (conntrack's original direction) keep the
 * endpoint it was given. Again at every new connection, which also renews the time.
 */
function remembering(family: Family, seconds: number): Expression[] {
	const six = family === 'ip6'
	const client: Expression = { kind: 'ct', key: six ? 'ip6 saddr' : 'ip saddr', direction: 'original', to: 0 }
	const words = six ? 4 : 1
	const frontend = (from: number): Expression[] => [
		{ kind: 'ct', key: six ? 'ip6 daddr' : 'ip daddr', direction: 'original', to: from },
		{ kind: 'meta', key: 'l4proto', to: from + words },
		{ kind: 'ct', key: 'proto-dst', direction: 'original', to: from + words + 1 },
	]
	const after = words + words + 2
	return [
		...connectionState('new'),
		...frontend(0),
		{ kind: 'lookup', set: affinitySet(seconds), from: 0 },
		client,
		...frontend(words),
		...load([addresses(family).daddr, th.dport], after),
		{ kind: 'dynset', op: 'update', set: names.clients, key: 0, data: after, timeout: seconds * 1000 },
	]
}

/** What is still addressed to a Service after translation: nobody took it. */
function unservedRules(family: Family): NftRule[] {
	return [
		// A packet that conntrack cannot place was not translated on purpose: an answer would break the connection.
		rule([...connectionState('invalid'), count, decide('drop')], 'belongs to no connection'),
		rule([...inSet(frontendKey(family), names.noLocalEndpoints), count, decide('drop')], 'no endpoint on this node'),
		rule([...inSet(frontendKey(family), names.noEndpoints), count, decide('goto', names.reject)], 'no endpoint'),
		rule(
			[...inSet([addresses(family).daddr], names.clusterIps), count, decide('goto', names.reject)],
			'no such port of the Service',
		),
		rule([count, decide('drop')], 'address of no Service'),
	]
}
