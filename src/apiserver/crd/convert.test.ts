// Custom objects converted by a webhook: a real one, over TLS, by URL and through a Service.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server } from 'node:https'
import { type AddressInfo, connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, describe, test } from 'node:test'
import { createFakeKubelet } from '../../../test/fixtures/kubelet.ts'
import { systemClock } from '../../base/clock.ts'
import { type Certificates, ensureCertificates } from '../certificates.ts'
import { type ApiServer, createApiServer } from '../server.ts'
import { createStore, type Store } from '../store.ts'

const group = 'convert.example.com'
const definitions = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions'
const things = (version: string) => `/apis/${group}/${version}/namespaces/default/things`

interface Thing {
	apiVersion: string
	kind: string
	metadata: Record<string, unknown>
	spec: { hostPort?: string; host?: string; port?: string; note?: string }
	status?: { seen?: boolean }
}

let certificates: Certificates
let folder: string
let webhook: Server
let server: ApiServer
let store: Store
let asked: { desired: string; count: number; review: string }[] = []
/** What the webhook does wrong, if anything. */
let fault: ((converted: Thing[]) => object) | undefined

/** v1 has host and port, v1beta1 has them in one. */
function convert(thing: Thing, desired: string): Thing {
	const out = structuredClone(thing)
	out.apiVersion = desired
	if (desired.endsWith('v1')) {
		const [host = '', port = ''] = (thing.spec.hostPort ?? '').split(':')
		out.spec = { ...thing.spec, host, port }
		delete out.spec.hostPort
	} else {
		out.spec = { ...thing.spec, hostPort: `${thing.spec.host}:${thing.spec.port}` }
		delete out.spec.host
		delete out.spec.port
	}
	return out
}

before(async () => {
	folder = mkdtempSync(join(tmpdir(), 'podwire-convert-'))
	certificates = await ensureCertificates(join(folder, 'pki'), { now: Date.now() })
	webhook = createServer(
		{ cert: certificates.server.certificate, key: certificates.server.key },
		async (request, response) => {
			const chunks: Buffer[] = []
			for await (const chunk of request) chunks.push(chunk as Buffer)
			const review = JSON.parse(Buffer.concat(chunks).toString()) as {
				apiVersion: string
				request: { uid: string; desiredAPIVersion: string; objects: Thing[] }
			}
			const { uid, desiredAPIVersion, objects } = review.request
			asked.push({ desired: desiredAPIVersion, count: objects.length, review: review.apiVersion })
			const convertedObjects = objects.map((o) => convert(o, desiredAPIVersion))
			const right = { uid, convertedObjects, result: { status: 'Success' } }
			const answer = { ...right, ...fault?.(convertedObjects) }
			response.end(JSON.stringify({ apiVersion: review.apiVersion, kind: 'ConversionReview', response: answer }))
		},
	)
	webhook.listen(0, '127.0.0.1')
	await once(webhook, 'listening')
	store = createStore()
	server = await start(store)
})
after(() => {
	server.close()
	webhook.close()
	webhook.closeAllConnections()
	rmSync(folder, { recursive: true, force: true })
})
beforeEach(() => {
	asked = []
	fault = undefined
})

const start = (on: Store) =>
	createApiServer({
		store: on,
		clock: systemClock,
		kubelet: {
			...createFakeKubelet(),
			dial: async () => connect((webhook.address() as AddressInfo).port, '127.0.0.1'),
		},
	})

async function ask(method: string, path: string, body?: unknown, type = 'application/json') {
	const response = await server.transport(
		new Request(`http://kubernetes${path}`, {
			method,
			headers: { 'content-type': type },
			...(body === undefined ? {} : { body: JSON.stringify(body) }),
		}),
	)
	const text = await response.text()
	return { code: response.status, body: JSON.parse(text) as Thing & { items?: Thing[]; message?: string }, text }
}

const url = () => `https://127.0.0.1:${(webhook.address() as AddressInfo).port}/convert`
const caBundle = () => Buffer.from(certificates.authority.certificate).toString('base64')

function definition(client: object, more: object = {}) {
	const version = (name: string, storage: boolean, properties: object) => ({
		name,
		served: true,
		storage,
		subresources: { status: {} },
		schema: {
			openAPIV3Schema: {
				type: 'object',
				properties: {
					spec: { type: 'object', properties: { ...properties, note: { type: 'string', maxLength: 9 } } },
					status: { type: 'object', properties: { seen: { type: 'boolean' } } },
				},
			},
		},
	})
	const text = { type: 'string' }
	return {
		apiVersion: 'apiextensions.k8s.io/v1',
		kind: 'CustomResourceDefinition',
		metadata: { name: `things.${group}` },
		spec: {
			group,
			scope: 'Namespaced',
			names: { plural: 'things', singular: 'thing', kind: 'Thing', listKind: 'ThingList' },
			versions: [version('v1', true, { host: text, port: text }), version('v1beta1', false, { hostPort: text })],
			conversion: {
				strategy: 'Webhook',
				webhook: { clientConfig: client, conversionReviewVersions: ['v9', 'v1'], ...more },
			},
		},
	}
}

describe('a definition with a webhook', () => {
	test('what is refused', async () => {
		for (const [client, more, why] of [
			[{}, {}, /spec\.conversion\.webhook\.clientConfig: Required value: exactly one of url or service is required/],
			[{ url: 'http://a.test/' }, {}, /clientConfig\.url: .*'https' is the only allowed URL scheme/],
			[{ service: { name: 'a', path: 'x' } }, {}, /service\.namespace: Required value/],
			[{ url: 'https://a.test/' }, { conversionReviewVersions: ['v9'] }, /must include at least one of v1, v1beta1/],
		] as const) {
			const { code, body } = await ask('POST', definitions, definition(client, more))
			assert.equal(code, 422)
			assert.match(body.message ?? '', why)
		}
		const none = definition({ url: 'https://a.test/' })
		none.spec.conversion.strategy = 'None'
		assert.match(
			(await ask('POST', definitions, none)).body.message ?? '',
			/webhook: Forbidden: should not be set when/,
		)
	})
})

for (const [way, client] of [
	['by URL', () => ({ url: url(), caBundle: caBundle() })],
	[
		'through a Service',
		() => ({ service: { namespace: 'default', name: 'kubernetes', path: '/c' }, caBundle: caBundle() }),
	],
] as const) {
	describe(way, () => {
		before(async () => {
			if (way !== 'by URL') {
				const slice = {
					apiVersion: 'discovery.k8s.io/v1',
					kind: 'EndpointSlice',
					metadata: { name: 'k', labels: { 'kubernetes.io/service-name': 'kubernetes' } },
					addressType: 'IPv4',
					endpoints: [{ addresses: ['10.244.0.9'], targetRef: { kind: 'Pod', name: 'w' } }],
					ports: [{ name: 'https', port: 443 }],
				}
				assert.equal(
					(await ask('POST', '/apis/discovery.k8s.io/v1/namespaces/default/endpointslices', slice)).code,
					201,
				)
			}
			assert.equal((await ask('POST', definitions, definition(client()))).code, 201)
		})
		after(async () => {
			await ask('DELETE', `${definitions}/things.${group}`)
			await store.settled()
		})

		const make = (version: string, name: string, spec: object) =>
			ask('POST', things(version), { apiVersion: `${group}/${version}`, kind: 'Thing', metadata: { name }, spec })
		const event = async (version: string) => {
			const ending = new AbortController()
			const response = await server.transport(
				new Request(`http://kubernetes${things(version)}?watch=true&resourceVersion=${store.revision}`, {
					signal: ending.signal,
				}),
			)
			const reader = response.body!.getReader()
			return async () => {
				const { value } = await reader.read()
				ending.abort()
				return JSON.parse(Buffer.from(value!).toString().split('\n')[0]!) as { type: string; object: Thing }
			}
		}

		test('written in one version, read, listed and watched in the other', async () => {
			const watched = await event('v1beta1')
			const made = await make('v1beta1', 'a', { hostPort: 'h:80' })
			assert.equal(made.code, 201, made.text)
			assert.deepEqual(made.body.spec, { hostPort: 'h:80' })
			assert.deepEqual(
				[(await watched()).object.spec, store.get(`things.${group}`, 'default/a')?.object.spec],
				[{ hostPort: 'h:80' }, { host: 'h', port: '80' }],
			)
			assert.equal(asked[0]?.review, 'apiextensions.k8s.io/v1')
			await make('v1', 'b', { host: 'b', port: '1' })
			assert.deepEqual((await ask('GET', `${things('v1beta1')}/b`)).body.spec, { hostPort: 'b:1' })
			const list = (await ask('GET', things('v1beta1'))).body.items ?? []
			assert.deepEqual(
				list.map((o) => [o.apiVersion, o.spec]),
				[
					[`${group}/v1beta1`, { hostPort: 'h:80' }],
					[`${group}/v1beta1`, { hostPort: 'b:1' }],
				],
			)
			assert.deepEqual((await ask('GET', `${things('v1')}/a`)).body.spec, { host: 'h', port: '80' })
		})

		test('changed in the other version: patch, update, apply, status', async () => {
			await make('v1', 'c', { host: 'c', port: '1' })
			const path = `${things('v1beta1')}/c`
			const patched = await ask('PATCH', path, { spec: { hostPort: 'c:2' } }, 'application/merge-patch+json')
			assert.deepEqual([patched.code, patched.body.spec], [200, { hostPort: 'c:2' }])
			assert.deepEqual((await ask('GET', `${things('v1')}/c`)).body.spec, { host: 'c', port: '2' })
			const updated = await ask('PUT', path, { ...patched.body, spec: { hostPort: 'c:3' } })
			assert.deepEqual((await ask('GET', `${things('v1')}/c`)).body.spec, { host: 'c', port: '3' })
			assert.equal((await ask('PUT', path, { ...patched.body, spec: {} })).code, 409)
			const status = await ask('PATCH', `${path}/status`, { status: { seen: true } }, 'application/merge-patch+json')
			assert.deepEqual([status.code, status.body.status], [200, { seen: true }])
			assert.equal((updated.body.metadata.generation as number) + 0, 3)
			const { spec: s } = (await ask('GET', `${things('v1')}/c`)).body
			assert.deepEqual(s, { host: 'c', port: '3' })
			const applied = {
				apiVersion: `${group}/v1beta1`,
				kind: 'Thing',
				metadata: { name: 'd' },
				spec: { hostPort: 'd:4' },
			}
			const at = `${things('v1beta1')}/d?fieldManager=test`
			assert.equal((await ask('PATCH', at, applied, 'application/apply-patch+yaml')).code, 201)
			assert.deepEqual((await ask('GET', `${things('v1')}/d`)).body.spec, { host: 'd', port: '4' })
			const long = await ask('PATCH', path, { spec: { note: 'far too long' } }, 'application/merge-patch+json')
			assert.equal(long.code, 422)
		})

		test('deleted in the other version, with and without finalizers', async () => {
			await make('v1', 'e', { host: 'e', port: '1' })
			const watched = await event('v1beta1')
			const gone = await ask('DELETE', `${things('v1beta1')}/e`)
			assert.deepEqual([gone.code, gone.body.spec], [200, { hostPort: 'e:1' }])
			assert.deepEqual([(await watched()).object.spec], [{ hostPort: 'e:1' }])
			const held = { metadata: { finalizers: ['example.com/x'] } }
			await make('v1beta1', 'f', { hostPort: 'f:1' })
			await ask('PATCH', `${things('v1beta1')}/f`, held, 'application/merge-patch+json')
			assert.equal((await ask('DELETE', `${things('v1')}/f`)).code, 200)
			const free = { metadata: { finalizers: null } }
			assert.equal((await ask('PATCH', `${things('v1beta1')}/f`, free, 'application/merge-patch+json')).code, 200)
			assert.equal((await ask('GET', `${things('v1')}/f`)).code, 404)
		})

		test('two at once: neither is lost', async () => {
			await make('v1', 'g', { host: 'g', port: '1' })
			const merge = (body: object) => ask('PATCH', `${things('v1beta1')}/g`, body, 'application/merge-patch+json')
			const both = await Promise.all([
				merge({ metadata: { labels: { one: '1' } } }),
				merge({ metadata: { labels: { two: '2' } } }),
				merge({ spec: { note: 'three' } }),
			])
			assert.deepEqual(
				both.map((one) => one.code),
				[200, 200, 200],
			)
			const { metadata, spec } = (await ask('GET', `${things('v1')}/g`)).body
			assert.deepEqual([metadata.labels, spec.note], [{ one: '1', two: '2' }, 'three'])
		})

		test('another process asks for all of them in one review', async () => {
			const other = server
			asked = []
			server = await start(store)
			try {
				const { items = [] } = (await ask('GET', things('v1beta1'))).body
				assert.ok(items.length > 3 && items.every((o) => o.apiVersion === `${group}/v1beta1` && 'hostPort' in o.spec))
				assert.deepEqual(asked, [
					{ desired: `${group}/v1beta1`, count: items.length, review: 'apiextensions.k8s.io/v1' },
				])
			} finally {
				server.close()
				server = other
			}
		})

		for (const [what, wrong, why] of [
			['fails', () => ({ result: { status: 'Failure', message: 'not today' } }), /: not today$/],
			['loses an object', () => ({ convertedObjects: [] }), /it returned 0 objects, expected 1$/],
			[
				'changes a name',
				(all: Thing[]) => ({ convertedObjects: all.map((o) => ({ ...o, metadata: { ...o.metadata, name: 'x' } })) }),
				/at index 0: metadata\.name was changed$/,
			],
			[
				'answers another version',
				(all: Thing[]) => ({ convertedObjects: all.map((o) => ({ ...o, apiVersion: 'a/v1' })) }),
				/invalid apiVersion "a\/v1"/,
			],
			['answers another review', () => ({ uid: 'x' }), /expected response\.uid/],
		] as const) {
			test(`a webhook that ${what}: 500 with its words, and nothing is written`, async () => {
				fault = wrong
				const { code, body } = await make('v1beta1', 'bad', { hostPort: 'x:1' })
				assert.equal(code, 500)
				assert.match(body.message ?? '', /^conversion webhook for convert\.example\.com\/v1beta1, Kind=Thing failed: /)
				assert.match(body.message ?? '', why)
				assert.equal(store.get(`things.${group}`, 'default/bad'), undefined)
			})
		}
	})
}
