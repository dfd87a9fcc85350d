import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { apiVersionOf, resources } from '../resources.ts'
import { canonical } from './canonical.ts'
import { type JsonObject, sameJson } from './json.ts'
import { canonicalQuantity, compareQuantities, parseQuantity, printQuantity } from './quantity.ts'
import { groupVersions, kindsOf, type TypeSchema, typeNamed, typeOf, type ValueSchema } from './schema.ts'
import { parseTime, printTime } from './time.ts'

test('every resource we know has a type, and its list too', () => {
	for (const resource of resources) {
		const apiVersion = apiVersionOf(resource)
		assert.ok(typeOf(apiVersion, resource.kind), `${apiVersion} ${resource.kind}`)
		if (resource.verbs.includes('list')) assert.ok(typeOf(apiVersion, `${resource.kind}List`), `${resource.kind}List`)
	}
})

test('every type of the table resolves, numbers are unique in a message', () => {
	const seen = new Set<TypeSchema>()
	const visit = (value: ValueSchema): void => {
		if (value.type === 'list') visit(value.items)
		else if (value.type === 'map') visit(value.value)
		if (value.type !== 'object' || seen.has(value.object)) return
		const { object } = value
		seen.add(object)
		const numbers = object.wire!.map((field) => field.number)
		assert.equal(new Set(numbers).size, numbers.length, object.name)
		assert.equal(typeNamed(object.name), object)
		for (const field of object.fields.values()) visit(field.value)
	}
	for (const apiVersion of groupVersions())
		for (const kind of kindsOf(apiVersion)!) {
			const type = typeOf(apiVersion, kind)
			assert.ok(type, `${apiVersion} ${kind}`)
			assert.ok(type.topLevel)
			visit({ type: 'object', object: type, atomic: false })
		}
	assert.ok(seen.size > 1000)
})

test('facts of fields are there', () => {
	const ports = typeOf('v1', 'Service')!.fields.get('spec')!.value
	assert.ok(ports.type === 'object')
	const field = ports.object.fields.get('ports')!
	assert.equal(field.patchMergeKey, 'port')
	assert.deepEqual(field.patchStrategy, ['merge'])
	assert.ok(field.value.type === 'list' && field.value.items.type === 'object')
	assert.equal(field.value.listType, 'map')
	assert.deepEqual(field.value.listMapKeys, ['port', 'protocol'])
	const protocol = field.value.items.object.fields.get('protocol')!
	assert.equal(protocol.default, 'TCP')
	assert.deepEqual(protocol.value, { type: 'string', enum: ['SCTP', 'TCP', 'UDP'] })
	const volumes = typeNamed('io.k8s.api.core.v1.PodSpec')!.fields.get('volumes')!
	assert.deepEqual(volumes.patchStrategy, ['merge', 'retainKeys'])
	// An inlined struct: its fields are those of the type itself.
	assert.ok(typeNamed('io.k8s.api.core.v1.Volume')!.fields.has('emptyDir'))
})

test('names from outside find nothing that is inherited', () => {
	assert.equal(typeOf('constructor', 'Pod'), undefined)
	assert.equal(typeOf('v1', 'toString'), undefined)
	assert.equal(typeNamed('io.k8s.api.core.v1.__proto__'), undefined)
	assert.equal(kindsOf('__proto__'), undefined)
})

test('quantities have one spelling', () => {
	const cases: [string | number, string | undefined][] = [
		['1000m', '1'],
		['0.5', '500m'],
		[0.1, '100m'],
		[2, '2'],
		['1024Mi', '1Gi'],
		['1536Mi', '1536Mi'],
		['0.5Gi', '512Mi'],
		['1023Ki', '1023Ki'],
		['1Ki', '1Ki'],
		['512', '512'],
		['0.5Ki', '512'],
		['1000k', '1M'],
		['1500k', '1500k'],
		['1e3', '1e3'],
		['1E3', '1e3'],
		['12e6', '12e6'],
		['100e-3', '100e-3'],
		['1E', '1E'],
		['0', '0'],
		['0Gi', '0'],
		['-1000m', '-1'],
		['+1', '1'],
		['.5', '500m'],
		['1.', '1'],
		['0.0000000001', '1n'],
		['1.1Ki', '1126400m'],
		['9999999999999999999999', '9223372036854775807'],
		['', undefined],
		['.', undefined],
		['1 Gi', undefined],
		['1gi', undefined],
		['much', undefined],
		['1e99999', undefined],
	]
	for (const [value, want] of cases) assert.equal(canonicalQuantity(value), want, String(value))
	assert.ok(compareQuantities('1Gi', '1G')! > 0)
	assert.equal(compareQuantities('1', '1000m'), 0)
	assert.equal(compareQuantities('x', '1'), undefined)
})

test('a canonical quantity stays as it is', () => {
	fc.assert(
		fc.property(
			fc.bigInt({ min: -(10n ** 24n), max: 10n ** 24n }),
			fc.constantFrom('decimal', 'binary', 'exponent'),
			(nano, format) => {
				const text = printQuantity({ nano, format })
				assert.equal(parseQuantity(text)?.nano, nano, text)
				assert.equal(canonicalQuantity(text), text)
			},
		),
	)
})

test('times are read with any offset and written in UTC', () => {
	const cases: [text: string, plain: string | undefined, micro?: string][] = [
		['2026-01-02T03:04:05Z', '2026-01-02T03:04:05Z', '2026-01-02T03:04:05.000000Z'],
		['2026-01-02T03:04:05.123456789Z', '2026-01-02T03:04:05Z', '2026-01-02T03:04:05.123456Z'],
		['2026-01-02T03:04:05+01:30', '2026-01-02T01:34:05Z'],
		['2026-02-30T00:00:00Z', undefined],
		['2026-01-02', undefined],
		['2026-13-02T00:00:00Z', undefined],
		['today', undefined],
	]
	for (const [text, plain, micro] of cases) {
		const instant = parseTime(text)
		assert.equal(instant && printTime(instant), plain, text)
		if (micro) assert.equal(printTime(instant!, true), micro)
	}
})

test('canonical form: what is empty goes or shows as the type says', () => {
	const cases: [apiVersion: string, kind: string, rest: object, want: object][] = [
		['v1', 'Service', { spec: { ports: [], selector: {} } }, { metadata: {}, spec: {}, status: { loadBalancer: {} } }],
		[
			'v1',
			'Pod',
			{ spec: { containers: null, hostNetwork: false, volumes: [{ name: 'a', emptyDir: {} }] }, unknown: 1 },
			{ metadata: {}, spec: { containers: null, volumes: [{ name: 'a', emptyDir: {} }] }, status: {} },
		],
		[
			'apps/v1',
			'ReplicaSet',
			{ spec: { replicas: 0 } },
			{
				spec: { replicas: 0, selector: null, template: { metadata: {}, spec: { containers: null } } },
				metadata: {},
				status: { replicas: 0 },
			},
		],
		['rbac.authorization.k8s.io/v1', 'Role', {}, { metadata: {}, rules: null }],
		['v1', 'ConfigMap', { data: { a: '', b: null } }, { metadata: {}, data: { a: '', b: '' } }],
		[
			'v1',
			'Event',
			{},
			{
				metadata: {},
				involvedObject: {},
				source: {},
				firstTimestamp: null,
				lastTimestamp: null,
				eventTime: null,
				reportingComponent: '',
				reportingInstance: '',
			},
		],
	]
	for (const [apiVersion, kind, rest, want] of cases) {
		const object = { apiVersion, kind, ...rest } as JsonObject
		const type = typeOf(apiVersion, kind)!
		const once = canonical(object, type)
		assert.deepEqual(once, { apiVersion, kind, ...want }, kind)
		assert.deepEqual(canonical(once, type), once, `${kind}: a second time changes nothing`)
	}
})

test('sameJson compares values, not spelling', () => {
	assert.ok(sameJson({ a: 1, b: [{ c: null }] }, { b: [{ c: null }], a: 1 }))
	assert.ok(sameJson({ a: undefined }, {}))
	assert.ok(!sameJson({ a: null }, {}))
	assert.ok(!sameJson([1, 2], [2, 1]))
	assert.ok(!sameJson({}, []))
})
