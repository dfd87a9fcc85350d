// Which endpoints a Service should have: one for each selected pod with an address, with its conditions and ports.
// Rules: KEP-752 (EndpointSlice), KEP-1672 (terminating endpoints), KEP-3015 and KEP-4444 (trafficDistribution).

import type { Node, Service, ServicePort } from '../../kube/objects/core.ts'
import type { Endpoint, EndpointPort } from '../../kube/objects/discovery.ts'
import type { Container, Pod } from '../../kube/objects/pod.ts'
import { isPodReady, isPodTerminal } from '../pods.ts'

export type Family = 'IPv4' | 'IPv6'

/** Pods of one Service whose ports are at the same numbers share slices. */
export interface PortGroup {
	readonly ports: readonly EndpointPort[]
	/** By identity of the endpoint (`endpointIdentity`). */
	readonly endpoints: Map<string, Endpoint>
}

/** The address families a Service has endpoints of. */
export function familiesOf(service: Service): readonly Family[] {
	const families = service.spec?.ipFamilies
	if (families !== undefined && families.length > 0) return families
	return [service.spec?.clusterIP?.includes(':') ? 'IPv6' : 'IPv4']
}

export function isHeadless(service: Service): boolean {
	return service.spec?.clusterIP === 'None'
}

/** A controller keeps endpoints only of Services that select pods. */
export function selectsPods(service: Service): boolean {
	return service.spec?.selector !== undefined && Object.keys(service.spec.selector).length > 0
}

/**
 * The endpoints of one family, by the text of their ports. A pod that has ended or has no address yet is left out, and
 * so is one on a node nobody knows (unless not-ready addresses are published): where it is cannot be told.
 */
export function wantedEndpoints(
	service: Service,
	pods: Iterable<Pod>,
	family: Family,
	nodeOf: (name: string) => Node | undefined,
): Map<string, PortGroup> {
	const groups = new Map<string, PortGroup>()
	for (const pod of pods) {
		if (isPodTerminal(pod)) continue
		const address = addressOf(pod, family)
		if (address === undefined) continue
		const nodeName = pod.spec?.nodeName
		const node = nodeName === undefined ? undefined : nodeOf(nodeName)
		if (nodeName !== undefined && node === undefined && service.spec?.publishNotReadyAddresses !== true) continue
		const ports = portsOf(service, pod)
		const key = portsText(ports)
		let group = groups.get(key)
		if (group === undefined) groups.set(key, (group = { ports, endpoints: new Map() }))
		const endpoint = endpointOf(service, pod, address, node)
		group.endpoints.set(endpointIdentity(endpoint), endpoint)
	}
	return groups
}

/** Two endpoints are the same one, maybe in different states, when address and pod are. */
export function endpointIdentity(endpoint: Endpoint): string {
	const { namespace = '', name = '' } = endpoint.targetRef ?? {}
	return `${endpoint.addresses.join(',')} ${namespace}/${name}`
}

export function addressOf(pod: Pod, family: Family): string | undefined {
	const ips = pod.status?.podIPs ?? (pod.status?.podIP === undefined ? [] : [{ ip: pod.status.podIP }])
	return ips.find(({ ip }) => ip !== '' && ip.includes(':') === (family === 'IPv6'))?.ip
}

function endpointOf(service: Service, pod: Pod, address: string, node: Node | undefined): Endpoint {
	const serving = isPodReady(pod)
	const terminating = pod.metadata.deletionTimestamp !== undefined
	const ready = service.spec?.publishNotReadyAddresses === true || (serving && !terminating)
	const zone = node?.metadata.labels?.['topology.kubernetes.io/zone']
	const nodeName = pod.spec?.nodeName
	const hostname = hostnameFor(service, pod)
	const hints = ready ? hintsFor(service, nodeName, zone) : undefined
	return {
		addresses: [address],
		conditions: { ready, serving, terminating },
		...(hostname === undefined ? {} : { hostname }),
		targetRef: { kind: 'Pod', namespace: pod.metadata.namespace!, name: pod.metadata.name, uid: pod.metadata.uid! },
		...(nodeName === undefined ? {} : { nodeName }),
		...(zone === undefined ? {} : { zone }),
		...(hints === undefined ? {} : { hints }),
	}
}

/** A pod has a DNS name of its own in the Service whose name is its subdomain. */
export function hostnameFor(service: Service, pod: Pod): string | undefined {
	const { hostname, subdomain } = pod.spec ?? {}
	return hostname !== undefined && hostname !== '' && subdomain === service.metadata.name ? hostname : undefined
}

/** With a preference every ready endpoint names the place it is meant for: its own. */
function hintsFor(service: Service, node: string | undefined, zone: string | undefined): Endpoint['hints'] {
	const preference = service.spec?.trafficDistribution
	switch (preference) {
		case undefined:
			return undefined
		case 'PreferClose':
		case 'PreferSameZone':
			return zone === undefined ? undefined : { forZones: [{ name: zone }] }
		case 'PreferSameNode':
			return {
				...(zone === undefined ? {} : { forZones: [{ name: zone }] }),
				...(node === undefined ? {} : { forNodes: [{ name: node }] }),
			}
		default:
			// A value of a later version of the API: no preference we know.
			preference satisfies never
			return undefined
	}
}

/** The Service's ports as they are at this pod; one whose named target the pod has not is left out. */
function portsOf(service: Service, pod: Pod): readonly EndpointPort[] {
	const ports: EndpointPort[] = []
	for (const port of service.spec?.ports ?? []) {
		const number = targetPortAt(port, pod)
		if (number === undefined) continue
		ports.push({
			name: port.name ?? '',
			protocol: port.protocol ?? 'TCP',
			port: number,
			...(port.appProtocol === undefined ? {} : { appProtocol: port.appProtocol }),
		})
	}
	return ports
}

/** The number of a Service port at a pod. Sidecars (init containers that restart always) may name ports too. */
export function targetPortAt(port: ServicePort, pod: Pod): number | undefined {
	const target = port.targetPort ?? port.port
	if (typeof target === 'number') return target === 0 ? port.port : target
	const sidecars = (pod.spec?.initContainers ?? []).filter((c) => c.restartPolicy === 'Always')
	return portNamed(pod.spec?.containers ?? [], target, port) ?? portNamed(sidecars, target, port)
}

function portNamed(containers: readonly Container[], name: string, { protocol = 'TCP' }: ServicePort) {
	for (const container of containers) {
		for (const port of container.ports ?? []) {
			if (port.name === name && (port.protocol ?? 'TCP') === protocol) return port.containerPort
		}
	}
	return undefined
}

/** The same text for the same ports in any order. */
export function portsText(ports: readonly EndpointPort[] | null | undefined): string {
	return (ports ?? [])
		.map((p) => `${p.name ?? ''}/${p.protocol ?? 'TCP'}/${p.port ?? ''}/${p.appProtocol ?? ''}`)
		.sort()
		.join(' ')
}
