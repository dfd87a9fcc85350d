// Generated clusters: random edits to a small universe of objects in one address plan, so that selectors, endpoints and
// policies meet often, and mistakes (two owners of an address, slices of no Service, nodes without a network) happen.
//
// The plan: node i = 172.18.0.(i+1) with pods in 10.244.(i-1).0/24; pod k on node i = 10.244.(i-1).(10+k);
// Service s = 10.96.0.(20+s); cluster DNS 10.96.0.10.

import fc from 'fast-check'
import type { KubeObject } from '../../src/kube/objects/meta.ts'
import { keyOf } from '../../src/kube/objects/meta.ts'
import {
	type ClusterState,
	deleteObject,
	emptyState,
	type ObjectSource,
	setObject,
	setSource,
} from '../../src/model/state.ts'

export type Edit =
	| { readonly set: KubeObject; readonly source?: ObjectSource }
	| { readonly delete: { readonly kind: string; readonly key: string } }
	/** The place in the manifests becomes known (or unknown), before or after the object comes. */
	| { readonly place: { readonly kind: string; readonly key: string }; readonly source?: ObjectSource }

export function apply(state: ClusterState, edit: Edit): ClusterState {
	if ('place' in edit) return setSource(state, edit.place.kind, edit.place.key, edit.source)
	return 'set' in edit
		? setObject(state, edit.set, edit.source)
		: deleteObject(state, edit.delete.kind, edit.delete.key)
}

export function stateOf(edits: readonly Edit[]): ClusterState {
	return edits.reduce(apply, emptyState())
}

const namespaces = ['default', 'shop'] as const
const nodes = [1, 2, 3] as const
const namespace = fc.constantFrom('default', 'default', 'default', 'shop')
const podIndex = fc.integer({ min: 0, max: 5 })
const serviceIndex = fc.constantFrom(0, 0, 1, 1, 2, 3)
const app = fc.constantFrom('a', 'b')
const mostly = (chance: number) => fc.integer({ min: 0, max: 99 }).map((n) => n < chance)

/** Without undefined fields: objects come from JSON. */
function clean<T>(value: T): T {
	return JSON.parse(JSON.stringify(value)) as T
}

const labels = fc.record({ app, tier: fc.option(fc.constantFrom('x', 'y'), { nil: undefined }) })

const selector = fc.oneof(
	{ weight: 1, arbitrary: fc.constant({}) },
	{ weight: 4, arbitrary: fc.record({ matchLabels: fc.record({ app }) }) },
	{
		weight: 1,
		arbitrary: fc.record({
			matchExpressions: fc.tuple(
				fc.record({
					key: fc.constantFrom('app', 'tier'),
					operator: fc.constantFrom('In', 'NotIn', 'Exists', 'DoesNotExist'),
					values: fc.constantFrom(['a'], ['x', 'y']),
				}),
			),
		}),
	},
)

const node = fc
	.record({
		index: fc.constantFrom(...nodes),
		ready: mostly(85),
		network: mostly(90),
		zone: fc.option(fc.constantFrom('za', 'zb')),
	})
	.map(({ index, ready, network, zone }) =>
		clean({
			apiVersion: 'v1',
			kind: 'Node',
			metadata: { name: `node-${index}`, labels: zone === null ? undefined : { 'topology.kubernetes.io/zone': zone } },
			spec: network ? { podCIDR: `10.244.${index - 1}.0/24` } : {},
			status: {
				addresses: [{ type: 'InternalIP', address: `172.18.0.${index + 1}` }],
				conditions: [{ type: 'Ready', status: ready ? 'True' : 'Unknown' }],
			},
		}),
	)

const namespaceObject = fc
	.record({ name: namespace, team: fc.option(fc.constantFrom('red', 'blue')) })
	.map(({ name, team }) =>
		clean({ apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels: team === null ? undefined : { team } } }),
	)

export function podIp(nodeIndex: number, pod: number): string {
	return `10.244.${nodeIndex - 1}.${10 + pod}`
}

const pod = fc
	.record({
		namespace,
		index: podIndex,
		labels,
		node: fc.constantFrom(...nodes),
		scheduled: mostly(92),
		addressed: mostly(92),
		hostNetwork: mostly(8),
		ready: mostly(75),
		terminating: mostly(10),
		phase: fc.constantFrom('Running', 'Running', 'Running', 'Running', 'Pending', 'Succeeded'),
		ports: fc.subarray([
			{ name: 'http', containerPort: 8080 },
			{ name: 'alt', containerPort: 9090 },
			{ name: 'dns', containerPort: 53, protocol: 'UDP' },
		]),
		owner: fc.option(fc.constantFrom('rs-0', 'rs-1')),
		dnsPolicy: fc.constantFrom('ClusterFirst', 'ClusterFirst', 'Default', undefined),
	})
	.map((p) => {
		// Pods of the two namespaces never share an address by plan: their numbers differ by 50.
		const number = p.index + (p.namespace === 'shop' ? 50 : 0)
		const ip = p.hostNetwork ? `172.18.0.${p.node + 1}` : podIp(p.node, number)
		return clean({
			apiVersion: 'v1',
			kind: 'Pod',
			metadata: {
				name: `p${p.index}`,
				namespace: p.namespace,
				uid: `${p.namespace}-p${p.index}`,
				labels: p.labels,
				deletionTimestamp: p.terminating ? '2026-01-01T00:00:00Z' : undefined,
				ownerReferences:
					p.owner === null
						? undefined
						: [{ apiVersion: 'apps/v1', kind: 'ReplicaSet', name: p.owner, uid: p.owner, controller: true }],
			},
			spec: {
				nodeName: p.scheduled ? `node-${p.node}` : undefined,
				hostNetwork: p.hostNetwork || undefined,
				dnsPolicy: p.dnsPolicy,
				containers: [{ name: 'c', ports: p.ports }],
			},
			status: {
				phase: p.scheduled ? p.phase : 'Pending',
				podIPs: p.scheduled && p.addressed ? [{ ip }] : undefined,
				conditions: [{ type: 'Ready', status: p.ready ? 'True' : 'False' }],
			},
		})
	})

const replicaSet = fc
	.record({ namespace, name: fc.constantFrom('rs-0', 'rs-1'), owned: mostly(70) })
	.map(({ namespace, name, owned }) =>
		clean({
			apiVersion: 'apps/v1',
			kind: 'ReplicaSet',
			metadata: {
				name,
				namespace,
				ownerReferences: owned
					? [{ apiVersion: 'apps/v1', kind: 'Deployment', name: 'd', uid: 'd', controller: true }]
					: undefined,
			},
			spec: { selector: {} },
		}),
	)

const deployment = namespace.map((namespace) => ({
	apiVersion: 'apps/v1',
	kind: 'Deployment',
	metadata: { name: 'd', namespace },
	spec: { selector: {} },
}))

const servicePorts = fc.subarray(
	[
		{ name: 'http', port: 80, targetPort: 'http' },
		{ name: 'alt', port: 81, targetPort: 9090, protocol: 'TCP' },
		{ name: 'dns', port: 53, targetPort: 53, protocol: 'UDP' },
	],
	{ minLength: 1 },
)

const service = fc
	.record({
		namespace,
		index: serviceIndex,
		clash: mostly(5),
		kind: fc.constantFrom('ClusterIP', 'ClusterIP', 'ClusterIP', 'headless', 'ExternalName', 'NodePort'),
		app: fc.option(app),
		ports: servicePorts,
		internal: fc.constantFrom('Cluster', 'Cluster', 'Cluster', 'Local'),
		external: fc.constantFrom('Cluster', 'Local'),
		affinity: mostly(15),
	})
	.map((s) => {
		const number = s.clash ? 20 : 20 + s.index + (s.namespace === 'shop' ? 10 : 0)
		const clusterIP = s.kind === 'headless' ? 'None' : s.kind === 'ExternalName' ? undefined : `10.96.0.${number}`
		return clean({
			apiVersion: 'v1',
			kind: 'Service',
			metadata: { name: `s${s.index}`, namespace: s.namespace },
			spec: {
				type: s.kind === 'headless' ? 'ClusterIP' : s.kind,
				clusterIP,
				externalName: s.kind === 'ExternalName' ? 's0.default.svc.cluster.local' : undefined,
				selector: s.app === null ? undefined : { app: s.app },
				ports:
					s.kind === 'NodePort' ? s.ports.map((p) => ({ ...p, nodePort: 30000 + number * 100 + p.port })) : s.ports,
				internalTrafficPolicy: s.internal,
				externalTrafficPolicy: s.kind === 'NodePort' ? s.external : undefined,
				sessionAffinity: s.affinity ? 'ClientIP' : undefined,
			},
		})
	})

const endpoint = fc
	.record({
		node: fc.constantFrom(...nodes),
		pod: podIndex,
		namespace,
		named: mostly(90),
		ready: fc.option(mostly(70), { nil: undefined }),
		serving: fc.option(mostly(80), { nil: undefined }),
		terminating: mostly(25),
		zone: fc.option(fc.constantFrom('za', 'zb')),
	})
	.map((e) => ({
		addresses: [podIp(e.node, e.pod + (e.namespace === 'shop' ? 50 : 0))],
		conditions: { ready: e.ready, serving: e.serving, terminating: e.terminating },
		nodeName: `node-${e.node}`,
		targetRef: e.named ? { kind: 'Pod', name: `p${e.pod}`, namespace: e.namespace } : undefined,
		hints: e.zone === null ? undefined : { forZones: [{ name: e.zone }] },
	}))

const slice = fc
	.record({
		namespace,
		service: fc.constantFrom(0, 0, 1, 1, 2, 3, 4),
		number: fc.constantFrom(0, 0, 0, 1),
		labelled: mostly(95),
		ports: fc.subarray(
			[
				{ name: 'http', port: 8080, protocol: 'TCP' },
				{ name: 'alt', port: 9090 },
				{ name: 'dns', port: 53, protocol: 'UDP' },
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
				name: `s${s.service}-${s.number}`,
				namespace: s.namespace,
				labels: s.labelled ? { 'kubernetes.io/service-name': `s${s.service}` } : undefined,
			},
			addressType: 'IPv4',
			ports: s.ports,
			endpoints: s.endpoints,
		}),
	)

const policyPort = fc.constantFrom(
	{ port: 8080 },
	{ port: 'http' },
	{ port: 'dns', protocol: 'UDP' },
	{ protocol: 'UDP' },
	{ port: 9000, endPort: 9100, protocol: 'TCP' },
)

const policyPeer = fc.oneof(
	fc.record({ podSelector: selector }),
	fc.record({ namespaceSelector: fc.constantFrom({}, { matchLabels: { team: 'red' } }) }),
	fc.record({
		podSelector: selector,
		namespaceSelector: fc.constantFrom({}, { matchLabels: { 'kubernetes.io/metadata.name': 'shop' } }),
	}),
	fc.constantFrom(
		{ ipBlock: { cidr: '10.244.0.0/16' } },
		{ ipBlock: { cidr: '0.0.0.0/0', except: ['10.244.1.0/24'] } },
		{ ipBlock: { cidr: '172.18.0.0/16' } },
	),
)

const rules = (side: 'from' | 'to') =>
	fc.array(
		fc
			.record({
				peers: fc.option(fc.array(policyPeer, { maxLength: 2 })),
				ports: fc.option(fc.array(policyPort, { maxLength: 2 })),
			})
			.map(({ peers, ports }) => clean({ [side]: peers ?? undefined, ports: ports ?? undefined })),
		{ maxLength: 2 },
	)

const policy = fc
	.record({
		namespace,
		index: fc.integer({ min: 0, max: 2 }),
		podSelector: selector,
		types: fc.constantFrom(undefined, ['Ingress'], ['Egress'], ['Ingress', 'Egress']),
		ingress: fc.option(rules('from')),
		egress: fc.option(rules('to')),
	})
	.map((p) =>
		clean({
			apiVersion: 'networking.k8s.io/v1',
			kind: 'NetworkPolicy',
			metadata: { name: `np${p.index}`, namespace: p.namespace },
			spec: {
				podSelector: p.podSelector,
				policyTypes: p.types,
				ingress: p.ingress ?? undefined,
				egress: p.egress ?? undefined,
			},
		}),
	)

const dnsService = clean({
	apiVersion: 'v1',
	kind: 'Service',
	metadata: { name: 'kube-dns', namespace: 'kube-system' },
	spec: {
		clusterIP: '10.96.0.10',
		selector: { 'k8s-app': 'kube-dns' },
		ports: [{ name: 'dns', port: 53, protocol: 'UDP' }],
	},
})

const object = fc.oneof(
	{ weight: 2, arbitrary: node },
	{ weight: 1, arbitrary: namespaceObject },
	{ weight: 6, arbitrary: pod },
	{ weight: 1, arbitrary: replicaSet },
	{ weight: 1, arbitrary: deployment },
	{ weight: 4, arbitrary: service },
	{ weight: 4, arbitrary: slice },
	{ weight: 2, arbitrary: policy },
	{ weight: 1, arbitrary: fc.constant(dnsService) },
) as unknown as fc.Arbitrary<KubeObject>

const source = fc.record({ file: fc.constantFrom('a.yaml', 'b.yaml'), line: fc.integer({ min: 1, max: 99 }) }).map(
	({ file, line }): ObjectSource => ({
		file,
		lines: { '': line, spec: line + 1, 'spec.ports[0]': line + 3, 'spec.template': line + 2 },
	}),
)

/** One edit: mostly an object written anew, sometimes one taken away, some with a place in a manifest. */
export const edit: fc.Arbitrary<Edit> = fc
	.record({ object, what: fc.integer({ min: 0, max: 99 }), source: fc.option(source, { nil: undefined }) })
	.map(({ object, what, source }): Edit => {
		const place = { kind: object.kind, key: keyOf(object) }
		const from = source === undefined ? {} : { source }
		if (what < 12) return { delete: place }
		return what < 32 ? { place, ...from } : { set: object, ...from }
	})

/** A cluster with its three nodes and its DNS Service, then random edits. */
export const edits: fc.Arbitrary<readonly Edit[]> = fc
	.array(edit, { minLength: 30, maxLength: 100, size: 'max' })
	.map((list) => [...base, ...list])

const base: readonly Edit[] = [
	...nodes.map((index) => ({
		set: {
			apiVersion: 'v1',
			kind: 'Node',
			metadata: { name: `node-${index}` },
			spec: { podCIDR: `10.244.${index - 1}.0/24` },
			status: {
				addresses: [{ type: 'InternalIP', address: `172.18.0.${index + 1}` }],
				conditions: [{ type: 'Ready', status: 'True' }],
			},
		} as KubeObject,
	})),
	...namespaces.map((name) => ({ set: { apiVersion: 'v1', kind: 'Namespace', metadata: { name } } })),
	{ set: dnsService as unknown as KubeObject },
]
