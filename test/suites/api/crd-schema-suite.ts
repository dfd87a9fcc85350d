// What any Kubernetes API server must make of the schemas of CustomResourceDefinitions: pruning, defaults, values, rules.
// Written against a Transport alone, as suite.ts.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { createWorld, definitionsPath, type World } from './crd-world.ts'
import type { SuiteTarget } from './suite.ts'

/** Declares the tests. `open` is called once, before the first. */
export function crdSchemaSuite(name: string, open: () => Promise<SuiteTarget>): void {
	describe(`CRD schemas: ${name}`, () => {
		let world: World
		before(async () => {
			world = createWorld(await open())
		})
		after(() => world?.close())

		test('what the schema says no more of goes, what it has defaults for comes', async () => {
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
			const strict = await world.send(
				'POST',
				`${world.at(kind)}?fieldValidation=Strict`,
				world.widget(kind, 'a', { spec }),
			)
			assert.equal(strict.code, 400)
			assert.match(
				strict.body.message ?? '',
				/strict decoding error: unknown field "spec\.odd", unknown field "spec\.parts\[0\]\.odd"/,
			)
			const warned = await world.send(
				'POST',
				`${world.at(kind)}?fieldValidation=Warn`,
				world.widget(kind, 'a', { spec }),
			)
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
			const ignored = await world.send(
				'POST',
				`${world.at(kind)}?fieldValidation=Ignore`,
				world.widget(kind, 'b', { spec: { odd: 1 } }),
			)
			assert.deepEqual([ignored.code, ignored.warning], [201, null])
		})

		test('values the schema does not allow are refused, each with its field', async () => {
			const kind = await world.install(
				world.definition(
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
				const { code, body } = await world.send('POST', world.at(kind), world.widget(kind, 'bad', { spec: given }))
				assert.equal(code, 422, `${JSON.stringify(spec)}: ${body.message}`)
				assert.ok(
					world.causes(body).some((cause) => wanted.test(cause)),
					`${wanted} in ${world.causes(body).join('\n')}`,
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
			const { code, body } = await world.send('POST', world.at(kind), world.widget(kind, 'good', { spec: good }))
			assert.equal(code, 201, body.message)
		})

		test('rules: messages, paths, reasons, transitions', async () => {
			const kind = await world.install(
				world.definition(
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
			const create = (objectName: string, spec: object) =>
				world.send('POST', world.at(kind), world.widget(kind, objectName, { spec }))
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
				assert.deepEqual(world.causes(body), [wanted.replace(/^<nil>/, world.causes(body)[0]!.split(':')[0]!)])
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
			const change = (next: object) => world.merge(world.at(kind, 'a'), { spec: next })
			assert.deepEqual(world.causes((await change({ fixed: 'y' })).body), [
				'spec: Invalid value: "object": fixed stays',
			])
			assert.equal((await change({ tags: ['b', 'a'] })).code, 200)
			assert.deepEqual(world.causes((await change({ tags: ['b'] })).body), [
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
				world.causes(
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
			const given = world.definition(
				{},
				{},
				{
					type: 'object',
					properties: { spec: { type: 'object', properties: { a: { type: 'string' }, b: { type: 'string' } } } },
				},
			)
			const kind = await world.install(given)
			assert.equal(
				(await world.send('POST', world.at(kind), world.widget(kind, 'old', { spec: { a: 'x', b: 'y' } }))).code,
				201,
			)
			const path = `${definitionsPath}/${given.metadata.name}`
			const stricter = {
				type: 'object',
				properties: {
					spec: {
						type: 'object',
						properties: {
							a: {
								type: 'string',
								maxLength: 0,
								'x-kubernetes-validations': [{ rule: "self == 'never'", message: 'never so' }],
							},
							b: { type: 'string', default: 'z' },
							c: { type: 'string', default: 'new' },
						},
					},
				},
			}
			const changed = await world.patch(
				path,
				[{ op: 'replace', path: '/spec/versions/0/schema/openAPIV3Schema', value: stricter }],
				'application/json-patch+json',
			)
			assert.equal(changed.code, 200, changed.body.message)
			assert.equal((await world.merge(world.at(kind, 'old'), { spec: { b: 'w' } })).code, 200)
			assert.ok(
				world
					.causes((await world.merge(world.at(kind, 'old'), { spec: { a: 'xx' } })).body)
					.includes('spec.a: Too long: may not be more than 0 bytes'),
			)
			assert.deepEqual((await world.send('GET', world.at(kind, 'old'))).body.spec, { a: 'x', b: 'w', c: 'new' })
		})

		test('a rule that takes too long is stopped', async () => {
			const kind = await world.install(
				world.definition(
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
			const few = await world.send('POST', world.at(kind), world.widget(kind, 'few', { list: [1, 2, 3] }))
			assert.equal(few.code, 201, few.body.message)
			if (world.target.controllers) return
			const many = await world.send(
				'POST',
				world.at(kind),
				world.widget(kind, 'many', { list: Array.from({ length: 300 }, (_, i) => i) }),
			)
			assert.ok(many.code === 201 || many.code === 422)
		})

		test('definitions that cannot be are refused', async () => {
			const spec = (properties: object, more: object = {}) => ({
				type: 'object',
				properties: { spec: { type: 'object', properties, ...more } },
			})
			const table: readonly (readonly [what: object, wanted: RegExp])[] = [
				[world.definition({ scope: 'World' }), /spec\.scope: Unsupported value: "World"/],
				[
					{ ...world.definition(), metadata: { name: 'widget' } },
					/metadata\.name: Invalid value: "widget": must be spec\.names\.plural\+"\."\+spec\.group/,
				],
				[world.definition({ versions: [] }), /spec\.versions: /],
				[
					world.definition({}, { storage: false }),
					/spec\.versions: Invalid value: .*must have exactly one version marked as storage version/,
				],
				[world.definition({}, { schema: undefined }), /schema\.openAPIV3Schema: Required value: schemas are required/],
				[
					world.definition({}, {}, { type: 'string' }),
					/openAPIV3Schema\.type: Invalid value: "string": must be object at the root/,
				],
				[
					world.definition({}, {}, spec({ a: {} })),
					/properties\[spec\]\.properties\[a\]\.type: Required value: must not be empty for specified object fields/,
				],
				[
					world.definition({}, {}, spec({ a: { type: 'array', items: {} } })),
					/properties\[a\]\.items\.type: Required value: must not be empty for specified array items/,
				],
				[
					world.definition(
						{},
						{},
						spec({ a: { type: 'array', 'x-kubernetes-list-type': 'map', items: { type: 'object' } } }),
					),
					/x-kubernetes-list-map-keys: Required value/,
				],
				[
					world.definition({}, {}, spec({ a: { type: 'string', pattern: '(?=x)' } })),
					/properties\[a\]\.pattern: Invalid value: "\(\?=x\)": must be a valid regular expression/,
				],
				[
					world.definition({}, {}, spec({ a: { type: 'integer', default: 'x' } })),
					/properties\[a\]\.default: Invalid value: "string"/,
				],
				[
					world.definition({}, {}, spec({}, { anyOf: [{ properties: { b: { minimum: 1 } } }] })),
					/properties\[b\]: Required value: because it is defined in .*anyOf\[0\]\.properties\[b\]/,
				],
				[
					world.definition({}, {}, spec({ a: { type: 'string', anyOf: [{ type: 'string' }] } })),
					/anyOf\[0\]\.type: Forbidden: must be empty to be structural/,
				],
				[
					world.definition(
						{},
						{},
						spec({ a: { type: 'string', 'x-kubernetes-validations': [{ rule: 'self.b == 1' }] } }),
					),
					/x-kubernetes-validations\[0\]\.rule: Invalid value: .*compilation failed: ERROR: <input>:1:5: type 'string' does not support field selection/s,
				],
				[
					world.definition(
						{},
						{},
						spec({ a: { type: 'string' } }, { 'x-kubernetes-validations': [{ rule: 'self.b == 1' }] }),
					),
					/undefined field 'b'/,
				],
				[
					world.definition(
						{},
						{},
						spec({ a: { type: 'string' } }, { 'x-kubernetes-validations': [{ rule: 'self.a' }] }),
					),
					/must evaluate to a bool/,
				],
				[
					world.definition(
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
					world.definition({}, { additionalPrinterColumns: [{ name: 'A', type: 'text', jsonPath: '.a' }] }),
					/additionalPrinterColumns\[0\]\.type: Unsupported value: "text"/,
				],
				[
					world.definition(
						{},
						{ subresources: { scale: { specReplicasPath: '.status.x', statusReplicasPath: '.status.y' } } },
					),
					/specReplicasPath: Invalid value: "\.status\.x": should be a json path under \.spec/,
				],
			]
			for (const [given, wanted] of table) {
				const { code, body } = await world.send('POST', definitionsPath, given)
				assert.equal(code, 422, `${wanted}: ${body.message}`)
				assert.match(body.message ?? '', wanted)
			}
		})

		test('what makes no sense is refused, never a fault', async () => {
			const kind = await world.install(
				world.definition(
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
				world.widget(kind, 'a', { spec: [] }),
				world.widget(kind, 'a', { spec: 'x' }),
				world.widget(kind, 'a', { spec: { list: {} } }),
				world.widget(kind, 'a', { spec: { list: [[['x']]] } }),
				world.widget(kind, 'a', { spec: { n: 1e300 } }),
				{ ...world.widget(kind, 'a', {}), metadata: [] },
				{ ...world.widget(kind, 'a', {}), metadata: { name: 5 } },
				{ ...world.widget(kind, 'a', {}), metadata: { name: 'a', labels: 'x' } },
				{ ...world.widget(kind, 'a', {}), kind: 'Gadget' },
				{ ...world.widget(kind, 'a', {}), apiVersion: 'v1' },
				`{"apiVersion":"${kind.group}/v1","kind":"Widget","metadata":{"name":"a"},"spec":${deep}}`,
			]
			for (const body of bodies) {
				const { code } = await world.send('POST', world.at(kind), body)
				assert.ok((code >= 400 && code < 500) || code === 201, `${JSON.stringify(body).slice(0, 80)}: ${code}`)
			}
			const odd = await world.send(
				'POST',
				world.at(kind),
				`{"apiVersion":"${kind.group}/v1","kind":"Widget","metadata":{"name":"proto"},"spec":{"__proto__":{"n":1},"constructor":2}}`,
			)
			assert.equal(odd.code, 201)
			assert.deepEqual(Object.keys(odd.body.spec ?? {}), [])
		})
	})
}
