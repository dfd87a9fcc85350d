// What any cluster decides about Services: addresses, families, node ports, what a change of type drops, what status may
// say; and Scale. Like the API suite it runs on the embedded server and on any real cluster, in a namespace of its own.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { createKubeClient, type KubeClient } from '../../../src/kube/client.ts'
import { deployments, ipAddresses, namespaces, serviceCidrs, services } from '../../../src/kube/kinds.ts'
import type { Deployment } from '../../../src/kube/objects/apps.ts'
import type { Service } from '../../../src/kube/objects/core.ts'
import type { SuiteTarget } from './suite.ts'

type Spec = Record<string, unknown> & {
	ports?: { name?: string; nodePort?: number; port: number }[]
	clusterIP?: string
	clusterIPs?: string[]
}

/** Declares the tests. `open` is called once, before the first. */
export function serviceSuite(name: string, open: () => Promise<SuiteTarget>): void {
	describe(`Services: ${name}`, () => {
		let target: SuiteTarget
		let client: KubeClient
		const namespace = `podwire-services-${Math.random().toString(36).slice(2, 8)}`
		const key = (n: string) => `${namespace}/${n}`
		const port = (more: object = {}) => ({ port: 80, ...more })
		const make = async (n: string, spec: object = {}): Promise<Spec> =>
			specOf(
				await client.create(services, {
					metadata: { name: n, namespace },
					spec: { selector: { app: n }, ports: [port()], ...spec },
				} as unknown as Service),
			)
		const change = async (n: string, spec: object): Promise<Spec> =>
			specOf(await client.patch(services, key(n), { spec }, { type: 'merge' }))
		const specOf = (service: Service) => service.spec as unknown as Spec

		before(async () => {
			target = await open()
			client = createKubeClient(target.transport, { fieldManager: 'podwire-suite' })
			await client.create(namespaces, { metadata: { name: namespace } })
		})
		after(async () => {
			if (target === undefined) return
			await client.delete(namespaces, namespace)
			await target.close()
		})

		test('an address of the networks for Services, one family, and its IPAddress', async () => {
			const spec = await make('plain')
			assert.deepEqual([spec.clusterIPs, spec.ipFamilyPolicy], [[spec.clusterIP], 'SingleStack'])
			const cidrs = (await client.list(serviceCidrs)).items
			assert.ok(cidrs.some((one) => one.metadata.name === 'kubernetes'))
			for (let i = 0; ; i++) {
				const { items } = await client.list(ipAddresses)
				const own = items.find((one) => one.metadata.name === spec.clusterIP)
				if (own !== undefined) {
					assert.deepEqual(own.spec?.parentRef, { group: '', resource: 'services', namespace, name: 'plain' })
					break
				}
				assert.ok(i < 50, 'no IPAddress came')
				await new Promise((resolve) => setTimeout(resolve, 20))
			}
			await assert.rejects(make('taken', { clusterIP: spec.clusterIP }), /provided IP is already allocated/)
			await assert.rejects(
				change('plain', { clusterIP: '192.0.2.1', clusterIPs: ['192.0.2.1'] }),
				/may not change once set/,
			)
			await assert.rejects(make('outside', { clusterIP: '192.0.2.1' }), /not in the valid range/)
		})

		test('headless, with and without a selector', async () => {
			const some = await make('headless', { clusterIP: 'None' })
			assert.deepEqual([some.clusterIPs, some.ipFamilyPolicy], [['None'], 'SingleStack'])
			const bare = await make('bare', { clusterIP: 'None', selector: null })
			assert.deepEqual([bare.ipFamilyPolicy, (bare.ipFamilies as string[]).length], ['RequireDualStack', 2])
			await assert.rejects(change('headless', { type: 'NodePort' }), /may not be set to 'None' for NodePort services/)
		})

		test('node ports: given, kept by the name of their port, given back', async () => {
			const ports = [port({ name: 'a' }), port({ name: 'b', port: 81 })]
			const spec = await make('outer', { type: 'NodePort', ports })
			const [a, b] = spec.ports!.map((p) => p.nodePort!)
			assert.ok(a !== b && a! > 0 && b! > 0)
			const other = await change('outer', { ports: [port({ name: 'b', port: 8081 })] })
			assert.deepEqual(
				other.ports!.map((p) => p.nodePort),
				[b],
			)
			await assert.rejects(
				make('same', { type: 'NodePort', ports: [port({ nodePort: b })] }),
				/spec\.ports\[0\]\.nodePort: .*provided port is already allocated/,
			)
			await assert.rejects(
				make('low', { type: 'NodePort', ports: [port({ nodePort: 1 })] }),
				/The range of valid ports is/,
			)
			await assert.rejects(
				make('none', { ports: [port({ nodePort: a })] }),
				/may not be used when `type` is 'ClusterIP'/,
			)
			const inner = await change('outer', { type: 'ClusterIP' })
			assert.deepEqual(
				[inner.ports![0]!.nodePort, inner.externalTrafficPolicy, inner.clusterIP],
				[undefined, undefined, spec.clusterIP],
			)
			assert.equal((await make('again', { type: 'NodePort', ports: [port({ nodePort: b })] })).ports![0]!.nodePort, b)
		})

		test('one node port for the two protocols of a port', async () => {
			const ports = [port({ name: 't', protocol: 'TCP' }), port({ name: 'u', protocol: 'UDP' })]
			const [t, u] = (await make('both', { type: 'NodePort', ports })).ports!
			assert.equal(t!.nodePort, u!.nodePort)
		})

		// A class nobody serves: no load balancer answers.
		const balancer = { type: 'LoadBalancer', loadBalancerClass: 'podwire.dev/suite' }
		test('a load balancer: health check port, class, and without node ports', async () => {
			const local = await make('local', { ...balancer, externalTrafficPolicy: 'Local' })
			assert.ok((local.healthCheckNodePort as number) > 0)
			assert.equal(local.allocateLoadBalancerNodePorts, true)
			await assert.rejects(
				change('local', { loadBalancerClass: 'podwire.dev/other' }),
				/loadBalancerClass: .*may not change once set/,
			)
			assert.equal((await change('local', { externalTrafficPolicy: 'Cluster' })).healthCheckNodePort, undefined)
			const without = await make('without', { ...balancer, allocateLoadBalancerNodePorts: false })
			assert.equal(without.ports![0]!.nodePort, undefined)
			const plain = await change('local', { type: 'ClusterIP' })
			assert.deepEqual([plain.loadBalancerClass, plain.allocateLoadBalancerNodePorts], [undefined, undefined])
			await assert.rejects(
				make('cip', { loadBalancerClass: 'podwire.dev/suite' }),
				/may only be used when `type` is 'LoadBalancer'/,
			)
		})

		test('what the status of a load balancer may say', async () => {
			await make('said', balancer)
			const say = (n: string, ...ingress: object[]) =>
				client.patch(
					services,
					key(n),
					{ status: { loadBalancer: { ingress } } },
					{ subresource: 'status', type: 'merge' },
				)
			await assert.rejects(say('said', { ip: '192.0.2' }), /ingress\[0\]\.ip: Invalid value/)
			await assert.rejects(say('said', { ip: '192.0.2.1', ipMode: 'x' }), /supported values: "Proxy", "VIP"/)
			await assert.rejects(
				say('said', { hostname: 'a.test', ipMode: 'VIP' }),
				/may not be specified when `ip` is not set/,
			)
			const { status } = await say('said', { ip: '192.0.2.1' }, { ip: '192.0.2.2', ipMode: 'Proxy' })
			assert.deepEqual(
				(status as { loadBalancer: { ingress: { ipMode?: string }[] } }).loadBalancer.ingress.map((p) => p.ipMode),
				['VIP', 'Proxy'],
			)
		})

		test('ExternalName has none of it, and gets it back when it is a Service again', async () => {
			await make('named')
			const spec = await change('named', { type: 'ExternalName', externalName: 'a.example.com' })
			for (const field of ['clusterIP', 'clusterIPs', 'ipFamilies', 'ipFamilyPolicy'])
				assert.equal(spec[field], undefined, field)
			assert.match((await change('named', { type: 'ClusterIP', externalName: null })).clusterIP ?? '', /[.:]/)
		})

		test('what is ignored is said so', async () => {
			const warned = async (n: string, spec: object) => {
				const response = await target.transport(
					new Request(`http://kubernetes/api/v1/namespaces/${namespace}/services`, {
						method: 'POST',
						headers: { 'content-type': 'application/json' },
						body: JSON.stringify({ metadata: { name: n }, spec: { ports: [port()], ...spec } }),
					}),
				)
				assert.equal(response.status, 201, await response.text())
				return response.headers.get('warning') ?? ''
			}
			assert.equal(await warned('w-plain', {}), '')
			assert.match(
				await warned('w-name', { externalName: 'a.test' }),
				/spec\.externalName is ignored when spec\.type is not/,
			)
			assert.match(
				await warned('w-headless', { clusterIP: 'None', sessionAffinity: 'ClientIP' }),
				/SessionAffinity is ignored for headless services/,
			)
		})

		test('Scale: what it says, its table, and whose the number is', async () => {
			await client.create(deployments, {
				metadata: { name: 'd', namespace },
				spec: {
					replicas: 0,
					selector: { matchLabels: { app: 'd' } },
					template: {
						metadata: { labels: { app: 'd' } },
						spec: { containers: [{ name: 'c', image: 'example.com/c' }] },
					},
				},
			} as unknown as Deployment)
			const path = `/apis/apps/v1/namespaces/${namespace}/deployments/d/scale`
			const ask = async (method: string, headers: Record<string, string>, body?: string) => {
				const init = { method, headers, ...(body === undefined ? {} : { body }) }
				const response = await target.transport(new Request(`http://kubernetes${path}`, init))
				return (await response.json()) as Record<string, unknown>
			}
			const merge = { 'content-type': 'application/merge-patch+json', 'user-agent': 'scaler/1' }
			const scaled = await ask('PATCH', merge, JSON.stringify({ metadata: {}, spec: { replicas: 0 } }))
			assert.equal(scaled.kind, 'Scale')
			const accept = 'application/json;as=Table;g=meta.k8s.io;v=v1'
			const table = (await ask('GET', { accept })) as { kind: string; columnDefinitions: { name: string }[] }
			assert.deepEqual(
				[table.kind, table.columnDefinitions.map((c) => c.name)],
				['Table', ['Name', 'Desired', 'Available', 'Age']],
			)
			await ask('PATCH', merge, JSON.stringify({ spec: { replicas: 1 } }))
			const { metadata } = await client.get(deployments, key('d'))
			const managers = (metadata.managedFields ?? []) as { manager: string; subresource?: string; fieldsV1: object }[]
			assert.deepEqual(
				managers.filter((m) => m.subresource === 'scale').map((m) => [m.manager, m.fieldsV1]),
				[['scaler', { 'f:spec': { 'f:replicas': {} } }]],
			)
		})
	})
}
