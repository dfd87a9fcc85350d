// Who may serve a connection to one port of a Service, and why: the one answer that the walk and every
// data plane compile from. Rules: Kubernetes KEP-1669 (terminating endpoints), KEP-2086 (internalTrafficPolicy),
// KEP-2433/3015/4444 (hints), semantics as in kube-proxy's topology decision.

import { familyOf, type IpFamily } from '../base/ip.ts'
import type { Endpoint, NodeName, Service, ServiceField, ServicePort } from './network.ts'
import { defaultOrigin, type Origin, objectOrigin } from './origin.ts'

export interface ServiceClient {
	/** The node whose rules translate the connection. Local policies serve nobody where it is unknown. */
	readonly node?: NodeName
	/** The zone of that node (label topology.kubernetes.io/zone). */
	readonly zone?: string
	/** internal: to a ClusterIP, from pods and nodes. external: NodePort, load balancer and external addresses. */
	readonly traffic: 'internal' | 'external'
	/** The family of the address the client asked for: only endpoints of it can serve. Undefined: both. */
	readonly family?: IpFamily
}

export interface ServingEndpoints {
	/** In the order of `port.endpoints` (address, then port); the very same array where all may serve. */
	readonly endpoints: readonly Endpoint[]
	/**
	 * Set exactly when `endpoints` is empty. reject: nobody serves anywhere (TCP reset, ICMP port unreachable).
	 * drop: somebody serves, but the traffic policy is Local and nobody does on this node.
	 */
	readonly none?: 'reject' | 'drop'
	/** Why these and not others: the fields that narrowed the choice, or the default. */
	readonly because: readonly Origin[]
}

const readyServe = defaultOrigin('every ready endpoint serves')
const terminatingServe = defaultOrigin('no endpoint is ready: those that still serve while terminating do')
const nobodyServes = defaultOrigin('no endpoint is ready, none serves while terminating')
const nobodyExists = defaultOrigin('the port has no endpoint')

/**
 * The endpoints that may serve a new connection of `client` to `port`.
 *
 * Cluster policy: the ready endpoints, narrowed by hints; where none is ready, those serving while terminating.
 * Local policy: the same choice among the endpoints of the client's node, without hints. A not-ready endpoint
 * that terminates never serves. `publishNotReadyAddresses` needs no rule here: it makes its endpoints ready in
 * their EndpointSlices. Hints count only where every ready endpoint has one of the kind and one names the client.
 */
export function servingEndpoints(service: Service, port: ServicePort, client: ServiceClient): ServingEndpoints {
	const { family } = client
	const candidates =
		family === undefined || port.endpoints.every((e) => familyOf(e.ip) === family)
			? port.endpoints
			: port.endpoints.filter((e) => familyOf(e.ip) === family)
	if (candidates.length === 0)
		return { endpoints: [], none: 'reject', because: [service.fields?.selector ?? service.origin, nobodyExists] }

	const policy = client.traffic === 'internal' ? 'internalTrafficPolicy' : 'externalTrafficPolicy'
	if (service[policy] === 'Local') return local(service, candidates, client, policy)

	const ready = keep(candidates, isReady)
	if (ready.length > 0) return hinted(service, ready, client)
	const terminating = keep(candidates, servesWhileTerminating)
	if (terminating.length > 0) return { endpoints: terminating, because: [terminatingServe] }
	return { endpoints: [], none: 'reject', because: [...origins(candidates), nobodyServes] }
}

/** May take new connections: its pod passes readiness, and does not terminate (or the Service publishes it anyway). */
export function isReady(endpoint: Endpoint): boolean {
	return endpoint.ready
}

/** The fallback while the last pods shut down. */
export function servesWhileTerminating(endpoint: Endpoint): boolean {
	return endpoint.serving && endpoint.terminating
}

function local(
	service: Service,
	candidates: readonly Endpoint[],
	client: ServiceClient,
	policy: 'internalTrafficPolicy' | 'externalTrafficPolicy',
): ServingEndpoints {
	const why = serviceOrigin(service, policy)
	const here = client.node === undefined ? [] : keep(candidates, (e) => e.node === client.node)
	const ready = keep(here, isReady)
	if (ready.length > 0) return { endpoints: ready, because: [why] }
	const terminating = keep(here, servesWhileTerminating)
	if (terminating.length > 0) return { endpoints: terminating, because: [why, terminatingServe] }
	const elsewhere = candidates.some((e) => isReady(e) || servesWhileTerminating(e))
	return elsewhere
		? { endpoints: [], none: 'drop', because: [why] }
		: { endpoints: [], none: 'reject', because: [...origins(candidates), nobodyServes] }
}

function hinted(service: Service, ready: readonly Endpoint[], client: ServiceClient): ServingEndpoints {
	for (const kind of ['node', 'zone'] as const) {
		const place = client[kind]
		if (place === undefined || !ready.every((e) => e.hints.some((h) => h.kind === kind))) continue
		const near = keep(ready, (e) => e.hints.some((h) => h.kind === kind && h.name === place))
		// Hints that name other places only would leave this client without a server: ignored as a whole.
		if (near.length === 0) continue
		const said = service.fields?.trafficDistribution
		const hint = defaultOrigin(`hints of the EndpointSlices name ${kind} "${place}"`)
		return { endpoints: near, because: said === undefined ? [hint] : [said, hint] }
	}
	return { endpoints: ready, because: [readyServe] }
}

function serviceOrigin(service: Service, field: ServiceField): Origin {
	return service.fields?.[field] ?? objectOrigin('Service', service.key, `spec.${field}`)
}

/** The slices (or static endpoints) that were looked at, each once. */
function origins(endpoints: readonly Endpoint[]): Origin[] {
	return [...new Set(endpoints.map((e) => e.origin))]
}

/** filter() that returns its input where nothing is taken away, so that data planes can compare by identity. */
function keep(list: readonly Endpoint[], test: (e: Endpoint) => boolean): readonly Endpoint[] {
	return list.every(test) ? list : list.filter(test)
}
