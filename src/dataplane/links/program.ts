// One node's wiring as data: interfaces, addresses, routes and neighbours of the node's namespace and of its pods.

import { type Cidr, familyOf, hostCidr, type Ip, type IpFamily, ipToBytes } from '../../base/ip.ts'
import { type Table, tableOf } from '../../base/table.ts'
import { defaultOrigin, type ObjectKey, type Origin } from '../../model/origin.ts'

export interface LinksProgram {
	/** By pod uid. */
	readonly attachments: Table<string, Attachment>
	/** Routes of the node's own namespace that are ours, by routeKey. */
	readonly routes: Table<string, Route>
	/** sysctls of the node's namespace, by dotted name. */
	readonly sysctls: Table<string, string>
	/** What the node's namespace holds besides, which is not ours to change. */
	readonly surroundings?: Surroundings
}

/** One pod's wiring: a persistent namespace, a veth, its addresses, the link-local gateway. */
export interface Attachment {
	readonly uid: string
	readonly pod: ObjectKey
	/** Path of the pod's persistent network namespace. */
	readonly namespace: string
	readonly ips: readonly Ip[]
	/** Name of the node's end. */
	readonly hostInterface: string
	/** Name of the pod's end: eth0. */
	readonly podInterface: string
	readonly mtu: number
	readonly because: readonly Origin[]
	/** Only in a program read back: what is really there. */
	readonly found?: Wiring
}

export interface Route {
	readonly destination: Cidr
	/** undefined: on link. */
	readonly via?: Ip
	/** Empty for an unreachable route. */
	readonly device: string
	/** Refuses instead of forwarding: an address of this node's pod CIDR that no pod has. */
	readonly unreachable?: true
	readonly because: readonly Origin[]
}

export interface Neighbour {
	readonly ip: Ip
	readonly mac: string
}

/** Both ends of one attachment in detail. An end is undefined where its interface is missing. */
export interface Wiring {
	readonly host: HostEnd | undefined
	readonly pod: PodEnd | undefined
}

export interface HostEnd {
	readonly up: boolean
	readonly mtu: number
	readonly mac: string
	/** Permanent ones. */
	readonly neighbours: readonly Neighbour[]
}

export interface PodEnd extends HostEnd {
	readonly loopbackUp: boolean
	/** Global addresses of the interface. */
	readonly ips: readonly Ip[]
	/** Main table, without those the kernel makes by itself. */
	readonly routes: readonly Route[]
}

export interface Surroundings {
	/** Addresses of the node itself. */
	readonly addresses: readonly Ip[]
	/** Routes of the main table that are not ours: connected networks, the default route. */
	readonly routes: readonly Route[]
	/** By interface name. */
	readonly mtus: Readonly<Record<string, number>>
	/** Interfaces that carry nothing: switched off, or the far end is (a pulled cable). */
	readonly down?: readonly string[]
}

/** Of the node's end of every pod's veth: the same everywhere, so that the gateway's neighbour entry is a constant. */
export const hostMac = 'ee:ee:ee:ee:ee:ee'

/** Gateways every pod has on its link, answered by nobody: a permanent neighbour entry leads to the node's end. */
export const gateway4 = '169.254.1.1' as Ip
export const gateway6 = 'fe80::ecee:eeff:feee:eeee' as Ip

export function gatewayOf(family: IpFamily): Ip {
	return family === 4 ? gateway4 : gateway6
}

/** The pod's MAC, from its first address: `0a:58` (locally administered) and the last four bytes. */
export function podMac(ips: readonly Ip[]): string {
	const bytes = ips[0] === undefined ? new Uint8Array(4) : ipToBytes(ips[0]).slice(-4)
	return `0a:58:${Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join(':')}`
}

export function routeKey(destination: Cidr): string {
	return `${destination} main`
}

/** As `ip route` prints it. */
export function routeText(route: Route): string {
	const destination = route.destination.endsWith('/0') ? 'default' : route.destination.replace(/\/(32|128)$/, '')
	if (route.unreachable === true) return `unreachable ${destination}`
	return `${destination}${route.via === undefined ? '' : ` via ${route.via}`} dev ${route.device}`
}

const families = (ips: readonly Ip[]): IpFamily[] => [...new Set(ips.map(familyOf))]

/** Both ends as an attachment means them. */
export function wiringOf(attachment: Attachment): Wiring {
	const { ips, mtu } = attachment
	const mac = podMac(ips)
	return {
		host: { up: true, mtu, mac: hostMac, neighbours: ips.map((ip) => ({ ip, mac })) },
		pod: {
			up: true,
			mtu,
			mac,
			loopbackUp: true,
			ips,
			neighbours: families(ips).map((family) => ({ ip: gatewayOf(family), mac: hostMac })),
			routes: families(ips).flatMap((family) => podRoutes(family, attachment.podInterface)),
		},
	}
}

function podRoutes(family: IpFamily, device: string): Route[] {
	const via = gatewayOf(family)
	const because = [defaultOrigin('every pod reaches everything through its link-local gateway')]
	const everything = { destination: (family === 4 ? '0.0.0.0/0' : '::/0') as Cidr, via, device, because }
	// An IPv6 gateway is link-local: always on link, and the kernel has that route already.
	return family === 4 ? [{ destination: hostCidr(via), device, because }, everything] : [everything]
}

/**
 * What is wrong with an attachment as it was read, each a clause for a person: `interface "eth0" is down`.
 * Empty when the kernel has what `want` means. Extra addresses and routes in the pod are faults, too.
 */
export function faultsOf(have: Attachment, want: Attachment): string[] {
	const faults: string[] = []
	if (have.namespace !== want.namespace) faults.push(`namespace is ${q(have.namespace)}, not ${q(want.namespace)}`)
	const found = have.found
	// Compiled, not read: the declared fields are all there is.
	if (found === undefined) {
		if (have.mtu !== want.mtu) faults.push(`MTU is ${have.mtu}, not ${want.mtu}`)
		if (have.ips.join() !== want.ips.join()) faults.push(`addresses are ${have.ips.join(', ')}`)
		if (have.hostInterface !== want.hostInterface) faults.push(`interface ${q(want.hostInterface)} is missing`)
		if (have.podInterface !== want.podInterface) faults.push(`interface ${q(want.podInterface)} is missing`)
		return faults
	}
	const meant = wiringOf(want)
	endFaults(faults, want.hostInterface, found.host, meant.host as HostEnd)
	endFaults(faults, want.podInterface, found.pod, meant.pod as PodEnd)
	if (found.pod === undefined) return faults
	const pod = meant.pod as PodEnd
	if (!found.pod.loopbackUp) faults.push('interface "lo" of the pod is down')
	differences(faults, 'address', found.pod.ips, pod.ips, String)
	differences(faults, 'route', found.pod.routes, pod.routes, routeText)
	return faults
}

function endFaults(faults: string[], name: string, have: HostEnd | undefined, want: HostEnd): void {
	if (have === undefined) {
		faults.push(`interface ${q(name)} is missing`)
		return
	}
	if (!have.up) faults.push(`interface ${q(name)} is down`)
	if (have.mtu !== want.mtu) faults.push(`MTU of interface ${q(name)} is ${have.mtu}, not ${want.mtu}`)
	if (have.mac !== want.mac) faults.push(`MAC of interface ${q(name)} is ${have.mac}, not ${want.mac}`)
	differences(faults, `neighbour of ${q(name)}`, have.neighbours, want.neighbours, (n) => `${n.ip} lladdr ${n.mac}`)
}

function differences<T>(
	faults: string[],
	what: string,
	have: readonly T[],
	want: readonly T[],
	text: (item: T) => string,
) {
	const there = new Set(have.map(text))
	const meant = new Set(want.map(text))
	for (const item of meant) if (!there.has(item)) faults.push(`${what} "${item}" is missing`)
	for (const item of there) if (!meant.has(item)) faults.push(`${what} "${item}" is too much`)
}

const q = (text: string) => JSON.stringify(text)

export interface LinksProgramJson {
	readonly attachments: readonly Attachment[]
	readonly routes: readonly Route[]
	readonly sysctls: Readonly<Record<string, string>>
	readonly surroundings?: Surroundings
}

/** The JSON form; lists sorted, so that equal programs give equal text. */
export function linksToJson(program: LinksProgram): LinksProgramJson {
	const sorted = <V>(table: Table<string, V>) => [...table].sort(([a], [b]) => (a < b ? -1 : 1))
	return {
		attachments: sorted(program.attachments).map(([, attachment]) => attachment),
		routes: sorted(program.routes).map(([, route]) => route),
		sysctls: Object.fromEntries(sorted(program.sysctls)),
		...(program.surroundings === undefined ? {} : { surroundings: program.surroundings }),
	}
}

export function linksFromJson(json: LinksProgramJson): LinksProgram {
	return {
		attachments: tableOf(json.attachments.map((attachment) => [attachment.uid, attachment])),
		routes: tableOf(json.routes.map((route) => [routeKey(route.destination), route])),
		sysctls: tableOf(Object.entries(json.sysctls)),
		...(json.surroundings === undefined ? {} : { surroundings: json.surroundings }),
	}
}
