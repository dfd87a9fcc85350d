// Services by nftables on a real kernel: connections from pods and from the node through ClusterIPs, and what the pure
// evaluation of the rules read back says about the same packets.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import type { Cidr, Ip } from '../../src/base/ip.ts'
import type { Packet } from '../../src/base/packet.ts'
import { evaluate } from '../../src/dataplane/nftables/evaluate.ts'
import { createNftables, type NftablesDataplane } from '../../src/dataplane/nftables/nftables.ts'
import { inNetnsAt } from '../../src/linux/netns.ts'
import { printProgram } from '../../src/linux/nft/print.ts'
import { sameProgram } from '../../src/linux/nft/program.ts'
import type { NetworkModel, Service } from '../../src/model/network.ts'
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
const noNft = ['/usr/sbin/nft', '/sbin/nft', '/usr/bin/nft'].some(existsSync) ? false : 'the nft program is not here'

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

/** A load balancer's Service with node ports, of each policy. */
const balanced = (['Cluster', 'Local'] as const).map((externalTrafficPolicy, i): Service => {
	const made = sketchService({
		name: `balanced-${i}`,
		ips: [`10.96.1.${i + 1}`, `fd00:10:96::1:${i + 1}`],
		ports: (['TCP', 'UDP', 'SCTP'] as const).map((protocol) => ({
			port: 80,
			protocol,
			endpoints: [
				...Array.from({ length: 9 + i }, (_, k) => ({ ...endpoint(1, 9000 + k), node: 'node-1' })),
				{ ip: podIp(1, 6), port: 8080, node: 'node-1' },
			],
		})),
	})
	return {
		...made,
		type: 'LoadBalancer',
		externalTrafficPolicy,
		ports: made.ports.map((p) => ({ ...p, nodePort: 30080 + i })),
		externalIps: [ip('192.0.2.1')],
		loadBalancer: {
			ingress: [`203.0.113.${i}`, `fd00:203::${i + 1}`, `10.96.200.${i}`].map((text) => ({
				ip: ip(text),
				ipMode: 'VIP',
			})),
			sourceRanges: ['10.0.0.0/8', '10.1.0.0/16', '172.18.0.0/16', '192.0.2.9/32', 'fd00::/16'] as Cidr[],
			allocateNodePorts: true,
		},
	}
})

/** nft sorts the elements of every set but of those with intervals of several fields: these come as the kernel has them. */
function sortRanges(text: string): string {
	return text.replace(/(set source-ranges \{[^=]*elements = \{ )([^}]*)\}/g, (_, head: string, list: string) => {
		const items = list.split(',').map((item) => item.trim())
		return `${head}${items.sort().join('\n')}}`
	})
}

/** Says the first lines that differ, not both texts. */
function sameLines(actual: string, expected: string): void {
	const [a, b] = [sortRanges(actual).split('\n'), sortRanges(expected).split('\n')]
	const at = a.findIndex((line, i) => line !== b[i])
	if (at >= 0 || a.length !== b.length) assert.deepEqual(a.slice(at, at + 5), b.slice(at, at + 5))
}

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
				const hairpin = evaluate(program, packet(client, client, 8080), 'postrouting', {
					connectionStatus: 32,
					original: packet(client, ip('10.96.0.5'), 80),
					masqueradeAddress: () => nodeAddress,
				})
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

	it('keeps a client with its endpoint while it is there', async () => {
		await withWorld(3, async (world) => {
			const plane = createNftables({ netns: world.node })
			try {
				const sketch = (endpoints: readonly { ip: Ip; port: number }[]): ServiceSketch => ({
					name: 'sticky',
					ips: ['10.96.0.3'],
					ports: [{ port: 80, endpoints }],
					more: { sessionAffinity: 10800 },
				})
				const all = Array.from({ length: 6 }, (_, i) => endpoint(1, 8080 + i))
				for (const { port } of all) world.serveTcp(world.pod(1), port, `p${port}`)
				let have = plane.compile(sketchModel([sketchService(sketch(all))], 3), 'node-1')
				assert.deepEqual(await plane.apply(plane.diff(undefined, have)), { ok: true })
				const ask = () => askTcp(world.pod(0), ip('10.96.0.3'), 80)
				const first = await ask()
				for (let i = 0; i < 10; i++) assert.equal(await ask(), first)
				const port = Number(/p(\d+)/.exec(first)?.[1])
				// An endpoint of somebody else leaves: nothing changes for this client.
				const other = all.filter((e) => e.port !== (port === 8080 ? 8081 : 8080))
				const move = async (endpoints: readonly { ip: Ip; port: number }[]) => {
					const want = plane.compile(sketchModel([sketchService(sketch(endpoints))], 3), 'node-1')
					assert.deepEqual(await plane.apply(plane.diff(have, want)), { ok: true })
					have = want
				}
				await move(other)
				for (let i = 0; i < 10; i++) assert.equal(await ask(), first)
				// Its own leaves: it gets another, and stays with that.
				await move(other.filter((e) => e.port !== port))
				const second = await ask()
				assert.notEqual(second, first)
				for (let i = 0; i < 10; i++) assert.equal(await ask(), second)
			} finally {
				plane.close()
			}
		})
	})

	it('writes rules that nft lists as we print them, and loads again', { skip: noNft }, async () => {
		await withWorld(1, async (world) => {
			const plane = createNftables({ netns: world.node })
			const folder = mkdtempSync(join(tmpdir(), 'podwire-test-'))
			try {
				const sticky: ServiceSketch = {
					...(sketches[1] as ServiceSketch),
					name: 'sticky',
					ips: ['10.96.0.7', 'fd00:10:96::7'],
					more: { sessionAffinity: 60 },
				}
				const nft = (...args: string[]) => {
					const done = inNetnsAt(world.node, () => spawnSync('nft', args, { encoding: 'utf8' }))
					assert.equal(done.status, 0, done.stderr)
					return done.stdout
				}
				const check = async (model: NetworkModel) => {
					await install(plane, model)
					const read = await plane.read()
					assert.equal(sameProgram(read, plane.compile(model, 'node-1')), true)
					sameLines(printProgram(read), nft('list', 'ruleset'))
					sameLines(printProgram(read, { handles: true }), nft('-a', 'list', 'ruleset'))
					JSON.parse(nft('-j', 'list', 'ruleset'))
					return read
				}
				await check(sketchModel([...[...sketches, sticky].map(sketchService), ...balanced], 1))
				// nft 1.0.6 lists the data of affinity's memory as a port of TCP and does not read it: without affinity only.
				const model = sketchModel([...sketches.map(sketchService), ...balanced], 1)
				const read = await check(model)
				const file = join(folder, 'ruleset')
				writeFileSync(file, printProgram(read))
				nft('flush', 'ruleset')
				nft('-f', file)
				sameLines(printProgram(await plane.read()), printProgram(read))
				// What nft loaded is what we would have written: nothing to repair.
				assert.deepEqual(plane.diff(await plane.read(), plane.compile(model, 'node-1')), [])
			} finally {
				plane.close()
				rmSync(folder, { recursive: true })
			}
		})
	})
})
