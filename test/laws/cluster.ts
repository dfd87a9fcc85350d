// Generated clusters: random edits to a small universe of objects in one address plan, so that selectors, endpoints and
// policies meet often, and mistakes (two owners of an address, slices of no Service, nodes without a network) happen.
//
// The plan: node i = 172.18.0.(i+1) and fd00:172::(i+1), with pods in 10.244.(i-1).0/24 and fd00:10:244:(i-1)::/64; pod k
// on node i = 10.244.(i-1).(10+k) and fd00:10:244:(i-1)::(10+k); Service s = 10.96.0.(20+s) and fd00:10:96::(20+s);
// cluster DNS 10.96.0.10. Addresses of load balancers and external ones: 192.0.2.0/24 and 2001:db8::/32.

import fc from 'fast-check'
import type { Cidr } from '../../src/base/ip.ts'
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
import { app, clean, mostly, namespace, nodes, podIp, service, slice } from './services.ts'
import './seed.ts'

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

/** The empty cluster with networks of both families. */
export const nothing: ClusterState = emptyState({
	podCidrs: ['10.244.0.0/16', 'fd00:10:244::/48'] as Cidr[],
	serviceCidrs: ['10.96.0.0/16', 'fd00:10:96::/112'] as Cidr[],
})

export function stateOf(edits: readonly Edit[]): ClusterState {
	return edits.reduce(apply, nothing)
}

const namespaces = ['default', 'shop'] as const
const podIndex = fc.integer({ min: 0, max: 5 })

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
		dual: mostly(85),
		excluded: mostly(5),
		leaving: mostly(5),
	})
	.map(({ index, ready, network, zone, dual, excluded, leaving }) =>
		clean({
			apiVersion: 'v1',
			kind: 'Node',
			metadata: {
				name: `node-${index}`,
				labels: {
					'topology.kubernetes.io/zone': zone ?? undefined,
					'node.kubernetes.io/exclude-from-external-load-balancers': excluded ? '' : undefined,
				},
				deletionTimestamp: leaving ? '2026-01-01T00:00:00Z' : undefined,
			},
			spec: network ? nodeNetworks(index, dual) : {},
			status: {
				addresses: nodeAddresses(index, dual),
				conditions: [{ type: 'Ready', status: ready ? 'True' : 'Unknown' }],
			},
		}),
	)

function nodeNetworks(index: number, dual: boolean) {
	const v4 = `10.244.${index - 1}.0/24`
	return { podCIDR: v4, podCIDRs: dual ? [v4, `fd00:10:244:${index - 1}::/64`] : [v4] }
}

/** The last one is not primary: no node port answers there. */
function nodeAddresses(index: number, dual: boolean) {
	const list = [`172.18.0.${index + 1}`, ...(dual ? [`fd00:172::${index + 1}`] : []), `172.18.9.${index + 1}`]
	return list.map((address) => ({ type: 'InternalIP', address }))
}

const namespaceObject = fc
	.record({ name: namespace, team: fc.option(fc.constantFrom('red', 'blue')) })
	.map(({ name, team }) =>
		clean({ apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels: team === null ? undefined : { team } } }),
	)

const pod = fc
	.record({
		namespace,
		index: podIndex,
		labels,
		node: fc.constantFrom(...nodes),
		scheduled: mostly(92),
		addressed: mostly(92),
		hostNetwork: mostly(8),
		dual: mostly(70),
		hostPort: mostly(15),
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
		const ips = p.hostNetwork ? [`172.18.0.${p.node + 1}`] : [podIp(p.node, number)]
		if (p.dual && !p.hostNetwork) ips.push(podIp(p.node, number, 6))
		const ports = p.ports.map((port) => (p.hostPort && port.name === 'http' ? { ...port, hostPort: 8088 } : port))
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
				containers: [{ name: 'c', ports }],
			},
			status: {
				phase: p.scheduled ? p.phase : 'Pending',
				podIPs: p.scheduled && p.addressed ? ips.map((ip) => ({ ip })) : undefined,
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
	{ weight: 5, arbitrary: service },
	{ weight: 5, arbitrary: slice },
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
			spec: nodeNetworks(index, true),
			status: {
				addresses: nodeAddresses(index, true),
				conditions: [{ type: 'Ready', status: 'True' }],
			},
		} as KubeObject,
	})),
	...namespaces.map((name) => ({ set: { apiVersion: 'v1', kind: 'Namespace', metadata: { name } } })),
	{ set: dnsService as unknown as KubeObject },
]
