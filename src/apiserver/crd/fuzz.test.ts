// Definitions and objects with something odd in any place: answered with 2xx or 4xx, never with a fault of ours.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { systemClock } from '../../base/clock.ts'
import type { Json, JsonObject } from '../../kube/schema/json.ts'
import { createApiServer } from '../server.ts'
import { createStore } from '../store.ts'
import { compile } from './cel/compile.ts'
import { kubernetesFunctions } from './cel/kubernetes.ts'
import { CelCompileError } from './cel/syntax.ts'
import { types } from './cel/types.ts'
import { CelBudgetError, CelError, List } from './cel/values.ts'

const definition: JsonObject = {
	apiVersion: 'apiextensions.k8s.io/v1',
	kind: 'CustomResourceDefinition',
	metadata: { name: 'things.fuzz.example' },
	spec: {
		group: 'fuzz.example',
		scope: 'Namespaced',
		names: { plural: 'things', kind: 'Thing', shortNames: ['th'], categories: ['all'] },
		versions: [
			{
				name: 'v1',
				served: true,
				storage: true,
				subresources: { status: {}, scale: { specReplicasPath: '.spec.n', statusReplicasPath: '.status.n' } },
				additionalPrinterColumns: [{ name: 'N', type: 'integer', jsonPath: '.spec.n' }],
				selectableFields: [{ jsonPath: '.spec.text' }],
				schema: {
					openAPIV3Schema: {
						type: 'object',
						properties: {
							spec: {
								type: 'object',
								'x-kubernetes-validations': [
									{
										rule: '!has(self.n) || self.n < 5',
										messageExpression: "'n is ' + string(self.n)",
										fieldPath: '.n',
									},
								],
								properties: {
									n: { type: 'integer', minimum: 0, default: 1 },
									text: { type: 'string', pattern: '^a+$', maxLength: 9 },
									any: { 'x-kubernetes-preserve-unknown-fields': true },
									port: { 'x-kubernetes-int-or-string': true },
									list: {
										type: 'array',
										'x-kubernetes-list-type': 'map',
										'x-kubernetes-list-map-keys': ['k'],
										items: {
											type: 'object',
											required: ['k'],
											properties: { k: { type: 'string' }, v: { type: 'number', nullable: true } },
											oneOf: [{ required: ['v'] }, { not: { required: ['v'] } }],
										},
									},
									map: { type: 'object', additionalProperties: { type: 'string', format: 'date-time' } },
								},
							},
						},
					},
				},
			},
		],
	},
}
const object: JsonObject = {
	apiVersion: 'fuzz.example/v1',
	kind: 'Thing',
	metadata: { name: 'a', labels: { a: 'b' } },
	spec: { n: 2, text: 'aa', any: { a: [1] }, port: 80, list: [{ k: 'x', v: 1 }], map: { t: '2026-01-01T00:00:00Z' } },
}

const odd = fc.oneof(
	fc.constantFrom<Json>(
		null,
		true,
		0,
		-1,
		1e300,
		1.5,
		'',
		'x',
		[],
		{},
		[null],
		[[]],
		{ a: null },
		'{{',
		'.a[',
		'__proto__',
	),
	fc.jsonValue({ maxDepth: 2 }) as fc.Arbitrary<Json>,
)

/** Every place of a document. */
function placesOf(value: Json, path: readonly (string | number)[] = []): (readonly (string | number)[])[] {
	if (typeof value !== 'object' || value === null) return [path]
	const entries: readonly (readonly [string | number, Json])[] = Array.isArray(value)
		? (value as readonly Json[]).map((item, i) => [i, item] as const)
		: Object.entries(value as JsonObject).map(([key, item]) => [key, item ?? null] as const)
	return [path, ...entries.flatMap(([key, item]) => placesOf(item, [...path, key]))]
}

function withValue(value: Json, [first, ...rest]: readonly (string | number)[], next: Json): Json {
	if (first === undefined) return next
	if (Array.isArray(value))
		return (value as readonly Json[]).map((item, i) => (i === first ? withValue(item, rest, next) : item))
	const of = value as JsonObject
	return { ...of, [first]: withValue(of[first] ?? null, rest, next) }
}

function spoiled(document: JsonObject): fc.Arbitrary<Json> {
	const places = placesOf(document).slice(1)
	return fc.array(fc.tuple(fc.constantFrom(...places), odd), { minLength: 1, maxLength: 2 }).map((changes) =>
		changes.reduce<Json>((value, [path, next]) => {
			try {
				return withValue(value, path, next)
			} catch {
				// An earlier change took the place away.
				return value
			}
		}, document),
	)
}

test('odd definitions and objects', async () => {
	const faults: unknown[] = []
	const server = await createApiServer({ store: createStore(), clock: systemClock, onFault: (e) => faults.push(e) })
	const send = async (method: string, path: string, body: Json, type = 'application/json') => {
		const response = await server.transport(
			new Request(`http://kubernetes${path}`, {
				method,
				headers: { 'content-type': type },
				body: JSON.stringify(body),
			}),
		)
		await response.text()
		return response.status
	}
	const definitions = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions'
	const things = '/apis/fuzz.example/v1/namespaces/default/things'
	const fine = (status: number, what: Json) =>
		assert.ok(status < 500, `${status}: ${JSON.stringify(what)} ${faults.at(-1)}`)
	await fc.assert(
		fc.asyncProperty(spoiled(definition), spoiled(object), async (one, two) => {
			const status = await send('POST', definitions, one)
			fine(status, one)
			if (status === 201) {
				fine(await send('POST', things, object), one)
				fine(await send('POST', things, two), two)
				fine(await send('PATCH', `${things}/a`, two, 'application/merge-patch+json'), two)
				fine(await send('PATCH', `${things}/a?fieldManager=f&force=true`, two, 'application/apply-patch+yaml'), two)
				const table = await server.transport(
					new Request(`http://kubernetes${things}`, {
						headers: { accept: 'application/json;as=Table;v=v1;g=meta.k8s.io' },
					}),
				)
				fine(table.status, one)
				const { metadata } = one as { metadata: { name: string } }
				fine(await send('DELETE', `${definitions}/${encodeURIComponent(metadata.name)}`, {}), one)
				await server.api.store.settled()
			}
			assert.deepEqual(faults, [])
		}),
		{ numRuns: 150 },
	)
	assert.equal(await send('POST', definitions, definition), 201)
	await fc.assert(
		fc.asyncProperty(spoiled(object), async (one) => {
			fine(await send('POST', things, one), one)
			fine(await send('PUT', `${things}/a`, one), one)
			fine(await send('PATCH', `${things}/a?fieldManager=f&force=true`, one, 'application/apply-patch+yaml'), one)
			fine(await send('PATCH', `${things}/a/status`, one, 'application/merge-patch+json'), one)
			assert.deepEqual(faults, [])
		}),
		{ numRuns: 300 },
	)
	server.close()
})

test('odd expressions', () => {
	const pieces = fc.constantFrom(
		...'self oldSelf x [ ] ( ) { } . , : ? ! - + * / % == != < > && || in has( .all(x, .map(x, .size() .?a [?0] 1 2u 1.5 "a" r"\\d" b"x" null true optional.of( duration("1s") matches( cel.bind(x, `a-b` // \n'.split(
			' ',
		),
	)
	fc.assert(
		fc.property(fc.array(pieces, { maxLength: 12 }), (words) => {
			const source = words.join(' ')
			try {
				const program = compile(source, new Map([['self', types.dyn]]), kubernetesFunctions())
				program.evaluate({ self: new List([1n, 'a', null]) }, { left: 10_000 })
			} catch (e) {
				if (!(e instanceof CelCompileError || e instanceof CelError || e instanceof CelBudgetError)) throw e
			}
		}),
		{ numRuns: 3000 },
	)
})
