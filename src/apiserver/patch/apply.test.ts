import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Failure, isFailure } from '../../base/failure.ts'
import type { JsonObject } from '../../kube/schema/json.ts'
import { type TypeSchema, typeOf } from '../../kube/schema/schema.ts'
import { type ApplyOptions, applyConfig } from './apply.ts'
import { updateManagedFields } from './managed-fields.ts'

const schema = typeOf('apps/v1', 'Deployment')!
const t0 = '2026-01-01T00:00:00Z'
const t1 = '2026-01-01T00:01:00Z'

function options(manager: string, more: Partial<ApplyOptions> = {}): ApplyOptions {
	return { manager, apiVersion: 'apps/v1', schema, now: t0, force: false, ...more }
}

function deployment(spec: object, metadata: object = {}): JsonObject {
	return {
		apiVersion: 'apps/v1',
		kind: 'Deployment',
		metadata: { name: 'web', namespace: 'x', ...metadata },
		spec,
	} as JsonObject
}

const template = (...containers: object[]): object => ({
	metadata: { labels: { app: 'web' } },
	spec: { containers },
})

type Entry = { manager: string; operation: string; time: string; fieldsV1: JsonObject; subresource?: string }
function entries(object: JsonObject): Entry[] {
	return (object.metadata as unknown as { managedFields?: Entry[] }).managedFields ?? []
}
function spec(object: JsonObject): Record<string, unknown> {
	return object.spec as Record<string, unknown>
}
function stored(object: JsonObject): JsonObject {
	return { ...object, metadata: { ...(object.metadata as object), uid: 'u', resourceVersion: '1' } } as JsonObject
}

test('apply creates, and owns the leaves it names', () => {
	const config = deployment({
		replicas: 3,
		selector: { matchLabels: { app: 'web' } },
		template: template({ name: 'nginx', image: 'nginx:1', ports: [{ containerPort: 80 }] }),
	})
	const made = applyConfig(undefined, config, options('kubectl'))
	assert.deepEqual(entries(made), [
		{
			manager: 'kubectl',
			operation: 'Apply',
			apiVersion: 'apps/v1',
			time: t0,
			fieldsType: 'FieldsV1',
			fieldsV1: {
				'f:spec': {
					'f:replicas': {},
					'f:selector': {},
					'f:template': {
						'f:metadata': { 'f:labels': { 'f:app': {} } },
						'f:spec': {
							'f:containers': {
								'k:{"name":"nginx"}': {
									'.': {},
									'f:image': {},
									'f:name': {},
									'f:ports': { 'k:{"containerPort":80,"protocol":"TCP"}': { '.': {}, 'f:containerPort': {} } },
								},
							},
						},
					},
				},
			},
		},
	])
})

test('applying the same again changes nothing', () => {
	const config = deployment({ replicas: 3, template: template({ name: 'a', image: '1' }) })
	const made = stored(applyConfig(undefined, config, options('m')))
	assert.equal(applyConfig(made, config, options('m', { now: t1 })), made)
})

test('another manager changing a value is a conflict, with the words of the real server', () => {
	const created = stored(
		updateManagedFields({
			after: deployment({ replicas: 3, template: template({ name: 'a', image: '1' }) }),
			...options('kubectl-client-side-apply'),
		}),
	)
	const config = deployment({ replicas: 5 })
	assert.throws(
		() => applyConfig(created, config, options('other')),
		(e) => {
			assert.ok(e instanceof Failure)
			assert.equal(e.code, 'Conflict')
			assert.equal(
				e.message,
				'Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using apps/v1: .spec.replicas',
			)
			assert.deepEqual(e.details.causes, [
				{
					reason: 'FieldManagerConflict',
					message: 'conflict with "kubectl-client-side-apply" using apps/v1',
					field: '.spec.replicas',
				},
			])
			return true
		},
	)
	const forced = applyConfig(created, config, options('other', { force: true, now: t1 }))
	assert.equal(spec(forced).replicas, 5)
	assert.deepEqual(
		entries(forced).map((e) => [e.manager, e.operation, e.time]),
		[
			['other', 'Apply', t1],
			['kubectl-client-side-apply', 'Update', t0],
		],
	)
	assert.equal((entries(forced)[1]!.fieldsV1['f:spec'] as JsonObject)['f:replicas'], undefined)
})

test('several conflicts are listed by manager', () => {
	const base = stored(applyConfig(undefined, deployment({ replicas: 1, paused: true }), options('a')))
	assert.throws(
		() => applyConfig(base, deployment({ replicas: 2, paused: false }), options('b')),
		(e) =>
			isFailure(e, 'Conflict') &&
			e.message === 'Apply failed with 2 conflicts: conflicts with "a":\n- .spec.paused\n- .spec.replicas',
	)
})

test('the same value is shared, and stays until the last owner lets it go', () => {
	const config = deployment({ replicas: 3, minReadySeconds: 4 })
	const one = stored(applyConfig(undefined, config, options('a')))
	const two = stored(applyConfig(one, config, options('b')))
	assert.deepEqual(
		entries(two).map((e) => e.manager),
		['a', 'b'],
	)
	const less = deployment({ replicas: 3 })
	const three = stored(applyConfig(two, less, options('a')))
	assert.equal(spec(three).minReadySeconds, 4)
	const four = applyConfig(three, less, options('b'))
	assert.equal(spec(four).minReadySeconds, undefined)
	assert.equal(spec(four).replicas, 3)
})

test('items of lists and keys of maps that are no longer applied go, those of others stay', () => {
	const first = deployment(
		{ template: template({ name: 'a', image: '1' }, { name: 'b', image: '1' }) },
		{ labels: { mine: '1', gone: '1' } },
	)
	let object = stored(applyConfig(undefined, first, options('a')))
	const sidecar = deployment({ template: { spec: { containers: [{ name: 'sidecar', image: 's' }] } } })
	object = stored(applyConfig(object, sidecar, options('injector')))
	const second = deployment({ template: template({ name: 'b', image: '2' }) }, { labels: { mine: '2' } })
	object = applyConfig(object, second, options('a'))
	const { containers } = (spec(object).template as { spec: { containers: unknown } }).spec
	assert.deepEqual(
		(containers as { name: string; image: string }[]).map((c) => `${c.name}:${c.image}`),
		['b:2', 'sidecar:s'],
	)
	assert.deepEqual((object.metadata as unknown as { labels: unknown }).labels, { mine: '2' })
})

test('what nobody ever owned is not removed with a parent that was applied', () => {
	const first = stored(
		applyConfig(undefined, deployment({ template: template({ name: 'a', image: '1' }) }), options('a')),
	)
	// A default: in the object, in no managedFields.
	const withDefault = structuredClone(first) as unknown as { spec: { template: { spec: { dnsPolicy?: string } } } }
	withDefault.spec.template.spec.dnsPolicy = 'ClusterFirst'
	const second = applyConfig(
		withDefault as unknown as JsonObject,
		deployment({ template: template({ name: 'b', image: '1' }) }),
		options('a'),
	)
	assert.equal((spec(second).template as { spec: { dnsPolicy: string } }).spec.dnsPolicy, 'ClusterFirst')
})

test('an object nobody is known to manage: what it has belongs to before-first-apply', () => {
	const current = stored(deployment({ replicas: 1, paused: true }))
	assert.throws(
		() => applyConfig(current, deployment({ replicas: 2 }), options('a')),
		/conflict with "before-first-apply" using apps\/v1: \.spec\.replicas/,
	)
	const forced = applyConfig(current, deployment({ replicas: 2 }), options('a', { force: true }))
	assert.deepEqual(
		entries(forced).map((e) => e.manager),
		['a', 'before-first-apply'],
	)
})

test('kubectl takes over from its own client-side apply', () => {
	const lastApplied = deployment({ replicas: 1, template: template({ name: 'a', image: '1' }) })
	const annotation = 'kubectl.kubernetes.io/last-applied-configuration'
	const before = stored(
		updateManagedFields({
			after: deployment(
				{ replicas: 1, template: template({ name: 'a', image: '1' }) },
				{ annotations: { [annotation]: JSON.stringify(lastApplied) } },
			),
			...options('kubectl-client-side-apply'),
		}),
	)
	const config = deployment({ replicas: 2, template: template({ name: 'a', image: '2' }) })
	const after = applyConfig(before, config, options('kubectl'))
	assert.equal(spec(after).replicas, 2)
	const text = (after.metadata as unknown as { annotations: Record<string, string> }).annotations[annotation]!
	assert.deepEqual(JSON.parse(text), config)
	assert.throws(() => applyConfig(before, config, options('argo')), /Apply failed with 2 conflicts/)
})

test('a body that does not fit is refused', () => {
	const current = stored(deployment({ replicas: 1 }))
	const cases: [config: JsonObject, message: RegExp][] = [
		[{ ...deployment({}), apiVersion: 'v1' }, /the request is for a "Deployment" of "apps\/v1"/],
		[{ ...deployment({}), kind: 'Pod' }, /cannot apply/],
		[deployment({}, { managedFields: [] }), /managedFields must be nil/],
		[
			deployment({ replica: 1 }),
			/failed to create typed patch object \(x\/web; apps\/v1, Kind=Deployment\): \.spec\.replica: field not declared in schema/,
		],
		[deployment({ replicas: 'many' }), /\.spec\.replicas: expected an integer, got the string "many"/],
		[
			deployment({ template: template({ name: 'a' }, { name: 'a' }) }),
			/\.spec\.template\.spec\.containers: duplicate entries for key \[name="a"\]/,
		],
	]
	for (const [config, message] of cases)
		assert.throws(
			() => applyConfig(current, config, options('a')),
			(e) => isFailure(e, 'BadRequest') && message.test(e.message),
			String(message),
		)
	assert.throws(
		() => applyConfig(current, deployment({}), options('')),
		(e) => isFailure(e, 'Invalid') && /fieldManager: Required value/.test(e.message),
	)
})

test('an update owns what it changed, parents that are new included', () => {
	const after = deployment({ replicas: 1 }, { labels: { a: '1' } })
	const made = updateManagedFields({ after, ...options('kubectl-create') })
	assert.deepEqual(entries(made)[0]!.fieldsV1, {
		'f:metadata': { 'f:labels': { '.': {}, 'f:a': {} } },
		'f:spec': { 'f:replicas': {} },
	})
	assert.equal(entries(made)[0]!.operation, 'Update')
})

test('an update takes fields from others, and keeps its own from before', () => {
	const made = stored(updateManagedFields({ after: deployment({ replicas: 1, paused: true }), ...options('a') }))
	const scaled = stored(
		updateManagedFields({
			before: made,
			after: { ...made, spec: { replicas: 2, paused: true } } as JsonObject,
			...options('b', { now: t1 }),
		}),
	)
	assert.deepEqual(
		entries(scaled).map((e) => [e.manager, e.fieldsV1]),
		[
			['a', { 'f:spec': { 'f:paused': {} } }],
			['b', { 'f:spec': { 'f:replicas': {} } }],
		],
	)
	const again = updateManagedFields({
		before: scaled,
		after: { ...scaled, spec: { replicas: 2, paused: true, minReadySeconds: 1 } } as JsonObject,
		...options('b', { now: t1 }),
	})
	assert.deepEqual(entries(again)[1]!.fieldsV1, { 'f:spec': { 'f:minReadySeconds': {}, 'f:replicas': {} } })
})

test('status belongs to the status endpoint alone', () => {
	const made = stored(updateManagedFields({ after: deployment({ replicas: 1 }), ...options('a') }))
	const before = { ...made, status: { replicas: 0 } } as JsonObject
	const after = { ...before, status: { replicas: 1 } } as JsonObject
	assert.equal(entries(updateManagedFields({ before, after, ...options('b') })).length, 1)
	const byStatus = updateManagedFields({ before, after, ...options('b', { subresource: 'status' }) })
	assert.deepEqual(entries(byStatus)[1], {
		manager: 'b',
		operation: 'Update',
		apiVersion: 'apps/v1',
		time: t0,
		fieldsType: 'FieldsV1',
		fieldsV1: { 'f:status': { 'f:replicas': {} } },
		subresource: 'status',
	})
})

test('managedFields a client sends: absent is as it was, empty is a reset, entries replace', () => {
	const made = stored(updateManagedFields({ after: deployment({ replicas: 1 }), ...options('a') }))
	const { managedFields, ...bare } = made.metadata as { managedFields: JsonObject[] }
	const change = (metadata: object): JsonObject =>
		updateManagedFields({ before: made, after: { ...made, metadata } as JsonObject, ...options('b') })
	assert.deepEqual(entries(change(bare)), managedFields)
	assert.deepEqual(entries(change({ ...bare, managedFields: [] })), [])
	assert.deepEqual(entries(change({ ...bare, managedFields: [{}] })), [])
	const renamed = [{ ...managedFields[0], manager: 'c' }]
	assert.deepEqual(entries(change({ ...bare, managedFields: renamed })), renamed)
})

test('more than ten managers of updates are merged, oldest first', () => {
	let object = stored(updateManagedFields({ after: deployment({ replicas: 0 }), ...options('m00') }))
	for (let i = 1; i <= 14; i++) {
		const labels = { ...(object.metadata as unknown as { labels?: object }).labels, [`l${i}`]: '1' }
		object = updateManagedFields({
			before: object,
			after: { ...object, metadata: { ...(object.metadata as object), labels } } as JsonObject,
			...options(`m${String(i).padStart(2, '0')}`, { now: `2026-01-01T00:00:${String(i).padStart(2, '0')}Z` }),
		})
	}
	const managers = entries(object).map((e) => e.manager)
	assert.equal(managers.length, 10)
	assert.ok(managers.includes('ancient-changes'))
	assert.ok(managers.includes('m14'))
})

test('a type without schema: lists are atomic, maps granular', () => {
	const custom = (spec: object): JsonObject =>
		({ apiVersion: 'example.com/v1', kind: 'Thing', metadata: { name: 'a' }, spec }) as JsonObject
	const { schema: _, ...plain } = options('a', { apiVersion: 'example.com/v1' })
	const made = stored(applyConfig(undefined, custom({ list: [{ name: 'x' }], map: { k: 1 } }), plain))
	assert.deepEqual(entries(made)[0]!.fieldsV1, { 'f:spec': { '.': {}, 'f:list': {}, 'f:map': { '.': {}, 'f:k': {} } } })
	const next = applyConfig(made, custom({ list: [{ name: 'y' }], map: { l: 2 } }), plain)
	assert.deepEqual(next.spec, { list: [{ name: 'y' }], map: { l: 2 } })
})

test('a schema made at run time drives apply as the built-in ones do', () => {
	const item: TypeSchema = {
		name: 'Item',
		fields: new Map(
			['name', 'value'].map((name) => [
				name,
				{ name, value: { type: 'string' }, required: false, pointer: false, omit: 'empty', patchStrategy: [] },
			]),
		),
		atomic: false,
		preserveUnknown: false,
		topLevel: false,
	}
	const made: TypeSchema = {
		name: 'Thing',
		fields: new Map([
			['metadata', { ...typeOf('v1', 'Pod')!.fields.get('metadata')! }],
			[
				'items',
				{
					name: 'items',
					value: {
						type: 'list',
						items: { type: 'object', object: item, atomic: false },
						listType: 'map',
						listMapKeys: ['name'],
						wrapped: false,
					},
					required: false,
					pointer: false,
					omit: 'empty',
					patchStrategy: [],
				},
			],
		]),
		atomic: false,
		preserveUnknown: false,
		topLevel: true,
	}
	const thing = (...items: object[]): JsonObject =>
		({ apiVersion: 'example.com/v1', kind: 'Thing', metadata: { name: 'a' }, items }) as JsonObject
	const as = (manager: string): ApplyOptions => options(manager, { schema: made, apiVersion: 'example.com/v1' })
	let object = stored(applyConfig(undefined, thing({ name: 'a', value: '1' }), as('a')))
	object = stored(applyConfig(object, thing({ name: 'b', value: '2' }), as('b')))
	assert.deepEqual(object.items, [
		{ name: 'a', value: '1' },
		{ name: 'b', value: '2' },
	])
	assert.throws(() => applyConfig(object, thing({ name: 'a', value: '3' }), as('b')), /\.items\[name="a"\]\.value/)
})

test("what the status endpoint is sent of the specification is nobody's", () => {
	const before = stored(updateManagedFields({ after: deployment({ replicas: 1 }), ...options('a') }))
	const after = { ...before, spec: { replicas: 2 }, status: { replicas: 1 } } as JsonObject
	const byStatus = updateManagedFields({ before, after, ...options('b', { subresource: 'status' }) })
	assert.deepEqual(entries(byStatus)[1]!.fieldsV1, { 'f:status': { '.': {}, 'f:replicas': {} } })
	assert.ok((entries(byStatus)[0]!.fieldsV1['f:spec'] as JsonObject)['f:replicas'])
})
