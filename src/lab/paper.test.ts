import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { createKubeClient } from '../kube/client.ts'
import { deployments, events, jobs, pods } from '../kube/kinds.ts'
import type { KubeObject } from '../kube/objects/meta.ts'
import type { Pod } from '../kube/objects/pod.ts'
import { resourceOf } from '../kube/resources.ts'
import { createPaperCluster } from './paper.ts'

const boutique = join(import.meta.dirname, '../../../shared/data/manifests/online-boutique/kubernetes-manifests.yaml')

test('Online Boutique settles: every pod runs, every Service has its endpoints', {
	skip: existsSync(boutique) ? false : 'the manifests are not here',
}, async () => {
	const { parseAllDocuments } = await import('yaml')
	const cluster = await createPaperCluster()
	try {
		const client = createKubeClient(cluster.transport)
		for (const document of parseAllDocuments(readFileSync(boutique, 'utf8'))) {
			const object = document.toJS() as KubeObject | null
			if (object === null) continue
			const placed = { ...object, metadata: { ...object.metadata, namespace: 'default' } }
			await client.create(resourceOf(object.apiVersion, object.kind), placed)
		}
		await cluster.settle()
		const { state, model } = cluster
		const running = [...state.pods.values()]
		assert.equal(running.length, 12 + 2, 'twelve of the shop, two of the cluster DNS')
		assert.ok(running.every((p) => p.status?.phase === 'Running' && p.status.podIP?.startsWith('10.244.')))
		assert.equal(new Set(running.map((p) => p.status?.podIP)).size, 14)
		const nodes = new Set(running.map((p) => p.spec?.nodeName))
		assert.equal(nodes.size, 3, 'spread over all nodes')
		for (const service of model.services.values()) {
			for (const port of service.ports)
				assert.equal(port.endpoints.filter((e) => e.ready).length, service.name === 'kube-dns' ? 2 : 1, service.key)
		}
		assert.deepEqual(model.findings, [])
	} finally {
		await cluster.close()
	}
})

const bare = (name: string): Pod => ({
	apiVersion: 'v1',
	kind: 'Pod',
	metadata: { name, namespace: 'default' },
	spec: { nodeName: 'node-1', containers: [{ name: 'c', image: 'x' }] },
})

test('a node without a free address says so on the pod, and goes on when one is free', {
	timeout: 60_000,
}, async () => {
	const cluster = await createPaperCluster({ nodes: 1 })
	try {
		const client = createKubeClient(cluster.transport)
		await cluster.settle()
		// 253 addresses of a /24 without the gateway's, two of them taken by the cluster DNS.
		for (let i = 0; i < 252; i++) await client.create(pods, bare(`p${i}`))
		await cluster.settle()
		const all = (await client.list(pods, { namespace: 'default' })).items
		const waiting = all.filter((p) => p.status?.phase !== 'Running')
		assert.equal(waiting.length, 1)
		const state = waiting[0]!.status?.containerStatuses?.[0]?.state?.waiting
		assert.equal(state?.reason, 'ContainerCreating')
		assert.match(state?.message ?? '', /all 253 addresses of 10\.244\.0\.0\/24 are taken/)
		const first = all.find((p) => p.status?.phase === 'Running')!
		await client.delete(pods, `default/${first.metadata.name}`)
		const freed = first.status?.podIP
		for await (const { object } of client.watch(pods, { namespace: 'default' })) {
			if (object.metadata.name === waiting[0]!.metadata.name && (object as Pod).status?.podIP === freed) break
		}
	} finally {
		await cluster.close()
	}
})

test('a Job whose image cannot be run completes, and says that nothing was run', { timeout: 60_000 }, async () => {
	const cluster = await createPaperCluster({ nodes: 1 })
	try {
		const client = createKubeClient(cluster.transport)
		const job = await client.create(jobs, {
			metadata: { name: 'migrate', namespace: 'default' },
			spec: { template: { spec: { restartPolicy: 'Never', containers: [{ name: 'c', image: 'migrate' }] } } },
		})
		// Made as the Job controller makes it.
		const owner = {
			apiVersion: 'batch/v1',
			kind: 'Job',
			name: 'migrate',
			uid: job.metadata.uid as string,
			controller: true,
		}
		const pod = {
			...bare('migrate-1'),
			metadata: { name: 'migrate-1', namespace: 'default', ownerReferences: [owner] },
		}
		await client.create(pods, { ...pod, spec: { ...pod.spec!, restartPolicy: 'Never' } })
		await cluster.settle()
		const done = await client.get(pods, 'default/migrate-1')
		assert.equal(done.status?.phase, 'Succeeded')
		assert.match(done.status?.containerStatuses?.[0]?.state?.terminated?.message ?? '', /^nothing was run: a stand-in/)
	} finally {
		await cluster.close()
	}
})

test('scaling down lets go of pods and addresses; no events are left of kubelets', { timeout: 60_000 }, async () => {
	const cluster = await createPaperCluster({ nodes: 2 })
	try {
		const client = createKubeClient(cluster.transport)
		await client.create(deployments, {
			metadata: { name: 'web', namespace: 'default' },
			spec: {
				replicas: 6,
				selector: { matchLabels: { app: 'web' } },
				template: { metadata: { labels: { app: 'web' } }, spec: { containers: [{ name: 'c', image: 'x' }] } },
			},
		})
		await cluster.settle()
		assert.equal([...cluster.state.pods.values()].filter((p) => p.metadata.namespace === 'default').length, 6)
		await client.patch(deployments, 'default/web', { spec: { replicas: 1 } })
		await cluster.settle()
		assert.equal([...cluster.state.pods.values()].filter((p) => p.metadata.namespace === 'default').length, 1)
		const said = (await client.list(events)).items.filter((e) => e.source?.component === 'kubelet')
		assert.deepEqual(said, [])
	} finally {
		await cluster.close()
	}
})
