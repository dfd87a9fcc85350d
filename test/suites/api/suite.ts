// What any Kubernetes API server must do, as far as Podwire counts on it. Written against a Transport alone: it runs on
// the embedded server and on any real cluster. It works in a namespace of its own, which it deletes at the end.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { isFailure } from '../../../src/base/failure.ts'
import { createKubeClient, type KubeClient, type WatchChange } from '../../../src/kube/client.ts'
import { configMaps, deployments, events, type Kind, namespaces, pods, services } from '../../../src/kube/kinds.ts'
import type { Deployment } from '../../../src/kube/objects/apps.ts'
import type { ConfigMap, Event, Service } from '../../../src/kube/objects/core.ts'
import type { KubeObject, Status } from '../../../src/kube/objects/meta.ts'
import type { Pod } from '../../../src/kube/objects/pod.ts'
import type { Transport } from '../../../src/kube/transport.ts'

export interface SuiteTarget {
	readonly transport: Transport
	/** Controllers run: ServiceAccounts appear, namespaces end, pods are looked after. */
	readonly controllers: boolean
	close(): Promise<void>
}

const base = 'http://kubernetes'

/** Declares the tests. `open` is called once, before the first. */
export function apiSuite(name: string, open: () => Promise<SuiteTarget>): void {
	describe(`API: ${name}`, () => {
		let target: SuiteTarget
		let client: KubeClient
		const namespace = `podwire-suite-${Math.random().toString(36).slice(2, 8)}`
		const key = (n: string) => `${namespace}/${n}`
		const config = (n: string, data: Record<string, string> = {}, more: object = {}) =>
			({ metadata: { name: n, namespace, ...more }, data }) as unknown as ConfigMap
		const send = (method: string, path: string, body?: unknown, headers: Record<string, string> = {}) =>
			target.transport(
				new Request(base + path, {
					method,
					headers: { 'content-type': 'application/json', ...headers },
					...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
				}),
			)
		const at = (plural: string, n = '') => `/api/v1/namespaces/${namespace}/${plural}${n === '' ? '' : `/${n}`}`
		const refused = async (response: Response, code: number, reason: string): Promise<Status> => {
			const body = (await response.json()) as Status
			assert.deepEqual(
				[response.status, body.kind, body.status, body.reason, body.code],
				[code, 'Status', 'Failure', reason, code],
				JSON.stringify(body),
			)
			assert.equal(response.headers.get('content-type'), 'application/json')
			assert.ok((body.message ?? '').length > 0)
			return body
		}

		before(async () => {
			target = await open()
			client = createKubeClient(target.transport, { fieldManager: 'podwire-suite' })
			await client.create(namespaces, { metadata: { name: namespace } })
			for (let i = 0; target.controllers && i < 100; i++) {
				const response = await send('GET', at('serviceaccounts', 'default'))
				if (response.status === 200) break
				await new Promise((resolve) => setTimeout(resolve, 100))
			}
		})
		after(async () => {
			if (target === undefined) return
			await client.delete(namespaces, namespace)
			await target.close()
		})

		test('version and health are answered', async () => {
			const version = await client.raw<{ major: string; gitVersion: string }>('/version')
			assert.match(version.gitVersion, /^v1\.\d+\.\d+/)
			for (const path of ['/healthz', '/livez', '/readyz']) {
				const response = await send('GET', path)
				assert.deepEqual([response.status, await response.text()], [200, 'ok'])
			}
		})

		test('discovery names the resources, their short names and subresources', async () => {
			interface List {
				resources: { name: string; kind: string; namespaced: boolean; shortNames?: string[]; verbs: string[] }[]
			}
			const core = await client.raw<List>('/api/v1')
			const find = (n: string) => core.resources.find((r) => r.name === n)
			assert.deepEqual(find('pods')?.shortNames, ['po'])
			assert.equal(find('namespaces')?.namespaced, false)
			for (const n of ['pods/status', 'pods/log', 'pods/exec', 'pods/binding', 'pods/eviction', 'services/status'])
				assert.ok(find(n), n)
			const apps = await client.raw<List>('/apis/apps/v1')
			assert.ok(apps.resources.some((r) => r.name === 'deployments/scale'))
			const groups = await client.raw<{ groups: { name: string }[] }>('/apis')
			for (const group of ['apps', 'batch', 'discovery.k8s.io', 'networking.k8s.io', 'rbac.authorization.k8s.io']) {
				assert.ok(
					groups.groups.some((g) => g.name === group),
					group,
				)
			}
			const accept = 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json'
			const response = await send('GET', '/apis', undefined, { accept })
			const aggregated = (await response.json()) as { kind: string; items: { metadata: { name: string } }[] }
			assert.equal(aggregated.kind, 'APIGroupDiscoveryList')
			assert.ok(aggregated.items.some((i) => i.metadata.name === 'apps'))
		})

		test('create fills in what the server decides', async () => {
			const made = await client.create(configMaps, config('made', { a: '1' }))
			const { uid, resourceVersion, creationTimestamp } = made.metadata
			assert.match(uid ?? '', /^[0-9a-f-]{36}$/)
			assert.match(resourceVersion ?? '', /^\d+$/)
			assert.match(creationTimestamp ?? '', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
			assert.deepEqual([made.kind, made.apiVersion, made.metadata.namespace], ['ConfigMap', 'v1', namespace])
			assert.equal(made.metadata.managedFields?.[0]?.manager, 'podwire-suite')
			assert.deepEqual(await client.get(configMaps, key('made')), made)
			const response = await send('GET', at('configmaps', 'made'))
			assert.equal(response.headers.get('content-type'), 'application/json')
			const generated = await client.create(configMaps, { metadata: { generateName: 'many-', namespace } } as ConfigMap)
			assert.match(generated.metadata.name, /^many-[a-z0-9]{5}$/)
		})

		test('refusals are a Status with the reason Kubernetes gives', async () => {
			const missing = await refused(await send('GET', at('configmaps', 'nothing')), 404, 'NotFound')
			assert.equal(missing.message, 'configmaps "nothing" not found')
			assert.deepEqual(missing.details, { name: 'nothing', kind: 'configmaps' })
			await client.create(configMaps, config('twice'))
			const twice = await refused(await send('POST', at('configmaps'), config('twice')), 409, 'AlreadyExists')
			assert.equal(twice.message, 'configmaps "twice" already exists')
			await refused(await send('GET', '/api/v1/nothings'), 404, 'NotFound')
			await refused(await send('POST', at('configmaps'), config('Not_A_Name')), 422, 'Invalid')
			await refused(await send('POST', at('configmaps'), '{"kind": "ConfigMap", '), 400, 'BadRequest')
			await refused(
				await send('POST', at('configmaps'), { kind: 'Secret', apiVersion: 'v1', metadata: { name: 'x' } }),
				400,
				'BadRequest',
			)
			await refused(
				await send('POST', at('configmaps'), '<xml/>', { 'content-type': 'text/xml' }),
				415,
				'UnsupportedMediaType',
			)
			await refused(await send('PUT', at('configmaps')), 405, 'MethodNotAllowed')
			const elsewhere = `/api/v1/namespaces/${namespace}-not-there/configmaps`
			await refused(await send('POST', elsewhere, { metadata: { name: 'x' } }), 404, 'NotFound')
			await refused(await send('GET', at('configmaps', '?labelSelector=a%20b%20c')), 400, 'BadRequest')
			await refused(await send('GET', at('configmaps', '?fieldSelector=data.x%3D1')), 400, 'BadRequest')
			await refused(await send('GET', at('configmaps', '?resourceVersion=soup')), 400, 'BadRequest')
		})

		test('an update needs the version it was made from', async () => {
			const first = await client.create(configMaps, config('fresh', { n: '1' }))
			const second = await client.update(configMaps, { ...first, data: { n: '2' } })
			assert.ok(Number(second.metadata.resourceVersion) > Number(first.metadata.resourceVersion))
			assert.equal(second.metadata.uid, first.metadata.uid)
			const stale = await refused(
				await send('PUT', at('configmaps', 'fresh'), { ...first, data: { n: '3' } }),
				409,
				'Conflict',
			)
			assert.match(stale.message ?? '', /the object has been modified; please apply your changes to the latest version/)
			const { resourceVersion: _, ...metadata } = second.metadata
			await client.update(configMaps, { ...second, metadata, data: { n: '4' } } as ConfigMap)
			const unchanged = await client.get(configMaps, key('fresh'))
			assert.equal(
				(await client.update(configMaps, unchanged)).metadata.resourceVersion,
				unchanged.metadata.resourceVersion,
			)
		})

		test('unknown fields are refused, warned of or dropped, as asked', async () => {
			const body = { ...config('odd', { a: '1' }), kind: 'ConfigMap', apiVersion: 'v1', colour: 'red' }
			const strict = await refused(
				await send('POST', `${at('configmaps')}?fieldValidation=Strict`, body),
				400,
				'BadRequest',
			)
			assert.match(strict.message ?? '', /unknown field "colour"/)
			const warned = await send('POST', `${at('configmaps')}?fieldValidation=Warn`, body)
			assert.equal(warned.status, 201)
			assert.match(warned.headers.get('warning') ?? '', /299 - "unknown field \\"colour\\""/)
			assert.equal(((await warned.json()) as { colour?: string }).colour, undefined)
		})

		test('dry run answers what would be and keeps nothing', async () => {
			const would = await client.create(configMaps, config('dry'), { dryRun: true })
			assert.equal(would.metadata.name, 'dry')
			assert.equal(await client.find(configMaps, key('dry')), undefined)
			await client.create(configMaps, config('dry', { n: '1' }))
			const changed = await client.patch(configMaps, key('dry'), { data: { n: '2' } }, { dryRun: true })
			assert.equal(changed.data?.n, '2')
			await client.delete(configMaps, key('dry'), { dryRun: true })
			assert.equal((await client.get(configMaps, key('dry'))).data?.n, '1')
		})

		test('the four patches', async () => {
			await client.create(deployments, {
				metadata: { name: 'patched', namespace },
				spec: {
					replicas: 0,
					selector: { matchLabels: { app: 'patched' } },
					template: {
						metadata: { labels: { app: 'patched' } },
						spec: {
							containers: [
								{ name: 'a', image: 'a:1' },
								{ name: 'b', image: 'b:1' },
							],
						},
					},
				},
			} as unknown as Deployment)
			const k = key('patched')
			const images = (d: { spec?: unknown }) =>
				(d.spec as { template: { spec: { containers: { image: string }[] } } }).template.spec.containers.map(
					(c) => c.image,
				)
			const strategic = { spec: { template: { spec: { containers: [{ name: 'b', image: 'b:2' }] } } } }
			assert.deepEqual(images(await client.patch(deployments, k, strategic, { type: 'strategic' })), ['a:1', 'b:2'])
			const merge = {
				spec: { template: { spec: { containers: [{ name: 'c', image: 'c:1' }] } } },
				metadata: { labels: { x: 'y' } },
			}
			const merged = await client.patch(deployments, k, merge)
			assert.deepEqual([images(merged), merged.metadata.labels], [['c:1'], { x: 'y' }])
			const json = [
				{ op: 'test', path: '/metadata/labels/x', value: 'y' },
				{ op: 'replace', path: '/spec/template/spec/containers/0/image', value: 'c:2' },
			]
			assert.deepEqual(images(await client.patch(deployments, k, json, { type: 'json' })), ['c:2'])
			const wrong = [{ op: 'test', path: '/metadata/labels/x', value: 'n' }]
			await assert.rejects(client.patch(deployments, k, wrong, { type: 'json' }), (e) => isFailure(e, 'Invalid'))
			const before = await client.get(deployments, k)
			await client.patch(deployments, k, { spec: { paused: true } })
			const now = await client.get(deployments, k)
			assert.ok((now.metadata.generation ?? 0) > (before.metadata.generation ?? 0))
		})

		test('server-side apply owns fields, and tells of conflicts', async () => {
			const mine = { metadata: { name: 'applied', namespace }, data: { a: '1', b: '1' } }
			await client.apply(configMaps, mine, { fieldManager: 'one' })
			const theirs = { metadata: { name: 'applied', namespace }, data: { b: '2' } }
			await assert.rejects(client.apply(configMaps, theirs, { fieldManager: 'two' }), (e) => {
				assert.ok(isFailure(e, 'Conflict'))
				const causes = (e.details.status as Status).details?.causes
				assert.deepEqual(
					causes?.map((c) => [c.reason, c.field]),
					[['FieldManagerConflict', '.data.b']],
				)
				return true
			})
			await client.apply(configMaps, theirs, { fieldManager: 'two', force: true })
			await client.apply(configMaps, { metadata: { name: 'applied', namespace }, data: {} } as ConfigMap, {
				fieldManager: 'one',
			})
			assert.deepEqual((await client.get(configMaps, key('applied'))).data, { b: '2' })
		})

		test('lists select by label and field, and come in pages', async () => {
			for (let i = 0; i < 7; i++) {
				await client.create(
					configMaps,
					config(`page-${i}`, {}, { labels: { suite: 'page', parity: i % 2 ? 'odd' : 'even' } }),
				)
			}
			const select = (labelSelector: string, fieldSelector?: string) =>
				client
					.list(configMaps, { namespace, labelSelector, fieldSelector })
					.then((l) => l.items.map((i) => i.metadata.name))
			assert.deepEqual(await select('suite=page,parity in (odd)'), ['page-1', 'page-3', 'page-5'])
			assert.deepEqual(await select('suite=page,parity!=odd'), ['page-0', 'page-2', 'page-4', 'page-6'])
			assert.deepEqual(await select('suite=page', 'metadata.name=page-3'), ['page-3'])
			interface Page {
				metadata: { continue?: string; remainingItemCount?: number; resourceVersion: string }
				items: KubeObject[]
			}
			const path = `${at('configmaps')}?labelSelector=suite%3Dpage&limit=3`
			const first = (await (await send('GET', path)).json()) as Page
			assert.equal(first.items.length, 3)
			// Pages show one moment, whatever happens between them.
			await client.create(configMaps, config('page-9', {}, { labels: { suite: 'page' } }))
			await client.delete(configMaps, key('page-6'))
			const second = (await (await send('GET', `${path}&continue=${first.metadata.continue}`)).json()) as Page
			const third = (await (await send('GET', `${path}&continue=${second.metadata.continue}`)).json()) as Page
			assert.deepEqual(
				third.items.map((i) => i.metadata.name),
				['page-6'],
			)
			assert.equal(third.metadata.continue ?? '', '')
			await refused(await send('GET', `${path}&continue=nonsense`), 400, 'BadRequest')
			await client.deleteCollection(configMaps, { namespace, labelSelector: 'suite=page,parity=even' })
			assert.deepEqual(await select('suite=page'), ['page-1', 'page-3', 'page-5', 'page-9'])
		})

		/** Collects events of a watch until `enough`. */
		async function watch<T extends KubeObject>(
			kind: Kind<T>,
			options: object,
			enough: (seen: WatchChange<T>[]) => boolean,
			meanwhile: () => Promise<unknown> = async () => {},
		): Promise<WatchChange<T>[]> {
			const seen: WatchChange<T>[] = []
			const stream = client.watch(kind, { namespace, timeoutSeconds: 20, ...options })
			const begun = meanwhile()
			for await (const event of stream) {
				seen.push(event)
				if (enough(seen)) break
			}
			await begun
			return seen
		}
		const told = (seen: readonly WatchChange<KubeObject>[]) => seen.map((e) => `${e.type} ${e.object.metadata.name}`)

		test('a watch tells every change after its version, in order', async () => {
			const { metadata } = await client.list(configMaps, { namespace })
			const one = await client.create(configMaps, config('watched', { n: '1' }, { labels: { watch: 'me' } }))
			await client.update(configMaps, { ...one, data: { n: '2' } })
			await client.delete(configMaps, key('watched'))
			const options = { resourceVersion: metadata.resourceVersion, labelSelector: 'watch=me' }
			const seen = await watch(configMaps, options, (s) => s.length === 3)
			assert.deepEqual(told(seen), ['ADDED watched', 'MODIFIED watched', 'DELETED watched'])
			const versions = seen.map((e) => Number(e.object.metadata.resourceVersion))
			assert.deepEqual(
				versions,
				versions.toSorted((a, b) => a - b),
			)
			const later = await watch(configMaps, { ...options, resourceVersion: String(versions[0]) }, (s) => s.length === 2)
			assert.deepEqual(told(later), ['MODIFIED watched', 'DELETED watched'])
		})

		test('a watch begins with the state, where no version is given', async () => {
			await client.create(configMaps, config('there', {}, { labels: { state: 'yes' } }))
			const seen = await watch(
				configMaps,
				{ labelSelector: 'state=yes' },
				(s) => s.length === 2,
				async () => {
					await client.create(configMaps, config('there-too', {}, { labels: { state: 'yes' } }))
				},
			)
			assert.deepEqual(told(seen).sort(), ['ADDED there', 'ADDED there-too'])
		})

		test('an object that enters or leaves the selection is added or deleted', async () => {
			const { metadata } = await client.list(configMaps, { namespace })
			await client.create(configMaps, config('moving', {}, { labels: { in: 'no' } }))
			await client.patch(configMaps, key('moving'), { metadata: { labels: { in: 'yes' } } })
			await client.patch(configMaps, key('moving'), { metadata: { labels: { in: 'no' } } })
			const seen = await watch(
				configMaps,
				{ resourceVersion: metadata.resourceVersion, labelSelector: 'in=yes' },
				(s) => s.length === 2,
			)
			assert.deepEqual(told(seen), ['ADDED moving', 'DELETED moving'])
		})

		test('initial events end with a bookmark that says so', async () => {
			await client.create(configMaps, config('streamed', {}, { labels: { stream: 'list' } }))
			const path = `${at('configmaps')}?watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&labelSelector=stream%3Dlist&timeoutSeconds=10`
			const response = await send('GET', path)
			const lines: { type: string; object: KubeObject }[] = []
			let rest = ''
			for await (const chunk of response.body!) {
				rest += Buffer.from(chunk).toString()
				const parts = rest.split('\n')
				rest = parts.pop() ?? ''
				lines.push(...parts.map((line) => JSON.parse(line) as { type: string; object: KubeObject }))
				if (lines.some((l) => l.type === 'BOOKMARK')) break
			}
			assert.deepEqual(
				lines.map((l) => l.type),
				['ADDED', 'BOOKMARK'],
			)
			assert.deepEqual(lines[1]?.object.metadata.annotations, { 'k8s.io/initial-events-end': 'true' })
			assert.match(lines[1]?.object.metadata.resourceVersion ?? '', /^\d+$/)
		})

		test('a watch ends by itself after its time', async () => {
			const { metadata } = await client.list(configMaps, { namespace })
			const from = performance.now()
			for await (const _ of client.watch(configMaps, {
				namespace,
				resourceVersion: metadata.resourceVersion,
				timeoutSeconds: 1,
			})) {
				assert.fail('nothing changes')
			}
			assert.ok(performance.now() - from < 5000)
		})

		test('finalizers hold an object until they are gone', async () => {
			await client.create(configMaps, config('held', {}, { finalizers: ['podwire.test/hold'] }))
			const held = (await client.delete(configMaps, key('held'))) as ConfigMap
			assert.ok(held.metadata.deletionTimestamp)
			assert.ok((await client.get(configMaps, key('held'))).metadata.deletionTimestamp)
			const more = { metadata: { finalizers: ['podwire.test/hold', 'podwire.test/more'] } }
			await assert.rejects(client.patch(configMaps, key('held'), more), (e) => isFailure(e, 'Invalid'))
			await client.patch(configMaps, key('held'), { metadata: { finalizers: null } })
			assert.equal(await client.find(configMaps, key('held')), undefined)
		})

		test('deletes honour preconditions and propagation', async () => {
			const made = await client.create(configMaps, config('guarded'))
			const wrong = { preconditions: { uid: '00000000-0000-0000-0000-000000000000' } }
			await assert.rejects(client.delete(configMaps, key('guarded'), wrong), (e) => isFailure(e, 'Conflict'))
			const old = { preconditions: { resourceVersion: '1' } }
			await assert.rejects(client.delete(configMaps, key('guarded'), old), (e) => isFailure(e, 'Conflict'))
			await client.delete(configMaps, key('guarded'), { preconditions: { uid: made.metadata.uid! } })
			assert.equal(await client.find(configMaps, key('guarded')), undefined)
			if (target.controllers) return
			await client.create(configMaps, config('owner'))
			const owner = (await client.delete(configMaps, key('owner'), { propagationPolicy: 'Foreground' })) as ConfigMap
			assert.deepEqual(owner.metadata.finalizers, ['foregroundDeletion'])
		})

		test('status is written apart from the rest', async () => {
			const service = await client.create(services, {
				metadata: { name: 'statused', namespace },
				// A class nobody serves: nobody else writes its status.
				spec: {
					ports: [{ port: 80 }],
					selector: { app: 'none' },
					type: 'LoadBalancer',
					loadBalancerClass: 'podwire.dev/suite',
				},
				status: { loadBalancer: { ingress: [{ ip: '192.0.2.1' }] } },
			} as unknown as Service)
			assert.deepEqual(service.status?.loadBalancer ?? {}, {})
			const status = { loadBalancer: { ingress: [{ ip: '192.0.2.9' }] } }
			const written = await client.patch(
				services,
				key('statused'),
				{ status, spec: { sessionAffinity: 'ClientIP' } },
				{ subresource: 'status' },
			)
			assert.equal(written.status?.loadBalancer?.ingress?.[0]?.ip, '192.0.2.9')
			assert.equal(written.spec?.sessionAffinity, 'None')
			const after = await client.patch(services, key('statused'), { spec: { sessionAffinity: 'ClientIP' }, status: {} })
			assert.equal(after.status?.loadBalancer?.ingress?.[0]?.ip, '192.0.2.9')
			assert.equal(after.spec?.sessionAffinity, 'ClientIP')
		})

		test('Services get addresses and node ports no other has', async () => {
			const web = (name: string, spec: object = {}) =>
				client.create(services, {
					metadata: { name, namespace },
					spec: { ports: [{ port: 80 }], ...spec },
				} as unknown as Service)
			const one = await web('svc-one', { type: 'NodePort' })
			const { clusterIP = '', ports = [] } = one.spec ?? {}
			assert.deepEqual(one.spec?.clusterIPs, [clusterIP])
			assert.equal(one.spec?.ipFamilyPolicy, 'SingleStack')
			assert.equal(ports[0]?.targetPort, 80)
			const nodePort = ports[0]?.nodePort ?? 0
			assert.ok(nodePort >= 30000 && nodePort <= 32767)
			await assert.rejects(
				web('svc-two', { clusterIP }),
				(e) => isFailure(e, 'Invalid') && /provided IP is already allocated/.test(e.message),
			)
			await assert.rejects(
				web('svc-two', { type: 'NodePort', ports: [{ port: 80, nodePort }] }),
				(e) => isFailure(e, 'Invalid') && /provided port is already allocated/.test(e.message),
			)
			await assert.rejects(
				web('svc-two', { clusterIP: '203.0.113.7' }),
				(e) => isFailure(e, 'Invalid') && /not in the valid range/.test(e.message),
			)
			await assert.rejects(
				client.patch(services, key('svc-one'), { spec: { clusterIP: '203.0.113.7', clusterIPs: ['203.0.113.7'] } }),
				(e) => isFailure(e, 'Invalid'),
			)
			const headless = await web('svc-none', { clusterIP: 'None' })
			assert.deepEqual([headless.spec?.clusterIP, headless.spec?.clusterIPs], ['None', ['None']])
			const external = await web('svc-ext', { type: 'ExternalName', externalName: 'example.test', ports: undefined })
			assert.equal(external.spec?.clusterIP, undefined)
			// Given back when it is deleted.
			await client.delete(services, key('svc-one'))
			const again = await web('svc-again', { clusterIP, type: 'NodePort', ports: [{ port: 80, nodePort }] })
			assert.equal(again.spec?.clusterIP, clusterIP)
			assert.equal((await client.get(services, key('svc-again'))).spec?.ports?.[0]?.nodePort, nodePort)
		})

		test('scale is a view of the workload', async () => {
			const k = key('patched')
			interface Scale extends KubeObject {
				spec: { replicas?: number }
				status: { selector?: string }
			}
			const path = `/apis/apps/v1/namespaces/${namespace}/deployments/patched/scale`
			const scale = await client.raw<Scale>(path)
			assert.deepEqual(
				[scale.kind, scale.apiVersion, scale.status.selector],
				['Scale', 'autoscaling/v1', 'app=patched'],
			)
			assert.equal(scale.spec.replicas ?? 0, 0)
			const response = await send(
				'PATCH',
				path,
				{ spec: { replicas: 0 } },
				{ 'content-type': 'application/merge-patch+json' },
			)
			assert.equal(response.status, 200)
			assert.equal((await client.get(deployments, k)).spec?.replicas, 0)
		})

		test('a pod is bound once, and deleted in two steps', async () => {
			const name = 'bound'
			const pod = await client.create(pods, {
				metadata: { name, namespace },
				spec: { containers: [{ name: 'c', image: 'x' }], schedulerName: 'nobody', terminationGracePeriodSeconds: 7 },
			} as unknown as Pod)
			assert.equal(pod.status?.phase, 'Pending')
			assert.equal(pod.status?.qosClass, 'BestEffort')
			assert.ok(
				pod.spec?.tolerations?.some((t) => t.key === 'node.kubernetes.io/not-ready' && t.tolerationSeconds === 300),
			)
			const bind = (node: string) =>
				send('POST', at('pods', `${name}/binding`), {
					apiVersion: 'v1',
					kind: 'Binding',
					metadata: { name },
					target: { kind: 'Node', name: node },
				})
			assert.equal((await bind('podwire-suite-no-node')).status, 201)
			await refused(await bind('podwire-suite-other'), 409, 'Conflict')
			const bound = await client.get(pods, key(name))
			assert.equal(bound.spec?.nodeName, 'podwire-suite-no-node')
			assert.ok(bound.status?.conditions?.some((c) => c.type === 'PodScheduled' && c.status === 'True'))
			const going = (await client.delete(pods, key(name))) as typeof bound
			assert.equal(going.metadata.deletionGracePeriodSeconds, 7)
			assert.ok(going.metadata.deletionTimestamp)
			await client.delete(pods, key(name), { gracePeriodSeconds: 0 })
			assert.equal(await client.find(pods, key(name)), undefined)
		})

		test('Events of both versions are the same objects', async () => {
			const event = await client.create(events, {
				metadata: { name: 'both', namespace },
				involvedObject: { kind: 'ConfigMap', name: 'made', namespace },
				reason: 'Tested',
				message: 'seen from both sides',
				type: 'Normal',
				source: { component: 'podwire-suite' },
			} as unknown as Event)
			assert.equal(event.reason, 'Tested')
			interface New extends KubeObject {
				note: string
				regarding: { name: string }
			}
			const seen = await client.raw<New>(`/apis/events.k8s.io/v1/namespaces/${namespace}/events/both`)
			assert.deepEqual(
				[seen.apiVersion, seen.note, seen.regarding.name],
				['events.k8s.io/v1', 'seen from both sides', 'made'],
			)
			const listed = await client.list(events, { namespace, fieldSelector: 'involvedObject.name=made,reason=Tested' })
			assert.deepEqual(
				listed.items.map((e) => e.metadata.name),
				['both'],
			)
		})

		test('tables and metadata alone are answered where asked for', async () => {
			interface Table {
				kind: string
				columnDefinitions: { name: string }[]
				rows: { cells: unknown[]; object: KubeObject }[]
			}
			const accept = 'application/json;as=Table;v=v1;g=meta.k8s.io,application/json'
			const table = (await (await send('GET', at('configmaps', 'made'), undefined, { accept })).json()) as Table
			assert.equal(table.kind, 'Table')
			assert.deepEqual(
				table.columnDefinitions.map((c) => c.name),
				['Name', 'Data', 'Age'],
			)
			assert.deepEqual(table.rows[0]?.cells.slice(0, 2).map(String), ['made', '1'])
			assert.equal(table.rows[0]?.object.kind, 'PartialObjectMetadata')
			const partial = 'application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io'
			const list = (await (await send('GET', at('configmaps'), undefined, { accept: partial })).json()) as {
				kind: string
				items: KubeObject[]
			}
			assert.equal(list.kind, 'PartialObjectMetadataList')
			assert.ok(list.items.every((i) => !('data' in i)))
			await refused(await send('GET', at('configmaps'), undefined, { accept: 'text/html' }), 406, 'NotAcceptable')
		})

		test('who am I, and may I', async () => {
			interface Review {
				status: { allowed?: boolean; userInfo?: { username: string } }
			}
			const review = await client.raw<Review>('/apis/authorization.k8s.io/v1/selfsubjectaccessreviews', {
				method: 'POST',
				body: {
					apiVersion: 'authorization.k8s.io/v1',
					kind: 'SelfSubjectAccessReview',
					spec: { resourceAttributes: { verb: 'create', resource: 'pods', namespace } },
				},
			})
			assert.equal(review.status.allowed, true)
			const self = await client.raw<Review>('/apis/authentication.k8s.io/v1/selfsubjectreviews', {
				method: 'POST',
				body: { apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' },
			})
			assert.ok((self.status.userInfo?.username ?? '').length > 0)
		})

		test('a namespace that ends takes nothing new', async () => {
			const name = `${namespace}-ending`
			const made = await client.create(namespaces, { metadata: { name, finalizers: ['podwire.test/hold'] } })
			assert.equal(made.metadata.labels?.['kubernetes.io/metadata.name'], name)
			assert.equal(made.status?.phase, 'Active')
			await client.delete(namespaces, name)
			assert.equal((await client.get(namespaces, name)).status?.phase, 'Terminating')
			const status = await refused(
				await send('POST', `/api/v1/namespaces/${name}/configmaps`, { metadata: { name: 'late' } }),
				403,
				'Forbidden',
			)
			assert.match(status.message ?? '', /because it is being terminated/)
			assert.equal(status.details?.causes?.[0]?.reason, 'NamespaceTerminating')
			await client.patch(namespaces, name, { metadata: { finalizers: null } })
			if (target.controllers) return
			const ending = await client.get(namespaces, name)
			await send('PUT', `/api/v1/namespaces/${name}/finalize`, { ...ending, spec: { finalizers: [] } })
			assert.equal(await client.find(namespaces, name), undefined)
		})
	})
}
