// Addresses and node ports of Services, taken in the same step as the Service is written, so that no two ever share one.
// Rules: KEP-3070 (static band of the address range), KEP-3668 (of node ports), KEP-563 (dual stack), KEP-1880
// (ServiceCIDR and IPAddress objects).

import { type Cidr, cidrNth, type Ip, tryParseIp } from '../../base/ip.ts'
import type { UnknownObject } from '../../kube/objects/meta.ts'
import { isObject, type Json, type JsonObject } from '../../kube/schema/json.ts'
import type { Served } from '../registry.ts'
import { cause, invalid } from '../status.ts'
import type { Store } from '../store.ts'
import { addressStorage, parentOf } from './ip-addresses.ts'
import { pick } from './pick.ts'
import { chooseFamilies } from './service-families.ts'
import { isOf, type ServiceNetwork, serviceNetworks } from './service-networks.ts'
import { type PortRange, withNodePorts } from './service-ports.ts'
import {
	addressesOf,
	clusterIpsOf,
	type Fail,
	type Family,
	listOf,
	needsClusterIp,
	nodePortsOf,
	none,
	specOf,
	textOf,
	typeOf,
} from './service-spec.ts'
import { carryOver } from './service-update.ts'

export interface ServiceAllocator {
	/** The Service with its addresses, families and node ports. Throws Refusal Invalid where one is taken or none is left. */
	allocate(served: Served, service: UnknownObject, before: UnknownObject | undefined): UnknownObject
}

export function createServiceAllocator(
	store: Store,
	options: {
		readonly serviceCidrs: readonly Cidr[]
		readonly nodePorts: PortRange
		readonly random: () => number
	},
): ServiceAllocator {
	const addresses = store.index('services', addressesOf)
	const ports = store.index('services', (service) => nodePortsOf(service).map(String))
	const networks = serviceNetworks(store, options.serviceCidrs)
	const { nodePorts, random } = options
	return {
		allocate(served, service, before) {
			const key = `${service.metadata.namespace}/${service.metadata.name}`
			const fail = (...causes: Parameters<Fail>) => invalid(served.resource, service.metadata.name, causes)
			let spec = specOf(service)
			const old = before === undefined ? undefined : specOf(before)
			if (old !== undefined) spec = carryOver(spec, old)
			const takenBy = (ip: Ip) => addresses.owner(ip) ?? parentOf(store.current(addressStorage, ip)?.object)
			spec = withClusterIps(spec, old, { networks: networks(), takenBy, key, random, fail })
			spec = withNodePorts(spec, old, { ports, range: nodePorts, key, random, fail })
			return { ...service, spec }
		},
	}
}

/**
 * A Service as its status is written: an address of a load balancer that does not say how traffic comes by it is an
 * address of the Service itself (KEP-1860).
 */
export function prepareServiceStatus(service: UnknownObject): UnknownObject {
	const status = isObject(service.status) ? service.status : undefined
	const balancer = status !== undefined && isObject(status.loadBalancer) ? status.loadBalancer : undefined
	const points = balancer?.ingress
	if (typeOf(specOf(service)) !== 'LoadBalancer' || !Array.isArray(points)) return service
	const lacks = (point: Json) => isObject(point) && textOf(point.ip) !== '' && point.ipMode === undefined
	if (!points.some(lacks)) return service
	const ingress = points.map((point: Json) => (lacks(point) ? { ...(point as JsonObject), ipMode: 'VIP' } : point))
	return { ...service, status: { ...status, loadBalancer: { ...balancer, ingress } } }
}

interface AddressContext {
	readonly networks: readonly ServiceNetwork[]
	/** The key of the Service that has an address. */
	readonly takenBy: (ip: Ip) => string | undefined
	readonly key: string
	readonly random: () => number
	readonly fail: Fail
}

function withClusterIps(spec: JsonObject, old: JsonObject | undefined, context: AddressContext): JsonObject {
	const { fail } = context
	// What it still says of addresses the checks refuse.
	if (!needsClusterIp(spec)) return spec
	const one = textOf(spec.clusterIP)
	if (one === '' && listOf(spec.clusterIPs).length > 0)
		throw fail(cause.invalid('spec.clusterIPs', spec.clusterIPs, 'must be empty when `clusterIP` is not specified'))
	const given = clusterIpsOf(spec)
	if (one !== '' && given[0] !== one)
		throw fail(cause.invalid('spec.clusterIPs', given, 'first value must match `clusterIP`'))
	const had = old === undefined || !needsClusterIp(old) ? [] : clusterIpsOf(old)
	if (had.length > 0 && given[0] !== had[0])
		throw fail(cause.invalid('spec.clusterIPs[0]', given, 'may not change once set'))
	const have = [...new Set(context.networks.map((network) => network.family))]
	const { families, policy, ips } = chooseFamilies(spec, old, have, fail)
	const chosen = { ipFamilies: families, ipFamilyPolicy: policy }
	if (ips[0] === none) return { ...spec, clusterIP: none, clusterIPs: [none], ...chosen }
	const out = families.map((family, i) => {
		const wanted = ips[i]
		if (wanted === undefined || wanted === '') return takeAddress(family, context)
		if (!had.includes(wanted)) checkAddress(family, wanted, given, context)
		return wanted
	})
	return { ...spec, clusterIP: out[0], clusterIPs: out, ...chosen }
}

function checkAddress(family: Family, wanted: string, given: readonly string[], context: AddressContext): void {
	const refused = (why: string) =>
		context.fail(cause.invalid('spec.clusterIPs', given, `failed to allocate IP ${wanted}: ${why}`))
	const networks = context.networks.filter((network) => network.family === family)
	const ip = tryParseIp(wanted)!
	if (!networks.some((network) => isOf(network, ip))) {
		const range = networks.map((network) => network.cidr).join(',')
		throw refused(`the provided IP (${wanted}) is not in the valid range. The range of valid IPs is ${range}`)
	}
	const owner = context.takenBy(ip)
	if (owner !== undefined && owner !== context.key) throw refused('provided IP is already allocated')
}

/** A free address: of the upper part of a network first, of its static band when that is full. */
function takeAddress(family: Family, { networks, takenBy, random, fail }: AddressContext): Ip {
	const own = networks.filter((network) => network.family === family)
	for (const band of ['dynamic', 'static'] as const) {
		for (const { cidr, first, dynamic, last } of own) {
			const [from, to] = band === 'dynamic' ? [dynamic, last] : [first, dynamic - 1n]
			const offset = pick(from, to, random, (o) => takenBy(cidrNth(cidr, o)) === undefined)
			if (offset !== undefined) return cidrNth(cidr, offset)
		}
	}
	const full = own.map((network) => network.cidr).join(',')
	throw fail(cause.invalid('spec.clusterIPs', [], `failed to allocate a serviceIP: range ${full} is full`))
}
