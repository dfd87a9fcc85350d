// Deployments, StatefulSets, DaemonSets and Jobs on an API server, with a kubelet that makes pods ready.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
	daemonSets,
	deployments,
	events,
	jobs,
	nodes,
	pods,
	replicaSets,
	replicationControllers,
	statefulSets,
} from '../../../src/kube/kinds.ts'
import type { Deployment } from '../../../src/kube/objects/apps.ts'
import type { Pod } from '../../../src/kube/objects/pod.ts'
import { openWorld, selecting, template, type World } from './world.ts'

const timeout = 20_000

function deployment(name: string, replicas: number, image = 'web') {
	return {
		metadata: { name, namespace: 'default' },
		spec: { replicas, selector: selecting(name), template: template(name, image) },
	}
}

const isAvailable = (n: number) => (d: Deployment | undefined) =>
	d?.status?.availableReplicas === n &&
	d.status.replicas === n &&
	d.status.updatedReplicas === n &&
	d.status.observedGeneration === d.metadata.generation &&
	d

async function podsOf(world: World, app: string): Promise<readonly Pod[]> {
	return (await world.client.list(pods, { namespace: 'default', labelSelector: `app=${app}` })).items
}

test('a Deployment comes up, spread over the nodes; scales; rolls out; rolls back', { timeout }, async (t) => {
	const world = await openWorld(t)
	const { client } = world
	await client.create(deployments, deployment('web', 6))
	const up = await world.until(deployments, 'default/web', isAvailable(6))
	const perNode = Map.groupBy(await podsOf(world, 'web'), (p) => p.spec!.nodeName)
	assert.deepEqual(
		[...perNode.values()].map((p) => p.length),
		[2, 2, 2],
	)
	assert.equal(up.metadata.annotations?.['deployment.kubernetes.io/revision'], '1')
	const [first] = (await client.list(replicaSets)).items
	for (const pod of await podsOf(world, 'web'))
		assert.match(pod.metadata.name, new RegExp(`^${first!.metadata.name}-[a-z0-9]{5}$`))

	await client.patch(deployments, 'default/web', { spec: { replicas: 2 } })
	await world.until(deployments, 'default/web', isAvailable(2))

	await client.patch(deployments, 'default/web', { spec: { template: template('web', 'other') } })
	await world.until(
		deployments,
		'default/web',
		(d) => isAvailable(2)(d) && d?.metadata.annotations?.['deployment.kubernetes.io/revision'] === '2',
	)
	const images = (await podsOf(world, 'web'))
		.filter((p) => !p.metadata.deletionTimestamp)
		.map((p) => p.spec!.containers[0]!.image)
	assert.deepEqual(images, ['other', 'other'])
	assert.equal((await client.list(replicaSets)).items.length, 2)

	await client.patch(deployments, 'default/web', { spec: { template: template('web') } })
	await world.until(
		deployments,
		'default/web',
		(d) => isAvailable(2)(d) && d?.metadata.annotations?.['deployment.kubernetes.io/revision'] === '3',
	)
	assert.equal((await client.list(replicaSets)).items.length, 2, 'the old ReplicaSet came back')
	await world.controllers.settled()
	assert.deepEqual(world.failures, [])
})

test('a rollout to something broken stops and leaves the old version serving', { timeout }, async (t) => {
	const world = await openWorld(t)
	const { client } = world
	await client.create(deployments, deployment('web', 4))
	await world.until(deployments, 'default/web', isAvailable(4))
	await client.patch(deployments, 'default/web', { spec: { template: template('web', 'never-ready') } })
	await world.until(deployments, 'default/web', (d) => d?.status?.updatedReplicas === 2)
	await world.controllers.settled()
	const d = await client.get(deployments, 'default/web')
	assert.deepEqual([d.status?.availableReplicas, d.status?.replicas, d.status?.unavailableReplicas], [3, 5, 2])
})

test('deleting a Deployment takes everything with it; orphaning leaves the pods', { timeout }, async (t) => {
	const world = await openWorld(t)
	const { client } = world
	for (const name of ['a', 'b', 'c']) await client.create(deployments, deployment(name, 3))
	for (const name of ['a', 'b', 'c']) await world.until(deployments, `default/${name}`, isAvailable(3))
	await client.delete(deployments, 'default/a', { propagationPolicy: 'Background' })
	await world.untilAll(pods, (all) => !all.some((p) => p.metadata.labels?.app === 'a'))
	await client.delete(deployments, 'default/b', { propagationPolicy: 'Foreground' })
	await world.until(deployments, 'default/b', (d) => d === undefined)
	assert.deepEqual(await podsOf(world, 'b'), [], 'the owner goes last')
	const [setOfC] = (await client.list(replicaSets, { labelSelector: 'app=c' })).items
	await client.delete(deployments, 'default/c', { propagationPolicy: 'Orphan' })
	await world.until(deployments, 'default/c', (d) => d === undefined)
	const left = await client.get(replicaSets, `default/${setOfC!.metadata.name}`)
	assert.equal(left.metadata.ownerReferences, undefined)
	assert.equal((await podsOf(world, 'c')).length, 3)
	// A Deployment that selects it takes it over.
	await client.create(deployments, deployment('c', 3))
	const again = await world.until(deployments, 'default/c', isAvailable(3))
	const adopted = await client.get(replicaSets, `default/${setOfC!.metadata.name}`)
	assert.equal(adopted.metadata.ownerReferences?.[0]?.uid, again.metadata.uid)
	await world.controllers.settled()
	assert.equal((await client.list(replicaSets)).items.length, 1)
})

test('a lost pod is replaced; a pod relabelled away is let go', { timeout }, async (t) => {
	const world = await openWorld(t)
	const { client } = world
	await client.create(deployments, deployment('web', 2))
	await world.until(deployments, 'default/web', isAvailable(2))
	const [victim, other] = await podsOf(world, 'web')
	await client.delete(pods, `default/${victim!.metadata.name}`)
	await world.untilAll(pods, (all) => all.length === 2 && !all.some((p) => p.metadata.uid === victim!.metadata.uid))
	await world.until(deployments, 'default/web', isAvailable(2))
	await client.patch(pods, `default/${other!.metadata.name}`, { metadata: { labels: { app: 'debug' } } })
	await world.until(
		pods,
		`default/${other!.metadata.name}`,
		(p) => p !== undefined && p.metadata.ownerReferences === undefined,
	)
	await world.until(deployments, 'default/web', isAvailable(2))
	assert.equal((await client.list(pods)).items.length, 3)
})

test('a StatefulSet comes up in order, keeps identities, updates from the top', { timeout }, async (t) => {
	const world = await openWorld(t)
	const { client } = world
	const order: string[] = []
	const seen = (async () => {
		for await (const event of client.watch(pods, { signal: t.signal })) {
			if (event.type === 'ADDED') order.push(`+${event.object.metadata.name}`)
			if (event.type === 'DELETED') order.push(`-${event.object.metadata.name}`)
		}
	})()
	void seen.catch(() => {})
	await client.create(statefulSets, {
		metadata: { name: 'db', namespace: 'default' },
		spec: { replicas: 3, serviceName: 'db', selector: selecting('db'), template: template('db') },
	})
	await world.until(statefulSets, 'default/db', (s) => s?.status?.availableReplicas === 3)
	assert.deepEqual(order, ['+db-0', '+db-1', '+db-2'])
	const pod = await client.get(pods, 'default/db-1')
	assert.deepEqual([pod.spec?.hostname, pod.spec?.subdomain], ['db-1', 'db'])
	assert.equal(pod.metadata.labels?.['apps.kubernetes.io/pod-index'], '1')

	order.length = 0
	await client.patch(statefulSets, 'default/db', { spec: { template: template('db', 'other') } })
	const done = await world.until(
		statefulSets,
		'default/db',
		(s) =>
			s?.status?.observedGeneration === s?.metadata.generation &&
			s?.status?.updatedReplicas === 3 &&
			s.status.currentRevision === s.status.updateRevision &&
			s.status.readyReplicas === 3 &&
			s,
	)
	assert.deepEqual(order, ['-db-2', '+db-2', '-db-1', '+db-1', '-db-0', '+db-0'])
	assert.notEqual(done.status?.currentRevision, undefined)

	order.length = 0
	await client.patch(statefulSets, 'default/db', { spec: { replicas: 1 } })
	await world.untilAll(pods, (all) => all.length === 1)
	await world.controllers.settled()
	assert.deepEqual(order, ['-db-2', '-db-1'])
	assert.deepEqual(world.failures, [])
})

test('a DaemonSet is on every node, new ones too', { timeout }, async (t) => {
	const world = await openWorld(t)
	const { client } = world
	await client.create(daemonSets, {
		metadata: { name: 'agent', namespace: 'default' },
		spec: { selector: selecting('agent'), template: template('agent') },
	})
	await world.until(daemonSets, 'default/agent', (s) => s?.status?.numberAvailable === 3)
	assert.deepEqual((await podsOf(world, 'agent')).map((p) => p.spec!.nodeName).sort(), ['node-1', 'node-2', 'node-3'])
	await world.addNode('node-4')
	await world.until(daemonSets, 'default/agent', (s) => s?.status?.numberAvailable === 4)
	await client.patch(daemonSets, 'default/agent', { spec: { template: template('agent', 'other') } })
	await world.until(
		daemonSets,
		'default/agent',
		(s) => s?.status?.updatedNumberScheduled === 4 && s.status.numberAvailable === 4,
	)
	assert.deepEqual(world.failures, [])
})

test('a Job runs to its completions; one that fails stops', { timeout }, async (t) => {
	const world = await openWorld(t)
	const { client } = world
	const job = (name: string, image: string, backoffLimit: number) => ({
		metadata: { name, namespace: 'default' },
		spec: {
			completions: 3,
			parallelism: 2,
			backoffLimit,
			template: { spec: { restartPolicy: 'Never' as const, containers: [{ name: 'c', image }] } },
		},
	})
	await client.create(jobs, job('sum', 'exit-0', 6))
	const done = await world.until(
		jobs,
		'default/sum',
		(j) => j?.status?.conditions?.some((c) => c.type === 'Complete') && j,
	)
	assert.deepEqual([done.status?.succeeded, done.status?.active], [3, undefined])
	await client.create(jobs, job('bad', 'exit-1', 0))
	const failed = await world.until(
		jobs,
		'default/bad',
		(j) => j?.status?.conditions?.some((c) => c.type === 'Failed') && j,
	)
	assert.equal(failed.status?.conditions?.find((c) => c.type === 'Failed')?.reason, 'BackoffLimitExceeded')
	await client.delete(jobs, 'default/sum', { propagationPolicy: 'Background' })
	await client.delete(jobs, 'default/bad', { propagationPolicy: 'Background' })
	await world.untilAll(pods, (all) => all.length === 0)
})

test('a ReplicationController keeps its pods', { timeout }, async (t) => {
	const world = await openWorld(t)
	const { client } = world
	await client.create(replicationControllers, {
		metadata: { name: 'old', namespace: 'default' },
		spec: { replicas: 2, selector: { app: 'old' }, template: template('old') },
	})
	await world.until(replicationControllers, 'default/old', (c) => c?.status?.availableReplicas === 2)
	await client.patch(replicationControllers, 'default/old', { spec: { replicas: 1 } })
	await world.untilAll(pods, (all) => all.length === 1)
	await world.until(replicationControllers, 'default/old', (c) => c?.status?.replicas === 1)
})

test('what cannot be placed says why, and is placed when it can', { timeout }, async (t) => {
	const world = await openWorld(t)
	const { client } = world
	const spec = { ...template('web').spec, nodeSelector: { disk: 'ssd' } }
	await client.create(pods, { metadata: { name: 'picky', namespace: 'default' }, spec })
	const message = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."
	await world.until(pods, 'default/picky', (p) => {
		const c = p?.status?.conditions?.find((x) => x.type === 'PodScheduled')
		return c?.status === 'False' && c.reason === 'Unschedulable' && c.message === message
	})
	await world.untilAll(events, (all) => all.some((e) => e.reason === 'FailedScheduling' && e.message === message))
	await client.patch(nodes, 'node-2', { metadata: { labels: { disk: 'ssd' } } })
	await world.until(pods, 'default/picky', (p) => p?.spec?.nodeName === 'node-2')
	await world.untilAll(events, (all) => all.some((e) => e.message === 'Successfully assigned default/picky to node-2'))
})

test('events tell what happened, as kubectl describe shows it', { timeout }, async (t) => {
	const world = await openWorld(t)
	await world.client.create(deployments, deployment('web', 2))
	await world.until(deployments, 'default/web', isAvailable(2))
	const [set] = (await world.client.list(replicaSets)).items
	const scaled = await world.untilAll(events, (all) => all.find((e) => e.reason === 'ScalingReplicaSet'))
	assert.equal(scaled.message, `Scaled up replica set ${set!.metadata.name} from 0 to 2`)
	assert.deepEqual(
		[scaled.involvedObject.kind, scaled.source?.component, scaled.count],
		['Deployment', 'deployment-controller', 1],
	)
	await world.untilAll(events, (all) => all.filter((e) => e.reason === 'SuccessfulCreate').length === 2)
})
