// Addresses of load balancers on an API server with the controllers: given, kept, shared, taken back.

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { type Cidr, parseCidr } from '../../../src/base/ip.ts'
import type { AddressPool } from '../../../src/controllers/main.ts'
import { events, nodes, services } from '../../../src/kube/kinds.ts'
import type { Service, ServiceSpec } from '../../../src/kube/objects/core.ts'
import { openWorld, type World } from './world.ts'

const timeout = 20_000
const cleanup = 'service.kubernetes.io/load-balancer-cleanup'
const sharing = { 'podwire.dev/allow-shared-ip': 'one' }

function pool(name: string, cidrs: readonly string[], autoAssign = true): AddressPool {
	return { name, cidrs: cidrs.map((text): Cidr => parseCidr(text)), autoAssign }
}

function open(t: TestContext, ...pools: readonly AddressPool[]): Promise<World> {
	return openWorld(t, { nodes: 2, addressPools: () => pools })
}

async function create(
	world: World,
	name: string,
	spec: Partial<ServiceSpec> = {},
	annotations: Record<string, string> = {},
): Promise<Service> {
	await world.client.create(services, {
		metadata: { name, namespace: 'default', annotations },
		spec: { type: 'LoadBalancer', ports: [{ port: 80 }], ...spec },
	})
	await world.controllers.settled()
	return world.client.get(services, `default/${name}`)
}

const ips = (service: Service) => (service.status?.loadBalancer?.ingress ?? []).map((i) => i.ip)
const get = (world: World, name: string) => world.client.get(services, `default/${name}`)
const patch = (world: World, name: string, change: unknown) => world.client.patch(services, `default/${name}`, change)
/** The events of the Service, once one of them matches. */
function eventsOf(world: World, name: string, match: RegExp): Promise<readonly string[]> {
	return world.untilAll(events, (all) => {
		const texts = all.filter((e) => e.involvedObject.name === name).map((e) => `${e.type} ${e.reason}: ${e.message}`)
		return texts.some((text) => match.test(text)) && texts.sort()
	})
}

test('given with finalizer and events, taken back with the Service', { timeout }, async (t) => {
	const world = await open(t, pool('default', ['172.18.255.0/30']))
	const service = await create(world, 'web')
	assert.deepEqual(service.status?.loadBalancer?.ingress, [{ ip: '172.18.255.1', ipMode: 'VIP' }])
	assert.deepEqual(service.metadata.finalizers, [cleanup])
	assert.deepEqual(await eventsOf(world, 'web', /EnsuredLoadBalancer/), [
		'Normal EnsuredLoadBalancer: Ensured load balancer',
		'Normal EnsuringLoadBalancer: Ensuring load balancer',
	])
	// The first and last address of the network are nobody's.
	assert.deepEqual(ips(await create(world, 'second')), ['172.18.255.2'])
	assert.deepEqual(ips(await create(world, 'third')), [])
	const pending = await eventsOf(world, 'third', /SyncLoadBalancerFailed/)
	assert.match(
		pending.join('\n'),
		/Warning SyncLoadBalancerFailed: Error syncing load balancer: failed to ensure load balancer: no IPv4 address is free in "default" \(172\.18\.255\.0\/30\)/,
	)
	await world.client.delete(services, 'default/web')
	await world.until(services, 'default/web', (s) => s === undefined)
	await world.until(services, 'default/third', (s) => s !== undefined && ips(s)[0] === '172.18.255.1')
	await eventsOf(world, 'web', /Normal DeletedLoadBalancer: Deleted load balancer/)
	assert.deepEqual(world.failures, [])
})

test('kept over a restart, given up with the type', { timeout }, async (t) => {
	const world = await open(t, pool('default', ['172.18.255.0/24']))
	await create(world, 'a')
	const before = await create(world, 'b')
	await world.client.delete(services, 'default/a')
	await world.restart()
	await world.controllers.settled()
	const after = await get(world, 'b')
	assert.equal(after.metadata.resourceVersion, before.metadata.resourceVersion)
	await patch(world, 'b', { spec: { type: 'ClusterIP' } })
	await world.controllers.settled()
	const plain = await get(world, 'b')
	assert.deepEqual(ips(plain), [])
	assert.deepEqual(plain.metadata.finalizers ?? [], [])
	assert.deepEqual(ips(await create(world, 'c')), ['172.18.255.1'])
})

test('an address asked for: by field, by annotation, from a named pool', { timeout }, async (t) => {
	const world = await open(t, pool('default', ['172.18.255.0/24']), pool('reserved', ['172.18.254.0/28'], false))
	assert.deepEqual(ips(await create(world, 'field', { loadBalancerIP: '172.18.255.77' })), ['172.18.255.77'])
	const annotated = await create(world, 'annotated', {}, { 'podwire.dev/load-balancer-ips': '172.18.254.5' })
	assert.deepEqual(ips(annotated), ['172.18.254.5'])
	const named = await create(world, 'named', {}, { 'podwire.dev/address-pool': 'reserved' })
	assert.deepEqual(ips(named), ['172.18.254.1'])
	for (const [name, spec, annotations, why] of [
		[
			'taken',
			{ loadBalancerIP: '172.18.255.77' },
			{},
			/Service "default\/field" has 172\.18\.255\.77: they do not both/,
		],
		['foreign', { loadBalancerIP: '192.0.2.1' }, {}, /192\.0\.2\.1 is in no address pool; the pools are "default"/],
		['nonsense', {}, { 'podwire.dev/load-balancer-ips': 'x' }, /is "x", which is no IP address/],
		['family', { loadBalancerIP: 'fd00::1' }, {}, /the Service has no such IP family/],
		['nowhere', {}, { 'podwire.dev/address-pool': 'x' }, /there is no address pool "x"; there are "default"/],
	] as const) {
		assert.deepEqual(ips(await create(world, name, spec, annotations)), [], name)
		assert.match((await eventsOf(world, name, /SyncLoadBalancerFailed/)).join('\n'), why)
	}
	// Changed, it follows.
	await patch(world, 'taken', { spec: { loadBalancerIP: '172.18.255.78' } })
	await world.controllers.settled()
	assert.deepEqual(ips(await get(world, 'taken')), ['172.18.255.78'])
})

test('classes: ours, and those of others, which are not touched', { timeout }, async (t) => {
	const world = await open(t, pool('default', ['172.18.255.0/24']))
	assert.deepEqual(ips(await create(world, 'l2', { loadBalancerClass: 'podwire.dev/l2' })), ['172.18.255.1'])
	const foreign = await create(world, 'foreign', { loadBalancerClass: 'example.com/lb' })
	assert.deepEqual([ips(foreign), foreign.metadata.finalizers], [[], undefined])
	// Its own controller gives it an address of ours: then it is taken.
	const status = { loadBalancer: { ingress: [{ ip: '172.18.255.2' }] } }
	await world.client.patch(services, 'default/foreign', { status }, { subresource: 'status' })
	assert.deepEqual(ips(await create(world, 'third')), ['172.18.255.3'])
	assert.deepEqual(ips(await get(world, 'foreign')), ['172.18.255.2'])
})

test('one address for several Services that ask for it', { timeout }, async (t) => {
	const world = await open(t, pool('default', ['172.18.255.0/24']))
	const first = ips(await create(world, 'a', {}, sharing))
	assert.deepEqual(ips(await create(world, 'b', { ports: [{ port: 81 }] }, sharing)), first)
	assert.deepEqual(ips(await create(world, 'udp', { ports: [{ port: 80, protocol: 'UDP' }] }, sharing)), first)
	assert.notDeepEqual(ips(await create(world, 'same-port', {}, sharing)), first)
	const announced = await create(world, 'l2', { ports: [{ port: 82 }], loadBalancerClass: 'podwire.dev/l2' }, sharing)
	assert.notDeepEqual(ips(announced), first)
	// The one that changes its mind goes; the others stay.
	await patch(world, 'b', { metadata: { annotations: { 'podwire.dev/allow-shared-ip': null } } })
	await world.until(services, 'default/b', (s) => s !== undefined && ips(s).length === 1 && ips(s)[0] !== first[0])
	assert.deepEqual(ips(await get(world, 'a')), first)
	// Two come to have the same port: the older one stays.
	await patch(world, 'udp', { spec: { ports: [{ port: 80, protocol: 'TCP', targetPort: 80 }] } })
	await world.until(services, 'default/udp', (s) => s !== undefined && ips(s).length === 1 && ips(s)[0] !== first[0])
	assert.deepEqual(ips(await get(world, 'a')), first)
})

test('what the status says of its addresses follows the annotation', { timeout }, async (t) => {
	const world = await open(t, pool('default', ['172.18.255.0/24']))
	const service = await create(world, 'web', {}, { 'podwire.dev/ip-mode': 'Proxy' })
	assert.deepEqual(service.status?.loadBalancer?.ingress, [{ ip: '172.18.255.1', ipMode: 'Proxy' }])
	await patch(world, 'web', { metadata: { annotations: { 'podwire.dev/ip-mode': null } } })
	await world.controllers.settled()
	assert.equal((await get(world, 'web')).status?.loadBalancer?.ingress?.[0]?.ipMode, 'VIP')
})

test('nodes that come, go or are excluded are told of', { timeout }, async (t) => {
	const world = await open(t, pool('default', ['172.18.255.0/24']))
	await create(world, 'web')
	const label = 'node.kubernetes.io/exclude-from-external-load-balancers'
	await world.client.patch(nodes, 'node-1', { metadata: { labels: { [label]: 'true' } } })
	await eventsOf(world, 'web', /Normal UpdatedLoadBalancer: Updated load balancer with new hosts/)
	await world.client.patch(nodes, 'node-2', { metadata: { labels: { [label]: 'true' } } })
	await eventsOf(world, 'web', /Warning UnAvailableLoadBalancer: There are no available nodes for LoadBalancer/)
	assert.deepEqual(world.failures, [])
})

test('dual stack: an address of each family from whichever pool has it', { timeout }, async (t) => {
	const world = await open(t, pool('four', ['172.18.255.0/24']), pool('six', ['fd00:18::ff00/120']))
	const families = await create(world, 'both', { ipFamilyPolicy: 'PreferDualStack' })
	const want = families.spec?.ipFamilies?.length === 2 ? ['172.18.255.1', 'fd00:18::ff01'] : ['172.18.255.1']
	assert.deepEqual(ips(families), want)
})
