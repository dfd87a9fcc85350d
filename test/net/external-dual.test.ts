// Load balancers of both families: a client outside reaches one Service by each, through the appliance and by an
// announced address.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { deployments, services } from '../../src/kube/kinds.ts'
import { askMany, countBy, inForce } from './external-client.ts'
import { createTestLab, skip, type TestLab } from './lab.ts'

let lab: TestLab
before(async () => {
	if (skip) return
	lab = await createTestLab('dual', undefined, { nodes: 2, dataplane: 'kernel', ipFamily: 'dual' })
	await lab.create({
		apiVersion: 'apps/v1',
		kind: 'Deployment',
		metadata: { name: 'web', namespace: 'default' },
		spec: {
			replicas: 2,
			selector: { matchLabels: { app: 'web' } },
			template: {
				metadata: { labels: { app: 'web' } },
				spec: { containers: [{ name: 'c', image: 'nginx', ports: [{ containerPort: 80 }] }] },
			},
		},
	})
	await lab.until(async () =>
		(await lab.client.get(deployments, 'default/web')).status?.readyReplicas === 2 ? true : undefined,
	)
})
after(() => lab?.remove())

const clients = ['203.0.113.1', '[2001:db8:113::1]']

for (const [name, spec] of [
	['appliance', {}],
	['announced', { loadBalancerClass: 'podwire.dev/l2' }],
] as const) {
	test(`both families: ${name}`, { skip, timeout: 60_000 }, async () => {
		for (const externalTrafficPolicy of ['Cluster', 'Local'] as const) {
			const service = `${name}-${externalTrafficPolicy.toLowerCase()}`
			await lab.create({
				apiVersion: 'v1',
				kind: 'Service',
				metadata: { name: service, namespace: 'default' },
				spec: {
					type: 'LoadBalancer',
					ipFamilyPolicy: 'RequireDualStack',
					selector: { app: 'web' },
					ports: [{ port: 80 }],
					externalTrafficPolicy,
					...spec,
				},
			})
			const ips = await lab.until(async () => {
				const ingress = (await lab.client.get(services, `default/${service}`)).status?.loadBalancer?.ingress
				return ingress?.length === 2 ? ingress.map((i) => i.ip as string) : undefined
			})
			assert.deepEqual(
				ips.map((ip) => ip.includes(':')),
				[false, true],
			)
			for (const [i, ip] of ips.entries()) {
				await inForce(lab, ip)
				const seen = Object.keys(countBy(await askMany(lab, ip, 6), (a) => a.client))
				if (externalTrafficPolicy === 'Local') assert.deepEqual(seen, [clients[i]])
				else assert.ok(!seen.includes(clients[i]!), `${seen}`)
			}
			await lab.client.delete(services, `default/${service}`)
		}
	})
}
