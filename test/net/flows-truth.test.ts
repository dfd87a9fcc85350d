// Each flow that observe tells, against what was sent: pods, Services, node ports, nodes, who is outside, of both families
// and all protocols, while a policy denies; field by field, nothing missing, nothing more.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type FlowEvent, flowPorts, flowProtocol, isLost } from '../../src/agent/flow-event.ts'
import type { ProbeRequest } from '../../src/agent/protocol.ts'
import { type Ip, ipToBytes } from '../../src/base/ip.ts'
import { services } from '../../src/kube/kinds.ts'
import type { Service } from '../../src/kube/objects/core.ts'
import { inNetnsAt } from '../../src/linux/netns.ts'
import { printProgram } from '../../src/linux/nft/print.ts'
import { AF_INET, AF_INET6, close, inetAddress, SOCK_RAW, sendto, socket } from '../../src/linux/syscalls.ts'
import { createTestLab, podObject, skip, type TestLab } from './lab.ts'

const families = [4, 6] as const
type Family = (typeof families)[number]
const where = { skip, concurrency: false }

let lab: TestLab
const seen: FlowEvent[] = []
const abort = new AbortController()
let reading: Promise<void>
const addresses: Record<string, Record<Family, string>> = {
	'node-1': { 4: '172.18.0.2', 6: 'fd00:172:18::2' },
	'node-2': { 4: '172.18.0.3', 6: 'fd00:172:18::3' },
	outside: { 4: '203.0.113.1', 6: '2001:db8:113::1' },
}
const ofFamily = (ips: readonly string[], family: Family) => ips.find((ip) => ip.includes(':') === (family === 6)) ?? ''
const byFamily = (ips: readonly string[]) => ({ 4: ofFamily(ips, 4), 6: ofFamily(ips, 6) })

before(async () => {
	if (skip) return
	lab = await createTestLab('flows-truth', undefined, { nodes: 2, dataplane: 'kernel', ipFamily: 'dual' })
	for (const [name, node] of [
		['cli', 'node-1'],
		['open', 'node-2'],
		['shut', 'node-2'],
	] as const)
		await lab.create(
			podObject(name, {
				nodeName: node,
				containers: [
					{ name: 'c', image: 'nginx', ports: [{ containerPort: 80 }, { containerPort: 5353, protocol: 'UDP' }] },
				],
			}),
		)
	for (const name of ['cli', 'open', 'shut'])
		addresses[name] = byFamily(((await lab.pod(name)).status?.podIPs ?? []).map((p) => p.ip))
	for (const [i, name] of ['open', 'shut'].entries()) {
		await lab.create({
			apiVersion: 'v1',
			kind: 'Service',
			metadata: { name, namespace: 'default' },
			spec: {
				type: 'NodePort',
				selector: { app: name },
				ipFamilyPolicy: 'RequireDualStack',
				ports: [
					{ name: 'tcp', port: 81, targetPort: 80, nodePort: 30080 + i },
					{ name: 'udp', port: 54, targetPort: 5353, protocol: 'UDP', nodePort: 30080 + i },
				],
			},
		})
		const service = (await lab.client.list(services)).items.find((s): s is Service => s.metadata.name === name)
		addresses[`svc/${name}`] = byFamily(service?.spec?.clusterIPs ?? [])
	}
	await lab.create({
		apiVersion: 'networking.k8s.io/v1',
		kind: 'NetworkPolicy',
		metadata: { name: 'shut', namespace: 'default' },
		spec: { podSelector: { matchLabels: { app: 'shut' } }, policyTypes: ['Ingress'] },
	})
	for (const node of ['node-1', 'node-2'])
		await lab.until(async () => {
			const text = printProgram((await lab.handle.client.agent.read(node)).nftables)
			const served = ['ip', 'ip6'].every((f) => text.includes(`table ${f} podwire `))
			return served && (node === 'node-1' || text.includes('default/shut')) ? true : undefined
		})
	reading = (async () => {
		const all = { filter: { namespace: 'default' }, follow: true, last: 0 }
		for await (const message of lab.handle.client.flows(all, abort.signal)) if (!isLost(message)) seen.push(message)
	})()
	// Flows to a port that is not asked below say that each node's events are heard, and that those before were.
	for (const family of families) {
		await lab.until(async () => {
			await send('cli', 'open', 7777, 'TCP', family)
			return heard(7777, family) ? true : undefined
		}, 20)
		await lab.until(async () => ((await reaches('cli', 'svc/open', 81, family)) ? true : undefined), 20)
		await lab.until(async () => ((await reaches('outside', 'node-1', 30_080, family)) ? true : undefined), 20)
		await send('cli', 'open', 7778, 'TCP', family)
		await lab.until(async () => (heard(7778, family) ? true : undefined))
	}
})

/** By both nodes. */
function heard(port: number, family: Family): boolean {
	const version = family === 4 ? 'IPv4' : 'IPv6'
	return ['node-1', 'node-2'].every((node) =>
		seen.some(
			({ node_name, flow }) =>
				node_name === node && flow.IP.ipVersion === version && flowPorts(flow)?.destination_port === port,
		),
	)
}
after(async () => {
	abort.abort()
	await reading
	await lab?.remove()
})

const sourceOf = (from: string): ProbeRequest['from'] =>
	from === 'outside' ? { outside: true } : from.startsWith('node-') ? { node: from } : { pod: `default/${from}` }

/** An echo request, whoever answers. */
async function ping(from: string, to: string, family: Family): Promise<void> {
	const request = Uint8Array.of(...(family === 4 ? [8, 0, 0xf7, 0xb1] : [128, 0, 0, 0]), 0, 77, 0, 1)
	const { uid } = (await lab.pod(from)).metadata
	const [version, protocol] = family === 4 ? [AF_INET, 1] : [AF_INET6, 58]
	const fd = inNetnsAt(`${lab.paths.namespaces}/pod-${uid}`, () => socket(version, SOCK_RAW, protocol))
	try {
		sendto(fd, request, inetAddress(ipToBytes(addresses[to]?.[family] as Ip), 0))
	} finally {
		close(fd)
	}
}

async function send(from: string, to: string, port: number, protocol: 'TCP' | 'UDP', family: Family) {
	return lab.handle.client.agent.probe({
		from: sourceOf(from),
		to: addresses[to]?.[family] as Ip,
		port,
		protocol,
		nodes: [],
		// Shorter than the time after which a SYN is sent again.
		timeout: 500,
		observe: false,
	})
}

const reaches = async (from: string, to: string, port: number, family: Family) =>
	(await send(from, to, port, 'TCP', family)).outcome === 'connected'

/** What a line of observe says, without the client's port and the time. */
function lineOf({ flow, node_name, podwire }: FlowEvent): string {
	const name = (side: 'source' | 'destination') => {
		const { pod_name, namespace, labels, workloads } = flow[side]
		if (pod_name === undefined) return podwire[side] ?? `${labels.join()}`
		assert.deepEqual(workloads, [{ name: pod_name, kind: 'Pod' }])
		assert.equal(namespace, 'default')
		assert.ok(labels.includes(`k8s:app=${pod_name}`))
		return pod_name
	}
	const addressed = (side: 'source' | 'destination') => {
		const at = name(side).replace(/^node\//, '')
		const known = addresses[at === 'reserved:world' ? 'outside' : at]
		assert.equal(flow.IP[side], known?.[flow.IP.ipVersion === 'IPv6' ? 6 : 4], `${side} ${at}`)
		return at
	}
	const port = flowPorts(flow)?.destination_port
	const service = flow.destination_service === undefined ? '' : ` svc ${flow.destination_service.name}`
	const asked = podwire.asked === undefined ? '' : ` asked ${podwire.asked.ip}:${podwire.asked.port}`
	const icmp = flow.l4.ICMPv4 ?? flow.l4.ICMPv6
	const by = [...(flow.ingress_denied_by ?? []), ...(flow.egress_denied_by ?? [])].map((p) => `${p.kind} ${p.name}`)
	const why = flow.drop_reason_desc === undefined ? '' : ` ${flow.drop_reason_desc} by ${by}`
	const what = `${flowProtocol(flow)}${icmp === undefined ? '' : ` ${icmp.type}/${icmp.code}`}`
	const ends = `${addressed('source')} -> ${addressed('destination')}${port === undefined ? '' : `:${port}`}`
	return `${node_name} ${flow.verdict} ${flow.traffic_direction} ${ends} ${what}${service}${asked}${why}`
}

const denied = 'POLICY_DENIED by NetworkPolicy shut'

/** What is sent, and the lines it makes: `ASKED` stands for the address that was asked. */
const cases: readonly (readonly [
	from: string,
	to: string,
	port: number,
	protocol: 'TCP' | 'UDP',
	lines: readonly string[],
])[] = [
	[
		'cli',
		'open',
		80,
		'TCP',
		['node-1 FORWARDED EGRESS cli -> open:80 TCP', 'node-2 FORWARDED INGRESS cli -> open:80 TCP'],
	],
	// Nobody listens: the policies let it through all the same.
	[
		'cli',
		'open',
		99,
		'TCP',
		['node-1 FORWARDED EGRESS cli -> open:99 TCP', 'node-2 FORWARDED INGRESS cli -> open:99 TCP'],
	],
	[
		'cli',
		'shut',
		80,
		'TCP',
		['node-1 FORWARDED EGRESS cli -> shut:80 TCP', `node-2 DROPPED INGRESS cli -> shut:80 TCP ${denied}`],
	],
	[
		'cli',
		'svc/open',
		81,
		'TCP',
		[
			'node-1 FORWARDED EGRESS cli -> open:80 TCP svc open asked ASKED:81',
			'node-2 FORWARDED INGRESS cli -> open:80 TCP',
		],
	],
	[
		'cli',
		'svc/shut',
		81,
		'TCP',
		[
			'node-1 FORWARDED EGRESS cli -> shut:80 TCP svc shut asked ASKED:81',
			`node-2 DROPPED INGRESS cli -> shut:80 TCP ${denied}`,
		],
	],
	[
		'cli',
		'svc/open',
		54,
		'UDP',
		[
			'node-1 FORWARDED EGRESS cli -> open:5353 UDP svc open asked ASKED:54',
			'node-2 FORWARDED INGRESS cli -> open:5353 UDP',
		],
	],
	[
		'cli',
		'shut',
		5353,
		'UDP',
		['node-1 FORWARDED EGRESS cli -> shut:5353 UDP', `node-2 DROPPED INGRESS cli -> shut:5353 UDP ${denied}`],
	],
	// The next node sees the first one, which takes the answer back; there who asks is known.
	[
		'cli',
		'node-1',
		30_080,
		'TCP',
		[
			'node-1 FORWARDED EGRESS cli -> open:80 TCP svc open asked ASKED:30080',
			'node-2 FORWARDED INGRESS node-1 -> open:80 TCP',
		],
	],
	[
		'cli',
		'node-2',
		30_081,
		'TCP',
		['node-1 FORWARDED EGRESS cli -> node-2:30081 TCP', `node-2 DROPPED INGRESS cli -> shut:80 TCP ${denied}`],
	],
	[
		'outside',
		'node-1',
		30_080,
		'TCP',
		[
			'node-1 FORWARDED TRAFFIC_DIRECTION_UNKNOWN reserved:world -> open:80 TCP svc open asked ASKED:30080',
			'node-2 FORWARDED INGRESS node-1 -> open:80 TCP',
		],
	],
	[
		'outside',
		'node-2',
		30_080,
		'TCP',
		['node-2 FORWARDED INGRESS reserved:world -> open:80 TCP svc open asked ASKED:30080'],
	],
	['outside', 'node-2', 30_081, 'TCP', [`node-2 DROPPED INGRESS reserved:world -> shut:80 TCP ${denied}`]],
	[
		'outside',
		'node-1',
		30_081,
		'TCP',
		[
			'node-1 FORWARDED TRAFFIC_DIRECTION_UNKNOWN reserved:world -> shut:80 TCP svc shut asked ASKED:30081',
			`node-2 DROPPED INGRESS node-1 -> shut:80 TCP ${denied}`,
		],
	],
	['cli', 'outside', 9, 'TCP', ['node-1 FORWARDED EGRESS cli -> reserved:world:9 TCP']],
	['node-2', 'shut', 80, 'TCP', ['node-2 FORWARDED EGRESS node-2 -> shut:80 TCP']],
	[
		'node-1',
		'shut',
		80,
		'TCP',
		['node-1 FORWARDED EGRESS node-1 -> shut:80 TCP', `node-2 DROPPED INGRESS node-1 -> shut:80 TCP ${denied}`],
	],
	[
		'shut',
		'cli',
		80,
		'TCP',
		['node-2 FORWARDED EGRESS shut -> cli:80 TCP', 'node-1 FORWARDED INGRESS shut -> cli:80 TCP'],
	],
]
const pings: readonly (readonly [from: string, to: string, lines: readonly string[]])[] = [
	['cli', 'open', ['node-1 FORWARDED EGRESS cli -> open ICMP', 'node-2 FORWARDED INGRESS cli -> open ICMP']],
	['cli', 'shut', ['node-1 FORWARDED EGRESS cli -> shut ICMP', `node-2 DROPPED INGRESS cli -> shut ICMP ${denied}`]],
]

for (const family of families) {
	const asks = [
		...cases,
		...pings.map(([from, to, lines]) => {
			const icmp = family === 4 ? 'ICMPv4 8/0' : 'ICMPv6 128/0'
			return [from, to, 0, 'ICMP', lines.map((l) => l.replace('ICMP', icmp))] as const
		}),
	]
	for (const [from, to, port, protocol, lines] of asks) {
		test(`IPv${family}: ${from} to ${to}${port === 0 ? '' : `:${port}`}, ${protocol}`, where, async () => {
			const begin = seen.length
			if (protocol === 'ICMP') await ping(from, to, family)
			else await send(from, to, port, protocol, family)
			const ip = addresses[to]?.[family] ?? ''
			const expected = lines.map((line) => line.replace('ASKED', ip)).sort()
			const ours = await lab.until(async () => {
				const found = seen.slice(begin)
				return found.length >= expected.length ? found : undefined
			})
			assert.deepEqual(ours.map(lineOf).sort(), expected)
			// One connection, whoever tells of it.
			const clients = new Set(ours.map((e) => flowPorts(e.flow)?.source_port))
			assert.equal(clients.size, 1, [...clients].join())
			for (const { flow, time } of ours) {
				assert.equal(flow.is_reply, false)
				assert.equal(flow.time, time)
				assert.ok(Math.abs(Date.parse(time) - Date.now()) < 30_000, time)
			}
		})
	}
}

test('filters find what was sent among what is remembered', where, async () => {
	const ask = async (filter: object) => {
		const found: FlowEvent[] = []
		for await (const m of lab.handle.client.flows({ filter, follow: false })) if (!isLost(m)) found.push(m)
		return found
	}
	const all = await ask({ namespace: 'default' })
	assert.equal(all.length, seen.length)
	const by = async (filter: object, holds: (e: FlowEvent) => boolean) => {
		const found = await ask({ namespace: 'default', ...filter })
		assert.deepEqual(found, all.filter(holds), JSON.stringify(filter))
		assert.ok(found.length > 0, JSON.stringify(filter))
	}
	await by({ verdicts: ['DROPPED'] }, (e) => e.flow.verdict === 'DROPPED')
	await by({ verdicts: ['FORWARDED'] }, (e) => e.flow.verdict === 'FORWARDED')
	await by({ pod: 'shut' }, (e) => e.flow.source.pod_name === 'shut' || e.flow.destination.pod_name === 'shut')
	await by({ port: 81 }, (e) => e.podwire.asked?.port === 81)
	await by({ port: 80 }, (e) => flowPorts(e.flow)?.destination_port === 80)
	await by({ protocol: 'ICMP' }, (e) => flowProtocol(e.flow).startsWith('ICMP'))
	await by({ node: 'node-1' }, (e) => e.node_name === 'node-1')
	await by({ from: { kind: 'outside' } }, (e) => e.flow.source.labels.includes('reserved:world'))
	await by({ from: { kind: 'node', name: 'node-1' } }, (e) => e.podwire.source === 'node/node-1')
	await by({ to: { kind: 'service', name: 'open' } }, (e) => e.flow.destination_service?.name === 'open')
	await by(
		{ to: { kind: 'network', cidr: `${addresses.shut?.[6]}/128` } },
		(e) => e.flow.IP.destination === addresses.shut?.[6],
	)
	const [middle] = all.slice(Math.floor(all.length / 2))
	const since = Date.parse(middle?.time ?? '')
	await by({ since }, (e) => Date.parse(e.time) >= since)
})
