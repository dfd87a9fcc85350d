import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Ip } from '../base/ip.ts'
import type { Node, Service } from '../kube/objects/core.ts'
import type { EndpointSlice } from '../kube/objects/discovery.ts'
import { build } from './build.ts'
import { type Balanced, balance } from './load-balancer.ts'
import { emptyState, setObjects } from './state.ts'

const vip = '172.18.255.1' as Ip
const client = '203.0.113.1' as Ip

function node(number: number, change: { ready?: boolean; labels?: Record<string, string>; taint?: string } = {}): Node {
	return {
		apiVersion: 'v1',
		kind: 'Node',
		metadata: { name: `node-${number}`, ...(change.labels === undefined ? {} : { labels: change.labels }) },
		spec: { ...(change.taint === undefined ? {} : { taints: [{ key: change.taint, effect: 'NoSchedule' }] }) },
		status: {
			addresses: [{ type: 'InternalIP', address: `172.18.0.${number + 1}` }],
			conditions: [{ type: 'Ready', status: change.ready === false ? 'Unknown' : 'True' }],
		},
	}
}

function service(name: string, spec: Partial<NonNullable<Service['spec']>> = {}, annotations = {}): Service {
	return {
		apiVersion: 'v1',
		kind: 'Service',
		metadata: { namespace: 'default', name, annotations },
		spec: { type: 'LoadBalancer', clusterIP: '10.96.0.20', ports: [{ port: 80, nodePort: 30080 }], ...spec },
		status: { loadBalancer: { ingress: [{ ip: vip }] } },
	}
}

function slice(name: string, nodes: readonly string[]): EndpointSlice {
	return {
		apiVersion: 'discovery.k8s.io/v1',
		kind: 'EndpointSlice',
		metadata: { namespace: 'default', name, labels: { 'kubernetes.io/service-name': name } },
		addressType: 'IPv4',
		endpoints: nodes.map((nodeName, i) => ({ addresses: [`10.244.9.${i + 1}`], nodeName })),
		ports: [{ name: '', port: 8080, protocol: 'TCP' }],
	}
}

function model(...objects: readonly (Node | Service | EndpointSlice)[]) {
	return build(
		setObjects(
			emptyState(),
			objects.map((object) => ({ object })),
		),
	)
}

/** `forward node-1 node-2`, `announce node-1`, `drop`, `nobody`. */
function text(balanced: Balanced | undefined): string {
	if (balanced === undefined) return 'nobody'
	if (balanced.kind === 'forward') return ['forward', ...balanced.targets.map((t) => t.node)].join(' ')
	return balanced.kind === 'announce' ? `announce ${balanced.node}` : 'drop'
}

const three = [node(1), node(2), node(3)]
const local = { externalTrafficPolicy: 'Local' as const, healthCheckNodePort: 31000 }
const layer2 = { loadBalancerClass: 'podwire.dev/l2' }

for (const [what, objects, expected] of [
	['every ready node', [...three, service('web')], 'forward node-1 node-2 node-3'],
	['not one that is not ready', [node(1), node(2, { ready: false }), service('web')], 'forward node-1'],
	[
		'not one that is excluded by its label, whatever the value',
		[node(1, { labels: { 'node.kubernetes.io/exclude-from-external-load-balancers': '' } }), node(2), service('web')],
		'forward node-2',
	],
	[
		'not one that the autoscaler is about to delete',
		[node(1, { taint: 'ToBeDeletedByClusterAutoscaler' }), node(2), service('web')],
		'forward node-2',
	],
	[
		'policy Local: nodes with an endpoint',
		[...three, service('web', local), slice('web', ['node-2'])],
		'forward node-2',
	],
	['policy Local without endpoints: no target', [...three, service('web', local)], 'forward'],
	['a foreign class is not ours', [...three, service('web', { loadBalancerClass: 'example.com/lb' })], 'nobody'],
	['a port it does not have', [...three, service('web', { ports: [{ port: 81, nodePort: 30081 }] })], 'nobody'],
	[
		'another protocol',
		[...three, service('web', { ports: [{ port: 80, nodePort: 30080, protocol: 'UDP' }] })],
		'nobody',
	],
	['internal', [...three, service('web', {}, { 'podwire.dev/internal': 'true' })], 'nobody'],
	[
		'internal, as GKE says it',
		[...three, service('web', {}, { 'networking.gke.io/load-balancer-type': 'Internal' })],
		'nobody',
	],
	[
		'source ranges leave the client out',
		[...three, service('web', { loadBalancerSourceRanges: ['192.0.2.0/24'] })],
		'drop',
	],
	[
		'source ranges with the client',
		[node(1), service('web', { loadBalancerSourceRanges: ['203.0.113.0/24'] })],
		'forward node-1',
	],
	[
		'layer 2 with Local: the node with the endpoint',
		[...three, service('web', { ...layer2, ...local }), slice('web', ['node-3'])],
		'announce node-3',
	],
	['layer 2 with Local without endpoints', [...three, service('web', { ...layer2, ...local })], 'nobody'],
	['layer 2 without nodes', [node(1, { ready: false }), service('web', layer2)], 'nobody'],
	[
		'no node port: the packet goes to a node as it is',
		[node(1), service('web', { ports: [{ port: 80 }] })],
		'announce node-1',
	],
	[
		'a shared address: each port leads to its own',
		[node(1), service('other', { ports: [{ port: 81, nodePort: 30081 }] }), service('web')],
		'forward node-1',
	],
] as const) {
	test(`to a load balancer's address: ${what}`, () => {
		assert.equal(text(balance(model(...objects), vip, 'TCP', 80, client)), expected)
	})
}

test('the nodes keep their own network in an internal load balancer', () => {
	const built = model(...three, service('web', {}, { 'podwire.dev/internal': 'true' }))
	assert.equal(text(balance(built, vip, 'TCP', 80, client, 'nodes')), 'forward node-1 node-2 node-3')
})

test('an announced address moves only when it must, and addresses spread', () => {
	const addresses = Array.from({ length: 60 }, (_, i) => `172.18.255.${i + 1}`)
	const announcers = (nodes: readonly Node[]) =>
		addresses.map((ip) => {
			const object = { ...service('web', layer2), status: { loadBalancer: { ingress: [{ ip }] } } }
			const found = balance(model(...nodes, object), ip as Ip, 'TCP', 80)
			return found?.kind === 'announce' ? found.node : undefined
		})
	const before = announcers(three)
	for (const name of ['node-1', 'node-2', 'node-3']) {
		const share = before.filter((n) => n === name).length
		assert.ok(share >= 10 && share <= 30, `${name} has ${share} of 60`)
	}
	const after = announcers([node(1), node(2, { ready: false }), node(3)])
	for (const [i, was] of before.entries()) {
		if (was === 'node-2') assert.notEqual(after[i], 'node-2')
		else assert.equal(after[i], was)
	}
})

test('a port that two claim goes to the older one, as on the nodes', () => {
	const aged = (name: string, creationTimestamp: string, nodePort: number): Service => {
		const made = service(name, { ports: [{ port: 80, nodePort }] })
		return { ...made, metadata: { ...made.metadata, creationTimestamp } }
	}
	const older = aged('z', '2026-01-01T00:00:00Z', 30001)
	const younger = aged('a', '2026-01-02T00:00:00Z', 30002)
	const found = model(node(1), older, younger)
	const balanced = balance(found, vip, 'TCP', 80, client)
	assert.deepEqual(balanced?.kind === 'forward' && balanced.targets.map((t) => t.port), [30001])
	assert.equal(found.frontends.get(`${vip} TCP 80`), 'default/z')
})
