// A real application under its own policies, with real packets: Online Boutique and its 13 NetworkPolicies. What its
// architecture declares works; every other pair is cut off; and for each the three witnesses say the same.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import type { Ip } from '../../src/base/ip.ts'
import { applyItems, sourcesOf } from '../../src/cli/apply.ts'
import { loadManifests } from '../../src/cli/manifests.ts'
import { pods, services } from '../../src/kube/kinds.ts'
import type { Service } from '../../src/kube/objects/core.ts'
import { printProgram } from '../../src/linux/nft/print.ts'
import { application, isMeant, skip as noManifests, policies } from '../boutique.ts'
import { createTestLab, skip as noRights, type TestLab } from '../net/lab.ts'

const skip = noRights || noManifests

let lab: TestLab
before(async () => {
	if (skip !== false) return
	lab = await createTestLab('boutique')
	const { items } = await loadManifests([application, policies], 'default')
	assert.deepEqual(await applyItems(lab.client, items, () => {}), [])
	await lab.handle.client.putSources(sourcesOf(items))
	await lab.until(async () => {
		const all = (await lab.client.list(pods)).items.filter((p) => p.metadata.namespace === 'default')
		const ready = all.filter((p) => p.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True'))
		return all.length >= 12 && ready.length === all.length ? true : undefined
	}, 60)
})
after(() => lab?.remove())

test('exactly the declared calls come about', { skip, timeout: 120_000 }, async () => {
	const workloads = (await lab.client.list(pods)).items.flatMap((p) =>
		p.metadata.namespace === 'default'
			? [{ key: `default/${p.metadata.name}`, app: p.metadata.labels?.app ?? '' }]
			: [],
	)
	const asked = (await lab.client.list(services)).items.filter(
		(s): s is Service => s.metadata.namespace === 'default' && s.spec?.selector !== undefined,
	)
	assert.ok(workloads.length >= 12 && asked.length >= 12, `${workloads.length} pods, ${asked.length} Services`)
	const pairs = workloads.flatMap((from) => asked.map((service) => ({ from, service })))
	const wrong: string[] = []
	let worked = 0
	const worker = async () => {
		for (let pair = pairs.shift(); pair !== undefined; pair = pairs.shift()) {
			const { from, service } = pair
			const app = service.spec?.selector?.app ?? ''
			const meant = isMeant(from.app, app)
			const { outcome } = await lab.handle.client.agent.probe({
				from: { pod: from.key },
				to: service.spec?.clusterIP as Ip,
				port: service.spec?.ports?.[0]?.port ?? 0,
				protocol: 'TCP',
				nodes: [],
				timeout: meant ? 3000 : 200,
				observe: false,
			})
			if (outcome === 'connected') worked++
			if (outcome !== (meant ? 'connected' : 'timeout'))
				wrong.push(`${from.app} → ${service.metadata.name}: ${outcome}`)
		}
	}
	await Promise.all(Array.from({ length: 6 }, worker))
	assert.deepEqual(wrong, [])
	assert.ok(worked > 30, `${worked} worked`)
})

test('each rule in the kernel names the line of its policy', { skip }, async () => {
	const text = (
		await Promise.all(
			['node-1', 'node-2'].map(async (n) => printProgram((await lab.handle.client.agent.read(n)).nftables)),
		)
	).join('')
	for (const name of ['cartservice', 'checkoutservice', 'redis-cart', 'paymentservice'])
		assert.match(
			text,
			new RegExp(`return comment "NetworkPolicy default/${name} spec\\.ingress\\[0\\] .*network-policies\\.yaml:\\d+"`),
		)
	assert.match(
		text,
		/drop comment "NetworkPolicy default\/\S+, default\/deny-all"|drop comment "NetworkPolicy default\/.*deny-all/,
	)
})
