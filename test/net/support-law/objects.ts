// A plan as API objects, and what the EndpointSlices of its Services must say: worked out from the pods by the text of
// the API alone, so that controllers are not their own witness.

import type { Deployment } from '../../../src/kube/objects/apps.ts'
import type { Service } from '../../../src/kube/objects/core.ts'
import type { EndpointSlice } from '../../../src/kube/objects/discovery.ts'
import type { NetworkPolicy } from '../../../src/kube/objects/networking.ts'
import type { Pod } from '../../../src/kube/objects/pod.ts'
import type { Group, Plan, PlannedPolicy, PlannedService } from './plan.ts'

export function deploymentOf(group: Group): Deployment {
	const { namespace, name, labels, hostNetworkOn } = group
	return {
		apiVersion: 'apps/v1',
		kind: 'Deployment',
		metadata: { name, namespace },
		spec: {
			replicas: group.replicas,
			selector: { matchLabels: { group: name } },
			template: {
				metadata: { labels },
				spec: {
					...(hostNetworkOn === undefined
						? {}
						: { hostNetwork: true, nodeSelector: { 'kubernetes.io/hostname': hostNetworkOn } }),
					...(group.gated ? { readinessGates: [{ conditionType: 'example.com/never' }] } : {}),
					containers: [
						{
							name: 'c',
							image: 'example.com/law:1',
							ports: group.ports.map(({ name, port, protocol }) => ({ name, containerPort: port, protocol })),
						},
					],
				},
			},
		},
	} as Deployment
}

export function serviceOf(service: PlannedService): Service {
	const { namespace, name, selector, affinity, headless, nodePorts } = service
	return {
		apiVersion: 'v1',
		kind: 'Service',
		metadata: { name, namespace },
		spec: {
			...(nodePorts === undefined || headless ? {} : { type: 'NodePort', externalTrafficPolicy: nodePorts }),
			...(headless ? { clusterIP: 'None' } : { internalTrafficPolicy: service.local ? 'Local' : 'Cluster' }),
			...(selector === undefined ? {} : { selector }),
			publishNotReadyAddresses: service.publishNotReady,
			sessionAffinity: affinity === undefined ? 'None' : 'ClientIP',
			...(affinity === undefined ? {} : { sessionAffinityConfig: { clientIP: { timeoutSeconds: affinity } } }),
			ports: service.ports.map(({ name, port, protocol, target }) => ({ name, port, protocol, targetPort: target })),
		},
	}
}

export function policyOf({ namespace, name, spec }: PlannedPolicy): NetworkPolicy {
	return { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: { name, namespace }, spec }
}

/** Slices written by hand. `pods`: those that run now; an endpoint of a group that has none left falls away. */
export function slicesOf(plan: Plan, service: PlannedService, pods: readonly Pod[]): EndpointSlice[] {
	return service.slices.map((slice, i) => ({
		apiVersion: 'discovery.k8s.io/v1',
		kind: 'EndpointSlice',
		metadata: {
			name: `${service.name}-${i}`,
			namespace: service.namespace,
			labels: { 'kubernetes.io/service-name': service.name, 'endpointslice.kubernetes.io/managed-by': 'law' },
		},
		addressType: 'IPv4',
		ports: slice.ports,
		endpoints: slice.endpoints.flatMap(({ at, conditions, named }) => {
			if ('nobodyOn' in at) {
				return [{ addresses: [`10.244.${at.nobodyOn}.250`], conditions, nodeName: `node-${at.nobodyOn + 1}` }]
			}
			const members = podsOf(plan, at.group, pods)
			const pod = members[at.index % Math.max(1, members.length)]
			if (pod === undefined) return []
			const { name, namespace } = pod.metadata
			return [
				{
					addresses: [pod.status?.podIP ?? ''],
					conditions,
					nodeName: pod.spec?.nodeName ?? '',
					...(named ? { targetRef: { kind: 'Pod', name, namespace: namespace ?? '' } } : {}),
				},
			]
		}),
	}))
}

/** The pods of a group (`namespace/name`) by name. */
export function podsOf(plan: Plan, group: string, pods: readonly Pod[]): readonly Pod[] {
	const found = plan.groups.find((g) => `${g.namespace}/${g.name}` === group)
	return pods
		.filter((p) => p.metadata.namespace === found?.namespace && p.metadata.labels?.group === found?.name)
		.sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1))
}

export function isReady(pod: Pod): boolean {
	return pod.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') === true
}

export function containersRun(pod: Pod): boolean {
	return pod.status?.conditions?.some((c) => c.type === 'ContainersReady' && c.status === 'True') === true
}

/** `port-name protocol address:port ready`, sorted: what the slices of a Service with a selector must hold. */
export function expectedEndpoints(service: PlannedService, pods: readonly Pod[]): string[] {
	const lines: string[] = []
	for (const pod of pods) {
		if (pod.metadata.namespace !== service.namespace) continue
		if (!Object.entries(service.selector ?? {}).every(([k, v]) => pod.metadata.labels?.[k] === v)) continue
		const ready = service.publishNotReady || isReady(pod)
		const declared = pod.spec?.containers.flatMap((c) => c.ports ?? []) ?? []
		for (const port of service.ports) {
			const target =
				typeof port.target === 'number'
					? port.target
					: declared.find((d) => d.name === port.target && (d.protocol ?? 'TCP') === port.protocol)?.containerPort
			if (target !== undefined) lines.push(`${port.name} ${port.protocol} ${pod.status?.podIP}:${target} ${ready}`)
		}
	}
	return lines.sort()
}

/** The same of the slices there are. */
export function foundEndpoints(slices: readonly EndpointSlice[]): string[] {
	return slices
		.flatMap((slice) =>
			(slice.endpoints ?? []).flatMap((e) =>
				(slice.ports ?? []).map((p) => `${p.name} ${p.protocol} ${e.addresses[0]}:${p.port} ${e.conditions?.ready}`),
			),
		)
		.sort()
}
