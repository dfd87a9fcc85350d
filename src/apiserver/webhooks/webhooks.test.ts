// Admission webhooks: a real one over TLS. What it is asked, what its answers do, and what happens when it does not answer.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, describe, test } from 'node:test'
import { systemClock } from '../../base/clock.ts'
import { type Certificates, ensureCertificates } from '../certificates.ts'
import { type ApiServer, createApiServer } from '../server.ts'
import { createStore } from '../store.ts'

interface Review {
	readonly apiVersion: string
	readonly request: {
		readonly uid: string
		readonly operation: string
		readonly name: string
		readonly namespace?: string
		readonly subResource?: string
		readonly kind: { readonly group: string; readonly version: string; readonly kind: string }
		readonly resource: { readonly resource: string }
		readonly userInfo: { readonly username: string }
		readonly object: { metadata: Record<string, unknown>; data?: Record<string, string>; spec?: object } | null
		readonly oldObject: object | null
		readonly dryRun: boolean
		readonly options: { readonly kind: string }
	}
}

let certificates: Certificates
let folder: string
let hook: Server
let server: ApiServer
let asked: { readonly path: string; readonly review: Review }[] = []
/** What the webhook answers, by path; undefined: it never does. */
let answers: Record<string, (review: Review) => object | Promise<object> | undefined> = {}
const configurations: string[] = []

before(async () => {
	folder = mkdtempSync(join(tmpdir(), 'podwire-admission-'))
	certificates = await ensureCertificates(join(folder, 'pki'), { now: Date.now() })
	const tls = { cert: certificates.server.certificate, key: certificates.server.key }
	hook = createServer(tls, async (request, response) => {
		const chunks: Buffer[] = []
		for await (const chunk of request) chunks.push(chunk as Buffer)
		const review = JSON.parse(Buffer.concat(chunks).toString()) as Review
		const path = new URL(request.url ?? '', 'https://x').pathname
		asked.push({ path, review })
		const answer = await answers[path]?.(review)
		if (answer === undefined) return
		response.end(
			JSON.stringify({
				apiVersion: review.apiVersion,
				kind: 'AdmissionReview',
				response: { uid: review.request.uid, ...answer },
			}),
		)
	})
	hook.listen(0, '127.0.0.1')
	await once(hook, 'listening')
	server = await createApiServer({
		store: createStore(),
		clock: systemClock,
		onFault: (e) => {
			throw e
		},
	})
})
after(() => {
	server.close()
	hook.closeAllConnections()
	hook.close()
	rmSync(folder, { recursive: true, force: true })
})
afterEach(async () => {
	for (const path of configurations.splice(0)) await send('DELETE', path)
	asked = []
	answers = {}
})

async function send(method: string, path: string, body?: unknown, type = 'application/json') {
	const response = await server.transport(
		new Request(`http://kubernetes${path}`, {
			method,
			headers: { 'content-type': type },
			...(body === undefined ? {} : { body: JSON.stringify(body) }),
		}),
	)
	const json = (await response.json()) as {
		metadata: Record<string, unknown> & { labels?: Record<string, string>; uid?: string; resourceVersion?: string }
		message?: string
		reason?: string
		data?: Record<string, string>
		spec?: Record<string, unknown>
		details?: { causes?: { field?: string; message: string }[] }
	}
	return { code: response.status, json, warning: response.headers.get('warning') }
}

const maps = '/api/v1/namespaces/default/configmaps'
const url = (path: string) => `https://127.0.0.1:${(hook.address() as AddressInfo).port}${path}`
const clientConfig = (path: string) => ({
	url: url(path),
	caBundle: Buffer.from(certificates.authority.certificate).toString('base64'),
})
const everyMap = [{ operations: ['*'], apiGroups: [''], apiVersions: ['v1'], resources: ['configmaps'] }]
let count = 0

/** One configuration with these webhooks, each at a path of its own. */
async function configure(
	kind: 'Mutating' | 'Validating',
	...webhooks: readonly (Record<string, unknown> & { path: string })[]
) {
	const collection = `/apis/admissionregistration.k8s.io/v1/${kind.toLowerCase()}webhookconfigurations`
	const name = `c${String(++count).padStart(3, '0')}`
	const made = await send('POST', collection, {
		apiVersion: 'admissionregistration.k8s.io/v1',
		kind: `${kind}WebhookConfiguration`,
		metadata: { name },
		webhooks: webhooks.map(({ path, ...webhook }, i) => ({
			name: `w${i}.hooks.example.com`,
			clientConfig: clientConfig(path) as object,
			rules: everyMap,
			sideEffects: 'None',
			admissionReviewVersions: ['v1'],
			...webhook,
		})),
	})
	if (made.code === 201) configurations.push(`${collection}/${name}`)
	return made
}

const patchOf = (...operations: readonly object[]) => ({
	allowed: true,
	patchType: 'JSONPatch',
	patch: Buffer.from(JSON.stringify(operations)).toString('base64'),
})
const label = (key: string, value: string) => ({ op: 'add', path: `/metadata/labels/${key}`, value })
const map = (name: string, labels: Record<string, string> = { app: 'x' }) => ({
	apiVersion: 'v1',
	kind: 'ConfigMap',
	metadata: { name, labels },
	data: { a: '1' },
})

describe('admission webhooks', () => {
	test('is asked with the whole request, and changes what is kept', async () => {
		answers['/m'] = () => patchOf(label('by', 'hook'), { op: 'replace', path: '/metadata/uid', value: 'forged' })
		assert.equal((await configure('Mutating', { path: '/m' })).code, 201)
		const { code, json } = await send('POST', maps, map('m1'))
		assert.equal(code, 201, json.message)
		assert.deepEqual(json.metadata.labels, { app: 'x', by: 'hook' })
		assert.notEqual(json.metadata.uid, 'forged')
		const { review } = asked[0]!
		assert.equal(review.apiVersion, 'admission.k8s.io/v1')
		const { request } = review
		assert.deepEqual(
			[request.operation, request.name, request.namespace, request.kind.kind, request.resource.resource],
			['CREATE', 'm1', 'default', 'ConfigMap', 'configmaps'],
		)
		assert.deepEqual([request.userInfo.username, request.dryRun], ['kubernetes-admin', false])
		assert.deepEqual([request.oldObject, request.options.kind], [null, 'CreateOptions'])
		assert.deepEqual(request.object?.data, { a: '1' })
		const kept = await send('GET', `${maps}/m1`)
		assert.equal(kept.json.metadata.labels?.by, 'hook')

		const patched = await send('PATCH', `${maps}/m1`, { data: { a: '2' } }, 'application/merge-patch+json')
		assert.equal(patched.code, 200)
		const update = asked.at(-1)?.review.request
		assert.equal(update?.operation, 'UPDATE')
		assert.deepEqual(update?.object?.data, { a: '2' })
		assert.deepEqual((update?.oldObject as { data: object } | undefined)?.data, { a: '1' })
		await send('DELETE', `${maps}/m1`)
		assert.equal(asked.at(-1)?.review.request.operation, 'DELETE')
		assert.equal(asked.at(-1)?.review.request.object, null)
	})

	test('what it changed is checked and filled in as if the client had sent it', async () => {
		const service = (name: string) => ({
			apiVersion: 'v1',
			kind: 'Service',
			metadata: { name },
			spec: { ports: [{ port: 80 }] },
		})
		const rules = [{ operations: ['CREATE'], apiGroups: [''], apiVersions: ['v1'], resources: ['services'] }]
		answers['/m'] = ({ request }) =>
			patchOf({ op: 'add', path: '/spec/ports/0/port', value: request.name === 'bad' ? 70_000 : 81 })
		await configure('Mutating', { path: '/m', rules })
		const services = '/api/v1/namespaces/default/services'
		const good = await send('POST', services, service('good'))
		assert.equal(good.code, 201, good.json.message)
		const [port] = good.json.spec!.ports as [{ port: number; protocol: string }]
		assert.deepEqual([port.port, port.protocol], [81, 'TCP'])
		assert.match(String(good.json.spec?.clusterIP), /^10\.96\./)
		const bad = await send('POST', services, service('bad'))
		assert.equal(bad.code, 422)
		assert.match(bad.json.message ?? '', /spec\.ports\[0\]\.port: Invalid value: 70000/)
	})

	test('in the order of their names, each sees what the last one did; asked again where it wants to be', async () => {
		answers['/first'] = ({ request }) =>
			patchOf(
				label(
					'first',
					request.object?.metadata.labels !== undefined && 'second' in (request.object.metadata.labels as object)
						? 'again'
						: 'once',
				),
			)
		answers['/second'] = () => patchOf(label('second', 'yes'))
		await configure('Mutating', { path: '/first', reinvocationPolicy: 'IfNeeded' }, { path: '/second' })
		const { json } = await send('POST', maps, map('o1'))
		assert.deepEqual(json.metadata.labels, { app: 'x', first: 'again', second: 'yes' })
		assert.deepEqual(
			asked.map((a) => a.path),
			['/first', '/second', '/first'],
		)
	})

	test('one denies: in its own words, with its code; nothing is kept', async () => {
		answers['/v'] = ({ request }) =>
			request.name === 'plain'
				? { allowed: false }
				: { allowed: false, status: { message: 'no maps', code: 418, reason: 'Teapot' } }
		await configure('Validating', { path: '/v' })
		const { code, json } = await send('POST', maps, map('d1'))
		assert.deepEqual([code, json.reason], [418, 'Teapot'])
		assert.equal(json.message, 'admission webhook "w0.hooks.example.com" denied the request: no maps')
		const plain = await send('POST', maps, map('plain'))
		assert.equal(plain.code, 400)
		assert.match(plain.json.message ?? '', /denied the request without explanation$/)
		assert.equal((await send('GET', `${maps}/d1`)).code, 404)
	})

	test('a deletion may be denied, one object or many', async () => {
		await send('POST', maps, map('kept', { app: 'many' }))
		answers['/v'] = () => ({ allowed: false, status: { message: 'stays' } })
		await configure('Validating', { path: '/v', rules: [{ ...everyMap[0], operations: ['DELETE'] }] })
		assert.match((await send('DELETE', `${maps}/kept`)).json.message ?? '', /stays/)
		assert.match((await send('DELETE', `${maps}?labelSelector=app%3Dmany`)).json.message ?? '', /stays/)
		assert.equal((await send('GET', `${maps}/kept`)).code, 200)
	})

	test('warnings reach the client', async () => {
		answers['/v'] = () => ({ allowed: true, warnings: ['old form'] })
		await configure('Validating', { path: '/v' })
		const { code, warning } = await send('POST', maps, map('w1'))
		assert.deepEqual([code, warning], [201, '299 - "old form"'])
	})

	test('who does not answer, or answers nonsense: by the failure policy', async () => {
		answers['/silent'] = () => undefined
		await configure('Validating', { path: '/silent', timeoutSeconds: 1 })
		const slow = await send('POST', maps, map('f1'))
		assert.equal(slow.code, 500)
		assert.match(
			slow.json.message ?? '',
			/^Internal error occurred: failed calling webhook "w0\.hooks\.example\.com": failed to call webhook: Post "https:\/\/127\.0\.0\.1:\d+\/silent\?timeout=1s": /,
		)
		for (const path of configurations.splice(0)) await send('DELETE', path)
		answers['/wrong'] = () => ({ uid: 'another', allowed: true })
		await configure('Validating', { path: '/wrong' })
		assert.match((await send('POST', maps, map('f1'))).json.message ?? '', /expected response\.uid=/)
		for (const path of configurations.splice(0)) await send('DELETE', path)
		await configure('Mutating', { path: '/wrong', failurePolicy: 'Ignore' })
		assert.equal((await send('POST', maps, map('f1'))).code, 201)
	})

	test('a dry run is refused where the webhook may have effects, and said to those that have none', async () => {
		answers['/v'] = () => ({ allowed: true })
		await configure('Validating', { path: '/v' })
		assert.equal((await send('POST', `${maps}?dryRun=All`, map('r1'))).code, 201)
		assert.equal(asked.at(-1)?.review.request.dryRun, true)
		assert.equal((await send('GET', `${maps}/r1`)).code, 404)
	})

	test('selectors and conditions choose whom it is asked about', async () => {
		answers['/v'] = () => ({ allowed: false })
		await configure('Validating', {
			path: '/v',
			objectSelector: { matchLabels: { guard: 'yes' } },
			namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'default' } },
			matchConditions: [
				{ name: 'not-spared', expression: "!has(object.data) || !('spare' in object.data)" },
				{ name: 'not-root', expression: "request.userInfo.username != 'root'" },
			],
		})
		assert.equal((await send('POST', maps, map('s1'))).code, 201)
		assert.equal((await send('POST', maps, map('s2', { guard: 'yes' }))).code, 400)
		const spared = { ...map('s3', { guard: 'yes' }), data: { spare: 'me' } }
		assert.equal((await send('POST', maps, spared)).code, 201)
		const elsewhere = '/api/v1/namespaces/kube-public/configmaps'
		assert.equal((await send('POST', elsewhere, map('s4', { guard: 'yes' }))).code, 201)
		// Taking the label away is no way out.
		const freed = await send(
			'PATCH',
			`${maps}/s3`,
			{ metadata: { labels: null }, data: null },
			'application/merge-patch+json',
		)
		assert.equal(freed.code, 400)
	})

	test('rules: a subresource is not its object, an equivalent version is', async () => {
		answers['/v'] = () => ({ allowed: false })
		const deployments = [
			{ operations: ['*'], apiGroups: ['events.k8s.io'], apiVersions: ['v1'], resources: ['events'] },
		]
		await configure('Validating', { path: '/v', rules: deployments })
		const event = {
			apiVersion: 'v1',
			kind: 'Event',
			metadata: { name: 'e1' },
			involvedObject: { kind: 'Pod', name: 'p', namespace: 'default' },
			reason: 'Test',
			message: 'text',
		}
		const events = '/api/v1/namespaces/default/events'
		assert.equal((await send('POST', events, event)).code, 400)
		assert.equal(asked.at(-1)?.review.request.kind.group, 'events.k8s.io')
		for (const path of configurations.splice(0)) await send('DELETE', path)
		await configure('Validating', { path: '/v', rules: deployments, matchPolicy: 'Exact' })
		assert.equal((await send('POST', events, event)).code, 201)
	})

	test('somebody else writes while it is asked: it is asked again about what is there then', async () => {
		await send('POST', maps, map('race'))
		let first = true
		answers['/m'] = async () => {
			if (first) {
				first = false
				await send('PATCH', `${maps}/race`, { data: { other: 'here' } }, 'application/merge-patch+json')
			}
			return patchOf(label('by', 'hook'))
		}
		await configure('Mutating', { path: '/m' })
		const { code, json } = await send(
			'PATCH',
			`${maps}/race`,
			{ data: { mine: 'too' } },
			'application/merge-patch+json',
		)
		assert.equal(code, 200, json.message)
		assert.deepEqual(json.data, { a: '1', other: 'here', mine: 'too' })
	})

	test('a configuration that cannot work is refused, field by field', async () => {
		const faults = async (webhook: Record<string, unknown>) => {
			const { code, json } = await configure('Validating', { path: '/v', ...webhook })
			assert.equal(code, 422, JSON.stringify(webhook))
			return (json.details?.causes ?? []).map((c) => c.field)
		}
		assert.deepEqual(await faults({ name: 'short' }), ['webhooks[0].name'])
		assert.deepEqual(await faults({ sideEffects: 'Some' }), ['webhooks[0].sideEffects'])
		assert.deepEqual(await faults({ admissionReviewVersions: ['v7'] }), ['webhooks[0].admissionReviewVersions'])
		assert.deepEqual(await faults({ timeoutSeconds: 31 }), ['webhooks[0].timeoutSeconds'])
		assert.deepEqual(await faults({ clientConfig: {} }), ['webhooks[0].clientConfig'])
		assert.deepEqual(await faults({ clientConfig: { url: 'http://x/' } }), ['webhooks[0].clientConfig.url'])
		assert.deepEqual(await faults({ rules: [{ ...everyMap[0], operations: ['READ'] }] }), [
			'webhooks[0].rules[0].operations[0]',
		])
		assert.deepEqual(await faults({ matchConditions: [{ name: 'x', expression: 'object.' }] }), [
			'webhooks[0].matchConditions[0].expression',
		])
	})

	test('no webhook is asked about webhook configurations: one that denies all can be taken away', async () => {
		answers['/v'] = () => ({ allowed: false })
		const all = [{ operations: ['*'], apiGroups: ['*'], apiVersions: ['*'], resources: ['*/*'] }]
		await configure('Validating', { path: '/v', rules: all })
		assert.equal((await send('POST', maps, map('x1'))).code, 400)
		const path = configurations.pop()!
		assert.equal((await send('DELETE', path)).code, 200)
		assert.equal((await send('POST', maps, map('x1'))).code, 201)
	})
})
