// The API server as its clients meet it: a process of its own, a synced store, TLS on loopback, client certificates.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { type ApiClient, type ApiProcess, examplePod, startApiProcess, type Watching } from '../fixtures/api-server.ts'
import { bootMany, bootOnce } from './boot.ts'
import { interleave, median, quantile, type Row, spreadOf } from './row.ts'

const pods = '/api/v1/namespaces/default/pods'

export async function run({ full }: { full: boolean }): Promise<readonly Row[]> {
	const home = mkdtempSync(join(tmpdir(), 'podwire-bench-'))
	const running: ApiProcess[] = []
	const start = async (name: string, options: { durable?: boolean; fill?: number } = {}) => {
		const api = await startApiProcess({ folder: join(home, name), ...options })
		running.push(api)
		return api
	}
	try {
		const rows = await startRows(home, full)
		const [durable, memory] = [await start('durable'), await start('memory', { durable: false })]
		rows.push(...(await createRows(durable, memory, full)))
		await memory.kill()
		rows.push(...(await watchRows(durable, full)))
		rows.push(...(await memoryRows(await start('growing'))))
		for (const api of running) if (api.child.exitCode === null) await api.kill()
		rows.push(...(await manyRows(join(home, 'many'), full ? 100_000 : 20_000)))
		rows.push(podsRow(full))
		return rows
	} finally {
		for (const api of running) if (api.child.exitCode === null) await api.kill()
		rmSync(home, { recursive: true, force: true })
	}
}

function row(name: string, unit: string, samples: readonly number[], more: Partial<Row> = {}): Row {
	return {
		group: 'api',
		name,
		unit,
		ours: median(samples),
		spread: spreadOf(samples),
		repeats: samples.length,
		...more,
	}
}

async function startRows(home: string, full: boolean): Promise<Row[]> {
	let n = 0
	const alone = async (name: string) => {
		const begun = performance.now()
		const api = await startApiProcess({ folder: join(home, name) })
		const ms = performance.now() - begun
		await api.kill()
		return ms
	}
	const { first, again, up } = await interleave(full ? 5 : 3, {
		first: () => alone(`start-${n++}`),
		again: () => alone('start-0'),
		up: () => bootOnce(['--nodes', '1']).seconds,
	})
	return [
		row('start of an empty server alone, process to first answer', 'ms', again, {
			note: `${median(first).toFixed(0)} ms the first time, with its certificates; published for sample-apiserver: 7 to 28 s`,
		}),
		row('podwire up --nodes 1, command to ready', 's', up, { note: 'published for kind, one node: 12.5 to 17.1 s' }),
	]
}

/** Creates pods for `ms` milliseconds; the pods a second, and how long each took. */
async function create(api: ApiProcess, clients: number, ms: number, tag: string) {
	const own = Array.from({ length: clients }, () => api.client())
	// The handshakes are not what is measured.
	await Promise.all(own.map((client) => client.ask('GET', '/version')))
	const took: number[] = []
	const begun = performance.now()
	await Promise.all(
		own.map(async (client, c) => {
			for (let i = 0; performance.now() < begun + ms; i++) took.push(await createOne(client, `${tag}-${c}-${i}`))
			client.close()
		}),
	)
	return { rate: took.length / ((performance.now() - begun) / 1000), took }
}

async function createOne(client: ApiClient, name: string): Promise<number> {
	const begun = performance.now()
	const { status, body } = await client.ask('POST', pods, examplePod(name))
	if (status !== 201) throw new Error(`POST ${pods}: ${status} ${body}`)
	return performance.now() - begun
}

async function createRows(durable: ApiProcess, memory: ApiProcess, full: boolean): Promise<Row[]> {
	const rows: Row[] = []
	// Compilers and files that grow for the first time are not what a cluster waits for.
	for (const api of [durable, memory]) await create(api, 16, 1_500, 'warm')
	for (const clients of [1, 16]) {
		const took: number[] = []
		let n = 0
		const { ours, baseline } = await interleave(full ? 9 : 5, {
			ours: async () => {
				const { rate, took: each } = await create(durable, clients, 800, `c${clients}-${n++}`)
				took.push(...each)
				return rate
			},
			baseline: async () => (await create(memory, clients, 800, `c${clients}-${n++}`)).rate,
		})
		rows.push(
			row(`pods created, ${clients} client${clients === 1 ? '' : 's'}, each answered when synced`, 'pods/s', ours, {
				baseline: median(baseline),
				ratio: median(ours) / median(baseline),
				note: `against the same in memory; an answer took p50 ${quantile(took, 0.5).toFixed(2)} ms, p99 ${quantile(took, 0.99).toFixed(1)} ms`,
			}),
		)
	}
	return rows
}

/** What a client that would rather have HTTP/2 is given. */
function protocolOf(api: ApiProcess): Promise<string> {
	const { promise, resolve, reject } = Promise.withResolvers<string>()
	const socket = connect({
		host: '127.0.0.1',
		port: api.port,
		ca: api.certificates.authority.certificate,
		servername: 'localhost',
		ALPNProtocols: ['h2', 'http/1.1'],
	})
	socket.once('secureConnect', () => {
		resolve(socket.alpnProtocol || 'http/1.1')
		socket.destroy()
	})
	socket.once('error', reject)
	return promise
}

async function watchRows(api: ApiProcess, full: boolean): Promise<Row[]> {
	const rows: Row[] = []
	const protocol = await protocolOf(api)
	for (const watchers of [1, 100, 1_000]) {
		const client = api.client()
		const sent = new Map<string, number>()
		const late: number[] = []
		let wanted = 0
		let wake: (() => void) | undefined
		const hear = (line: string, at: number) => {
			const begun = sent.get(/"name":"([^"]*)"/.exec(line)?.[1] ?? '')
			if (begun === undefined) return
			late.push(at - begun)
			if (late.length >= wanted) wake?.()
		}
		const { metadata } = await client.json<{ metadata: { resourceVersion: string } }>('GET', `${pods}?limit=1`)
		const path = `${pods}?watch=true&resourceVersion=${metadata.resourceVersion}`
		const watches: Watching[] = []
		while (watches.length < watchers) {
			const some = Math.min(50, watchers - watches.length)
			watches.push(...(await Promise.all(Array.from({ length: some }, () => client.watch(path, hear)))))
		}
		// What one event takes, not how many there can be.
		const events = watchers < 1_000 ? 30 : 15
		const apart = watchers < 1_000 ? 50 : 100
		const p50: number[] = []
		const p99: number[] = []
		for (let round = 0; round < (full ? 9 : 5); round++) {
			late.length = 0
			wanted = events * watchers
			const all = new Promise<void>((resolve) => {
				wake = resolve
			})
			const answers: Promise<number>[] = []
			const begun = performance.now()
			for (let i = 0; i < events; i++) {
				await new Promise((resolve) => setTimeout(resolve, Math.max(0, begun + i * apart - performance.now())))
				const name = `w${watchers}-${round}-${i}`
				sent.set(name, performance.now())
				answers.push(createOne(client, name))
			}
			await Promise.all([all, ...answers])
			p50.push(quantile(late, 0.5))
			p99.push(quantile(late, 0.99))
		}
		for (const watch of watches) watch.stop()
		client.close()
		rows.push(
			row(
				`create sent until ${watchers === 1 ? 'the watcher has it' : `each of ${watchers} watchers has it`}, p99`,
				'ms',
				p99,
				{
					note: `p50 ${median(p50).toFixed(1)} ms; ${1000 / apart} creates a second, a connection a watcher, ${protocol} (all watchers in one process, which takes half of it)`,
				},
			),
		)
	}
	return rows
}

async function memoryRows(api: ApiProcess): Promise<Row[]> {
	const samples: number[] = []
	const clients = Array.from({ length: 16 }, () => api.client())
	await Promise.all(clients.map((client, c) => createOne(client, `first-${c}`)))
	let before = (await api.memory()).used
	for (let thousand = 0; thousand < 5; thousand++) {
		await Promise.all(
			clients.map(async (client, c) => {
				for (let i = c; i < 1000; i += 16) await createOne(client, `m${thousand}-${i}`)
			}),
		)
		const now = (await api.memory()).used
		samples.push((now - before) / 2 ** 20)
		before = now
	}
	for (const client of clients) client.close()
	return [row('memory of 1,000 pods more (heap and buffers, after a collection)', 'MiB', samples)]
}

async function manyRows(folder: string, count: number): Promise<Row[]> {
	const filled = await startApiProcess({ folder, fill: count })
	await filled.kill()
	const load: number[] = []
	const list: number[] = []
	const stall: number[] = []
	const used: number[] = []
	let bytes = 0
	for (let round = 0; round < 3; round++) {
		const api = await startApiProcess({ folder })
		load.push(api.loadMs)
		used.push((await api.memory()).used / 2 ** 20)
		const client = api.client()
		await client.ask('GET', `${pods}?limit=1`)
		await api.stall()
		const begun = performance.now()
		bytes = (await client.ask('GET', '/api/v1/pods')).body.length
		list.push(performance.now() - begun)
		stall.push(await api.stall())
		client.close()
		await api.kill()
	}
	const many = count.toLocaleString('en')
	return [
		row(`store of ${many} pods read at start`, 'ms', load, {
			note: `${(median(used) / (count / 1000)).toFixed(1)} MiB for 1,000 pods that nobody has looked into yet, the server included`,
		}),
		row(`list of ${many} pods`, 'ms', list, {
			note: `${(bytes / 2 ** 20).toFixed(0)} MiB; the server's event loop stood still for ${median(stall).toFixed(0)} ms at most meanwhile`,
		}),
	]
}

function podsRow(full: boolean): Row {
	const { seconds, pods: ready } = bootMany(1000, full ? 3 : 1)
	const rates = seconds.map((s) => ready / s)
	return row('1,000 pods on 5 nodes, from the command to Ready', 'pods/s', rates, {
		baseline: 20,
		ratio: median(rates) / 20,
		bar: '1,000 in ≤ 10 s',
		note: `${median(seconds).toFixed(1)} s with making the cluster; against what KWOK publishes`,
	})
}
