// How the nftables data plane grows with the number of Services, each with three endpoints: time to load, time for one
// change, memory of the kernel and of the agent. `--plot FILE` draws it.

import { closeSync, readFileSync, writeFileSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { createNftables } from '../../src/dataplane/nftables/nftables.ts'
import { createAnonymousNetns } from '../../src/linux/netns.ts'
import { type Panel, plot } from './plot.ts'
import { median, type Row, spreadOf } from './row.ts'
import { missing, model, prepareChanges } from './services.ts'

const sizes = [1000, 5000, 10_000, 20_000, 50_000]
const repeats = 5

interface Measured {
	readonly size: number
	readonly load: readonly number[]
	readonly change: readonly number[]
	readonly kernel: readonly number[]
	readonly agent: readonly number[]
}

export async function run(): Promise<Row[]> {
	if (process.platform !== 'linux' || process.getuid?.() !== 0) {
		return [missing('growth', 'needs root on Linux, or root of a user namespace')]
	}
	setFlagsFromString('--expose_gc')
	const collect = runInNewContext('gc') as () => void
	await measureSize(2000, collect, 2)
	const measured: Measured[] = []
	for (const size of sizes) measured.push(await measureSize(size, collect, repeats))
	const at = process.argv.indexOf('--plot')
	const file = at < 0 ? undefined : process.argv[at + 1]
	if (file !== undefined) writeFileSync(file, plot('nftables data plane: Services × 3 endpoints', panels(measured)))
	return measured.flatMap(({ size, load, change, kernel, agent }) => {
		const row = (name: string, unit: string, samples: readonly number[], note?: string): Row => ({
			group: 'growth',
			name: `${size} Services × 3: ${name}`,
			unit,
			ours: median(samples),
			spread: spreadOf(samples),
			repeats: samples.length,
			...(note === undefined ? {} : { note }),
		})
		return [
			row('load, program to kernel ack', 'ms', load),
			row('one change, diff to kernel ack', 'µs', change),
			row('kernel memory', 'MiB', kernel, 'what SUnreclaim and VmallocUsed of /proc/meminfo gained'),
			row('agent memory', 'MiB', agent, 'model, program and what compiling keeps, on the heap'),
		]
	})
}

async function measureSize(size: number, collect: () => void, times: number): Promise<Measured> {
	const load: number[] = []
	const kernel: number[] = []
	const agent: number[] = []
	for (let i = 0; i < times; i++) {
		collect()
		const heap = process.memoryUsage().heapUsed
		const want = model(size)
		const netns = createAnonymousNetns()
		const plane = createNftables({ netns })
		const program = plane.compile(want, 'node-1')
		collect()
		agent.push((process.memoryUsage().heapUsed - heap) / 2 ** 20)
		// Twice: the diff's garbage must not count as the kernel's memory.
		const changes = plane.diff(undefined, program)
		const before = taken()
		const begun = performance.now()
		const outcome = await plane.apply(plane.diff(undefined, program))
		load.push(performance.now() - begun)
		if (!outcome.ok) throw outcome.error
		if (changes.length === 0) throw new Error('nothing to load')
		kernel.push(Math.max(0, taken() - before))
		plane.close()
		closeSync(netns)
		await settled()
	}
	const changing = await prepareChanges(size)
	const change: number[] = []
	try {
		for (let i = 0; i < 300; i++) await changing.change(i)
		for (let i = 0; i < 201; i++) change.push(await changing.change())
	} finally {
		changing.close()
	}
	await settled()
	return { size, load, change, kernel, agent }
}

/** MiB that the kernel has taken for itself: elements are slab objects, the tables of their hashes are mapped. */
function taken(): number {
	const text = readFileSync('/proc/meminfo', 'utf8')
	const of = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0)
	return (of('SUnreclaim') + of('VmallocUsed')) / 1024
}

/** A namespace is taken apart in the background. */
function settled(): Promise<void> {
	return new Promise((resolve) => setTimeout(resolve, 300))
}

function panels(measured: readonly Measured[]): Panel[] {
	const panel = (title: string, unit: string, of: (m: Measured) => readonly number[]): Panel => ({
		title,
		unit,
		points: measured.map((m) => ({ x: m.size, y: median(of(m)) })),
	})
	return [
		panel('load', 'ms', (m) => m.load),
		panel('one change', 'µs', (m) => m.change),
		panel('kernel memory', 'MiB', (m) => m.kernel),
		panel('agent memory', 'MiB', (m) => m.agent),
	]
}
