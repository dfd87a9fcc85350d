// IPAddress and ServiceCIDR objects, and Services' status, through a whole server.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from '../../base/clock.ts'
import { type Cidr, parseCidr } from '../../base/ip.ts'
import { createKubeClient } from '../../kube/client.ts'
import { ipAddresses, serviceCidrs, services } from '../../kube/kinds.ts'
import { createApiServer } from '../server.ts'
import { createStore } from '../store.ts'

async function cluster(cidr = '10.96.0.0/28') {
	const store = createStore()
	const faults: unknown[] = []
	const server = await createApiServer({
		store,
		clock: systemClock,
		serviceCidrs: [parseCidr(cidr) as Cidr],
		random: () => 0,
		onFault: (e) => faults.push(e),
	})
	const client = createKubeClient(server.transport, { fieldManager: 'test' })
	const web = { selector: { app: 'web' }, ports: [{ port: 80, protocol: 'TCP' as const }] }
	return {
		client,
		faults,
		close: () => server.close(),
		make: (name: string, spec: object = {}) =>
			client.create(services, { metadata: { name, namespace: 'default' }, spec: { ...web, ...spec } } as never),
		addresses: async () =>
			(await client.list(ipAddresses)).items
				.map(({ metadata, spec }) => `${metadata.name} ${spec?.parentRef?.namespace}/${spec?.parentRef?.name}`)
				.sort(),
		/** Until what the store's subscribers wrote is kept. */
		settle: () => store.settled().then(() => store.settled()),
	}
}

test('an address object for each address, gone with it, back when someone deletes it', async () => {
	const c = await cluster()
	const a = await c.make('a')
	await c.settle()
	const want = ['10.96.0.1 default/kubernetes', `${a.spec?.clusterIP} default/a`]
	assert.deepEqual(await c.addresses(), want)
	const object = await c.client.get(ipAddresses, a.spec!.clusterIP!)
	assert.deepEqual(object?.metadata.labels, {
		'ipaddress.kubernetes.io/ip-family': 'IPv4',
		'ipaddress.kubernetes.io/managed-by': 'ipallocator.k8s.io',
	})
	await c.client.delete(ipAddresses, a.spec!.clusterIP!)
	await c.settle()
	assert.deepEqual(await c.addresses(), want)
	await c.client.delete(services, 'default/a')
	await c.settle()
	assert.deepEqual(await c.addresses(), want.slice(0, 1))
	assert.deepEqual(c.faults, [])
	c.close()
})

test('an address object made by hand holds its address', async () => {
	const c = await cluster()
	await c.client.create(ipAddresses, {
		metadata: { name: '10.96.0.2' },
		spec: { parentRef: { group: 'example.com', resource: 'things', name: 'x' } },
	} as never)
	assert.equal((await c.make('a')).spec?.clusterIP, '10.96.0.3')
	await assert.rejects(c.make('b', { clusterIP: '10.96.0.2' }), /provided IP is already allocated/)
	c.close()
})

test('a ServiceCIDR more is addresses more; it goes when none of its addresses is used', async () => {
	const c = await cluster()
	for (let i = 0; i < 13; i++) await c.make(`s${i}`)
	await assert.rejects(c.make('more'), /range 10.96.0.0\/28 is full/)
	await c.client.create(serviceCidrs, { metadata: { name: 'more' }, spec: { cidrs: ['10.97.0.0/28'] } } as never)
	await c.settle()
	const ready = await c.client.get(serviceCidrs, 'more')
	assert.deepEqual(ready?.metadata.finalizers, ['networking.k8s.io/service-cidr-finalizer'])
	assert.deepEqual(ready?.status?.conditions?.[0]?.status, 'True')
	assert.equal((await c.make('more')).spec?.clusterIP, '10.97.0.1')
	await c.settle()
	await c.client.delete(serviceCidrs, 'more')
	await c.settle()
	const leaving = await c.client.get(serviceCidrs, 'more')
	assert.deepEqual(leaving?.status?.conditions?.[0]?.reason, 'Terminating')
	await assert.rejects(c.make('again'), /is full/)
	await c.client.delete(services, 'default/more')
	await c.settle()
	await c.settle()
	assert.deepEqual(
		(await c.client.list(serviceCidrs)).items.map((o) => o.metadata.name),
		['kubernetes'],
	)
	assert.deepEqual(c.faults, [])
	c.close()
})

test('what a load balancer may say of itself', async () => {
	const c = await cluster()
	await c.make('plain')
	await c.make('lb', { type: 'LoadBalancer' })
	const say = (name: string, ...ingress: object[]) =>
		c.client.patch(services, `default/${name}`, { status: { loadBalancer: { ingress } } }, { subresource: 'status' })
	for (const [name, point, why] of [
		['plain', { ip: '192.0.2.1' }, /status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is/],
		['lb', { ip: '192.0.2' }, /ingress\[0\].ip: Invalid value: "192.0.2"/],
		['lb', { hostname: '192.0.2.1' }, /ingress\[0\].hostname: Invalid value: "192.0.2.1": must be a DNS name/],
		['lb', { hostname: 'a.test', ipMode: 'VIP' }, /ipMode: Forbidden: may not be specified when `ip` is not set/],
		['lb', { ip: '192.0.2.1', ipMode: 'vip' }, /ipMode: Unsupported value: "vip": supported values: "Proxy", "VIP"/],
	] as const) {
		await assert.rejects(say(name, point), why)
	}
	const lb = await say('lb', { ip: '192.0.2.1' }, { ip: '192.0.2.2', ipMode: 'Proxy' }, { hostname: 'a.test' })
	assert.deepEqual(lb.status?.loadBalancer?.ingress, [
		{ ip: '192.0.2.1', ipMode: 'VIP' },
		{ ip: '192.0.2.2', ipMode: 'Proxy' },
		{ hostname: 'a.test' },
	])
	c.close()
})
