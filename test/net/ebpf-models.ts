// Generated models for the laws of the eBPF data plane: few addresses, so that Services meet, with every kind of
// frontend, up to more endpoints than an element holds.

import fc from 'fast-check'
import type { Ip } from '../../src/base/ip.ts'
import type { NetworkModel, Service } from '../../src/model/network.ts'
import { podIp, type ServiceSketch, sketchModel, sketchService } from './services-world.ts'

const endpoint = fc
	.record({
		pod: fc.integer({ min: 0, max: 40 }),
		port: fc.constantFrom(80, 8080),
		ready: fc.boolean(),
		node: fc.constantFrom('node-1', 'node-2', undefined),
	})
	.map(({ pod, node, ready, port }) => ({
		pod,
		port,
		ready,
		serving: ready,
		terminating: false,
		...(node === undefined ? {} : { node }),
	}))
const endpoints = (family: 4 | 6) =>
	fc
		.uniqueArray(endpoint, { maxLength: 18, selector: (e) => `${e.pod} ${e.port}` })
		.map((list) => list.map(({ pod, ...e }) => ({ ...e, ip: podIp(pod, family) })))

const service: fc.Arbitrary<Service> = fc
	.record({
		name: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
		// Addresses collide between Services on purpose.
		ips: fc.subarray(['10.96.0.1', '10.96.0.2', '10.96.0.3', 'fd00:10:96::1'], { maxLength: 2 }),
		ports: fc.uniqueArray(
			fc.record({
				port: fc.constantFrom(80, 443),
				protocol: fc.constantFrom('TCP', 'UDP', 'SCTP'),
				nodePort: fc.constantFrom(undefined, 30080, 30443),
				four: endpoints(4),
				six: endpoints(6),
			}),
			{ minLength: 1, maxLength: 2, selector: (p) => `${p.port} ${p.protocol}` },
		),
		local: fc.boolean(),
		policy: fc.constantFrom('Cluster', 'Local'),
		affinity: fc.constantFrom(undefined, 60, 10800),
		external: fc.subarray(['192.0.2.1', '192.0.2.2', '172.18.0.2'], { maxLength: 1 }),
	})
	.map(({ local, affinity, external, policy, ports, ...rest }) => {
		const made = sketchService({
			...(rest as Pick<ServiceSketch, 'name' | 'ips'>),
			ports: ports.map(({ four, six, port, protocol }) => ({
				port,
				protocol: protocol as 'TCP',
				endpoints: [...four, ...six].sort((a, b) => (a.ip < b.ip ? -1 : a.ip === b.ip ? a.port - b.port : 1)),
			})),
			more: {
				type: 'NodePort',
				internalTrafficPolicy: local ? 'Local' : 'Cluster',
				externalTrafficPolicy: policy as 'Local',
				externalIps: external as Ip[],
				...(affinity === undefined ? {} : { sessionAffinity: affinity }),
			},
		})
		return {
			...made,
			ports: made.ports.map((port, i) => {
				const nodePort = ports[i]?.nodePort
				return nodePort === undefined ? port : { ...port, nodePort }
			}),
		}
	})

const models: fc.Arbitrary<NetworkModel> = fc
	.tuple(fc.uniqueArray(service, { maxLength: 5, selector: (s) => s.key }), fc.integer({ min: 0, max: 3 }))
	.map(([services, pods]) => sketchModel(services, pods))

/** The same model with the configuration and the unchanged Services of `before`, as the builder shares them. */
function follow(before: NetworkModel, after: NetworkModel): NetworkModel {
	const kept = (s: Service) => {
		const old = before.services.get(s.key)
		return old !== undefined && JSON.stringify(old) === JSON.stringify(s) ? old : s
	}
	return {
		...after,
		config: before.config,
		services: before.services.mutate((draft) => {
			for (const key of before.services.keys()) if (!after.services.has(key)) draft.delete(key)
			for (const s of after.services.values()) draft.set(s.key, kept(s))
		}),
	}
}

export const ServiceModels = { models, follow }
