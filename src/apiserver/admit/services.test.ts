import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Cidr, parseCidr } from '../../base/ip.ts'
import type { UnknownObject } from '../../kube/objects/meta.ts'
import type { JsonObject } from '../../kube/schema/json.ts'
import { createRegistry } from '../registry.ts'
import { createStore } from '../store.ts'
import { createServiceAllocator } from './services.ts'

const served = createRegistry().find('', 'v1', 'services')!

/** A cluster that keeps what it allocates. `random` 0 takes the first free place. */
function cluster(options: { cidrs?: string[]; ports?: { from: number; to: number }; random?: () => number } = {}) {
	const store = createStore()
	const allocator = createServiceAllocator(store, {
		serviceCidrs: (options.cidrs ?? ['10.96.0.0/16']).map((c): Cidr => parseCidr(c)),
		nodePorts: options.ports ?? { from: 30000, to: 32767 },
		random: options.random ?? (() => 0),
	})
	return {
		store,
		async write(name: string, spec: object): Promise<JsonObject> {
			const key = `default/${name}`
			const before = store.current('services', key)
			const object = {
				kind: 'Service',
				apiVersion: 'v1',
				metadata: { name, namespace: 'default' },
				spec,
			} as unknown as UnknownObject
			const next = allocator.allocate(served, object, before?.object)
			await store.put('services', key, next, before).kept
			return next.spec as JsonObject
		},
		async delete(name: string) {
			await store.remove(store.get('services', `default/${name}`)!).kept
		},
	}
}

const port = (more: object = {}) => ({ port: 80, protocol: 'TCP', ...more })
const web = { type: 'ClusterIP', selector: { app: 'web' }, ports: [port()] }

describe('cluster addresses', () => {
	// The static band of a /16 is 256 addresses (KEP-3070), of a /24 16, of a /28 none.
	for (const [cidr, first] of [
		['10.96.0.0/16', '10.96.1.1'],
		['10.96.0.0/20', '10.96.1.1'],
		['10.96.0.0/24', '10.96.0.17'],
		['10.96.0.0/28', '10.96.0.1'],
		['fd00::/112', 'fd00::101'],
	] as const) {
		test(`of ${cidr} are given out from ${first} on`, async () => {
			const c = cluster({ cidrs: [cidr] })
			assert.deepEqual((await c.write('a', web)).clusterIPs, [first])
		})
	}

	test('the static band is used when the rest is full; then none is left', async () => {
		const c = cluster({ cidrs: ['10.0.0.0/27'] })
		const ips: unknown[] = []
		for (let i = 0; i < 30; i++) ips.push((await c.write(`s${i}`, web)).clusterIP)
		assert.equal(new Set(ips).size, 30)
		assert.deepEqual(ips.slice(0, 2), ['10.0.0.17', '10.0.0.18'])
		assert.deepEqual(ips.slice(14, 16), ['10.0.0.1', '10.0.0.2'])
		await assert.rejects(c.write('more', web), /spec.clusterIPs: .*range 10.0.0.0\/27 is full/)
		await c.delete('s3')
		assert.equal((await c.write('more', web)).clusterIP, ips[3])
	})

	test('asked for by name: free, taken, outside, network and broadcast, not an address', async () => {
		const c = cluster()
		assert.equal((await c.write('dns', { ...web, clusterIP: '10.96.0.10' })).clusterIP, '10.96.0.10')
		for (const [clusterIP, text] of [
			['10.96.0.10', /failed to allocate IP 10.96.0.10: provided IP is already allocated/],
			['10.97.0.1', /the provided IP \(10.97.0.1\) is not in the valid range. The range of valid IPs is 10.96.0.0\/16/],
			['10.96.0.0', /not in the valid range/],
			['10.96.255.255', /not in the valid range/],
			['10.96.0.010', /must be a valid IP address/],
			['fd00::1', /not configured on this cluster/],
		] as const) {
			await assert.rejects(c.write('x', { ...web, clusterIP }), text)
		}
		// Refused ones hold nothing.
		assert.equal((await c.write('x', { ...web, clusterIP: '10.96.0.11' })).clusterIP, '10.96.0.11')
	})

	test('two in one turn never get the same', async () => {
		const c = cluster({ cidrs: ['10.0.0.0/24'] })
		const specs = await Promise.all(Array.from({ length: 50 }, (_, i) => c.write(`s${i}`, web)))
		assert.equal(new Set(specs.map((s) => s.clusterIP)).size, 50)
	})

	test('an update keeps the address, whether it names it or not, and may not change it', async () => {
		const c = cluster()
		const { clusterIP } = await c.write('a', web)
		assert.equal((await c.write('a', { ...web, ports: [port({ port: 81 })] })).clusterIP, clusterIP)
		assert.equal((await c.write('a', { ...web, clusterIP, clusterIPs: [clusterIP] })).clusterIP, clusterIP)
		await assert.rejects(
			c.write('a', { ...web, clusterIP: '10.96.7.7' }),
			/spec.clusterIPs\[0\]: .*may not change once set/,
		)
		await assert.rejects(c.write('a', { ...web, clusterIP: 'None' }), /may not change once set/)
	})

	test('ExternalName gives it back and gets a new one when it is a ClusterIP again', async () => {
		const c = cluster()
		const { clusterIP } = await c.write('a', web)
		const external = await c.write('a', { type: 'ExternalName', externalName: 'x.test', clusterIP })
		assert.equal(external.clusterIP, undefined)
		assert.equal((await c.write('b', { ...web, clusterIP })).clusterIP, clusterIP)
		assert.notEqual((await c.write('a', web)).clusterIP, clusterIP)
	})

	test('headless has none; without a selector its families are both', async () => {
		const c = cluster()
		const some = await c.write('a', { ...web, clusterIP: 'None' })
		assert.deepEqual([some.clusterIPs, some.ipFamilies, some.ipFamilyPolicy], [['None'], ['IPv4'], 'SingleStack'])
		const bare = await c.write('b', { type: 'ClusterIP', clusterIP: 'None', ports: [port()] })
		assert.deepEqual([bare.ipFamilies, bare.ipFamilyPolicy], [['IPv4', 'IPv6'], 'RequireDualStack'])
	})
})

describe('dual stack', () => {
	const two = { cidrs: ['10.96.0.0/16', 'fd00::/112'] }
	test('one or two addresses by policy and families', async () => {
		const c = cluster(two)
		const of = async (name: string, more: object) => {
			const spec = await c.write(name, { ...web, ...more })
			return [spec.ipFamilies, (spec.clusterIPs as string[]).length, spec.ipFamilyPolicy]
		}
		assert.deepEqual(await of('a', {}), [['IPv4'], 1, 'SingleStack'])
		assert.deepEqual(await of('b', { ipFamilyPolicy: 'PreferDualStack' }), [['IPv4', 'IPv6'], 2, 'PreferDualStack'])
		assert.deepEqual(await of('c', { ipFamilyPolicy: 'RequireDualStack', ipFamilies: ['IPv6'] }), [
			['IPv6', 'IPv4'],
			2,
			'RequireDualStack',
		])
		assert.deepEqual(await of('d', { ipFamilies: ['IPv6'] }), [['IPv6'], 1, 'SingleStack'])
		assert.deepEqual(await of('e', { clusterIPs: ['fd00::5'], clusterIP: 'fd00::5' }), [['IPv6'], 1, 'SingleStack'])
		assert.deepEqual(await of('a', { ipFamilyPolicy: 'PreferDualStack' }), [['IPv4', 'IPv6'], 2, 'PreferDualStack'])
		await assert.rejects(c.write('x', { ...web, ipFamilies: ['IPv4', 'IPv4'] }), /Duplicate value: "IPv4"/)
		for (const more of [{ ipFamilyPolicy: 'SingleStack' }, {}]) {
			await assert.rejects(
				c.write('x', { ...web, ...more, ipFamilies: ['IPv4', 'IPv6'] }),
				/spec.ipFamilyPolicy: .*when multiple IP families are specified/,
			)
		}
		await assert.rejects(
			c.write('x', { ...web, clusterIP: '10.96.0.9', clusterIPs: ['10.96.0.9', 'fd00::9'] }),
			/when multiple cluster IPs are specified/,
		)
		await assert.rejects(c.write('x', { ...web, clusterIPs: ['10.96.0.9'] }), /must be empty when `clusterIP`/)
	})
	test('the second family goes when SingleStack is said, and only then', async () => {
		const c = cluster(two)
		const both = await c.write('a', { ...web, ipFamilyPolicy: 'PreferDualStack' })
		const [v4, v6] = both.clusterIPs as string[]
		// A client that says nothing changes nothing.
		assert.deepEqual((await c.write('a', { ...web, ipFamilyPolicy: 'PreferDualStack' })).clusterIPs, [v4, v6])
		await assert.rejects(c.write('a', { ...both, clusterIPs: [v4] }), /must be 'SingleStack' to release the secondary/)
		await assert.rejects(
			c.write('a', { ...both, ipFamilies: ['IPv4'] }),
			/must be 'SingleStack' to release the secondary IP family/,
		)
		const one = await c.write('a', { ...both, ipFamilyPolicy: 'SingleStack' })
		assert.deepEqual([one.clusterIPs, one.ipFamilies], [[v4], ['IPv4']])
		assert.deepEqual(
			(await c.write('b', { ...web, clusterIP: v6, clusterIPs: [v6], ipFamilies: ['IPv6'] })).clusterIPs,
			[v6],
		)
		const again = await c.write('a', { ...one, ipFamilyPolicy: 'RequireDualStack' })
		assert.deepEqual((again.clusterIPs as string[]).length, 2)
	})
	test('prefer is content with one family, require is not', async () => {
		const c = cluster()
		assert.deepEqual((await c.write('a', { ...web, ipFamilyPolicy: 'PreferDualStack' })).ipFamilies, ['IPv4'])
		await assert.rejects(c.write('b', { ...web, ipFamilyPolicy: 'RequireDualStack' }), /not configured for dual-stack/)
	})
})

describe('node ports', () => {
	const node = (...ports: object[]) => ({ ...web, type: 'NodePort', ports })
	const nodePorts = (spec: JsonObject) => (spec.ports as { nodePort?: number }[]).map((p) => p.nodePort)

	test('are given out above the band, kept by updates, given back', async () => {
		const c = cluster()
		assert.deepEqual(
			nodePorts(await c.write('a', node(port({ name: 'a' }), port({ name: 'b', port: 81 })))),
			[30086, 30087],
		)
		assert.deepEqual(
			nodePorts(await c.write('a', node(port({ name: 'b', port: 81 }), port({ name: 'c', port: 82 })))),
			[30087, 30088],
		)
		assert.deepEqual(nodePorts(await c.write('a', web)), [undefined])
		assert.deepEqual(nodePorts(await c.write('b', node(port({ nodePort: 30087 })))), [30087])
	})

	test('asked for by number: free, taken, outside, twice', async () => {
		const c = cluster()
		assert.deepEqual(nodePorts(await c.write('a', node(port({ nodePort: 30001 })))), [30001])
		await assert.rejects(
			c.write('b', node(port({ nodePort: 30001 }))),
			/spec.ports\[0\].nodePort: .*provided port is already allocated/,
		)
		await assert.rejects(c.write('b', node(port({ nodePort: 80 }))), /The range of valid ports is 30000-32767/)
		const twice = node(port({ nodePort: 30002 }), port({ port: 81, nodePort: 30002 }))
		await assert.rejects(c.write('b', twice), /spec.ports\[1\].nodePort: Duplicate value: 30002/)
	})

	test('a range of its own, the band of a small one, and none of the smallest', async () => {
		for (const [from, to, first] of [
			[30000, 32767, 30086],
			[40000, 40099, 40016],
			[40000, 40015, 40000],
			[20000, 40000, 20128],
		] as const) {
			const c = cluster({ ports: { from, to } })
			assert.deepEqual(nodePorts(await c.write('a', node(port()))), [first])
			await assert.rejects(c.write('b', node(port({ nodePort: to + 1 }))), new RegExp(`valid ports is ${from}-${to}`))
		}
	})

	test('a port keeps its node port by its name, whatever else of it changes', async () => {
		const c = cluster()
		const [a] = nodePorts(await c.write('a', node(port({ name: 'web' }))))
		assert.deepEqual(nodePorts(await c.write('a', node(port({ name: 'web', port: 8080, protocol: 'UDP' })))), [a])
		assert.notDeepEqual(nodePorts(await c.write('a', node(port({ name: 'other' })))), [a])
	})

	test('one number for both protocols of a port', async () => {
		const c = cluster()
		const dns = node({ name: 'tcp', port: 53, protocol: 'TCP' }, { name: 'udp', port: 53, protocol: 'UDP' })
		const [tcp, udp] = nodePorts(await c.write('dns', dns))
		assert.equal(tcp, udp)
	})

	test('a load balancer may do without; its health check has one', async () => {
		const c = cluster()
		const balancer = { ...web, type: 'LoadBalancer' }
		assert.deepEqual(nodePorts(await c.write('a', { ...balancer, allocateLoadBalancerNodePorts: false })), [undefined])
		const local = await c.write('b', { ...balancer, externalTrafficPolicy: 'Local' })
		assert.ok((local.healthCheckNodePort as number) >= 30000)
		assert.notEqual(local.healthCheckNodePort, nodePorts(local)[0])
		assert.equal((await c.write('b', { ...balancer, externalTrafficPolicy: 'Cluster' })).healthCheckNodePort, undefined)
	})

	test('the port of a health check is the load balancer’s that has local traffic, and stays', async () => {
		const c = cluster()
		const local = { ...web, type: 'LoadBalancer', externalTrafficPolicy: 'Local' }
		const had = (await c.write('a', local)).healthCheckNodePort
		assert.equal((await c.write('a', local)).healthCheckNodePort, had)
		await assert.rejects(
			c.write('a', { ...local, healthCheckNodePort: 30001 }),
			/spec.healthCheckNodePort: .*cannot change healthCheckNodePort/,
		)
		assert.equal((await c.write('b', { ...local, healthCheckNodePort: 30002 })).healthCheckNodePort, 30002)
		await assert.rejects(c.write('d', { ...local, healthCheckNodePort: 30002 }), /already allocated/)
	})

	test('what a new type has no use for goes, if the client left it as it was', async () => {
		const c = cluster()
		const balancer = await c.write('a', {
			...web,
			type: 'LoadBalancer',
			externalTrafficPolicy: 'Local',
			allocateLoadBalancerNodePorts: true,
			loadBalancerClass: 'example.com/a',
		})
		const cluster1 = await c.write('a', { ...balancer, type: 'ClusterIP' })
		for (const field of [
			'externalTrafficPolicy',
			'allocateLoadBalancerNodePorts',
			'loadBalancerClass',
			'healthCheckNodePort',
		])
			assert.equal(cluster1[field], undefined, field)
		assert.deepEqual(nodePorts(cluster1), [undefined])
		assert.equal(cluster1.clusterIP, balancer.clusterIP)
		const external = await c.write('a', { ...cluster1, type: 'ExternalName', externalName: 'a.test' })
		for (const field of ['clusterIP', 'clusterIPs', 'ipFamilies', 'ipFamilyPolicy'])
			assert.equal(external[field], undefined, field)
	})

	test('a full range is said to be full', async () => {
		const c = cluster({ ports: { from: 30000, to: 30002 } })
		for (const name of ['a', 'b', 'c']) await c.write(name, node(port()))
		await assert.rejects(c.write('d', node(port())), /all of 30000-30002 are taken/)
	})
})
