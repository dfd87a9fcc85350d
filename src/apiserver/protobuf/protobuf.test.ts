import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFailure } from '../../base/failure.ts'
import { canonical } from '../../kube/schema/canonical.ts'
import type { JsonObject } from '../../kube/schema/json.ts'
import { typeOf } from '../../kube/schema/schema.ts'
import { decodeProtobuf } from './decode.ts'
import { encodeAs, encodeProtobuf, encodeWatchEvent } from './encode.ts'

const golden = new URL('../../../../shared/data/kubernetes-api/', import.meta.url)
const skip = existsSync(golden) ? false : 'no golden data (../shared/data/kubernetes-api)'

function goldenNames(): string[] {
	return readdirSync(golden)
		.filter((name) => name.endsWith('.pb'))
		.map((name) => name.slice(0, -3))
}

function read(name: string): { json: JsonObject; pb: Uint8Array } {
	return {
		json: JSON.parse(readFileSync(new URL(`${name}.json`, golden), 'utf8')) as JsonObject,
		pb: new Uint8Array(readFileSync(new URL(`${name}.pb`, golden))),
	}
}

// A WatchEvent says no kind: on the wire its type is known from the request.
const watchEvent = { apiVersion: 'v1', kind: 'WatchEvent' }

test('protobuf of every API type decodes to the JSON of the same object', { skip }, () => {
	const names = goldenNames()
	assert.ok(names.length >= 193)
	for (const name of names) {
		const { json, pb } = read(name)
		assert.deepEqual(decodeProtobuf(pb, watchEvent), json, name)
	}
})

test('JSON of every API type encodes to the same bytes', { skip }, () => {
	for (const name of goldenNames()) {
		const { json, pb } = read(name)
		const bytes = json.kind ? encodeProtobuf(json) : encodeAs(json, typeOf('v1', 'WatchEvent')!, '', '')
		assert.ok(bytes, name)
		assert.equal(Buffer.compare(bytes, pb), 0, name)
	}
})

test('golden objects are canonical', { skip }, () => {
	for (const name of goldenNames()) {
		const { json } = read(name)
		const type = json.kind ? typeOf(String(json.apiVersion), String(json.kind)) : typeOf('v1', 'WatchEvent')
		assert.deepEqual(canonical(json, type!), json, name)
	}
})

const deployment: JsonObject = {
	kind: 'Deployment',
	apiVersion: 'apps/v1',
	metadata: { name: 'web', labels: { ä: 'ö', __proto: 'x' }, creationTimestamp: '2026-01-02T03:04:05Z' },
	spec: {
		replicas: -3,
		selector: { matchLabels: { app: 'web' } },
		template: {
			metadata: {},
			spec: {
				containers: [
					{
						name: 'a'.repeat(3000),
						resources: { limits: { cpu: '100m' } },
						livenessProbe: { httpGet: { port: 'http' }, periodSeconds: 2147483647 },
						ports: [{ containerPort: 80, protocol: 'TCP' }],
					},
				],
			},
		},
		strategy: { rollingUpdate: { maxSurge: '25%', maxUnavailable: 0 } },
	},
	status: { observedGeneration: 9007199254740991 },
}

test('encode and decode give back an object', () => {
	assert.deepEqual(decodeProtobuf(encodeProtobuf(deployment)!), deployment)
	const crd = canonical(
		{
			kind: 'CustomResourceDefinition',
			apiVersion: 'apiextensions.k8s.io/v1',
			metadata: { name: 'x' },
			spec: {
				group: 'a',
				names: { plural: 'x', kind: 'X' },
				scope: 'Cluster',
				versions: [
					{
						name: 'v1',
						served: true,
						storage: true,
						schema: {
							openAPIV3Schema: {
								type: 'object',
								properties: {
									a: { additionalProperties: { type: 'string', default: { a: [1] } } },
									b: { additionalProperties: true, items: { type: 'number', minimum: 0.5 } },
									c: { items: { type: 'string' }, enum: ['a', 1, null], additionalItems: false },
								},
							},
						},
					},
				],
			},
		},
		typeOf('apiextensions.k8s.io/v1', 'CustomResourceDefinition')!,
	)
	assert.deepEqual(decodeProtobuf(encodeProtobuf(crd)!), crd)
})

test('a kind that is not built in has no protobuf', () => {
	assert.equal(encodeProtobuf({ apiVersion: 'example.com/v1', kind: 'Thing' }), undefined)
	assert.equal(encodeWatchEvent({ type: 'ADDED', object: { apiVersion: 'example.com/v1', kind: 'Thing' } }), undefined)
})

test('a watch frame says its length', () => {
	const frame = encodeWatchEvent({ type: 'ADDED', object: deployment })!
	assert.equal(new DataView(frame.buffer).getUint32(0), frame.length - 4)
})

test('malformed bodies are refused with the place', () => {
	const cases: [bytes: number[], message: RegExp][] = [
		[[], /does not begin/],
		[[0x6b, 0x38, 0x73, 0], /no kind "" is built in/],
		[[0x6b, 0x38, 0x73, 0, 0x0a], /cut off/],
		[[0x6b, 0x38, 0x73, 0, 0x0a, 0x7f], /says 127 bytes, 0 are left/],
	]
	for (const [bytes, message] of cases)
		assert.throws(
			() => decodeProtobuf(new Uint8Array(bytes)),
			(e) => isFailure(e, 'BadRequest') && message.test(e.message),
		)
	// spec (2) { replicas (1) as a string }: in an envelope that names the type and holds four bytes
	const envelope = encodeAs({}, typeOf('apps/v1', 'Deployment')!, 'apps/v1', 'Deployment')
	const meta = envelope.subarray(0, 6 + (envelope[5] ?? 0))
	assert.throws(
		() => decodeProtobuf(new Uint8Array([...meta, 0x12, 4, 0x12, 2, 0x0a, 0])),
		(e) => isFailure(e, 'BadRequest') && /at spec.replicas .*wire type 2 where 0 belongs/.test(e.message),
	)
})

test('no bytes make it crash: a result or a BadRequest', () => {
	const seed = encodeProtobuf(deployment)!
	fc.assert(
		fc.property(
			fc.array(fc.tuple(fc.nat(seed.length - 1), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 12 }),
			fc.nat(seed.length),
			fc.boolean(),
			(edits, cut, truncate) => {
				const bytes = Uint8Array.from(seed)
				for (const [at, value] of edits) bytes[at] = value
				try {
					decodeProtobuf(truncate ? bytes.subarray(0, cut) : bytes)
				} catch (e) {
					if (!isFailure(e, 'BadRequest')) throw e
				}
			},
		),
		{ numRuns: 3000 },
	)
})

test('a schema nested without end is refused', () => {
	let inner: JsonObject = {}
	for (let i = 0; i < 300; i++) inner = { not: inner }
	const bytes = encodeProtobuf({
		apiVersion: 'apiextensions.k8s.io/v1',
		kind: 'CustomResourceDefinition',
		spec: { versions: [{ schema: { openAPIV3Schema: inner } }] },
	})!
	assert.throws(
		() => decodeProtobuf(bytes),
		(e) => isFailure(e, 'BadRequest') && /nested deeper/.test(e.message),
	)
})
