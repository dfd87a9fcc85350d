// What any Kubernetes API server must do with CustomResourceDefinitions and objects of their kinds. Written against a
// Transport alone, as suite.ts; the definitions are of groups of their own and are deleted at the end.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import type { KubeObject, Status } from '../../../src/kube/objects/meta.ts'
import type { SuiteTarget } from './suite.ts'

const definitionsPath = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions'

interface Kind {
	readonly group: string
	readonly plural: string
}
type Loose = KubeObject & {
	spec?: Record<string, unknown>
	status?: Record<string, unknown> & {
		conditions?: { type: string; status: string; reason?: string; message?: string }[]
	}
}

const anything = { type: 'object', 'x-kubernetes-preserve-unknown-fields': true }

/** Declares the tests. `open` is called once, before the first. */
export function crdSuite(name: string, open: () => Promise<SuiteTarget>): void {
	describe(`CRDs: ${name}`, () => {
		let target: SuiteTarget
		const mark = Math.random().toString(36).slice(2, 8)
		const made: string[] = []
		let count = 0

		const send = async (method: string, path: string, body?: unknown, headers: Record<string, string> = {}) => {
			const response = await target.transport(
				new Request(`http://kubernetes${path}`, {
					method,
					headers: { 'content-type': 'application/json', ...headers },
					...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
				}),
			)
			const text = await response.text()
			return {
				code: response.status,
				warning: response.headers.get('warning'),
				body: (text === '' ? undefined : JSON.parse(text)) as Loose & Status,
			}
		}
		const patch = (path: string, body: unknown, type: string) => send('PATCH', path, body, { 'content-type': type })
		const merge = (path: string, body: unknown) => patch(path, body, 'application/merge-patch+json')

		const definition = (spec: object = {}, version: object = {}, schema: object = anything) => {
			const group = `g${++count}-${mark}.podwire.dev`
			return {
				apiVersion: 'apiextensions.k8s.io/v1',
				kind: 'CustomResourceDefinition',
				metadata: { name: `widgets.${group}` },
				spec: {
					group,
					scope: 'Namespaced',
					names: { plural: 'widgets', kind: 'Widget' },
					versions: [{ name: 'v1', served: true, storage: true, schema: { openAPIV3Schema: schema }, ...version }],
					...spec,
				},
			}
		}
		/** Creates a definition and waits until it is served. */
		const install = async (given: ReturnType<typeof definition>): Promise<Kind> => {
			const answer = await send('POST', definitionsPath, given)
			assert.equal(answer.code, 201, answer.body.message)
			made.push(given.metadata.name)
			await established(given.metadata.name)
			return { group: given.spec.group, plural: given.spec.names.plural }
		}
		/** Follows a definition until it is as wanted; DELETED comes with its last state. */
		const until = async (
			definitionName: string,
			isWanted: (object: Loose, type: string) => boolean,
		): Promise<Loose> => {
			const path = `${definitionsPath}?watch=true&fieldSelector=metadata.name%3D${definitionName}&timeoutSeconds=10`
			const response = await target.transport(new Request(`http://kubernetes${path}`))
			let text = ''
			for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
				text += chunk
				for (const line of text.split('\n').slice(0, -1)) {
					const { type, object } = JSON.parse(line) as { type: string; object: Loose }
					if (isWanted(object, type)) return object
				}
			}
			throw new Error(`${definitionName} does not become what it should: ${text}`)
		}
		const has = (object: Loose, type: string, status: string): boolean =>
			object.status?.conditions?.some((c) => c.type === type && c.status === status) ?? false
		const established = (definitionName: string) =>
			until(definitionName, (object) => has(object, 'Established', 'True'))
		const at = ({ group, plural }: Kind, object = '', version = 'v1') =>
			`/apis/${group}/${version}/namespaces/default/${plural}${object === '' ? '' : `/${object}`}`
		const widget = ({ group }: Kind, objectName: string, rest: object, version = 'v1') => ({
			apiVersion: `${group}/${version}`,
			kind: 'Widget',
			metadata: { name: objectName },
			...rest,
		})
		const causes = (status: Status) =>
			(status.details?.causes ?? []).map((cause) => `${cause.field}: ${cause.message}`).sort()

		before(async () => {
			target = await open()
		})
		after(async () => {
			if (target === undefined) return
			for (const definitionName of made) await send('DELETE', `${definitionsPath}/${definitionName}`)
			await target.close()
		})

		test('a definition is served: discovery, short names, categories, OpenAPI', async () => {
			const given = definition({
				names: { plural: 'widgets', kind: 'Widget', shortNames: ['wd'], categories: ['gadgets'] },
			})
			const kind = await install(given)
			const object = await established(given.metadata.name)
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
			const list = (await send('GET', `/apis/${kind.group}/v1`)).body as unknown as { resources: object[] }
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
			const aggregated = await send('GET', '/apis', undefined, {
				accept: 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList',
			})
			assert.ok(JSON.stringify(aggregated.body).includes(kind.group))
			const openApi = await send('GET', `/openapi/v3/apis/${kind.group}/v1`)
			assert.equal(openApi.code, 200)
			assert.ok(JSON.stringify(openApi.body).includes('"kind":"Widget"'))
		})

		test('what the schema says no more of goes, what it has defaults for comes', async () => {
			const kind = await install(
				definition(
					{},
					{},
					{
						type: 'object',
						properties: {
							spec: {
								type: 'object',
								properties: {
									size: { type: 'integer', default: 3 },
									name: { type: 'string' },
									keep: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true },
									nothing: { type: 'string', nullable: true },
									parts: {
										type: 'array',
										items: {
											type: 'object',
											properties: { weight: { type: 'integer', default: 1 }, id: { type: 'string' } },
										},
									},
									labels: {
										type: 'object',
										additionalProperties: { type: 'object', properties: { on: { type: 'boolean', default: true } } },
									},
									deep: { type: 'object', default: {}, properties: { level: { type: 'string', default: 'low' } } },
								},
							},
						},
					},
				),
			)
			const spec = {
				name: null,
				nothing: null,
				size: null,
				odd: 1,
				keep: { any: { thing: [1] } },
				parts: [{ id: 'a', odd: 1 }, { weight: 7 }],
				labels: { x: {} },
			}
			const strict = await send('POST', `${at(kind)}?fieldValidation=Strict`, widget(kind, 'a', { spec }))
			assert.equal(strict.code, 400)
			assert.match(
				strict.body.message ?? '',
				/strict decoding error: unknown field "spec\.odd", unknown field "spec\.parts\[0\]\.odd"/,
			)
			const warned = await send('POST', `${at(kind)}?fieldValidation=Warn`, widget(kind, 'a', { spec }))
			assert.equal(warned.code, 201)
			assert.match(warned.warning ?? '', /unknown field \\"spec\.odd\\"/)
			assert.deepEqual(warned.body.spec, {
				nothing: null,
				size: 3,
				keep: { any: { thing: [1] } },
				parts: [{ id: 'a', weight: 1 }, { weight: 7 }],
				labels: { x: { on: true } },
				deep: { level: 'low' },
			})
			const ignored = await send('POST', `${at(kind)}?fieldValidation=Ignore`, widget(kind, 'b', { spec: { odd: 1 } }))
			assert.deepEqual([ignored.code, ignored.warning], [201, null])
		})

		test('values the schema does not allow are refused, each with its field', async () => {
			const kind = await install(
				definition(
					{},
					{},
					{
						type: 'object',
						properties: {
							spec: {
								type: 'object',
								required: ['must'],
								properties: {
									must: { type: 'string' },
									text: { type: 'string', minLength: 2, maxLength: 4, pattern: '^[a-z]+$' },
									choice: { type: 'string', enum: ['a', 'b'] },
									number: { type: 'integer', minimum: 1, maximum: 10, multipleOf: 2 },
									open: { type: 'number', minimum: 0, exclusiveMinimum: true, maximum: 1, exclusiveMaximum: true },
									ip: { type: 'string', format: 'ipv4' },
									when: { type: 'string', format: 'date-time' },
									port: { 'x-kubernetes-int-or-string': true },
									list: { type: 'array', minItems: 1, maxItems: 2, items: { type: 'string' } },
									set: { type: 'array', 'x-kubernetes-list-type': 'set', items: { type: 'string' } },
									map: {
										type: 'array',
										'x-kubernetes-list-type': 'map',
										'x-kubernetes-list-map-keys': ['name', 'port'],
										items: {
											type: 'object',
											required: ['name'],
											properties: { name: { type: 'string' }, port: { type: 'integer', default: 80 } },
										},
									},
									one: {
										type: 'object',
										properties: { a: { type: 'string' }, b: { type: 'string' } },
										oneOf: [{ required: ['a'] }, { required: ['b'] }],
									},
									some: {
										type: 'string',
										anyOf: [{ format: 'ipv4' }, { enum: ['none'] }],
									},
									none: { type: 'string', not: { enum: ['never'] } },
									all: { type: 'integer', allOf: [{ minimum: 2 }, { maximum: 4 }] },
									limited: { type: 'object', maxProperties: 1, additionalProperties: { type: 'integer' } },
									whole: {
										type: 'object',
										'x-kubernetes-embedded-resource': true,
										'x-kubernetes-preserve-unknown-fields': true,
									},
								},
							},
						},
					},
				),
			)
			const refused: readonly (readonly [spec: object, wanted: RegExp])[] = [
				[{}, /^spec\.must: Required value$/],
				[{ must: 1 }, /^spec\.must: Invalid value: "integer": spec\.must in body must be of type string: "integer"$/],
				[{ must: null }, /^spec\.must: Required value$/],
				[{ text: 'a' }, /^spec\.text: Invalid value: "a": spec\.text in body should be at least 2 chars long$/],
				[{ text: 'abcde' }, /^spec\.text: Too long: may not be more than 4 bytes$/],
				[{ text: 'AB' }, /^spec\.text: Invalid value: "AB": spec\.text in body should match '\^\[a-z\]\+\$'$/],
				[{ choice: 'c' }, /^spec\.choice: Unsupported value: "c": supported values: "a", "b"$/],
				[{ number: 0 }, /^spec\.number: Invalid value: 0: spec\.number in body should be greater than or equal to 1$/],
				[{ number: 12 }, /^spec\.number: Invalid value: 12: spec\.number in body should be less than or equal to 10$/],
				[{ number: 3 }, /^spec\.number: Invalid value: 3: spec\.number in body should be a multiple of 2$/],
				[
					{ number: 2.5 },
					/^spec\.number: Invalid value: "number": spec\.number in body must be of type integer: "number"$/,
				],
				[{ open: 0 }, /^spec\.open: Invalid value: 0: spec\.open in body should be greater than 0$/],
				[{ open: 1 }, /^spec\.open: Invalid value: 1: spec\.open in body should be less than 1$/],
				[{ ip: '10.0.0' }, /^spec\.ip: Invalid value: "10\.0\.0": spec\.ip in body must be of type ipv4: "10\.0\.0"$/],
				[{ when: 'noon' }, /^spec\.when: Invalid value: "noon": spec\.when in body must be of type date-time: "noon"$/],
				[
					{ port: true },
					/^spec\.port: Invalid value: "boolean": spec\.port in body must be of type integer,string: "boolean"$/,
				],
				[{ list: [] }, /^spec\.list: Invalid value: 0: spec\.list in body should have at least 1 items$/],
				[{ list: ['a', 'b', 'c'] }, /^spec\.list: Too many: 3: must have at most 2 items$/],
				[{ list: [1] }, /^spec\.list\[0\]: Invalid value: "integer"/],
				[{ set: ['a', 'a'] }, /^spec\.set\[1\]: Duplicate value: "a"$/],
				[{ map: [{ name: 'a' }, { name: 'a', port: 80 }] }, /^spec\.map\[1\]: Duplicate value: /],
				[
					{ one: {} },
					/^spec\.one: Invalid value: .*"spec\.one" must validate one and only one schema \(oneOf\)\. Found none valid$/,
				],
				[{ one: { a: '', b: '' } }, /^spec\.one: .*\(oneOf\)\. Found 2 valid alternatives$/],
				[{ some: 'x' }, /^spec\.some: .*"spec\.some" must validate at least one schema \(anyOf\)$/],
				[{ none: 'never' }, /^spec\.none: .*"spec\.none" must not validate the schema \(not\)$/],
				[{ all: 9 }, /^spec\.all: .*"spec\.all" must validate all the schemas \(allOf\)$/],
				[{ limited: { a: 1, b: 2 } }, /^spec\.limited: Too many: 2: must have at most 1 items$/],
				[{ whole: {} }, /^spec\.whole\.kind: Required value: must not be empty$/],
			]
			for (const [spec, wanted] of refused) {
				const given = Object.hasOwn(spec, 'must') || Object.keys(spec).length === 0 ? spec : { must: 'x', ...spec }
				const { code, body } = await send('POST', at(kind), widget(kind, 'bad', { spec: given }))
				assert.equal(code, 422, `${JSON.stringify(spec)}: ${body.message}`)
				assert.ok(
					causes(body).some((cause) => wanted.test(cause)),
					`${wanted} in ${causes(body).join('\n')}`,
				)
			}
			const good = {
				must: '',
				text: 'abc',
				choice: 'b',
				number: 4,
				open: 0.5,
				ip: '10.0.0.1',
				when: '2026-01-01T00:00:00Z',
				port: 'http',
				list: ['a'],
				set: ['a', 'b'],
				map: [{ name: 'a' }, { name: 'a', port: 81 }],
				one: { b: '' },
				some: 'none',
				none: 'always',
				all: 3,
				limited: { a: 1 },
				whole: { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'x' }, data: { a: 'b' } },
			}
			const { code, body } = await send('POST', at(kind), widget(kind, 'good', { spec: good }))
			assert.equal(code, 201, body.message)
		})

		test('rules: messages, paths, reasons, transitions', async () => {
			const kind = await install(
				definition(
					{},
					{},
					{
						type: 'object',
						'x-kubernetes-validations': [{ rule: "self.metadata.name != 'forbidden'", message: 'not this name' }],
						properties: {
							spec: {
								type: 'object',
								'x-kubernetes-validations': [
									{
										rule: '!has(self.low) || !has(self.high) || self.low <= self.high',
										messageExpression: "'low %d is above high %d'.format([self.low, self.high])",
										fieldPath: '.low',
										reason: 'FieldValueForbidden',
									},
									{
										rule: '!has(oldSelf.fixed) || (has(self.fixed) && self.fixed == oldSelf.fixed)',
										message: 'fixed stays',
									},
								],
								properties: {
									low: { type: 'integer' },
									high: { type: 'integer' },
									fixed: { type: 'string' },
									once: {
										type: 'string',
										'x-kubernetes-validations': [
											{
												rule: 'oldSelf.hasValue() || self.startsWith("new")',
												optionalOldSelf: true,
												message: 'begin anew',
											},
										],
									},
									tags: {
										type: 'array',
										'x-kubernetes-list-type': 'set',
										items: { type: 'string', maxLength: 10 },
										maxItems: 5,
										'x-kubernetes-validations': [{ rule: 'self == oldSelf', message: 'the same tags in any order' }],
									},
									ports: {
										type: 'array',
										maxItems: 5,
										'x-kubernetes-list-type': 'map',
										'x-kubernetes-list-map-keys': ['name'],
										items: {
											type: 'object',
											required: ['name'],
											properties: {
												name: { type: 'string' },
												port: {
													type: 'integer',
													'x-kubernetes-validations': [{ rule: 'self >= oldSelf', message: 'ports only grow' }],
												},
											},
										},
									},
									namespace: { type: 'string', 'x-kubernetes-validations': [{ rule: "self != 'bad'" }] },
									size: {
										type: 'string',
										'x-kubernetes-validations': [
											{ rule: "quantity(self).isLessThan(quantity('1Gi'))", message: 'below 1Gi' },
										],
									},
									broken: {
										type: 'object',
										additionalProperties: { type: 'integer' },
										maxProperties: 3,
										'x-kubernetes-validations': [{ rule: "self['missing'] > 0", message: 'has missing' }],
									},
								},
							},
						},
					},
				),
			)
			const create = (objectName: string, spec: object) => send('POST', at(kind), widget(kind, objectName, { spec }))
			const table: readonly (readonly [string, object, string])[] = [
				['forbidden', {}, '<nil>: Invalid value: "object": not this name'],
				['a', { low: 2, high: 1 }, 'spec.low: Forbidden: low 2 is above high 1'],
				['a', { once: 'old' }, 'spec.once: Invalid value: "string": begin anew'],
				['a', { namespace: 'bad' }, 'spec.namespace: Invalid value: "string": failed rule: self != \'bad\''],
				['a', { size: '2Gi' }, 'spec.size: Invalid value: "string": below 1Gi'],
				[
					'a',
					{ broken: { x: 1 } },
					'spec.broken: Invalid value: "object": no such key: missing evaluating rule: has missing',
				],
			]
			for (const [objectName, spec, wanted] of table) {
				const { code, body } = await create(objectName, spec)
				assert.equal(code, 422, wanted)
				assert.deepEqual(causes(body), [wanted.replace(/^<nil>/, causes(body)[0]!.split(':')[0]!)])
			}
			const spec = {
				fixed: 'x',
				once: 'new',
				tags: ['a', 'b'],
				ports: [
					{ name: 'p', port: 5 },
					{ name: 'q', port: 1 },
				],
			}
			assert.equal((await create('a', spec)).code, 201)
			const change = (next: object) => merge(at(kind, 'a'), { spec: next })
			assert.deepEqual(causes((await change({ fixed: 'y' })).body), ['spec: Invalid value: "object": fixed stays'])
			assert.equal((await change({ tags: ['b', 'a'] })).code, 200)
			assert.deepEqual(causes((await change({ tags: ['b'] })).body), [
				'spec.tags: Invalid value: "array": the same tags in any order',
			])
			assert.equal(
				(
					await change({
						ports: [
							{ name: 'q', port: 2 },
							{ name: 'p', port: 5 },
							{ name: 'r', port: 0 },
						],
					})
				).code,
				200,
			)
			assert.deepEqual(
				causes(
					(
						await change({
							ports: [
								{ name: 'q', port: 2 },
								{ name: 'p', port: 4 },
							],
						})
					).body,
				),
				['spec.ports[1].port: Invalid value: "integer": ports only grow'],
			)
			assert.equal((await change({ once: 'any' })).code, 200)
		})

		test('what was so before the rules were may stay, until it is touched', async () => {
			const given = definition(
				{},
				{},
				{
					type: 'object',
					properties: { spec: { type: 'object', properties: { a: { type: 'string' }, b: { type: 'string' } } } },
				},
			)
			const kind = await install(given)
			assert.equal((await send('POST', at(kind), widget(kind, 'old', { spec: { a: 'x', b: 'y' } }))).code, 201)
			const path = `${definitionsPath}/${given.metadata.name}`
			const stricter = {
				type: 'object',
				properties: {
					spec: {
						type: 'object',
						properties: {
							a: { type: 'string', maxLength: 0 },
							b: { type: 'string', default: 'z' },
							c: { type: 'string', default: 'new' },
						},
					},
				},
			}
			const changed = await patch(
				path,
				[{ op: 'replace', path: '/spec/versions/0/schema/openAPIV3Schema', value: stricter }],
				'application/json-patch+json',
			)
			assert.equal(changed.code, 200, changed.body.message)
			assert.equal((await merge(at(kind, 'old'), { spec: { b: 'w' } })).code, 200)
			assert.deepEqual(causes((await merge(at(kind, 'old'), { spec: { a: 'xx' } })).body), [
				'spec.a: Too long: may not be more than 0 bytes',
			])
			assert.deepEqual((await send('GET', at(kind, 'old'))).body.spec, { a: 'x', b: 'w', c: 'new' })
		})

		test('a rule that takes too long is stopped', async () => {
			const kind = await install(
				definition(
					{},
					{},
					{
						type: 'object',
						properties: {
							list: {
								type: 'array',
								maxItems: 300,
								items: { type: 'integer' },
								'x-kubernetes-validations': [{ rule: 'self.all(a, self.all(b, a + b >= 0))', message: 'sums' }],
							},
						},
					},
				),
			)
			const few = await send('POST', at(kind), widget(kind, 'few', { list: [1, 2, 3] }))
			assert.equal(few.code, 201, few.body.message)
			if (target.controllers) return
			const many = await send(
				'POST',
				at(kind),
				widget(kind, 'many', { list: Array.from({ length: 300 }, (_, i) => i) }),
			)
			assert.ok(many.code === 201 || many.code === 422)
		})

		test('status and scale are written apart from the rest', async () => {
			const kind = await install(
				definition(
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
			const created = await send(
				'POST',
				at(kind),
				widget(kind, 'a', { spec: { replicas: 1 }, status: { replicas: 9 } }),
			)
			assert.deepEqual([created.body.status, created.body.metadata.generation], [undefined, 1])
			const status = await merge(`${at(kind, 'a')}/status`, {
				metadata: { labels: { no: 'label' } },
				spec: { replicas: 5 },
				status: { replicas: 1, selector: 'app=a' },
			})
			assert.equal(status.code, 200)
			assert.deepEqual(
				[status.body.spec, status.body.status, status.body.metadata.generation, status.body.metadata.labels],
				[{ replicas: 1 }, { replicas: 1, selector: 'app=a' }, 1, undefined],
			)
			const spec = await merge(at(kind, 'a'), { spec: { replicas: 2 }, status: { replicas: 7 } })
			assert.deepEqual(
				[spec.body.spec, spec.body.status?.replicas, spec.body.metadata.generation],
				[{ replicas: 2 }, 1, 2],
			)
			const scale = await send('GET', `${at(kind, 'a')}/scale`)
			assert.deepEqual(
				[scale.body.kind, scale.body.spec, scale.body.status],
				['Scale', { replicas: 2 }, { replicas: 1, selector: 'app=a' }],
			)
			const scaled = await merge(`${at(kind, 'a')}/scale`, { spec: { replicas: 4 } })
			assert.deepEqual([scaled.code, scaled.body.spec], [200, { replicas: 4 }])
			const after = await send('GET', at(kind, 'a'))
			assert.deepEqual([after.body.spec, after.body.metadata.generation], [{ replicas: 4 }, 3])
			const same = await merge(at(kind, 'a'), { metadata: { labels: { a: 'b' } } })
			assert.equal(same.body.metadata.generation, 3)
			const put = await send('PUT', at(kind, 'a'), { ...after.body, metadata: { name: 'a' } })
			assert.equal(put.code, 422)
		})

		test('columns of a definition are the columns of its table', async () => {
			const kind = await install(
				definition(
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
			await send('POST', at(kind), {
				...widget(kind, 'a', {
					spec: { size: 3, hosts: ['x', 'y'], due: 'never', on: true },
					status: { conditions: [{ type: 'Ready', status: 'True' }] },
				}),
				metadata: { name: 'a', labels: { 'a.b/c': 'd' } },
			})
			await send('POST', at(kind), widget(kind, 'b', {}))
			const table = await send('GET', at(kind), undefined, { accept: 'application/json;as=Table;v=v1;g=meta.k8s.io' })
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
			const kind = await install(
				definition(
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
				await send('POST', at(kind), widget(kind, color, { spec: { color, size: 1 } }))
			const found = await send('GET', `${at(kind)}?fieldSelector=spec.color%3Dred`)
			assert.deepEqual(
				(found.body as unknown as { items: KubeObject[] }).items.map((o) => o.metadata.name),
				['red'],
			)
			assert.equal((await send('GET', `${at(kind)}?fieldSelector=spec.size%3D1`)).code, 400)
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
			const given = definition({ versions: versions('v1alpha1') })
			const kind = await install(given)
			const discovery = (await send('GET', `/apis/${kind.group}`)).body as unknown as {
				versions: { version: string }[]
			}
			assert.deepEqual(
				discovery.versions.map((v) => v.version),
				['v1', 'v1alpha1'],
			)
			const created = await send('POST', at(kind), widget(kind, 'x', { spec: { a: '1' } }))
			assert.deepEqual([created.code, created.body.apiVersion], [201, `${kind.group}/v1`])
			const old = await send('GET', at(kind, 'x', 'v1alpha1'))
			assert.equal(old.body.apiVersion, `${kind.group}/v1alpha1`)
			assert.equal(old.body.spec?.a, '1')
			assert.equal(old.body.spec?.v1alpha1, 'here')
			const path = `${definitionsPath}/${given.metadata.name}`
			const moved = await merge(path, { spec: { versions: versions('v1') } })
			assert.equal(moved.code, 200, moved.body.message)
			for (const version of ['v1', 'v1alpha1']) {
				const shown = await send('GET', at(kind, 'x', version))
				assert.deepEqual(
					[shown.code, shown.body.apiVersion, shown.body.spec?.a],
					[200, `${kind.group}/${version}`, '1'],
				)
			}
			const updated = await merge(at(kind, 'x'), { spec: { a: '2' } })
			assert.deepEqual([updated.code, updated.body.apiVersion, updated.body.spec?.a], [200, `${kind.group}/v1`, '2'])
			const list = await send('GET', at(kind, '', 'v1alpha1'))
			assert.equal((list.body as unknown as { items: KubeObject[] }).items[0]?.apiVersion, `${kind.group}/v1alpha1`)
			const dropped = await merge(path, { spec: { versions: versions('v1').slice(1) } })
			assert.equal(dropped.code, 422)
			assert.match(
				dropped.body.message ?? '',
				/status\.storedVersions\[0\]: Invalid value: "v1alpha1": missing from spec\.versions/,
			)
		})

		test('patches: merge, JSON and apply; no strategic merge', async () => {
			const kind = await install(
				definition(
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
				patch(
					`${at(kind, 'a')}?fieldManager=${manager}${more}`,
					widget(kind, 'a', { spec }),
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
				(await patch(at(kind, 'a'), [{ op: 'add', path: '/spec/a', value: 'b' }], 'application/json-patch+json')).code,
				200,
			)
			const strategic = await patch(at(kind, 'a'), { spec: { a: 'c' } }, 'application/strategic-merge-patch+json')
			assert.deepEqual([strategic.code, strategic.body.reason], [415, 'UnsupportedMediaType'])
		})

		test('definitions that cannot be are refused', async () => {
			const spec = (properties: object, more: object = {}) => ({
				type: 'object',
				properties: { spec: { type: 'object', properties, ...more } },
			})
			const table: readonly (readonly [what: object, wanted: RegExp])[] = [
				[definition({ scope: 'World' }), /spec\.scope: Unsupported value: "World"/],
				[
					{ ...definition(), metadata: { name: 'widget' } },
					/metadata\.name: Invalid value: "widget": must be spec\.names\.plural\+"\."\+spec\.group/,
				],
				[definition({ versions: [] }), /spec\.versions: /],
				[
					definition({}, { storage: false }),
					/spec\.versions: Invalid value: .*must have exactly one version marked as storage version/,
				],
				[definition({}, { schema: undefined }), /schema\.openAPIV3Schema: Required value: schemas are required/],
				[
					definition({}, {}, { type: 'string' }),
					/openAPIV3Schema\.type: Invalid value: "string": must be object at the root/,
				],
				[
					definition({}, {}, spec({ a: {} })),
					/properties\[spec\]\.properties\[a\]\.type: Required value: must not be empty for specified object fields/,
				],
				[
					definition({}, {}, spec({ a: { type: 'array', items: {} } })),
					/properties\[a\]\.items\.type: Required value: must not be empty for specified array items/,
				],
				[
					definition(
						{},
						{},
						spec({ a: { type: 'array', 'x-kubernetes-list-type': 'map', items: { type: 'object' } } }),
					),
					/x-kubernetes-list-map-keys: Required value/,
				],
				[
					definition({}, {}, spec({ a: { type: 'string', pattern: '(?=x)' } })),
					/properties\[a\]\.pattern: Invalid value: "\(\?=x\)": must be a valid regular expression/,
				],
				[
					definition({}, {}, spec({ a: { type: 'integer', default: 'x' } })),
					/properties\[a\]\.default: Invalid value: "string"/,
				],
				[
					definition({}, {}, spec({}, { anyOf: [{ properties: { b: { minimum: 1 } } }] })),
					/properties\[b\]: Required value: because it is defined in .*anyOf\[0\]\.properties\[b\]/,
				],
				[
					definition({}, {}, spec({ a: { type: 'string', anyOf: [{ type: 'string' }] } })),
					/anyOf\[0\]\.type: Forbidden: must be empty to be structural/,
				],
				[
					definition({}, {}, spec({ a: { type: 'string', 'x-kubernetes-validations': [{ rule: 'self.b == 1' }] } })),
					/x-kubernetes-validations\[0\]\.rule: Invalid value: .*compilation failed: ERROR: <input>:1:5: type 'string' does not support field selection/s,
				],
				[
					definition(
						{},
						{},
						spec({ a: { type: 'string' } }, { 'x-kubernetes-validations': [{ rule: 'self.b == 1' }] }),
					),
					/undefined field 'b'/,
				],
				[
					definition({}, {}, spec({ a: { type: 'string' } }, { 'x-kubernetes-validations': [{ rule: 'self.a' }] })),
					/must evaluate to a bool/,
				],
				[
					definition(
						{},
						{},
						spec({
							a: {
								type: 'array',
								items: { type: 'string', 'x-kubernetes-validations': [{ rule: 'self == oldSelf' }] },
							},
						}),
					),
					/oldSelf cannot be used on the uncorrelatable portion of the schema/,
				],
				[
					definition({}, { additionalPrinterColumns: [{ name: 'A', type: 'text', jsonPath: '.a' }] }),
					/additionalPrinterColumns\[0\]\.type: Unsupported value: "text"/,
				],
				[
					definition(
						{},
						{ subresources: { scale: { specReplicasPath: '.status.x', statusReplicasPath: '.status.y' } } },
					),
					/specReplicasPath: Invalid value: "\.status\.x": should be a json path under \.spec/,
				],
			]
			for (const [given, wanted] of table) {
				const { code, body } = await send('POST', definitionsPath, given)
				assert.equal(code, 422, `${wanted}: ${body.message}`)
				assert.match(body.message ?? '', wanted)
			}
		})

		test('names another definition has are not accepted, until they are free', async () => {
			const first = definition({ names: { plural: 'widgets', kind: 'Widget', shortNames: ['wgt'] } })
			await install(first)
			const second = {
				...first,
				metadata: { name: `gadgets.${first.spec.group}` },
				spec: { ...first.spec, names: { plural: 'gadgets', kind: 'Gadget', shortNames: ['wgt'] } },
			}
			assert.equal((await send('POST', definitionsPath, second)).code, 201)
			made.push(second.metadata.name)
			const refused = await until(second.metadata.name, (object) => has(object, 'NamesAccepted', 'False'))
			const condition = refused.status?.conditions?.find((c) => c.type === 'NamesAccepted')
			assert.deepEqual(
				[condition?.status, condition?.reason, condition?.message],
				['False', 'ShortNamesConflict', '"wgt" is already in use'],
			)
			assert.equal((await send('GET', `/apis/${first.spec.group}/v1/gadgets`)).code, 404)
			await send('DELETE', `${definitionsPath}/${first.metadata.name}`)
			await established(second.metadata.name)
			assert.equal((await send('GET', `/apis/${first.spec.group}/v1/gadgets`)).code, 200)
		})

		test('a definition goes after its objects', async () => {
			const given = definition()
			const kind = await install(given)
			await send('POST', at(kind), widget(kind, 'plain', {}))
			await send('POST', at(kind), {
				...widget(kind, 'held', {}),
				metadata: { name: 'held', finalizers: ['podwire.dev/hold'] },
			})
			const watch = await target.transport(new Request(`http://kubernetes${at(kind)}?watch=true&timeoutSeconds=20`))
			const seen = (async () => {
				let text = ''
				for await (const chunk of watch.body!.pipeThrough(new TextDecoderStream())) text += chunk
				return text
			})()
			const path = `${definitionsPath}/${given.metadata.name}`
			const deleted = await send('DELETE', path)
			assert.equal(deleted.code, 200)
			const left = await until(given.metadata.name, (object) => has(object, 'Terminating', 'True'))
			assert.deepEqual(left.metadata.finalizers, ['customresourcecleanup.apiextensions.k8s.io'])
			assert.equal((await send('POST', at(kind), widget(kind, 'late', {}))).code, 405)
			assert.equal((await send('GET', at(kind, 'plain'))).code, 404)
			assert.equal((await send('GET', at(kind, 'held'))).code, 200)
			const gone = until(given.metadata.name, (_, type) => type === 'DELETED')
			assert.equal((await merge(at(kind, 'held'), { metadata: { finalizers: null } })).code, 200)
			await gone
			assert.equal((await send('GET', path)).code, 404)
			assert.equal((await send('GET', at(kind))).code, 404)
			assert.match(await seen, /"type":"DELETED".*"name":"plain"/)
		})

		test('what makes no sense is refused, never a fault', async () => {
			const kind = await install(
				definition(
					{},
					{},
					{
						type: 'object',
						properties: {
							spec: {
								type: 'object',
								properties: { list: { type: 'array', items: { type: 'string' } }, n: { type: 'integer' } },
							},
						},
					},
				),
			)
			const deep = `${'{"a":'.repeat(600)}1${'}'.repeat(600)}`
			const bodies: readonly unknown[] = [
				'',
				'[]',
				'null',
				'{',
				'"text"',
				widget(kind, 'a', { spec: [] }),
				widget(kind, 'a', { spec: 'x' }),
				widget(kind, 'a', { spec: { list: {} } }),
				widget(kind, 'a', { spec: { list: [[['x']]] } }),
				widget(kind, 'a', { spec: { n: 1e300 } }),
				{ ...widget(kind, 'a', {}), metadata: [] },
				{ ...widget(kind, 'a', {}), metadata: { name: 5 } },
				{ ...widget(kind, 'a', {}), metadata: { name: 'a', labels: 'x' } },
				{ ...widget(kind, 'a', {}), kind: 'Gadget' },
				{ ...widget(kind, 'a', {}), apiVersion: 'v1' },
				`{"apiVersion":"${kind.group}/v1","kind":"Widget","metadata":{"name":"a"},"spec":${deep}}`,
			]
			for (const body of bodies) {
				const { code } = await send('POST', at(kind), body)
				assert.ok((code >= 400 && code < 500) || code === 201, `${JSON.stringify(body).slice(0, 80)}: ${code}`)
			}
			const odd = await send(
				'POST',
				at(kind),
				`{"apiVersion":"${kind.group}/v1","kind":"Widget","metadata":{"name":"proto"},"spec":{"__proto__":{"n":1},"constructor":2}}`,
			)
			assert.equal(odd.code, 201)
			assert.deepEqual(Object.keys(odd.body.spec ?? {}), [])
		})
	})
}
