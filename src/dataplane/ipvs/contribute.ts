// What one Service puts into IPVS on one node: virtual servers, entries of sets, addresses of the dummy device. A pure
// function of the Service, the node and the frontends that are the Service's own. Rules: kube-proxy's IPVS mode.

import { type Cidr, cidrContains, familyOf, type Ip } from '../../base/ip.ts'
import { type SetProtocol, writeEntry } from '../../linux/ipset/ipset.ts'
import type { Destination, IpvsProtocol, Scheduler } from '../../linux/ipvs/ipvs.ts'
import { servingEndpoints } from '../../model/endpoints.ts'
import { type Frontend, frontendsOf } from '../../model/frontends.ts'
import type { Endpoint, NodeName, Service, ServicePort } from '../../model/network.ts'
import type { Origin } from '../../model/origin.ts'
import { type SetId, setName, sets } from './layout.ts'
import { entryKey, type ServerEntry, serverKey } from './program.ts'

/** The node the program is for. */
export interface Vantage {
	readonly node: NodeName
	readonly zone?: string
	/** All addresses of the node. */
	readonly addresses: readonly Ip[]
	readonly nodePortIps: readonly Ip[]
	readonly scheduler: Scheduler
	/** Addresses of other nodes and of pods: taking them as this node's own would cut those off. */
	readonly isForeign: (ip: Ip) => boolean
}

export interface Contribution {
	readonly servers: readonly (readonly [key: string, ServerEntry, Origin])[]
	/** `SET ENTRY`; one may come twice. */
	readonly entries: readonly string[]
	readonly addresses: readonly Ip[]
	/** `address protocol port` of load balancers that are not for this node itself. */
	readonly notFromNode: readonly string[]
}

export const nothing: Contribution = { servers: [], entries: [], addresses: [], notFromNode: [] }

interface Draft {
	readonly servers: [string, ServerEntry, Origin][]
	readonly entries: string[]
	readonly addresses: Ip[]
	readonly notFromNode: string[]
}

/** `owns`: of several Services that claim one frontend exactly one gets it. */
export function contribute(service: Service, vantage: Vantage, owns: (frontend: Frontend) => boolean): Contribution {
	const draft: Draft = { servers: [], entries: [], addresses: [], notFromNode: [] }
	for (const port of service.ports) {
		for (const frontend of frontendsOf(service, port)) {
			const foreign = frontend.ip !== undefined && vantage.isForeign(frontend.ip)
			if (!foreign && owns(frontend)) contributeFrontend(service, port, frontend, vantage, draft)
		}
		contributeLoopback(port, vantage, draft)
	}
	return draft
}

function contributeFrontend(
	service: Service,
	port: ServicePort,
	frontend: Frontend,
	vantage: Vantage,
	draft: Draft,
): void {
	const { family } = frontend
	const local = service.externalTrafficPolicy === 'Local'
	const lower = frontend.protocol.toLowerCase() as SetProtocol
	const put = (id: SetId, ip: Ip | undefined, more: { ip2?: Ip; net?: Cidr } = {}, at = frontend.port) =>
		draft.entries.push(
			entryKey(
				setName(id, family),
				writeEntry(sets[id].type, { ...(ip === undefined ? {} : { ip }), protocol: lower, port: at, ...more }),
			),
		)
	const ips = frontend.ip === undefined ? vantage.nodePortIps.filter((ip) => familyOf(ip) === family) : [frontend.ip]
	const { destinations, noLocal } = destinationsOf(service, port, frontend, vantage)
	for (const ip of ips) {
		draft.servers.push([
			serverKey({ protocol: frontend.protocol as IpvsProtocol, ip, port: frontend.port }),
			{
				server: {
					protocol: frontend.protocol as IpvsProtocol,
					ip,
					port: frontend.port,
					scheduler: vantage.scheduler,
					...(service.sessionAffinity === undefined ? {} : { persistence: service.sessionAffinity }),
					...(vantage.scheduler === 'mh' ? { hashPort: true as const } : {}),
					// One that drains must not refuse those that hash to it.
					...(vantage.scheduler === 'mh' || vantage.scheduler === 'sh' ? { fallback: true as const } : {}),
				},
				destinations,
			},
			frontend.origin,
		])
		if (noLocal) put(frontend.traffic === 'internal' ? 'noLocal' : 'noLocalOutside', ip)
		// An address of the node itself is on another interface already.
		if (frontend.kind !== 'node-port' && !vantage.addresses.includes(ip)) {
			draft.addresses.push(ip)
			draft.entries.push(entryKey(setName('addresses', family), ip))
		}
	}
	switch (frontend.kind) {
		case 'cluster-ip':
			put('clusterIp', frontend.ip)
			break
		case 'external-ip':
			put(local ? 'externalIpLocal' : 'externalIp', frontend.ip)
			break
		case 'load-balancer':
			put('loadBalancer', frontend.ip)
			if (local) put('loadBalancerLocal', frontend.ip)
			if (frontend.sourceRanges !== undefined) fence(frontend, frontend.sourceRanges, vantage, draft, put)
			break
		case 'node-port':
			if (lower === 'sctp') {
				for (const ip of ips) {
					put('nodePortSctp', ip)
					if (local) put('nodePortLocalSctp', ip)
				}
			} else {
				put(lower === 'tcp' ? 'nodePortTcp' : 'nodePortUdp', undefined)
				if (local) put(lower === 'tcp' ? 'nodePortLocalTcp' : 'nodePortLocalUdp', undefined)
			}
			break
		default: {
			const never: never = frontend.kind
			throw new Error(`no such frontend: ${never}`)
		}
	}
	if (service.healthCheckNodePort !== undefined) put('healthCheck', undefined, {}, service.healthCheckNodePort)
}

function fence(
	frontend: Frontend,
	ranges: readonly Cidr[],
	vantage: Vantage,
	draft: Draft,
	put: (id: SetId, ip: Ip | undefined, more?: { ip2?: Ip; net?: Cidr }) => void,
): void {
	const { ip } = frontend
	if (ip === undefined) return
	put('loadBalancerFenced', ip)
	// A network of every address does not fit into the set: it is its two halves.
	for (const range of ranges) for (const net of halves(range)) put('sourceCidr', ip, { net })
	const [primary] = vantage.addresses.filter((a) => familyOf(a) === frontend.family)
	if (primary !== undefined && ranges.some((range) => cidrContains(range, primary))) put('sourceIp', ip, { ip2: ip })
	else draft.notFromNode.push(`${ip} ${frontend.protocol.toLowerCase()} ${frontend.port}`)
}

function halves(range: Cidr): Cidr[] {
	if (range === '0.0.0.0/0') return ['0.0.0.0/1' as Cidr, '128.0.0.0/1' as Cidr]
	return range === '::/0' ? ['::/1' as Cidr, '8000::/1' as Cidr] : [range]
}

/**
 * IPVS cannot tell clients apart: under policy Local the endpoints of this node serve everybody; where external traffic
 * finds none, all endpoints do, for pods and the node itself, and a rule drops clients outside.
 */
function destinationsOf(
	service: Service,
	port: ServicePort,
	frontend: Frontend,
	vantage: Vantage,
): { readonly destinations: readonly Destination[]; readonly noLocal: boolean } {
	const { node, zone } = vantage
	const where = { node, ...(zone === undefined ? {} : { zone }), family: frontend.family, traffic: frontend.traffic }
	const serving = servingEndpoints(service, port, where)
	const noLocal = serving.none === 'drop'
	const chosen =
		noLocal && frontend.traffic === 'external'
			? servingEndpoints({ ...service, externalTrafficPolicy: 'Cluster' }, port, where)
			: serving
	return { destinations: chosen.endpoints.map(destination), noLocal }
}

function destination({ ip, port }: Endpoint): Destination {
	return { ip, port, weight: 1, forwarding: 'masquerade', upper: 0, lower: 0 }
}

/** Endpoints on this node that may reach themselves. */
function contributeLoopback(port: ServicePort, { node }: Vantage, draft: Draft): void {
	if (port.protocol === 'ICMP') return
	const protocol = port.protocol.toLowerCase() as SetProtocol
	for (const { ip, port: at, node: on } of port.endpoints) {
		if (on !== node) continue
		const entry = writeEntry('hash:ip,port,ip', { ip, protocol, port: at, ip2: ip })
		draft.entries.push(entryKey(setName('loopback', familyOf(ip)), entry))
	}
}
