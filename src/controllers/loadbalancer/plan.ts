// Which addresses the load balancer of a Service has. What it has already it keeps as long as it may: the status is the
// memory, so a controller that starts again gives nobody another address. Pure.

import { familyOf, type Ip, type IpFamily, ipToBigInt, tryParseIp } from '../../base/ip.ts'
import type { LoadBalancerIngress, Service } from '../../kube/objects/core.ts'
import {
	addressesAnnotation,
	balancerOf,
	internalWish,
	ipModeAnnotation,
	poolAnnotation,
	sharingAnnotation,
} from '../../kube/objects/load-balancer.ts'
import { keyOf } from '../../kube/objects/meta.ts'
import { canonicalJson } from '../hash.ts'
import { type AddressPool, freeAddress, poolOf } from './pools.ts'

export type BalancerPlan =
	| { readonly ok: true; readonly ingress: readonly LoadBalancerIngress[] }
	/** One sentence that says why it has to wait. */
	| { readonly ok: false; readonly why: string }

export interface Neighbours {
	/** Every Service whose status names the address, whoever wrote it. */
	holdersOf(ip: Ip): Iterable<Service>
	/** Every Service with that text in the sharing annotation. */
	sharersOf(text: string): Iterable<Service>
}

export function planBalancer(
	service: Service,
	pools: readonly AddressPool[],
	{ holdersOf, sharersOf }: Neighbours,
): BalancerPlan {
	const wishes = readWishes(service)
	if (!wishes.ok) return wishes
	const key = keyOf(service)
	const have = addressesOf(service)
	const others = (ip: Ip): Service[] => [...holdersOf(ip)].filter((other) => keyOf(other) !== key)
	/** Why another keeps it from the address; undefined: nobody does. */
	const hindrance = (ip: Ip): string | undefined => {
		for (const other of others(ip)) {
			const why = cannotShare(service, other)
			// Two that should not have it both (one has changed): the older one stays.
			if (why !== undefined && !(have.includes(ip) && isOlder(service, other))) {
				return `Service ${JSON.stringify(keyOf(other))} has ${ip}: ${why}`
			}
		}
		return undefined
	}
	const namedPool = service.metadata.annotations?.[poolAnnotation]
	const usable = namedPool === undefined ? pools.filter((p) => p.autoAssign) : pools.filter((p) => p.name === namedPool)
	if (namedPool !== undefined && usable.length === 0) {
		return { ok: false, why: `there is no address pool ${JSON.stringify(namedPool)}; there are ${names(pools)}` }
	}

	const given: Ip[] = []
	let failed: string | undefined
	for (const family of familiesOf(service)) {
		const found = pick(family)
		if ('ip' in found) given.push(found.ip)
		else failed ??= found.why
	}
	const enough = service.spec?.ipFamilyPolicy === 'PreferDualStack' ? given.length > 0 : failed === undefined
	if (!enough || given.length === 0) return { ok: false, why: failed ?? 'it has no IP family' }
	// Only the appliance is a proxy: a node that announces gets the packets as they are, and must know the address.
	const proxy = wayOf(service) === 'forward' && service.metadata.annotations?.[ipModeAnnotation] === 'Proxy'
	const ipMode = proxy ? 'Proxy' : 'VIP'
	return { ok: true, ingress: given.map((ip) => ({ ip, ipMode })) }

	function pick(family: IpFamily): { readonly ip: Ip } | { readonly why: string } {
		const wished = wishes.ok ? wishes.ips.filter((ip) => familyOf(ip) === family) : []
		const [first] = wished
		if (first !== undefined) {
			const pool = poolOf(pools, first)
			if (pool === undefined) return { why: `${first} is in no address pool; the pools are ${names(pools)}` }
			const why = hindrance(first)
			return why === undefined ? { ip: first } : { why }
		}
		const kept = have.find(
			(ip) => familyOf(ip) === family && poolOf(usable, ip) !== undefined && hindrance(ip) === undefined,
		)
		if (kept !== undefined) return { ip: kept }
		for (const pool of usable) {
			const shared = sharedAddress(pool, family)
			if (shared !== undefined) return { ip: shared }
		}
		for (const pool of usable) {
			const free = freeAddress(pool, family, (ip) => others(ip).length > 0)
			if (free !== undefined) return { ip: free }
		}
		const version = family === 4 ? 'IPv4' : 'IPv6'
		return { why: `no ${version} address is free in ${usable.length === 0 ? 'any pool' : names(usable)}` }
	}

	/** The lowest address of the pool that Services with the same sharing text have, with room for these ports. */
	function sharedAddress(pool: AddressPool, family: IpFamily): Ip | undefined {
		if (sharingText(service) === '') return undefined
		const held = new Set([...sharersOf(sharingText(service))].flatMap(addressesOf))
		return [...held]
			.filter((ip) => familyOf(ip) === family && poolOf([pool], ip) !== undefined && hindrance(ip) === undefined)
			.sort(compareIps)[0]
	}
}

/** The addresses in the status, as far as they are such. */
export function addressesOf(service: Service): readonly Ip[] {
	return (service.status?.loadBalancer?.ingress ?? []).flatMap(({ ip }) => (ip ? (tryParseIp(ip) ?? []) : []))
}

function readWishes(
	service: Service,
): { readonly ok: true; readonly ips: readonly Ip[] } | { readonly ok: false; readonly why: string } {
	const annotation = service.metadata.annotations?.[addressesAnnotation]
	const field = service.spec?.loadBalancerIP
	const texts = annotation !== undefined ? annotation.split(',').map((t) => t.trim()) : field ? [field] : []
	const ips: Ip[] = []
	for (const text of texts) {
		const ip = tryParseIp(text)
		const where = annotation !== undefined ? `annotation ${addressesAnnotation}` : 'spec.loadBalancerIP'
		if (ip === undefined) return { ok: false, why: `${where} is ${JSON.stringify(text)}, which is no IP address` }
		if (!familiesOf(service).includes(familyOf(ip))) {
			return { ok: false, why: `${where} is ${ip}, but the Service has no such IP family` }
		}
		ips.push(ip)
	}
	return { ok: true, ips }
}

function familiesOf(service: Service): readonly IpFamily[] {
	const families = service.spec?.ipFamilies
	return families === undefined || families.length === 0 ? [4] : families.map((f) => (f === 'IPv6' ? 6 : 4))
}

export function sharingText(service: Service): string {
	return service.metadata.annotations?.[sharingAnnotation] ?? ''
}

/** Why the two cannot have one address; undefined: they can. */
function cannotShare(a: Service, b: Service): string | undefined {
	if (sharingText(a) === '' || sharingText(a) !== sharingText(b)) {
		return `they do not both ask to share it (annotation ${sharingAnnotation})`
	}
	const portsOf = (s: Service) => (s.spec?.ports ?? []).map((p) => `${p.port}/${p.protocol ?? 'TCP'}`)
	const both = portsOf(a).find((port) => portsOf(b).includes(port))
	if (both !== undefined) return `both have port ${both}`
	if (wayOf(a) !== wayOf(b)) return 'one is announced by a node, the other handed on by the appliance'
	if ((internalWish(a.metadata.annotations) === undefined) !== (internalWish(b.metadata.annotations) === undefined)) {
		return 'one is internal, the other is not'
	}
	// One node has an announced address: it must be one where both serve.
	const local = [a, b].some((s) => s.spec?.externalTrafficPolicy === 'Local')
	if (wayOf(a) === 'announce' && local && canonicalJson(a.spec?.selector) !== canonicalJson(b.spec?.selector)) {
		return 'with externalTrafficPolicy Local they need the same selector'
	}
	return undefined
}

function compareIps(a: Ip, b: Ip): number {
	return ipToBigInt(a) < ipToBigInt(b) ? -1 : 1
}

function wayOf(service: Service): 'announce' | 'forward' | 'foreign' {
	const by = balancerOf(service)
	if (by === undefined) return 'foreign'
	const ports = service.spec?.ports ?? []
	return by === 'layer-2' || ports.some((port) => !port.nodePort) ? 'announce' : 'forward'
}

function isOlder(a: Service, b: Service): boolean {
	const [at, bt] = [a.metadata.creationTimestamp ?? '', b.metadata.creationTimestamp ?? '']
	return at === bt ? keyOf(a) < keyOf(b) : at < bt
}

function names(pools: readonly AddressPool[]): string {
	return pools.map((p) => `${JSON.stringify(p.name)} (${p.cidrs.join(', ')})`).join(', ')
}
