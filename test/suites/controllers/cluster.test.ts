// Endpoints, namespaces and nodes on an API server with the controllers.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
	configMaps,
	deployments,
	endpointSlices,
	endpoints,
	namespaces,
	nodes,
	pods,
	serviceAccounts,
	services,
} from '../../../src/kube/kinds.ts'
import type { EndpointSlice } from '../../../src/kube/objects/discovery.ts'
import { openWorld, selecting, template, type World } from './world.ts'

const timeout = 20_000

const ofService = (name: string) => (slice: EndpointSlice) =>
	slice.metadata.labels?.['kubernetes.io/service-name'] === name
const all = (slices: readonly EndpointSlice[], name: string) =>
	slices.filter(ofService(name)).flatMap((s) => s.endpoints ?? [])

async function shop(world: World, replicas: number): Promise<void> {
	await world.client.create(services, {
		metadata: { name: 'web', namespace: 'default' },
		spec: { selector: { app: 'web' }, ports: [{ name: 'http', port: 80, targetPort: 'http' }] },
	})
	await world.client.create(deployments, {
		metadata: { name: 'web', namespace: 'default' },
		spec: { replicas, selector: selecting('web'), template: template('web') },
	})
	await world.untilAll(endpointSlices, (s) => all(s, 'web').filter((e) => e.conditions?.ready).length === replicas)
}

test('endpoints follow readiness, termination and scale', { timeout }, async (t) => {
	const gate = Promise.withResolvers<void>()
	const world = await openWorld(t, { letGo: () => gate.promise })
	await shop(world, 3)
	const [pod] = (await world.client.list(pods)).items
	const ip = pod!.status!.podIP!
	const key = `default/${pod!.metadata.name}`
	const stateOf = (slices: readonly EndpointSlice[]) =>
		all(slices, 'web').find((e) => e.addresses[0] === ip)?.conditions
	await world.setReady(key, false)
	await world.untilAll(endpointSlices, (s) => stateOf(s)?.ready === false && stateOf(s)?.serving === false)
	await world.setReady(key, true)
	await world.untilAll(endpointSlices, (s) => stateOf(s)?.ready === true)
	await world.until(endpoints, 'default/web', (e) => e?.subsets?.[0]?.addresses?.length === 3)
	// Terminating, still serving, until the kubelet has ended it.
	await world.client.delete(pods, key)
	const dying = await world.untilAll(endpointSlices, (s) => stateOf(s)?.terminating && stateOf(s))
	assert.deepEqual(dying, { ready: false, serving: true, terminating: true })
	gate.resolve()
	await world.untilAll(endpointSlices, (s) => stateOf(s) === undefined && all(s, 'web').length === 3)
	const [slice] = (await world.client.list(endpointSlices)).items.filter(ofService('web'))
	assert.deepEqual(slice!.ports, [{ name: 'http', protocol: 'TCP', port: 8080 }])
	assert.equal(slice!.metadata.labels?.['endpointslice.kubernetes.io/managed-by'], 'endpointslice-controller.k8s.io')

	await world.client.patch(deployments, 'default/web', { spec: { replicas: 0 } })
	await world.untilAll(endpointSlices, (s) => all(s, 'web').length === 0)
	await world.client.delete(services, 'default/web')
	await world.untilAll(endpointSlices, (s) => !s.some(ofService('web')))
	await world.until(endpoints, 'default/web', (e) => e === undefined)
	await world.controllers.settled()
	assert.deepEqual(world.failures, [])
})

test('250 pods are three slices, and no slice is written without need', { timeout }, async (t) => {
	const world = await openWorld(t)
	await shop(world, 250)
	await world.controllers.settled()
	const before = (await world.client.list(endpointSlices)).items.filter(ofService('web'))
	const sizes = before.map((s) => s.endpoints!.length)
	assert.ok(sizes.length >= 3 && sizes.every((n) => n <= 100) && sizes.reduce((a, b) => a + b) === 250, `${sizes}`)
	const [pod] = (await world.client.list(pods)).items
	await world.setReady(`default/${pod!.metadata.name}`, false)
	await world.untilAll(endpointSlices, (s) => all(s, 'web').some((e) => e.conditions?.ready === false))
	await world.controllers.settled()
	const after = (await world.client.list(endpointSlices)).items.filter(ofService('web'))
	const versions = new Map(before.map((s) => [s.metadata.name, s.metadata.resourceVersion]))
	assert.equal(after.filter((s) => versions.get(s.metadata.name) !== s.metadata.resourceVersion).length, 1)
})

test('a namespace is furnished, and ends with all that is in it', { timeout }, async (t) => {
	const world = await openWorld(t)
	const { client } = world
	await client.create(namespaces, { metadata: { name: 'team' } })
	await world.until(serviceAccounts, 'team/default', (a) => a !== undefined)
	const map = await world.until(configMaps, 'team/kube-root-ca.crt', (m) => m)
	assert.deepEqual(map.data, { 'ca.crt': 'certificate' })
	// What is deleted comes back, what is changed is put right.
	await client.delete(serviceAccounts, 'team/default')
	await world.until(serviceAccounts, 'team/default', (a) => a !== undefined)
	await client.patch(configMaps, 'team/kube-root-ca.crt', { data: { 'ca.crt': 'forged' } })
	await world.until(configMaps, 'team/kube-root-ca.crt', (m) => m?.data?.['ca.crt'] === 'certificate')

	await client.create(deployments, {
		metadata: { name: 'web', namespace: 'team' },
		spec: { replicas: 3, selector: selecting('web'), template: template('web') },
	})
	await world.until(deployments, 'team/web', (d) => d?.status?.availableReplicas === 3)
	await client.create(configMaps, { metadata: { name: 'held', namespace: 'team', finalizers: ['example.com/hold'] } })
	await client.delete(namespaces, 'team')
	const waiting = await world.until(namespaces, 'team', (n) => {
		const c = n?.status?.conditions?.find((x) => x.type === 'NamespaceFinalizersRemaining')
		return c?.status === 'True' && c.message?.includes('example.com/hold') ? c.message : undefined
	})
	assert.equal(
		waiting,
		'Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances',
	)
	await client.patch(configMaps, 'team/held', { metadata: { finalizers: null } })
	await world.until(namespaces, 'team', (n) => n === undefined)
	assert.deepEqual((await client.list(pods, { namespace: 'team' })).items, [])
	await world.controllers.settled()
	assert.deepEqual(world.failures, [])
})

test('nodes get pod networks, one each', { timeout }, async (t) => {
	const world = await openWorld(t)
	await world.untilAll(nodes, (all) => all.every((n) => n.spec?.podCIDR !== undefined))
	await world.client.delete(nodes, 'node-2')
	await world.addNode('node-9')
	const node = await world.until(nodes, 'node-9', (n) => n?.spec?.podCIDR !== undefined && n)
	assert.deepEqual([node.spec?.podCIDR, node.spec?.podCIDRs], ['10.244.1.0/24', ['10.244.1.0/24']])
})

test('objects whose owner never existed are collected', { timeout }, async (t) => {
	const world = await openWorld(t)
	const owner = {
		apiVersion: 'apps/v1',
		kind: 'Deployment',
		name: 'never',
		uid: '0b5b6b3c-0000-4000-8000-000000000000',
	}
	await world.client.create(configMaps, { metadata: { name: 'lost', namespace: 'default', ownerReferences: [owner] } })
	await world.client.create(configMaps, {
		metadata: { name: 'kept', namespace: 'default', ownerReferences: [{ ...owner, kind: 'NoSuchKind' }] },
	})
	await world.until(configMaps, 'default/lost', (m) => m === undefined)
	await world.controllers.settled()
	assert.notEqual(await world.client.find(configMaps, 'default/kept'), undefined)
})

test('Endpoints of a Service without selector are mirrored', { timeout }, async (t) => {
	const world = await openWorld(t)
	const { client } = world
	await client.create(services, {
		metadata: { name: 'db', namespace: 'default' },
		spec: { ports: [{ port: 5432 }] },
	})
	const subsets = (ip: string) => [{ addresses: [{ ip }], ports: [{ port: 5432 }] }]
	await client.create(endpoints, { metadata: { name: 'db', namespace: 'default' }, subsets: subsets('192.0.2.1') })
	await world.untilAll(endpointSlices, (s) => all(s, 'db')[0]?.addresses[0] === '192.0.2.1')
	await client.patch(endpoints, 'default/db', { subsets: subsets('192.0.2.2') })
	await world.untilAll(endpointSlices, (s) => all(s, 'db')[0]?.addresses[0] === '192.0.2.2')
	const mirror = (await client.list(endpointSlices)).items.find(ofService('db'))!
	// Somebody else's hand in it is undone.
	await client.patch(endpointSlices, `default/${mirror.metadata.name}`, { endpoints: [] })
	await world.untilAll(endpointSlices, (s) => all(s, 'db')[0]?.addresses[0] === '192.0.2.2')
	await client.delete(services, 'default/db')
	await world.untilAll(endpointSlices, (s) => !s.some(ofService('db')))
	await world.controllers.settled()
	assert.deepEqual(world.failures, [])
})

test('topology aware routing: hints by the CPU of the zones, and none where a zone is not known', {
	timeout,
}, async (t) => {
	const world = await openWorld(t, { nodes: 0 })
	const { client } = world
	const conditions = [{ type: 'Ready', status: 'True' as const }]
	for (const [name, zone] of [
		['node-1', 'a'],
		['node-2', 'b'],
	] as const) {
		await world.addNode(name, { 'topology.kubernetes.io/zone': zone })
		const status = { conditions, allocatable: { cpu: '2', pods: '1000' } }
		await client.patch(nodes, name, { status }, { subresource: 'status' })
	}
	await client.patch(nodes, 'node-2', { spec: { unschedulable: true } })
	await shop(world, 4)
	await client.patch(services, 'default/web', {
		metadata: { annotations: { 'service.kubernetes.io/topology-mode': 'Auto' } },
	})
	const zonesOf = (slices: readonly EndpointSlice[]) =>
		all(slices, 'web')
			.map((e) => e.hints?.forZones?.map((z) => z.name).join() ?? '-')
			.sort()
			.join(' ')
	// All four run in zone a; zone b is meant to have its part of them.
	await world.untilAll(endpointSlices, (s) => zonesOf(s) === 'a a b b')
	await world.addNode('node-3')
	const status = { conditions, allocatable: { cpu: '2', pods: '1000' } }
	await client.patch(nodes, 'node-3', { status }, { subresource: 'status' })
	await world.untilAll(endpointSlices, (s) => zonesOf(s) === '- - - -')
	await world.controllers.settled()
	assert.deepEqual(world.failures, [])
})
