// P7: what NetworkPolicy costs a connection with 200,000 set elements, how fast one change is in the kernel at 10,000
// pods and 1,000 policies, and how long from a policy that is written through the API to the first packet it decides.

import { type ChildProcess, spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { type Ip, ipFromBytes, ipToBytes } from '../../src/base/ip.ts'
import { tableOf } from '../../src/base/table.ts'
import { createPolicy } from '../../src/dataplane/policy/policy.ts'
import { networkPolicies } from '../../src/kube/kinds.ts'
import { bindTcp } from '../../src/linux/listen.ts'
import { createAnonymousNetns, inNetnsAt } from '../../src/linux/netns.ts'
import type { NftProgram } from '../../src/linux/nft/program.ts'
import {
	AF_INET,
	close,
	connect,
	inetAddress,
	POLLOUT,
	SO_LINGER,
	SOCK_NONBLOCK,
	SOCK_STREAM,
	SOL_SOCKET,
	setsockopt,
	socket,
	waitReady,
} from '../../src/linux/syscalls.ts'
import { writeSysctl } from '../../src/linux/sysctl.ts'
import type { AddressOwner, LabelSelector, NetworkModel, Pod, Policy, PolicyRule } from '../../src/model/network.ts'
import { objectOrigin } from '../../src/model/origin.ts'
import { createTestLab, podObject, skip, type TestLab } from '../net/lab.ts'
import { podIp, sketchModel, type World } from '../net/services-world.ts'
import { askRate, buildClient, inWorlds, startServer } from './connect.ts'
import { interleave, median, quantile, type Row, spreadOf } from './row.ts'

const podCount = 10_000
const policyCount = 1000
const namespaceCount = 10
/** Different peers that each select every pod: 20 × 10,000 elements. */
const peerCount = 20
const port = 8080

function row(name: string, unit: string, samples: readonly number[], more: Partial<Row> = {}): Row {
	return {
		group: 'policy',
		name,
		unit,
		ours: median(samples),
		spread: spreadOf(samples),
		repeats: samples.length,
		...more,
	}
}

function missing(name: string, why: string): Row {
	return { ...row(name, '-', [Number.NaN]), repeats: 0, note: `not measured: ${why}` }
}

export async function run(options: { full: boolean }): Promise<Row[]> {
	if (process.platform !== 'linux' || process.getuid?.() !== 0)
		return [missing('all rows', 'needs root on Linux, or root of a user namespace')]
	return [
		...(await oneChange()),
		...(await memory()),
		...(await connections()),
		...(await written(options.full ? 300 : 100)),
	]
}

const memoryRepeats = 5

/**
 * What the policies of a node take, for one of a hundred nodes and for one that has all pods: sets and their elements
 * against a set of its own for each rule, memory of the kernel and of the agent.
 */
export async function memory(): Promise<Row[]> {
	const rows: Row[] = []
	for (const [who, all, copies] of [
		['a node with 100 of the pods', false, 40],
		['a node with all of them', true, 5],
	] as const) {
		const kernel: number[] = []
		const agent: number[] = []
		const models: number[] = []
		for (let i = 0; i < memoryRepeats; i++) {
			const heap = heapOf(all)
			agent.push(heap.compiled)
			models.push(heap.model)
		}
		const model = largeModel(all)
		const program = createPolicy().compile(model, 'node-1')
		// The first one warms up.
		for (let i = 0; i <= memoryRepeats; i++) {
			const got = await kernelOf(program, copies)
			if (i > 0) kernel.push(got)
		}
		const sizes = sizesOf(program)
		const apart = elementsApart(model, all)
		const where = `${podCount} pods × ${policyCount} policies, ${who}`
		rows.push(
			row(`${where}: set elements`, '', [sizes.elements], {
				baseline: apart,
				ratio: sizes.elements / apart,
				note: `${sizes.sets} sets, ${sizes.chains} chains, ${sizes.rules} rules; against a set of its own for each rule`,
			}),
			row(`${where}: kernel memory`, 'MiB', kernel, {
				note: `what SUnreclaim and VmallocUsed of /proc/meminfo gained with ${copies} such nodes, by one`,
			}),
			row(`${where}: agent memory`, 'MiB', agent, {
				note: `the program and what compiling keeps, on the heap; the model itself ${median(models).toFixed(1)} MiB`,
			}),
		)
	}
	return rows
}

/** MiB on the heap. In a function of its own: what it made is garbage when it returns. */
function heapOf(all: boolean): { readonly model: number; readonly compiled: number } {
	setFlagsFromString('--expose_gc')
	const collect = runInNewContext('gc') as () => void
	const used = () => {
		collect()
		collect()
		return process.memoryUsage().heapUsed / 2 ** 20
	}
	const empty = used()
	const model = largeModel(all)
	const built = used()
	const plane = createPolicy()
	const program = plane.compile(model, 'node-1')
	const compiled = used()
	// Alive until here.
	if (program.tables.size === 0 || plane.compile(model, 'node-1') !== program) throw new Error('nothing was compiled')
	return { model: built - empty, compiled: compiled - built }
}

/** MiB that one program takes in the kernel, measured with several in namespaces of their own. */
async function kernelOf(program: NftProgram, copies: number): Promise<number> {
	const nodes = Array.from({ length: copies }, () => {
		const netns = createAnonymousNetns()
		return { netns, plane: createPolicy({ netns }) }
	})
	try {
		// Once for the sockets and what the diff leaves behind.
		for (const { plane } of nodes) await plane.read()
		const before = taken()
		for (const { plane } of nodes) {
			const outcome = await plane.apply(plane.diff(undefined, program))
			if (!outcome.ok) throw outcome.error
		}
		return Math.max(0, taken() - before) / copies
	} finally {
		for (const { netns, plane } of nodes) {
			plane.close()
			closeSync(netns)
		}
		// A namespace is taken apart in the background.
		await new Promise((resolve) => setTimeout(resolve, 1000))
	}
}

function sizesOf(program: NftProgram) {
	const tables = [...program.tables.values()]
	const chains = tables.flatMap((t) => [...t.chains.values()])
	const sets = tables.flatMap((t) => [...t.sets.values()])
	return {
		chains: chains.length,
		rules: chains.reduce((n, c) => n + c.rules.length, 0),
		sets: sets.length,
		elements: sets.reduce((n, set) => n + set.elements.size, 0),
	}
}

/** Elements that a set for each peer of each rule in force on the node, and the maps of its pods, would have. */
function elementsApart(model: NetworkModel, all: boolean): number {
	const byApp = new Map<string, number>()
	const here = [...model.pods.values()].filter((p) => all || p.node === 'node-1')
	for (const p of model.pods.values()) byApp.set(p.labels.app ?? '', (byApp.get(p.labels.app ?? '') ?? 0) + 1)
	const selected = [...model.policies.values()].filter((policy) =>
		here.some((p) => p.namespace === policy.namespace && p.labels.app === policy.subject.matchLabels.app),
	)
	const ports = 2
	const peers = selected.flatMap((policy) => policy.ingress ?? []).flatMap((r) => r.peers)
	const members = peers.map((peer) => (peer.kind === 'pods' ? (byApp.get(peer.pods?.matchLabels.app ?? '') ?? 0) : 0))
	return members.reduce((a, b) => a + b, 0) + ports * peers.length + 2 * here.length
}

/** MiB that the kernel has taken for itself: elements are slab objects, the tables of their hashes are mapped. */
function taken(): number {
	const text = readFileSync('/proc/meminfo', 'utf8')
	const of = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0)
	return (of('SUnreclaim') + of('VmallocUsed')) / 1024
}

function pod(namespace: string, name: string, node: string, ip: Ip, labels: Record<string, string>): Pod {
	const key = `${namespace}/${name}`
	return {
		key,
		uid: key,
		namespace,
		name,
		labels,
		node,
		ips: [ip],
		hostNetwork: false,
		phase: 'Running',
		ready: true,
		terminating: false,
		ports: [],
		dns: { nameservers: [], searches: [], options: [], origin: { default: 'none' } },
		owner: { kind: 'Pod', key },
		origin: objectOrigin('Pod', key),
	}
}

const selector = (matchLabels: Record<string, string>): LabelSelector => ({ matchLabels, matchExpressions: [] })

function policy(namespace: string, name: string, subject: LabelSelector, ingress: readonly PolicyRule[]): Policy {
	const key = `${namespace}/${name}`
	return {
		key,
		namespace,
		subject,
		ingress,
		origin: objectOrigin('NetworkPolicy', key, undefined, { file: 'p.yaml', line: 1 }),
	}
}

function rule(policyKey: string, pods: LabelSelector, ...ports: number[]): PolicyRule {
	const origin = objectOrigin('NetworkPolicy', policyKey, 'spec.ingress[0]', { file: 'p.yaml', line: 9 })
	return {
		peers: [{ kind: 'pods', namespaces: selector({}), pods, origin }],
		ports: ports.map((each) => ({ protocol: 'TCP', port: each, origin })),
		origin,
	}
}

function modelOf(pods: readonly Pod[], policies: readonly Policy[]): NetworkModel {
	const owners = pods.flatMap((p) => p.ips.map((ip): [Ip, AddressOwner] => [ip, { kind: 'pod', pod: p.key }]))
	return {
		...sketchModel([]),
		pods: tableOf(pods.map((p) => [p.key, p])),
		addresses: tableOf(owners),
		policies: tableOf(policies.map((p) => [p.key, p])),
	}
}

const address = (i: number) => ipFromBytes(Uint8Array.of(10, 128 + (i >> 16), (i >> 8) & 255, i & 255))

/** 10,000 pods in 10 namespaces, one in a hundred on node-1, or all; 1,000 policies, each of an application and one caller. */
function largeModel(onOneNode = false): NetworkModel {
	const pods = Array.from({ length: podCount }, (_, i) => {
		const app = `a${Math.floor(i / namespaceCount) % 100}`
		return pod(
			`ns-${i % namespaceCount}`,
			`p${i}`,
			onOneNode ? 'node-1' : `node-${1 + (Math.floor(i / 1000) % 10) * 10 + (i % 10)}`,
			address(i),
			{ app },
		)
	})
	const policies = Array.from({ length: policyCount }, (_, i) => largePolicy(i))
	return modelOf(pods, policies)
}

function largePolicy(i: number, caller = `a${(i * 7) % 100}`): Policy {
	const namespace = `ns-${i % namespaceCount}`
	const app = `a${Math.floor(i / namespaceCount)}`
	return policy(namespace, `p${i}`, selector({ app }), [rule(`${namespace}/p${i}`, selector({ app: caller }), 80, 443)])
}

/** Microseconds to compile, and from the difference to the kernel's acknowledgement. */
async function oneChange(): Promise<Row[]> {
	const netns = createAnonymousNetns()
	const plane = createPolicy({ netns })
	try {
		let now = largeModel()
		const node = 'node-1'
		const begun = performance.now()
		let have = plane.compile(now, node)
		const compiled = performance.now()
		const first = await plane.apply(plane.diff(undefined, have))
		if (!first.ok) throw first.error
		const loaded = performance.now()
		const sizes = [...have.tables.values()].map((t) => {
			const elements = [...t.sets.values()].reduce((n, s) => n + s.elements.size, 0)
			return `${t.chains.size} chains, ${t.sets.size} sets, ${elements} elements`
		})
		const compiles: Record<string, number[]> = {}
		const change = async (what: string, next: NetworkModel): Promise<number> => {
			now = next
			const t0 = performance.now()
			const want = plane.compile(now, node)
			const t1 = performance.now()
			const outcome = await plane.apply(plane.diff(have, want))
			const t2 = performance.now()
			if (!outcome.ok) throw outcome.error
			if (want === have) throw new Error(`${what} changed nothing`)
			have = want
			;(compiles[what] ??= []).push((t1 - t0) * 1000)
			return (t2 - t0) * 1000
		}
		// Callers of what runs on this node: their labels matter here.
		const local = [...now.pods.values()].filter((p) => p.node === node)
		const callers = new Set(
			[...now.policies.values()]
				.filter((p) => local.some((l) => l.namespace === p.namespace && p.subject.matchLabels.app === l.labels.app))
				.flatMap((p) =>
					(p.ingress ?? []).flatMap((r) =>
						r.peers.flatMap((x) => (x.kind === 'pods' ? (x.pods?.matchLabels.app ?? []) : [])),
					),
				),
		)
		const remote = [...now.pods.values()].filter((p) => p.node !== node && callers.has(p.labels.app ?? ''))
		const served = [...now.policies.values()].filter((p) =>
			local.some((l) => l.namespace === p.namespace && p.subject.matchLabels.app === l.labels.app),
		)
		let turn = 0
		const label = () => {
			const p = remote[turn++ % remote.length] as Pod
			const before = now.pods.get(p.key) as Pod
			const labels = before.labels.app === 'away' ? p.labels : { app: 'away' }
			return change('label', { ...now, pods: now.pods.set(p.key, { ...before, labels }) })
		}
		const comes = () => {
			const i = turn++
			const key = `ns-1/new-${i % 300}`
			const there = now.pods.get(key)
			if (there === undefined) {
				const p = pod('ns-1', `new-${i % 300}`, 'node-2', address(podCount + (i % 300)), { app: [...callers][0] ?? '' })
				return change('pod', {
					...now,
					pods: now.pods.set(key, p),
					addresses: now.addresses.set(p.ips[0] as Ip, { kind: 'pod', pod: key }),
				})
			}
			return change('pod', { ...now, pods: now.pods.delete(key), addresses: now.addresses.delete(there.ips[0] as Ip) })
		}
		const edit = () => {
			const p = served[turn++ % served.length] as Policy
			const i = Number(p.key.split('/p')[1])
			return change('policy', { ...now, policies: now.policies.set(p.key, largePolicy(i, `a${turn % 100}`)) })
		}
		for (let i = 0; i < 200; i++) {
			await label()
			await comes()
			await edit()
		}
		const samples = await interleave(301, { label, comes, edit })
		const of = (what: string) => `compile ${median((compiles[what] ?? []).slice(-301)).toFixed(1)} µs of it`
		const where = `at ${podCount} pods × ${policyCount} policies, model to kernel ack`
		const p99 = (list: readonly number[]) => `p99 ${quantile(list, 0.99).toFixed(0)} µs`
		return [
			row(`all of a node with ${local.length} pods ${where}`, 'ms', [loaded - begun], {
				note: `compile ${(compiled - begun).toFixed(0)} ms; ${sizes.join('; ')}`,
			}),
			row(`a pod's label ${where}`, 'µs', samples.label, { note: `${of('label')}; ${p99(samples.label)}` }),
			row(`a pod comes or goes ${where}`, 'µs', samples.comes, { note: `${of('pod')}; ${p99(samples.comes)}` }),
			row(`a policy's peer ${where}`, 'µs', samples.edit, { note: `${of('policy')}; ${p99(samples.edit)}` }),
		]
	} finally {
		plane.close()
		closeSync(netns)
	}
}

/** Every peer selects 10,000 pods; the last of the policies lets the client in. */
function crowdedModel(peers: number, crowd: number): NetworkModel {
	const client = pod('shop', 'client', 'node-1', podIp(0), { app: 'client' })
	const server = pod('shop', 'server', 'node-1', podIp(1), { app: 'server' })
	const others = Array.from({ length: crowd - 2 }, (_, i) =>
		pod('shop', `p${i}`, 'node-2', address(i), { app: 'other' }),
	)
	const policies = Array.from({ length: peers }, (_, i) => {
		const except = i === peers - 1 ? [] : ['client']
		const who: LabelSelector = {
			matchLabels: {},
			matchExpressions: [{ key: 'app', operator: 'NotIn', values: [...except, `nobody-${i}`] }],
		}
		const name = `p${String(i).padStart(3, '0')}`
		return policy('shop', name, selector({ app: 'server' }), [rule(`shop/${name}`, who, port)])
	})
	return modelOf([client, server, ...others], policies)
}

async function connections(): Promise<Row[]> {
	const folder = mkdtempSync(join(tmpdir(), 'podwire-bench-'))
	const servers: ChildProcess[] = []
	try {
		const binary = buildClient(folder)
		if (binary === undefined) return [missing('connect under policies', 'needs a C compiler')]
		if (spawnSync('taskset', ['-V']).error !== undefined) return [missing('connect under policies', 'needs taskset')]
		const variants = {
			// No policy on a node that tracks connections, as every node with Services does.
			none: () => trackOnly(),
			one: () => crowdedModel(1, 10),
			crowded: () => crowdedModel(1, podCount * peerCount),
			many: () => crowdedModel(peerCount, podCount),
		}
		const names = Object.keys(variants) as (keyof typeof variants)[]
		return await inWorlds(names.length, async (worlds) => {
			let elements = 0
			for (const [i, world] of worlds.entries()) {
				servers.push(startServer(world, binary))
				const name = names[i] as keyof typeof variants
				elements = Math.max(elements, await install(world, variants[name]()))
				inNetnsAt(world.node, () => writeSysctl('net.netfilter.nf_conntrack_tcp_timeout_close', '1'))
			}
			const ask = (i: number) => () => askRate(worlds[i] as World, binary, [podIp(1), port])
			const tasks = Object.fromEntries(names.map((name, i) => [name, ask(i)])) as Record<
				(typeof names)[number],
				() => number
			>
			await interleave(1, tasks)
			const samples = await interleave(31, tasks)
			const against = (a: keyof typeof variants, b: keyof typeof variants) =>
				median(samples[b].map((n, i) => n / (samples[a][i] as number)))
			const time = (a: keyof typeof variants) => samples[a].map((n) => 1e6 / n)
			const compare = (name: string, a: keyof typeof variants, b: keyof typeof variants, more: Partial<Row>): Row =>
				row(name, 'µs', time(a), { baseline: median(time(b)), ratio: against(a, b), ...more })
			return [
				compare('a connection under one policy with 200,000 set elements, against none', 'crowded', 'none', {
					bar: '≤ 1.3',
					note: `connect, a byte each way, reset; one CPU; ${elements} elements; against a node that tracks connections`,
				}),
				compare('the same against one policy with 9 elements', 'crowded', 'one', {}),
				compare(
					`under ${peerCount} policies with 10,000 elements each, the last allows, against none`,
					'many',
					'none',
					{
						bar: '≤ 1.3',
					},
				),
			]
		})
	} finally {
		for (const server of servers) server.kill()
		rmSync(folder, { recursive: true, force: true })
	}
}

/** A policy of another pod: tracking is on, and nothing is asked of the two. */
function trackOnly(): NetworkModel {
	const other = pod('shop', 'third', 'node-1', podIp(9), { app: 'third' })
	return modelOf([other], [policy('shop', 'third', selector({ app: 'third' }), [])])
}

/** How many elements it took. */
async function install(world: World, model: NetworkModel): Promise<number> {
	const plane = createPolicy({ netns: world.node })
	const program = plane.compile(model, 'node-1')
	const outcome = await plane.apply(plane.diff(undefined, program))
	plane.close()
	if (!outcome.ok) throw outcome.error
	return [...program.tables.values()].flatMap((t) => [...t.sets.values()]).reduce((n, s) => n + s.elements.size, 0)
}

/** A default-denied pod is opened to a client and closed again, in a cluster with 1,000 other policies. */
async function written(rounds: number): Promise<Row[]> {
	if (skip !== false) return [missing('policy written to enforced', skip)]
	const lab = await createTestLab('bench-policy', undefined, { nodes: 2 })
	const server = createServer((connection) => connection.on('error', () => {}).destroy())
	try {
		for (const name of ['client', 'server']) await lab.create(podObject(name))
		const [from, to] = await Promise.all([lab.pod('client'), lab.pod('server')])
		const netns = (p: typeof from) => join(lab.paths.namespaces, `pod-${p.metadata.uid}`)
		const ip = to.status?.podIP as Ip
		server.listen({ fd: bindTcp(netns(to), ip, port) })
		await fill(lab)
		await lab.client.create(networkPolicies, object('default', 'deny', { app: 'server' }, []))
		await lab.client.create(networkPolicies, object('default', 'target', { app: 'server' }, ['nobody']))
		const samples = { open: [] as number[], shut: [] as number[] }
		await until(netns(from), ip, false)
		for (let round = 0; round < rounds + 10; round++) {
			for (const way of ['open', 'shut'] as const) {
				const begun = performance.now()
				const { spec } = object('default', 'target', { app: 'server' }, [way === 'open' ? 'client' : 'nobody'])
				const writing = lab.client.patch(networkPolicies, 'default/target', { spec }, { type: 'merge' })
				const decided = await until(netns(from), ip, way === 'open')
				await writing
				if (round >= 10) samples[way].push(Math.max(0, decided - begun))
			}
		}
		const note = 'request sent to the first connection attempt (one a millisecond) that the new rules decide'
		return (['open', 'shut'] as const).map((way) =>
			row(
				`p99 policy written to ${way === 'open' ? 'allowed' : 'denied'} with ${policyCount} policies`,
				'ms',
				samples[way],
				{
					ours: quantile(samples[way], 0.99),
					bar: '≤ 50 ms',
					note: `${note}; p50 ${median(samples[way]).toFixed(1)} ms`,
				},
			),
		)
	} finally {
		server.close()
		await lab.remove()
	}
}

function object(namespace: string, name: string, app: Record<string, string>, callers: readonly string[]) {
	return {
		apiVersion: 'networking.k8s.io/v1' as const,
		kind: 'NetworkPolicy' as const,
		metadata: { namespace, name },
		spec: {
			podSelector: { matchLabels: app },
			policyTypes: ['Ingress' as const],
			ingress: callers.map((caller) => ({ from: [{ podSelector: { matchLabels: { app: caller } } }] })),
		},
	}
}

async function fill(lab: TestLab): Promise<void> {
	let next = 0
	const worker = async () => {
		for (let i = next++; i < policyCount; i = next++)
			await lab.client.create(
				networkPolicies,
				object('default', `other-${i}`, { app: `other-${i}` }, [`caller-${i % 50}`]),
			)
	}
	await Promise.all(Array.from({ length: 16 }, worker))
	await lab.handle.client.repair()
}

/** Connects once a millisecond until an attempt fares as wanted; when that one began. */
async function until(netns: string, ip: Ip, reached: boolean): Promise<number> {
	for (;;) {
		const begun = performance.now()
		const fd = inNetnsAt(netns, () => socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0))
		try {
			connect(fd, inetAddress(ipToBytes(ip), port))
			// A connection on one machine takes some 50 µs: after 2 ms of silence it was dropped.
			const [ready = 0] = await waitReady([{ fd, events: POLLOUT }], 2)
			if ((ready !== 0) === reached) return begun
		} finally {
			setsockopt(fd, SOL_SOCKET, SO_LINGER, new Uint8Array(new Int32Array([1, 0]).buffer))
			close(fd)
		}
	}
}
