// Where the wiring sends a packet: longest prefix first, as the kernel's own lookup. Pure; works on a program that was
// read (then it answers from what is really there) and on one that was only compiled.

import { type Cidr, cidrContains, cidrLength, familyOf, type Ip, type IpFamily, maskIp } from '../../base/ip.ts'
import type { Hook, Packet } from '../../base/packet.ts'
import { defaultOrigin, type Origin } from '../../model/origin.ts'
import type { Evaluated } from '../dataplane.ts'
import {
	type Attachment,
	type LinksProgram,
	type PodEnd,
	type Route,
	routeKey,
	routeText,
	wiringOf,
} from './program.ts'

export interface RouteDecision {
	/** local: the namespace itself has the address; unreachable: a route says so. */
	readonly kind: 'forward' | 'local' | 'unreachable'
	readonly destination: Cidr
	readonly via?: Ip
	/** `lo` for local, empty for unreachable. */
	readonly device: string
	/** Largest packet the device takes, where it is known. */
	readonly mtu?: number
	/** The pod at the other end of the device. */
	readonly attachment?: Attachment
	/** As `ip route` prints it. */
	readonly text: string
	readonly because: readonly Origin[]
}

/** The route to `ip` from the node's own namespace, or from a pod's. undefined: there is none (network unreachable). */
export function routeOf(
	program: LinksProgram,
	ip: Ip,
	from: 'node' | { readonly uid: string },
): RouteDecision | undefined {
	return from === 'node' ? routeOfNode(program, ip) : routeOfPod(program, ip, from.uid)
}

function routeOfNode(program: LinksProgram, ip: Ip): RouteDecision | undefined {
	const { surroundings } = program
	if (isLoopback(ip) || surroundings?.addresses.includes(ip) === true) return local(ip)
	const ours = longestOf(program, ip)
	const foreign = longest(surroundings?.routes ?? [], ip)
	// With equal lengths the kernel takes the older one of equal metric; ours replaces, so ours it is.
	const route =
		foreign !== undefined && (ours === undefined || cidrLength(foreign.destination) > cidrLength(ours.destination))
			? foreign
			: ours
	if (route === undefined) return undefined
	const attachment = attachmentOn(program, route.device)
	const mtu =
		attachment === undefined ? surroundings?.mtus[route.device] : (attachment.found?.host?.mtu ?? attachment.mtu)
	return decided(route, mtu, attachment)
}

function routeOfPod(program: LinksProgram, ip: Ip, uid: string): RouteDecision | undefined {
	const attachment = program.attachments.get(uid)
	if (attachment === undefined) return undefined
	if (isLoopback(ip)) return local(ip)
	const pod = (attachment.found ?? wiringOf(attachment)).pod as PodEnd | undefined
	if (pod === undefined) return undefined
	if (pod.ips.includes(ip)) return local(ip)
	const route = longest(pod.routes, ip)
	if (route === undefined || !pod.up) return undefined
	return decided(route, route.device === attachment.podInterface ? pod.mtu : undefined, undefined)
}

function decided(route: Route, mtu: number | undefined, attachment: Attachment | undefined): RouteDecision {
	return {
		kind: route.unreachable === true ? 'unreachable' : 'forward',
		destination: route.destination,
		...(route.via === undefined ? {} : { via: route.via }),
		device: route.device,
		...(mtu === undefined ? {} : { mtu }),
		...(attachment === undefined ? {} : { attachment }),
		text: routeText(route),
		because: route.because,
	}
}

function local(ip: Ip): RouteDecision {
	const destination = `${ip}/${familyOf(ip) === 4 ? 32 : 128}` as Cidr
	return {
		kind: 'local',
		destination,
		device: 'lo',
		text: `local ${ip} dev lo`,
		because: [defaultOrigin('an address of this namespace')],
	}
}

function isLoopback(ip: Ip): boolean {
	return ip.startsWith('127.') || ip === '::1'
}

function longest(routes: readonly Route[], ip: Ip): Route | undefined {
	let best: Route | undefined
	for (const route of routes) {
		if (best !== undefined && cidrLength(route.destination) <= cidrLength(best.destination)) continue
		if (cidrContains(route.destination, ip)) best = route
	}
	return best
}

interface Index {
	/** Prefix lengths in use, longest first. */
	readonly lengths: Readonly<Record<IpFamily, readonly number[]>>
	readonly devices: ReadonlyMap<string, Attachment>
}

// A program never changes, so what was derived from it holds as long as it lives.
const indexes = new WeakMap<LinksProgram, Index>()

function indexOf(program: LinksProgram): Index {
	const known = indexes.get(program)
	if (known !== undefined) return known
	const lengths: Record<IpFamily, Set<number>> = { 4: new Set(), 6: new Set() }
	for (const { destination } of program.routes.values()) lengths[familyOf(destination)].add(cidrLength(destination))
	const down = (set: Set<number>) => [...set].sort((a, b) => b - a)
	const made: Index = {
		lengths: { 4: down(lengths[4]), 6: down(lengths[6]) },
		devices: new Map([...program.attachments.values()].map((each) => [each.hostInterface, each])),
	}
	indexes.set(program, made)
	return made
}

function longestOf(program: LinksProgram, ip: Ip): Route | undefined {
	for (const length of indexOf(program).lengths[familyOf(ip)]) {
		const route = program.routes.get(routeKey(`${maskIp(ip, length)}/${length}` as Cidr))
		if (route !== undefined) return route
	}
	return undefined
}

function attachmentOn(program: LinksProgram, device: string): Attachment | undefined {
	return indexOf(program).devices.get(device)
}

/**
 * The routing decision of the node for a packet that came in (prerouting) or was made here (output). Other hooks
 * decide nothing here. The route stands in `rules` with family `route`.
 */
export function evaluateLinks(program: LinksProgram, packet: Packet, at: Hook): Evaluated[] {
	if (at !== 'prerouting' && at !== 'output') return [{ verdict: 'accept', packet, rules: [], chance: 1 }]
	const decision = routeOf(program, packet.destination, 'node')
	const text = decision?.text ?? `no route to ${packet.destination}`
	const because = decision?.because ?? [defaultOrigin('no route matches')]
	const rules = [{ family: 'route', table: 'main', chain: at, text, elements: [], because }]
	if (decision === undefined || decision.kind === 'unreachable')
		return [{ verdict: 'reject', packet, rules, chance: 1 }]
	return [{ verdict: 'accept', packet: { ...packet, outInterface: decision.device }, rules, chance: 1 }]
}
