// Many objects and many watchers, over TLS as clients come: 10,000 pods and 200 watchers; with PODWIRE_SCALE=full
// 100,000 pods and 1,000 watchers (two to four minutes).

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import type { KubeList, KubeObject, Status } from '../../src/kube/objects/meta.ts'
import { type ApiClient, type ApiProcess, examplePod, filledPod, startApiProcess } from '../fixtures/api-server.ts'

const full = process.env.PODWIRE_SCALE === 'full'
const objects = full ? 100_000 : 10_000
const watchers = full ? 1_000 : 200
/** Events that all of the watchers hear. */
const events = full ? 500 : 300

type List = KubeList<KubeObject>

describe(`an API server with ${objects} pods and ${watchers} watchers`, () => {
	const folder = mkdtempSync(join(tmpdir(), 'podwire-scale-'))
	let api: ApiProcess
	let client: ApiClient
	before(async () => {
		api = await startApiProcess({ folder, fill: objects })
		client = api.client()
	})
	after(async () => {
		client?.close()
		await api?.kill()
		rmSync(folder, { recursive: true, force: true })
	})
	const keyOf = (object: KubeObject) => `${object.metadata.namespace}/${object.metadata.name}`
	const keys = Array.from({ length: objects }, (_, i) => filledPod(i)).map((p) => `${p.namespace}/${p.name}`)
	const pods = '/api/v1/pods'

	test('answers others while it lists them all', async (t) => {
		await api.stall()
		const begun = performance.now()
		let listed = 0
		const listing = client.json<List>('GET', pods).then((list) => {
			listed = performance.now()
			return list
		})
		const other = api.client()
		let answers = 0
		while (listed === 0) {
			const { namespace, name } = filledPod(answers % objects)
			const pod = await other.json<KubeObject>('GET', `/api/v1/namespaces/${namespace}/pods/${name}`)
			assert.equal(pod.metadata.name, name)
			answers++
		}
		other.close()
		const { items } = await listing
		assert.deepEqual(items.map(keyOf), keys)
		assert.ok(answers > 10, `only ${answers} other requests were answered meanwhile`)
		t.diagnostic(
			`${(listed - begun).toFixed(0)} ms for the list, meanwhile ${answers} other answers; the event loop stood still for ${(await api.stall()).toFixed(0)} ms at most`,
		)
	})

	test('searches and shows them all without standing still', async (t) => {
		const { items } = await client.json<List>('GET', `${pods}?labelSelector=tier%3Dfront,app!%3Dother`)
		assert.equal(items.length, objects)
		const none = await client.json<List>('GET', `${pods}?fieldSelector=spec.nodeName%3Dnode-1`)
		assert.equal(none.items.length, 0)
		t.diagnostic(`the event loop stood still for ${(await api.stall()).toFixed(0)} ms at most`)
	})

	test('lists them in pages as they were at the first, whatever is written meanwhile', async () => {
		await client.json('POST', '/api/v1/namespaces', { metadata: { name: 'zz' } })
		const seen: string[] = []
		const first = await client.json<List>('GET', `${pods}?limit=3000`)
		let page = first
		for (let n = 0; ; n++) {
			seen.push(...page.items.map(keyOf))
			assert.equal(page.metadata.resourceVersion, first.metadata.resourceVersion)
			const { continue: next, remainingItemCount } = page.metadata
			assert.equal(remainingItemCount ?? 0, objects - seen.length)
			if (next === undefined) break
			// One goes behind the page, and others come before and behind it.
			const { namespace, name } = filledPod(objects - 1 - n)
			await client.json('DELETE', `/api/v1/namespaces/${namespace}/pods/${name}`)
			await client.json('POST', '/api/v1/namespaces/default/pods', examplePod(`new-${n}`))
			await client.json('POST', '/api/v1/namespaces/zz/pods', examplePod(`new-${n}`, 'zz'))
			page = await client.json<List>('GET', `${pods}?limit=3000&continue=${next}`)
		}
		assert.deepEqual(seen, keys)
		const { metadata } = await client.json<List>('GET', `${pods}?limit=1`)
		const written = Number(metadata.resourceVersion) - Number(first.metadata.resourceVersion)
		assert.ok(written >= 9)
		assert.equal(metadata.remainingItemCount, objects + written / 3 - 1)
		const { resourceVersion } = first.metadata
		const then = await client.json<List>('GET', `${pods}?resourceVersion=${resourceVersion}&resourceVersionMatch=Exact`)
		assert.deepEqual(then.items.map(keyOf), keys)
		for (const query of ['resourceVersion=0', `resourceVersion=${resourceVersion}&resourceVersionMatch=NotOlderThan`]) {
			const { body } = await client.ask('GET', `${pods}?${query}`)
			const now = /"resourceVersion":"(\d+)"/.exec(body.subarray(0, 200).toString())
			assert.equal(now?.[1], metadata.resourceVersion)
		}
	})

	test('tells all watchers all events in order', async (t) => {
		const { metadata } = await client.json<List>('GET', `${pods}?limit=1`)
		const from = Number(metadata.resourceVersion)
		const heard = Array.from({ length: watchers }, () => [] as string[])
		const all = Promise.withResolvers<void>()
		let complete = 0
		const hear = (watcher: number) => (line: string) => {
			const [, type, name] = /^\{"type":"([A-Z]+)",.*?"name":"([^"]*)"/.exec(line) ?? []
			const [, revision] = /"resourceVersion":"(\d+)"/.exec(line) ?? []
			if (heard[watcher]!.push(`${type} ${revision} ${name}`) === events) if (++complete === watchers) all.resolve()
		}
		const path = `${pods}?watch=true&resourceVersion=${from}`
		const watches = await inSteps(watchers, (i) => client.watch(path, hear(i)))
		const begun = performance.now()
		// Each of several writers makes, changes and deletes pods of its own.
		await Promise.all(
			Array.from({ length: 10 }, async (_, writer) => {
				const own = api.client()
				const at = '/api/v1/namespaces/default/pods'
				for (let i = 0; i < events / 10; i += 3) {
					const pod = examplePod(`w${writer}-${i}`) as KubeObject
					const made = await own.json<KubeObject>('POST', at, pod)
					const labelled = { ...made, metadata: { ...made.metadata, labels: { changed: 'yes' } } }
					await own.json('PUT', `${at}/${made.metadata.name}`, labelled)
					await own.json('DELETE', `${at}/${made.metadata.name}`)
				}
				own.close()
			}),
		)
		await all.promise
		t.diagnostic(`${events} events to ${watchers} watchers in ${(performance.now() - begun).toFixed(0)} ms`)
		for (const watch of watches) watch.stop()
		const revisions = heard[0]!.map((line) => Number(line.split(' ')[1]))
		assert.deepEqual(
			revisions,
			revisions.map((_, i) => from + 1 + i),
		)
		for (const own of heard) assert.deepEqual(own, heard[0])
	})

	test('keeps nothing for watchers that do not read: those that fall behind what is remembered are told 410', async (t) => {
		const slow = 20
		const { metadata } = await client.json<List>('GET', `${pods}?limit=1`)
		const old = await client.json<List>('GET', `${pods}?limit=100`)
		const maps = '/api/v1/namespaces/default/configmaps'
		const lastLines: string[] = []
		const counts: number[] = []
		const watches = await inSteps(slow, async (i) => {
			const watch = await client.watch(`${maps}?watch=true&resourceVersion=${metadata.resourceVersion}`, (line) => {
				lastLines[i] = line
				counts[i] = (counts[i] ?? 0) + 1
			})
			watch.message.pause()
			return watch
		})
		const before = await api.memory()
		// 120 MB of changes, twice what is remembered; 2.4 GB if they were kept for each watcher.
		const data = { ballast: 'x'.repeat(250_000) }
		const object = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'large' }, data }
		await client.json('POST', maps, object)
		const changes = 480
		await Promise.all(
			Array.from({ length: 4 }, async (_, writer) => {
				const own = api.client()
				for (let i = 0; i < changes / 4; i++)
					await own.json('PUT', `${maps}/large`, { ...object, data: { ...data, i: `${writer} ${i}` } })
				own.close()
			}),
		)
		const grown = (await api.memory()).used - before.used
		t.diagnostic(`the server's memory grew by ${(grown / 2 ** 20).toFixed(0)} MiB`)
		// What is remembered is 64 MiB at most, and each socket holds a piece.
		assert.ok(grown < 128 * 2 ** 20, `the server's memory grew by ${grown} bytes`)
		for (const watch of watches) watch.message.resume()
		await Promise.all(watches.map((watch) => watch.ended))
		for (let i = 0; i < slow; i++) {
			const { type, object: status } = JSON.parse(lastLines[i]!) as { type: string; object: unknown }
			assert.deepEqual([type, (status as Status).code, (status as Status).reason], ['ERROR', 410, 'Expired'])
			assert.ok(counts[i]! < changes)
		}
		// What was asked for before is forgotten, too; what is now is not.
		for (const query of [
			`watch=true&resourceVersion=${metadata.resourceVersion}`,
			`resourceVersion=${metadata.resourceVersion}&resourceVersionMatch=Exact`,
			`limit=100&continue=${old.metadata.continue}`,
		]) {
			const { status, body } = await client.ask('GET', `${pods}?${query}`)
			assert.deepEqual([status, (JSON.parse(body.toString()) as Status).reason], [410, 'Expired'], query)
		}
		assert.equal((await client.ask('GET', `${pods}?limit=1`)).status, 200)
	})

	test('is there again after a kill', async (t) => {
		const { metadata, items } = await client.json<List>('GET', pods)
		const { used, rss } = await api.memory()
		client.close()
		await api.kill()
		api = await startApiProcess({ folder })
		client = api.client()
		const again = await client.json<List>('GET', pods)
		assert.deepEqual(again.items.map(keyOf), items.map(keyOf))
		assert.ok(Number(again.metadata.resourceVersion) >= Number(metadata.resourceVersion))
		const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(0)} MiB`
		t.diagnostic(
			`memory before: ${mib(used)}, resident ${mib(rss)}; the store was read in ${api.loadMs.toFixed(0)} ms, the server answered after ${api.readyMs.toFixed(0)} ms`,
		)
	})
})

/** Fifty at a time: a thousand handshakes at once would have to wait for one another. */
async function inSteps<T>(count: number, make: (i: number) => Promise<T>): Promise<T[]> {
	const made: T[] = []
	while (made.length < count) {
		const from = made.length
		made.push(...(await Promise.all(Array.from({ length: Math.min(50, count - from) }, (_, i) => make(from + i)))))
	}
	return made
}
