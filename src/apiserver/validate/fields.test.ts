import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Failure, isFailure } from '../../base/failure.ts'
import type { JsonObject } from '../../kube/schema/json.ts'
import { typeOf } from '../../kube/schema/schema.ts'
import { checkFields, duplicateFields, readObject } from './fields.ts'

const type = typeOf('apps/v1', 'Deployment')!
const deployment = (spec: object): JsonObject =>
	({ apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'a' }, spec }) as JsonObject

test('unknown fields are named with their paths', () => {
	const object = deployment({
		replica: 1,
		template: { spec: { containers: [{ name: 'a' }, { name: 'b', prots: [] }] } },
	})
	assert.deepEqual(checkFields(object, type).unknown, ['spec.replica', 'spec.template.spec.containers[1].prots'])
	assert.throws(
		() => readObject(object, type, 'Strict'),
		(e) =>
			isFailure(e, 'BadRequest') &&
			e.message ===
				'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: unknown field "spec.replica", unknown field "spec.template.spec.containers[1].prots"',
	)
	const warned = readObject(object, type, 'Warn')
	assert.deepEqual(warned.warnings, [
		'unknown field "spec.replica"',
		'unknown field "spec.template.spec.containers[1].prots"',
	])
	assert.equal((warned.object.spec as JsonObject).replica, undefined)
	assert.deepEqual(readObject(object, type, 'Ignore').warnings, [])
})

test('values of a wrong type are refused at every level, with path, found and wanted', () => {
	const cases: [spec: object, message: string][] = [
		[{ replicas: '3' }, 'spec.replicas: expected an integer, got the string "3"'],
		[{ replicas: 1.5 }, 'spec.replicas: expected an integer, got 1.5'],
		[{ replicas: 3e9 }, 'spec.replicas: expected an integer that fits int32, got 3000000000'],
		[{ paused: 'yes' }, 'spec.paused: expected true or false, got the string "yes"'],
		[{ selector: [] }, 'spec.selector: expected an object, got a list'],
		[{ template: { spec: { containers: {} } } }, 'spec.template.spec.containers: expected a list, got an object'],
		[
			{ template: { spec: { containers: [{ resources: { limits: { cpu: 'much' } } }] } } },
			'spec.template.spec.containers[0].resources.limits.cpu: expected a quantity such as 100m, 2 or 1Gi, got the string "much"',
		],
		[{ selector: { matchLabels: { a: 1 } } }, 'spec.selector.matchLabels.a: expected a string, got 1'],
		[
			{ strategy: { rollingUpdate: { maxSurge: true } } },
			'spec.strategy.rollingUpdate.maxSurge: expected a string or an integer that fits int32, got true',
		],
	]
	for (const [spec, message] of cases)
		assert.throws(
			() => readObject(deployment(spec), type, 'Ignore'),
			(e) =>
				e instanceof Failure &&
				e.message === `Deployment in version "v1" cannot be handled as a Deployment: ${message}`,
			message,
		)
	assert.throws(
		() => readObject({ ...deployment({}), metadata: { creationTimestamp: 'today' } }, type, 'Ignore'),
		/metadata\.creationTimestamp: expected a time/,
	)
})

test('duplicate fields are found in the text', () => {
	const cases: [text: string, want: string[]][] = [
		['{"a":1,"b":{"a":2}}', []],
		['{"a":1,"a":2}', ['a']],
		['{"spec":{"x":[{"n":1},{"n":1,"n":2}],"x":[]}}', ['spec.x[1].n', 'spec.x']],
		['{"a":"{\\"a\\":1,\\"a\\":2}","\\u0061":3}', ['a']],
		['{"a":["a","a",{"b":1}],"c":{"a":1}}', []],
	]
	for (const [text, want] of cases) assert.deepEqual(duplicateFields(text), want, text)
	const text = '{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":1,"replicas":2}}'
	assert.deepEqual(readObject(JSON.parse(text) as JsonObject, type, 'Warn', text).warnings, [
		'duplicate field "spec.replicas"',
	])
})

test('a bomb of nesting is refused', () => {
	let deep: unknown = {}
	for (let i = 0; i < 100_000; i++) deep = { a: deep }
	const map = typeOf('apps/v1', 'ControllerRevision')!
	assert.throws(
		() => readObject({ apiVersion: 'apps/v1', kind: 'ControllerRevision', data: deep } as JsonObject, map, 'Ignore'),
		(e) => isFailure(e, 'BadRequest') && /nested deeper/.test(e.message),
	)
	const text = '['.repeat(1_000_000) + ']'.repeat(1_000_000)
	assert.deepEqual(duplicateFields(text), [])
})

test('what is read is canonical: one spelling, nothing empty', () => {
	const { object } = readObject(
		deployment({
			selector: { matchLabels: {} },
			template: {
				metadata: { labels: null, creationTimestamp: null },
				spec: {
					containers: [{ name: 'a', resources: { limits: { cpu: 0.5, memory: '2048Mi' } }, env: [], stdin: false }],
					volumes: null,
				},
			},
		}),
		type,
		'Strict',
	)
	assert.deepEqual(object, {
		kind: 'Deployment',
		apiVersion: 'apps/v1',
		metadata: { name: 'a' },
		spec: {
			selector: {},
			template: {
				metadata: {},
				spec: { containers: [{ name: 'a', resources: { limits: { cpu: '500m', memory: '2Gi' } } }] },
			},
			strategy: {},
		},
		status: {},
	})
})
