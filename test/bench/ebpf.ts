// P1 and P2 for the eBPF data plane: what a connection through a ClusterIP costs against a direct one, how fast
// Services are written to the maps, and what memory they take. Rows of the services group.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Ip, ipFromBytes } from '../../src/base/ip.ts'
import { createEbpf, type EbpfDataplane, ebpfUsable } from '../../src/dataplane/ebpf/ebpf.ts'
import { createNetns, deleteNetns, inNetnsAt } from '../../src/linux/netns.ts'
import type { Endpoint, NetworkModel, Service, ServicePort } from '../../src/model/network.ts'
import { podIp, reasonToSkip, type World, withWorld } from '../net/services-world.ts'
import { testModel } from './connect.ts'
import { interleave, median, type Row, spreadOf } from './row.ts'
import { missing, model, row } from './services.ts'

/** The eBPF rows. `loadBaseline`: milliseconds of kube-proxy's layout at 10,000 Services, where it was measured. */
export async function runEbpf(loadBaseline?: number): Promise<Row[]> {
	const why = reasonToSkip() || ebpfUsable()
	if (typeof why === 'string') return [missing('eBPF', why)]
	const folder = mkdtempSync(join(tmpdir(), 'podwire-bench-'))
	const netns = join(folder, 'netns')
	createNetns(netns)
	try {
		return [...(await load(netns, loadBaseline)), ...(await oneChange(netns)), ...(await connect(folder))]
	} finally {
		deleteNetns(netns)
		rmSync(folder, { recursive: true, force: true })
	}
}

async function load(netns: string, baseline: number | undefined): Promise<Row[]> {
	const memory: number[] = []
	const compiles: number[] = []
	const once = async (want: NetworkModel) => {
		const plane = createEbpf({ netns })
		const t0 = performance.now()
		const program = plane.compile(want, 'node-1')
		const t1 = performance.now()
		const outcome = await plane.apply(plane.diff(undefined, program))
		const took = performance.now() - t1
		if (!outcome.ok) throw outcome.error
		compiles.push(t1 - t0)
		memory.push(plane.memory())
		plane.close()
		return took
	}
	const want = model(10_000)
	await once(want)
	memory.length = 0
	compiles.length = 0
	const samples: number[] = []
	for (let i = 0; i < 7; i++) samples.push(await once(want))
	const note = `compile before it: ${median(compiles).toFixed(1)} ms`
	const rows = [
		row('eBPF: load 10,000 Services × 3, program to kernel', 'ms', samples, {
			note,
			...(baseline === undefined ? {} : { baseline, bar: '≤ 1/200 of kube-proxy layout by nft -f' }),
		}),
	]
	const memoryRow = (count: string) =>
		row(`eBPF: kernel memory of the maps, ${count} Services × 3`, 'MiB', [median(memory) / 2 ** 20])
	rows.push(memoryRow('10,000'))
	memory.length = 0
	await once(model(50_000))
	return [...rows, memoryRow('50,000')]
}

async function oneChange(netns: string): Promise<Row[]> {
	const few = await prepareChanges(netns, 1000)
	const many = await prepareChanges(netns, 50_000)
	try {
		for (let i = 0; i < 300; i++) {
			await few.change()
			await many.change()
		}
		const samples = await interleave(301, { few: few.change, many: many.change })
		return [
			row('eBPF: one change at 1,000 Services, diff to kernel', 'µs', samples.few, {
				bar: '≤ 100 µs',
				note: `compile before it: ${few.compiled()} µs`,
			}),
			row('eBPF: one change at 50,000 Services, diff to kernel', 'µs', samples.many, {
				baseline: median(samples.few),
				bar: '≤ 100 µs and ≤ 1.5 × 1,000 Services',
				note: `compile before it: ${many.compiled()} µs`,
			}),
		]
	} finally {
		few.close()
		many.close()
	}
}

async function prepareChanges(netns: string, count: number) {
	const plane = createEbpf({ netns })
	let now = model(count)
	let have = plane.compile(now, 'node-1')
	const first = await plane.apply(plane.diff(undefined, have))
	if (!first.ok) throw first.error
	const compiles: number[] = []
	let turn = 0
	return {
		async change(): Promise<number> {
			const i = (turn++ % 200) + 30
			const key = `default/service-${i}`
			const old = now.services.get(key) as Service
			const [web] = old.ports as [ServicePort]
			const [first] = web.endpoints as [Endpoint]
			const fourth = { ...first, ip: ipFromBytes(Uint8Array.of(10, 200, 0, i)) }
			const endpoints = web.endpoints.length === 3 ? [...web.endpoints, fourth] : web.endpoints.slice(0, 3)
			now = { ...now, services: now.services.set(key, { ...old, ports: [{ ...web, endpoints }] }) }
			const t0 = performance.now()
			const want = plane.compile(now, 'node-1')
			const t1 = performance.now()
			const outcome = await plane.apply(plane.diff(have, want))
			const t2 = performance.now()
			if (!outcome.ok) throw outcome.error
			have = want
			compiles.push((t1 - t0) * 1000)
			return (t2 - t1) * 1000
		},
		compiled: () => median(compiles.slice(-301)).toFixed(1),
		close: () => plane.close(),
	}
}

// --- P1 ---

const testIp = '10.95.0.1' as Ip
const port = 8080

async function connect(folder: string): Promise<Row[]> {
	const binary = join(folder, 'connect')
	const source = fileURLToPath(new URL('connect.c', import.meta.url))
	const compiler = ['cc', 'gcc', 'clang'].find((name) => spawnSync(name, ['-O2', '-o', binary, source]).status === 0)
	if (compiler === undefined) return [missing('eBPF: connect through a ClusterIP', 'needs a C compiler')]
	if (spawnSync('taskset', ['-V']).error !== undefined)
		return [missing('eBPF: connect through a ClusterIP', 'needs taskset (util-linux)')]
	const servers: ChildProcess[] = []
	const planes: EbpfDataplane[] = []
	const start = (world: World) =>
		servers.push(
			inNetnsAt(world.pod(1), () =>
				spawn('taskset', ['-c', '0', binary, 'serve', podIp(1), String(port)], { stdio: 'ignore' }),
			),
		)
	try {
		return await withWorld(2, (direct) =>
			withWorld(2, async (many) => {
				start(direct)
				start(many)
				// The programs see every socket of the machine, those of the direct connections too: as a foreign one.
				planes.push(await install(many, 10_000))
				return measureConnections(direct, many, binary)
			}),
		)
	} finally {
		for (const plane of planes) plane.close()
		for (const server of servers) server.kill()
	}
}

async function install(world: World, count: number): Promise<EbpfDataplane> {
	const namespaces = () => [
		{ path: world.node, ips: [] },
		...[0, 1].map((i) => ({ path: world.pod(i), ips: [podIp(i)] })),
	]
	const plane = createEbpf({ netns: world.node, namespaces })
	const want = plane.compile(testModel(count, testIp, port), 'node-1')
	const outcome = await plane.apply(plane.diff(undefined, want))
	if (!outcome.ok) throw outcome.error
	return plane
}

async function measureConnections(direct: World, many: World, binary: string): Promise<Row[]> {
	const client = (world: World, ...words: readonly (string | number)[]): readonly number[] => {
		const done = inNetnsAt(world.pod(0), () =>
			spawnSync('taskset', ['-c', '0', binary, ...words.map(String)], { encoding: 'utf8' }),
		)
		if (done.status !== 0) throw new Error(`connect ${words.join(' ')}: ${done.stderr}`)
		return done.stdout.trim().split(' ').map(Number)
	}
	const pair = () => client(many, 'pair', podIp(1), port, testIp, 80, 2000) as [number, number]
	pair()
	const pairs = Array.from({ length: 21 }, pair)
	const ask = (world: World) => () => client(world, 'ask', podIp(1), port, '0.05')[0] as number
	const rounds = await interleave(61, { direct: ask(direct), beside: ask(many) })
	const note = (samples: readonly number[]) => {
		const [from, to] = spreadOf(samples).map((n) => n.toFixed(0))
		return `direct [${from}, ${to}]; one CPU for client and server`
	}
	const rate = (samples: readonly number[]) => samples.map((microseconds) => 1e6 / microseconds)
	const directly = rate(pairs.map(([t]) => t))
	return [
		row('eBPF: connect through a ClusterIP, 10,000 Services', '1/s', rate(pairs.map(([, t]) => t)), {
			baseline: median(directly),
			ratio: median(pairs.map(([a, b]) => a / b)),
			bar: '≥ 0.98 of a direct connect',
			note: `${note(directly)}, turn about in one process`,
		}),
		row('eBPF: connect to a pod address beside 10,000 Services', '1/s', rounds.beside, {
			baseline: median(rounds.direct),
			// Round by round: what else the machine does at the time concerns both alike.
			ratio: median(rounds.beside.map((n, i) => n / (rounds.direct[i] as number))),
			note: note(rounds.direct),
		}),
	]
}
