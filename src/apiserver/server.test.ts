// What the API suite (test/suites/api) cannot ask of any cluster: bounds, time, tables, bodies that make no sense.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { createManualClock } from '../base/manual-clock.ts'
import { createKubeClient } from '../kube/client.ts'
import { configMaps, endpointSlices, events, pods, services } from '../kube/kinds.ts'
import type { Event } from '../kube/objects/core.ts'
import type { KubeObject, ListMeta, Status } from '../kube/objects/meta.ts'
import type { Pod } from '../kube/objects/pod.ts'
import type { AdmitHook } from './admit/admission.ts'
import { type ApiServerOptions, createApiServer } from './server.ts'
import { refuse } from './status.ts'
import { createStore, type StoreOptions } from './store.ts'

async function start(options: Partial<ApiServerOptions> & { history?: StoreOptions } = {}) {
	const clock = createManualClock(Date.parse('2026-01-02T03:04:05Z'))
	const store = createStore(options.history)
	const faults: unknown[] = []
	const server = await createApiServer({ store, clock, onFault: (e) => faults.push(e), ...options })
	const client = createKubeClient(server.transport)
	const send = (method: string, path: string, body?: BodyInit, headers: Record<string, string> = {}) =>
		server.transport(
			new Request(`http://x${path}`, {
				method,
				headers: { 'content-type': 'application/json', ...headers },
				...(body === undefined ? {} : { body }),
			}),
		)
	const config = (name: string, data: Record<string, string> = {}) =>
		client.create(configMaps, { metadata: { name, namespace: 'default' }, data })
	return { clock, store, server, client, send, config, faults }
}

/** Reads a watch line by line. */
function lines(response: Response) {
	const reader = response.body!.getReader()
	let rest = ''
	const ready: { type: string; object: KubeObject & { rows?: unknown[]; columnDefinitions?: unknown } }[] = []
	return {
		async next() {
			while (ready.length === 0) {
				const { done, value } = await reader.read()
				if (done) return undefined
				const parts = (rest + Buffer.from(value).toString()).split('\n')
				rest = parts.pop() ?? ''
				for (const part of parts) ready.push(JSON.parse(part))
			}
			return ready.shift()
		},
		cancel: () => reader.cancel(),
	}
}

describe('the start', () => {
	test('has what every cluster has, and starting again changes nothing', async () => {
		const { client, store, server, clock } = await start({ advertise: { ip: '172.18.0.1', port: 6443 } })
		const service = await client.get(services, 'default/kubernetes')
		assert.deepEqual([service.spec?.clusterIP, service.spec?.ports?.[0]?.targetPort], ['10.96.0.1', 6443])
		const slice = await client.get(endpointSlices, 'default/kubernetes')
		assert.deepEqual([slice.endpoints?.[0]?.addresses, slice.ports?.[0]?.port], [['172.18.0.1'], 6443])
		server.close()
		const at = store.revision
		await createApiServer({ store, clock, advertise: { ip: '172.18.0.1', port: 6443 } })
		assert.equal(store.revision, at)
		await createApiServer({ store, clock, advertise: { ip: '172.18.0.9', port: 6443 } })
		assert.equal(store.revision, at + 2)
	})
})

describe('watches', () => {
	test('are marked each minute, and end in time', async () => {
		const { clock, send, config, store, server } = await start()
		const response = await send(
			'GET',
			`/api/v1/configmaps?watch=true&resourceVersion=${store.revision}&allowWatchBookmarks=true&timeoutSeconds=150`,
		)
		const watch = lines(response)
		clock.advance(59_999)
		await config('a')
		assert.equal((await watch.next())?.type, 'ADDED')
		clock.advance(1)
		const mark = await watch.next()
		assert.deepEqual([mark?.type, mark?.object.metadata.resourceVersion], ['BOOKMARK', String(store.revision)])
		clock.advance(60_000)
		assert.equal((await watch.next())?.type, 'BOOKMARK')
		clock.advance(30_000)
		assert.equal(await watch.next(), undefined)
		assert.equal(server.api.watches.count, 0)
	})

	test('end at once when the client goes, however it goes', async () => {
		const { server } = await start()
		const watch = await server.transport(new Request('http://x/api/v1/configmaps?watch=true'))
		assert.equal(server.api.watches.count, 1)
		await watch.body?.cancel()
		assert.equal(server.api.watches.count, 0)
		const gone = new AbortController()
		const other = lines(
			await server.transport(new Request('http://x/api/v1/configmaps?watch=true', { signal: gone.signal })),
		)
		gone.abort()
		assert.equal(server.api.watches.count, 0)
		assert.equal(await other.next(), undefined)
	})

	test('of a version that is forgotten are told so: 410 Expired', async () => {
		const { send, config } = await start({ history: { historyLength: 8 } })
		for (let i = 0; i < 20; i++) await config(`c${i}`)
		for (const path of [
			'watch=true&resourceVersion=3',
			'watch=true&resourceVersion=99999',
			'resourceVersion=3&resourceVersionMatch=Exact',
		]) {
			const response = await send('GET', `/api/v1/configmaps?${path}`)
			const status = (await response.json()) as Status
			assert.deepEqual([response.status, status.reason], [410, 'Expired'], path)
		}
		const future = await send('GET', '/api/v1/configmaps?resourceVersion=99999')
		const status = (await future.json()) as Status
		assert.deepEqual([future.status, status.details?.causes?.[0]?.reason], [504, 'ResourceVersionTooLarge'])
	})

	test('that do not keep up find all that is remembered, and are told 410 of the rest', async () => {
		const { server, store } = await start({ history: { historyLength: 100 } })
		const object = { kind: 'ConfigMap', apiVersion: 'v1', metadata: { name: 'busy', namespace: 'default' } }
		const change = async (times: number) => {
			for (let i = 0; i < times; i++)
				await store.put('configmaps', 'default/busy', object, store.current('configmaps', 'default/busy')).kept
		}
		await change(1)
		const from = store.revision
		const open = () => server.transport(new Request(`http://x/api/v1/configmaps?watch=true&resourceVersion=${from}`))
		const [slow, slower] = [lines(await open()), lines(await open())]
		await change(60)
		for (let i = 1; i <= 60; i++) assert.equal((await slow.next())?.object.metadata.resourceVersion, String(from + i))
		await change(60)
		for (let i = 61; i <= 120; i++) assert.equal((await slow.next())?.object.metadata.resourceVersion, String(from + i))
		const last = await slower.next()
		assert.equal(last?.type, 'ERROR')
		const { code, reason } = last.object as unknown as Status
		assert.deepEqual([code, reason], [410, 'Expired'])
		assert.equal(await slower.next(), undefined)
		assert.equal(server.api.watches.count, 1)
	})

	test('of a large collection send it in pieces, as lists do, and hear what happens meanwhile', async () => {
		const { server, store, send } = await start()
		const object = (name: string) => ({
			kind: 'ConfigMap',
			apiVersion: 'v1',
			metadata: { name, namespace: 'default', labels: { odd: String(Number(name.slice(1)) % 2) } },
			data: { x: 'x'.repeat(500) },
		})
		const names = Array.from({ length: 3000 }, (_, i) => `n${String(i).padStart(4, '0')}`)
		await Promise.all(names.map((n) => store.put('configmaps', `default/${n}`, object(n), undefined).kept))
		for (const selector of ['', '&labelSelector=odd%3D1']) {
			const wanted = selector === '' ? names : names.filter((n) => Number(n.slice(1)) % 2 === 1)
			const watch = lines(
				await send(
					'GET',
					`/api/v1/configmaps?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true${selector}`,
				),
			)
			const listing = send('GET', `/api/v1/configmaps?${selector}`)
			const busy = store.current('configmaps', 'default/n1001')!
			const changed = { ...object('n1001'), data: { x: selector } }
			await store.put('configmaps', 'default/n1001', changed, busy).kept
			for (const name of wanted) {
				const event = await watch.next()
				assert.deepEqual([event?.type, event?.object.metadata.name], ['ADDED', name])
				assert.ok(Number(event?.object.metadata.resourceVersion) < store.revision)
			}
			assert.equal((await watch.next())?.type, 'BOOKMARK')
			const after = await watch.next()
			assert.deepEqual([after?.type, after?.object.metadata.name], ['MODIFIED', 'n1001'])
			const list = (await (await listing).json()) as { items: { metadata: { name: string } }[]; metadata: ListMeta }
			assert.deepEqual(
				list.items.map((item) => item.metadata.name),
				wanted,
			)
			for (const as of ['Table', 'PartialObjectMetadataList']) {
				const accept = `application/json;as=${as};v=v1;g=meta.k8s.io`
				const response = await send('GET', `/api/v1/configmaps?${selector}`, undefined, { accept })
				const body = (await response.json()) as { kind: string; items?: unknown[]; rows?: unknown[] }
				assert.deepEqual([body.kind, (body.items ?? body.rows)?.length], [as, wanted.length])
			}
		}
		server.api.watches.close()
	})

	test('as tables carry the columns once', async () => {
		const { send, config } = await start()
		await config('a')
		await config('b')
		const watch = lines(
			await send('GET', '/api/v1/configmaps?watch=true', undefined, {
				accept: 'application/json;as=Table;v=v1;g=meta.k8s.io',
			}),
		)
		const first = await watch.next()
		const second = await watch.next()
		assert.ok(Array.isArray(first?.object.columnDefinitions))
		assert.equal(second?.object.columnDefinitions, null)
		assert.equal(second?.object.rows?.length, 1)
		await watch.cancel()
	})
})

describe('time', () => {
	test('events live one hour', async () => {
		const { clock, client } = await start()
		const event = (name: string) =>
			client.create(events, {
				metadata: { name, namespace: 'default' },
				involvedObject: { kind: 'Pod', name: 'p', namespace: 'default' },
				reason: 'R',
				message: 'm',
				type: 'Normal',
				lastTimestamp: new Date(clock.now()).toISOString(),
			} as unknown as Event)
		await event('early')
		clock.advance(1_800_000)
		await event('late')
		clock.advance(1_860_000)
		await new Promise((resolve) => setImmediate(resolve))
		assert.deepEqual(
			(await client.list(events)).items.map((e) => e.metadata.name),
			['late'],
		)
	})

	test('a shorter grace is honoured, a longer one is not', async () => {
		const { client } = await start()
		await client.create(pods, {
			metadata: { name: 'p', namespace: 'default' },
			spec: { nodeName: 'n', containers: [{ name: 'c', image: 'x' }] },
		} as unknown as Pod)
		const grace = async (gracePeriodSeconds?: number) => {
			const { metadata } = (await client.delete(
				pods,
				'default/p',
				gracePeriodSeconds === undefined ? {} : { gracePeriodSeconds },
			)) as Pod
			return [metadata.deletionGracePeriodSeconds, metadata.deletionTimestamp, metadata.generation]
		}
		assert.deepEqual(await grace(), [30, '2026-01-02T03:04:35Z', 2])
		assert.deepEqual(await grace(60), [30, '2026-01-02T03:04:35Z', 2])
		assert.deepEqual(await grace(10), [10, '2026-01-02T03:04:15Z', 2])
		assert.deepEqual(await grace(), [10, '2026-01-02T03:04:15Z', 2])
		await client.delete(pods, 'default/p', { gracePeriodSeconds: 0 })
		assert.equal(await client.find(pods, 'default/p'), undefined)
	})
})

describe('eviction', () => {
	test('asks the disruption budget', async () => {
		const { client, send } = await start()
		const pod = async (name: string, ready = true) => {
			await client.create(pods, {
				metadata: { name, namespace: 'default', labels: { app: 'a' } },
				spec: { nodeName: 'n', terminationGracePeriodSeconds: 0, containers: [{ name: 'c', image: 'x' }] },
			} as unknown as Pod)
			const conditions = [{ type: 'Ready', status: ready ? 'True' : 'False' }]
			const status = { phase: 'Running', conditions }
			await client.patch(pods, `default/${name}`, { status }, { subresource: 'status' })
		}
		await pod('one')
		await pod('two')
		await pod('sick', false)
		await send(
			'POST',
			'/apis/policy/v1/namespaces/default/poddisruptionbudgets',
			JSON.stringify({ metadata: { name: 'b' }, spec: { minAvailable: 1, selector: { matchLabels: { app: 'a' } } } }),
		)
		await send(
			'PATCH',
			'/apis/policy/v1/namespaces/default/poddisruptionbudgets/b/status',
			JSON.stringify({
				status: { disruptionsAllowed: 1, currentHealthy: 2, desiredHealthy: 1, expectedPods: 2, observedGeneration: 1 },
			}),
			{ 'content-type': 'application/merge-patch+json' },
		)
		const evict = (name: string) =>
			send(
				'POST',
				`/api/v1/namespaces/default/pods/${name}/eviction`,
				JSON.stringify({ apiVersion: 'policy/v1', kind: 'Eviction', metadata: { name } }),
			)
		assert.equal((await evict('one')).status, 201)
		const second = await evict('two')
		assert.equal(second.status, 429)
		assert.match(((await second.json()) as Status).message ?? '', /violate the pod's disruption budget/)
		assert.equal((await evict('sick')).status, 201, 'one that is not ready protects nothing')
		assert.deepEqual(
			(await client.list(pods)).items.map((p) => p.metadata.name),
			['two'],
		)
	})
})

describe('hooks', () => {
	test('may change what is written, or refuse it', async () => {
		const admit: AdmitHook = (served, object) => {
			if (served.storage !== 'configmaps') return object
			if (object.metadata.name === 'no') throw refuse('Forbidden', 'configmaps "no" is forbidden: by the hook')
			return { ...object, metadata: { ...object.metadata, labels: { hooked: 'yes' } } }
		}
		const { config } = await start({ admit: [admit] })
		assert.deepEqual((await config('yes')).metadata.labels, { hooked: 'yes' })
		await assert.rejects(config('no'), /by the hook/)
	})
})

describe('bodies and parameters that make no sense', () => {
	const object = { kind: 'ConfigMap', apiVersion: 'v1', metadata: { name: 'x' } }
	const deep = `${'['.repeat(100_000)}${']'.repeat(100_000)}`
	const cases: [string, string, BodyInit | undefined, Record<string, string>, number][] = [
		['POST', '/configmaps', '', {}, 400],
		['POST', '/configmaps', 'null', {}, 400],
		['POST', '/configmaps', '[]', {}, 400],
		['POST', '/configmaps', '42', {}, 400],
		['POST', '/configmaps', '{"metadata":', {}, 400],
		['POST', '/configmaps', '{"metadata": 7}', {}, 400],
		['POST', '/configmaps', '{"metadata": null}', {}, 422],
		['POST', '/configmaps', '{"metadata": {"name": 7}}', {}, 400],
		['POST', '/configmaps', '{"metadata": {"name": "x", "labels": ["a"]}}', {}, 400],
		['POST', '/configmaps', '{"metadata": {"name": "x", "creationTimestamp": "yesterday"}}', {}, 400],
		['POST', '/configmaps', '{"metadata": {"name": "x", "ownerReferences": "me"}}', {}, 400],
		['POST', '/configmaps', '{"metadata": {"name": "x", "__proto__": {"polluted": true}}}', {}, 201],
		['POST', '/configmaps', '{"metadata": {"name": "x"}, "data": {"constructor": "a", "__proto__": "b"}}', {}, 201],
		['POST', '/configmaps', `{"metadata": {"name": "x"}, "data": ${deep}}`, {}, 400],
		['POST', '/configmaps', `{"metadata": {"name": "x"}, "data": {"a": "${'x'.repeat(3_300_000)}"}}`, {}, 413],
		['POST', '/configmaps', new Uint8Array([0xff, 0xfe, 0x00]), {}, 400],
		[
			'POST',
			'/configmaps',
			new Uint8Array([0x6b, 0x38, 0x73, 0, 0xff, 0xff]),
			{ 'content-type': 'application/vnd.kubernetes.protobuf' },
			400,
		],
		['POST', '/configmaps', new Uint8Array([1, 2, 3]), { 'content-type': 'application/vnd.kubernetes.protobuf' }, 400],
		['POST', '/configmaps', 'a: [1, 2', { 'content-type': 'application/yaml' }, 400],
		[
			'POST',
			'/configmaps',
			`a: &a [x]\nb: ${'[*a, '.repeat(200)}*a${']'.repeat(200)}`,
			{ 'content-type': 'application/yaml' },
			400,
		],
		['POST', '/configmaps?dryRun=Some', JSON.stringify(object), {}, 422],
		['POST', '/configmaps?fieldValidation=Loud', JSON.stringify(object), {}, 400],
		['POST', `/configmaps?fieldManager=${'m'.repeat(200)}`, JSON.stringify(object), {}, 422],
		['POST', '/services', '{"metadata": {"name": "x"}, "spec": {"ports": [{"port": "eighty"}]}}', {}, 400],
		['POST', '/services', '{"metadata": {"name": "x"}, "spec": {"ports": 5}}', {}, 400],
		[
			'POST',
			'/services',
			'{"metadata": {"name": "x"}, "spec": {"clusterIPs": [null], "ports": [{"port": 80}]}}',
			{},
			422,
		],
		['POST', '/services', '{"metadata": {"name": "x"}}', {}, 422],
		['POST', '/services', '{"metadata": {"name": "x"}, "spec": null}', {}, 422],
		['POST', '/pods', '{"metadata": {"name": "x"}}', {}, 422],
		['POST', '/pods', '{"metadata": {"name": "x"}, "spec": {"containers": [null]}}', {}, 422],
		['POST', '/pods/x/binding', '{"target": 5}', {}, 422],
		['POST', '/pods/x/binding', '{"target": {"kind": "Node", "name": "n"}}', {}, 404],
		['POST', '/pods/x/eviction', '{}', {}, 404],
		['POST', '/serviceaccounts/x/token', '{}', {}, 404],
		['PUT', '/configmaps/x', '{}', {}, 400],
		['PUT', '/configmaps/x', JSON.stringify({ ...object, metadata: { name: 'y' } }), {}, 400],
		['PUT', '/configmaps/x', JSON.stringify(object), {}, 404],
		['PATCH', '/configmaps/x', '{}', { 'content-type': 'application/merge-patch+json' }, 404],
		['PATCH', '/configmaps/kept', '{}', { 'content-type': 'text/plain' }, 415],
		['PATCH', '/configmaps/kept', '[]', { 'content-type': 'application/merge-patch+json' }, 400],
		['PATCH', '/configmaps/kept', '{"metadata": null}', { 'content-type': 'application/merge-patch+json' }, 400],
		[
			'PATCH',
			'/configmaps/kept',
			'{"metadata": {"name": "other"}}',
			{ 'content-type': 'application/merge-patch+json' },
			400,
		],
		['PATCH', '/configmaps/kept', '{}', { 'content-type': 'application/json-patch+json' }, 400],
		[
			'PATCH',
			'/configmaps/kept',
			'[{"op": "melt", "path": "/"}]',
			{ 'content-type': 'application/json-patch+json' },
			400,
		],
		[
			'PATCH',
			'/configmaps/kept',
			'[{"op": "remove", "path": "/nothing"}]',
			{ 'content-type': 'application/json-patch+json' },
			422,
		],
		[
			'PATCH',
			'/configmaps/kept',
			'{"$patch": "replace"}',
			{ 'content-type': 'application/strategic-merge-patch+json' },
			400,
		],
		['PATCH', '/configmaps/kept', '{}', { 'content-type': 'application/apply-patch+yaml' }, 422],
		['PATCH', '/configmaps/kept?fieldManager=m', '{}', { 'content-type': 'application/apply-patch+yaml' }, 400],
		['PATCH', '/configmaps/kept?fieldManager=m', '- a\n- b', { 'content-type': 'application/apply-patch+yaml' }, 400],
		['PATCH', '/configmaps/kept?force=true', '{}', { 'content-type': 'application/merge-patch+json' }, 422],
		['DELETE', '/configmaps/kept', '{"gracePeriodSeconds": -5}', {}, 422],
		['DELETE', '/configmaps/kept', '{"propagationPolicy": "Sideways"}', {}, 422],
		['DELETE', '/configmaps/kept', '{"kind": "Pod"}', {}, 400],
		['DELETE', '/configmaps/kept', '{', {}, 400],
		['GET', '/configmaps?limit=many', undefined, {}, 400],
		['GET', '/configmaps?limit=-1', undefined, {}, 400],
		['GET', '/configmaps?continue=%00%01', undefined, {}, 400],
		['GET', '/configmaps?labelSelector=,,,', undefined, {}, 400],
		['GET', '/configmaps?labelSelector=a%20in%20b', undefined, {}, 400],
		['GET', '/configmaps?fieldSelector=metadata.name', undefined, {}, 400],
		['GET', '/configmaps?watch=true&timeoutSeconds=soon', undefined, {}, 400],
		['GET', '/configmaps?watch=true&sendInitialEvents=true', undefined, {}, 422],
		['GET', '/configmaps?resourceVersionMatch=Exact', undefined, {}, 422],
		['GET', '/configmaps/%E0%A4%A', undefined, {}, 400],
		['GET', '/configmaps/x/status', undefined, {}, 404],
		['GET', '/pods/x/log', undefined, {}, 404],
		['GET', '/pods/x/exec', undefined, {}, 400],
		['GET', '/pods/x/proxy/a/b', undefined, {}, 404],
		['DELETE', '/pods/x/status', undefined, {}, 405],
		['GET', '/configmaps', undefined, { accept: 'image/png' }, 406],
		[
			'GET',
			'/configmaps?includeObject=Some',
			undefined,
			{ accept: 'application/json;as=Table;v=v1;g=meta.k8s.io' },
			400,
		],
	]
	for (const [method, path, body, headers, code] of cases) {
		const shown =
			typeof body === 'string' ? body.slice(0, 70) : body === undefined ? '' : `${(body as Uint8Array).length} bytes`
		test(`${method} ${path.slice(0, 60)} ${shown}: ${code}`, async () => {
			const { send, config, faults, store } = await start()
			await config('kept', { a: 'b' })
			const before = store.revision
			const response = await send(method, `/api/v1/namespaces/default${path}`, body, headers)
			const answer = (await response.json()) as Status
			assert.equal(response.status, code, JSON.stringify(answer))
			if (code >= 400) {
				assert.deepEqual([answer.kind, answer.status, answer.code], ['Status', 'Failure', code])
				assert.ok((answer.message ?? '').length > 5)
				assert.equal(store.revision, before)
			}
			assert.equal(({} as { polluted?: boolean }).polluted, undefined)
			assert.deepEqual(faults, [])
		})
	}
})

describe('what is kept and does nothing says so', () => {
	const post = async (path: string, body: object) => {
		const { send } = await start()
		const response = await send('POST', path, JSON.stringify(body))
		assert.ok(response.status < 300, await response.clone().text())
		return response.headers.get('warning')
	}
	const quota = { apiVersion: 'v1', kind: 'ResourceQuota', metadata: { name: 'q' }, spec: { hard: { pods: '1' } } }
	const remote = (service: object | undefined) => ({
		apiVersion: 'apiregistration.k8s.io/v1',
		kind: 'APIService',
		metadata: { name: 'v1.x.example.com' },
		spec: { group: 'x.example.com', version: 'v1', groupPriorityMinimum: 1000, versionPriority: 10, service },
	})
	test('a quota, an API of another server', async () => {
		assert.match((await post('/api/v1/namespaces/default/resourcequotas', quota)) ?? '', /quotas are not enforced/)
		const services = '/apis/apiregistration.k8s.io/v1/apiservices'
		assert.match((await post(services, remote({ namespace: 'a', name: 'b' }))) ?? '', /not passed on/)
		assert.equal(await post(services, remote(undefined)), null)
	})

	test('an ephemeral container', async () => {
		const { send, client } = await start()
		const spec = { containers: [{ name: 'c', image: 'x' }] }
		await client.create(pods, { metadata: { name: 'p', namespace: 'default' }, spec } as unknown as Pod)
		const debug = { spec: { ephemeralContainers: [{ name: 'd', image: 'x' }] } }
		const path = '/api/v1/namespaces/default/pods/p/ephemeralcontainers'
		const response = await send('PATCH', path, JSON.stringify(debug), {
			'content-type': 'application/strategic-merge-patch+json',
		})
		assert.equal(response.status, 200)
		assert.match(response.headers.get('warning') ?? '', /ephemeral containers are kept and not started here/)
	})
})
