// The promises of a Service data plane, one case each. `at(n)` is the ClusterIP of the case's Service number n.

import type { TestContext } from 'node:test'
import type { Ip } from '../../src/base/ip.ts'
import type { Service } from '../../src/model/network.ts'
import { externalIp, ipOf, type NodeName, type Place } from './services-cluster.ts'
import {
	at,
	expect,
	nodeIp,
	nodePort,
	type Question,
	seenAs,
	service,
	through,
	vips,
	type World,
} from './services-expect.ts'

const clients: readonly Place[] = ['p1a', 'p2a', 'node-1', 'node-2', 'outside']
const local: Partial<Service> = { externalTrafficPolicy: 'Local' }

/** The same answer for everybody. */
const all = (from: readonly Place[], question: Omit<Question, 'from'>): Question[] =>
	from.map((place) => ({ ...question, from: place }))

export type Case = (world: World, t: TestContext) => Promise<void>

export const trafficCases = {
	async 'ClusterIP: every client, every endpoint'(world) {
		await world.bring([service({ name: 'web', n: 1, endpoints: ['p1b', 'p2b'] })])
		await expect(world, [
			{ from: 'p1a', to: at(1), gives: seenAs('p1a', 'p1b', 'p2b') },
			{ from: 'p2a', to: at(1), gives: seenAs('p2a', 'p1b', 'p2b') },
			{ from: 'node-1', to: at(1), gives: seenAs('node-1', 'p1b', 'p2b') },
			{ from: 'node-2', to: at(1), gives: seenAs('node-2', 'p1b', 'p2b') },
		])
	},

	async 'ClusterIP: a client outside is masqueraded'(world) {
		await world.bring([service({ name: 'web', n: 1, endpoints: ['p1b', 'p2b'] })])
		await expect(world, [{ from: 'outside', to: at(1), gives: seenAs('node-1', 'p1b', 'p2b') }])
	},

	async 'ClusterIP: hostNetwork endpoints'(world) {
		await world.bring([service({ name: 'host', n: 2, endpoints: ['node-2'] })])
		await expect(world, [
			{ from: 'p1a', to: at(2), gives: seenAs('p1a', 'node-2') },
			{ from: 'p2a', to: at(2), gives: seenAs('p2a', 'node-2') },
			{ from: 'node-1', to: at(2), gives: seenAs('node-1', 'node-2') },
			{ from: 'node-2', to: at(2), gives: seenAs('node-2', 'node-2') },
		])
	},

	async 'ClusterIP: a pod reaches itself'(world) {
		await world.bring([service({ name: 'self', n: 3, endpoints: ['p1a'] })])
		await expect(world, [{ from: 'p1a', to: at(3), gives: seenAs('node-1', 'p1a') }])
	},

	async 'ClusterIP: internalTrafficPolicy Local'(world) {
		const more: Partial<Service> = { internalTrafficPolicy: 'Local' }
		await world.bring([
			service({ name: 'both', n: 4, endpoints: ['p1b', 'p2b'], more }),
			service({ name: 'one', n: 5, endpoints: ['p2b'], more }),
		])
		await expect(world, [
			{ from: 'p1a', to: at(4), gives: seenAs('p1a', 'p1b') },
			{ from: 'p2a', to: at(4), gives: seenAs('p2a', 'p2b') },
			{ from: 'node-2', to: at(4), gives: seenAs('node-2', 'p2b') },
			{ from: 'outside', to: at(4), gives: seenAs('node-1', 'p1b') },
			{ from: 'p2a', to: at(5), gives: seenAs('p2a', 'p2b') },
			...all(['p1a', 'node-1', 'outside'], { to: at(5), gives: 'silence' }),
		])
	},

	async 'no endpoint: refused, at every kind of address'(world) {
		await world.bring([service({ name: 'empty', n: 6, endpoints: [], type: 'LoadBalancer', vips: vips(6) })])
		await expect(world, [
			...all(clients, { to: at(6), gives: 'refused' }),
			...all(clients, { to: through('node-1', 6), gives: 'refused' }),
			...all(['node-2', 'p2a', 'outside'], { to: through('node-2', 6), gives: 'refused' }),
			...all(clients, { to: nodeIp('node-1'), port: nodePort(6), gives: 'refused' }),
		])
	},

	async 'policy Local and no endpoint anywhere: refused'(world) {
		await world.bring([
			service({ name: 'empty', n: 6, endpoints: [], type: 'LoadBalancer', vips: vips(6), more: local }),
		])
		await expect(world, [
			...all(clients, { to: through('node-1', 6), gives: 'refused' }),
			...all(clients, { to: nodeIp('node-1'), port: nodePort(6), gives: 'refused' }),
		])
	},

	async 'a port the Service lacks is refused, an address of no Service is silent'(world) {
		await world.bring([service({ name: 'web', n: 1, endpoints: ['p1b'] })])
		await expect(world, [
			...all(clients, { to: at(1), port: 81, gives: 'refused' }),
			...all(clients, { to: at(99), gives: 'silence' }),
		])
	},

	async 'NodePort: on every node, masqueraded'(world) {
		await world.bring([service({ name: 'web', n: 7, endpoints: ['p1b', 'p2b'], type: 'NodePort' })])
		const port = nodePort(7)
		const each = (from: Place, to: NodeName): Question => ({
			from,
			to: nodeIp(to),
			port,
			gives: seenAs(to, 'p1b', 'p2b'),
		})
		await expect(
			world,
			clients.flatMap((from) => [each(from, 'node-1'), each(from, 'node-2')]),
		)
	},

	async 'NodePort: other ports of a node are its own'(world) {
		await world.bring([service({ name: 'web', n: 7, endpoints: ['p1b'], type: 'NodePort' })])
		await expect(world, [
			{ from: 'outside', to: nodeIp('node-1'), port: 9090, gives: seenAs('outside', 'node-1') },
			{ from: 'p1a', to: nodeIp('node-1'), port: 9090, gives: seenAs('p1a', 'node-1') },
			...all(['outside', 'p1a'], { to: nodeIp('node-1'), port: 9, gives: 'refused' }),
		])
	},

	async 'NodePort: a hostNetwork endpoint of the node keeps the source'(world) {
		await world.bring([service({ name: 'web', n: 7, endpoints: ['node-1'], type: 'NodePort' })])
		await expect(world, [
			{ from: 'outside', to: nodeIp('node-1'), port: nodePort(7), gives: seenAs('outside', 'node-1') },
			{ from: 'outside', to: nodeIp('node-2'), port: nodePort(7), gives: seenAs('node-2', 'node-1') },
		])
	},

	async 'NodePort, policy Local: outside keeps its source and stays on the node, the cluster reaches every endpoint'(
		world,
	) {
		const port = nodePort(8)
		await world.bring([service({ name: 'web', n: 8, endpoints: ['p2b'], type: 'NodePort', more: local })])
		await expect(world, [
			{ from: 'outside', to: nodeIp('node-2'), port, gives: seenAs('outside', 'p2b') },
			{ from: 'outside', to: nodeIp('node-1'), port, gives: 'silence' },
			{ from: 'p1a', to: nodeIp('node-1'), port, gives: seenAs('p1a', 'p2b') },
			{ from: 'p2a', to: nodeIp('node-2'), port, gives: seenAs('p2a', 'p2b') },
			{ from: 'node-1', to: nodeIp('node-1'), port, gives: seenAs('node-1', 'p2b') },
			// To that node the other one is outside.
			{ from: 'node-1', to: nodeIp('node-2'), port, gives: seenAs('node-1', 'p2b') },
			{ from: 'node-2', to: nodeIp('node-1'), port, gives: 'silence' },
		])
	},

	async 'NodePort, policy Local: a pod reaches itself through another node'(world) {
		await world.bring([
			service({ name: 'web', n: 8, endpoints: ['p2b'], type: 'NodePort', more: local }),
			service({ name: 'too', n: 9, endpoints: ['p2b', 'p1b'], type: 'NodePort', more: local }),
		])
		const web = { to: nodeIp('node-1'), port: nodePort(8) }
		await expect(world, [{ from: 'p2b', ...web, gives: seenAs('node-1', 'p2b') }])
		// Two Services ask for the same masquerade: it stays as long as one of them does.
		await world.bring([service({ name: 'web', n: 8, endpoints: ['p2b'], type: 'NodePort', more: local })])
		await expect(world, [{ from: 'p2b', ...web, gives: seenAs('node-1', 'p2b') }])
	},

	async 'externalIPs: masqueraded; the other ports of the address are not ours'(world) {
		const ips = [externalIp('node-1', 9), externalIp('node-1', 9, 6)]
		await world.bring([service({ name: 'web', n: 9, endpoints: ['p1b', 'p2b'], more: { externalIps: ips } })])
		await expect(world, [
			{ from: 'p1a', to: through('node-1', 9), gives: seenAs('node-1', 'p1b', 'p2b') },
			{ from: 'p2a', to: through('node-1', 9), gives: seenAs('node-2', 'p1b', 'p2b') },
			{ from: 'node-1', to: through('node-1', 9), gives: seenAs('node-1', 'p1b', 'p2b') },
			{ from: 'outside', to: through('node-1', 9), gives: seenAs('node-1', 'p1b', 'p2b') },
			{ from: 'p1a', to: at(9), gives: seenAs('p1a', 'p1b', 'p2b') },
		])
	},

	async 'externalIPs: an address of a node, beside its own ports'(world) {
		const ips = [ipOf('node-1'), ipOf('node-1', 6)]
		await world.bring([service({ name: 'web', n: 9, endpoints: ['p2b'], more: { externalIps: ips } })])
		await expect(world, [
			...all(['outside', 'p1a', 'node-1'], { to: nodeIp('node-1'), gives: seenAs('node-1', 'p2b') }),
			{ from: 'outside', to: nodeIp('node-1'), port: 9090, gives: seenAs('outside', 'node-1') },
		])
	},

	async 'load balancer, ipMode VIP: policy Cluster masquerades'(world) {
		await world.bring([
			service({ name: 'web', n: 10, endpoints: ['p1b', 'p2b'], type: 'LoadBalancer', vips: vips(10) }),
		])
		await expect(world, [
			{ from: 'outside', to: through('node-1', 10), gives: seenAs('node-1', 'p1b', 'p2b') },
			{ from: 'outside', to: through('node-2', 10), gives: seenAs('node-2', 'p1b', 'p2b') },
			{ from: 'p1a', to: through('node-2', 10), gives: seenAs('node-1', 'p1b', 'p2b') },
			{ from: 'node-2', to: through('node-1', 10), gives: seenAs('node-2', 'p1b', 'p2b') },
			{ from: 'outside', to: nodeIp('node-2'), port: nodePort(10), gives: seenAs('node-2', 'p1b', 'p2b') },
		])
	},

	async 'load balancer, policy Local: source kept, local endpoints, dropped where there is none'(world) {
		await world.bring([
			service({ name: 'both', n: 11, endpoints: ['p1b', 'p2b'], type: 'LoadBalancer', vips: vips(11), more: local }),
			service({ name: 'one', n: 12, endpoints: ['p2b'], type: 'LoadBalancer', vips: vips(12), more: local }),
		])
		await expect(world, [
			{ from: 'outside', to: through('node-1', 11), gives: seenAs('outside', 'p1b') },
			{ from: 'outside', to: through('node-2', 11), gives: seenAs('outside', 'p2b') },
			{ from: 'p1a', to: through('node-1', 11), gives: seenAs('p1a', 'p1b', 'p2b') },
			{ from: 'node-1', to: through('node-1', 11), gives: seenAs('node-1', 'p1b', 'p2b') },
			{ from: 'outside', to: through('node-1', 12), gives: 'silence' },
			{ from: 'outside', to: through('node-2', 12), gives: seenAs('outside', 'p2b') },
			{ from: 'p1a', to: through('node-1', 12), gives: seenAs('p1a', 'p2b') },
			{ from: 'node-1', to: through('node-2', 12), gives: seenAs('node-1', 'p2b') },
		])
	},

	async 'load balancer, ipMode Proxy: nodes leave the address to the balancer'(world) {
		await world.bring([
			service({ name: 'web', n: 13, endpoints: ['p1b'], type: 'LoadBalancer', vips: vips(13), ipMode: 'Proxy' }),
		])
		await expect(world, [
			...all(['p1a', 'node-1'], { to: through('node-1', 13), gives: 'silence' }),
			{ from: 'p1a', to: at(13), gives: seenAs('p1a', 'p1b') },
		])
	},

	async 'load balancer: source ranges hold for everybody, at the address alone'(world) {
		const ranged = (n: number, sourceRanges: readonly string[]) =>
			service({ name: `ranged-${n}`, n, endpoints: ['p1b', 'p2b'], type: 'LoadBalancer', vips: vips(n), sourceRanges })
		await world.bring([
			ranged(14, ['172.18.0.100/32', 'fd00:172::100/128']),
			ranged(15, ['10.244.0.0/24', '10.244.0.0/25', 'fd00:10:244:1::/64', 'fd00:10:244:1::2/128']),
			ranged(16, ['172.18.0.2/31', 'fd00:172::2/127', '192.0.2.0/24']),
			ranged(17, ['192.0.2.0/24']),
		])
		await expect(world, [
			{ from: 'outside', to: through('node-1', 14), gives: seenAs('node-1', 'p1b', 'p2b') },
			...all(['p1a', 'node-1', 'node-2'], { to: through('node-1', 14), gives: 'silence' }),
			{ from: 'p1a', to: through('node-1', 15), gives: seenAs('node-1', 'p1b', 'p2b') },
			...all(['p2a', 'node-1', 'outside'], { to: through('node-1', 15), gives: 'silence' }),
			{ from: 'node-1', to: through('node-1', 16), gives: seenAs('node-1', 'p1b', 'p2b') },
			{ from: 'node-2', to: through('node-1', 16), gives: seenAs('node-2', 'p1b', 'p2b') },
			...all(['p2a', 'outside'], { to: through('node-1', 16), gives: 'silence' }),
			// Ranges of one family restrict nothing in the other.
			...all(['p1a', 'outside'], { to: externalIp('node-1', 17), gives: 'silence' }),
			{ from: 'outside', to: externalIp('node-1', 17, 6), gives: seenAs('node-1', 'p1b', 'p2b') },
			{ from: 'outside', to: nodeIp('node-1'), port: nodePort(17), gives: seenAs('node-1', 'p1b', 'p2b') },
			{ from: 'outside', to: at(17), gives: seenAs('node-1', 'p1b', 'p2b') },
		])
	},

	async 'load balancer: its address on the node itself'(world) {
		const ranges = ['172.18.0.2/32', 'fd00:172::2/128']
		const make = (n: number, more: Partial<Service>) =>
			service({
				name: `own-${n}`,
				n,
				endpoints: ['p1b', 'p2b'],
				type: 'LoadBalancer',
				vips: vips(n),
				sourceRanges: ranges,
				more,
			})
		await world.bring([make(26, {}), make(27, local)])
		for (const n of [26, 27])
			for (const family of [4, 6] as const) world.cluster.addAddress('node-1', externalIp('node-1', n, family))
		// From there the address itself is the source, until it is masqueraded.
		await expect(world, [
			{ from: 'node-1', to: through('node-1', 26), gives: seenAs('node-1', 'p1b', 'p2b') },
			{ from: 'node-1', to: through('node-1', 27), gives: seenAs('node-1', 'p1b', 'p2b') },
			{ from: 'outside', to: through('node-1', 26), gives: 'silence' },
		])
	},

	async 'more than eight endpoints, at every kind of address'(world) {
		const nine = Array.from({ length: 9 }, (_, i) => ({ at: 'p1b' as const, port: 8100 + i }))
		const two = Array.from({ length: 2 }, (_, i) => ({ at: 'p2b' as const, port: 8100 + i }))
		for (const { at, port } of [...nine, ...two]) world.serve(at, port)
		const make = (n: number, more: Partial<Service>) =>
			service({ name: `many-${n}`, n, endpoints: [...nine, ...two], type: 'LoadBalancer', vips: vips(n), more })
		await world.bring([make(18, {}), make(19, local)])
		const names = (list: typeof nine | typeof two) => list.map(({ at, port }) => `${at}:${port}` as Place)
		await expect(world, [
			{ from: 'p1a', to: at(18), gives: seenAs('p1a', ...names([...nine]), ...names(two)) },
			{ from: 'outside', to: through('node-1', 18), gives: seenAs('node-1', ...names(nine), ...names(two)) },
			{ from: 'outside', to: through('node-1', 19), gives: seenAs('outside', ...names(nine)) },
			{ from: 'outside', to: through('node-2', 19), gives: seenAs('outside', ...names(two)) },
			{ from: 'p1a', to: nodeIp('node-1'), port: nodePort(19), gives: seenAs('p1a', ...names(nine), ...names(two)) },
		])
	},

	async 'terminating endpoints serve while no other is ready; those that do not serve never'(world) {
		const leaving = { ready: false, serving: true, terminating: true }
		const gone = { ready: false, serving: false, terminating: true }
		await world.bring([
			service({
				name: 'last',
				n: 20,
				endpoints: [
					{ at: 'p1b', ...leaving },
					{ at: 'p2b', ...gone },
				],
			}),
			service({ name: 'some', n: 21, endpoints: [{ at: 'p1b', ...leaving }, 'p2b'] }),
			service({
				name: 'local',
				n: 22,
				endpoints: [{ at: 'p1b', ...leaving }, 'p2b'],
				type: 'LoadBalancer',
				vips: vips(22),
				more: local,
			}),
		])
		await expect(world, [
			{ from: 'p1a', to: at(20), gives: seenAs('p1a', 'p1b') },
			{ from: 'p1a', to: at(21), gives: seenAs('p1a', 'p2b') },
			{ from: 'outside', to: through('node-1', 22), gives: seenAs('outside', 'p1b') },
			{ from: 'p1a', to: through('node-1', 22), gives: seenAs('p1a', 'p2b') },
		])
	},

	async 'endpoints outside of the cluster'(world) {
		world.serve('outside', 8080)
		await world.bring([
			service({ name: 'outer', n: 23, endpoints: ['outside'], type: 'LoadBalancer', vips: vips(23), more: local }),
		])
		await expect(world, [
			{ from: 'p1a', to: at(23), gives: seenAs('p1a', 'outside:8080' as Place) },
			{ from: 'node-1', to: through('node-1', 23), gives: seenAs('node-1', 'outside:8080' as Place) },
		])
	},

	async 'one Service of a family alone'(world) {
		const only = (n: number, ips: readonly Ip[]): Service => {
			const made = service({ name: `only-${n}`, n, endpoints: ['p1b'], type: 'LoadBalancer', vips: vips(n) })
			return { ...made, clusterIps: made.clusterIps.filter((ip) => ips.includes(ip)) }
		}
		const four = at(24)(4)
		const six = at(25)(6)
		await world.bring([only(24, [four]), only(25, [six])])
		await expect(world, [
			{ from: 'p1a', to: four, gives: seenAs('p1a', 'p1b') },
			{ from: 'p1a', to: six, gives: seenAs('p1a', 'p1b') },
			{ from: 'p1a', to: at(24)(6), gives: 'silence' },
			{ from: 'p1a', to: at(25)(4), gives: 'silence' },
			{ from: 'outside', to: externalIp('node-1', 24), gives: seenAs('node-1', 'p1b') },
			{ from: 'outside', to: externalIp('node-1', 25, 6), gives: seenAs('node-1', 'p1b') },
			{ from: 'outside', to: ipOf('node-1'), port: nodePort(24), gives: seenAs('node-1', 'p1b') },
			{ from: 'outside', to: ipOf('node-1', 6), port: nodePort(24), gives: 'refused' },
		])
	},
} satisfies Record<string, Case>
