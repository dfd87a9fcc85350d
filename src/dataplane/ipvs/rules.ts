// The iptables rules of IPVS mode: some thirty, whatever the number of Services, because the addresses are in sets. As
// kube-proxy's IPVS mode writes them; its physdev match is left out (it would load br_netfilter, and lab nodes have no
// bridge), and what it leaves undone is added: no endpoint on this node, and the node's own connections.

import type { Cidr, IpFamily } from '../../base/ip.ts'
import {
	type Chain,
	connectionWords,
	defaultReject,
	type Match,
	type Negatable,
	type Rule,
	type TableName,
	type Target,
} from '../../linux/iptables/program.ts'
import { chains, type SetId, setName, sets } from './layout.ts'

export const masqueradeMark = 0x4000

/** What the rules depend on. */
export interface Shape {
	readonly family: IpFamily
	/** Of the family. */
	readonly podCidrs: readonly Cidr[]
	readonly serviceCidrs: readonly Cidr[]
	/** kube-proxy has no rule for most sets that are empty. */
	readonly used: readonly SetId[]
	/** Load balancers whose source ranges leave this node out: `address protocol port`. */
	readonly notFromNode: readonly string[]
}

const marked = { match: 'mark', value: masqueradeMark, mask: masqueradeMark } as const
const comment = (text: string): Match => ({ match: 'comment', text })
const jump = (chain: string): Pick<Rule, 'target'> => ({ target: { target: 'jump', chain } })
const end = (target: 'accept' | 'drop' | 'return'): Pick<Rule, 'target'> => ({ target: { target } })
const states = (...list: (typeof connectionWords)[number][]): Match => ({
	match: 'conntrack',
	states: connectionWords.filter((w) => list.includes(w)),
})
const isLocal = (which: 'source' | 'destination', not?: true): Match => ({
	match: 'addrtype',
	[which]: { ...(not ? { not } : {}), value: 'LOCAL' } satisfies Negatable<'LOCAL'>,
})

/** Only new connections are held against source ranges, as in kube-proxy's other modes. */
const onlyNew: readonly string[] = [chains.firewall]

const jumps: readonly [TableName, chain: string, to: string, text: string][] = [
	['nat', 'OUTPUT', chains.services, 'kubernetes service portals'],
	['nat', 'PREROUTING', chains.services, 'kubernetes service portals'],
	['nat', 'POSTROUTING', chains.postrouting, 'kubernetes postrouting rules'],
	['filter', 'FORWARD', chains.forward, 'kubernetes forwarding rules'],
	['filter', 'INPUT', chains.nodePort, 'kubernetes health check rules'],
	['filter', 'INPUT', chains.firewall, 'kube-proxy firewall rules'],
	['filter', 'FORWARD', chains.firewall, 'kube-proxy firewall rules'],
	['filter', 'INPUT', chains.ipvsFilter, 'kubernetes ipvs access filter'],
	['filter', 'OUTPUT', chains.ipvsOutFilter, 'kubernetes ipvs access filter'],
	['filter', 'INPUT', chains.noLocal, 'podwire: Services without an endpoint on this node'],
	// IPVS takes the node's own packets before they come to filter.
	['mangle', 'OUTPUT', chains.noLocal, 'podwire: Services without an endpoint on this node'],
	['filter', 'FORWARD', chains.unserved, 'podwire: addresses of no Service'],
	['filter', 'OUTPUT', chains.unserved, 'podwire: addresses of no Service'],
]

const builtin: readonly [TableName, readonly string[]][] = [
	['filter', ['INPUT', 'FORWARD', 'OUTPUT']],
	['mangle', ['OUTPUT']],
	['nat', ['PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING']],
]

export function chainsOf(shape: Shape): Chain[] {
	const list: Chain[] = []
	for (const [table, names] of builtin) {
		for (const name of names) {
			const rules = jumps
				.filter(([t, chain]) => t === table && chain === name)
				.map(
					([, , to, text]): Rule => ({
						matches: [...(onlyNew.includes(to) ? [states('NEW')] : []), comment(text)],
						...jump(to),
					}),
				)
			// Each is put at the top as it comes.
			list.push({ table, name, policy: 'ACCEPT', rules: rules.toReversed() })
		}
	}
	const nat = (name: string, rules: readonly Rule[]) => list.push({ table: 'nat', name, rules })
	const filter = (name: string, rules: readonly Rule[]) => list.push({ table: 'filter', name, rules })
	const use = rulesFor(shape)
	nat(chains.services, servicesRules(shape, use))
	nat(chains.loadBalancer, [
		...use('loadBalancerLocal', 'dst,dst', end('return')),
		{ matches: [], ...jump(chains.markMasquerade) },
	])
	nat(chains.nodePort, [
		...use('nodePortLocalTcp', 'dst', end('return'), 'tcp'),
		...use('nodePortTcp', 'dst', jump(chains.markMasquerade), 'tcp'),
		...use('nodePortLocalUdp', 'dst', end('return'), 'udp'),
		...use('nodePortUdp', 'dst', jump(chains.markMasquerade), 'udp'),
		...use('nodePortLocalSctp', 'dst,dst', end('return'), 'sctp'),
		...use('nodePortSctp', 'dst,dst', jump(chains.markMasquerade), 'sctp'),
	])
	nat(chains.postrouting, [
		...use('loopback', 'dst,dst,src', { target: { target: 'masquerade' } }),
		{ matches: [{ ...marked, not: true }], ...end('return') },
		{ matches: [], target: { target: 'mark', value: masqueradeMark, mask: 0 } },
		{
			matches: [comment('kubernetes service traffic requiring SNAT')],
			target: { target: 'masquerade', randomFully: true },
		},
	])
	nat(chains.markMasquerade, [{ matches: [], target: { target: 'mark', value: masqueradeMark, mask: masqueradeMark } }])
	if (shape.podCidrs.length > 1) {
		nat(chains.markOutside, [
			...shape.podCidrs.map((cidr): Rule => ({ source: { value: cidr }, matches: [], ...end('return') })),
			{ matches: [], ...jump(chains.markMasquerade) },
		])
	}
	filter(chains.forward, [
		{ matches: [comment('kubernetes forwarding rules'), marked], ...end('accept') },
		{
			matches: [comment('kubernetes forwarding conntrack rule'), states('RELATED', 'ESTABLISHED')],
			...end('accept'),
		},
	])
	filter(chains.nodePort, [
		{
			matches: [comment(sets.healthCheck.comment), inSet('healthCheck', shape.family, 'dst')],
			...end('accept'),
		},
	])
	filter(chains.firewall, use('loadBalancerFenced', 'dst,dst', jump(chains.sourceRanges)))
	filter(chains.sourceRanges, [
		...use('sourceCidr', 'dst,dst,src', end('return')),
		...use('sourceIp', 'dst,dst,src', end('return')),
		{ matches: [], ...end('drop') },
	])
	filter(chains.ipvsFilter, ipvsFilterRules(shape.family))
	filter(chains.ipvsOutFilter, shape.notFromNode.map(notFromNode))
	list.push({ table: 'mangle', name: chains.noLocal, rules: use('noLocal', 'dst,dst', end('drop')) })
	filter(
		chains.unserved,
		// What a Service has is the node's own address.
		shape.serviceCidrs.map((cidr) => ({
			destination: { value: cidr },
			matches: [states('NEW'), isLocal('destination', true)],
			...end('drop'),
		})),
	)
	filter(chains.noLocal, [
		...use('noLocal', 'dst,dst', end('drop')),
		...shape.podCidrs.flatMap((cidr) =>
			use('noLocalOutside', 'dst,dst', end('return')).map((rule) => ({ ...rule, source: { value: cidr } })),
		),
		...use('noLocalOutside', 'dst,dst', end('drop')).map((rule) => ({
			...rule,
			matches: [...rule.matches, isLocal('source', true)],
		})),
	])
	return list
}

type Fields = 'dst' | 'dst,dst' | 'dst,dst,src'
type Use = (id: SetId, fields: Fields, target: Pick<Rule, 'target'>, protocol?: string) => Rule[]

function inSet(id: SetId, family: IpFamily, fields: Fields): Match {
	return { match: 'set', set: setName(id, family), fields: fields.split(',') as ('dst' | 'src')[] }
}

/** The rule for a set, or none while it is empty. */
function rulesFor({ family, used }: Shape): Use {
	return (id, fields, target, protocol) =>
		used.includes(id)
			? [
					{
						...(protocol === undefined ? {} : { protocol: { value: protocol } }),
						matches: [comment(sets[id].comment), inSet(id, family, fields)],
						...target,
					},
				]
			: []
}

function servicesRules(shape: Shape, use: Use): Rule[] {
	const { family, podCidrs } = shape
	const loopback = (family === 4 ? '127.0.0.0/8' : '::1/128') as Cidr
	const [pods] = podCidrs
	const outside: Pick<Rule, 'source'> =
		podCidrs.length === 1 && pods !== undefined ? { source: { not: true, value: pods } } : {}
	const markOutside = podCidrs.length > 1 ? chains.markOutside : chains.markMasquerade
	const local: SetId[] = ['externalIpLocal', 'loadBalancerLocal']
	return [
		{ source: { value: loopback }, matches: [], ...end('return') },
		// The node itself asks: its packets have the Service's address as source, with which no answer would come.
		...local.flatMap((id) =>
			use(id, 'dst,dst', jump(chains.markMasquerade)).map((rule) => ({
				...rule,
				matches: [...rule.matches, isLocal('source')],
			})),
		),
		...use('loadBalancer', 'dst,dst', jump(chains.loadBalancer)),
		...use('clusterIp', 'dst,dst', jump(markOutside)).map((rule) => ({ ...rule, ...outside })),
		...use('externalIp', 'dst,dst', jump(chains.markMasquerade)),
		...external('externalIp', use),
		...external('externalIpLocal', use),
		{ matches: [isLocal('destination')], ...jump(chains.nodePort) },
		...plain('clusterIp', shape),
		...plain('loadBalancer', shape),
	]
}

/** What is for an external address goes on to IPVS, whatever rules come later. */
function external(id: SetId, use: Use): Rule[] {
	return use(id, 'dst,dst', end('accept')).flatMap((rule) => [
		{ ...rule, matches: [...rule.matches, isLocal('source', true)] },
		{ ...rule, matches: [...rule.matches, isLocal('destination')] },
	])
}

function plain(id: SetId, { family, used }: Shape): Rule[] {
	return used.includes(id) ? [{ matches: [inSet(id, family, 'dst,dst')], ...end('accept') }] : []
}

/** Processes of the node are not reached at the addresses of Services (kubernetes/kubernetes issue 72236). */
function ipvsFilterRules(family: IpFamily): Rule[] {
	const reached: [SetId, Fields][] = [
		['loadBalancer', 'dst,dst'],
		['clusterIp', 'dst,dst'],
		['externalIp', 'dst,dst'],
		['externalIpLocal', 'dst,dst'],
		['healthCheck', 'dst'],
	]
	return [
		...reached.map(([id, fields]): Rule => ({ matches: [inSet(id, family, fields)], ...end('return') })),
		{
			matches: [states('NEW'), inSet('addresses', family, 'dst')],
			target: { target: 'reject', with: defaultReject(family) } satisfies Target,
		},
	]
}

function notFromNode(key: string): Rule {
	const [ip = '', protocol = '', port = ''] = key.split(' ')
	return {
		source: { value: `${ip}/${ip.includes(':') ? 128 : 32}` as Cidr },
		matches: [
			{
				match: 'other',
				words: ['-m', 'ipvs', '--vproto', protocol, '--vaddr', ip, '--vport', port],
			},
		],
		...end('drop'),
	}
}
