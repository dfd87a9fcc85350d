// Services by nftables on a real kernel: connections from pods and from the node through ClusterIPs, and what the pure
// evaluation of the rules read back says about the same packets.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Ip } from '../../src/base/ip.ts'
import type { Packet } from '../../src/base/packet.ts'
import { createNftables, type NftablesDataplane } from '../../src/dataplane/nftables/nftables.ts'
import type { NetworkModel } from '../../src/model/network.ts'
import {
	askTcp,
	askUdp,
	nodeAddress,
	podIp,
	reasonToSkip,
	type ServiceSketch,
	sketchModel,
	sketchService,
	withWorld,
} from './services-world.ts'

const ip = (text: string) => text as Ip

async function install(plane: NftablesDataplane, model: NetworkModel): Promise<void> {
	const want = plane.compile(model, 'node-1')
	const outcome = await plane.apply(plane.diff(undefined, want))
	if (!outcome.ok) throw outcome.error
}

const endpoint = (i: number, port: number) => ({ ip: podIp(i), port })
const sketches: readonly ServiceSketch[] = [
	{ name: 'one', ips: ['10.96.0.1'], ports: [{ port: 80, endpoints: [endpoint(1, 8080)] }] },
	{
		name: 'two',
		ips: ['10.96.0.2'],
		ports: [
			{ port: 80, endpoints: [endpoint(1, 8080), endpoint(2, 8080)] },
			{ port: 53, protocol: 'UDP', endpoints: [endpoint(1, 5353), endpoint(2, 5353)] },
		],
	},
	{
		name: 'empty',
		ips: ['10.96.0.3'],
		ports: [
			{ port: 80, endpoints: [] },
			{ port: 53, protocol: 'UDP', endpoints: [] },
		],
	},
	{
		name: 'far',
		ips: ['10.96.0.4'],
		ports: [{ port: 80, endpoints: [{ ip: ip('10.244.2.9'), port: 80, node: 'node-2' }] }],
		more: { internalTrafficPolicy: 'Local' },
	},
	{ name: 'self', ips: ['10.96.0.5'], ports: [{ port: 80, endpoints: [endpoint(0, 8080)] }] },
	{
		name: 'many',
		ips: ['10.96.0.6'],
		ports: [{ port: 80, endpoints: Array.from({ length: 12 }, (_, i) => endpoint(1, 9000 + i)) }],
	},
	{ name: 'outside', ips: ['10.111.0.1'], ports: [{ port: 80, endpoints: [endpoint(2, 8080)] }] },
]

function packet(source: Ip, to: Ip, port: number, protocol: Packet['protocol'] = 'TCP'): Packet {
	return { protocol, source, destination: to, sourcePort: 40000, destinationPort: port, state: 'new', mark: 0 }
}

describe('services', { skip: reasonToSkip() }, () => {
	it('carries TCP and UDP to endpoints, refuses and drops as kube-proxy does, and says so beforehand', async () => {
		await withWorld(3, async (world) => {
			const plane = createNftables({ netns: world.node })
			try {
				await install(plane, sketchModel(sketches.map(sketchService), 3))
				for (const i of [0, 1, 2]) {
					world.serveTcp(world.pod(i), 8080, `pod-${i}`)
					world.serveUdp(world.pod(i), 5353, `pod-${i}`)
				}
				for (let i = 0; i < 12; i++) world.serveTcp(world.pod(1), 9000 + i, `many-${i}`)
				const client = podIp(0)
				assert.equal(await askTcp(world.pod(0), ip('10.96.0.1'), 80), `pod-1 ${client}`)
				assert.equal(await askTcp(world.node, ip('10.96.0.1'), 80), `pod-1 ${nodeAddress}`)
				assert.equal(await askTcp(world.pod(0), ip('10.111.0.1'), 80), `pod-2 ${client}`)
				const seen = new Set<string>()
				for (let i = 0; i < 24; i++) seen.add(await askTcp(world.pod(0), ip('10.96.0.2'), 80))
				assert.deepEqual([...seen].sort(), [`pod-1 ${client}`, `pod-2 ${client}`])
				assert.match(await askUdp(world.pod(0), ip('10.96.0.2'), 53), /^pod-[12] 10\.244\.1\.2$/)
				assert.match(await askTcp(world.pod(0), ip('10.96.0.6'), 80), /^many-\d+ /)
				// A pod that reaches itself answers through the node.
				assert.equal(await askTcp(world.pod(0), ip('10.96.0.5'), 80), `pod-0 ${nodeAddress}`)
				for (const from of [world.pod(0), world.node]) {
					assert.equal(await askTcp(from, ip('10.96.0.3'), 80), 'ECONNREFUSED', 'no endpoint')
					assert.equal(
						await askUdp(from, ip('10.96.0.3'), 53),
						from === world.node ? 'EPERM' : 'ECONNREFUSED',
						'no endpoint, UDP',
					)
					assert.equal(await askTcp(from, ip('10.96.0.1'), 81), 'ECONNREFUSED', 'no such port')
					assert.equal(await askTcp(from, ip('10.96.0.4'), 80, 300), 'timeout', 'none on this node')
					assert.equal(await askTcp(from, ip('10.96.99.99'), 80, 300), 'timeout', 'nobody has the address')
				}

				const program = await plane.read()
				const translated = (to: Ip, port: number, protocol: Packet['protocol'] = 'TCP') =>
					plane.evaluate(program, packet(client, to, port, protocol), 'prerouting').map((o) => {
						const after = o.packet
						return `${after.destination}:${after.destinationPort} ${o.chance}`
					})
				assert.deepEqual(translated(ip('10.96.0.1'), 80), ['10.244.1.3:8080 1'])
				assert.deepEqual(translated(ip('10.96.0.2'), 80), ['10.244.1.3:8080 0.5', '10.244.1.4:8080 0.5'])
				assert.deepEqual(translated(ip('10.96.0.2'), 53, 'UDP'), ['10.244.1.3:5353 0.5', '10.244.1.4:5353 0.5'])
				assert.equal(translated(ip('10.96.0.6'), 80).length, 12)
				assert.deepEqual(translated(ip('10.111.0.1'), 80), ['10.244.1.4:8080 1'])
				assert.deepEqual(translated(ip('10.96.0.3'), 80), ['10.96.0.3:80 1'])
				assert.deepEqual(translated(ip('8.8.8.8'), 80), ['8.8.8.8:80 1'])
				const refused = (to: Ip, port: number) =>
					plane.evaluate(program, packet(client, to, port), 'forward').map((o) => o.verdict)
				assert.deepEqual(refused(ip('10.96.0.3'), 80), ['reject'])
				assert.deepEqual(refused(ip('10.96.0.1'), 81), ['reject'])
				assert.deepEqual(refused(ip('10.96.0.4'), 80), ['drop'])
				assert.deepEqual(refused(ip('10.96.99.99'), 80), ['drop'])
				assert.deepEqual(refused(podIp(1), 8080), ['accept'])
				const hairpin = plane.evaluate(program, packet(client, client, 8080), 'postrouting')
				assert.deepEqual(
					hairpin.map((o) => o.packet.source),
					[nodeAddress],
				)
				const [why] = plane.evaluate(program, packet(client, ip('10.96.0.2'), 80), 'prerouting')
				const decided = why?.rules.at(-1)
				assert.equal(decided?.handle !== undefined, true)
				assert.equal(
					decided?.text,
					'dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @endpoints-2',
				)
				assert.deepEqual(decided?.because, [
					{ kind: 'Service', key: 'default/two', field: 'spec.ports[0]', source: { file: 'services.yaml', line: 3 } },
				])
			} finally {
				plane.close()
			}
		})
	})

	it('translates IPv6', async () => {
		await withWorld(2, async (world) => {
			const plane = createNftables({ netns: world.node })
			try {
				const six: ServiceSketch = {
					name: 'six',
					ips: ['10.96.0.9', 'fd00:10:96::9'],
					ports: [{ port: 80, endpoints: [endpoint(1, 8080), { ip: podIp(1, 6), port: 8080 }] }],
				}
				const none: ServiceSketch = { name: 'none', ips: ['fd00:10:96::a'], ports: [{ port: 80, endpoints: [] }] }
				await install(plane, sketchModel([six, none].map(sketchService), 2))
				world.serveTcp(world.pod(1), 8080, 'pod-1')
				world.serveTcp(world.pod(0), 8080, 'pod-0')
				assert.equal(await askTcp(world.pod(0), ip('fd00:10:96::9'), 80), `pod-1 ${podIp(0, 6)}`)
				assert.equal(await askTcp(world.pod(0), ip('10.96.0.9'), 80), `pod-1 ${podIp(0)}`)
				assert.equal(await askTcp(world.pod(0), ip('fd00:10:96::a'), 80), 'ECONNREFUSED')
				assert.equal(await askTcp(world.pod(1), ip('fd00:10:96::9'), 80), 'pod-1 fd00:172::2')
			} finally {
				plane.close()
			}
		})
	})
})
