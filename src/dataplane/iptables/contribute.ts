// The rules of one Service on one node, as kube-proxy's iptables mode writes them: a pure function of the Service, the
// node and the frontends that are the Service's own.

import { type Cidr, cidrContains, familyOf, hostCidr, type Ip, type IpFamily } from '../../base/ip.ts'
import {
	type Chain,
	defaultReject,
	type Match,
	type PortRange,
	probabilityUnit,
	type Rule,
} from '../../linux/iptables/program.ts'
import { servingEndpoints } from '../../model/endpoints.ts'
import { type Frontend, frontendsOf } from '../../model/frontends.ts'
import type { Endpoint, NodeName, Service, ServicePort } from '../../model/network.ts'
import { chains, endpointChain, endpointText, namesOf, type PortNames } from './names.ts'
import { comment, jump } from './skeleton.ts'

/** The node the rules are for. */
export interface Vantage {
	readonly node: NodeName
	readonly zone?: string
	/** The node's primary addresses. */
	readonly nodeIps: readonly Ip[]
	readonly podCidrs: readonly Cidr[]
	readonly serviceCidrs: readonly Cidr[]
	/** Nothing but what kube-proxy writes. */
	readonly exact: boolean
}

/** Rules for the lists that all Services share, and chains of the Service's own. */
export interface Contribution {
	/** nat KUBE-SERVICES */
	readonly services: readonly Rule[]
	/** nat KUBE-NODEPORTS */
	readonly nodePorts: readonly Rule[]
	/** filter KUBE-SERVICES: ClusterIPs that nobody serves. */
	readonly unserved: readonly Rule[]
	/** filter KUBE-EXTERNAL-SERVICES: the same from outside. */
	readonly externalUnserved: readonly Rule[]
	/** filter KUBE-PROXY-FIREWALL */
	readonly firewall: readonly Rule[]
	/** filter KUBE-NODEPORTS: health checks. */
	readonly healthPorts: readonly Rule[]
	/** filter PODWIRE-CLUSTER-IPS, and PODWIRE-UNSERVED for addresses outside of the Service networks. */
	readonly clusterIps: readonly Rule[]
	readonly strayIps: readonly Rule[]
	readonly chains: readonly Chain[]
}

export type List = Exclude<keyof Contribution, 'chains'>
type Draft = { -readonly [K in List]: Rule[] } & { chains: Chain[] }

function newDraft(): Draft {
	return {
		services: [],
		nodePorts: [],
		unserved: [],
		externalUnserved: [],
		firewall: [],
		healthPorts: [],
		clusterIps: [],
		strayIps: [],
		chains: [],
	}
}

export const noRules: Contribution = newDraft()

/** The rules of one family. `owns`: of several Services that claim one frontend exactly one gets it. */
export function contribute(
	service: Service,
	family: IpFamily,
	vantage: Vantage,
	owns: (frontend: Frontend) => boolean,
): Contribution {
	const draft = newDraft()
	const clusterIps = new Set<Ip>()
	for (const port of service.ports) {
		const frontends = frontendsOf(service, port).filter((f) => f.family === family && owns(f))
		if (frontends.length > 0) contributePort(service, port, family, frontends, vantage, draft)
		for (const f of frontends) if (f.kind === 'cluster-ip' && f.ip !== undefined) clusterIps.add(f.ip)
	}
	if (!vantage.exact) for (const ip of clusterIps) contributeAddress(service, ip, vantage, draft)
	return draft
}

/** What is still for the address after translation and refusals is for a port the Service does not have. */
function contributeAddress(service: Service, ip: Ip, vantage: Vantage, draft: Draft): void {
	const inside = vantage.serviceCidrs.some((cidr) => cidrContains(cidr, ip))
	const list = inside ? draft.clusterIps : draft.strayIps
	list.push({
		destination: { value: hostCidr(ip) },
		matches: [comment(`${service.key} has no such port`)],
		target: { target: 'reject', with: defaultReject(familyOf(ip)) },
	})
}

/** Who serves a port on this node, under either traffic policy, and what that makes of the Service's two policies. */
interface Serving {
	readonly cluster: readonly Endpoint[]
	readonly local: readonly Endpoint[]
	/** Somebody serves somewhere. */
	readonly any: boolean
	/** A ClusterIP, and everything else, are served here. */
	readonly internal: boolean
	readonly external: boolean
}

function servingOf(service: Service, port: ServicePort, family: IpFamily, vantage: Vantage): Serving {
	const { node, zone } = vantage
	const client = { node, ...(zone === undefined ? {} : { zone }), family, traffic: 'internal' as const }
	const cluster = servingEndpoints({ ...service, internalTrafficPolicy: 'Cluster' }, port, client).endpoints
	const local = servingEndpoints({ ...service, internalTrafficPolicy: 'Local' }, port, client).endpoints
	const any = cluster.length > 0
	return {
		cluster,
		local,
		any,
		internal: (service.internalTrafficPolicy === 'Local' ? local : cluster).length > 0,
		external: (service.externalTrafficPolicy === 'Local' ? local : cluster).length > 0,
	}
}

function contributePort(
	service: Service,
	port: ServicePort,
	family: IpFamily,
	frontends: readonly Frontend[],
	vantage: Vantage,
	draft: Draft,
): void {
	const names = namesOf(service.key, port.name, port.protocol)
	const serving = servingOf(service, port, family, vantage)
	const internalLocal = service.internalTrafficPolicy === 'Local'
	const externalLocal = service.externalTrafficPolicy === 'Local'
	const external = frontends.filter((f) => f.kind !== 'cluster-ip')
	const fenced = external.filter((f) => f.kind === 'load-balancer' && f.sourceRanges !== undefined)
	const inside = frontends.filter((f) => f.kind === 'cluster-ip')
	for (const frontend of inside) contributeClusterIp(frontend, serving, internalLocal, names, draft)
	for (const frontend of external) contributeExternal(frontend, serving, names, draft)
	if (service.healthCheckNodePort !== undefined) {
		draft.healthPorts.push({
			protocol: { value: 'tcp' },
			matches: [
				comment(`${names.title} health check node port`),
				{ match: 'tcp', dport: only(service.healthCheckNodePort) },
			],
			target: { target: 'accept' },
		})
	}
	if (!serving.any) return
	if (external.length > 0) draft.chains.push(externalChain(serving, externalLocal, names, vantage))
	if (fenced.length > 0) draft.chains.push(firewallChain(fenced, names, vantage))
	// Pods and the node itself are spared externalTrafficPolicy Local: they go by the Cluster chain, too.
	const usesCluster = (!internalLocal && inside.length > 0) || external.length > 0
	const usesLocal = (internalLocal && inside.length > 0) || (externalLocal && external.length > 0)
	const reached = new Set<Endpoint>()
	const head = inside.map((f) => masqueradeOutside(f, names, vantage))
	const policies = [
		{ name: names.cluster, uses: usesCluster, endpoints: serving.cluster, head: internalLocal ? [] : head },
		{ name: names.local, uses: usesLocal, endpoints: serving.local, head: internalLocal ? head : [] },
	]
	for (const { name, uses, endpoints, head } of policies) {
		if (!uses || endpoints.length === 0) continue
		const rules = [...head, ...chooseRules(service, port, names, endpoints)]
		draft.chains.push({ table: 'nat', name, rules })
		for (const endpoint of endpoints) reached.add(endpoint)
	}
	for (const endpoint of reached) draft.chains.push(endpointRules(service, port, names, endpoint))
}

/** `-p tcp -m comment --comment "…" -m tcp -d … --dport …`, what most rules begin with. */
function toFrontend(frontend: Frontend, text: string, more: readonly Match[] = []): Rule {
	const protocol = transportOf(frontend.protocol)
	return {
		...(frontend.ip === undefined ? {} : { destination: { value: hostCidr(frontend.ip) } }),
		protocol: { value: protocol },
		matches: [comment(text), ...more, { match: protocol, dport: only(frontend.port) }],
	}
}

function transportOf(protocol: Frontend['protocol']): 'tcp' | 'udp' | 'sctp' {
	switch (protocol) {
		case 'TCP':
			return 'tcp'
		case 'UDP':
			return 'udp'
		case 'SCTP':
			return 'sctp'
		default:
			throw new Error(`a Service port cannot be ${protocol}`)
	}
}

function only(port: number): { readonly value: PortRange } {
	return { value: { first: port, last: port } }
}

function refusal(serving: Serving, names: PortNames, family: IpFamily): { text: string; target: Rule['target'] } {
	return serving.any
		? { text: `${names.title} has no local endpoints`, target: { target: 'drop' } }
		: { text: `${names.title} has no endpoints`, target: { target: 'reject', with: defaultReject(family) } }
}

function contributeClusterIp(
	frontend: Frontend,
	serving: Serving,
	local: boolean,
	names: PortNames,
	draft: Draft,
): void {
	if (!serving.internal) {
		const { text, target } = refusal(serving, names, frontend.family)
		draft.unserved.push({ ...toFrontend(frontend, text), ...(target === undefined ? {} : { target }) })
		return
	}
	const chain = local ? names.local : names.cluster
	draft.services.push({ ...toFrontend(frontend, `${names.title} cluster IP`), ...jump(chain) })
}

/** Clients of a ClusterIP that are no pods get the node's address, so that the answer comes back through it. */
function masqueradeOutside(frontend: Frontend, names: PortNames, vantage: Vantage): Rule {
	const pods = vantage.podCidrs.filter((cidr) => familyOf(cidr) === frontend.family)
	const rule = toFrontend(frontend, `${names.title} cluster IP`)
	if (pods.length > 1) return { ...rule, ...jump(chains.markOutside) }
	const pod = pods[0]
	return {
		...rule,
		...(pod === undefined ? {} : { source: { not: true, value: pod } }),
		...jump(chains.markMasquerade),
	}
}

const wordsOf = {
	'cluster-ip': 'cluster IP',
	'external-ip': 'external IP',
	'load-balancer': 'loadbalancer IP',
	'node-port': '',
} as const

function contributeExternal(frontend: Frontend, serving: Serving, names: PortNames, draft: Draft): void {
	const node = frontend.kind === 'node-port'
	const fenced = frontend.sourceRanges !== undefined
	if (serving.any) {
		const text = node ? names.title : `${names.title} ${wordsOf[frontend.kind]}`
		const list = node ? draft.nodePorts : draft.services
		list.push({ ...toFrontend(frontend, text), ...jump(fenced ? names.firewall : names.external) })
		if (fenced) {
			draft.firewall.push({
				...toFrontend(frontend, `${names.title} traffic not accepted by ${names.firewall}`),
				target: { target: 'drop' },
			})
		}
	}
	if (!serving.external) {
		const { text, target } = refusal(serving, names, frontend.family)
		const local: Match[] = node ? [{ match: 'addrtype', destination: { value: 'LOCAL' } }] : []
		draft.externalUnserved.push({ ...toFrontend(frontend, text, local), ...(target === undefined ? {} : { target }) })
	}
}

function externalChain(serving: Serving, local: boolean, names: PortNames, vantage: Vantage): Chain {
	const { title } = names
	const rules: Rule[] = []
	if (!local) {
		rules.push({
			matches: [comment(`masquerade traffic for ${title} external destinations`)],
			...jump(chains.markMasquerade),
		})
	} else {
		for (const cidr of vantage.podCidrs.filter((c) => familyOf(c) === familyOfServing(serving))) {
			rules.push({
				source: { value: cidr },
				matches: [comment(`pod traffic for ${title} external destinations`)],
				...jump(names.cluster),
			})
		}
		const fromNode: Match = { match: 'addrtype', source: { value: 'LOCAL' } }
		rules.push(
			{
				matches: [comment(`masquerade LOCAL traffic for ${title} external destinations`), fromNode],
				...jump(chains.markMasquerade),
			},
			{
				matches: [comment(`route LOCAL traffic for ${title} external destinations`), fromNode],
				...jump(names.cluster),
			},
		)
	}
	if (serving.external) rules.push({ matches: [], ...jump(local ? names.local : names.cluster) })
	return { table: 'nat', name: names.external, rules }
}

function familyOfServing(serving: Serving): IpFamily {
	return familyOf((serving.cluster[0] as Endpoint).ip)
}

function firewallChain(fenced: readonly Frontend[], names: PortNames, vantage: Vantage): Chain {
	const text = comment(`${names.title} loadbalancer IP`)
	const ranges = [...new Set(fenced.flatMap((f) => f.sourceRanges ?? []))]
	const from = (cidr: Cidr): Rule => ({ source: { value: cidr }, matches: [text], ...jump(names.external) })
	const rules = ranges.map(from)
	// Where the load balancer's address is also on the node, the node's own connections come from that address.
	if (ranges.some((range) => vantage.nodeIps.some((ip) => cidrContains(range, ip)))) {
		for (const { ip } of fenced) if (ip !== undefined) rules.push(from(hostCidr(ip)))
	}
	// Only counts: what comes as far was not translated, and meets its rule in KUBE-PROXY-FIREWALL.
	rules.push({ matches: [comment(`other traffic to ${names.title} will be dropped by KUBE-PROXY-FIREWALL`)] })
	return { table: 'nat', name: names.firewall, rules }
}

/** One endpoint at random: each rule takes its share of what the rules before it left. */
function chooseRules(
	service: Service,
	port: ServicePort,
	names: PortNames,
	endpoints: readonly Endpoint[],
): readonly Rule[] {
	const ends = endpoints.map((e) => {
		const text = endpointText(e.ip, e.port)
		return { label: comment(`${names.title} -> ${text}`), chain: endpointChain(names.title, port.protocol, text) }
	})
	const rules: Rule[] = []
	const seconds = service.sessionAffinity
	if (seconds !== undefined) {
		for (const { label, chain } of ends) {
			rules.push({
				matches: [label, { match: 'recent', op: 'rcheck', name: chain, seconds, reap: true }],
				...jump(chain),
			})
		}
	}
	for (const [i, { label, chain }] of ends.entries()) {
		const left = ends.length - i
		const chance: Match[] = left === 1 ? [] : [{ match: 'statistic', share: shareOf(left) }]
		rules.push({ matches: [label, ...chance], ...jump(chain) })
	}
	return rules
}

/** One of `left`, with the ten digits kube-proxy writes, as the kernel keeps it. */
function shareOf(left: number): number {
	return Math.round(Number((1 / left).toFixed(10)) * probabilityUnit)
}

function endpointRules(service: Service, port: ServicePort, names: PortNames, endpoint: Endpoint): Chain {
	const text = endpointText(endpoint.ip, endpoint.port)
	const name = endpointChain(names.title, port.protocol, text)
	const protocol = transportOf(port.protocol)
	const remember: Match[] = service.sessionAffinity === undefined ? [] : [{ match: 'recent', op: 'set', name }]
	return {
		table: 'nat',
		name,
		rules: [
			// A pod that reaches itself must see the node as its client.
			{
				source: { value: hostCidr(endpoint.ip) },
				matches: [comment(names.title)],
				...jump(chains.markMasquerade),
			},
			{
				protocol: { value: protocol },
				matches: [comment(names.title), ...remember, { match: protocol }],
				target: { target: 'dnat', ip: endpoint.ip, port: endpoint.port },
			},
		],
	}
}
