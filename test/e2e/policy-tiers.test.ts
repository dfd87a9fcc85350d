// Policies of custom kinds: on paper the model has them while their definition is there, and a cluster without one is
// whole; in the kernel they decide about packets, and the three witnesses agree.

import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { createKubeClient } from '../../src/kube/client.ts'
import type { Kind } from '../../src/kube/kinds.ts'
import { parseManifests } from '../../src/kube/manifests.ts'
import type { ClusterNetworkPolicy } from '../../src/kube/objects/network-policy-api.ts'
import { resourceOf } from '../../src/kube/resources.ts'
import { createPaperCluster } from '../../src/lab/paper.ts'
import { customKinds } from '../../src/model/state.ts'
import { makeHome, reasonToSkip } from './support/home.ts'
import { root, until } from './support/run.ts'

const file = new URL('../../../shared/data/crds/cluster-network-policy-v1alpha2.yaml', import.meta.url).pathname
const skip = existsSync(file) ? false : 'the data folder is not here'

test('the view follows ClusterNetworkPolicies while their definition is there', { skip, timeout: 60_000 }, async () => {
	const cluster = await createPaperCluster({ nodes: 1 })
	try {
		await cluster.settle()
		assert.equal(cluster.model.tieredPolicies.size, 0)
		const client = createKubeClient(cluster.transport)
		const definition = parseManifests(readFileSync(file, 'utf8'), file).objects[0]!.object
		const definitions = resourceOf('apiextensions.k8s.io/v1', 'CustomResourceDefinition')
		await client.create(definitions as Kind, definition)
		await cluster.settle()
		const kind = customKinds.find((k) => k.kind === 'ClusterNetworkPolicy')! as Kind as Kind<ClusterNetworkPolicy>
		await client.create(kind, {
			apiVersion: 'policy.networking.k8s.io/v1alpha2',
			kind: 'ClusterNetworkPolicy',
			metadata: { name: 'closed' },
			spec: {
				tier: 'Baseline',
				priority: 5,
				subject: { namespaces: {} },
				ingress: [{ name: 'all', action: 'Deny', from: [{ namespaces: {} }] }],
			},
		})
		await cluster.settle()
		const policy = cluster.model.tieredPolicies.get('ClusterNetworkPolicy closed')
		assert.deepEqual([policy?.tier, policy?.priority, policy?.ingress.map((r) => r.action)], ['Baseline', 5, ['Deny']])

		await client.delete(definitions as Kind, definition.metadata.name)
		// The definition goes once its objects have gone; the time limit of the test is that of the wait.
		while (cluster.model.tieredPolicies.size > 0) await new Promise((resolve) => setImmediate(resolve))
		assert.equal(cluster.state.clusterNetworkPolicies.size, 0)
	} finally {
		await cluster.close()
	}
})

test('a ClusterNetworkPolicy decides in the kernel, and every witness says so', {
	skip: skip || reasonToSkip('kubectl'),
	timeout: 120_000,
}, async () => {
	const home = makeHome()
	try {
		await home.up('-f', join(root, 'examples/shop'))
		await home.ask('apply', '-f', file)
		await home.ask('wait', '--for=condition=Established', 'crd', '--all', '--timeout=20s')
		const policy = home.write(
			'policy.yaml',
			`apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: no-db-to-api}
spec:
  tier: Admin
  priority: 10
  subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: api}}}}
  ingress:
    - name: not-from-db
      action: Deny
      from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}}]
`,
		)
		const asked = async (from: string) => {
			const ran = await home.podwire(['trace', '-n', 'shop', from, 'api:80', '-o', 'json'])
			return JSON.parse(ran.stdout).items.map((r: { disposition: string; disagreement?: { text: string } }) => {
				assert.equal(r.disagreement, undefined, `${from}: ${r.disagreement?.text}`)
				return r.disposition
			})
		}
		assert.deepEqual(await asked('pod/db-0'), ['delivered'])
		await home.ask('apply', '-f', policy)
		await until('the policy is enforced', async () => {
			const ran = await home.kubectl(['exec', '-n', 'shop', 'db-0', '--', 'curl', '-sS', '-m', '1', 'http://api/'])
			return ran.code !== 0
		})
		assert.deepEqual(await asked('pod/db-0'), ['denied-ingress'])
		assert.ok((await asked('deploy/web')).every((d: string) => d === 'delivered'))
		await home.ask('delete', '-f', policy)
		await until('it is open again', async () => {
			const ran = await home.kubectl(['exec', '-n', 'shop', 'db-0', '--', 'curl', '-sS', '-m', '1', 'http://api/'])
			return ran.code === 0
		})
	} finally {
		await home.remove()
	}
})
