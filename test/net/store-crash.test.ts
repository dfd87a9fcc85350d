// What the API server acknowledged survives kill -9, at whatever moment it comes and whatever a power cut leaves at the
// end of the log; what it did not acknowledge is there whole or not at all; its version never goes back; and a watch
// that goes on in the next life of the server misses nothing and hears nothing twice.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { openJournal } from '../../src/apiserver/journal.ts'
import { createStore, type Store } from '../../src/apiserver/store.ts'

const kills = Number(process.env.PODWIRE_KILLS ?? 100)
const script = new URL('../fixtures/api-writer.ts', import.meta.url).pathname

// Two stores at a time, each with half of the kills.
describe(`killed ${kills} times under load, an API server keeps its word`, { concurrency: 2 }, () => {
	test('with one store', (t) => killAndCompare(t, Math.ceil(kills / 2), 1))
	test('with another', (t) => killAndCompare(t, Math.floor(kills / 2), 2))
})

async function killAndCompare(t: TestContext, times: number, seed: number): Promise<void> {
	const folder = mkdtempSync(join(tmpdir(), 'podwire-crash-'))
	t.after(() => rmSync(folder, { recursive: true, force: true }))
	const path = join(folder, 'store.db')
	const random = createRandom(seed)
	const told = createTold()
	const tally = { torn: 0, early: 0 }
	for (let life = 1; life <= times; life++) {
		told.begin(life)
		// A small log is written back all the time, so that kills fall into that too.
		const pages = life % 2 === 0 ? 16 : 1000
		// One in eight while the store is being read, before anything is written.
		const early = random() < 0.125
		const delay = Math.floor(random() * (early ? 150 : 120))
		await run([path, String(life), told.seen, String(pages)], told, { early, delay })
		if (early) tally.early++
		// Each third time as a power cut would leave it: the record that was being written is there in part.
		if (life % 3 === 0 && tear(`${path}-wal`, random)) tally.torn++
		compare(await reopened(folder, path), told, life)
	}
	// The last life ends by itself, and the watch has seen everything.
	told.begin(times + 1)
	await run([path, String(times + 1), told.seen, '1000', '20'], told, undefined)
	const store = await reopened(folder, path)
	compare(store, told, times + 1)
	const have = new Map([...store.list('configmaps')].map((e) => [e.key, e.revision]))
	assert.deepEqual(told.mirror, have)
	// Each life but the early ones has one before it is killed; how many more depends on the machine.
	assert.ok(told.count > times, `only ${told.count} writes were acknowledged`)
	t.diagnostic(
		`${times} kills: ${told.count} acknowledged writes, ${told.events} events, ${told.lists} lists; ${tally.early} kills while starting, ${tally.torn} torn records`,
	)
}

/** What the server's lives have said so far. */
interface Told {
	/** The last version the watch has seen. */
	seen: string
	/** What a client knows by list and watch. */
	readonly mirror: Map<string, number>
	/** Highest version that was acknowledged or seen. */
	highest: number
	/** The version of the store when it was compared last. */
	compared: number
	/** The states each of the objects that are written again and again may have now. */
	readonly steps: Map<string, readonly string[]>
	readonly stages: Map<string, readonly string[]>
	/** Names the server made, and their uid and version. */
	readonly made: Map<string, readonly [uid: string, revision: number]>
	count: number
	events: number
	lists: number
	begin(life: number): void
	hear(line: string): void
}

function createTold(): Told {
	let listing: Map<string, number> | undefined
	let listedAt = ''
	const told: Told = {
		seen: '',
		mirror: new Map(),
		highest: 0,
		compared: 0,
		steps: new Map(),
		stages: new Map(),
		made: new Map(),
		count: 0,
		events: 0,
		lists: 0,
		begin(life) {
			listing = undefined
			for (const [name, states] of told.steps) told.steps.set(name, [...states, stateOf(life * 100_000)])
			// What was left of the life before is cleared away first.
			for (const [name, [stage]] of told.stages) told.stages.set(name, stages.slice(stages.indexOf(stage!)))
		},
		hear(line) {
			const [what = '', a = '', b = '', c = ''] = line.split(' ')
			switch (what) {
				case 'loaded':
					assert.ok(Number(a) >= told.highest, `the store begins at ${a}, but ${told.highest} was told before`)
					told.highest = Number(a)
					break
				case 'step':
					told.steps.set(a, [stateOf(Number(b)), stateOf(Number(b) + 1)])
					told.count++
					break
				case 'stage':
					told.stages.set(a, [b, stages[(stages.indexOf(b) + 1) % stages.length]!])
					told.count++
					break
				case 'made':
					assert.ok(!told.made.has(a), `the name ${a} was given twice`)
					told.made.set(a, [b, Number(c)])
					told.highest = Math.max(told.highest, Number(c))
					told.count++
					break
				case 'list':
					assert.ok(Number(a) >= Number(told.seen), `a list at ${a} after an event at ${told.seen}`)
					listing = new Map()
					listedAt = a
					told.lists++
					break
				case 'item':
					listing?.set(a, Number(b))
					break
				case 'listed': {
					assert.ok(listing)
					told.mirror.clear()
					for (const [key, revision] of listing) told.mirror.set(key, revision)
					told.seen = listedAt
					told.highest = Math.max(told.highest, Number(listedAt))
					break
				}
				case 'event': {
					const revision = Number(c)
					assert.ok(revision > Number(told.seen), `the event ${line} came after one at ${told.seen}`)
					const known = told.mirror.has(b)
					assert.equal(known, a !== 'ADDED', `${line}: ${known ? 'it was there already' : 'it was not there'}`)
					if (a === 'DELETED') told.mirror.delete(b)
					else told.mirror.set(b, revision)
					told.seen = c
					told.highest = Math.max(told.highest, revision)
					told.events++
					break
				}
				default:
					assert.fail(`unknown line ${line}`)
			}
		},
	}
	return told
}

/** What a step leaves: each fifth one deletes. */
function stateOf(step: number): string {
	return (step % 100_000) % 5 === 4 ? 'gone' : String(step)
}

/** An object with a finalizer, in this order and round again. */
const stages = ['there', 'going', 'gone']

/** One life: until the kill, or its own end. */
async function run(
	args: readonly string[],
	told: Told,
	kill: { readonly early: boolean; readonly delay: number } | undefined,
): Promise<void> {
	const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', script, ...args], {
		stdio: ['ignore', 'pipe', 'inherit'],
		// Half of a life would go by with compiling otherwise.
		env: { ...process.env, NODE_COMPILE_CACHE: join(tmpdir(), `podwire-compile-${process.getuid?.()}`) },
	})
	const die = () => setTimeout(() => child.kill('SIGKILL'), kill?.delay)
	if (kill?.early) die()
	let rest = ''
	let heard = false
	child.stdout.setEncoding('utf8')
	child.stdout.on('data', (chunk: string) => {
		const lines = (rest + chunk).split('\n')
		// A line that the kill cut off was not said.
		rest = lines.pop() ?? ''
		for (const line of lines) {
			told.hear(line)
			if (!heard && line.startsWith('step')) {
				heard = true
				if (kill?.early === false) die()
			}
		}
	})
	const ended = (await once(child, 'close')) as [number | null, string | null]
	assert.deepEqual(ended, kill === undefined ? [0, null] : [null, 'SIGKILL'])
}

/** The store as the next process would find it; the files themselves stay as they are. */
async function reopened(folder: string, path: string): Promise<Store> {
	const copy = join(folder, 'copy')
	rmSync(copy, { recursive: true, force: true })
	mkdirSync(copy)
	for (const end of ['', '-wal']) {
		if (existsSync(path + end)) copyFileSync(path + end, join(copy, `store.db${end}`))
	}
	const store = createStore({ journal: await openJournal(join(copy, 'store.db')) })
	store.close()
	return store
}

function compare(store: Store, told: Told, life: number): void {
	const where = `after life ${life}`
	assert.ok(store.revision >= told.highest, `${where}: the store is at ${store.revision}, ${told.highest} was told`)
	const compared = told.compared
	told.compared = told.highest = store.revision
	const revisions = new Set<number>()
	for (const storage of store.storages()) {
		for (const entry of store.list(storage)) {
			const { key, revision } = entry
			// Those of this life; what is older was looked at before.
			if (revision > compared)
				assert.equal(entry.object.metadata.resourceVersion, String(revision), `${where}: ${storage} ${key}`)
			assert.ok(revision <= store.revision && !revisions.has(revision), `${where}: ${storage} ${key} at ${revision}`)
			revisions.add(revision)
		}
	}
	const dataOf = (key: string) => store.get('configmaps', key)?.object.data as Record<string, string> | undefined
	for (const [name, states] of told.steps) {
		const data = dataOf(`default/${name}`)
		const have = data === undefined ? 'gone' : data.step!
		assert.ok(states.includes(have), `${where}: ${name} is ${have}, not ${states.join(' or ')}`)
		assert.equal(data?.again, data?.step)
		told.steps.set(name, [have])
	}
	for (const [name, allowed] of told.stages) {
		const metadata = store.get('configmaps', `default/${name}`)?.object.metadata
		const have = metadata === undefined ? 'gone' : metadata.deletionTimestamp === undefined ? 'there' : 'going'
		assert.ok(allowed.includes(have), `${where}: ${name} is ${have}, not ${allowed.join(' or ')}`)
		if (metadata !== undefined) assert.deepEqual(metadata.finalizers, ['example.com/hold'])
		told.stages.set(name, [have])
	}
	for (const [name, [uid, revision]] of told.made) {
		const entry = store.get('configmaps', `default/${name}`)
		assert.equal(entry?.revision, revision, `${where}: ${name}`)
		if (revision > compared) assert.equal(entry?.object.metadata.uid, uid, `${where}: ${name}`)
	}
	// Each of the writers may have had one write under way that was kept without our hearing of it.
	const unheard = [...store.list('configmaps')].filter(
		(e) => /^default\/[bc]-/.test(e.key) && !told.made.has(e.key.slice('default/'.length)),
	)
	assert.ok(unheard.length <= 2, `${where}: nobody was told of ${unheard.map((e) => e.key).join(', ')}`)
	for (const { key, revision, object } of unheard) {
		assert.ok(dataOf(key)?.first !== undefined && dataOf(key)?.first === dataOf(key)?.last, `${where}: ${key}`)
		told.made.set(object.metadata.name, [object.metadata.uid!, revision])
	}
	const unique = new Set<unknown>()
	for (const { key, object } of store.list('services')) {
		const spec = object.spec as { clusterIP?: string; ports?: { nodePort?: number }[] }
		for (const value of [spec.clusterIP, spec.ports?.[0]?.nodePort]) {
			assert.ok(value === undefined || !unique.has(value), `${where}: ${key} has ${value}, and another, too`)
			unique.add(value)
		}
	}
	// What the watch has seen is kept, and of what is kept up to there it has missed nothing.
	for (const { key, revision } of store.list('configmaps')) {
		const known = told.mirror.get(key)
		if (revision <= Number(told.seen)) assert.equal(known, revision, `${where}: ${key} in the watch`)
		else assert.ok(known === undefined || known < revision, `${where}: ${key} in the watch`)
	}
}

/** Frames of SQLite's log, https://www.sqlite.org/fileformat2.html#the_write_ahead_log. */
const walHeader = 32
const frameHeader = 24

/** Writes a record in part, or with a wrong checksum, behind the last whole one. False where there is no log. */
function tear(path: string, random: () => number): boolean {
	if (!existsSync(path)) return false
	const bytes = readFileSync(path)
	if (bytes.length < walHeader + frameHeader) return false
	const frame = frameHeader + bytes.readUInt32BE(8)
	const salts = bytes.subarray(16, 24)
	let end = walHeader
	while (end + frame <= bytes.length && bytes.subarray(end + 8, end + 16).equals(salts)) end += frame
	if (end === walHeader) return false
	const record = Buffer.from(bytes.subarray(end - frame, end))
	const whole = random() < 0.5
	if (whole) record.fill(0xa5, frameHeader + Math.floor(random() * 1000))
	const part = whole ? record : record.subarray(0, Math.floor(1 + random() * (frame - 1)))
	writeFileSync(path, Buffer.concat([bytes.subarray(0, end), part, bytes.subarray(end + part.length)]))
	return true
}

/** 0 ≤ x < 1; the same numbers for the same seed (mulberry32). */
function createRandom(seed: number): () => number {
	let state = seed
	return () => {
		state = (state + 0x6d2b79f5) | 0
		let t = Math.imul(state ^ (state >>> 15), 1 | state)
		t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
		return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
	}
}
