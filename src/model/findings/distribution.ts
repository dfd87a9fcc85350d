// Services whose connections do not go where their fields say: policies Local with nobody there, hints that are ignored,
// families without endpoints, affinity that each node keeps for itself.

import { familyOf, type IpFamily } from '../../base/ip.ts'
import { servesWhileTerminating, servingEndpoints } from '../endpoints.ts'
import type { Finding } from '../finding.ts'
import { isProxied } from '../frontends.ts'
import type { Endpoint, Node, Service, ServicePort } from '../network.ts'
import { originOf } from '../state.ts'
import type { CheckInput } from './check.ts'

export function* checkDistribution(input: CheckInput): Iterable<Finding> {
	const nodes = [...input.model.nodes.values()].filter((n) => n.ready).sort((a, b) => (a.name < b.name ? -1 : 1))
	for (const service of input.model.services.values()) {
		if (!isProxied(service)) continue
		yield* checkLocal(input, service, nodes)
		yield* checkAffinity(service, nodes)
		yield* checkHints(input, service, nodes)
		yield* checkFamilies(service)
	}
}

/** PW0032 */
function* checkLocal(input: CheckInput, service: Service, nodes: readonly Node[]): Iterable<Finding> {
	for (const traffic of ['internal', 'external'] as const) {
		const field = traffic === 'internal' ? 'internalTrafficPolicy' : 'externalTrafficPolicy'
		if (service[field] !== 'Local') continue
		// A load balancer asks the nodes who can serve; whoever picks a node by hand does not.
		const open = service.type === 'NodePort' || (service.type === 'ClusterIP' && service.externalIps.length > 0)
		if (traffic === 'external' && !open) continue
		const port = service.ports[0]
		if (port === undefined) continue
		const without = nodes.filter(
			(node) => servingEndpoints(service, port, { node: node.name, traffic }).none === 'drop',
		)
		if (without.length === 0) continue
		const who = traffic === 'internal' ? 'clients on' : 'connections from outside to'
		// A pod's own node takes what it sends to any other address (walk.ts, `sparesAllPods`).
		const besides =
			traffic === 'external' && service.type === 'NodePort' ? ", those of other nodes' pods not answered" : ''
		yield {
			code: 'PW0032',
			severity: traffic === 'internal' ? 'warning' : 'info',
			text: `Service "${service.key}" has ${field} Local and no endpoint on ${without.length} of ${nodes.length} nodes: ${who} ${namesOf(without)} are dropped${besides}`,
			because: [service.fields?.[field] ?? originOf(input.state, 'Service', service.key, `spec.${field}`)],
		}
	}
}

function namesOf(nodes: readonly Node[]): string {
	const names = nodes.slice(0, 3).map((n) => `"${n.name}"`)
	return `${names.join(', ')}${nodes.length > 3 ? ' and others' : ''}`
}

/** PW0031 */
function* checkAffinity(service: Service, nodes: readonly Node[]): Iterable<Finding> {
	const open = service.type === 'NodePort' || service.type === 'LoadBalancer'
	if (service.sessionAffinity === undefined || !open || nodes.length < 2) return
	// With Local a client that is handed to the same node meets the same memory and sees few endpoints.
	const endpoints = Math.max(0, ...service.ports.map((p) => p.endpoints.filter((e) => e.ready).length))
	if (endpoints < 2) return
	yield {
		code: 'PW0031',
		severity: 'info',
		text: `Service "${service.key}" has session affinity, which each of ${nodes.length} nodes remembers for itself: a client that comes in by another node may meet another endpoint`,
		because: [service.fields?.sessionAffinity ?? service.origin],
	}
}

/** PW0033 */
function* checkHints(input: CheckInput, service: Service, nodes: readonly Node[]): Iterable<Finding> {
	const said = service.fields?.trafficDistribution
	const object = input.state.services.get(service.key)
	const wish = object?.spec?.trafficDistribution
	if (said === undefined || wish === undefined) return
	for (const port of service.ports) {
		for (const family of [4, 6] as const) {
			const why = whyIgnored(port, family, nodes)
			if (why === undefined) continue
			yield {
				code: 'PW0033',
				severity: 'info',
				text: `Service "${service.key}" has trafficDistribution ${wish}, ignored ${why.text}`,
				because: [said, ...(why.endpoint === undefined ? [] : [why.endpoint.origin])],
			}
			// The other ports have the same pods.
			return
		}
	}
}

function whyIgnored(
	port: ServicePort,
	family: IpFamily,
	nodes: readonly Node[],
): { readonly text: string; readonly endpoint?: Endpoint } | undefined {
	const ready = port.endpoints.filter((e) => e.ready && familyOf(e.ip) === family)
	if (ready.length === 0) return undefined
	const complete = (kind: 'node' | 'zone') => ready.every((e) => e.hints.some((h) => h.kind === kind))
	if (!complete('node') && !complete('zone')) {
		const bare = ready.find((e) => e.hints.length === 0) ?? ready[0]!
		const where = bare.zone === undefined ? ', for it has no zone' : ''
		return {
			text: `everywhere: the endpoint ${bare.ip} has no hint${where}, and hints count only where all have one`,
			endpoint: bare,
		}
	}
	const helped = (node: Node) =>
		(complete('node') && ready.some((e) => e.hints.some((h) => h.kind === 'node' && h.name === node.name))) ||
		(complete('zone') && ready.some((e) => e.hints.some((h) => h.kind === 'zone' && h.name === node.zone)))
	const left = nodes.filter((node) => !helped(node))
	if (left.length === 0) return undefined
	const zoneless = left.filter((n) => n.zone === undefined)
	const why =
		zoneless.length > 0
			? `${namesOf(zoneless)} ${zoneless.length === 1 ? 'has' : 'have'} no label topology.kubernetes.io/zone`
			: `no hint names ${[...new Set(left.map((n) => `zone "${n.zone}"`))].join(', ')}`
	return { text: `on ${left.length} of ${nodes.length} nodes: ${why}` }
}

/** PW0034 */
function* checkFamilies(service: Service): Iterable<Finding> {
	for (const ip of service.clusterIps) {
		const family = familyOf(ip)
		const lacking = service.ports.find((port) => {
			const able = port.endpoints.filter((e) => e.ready || servesWhileTerminating(e))
			return able.length > 0 && !able.some((e) => familyOf(e.ip) === family)
		})
		if (lacking === undefined) continue
		const name = family === 4 ? 'IPv4' : 'IPv6'
		yield {
			code: 'PW0034',
			severity: 'warning',
			text: `Service "${service.key}" has the ${name} address ${ip} and no endpoint of ${name}: its pods have addresses of the other family only, connections there are refused`,
			because: [service.fields?.clusterIP ?? service.origin, lacking.endpoints[0]!.origin],
		}
	}
}
