import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFailure } from '../base/failure.ts'
import { createManualClock } from '../base/manual-clock.ts'
import { isAlreadyExists, isConflict, isExpired, isNotFound } from './answer.ts'
import { createKubeClient } from './client.ts'
import { createInformer } from './informer.ts'
import { configMaps, namespaces } from './kinds.ts'
import type { ConfigMap } from './objects/core.ts'
import type { Status, WatchEvent } from './objects/meta.ts'

/** A server of ConfigMaps that keeps state: versions, a history to watch, and faults to be set. */
function createServer() {
	let version = 10
	let oldest = 0
	const objects = new Map<string, ConfigMap>()
	const history: { version: number; event: WatchEvent<ConfigMap> }[] = []
	const watches = new Set<{ send(text: string): void; end(error?: Error): void }>()
	const log: string[] = []
	const status = (code: number, reason: string, message: string): Response =>
		Response.json(
			{ apiVersion: 'v1', kind: 'Status', metadata: {}, status: 'Failure', code, reason, message },
			{ status: code },
		)
	const server = {
		log,
		watches,
		failNext: undefined as Response | Error | undefined,
		put(name: string, value: string) {
			const type = objects.has(name) ? 'MODIFIED' : 'ADDED'
			const object: ConfigMap = {
				apiVersion: 'v1',
				kind: 'ConfigMap',
				metadata: { name, namespace: 'a', uid: name, resourceVersion: String(++version) },
				data: { value },
			}
			objects.set(name, object)
			server.publish({ type, object })
		},
		drop(name: string) {
			const object = objects.get(name) as ConfigMap
			objects.delete(name)
			server.publish({
				type: 'DELETED',
				object: { ...object, metadata: { ...object.metadata, resourceVersion: String(++version) } },
			})
		},
		publish(event: WatchEvent<ConfigMap>) {
			history.push({ version, event })
			for (const w of watches) w.send(`${JSON.stringify(event)}\n`)
		},
		bookmark() {
			const object = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: '', resourceVersion: String(version) } }
			for (const w of watches) w.send(`${JSON.stringify({ type: 'BOOKMARK', object })}\n`)
		},
		endWatches(error?: Error) {
			for (const w of [...watches]) w.end(error)
		},
		compact() {
			oldest = version
		},
		async transport(request: Request): Promise<Response> {
			const url = new URL(request.url)
			log.push(`${request.method} ${url.pathname}${url.search}`)
			const fail = server.failNext
			server.failNext = undefined
			if (fail instanceof Error) throw fail
			if (fail !== undefined) return fail
			const name = /configmaps\/(.+)$/.exec(url.pathname)?.[1]
			if (request.method === 'GET' && name !== undefined) {
				const object = objects.get(name)
				return object ? Response.json(object) : status(404, 'NotFound', `configmaps "${name}" not found`)
			}
			if (request.method === 'PUT' && name !== undefined) {
				const object = (await request.json()) as ConfigMap
				if (objects.get(name)?.metadata.resourceVersion !== object.metadata.resourceVersion) {
					return status(409, 'Conflict', 'the object has been modified')
				}
				server.put(name, object.data?.value ?? '')
				return Response.json(objects.get(name))
			}
			if (request.method === 'POST') return status(409, 'AlreadyExists', 'configmaps "x" already exists')
			if (url.searchParams.get('watch') !== 'true') {
				const items = [...objects.values()].map(({ metadata, data }) => ({ metadata, data }))
				const limit = Number(url.searchParams.get('limit') ?? items.length)
				const from = Number(url.searchParams.get('continue') ?? 0)
				const more = from + limit < items.length ? { continue: String(from + limit) } : {}
				return Response.json({
					apiVersion: 'v1',
					kind: 'ConfigMapList',
					metadata: { resourceVersion: String(version), ...more },
					items: items.slice(from, from + limit),
				})
			}
			const after = Number(url.searchParams.get('resourceVersion'))
			const gone: Status = {
				apiVersion: 'v1',
				kind: 'Status',
				metadata: {},
				code: 410,
				reason: 'Expired',
				message: `too old resource version: ${after}`,
			}
			const encoder = new TextEncoder()
			let close = () => {}
			const body = new ReadableStream<Uint8Array>({
				start(controller) {
					if (after < oldest) {
						controller.enqueue(encoder.encode(`${JSON.stringify({ type: 'ERROR', object: gone })}\n`))
						controller.close()
						return
					}
					const watch = {
						send: (text: string) => {
							// In two pieces, so that lines arrive broken.
							const bytes = encoder.encode(text)
							controller.enqueue(bytes.slice(0, 7))
							controller.enqueue(bytes.slice(7))
						},
						end: (error?: Error) => {
							watches.delete(watch)
							if (error === undefined) controller.close()
							else controller.error(error)
						},
					}
					watches.add(watch)
					close = () => watches.delete(watch)
					for (const h of history) if (h.version > after) watch.send(`${JSON.stringify(h.event)}\n`)
				},
				cancel: () => close(),
			})
			request.signal.addEventListener('abort', () => close())
			return new Response(body)
		},
	}
	return server
}

function setup() {
	const server = createServer()
	const clock = createManualClock()
	const client = createKubeClient(server.transport)
	const failures: unknown[] = []
	const informer = createInformer(client, configMaps, {
		clock,
		namespace: 'a',
		onFailure: (e) => failures.push(e),
		random: () => 0,
	})
	const heard: string[] = []
	informer.onChange((key, before, after) =>
		heard.push(`${key} ${before?.data?.value ?? '-'}→${after?.data?.value ?? '-'}`),
	)
	return { server, clock, client, informer, heard, failures }
}

/** Resolves when all that is under way without time passing is done. */
async function settle() {
	for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve))
}

test('lists, then follows', async () => {
	const { server, informer, heard, clock } = setup()
	server.put('x', '1')
	informer.start()
	await informer.synced
	assert.equal(informer.store.get('a/x')?.kind, 'ConfigMap')
	await settle()
	server.put('y', '1')
	server.put('x', '2')
	server.drop('x')
	await informer.until((store) => store.has('a/y') && !store.has('a/x'))
	assert.deepEqual(heard, ['a/x -→1', 'a/y -→1', 'a/x 1→2', 'a/x 2→-'])
	assert.equal(clock.waiting, 0)
	informer.stop()
	await settle()
	assert.equal(server.watches.size, 0)
})

test('a watch that ends is resumed from the last version, bookmarks included', async () => {
	const { server, informer, heard } = setup()
	informer.start()
	await informer.synced
	await settle()
	server.put('x', '1')
	server.bookmark()
	await settle()
	server.endWatches()
	server.put('x', '2')
	await informer.until((store) => store.get('a/x')?.data?.value === '2')
	assert.deepEqual(heard, ['a/x -→1', 'a/x 1→2'])
	assert.equal(server.log.filter((l) => !l.includes('watch')).length, 1, 'one list only')
	assert.match(server.log.at(-1) ?? '', /resourceVersion=11&allowWatchBookmarks=true/)
	informer.stop()
})

test('an expired version lists again and reports the difference only', async () => {
	const { server, informer, heard, failures, clock } = setup()
	server.put('x', '1')
	server.put('z', '1')
	informer.start()
	await informer.synced
	await settle()
	const kept = informer.store.get('a/z')
	server.endWatches()
	await settle()
	// The watch ended without news: the informer pauses; meanwhile the world moves on.
	server.put('x', '2')
	server.put('y', '1')
	server.drop('y')
	server.compact()
	heard.length = 0
	clock.advance(50)
	await informer.until((store) => store.get('a/x')?.data?.value === '2')
	assert.deepEqual(heard, ['a/x 1→2'])
	assert.equal(informer.store.get('a/z'), kept, 'unchanged objects stay the same')
	assert.deepEqual(failures, [])
	informer.stop()
})

test('faults are retried with growing pauses', async () => {
	const { server, informer, failures, clock } = setup()
	server.failNext = new Error('connection refused')
	informer.start()
	await settle()
	assert.equal(failures.length, 1)
	assert.equal(clock.waiting, 1)
	clock.advance(49)
	await settle()
	assert.equal(server.log.length, 1)
	server.failNext = new Response('<html>bad gateway</html>', { status: 502 })
	clock.advance(1)
	await settle()
	assert.equal(server.log.length, 2)
	assert.match(String(failures[1]), /HTTP 502, <html>/)
	clock.advance(99)
	await settle()
	assert.equal(server.log.length, 2)
	clock.advance(1)
	await informer.synced
	await settle()
	server.endWatches(new Error('reset'))
	await settle()
	assert.equal(failures.length, 3)
	server.put('x', '1')
	clock.advance(10_000)
	await informer.until((store) => store.has('a/x'))
	informer.stop()
	await settle()
	assert.equal(clock.waiting, 0)
})

test('stop before the first list rejects those who wait', async () => {
	const { informer } = setup()
	const waiting = informer.until(() => undefined)
	informer.stop()
	informer.start()
	await assert.rejects(informer.synced, (e) => isFailure(e, 'Stopped'))
	await assert.rejects(waiting, (e) => isFailure(e, 'Stopped'))
})

test('until: a signal ends it, an empty list is news', async () => {
	const { informer } = setup()
	informer.start()
	assert.equal(await informer.until((store) => (informer.isSynced && store.size === 0 ? 'empty' : undefined)), 'empty')
	await assert.rejects(
		informer.until(() => undefined, AbortSignal.abort(new Error('enough'))),
		/enough/,
	)
	const ending = new AbortController()
	const waiting = informer.until(() => undefined, ending.signal)
	ending.abort(new Error('later'))
	await assert.rejects(waiting, /later/)
	informer.stop()
})

test('refusals have the reason as their code', async () => {
	const { server, client } = setup()
	await assert.rejects(client.get(configMaps, 'a/x'), (e) => {
		assert.ok(isNotFound(e))
		assert.equal((e as Error).message, 'Cannot get ConfigMap "a/x": configmaps "x" not found')
		return true
	})
	assert.equal(await client.find(configMaps, 'a/x'), undefined)
	await assert.rejects(client.create(configMaps, { metadata: { name: 'x', namespace: 'a' } }), isAlreadyExists)
	server.compact()
	await assert.rejects(client.watch(configMaps, { resourceVersion: '1' }).next(), isExpired)
	server.failNext = new Response('{"kind":"Other"}', { status: 404 })
	await assert.rejects(client.get(namespaces, 'x'), isNotFound)
	server.failNext = new Response('not json')
	await assert.rejects(client.get(namespaces, 'x'), (e) => isFailure(e, 'BadAnswer'))
})

test('edit tries again when someone else wrote', async () => {
	const { server, client } = setup()
	server.put('x', '1')
	let turns = 0
	const after = await client.edit(configMaps, 'a/x', (object) => {
		if (turns++ === 0) server.put('x', '5')
		return { ...object, data: { value: `${object.data?.value}!` } }
	})
	assert.equal(after.data?.value, '5!')
	assert.equal(turns, 2)
	const stale = { ...after, metadata: { ...after.metadata, resourceVersion: '1' } }
	await assert.rejects(client.update(configMaps, stale), isConflict)
	assert.equal(await client.edit(configMaps, 'a/x', (o) => o).then((o) => o.data?.value), '5!')
})

test('a list in pages is whole', async () => {
	const { server, client } = setup()
	for (let i = 0; i < 7; i++) server.put(`x${i}`, '')
	const list = await client.list(configMaps, { pageSize: 3 })
	assert.equal(list.items.length, 7)
	assert.equal(list.metadata.continue, undefined)
	assert.equal(list.metadata.resourceVersion, '17')
	assert.equal(server.log.length, 3)
})

test('leaving the loop and aborting both end a watch', async () => {
	const { server, client } = setup()
	server.put('x', '1')
	for await (const event of client.watch(configMaps, { resourceVersion: '0' })) {
		assert.equal(event.type, 'ADDED')
		break
	}
	assert.equal(server.watches.size, 0)
	const ending = new AbortController()
	const events = client.watch(configMaps, { resourceVersion: '11', signal: ending.signal })
	const next = events.next()
	await settle()
	ending.abort()
	assert.deepEqual(await next, { done: true, value: undefined })
})

test('until is asked first when the first list is there, and once for all of it', async () => {
	const server = createServer()
	for (let i = 0; i < 50; i++) server.put(`m${i}`, 'x')
	const informer = createInformer(createKubeClient(server.transport), configMaps, { clock: createManualClock() })
	const sizes: number[] = []
	const found = informer.until((store) => {
		sizes.push(store.size)
		return store.size
	})
	await Promise.resolve()
	assert.deepEqual(sizes, [], 'nothing can be told before the first list')
	informer.start()
	assert.equal(await found, 50)
	assert.deepEqual(sizes, [50])
	informer.stop()
})
