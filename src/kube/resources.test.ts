import assert from 'node:assert/strict'
import { test } from 'node:test'
import { apiVersionOf, findResource, resourceOf, resourcePath, resources } from './resources.ts'

test('every row is found by its kind and by its plural, and no two share a name', () => {
	const seen = new Set<string>()
	for (const r of resources) {
		assert.equal(findResource({ apiVersion: apiVersionOf(r), kind: r.kind }), r)
		assert.equal(findResource(r), r)
		for (const name of [r.plural, ...r.shortNames]) {
			const full = `${r.group}/${name}`
			assert.ok(!seen.has(full), full)
			seen.add(full)
		}
	}
})

test('paths', () => {
	const pods = resourceOf('v1', 'Pod')
	const nodes = resourceOf('v1', 'Node')
	const deployments = resourceOf('apps/v1', 'Deployment')
	const table: [string, string][] = [
		[resourcePath(pods), '/api/v1/pods'],
		[resourcePath(pods, { namespace: 'a' }), '/api/v1/namespaces/a/pods'],
		[resourcePath(pods, { namespace: 'a', name: 'b', subresource: 'status' }), '/api/v1/namespaces/a/pods/b/status'],
		[resourcePath(nodes, { namespace: 'a', name: 'n' }), '/api/v1/nodes/n'],
		[resourcePath(deployments, { namespace: 'a' }), '/apis/apps/v1/namespaces/a/deployments'],
		[resourcePath(pods, { namespace: '../x', name: 'a?b' }), '/api/v1/namespaces/..%2Fx/pods/a%3Fb'],
	]
	for (const [got, want] of table) assert.equal(got, want)
})

test('an unknown kind is undefined', () => {
	assert.equal(findResource({ apiVersion: 'v1', kind: 'Deployment' }), undefined)
	assert.throws(() => resourceOf('v2', 'Pod'), /kind Pod in v2/)
})
