// What any Kubernetes API server must do with CustomResourceDefinitions: serve them, their versions, subresources, columns,
// patches, names and their end. Written against a Transport alone, as suite.ts.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import type { KubeObject } from '../../../src/kube/objects/meta.ts'
import { createWorld, definitionsPath, type World } from './crd-world.ts'
import type { SuiteTarget } from './suite.ts'

/** Declares the tests. `open` is called once, before the first. */
export function crdSuite(name: string, open: () => Promise<SuiteTarget>): void {
	describe(`CRDs: ${name}`, () => {
		let world: World
		before(async () => {
			world = createWorld(await open())
		})
		after(() => world?.close())

		test('a definition is served: discovery, short names, categories, OpenAPI', async () => {
			const given = world.definition({
				names: { plural: 'widgets', kind: 'Widget', shortNames: ['wd'], categories: ['gadgets'] },
			})
			const kind = await world.install(given)
			const object = await world.established(given.metadata.name)
			const status = object.status as unknown as { acceptedNames: object; storedVersions: string[] }
			assert.deepEqual(status.storedVersions, ['v1'])
			assert.deepEqual(status.acceptedNames, {
				plural: 'widgets',
				singular: 'widget',
				kind: 'Widget',
				listKind: 'WidgetList',
				shortNames: ['wd'],
				categories: ['gadgets'],
			})
			const list = (await world.send('GET', `/apis/${kind.group}/v1`)).body as unknown as { resources: object[] }
			assert.deepEqual(
				Object.fromEntries(Object.entries(list.resources[0]!).filter(([k]) => k !== 'storageVersionHash')),
				{
					name: 'widgets',
					singularName: 'widget',
					namespaced: true,
					kind: 'Widget',
					verbs: ['delete', 'deletecollection', 'get', 'list', 'patch', 'create', 'update', 'watch'],
					shortNames: ['wd'],
					categories: ['gadgets'],
				},
			)
			const aggregated = await world.send('GET', '/apis', undefined, {
				accept: 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList',
			})
			assert.ok(JSON.stringify(aggregated.body).includes(kind.group))
			const openApi = await world.send('GET', `/openapi/v3/apis/${kind.group}/v1`)
			assert.equal(openApi.code, 200)
			assert.ok(JSON.stringify(openApi.body).includes('"kind":"Widget"'))
			assert.ok(!JSON.stringify(openApi.body).includes('strategic-merge-patch'))
		})

		test('status and scale are written apart from the rest', async () => {
			const kind = await world.install(
				world.definition(
					{},
					{
						subresources: {
							status: {},
							scale: {
								specReplicasPath: '.spec.replicas',
								statusReplicasPath: '.status.replicas',
								labelSelectorPath: '.status.selector',
							},
						},
					},
				),
			)
			const created = await world.send(
				'POST',
				world.at(kind),
				world.widget(kind, 'a', { spec: { replicas: 1 }, status: { replicas: 9 } }),
			)
			assert.deepEqual([created.body.status, created.body.metadata.generation], [undefined, 1])
			const status = await world.merge(`${world.at(kind, 'a')}/status`, {
				metadata: { labels: { no: 'label' } },
				spec: { replicas: 5 },
				status: { replicas: 1, selector: 'app=a' },
			})
			assert.equal(status.code, 200)
			assert.deepEqual(
				[status.body.spec, status.body.status, status.body.metadata.generation, status.body.metadata.labels],
				[{ replicas: 1 }, { replicas: 1, selector: 'app=a' }, 1, undefined],
			)
			const spec = await world.merge(world.at(kind, 'a'), { spec: { replicas: 2 }, status: { replicas: 7 } })
			assert.deepEqual(
				[spec.body.spec, spec.body.status?.replicas, spec.body.metadata.generation],
				[{ replicas: 2 }, 1, 2],
			)
			const scale = await world.send('GET', `${world.at(kind, 'a')}/scale`)
			assert.deepEqual(
				[scale.body.kind, scale.body.spec, scale.body.status],
				['Scale', { replicas: 2 }, { replicas: 1, selector: 'app=a' }],
			)
			const scaled = await world.merge(`${world.at(kind, 'a')}/scale`, { spec: { replicas: 4 } })
			assert.deepEqual([scaled.code, scaled.body.spec], [200, { replicas: 4 }])
			const after = await world.send('GET', world.at(kind, 'a'))
			assert.deepEqual([after.body.spec, after.body.metadata.generation], [{ replicas: 4 }, 3])
			const same = await world.merge(world.at(kind, 'a'), { metadata: { labels: { a: 'b' } } })
			assert.equal(same.body.metadata.generation, 3)
			const applied = await world.patch(
				`${world.at(kind, 'a')}?fieldManager=applier&force=true`,
				world.widget(kind, 'a', { spec: { color: 'red' }, status: { replicas: 3 } }),
				'application/apply-patch+yaml',
			)
			assert.equal(applied.code, 200, applied.body.message)
			const entry = applied.body.metadata.managedFields?.find((m) => m.manager === 'applier')
			assert.deepEqual(Object.keys(entry?.fieldsV1 ?? {}), ['f:spec'])
			const put = await world.send('PUT', world.at(kind, 'a'), { ...after.body, metadata: { name: 'a' } })
			assert.equal(put.code, 422)
		})

		test('columns of a definition are the columns of its table', async () => {
			const kind = await world.install(
				world.definition(
					{},
					{
						additionalPrinterColumns: [
							{ name: 'Size', type: 'integer', jsonPath: '.spec.size' },
							{ name: 'Ready', type: 'string', jsonPath: '.status.conditions[?(@.type=="Ready")].status' },
							{ name: 'Hosts', type: 'string', jsonPath: '.spec.hosts', priority: 1, description: 'all of them' },
							{ name: 'First', type: 'string', jsonPath: '.spec.hosts[0]' },
							{ name: 'Dotted', type: 'string', jsonPath: ".metadata.labels['a\\.b/c']" },
							{ name: 'Due', type: 'date', jsonPath: '.spec.due' },
							{ name: 'On', type: 'boolean', jsonPath: '.spec.on' },
						],
					},
				),
			)
			await world.send('POST', world.at(kind), {
				...world.widget(kind, 'a', {
					spec: { size: 3, hosts: ['x', 'y'], due: 'never', on: true },
					status: { conditions: [{ type: 'Ready', status: 'True' }] },
				}),
				metadata: { name: 'a', labels: { 'a.b/c': 'd' } },
			})
			await world.send('POST', world.at(kind), world.widget(kind, 'b', {}))
			const table = await world.send('GET', world.at(kind), undefined, {
				accept: 'application/json;as=Table;v=v1;g=meta.k8s.io',
			})
			const { columnDefinitions, rows } = table.body as unknown as {
				columnDefinitions: { name: string; type: string; priority: number; description: string }[]
				rows: { cells: unknown[] }[]
			}
			assert.deepEqual(
				columnDefinitions.map((c) => `${c.name} ${c.type} ${c.priority}`),
				[
					'Name string 0',
					'Size integer 0',
					'Ready string 0',
					'Hosts string 1',
					'First string 0',
					'Dotted string 0',
					'Due date 0',
					'On boolean 0',
				],
			)
			assert.equal(columnDefinitions[3]?.description, 'all of them')
			assert.deepEqual(
				rows.map((row) => row.cells),
				[
					['a', 3, 'True', '["x","y"]', 'x', 'd', '<invalid>', true],
					['b', null, null, null, null, null, null, null],
				],
			)
		})

		test('fields a definition offers can be selected by, others not', async () => {
			const kind = await world.install(
				world.definition(
					{},
					{ selectableFields: [{ jsonPath: '.spec.color' }] },
					{
						type: 'object',
						properties: {
							spec: { type: 'object', properties: { color: { type: 'string' }, size: { type: 'integer' } } },
						},
					},
				),
			)
			for (const color of ['red', 'blue'])
				await world.send('POST', world.at(kind), world.widget(kind, color, { spec: { color, size: 1 } }))
			const found = await world.send('GET', `${world.at(kind)}?fieldSelector=spec.color%3Dred`)
			assert.deepEqual(
				(found.body as unknown as { items: KubeObject[] }).items.map((o) => o.metadata.name),
				['red'],
			)
			assert.equal((await world.send('GET', `${world.at(kind)}?fieldSelector=spec.size%3D1`)).code, 400)
		})

		test('several versions, one of them kept', async () => {
			const versions = (stored: string) =>
				['v1alpha1', 'v1'].map((version) => ({
					name: version,
					served: true,
					storage: version === stored,
					schema: {
						openAPIV3Schema: {
							type: 'object',
							properties: {
								spec: {
									type: 'object',
									properties: { a: { type: 'string' }, [version]: { type: 'string', default: 'here' } },
								},
							},
						},
					},
				}))
			const given = world.definition({ versions: versions('v1alpha1') })
			const kind = await world.install(given)
			const discovery = (await world.send('GET', `/apis/${kind.group}`)).body as unknown as {
				versions: { version: string }[]
			}
			assert.deepEqual(
				discovery.versions.map((v) => v.version),
				['v1', 'v1alpha1'],
			)
			const created = await world.send('POST', world.at(kind), world.widget(kind, 'x', { spec: { a: '1' } }))
			assert.deepEqual([created.code, created.body.apiVersion], [201, `${kind.group}/v1`])
			const old = await world.send('GET', world.at(kind, 'x', 'v1alpha1'))
			assert.equal(old.body.apiVersion, `${kind.group}/v1alpha1`)
			assert.equal(old.body.spec?.a, '1')
			assert.equal(old.body.spec?.v1alpha1, 'here')
			const path = `${definitionsPath}/${given.metadata.name}`
			const moved = await world.merge(path, { spec: { versions: versions('v1') } })
			assert.equal(moved.code, 200, moved.body.message)
			for (const version of ['v1', 'v1alpha1']) {
				const shown = await world.send('GET', world.at(kind, 'x', version))
				assert.deepEqual(
					[shown.code, shown.body.apiVersion, shown.body.spec?.a],
					[200, `${kind.group}/${version}`, '1'],
				)
			}
			const updated = await world.merge(world.at(kind, 'x'), { spec: { a: '2' } })
			assert.deepEqual([updated.code, updated.body.apiVersion, updated.body.spec?.a], [200, `${kind.group}/v1`, '2'])
			const list = await world.send('GET', world.at(kind, '', 'v1alpha1'))
			assert.equal((list.body as unknown as { items: KubeObject[] }).items[0]?.apiVersion, `${kind.group}/v1alpha1`)
			const dropped = await world.merge(path, { spec: { versions: versions('v1').slice(1) } })
			assert.equal(dropped.code, 422)
			assert.match(
				dropped.body.message ?? '',
				/status\.storedVersions\[0\]: Invalid value: "v1alpha1": missing from spec\.versions/,
			)
		})

		test('patches: merge, JSON and apply; no strategic merge', async () => {
			const kind = await world.install(
				world.definition(
					{},
					{},
					{
						type: 'object',
						properties: {
							spec: {
								type: 'object',
								properties: {
									a: { type: 'string' },
									ports: {
										type: 'array',
										'x-kubernetes-list-type': 'map',
										'x-kubernetes-list-map-keys': ['name'],
										items: {
											type: 'object',
											required: ['name'],
											properties: { name: { type: 'string' }, port: { type: 'integer' } },
										},
									},
								},
							},
						},
					},
				),
			)
			const apply = (manager: string, spec: object, more = '') =>
				world.patch(
					`${world.at(kind, 'a')}?fieldManager=${manager}${more}`,
					world.widget(kind, 'a', { spec }),
					'application/apply-patch+yaml',
				)
			assert.equal((await apply('one', { ports: [{ name: 'x', port: 1 }] })).code, 201)
			const second = await apply('two', { ports: [{ name: 'y', port: 2 }] })
			assert.deepEqual(
				[second.code, second.body.spec],
				[
					200,
					{
						ports: [
							{ name: 'x', port: 1 },
							{ name: 'y', port: 2 },
						],
					},
				],
			)
			const clash = await apply('two', { ports: [{ name: 'x', port: 9 }] })
			assert.equal(clash.code, 409)
			assert.match(clash.body.message ?? '', /conflict with "one": \.spec\.ports\[name="x"\]\.port/)
			assert.equal((await apply('two', { ports: [{ name: 'x', port: 9 }] }, '&force=true')).code, 200)
			const unknown = await apply('two', { odd: 1 })
			assert.equal(unknown.code, 400)
			assert.match(unknown.body.message ?? '', /\.spec\.odd: field not declared in schema/)
			assert.equal(
				(
					await world.patch(
						world.at(kind, 'a'),
						[{ op: 'add', path: '/spec/a', value: 'b' }],
						'application/json-patch+json',
					)
				).code,
				200,
			)
			const strategic = await world.patch(
				world.at(kind, 'a'),
				{ spec: { a: 'c' } },
				'application/strategic-merge-patch+json',
			)
			assert.deepEqual([strategic.code, strategic.body.reason], [415, 'UnsupportedMediaType'])
		})

		test('names another definition has are not accepted, until they are free', async () => {
			const first = world.definition({ names: { plural: 'widgets', kind: 'Widget', shortNames: ['wgt'] } })
			await world.install(first)
			const second = {
				...first,
				metadata: { name: `gadgets.${first.spec.group}` },
				spec: { ...first.spec, names: { plural: 'gadgets', kind: 'Gadget', shortNames: ['wgt'] } },
			}
			assert.equal((await world.send('POST', definitionsPath, second)).code, 201)
			world.made.push(second.metadata.name)
			const refused = await world.until(second.metadata.name, (object) => world.has(object, 'NamesAccepted', 'False'))
			const condition = refused.status?.conditions?.find((c) => c.type === 'NamesAccepted')
			assert.deepEqual(
				[condition?.status, condition?.reason, condition?.message],
				['False', 'ShortNamesConflict', '"wgt" is already in use'],
			)
			assert.equal((await world.send('GET', `/apis/${first.spec.group}/v1/gadgets`)).code, 404)
			await world.send('DELETE', `${definitionsPath}/${first.metadata.name}`)
			await world.established(second.metadata.name)
			assert.equal((await world.send('GET', `/apis/${first.spec.group}/v1/gadgets`)).code, 200)
		})

		test('a definition goes after its objects', { timeout: 30_000 }, async () => {
			const given = world.definition()
			const kind = await world.install(given)
			await world.send('POST', world.at(kind), world.widget(kind, 'plain', {}))
			await world.send('POST', world.at(kind), {
				...world.widget(kind, 'held', {}),
				metadata: { name: 'held', finalizers: ['podwire.dev/hold'] },
			})
			const watch = await world.target.transport(
				new Request(`http://kubernetes${world.at(kind)}?watch=true&timeoutSeconds=600`),
			)
			const seen = (async () => {
				let text = ''
				for await (const chunk of watch.body!.pipeThrough(new TextDecoderStream())) text += chunk
				return text
			})()
			const path = `${definitionsPath}/${given.metadata.name}`
			const deleted = await world.send('DELETE', path)
			assert.equal(deleted.code, 200)
			const left = await world.until(given.metadata.name, (object) => world.has(object, 'Terminating', 'True'))
			assert.deepEqual(left.metadata.finalizers, ['customresourcecleanup.apiextensions.k8s.io'])
			assert.equal((await world.send('POST', world.at(kind), world.widget(kind, 'late', {}))).code, 405)
			assert.equal((await world.send('GET', world.at(kind, 'plain'))).code, 404)
			assert.equal((await world.send('GET', world.at(kind, 'held'))).code, 200)
			const gone = world.until(given.metadata.name, (_, type) => type === 'DELETED')
			assert.equal((await world.merge(world.at(kind, 'held'), { metadata: { finalizers: null } })).code, 200)
			await gone
			assert.equal((await world.send('GET', path)).code, 404)
			assert.equal((await world.send('GET', world.at(kind))).code, 404)
			assert.match(await seen, /"type":"DELETED".*"name":"plain"/)
		})
	})
}
