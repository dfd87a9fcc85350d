// A real application on paper: Online Boutique and its own NetworkPolicies. Who may call whom is known from its
// architecture; the walk must allow these calls, by name, and deny every other pair.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { applyItems, sourcesOf } from '../../src/cli/apply.ts'
import { loadManifests } from '../../src/cli/manifests.ts'
import { createKubeClient } from '../../src/kube/client.ts'
import { createPaperCluster, type PaperCluster } from '../../src/lab/paper.ts'
import { zoneOf } from '../../src/model/zone.ts'
import { planFlows } from '../../src/walk/endpoint.ts'
import { walk } from '../../src/walk/walk.ts'
import { application, isMeant, policies, skip } from '../boutique.ts'

let paper: PaperCluster
before(async () => {
	if (skip !== false) return
	paper = await createPaperCluster({ nodes: 3 })
	const { items } = await loadManifests([application, policies], 'default')
	const refusals = await applyItems(createKubeClient(paper.transport), items, () => {})
	assert.deepEqual(refusals, [])
	paper.setSources(sourcesOf(items))
	await paper.settle()
})
after(() => paper?.close())

test('the calls of the application pass, all others are denied', { skip }, () => {
	const { model } = paper
	const zone = zoneOf(model)
	const services = [...model.services.values()].filter((s) => s.namespace === 'default' && s.selector !== undefined)
	const workloads = [
		...new Set(
			[...model.pods.values()].filter((p) => p.namespace === 'default').map((p) => p.owner.key.replace('default/', '')),
		),
	]
	assert.ok(services.length >= 12 && workloads.length >= 12)
	for (const from of workloads) {
		for (const service of services) {
			const { flows } = planFlows(model, {
				from: `deploy/${from}`,
				to: `svc/${service.name}:${service.ports[0]!.port}`,
				namespace: 'default',
			})
			const traces = flows.flatMap((flow) => walk(model, flow, { zone }))
			const target = service.name === 'frontend-external' ? 'frontend' : service.name
			const meant = isMeant(from, target)
			assert.deepEqual(
				[...new Set(traces.map((t) => t.disposition))],
				[meant ? 'delivered' : 'denied-ingress'],
				`${from} -> ${service.name}`,
			)
		}
	}
})

test('what is found amiss', { skip }, () => {
	assert.deepEqual(
		paper.model.findings.map((f) => `${f.code} ${f.text}`),
		[],
	)
})

test('every origin of the application is a line of its manifests', { skip }, () => {
	for (const service of paper.model.services.values()) {
		if (service.namespace !== 'default' || service.selector === undefined) continue
		for (const { origin } of [service, ...service.ports])
			assert.ok('source' in origin && origin.source !== undefined, service.key)
	}
	for (const pod of paper.model.pods.values()) {
		if (pod.namespace !== 'default') continue
		for (const { origin } of [pod, ...pod.ports]) assert.ok('source' in origin && origin.source !== undefined, pod.key)
	}
})
