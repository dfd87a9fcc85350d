// The chains and jumps that are there whatever the Services are, and what closes the lists that Services write into.

import type { Cidr, Ip, IpFamily } from '../../base/ip.ts'
import { type Chain, connectionWords, type Match, type Rule, type TableName } from '../../linux/iptables/program.ts'
import { chains } from './names.ts'

/** kube-proxy's --iptables-masquerade-bit 14. */
export const masqueradeMark = 0x4000

/** What the chains depend on. */
export interface Shape {
	readonly family: IpFamily
	/** Of the family. */
	readonly podCidrs: readonly Cidr[]
	readonly nodePortIps: readonly Ip[]
	readonly serviceCidrs: readonly Cidr[]
	readonly randomFully: boolean
	/** Nothing but what kube-proxy writes. */
	readonly exact: boolean
}

export const jump = (chain: string): Pick<Rule, 'target'> => ({ target: { target: 'jump', chain } })
export const comment = (text: string): Match => ({ match: 'comment', text })
const states = (...list: (typeof connectionWords)[number][]): Match => ({
	match: 'conntrack',
	states: connectionWords.filter((w) => list.includes(w)),
})
const marked = { match: 'mark', value: masqueradeMark, mask: masqueradeMark } as const
const isNew = states('NEW')

const builtinOf: Readonly<Partial<Record<TableName, readonly string[]>>> = {
	filter: ['INPUT', 'FORWARD', 'OUTPUT'],
	nat: ['PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING'],
}

/** kube-proxy puts each at the top as it comes: in a chain the last of this list is the first rule. */
const jumps: readonly [TableName, chain: string, to: string, text: string, onlyNew: boolean][] = [
	['filter', 'INPUT', chains.externalServices, 'kubernetes externally-visible service portals', true],
	['filter', 'FORWARD', chains.externalServices, 'kubernetes externally-visible service portals', true],
	['filter', 'INPUT', chains.nodePorts, 'kubernetes health check service ports', false],
	['filter', 'FORWARD', chains.services, 'kubernetes service portals', true],
	['filter', 'OUTPUT', chains.services, 'kubernetes service portals', true],
	['filter', 'FORWARD', chains.forward, 'kubernetes forwarding rules', false],
	['filter', 'INPUT', chains.firewall, 'kubernetes load balancer firewall', true],
	['filter', 'OUTPUT', chains.firewall, 'kubernetes load balancer firewall', true],
	['filter', 'FORWARD', chains.firewall, 'kubernetes load balancer firewall', true],
	['nat', 'OUTPUT', chains.services, 'kubernetes service portals', false],
	['nat', 'PREROUTING', chains.services, 'kubernetes service portals', false],
	['nat', 'POSTROUTING', chains.postrouting, 'kubernetes postrouting rules', false],
]

/**
 * What kube-proxy leaves undone, after its own jumps: the node's own connections to external addresses that nobody serves
 * are refused, and so are ports that a ClusterIP does not have.
 */
const moreJumps: typeof jumps = [
	['filter', 'OUTPUT', chains.unserved, 'podwire: Services without such a port', true],
	['filter', 'FORWARD', chains.unserved, 'podwire: Services without such a port', true],
	['filter', 'OUTPUT', chains.externalServices, 'podwire: Services without endpoints', true],
]

/** Chains that do not depend on Services: iptables' own with our jumps, and those of fixed content. */
export function fixedChains(shape: Shape): Chain[] {
	const list: Chain[] = []
	for (const [table, names] of Object.entries(builtinOf) as [TableName, readonly string[]][]) {
		for (const name of names) {
			const rules = (shape.exact ? jumps : [...moreJumps, ...jumps])
				.filter(([t, chain]) => t === table && chain === name)
				.map(
					([, , to, text, onlyNew]): Rule => ({ matches: [...(onlyNew ? [isNew] : []), comment(text)], ...jump(to) }),
				)
			list.push({ table, name, policy: 'ACCEPT', rules: rules.toReversed() })
		}
		list.push({ table, name: chains.canary, rules: [] })
	}
	list.push(
		{ table: 'nat', name: chains.markMasquerade, rules: [setMark] },
		{ table: 'nat', name: chains.postrouting, rules: postroutingRules(shape) },
		{ table: 'filter', name: chains.forward, rules: forwardRules },
	)
	if (shape.podCidrs.length > 1) {
		list.push({
			table: 'nat',
			name: chains.markOutside,
			rules: [
				...shape.podCidrs.map((cidr): Rule => ({ source: { value: cidr }, matches: [], target: { target: 'return' } })),
				{ matches: [], ...jump(chains.markMasquerade) },
			],
		})
	}
	return list
}

/** The end of PODWIRE-UNSERVED: only what is for the Service networks is compared with every ClusterIP. */
export function toClusterIps({ serviceCidrs, exact }: Shape): Rule[] {
	if (exact) return []
	return serviceCidrs.map((cidr) => ({ destination: { value: cidr }, matches: [], ...jump(chains.clusterIps) }))
}

export const noService: Rule = { matches: [comment('podwire: address of no Service')], target: { target: 'drop' } }

const setMark: Rule = { matches: [], target: { target: 'mark', value: masqueradeMark, mask: masqueradeMark } }

function postroutingRules({ randomFully }: Shape): Rule[] {
	return [
		{ matches: [{ ...marked, not: true }], target: { target: 'return' } },
		// Gone again, so that a packet that meets the rules a second time is not translated a second time.
		{ matches: [], target: { target: 'mark', value: masqueradeMark, mask: 0 } },
		{
			matches: [comment('kubernetes service traffic requiring SNAT')],
			target: { target: 'masquerade', ...(randomFully ? { randomFully } : {}) },
		},
	]
}

const forwardRules: readonly Rule[] = [
	// What conntrack cannot place was not translated: an answer with the pod's own address would reset the connection.
	{ matches: [states('INVALID')], target: { target: 'drop' } },
	{ matches: [comment('kubernetes forwarding rules'), marked], target: { target: 'accept' } },
	{
		matches: [comment('kubernetes forwarding conntrack rule'), states('RELATED', 'ESTABLISHED')],
		target: { target: 'accept' },
	},
]

const lastRule = comment('kubernetes service nodeports; NOTE: this must be the last rule in this chain')

/** The end of KUBE-SERVICES: what is for an address of the node may be for a node port. */
export function toNodePorts({ nodePortIps }: Shape): Rule[] {
	return nodePortIps.map((ip) => ({
		destination: { value: `${ip}/${ip.includes(':') ? 128 : 32}` as Cidr },
		matches: [lastRule],
		...jump(chains.nodePorts),
	}))
}
