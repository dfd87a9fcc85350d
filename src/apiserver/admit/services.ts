// Addresses and node ports of Services, taken in the same step as the Service is written, so that no two ever share one.
// Rules: KEP-3070 (static band of the address range), KEP-3668 (of node ports), KEP-563 (dual stack);
// registry/core/service/storage/alloc.go.

import {
	type Cidr,
	cidrAddress,
	cidrContains,
	cidrNth,
	cidrSize,
	familyOf,
	type Ip,
	tryParseIp,
} from '../../base/ip.ts'
import type { StatusCause, UnknownObject } from '../../kube/objects/meta.ts'
import { isObject, type Json, type JsonObject } from '../../kube/schema/json.ts'
import type { Served } from '../registry.ts'
import { cause, invalid, refuse } from '../status.ts'
import type { Store, StoreIndex } from '../store.ts'

export interface ServiceAllocator {
	/** The Service with its addresses, families and node ports. Throws Refusal Invalid where one is taken or none is left. */
	allocate(served: Served, service: UnknownObject, before: UnknownObject | undefined): UnknownObject
}

type Family = 'IPv4' | 'IPv6'
type Policy = 'SingleStack' | 'PreferDualStack' | 'RequireDualStack'

interface Range {
	readonly cidr: Cidr
	readonly family: Family
	/** Offsets of the first and last address given out. */
	readonly first: bigint
	readonly last: bigint
	/** The first offset that is given out to those who ask for none. */
	readonly dynamic: bigint
}

export function createServiceAllocator(
	store: Store,
	options: {
		readonly serviceCidrs: readonly Cidr[]
		readonly nodePorts: { readonly from: number; readonly to: number }
		readonly random: () => number
	},
): ServiceAllocator {
	const addresses = store.index('services', addressesOf)
	const ports = store.index('services', (service) => nodePortsOf(service).map(String))
	const ranges = options.serviceCidrs.map(readRange)
	const { nodePorts, random } = options
	return {
		allocate(served, service, before) {
			const key = `${service.metadata.namespace}/${service.metadata.name}`
			const fail = (...causes: StatusCause[]) => invalid(served.resource, service.metadata.name, causes)
			let spec: JsonObject = isObject(service.spec) ? service.spec : {}
			const old = before !== undefined && isObject(before.spec) ? before.spec : undefined
			if (old !== undefined) spec = carryOver(spec, old)
			spec = withClusterIps(spec, old, { ranges, addresses, key, random, fail })
			spec = withNodePorts(spec, old, { ports, range: nodePorts, key, random, fail })
			return { ...service, spec }
		},
	}
}

function readRange(cidr: Cidr): Range {
	const size = cidrSize(cidr)
	const v4 = familyOf(cidr) === 4
	// Not the network address, and in IPv4 not the broadcast address.
	const last = v4 ? size - 2n : size - 1n
	// The lowest min(max(16, size/16), 256) are left to those who ask for an address by name.
	const sixteenth = size / 16n
	const band = sixteenth < 16n ? 16n : sixteenth > 256n ? 256n : sixteenth
	return { cidr, family: v4 ? 'IPv4' : 'IPv6', first: 1n, last, dynamic: size <= 16n ? 1n : band + 1n }
}

const none = 'None'

function textOf(value: Json | undefined): string {
	return typeof value === 'string' ? value : ''
}

function listOf(value: Json | undefined): readonly string[] {
	return Array.isArray(value) ? (value as readonly Json[]).filter((v) => typeof v === 'string') : []
}

function typeOf(spec: JsonObject): string {
	return textOf(spec.type) || 'ClusterIP'
}

function addressesOf(service: UnknownObject): readonly string[] {
	const spec = isObject(service.spec) ? service.spec : {}
	if (typeOf(spec) === 'ExternalName') return []
	const ips = listOf(spec.clusterIPs)
	return (ips.length > 0 ? ips : [textOf(spec.clusterIP)]).filter((ip) => ip !== '' && ip !== none)
}

function nodePortsOf(service: UnknownObject): readonly number[] {
	const spec = isObject(service.spec) ? service.spec : {}
	const out = portsOf(spec)
		.map((port) => port.nodePort)
		.filter((port): port is number => typeof port === 'number' && port > 0)
	const health = spec.healthCheckNodePort
	if (typeof health === 'number' && health > 0) out.push(health)
	return out
}

function portsOf(spec: JsonObject): readonly JsonObject[] {
	return Array.isArray(spec.ports) ? (spec.ports as readonly Json[]).filter(isObject) : []
}

const exposed: ReadonlySet<string> = new Set(['NodePort', 'LoadBalancer'])

/** An update that leaves out what was allocated keeps it, as long as it is still needed. */
function carryOver(spec: JsonObject, old: JsonObject): JsonObject {
	const next: Record<string, Json | undefined> = { ...spec }
	const type = typeOf(spec)
	if (type !== 'ExternalName' && typeOf(old) !== 'ExternalName') {
		if (textOf(spec.clusterIP) === '' && listOf(spec.clusterIPs).length === 0) {
			next.clusterIP = old.clusterIP
			next.clusterIPs = old.clusterIPs
		} else if (textOf(spec.clusterIP) === '') next.clusterIP = listOf(spec.clusterIPs)[0]
		else if (listOf(spec.clusterIPs).length === 0) {
			const same = spec.clusterIP === old.clusterIP
			next.clusterIPs = same ? old.clusterIPs : [spec.clusterIP as string]
		}
	}
	if (exposed.has(type) && exposed.has(typeOf(old))) {
		const had = new Map(portsOf(old).map((p) => [`${p.protocol} ${p.port}`, p.nodePort]))
		const taken = new Set(portsOf(spec).map((p) => p.nodePort))
		if (portsOf(spec).length > 0) {
			next.ports = portsOf(spec).map((p) => {
				const port = had.get(`${p.protocol} ${p.port}`)
				return p.nodePort === undefined && port !== undefined && !taken.has(port) ? { ...p, nodePort: port } : p
			})
		}
		if (needsHealthPort(spec) && needsHealthPort(old) && !spec.healthCheckNodePort) {
			next.healthCheckNodePort = old.healthCheckNodePort
		}
	}
	return next
}

interface AddressContext {
	readonly ranges: readonly Range[]
	readonly addresses: StoreIndex
	readonly key: string
	readonly random: () => number
	readonly fail: (...causes: StatusCause[]) => Error
}

function withClusterIps(spec: JsonObject, old: JsonObject | undefined, context: AddressContext): JsonObject {
	const { fail } = context
	if (typeOf(spec) === 'ExternalName') {
		const { clusterIP: ip, clusterIPs: ips, ipFamilies: _f, ipFamilyPolicy: _p, ...rest } = spec
		// What a Service of another type had is given back; a new one may not ask.
		const given = textOf(ip) || listOf(ips)[0] || ''
		if (given !== '' && (old === undefined || given !== textOf(old.clusterIP))) {
			throw fail(cause.forbidden('spec.clusterIPs', 'may not be set for ExternalName services'))
		}
		return rest
	}
	const one = textOf(spec.clusterIP)
	const given = listOf(spec.clusterIPs).length > 0 ? listOf(spec.clusterIPs) : one === '' ? [] : [one]
	if (one !== '' && given[0] !== one) {
		throw fail(cause.invalid('spec.clusterIPs', given, 'first value must match `clusterIP`'))
	}
	const had = old === undefined || typeOf(old) === 'ExternalName' ? [] : addressesOrNone(old)
	if (had.length > 0 && given[0] !== had[0]) {
		throw fail(cause.invalid('spec.clusterIPs[0]', given[0], 'may not change once set'))
	}
	const { families, policy } = familiesOf(spec, given, context)
	if (given[0] === none) {
		return { ...spec, clusterIP: none, clusterIPs: [none], ipFamilies: families, ipFamilyPolicy: policy }
	}
	const ips: string[] = []
	for (const [i, family] of families.entries()) {
		const range = context.ranges.find((r) => r.family === family)!
		const wanted = given[i]
		if (wanted === undefined) ips.push(takeAddress(range, context))
		else {
			if (!had.includes(wanted)) checkAddress(range, wanted, i, given, context)
			ips.push(wanted)
		}
	}
	return { ...spec, clusterIP: ips[0], clusterIPs: ips, ipFamilies: families, ipFamilyPolicy: policy }
}

function addressesOrNone(spec: JsonObject): readonly string[] {
	const ips = listOf(spec.clusterIPs)
	return ips.length > 0 ? ips : textOf(spec.clusterIP) === '' ? [] : [textOf(spec.clusterIP)]
}

function familiesOf(
	spec: JsonObject,
	given: readonly string[],
	{ ranges, fail }: AddressContext,
): { readonly families: readonly Family[]; readonly policy: Policy } {
	const headless = given[0] === none
	const selectorless = !isObject(spec.selector) || Object.keys(spec.selector).length === 0
	const asked = listOf(spec.ipFamilies) as readonly Family[]
	let policy = textOf(spec.ipFamilyPolicy) as Policy | ''
	const other = (family: Family): Family => (family === 'IPv4' ? 'IPv6' : 'IPv4')
	const families: Family[] = [...asked]
	if (headless && selectorless) {
		// Its endpoints may be of any family, whatever the cluster has.
		policy ||= 'RequireDualStack'
		if (families.length === 0) families.push(ranges[0]!.family)
		if (families.length === 1 && policy !== 'SingleStack') families.push(other(families[0]!))
		return { families, policy }
	}
	if (!headless) {
		for (const [i, ip] of given.entries()) {
			const parsed = tryParseIp(ip)
			if (parsed === undefined) {
				throw fail(
					cause.invalid(`spec.clusterIPs[${i}]`, ip, 'must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'),
				)
			}
			const family: Family = familyOf(parsed) === 4 ? 'IPv4' : 'IPv6'
			if (families[i] === undefined) families[i] = family
			else if (families[i] !== family) {
				throw fail(
					cause.invalid(
						`spec.clusterIPs[${i}]`,
						ip,
						`expected an ${families[i]} value as indicated by \`ipFamilies[${i}]\``,
					),
				)
			}
		}
	}
	for (const [i, family] of families.entries()) {
		if (families.indexOf(family) !== i) throw fail(cause.duplicate(`spec.ipFamilies[${i}]`, family))
		if (!ranges.some((range) => range.family === family)) {
			throw fail(cause.invalid(`spec.ipFamilies[${i}]`, family, 'not configured on this cluster'))
		}
	}
	if (policy === '') policy = families.length === 2 ? 'RequireDualStack' : 'SingleStack'
	if (families.length === 2 && policy === 'SingleStack') {
		throw fail(
			cause.invalid(
				'spec.ipFamilyPolicy',
				policy,
				'must be RequireDualStack or PreferDualStack when multiple IP families are specified',
			),
		)
	}
	if (policy === 'RequireDualStack' && ranges.length < 2) {
		throw fail(cause.invalid('spec.ipFamilyPolicy', policy, 'this cluster is not configured for dual-stack services'))
	}
	if (families.length === 0) families.push(ranges[0]!.family)
	if (families.length === 1 && policy !== 'SingleStack' && ranges.length === 2) families.push(other(families[0]!))
	return { families, policy }
}

function checkAddress(
	range: Range,
	wanted: string,
	i: number,
	given: readonly string[],
	context: AddressContext,
): void {
	const ip = tryParseIp(wanted)
	const fail = (why: string) =>
		context.fail(cause.invalid('spec.clusterIPs', given, `failed to allocate IP ${wanted}: ${why}`))
	if (ip === undefined) throw context.fail(cause.invalid(`spec.clusterIPs[${i}]`, wanted, 'must be a valid IP address'))
	const edge =
		ip === cidrAddress(range.cidr) || (range.family === 'IPv4' && ip === cidrNth(range.cidr, cidrSize(range.cidr) - 1n))
	if (!cidrContains(range.cidr, ip) || edge) {
		throw fail(`the provided IP (${wanted}) is not in the valid range. The range of valid IPs is ${range.cidr}`)
	}
	const owner = context.addresses.owner(ip)
	if (owner !== undefined && owner !== context.key) throw fail('provided IP is already allocated')
}

/** A free address: of the upper part first, of the static band when that is full. */
function takeAddress(range: Range, { addresses, random, fail }: AddressContext): Ip {
	const taken = pick(
		range.dynamic,
		range.last,
		random,
		(offset) => addresses.owner(cidrNth(range.cidr, offset)) === undefined,
	)
	const low =
		taken ?? pick(range.first, range.dynamic - 1n, random, (o) => addresses.owner(cidrNth(range.cidr, o)) === undefined)
	if (low === undefined) {
		throw fail(cause.invalid('spec.clusterIPs', [], `failed to allocate a serviceIP: range ${range.cidr} is full`))
	}
	return cidrNth(range.cidr, low)
}

/** The first free offset from a random place on, round about; undefined: none is free. */
function pick(
	first: bigint,
	last: bigint,
	random: () => number,
	free: (offset: bigint) => boolean,
): bigint | undefined {
	const size = last - first + 1n
	if (size <= 0n) return undefined
	const start = BigInt(Math.floor(random() * Number(size > 0xffff_ffffn ? 0xffff_ffffn : size)))
	for (let i = 0n; i < size; i++) {
		const offset = first + ((start + i) % size)
		if (free(offset)) return offset
	}
	return undefined
}

function needsHealthPort(spec: JsonObject): boolean {
	return typeOf(spec) === 'LoadBalancer' && spec.externalTrafficPolicy === 'Local'
}

interface PortContext {
	readonly ports: StoreIndex
	readonly range: { readonly from: number; readonly to: number }
	readonly key: string
	readonly random: () => number
	readonly fail: (...causes: StatusCause[]) => Error
}

function withNodePorts(spec: JsonObject, old: JsonObject | undefined, context: PortContext): JsonObject {
	const { fail, range } = context
	const type = typeOf(spec)
	const had = new Set(old === undefined ? [] : portsOf(old).map((p) => p.nodePort))
	// Node ports of a Service that is no longer exposed are given back.
	if (!exposed.has(type)) {
		if (portsOf(spec).length === 0) return spec
		const ports = portsOf(spec).map((port, i) => {
			const { nodePort, ...rest } = port
			if (nodePort !== undefined && nodePort !== 0 && !had.has(nodePort)) {
				throw fail(cause.forbidden(`spec.ports[${i}].nodePort`, "may not be used when `type` is 'ClusterIP'"))
			}
			return rest
		})
		const { healthCheckNodePort: _, ...rest } = spec
		return { ...rest, ports }
	}
	const wants = type === 'NodePort' || spec.allocateLoadBalancerNodePorts !== false
	/** nodePort → protocols that use it in this Service. */
	const used = new Map<number, Set<string>>()
	const use = (port: number, protocol: string) => {
		const protocols = used.get(port)
		if (protocols === undefined) used.set(port, new Set([protocol]))
		else protocols.add(protocol)
	}
	const protocolOf = (port: JsonObject) => textOf(port.protocol) || 'TCP'
	for (const [i, port] of portsOf(spec).entries()) {
		const wanted = port.nodePort
		if (typeof wanted !== 'number' || wanted === 0) continue
		const field = `spec.ports[${i}].nodePort`
		if (used.get(wanted)?.has(protocolOf(port))) throw fail(cause.duplicate(field, wanted))
		checkPort(wanted, field, had.has(wanted), context)
		use(wanted, protocolOf(port))
	}
	const ports: JsonObject[] = []
	for (const [i, port] of portsOf(spec).entries()) {
		if (!wants || (typeof port.nodePort === 'number' && port.nodePort !== 0)) {
			ports.push(port)
			continue
		}
		// The same port number under another protocol (DNS) shares the node port.
		const others = [...ports, ...portsOf(spec).slice(i + 1)]
		const shared = others.find((p) => p.port === port.port && typeof p.nodePort === 'number')?.nodePort as
			| number
			| undefined
		const free = shared !== undefined && shared !== 0 && !used.get(shared)?.has(protocolOf(port))
		const nodePort = free ? shared : takePort(used, context)
		use(nodePort, protocolOf(port))
		ports.push({ ...port, nodePort })
	}
	const out: Record<string, Json | undefined> = { ...spec, ports }
	if (needsHealthPort(spec)) {
		const wanted = spec.healthCheckNodePort
		if (typeof wanted === 'number' && wanted !== 0) {
			checkPort(wanted, 'spec.healthCheckNodePort', old?.healthCheckNodePort === wanted, context)
			if (used.has(wanted)) throw fail(cause.duplicate('spec.healthCheckNodePort', wanted))
		} else out.healthCheckNodePort = takePort(used, context)
	} else delete out.healthCheckNodePort
	return out

	function checkPort(port: number, field: string, mine: boolean, { ports, key }: PortContext): void {
		if (port < range.from || port > range.to) {
			throw fail(
				cause.invalid(
					field,
					port,
					`provided port is not in the valid range. The range of valid ports is ${range.from}-${range.to}`,
				),
			)
		}
		const owner = ports.owner(String(port))
		if (!mine && owner !== undefined && owner !== key)
			throw fail(cause.invalid(field, port, 'provided port is already allocated'))
	}
}

function takePort(used: ReadonlyMap<number, unknown>, { ports, range, random }: PortContext): number {
	const size = range.to - range.from + 1
	// KEP-3668: min(max(16, size/32), 128) are left to those who ask for a port by number.
	const band = Math.min(Math.max(16, Math.floor(size / 32)), 128)
	const free = (port: bigint) => !used.has(Number(port)) && ports.owner(String(port)) === undefined
	const dynamic = BigInt(size > band ? range.from + band : range.from)
	const port = pick(dynamic, BigInt(range.to), random, free) ?? pick(BigInt(range.from), dynamic - 1n, random, free)
	if (port === undefined) {
		throw refuse(
			'InternalError',
			`Internal error occurred: failed to allocate a nodePort: all of ${range.from}-${range.to} are taken`,
		)
	}
	return Number(port)
}
