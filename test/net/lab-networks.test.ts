// A lab whose networks, domain, node ports and switches of externalIPs are its user's: real packets and names there.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { isFailure } from '../../src/base/failure.ts'
import { cidrContains, type Ip } from '../../src/base/ip.ts'
import { nodes, services } from '../../src/kube/kinds.ts'
import type { Service, ServiceSpec } from '../../src/kube/objects/core.ts'
import { type NetworkChoice, readCidrs } from '../../src/lab/network-choice.ts'
import { startLab } from '../../src/lab/start.ts'
import { inNetnsAt } from '../../src/linux/netns.ts'
import { ask } from './external-client.ts'
import { createTestLab, podObject, skip, type TestLab } from './lab.ts'

const network: NetworkChoice = {
	podCidrs: readCidrs('', '10.32.0.0/14'),
	serviceCidrs: readCidrs('', '10.200.0.0/20'),
	clusterDomain: 'corp.example',
	nodePorts: { from: 20000, to: 20100 },
	featureGates: { AllowServiceExternalIPs: false },
}
const from = { pod: 'default/client' } as const

suite('a lab with networks of its own', { skip, timeout: 120_000 }, () => {
	let lab: TestLab
	let web: Service
	let uid: string
	before(async () => {
		if (skip) return
		lab = await createTestLab('networks', undefined, { dataplane: 'kernel', network })
		const containers = [{ name: 'c', image: 'nginx', ports: [{ containerPort: 80 }] }]
		await lab.create(podObject('web', { nodeName: 'node-2', containers }, { app: 'web' }))
		await lab.create(podObject('client', { nodeName: 'node-1', containers }))
		const spec: ServiceSpec = {
			type: 'NodePort',
			selector: { app: 'web' },
			ports: [{ port: 80 }],
			externalIPs: ['192.0.2.1'],
		}
		web = (await lab.create({
			apiVersion: 'v1',
			kind: 'Service',
			metadata: { name: 'web', namespace: 'default' },
			spec,
		})) as Service
		uid = (await lab.pod('client')).metadata.uid ?? ''
	})
	after(() => lab?.remove())

	/** The pod that answers there, once somebody does. */
	const answer = (to: string, port = 80) => lab.until(async () => (await ask(lab, to, { port, from })).answer?.pod)

	test('pods, nodes and Services have their addresses from them', async () => {
		const { status } = await lab.pod('web')
		assert.ok(cidrContains(network.podCidrs![0]!, status?.podIP as Ip), status?.podIP)
		for (const { spec } of (await lab.client.list(nodes)).items)
			assert.match(spec?.podCIDR ?? '', /^10\.3[2-5]\..*\/24$/)
		assert.ok(cidrContains(network.serviceCidrs![0]!, web.spec?.clusterIP as Ip), web.spec?.clusterIP)
		assert.equal((await lab.client.get(services, 'default/kubernetes')).spec?.clusterIP, '10.200.0.1')
		assert.equal((await lab.client.get(services, 'kube-system/kube-dns')).spec?.clusterIP, '10.200.0.10')
	})

	test('a ClusterIP and a node port of the range answer', async () => {
		assert.equal(await answer(web.spec!.clusterIP!), 'web')
		const port = web.spec?.ports?.[0]?.nodePort ?? 0
		assert.ok(port >= 20000 && port <= 20100, String(port))
		assert.equal(await answer('172.18.0.2', port), 'web')
		await assert.rejects(
			lab.client.patch(services, 'default/web', { spec: { ports: [{ port: 80, nodePort: 30080 }] } } as never),
			/The range of valid ports is 20000-20100/,
		)
	})

	test('no node answers at an external IP: the gate is off', async () => {
		await answer(web.spec!.clusterIP!)
		assert.equal((await ask(lab, '192.0.2.1', { from })).answer, undefined)
	})

	test("names end in the lab's domain", async () => {
		const script = `const r = new (require('node:dns').Resolver)({ timeout: 500, tries: 4 }); r.setServers(['10.200.0.10']);
			r.resolve4('web.default.svc.corp.example', (e, found) => console.log(e ? e.code : found.join()))`
		const netns = join(lab.paths.namespaces, `pod-${uid}`)
		const found = await lab.until(async () => {
			const { stdout } = inNetnsAt(netns, () => spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' }))
			return /^\d/.test(stdout) ? stdout.trim() : undefined
		})
		assert.equal(found, web.spec?.clusterIP)
	})

	test('a lab keeps its networks', async () => {
		await assert.rejects(lab.up({ network: { clusterDomain: 'cluster.local' } }), (e) => isFailure(e, 'Immutable'))
		const { status } = await lab.up({ network: {} })
		assert.deepEqual(status.network, network)
		await assert.rejects(
			startLab({
				name: 'narrow',
				config: { images: [] },
				version: 'test',
				network: { podCidrs: readCidrs('', '10.1.0.0/25') },
			}),
			(e) => isFailure(e, 'InvalidNetwork'),
		)
	})
})
