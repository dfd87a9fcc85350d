// The elements one Service puts into the sets. A pure function of the Service, who has which frontend, and the node:
// taking a Service out again is asking for the same elements.

import { type Cidr, cidrAddress, cidrContains, cidrLength, familyOf, hostCidr, type Ip } from '../../base/ip.ts'
import { bareElement, type NftElement } from '../../linux/nft/program.ts'
import type { ServingEndpoints } from '../../model/endpoints.ts'
import {
	type Frontend,
	frontendKeyOf,
	frontendsOf,
	isProxied,
	nodePortIps,
	ownsFrontend,
	treat,
} from '../../model/frontends.ts'
import type { NetworkModel, NodeName, Service, ServicePort } from '../../model/network.ts'
import type { Origin } from '../../model/origin.ts'
import { originComment } from '../origin.ts'
import {
	affinitySet,
	type Choice,
	countManyOf,
	endpointsOf,
	type Family,
	largestClass,
	names,
	pickChain,
} from './layout.ts'

/** The node the program is for. */
export interface Vantage {
	readonly addresses: readonly Ip[]
	/** Those of them at which node ports answer. */
	readonly nodePortIps: readonly Ip[]
	/** Who may ask, as far as the choice of endpoints depends on it. */
	readonly pod: Client
	readonly outside: Client
}

type Client = Parameters<typeof treat>[3]

export function vantageOf(model: Pick<NetworkModel, 'config' | 'nodes'>, name: NodeName): Vantage {
	const node = model.nodes.get(name)
	const where = { node: name, ...(node?.zone === undefined ? {} : { zone: node.zone }) }
	return {
		addresses: node?.addresses ?? [],
		nodePortIps: node === undefined ? [] : nodePortIps(model, node),
		pod: { place: 'pod', ...where },
		outside: { place: 'outside', ...where },
	}
}

/** Who has which frontend, where several Services claim one. */
export type Owners = Pick<NetworkModel, 'addresses' | 'frontends'>

export type Emit = (family: Family, set: string, key: string, element: NftElement) => void

/**
 * Calls `emit` for every element. Those of shared sets come once for each frontend that asks for them, also from several
 * Services; all others are one Service's alone, once.
 */
export function contribute(service: Service, vantage: Vantage, owners: Owners, emit: Emit): void {
	if (!isProxied(service)) return
	for (const ip of service.clusterIps) {
		if (!ownsFrontend(owners, service, { kind: 'cluster-ip', ip, family: 4, protocol: 'TCP', port: 0 })) continue
		emit(familyName(familyOf(ip)), names.clusterIps, ip, {
			comment: originComment(service.fields?.clusterIP ?? service.origin),
		})
	}
	for (const port of service.ports) {
		for (const frontend of frontendsOf(service, port)) {
			if (!ownsFrontend(owners, service, frontend)) continue
			for (const ip of addressesOf(frontend, vantage, owners))
				contributeFrontend(service, port, { ...frontend, ip }, vantage, emit)
		}
	}
}

function familyName(family: 4 | 6): Family {
	return family === 4 ? 'ip' : 'ip6'
}

/** A node port answers at each of the node's addresses, unless the port of that address is somebody's by itself. */
function addressesOf(frontend: Frontend, vantage: Vantage, owners: Owners): readonly Ip[] {
	if (frontend.ip !== undefined) return [frontend.ip]
	return vantage.nodePortIps.filter(
		(ip) =>
			familyOf(ip) === frontend.family &&
			owners.addresses.get(ip)?.kind !== 'service' &&
			!owners.frontends.has(frontendKeyOf({ ...frontend, ip })),
	)
}

/** As nft writes them. */
const protocolNames = { TCP: 'tcp', UDP: 'udp', SCTP: 'sctp', ICMP: 'icmp' } as const

function contributeFrontend(
	service: Service,
	port: ServicePort,
	frontend: Frontend & { readonly ip: Ip },
	vantage: Vantage,
	emit: Emit,
): void {
	const { ip } = frontend
	const family = familyName(frontend.family)
	const key = `${ip} . ${protocolNames[frontend.protocol]} . ${frontend.port}`
	const comment = originComment(frontend.origin)
	const put = (set: string, element: NftElement = bareElement) => emit(family, set, key, element)
	const { serving, masquerade } = treat(service, port, frontend, vantage.pod)
	if (serving.none !== undefined) put(serving.none === 'drop' ? names.noLocalEndpoints : names.noEndpoints, { comment })
	else putEndpoints('all', serving, key, comment, family, emit)
	if (frontend.traffic === 'external') {
		emit(family, names.externalIps, ip, bareElement)
		if (service.externalTrafficPolicy === 'Cluster') put(names.policyCluster, why(masquerade))
		else {
			put(names.policyLocal, why(service.fields?.externalTrafficPolicy))
			const local = treat(service, port, frontend, vantage.outside).serving
			if (local.none === undefined) putEndpoints('local', local, key, comment, family, emit)
			// Without endpoints anywhere the frontend refuses everybody already.
			else if (serving.none === undefined) put(names.noLocalEndpoints, { comment })
			if (frontend.kind === 'node-port') {
				for (const pair of hairpinsElsewhere(serving, vantage)) emit(family, names.hairpinElsewhere, pair, bareElement)
			}
		}
	}
	if (frontend.sourceRanges !== undefined) {
		const ranges = rangesOf(frontend.sourceRanges, ip, vantage)
		if (ranges !== undefined) {
			put(names.restricted, why(service.fields?.loadBalancerSourceRanges))
			for (const range of ranges) emit(family, names.sourceRanges, `${key} . ${rangeText(range)}`, bareElement)
		}
	}
	if (service.sessionAffinity !== undefined && serving.none === undefined) put(affinitySet(service.sessionAffinity))
}

/**
 * A pod that asks a node port of its own Service at this node, which is not its own: under policy Local nobody else would
 * put this node's address in between. At every other address the rules of the pod's own node decide.
 */
function hairpinsElsewhere({ endpoints }: ServingEndpoints, { pod }: Vantage): ReadonlySet<string> {
	const pairs = new Set<string>()
	for (const { ip, node } of endpoints) if (node !== pod.node) pairs.add(`${ip} . ${ip}`)
	return pairs
}

/** Defaults are what the rule says already. */
function why(origin: Origin | undefined): NftElement {
	return origin === undefined || 'default' in origin ? bareElement : { comment: originComment(origin) }
}

function putEndpoints(
	choice: Choice,
	{ endpoints }: ServingEndpoints,
	key: string,
	comment: string,
	family: Family,
	emit: Emit,
): void {
	const count = endpoints.length
	const map = endpointsOf(choice, count)
	for (let slot = 0; slot < count; slot++) {
		const endpoint = endpoints[slot] as (typeof endpoints)[number]
		const data = `${endpoint.ip} . ${endpoint.port}`
		// One comment a frontend: a third of the memory of one an element, and the first slot is always there to ask.
		emit(family, map, count === 1 ? key : `${key} . ${slot}`, slot === 0 ? { data, comment } : { data })
	}
	if (count > largestClass)
		emit(family, countManyOf(choice), key, { data: `goto ${pickChain(choice, count)}`, comment })
}

/**
 * Disjoint networks, as an interval set needs them; undefined: everybody may. A node that may reach the address may also
 * from the address itself: where the node has it (as some load balancers want), that is what it sends from.
 */
function rangesOf(given: readonly Cidr[], ip: Ip, vantage: Vantage): readonly Cidr[] | undefined {
	const ranges = [...given]
	if (given.some((cidr) => vantage.addresses.some((own) => cidrContains(cidr, own)))) ranges.push(hostCidr(ip))
	if (ranges.some((cidr) => cidrLength(cidr) === 0)) return undefined
	return ranges.filter(
		(cidr, i) =>
			!ranges.some(
				(other, k) =>
					k !== i &&
					cidrContains(other, cidrAddress(cidr)) &&
					(cidrLength(other) < cidrLength(cidr) || (other === cidr && k < i)),
			),
	)
}

/** As nft prints it: a single address without its length. */
function rangeText(cidr: Cidr): string {
	const address = cidrAddress(cidr)
	return cidr === hostCidr(address) ? address : cidr
}
