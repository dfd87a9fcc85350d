// Services at the socket on a real kernel, nftables beside them for what sockets do not see: the same connections a
// node's pods and processes make, and what the evaluation of the programs and maps read back says of them.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer, Socket } from 'node:net'
import { describe, it } from 'node:test'
import type { Ip } from '../../src/base/ip.ts'
import { ipFromBytes, ipToBytes } from '../../src/base/ip.ts'
import type { Packet } from '../../src/base/packet.ts'
import { createEbpf, type EbpfDataplane, type EbpfProgram, ebpfUsable } from '../../src/dataplane/ebpf/ebpf.ts'
import { evaluateCall } from '../../src/dataplane/ebpf/evaluate.ts'
import { createNftables } from '../../src/dataplane/nftables/nftables.ts'
import { openConntrack, readConntrack } from '../../src/linux/conntrack.ts'
import { createNetns, deleteNetns, inNetnsAt } from '../../src/linux/netns.ts'
import {
	AF_INET,
	AF_INET6,
	bind,
	bpf,
	close,
	connect,
	inetAddress,
	listen,
	MessageReceiver,
	mountDetached,
	POLLIN,
	POLLOUT,
	readInetAddress,
	SOCK_DGRAM,
	SOCK_NONBLOCK,
	SOCK_STREAM,
	sendto,
	socket,
	waitReady,
} from '../../src/linux/syscalls.ts'
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
	type World,
	withWorld,
} from './services-world.ts'

const ip = (text: string) => text as Ip
const skip = reasonToSkip() || ebpfUsable() || false
const endpoint = (i: number, port: number) => ({ ip: podIp(i), port, node: 'node-1' })

interface Planes {
	readonly ebpf: EbpfDataplane
	readonly have: () => EbpfProgram | undefined
	bring(model: NetworkModel): Promise<void>
	close(): void
}

/** The node's two data planes as the agent runs them. */
function createPlanes(world: World, pods: number): Planes {
	const names = () => [
		{ path: world.node, ips: [] },
		...Array.from({ length: pods }, (_, i) => ({ path: world.pod(i), ips: [podIp(i), podIp(i, 6)] })),
	]
	const ebpf = createEbpf({ netns: world.node, namespaces: names })
	const nftables = createNftables({ netns: world.node })
	let have: EbpfProgram | undefined
	let packets: ReturnType<typeof nftables.compile> | undefined
	return {
		ebpf,
		have: () => have,
		async bring(model) {
			const rules = nftables.compile(model, 'node-1')
			const first = await nftables.apply(nftables.diff(packets, rules))
			if (!first.ok) throw first.error
			packets = rules
			const want = ebpf.compile(model, 'node-1')
			const outcome = await ebpf.apply(ebpf.diff(have, want))
			if (!outcome.ok) throw outcome.error
			have = want
		},
		close() {
			ebpf.close()
			nftables.close()
		},
	}
}

async function withPlanes(pods: number, test: (world: World, planes: Planes) => Promise<void>): Promise<void> {
	await withWorld(pods, async (world) => {
		const planes = createPlanes(world, pods)
		try {
			// A link drops what is sent while it comes up; TCP sends again, a datagram is lost.
			for (let i = 1; i < pods; i++)
				for (const family of [4, 6] as const)
					assert.equal(await askTcp(world.pod(0), podIp(i, family), 9), 'ECONNREFUSED')
			await test(world, planes)
		} finally {
			planes.close()
		}
	})
}

const modelOf = (sketches: readonly ServiceSketch[], pods: number) => sketchModel(sketches.map(sketchService), pods)

/** Every answer of `times` connections, each once, sorted. */
async function answers(ask: () => Promise<string>, times = 24): Promise<string[]> {
	const all = new Set<string>()
	for (let i = 0; i < times; i++) all.add(await ask())
	return [...all].sort()
}

/** The address that the kernel says a connection from `netns` leads to: without translation in packets it is the endpoint's. */
async function peerOf(netns: string, to: Ip, port: number): Promise<{ peer: string; said: string }> {
	const fd = inNetnsAt(netns, () => socket(to.includes(':') ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0))
	connect(fd, inetAddress(ipToBytes(to), port))
	await waitReady([{ fd, events: POLLOUT }], 2000)
	const connection = new Socket({ fd })
	const peer = `${connection.remoteAddress} ${connection.remotePort}`
	let said = ''
	connection.on('data', (data) => {
		said += data
	})
	await new Promise((resolve) => connection.on('close', resolve))
	return { peer, said }
}

/** A UDP socket that is not connected: asks and tells who seems to have answered. */
function datagrams(netns: string, family: 4 | 6 = 4) {
	const fd = inNetnsAt(netns, () => socket(family === 4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0))
	const receiver = new MessageReceiver(512)
	return {
		async ask(to: Uint8Array, port: number): Promise<string> {
			sendto(fd, Buffer.from('?'), inetAddress(to, port))
			const [ready = 0] = await waitReady([{ fd, events: POLLIN }], 1000)
			if (ready === 0) return 'timeout'
			const message = receiver.receive(fd)
			if (message === undefined) return 'nothing'
			const from = readInetAddress(message.address)
			return `${Buffer.from(message.bytes)} by ${ipFromBytes(from.ip)} ${from.port}`
		},
		close: () => close(fd),
	}
}

/** ::ffff:a.b.c.d */
function mapped(address: Ip): Uint8Array {
	const bytes = new Uint8Array(16)
	bytes.set([255, 255], 10)
	bytes.set(ipToBytes(address), 12)
	return bytes
}

function packet(source: Ip, to: Ip, port: number, protocol: Packet['protocol'] = 'TCP'): Packet {
	return { protocol, source, destination: to, sourcePort: 0, destinationPort: port, state: 'new', mark: 0 }
}

const web: ServiceSketch = {
	name: 'web',
	ips: ['10.96.0.1', 'fd00:10:96::1'],
	ports: [
		{
			port: 80,
			endpoints: [endpoint(1, 8080), endpoint(2, 8080), { ip: podIp(2, 6), port: 8080, node: 'node-1' }],
		},
		{ port: 53, protocol: 'UDP', endpoints: [endpoint(1, 5353), endpoint(2, 5353)] },
	],
}

function serve(world: World): void {
	for (const i of [1, 2]) {
		world.serveTcp(world.pod(i), 8080, `pod-${i}`)
		world.serveUdp(world.pod(i), 5353, `dns-${i}`)
	}
}

/** A process that keeps Services at sockets in force until it is killed; prints the numbers of its links. */
const daemon = `
import { readFileSync, readdirSync } from 'node:fs'
import { createEbpf } from ${JSON.stringify(new URL('../../src/dataplane/ebpf/ebpf.ts', import.meta.url).pathname)}
import { podIp, sketchModel, sketchService } from ${JSON.stringify(new URL('./services-world.ts', import.meta.url).pathname)}
const { sketches, node, pods } = JSON.parse(readFileSync(0, 'utf8'))
const namespaces = () => [{ path: node, ips: [] }, ...pods.map((path, i) => ({ path, ips: [podIp(i)] }))]
const plane = createEbpf({ netns: node, namespaces })
const program = plane.compile(sketchModel(sketches.map(sketchService), pods.length), 'node-1')
const outcome = await plane.apply(plane.diff(undefined, program))
if (!outcome.ok) throw outcome.error
const links = readdirSync('/proc/self/fd').flatMap((fd) => {
	try {
		return /^link_id:\\s*([0-9]+)/m.exec(readFileSync('/proc/self/fdinfo/' + fd, 'utf8'))?.[1] ?? []
	} catch {
		return []
	}
})
console.log(JSON.stringify(links.map(Number)))
setInterval(() => plane.memory(), 1000)
`

/** BPF_LINK_GET_FD_BY_ID. */
function linkExists(id: number): boolean {
	const attribute = new Uint8Array(new ArrayBuffer(12))
	new DataView(attribute.buffer).setUint32(0, id, true)
	const fd = bpf(30, attribute)
	if (fd >= 0) close(fd)
	return fd >= 0
}

function echoServer(netns: string, port: number): { close(): void } {
	const fd = inNetnsAt(netns, () => socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0))
	bind(fd, inetAddress(new Uint8Array(4), port))
	listen(fd, 16)
	return createServer((connection) => connection.on('error', () => {}).pipe(connection)).listen({ fd })
}

/** Answers every datagram of IPv6 with `name`. */
function echoDatagrams(netns: string, port: number, name: string): { close(): void } {
	const fd = inNetnsAt(netns, () => socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0))
	bind(fd, inetAddress(new Uint8Array(16), port))
	const server = createSocket('udp6')
	server.on('message', (_, from) => server.send(name, from.port, from.address))
	server.bind({ fd })
	return server
}

async function connectTo(netns: string, to: Ip, port: number) {
	const fd = inNetnsAt(netns, () => socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0))
	connect(fd, inetAddress(ipToBytes(to), port))
	await waitReady([{ fd, events: POLLOUT }], 2000)
	const connection = new Socket({ fd })
	return {
		async echo(text: string): Promise<string> {
			connection.write(text)
			return String((await once(connection, 'data', { signal: AbortSignal.timeout(2000) }))[0])
		},
		peer: () => connection.remoteAddress,
		close: () => connection.destroy(),
	}
}

describe('services at the socket', { skip }, () => {
	it('leads TCP of pods and of the node to endpoints, IPv4, IPv6 and IPv4 in IPv6 sockets', async () => {
		await withPlanes(3, async (world, planes) => {
			serve(world)
			await planes.bring(modelOf([web], 3))
			const both = ['pod-1 10.244.1.2', 'pod-2 10.244.1.2']
			assert.deepEqual(await answers(() => askTcp(world.pod(0), ip('10.96.0.1'), 80)), both)
			assert.deepEqual(await answers(() => askTcp(world.node, ip('10.96.0.1'), 80)), [
				`pod-1 ${nodeAddress}`,
				`pod-2 ${nodeAddress}`,
			])
			assert.equal(await askTcp(world.pod(0), ip('fd00:10:96::1'), 80), `pod-2 ${podIp(0, 6)}`)
			assert.deepEqual(await answers(() => askTcp(world.pod(0), ip('::ffff:10.96.0.1'), 80)), both)
			// No packet was translated: connection tracking saw none for the Service.
			const conntrack = inNetnsAt(world.node, openConntrack)
			try {
				const asked = readConntrack(conntrack, { original: { protocol: 'TCP', destination: ip('10.96.0.1') } })
				assert.deepEqual(asked, [])
			} finally {
				conntrack.close()
			}
		})
	})

	it('getpeername names the Service, not the endpoint', async () => {
		await withPlanes(3, async (world, planes) => {
			serve(world)
			await planes.bring(modelOf([web], 3))
			const four = await peerOf(world.pod(0), ip('10.96.0.1'), 80)
			assert.equal(four.peer, '10.96.0.1 80')
			assert.match(four.said, /^pod-[12] /)
			assert.equal((await peerOf(world.pod(0), ip('fd00:10:96::1'), 80)).peer, 'fd00:10:96::1 80')
			assert.equal((await peerOf(world.pod(0), ip('::ffff:10.96.0.1'), 80)).peer, '::ffff:10.96.0.1 80')
			assert.equal((await peerOf(world.pod(0), podIp(1), 8080)).peer, `${podIp(1)} 8080`)
		})
	})

	it('datagrams of an unconnected socket stay with one endpoint, answers come from the Service; endpoints that leave are left', async () => {
		await withPlanes(3, async (world, planes) => {
			serve(world)
			await planes.bring(modelOf([web], 3))
			const to = ipToBytes(ip('10.96.0.1'))
			const first = datagrams(world.pod(0))
			const one = await answers(() => first.ask(to, 53), 12)
			assert.equal(one.length, 1)
			assert.match(one[0] ?? '', /^dns-[12] 10\.244\.1\.2 by 10\.96\.0\.1 53$/)
			// Another socket chooses for itself.
			const seen = await answers(async () => {
				const other = datagrams(world.pod(0))
				try {
					return await other.ask(to, 53)
				} finally {
					other.close()
				}
			})
			assert.equal(seen.length, 2)
			const six = datagrams(world.pod(0), 6)
			assert.match(await six.ask(mapped(ip('10.96.0.1')), 53), /^dns-[12] 10\.244\.1\.2 by ::ffff:a60:1 53$/)
			six.close()
			const left = one[0]?.startsWith('dns-1') === true ? 2 : 1
			await planes.bring(
				modelOf([{ ...web, ports: [{ port: 53, protocol: 'UDP', endpoints: [endpoint(left, 5353)] }] }], 3),
			)
			assert.deepEqual(await answers(() => first.ask(to, 53), 6), [`dns-${left} 10.244.1.2 by 10.96.0.1 53`])
			first.close()
		})
	})

	it('datagrams of IPv6, and with session affinity: then all sockets of a client have one endpoint', async () => {
		await withPlanes(3, async (world, planes) => {
			const ends = [1, 2].map((i) => echoDatagrams(world.pod(i), 5353, `dns-${i}`))
			try {
				const six = (affinity: number | undefined): ServiceSketch => ({
					name: 'six',
					ips: ['fd00:10:96::5'],
					ports: [
						{
							port: 53,
							protocol: 'UDP',
							endpoints: [1, 2].map((i) => ({ ip: podIp(i, 6), port: 5353, node: 'node-1' })),
						},
					],
					...(affinity === undefined ? {} : { more: { sessionAffinity: affinity } }),
				})
				for (const affinity of [undefined, 600]) {
					await planes.bring(modelOf([six(affinity)], 3))
					const seen = await answers(async () => {
						const one = datagrams(world.pod(0), 6)
						try {
							return await one.ask(ipToBytes(ip('fd00:10:96::5')), 53)
						} finally {
							one.close()
						}
					})
					assert.equal(seen.length, affinity === undefined ? 2 : 1)
					for (const said of seen) assert.match(said, /^dns-[12] by fd00:10:96::5 53$/)
				}
			} finally {
				for (const end of ends) end.close()
			}
		})
	})

	it('leaves connected UDP to packets, whose connection tracking follows the endpoints', async () => {
		await withPlanes(3, async (world, planes) => {
			serve(world)
			await planes.bring(modelOf([web], 3))
			const seen = await answers(() => askUdp(world.pod(0), ip('10.96.0.1'), 53))
			assert.deepEqual(seen, ['dns-1 10.244.1.2', 'dns-2 10.244.1.2'])
		})
	})

	it('a pod that is an endpoint itself is left to packets, which masquerade it', async () => {
		await withPlanes(3, async (world, planes) => {
			serve(world)
			await planes.bring(modelOf([web], 3))
			const seen = await answers(() => askTcp(world.pod(1), ip('10.96.0.1'), 80))
			assert.equal(seen.length, 2)
			assert.ok(seen.includes('pod-2 10.244.1.3'), seen.join())
			// As the node, by an address it has towards the pod.
			assert.ok(
				seen.some((s) => s.startsWith('pod-1 ') && s !== 'pod-1 10.244.1.3'),
				seen.join(),
			)
		})
	})

	it('session affinity: a client keeps its endpoint, until that leaves', async () => {
		await withPlanes(4, async (world, planes) => {
			for (const i of [1, 2, 3]) world.serveTcp(world.pod(i), 8080, `pod-${i}`)
			const sticky = (pods: readonly number[]): ServiceSketch => ({
				name: 'sticky',
				ips: ['10.96.0.9'],
				ports: [{ port: 80, endpoints: pods.map((i) => endpoint(i, 8080)) }],
				more: { sessionAffinity: 600 },
			})
			await planes.bring(modelOf([sticky([1, 2, 3])], 4))
			const ask = () => askTcp(world.pod(0), ip('10.96.0.9'), 80)
			const [had = '', ...others] = await answers(ask)
			assert.deepEqual(others, [])
			const read = await planes.ebpf.read()
			assert.deepEqual(
				read.clients?.map((c) => [c.namespace, c.frontend]),
				[[world.pod(0), '10.96.0.9 tcp 80']],
			)
			assert.deepEqual(
				planes.ebpf.evaluate(read, packet(podIp(0), ip('10.96.0.9'), 80), 'connect').map((o) => o.chance),
				[1],
			)
			const gone = Number(had[4])
			await planes.bring(modelOf([sticky([1, 2, 3].filter((i) => i !== gone))], 4))
			const [now = '', ...more] = await answers(ask)
			assert.deepEqual(more, [])
			assert.notEqual(now, had)
		})
	})

	it('many endpoints, in several chunks; fewer again; the maps grow under load', async () => {
		await withPlanes(2, async (world, planes) => {
			const ports = Array.from({ length: 20 }, (_, i) => 9000 + i)
			for (const port of ports) world.serveTcp(world.pod(1), port, `port-${port}`)
			const many = (count: number): ServiceSketch => ({
				name: 'many',
				ips: ['10.96.0.6'],
				ports: [{ port: 80, endpoints: ports.slice(0, count).map((port) => endpoint(1, port)) }],
			})
			const others = Array.from(
				{ length: 600 },
				(_, i): ServiceSketch => ({
					name: `other-${i}`,
					ips: [`10.96.${10 + (i >> 8)}.${i & 255}`],
					ports: [{ port: 80, endpoints: [endpoint(1, 9000)] }],
				}),
			)
			const ask = () => askTcp(world.pod(0), ip('10.96.0.6'), 80)
			for (const [count, more] of [
				[20, []],
				[8, []],
				[15, others],
				[3, []],
			] as const) {
				await planes.bring(modelOf([many(count), ...more], 2))
				const seen = await answers(ask, count * 8)
				assert.ok(seen.length > count / 2 && seen.length <= count, `${count}: ${seen.length}`)
				assert.ok(seen.every((s) => ports.slice(0, count).some((port) => s.startsWith(`port-${port} `))))
				const read = await planes.ebpf.read()
				assert.deepEqual(planes.ebpf.diff(read, planes.have() as EbpfProgram), [])
			}
		})
	})

	it('node ports and external addresses where no masquerade is needed; the rest by packets', async () => {
		await withPlanes(3, async (world, planes) => {
			serve(world)
			const external = (policy: 'Local' | 'Cluster') => {
				const service = sketchService({
					name: 'external',
					ips: ['10.96.0.7'],
					ports: [{ port: 80, endpoints: [endpoint(1, 8080)] }],
					more: { type: 'NodePort', externalTrafficPolicy: policy, externalIps: [ip('192.0.2.1')] },
				})
				return { ...service, ports: service.ports.map((port) => ({ ...port, nodePort: 30080 })) }
			}
			for (const policy of ['Cluster', 'Local'] as const) {
				await planes.bring(sketchModel([external(policy)], 3))
				assert.equal(await askTcp(world.node, nodeAddress, 30080), `pod-1 ${nodeAddress}`)
				const from = policy === 'Local' ? '10.244.1.2' : /^pod-1 (?!10\.244\.1\.2)/
				for (const [to, port] of [
					[nodeAddress, 30080],
					[ip('192.0.2.1'), 80],
				] as const) {
					const said = await askTcp(world.pod(0), to, port)
					if (typeof from === 'string') assert.equal(said, `pod-1 ${from}`)
					else assert.match(said, from)
				}
			}
		})
	})

	it('sockets of other namespaces are not touched, and nothing is left behind', async () => {
		await withPlanes(3, async (world, planes) => {
			serve(world)
			const model = modelOf([web], 3)
			await planes.bring(model)
			// The namespace outside has a route to the Service network, but is none of the node's.
			assert.equal((await answers(() => askTcp(world.outside, ip('10.96.0.1'), 80), 3)).length > 0, true)
			const program = await planes.ebpf.read()
			assert.deepEqual(planes.ebpf.evaluate(program, packet(ip('172.18.0.1'), ip('10.96.0.1'), 80), 'connect'), [
				{ verdict: 'accept', packet: packet(ip('172.18.0.1'), ip('10.96.0.1'), 80), rules: [], chance: 1 },
			])
			const before = await peerOf(world.pod(0), ip('10.96.0.1'), 80)
			assert.match(before.said, /^pod/)
			const outcome = await planes.ebpf.apply(planes.ebpf.diff(planes.have(), planes.ebpf.empty))
			assert.deepEqual(outcome, { ok: true })
			assert.equal(await planes.ebpf.read(), planes.ebpf.empty)
			assert.equal(planes.ebpf.memory(), 0)
			// Packets carry on.
			assert.match(await askTcp(world.pod(0), ip('10.96.0.1'), 80), /^pod-[12] 10\.244\.1\.2$/)
		})
	})

	it('a namespace made anew at the same path is known again after reading back', async () => {
		await withPlanes(3, async (world, planes) => {
			await planes.bring(modelOf([web], 3))
			deleteNetns(world.pod(0))
			createNetns(world.pod(0))
			const read = await planes.ebpf.read()
			const old = [...read.namespaces.keys()].filter((path) => path.startsWith('cookie '))
			assert.equal(old.length, 1)
			const want = planes.have() as EbpfProgram
			const changes = planes.ebpf.diff(read, want)
			assert.deepEqual(
				changes.map((c) => c.change),
				['namespaces'],
			)
			assert.deepEqual(await planes.ebpf.apply(changes), { ok: true })
			assert.deepEqual(planes.ebpf.diff(await planes.ebpf.read(), want), [])
		})
	})

	it('when the process dies nothing is left of it: established connections go on, new ones by packets', async () => {
		await withWorld(3, async (world) => {
			serve(world)
			const echo = echoServer(world.pod(1), 7777)
			const nftables = createNftables({ netns: world.node })
			const sketches: ServiceSketch[] = [
				web,
				{ name: 'echo', ips: ['10.96.0.8'], ports: [{ port: 7, endpoints: [endpoint(1, 7777)] }] },
			]
			const model = modelOf(sketches, 3)
			const rules = await nftables.apply(nftables.diff(undefined, nftables.compile(model, 'node-1')))
			if (!rules.ok) throw rules.error
			const child = spawn(
				process.execPath,
				['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', daemon],
				{
					stdio: ['pipe', 'pipe', 'inherit'],
				},
			)
			try {
				const said = once(child.stdout, 'data')
				child.stdin.end(JSON.stringify({ sketches, node: world.node, pods: [0, 1, 2].map((i) => world.pod(i)) }))
				const links = JSON.parse(String((await said)[0])) as number[]
				assert.equal(links.length, 8)
				assert.deepEqual(
					links.map(linkExists),
					links.map(() => true),
				)
				const connection = await connectTo(world.pod(0), ip('10.96.0.8'), 7)
				assert.equal(await connection.echo('before'), 'before')
				assert.equal(connection.peer(), '10.96.0.8')
				child.kill('SIGKILL')
				await once(child, 'exit')
				assert.deepEqual(
					links.map(linkExists),
					links.map(() => false),
				)
				assert.equal(await connection.echo('after'), 'after')
				// Nobody names the Service any more.
				const other = await connectTo(world.pod(0), ip('10.96.0.8'), 7)
				assert.equal(await other.echo('by packets'), 'by packets')
				connection.close()
				other.close()
			} finally {
				child.kill('SIGKILL')
				echo.close()
				nftables.close()
			}
		})
	})

	it('works where the control groups are mounted nowhere', async () => {
		await withWorld(3, async (world) => {
			serve(world)
			const cgroup = mountDetached('cgroup2')
			const plane = createEbpf({ netns: world.node, cgroup })
			try {
				const program = plane.compile(modelOf([web], 3), 'node-1')
				assert.deepEqual(await plane.apply(plane.diff(undefined, program)), { ok: true })
				assert.match(await askTcp(world.node, ip('10.96.0.1'), 80), /^pod-[12] /)
			} finally {
				plane.close()
				close(cgroup)
			}
		})
	})

	it('what is evaluated is what happens', async () => {
		await withPlanes(3, async (world, planes) => {
			serve(world)
			await planes.bring(modelOf([web], 3))
			const program = planes.ebpf.fromJson(JSON.parse(JSON.stringify(planes.ebpf.toJson(await planes.ebpf.read()))))
			const outcomes = planes.ebpf.evaluate(program, packet(podIp(0), ip('10.96.0.1'), 80), 'connect')
			assert.deepEqual(
				outcomes.map((o) => [o.verdict, o.packet.destination, o.packet.destinationPort, o.chance]),
				[
					['accept', podIp(1), 8080, 0.5],
					['accept', podIp(2), 8080, 0.5],
				],
			)
			assert.deepEqual(outcomes[0]?.rules, [
				{
					family: 'bpf',
					table: 'connect4',
					chain: 'frontends4',
					text: '10.96.0.1 tcp 80 becomes 10.244.1.3:8080: one of 2 endpoints',
					comment: 'Service default/web spec.ports[0] services.yaml:3',
					elements: [
						`namespaces: ${world.pod(0)} : pod`,
						'frontends4: 10.96.0.1 tcp 80 : 2 endpoints',
						'frontends4: slot 0 : 10.244.1.3:8080',
					],
					because: [
						{
							kind: 'Service',
							key: 'default/web',
							field: 'spec.ports[0]',
							source: { file: 'services.yaml', line: 3 },
						},
					],
				},
			])
			const own = planes.ebpf.evaluate(program, packet(podIp(1), ip('10.96.0.1'), 80), 'connect')
			assert.deepEqual(
				own.map((o) => [o.packet.destination, o.chance, o.rules[0]?.text]),
				[
					[
						ip('10.96.0.1'),
						1,
						'10.96.0.1 tcp 80 left to packets: this pod is one of its endpoints, and one that reaches itself must be masqueraded',
					],
				],
			)
			assert.deepEqual(
				evaluateCall(program, packet(podIp(0), ip('10.96.0.1'), 53, 'UDP'), 'sendmsg').map((o) => [
					o.packet.destination,
					o.chance,
				]),
				[
					[podIp(1), 0.5],
					[podIp(2), 0.5],
				],
			)
			assert.deepEqual(
				planes.ebpf
					.evaluate(program, packet(podIp(0), ip('10.96.0.1'), 53, 'UDP'), 'connect')
					.map((o) => o.packet.destination),
				[ip('10.96.0.1')],
			)
		})
	})
})
