import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFailure } from '../base/failure.ts'
import type { UnknownObject } from '../kube/objects/meta.ts'
import { type Journal, openJournal } from './journal.ts'
import { type Change, createStore, type Store } from './store.ts'

const object = (name: string, more: Record<string, unknown> = {}): UnknownObject => ({
	kind: 'ConfigMap',
	apiVersion: 'v1',
	metadata: { name, namespace: 'default' },
	...more,
})

async function put(store: Store, name: string, more: Record<string, unknown> = {}) {
	const key = `default/${name}`
	const write = store.put('configmaps', key, object(name, more), store.current('configmaps', key))
	await write.kept
	return write.entry
}

function directory(t: { after(f: () => void): void }): string {
	const path = mkdtempSync(join(tmpdir(), 'podwire-store-'))
	t.after(() => rmSync(path, { recursive: true, force: true }))
	return path
}

/** What happened after a revision; undefined: that is forgotten. */
function changesSince(store: Store, storage: string, revision: number): readonly Change[] | undefined {
	if (revision < store.compacted) return undefined
	const log = store.log(storage)
	return Array.from({ length: log.end - log.after(revision) }, (_, i) => log.at(log.after(revision) + i))
}

/** As it was at a revision. */
function listAt(store: Store, storage: string, ...at: [revision: number, prefix?: string, from?: string]) {
	const range = store.rangeAt(storage, ...at)
	return range?.entries.slice(range.start, range.end)
}

const keys = (store: Store) => [...store.list('configmaps')].map((e) => e.key)

test('a write counts only once it is kept', async () => {
	const store = createStore()
	const write = store.put('configmaps', 'default/a', object('a'), undefined)
	assert.equal(store.get('configmaps', 'default/a'), undefined)
	assert.equal(store.current('configmaps', 'default/a'), write.entry)
	assert.equal(store.revision, 0)
	await write.kept
	assert.equal(store.get('configmaps', 'default/a'), write.entry)
	assert.equal(write.entry.object.metadata.resourceVersion, '1')
	assert.deepEqual(JSON.parse(Buffer.from(write.entry.bytes).toString()), write.entry.object)
	assert.throws(() => Object.assign(write.entry.object.metadata, { name: 'x' }), TypeError)
})

test('writes of one turn have growing revisions and see one another', async () => {
	const store = createStore()
	const first = store.put('configmaps', 'default/a', object('a'), undefined)
	assert.throws(() => store.put('configmaps', 'default/a', object('a'), undefined), /old state/)
	const second = store.put('configmaps', 'default/a', object('a', { data: { x: '1' } }), first.entry)
	const third = store.remove(second.entry)
	const again = store.put('configmaps', 'default/a', object('a'), undefined)
	await Promise.all([first.kept, second.kept, third.kept, again.kept])
	assert.deepEqual(
		[first, second, third, again].map((w) => w.entry.revision),
		[1, 2, 3, 4],
	)
	assert.equal(second.entry.id, first.entry.id)
	assert.notEqual(again.entry.id, first.entry.id)
	assert.equal(store.get('configmaps', 'default/a'), again.entry)
})

test('lists are in the order of keys, by namespace, and as they were', async () => {
	const store = createStore()
	for (const name of ['c', 'a', 'b']) await put(store, name)
	const other = store.put('configmaps', 'other/a', object('a'), undefined)
	await other.kept
	assert.deepEqual(keys(store), ['default/a', 'default/b', 'default/c', 'other/a'])
	const at = store.revision
	await put(store, 'bb')
	await store.remove(store.get('configmaps', 'default/a')!).kept
	await put(store, 'b', { data: { changed: 'yes' } })
	assert.deepEqual(
		[...store.list('configmaps', 'default/', 'default/b')].map((e) => e.key),
		['default/bb', 'default/c'],
	)
	const then = listAt(store, 'configmaps', at, 'default/')
	assert.deepEqual(
		then?.map((e) => e.key),
		['default/a', 'default/b', 'default/c'],
	)
	assert.equal(then?.[1]?.object.data, undefined)
})

test('changes are heard in order, remembered within bounds, forgotten beyond', async () => {
	const store = createStore({ historyLength: 8 })
	const heard: Change[] = []
	const stop = store.subscribe('configmaps', (changes) => heard.push(...changes))
	await put(store, 'a')
	await put(store, 'a', { data: {} })
	await store.remove(store.get('configmaps', 'default/a')!).kept
	stop()
	assert.deepEqual(
		heard.map((c) => [c.type, c.revision]),
		[
			['ADDED', 1],
			['MODIFIED', 2],
			['DELETED', 3],
		],
	)
	assert.equal(heard[2]?.entry.object.metadata.resourceVersion, '3')
	assert.deepEqual(changesSince(store, 'configmaps', 1), heard.slice(1))
	assert.deepEqual(changesSince(store, 'pods', 0), [])
	for (let i = 0; i < 10; i++) await put(store, `n${i}`)
	assert.equal(changesSince(store, 'configmaps', 1), undefined)
	assert.equal(listAt(store, 'configmaps', 1), undefined)
	assert.ok(store.compacted > 1)
	assert.deepEqual(
		changesSince(store, 'configmaps', store.compacted)?.map((c) => c.revision),
		Array.from({ length: store.revision - store.compacted }, (_, i) => store.compacted + 1 + i),
	)
})

test('history is bounded by bytes too', async () => {
	const store = createStore({ historyBytes: 10_000 })
	for (let i = 0; i < 30; i++) await put(store, 'a', { data: { x: 'x'.repeat(1000), i } })
	assert.ok(store.compacted > 15)
	assert.equal(store.revision, 30)
})

test('an index names the owner of a value, with staged writes', async () => {
	const store = createStore()
	await put(store, 'a', { ip: '1' })
	const index = store.index('configmaps', (o) => (typeof o.ip === 'string' ? [o.ip] : []))
	assert.equal(index.owner('1'), 'default/a')
	const write = store.put('configmaps', 'default/b', object('b', { ip: '2' }), undefined)
	assert.equal(index.owner('2'), 'default/b')
	await write.kept
	await put(store, 'a', { ip: '3' })
	assert.equal(index.owner('1'), undefined)
	assert.equal(index.owner('3'), 'default/a')
	await store.remove(store.get('configmaps', 'default/b')!).kept
	assert.equal(index.owner('2'), undefined)
	assert.equal(index.size, 1)
})

/** A journal that can be told to fail. */
function failing(): Journal & { broken: boolean; commits: number } {
	return {
		broken: false,
		commits: 0,
		load: () => ({ revision: 0, records: [] }),
		commit() {
			if (this.broken) throw new Error('disk full')
			this.commits++
		},
		close() {},
	}
}

test('a failed commit changes nothing, and later writes work', async () => {
	const journal = failing()
	const store = createStore({ journal })
	const index = store.index('configmaps', (o) => (typeof o.ip === 'string' ? [o.ip] : []))
	const kept = await put(store, 'a', { ip: '1' })
	const heard: Change[] = []
	store.subscribe('configmaps', (changes) => heard.push(...changes))
	journal.broken = true
	const change = store.put('configmaps', 'default/a', object('a', { ip: '2' }), kept)
	const create = store.put('configmaps', 'default/b', object('b', { ip: '3' }), undefined)
	const gone = store.remove(change.entry)
	for (const write of [change, create, gone]) await assert.rejects(write.kept, /disk full/)
	assert.equal(store.get('configmaps', 'default/a'), kept)
	assert.equal(store.current('configmaps', 'default/a'), kept)
	assert.deepEqual(kept.object.ip, '1')
	assert.deepEqual([index.owner('1'), index.owner('2'), index.owner('3')], ['default/a', undefined, undefined])
	assert.equal(store.revision, 1)
	assert.deepEqual(heard, [])
	journal.broken = false
	const after = await put(store, 'b', { ip: '3' })
	assert.equal(after.revision, 2)
	assert.equal(index.owner('3'), 'default/b')
})

test('all writes of one turn share one commit', async () => {
	const journal = failing()
	const store = createStore({ journal })
	await Promise.all(Array.from({ length: 100 }, (_, i) => put(store, `n${i}`)))
	assert.equal(journal.commits, 1)
})

test('what is kept is there again after opening, and the revision goes on', async (t) => {
	const path = join(directory(t), 'store.db')
	const store = createStore({ journal: await openJournal(path) })
	await put(store, 'a', { data: { v: '1' } })
	await put(store, 'b')
	await put(store, 'a', { data: { v: '2', text: 'ü€😀' } })
	await store.remove(store.get('configmaps', 'default/b')!).kept
	store.close()
	assert.throws(() => store.put('configmaps', 'default/x', object('x'), undefined), /closed/)
	assert.deepEqual(keys(store), ['default/a'])

	const again = createStore({ journal: await openJournal(path) })
	assert.equal(again.revision, 4)
	assert.equal(again.compacted, 4)
	assert.deepEqual(keys(again), ['default/a'])
	const entry = again.get('configmaps', 'default/a')!
	assert.deepEqual([entry.revision, entry.id], [3, 1])
	assert.deepEqual(entry.object.data, { v: '2', text: 'ü€😀' })
	assert.equal((await put(again, 'c')).revision, 5)
	assert.equal((await put(again, 'a')).id, 1)
	again.close()
	const third = createStore({ journal: await openJournal(path) })
	assert.deepEqual(keys(third), ['default/a', 'default/c'])
	third.close()
})

test('a second process is told that the store is in use; a foreign file is not touched', async (t) => {
	const path = join(directory(t), 'store.db')
	const journal = await openJournal(path)
	await assert.rejects(openJournal(path), (e) => isFailure(e, 'StoreBusy') && e.message.includes(path))
	journal.close()
	const { writeFileSync, readFileSync } = await import('node:fs')
	const foreign = join(directory(t), 'notes.txt')
	const text = 'not a database, but my notes\n'.repeat(100)
	writeFileSync(foreign, text)
	await assert.rejects(openJournal(foreign), (e) => isFailure(e, 'StoreUnreadable') && e.message.includes(foreign))
	assert.equal(readFileSync(foreign, 'utf8'), text)
	await assert.rejects(openJournal('/nowhere/at/all/store.db'), (e) => isFailure(e, 'StoreUnreadable'))
})

test('when the file may not grow, writes are refused, reads and later small writes go on', async (t) => {
	const path = join(directory(t), 'store.db')
	const store = createStore({ journal: await openJournal(path, { maxBytes: 64 * 1024 }) })
	const small = await put(store, 'small')
	await assert.rejects(
		put(store, 'large', { data: { x: 'x'.repeat(200_000) } }),
		(e) => isFailure(e, 'InsufficientStorage') && /no space is left; nothing was changed/.test(e.message),
	)
	assert.equal(store.get('configmaps', 'default/small'), small)
	assert.equal(store.get('configmaps', 'default/large'), undefined)
	assert.equal((await put(store, 'small2')).revision, 2)
	store.close()
	const again = createStore({ journal: await openJournal(path) })
	assert.deepEqual(keys(again), ['default/small', 'default/small2'])
	again.close()
})
