// Generated Services and EndpointSlices: every type and field, of both families, with claims that collide.

import fc from 'fast-check'
import './seed.ts'

export const nodes = [1, 2, 3] as const
export const namespace = fc.constantFrom('default', 'default', 'default', 'shop')
const podIndex = fc.integer({ min: 0, max: 5 })
const serviceIndex = fc.constantFrom(0, 0, 1, 1, 2, 3)
export const app = fc.constantFrom('a', 'b')
export const mostly = (chance: number) => fc.integer({ min: 0, max: 99 }).map((n) => n < chance)

/** Without undefined fields: objects come from JSON. */
export function clean<T>(value: T): T {
	return JSON.parse(JSON.stringify(value)) as T
}

export function podIp(nodeIndex: number, pod: number, family: 4 | 6 = 4): string {
	return family === 4 ? `10.244.${nodeIndex - 1}.${10 + pod}` : `fd00:10:244:${nodeIndex - 1}::${10 + pod}`
}

/** Load balancers and external ones, of both families; a node's address; a ClusterIP; a pod's address. */
export const externalAddresses = ['192.0.2.10', '192.0.2.11', '2001:db8::10'] as const
const strayAddresses = ['172.18.0.3', '10.96.0.20', '10.244.0.10', '172.18.9.2'] as const

const servicePorts = fc.subarray(
	[
		{ name: 'http', port: 80, targetPort: 'http' },
		{ name: 'alt', port: 81, targetPort: 9090, protocol: 'TCP' },
		{ name: 'dns', port: 53, targetPort: 53, protocol: 'UDP' },
		{ name: 'signal', port: 80, targetPort: 9090, protocol: 'SCTP' },
	],
	{ minLength: 1 },
)

const ranges = fc.constantFrom(
	undefined,
	undefined,
	['203.0.113.0/24'],
	['10.244.0.0/16', '172.18.0.0/16'],
	['2001:db8:1::/48'],
	['203.0.113.0/24', '2001:db8:1::/48', 'fd00:10:244::/48'],
)

const ingress = fc.array(
	fc.record({
		ip: fc.constantFrom(...externalAddresses),
		ipMode: fc.constantFrom(undefined, 'VIP', 'VIP', 'Proxy'),
	}),
	{ maxLength: 2 },
)

export const service = fc
	.record({
		namespace,
		index: serviceIndex,
		clash: mostly(5),
		kind: fc.constantFrom(
			...['ClusterIP', 'ClusterIP', 'ClusterIP', 'headless', 'ExternalName', 'NodePort', 'LoadBalancer'],
			'LoadBalancer',
		),
		families: fc.constantFrom([4], [4], [4, 6], [6, 4], [6]),
		app: fc.option(app),
		ports: servicePorts,
		internal: fc.constantFrom('Cluster', 'Cluster', 'Cluster', 'Local'),
		external: fc.constantFrom('Cluster', 'Local'),
		affinity: mostly(15),
		externalIps: fc.oneof(
			{ weight: 5, arbitrary: fc.constant([]) },
			{ weight: 1, arbitrary: fc.subarray([...externalAddresses, ...strayAddresses], { maxLength: 2 }) },
		),
		ranges,
		ingress,
		balancer: fc.constantFrom(undefined, undefined, 'podwire.dev/l2', 'cloud.example/lb'),
		withoutNodePorts: mostly(15),
		unproxied: mostly(3),
		age: fc.option(fc.integer({ min: 1, max: 3 })),
		distribution: fc.constantFrom(undefined, undefined, 'PreferSameZone', 'PreferSameNode'),
	})
	.map((s) => {
		const number = s.clash ? 20 : 20 + s.index + (s.namespace === 'shop' ? 10 : 0)
		const open = s.kind === 'NodePort' || s.kind === 'LoadBalancer'
		const clusterIPs =
			s.kind === 'headless'
				? ['None']
				: s.kind === 'ExternalName'
					? undefined
					: s.families.map((family) => (family === 4 ? `10.96.0.${number}` : `fd00:10:96::${number}`))
		const balanced = s.kind === 'LoadBalancer'
		const nodePorts = open && !(balanced && s.withoutNodePorts)
		return clean({
			apiVersion: 'v1',
			kind: 'Service',
			metadata: {
				name: `s${s.index}`,
				namespace: s.namespace,
				creationTimestamp: s.age === null ? undefined : `2026-01-0${s.age}T00:00:00Z`,
				labels: s.unproxied ? { 'service.kubernetes.io/service-proxy-name': 'other' } : undefined,
			},
			spec: {
				type: s.kind === 'headless' ? 'ClusterIP' : s.kind,
				clusterIP: clusterIPs?.[0],
				clusterIPs,
				externalName: s.kind === 'ExternalName' ? 's0.default.svc.cluster.local' : undefined,
				selector: s.app === null ? undefined : { app: s.app },
				// Of two Services with one number (a clash) both have the same node ports.
				ports: nodePorts ? s.ports.map((p) => ({ ...p, nodePort: 30000 + (number % 10) * 100 + p.port })) : s.ports,
				internalTrafficPolicy: s.internal,
				externalTrafficPolicy: open || s.externalIps.length > 0 ? s.external : undefined,
				sessionAffinity: s.affinity ? 'ClientIP' : undefined,
				trafficDistribution: s.distribution,
				externalIPs: s.externalIps.length === 0 ? undefined : s.externalIps,
				loadBalancerSourceRanges: balanced ? s.ranges : undefined,
				loadBalancerClass: balanced ? s.balancer : undefined,
				allocateLoadBalancerNodePorts: balanced && s.withoutNodePorts ? false : undefined,
				healthCheckNodePort: balanced && s.external === 'Local' ? 32000 + number : undefined,
			},
			status: balanced ? { loadBalancer: { ingress: s.ingress } } : undefined,
		})
	})

const endpoint = fc
	.record({
		node: fc.constantFrom(...nodes),
		pod: podIndex,
		namespace,
		named: mostly(90),
		onNode: mostly(6),
		ready: fc.option(mostly(70), { nil: undefined }),
		serving: fc.option(mostly(80), { nil: undefined }),
		terminating: mostly(25),
		zone: fc.option(fc.constantFrom('za', 'zb')),
		near: mostly(50),
	})
	.map((e) => ({
		addresses: { 4: addressOf(e, 4), 6: addressOf(e, 6) },
		conditions: { ready: e.ready, serving: e.serving, terminating: e.terminating },
		nodeName: `node-${e.node}`,
		targetRef: e.named && !e.onNode ? { kind: 'Pod', name: `p${e.pod}`, namespace: e.namespace } : undefined,
		hints: e.zone === null ? undefined : hintsOf(e.zone, e.near ? `node-${e.node}` : undefined),
	}))

function addressOf(
	e: { node: number; pod: number; namespace: string; named: boolean; onNode: boolean },
	family: 4 | 6,
): string {
	// Outside of the cluster.
	if (e.pod === 5 && !e.named) return family === 4 ? '203.0.113.50' : '2001:db8:2::50'
	if (e.onNode) return family === 4 ? `172.18.0.${e.node + 1}` : `fd00:172::${e.node + 1}`
	return podIp(e.node, e.pod + (e.namespace === 'shop' ? 50 : 0), family)
}

function hintsOf(zone: string, node: string | undefined) {
	return { forZones: [{ name: zone }], forNodes: node === undefined ? undefined : [{ name: node }] }
}

export const slice = fc
	.record({
		namespace,
		service: fc.constantFrom(0, 0, 1, 1, 2, 3, 4),
		number: fc.constantFrom(0, 0, 0, 1),
		family: fc.constantFrom<4 | 6>(4, 4, 6),
		labelled: mostly(95),
		ports: fc.subarray(
			[
				{ name: 'http', port: 8080, protocol: 'TCP' },
				{ name: 'alt', port: 9090 },
				{ name: 'dns', port: 53, protocol: 'UDP' },
				{ name: 'signal', port: 9090, protocol: 'SCTP' },
			],
			{ minLength: 1 },
		),
		endpoints: fc.array(endpoint, { maxLength: 5 }),
	})
	.map((s) =>
		clean({
			apiVersion: 'discovery.k8s.io/v1',
			kind: 'EndpointSlice',
			metadata: {
				name: `s${s.service}-${s.number}${s.family === 4 ? '' : '-v6'}`,
				namespace: s.namespace,
				labels: s.labelled ? { 'kubernetes.io/service-name': `s${s.service}` } : undefined,
			},
			addressType: s.family === 4 ? 'IPv4' : 'IPv6',
			ports: s.ports,
			endpoints: s.endpoints.map((e) => ({ ...e, addresses: [e.addresses[s.family]] })),
		}),
	)
