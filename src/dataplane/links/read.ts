// What one node and its pods really have, read from the kernel in the program's own terms. A few dumps a pod
// (0.2 ms); it lets the event loop run between them.

import { closeSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { isFailure } from '../../base/failure.ts'
import { familyOf } from '../../base/ip.ts'
import { tableOf } from '../../base/table.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../../linux/netlink/socket.ts'
import { inNetns, isNetns, openNetns } from '../../linux/netns.ts'
import { readAddresses } from '../../linux/route/addresses.ts'
import { type Link, readLinks } from '../../linux/route/links.ts'
import { type Neighbour as KernelNeighbour, readNeighbours } from '../../linux/route/neighbours.ts'
import { type KernelRoute, PROTOCOL_KERNEL, readRoutes, TABLE_MAIN } from '../../linux/route/routes.ts'
import { readSysctl } from '../../linux/sysctl.ts'
import { defaultOrigin } from '../../model/origin.ts'
import {
	type Attachment,
	type HostEnd,
	type LinksProgram,
	type Neighbour,
	type PodEnd,
	type Route,
	routeKey,
	type Surroundings,
} from './program.ts'
import { DOOMED, type NodeLinks, PROTOCOL, readAlias } from './wire.ts'

/** Longest the event loop stands still, milliseconds. */
const slice = 8

/**
 * `known`: what was last compiled for this node. It says where pods' namespaces are and why things are there; what
 * the kernel has besides is reported with what its name and alias tell.
 */
export async function readLinksProgram(
	node: NodeLinks,
	known: LinksProgram,
	signal?: AbortSignal,
): Promise<LinksProgram> {
	const links = readLinks(node.socket)
	const names = new Map(links.map((link) => [link.index, link.name]))
	const neighbours = readNeighbours(node.socket)
	const kernelRoutes = readRoutes(node.socket).filter((route) => route.table === TABLE_MAIN)
	const addresses = readAddresses(node.socket).filter((address) => address.scope === 'global')
	const sysctls = inNetns(node.netns, () => readSysctls(known))

	const expected = new Map(known.attachments)
	const byName = new Map<string, Link>()
	for (const link of links) {
		if (link.group === DOOMED) continue
		const owner = readAlias(link.alias)
		if (owner === undefined) continue
		byName.set(link.name, link)
		if (!expected.has(owner.uid)) expected.set(owner.uid, stranger(owner, link))
	}
	// A link that lost its alias is still found by the name the record gives it.
	for (const link of links) if (link.group !== DOOMED && !byName.has(link.name)) byName.set(link.name, link)

	const attachments: Attachment[] = []
	let since = performance.now()
	for (const attachment of expected.values()) {
		if (performance.now() - since > slice) {
			await setImmediate()
			signal?.throwIfAborted()
			since = performance.now()
		}
		const link = byName.get(attachment.hostInterface)
		const host = link === undefined ? undefined : hostEnd(link, neighbours)
		const inside = attachment.namespace === '' ? undefined : readPod(attachment)
		// Neither end nor namespace: it is not attached at all.
		if (host === undefined && inside === undefined) continue
		const pod = inside?.pod
		attachments.push({
			...attachment,
			ips: pod?.ips ?? attachment.ips,
			mtu: pod?.mtu ?? host?.mtu ?? attachment.mtu,
			found: { host, pod },
		})
	}

	const ours: Route[] = []
	const foreign: Route[] = []
	for (const route of kernelRoutes) {
		const because = known.routes.get(routeKey(route.destination))?.because
		if (route.protocol === PROTOCOL)
			ours.push(toRoute(route, names, because ?? [defaultOrigin('a route podwire made before')]))
		else foreign.push(toRoute(route, names, [defaultOrigin('a route of the node, not made by podwire')]))
	}
	const pods = new Set(attachments.map((attachment) => attachment.hostInterface))
	const others = links.filter((link) => !pods.has(link.name))
	const surroundings: Surroundings = {
		addresses: addresses.map((address) => address.ip),
		// IPv6 link-local networks exist on every interface, and nothing of ours is sent there.
		routes: foreign.filter((route) => !route.destination.startsWith('fe80:')),
		mtus: Object.fromEntries(others.map((link) => [link.name, link.mtu])),
		down: others.filter((link) => !link.up || !link.running).map((link) => link.name),
	}
	return {
		attachments: tableOf(attachments.map((attachment) => [attachment.uid, attachment])),
		routes: tableOf(ours.map((route) => [routeKey(route.destination), route])),
		sysctls: tableOf(sysctls),
		surroundings,
	}
}

function readSysctls(known: LinksProgram): (readonly [string, string])[] {
	return [...known.sysctls.keys()].flatMap((name) => {
		try {
			return [[name, readSysctl(name)] as const]
		} catch (e) {
			// A setting this kernel lacks shows as missing.
			if (isFailure(e)) return []
			throw e
		}
	})
}

/** A veth of ours no record knows: left by a crash between the kernel and the record, or by an earlier agent. */
function stranger(owner: { readonly uid: string; readonly pod: string }, link: Link): Attachment {
	return {
		...owner,
		namespace: '',
		ips: [],
		hostInterface: link.name,
		podInterface: 'eth0',
		mtu: link.mtu,
		because: [defaultOrigin('a pod interface that no record knows')],
	}
}

function hostEnd(link: Link, neighbours: readonly KernelNeighbour[]): HostEnd {
	return { up: link.up, mtu: link.mtu, mac: link.mac ?? '', neighbours: permanent(link, neighbours) }
}

function permanent(link: Link, neighbours: readonly KernelNeighbour[]): Neighbour[] {
	return neighbours
		.filter((n) => n.index === link.index && n.state === 'permanent')
		.map((n) => ({ ip: n.ip, mac: n.mac ?? '' }))
}

/** undefined where the namespace is gone; `pod` undefined where only its interface is. */
function readPod(attachment: Attachment): { readonly pod: PodEnd | undefined } | undefined {
	let fd: number
	try {
		fd = openNetns(attachment.namespace)
	} catch (e) {
		if (isFailure(e, 'ENOENT')) return undefined
		throw e
	}
	let socket: NetlinkSocket | undefined
	try {
		socket = inNetns(fd, () => new NetlinkSocket(NETLINK_ROUTE))
		const links = readLinks(socket)
		const link = links.find((each) => each.name === attachment.podInterface)
		if (link === undefined) return { pod: undefined }
		const names = new Map(links.map((each) => [each.index, each.name]))
		return {
			pod: {
				up: link.up,
				mtu: link.mtu,
				mac: link.mac ?? '',
				loopbackUp: links.some((each) => each.loopback && each.up),
				ips: readAddresses(socket)
					.filter((address) => address.index === link.index && address.scope === 'global')
					.map((address) => address.ip),
				neighbours: permanent(link, readNeighbours(socket)),
				routes: readRoutes(socket)
					.filter((route) => route.table === TABLE_MAIN && route.protocol !== PROTOCOL_KERNEL)
					.map((route) => toRoute(route, names, [defaultOrigin('a route of the pod')])),
			},
		}
	} catch (e) {
		// A file that is no namespace any more.
		if (isFailure(e, 'EINVAL') && !isNetns(attachment.namespace)) return undefined
		throw e
	} finally {
		socket?.close()
		closeSync(fd)
	}
}

function toRoute(route: KernelRoute, names: ReadonlyMap<number, string>, because: Route['because']): Route {
	const refused = route.kind === 'unreachable' || route.kind === 'blackhole' || route.kind === 'prohibit'
	// IPv6 shows loopback as the device of an unreachable route.
	const device =
		refused && (familyOf(route.destination) === 6 || route.index === undefined)
			? ''
			: (names.get(route.index ?? 0) ?? '')
	return {
		destination: route.destination,
		...(route.via === undefined ? {} : { via: route.via }),
		device,
		...(refused ? { unreachable: true as const } : {}),
		because,
	}
}
