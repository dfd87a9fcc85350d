import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { readPath } from '../route.ts'
import { attributesOf, denied, type ResourceAttributes } from './attributes.ts'
import { allows, compact, missing, type Rule, writeRule } from './rules.ts'

const ask = (verb: string, what: string, more: Partial<ResourceAttributes> = {}): ResourceAttributes => {
	const [resource = '', subresource = ''] = what.split('/')
	return { verb, group: '', resource, subresource, name: '', namespace: 'shop', ...more }
}
const rule = (more: Partial<Rule>): Rule => ({ verbs: ['get'], apiGroups: [''], resources: ['pods'], ...more })

describe('what a rule allows', () => {
	const cases: readonly (readonly [string, Rule, ResourceAttributes | { verb: string; path: string }, boolean])[] = [
		['the verb on the resource', rule({}), ask('get', 'pods'), true],
		['no other verb', rule({}), ask('list', 'pods'), false],
		['no other resource', rule({}), ask('get', 'services'), false],
		['no other group', rule({}), ask('get', 'pods', { group: 'metrics.k8s.io' }), false],
		['no subresource', rule({}), ask('get', 'pods/log'), false],
		['a subresource by name', rule({ resources: ['pods/log'] }), ask('get', 'pods/log'), true],
		['not the object of a subresource', rule({ resources: ['pods/log'] }), ask('get', 'pods'), false],
		['a subresource of all', rule({ resources: ['*/scale'] }), ask('get', 'deployments/scale'), true],
		['only this subresource of all', rule({ resources: ['*/scale'] }), ask('get', 'deployments/status'), false],
		['all resources with their subresources', rule({ resources: ['*'] }), ask('get', 'pods/exec'), true],
		['all verbs', rule({ verbs: ['*'] }), ask('approve', 'pods'), true],
		['all groups', rule({ apiGroups: ['*'] }), ask('get', 'pods', { group: 'x' }), true],
		['a name', rule({ resourceNames: ['a', 'b'] }), ask('get', 'pods', { name: 'b' }), true],
		['no other name', rule({ resourceNames: ['a'] }), ask('get', 'pods', { name: 'c' }), false],
		['no list of all, with names', rule({ verbs: ['list'], resourceNames: ['a'] }), ask('list', 'pods'), false],
		['a path', { verbs: ['get'], nonResourceURLs: ['/version'] }, { verb: 'get', path: '/version' }, true],
		['no path below it', { verbs: ['get'], nonResourceURLs: ['/version'] }, { verb: 'get', path: '/version/x' }, false],
		['paths below a star', { verbs: ['get'], nonResourceURLs: ['/api/*'] }, { verb: 'get', path: '/api/v1' }, true],
		[
			'not what stands before it',
			{ verbs: ['get'], nonResourceURLs: ['/api/*'] },
			{ verb: 'get', path: '/api' },
			false,
		],
		['paths are not resources', { verbs: ['*'], nonResourceURLs: ['*'] }, ask('get', 'pods'), false],
		['resources are not paths', rule({ verbs: ['*'], resources: ['*'] }), { verb: 'get', path: '/version' }, false],
	]
	for (const [name, one, attributes, expected] of cases) {
		test(name, () => assert.equal(allows(one, attributes), expected))
	}
})

describe('what a request asks for', () => {
	const read = (method: string, url: string) => {
		const [path = '', query = ''] = url.split('?')
		return attributesOf(method, path, readPath(path), new URLSearchParams(query))
	}
	const cases: readonly (readonly [string, string, object])[] = [
		['GET', '/api/v1/namespaces/shop/pods', ask('list', 'pods')],
		['HEAD', '/api/v1/namespaces/shop/pods', ask('list', 'pods')],
		['GET', '/api/v1/namespaces/shop/pods/web', ask('get', 'pods', { name: 'web' })],
		['GET', '/api/v1/pods?watch=1', ask('watch', 'pods', { namespace: '' })],
		['GET', '/api/v1/pods?watch=false', ask('list', 'pods', { namespace: '' })],
		['GET', '/api/v1/namespaces/shop/pods?fieldSelector=metadata.name%3Dweb', ask('list', 'pods', { name: 'web' })],
		['GET', '/api/v1/namespaces/shop/pods?fieldSelector=metadata.name!%3Dweb', ask('list', 'pods')],
		['GET', '/api/v1/namespaces/shop/pods?fieldSelector=%3D%3D%3Dmetadata.name', ask('list', 'pods')],
		['POST', '/api/v1/namespaces/shop/pods', ask('create', 'pods')],
		['POST', '/api/v1/namespaces/shop/pods/web/exec', ask('create', 'pods/exec', { name: 'web' })],
		['GET', '/api/v1/namespaces/shop/pods/web/log?watch=true', ask('get', 'pods/log', { name: 'web' })],
		['PUT', '/api/v1/namespaces/shop/pods/web/status', ask('update', 'pods/status', { name: 'web' })],
		[
			'PATCH',
			'/apis/apps/v1/namespaces/shop/deployments/web',
			ask('patch', 'deployments', { name: 'web', group: 'apps' }),
		],
		['DELETE', '/api/v1/namespaces/shop/pods/web', ask('delete', 'pods', { name: 'web' })],
		['DELETE', '/api/v1/namespaces/shop/pods?fieldSelector=metadata.name%3Dweb', ask('deletecollection', 'pods')],
		['GET', '/api/v1/namespaces/shop', ask('get', 'namespaces', { name: 'shop' })],
		['PUT', '/api/v1/namespaces/shop/finalize', ask('update', 'namespaces/finalize', { name: 'shop' })],
		['GET', '/api/v1/namespaces', ask('list', 'namespaces', { namespace: '' })],
		['GET', '/api/v1', { verb: 'get', path: '/api/v1' }],
		['GET', '/apis/apps', { verb: 'get', path: '/apis/apps' }],
		['POST', '/version', { verb: 'post', path: '/version' }],
	]
	for (const [method, url, expected] of cases)
		test(`${method} ${url}`, () => assert.deepEqual(read(method, url), expected))

	test('refusals say it as users know it', () => {
		const user = { name: 'jane', groups: [] }
		const said = (attributes: Parameters<typeof denied>[1], reason = '') => denied(user, attributes, reason).status
		assert.equal(
			said(ask('list', 'pods')).message,
			'pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "shop"',
		)
		const one = said(ask('get', 'deployments/scale', { group: 'apps', name: 'web', namespace: '' }), 'RBAC: no')
		assert.equal(
			one.message,
			'deployments.apps "web" is forbidden: User "jane" cannot get resource "deployments/scale" in API group "apps" at the cluster scope: RBAC: no',
		)
		assert.deepEqual(one.details, { name: 'web', group: 'apps', kind: 'deployments' })
		assert.equal(said({ verb: 'get', path: '/' }).message, 'forbidden: User "jane" cannot get path "/"')
	})
})

const words = (values: readonly string[]) => fc.uniqueArray(fc.constantFrom(...values), { minLength: 1, maxLength: 3 })
const groups = words(['', 'apps', '*'])
const resources = words(['pods', 'pods/log', 'deployments', '*/log', '*'])
const verbs = words(['get', 'list', 'create', '*'])
const names = fc.oneof(fc.constant([] as string[]), words(['a', 'b']))
const anyRule: fc.Arbitrary<Rule> = fc.oneof(
	fc.record({ apiGroups: groups, resources, verbs, resourceNames: names }),
	fc.record({ nonResourceURLs: words(['/version', '/api/*', '*', '/api']), verbs }),
)
const anyQuestion = fc.oneof(
	fc.record({
		verb: fc.constantFrom('get', 'list', 'create', 'bind'),
		group: fc.constantFrom('', 'apps', 'x'),
		resource: fc.constantFrom('pods', 'deployments', 'nodes'),
		subresource: fc.constantFrom('', 'log', 'exec'),
		name: fc.constantFrom('', 'a', 'c'),
		namespace: fc.constant('shop'),
	}),
	fc.record({ verb: fc.constantFrom('get', 'create'), path: fc.constantFrom('/version', '/api', '/api/v1', '/x') }),
)

describe('what somebody lacks', () => {
	test('who lacks nothing of some rules is allowed all they allow', () => {
		fc.assert(
			fc.property(
				fc.array(anyRule, { maxLength: 4 }),
				fc.array(anyRule, { maxLength: 3 }),
				anyQuestion,
				(own, wanted, question) => {
					if (missing(own, wanted)!.length > 0) return
					if (wanted.some((r) => allows(r, question))) assert.ok(own.some((r) => allows(r, question)))
				},
			),
			{ numRuns: 5000 },
		)
	})
	test('with what was missing nothing is', () => {
		fc.assert(
			fc.property(fc.array(anyRule, { maxLength: 3 }), fc.array(anyRule, { maxLength: 3 }), (own, wanted) => {
				const lacking = missing(own, wanted)!
				assert.deepEqual(missing([...own, ...lacking], wanted), [])
				assert.deepEqual(missing([...own, ...compact(lacking)], wanted), [])
			}),
		)
	})
	test('it is told by verb', () => {
		const wanted = rule({ resources: ['pods', 'nodes'], verbs: ['get', 'list'] })
		assert.deepEqual(compact(missing([rule({})], [wanted])!).map(writeRule), [
			'{APIGroups:[""], Resources:["pods"], Verbs:["list"]}',
			'{APIGroups:[""], Resources:["nodes"], Verbs:["get" "list"]}',
		])
	})
	test('a product of long lists is not counted out', () => {
		const many = Array.from({ length: 2000 }, (_, i) => `x${i}`)
		assert.equal(missing([rule({})], [rule({ apiGroups: many, resources: many, verbs: many })]), undefined)
	})
})
