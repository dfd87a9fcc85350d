// Nodes that fall silent and come back, and disruption budgets, on an API server with the controllers.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFailure } from '../../../src/base/failure.ts'
import {
	deployments,
	endpointSlices,
	leases,
	nodes,
	podDisruptionBudgets,
	pods,
	services,
} from '../../../src/kube/kinds.ts'
import type { Node } from '../../../src/kube/objects/core.ts'
import type { EndpointSlice } from '../../../src/kube/objects/discovery.ts'
import { openWorld, selecting, template, type World } from './world.ts'

const timeout = 20_000
const grace = 400

const readyOf = (node: Node | undefined) => node?.status?.conditions?.find((c) => c.type === 'Ready')?.status
const taintsOf = (node: Node | undefined) =>
	(node?.spec?.taints ?? []).map((t) => `${t.key.split('/')[1]}:${t.effect}`).sort()

/** Renews the leases of all nodes but the silent ones. */
function keepAlive(world: World, silent: ReadonlySet<string>, signal: AbortSignal): void {
	const beat = async (): Promise<void> => {
		for (const { metadata } of (await world.client.list(nodes)).items) {
			if (silent.has(metadata.name) || signal.aborted) continue
			const renewTime = new Date().toISOString().replace('Z', '000Z')
			const key = `kube-node-lease/${metadata.name}`
			const spec = { holderIdentity: metadata.name, leaseDurationSeconds: 1, renewTime }
			await world.client
				.patch(leases, key, { spec })
				.catch(() =>
					world.client.create(leases, { metadata: { name: metadata.name, namespace: 'kube-node-lease' }, spec }),
				)
		}
		if (!signal.aborted) setTimeout(() => void beat().catch(() => {}), grace / 5).unref()
	}
	void beat().catch(() => {})
}

async function say(world: World, node: string, status: 'True' | 'False'): Promise<void> {
	const at = new Date().toISOString().replace(/\.\d+Z$/, 'Z')
	const conditions = [{ type: 'Ready', status, lastHeartbeatTime: at, lastTransitionTime: at }]
	await world.client.patch(nodes, node, { status: { conditions } }, { subresource: 'status' })
}

test('a silent node: not ready, tainted, endpoints leave, pods are driven out; then it is back', {
	timeout,
}, async (t) => {
	const world = await openWorld(t, { nodeGrace: grace, letGo: () => new Promise(() => {}) })
	const { client } = world
	const silent = new Set<string>()
	const ending = new AbortController()
	t.after(() => ending.abort())
	for (const name of ['node-1', 'node-2', 'node-3']) await say(world, name, 'True')
	keepAlive(world, silent, ending.signal)
	await client.create(services, {
		metadata: { name: 'web', namespace: 'default' },
		spec: { selector: { app: 'web' }, ports: [{ name: 'http', port: 80, targetPort: 'http' }] },
	})
	const of = template('web')
	const tolerations = ['not-ready', 'unreachable'].map((name) => ({
		key: `node.kubernetes.io/${name}`,
		operator: 'Exists' as const,
		effect: 'NoExecute' as const,
		tolerationSeconds: 1,
	}))
	await client.create(deployments, {
		metadata: { name: 'web', namespace: 'default' },
		spec: { replicas: 3, selector: selecting('web'), template: { ...of, spec: { ...of.spec, tolerations } } },
	})
	const readyOn = (all: readonly EndpointSlice[]) =>
		all.flatMap((s) => s.endpoints ?? []).filter((e) => e.conditions?.ready === true && e.targetRef !== undefined)
	await world.untilAll(endpointSlices, (all) => readyOn(all).length === 3)

	silent.add('node-2')
	const node = await world.until(nodes, 'node-2', (n) => readyOf(n) === 'Unknown' && taintsOf(n).length === 2 && n)
	assert.deepEqual(taintsOf(node), ['unreachable:NoExecute', 'unreachable:NoSchedule'])
	await world.untilAll(endpointSlices, (all) => readyOn(all).every((e) => e.nodeName !== 'node-2'))
	// Driven out: the old pod is being deleted (nobody there ends it), another one runs elsewhere.
	const [gone] = await world.untilAll(pods, (all) => {
		const going = all.filter((p) => p.spec?.nodeName === 'node-2' && p.metadata.deletionTimestamp !== undefined)
		return going.length > 0 && going
	})
	assert.equal(gone!.status?.conditions?.find((c) => c.type === 'DisruptionTarget')?.reason, 'DeletionByTaintManager')
	await world.untilAll(endpointSlices, (all) => readyOn(all).length === 3)
	assert.equal(readyOf(await client.get(nodes, 'node-1')), 'True')

	silent.delete('node-2')
	await say(world, 'node-2', 'True')
	await world.until(nodes, 'node-2', (n) => taintsOf(n).length === 0)
	assert.deepEqual(world.failures, [])
})

test('when every node is silent nobody is driven out', { timeout }, async (t) => {
	const world = await openWorld(t, { nodeGrace: grace, nodes: 2 })
	for (const name of ['node-1', 'node-2']) await say(world, name, 'True')
	await world.untilAll(nodes, (all) => all.length === 2 && all.every((n) => readyOf(n) === 'Unknown'))
	await world.untilAll(nodes, (all) => all.every((n) => taintsOf(n).join() === 'unreachable:NoSchedule'))
})

test('a cordoned node is tainted, and free again', { timeout }, async (t) => {
	const world = await openWorld(t, { nodeGrace: 40_000 })
	await world.client.patch(nodes, 'node-1', { spec: { unschedulable: true } })
	await world.until(nodes, 'node-1', (n) => taintsOf(n).join() === 'unschedulable:NoSchedule')
	await world.client.patch(nodes, 'node-1', { spec: { unschedulable: null } })
	await world.until(nodes, 'node-1', (n) => taintsOf(n).length === 0)
})

test('evictions keep to the disruption budget', { timeout }, async (t) => {
	const world = await openWorld(t)
	const { client } = world
	await client.create(deployments, {
		metadata: { name: 'web', namespace: 'default' },
		spec: { replicas: 3, selector: selecting('web'), template: template('web') },
	})
	await client.create(podDisruptionBudgets, {
		metadata: { name: 'web', namespace: 'default' },
		spec: { maxUnavailable: '30%', selector: selecting('web') },
	})
	const open = (n: number) =>
		world.until(podDisruptionBudgets, 'default/web', (b) => b?.status?.disruptionsAllowed === n && b.status)
	assert.deepEqual(
		(({ currentHealthy, desiredHealthy, expectedPods }) => [currentHealthy, desiredHealthy, expectedPods])(
			await open(1),
		),
		[3, 2, 3],
	)
	const evict = (name: string) =>
		client.raw(`/api/v1/namespaces/default/pods/${name}/eviction`, {
			method: 'POST',
			body: { apiVersion: 'policy/v1', kind: 'Eviction', metadata: { name, namespace: 'default' } },
		})
	// All at once: exactly one may go.
	const names = (await client.list(pods)).items.map((p) => p.metadata.name)
	const results = await Promise.allSettled(names.map(evict))
	const refused = results.flatMap((r) => (r.status === 'rejected' ? [r.reason as unknown] : []))
	assert.equal(refused.length, 2)
	assert.ok(refused.every((e) => isFailure(e, 'TooManyRequests')))
	// Its replacement is ready: the next may go.
	await open(1)
	const left = names.find((_, i) => results[i]!.status === 'rejected')!
	await evict(left)
	await open(1)
	await client.patch(deployments, 'default/web', { spec: { replicas: 0 } })
	await open(0)
	assert.deepEqual(world.failures, [])
})
