// Cases that chance seldom makes: a change that tells apart what was one class, names shared by two protocols, pods
// without an address, both families.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { disagreements } from '../../test/reach/oracle.ts'
import type { Ip } from '../base/ip.ts'
import type { KubeObject } from '../kube/objects/meta.ts'
import { build } from '../model/build.ts'
import { type ClusterState, emptyState, setObject } from '../model/state.ts'
import { connectionsText } from './connections.ts'
import { Reach } from './engine.ts'

function pod(
	name: string,
	ip: string | undefined,
	extra: { labels?: Record<string, string>; ports?: unknown[]; phase?: string } = {},
): KubeObject {
	return {
		apiVersion: 'v1',
		kind: 'Pod',
		metadata: { name, namespace: 'shop', labels: { app: 'web', ...extra.labels } },
		spec: { nodeName: 'node-1', containers: [{ name: 'c', ports: extra.ports ?? [] }] },
		status: {
			phase: extra.phase ?? 'Running',
			...(ip === undefined ? {} : { podIPs: ip.split(',').map((ip) => ({ ip })) }),
		},
	} as unknown as KubeObject
}

function policy(name: string, spec: object): KubeObject {
	return {
		apiVersion: 'networking.k8s.io/v1',
		kind: 'NetworkPolicy',
		metadata: { name, namespace: 'shop' },
		spec,
	} as unknown as KubeObject
}

function stateOf(...objects: readonly KubeObject[]): ClusterState {
	return objects.reduce((state, object) => setObject(state, object), emptyState())
}

/** Builds the first, follows to the second, and lays the answers beside `decide`. */
function follow(
	before: ClusterState,
	...more: readonly KubeObject[]
): { readonly reach: Reach; readonly rebuilt: boolean } {
	const model = build(before)
	const reach = new Reach({ model })
	const after = more.reduce((state, object) => setObject(state, object), before)
	const next = build(after, { state: before, model })
	const { rebuilt } = reach.update({ model: next })
	assert.deepEqual(disagreements(next, reach).wrong.slice(0, 3), [])
	return { reach, rebuilt }
}

test('a new block divides a class, and only that', () => {
	const before = stateOf(
		pod('a', '10.244.1.4'),
		pod('b', '10.244.1.200'),
		pod('c', '10.244.2.9', { labels: { app: 'db' } }),
	)
	const block = (cidr: string) =>
		policy('p', { podSelector: { matchLabels: { app: 'db' } }, ingress: [{ from: [{ ipBlock: { cidr } }] }] })
	const { reach: divided, rebuilt } = follow(before, block('10.244.1.0/25'))
	assert.equal(rebuilt, false)
	assert.notDeepEqual(divided.classesOf('shop/a'), divided.classesOf('shop/b'))
	assert.equal(divided.classes.length, 4, 'a, b, c, and nobody')
	assert.equal(follow(before, block('10.244.1.0/24')).rebuilt, false)
	// The pieces have other numbers then; a pod that comes later belongs to the class of its like.
	const { reach } = follow(before, block('10.244.1.0/24'), pod('d', '10.244.1.7'))
	assert.deepEqual(reach.classesOf('shop/d'), reach.classesOf('shop/a'))
})

test('what a block divided is one again without it, and its number is free', () => {
	let state = stateOf(
		...Array.from({ length: 8 }, (_, i) => pod(`a-${i}`, `10.244.1.${i + 8}`)),
		pod('c', '10.244.2.9', { labels: { app: 'db' } }),
	)
	let model = build(state)
	const reach = new Reach({ model })
	for (let i = 0; i < 8; i++) {
		const next = setObject(
			state,
			policy('p', {
				podSelector: { matchLabels: { app: 'db' } },
				ingress: [{ from: [{ ipBlock: { cidr: `10.244.1.${i + 8}/32` } }] }],
			}),
		)
		model = build(next, { state, model })
		state = next
		assert.equal(reach.update({ model }).rebuilt, false)
		assert.deepEqual(disagreements(model, reach).wrong.slice(0, 3), [])
	}
	assert.ok(reach.classes.length <= 5, `${reach.classes.length} classes`)
})

test('pods around a block that is new stay one class', () => {
	const { reach } = follow(
		stateOf(pod('a', '10.244.1.4'), pod('b', '10.244.1.5'), pod('c', '10.244.1.6')),
		policy('p', { podSelector: {}, ingress: [{ from: [{ ipBlock: { cidr: '10.244.1.5/32' } }] }] }),
	)
	assert.deepEqual(reach.classesOf('shop/a'), reach.classesOf('shop/c'))
	assert.notDeepEqual(reach.classesOf('shop/a'), reach.classesOf('shop/b'))
})

test('a label that tells replicas apart counts from when a policy names it', () => {
	const index = 'apps.kubernetes.io/pod-index'
	const before = stateOf(
		pod('a', '10.244.1.4', { labels: { [index]: '0' } }),
		pod('b', '10.244.1.5', { labels: { [index]: '1' } }),
	)
	const model = build(before)
	assert.equal(new Reach({ model }).classes.length, 2, 'one class, and nobody')
	const { reach, rebuilt } = follow(before, policy('p', { podSelector: { matchLabels: { [index]: '0' } } }))
	assert.equal(rebuilt, true)
	assert.notDeepEqual(reach.classesOf('shop/a'), reach.classesOf('shop/b'))
})

test('a port name means the port of its protocol', () => {
	const ports = [
		{ name: 'dns', containerPort: 53, protocol: 'UDP' },
		{ name: 'dns', containerPort: 5353, protocol: 'TCP' },
	]
	const state = stateOf(
		pod('a', '10.244.1.4', { ports }),
		pod('b', '10.244.1.5', { labels: { app: 'client' } }),
		policy('p', {
			podSelector: { matchLabels: { app: 'web' } },
			ingress: [{ ports: [{ port: 'dns', protocol: 'UDP' }] }],
		}),
	)
	const { reach } = follow(state)
	const [a, b] = [reach.classesOf('shop/a')[0]!, reach.classesOf('shop/b')[0]!]
	assert.equal(connectionsText(reach.pool.setOf(reach.between(b, a))), 'UDP 53')
})

test('families do not meet; a pod without an address is somewhere in the pod network', () => {
	const state = stateOf(
		pod('a', '10.244.1.4,fd00::4'),
		pod('b', '10.244.1.5', { labels: { app: 'client' } }),
		pod('c', undefined, { labels: { app: 'late' }, phase: 'Pending' }),
		policy('p', {
			podSelector: {},
			ingress: [{ from: [{ ipBlock: { cidr: '10.244.0.0/16' } }], ports: [{ port: 80 }] }],
		}),
	)
	const { reach } = follow(state)
	const [v4, v6] = reach.classesOf('shop/a') as [number, number]
	const [b] = reach.classesOf('shop/b') as [number]
	const [c] = reach.classesOf('shop/c') as [number]
	const text = (id: number) => connectionsText(reach.pool.setOf(id))
	assert.equal(text(reach.between(b, v4)), 'TCP 80')
	assert.equal(text(reach.between(b, v6)), 'none')
	assert.equal(text(reach.between(c, v4)), 'TCP 80')
	assert.equal(text(reach.withAddress('ingress', v6, 'fd00::9' as Ip)), 'none')
	assert.equal(text(reach.withAddress('ingress', v4, '192.0.2.1' as Ip)), 'none')
})

test('nobody of whom anything is known gets in by a rule for any pod only', () => {
	const rule = (from: object) =>
		policy('p', { podSelector: { matchLabels: { app: 'web' } }, ingress: [{ from: [from], ports: [{ port: 80 }] }] })
	const text = (from: object) => {
		const { reach } = follow(stateOf(pod('a', '10.244.1.4'), rule(from)))
		return connectionsText(reach.pool.setOf(reach.ingress(reach.classesOf('shop/a')[0]!, 0)))
	}
	assert.equal(text({ namespaceSelector: {} }), 'TCP 80')
	assert.equal(text({ ipBlock: { cidr: '0.0.0.0/0' } }), 'TCP 80')
	assert.equal(text({ podSelector: {} }), 'none')
	assert.equal(text({ namespaceSelector: {}, podSelector: { matchLabels: { app: 'x' } } }), 'none')
	assert.equal(text({ ipBlock: { cidr: '0.0.0.0/0', except: ['10.0.0.0/8'] } }), 'none')
	assert.equal(text({ namespaceSelector: { matchExpressions: [{ key: 'x', operator: 'DoesNotExist' }] } }), 'none')
})

test('a node that gets a label is another peer', () => {
	const node = (labels: Record<string, string>) =>
		({
			apiVersion: 'v1',
			kind: 'Node',
			metadata: { name: 'node-2', labels },
			spec: {},
			status: { addresses: [{ type: 'InternalIP', address: '172.18.0.3' }] },
		}) as unknown as KubeObject
	const tier = {
		apiVersion: 'policy.networking.k8s.io/v1alpha2',
		kind: 'ClusterNetworkPolicy',
		metadata: { name: 't' },
		spec: {
			tier: 'Admin',
			priority: 1,
			subject: { namespaces: {} },
			egress: [{ action: 'Deny', to: [{ nodes: { matchLabels: { pool: 'a' } } }] }],
		},
	} as unknown as KubeObject
	const before = stateOf(pod('a', '10.244.1.4'), node({}), tier)
	const text = (reach: Reach) =>
		connectionsText(reach.pool.setOf(reach.withAddress('egress', reach.classesOf('shop/a')[0]!, '172.18.0.3' as Ip)))
	assert.equal(text(follow(before).reach), 'all')
	assert.equal(text(follow(before, node({ pool: 'a' })).reach), 'none')
})
