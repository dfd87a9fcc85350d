// Where a Service answers, and what becomes of a new connection there: the one answer that the walk and every data
// plane compile from. Rules: kube-proxy's endpoint and masquerade decisions (kubernetes/kubernetes pkg/proxy), API
// ServiceSpec and LoadBalancerIngress, KEP-1860 (ipMode), KEP-1669.

import { type Cidr, cidrContains, familyOf, type Ip, type IpFamily } from '../base/ip.ts'
import type { Protocol } from '../base/packet.ts'
import { type ServingEndpoints, servingEndpoints } from './endpoints.ts'
import type { NetworkModel, Node, NodeName, Service, ServicePort } from './network.ts'
import { defaultOrigin, type Origin } from './origin.ts'

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
	/** loadBalancerSourceRanges of the family; clients outside of them are dropped. Undefined: everybody may. */
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

/** Every frontend of one port, ClusterIPs first. Empty for headless Services and ExternalName. */
export function frontendsOf(service: Service, port: ServicePort): readonly Frontend[] {
	if (service.headless || service.type === 'ExternalName' || port.protocol === 'ICMP') return []
	const { protocol } = port
	const at = (kind: FrontendKind, ip: Ip, origin: Origin, sourceRanges?: readonly Cidr[]): Frontend => ({
		kind,
		ip,
		family: familyOf(ip),
		protocol,
		port: port.port,
		traffic: kind === 'cluster-ip' ? 'internal' : 'external',
		...(sourceRanges === undefined ? {} : { sourceRanges }),
		origin,
	})
	const list: Frontend[] = service.clusterIps.map((ip) => at('cluster-ip', ip, port.origin))
	for (const ip of service.externalIps) list.push(at('external-ip', ip, service.fields?.externalIPs ?? port.origin))
	for (const { ip, ipMode } of service.loadBalancer?.ingress ?? []) {
		// Proxy: what goes there must meet the load balancer itself, so no node takes it.
		if (ip === undefined || ipMode === 'Proxy') continue
		const ranges = service.loadBalancer?.sourceRanges.filter((cidr) => familyOf(cidr) === familyOf(ip)) ?? []
		list.push(at('load-balancer', ip, port.origin, ranges.length === 0 ? undefined : ranges))
	}
	if (port.nodePort !== undefined) {
		for (const family of new Set(service.clusterIps.map((ip) => familyOf(ip)))) {
			list.push({
				kind: 'node-port',
				family,
				protocol,
				port: port.nodePort,
				traffic: 'external',
				origin: port.origin,
			})
		}
	}
	return list
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

/** The addresses at which a node answers for node ports (kube-proxy: --nodeport-addresses, by default primary). */
export function nodePortIps(model: Pick<NetworkModel, 'config'>, node: Pick<Node, 'addresses'>): readonly Ip[] {
	const { nodePortAddresses } = model.config
	if (nodePortAddresses === undefined) {
		// The first address of each family is the primary one.
		return node.addresses.filter((ip, i) => node.addresses.findIndex((a) => familyOf(a) === familyOf(ip)) === i)
	}
	return node.addresses.filter((ip) => nodePortAddresses.some((cidr) => cidrContains(cidr, ip)))
}
