// Traffic that does not stop, by both families, while policies and tiers come, change and go, and while the daemon is
// killed and comes back: nothing that is denied ever gets through, nothing that is allowed is ever cut.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import type { Kind } from '../../src/kube/kinds.ts'
import { networkPolicies } from '../../src/kube/kinds.ts'
import type { KubeObject } from '../../src/kube/objects/meta.ts'
import { resourceOf } from '../../src/kube/resources.ts'
import { signalProcess, waitForEnd } from '../../src/lab/process-identity.ts'
import { type LabRecord, readRecord } from '../../src/lab/record.ts'
import { printProgram } from '../../src/linux/nft/print.ts'
import { customKinds } from '../../src/model/state.ts'
import { createTestLab, podObject, skip, type TestLab } from './lab.ts'
import { startTraffic, type Tally, type Traffic } from './policy-traffic.ts'

let lab: TestLab
const where = { skip, concurrency: false }
const tiers = customKinds.find((k) => k.kind === 'ClusterNetworkPolicy') as Kind as Kind<KubeObject>
const podNs = async (name: string) => `${lab.paths.namespaces}/pod-${(await lab.pod(name)).metadata.uid}`

async function rules(): Promise<string> {
	return printProgram((await lab.handle.client.agent.read('node-1')).nftables)
}

/** In force, or gone, in both families. */
async function settled(comment: string, there: boolean): Promise<void> {
	await lab.until(async () => {
		const found = (await rules()).split('table ').filter((table) => /^ip6? podwire-policy/.test(table))
		return found.filter((table) => table.includes(comment)).length === (there ? 2 : 0) ? true : undefined
	}, 30)
}

async function policy(name: string, ...apps: string[]): Promise<void> {
	await lab.create({
		apiVersion: 'networking.k8s.io/v1',
		kind: 'NetworkPolicy',
		metadata: { name, namespace: 'default' },
		spec: specOf(apps),
	})
	await settled(`default/${name}`, true)
}

const specOf = (apps: readonly string[]) => ({
	podSelector: { matchLabels: { app: 'web' } },
	policyTypes: ['Ingress' as const],
	ingress: apps.length === 0 ? [] : [{ from: apps.map((app) => ({ podSelector: { matchLabels: { app } } })) }],
})

async function tier(
	name: string,
	tier: 'Admin' | 'Baseline',
	priority: number,
	action: string,
	app: string,
): Promise<void> {
	await lab.client.create(tiers, {
		apiVersion: 'policy.networking.k8s.io/v1alpha2',
		kind: 'ClusterNetworkPolicy',
		metadata: { name },
		spec: {
			tier,
			priority,
			subject: { pods: { namespaceSelector: {}, podSelector: { matchLabels: { app: 'web' } } } },
			ingress: [
				{
					name: 'only',
					action,
					from: [{ pods: { namespaceSelector: {}, podSelector: { matchLabels: { app } } } }],
				},
			],
		},
	} as KubeObject)
}

before(async () => {
	if (skip) return
	lab = await createTestLab('policy-churn', undefined, { nodes: 2, dataplane: 'kernel', ipFamily: 'dual' })
	await lab.client.create(
		resourceOf('apiextensions.k8s.io/v1', 'CustomResourceDefinition') as Kind as Kind<KubeObject>,
		{
			apiVersion: 'apiextensions.k8s.io/v1',
			kind: 'CustomResourceDefinition',
			metadata: {
				name: 'clusternetworkpolicies.policy.networking.k8s.io',
				annotations: { 'api-approved.kubernetes.io': 'https://github.com/kubernetes-sigs/network-policy-api/pull/30' },
			},
			spec: {
				group: 'policy.networking.k8s.io',
				scope: 'Cluster',
				names: { kind: 'ClusterNetworkPolicy', plural: 'clusternetworkpolicies', singular: 'clusternetworkpolicy' },
				versions: [
					{
						name: 'v1alpha2',
						served: true,
						storage: true,
						schema: { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } },
					},
				],
			},
		} as KubeObject,
	)
	for (const [name, node] of [
		['web', 'node-1'],
		['near', 'node-1'],
		['far', 'node-2'],
	] as const)
		await lab.create(podObject(name, { nodeName: node, terminationGracePeriodSeconds: 0 }))
	for (const name of ['web', 'near', 'far']) await lab.pod(name)
	await lab.until(async () => {
		try {
			await tier('guard', 'Admin', 5, 'Deny', 'far')
			return true
		} catch {
			// Its definition is not established yet.
			return undefined
		}
	})
	await settled('ClusterNetworkPolicy guard', true)
	await policy('deny')
	await policy('near', 'near')
})
after(() => lab?.remove())

/** near may, far may not: to both addresses of web. */
async function start(): Promise<{ readonly allowed: Traffic; readonly denied: Traffic }> {
	const targets = ((await lab.pod('web')).status?.podIPs ?? []).map(({ ip }) => [ip, 80] as const)
	assert.equal(targets.length, 2)
	const allowed = startTraffic(await podNs('near'), targets, { patience: 3_000 })
	const denied = startTraffic(await podNs('far'), targets)
	await progress(allowed, 20)
	return { allowed, denied }
}

async function progress(traffic: Traffic, more: number): Promise<void> {
	const now = (await traffic.tally()).reached
	await lab.until(async () => ((await traffic.tally()).reached >= now + more ? true : undefined), 30)
}

function judge(allowed: Tally, denied: Tally): void {
	assert.equal(denied.reached, 0, `denied ${JSON.stringify(denied)}`)
	assert.equal(allowed.failed, 0, `allowed ${JSON.stringify(allowed)}`)
	assert.ok(allowed.reached > 50 && denied.failed > 50, JSON.stringify([allowed, denied]))
}

test('policies and tiers come, change and go under traffic', where, async () => {
	const { allowed, denied } = await start()
	for (let i = 0; i < 4; i++) {
		await policy(`other-${i}`, ...(i % 2 === 0 ? [] : ['near', `nobody-${i}`]))
		await lab.client.patch(networkPolicies, 'default/near', { spec: specOf(['near', `n-${i}`]) }, { type: 'merge' })
		await tier(`pass-${i}`, 'Admin', 7 + i, 'Pass', 'near')
		await tier(`shut-${i}`, 'Baseline', 1, 'Deny', 'far')
		await settled(`ClusterNetworkPolicy pass-${i}`, true)
		// What is in force changes its place among the others, and its rule.
		await lab.client.patch(tiers, `pass-${i}`, { spec: { priority: 2 } }, { type: 'merge' })
		await tier(`open-${i}`, 'Admin', 20, 'Accept', 'far')
		await settled(`ClusterNetworkPolicy open-${i}`, true)
		for (const name of [`pass-${i}`, `open-${i}`, `shut-${i}`]) await lab.client.delete(tiers, name)
		await settled(`ClusterNetworkPolicy open-${i}`, false)
		if (i % 2 === 1) {
			for (const name of [`other-${i}`, `other-${i - 1}`]) await lab.client.delete(networkPolicies, `default/${name}`)
			await settled(`default/other-${i}`, false)
		}
	}
	await progress(allowed, 20)
	judge(await allowed.stop(), await denied.stop())
})

test('what is denied passes from one who denies it to the next', where, async () => {
	const { allowed, denied } = await start()
	// The tier goes, the NetworkPolicy denies; another tier comes, then that goes.
	await lab.client.delete(tiers, 'guard')
	await settled('ClusterNetworkPolicy guard', false)
	await progress(allowed, 20)
	await tier('last', 'Admin', 90, 'Deny', 'far')
	await settled('ClusterNetworkPolicy last', true)
	for (const name of ['deny', 'near']) await lab.client.delete(networkPolicies, `default/${name}`)
	await settled('default/deny', false)
	await progress(allowed, 20)
	judge(await allowed.stop(), await denied.stop())
})

test('the daemon is killed and comes back under traffic', where, async () => {
	const { allowed, denied } = await start()
	const daemon = (readRecord(lab.paths) as LabRecord).daemon!
	assert.ok(signalProcess(daemon, 'SIGKILL'))
	assert.deepEqual(await waitForEnd([daemon], 5_000), [])
	await progress(allowed, 40)
	await lab.up()
	await progress(allowed, 40)
	judge(await allowed.stop(), await denied.stop())
	await settled('ClusterNetworkPolicy last', true)
})
