// P1 and P2: what a connection through a ClusterIP costs, how fast Services are programmed, against kube-proxy's own
// nftables layout loaded by nft on the same machine in the same run.

import { spawnSync } from 'node:child_process'
import { closeSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Ip, ipFromBytes } from '../../src/base/ip.ts'
import { createNftables } from '../../src/dataplane/nftables/nftables.ts'
import { createAnonymousNetns, inNetns } from '../../src/linux/netns.ts'
import type { NetworkModel, Service } from '../../src/model/network.ts'
import { sketchModel, sketchService } from '../net/services-world.ts'
import { measureConnections } from './connect.ts'
import { runEbpf } from './ebpf.ts'
import { interleave, median, type Row, spreadOf } from './row.ts'

const endpoints = 3
const address = (a: number, i: number) => ipFromBytes(Uint8Array.of(10, a + (i >> 16), (i >> 8) & 255, i & 255))
const clusterIp = (i: number): Ip => address(96, i)
const endpointIp = (i: number, k: number): Ip => address(128, i * endpoints + k)

function service(i: number, count = endpoints): Service {
	const list = Array.from({ length: count }, (_, k) => ({ ip: endpointIp(i, k), port: 8080, node: `node-${k + 2}` }))
	return sketchService({ name: `service-${i}`, ips: [clusterIp(i)], ports: [{ port: 80, endpoints: list }] })
}

/** `count` Services besides those of `more`. */
export function model(count: number, more: readonly Service[] = []): NetworkModel {
	return sketchModel([...more, ...Array.from({ length: count - more.length }, (_, i) => service(i + 1))])
}

/** kube-proxy's nftables layout: a verdict map, a chain a Service with an anonymous map, a chain an endpoint. */
function kubeProxyLayout(count: number): string {
	const out = ['table ip kube-proxy {', '\tmap service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }']
	for (let i = 1; i <= count; i++) {
		for (let k = 0; k < endpoints; k++) {
			const ip = endpointIp(i, k)
			out.push(
				`\tchain endpoint-${i}-${k} { ip saddr ${ip} meta mark set meta mark | 0x4000 ; meta l4proto tcp dnat to ${ip}:8080 ; }`,
			)
		}
		const slots = Array.from({ length: endpoints }, (_, k) => `${k} : goto endpoint-${i}-${k}`).join(', ')
		out.push(`\tchain service-${i} { numgen random mod ${endpoints} vmap { ${slots} } ; }`)
	}
	out.push(
		'\tchain services { ip daddr . meta l4proto . th dport vmap @service-ips ; }',
		'\tchain nat-prerouting { type nat hook prerouting priority dstnat; jump services ; }',
		'\tchain nat-output { type nat hook output priority -100; jump services ; }',
		'}',
		`add element ip kube-proxy service-ips { ${Array.from({ length: count }, (_, i) => `${clusterIp(i + 1)} . tcp . 80 : goto service-${i + 1}`).join(', ')} }`,
	)
	return `${out.join('\n')}\n`
}

export async function run(options: { full: boolean }): Promise<Row[]> {
	if (process.platform !== 'linux' || process.getuid?.() !== 0) {
		return [missing('all rows', 'needs root on Linux, or root of a user namespace')]
	}
	const folder = mkdtempSync(join(tmpdir(), 'podwire-bench-'))
	try {
		const loaded = await load(folder, options.full)
		const nftables = [...loaded, ...(await oneChange()), ...(await measureConnections(folder))]
		return [...nftables, ...(await runEbpf(loaded[0]?.baseline))]
	} finally {
		rmSync(folder, { recursive: true, force: true })
	}
}

export function missing(name: string, why: string): Row {
	return {
		group: 'services',
		name,
		unit: '-',
		ours: Number.NaN,
		spread: [Number.NaN, Number.NaN],
		repeats: 0,
		note: `not measured: ${why}`,
	}
}

async function inFreshNetns<T>(task: (netns: number) => T | Promise<T>): Promise<T> {
	const fd = createAnonymousNetns()
	try {
		return await task(fd)
	} finally {
		closeSync(fd)
	}
}

/** Milliseconds from the model to the kernel's acknowledgement, and how they divide. */
async function loadOurs(want: NetworkModel): Promise<{ total: number; compile: number; diff: number; apply: number }> {
	return inFreshNetns(async (netns) => {
		const plane = createNftables({ netns })
		const t0 = performance.now()
		const program = plane.compile(want, 'node-1')
		const t1 = performance.now()
		const changes = plane.diff(undefined, program)
		const t2 = performance.now()
		const outcome = await plane.apply(changes)
		const t3 = performance.now()
		plane.close()
		if (!outcome.ok) throw outcome.error
		return { total: t3 - t0, compile: t1 - t0, diff: t2 - t1, apply: t3 - t2 }
	})
}

function loadLayout(folder: string, count: number): Promise<number> {
	const file = join(folder, `layout-${count}`)
	writeFileSync(file, kubeProxyLayout(count))
	return inFreshNetns((netns) => {
		const start = performance.now()
		const done = inNetns(netns, () => spawnSync('nft', ['-f', file], { encoding: 'utf8' }))
		if (done.status !== 0) throw new Error(`nft -f: ${done.stderr}`)
		return performance.now() - start
	})
}

async function load(folder: string, full: boolean): Promise<Row[]> {
	const count = 10_000
	const want = model(count)
	await loadOurs(model(2000))
	const parts: { total: number; compile: number; diff: number; apply: number }[] = []
	const ours = async () => {
		const took = await loadOurs(want)
		parts.push(took)
		return took.diff + took.apply
	}
	const whole = () =>
		row(
			'the same from the model, compiled anew',
			'ms',
			parts.map((p) => p.total),
			{
				note: `compile ${part('compile')}, diff ${part('diff')}, encode and commit ${part('apply')} ms`,
			},
		)
	const part = (key: 'compile' | 'diff' | 'apply') => median(parts.map((p) => p[key])).toFixed(1)
	if (!['/usr/sbin/nft', '/sbin/nft', '/usr/bin/nft'].some(existsSync)) {
		const { only } = await interleave(7, { only: ours })
		return [row('load 10,000 Services × 3', 'ms', only, { note: 'no baseline: the nft program is not here' }), whole()]
	}
	// Quadratic in the number of Services: three sizes give the curve, --full measures the point itself.
	const sizes = [1000, 2000, 4000] as const
	const samples = await interleave(5, {
		ours,
		small: () => loadLayout(folder, sizes[0]),
		middle: () => loadLayout(folder, sizes[1]),
		large: () => loadLayout(folder, sizes[2]),
	})
	const curve = [samples.small, samples.middle, samples.large].map(median)
	const extrapolated = quadratic(sizes, curve as [number, number, number], count)
	const baseline = full ? await loadLayout(folder, count) : extrapolated
	const points = sizes.map((n, i) => `${n}: ${(curve[i] as number).toFixed(0)} ms`).join(', ')
	const how = full ? 'measured once' : `extrapolated from ${points} by a parabola (--full measures it)`
	return [
		row('load 10,000 Services × 3, program to kernel ack', 'ms', samples.ours, {
			baseline,
			bar: '≤ 1/200 of kube-proxy layout by nft -f, which does not compile either',
			note: `baseline ${how}`,
		}),
		whole(),
	]
}

function quadratic(x: readonly [number, number, number], y: readonly [number, number, number], at: number): number {
	let sum = 0
	for (let i = 0; i < 3; i++) {
		let term = y[i] as number
		for (let k = 0; k < 3; k++) if (k !== i) term *= (at - (x[k] as number)) / ((x[i] as number) - (x[k] as number))
		sum += term
	}
	return sum
}

interface RowParts {
	readonly baseline?: number
	/** Of the medians unless given. */
	readonly ratio?: number
	readonly bar?: string
	readonly note?: string
}

export function row(name: string, unit: string, samples: readonly number[], parts: RowParts = {}): Row {
	const ours = median(samples)
	return {
		group: 'services',
		name,
		unit,
		ours,
		...(parts.baseline === undefined ? {} : { baseline: parts.baseline, ratio: parts.ratio ?? ours / parts.baseline }),
		...(parts.bar === undefined ? {} : { bar: parts.bar }),
		spread: spreadOf(samples),
		...(parts.note === undefined ? {} : { note: parts.note }),
		repeats: samples.length,
	}
}

/** One Service gains and loses its fourth endpoint: microseconds from the new model to the kernel's acknowledgement. */
async function oneChange(): Promise<Row[]> {
	const few = await prepareChanges(1000)
	const many = await prepareChanges(50_000)
	try {
		// Warm code before it is measured.
		for (let i = 0; i < 300; i++) {
			await few.change(i)
			await many.change(i)
		}
		const samples = await interleave(301, { few: () => few.change(), many: () => many.change() })
		const each = (name: string) => few.compiled(name)
		return [
			row('one change at 1,000 Services, diff to kernel ack', 'µs', samples.few, {
				bar: '≤ 100 µs',
				note: `compile before it: ${each('compile')} µs`,
			}),
			row('one change at 50,000 Services, diff to kernel ack', 'µs', samples.many, {
				baseline: median(samples.few),
				bar: '≤ 100 µs and ≤ 1.5 × 1,000 Services',
				note: `compile before it: ${many.compiled('compile')} µs`,
			}),
		]
	} finally {
		few.close()
		many.close()
	}
}

export async function prepareChanges(count: number) {
	const netns = createAnonymousNetns()
	const plane = createNftables({ netns })
	let now = model(count)
	let have = plane.compile(now, 'node-1')
	const first = await plane.apply(plane.diff(undefined, have))
	if (!first.ok) throw first.error
	const compiles: number[] = []
	let turn = 0
	return {
		async change(which = turn): Promise<number> {
			turn++
			const i = (which % 200) + 30
			const key = `default/service-${i}`
			const ports = now.services.get(key)?.ports[0]?.endpoints.length ?? 0
			now = { ...now, services: now.services.set(key, service(i, ports === endpoints ? endpoints + 1 : endpoints)) }
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
		compiled: (_: string) => median(compiles.slice(-301)).toFixed(1),
		close() {
			plane.close()
			closeSync(netns)
		},
	}
}
