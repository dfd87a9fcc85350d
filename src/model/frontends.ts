// Where a Service answers, and what becomes of a new connection there: the one answer that the walk and every data
// plane compile from. Rules: kube-proxy's endpoint and masquerade decisions (kubernetes/kubernetes pkg/proxy), API
// ServiceSpec and LoadBalancerIngress, KEP-1860 (ipMode), KEP-1669.

import { type Cidr, cidrContains, familyOf, type Ip, type IpFamily } from '../base/ip.ts'
import type { Protocol } from '../base/packet.ts'
import { diffTables, emptyTable } from '../base/table.ts'
import { type ServingEndpoints, servingEndpoints } from './endpoints.ts'
import type { AddressOwner, NetworkModel, Node, NodeName, Service, ServicePort } from './network.ts'
import { defaultOrigin, type ObjectKey, type Origin } from './origin.ts'

export type FrontendKind = 'cluster-ip' | 'external-ip' | 'load-balancer' | 'node-port'

/** One address and port at which a node's rules take connections for a port of a Service. */
export interface Frontend {
	readonly kind: FrontendKind
	/** Undefined for node-port: each of the node's `nodePortIps`. */
	readonly ip?: Ip
	readonly family: IpFamily
	readonly protocol: Protocol
	readonly port: number
	/** Which of the two traffic policies counts. */
	readonly traffic: 'internal' | 'external'
	/**
	 * loadBalancerSourceRanges of the family; clients outside of them are dropped, before any other decision, pods and
	 * nodes as well. Undefined: everybody may.
	 */
	readonly sourceRanges?: readonly Cidr[]
	readonly origin: Origin
}

/** The node's rules tell three kinds of clients apart, by the packet's source address alone. */
export type ClientPlace =
	/** An address of the cluster's pod networks. */
	| 'pod'
	/** An address of this very node: processes and hostNetwork pods on it. */
	| 'node'
	/** Everything else, other nodes as well. */
	| 'outside'

export interface Treatment {
	readonly serving: ServingEndpoints
	/** Set where the connection gets the node's own address as source, hairpins aside. */
	readonly masquerade?: Origin
}

const offCluster = defaultOrigin('the client of a ClusterIP is no pod: the answer must come back through this node')
const anyNode = defaultOrigin(
	'externalTrafficPolicy Cluster: the endpoint may be on another node, the answer must come back through this one',
)
const ownNode = defaultOrigin('this node itself asks: the answer must come back to it')

/**
 * Every frontend of one port, ClusterIPs first, each address once. Empty for headless Services, for ExternalName, while
 * no ClusterIP is allocated, and where a label leaves the Service to another proxy. Addresses of a family of which the
 * Service has no ClusterIP are left out: it is not proxied in that family. An address that is the load balancer's and
 * in externalIPs, too, is the load balancer's, so that its source ranges hold.
 *
 * Ranges of the other family alone restrict nothing in this one. Node ports are never subject to them.
 */
export function frontendsOf(service: Service, port: ServicePort): readonly Frontend[] {
	const { protocol } = port
	if (!isProxied(service) || protocol === 'ICMP') return []
	const families = new Set(service.clusterIps.map((ip) => familyOf(ip)))
	const list: Frontend[] = []
	const add = (kind: Exclude<FrontendKind, 'node-port'>, ip: Ip, origin: Origin, sourceRanges?: readonly Cidr[]) => {
		const family = familyOf(ip)
		if (!families.has(family) || list.some((f) => f.ip === ip)) return
		list.push({
			kind,
			ip,
			family,
			protocol,
			port: port.port,
			traffic: kind === 'cluster-ip' ? 'internal' : 'external',
			...(sourceRanges === undefined ? {} : { sourceRanges }),
			origin,
		})
	}
	for (const ip of service.clusterIps) add('cluster-ip', ip, port.origin)
	for (const { ip, ipMode } of service.loadBalancer?.ingress ?? []) {
		// Proxy: what goes there must meet the load balancer itself, so no node takes it.
		if (ip === undefined || ipMode === 'Proxy') continue
		const ranges = service.loadBalancer?.sourceRanges.filter((cidr) => familyOf(cidr) === familyOf(ip)) ?? []
		add('load-balancer', ip, port.origin, ranges.length === 0 ? undefined : ranges)
	}
	for (const ip of service.externalIps) add('external-ip', ip, service.fields?.externalIPs ?? port.origin)
	if (port.nodePort !== undefined) {
		for (const family of families) {
			const at = { family, protocol, port: port.nodePort }
			list.push({ kind: 'node-port', ...at, traffic: 'external', origin: port.origin })
		}
	}
	return list
}

/** Whether nodes translate for the Service at all. */
export function isProxied(service: Service): boolean {
	const { headless, type, clusterIps, otherProxy } = service
	return !headless && type !== 'ExternalName' && clusterIps.length > 0 && otherProxy === undefined
}

/** What identifies a frontend in `model.frontends`: `1.2.3.4 TCP 80`; of a node port `*4 TCP 30080`, `*6 TCP 30080`. */
export function frontendKeyOf(frontend: Pick<Frontend, 'ip' | 'family' | 'protocol' | 'port'>): string {
	return `${frontend.ip ?? `*${frontend.family}`} ${frontend.protocol} ${frontend.port}`
}

/**
 * Whether the frontend is the Service's: two may say so of one address, and exactly one has it. A ClusterIP is its
 * owner's by address alone, and nobody else's frontend at any port; of the rest `model.frontends` names the owner.
 */
export function ownsFrontend(
	model: Pick<NetworkModel, 'addresses' | 'frontends'>,
	service: Pick<Service, 'key'>,
	frontend: Pick<Frontend, 'kind' | 'ip' | 'family' | 'protocol' | 'port'>,
): boolean {
	if (frontend.kind !== 'cluster-ip') return model.frontends.get(frontendKeyOf(frontend)) === service.key
	const owner = frontend.ip === undefined ? undefined : model.addresses.get(frontend.ip)
	return owner?.kind === 'service' && owner.service === service.key
}

/** The frontend that takes a packet to `ip` and `port` on `node`, with its Service. Undefined: no Service translates it. */
export type Found =
	| { readonly kind: 'frontend'; readonly service: Service; readonly port: ServicePort; readonly frontend: Frontend }
	/** A ClusterIP that has no such port. */
	| { readonly kind: 'unknown-port'; readonly service: Service }

export function findFrontend(
	model: Pick<NetworkModel, 'config' | 'addresses' | 'frontends' | 'services'>,
	node: Pick<Node, 'addresses'>,
	to: { readonly ip: Ip; readonly protocol: Protocol; readonly port: number },
): Found | undefined {
	const { ip, protocol } = to
	const owner = model.addresses.get(ip)
	if (owner?.kind === 'service') {
		const service = model.services.get(owner.service)
		// Left to another proxy: its address is as unknown to this one as an address that nobody has.
		if (service === undefined || !isProxied(service)) return undefined
		for (const port of service.ports) {
			if (port.protocol !== protocol || port.port !== to.port) continue
			const frontend = frontendsOf(service, port).find((f) => f.kind === 'cluster-ip' && f.ip === ip)
			if (frontend !== undefined) return { kind: 'frontend', service, port, frontend }
		}
		return { kind: 'unknown-port', service }
	}
	const family = familyOf(ip)
	const exact = ownedBy(model, frontendKeyOf({ ip, family, protocol, port: to.port }))
	if (exact !== undefined) return exact
	if (!nodePortIps(model, node).includes(ip)) return undefined
	return ownedBy(model, frontendKeyOf({ family, protocol, port: to.port }))
}

function ownedBy(model: Pick<NetworkModel, 'frontends' | 'services'>, key: string): Found | undefined {
	const owner: ObjectKey | undefined = model.frontends.get(key)
	const service = owner === undefined ? undefined : model.services.get(owner)
	for (const port of service?.ports ?? []) {
		const frontend = frontendsOf(service!, port).find((f) => f.kind !== 'cluster-ip' && frontendKeyOf(f) === key)
		if (frontend !== undefined) return { kind: 'frontend', service: service!, port, frontend }
	}
	return undefined
}

/** Why externalIPs count for nothing, where they do not. */
export const externalIpsOff = {
	default: 'the feature gate AllowServiceExternalIPs is off: no node answers at externalIPs',
} as const satisfies Origin

/** Services whose external IP the address would be, were they not ignored; by key. */
export function ignoredAt(model: Pick<NetworkModel, 'config' | 'services'>, ip: Ip): readonly Service[] {
	if (model.config.ignoreExternalIps !== true) return []
	const found = [...model.services.values()].filter((service) => service.ignoredExternalIps?.includes(ip) === true)
	return found.sort((a, b) => (a.key < b.key ? -1 : 1))
}

/** Services that say an address that is no ClusterIP of theirs: their load balancer's, or an external IP; by key. */
export function servicesAt(model: Pick<NetworkModel, 'services'>, ip: Ip): readonly Service[] {
	const found: Service[] = []
	for (const service of model.services.values()) {
		const { loadBalancer, externalIps } = service
		if (externalIps.includes(ip) || loadBalancer?.ingress.some((i) => i.ip === ip) === true) found.push(service)
	}
	return found.sort((a, b) => (a.key < b.key ? -1 : 1))
}

/** Where the client of a packet with this source is, as the rules of `node` see it. */
export function placeOf(model: Pick<NetworkModel, 'config'>, node: Pick<Node, 'addresses'>, source: Ip): ClientPlace {
	if (model.config.podCidrs.some((cidr) => cidrContains(cidr, source))) return 'pod'
	return node.addresses.includes(source) ? 'node' : 'outside'
}

/** Whether the frontend takes connections from this source at all (loadBalancerSourceRanges); asked before everything else. */
export function admits(frontend: Pick<Frontend, 'sourceRanges'>, source: Ip): boolean {
	return frontend.sourceRanges?.some((cidr) => cidrContains(cidr, source)) ?? true
}

/**
 * What becomes of a new connection to a frontend, by where its client is.
 *
 * External traffic under policy Local stays on the node and keeps its source; pods and the node itself are spared that
 * and reach every endpoint. Under policy Cluster its source is masqueraded, whoever asks. A ClusterIP masquerades
 * clients that are no pods. A pod that reaches itself (hairpin) is masqueraded besides, everywhere.
 */
export function treat(
	service: Service,
	port: ServicePort,
	frontend: Pick<Frontend, 'traffic' | 'family'>,
	client: { readonly place: ClientPlace; readonly node: NodeName; readonly zone?: string },
): Treatment {
	const { traffic, family } = frontend
	const { node, zone, place } = client
	const where = { node, ...(zone === undefined ? {} : { zone }), family }
	if (traffic === 'internal') {
		const serving = servingEndpoints(service, port, { ...where, traffic })
		return place === 'pod' ? { serving } : { serving, masquerade: offCluster }
	}
	if (service.externalTrafficPolicy === 'Cluster') {
		return {
			serving: servingEndpoints(service, port, { ...where, traffic }),
			masquerade: service.fields?.externalTrafficPolicy ?? anyNode,
		}
	}
	if (place === 'outside') return { serving: servingEndpoints(service, port, { ...where, traffic }) }
	const serving = servingEndpoints({ ...service, externalTrafficPolicy: 'Cluster' }, port, { ...where, traffic })
	return place === 'node' ? { serving, masquerade: ownNode } : { serving }
}

/**
 * The frontend that an endpoint's address and port is besides, where nobody serves it: a connection is translated once,
 * and what is still addressed to such a frontend then is refused, whoever the client is.
 */
export function unservedAt(
	model: Pick<NetworkModel, 'config' | 'addresses' | 'frontends' | 'services'>,
	node: Pick<Node, 'name' | 'addresses' | 'zone'>,
	to: { readonly ip: Ip; readonly protocol: Protocol; readonly port: number },
): { readonly service: Service; readonly how: 'reject' | 'drop'; readonly because: readonly Origin[] } | undefined {
	const found = findFrontend(model, node, to)
	if (found?.kind !== 'frontend') return undefined
	const { service, port, frontend } = found
	const zone = node.zone === undefined ? {} : { zone: node.zone }
	const { serving } = treat(service, port, frontend, { place: 'outside', node: node.name, ...zone })
	if (serving.none === undefined) return undefined
	return { service, how: serving.none, because: [frontend.origin, ...serving.because] }
}

/** The addresses at which a node answers for node ports (kube-proxy: --nodeport-addresses, by default primary). */
export function nodePortIps(model: Pick<NetworkModel, 'config'>, node: Pick<Node, 'addresses'>): readonly Ip[] {
	const { nodePortAddresses } = model.config
	if (nodePortAddresses === undefined) {
		// The first address of each family is the primary one.
		return node.addresses.filter((ip, i) => node.addresses.findIndex((a) => familyOf(a) === familyOf(ip)) === i)
	}
	return node.addresses.filter((ip) => nodePortAddresses.some((cidr) => cidrContains(cidr, ip)))
}

/** What of a node the programs for its Services depend on, besides the configuration; conditions and labels come and go. */
export function sameNode(a: Node | undefined, b: Node | undefined): boolean {
	return a === b || (a?.name === b?.name && a?.zone === b?.zone && a?.addresses.join() === b?.addresses.join())
}

type Claims = Pick<NetworkModel, 'services' | 'addresses' | 'frontends'>

export interface ClaimOptions {
	/** Where a node port yields to whoever has the address, or the port of that address, by itself. */
	readonly nodePortIps?: readonly Ip[]
	/** Services that are done otherwise where a pod or a node comes to have an address, or has it no more. */
	readonly claimantsOf?: (ip: Ip) => Iterable<ObjectKey>
}

/**
 * The Services a data plane has to look at when it goes from one model to another: those that differ, and those that are
 * the same but one of whose frontends changed hands. `before` undefined: all. The cost follows the difference.
 */
export function changedServices(
	before: Claims | undefined,
	now: Claims,
	{ nodePortIps = [], claimantsOf }: ClaimOptions = {},
): ReadonlyMap<ObjectKey, { readonly before: Service | undefined; readonly now: Service | undefined }> {
	const changed = new Map<ObjectKey, { before: Service | undefined; now: Service | undefined }>()
	diffTables(before?.services ?? emptyTable<ObjectKey, Service>(), now.services, (key, a, b) => {
		changed.set(key, { before: a, now: b })
	})
	if (before === undefined) return changed
	const add = (key: ObjectKey | undefined) => {
		const service = key === undefined || changed.has(key) ? undefined : now.services.get(key)
		if (service !== undefined) changed.set(service.key, { before: service, now: service })
	}
	diffTables(before.frontends, now.frontends, (key, a, b) => {
		add(a)
		add(b)
		if (nodePortIps.length === 0) return
		const [ip = '', protocol, port] = key.split(' ')
		if (!nodePortIps.includes(ip as Ip)) return
		const nodePort = `*${familyOf(ip as Ip)} ${protocol} ${port}`
		add(before.frontends.get(nodePort))
		add(now.frontends.get(nodePort))
	})
	diffTables(before.addresses, now.addresses, (ip, a, b) => {
		if (a?.kind === 'service') add(a.service)
		if (b?.kind === 'service') add(b.service)
		// Hardly ever: a Service has an address of the node as its ClusterIP, or has it no more.
		if ((a?.kind === 'service') !== (b?.kind === 'service') && nodePortIps.includes(ip))
			for (const [key, owner] of now.frontends) if (key.startsWith('*')) add(owner)
		if (claimantsOf !== undefined && (isOthers(a) || isOthers(b))) for (const key of claimantsOf(ip)) add(key)
	})
	return changed
}

function isOthers(owner: AddressOwner | undefined): boolean {
	return owner !== undefined && owner.kind !== 'service'
}
