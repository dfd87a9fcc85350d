// Policies that name domains, on real kernels: a pod asks the cluster's DNS server and connects at once, to those
// addresses and no others, in both families, as long as the answer holds; whoever answers the names, and over a restart.

import assert from 'node:assert/strict'
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { createServer } from 'node:net'
import { after, before, test } from 'node:test'
import { systemClock } from '../../src/base/clock.ts'
import { familyOf, type Ip, parseIp } from '../../src/base/ip.ts'
import { tableOf } from '../../src/base/table.ts'
import { createResponder } from '../../src/dataplane/dns/responder.ts'
import { serveDns } from '../../src/dataplane/dns/server.ts'
import type { Kind } from '../../src/kube/kinds.ts'
import type { ClusterNetworkPolicy } from '../../src/kube/objects/network-policy-api.ts'
import { emptyConfig, type LabConfig } from '../../src/lab/config.ts'
import { signalProcess, waitForEnd } from '../../src/lab/process-identity.ts'
import { type LabRecord, readRecord } from '../../src/lab/record.ts'
import { bindTcp, bindUdp } from '../../src/linux/listen.ts'
import { NetlinkEncoder } from '../../src/linux/netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../../src/linux/netlink/socket.ts'
import { inNetnsAt } from '../../src/linux/netns.ts'
import { printProgram } from '../../src/linux/nft/print.ts'
import { addAddress } from '../../src/linux/route/addresses.ts'
import { readLinks } from '../../src/linux/route/links.ts'
import { build } from '../../src/model/build.ts'
import { customKinds } from '../../src/model/state.ts'
import { collectState } from '../../src/trace/collect.ts'
import { traceFlow } from '../../src/trace/run.ts'
import { createTestLab, podObject, skip, type TestLab } from './lab.ts'
import { startTraffic, type Traffic } from './policy-traffic.ts'

let lab: TestLab
const where = { skip, concurrency: false, timeout: 120_000 }
const outside = () => `${lab.paths.namespaces}/outside`
/** Of each pod, also while nobody answers for the lab. */
const namespaces = new Map<string, string>()
const podNs = (name: string) => namespaces.get(name)!
const tables = async (node = 'node-1') => printProgram((await lab.handle.client.agent.read(node)).nftables)

/** Addresses outside, beside the client's own. */
const many = Array.from({ length: 20 }, (_, i) => `203.0.113.${i + 11}` as Ip)
const six = '2001:db8:113::1' as Ip
const host = (name: string, ttl: number, ...addresses: readonly Ip[]) => ({ name, ttl, addresses })
const config: LabConfig = {
	...emptyConfig,
	dns: {
		hosts: [
			host('api.example.com', 600, '203.0.113.1' as Ip, six),
			host('other.example.com', 600, '203.0.113.2' as Ip),
			host('brief.example.com', 1, '203.0.113.3' as Ip),
			host('wild.example', 600, '203.0.113.4' as Ip),
			...many.map((ip, i) => host(`n${i}.a.wild.example`, 600, ip)),
		],
		upstreams: ['203.0.113.1' as Ip],
	},
}

before(async () => {
	if (skip) return
	lab = await createTestLab('policy-names', config, { ipFamily: 'dual' })
	const socket = inNetnsAt(outside(), () => new NetlinkSocket(NETLINK_ROUTE))
	const e = new NetlinkEncoder(4096)
	const link = readLinks(socket).find((l) => l.name === 'eth0')!.index
	for (const ip of [2, 3, 4, 5].map((n) => `203.0.113.${n}` as Ip).concat(many)) addAddress(e, link, ip, 24)
	socket.request(e)
	socket.close()
	await lab.create({
		apiVersion: 'apiextensions.k8s.io/v1',
		kind: 'CustomResourceDefinition',
		metadata: {
			name: 'clusternetworkpolicies.policy.networking.k8s.io',
			annotations: { 'api-approved.kubernetes.io': 'https://github.com/kubernetes-sigs/network-policy-api/pull/300' },
		},
		spec: {
			group: 'policy.networking.k8s.io',
			names: { kind: 'ClusterNetworkPolicy', plural: 'clusternetworkpolicies' },
			scope: 'Cluster',
			versions: [
				{
					name: 'v1alpha2',
					served: true,
					storage: true,
					schema: { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } },
				},
			],
		},
	})
	await lab.until(async () => (await lab.client.list(policies).catch(() => undefined)) && true)
	for (const [name, node] of [
		['client', 'node-1'],
		['second', 'node-2'],
	] as const)
		await lab.create(podObject(name, { nodeName: node, terminationGracePeriodSeconds: 0 }, { app: 'client' }))
	for (const name of ['client', 'second'])
		namespaces.set(name, `${lab.paths.namespaces}/pod-${(await lab.pod(name)).metadata.uid}`)
	await lab.until(async () =>
		(await find('api.example.com', 'A', 'client')).includes('203.0.113.1') ? true : undefined,
	)
})
after(() => lab?.remove())

/** Runs a program of Node in a pod's network; what it prints, as JSON. */
async function run(pod: string, script: string, ...args: readonly unknown[]): Promise<unknown> {
	const netns = podNs(pod)
	const { promise, resolve, reject } = Promise.withResolvers<string>()
	inNetnsAt(netns, () =>
		execFile(process.execPath, ['-e', script, JSON.stringify(args)], { timeout: 60_000 }, (e, out) =>
			e === null ? resolve(out) : reject(e),
		),
	)
	return JSON.parse(await promise)
}

const asking = `
	const { Resolver } = require('node:dns').promises
	const net = require('node:net')
	const resolver = new Resolver({ timeout: 5000, tries: 4 })
	resolver.setServers(['10.96.0.10'])
	const find = (name, type) => resolver.resolve(name, type).catch((e) => [e.code])
	// Whether somebody is there: he accepts, or refuses.
	const connect = (host, patience) => new Promise((resolve) => {
		const s = net.connect({ host, port: 80 })
		const end = (how) => { s.destroy(); resolve(how) }
		s.on('connect', () => end(true)).on('error', (e) => end(e.code === 'ECONNREFUSED'))
		setTimeout(() => end(false), patience).unref()
	})
	const args = JSON.parse(process.argv[1])
`

async function find(name: string, type: 'A' | 'AAAA', pod: string): Promise<readonly string[]> {
	const script = `${asking}; find(...args).then((ips) => console.log(JSON.stringify(ips)))`
	return (await run(pod, script, name, type)) as string[]
}

/** The name is asked for and connected to at once: with the first packet, or never within half a minute. */
async function use(pod: string, name: string, type: 'A' | 'AAAA' = 'A'): Promise<boolean> {
	const script = `${asking}; find(...args).then((ips) => connect(ips[0], 30000)).then((ok) => console.log(JSON.stringify(ok)))`
	return (await run(pod, script, name, type)) as boolean
}

/** Without asking for a name. */
async function reaches(pod: string, ip: string, patience = 600): Promise<boolean> {
	const script = `${asking}; connect(...args).then((ok) => console.log(JSON.stringify(ok)))`
	return (await run(pod, script, ip, patience)) as boolean
}

const policies = customKinds.find((k) => k.kind === 'ClusterNetworkPolicy')! as Kind as Kind<ClusterNetworkPolicy>

/** What `client` and `second` may reach: the DNS server, the names, nothing else. */
async function only(domainNames: readonly string[]): Promise<void> {
	await lab.client.create(policies, {
		apiVersion: 'policy.networking.k8s.io/v1alpha2',
		kind: 'ClusterNetworkPolicy',
		metadata: { name: 'names' },
		spec: {
			tier: 'Admin',
			priority: 10,
			subject: { pods: { namespaceSelector: {}, podSelector: { matchLabels: { app: 'client' } } } },
			egress: [
				{
					name: 'dns',
					action: 'Accept',
					to: [{ pods: { namespaceSelector: {}, podSelector: { matchLabels: { 'k8s-app': 'kube-dns' } } } }],
				},
				{ name: 'names', action: 'Accept', to: [{ domainNames }] },
				{ name: 'rest', action: 'Deny', to: [{ networks: ['0.0.0.0/0', '::/0'] }] },
			],
		},
	})
	for (const node of ['node-1', 'node-2'])
		await lab.until(async () => ((await tables(node)).includes('spec.egress[1]') ? true : undefined))
}

async function withdraw(): Promise<void> {
	await lab.client.delete(policies, 'names')
	for (const node of ['node-1', 'node-2'])
		await lab.until(async () => ((await tables(node)).includes('podwire-policy') ? undefined : true))
}

/** Packets that the rest's rule dropped on both nodes. */
async function denied(): Promise<number> {
	let sum = 0
	for (const node of ['node-1', 'node-2'])
		for (const [, n] of (await tables(node)).matchAll(
			/counter packets (\d+) bytes \d+ drop comment "[^"]*spec.egress\[2\]/g,
		))
			sum += Number(n)
	return sum
}

test(
	'names: the first packet passes; other addresses, other names and the apex of a wildcard do not',
	where,
	async () => {
		assert.equal(await reaches('client', '203.0.113.5', 20_000), true, 'no policy')
		await only(['api.example.com', '*.wild.example'])
		try {
			for (const ip of ['203.0.113.5', '203.0.113.2']) assert.equal(await reaches('client', ip), false, ip)
			const before = await denied()
			assert.ok(before > 0)
			assert.equal(await use('client', 'api.example.com'), true)
			assert.equal(await use('client', 'api.example.com', 'AAAA'), true)
			// Each is new to the nodes: had the answer been faster than they, a packet would have been dropped.
			const script = `${asking}; (async () => {
			const all = []
			for (let i = 0; i < 20; i++) all.push(await connect((await find('n' + i + '.a.wild.example', 'A'))[0], 30000))
			console.log(JSON.stringify(all))
		})()`
			for (const pod of ['client', 'second'])
				assert.deepEqual(
					await run(pod, script),
					Array.from({ length: 20 }, () => true),
					pod,
				)
			assert.equal(await denied(), before, 'no packet was dropped')

			assert.deepEqual(
				await find('other.example.com', 'A', 'client'),
				['203.0.113.2'],
				'a name that no policy means is answered',
			)
			assert.equal(await reaches('client', '203.0.113.2'), false, 'its address is not open')
			assert.deepEqual(await find('wild.example', 'A', 'client'), ['203.0.113.4'])
			assert.equal(await reaches('client', '203.0.113.4'), false, 'the apex')
			assert.match(await tables(), /203\.0\.113\.11 comment "n0\.a\.wild\.example"/)
			assert.match(await tables(), /2001:db8:113::1 comment "api\.example\.com"/)
		} finally {
			await withdraw()
		}
	},
)

async function trace(to: string): Promise<{ disposition: string; text: string; disagreement: unknown }> {
	const names = await lab.handle.client.answeredNames()
	const { state } = await collectState(lab.client, {
		clock: systemClock,
		config: { clusterDomain: 'cluster.local' },
		resolvedNames: tableOf(names.map(({ name, addresses }) => [name, addresses.map(({ ip }) => ip).sort()])),
	})
	const report = await traceFlow({
		question: { from: 'client', to },
		flow: { from: { kind: 'pod', pod: 'default/client' }, to: { ip: to as Ip }, protocol: 'TCP', port: 80 },
		model: build(state),
		agent: lab.handle.client.agent,
		probe: true,
		timeout: 500,
		policyEnforced: true,
	})
	return { disposition: report.disposition, text: JSON.stringify(report), disagreement: report.disagreement }
}

test('the three witnesses say which name an address has, or that it has none', where, async () => {
	assert.equal((await find('api.example.com', 'A', 'client')).length, 1)
	assert.equal((await find('api.example.com', 'AAAA', 'client')).length, 1)
	await only(['api.example.com', 'brief.example.com'])
	try {
		// Asked for before the policy came, it need not be asked for again.
		await lab.until(async () => ((await reaches('client', '203.0.113.1', 300)) ? true : undefined))
		const open = await trace('203.0.113.1')
		assert.equal(open.disagreement, undefined, open.text)
		assert.match(open.text, /an address of api\.example\.com, as the cluster's DNS server answered/)
		const closed = await trace('203.0.113.3')
		assert.equal(closed.disagreement, undefined, closed.text)
		assert.equal(closed.disposition, 'denied-egress')
		assert.match(closed.text, /api\.example\.com has 2001:db8:113::1, 203\.0\.113\.1, not 203\.0\.113\.3/)
	} finally {
		await withdraw()
	}
})

/** A name is asked for, and a connection to it stays open: what is said comes back. */
function talk(pod: string, name: string) {
	const script = `${asking}
		find(args[0], 'A').then(([host]) => {
			const s = net.connect({ host, port: 80 }, () => console.log('open'))
			s.on('data', (d) => process.stdout.write(d))
			process.stdin.pipe(s)
		})`
	const child: ChildProcess = inNetnsAt(podNs(pod), () =>
		spawn(process.execPath, ['-e', script, JSON.stringify([name])], { stdio: ['pipe', 'pipe', 'inherit'] }),
	)
	let heard = ''
	child.stdout?.on('data', (d) => {
		heard += d
	})
	return {
		say: (text: string) => void child.stdin?.write(`${text}\n`),
		heard: (text: string, seconds: number) => lab.until(async () => (heard.includes(text) ? true : undefined), seconds),
		end: () => void child.kill('SIGKILL'),
	}
}

test('when the answer is over new connections end, and open ones go on', where, async () => {
	const echo = createServer((c) => c.on('error', () => {}).pipe(c))
	echo.listen({ fd: bindTcp(outside(), '203.0.113.3' as Ip, 80) })
	const isOver = async () => ((await tables()).includes('"brief.example.com"') ? undefined : true)
	await only(['brief.example.com'])
	const open = talk('client', 'brief.example.com')
	try {
		await open.heard('open', 30)
		await lab.until(isOver, 40)
		assert.equal(await reaches('client', '203.0.113.3'), false, 'a new one')
		open.say('still here')
		await open.heard('still here', 10)

		// Where established connections are asked again, the address stays while one uses it.
		await lab.up({ policies: { cutEstablished: true } })
		open.say('cut')
		assert.equal(await use('client', 'brief.example.com'), true, 'asked again')
		await open.heard('cut', 60)
		const held = (await lab.handle.client.answeredNames()).find((n) => n.name === 'brief.example.com')
		const until = Math.max(...(held?.addresses.map((a) => a.until) ?? [0]))
		await lab.until(async () => (Date.now() > until + 500 ? true : undefined), 30)
		open.say('in use')
		await open.heard('in use', 10)
		assert.equal(await isOver(), undefined)
		open.end()
		await lab.until(isOver, 60)
		assert.equal(await reaches('client', '203.0.113.3'), false, 'nobody uses it')
	} finally {
		open.end()
		echo.close()
		await lab.up({ policies: { cutEstablished: false } })
		await withdraw()
	}
})

test('what was answered is there while nobody tends the nodes, and when somebody does again', where, async () => {
	let traffic: Traffic | undefined
	await only(['api.example.com'])
	try {
		assert.equal(await use('client', 'api.example.com'), true)
		traffic = startTraffic(podNs('client'), [['203.0.113.1', 80]])
		const tally = () => traffic!.tally()
		await lab.until(async () => ((await tally()).reached > 20 ? true : undefined))
		const daemon = (readRecord(lab.paths) as LabRecord).daemon
		assert.ok(signalProcess(daemon, 'SIGKILL'))
		assert.deepEqual(await waitForEnd([daemon], 5_000), [])
		assert.deepEqual(await find('other.example.com', 'A', 'client'), ['203.0.113.2'], 'names are answered meanwhile')
		const atCrash = (await tally()).reached
		await lab.until(async () => ((await tally()).reached > atCrash + 20 ? true : undefined))
		await lab.up()
		const atUp = (await tally()).reached
		await lab.until(async () => ((await tally()).reached > atUp + 50 ? true : undefined))
		const all = await traffic.stop()
		traffic = undefined
		assert.equal(all.failed, 0, JSON.stringify(all))
	} finally {
		await traffic?.stop()
		await lab.up()
		await withdraw()
	}
})

test('who answers names dies: another does, with the names outside, and what was answered holds', where, async () => {
	await only(['api.example.com', '*.wild.example'])
	try {
		assert.equal(await use('client', 'api.example.com'), true)
		const { workloads } = readRecord(lab.paths) as LabRecord
		assert.ok(workloads !== undefined && signalProcess(workloads, 'SIGKILL'))
		assert.deepEqual(await waitForEnd([workloads], 5_000), [])
		assert.equal(await reaches('client', '203.0.113.1', 20_000), true, 'meanwhile')
		await lab.until(
			async () => (await find('other.example.com', 'A', 'client')).includes('203.0.113.2') || undefined,
			60,
		)
		// It has been told what to watch.
		await lab.until(async () => {
			await find('n1.a.wild.example', 'A', 'client')
			return (await tables()).includes('"n1.a.wild.example"') || undefined
		}, 30)
		const before = await denied()
		assert.equal(await use('client', 'n2.a.wild.example'), true)
		assert.equal(await denied(), before, 'no packet was dropped')
	} finally {
		await withdraw()
	}
})

test('a headless Service has a name that a policy may mean; one with an address is not seen by it', where, async () => {
	await lab.create(podObject('server', { nodeName: 'node-2', terminationGracePeriodSeconds: 0 }))
	const server = (await lab.pod('server')).status?.podIP ?? ''
	for (const [name, spec] of [
		['pods', { clusterIP: 'None' }],
		['balanced', { clusterIP: '10.96.7.7' }],
	] as const)
		await lab.create({
			apiVersion: 'v1',
			kind: 'Service',
			metadata: { name, namespace: 'default' },
			spec: { ...spec, selector: { app: 'server' }, ports: [{ port: 80 }] },
		})
	await lab.until(
		async () => (await find('pods.default.svc.cluster.local', 'A', 'client')).includes(server) || undefined,
	)
	await lab.until(async () => (await reaches('client', '10.96.7.7', 300)) || undefined)
	await only(['balanced.default.svc.cluster.local'])
	try {
		assert.deepEqual(await find('balanced.default.svc.cluster.local', 'A', 'client'), ['10.96.7.7'])
		assert.equal(await reaches('client', '10.96.7.7'), false, 'policies see its pods')
	} finally {
		await withdraw()
	}
	await only(['*.default.svc.cluster.local'])
	try {
		assert.equal(await reaches('client', server), false, 'not asked for yet')
		assert.equal(await use('client', 'pods.default.svc.cluster.local'), true)
	} finally {
		await withdraw()
	}
})

test('names that a server outside answers, with an alias, by TCP where the answer is long', where, async () => {
	const record = (name: string, ip: string) => ({
		name,
		type: familyOf(ip as Ip) === 4 ? ('A' as const) : ('AAAA' as const),
		address: parseIp(ip),
		ttl: 600,
		because: [],
	})
	const long = Array.from({ length: 100 }, (_, i) => record('long.example.net', `203.0.113.${i + 100}`))
	const responder = createResponder({
		program: {
			domain: 'example.net',
			networks: [],
			names: tableOf([
				[
					'www.example.net',
					{
						records: [
							{ name: 'www.example.net', type: 'CNAME' as const, target: 'b.cdn.example.net', ttl: 600, because: [] },
						],
					},
				],
				['b.cdn.example.net', { records: [record('b.cdn.example.net', '203.0.113.5')] }],
				['long.example.net', { records: [record('long.example.net', '203.0.113.4'), ...long] }],
			]),
		},
	})
	const at = '203.0.113.1' as Ip
	const server = serveDns(
		responder,
		{ udp: [{ fd: bindUdp(outside(), at, 53), family: 4 }], tcp: [{ fd: bindTcp(outside(), at, 53) }] },
		{ clock: systemClock },
	)
	try {
		await only(['www.example.net', 'long.example.net'])
		assert.equal(await reaches('client', '203.0.113.5'), false, 'before it is asked for')
		assert.equal(await use('client', 'www.example.net'), true)
		assert.equal((await find('long.example.net', 'A', 'second')).length, 101)
		assert.equal(await reaches('second', '203.0.113.4', 20_000), true)
		assert.deepEqual(await find('nothing.example.net', 'A', 'client'), ['ENOTFOUND'])
	} finally {
		await withdraw()
		await server.close()
	}
})
