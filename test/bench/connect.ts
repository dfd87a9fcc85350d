// P1: connections a second through a ClusterIP, sequential, client and server on one CPU, by each data plane and by what
// kube-proxy's iptables mode writes, against connections to the pod itself.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Ip } from '../../src/base/ip.ts'
import { createNftables } from '../../src/dataplane/nftables/nftables.ts'
import { inNetnsAt } from '../../src/linux/netns.ts'
import { writeSysctl } from '../../src/linux/sysctl.ts'
import type { NetworkModel } from '../../src/model/network.ts'
import { podIp, sketchService, type World, withWorld } from '../net/services-world.ts'
import { iptablesLayout } from './iptables-layout.ts'
import { interleave, median, type Row, spreadOf } from './row.ts'
import { missing, model, row } from './services.ts'

const testIp = '10.95.0.1' as Ip
const port = 8080
const services = 10_000

type Install = (world: World) => Promise<void> | void

/** One world a variant: two pods on a node, and whatever carries Services there. */
interface Variant {
	readonly name: string
	readonly install?: Install
	/** Where the client connects to. */
	readonly to: readonly [Ip, number]
}

export async function measureConnections(folder: string): Promise<Row[]> {
	const binary = buildClient(folder)
	if (binary === undefined) return [missing('connect through a ClusterIP', 'needs a C compiler')]
	if (spawnSync('taskset', ['-V']).error !== undefined) {
		return [missing('connect through a ClusterIP', 'needs taskset (util-linux)')]
	}
	const service = [testIp, 80] as const
	const variants: Variant[] = [
		{ name: 'direct', to: [podIp(1), port] },
		{ name: 'few', install: nftables(10), to: service },
		{ name: 'many', install: nftables(services), to: service },
		{ name: 'beside', install: nftables(services), to: [podIp(1), port] },
	]
	const absent: Row[] = []
	for (const kind of ['nft', 'legacy'] as const) {
		const program = `iptables-${kind}-restore`
		if (spawnSync(program, ['--version']).error === undefined) {
			variants.push({ name: kind, install: iptables(program), to: service })
		} else absent.push(missing(`connect by ${program}`, 'the iptables program is not here'))
	}

	const servers: ChildProcess[] = []
	try {
		return [
			...(await inWorlds(variants.length, async (worlds) => {
				for (const [i, world] of worlds.entries()) {
					servers.push(startServer(world, binary))
					await variants[i]?.install?.(world)
					// Closed connections are forgotten at once, or the table of all namespaces fills.
					inNetnsAt(world.node, () => writeSysctl('net.netfilter.nf_conntrack_tcp_timeout_close', '1'))
				}
				return rows(variants, worlds, binary)
			})),
			...absent,
		]
	} finally {
		for (const server of servers) server.kill()
	}
}

export function inWorlds<T>(count: number, task: (worlds: readonly World[]) => Promise<T>): Promise<T> {
	const deeper = (worlds: readonly World[]): Promise<T> =>
		worlds.length === count ? task(worlds) : withWorld(2, (world) => deeper([...worlds, world]))
	return deeper([])
}

export function startServer(world: World, binary: string): ChildProcess {
	return inNetnsAt(world.pod(1), () =>
		spawn('taskset', ['-c', '0', binary, 'serve', podIp(1), String(port)], { stdio: 'ignore' }),
	)
}

/** `count` Services, one of them the one that is asked; all its endpoints are the one server. */
export function testModel(count: number, ip: Ip, serverPort: number): NetworkModel {
	const test = sketchService({
		name: 'test',
		ips: [ip],
		ports: [{ port: 80, endpoints: [0, 1, 2].map(() => ({ ip: podIp(1), port: serverPort })) }],
	})
	const base = model(count, [test])
	return { ...base, config: { ...base.config, serviceCidrs: [...base.config.serviceCidrs, '10.95.0.0/16' as never] } }
}

function nftables(count: number): Install {
	return async (world) => {
		const plane = createNftables({ netns: world.node })
		const outcome = await plane.apply(plane.diff(undefined, plane.compile(testModel(count, testIp, port), 'node-1')))
		plane.close()
		if (!outcome.ok) throw outcome.error
	}
}

/** The Service that is asked is the last one: kube-proxy promises no order, so this is what somebody has. */
function iptables(program: string): Install {
	return (world) => {
		const want = testModel(services, testIp, port)
		const list = [...want.services.values()].map((service) => ({
			ip: service.clusterIps[0] as Ip,
			port: 80,
			endpoints: service.ports[0]?.endpoints ?? [],
		}))
		list.sort((a, b) => Number(a.ip === testIp) - Number(b.ip === testIp))
		const done = inNetnsAt(world.node, () =>
			spawnSync(program, [], { input: iptablesLayout(list, '10.244.0.0/16'), encoding: 'utf8' }),
		)
		if (done.status !== 0) throw new Error(`${program}: ${done.stderr}`)
	}
}

/** Connections a second that the first pod makes to an address. */
export function askRate(world: World, binary: string, [to, at]: readonly [Ip, number]): number {
	const done = inNetnsAt(world.pod(0), () =>
		spawnSync('taskset', ['-c', '0', binary, 'ask', to, String(at), '0.2'], { encoding: 'utf8' }),
	)
	if (done.status !== 0) throw new Error(`connect ask ${to}: ${done.stderr}`)
	const [rate = 0, , failed = 0] = done.stdout.trim().split(' ').map(Number)
	if (failed > 0) throw new Error(`connect ask ${to}: ${failed} connections failed`)
	return rate
}

/** Undefined where there is no C compiler. */
export function buildClient(folder: string): string | undefined {
	const binary = join(folder, 'connect')
	const source = fileURLToPath(new URL('connect.c', import.meta.url))
	const found = ['cc', 'gcc', 'clang'].some((name) => spawnSync(name, ['-O2', '-o', binary, source]).status === 0)
	return found ? binary : undefined
}

async function rows(variants: readonly Variant[], worlds: readonly World[], binary: string): Promise<Row[]> {
	const tasks = Object.fromEntries(variants.map((v, i) => [v.name, () => askRate(worlds[i] as World, binary, v.to)]))
	await interleave(1, tasks)
	const samples = await interleave(31, tasks)
	const of = (name: string) => samples[name] ?? []
	const rate = (name: string) => median(of(name))
	// Round by round: what else the machine does at the time concerns both alike.
	const against = (ours: string, other: string) => median(of(ours).map((n, i) => n / (of(other)[i] as number)))
	const spread = (name: string) =>
		spreadOf(of(name))
			.map((n) => n.toFixed(0))
			.join(', ')
	const has = (name: string) => variants.some((v) => v.name === name)
	return [
		row('connect through a ClusterIP, 10,000 Services', '1/s', of('many'), {
			baseline: rate('direct'),
			ratio: against('many', 'direct'),
			bar: '≥ 0.79 of a direct connect without any rules',
			note: `direct [${spread('direct')}]; one CPU for client and server`,
		}),
		row('connect through a ClusterIP, 10,000 against 10 Services', '1/s', of('many'), {
			baseline: rate('few'),
			ratio: against('many', 'few'),
			bar: '≥ 0.97',
			note: `10 Services [${spread('few')}]`,
		}),
		row('connect to a pod address beside 10,000 Services', '1/s', of('beside'), {
			baseline: rate('direct'),
			ratio: against('beside', 'direct'),
			bar: 'pays only conntrack (0.82 to 0.85 with any rules)',
		}),
		...(['nft', 'legacy'] as const).filter(has).map((kind) =>
			row(`the same against kube-proxy's layout by iptables-${kind}, last of 10,000 Services`, '1/s', of('many'), {
				baseline: rate(kind),
				ratio: against('many', kind),
				note: `iptables-${kind} is ${against(kind, 'direct').toFixed(2)} of direct`,
			}),
		),
	]
}
