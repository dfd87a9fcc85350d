// A probe against the kernel: what happened to one connection, and that nothing of the probe stays.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type Server } from 'node:net'
import { describe, it } from 'node:test'
import { createProber, type ProbeAccess, probe } from '../../src/agent/probe.ts'
import type { ProbeRequest, Sighting } from '../../src/agent/protocol.ts'
import { type Ip, ipToBytes } from '../../src/base/ip.ts'
import type { Attachment } from '../../src/dataplane/links/program.ts'
import { NetlinkEncoder } from '../../src/linux/netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../../src/linux/netlink/socket.ts'
import { inNetnsAt } from '../../src/linux/netns.ts'
import {
	addresses,
	count,
	dnatByMap,
	fieldsOf,
	l4proto,
	matchAddress,
	matchPort,
	matchProtocol,
	random,
	rejectTcp,
	th,
} from '../../src/linux/nft/build.ts'
import type { NftChange } from '../../src/linux/nft/change.ts'
import type { Expression } from '../../src/linux/nft/expr/expression.ts'
import type { NftRule } from '../../src/linux/nft/program.ts'
import { readProgram } from '../../src/linux/nft/read.ts'
import { applyChanges, openNftSocket } from '../../src/linux/nft/transaction.ts'
import { addRoute } from '../../src/linux/route/routes.ts'
import {
	AF_INET,
	bind,
	close,
	inetAddress,
	listen,
	MessageReceiver,
	POLLIN,
	SOCK_DGRAM,
	SOCK_NONBLOCK,
	SOCK_STREAM,
	sendto,
	socket,
	waitReady,
} from '../../src/linux/syscalls.ts'
import { objectOrigin } from '../../src/model/origin.ts'
import { type Bench, cidr, ip, reasonToSkip, withNodes } from './two-nodes.ts'

const service = ip('10.96.0.10')

interface Pods extends Bench {
	/** Closed after the test, however it ends. */
	readonly servers: Server[]
}

/** A TCP server inside a pod: the socket is made there, node serves it. */
async function serve(
	{ servers }: Pods,
	pod: Attachment,
	port: number,
	greet: (send: (text: string) => void) => void,
): Promise<void> {
	const fd = inNetnsAt(pod.namespace, () => {
		const made = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)
		bind(made, inetAddress(ipToBytes(pod.ips[0]!), port))
		listen(made, 16)
		return made
	})
	const server = createServer((client) => {
		client.on('error', () => undefined)
		client.on('data', (data) => client.end(`you said ${data.toString().split('\r')[0]}`))
		greet((text) => client.write(text))
	})
	servers.push(server)
	server.listen({ fd })
	await once(server, 'listening')
}

const word = (address: Ip) => Buffer.from(ipToBytes(address)).toString('hex')

/** Sends connections for the Service to an endpoint, as a data plane would, in a node's namespace. */
function install(
	netns: string,
	rules: Readonly<Record<string, readonly NftRule[]>>,
	sets: readonly NftChange[] = [],
): void {
	const table = { family: 'ip', table: 'test' } as const
	const changes: NftChange[] = [
		{ ...table, op: 'add-table' },
		{
			...table,
			op: 'add-chain',
			chain: { name: 'nat', base: { type: 'nat', hook: 'prerouting', priority: -100, policy: 'accept' } },
		},
		{
			...table,
			op: 'add-chain',
			chain: { name: 'filter', base: { type: 'filter', hook: 'forward', priority: 0, policy: 'accept' } },
		},
	]
	changes.push(...sets)
	for (const [chain, list] of Object.entries(rules))
		for (const rule of list) changes.push({ ...table, op: 'add-rule', chain, rule })
	inNetnsAt(netns, () => {
		const nft = openNftSocket()
		try {
			applyChanges(nft, changes)
		} finally {
			nft.close()
		}
	})
}

const toService = (protocol: number, port: number): Expression[] => [
	...matchAddress(addresses('ip').daddr, service),
	...matchProtocol(protocol),
	...matchPort(th.dport, port),
]

const translate = (protocol: number, port: number, to: Ip, toPort: number, comment: string): NftRule => ({
	expressions: [
		...toService(protocol, port),
		count,
		{ kind: 'immediate', to: 0, value: word(to) },
		{ kind: 'immediate', to: 1, value: toPort.toString(16).padStart(4, '0') },
		{ kind: 'nat', type: 'dnat', family: 'ip', address: 0, port: 1 },
	],
	comment,
})

function accessOf({ at, nodes }: Bench, pods: readonly Attachment[]): ProbeAccess {
	return {
		pod: (key) => pods.find((each) => each.pod === key),
		node: (name) =>
			nodes.some((each) => each.name === name)
				? { namespace: at(name), ips: [ip(name === 'node-1' ? '172.18.0.2' : '172.18.0.3')] }
				: undefined,
		targets: () => pods.map((each) => each.pod),
		because: (hit) => (hit.comment === undefined ? [] : [objectOrigin('Service', hit.comment)]),
	}
}

function tablesOf(netns: string): string[] {
	return inNetnsAt(netns, () => {
		const nft = openNftSocket()
		try {
			return [...readProgram(nft).tables.keys()]
		} finally {
			nft.close()
		}
	})
}

const way = (sightings: readonly Sighting[], reply: boolean) =>
	sightings
		.filter((s) => s.reply === reply)
		.map((s) => `${s.pod ?? s.node} ${s.device} ${s.direction} ${s.source}>${s.destination} ${s.flags}`)

describe('probe', { skip: reasonToSkip() }, () => {
	const both = ['node-1', 'node-2']

	async function withPods(test: (bench: Pods, client: Attachment, server: Attachment) => Promise<void>): Promise<void> {
		await withNodes(async (bench) => {
			const client = bench.attachment(1, 'client', '10.244.0.2')
			const server = bench.attachment(2, 'server', '10.244.1.2')
			await bench.nodes[0]!.wire([client])
			await bench.nodes[1]!.wire([server])
			const servers: Server[] = []
			try {
				await test({ ...bench, servers }, client, server)
			} finally {
				for (const each of servers) each.close()
			}
			for (const node of both)
				assert.ok(!tablesOf(bench.at(node)).some((name) => name.includes('trace')), 'the trace table stayed')
		})
	}

	const request = (more: Partial<ProbeRequest>): ProbeRequest => ({
		from: { pod: 'default/client' },
		to: service,
		port: 80,
		protocol: 'TCP',
		nodes: both,
		timeout: 1000,
		...more,
	})

	it('follows a TCP connection through a Service to the pod on the other node and back', async () => {
		await withPods(async (bench, client, server) => {
			install(bench.at('node-1'), { nat: [translate(6, 80, server.ips[0]!, 8080, 'default/web')] })
			await serve(bench, server, 8080, (send) => send('hello, I am server\n'))
			const result = await probe(request({}), accessOf(bench, [client, server]))
			assert.deepEqual(result.missing, [])
			assert.equal(result.outcome, 'connected')
			assert.equal(result.source.ip, '10.244.0.2')
			assert.equal(result.answer, 'hello, I am server\n')
			assert.ok(result.elapsed > 0 && result.elapsed < 1000)
			assert.deepEqual(way(result.sightings, false), [
				'default/client eth0 out 10.244.0.2>10.96.0.10 S',
				'node-1 pw1client in 10.244.0.2>10.96.0.10 S',
				'node-1 eth0 out 10.244.0.2>10.244.1.2 S',
				'node-2 eth0 in 10.244.0.2>10.244.1.2 S',
				'node-2 pw2server out 10.244.0.2>10.244.1.2 S',
				'default/server eth0 in 10.244.0.2>10.244.1.2 S',
			])
			assert.deepEqual(way(result.sightings, true), [
				'default/server eth0 out 10.244.1.2>10.244.0.2 S.',
				'node-2 pw2server in 10.244.1.2>10.244.0.2 S.',
				'node-2 eth0 out 10.244.1.2>10.244.0.2 S.',
				'node-1 eth0 in 10.244.1.2>10.244.0.2 S.',
				'node-1 pw1client out 10.96.0.10>10.244.0.2 S.',
				'default/client eth0 in 10.96.0.10>10.244.0.2 S.',
			])
			const times = result.sightings.map((s) => s.microseconds)
			assert.equal(times[0], 0)
			assert.deepEqual(
				times,
				[...times].sort((a, b) => a - b),
			)
			const hit = result.rules.find((rule) => rule.comment === 'default/web')
			assert.equal(hit?.node, 'node-1')
			assert.equal(hit?.table, 'test')
			assert.equal(hit?.chain, 'nat')
			assert.match(hit?.text ?? '', /ip daddr 10\.96\.0\.10 .*dnat to 10\.244\.1\.2:8080/)
			assert.ok((hit?.handle ?? 0) > 0)
			assert.equal(hit?.verdict, 'accept')
			assert.deepEqual(hit?.because, [objectOrigin('Service', 'default/web')])
			// The first packet each way, each chain once: later packets of the connection tell nothing new.
			assert.deepEqual(
				result.rules.map((rule) => `${rule.node} ${rule.chain} ${rule.comment ?? rule.text}: ${rule.verdict}`),
				[
					'node-1 nat default/web: accept',
					'node-1 filter policy of chain filter: accept',
					'node-1 filter policy of chain filter: accept',
				],
			)
			assert.equal(result.conntrack.length, 1)
			assert.deepEqual(result.conntrack[0], {
				node: 'node-1',
				protocol: 'TCP',
				state: 'ESTABLISHED',
				original: {
					source: '10.244.0.2',
					sourcePort: result.source.port,
					destination: '10.96.0.10',
					destinationPort: 80,
				},
				reply: {
					source: '10.244.1.2',
					sourcePort: 8080,
					destination: '10.244.0.2',
					destinationPort: result.source.port,
				},
			})
			assert.deepEqual(
				result.counters.map((c) => [c.node, c.rule.comment, c.packets]),
				[['node-1', 'default/web', 1]],
			)
		})
	})

	it('names the map element that chose the endpoint, among many that could have', async () => {
		await withPods(async (bench, client, server) => {
			const key = [addresses('ip').daddr, l4proto, th.dport, random(4)]
			const elements = [0, 1, 2, 3].map(
				(slot) =>
					[
						`10.96.0.10 . tcp . 80 . ${slot}`,
						{ data: `10.244.1.2 . ${8080 + slot}`, comment: `slot ${slot}` },
					] as const,
			)
			const set = {
				name: 'endpoints',
				key: fieldsOf(key),
				data: fieldsOf([addresses('ip').daddr, th.dport]),
				flags: [],
			}
			const place = { family: 'ip', table: 'test' } as const
			install(
				bench.at('node-1'),
				{ nat: [{ expressions: dnatByMap('ip', key, 'endpoints'), comment: 'Services with 4 endpoints' }] },
				[
					{ ...place, op: 'add-set', set },
					{ ...place, op: 'add-elements', set, elements },
				],
			)
			for (const slot of [0, 1, 2, 3]) await serve(bench, server, 8080 + slot, (send) => send(`slot ${slot}\n`))
			const access = accessOf(bench, [client, server])
			for (let i = 0; i < 4; i++) {
				const result = await probe(request({}), access)
				const slot = result.answer?.trim().split(' ')[1]
				const hit = result.rules.find((rule) => rule.comment === 'Services with 4 endpoints')
				assert.deepEqual(hit?.elements, [
					`10.96.0.10 . tcp . 80 . ${slot} comment "slot ${slot}" : 10.244.1.2 . ${8080 + Number(slot)}`,
				])
			}
		})
	})

	it('asks a server that waits to be asked', async () => {
		await withPods(async (bench, client, server) => {
			await serve(bench, server, 8080, () => undefined)
			const result = await probe(request({ to: server.ips[0]!, port: 8080 }), accessOf(bench, [client, server]))
			assert.equal(result.answer, 'you said GET / HTTP/1.1')
			assert.deepEqual(result.conntrack, [])
		})
	})

	it('tells a refusal by the far side, by a rule, silence, and no route', async () => {
		await withPods(async (bench, client, server) => {
			const access = accessOf(bench, [client, server])
			const closed = await probe(request({ to: server.ips[0]!, port: 9 }), access)
			assert.equal(closed.outcome, 'refused')
			assert.equal(closed.errno, 'ECONNREFUSED')
			assert.deepEqual(way(closed.sightings, true).at(0), 'default/server eth0 out 10.244.1.2>10.244.0.2 R.')

			install(bench.at('node-1'), {
				filter: [
					{ expressions: [...toService(6, 81), { ...rejectTcp }], comment: 'no endpoints' },
					{ expressions: [...toService(6, 82), { kind: 'verdict', verdict: 'drop' }], comment: 'dropped' },
				],
			})
			// Without a route the packet would not come as far as forward.
			const e = new NetlinkEncoder()
			addRoute(e, { destination: cidr('10.96.0.0/16'), via: ip('172.18.0.1'), index: 2 })
			const route = inNetnsAt(bench.at('node-1'), () => new NetlinkSocket(NETLINK_ROUTE))
			route.request(e)
			route.close()

			const rejected = await probe(request({ port: 81 }), access)
			assert.equal(rejected.outcome, 'refused')
			assert.equal(rejected.rules.find((rule) => rule.comment === 'no endpoints')?.node, 'node-1')
			assert.deepEqual(way(rejected.sightings, false), [
				'default/client eth0 out 10.244.0.2>10.96.0.10 S',
				'node-1 pw1client in 10.244.0.2>10.96.0.10 S',
			])
			const silent = await probe(request({ port: 82, timeout: 100 }), access)
			assert.equal(silent.outcome, 'timeout')
			assert.equal(silent.rules.find((rule) => rule.comment === 'dropped')?.verdict, 'drop')
			assert.ok(silent.elapsed >= 95)
			const unassigned = await probe(request({ to: ip('10.244.0.200') }), access)
			assert.equal(unassigned.outcome, 'unreachable')
			assert.equal(unassigned.errno, 'EHOSTUNREACH')
			assert.match(way(unassigned.sightings, true).join(), /icmp 3\/1/)
		})
	})

	it('exchanges UDP datagrams of its own or of the caller', async () => {
		await withPods(async (bench, client, server) => {
			install(bench.at('node-1'), { nat: [translate(17, 53, server.ips[0]!, 5353, 'kube-system/kube-dns')] })
			const fd = inNetnsAt(server.namespace, () => {
				const made = socket(AF_INET, SOCK_DGRAM, 0)
				bind(made, inetAddress(ipToBytes(server.ips[0]!), 5353))
				return made
			})
			const receiver = new MessageReceiver(500)
			const echo = async () => {
				await waitReady([{ fd, events: POLLIN }], 1000)
				const message = receiver.receive(fd)
				if (message !== undefined) sendto(fd, Buffer.from([...message.bytes].reverse()), message.address.slice())
			}
			const access = accessOf(bench, [client, server])
			const answering = echo()
			const result = await probe(
				request({ protocol: 'UDP', port: 53, payload: Buffer.from([1, 2, 250]).toString('base64') }),
				access,
			)
			await answering
			assert.equal(result.outcome, 'connected')
			assert.deepEqual([...Buffer.from(result.answerBytes!, 'base64')], [250, 2, 1])
			assert.equal(result.conntrack[0]?.reply.source, '10.244.1.2')
			close(fd)
			const refused = await probe(request({ protocol: 'UDP', port: 53 }), access)
			assert.equal(refused.outcome, 'refused')
			assert.match(way(refused.sightings, true).join(), /icmp 3\/3/)
		})
	})

	it('probes from a node, one at a time, replaces what a crash left, says what it lacks', async () => {
		await withPods(async (bench, client, server) => {
			const access = accessOf(bench, [client, server])
			const left: NftChange[] = [
				{ op: 'add-table', family: 'inet', table: 'podwire_trace' },
				{ op: 'add-chain', family: 'inet', table: 'podwire_trace', chain: { name: 'old' } },
			]
			inNetnsAt(bench.at('node-1'), () => {
				const nft = openNftSocket()
				applyChanges(nft, left)
				nft.close()
			})
			await serve(bench, server, 8080, (send) => send('hi\n'))
			const prober = createProber(access)
			const probes = [1, 2, 3].map(() =>
				prober.probe(request({ from: { node: 'node-1' }, to: server.ips[0]!, port: 8080, nodes: [...both, 'node-9'] })),
			)
			for (const result of await Promise.all(probes)) {
				assert.equal(result.outcome, 'connected')
				assert.equal(result.source.ip, '172.18.0.2')
				assert.deepEqual(result.missing, ['everything on node "node-9": it is not on this machine'])
				assert.deepEqual(way(result.sightings, false).at(0), 'node-1 eth0 out 172.18.0.2>10.244.1.2 S')
			}
			await assert.rejects(probe(request({ from: { pod: 'default/gone' } }), access), { code: 'NotFound' })
			await assert.rejects(probe(request({ protocol: 'SCTP' }), access), { code: 'Unsupported' })
		})
	})
})
