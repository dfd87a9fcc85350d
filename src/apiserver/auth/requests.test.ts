// What the server grants on request: to act as another, a token for a pod, a certificate.

import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { createManualClock, type ManualClock } from '../../base/manual-clock.ts'
import type { User } from '../api.ts'
import { type Certificates, ensureCertificates, loadX509 } from '../certificates.ts'
import { type ApiServer, createApiServer } from '../server.ts'
import { createStore, type Store } from '../store.ts'
import { createClientSigner } from './client-signer.ts'
import { rbacGroup } from './rbac.ts'

const jane: User = { name: 'jane', groups: ['system:authenticated'] }
const now = Date.parse('2026-01-02T03:04:05Z')

interface Answer {
	readonly message?: string
	readonly metadata: { readonly resourceVersion?: string }
	readonly spec: Readonly<Record<string, unknown>>
	readonly status: {
		readonly token?: string
		readonly certificate?: string
		readonly conditions?: readonly { readonly type: string; readonly message?: string }[]
		readonly userInfo?: { readonly username: string; readonly groups: readonly string[]; readonly extra?: object }
	}
}

describe('what is granted on request', () => {
	const folder = mkdtempSync(join(tmpdir(), 'podwire-requests-'))
	let server: ApiServer
	let store: Store
	let clock: ManualClock
	let certificates: Certificates
	const faults: unknown[] = []

	async function send(method: string, path: string, body?: object, user?: User, headers: Record<string, string> = {}) {
		const type = method === 'PATCH' ? 'application/merge-patch+json' : 'application/json'
		const request = new Request(`http://x${path}`, {
			method,
			headers: { 'content-type': type, ...headers },
			...(body === undefined ? {} : { body: JSON.stringify(body) }),
		})
		const response = await (user === undefined ? server.transport(request) : server.handle(request, user))
		return { code: response.status, body: (await response.json()) as Answer }
	}
	async function grant(name: string, rules: readonly object[]): Promise<void> {
		const path = `/apis/${rbacGroup}/v1`
		await send('POST', `${path}/clusterroles`, { metadata: { name }, rules })
		await send('POST', `${path}/clusterrolebindings`, {
			metadata: { name },
			roleRef: { apiGroup: rbacGroup, kind: 'ClusterRole', name },
			subjects: [{ apiGroup: rbacGroup, kind: 'User', name: 'jane' }],
		})
	}
	before(async () => {
		store = createStore()
		clock = createManualClock(now)
		certificates = await ensureCertificates(folder, { now })
		const signer = createClientSigner(async () => certificates.authority, clock.now)
		server = await createApiServer({ store, clock, signer, onFault: (e) => faults.push(e) })
	})
	after(() => {
		server.close()
		rmSync(folder, { recursive: true, force: true })
		assert.deepEqual(faults, [])
	})

	describe('acting as another', () => {
		const self = (headers: Record<string, string>, user?: User) =>
			send('POST', '/apis/authentication.k8s.io/v1/selfsubjectreviews', {}, user, headers)
		const cases: readonly (readonly [string, Record<string, string>, string])[] = [
			[
				'a user',
				{ 'impersonate-user': 'x' },
				'users "x" is forbidden: User "jane" cannot impersonate resource "users" in API group "" at the cluster scope',
			],
			[
				'a ServiceAccount',
				{ 'impersonate-user': 'system:serviceaccount:n:a' },
				'serviceaccounts "a" is forbidden: User "jane" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "n"',
			],
			[
				'a group',
				{ 'impersonate-user': 'bob', 'impersonate-group': 'system:masters' },
				'groups "system:masters" is forbidden: User "jane" cannot impersonate resource "groups" in API group "" at the cluster scope',
			],
			[
				'a uid',
				{ 'impersonate-user': 'bob', 'impersonate-uid': '7' },
				'uids.authentication.k8s.io "7" is forbidden: User "jane" cannot impersonate resource "uids" in API group "authentication.k8s.io" at the cluster scope',
			],
			[
				'more about a user',
				{ 'impersonate-user': 'bob', 'impersonate-extra-example.com%2fscope': 'all' },
				'userextras.authentication.k8s.io "all" is forbidden: User "jane" cannot impersonate resource "userextras/example.com/scope" in API group "authentication.k8s.io" at the cluster scope',
			],
		]
		before(() =>
			grant('as-bob', [{ apiGroups: [''], resources: ['users'], resourceNames: ['bob'], verbs: ['impersonate'] }]),
		)
		for (const [name, headers, message] of cases) {
			test(`${name} needs the right to`, async () => {
				const { code, body } = await self(headers, jane)
				assert.deepEqual([code, body.message], [403, message])
			})
		}
		test('the one that is allowed', async () => {
			const { body } = await self({ 'impersonate-user': 'bob' }, jane)
			assert.deepEqual(body.status.userInfo, { username: 'bob', groups: ['system:authenticated'] })
		})
		test('all that an administrator says', async () => {
			const headers = {
				'impersonate-user': 'sam',
				'impersonate-group': 'a, b',
				'impersonate-extra-example.com%2fscope': 'x',
			}
			assert.deepEqual((await self(headers)).body.status.userInfo, {
				username: 'sam',
				groups: ['a', 'b', 'system:authenticated'],
				extra: { 'example.com/scope': ['x'] },
			})
		})
		test('nobody is no authenticated user', async () => {
			assert.equal((await self({ 'impersonate-user': 'system:anonymous' })).code, 403)
		})
		test('groups without a user make no sense', async () => {
			assert.equal((await self({ 'impersonate-group': 'a' })).code, 400)
			assert.equal((await self({ 'impersonate-group': 'system:masters' }, jane)).code, 400)
		})
	})

	describe('a token', () => {
		const path = (name: string) => `/api/v1/namespaces/default/serviceaccounts/${name}/token`
		const ask = (spec: object, name = 'web') => send('POST', path(name), { spec })
		before(async () => {
			for (const name of ['default', 'web'])
				await send('POST', '/api/v1/namespaces/default/serviceaccounts', { metadata: { name } })
			await send('POST', '/api/v1/nodes', { metadata: { name: 'node-1' } })
			const spec = { serviceAccountName: 'web', nodeName: 'node-1', containers: [{ name: 'a', image: 'a' }] }
			await send('POST', '/api/v1/namespaces/default/pods', { metadata: { name: 'p' }, spec })
		})
		test('for a pod says where it runs, and is for its account alone', async () => {
			const boundObjectRef = { kind: 'Pod', apiVersion: 'v1', name: 'p' }
			const { body } = await ask({ boundObjectRef, expirationSeconds: 3607 })
			const claims = JSON.parse(Buffer.from(body.status.token!.split('.')[1]!, 'base64url').toString())
			const own = claims['kubernetes.io']
			assert.deepEqual([own.pod.name, own.node.name, own.warnafter], ['p', 'node-1', now / 1000 + 3607])
			// Clients that never read it again must not fail.
			assert.equal(claims.exp - claims.iat, 365 * 86_400)
			const other = await ask({ boundObjectRef }, 'default')
			assert.equal(other.code, 400)
			assert.match(other.body.message!, /different serviceaccount name/)
		})
		const cases: readonly (readonly [string, object, number])[] = [
			['too short', { expirationSeconds: 599 }, 422],
			['too long', { expirationSeconds: 2 ** 32 + 1 }, 422],
			['for another pod of the name', { boundObjectRef: { kind: 'Pod', name: 'p', uid: 'x' } }, 409],
			['for no pod', { boundObjectRef: { kind: 'Pod', name: 'q' } }, 404],
			['for what it cannot be bound to', { boundObjectRef: { kind: 'Service', name: 'kubernetes' } }, 400],
			['for audiences that are no texts', { audiences: [7] }, 400],
			['for what is no object', { boundObjectRef: 'p' }, 400],
		]
		for (const [name, spec, code] of cases)
			test(`${name}: ${code}`, async () => assert.equal((await ask(spec)).code, code))
		test('only to who may ask', async () => {
			assert.equal((await send('POST', path('web'), { spec: {} }, jane)).code, 403)
		})
	})

	describe('a certificate', () => {
		const path = '/apis/certificates.k8s.io/v1/certificatesigningrequests'
		const usages = ['client auth', 'digital signature']
		async function pem(name: string, spoil = false): Promise<string> {
			const x509 = await loadX509()
			const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
			const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
			const request = await x509.Pkcs10CertificateRequestGenerator.create({ name, keys, signingAlgorithm: algorithm })
			const der = Buffer.from(request.rawData)
			if (spoil) der[der.length - 1]! ^= 1
			const text = `-----BEGIN CERTIFICATE REQUEST-----\n${der.toString('base64').replace(/.{64}/g, '$&\n')}\n-----END CERTIFICATE REQUEST-----\n`
			return Buffer.from(text).toString('base64')
		}
		const signerName = 'kubernetes.io/kube-apiserver-client'
		const make = async (name: string, spec: object, user?: User) =>
			send('POST', path, { metadata: { name }, spec }, user)
		async function approve(name: string, user?: User) {
			const { body } = await send('GET', `${path}/${name}`)
			const conditions = [{ type: 'Approved', status: 'True', reason: 'Test', message: '' }]
			return send('PUT', `${path}/${name}/approval`, { ...body, status: { conditions } }, user)
		}
		/** The request once there is nothing more to do about it. */
		async function outcome(name: string): Promise<Answer> {
			for (let i = 0; i < 1000; i++) {
				const { body } = await send('GET', `${path}/${name}`)
				const { status = {} } = body
				if (status.certificate !== undefined || status.conditions?.some((c) => c.type === 'Failed')) return body
				await new Promise(setImmediate)
			}
			assert.fail(`nothing became of ${name}`)
		}
		test('is for whom the request says, as long as it says, signed by the authority', async () => {
			const spec = {
				request: await pem('CN=nick,O=devs'),
				signerName,
				usages,
				expirationSeconds: 7200,
				username: 'root',
				groups: ['x'],
			}
			const { code, body } = await make('nick', spec)
			assert.equal(code, 201)
			assert.equal(body.spec.username, 'kubernetes-admin')
			assert.equal((await approve('nick')).code, 200)
			const certificate = new X509Certificate(Buffer.from((await outcome('nick')).status.certificate!, 'base64'))
			assert.ok(certificate.verify(new X509Certificate(certificates.authority.certificate).publicKey))
			assert.deepEqual(certificate.subject.split('\n').sort(), ['CN=nick', 'O=devs'])
			assert.equal(Date.parse(certificate.validTo), now + 7_200_000)
			assert.deepEqual(certificate.keyUsage, ['1.3.6.1.5.5.7.3.2'])
			assert.equal(certificate.ca, false)
		})
		test('needs two rights to be approved', async () => {
			await make('two', { request: await pem('CN=two'), signerName, usages })
			assert.match((await approve('two', jane)).body.message!, /certificatesigningrequests\/approval/)
			await grant('approval', [
				{ apiGroups: ['certificates.k8s.io'], resources: ['certificatesigningrequests/approval'], verbs: ['update'] },
			])
			assert.match((await approve('two', jane)).body.message!, /user not permitted to approve requests with signerName/)
			await grant('signers', [
				{
					apiGroups: ['certificates.k8s.io'],
					resources: ['signers'],
					resourceNames: ['kubernetes.io/*'],
					verbs: ['approve'],
				},
			])
			assert.equal((await approve('two', jane)).code, 200)
		})
		const failing: readonly (readonly [string, () => Promise<object>, RegExp])[] = [
			['who has not the key', async () => ({ request: await pem('CN=thief', true), usages }), /its own key|signature/],
			['who has no name', async () => ({ request: await pem('O=devs'), usages }), /no common name/],
			['a server', async () => ({ request: await pem('CN=s'), usages: ['client auth', 'server auth'] }), /server auth/],
			[
				'what is no request',
				async () => ({
					request: Buffer.from(
						'-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n',
					).toString('base64'),
					usages,
				}),
				/./,
			],
		]
		for (const [name, spec, why] of failing) {
			test(`is not signed for ${name}`, async () => {
				const key = name.replaceAll(/[^a-z]+/g, '-')
				assert.equal((await make(key, { signerName, ...(await spec()) })).code, 201)
				await approve(key)
				const failed = (await outcome(key)).status.conditions?.find((c) => c.type === 'Failed')
				assert.match(failed?.message ?? '', why)
			})
		}
		test('is not even asked for as an administrator, without a signer or in another form', async () => {
			const masters = { request: await pem('CN=x,O=system:masters'), signerName, usages }
			assert.equal((await make('masters', masters)).code, 403)
			assert.equal((await make('form', { ...masters, request: 'AAAA' })).code, 422)
			assert.equal((await make('signer', { ...masters, signerName: 'me' })).code, 422)
			assert.equal((await make('usages', { request: await pem('CN=x'), signerName })).code, 422)
			assert.equal(
				(await make('short', { request: await pem('CN=x'), signerName, usages, expirationSeconds: 60 })).code,
				422,
			)
		})
		test('of another signer stays with it', async () => {
			await make('other', { request: await pem('CN=x'), signerName: 'example.com/mine', usages })
			await approve('other')
			for (let i = 0; i < 20; i++) await new Promise(setImmediate)
			const { body } = await send('GET', `${path}/other`)
			assert.deepEqual([body.status.certificate, body.status.conditions?.length], [undefined, 1])
		})
	})
})
