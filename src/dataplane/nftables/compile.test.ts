// Compiling step by step gives what compiling at once gives, and touches only what changed.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { podIp, type ServiceSketch, sketchModel, sketchService } from '../../../test/net/services-world.ts'
import type { Cidr, Ip } from '../../base/ip.ts'
import { tableOf } from '../../base/table.ts'
import { createFakeKernel } from '../../linux/nft/fake.ts'
import { printProgram } from '../../linux/nft/print.ts'
import { fromJson, sameProgram, toJson } from '../../linux/nft/program.ts'
import type { AddressOwner, NetworkModel, Service } from '../../model/network.ts'
import { forgottenBy } from './flush.ts'
import { createNftables } from './nftables.ts'

const endpoint = fc.record({
	ip: fc.integer({ min: 0, max: 30 }).map((i) => podIp(i)),
	port: fc.constantFrom(80, 8080),
	ready: fc.boolean(),
	serving: fc.boolean(),
	terminating: fc.boolean(),
	node: fc.constantFrom('node-1', 'node-2'),
})
const endpoints = fc
	.uniqueArray(endpoint, { maxLength: 14, selector: (e) => `${e.ip} ${e.port}` })
	.map((list) => list.sort((a, b) => (a.ip < b.ip ? -1 : a.ip === b.ip ? a.port - b.port : 1)))
const service: fc.Arbitrary<Service> = fc
	.record({
		name: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
		// Addresses collide between Services on purpose; 10.111.0.1 is outside the Service networks.
		ips: fc.subarray(['10.96.0.1', '10.96.0.2', '10.96.0.3', '10.111.0.1', 'fd00:10:96::1'], { maxLength: 2 }),
		ports: fc.uniqueArray(
			fc.record({ port: fc.constantFrom(80, 443), protocol: fc.constantFrom('TCP', 'UDP'), endpoints }),
			{ minLength: 1, maxLength: 2, selector: (p) => `${p.port} ${p.protocol}` },
		),
		local: fc.boolean(),
		affinity: fc.constantFrom(undefined, 60, 10800),
		type: fc.constantFrom('ClusterIP', 'NodePort', 'LoadBalancer'),
		externalLocal: fc.boolean(),
		nodePort: fc.constantFrom(undefined, 30080, 30081),
		// One inside of the Service networks, one that is a ClusterIP of others, one of the node.
		externalIps: fc.subarray(['192.0.2.1', '10.96.0.77', '10.96.0.2', '172.18.0.2'], { maxLength: 2 }),
		vips: fc.subarray(['203.0.113.1', '203.0.113.2', 'fd00:203::1'], { maxLength: 2 }),
		sourceRanges: fc.subarray(['10.0.0.0/8', '10.1.0.0/16', '172.18.0.0/16', 'fd00::/16', '0.0.0.0/0'], {
			maxLength: 3,
		}),
	})
	.map(({ local, affinity, type, externalLocal, nodePort, externalIps, vips, sourceRanges, ...sketch }) => {
		const made = sketchService({
			...(sketch as ServiceSketch),
			more: {
				type: type as Service['type'],
				internalTrafficPolicy: local ? 'Local' : 'Cluster',
				externalTrafficPolicy: externalLocal ? 'Local' : 'Cluster',
				externalIps: externalIps as Ip[],
				...(affinity === undefined ? {} : { sessionAffinity: affinity }),
			},
		})
		return {
			...made,
			ports: made.ports.map((p, i) =>
				type === 'ClusterIP' || nodePort === undefined ? p : { ...p, nodePort: nodePort + i },
			),
			...(type !== 'LoadBalancer'
				? {}
				: {
						loadBalancer: {
							ingress: vips.map((ip) => ({ ip: ip as Ip, ipMode: 'VIP' as const })),
							sourceRanges: sourceRanges as Cidr[],
							allocateNodePorts: true,
						},
					}),
		}
	})
/** What changes from one model to the next: Services that come, change or go, and how many pods there are. */
const steps = fc.array(
	fc.record({
		services: fc.array(service, { minLength: 1, maxLength: 3 }),
		gone: fc.subarray(['a', 'b', 'c', 'd', 'e'], { maxLength: 1 }),
		pods: fc.integer({ min: 0, max: 3 }),
	}),
	{ minLength: 2, maxLength: 6 },
)

/** Unchanged Services are the same objects, as the builder shares them; of a claim the first by name has the frontend. */
function follow(before: NetworkModel | undefined, services: ReadonlyMap<string, Service>, pods: number): NetworkModel {
	const list = [...services.values()].sort((a, b) => (a.key < b.key ? -1 : 1))
	const after = sketchModel(list, pods)
	return before === undefined ? after : { ...after, config: before.config }
}

describe('compile Services', () => {
	it('law: step by step as at once; applied differences end at the same kernel', () => {
		fc.assert(
			fc.property(steps, (steps) => {
				const plane = createNftables()
				const kernel = createFakeKernel()
				let have = undefined as ReturnType<typeof plane.compile> | undefined
				let model: NetworkModel | undefined
				const services = new Map<string, Service>()
				for (const step of steps) {
					for (const name of step.gone) services.delete(`default/${name}`)
					for (const s of step.services) services.set(s.key, s)
					model = follow(model, services, step.pods)
					const want = plane.compile(model, 'node-1')
					const once = createNftables().compile(model, 'node-1')
					assert.equal(printProgram(want), printProgram(once))
					kernel.apply(plane.diff(have, want))
					assert.equal(sameProgram(kernel.read(), want), true)
					assert.deepEqual(plane.diff(kernel.read(), want), [])
					assert.equal(plane.compile(model, 'node-1'), want)
					assert.equal(sameProgram(fromJson(JSON.parse(JSON.stringify(toJson(want)))), want), true)
					have = want
				}
			}),
			{ numRuns: 100 },
		)
	})

	it('shares everything that did not change, and changes few elements', () => {
		const ports = (n: number) => [
			{ port: 80, endpoints: Array.from({ length: n }, (_, i) => ({ ip: podIp(i), port: 80 })) },
		]
		const services = Array.from({ length: 100 }, (_, i) =>
			sketchService({ name: `s${i}`, ips: [`10.96.1.${i}`], ports: ports(3) }),
		)
		const model = sketchModel(services)
		const plane = createNftables()
		const before = plane.compile(model, 'node-1')
		const changed = sketchService({ name: 's7', ips: ['10.96.1.7'], ports: ports(4) })
		const after = plane.compile({ ...model, services: model.services.set(changed.key, changed) }, 'node-1')
		const a = before.tables.get('ip podwire')
		const b = after.tables.get('ip podwire')
		assert.equal(before.tables.get('ip6 podwire'), after.tables.get('ip6 podwire'))
		assert.equal(a?.sets.get('cluster-ips'), b?.sets.get('cluster-ips'))
		const changes = plane.diff(before, after)
		const elements = changes.flatMap((c) =>
			'elements' in c ? c.elements.map(([key]) => `${c.op} ${c.set.name} ${key}`) : [],
		)
		assert.deepEqual(elements.sort(), [
			'add-elements endpoints-4 10.96.1.7 . tcp . 80 . 0',
			'add-elements endpoints-4 10.96.1.7 . tcp . 80 . 1',
			'add-elements endpoints-4 10.96.1.7 . tcp . 80 . 2',
			'add-elements endpoints-4 10.96.1.7 . tcp . 80 . 3',
			'delete-elements endpoints-3 10.96.1.7 . tcp . 80 . 0',
			'delete-elements endpoints-3 10.96.1.7 . tcp . 80 . 1',
			'delete-elements endpoints-3 10.96.1.7 . tcp . 80 . 2',
		])
		assert.deepEqual([...forgottenBy(changes).endpoints], [])
		const back = plane.compile(model, 'node-1')
		assert.deepEqual([...forgottenBy(plane.diff(after, back)).endpoints], [`10.96.1.7 . tcp . 80 : ${podIp(3)} . 80`])
		assert.equal(sameProgram(back, before), true)
	})

	it('answers for node ports at the addresses that are for them, and follows the node', () => {
		const made = sketchService({
			name: 'web',
			ips: ['10.96.0.1', 'fd00:10:96::1'],
			ports: [{ port: 80, endpoints: [{ ip: podIp(1), port: 80 }] }],
		})
		const service: Service = { ...made, type: 'NodePort', ports: made.ports.map((p) => ({ ...p, nodePort: 30080 })) }
		const model = sketchModel([service])
		const node = model.nodes.get('node-1')!
		const plane = createNftables()
		const answering = (addresses: readonly string[], nodePortAddresses?: readonly string[]) => {
			const nodes = tableOf([['node-1', { ...node, addresses: addresses as Ip[] }]])
			const config =
				nodePortAddresses === undefined
					? model.config
					: { ...model.config, nodePortAddresses: nodePortAddresses as Cidr[] }
			const program = plane.compile({ ...model, nodes, config }, 'node-1')
			return ['ip', 'ip6'].flatMap((family) => [
				...(program.tables.get(`${family} podwire`)?.sets.get('external-ips')?.elements.keys() ?? []),
			])
		}
		const own = ['172.18.0.2', '192.168.7.2', 'fd00:172::2', '10.9.0.2']
		assert.deepEqual(answering(own), ['172.18.0.2', 'fd00:172::2'])
		assert.deepEqual(answering(['192.168.7.2']), ['192.168.7.2'])
		assert.deepEqual(answering(own, ['192.168.0.0/16', '10.0.0.0/8']).sort(), ['10.9.0.2', '192.168.7.2'])
		assert.deepEqual(answering(own, []), [])
	})

	it('joins source ranges that overlap, and asks nobody where everybody may', () => {
		const ranges = (sourceRanges: readonly string[]) => {
			const made = sketchService({ name: 'web', ips: ['10.96.0.1'], ports: [{ port: 80, endpoints: [] }] })
			const service: Service = {
				...made,
				type: 'LoadBalancer',
				loadBalancer: {
					ingress: [{ ip: '203.0.113.1' as Ip, ipMode: 'VIP' }],
					sourceRanges: sourceRanges as Cidr[],
					allocateNodePorts: true,
				},
			}
			const sets = createNftables()
				.compile(sketchModel([service]), 'node-1')
				.tables.get('ip podwire')?.sets
			const all = [...(sets?.get('source-ranges')?.elements.keys() ?? [])]
			assert.equal(sets?.has('restricted'), all.length > 0)
			return all.map((key) => key.replace('203.0.113.1 . tcp . 80 . ', '')).sort()
		}
		assert.deepEqual(ranges(['10.0.0.0/8', '10.1.0.0/16', '10.0.0.0/8', '192.0.2.1/32']), ['10.0.0.0/8', '192.0.2.1'])
		// A range with the node in it: the node may have the address, and send from it.
		assert.deepEqual(ranges(['172.16.0.0/12']), ['172.16.0.0/12', '203.0.113.1'])
		assert.deepEqual(ranges(['172.16.0.0/12', '203.0.113.0/24']), ['172.16.0.0/12', '203.0.113.0/24'])
		assert.deepEqual(ranges(['10.0.0.0/8', '0.0.0.0/0']), [])
		assert.deepEqual(ranges(['fd00::/8']), [])
	})

	it('gives an address that two Services claim to its owner', () => {
		const make = (name: string, i: number) =>
			sketchService({ name, ips: ['10.96.0.1'], ports: [{ port: 80, endpoints: [{ ip: podIp(i), port: 80 }] }] })
		const model = sketchModel([make('a', 1), make('b', 2)])
		const plane = createNftables()
		const target = (owner: string) => {
			const addresses = tableOf<Ip, AddressOwner>([
				['10.96.0.1' as Ip, { kind: 'service', service: `default/${owner}` }],
			])
			const elements = plane
				.compile({ ...model, addresses }, 'node-1')
				.tables.get('ip podwire')
				?.sets.get('endpoints-1')?.elements
			return [...(elements?.values() ?? [])].map((e) => e.data)
		}
		assert.deepEqual(target('a'), [`${podIp(1)} . 80`])
		assert.deepEqual(target('b'), [`${podIp(2)} . 80`])
		assert.deepEqual(target('a'), [`${podIp(1)} . 80`])
	})
})
