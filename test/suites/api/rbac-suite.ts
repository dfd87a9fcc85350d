// What any Kubernetes API server must do about who may do what, as far as Podwire counts on it: roles and bindings,
// reviews, impersonation, ServiceAccount tokens. Written against a Transport alone, asked as an administrator.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { isFailure } from '../../../src/base/failure.ts'
import { createKubeClient, type KubeClient } from '../../../src/kube/client.ts'
import { namespaces } from '../../../src/kube/kinds.ts'
import type { Status } from '../../../src/kube/objects/meta.ts'
import type { SuiteTarget } from './suite.ts'

const group = 'rbac.authorization.k8s.io'

/** Declares the tests. `open` is called once, before the first. */
export function rbacSuite(name: string, open: () => Promise<SuiteTarget>): void {
	describe(`RBAC: ${name}`, () => {
		let target: SuiteTarget
		let client: KubeClient
		const namespace = `podwire-rbac-${Math.random().toString(36).slice(2, 8)}`
		const user = `${namespace}-jane`

		interface Answer {
			readonly code: number
			readonly body: Status & { readonly items?: readonly unknown[]; readonly rules?: readonly object[] }
			readonly status: Readonly<Record<string, unknown>>
		}
		/** As the administrator, or as who the headers say. */
		async function send(method: string, path: string, body?: object, as: Record<string, string> = {}): Promise<Answer> {
			const type = method === 'PATCH' ? 'application/merge-patch+json' : 'application/json'
			const response = await target.transport(
				new Request(`http://kubernetes${path}`, {
					method,
					headers: { 'content-type': type, ...as },
					...(body === undefined ? {} : { body: JSON.stringify(body) }),
				}),
			)
			const read = (await response.json()) as Answer['body'] & { status: Answer['status'] }
			return { code: response.status, body: read, status: read.status }
		}
		const jane = { 'impersonate-user': user }
		const rbac = (plural: string, n = '') =>
			`/apis/${group}/v1/namespaces/${namespace}/${plural}${n === '' ? '' : `/${n}`}`
		const at = (plural: string, n = '') => `/api/v1/namespaces/${namespace}/${plural}${n === '' ? '' : `/${n}`}`
		const role = (n: string, rules: readonly object[]) => send('POST', rbac('roles'), { metadata: { name: n }, rules })
		const bind = (n: string, kind: 'Role' | 'ClusterRole', roleName: string, subject: object) =>
			send('POST', rbac('rolebindings'), {
				metadata: { name: n },
				roleRef: { apiGroup: group, kind, name: roleName },
				subjects: [subject],
			})
		/** Authorizers of real clusters read their own copy, a moment behind. */
		async function eventually(check: () => Promise<boolean>): Promise<void> {
			for (let i = 0; i < 50; i++) {
				if (await check()) return
				await new Promise((resolve) => setTimeout(resolve, 50))
			}
			assert.fail('it did not come about')
		}

		before(async () => {
			target = await open()
			client = createKubeClient(target.transport, { fieldManager: 'podwire-suite' })
			await client.create(namespaces, { metadata: { name: namespace } })
			await send('POST', at('serviceaccounts'), { metadata: { name: 'web' } })
		})
		after(async () => {
			if (target === undefined) return
			await client.delete(namespaces, namespace)
			await target.close()
		})

		test('a user without roles may discover what there is, and ask about himself', async () => {
			for (const path of ['/api', '/apis', '/api/v1', '/apis/apps/v1', '/version']) {
				assert.equal((await send('GET', path, undefined, jane)).code, 200, path)
			}
			const list = await send('GET', at('pods'), undefined, jane)
			assert.equal(list.code, 403)
			assert.equal(list.body.reason, 'Forbidden')
			assert.deepEqual(list.body.details, { kind: 'pods' })
			assert.equal(
				list.body.message,
				`pods is forbidden: User "${user}" cannot list resource "pods" in API group "" in the namespace "${namespace}"`,
			)
			const scale = await send('GET', `/apis/apps/v1/namespaces/${namespace}/deployments/x/scale`, undefined, jane)
			assert.equal(
				scale.body.message,
				`deployments.apps "x" is forbidden: User "${user}" cannot get resource "deployments/scale" in API group "apps" in the namespace "${namespace}"`,
			)
			const path = await send('GET', '/metrics', undefined, jane)
			assert.equal(path.body.message, `forbidden: User "${user}" cannot get path "/metrics"`)
			const review = { apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' }
			const self = await send('POST', '/apis/authentication.k8s.io/v1/selfsubjectreviews', review, jane)
			assert.equal(self.code, 201)
			assert.deepEqual(self.status.userInfo, { username: user, groups: ['system:authenticated'] })
		})

		test('a role allows what it says, in its namespace', async () => {
			await role('reader', [{ apiGroups: [''], resources: ['configmaps'], verbs: ['get', 'list'] }])
			await bind('reader', 'Role', 'reader', { kind: 'User', apiGroup: group, name: user })
			await eventually(async () => (await send('GET', at('configmaps'), undefined, jane)).code === 200)
			assert.equal((await send('GET', at('secrets'), undefined, jane)).code, 403)
			assert.equal((await send('GET', '/api/v1/configmaps', undefined, jane)).code, 403)
			assert.equal((await send('GET', '/api/v1/namespaces/default/configmaps', undefined, jane)).code, 403)
			assert.equal((await send('POST', at('configmaps'), { metadata: { name: 'x' } }, jane)).code, 403)
			assert.equal((await send('GET', at('configmaps', 'nothing'), undefined, jane)).code, 404)
			const patch = { rules: [{ apiGroups: [''], resources: ['configmaps'], verbs: ['create'] }] }
			assert.equal((await send('PATCH', rbac('roles', 'reader'), patch)).code, 200)
			await eventually(async () => (await send('GET', at('configmaps'), undefined, jane)).code === 403)
			assert.equal((await send('POST', at('configmaps'), { metadata: { name: 'x' } }, jane)).code, 201)
			await send('DELETE', rbac('rolebindings', 'reader'))
			await eventually(
				async () => (await send('POST', at('configmaps'), { metadata: { name: 'y' } }, jane)).code === 403,
			)
		})

		test('resource names, subresources and lists by name', async () => {
			await role('named', [
				{
					apiGroups: [''],
					resources: ['configmaps'],
					resourceNames: ['a'],
					verbs: ['get', 'list', 'delete', 'deletecollection'],
				},
			])
			await bind('named', 'Role', 'named', { kind: 'Group', apiGroup: group, name: `${namespace}-ops` })
			for (const n of ['a', 'b']) await send('POST', at('configmaps'), { metadata: { name: n } })
			const ops = { ...jane, 'impersonate-group': `${namespace}-ops` }
			await eventually(async () => (await send('GET', at('configmaps', 'a'), undefined, ops)).code === 200)
			assert.equal((await send('GET', at('configmaps', 'b'), undefined, ops)).code, 403)
			assert.equal((await send('GET', at('configmaps'), undefined, ops)).code, 403)
			const one = await send('GET', `${at('configmaps')}?fieldSelector=metadata.name%3Da`, undefined, ops)
			assert.deepEqual([one.code, one.body.items?.length], [200, 1])
			assert.equal((await send('DELETE', at('configmaps'), undefined, ops)).code, 403)
		})

		test('reviews answer for others and for oneself', async () => {
			await bind('viewer', 'ClusterRole', 'view', { kind: 'ServiceAccount', name: 'web', namespace })
			const account = `system:serviceaccount:${namespace}:web`
			const resourceAttributes = { namespace, verb: 'list', resource: 'pods' }
			const ask = (kind: string, path: string, spec: object, as = {}) =>
				send('POST', `/apis/authorization.k8s.io/v1${path}`, { apiVersion: 'authorization.k8s.io/v1', kind, spec }, as)
			const other = (spec: object) => ask('SubjectAccessReview', '/subjectaccessreviews', { user: account, ...spec })
			await eventually(async () => (await other({ resourceAttributes })).status.allowed === true)
			const yes = await other({ resourceAttributes })
			assert.equal(
				yes.status.reason,
				`RBAC: allowed by RoleBinding "viewer/${namespace}" of ClusterRole "view" to ServiceAccount "web/${namespace}"`,
			)
			const no = await other({ resourceAttributes: { ...resourceAttributes, verb: 'delete' } })
			assert.equal(no.status.allowed, false)
			const path = await other({
				groups: ['system:authenticated'],
				nonResourceAttributes: { path: '/version', verb: 'get' },
			})
			assert.equal(path.status.allowed, true)
			assert.equal((await other({})).code, 422)
			assert.equal((await ask('SubjectAccessReview', '/subjectaccessreviews', { resourceAttributes })).code, 422)
			const own = { 'impersonate-user': account }
			const self = await ask('SelfSubjectAccessReview', '/selfsubjectaccessreviews', { resourceAttributes }, own)
			assert.deepEqual([self.code, self.status.allowed], [201, true])
			assert.equal(
				(await ask('SubjectAccessReview', '/subjectaccessreviews', { user: 'x', resourceAttributes }, own)).code,
				403,
			)
			const local = `/namespaces/${namespace}/localsubjectaccessreviews`
			const here = { apiVersion: 'authorization.k8s.io/v1', kind: 'LocalSubjectAccessReview', metadata: { namespace } }
			const asked = await send('POST', `/apis/authorization.k8s.io/v1${local}`, {
				...here,
				spec: { user: account, resourceAttributes },
			})
			assert.equal(asked.status.allowed, true)
			const elsewhere = { user: account, resourceAttributes: { ...resourceAttributes, namespace: 'default' } }
			assert.equal(
				(await send('POST', `/apis/authorization.k8s.io/v1${local}`, { ...here, spec: elsewhere })).code,
				422,
			)
			const rules = await ask('SelfSubjectRulesReview', '/selfsubjectrulesreviews', { namespace }, own)
			const found = rules.status.resourceRules as readonly { resources: readonly string[]; verbs: readonly string[] }[]
			assert.ok(found.some((r) => r.resources.includes('pods') && r.verbs.includes('list')))
			assert.ok(!found.some((r) => r.resources.includes('secrets')))
		})

		test('nobody gives away what he does not have', async () => {
			await bind('owner', 'ClusterRole', 'admin', { kind: 'User', apiGroup: group, name: user })
			const rules = (verbs: readonly string[]) => [{ apiGroups: [''], resources: ['nodes'], verbs }]
			await eventually(async () => (await send('GET', rbac('roles'), undefined, jane)).code === 200)
			const refused = await send('POST', rbac('roles'), { metadata: { name: 'big' }, rules: rules(['get']) }, jane)
			assert.equal(refused.code, 403)
			assert.equal(
				refused.body.message,
				`roles.${group} "big" is forbidden: user "${user}" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[""], Resources:["nodes"], Verbs:["get"]}`,
			)
			const root = {
				metadata: { name: 'root' },
				roleRef: { apiGroup: group, kind: 'ClusterRole', name: 'cluster-admin' },
				subjects: [{ kind: 'User', apiGroup: group, name: user }],
			}
			assert.equal((await send('POST', rbac('rolebindings'), root, jane)).code, 403)
			const missing = { ...root, roleRef: { ...root.roleRef, name: `${namespace}-gone` } }
			assert.equal((await send('POST', rbac('rolebindings'), missing, jane)).code, 404)
			const view = { ...root, metadata: { name: 'more' }, roleRef: { ...root.roleRef, name: 'view' } }
			assert.equal((await send('POST', rbac('rolebindings'), view, jane)).code, 201)
			const change = { roleRef: { ...root.roleRef, name: 'edit' } }
			assert.equal((await send('PATCH', rbac('rolebindings', 'more'), change, jane)).code, 422)
		})

		test('who acts as another has his groups', async () => {
			const account = { 'impersonate-user': `system:serviceaccount:${namespace}:web` }
			const groups = await send('GET', at('pods'), undefined, { 'impersonate-user': user, 'impersonate-group': 'a, b' })
			assert.equal(groups.code, 200)
			const review = { apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' }
			const self = await send('POST', '/apis/authentication.k8s.io/v1/selfsubjectreviews', review, account)
			const info = self.status.userInfo as { groups: readonly string[] }
			assert.deepEqual(info.groups, [
				'system:serviceaccounts',
				`system:serviceaccounts:${namespace}`,
				'system:authenticated',
			])
		})

		test('a token is a user; an expired, foreign or changed one is nobody', async () => {
			const path = at('serviceaccounts', 'web/token')
			const type = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest' }
			const made = await send('POST', path, { ...type, spec: { audiences: ['podwire-suite'], expirationSeconds: 900 } })
			assert.equal(made.code, 201)
			const { token, expirationTimestamp } = made.status as { token: string; expirationTimestamp: string }
			assert.match(expirationTimestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
			const review = (spec: object) =>
				send('POST', '/apis/authentication.k8s.io/v1/tokenreviews', {
					apiVersion: type.apiVersion,
					kind: 'TokenReview',
					spec,
				})
			const good = await review({ token, audiences: ['podwire-suite', 'other'] })
			assert.equal(good.status.authenticated, true)
			assert.deepEqual(good.status.audiences, ['podwire-suite'])
			const { username, groups } = good.status.user as { username: string; groups: readonly string[] }
			assert.equal(username, `system:serviceaccount:${namespace}:web`)
			assert.ok(groups.includes(`system:serviceaccounts:${namespace}`))
			assert.notEqual((await review({ token })).status.authenticated, true)
			assert.notEqual(
				(await review({ token: `${token.slice(0, -8)}AAAAAAAA`, audiences: ['podwire-suite'] })).status.authenticated,
				true,
			)
			assert.equal((await send('POST', path, { ...type, spec: { expirationSeconds: 60 } })).code, 422)
			assert.equal((await send('POST', at('serviceaccounts', 'nobody/token'), { ...type, spec: {} })).code, 404)
			const bound = { kind: 'Pod', apiVersion: 'v1', name: 'nothing' }
			assert.equal((await send('POST', path, { ...type, spec: { boundObjectRef: bound } })).code, 404)
			await send('DELETE', at('serviceaccounts', 'web'))
			await eventually(
				async () => (await review({ token, audiences: ['podwire-suite'] })).status.authenticated !== true,
			)
		})

		test('roles gather others', async () => {
			const label = `${namespace}/gather`
			const path = `/apis/${group}/v1/clusterroles`
			const names = [`${namespace}-all`, `${namespace}-part`] as const
			const rules = [{ apiGroups: ['example.com'], resources: ['gadgets'], verbs: ['get'] }]
			try {
				await send('POST', path, {
					metadata: { name: names[0] },
					aggregationRule: { clusterRoleSelectors: [{ matchLabels: { [label]: 'yes' } }] },
				})
				await send('POST', path, { metadata: { name: names[1], labels: { [label]: 'yes' } }, rules })
				await eventually(async () => (await send('GET', `${path}/${names[0]}`)).body.rules?.length === 1)
				assert.deepEqual((await send('GET', `${path}/${names[0]}`)).body.rules, rules)
				await send('DELETE', `${path}/${names[1]}`)
				await eventually(async () => ((await send('GET', `${path}/${names[0]}`)).body.rules ?? []).length === 0)
			} finally {
				for (const n of names) await send('DELETE', `${path}/${n}`)
			}
		})

		test('what refuses is a Failure with its code', async () => {
			const transport: typeof target.transport = (request) => {
				request.headers.set('impersonate-user', `${user}-2`)
				return target.transport(request)
			}
			const other = createKubeClient(transport)
			await assert.rejects(other.list(namespaces), (e) => isFailure(e, 'Forbidden'))
		})
	})
}
