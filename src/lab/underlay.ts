// The lab's physical network: one namespace with a bridge, and a cable from it to each node's namespace. It is also the
// nodes' router: behind it is another network, `outside`, with a client that is no part of the cluster.
// All of it is found again after a crash, and only what is missing is made.

import { join } from 'node:path'
import { type Cidr, cidrLength, type Ip } from '../base/ip.ts'
import { NetlinkEncoder } from '../linux/netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../linux/netlink/socket.ts'
import { createNetns, inNetns, inNetnsAt, isNetns, openNetns } from '../linux/netns.ts'
import { addAddress, addLocalRoute } from '../linux/route/addresses.ts'
import { addBridge, addVeth, LOOPBACK, readLink, readLinks, setLink } from '../linux/route/links.ts'
import { addRoute, PROTOCOL_STATIC } from '../linux/route/routes.ts'
import { close } from '../linux/syscalls.ts'
import { nodeInterface, underlayInterface, underlayMtu } from './addresses.ts'
import { everywhere, type FamilyNetworks } from './ip-family.ts'
import { createOutside, settleInterfaces } from './outside.ts'

export interface UnderlayNode {
	readonly name: string
	/** 1-based. */
	readonly number: number
}

export interface Underlay {
	/** The router's addresses there, the primary family first. */
	readonly ips: readonly Ip[]
	/** Path of the underlay's namespace. */
	readonly netns: string
	netnsOf(node: string): string
	/** Path of the outside client's namespace. */
	readonly outside: string
	/** Tells the underlay which node each pod network is behind. Idempotent. */
	route(podCidr: Cidr, node: Ip): void
	/** Pulls the node's cable at the underlay's end, or plugs it in again; addresses and routes of the node stay. Idempotent. */
	setCable(node: UnderlayNode, plugged: boolean): void
	close(): void
}

/** Makes what is missing of the underlay and its nodes. Throws Failure with what the kernel refused. */
export function createUnderlay(
	folder: string,
	nodes: readonly UnderlayNode[],
	networks: readonly FamilyNetworks[],
): Underlay {
	const netns = join(folder, 'underlay')
	const netnsOf = (node: string) => join(folder, node)
	for (const path of [netns, ...nodes.map((n) => netnsOf(n.name))]) if (!isNetns(path)) createNetns(path)
	const six = networks.some(({ family }) => family === 6)
	if (six) inNetnsAt(netns, settleInterfaces)

	const socket = inNetnsAt(netns, () => new NetlinkSocket(NETLINK_ROUTE))
	const e = new NetlinkEncoder(8192)
	let links = readLinks(socket)
	if (!links.some((l) => l.name === underlayInterface)) {
		addBridge(e, { name: underlayInterface, mtu: underlayMtu })
		socket.request(e)
		links = readLinks(socket)
	}
	const master = links.find((l) => l.name === underlayInterface)!.index
	// Also where the bridge was there: who made it may have been killed before the rest.
	setLink(e, { index: LOOPBACK, up: true })
	for (const { router, underlay } of networks) addAddress(e, master, router, cidrLength(underlay))
	setLink(e, { index: master, up: true })
	for (const { router } of networks) addLocalRoute(e, master, router)
	socket.request(e)
	for (const node of nodes) plug(node)
	const outside = createOutside(join(folder, 'outside'), netns, socket, networks)

	function plug(node: UnderlayNode): void {
		const port = portOf(node)
		const fd = openNetns(netnsOf(node.name))
		try {
			const inside = inNetns(fd, () => new NetlinkSocket(NETLINK_ROUTE))
			if (six) inNetns(fd, settleInterfaces)
			try {
				let found = readLinks(inside).find((l) => l.name === nodeInterface)
				const known = links.find((l) => l.name === port)
				// A lab that is brought up has all its nodes.
				if (known !== undefined) {
					setLink(e, { index: known.index, up: true })
					socket.request(e)
				}
				if (found === undefined) {
					addVeth(e, {
						name: port,
						mtu: underlayMtu,
						master,
						up: true,
						peer: { name: nodeInterface, mtu: underlayMtu, netns: fd },
					})
					socket.request(e)
					found = readLinks(inside).find((l) => l.name === nodeInterface)!
				}
				setLink(e, { index: LOOPBACK, up: true })
				for (const { nodeIp, underlay } of networks)
					addAddress(e, found.index, nodeIp(node.number), cidrLength(underlay))
				setLink(e, { index: found.index, up: true })
				for (const { nodeIp } of networks) addLocalRoute(e, found.index, nodeIp(node.number))
				for (const { family, router } of networks) {
					addRoute(e, {
						destination: everywhere(family),
						via: router,
						index: found.index,
						protocol: PROTOCOL_STATIC,
					})
				}
				inside.request(e)
			} finally {
				inside.close()
			}
		} finally {
			close(fd)
		}
	}

	const routed = new Map<Cidr, Ip>()
	return {
		ips: networks.map((n) => n.router),
		netns,
		netnsOf,
		outside,
		route(podCidr, node) {
			if (routed.get(podCidr) === node) return
			addRoute(e, { destination: podCidr, via: node, index: master, protocol: PROTOCOL_STATIC })
			socket.request(e)
			routed.set(podCidr, node)
		},
		setCable(node, plugged) {
			setLink(e, { index: readLink(socket, portOf(node)).index, up: plugged })
			socket.request(e)
		},
		close: () => socket.close(),
	}
}

function portOf(node: UnderlayNode): string {
	return `node${node.number}`
}
