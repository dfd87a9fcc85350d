// The index of bindings against reading all of them anew, whatever is written in between.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { createManualClock } from '../../base/manual-clock.ts'
import type { User } from '../api.ts'
import { createApiServer } from '../server.ts'
import { createStore } from '../store.ts'
import { type Binding, createAuthorizer, type Role, rbacGroup, storages } from './rbac.ts'
import { wantedRoles } from './reconcile.ts'
import type { Rule } from './rules.ts'

const group = `/apis/${rbacGroup}/v1`

/** Of what is answered the fields looked at. */
interface Answer {
	readonly message?: string
	readonly metadata: Role['metadata']
	readonly rules?: readonly Rule[]
	readonly subjects?: Binding['subjects']
}

async function start() {
	const store = createStore()
	const clock = createManualClock(Date.parse('2026-01-02T03:04:05Z'))
	const faults: unknown[] = []
	const server = await createApiServer({ store, clock, onFault: (e) => faults.push(e) })
	const send = async (method: string, path: string, body?: object, user?: User) => {
		const request = new Request(`http://x${path}`, {
			method,
			headers: { 'content-type': method === 'PATCH' ? 'application/merge-patch+json' : 'application/json' },
			...(body === undefined ? {} : { body: JSON.stringify(body) }),
		})
		const response = await (user === undefined ? server.transport(request) : server.handle(request, user))
		return { code: response.status, body: (await response.json()) as Answer }
	}
	return { store, clock, server, send, faults }
}

const roleRef = (name: string, kind = 'ClusterRole') => ({ apiGroup: rbacGroup, kind, name })
const jane: User = { name: 'jane', groups: ['system:authenticated'] }

describe('the index', () => {
	const users: readonly User[] = [
		{ name: 'u0', groups: ['system:authenticated'] },
		{ name: 'u1', groups: ['g0', 'system:authenticated'] },
		{ name: 'system:serviceaccount:n0:a', groups: ['system:serviceaccounts', 'system:serviceaccounts:n0'] },
	]
	const subjects = [
		{ kind: 'User', name: 'u0', apiGroup: rbacGroup },
		{ kind: 'User', name: 'u1', apiGroup: rbacGroup },
		{ kind: 'Group', name: 'g0', apiGroup: rbacGroup },
		{ kind: 'ServiceAccount', name: 'a', namespace: 'n0' },
		{ kind: 'Group', name: 'system:serviceaccounts', apiGroup: rbacGroup },
	]
	const step = fc.record({
		what: fc.constantFrom('put', 'put', 'put', 'remove', 'role'),
		namespace: fc.constantFrom('', 'n0', 'n1'),
		name: fc.constantFrom('b0', 'b1', 'b2'),
		role: fc.constantFrom('r0', 'r1'),
		subjects: fc.uniqueArray(fc.constantFrom(...subjects), { maxLength: 3 }),
		resource: fc.constantFrom('pods', 'services'),
	})
	test('answers as one made anew', async () => {
		await fc.assert(
			fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25 }), async (steps) => {
				const store = createStore()
				const kept = createAuthorizer(store)
				for (const { what, namespace, name, role, subjects, resource } of steps) {
					const metadata = { name, ...(namespace === '' ? {} : { namespace }) }
					if (what === 'role') {
						const rules = [{ apiGroups: [''], resources: [resource], verbs: ['get'] }]
						const object = { apiVersion: 'v1', kind: 'ClusterRole', metadata: { name: role }, rules }
						await store.put(storages.clusterRoles, role, object, store.get(storages.clusterRoles, role)).kept
						continue
					}
					const storage = namespace === '' ? storages.clusterRoleBindings : storages.roleBindings
					const key = namespace === '' ? name : `${namespace}/${name}`
					const before = store.get(storage, key)
					const object = { apiVersion: 'v1', kind: 'B', metadata, roleRef: roleRef(role), subjects }
					if (what === 'put') await store.put(storage, key, object, before).kept
					else if (before !== undefined) await store.remove(before).kept
				}
				const anew = createAuthorizer(store)
				for (const user of users) {
					for (const namespace of ['', 'n0', 'n1']) {
						for (const resource of ['pods', 'services']) {
							const ask = { verb: 'get', group: '', resource, subresource: '', name: '', namespace }
							assert.equal(kept.decide(user, ask).allowed, anew.decide(user, ask).allowed)
						}
						const sorted = (a: ReturnType<typeof createAuthorizer>) =>
							a
								.rulesOf(user, namespace)
								.rules.map((r) => JSON.stringify(r))
								.sort()
						assert.deepEqual(sorted(kept), sorted(anew))
					}
				}
			}),
			{ numRuns: 200 },
		)
	})
})

describe('bindings', () => {
	const cases: readonly (readonly [string, object, User, string, boolean])[] = [
		['a user', { kind: 'User', name: 'jane', apiGroup: rbacGroup }, jane, 'n', true],
		['in no other namespace', { kind: 'User', name: 'jane', apiGroup: rbacGroup }, jane, 'default', false],
		['a group', { kind: 'Group', name: 'system:authenticated', apiGroup: rbacGroup }, jane, 'n', true],
		['a group is no user', { kind: 'Group', name: 'jane', apiGroup: rbacGroup }, jane, 'n', false],
		[
			'a ServiceAccount, of the namespace of the binding where none is said',
			{ kind: 'ServiceAccount', name: 'web' },
			{ name: 'system:serviceaccount:n:web', groups: [] },
			'n',
			true,
		],
		[
			'a ServiceAccount of another namespace',
			{ kind: 'ServiceAccount', name: 'web', namespace: 'm' },
			{ name: 'system:serviceaccount:m:web', groups: [] },
			'n',
			true,
		],
		['a ServiceAccount is not its name', { kind: 'ServiceAccount', name: 'jane', namespace: 'n' }, jane, 'n', false],
	]
	for (const [name, subject, user, namespace, expected] of cases) {
		test(name, async () => {
			const { send } = await start()
			await send('POST', '/api/v1/namespaces', { metadata: { name: 'n' } })
			const binding = { metadata: { name: 'b' }, roleRef: roleRef('view'), subjects: [subject] }
			assert.equal((await send('POST', `${group}/namespaces/n/rolebindings`, binding)).code, 201)
			const { code } = await send('GET', `/api/v1/namespaces/${namespace}/pods`, undefined, user)
			assert.equal(code, expected ? 200 : 403)
		})
	}
})

describe('default roles', () => {
	test('are there after the start, and what was taken from them comes back with the next', async () => {
		const { store, clock, send, server } = await start()
		for (const role of wantedRoles()) {
			const { body } = await send('GET', `${group}/clusterroles/${role.metadata.name}`)
			assert.deepEqual([body.metadata.name, body.rules ?? []], [role.metadata.name, role.rules])
		}
		const view = wantedRoles().find((role) => role.metadata.name === 'view')
		assert.ok((view?.rules ?? []).length > 8)
		const at = async (what: string, name: string) => (await send('GET', `${group}/${what}/${name}`)).body
		const discovery = await at('clusterroles', 'system:discovery')
		const own = { nonResourceURLs: ['/mine'], verbs: ['get'] }
		await send('PUT', `${group}/clusterroles/system:discovery`, { ...discovery, rules: [own] })
		const basic = await at('clusterroles', 'system:basic-user')
		const annotations = { 'rbac.authorization.kubernetes.io/autoupdate': 'false' }
		await send('PUT', `${group}/clusterroles/system:basic-user`, {
			...basic,
			metadata: { ...basic.metadata, annotations },
			rules: [],
		})
		await send('DELETE', `${group}/clusterrolebindings/system:discovery`)
		const binding = await at('clusterrolebindings', 'system:basic-user')
		const ann = { kind: 'User', apiGroup: rbacGroup, name: 'ann' }
		await send('PUT', `${group}/clusterrolebindings/system:basic-user`, { ...binding, subjects: [ann] })
		server.close()
		const again = await createApiServer({ store, clock })
		assert.deepEqual((await at('clusterroles', 'system:discovery')).rules?.[0], own)
		assert.equal(
			(await at('clusterroles', 'system:discovery')).rules?.length,
			1 + (discovery.rules?.[0]?.nonResourceURLs?.length ?? 0),
		)
		assert.equal((await at('clusterroles', 'system:basic-user')).rules?.length ?? 0, 0)
		assert.equal((await at('clusterrolebindings', 'system:discovery')).subjects?.length, 1)
		assert.deepEqual((await at('clusterrolebindings', 'system:basic-user')).subjects, [
			ann,
			...(binding.subjects ?? []),
		])
		again.close()
		const revision = store.revision
		;(await createApiServer({ store, clock })).close()
		assert.equal(store.revision, revision)
	})

	test('without a gathering role the server starts, too; roles that gather one another come to rest', async () => {
		const { store, clock, send, server, faults } = await start()
		for (const name of ['view', 'edit', 'admin']) {
			await send('PATCH', `${group}/clusterroles/${name}`, {
				metadata: { annotations: { 'rbac.authorization.kubernetes.io/autoupdate': 'false' } },
				aggregationRule: null,
			})
		}
		server.close()
		const again = await createApiServer({ store, clock, onFault: (e) => faults.push(e) })
		for (const [name, other] of [
			['x', 'y'],
			['y', 'z'],
			['z', 'x'],
		] as const) {
			await send('POST', `${group}/clusterroles`, {
				metadata: { name, labels: { [name]: '1' } },
				aggregationRule: { clusterRoleSelectors: [{ matchLabels: { [other]: '1' } }, { matchLabels: { all: '1' } }] },
			})
		}
		const rules = [{ apiGroups: [''], resources: ['pods'], verbs: ['get'] }]
		await send('POST', `${group}/clusterroles`, { metadata: { name: 'w', labels: { all: '1' } }, rules })
		for (let i = 0; i < 100; i++) await new Promise(setImmediate)
		const last = store.revision
		for (let i = 0; i < 20; i++) await new Promise(setImmediate)
		assert.equal(store.revision, last)
		for (const name of ['x', 'y', 'z'])
			assert.deepEqual((await send('GET', `${group}/clusterroles/${name}`)).body.rules, rules)
		assert.deepEqual(faults, [])
		again.close()
	})
})

describe('escalation', () => {
	const everything = [{ apiGroups: ['*'], resources: ['*'], verbs: ['*'] }]
	async function withOwner() {
		const world = await start()
		const subjects = [{ kind: 'User', name: 'jane', apiGroup: rbacGroup }]
		await world.send('POST', `${group}/namespaces/default/rolebindings`, {
			metadata: { name: 'o' },
			roleRef: roleRef('admin'),
			subjects,
		})
		const rules = [{ apiGroups: [rbacGroup], resources: ['*'], verbs: ['create', 'get', 'update', 'patch', 'list'] }]
		await world.send('POST', `${group}/clusterroles`, { metadata: { name: 'rbac' }, rules })
		await world.send('POST', `${group}/clusterrolebindings`, {
			metadata: { name: 'o' },
			roleRef: roleRef('rbac'),
			subjects,
		})
		return world
	}
	const roles = `${group}/namespaces/default/roles`

	test('by create, update, patch and apply of a role', async () => {
		const { send } = await withOwner()
		const small = { metadata: { name: 'r' }, rules: [{ apiGroups: [''], resources: ['pods'], verbs: ['get'] }] }
		assert.equal((await send('POST', roles, { metadata: { name: 'r' }, rules: everything }, jane)).code, 403)
		assert.equal((await send('POST', roles, small, jane)).code, 201)
		assert.equal((await send('PUT', `${roles}/r`, { ...small, rules: everything }, jane)).code, 403)
		assert.equal((await send('PATCH', `${roles}/r`, { rules: everything }, jane)).code, 403)
		assert.equal((await send('PATCH', `${roles}/r`, { metadata: { labels: { a: 'b' } } }, jane)).code, 200)
	})
	test('by what a role gathers', async () => {
		const { send } = await withOwner()
		const role = { metadata: { name: 'all' }, aggregationRule: { clusterRoleSelectors: [{ matchLabels: { a: 'b' } }] } }
		const { code, body } = await send('POST', `${group}/clusterroles`, role, jane)
		assert.equal(code, 403)
		assert.equal(
			body.message,
			'clusterroles.rbac.authorization.k8s.io "all" is forbidden: must have cluster-admin privileges to use the aggregationRule',
		)
	})
	test('by a binding, of one role or of another by update', async () => {
		const { send } = await withOwner()
		const bindings = `${group}/clusterrolebindings`
		const subjects = [{ kind: 'User', name: 'jane', apiGroup: rbacGroup }]
		const root = { metadata: { name: 'b' }, roleRef: roleRef('cluster-admin'), subjects }
		assert.equal((await send('POST', bindings, root, jane)).code, 403)
		assert.equal((await send('POST', bindings, { ...root, roleRef: roleRef('rbac') }, jane)).code, 201)
		await send('POST', bindings, { ...root, metadata: { name: 'c' }, subjects: [] })
		assert.equal((await send('PATCH', `${bindings}/c`, { subjects }, jane)).code, 403)
		// Nobody gains by what garbage collection writes.
		assert.equal((await send('PATCH', `${bindings}/c`, { metadata: { finalizers: ['a/b'] } }, jane)).code, 200)
		assert.equal(
			(
				await send(
					'POST',
					bindings,
					{ ...root, metadata: { name: 'd' }, roleRef: { kind: 'Nonsense', name: 'x' } },
					jane,
				)
			).code,
			422,
		)
	})
})
