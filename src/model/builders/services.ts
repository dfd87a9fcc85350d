// Services of the model with their endpoints. EndpointSlices alone say which endpoints there are: controllers keep
// them for Services with a selector, people for those without.

import { type Ip, tryParseCidr, tryParseIp } from '../../base/ip.ts'
import { diffTables, emptyTable, type Table } from '../../base/table.ts'
import type * as core from '../../kube/objects/core.ts'
import type * as discovery from '../../kube/objects/discovery.ts'
import { serviceNameLabel } from '../../kube/objects/discovery.ts'
import { balancerOf, internalWish } from '../../kube/objects/load-balancer.ts'
import { keyOf, namespacedKey, type ObjectKey } from '../../kube/objects/meta.ts'
import { compareEndpoints } from '../address-order.ts'
import type { Endpoint, Service, ServiceField, ServiceLoadBalancer, ServicePort } from '../network.ts'
import type { Origin } from '../origin.ts'
import { share } from '../share.ts'
import { type ClusterState, originOf } from '../state.ts'
import { type BuildInput, changedKeys, changedSources, moveInIndex } from './input.ts'

export interface BuiltServices {
	readonly services: Table<ObjectKey, Service>
	readonly slicesByService: Table<ObjectKey, readonly ObjectKey[]>
}

export function buildServices(input: BuildInput): BuiltServices {
	const { state, last } = input
	const changed = changedKeys(input, 'Service', 'services')
	let slicesByService = last?.index.slicesByService ?? emptyTable<ObjectKey, readonly ObjectKey[]>()
	const slicesBefore = last?.state.endpointSlices ?? emptyTable<ObjectKey, discovery.EndpointSlice>()
	diffTables(slicesBefore, state.endpointSlices, (key, before, after) => {
		const from = serviceOf(before)
		const to = serviceOf(after)
		slicesByService = moveInIndex(slicesByService, key, from, to)
		for (const service of [...from, ...to]) changed.add(service)
	})
	for (const key of changedSources(input, 'EndpointSlice')) {
		for (const service of serviceOf(state.endpointSlices.get(key))) changed.add(service)
	}
	const services = (last?.parts.services ?? emptyTable<ObjectKey, Service>()).mutate((draft) => {
		for (const key of changed) {
			const object = state.services.get(key)
			if (object === undefined) {
				draft.delete(key)
				continue
			}
			const slices = (slicesByService.get(key) ?? []).map((k) => state.endpointSlices.get(k)!)
			const before = draft.get(key)
			draft.set(key, share(before, readService(state, object, slices, before)))
		}
	})
	return { services, slicesByService }
}

/** The Service a slice is labelled with: none or one key. */
export function serviceOf(slice: discovery.EndpointSlice | undefined): ObjectKey[] {
	const name = slice?.metadata.labels?.[serviceNameLabel]
	return name === undefined || name === '' ? [] : [namespacedKey(slice!.metadata.namespace ?? '', name)]
}

/** The pod an endpoint says it is. */
export function targetPod(slice: discovery.EndpointSlice, endpoint: discovery.Endpoint): ObjectKey | undefined {
	const target = endpoint.targetRef
	if (target?.kind !== 'Pod' || !target.name) return undefined
	return namespacedKey(target.namespace ?? slice.metadata.namespace ?? '', target.name)
}

function readService(
	state: ClusterState,
	object: core.Service,
	slices: readonly discovery.EndpointSlice[],
	before: Service | undefined,
): Service {
	const { name } = object.metadata
	const namespace = object.metadata.namespace ?? ''
	const key = namespacedKey(namespace, name)
	const spec = object.spec ?? {}
	const type = spec.type ?? 'ClusterIP'
	const ips = spec.clusterIPs ?? (spec.clusterIP ? [spec.clusterIP] : [])
	const headless = type !== 'ExternalName' && ips[0] === 'None'
	const selector = spec.selector !== undefined && Object.keys(spec.selector).length > 0 ? spec.selector : undefined
	const endpointsOf = readSlices(state, slices)
	return {
		key,
		namespace,
		name,
		type,
		clusterIps: type === 'ExternalName' ? [] : ips.flatMap((ip) => tryParseIp(ip) ?? []),
		headless,
		...(type === 'ExternalName' && spec.externalName ? { externalName: spec.externalName } : {}),
		...(selector === undefined ? {} : { selector }),
		publishNotReadyAddresses: spec.publishNotReadyAddresses === true,
		...(spec.sessionAffinity === 'ClientIP'
			? { sessionAffinity: spec.sessionAffinityConfig?.clientIP?.timeoutSeconds ?? 10800 }
			: {}),
		internalTrafficPolicy: spec.internalTrafficPolicy ?? 'Cluster',
		externalTrafficPolicy: spec.externalTrafficPolicy ?? 'Cluster',
		...readExternalIps(state, type === 'ExternalName' ? [] : (spec.externalIPs ?? [])),
		...(type === 'LoadBalancer' ? { loadBalancer: readLoadBalancer(state, object) } : {}),
		...(type === 'LoadBalancer' && spec.externalTrafficPolicy === 'Local' && spec.healthCheckNodePort
			? { healthCheckNodePort: spec.healthCheckNodePort }
			: {}),
		ports: (spec.ports ?? []).map((port, i): ServicePort => {
			const protocol = port.protocol ?? 'TCP'
			const portName = port.name ?? ''
			return {
				name: portName,
				protocol,
				port: port.port,
				...(port.nodePort ? { nodePort: port.nodePort } : {}),
				targetPort: port.targetPort ?? port.port,
				...(port.appProtocol ? { appProtocol: port.appProtocol } : {}),
				endpoints: reuse(before, portName, endpointsOf(portName, protocol)),
				origin: originOf(state, 'Service', key, `spec.ports[${i}]`),
			}
		}),
		...portless(headless, endpointsOf),
		...leftToOthers(state, object, key),
		...(object.metadata.creationTimestamp ? { created: object.metadata.creationTimestamp } : {}),
		origin: originOf(state, 'Service', key),
		fields: fieldOrigins(state, key, spec),
	}
}

function readExternalIps(
	state: ClusterState,
	texts: readonly string[],
): Pick<Service, 'externalIps' | 'ignoredExternalIps'> {
	const ips = texts.flatMap((ip) => tryParseIp(ip) ?? [])
	if (state.config.ignoreExternalIps !== true) return { externalIps: ips }
	return { externalIps: [], ...(ips.length === 0 ? {} : { ignoredExternalIps: ips }) }
}

/** Labels by which a Service is none of the ordinary proxy's (kube-proxy does not even watch those that have one). */
const otherProxyLabels = ['service.kubernetes.io/service-proxy-name', 'service.kubernetes.io/headless']

function leftToOthers(state: ClusterState, object: core.Service, key: ObjectKey): Pick<Service, 'otherProxy'> {
	const label = otherProxyLabels.find((l) => object.metadata.labels?.[l] !== undefined)
	return label === undefined ? {} : { otherProxy: originOf(state, 'Service', key, `metadata.labels.${label}`) }
}

/** The annotation is what came before the field, which wins where both are set. */
const sourceRangesAnnotation = 'service.beta.kubernetes.io/load-balancer-source-ranges'

function readLoadBalancer(state: ClusterState, object: core.Service): ServiceLoadBalancer {
	const spec = object.spec ?? {}
	const ranges =
		spec.loadBalancerSourceRanges ?? object.metadata.annotations?.[sourceRangesAnnotation]?.split(',') ?? []
	const requestedIp = spec.loadBalancerIP ? tryParseIp(spec.loadBalancerIP) : undefined
	const by = balancerOf(object)
	const internal = internalWish(object.metadata.annotations)
	return {
		...(spec.loadBalancerClass ? { class: spec.loadBalancerClass } : {}),
		ingress: (object.status?.loadBalancer?.ingress ?? []).map(({ ip, hostname, ipMode }) => {
			const parsed = ip ? tryParseIp(ip) : undefined
			return {
				...(parsed === undefined ? {} : { ip: parsed }),
				...(hostname ? { hostname } : {}),
				ipMode: ipMode ?? 'VIP',
			}
		}),
		...(requestedIp === undefined ? {} : { requestedIp }),
		sourceRanges: ranges.flatMap((text) => tryParseCidr(text.trim(), { mask: true }) ?? []),
		allocateNodePorts: spec.allocateLoadBalancerNodePorts !== false,
		...(by === undefined ? {} : { by }),
		...(internal === undefined
			? {}
			: { internal: originOf(state, 'Service', keyOf(object), `metadata.annotations.${internal}`) }),
	}
}

/** A headless Service without ports still publishes names for its endpoints. */
function portless(headless: boolean, endpointsOf: EndpointsOf): Pick<Service, 'addresses'> {
	if (!headless) return {}
	const endpoints = endpointsOf(undefined, undefined)
	return endpoints.length === 0 ? {} : { addresses: endpoints }
}

const decisive: readonly ServiceField[] = [
	'type',
	'clusterIP',
	'selector',
	'externalName',
	'internalTrafficPolicy',
	'externalTrafficPolicy',
	'sessionAffinity',
	'trafficDistribution',
	'publishNotReadyAddresses',
	'externalIPs',
	'loadBalancerSourceRanges',
	'loadBalancerIP',
	'loadBalancerClass',
	'healthCheckNodePort',
]

function fieldOrigins(state: ClusterState, key: ObjectKey, spec: core.ServiceSpec): Service['fields'] {
	const fields: Partial<Record<ServiceField, Origin>> = {}
	for (const field of decisive) {
		if (spec[field] !== undefined) fields[field] = originOf(state, 'Service', key, `spec.${field}`)
	}
	return fields
}

/** The endpoints of one port by name and protocol; of slices without ports where both are undefined. */
type EndpointsOf = (port: string | undefined, protocol: string | undefined) => Endpoint[]

/**
 * Endpoints of all slices, each address and port once, sorted by address and port.
 *
 * While an endpoint moves from one slice to another both may hold it (API: EndpointSlice, "duplicates"): the
 * livelier one counts (ready, then serving), of equals the one in the slice whose name sorts first.
 */
function readSlices(state: ClusterState, slices: readonly discovery.EndpointSlice[]): EndpointsOf {
	return (name, protocol) => {
		const found = new Map<string, Endpoint>()
		for (const slice of slices) {
			if (slice.addressType === 'FQDN') continue
			const ports = slice.ports ?? []
			const matching =
				name === undefined
					? ports.length === 0
						? [{ port: 0 }]
						: []
					: ports.filter((p) => (p.name ?? '') === name && (p.protocol ?? 'TCP') === protocol)
			for (const { port } of matching) {
				// A port without a number means "all ports": no proxy can translate to that.
				if (port === undefined || port === null) continue
				for (const [i, endpoint] of (slice.endpoints ?? []).entries()) {
					const read = readEndpoint(state, slice, endpoint, i, port)
					if (read === undefined) continue
					const id = `${read.ip} ${port}`
					const other = found.get(id)
					if (other === undefined || liveliness(read) > liveliness(other)) found.set(id, read)
				}
			}
		}
		return [...found.values()].sort(compareEndpoints)
	}
}

function liveliness(endpoint: Endpoint): number {
	return endpoint.ready ? 2 : endpoint.serving ? 1 : 0
}

/** Only the first address has a meaning (API: Endpoint.addresses). */
function readEndpoint(
	state: ClusterState,
	slice: discovery.EndpointSlice,
	endpoint: discovery.Endpoint,
	index: number,
	port: number,
): Endpoint | undefined {
	const ip: Ip | undefined = tryParseIp(endpoint.addresses?.[0] ?? '')
	if (ip === undefined || ip.includes(':') !== (slice.addressType === 'IPv6')) return undefined
	const namespace = slice.metadata.namespace ?? ''
	const pod = targetPod(slice, endpoint)
	return {
		ip,
		port,
		...(pod === undefined ? {} : { pod }),
		...(endpoint.nodeName ? { node: endpoint.nodeName } : {}),
		...(endpoint.zone ? { zone: endpoint.zone } : {}),
		...(endpoint.hostname ? { hostname: endpoint.hostname } : {}),
		ready: endpoint.conditions?.ready ?? true,
		serving: endpoint.conditions?.serving ?? true,
		terminating: endpoint.conditions?.terminating ?? false,
		hints: [
			...(endpoint.hints?.forNodes ?? []).map(({ name }) => ({ kind: 'node' as const, name })),
			...(endpoint.hints?.forZones ?? []).map(({ name }) => ({ kind: 'zone' as const, name })),
		],
		origin: originOf(state, 'EndpointSlice', namespacedKey(namespace, slice.metadata.name), `endpoints[${index}]`),
	}
}

/** One endpoint less must not make all after it new objects: they are matched by address and port, not by place. */
function reuse(before: Service | undefined, port: string, endpoints: readonly Endpoint[]): readonly Endpoint[] {
	const old = before?.ports.find((p) => p.name === port)?.endpoints
	if (old === undefined || old.length === 0) return endpoints
	const byId = new Map(old.map((e) => [`${e.ip} ${e.port}`, e]))
	return endpoints.map((e) => share(byId.get(`${e.ip} ${e.port}`), e))
}
