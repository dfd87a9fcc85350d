import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFailure } from '../../base/failure.ts'
import type { JsonObject } from '../../kube/schema/json.ts'
import { typeOf } from '../../kube/schema/schema.ts'
import { jsonPatch } from './json-patch.ts'
import { mergePatch } from './merge-patch.ts'
import { patch } from './patch.ts'
import { strategicMergePatch } from './strategic.ts'

const now = '2026-01-01T00:00:00Z'
const context = { apiVersion: 'v1', fieldManager: 'me', force: false, now }

test('JSON patch does what RFC 6902 says', () => {
	const cases: [document: object, operations: object[], want: object][] = [
		[{ foo: 'bar' }, [{ op: 'add', path: '/baz', value: 'qux' }], { baz: 'qux', foo: 'bar' }],
		[{ foo: ['a', 'c'] }, [{ op: 'add', path: '/foo/1', value: 'b' }], { foo: ['a', 'b', 'c'] }],
		[{ foo: ['a'] }, [{ op: 'add', path: '/foo/-', value: ['b'] }], { foo: ['a', ['b']] }],
		[{ baz: 'q', foo: 'b' }, [{ op: 'remove', path: '/baz' }], { foo: 'b' }],
		[{ foo: ['a', 'b', 'c'] }, [{ op: 'remove', path: '/foo/1' }], { foo: ['a', 'c'] }],
		[{ a: { b: 1 } }, [{ op: 'replace', path: '/a/b', value: { c: null } }], { a: { b: { c: null } } }],
		[{ a: { x: 1 }, b: {} }, [{ op: 'move', from: '/a/x', path: '/b/y' }], { a: {}, b: { y: 1 } }],
		[{ a: ['1', '2', '3'] }, [{ op: 'move', from: '/a/1', path: '/a/2' }], { a: ['1', '3', '2'] }],
		[{ a: { x: [1] } }, [{ op: 'copy', from: '/a/x', path: '/b' }], { a: { x: [1] }, b: [1] }],
		[
			{ 'a/b': 1, 'm~n': 2 },
			[
				{ op: 'test', path: '/a~1b', value: 1 },
				{ op: 'remove', path: '/m~0n' },
			],
			{ 'a/b': 1 },
		],
		[{ a: 1 }, [{ op: 'test', path: '/b', value: null }], { a: 1 }],
		[
			{ a: { b: [1, { c: 2 }] } },
			[{ op: 'test', path: '/a', value: { b: [1, { c: 2 }] } }],
			{ a: { b: [1, { c: 2 }] } },
		],
	]
	for (const [document, operations, want] of cases)
		assert.deepEqual(jsonPatch(document as JsonObject, operations), want, JSON.stringify(operations))
})

test('JSON patch says which operation fails and why', () => {
	const cases: [document: object, operations: unknown, code: string, message: RegExp][] = [
		[{}, {}, 'BadRequest', /not a list/],
		[{}, [7], 'BadRequest', /operation 0 is not an object/],
		[{}, [{ op: 'add', path: '/a' }], 'BadRequest', /no "value"/],
		[{}, [{ op: 'frob', path: '/a' }], 'BadRequest', /is "frob"/],
		[{ a: 1 }, [{ op: 'test', path: '/a', value: 2 }], 'Invalid', /operation 0 \(test \/a\): the value is 1, not 2/],
		[{ a: 1 }, [{ op: 'remove', path: '/b' }], 'Invalid', /nothing to remove/],
		[{ a: 1 }, [{ op: 'replace', path: '/b', value: 1 }], 'Invalid', /nothing to replace/],
		[{ a: [1] }, [{ op: 'add', path: '/a/2', value: 1 }], 'Invalid', /no item 2/],
		[{ a: [1] }, [{ op: 'add', path: '/a/01', value: 1 }], 'Invalid', /no place in a list/],
		[{ a: 1 }, [{ op: 'add', path: '/a/b', value: 1 }], 'Invalid', /nothing that could hold "b"/],
		[{ a: {} }, [{ op: 'move', from: '/a', path: '/a/b' }], 'Invalid', /into itself/],
		[{ a: 1 }, [{ op: 'add', path: 'a', value: 1 }], 'Invalid', /begins with/],
		[{ a: 1 }, [{ op: 'replace', path: '', value: 1 }], 'Invalid', /not an object/],
	]
	for (const [document, operations, code, message] of cases)
		assert.throws(
			() => jsonPatch(document as JsonObject, operations),
			(e) => isFailure(e, code) && message.test(e.message),
			JSON.stringify(operations),
		)
})

test('merge patch does what RFC 7386 says', () => {
	const cases: [document: object, patch: object, want: object][] = [
		[{ a: 'b' }, { a: 'c' }, { a: 'c' }],
		[{ a: 'b' }, { b: 'c' }, { a: 'b', b: 'c' }],
		[{ a: 'b', b: 'c' }, { a: null }, { b: 'c' }],
		[{ a: ['b'] }, { a: 'c' }, { a: 'c' }],
		[{ a: { b: 'c' } }, { a: { b: 'd', c: null } }, { a: { b: 'd' } }],
		[{ a: [{ b: 'c' }] }, { a: [1] }, { a: [1] }],
		[{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
		[{ e: null }, { a: 1 }, { e: null, a: 1 }],
	]
	for (const [document, patched, want] of cases)
		assert.deepEqual(mergePatch(document as JsonObject, patched as JsonObject), want, JSON.stringify(patched))
})

test('a key named __proto__ is data', () => {
	const sent = JSON.parse('{"data":{"__proto__":{"polluted":"yes"}}}') as JsonObject
	const merged = mergePatch({ data: {} }, sent) as { data: object }
	assert.deepEqual(Object.keys(merged.data), ['__proto__'])
	assert.equal(({} as Record<string, unknown>).polluted, undefined)
	const added = jsonPatch({ data: {} }, [{ op: 'add', path: '/data/__proto__', value: { polluted: 1 } }])
	assert.deepEqual(Object.keys(added.data as object), ['__proto__'])
})

const pod = (containers: object[], more: object = {}): JsonObject =>
	({ apiVersion: 'v1', kind: 'Pod', metadata: { name: 'a' }, spec: { containers, ...more } }) as JsonObject

test('strategic merge patch follows the keys of the type', () => {
	const type = typeOf('v1', 'Pod')!
	const cases: [name: string, document: JsonObject, patch: object, want: JsonObject][] = [
		[
			'items merge by name, new ones are added before what the server alone knows',
			pod([{ name: 'a', image: '1' }]),
			{ spec: { containers: [{ name: 'b', image: '2' }] } },
			pod([
				{ name: 'b', image: '2' },
				{ name: 'a', image: '1' },
			]),
		],
		[
			'$setElementOrder keeps the order',
			pod([
				{ name: 'a', image: '1' },
				{ name: 'b', image: '2' },
			]),
			{
				spec: {
					'$setElementOrder/containers': [{ name: 'a' }, { name: 'b' }, { name: 'c' }],
					containers: [
						{ name: 'b', image: '3' },
						{ name: 'c', image: '4' },
					],
				},
			},
			pod([
				{ name: 'a', image: '1' },
				{ name: 'b', image: '3' },
				{ name: 'c', image: '4' },
			]),
		],
		[
			'$setElementOrder alone reorders; what the server alone knows stays before what it preceded',
			pod([{ name: 'a' }, { name: 'x' }, { name: 'b' }]),
			{ spec: { '$setElementOrder/containers': [{ name: 'b' }, { name: 'a' }] } },
			pod([{ name: 'x' }, { name: 'b' }, { name: 'a' }]),
		],
		[
			'$patch: delete removes an item',
			pod([{ name: 'a' }, { name: 'b' }]),
			{ spec: { containers: [{ $patch: 'delete', name: 'a' }] } },
			pod([{ name: 'b' }]),
		],
		[
			'$patch: replace replaces the list',
			pod([{ name: 'a' }, { name: 'b' }]),
			{ spec: { containers: [{ name: 'c' }, { $patch: 'replace' }] } },
			pod([{ name: 'c' }]),
		],
		[
			'$patch: replace in a map',
			pod([{ name: 'a' }], { nodeSelector: { a: '1' } }),
			{ spec: { nodeSelector: { $patch: 'replace', b: '2' } } },
			pod([{ name: 'a' }], { nodeSelector: { b: '2' } }),
		],
		[
			'ports of a container merge by containerPort',
			pod([{ name: 'a', ports: [{ containerPort: 80, protocol: 'TCP' }] }]),
			{ spec: { containers: [{ name: 'a', ports: [{ containerPort: 80, name: 'web' }] }] } },
			pod([{ name: 'a', ports: [{ containerPort: 80, protocol: 'TCP', name: 'web' }] }]),
		],
		[
			'a list without a strategy is replaced',
			pod([{ name: 'a', args: ['1', '2'] }]),
			{ spec: { containers: [{ name: 'a', args: ['3'] }] } },
			pod([{ name: 'a', args: ['3'] }]),
		],
		[
			'$retainKeys clears a union',
			pod([{ name: 'a' }], { volumes: [{ name: 'v', emptyDir: {} }] }),
			{ spec: { volumes: [{ name: 'v', $retainKeys: ['name', 'hostPath'], hostPath: { path: '/' } }] } },
			pod([{ name: 'a' }], { volumes: [{ name: 'v', hostPath: { path: '/' } }] }),
		],
		[
			'$deleteFromPrimitiveList removes values, and values are a set',
			{ apiVersion: 'v1', kind: 'Pod', metadata: { name: 'a', finalizers: ['x', 'y', 'z'] } },
			{ metadata: { '$deleteFromPrimitiveList/finalizers': ['y'], finalizers: ['z', 'w'] } },
			{ apiVersion: 'v1', kind: 'Pod', metadata: { name: 'a', finalizers: ['x', 'z', 'w'] } },
		],
		[
			'null removes',
			pod([{ name: 'a', env: [{ name: 'K', value: 'V' }] }]),
			{ spec: { containers: [{ name: 'a', env: null }] } },
			pod([{ name: 'a' }]),
		],
		[
			'what is new loses its nulls, and maps that hold a directive',
			pod([{ name: 'a' }]),
			{ spec: { affinity: { nodeAffinity: null, podAffinity: {}, podAntiAffinity: { $patch: 'replace' } } } },
			pod([{ name: 'a' }], { affinity: { podAffinity: {} } }),
		],
	]
	for (const [name, document, body, want] of cases)
		assert.deepEqual(strategicMergePatch(document, body as JsonObject, type), want, name)
})

test('a malformed strategic merge patch says where', () => {
	const type = typeOf('v1', 'Pod')!
	const document = pod([{ name: 'a' }])
	const cases: [patch: object, message: RegExp][] = [
		[{ spec: { containers: [{ image: 'x' }] } }, /spec\.containers\[0\]: .*merge key "name"/],
		[{ spec: { $patch: 'frob' } }, /at spec: "\$patch" is "frob"/],
		[{ spec: { containers: [{ name: 'a', $patch: 'merge' }] } }, /containers\[0\]/],
		[{ spec: { $retainKeys: ['x'], containers: [] } }, /spec\.containers: .*does not name it/],
		[{ spec: { '$setElementOrder/containers': [{ name: 'b' }], containers: [{ name: 'a' }] } }, /order/],
	]
	for (const [body, message] of cases)
		assert.throws(
			() => strategicMergePatch(document, body as JsonObject, type),
			(e) => isFailure(e, 'BadRequest') && message.test(e.message),
			JSON.stringify(body),
		)
})

test('patch refuses what it cannot read', () => {
	const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
	const current = pod([{ name: 'a' }])
	const cases: [type: string, body: string, code: string][] = [
		['application/json', '{}', 'UnsupportedMediaType'],
		['application/merge-patch+json', '{', 'BadRequest'],
		['application/merge-patch+json', '[]', 'BadRequest'],
		['application/json-patch+json', '{}', 'BadRequest'],
		['application/strategic-merge-patch+json; charset=utf-8', '"x"', 'BadRequest'],
		['application/apply-patch+yaml', 'a: [', 'BadRequest'],
		['application/apply-patch+yaml', '7', 'BadRequest'],
	]
	for (const [type, body, code] of cases)
		assert.throws(
			() => patch(type, bytes(body), current, context),
			(e) => isFailure(e, code),
			`${type} ${body}`,
		)
	assert.throws(
		() => patch('application/strategic-merge-patch+json', bytes('{}'), current, { ...context, custom: true }),
		(e) => isFailure(e, 'UnsupportedMediaType'),
	)
	assert.throws(
		() => patch('application/merge-patch+json', bytes('{}'), undefined, context),
		(e) => isFailure(e, 'NotFound'),
	)
})

test('no JSON makes a patch crash', () => {
	const schema = typeOf('v1', 'Pod')!
	const current = pod([{ name: 'a', ports: [{ containerPort: 1 }] }], { tolerations: [{ key: 'x' }] })
	const keys = fc.constantFrom(
		...'metadata spec containers name ports containerPort $patch $retainKeys labels finalizers f:x'.split(' '),
		'$setElementOrder/containers',
		'$deleteFromPrimitiveList/finalizers',
	)
	const { any } = fc.letrec((tie) => ({
		any: fc.oneof(
			{ depthSize: 'small' },
			fc.constantFrom(null, true, 1, 'a', 'delete', 'replace'),
			fc.array(tie('any'), { maxLength: 3 }),
			fc.dictionary(keys, tie('any'), { maxKeys: 4 }),
		),
	}))
	fc.assert(
		fc.property(
			any,
			fc.constantFrom('strategic-merge-patch+json', 'merge-patch+json', 'apply-patch+yaml'),
			(body, type) => {
				const whole = type.startsWith('apply') ? { apiVersion: 'v1', kind: 'Pod', ...(body as object) } : body
				try {
					patch(`application/${type}`, new TextEncoder().encode(JSON.stringify(whole)), current, { ...context, schema })
				} catch (e) {
					if (!isFailure(e)) throw e
				}
			},
		),
		{ numRuns: 2000 },
	)
})
