// The kernel side of attachments: make, repair and let go of one pod's wiring, synchronously, by one or two netlink
// sends each. Making is the fast path (1 ms); whatever it meets that it did not expect goes to repair.

import { closeSync, existsSync, openSync } from 'node:fs'
import { Failure, isFailure, messageOf } from '../../base/failure.ts'
import { hostCidr } from '../../base/ip.ts'
import { NetlinkEncoder } from '../../linux/netlink/encode.ts'
import { NETLINK_ROUTE, type NetlinkError, NetlinkSocket } from '../../linux/netlink/socket.ts'
import { createNetns, deleteNetns, inNetns, isNetns, openNetns } from '../../linux/netns.ts'
import { addAddress, addLocalRoute, deleteAddress, readAddresses } from '../../linux/route/addresses.ts'
import { addVeth, deleteGroup, deleteLink, LOOPBACK, readLink, readLinks, setLink } from '../../linux/route/links.ts'
import { addNeighbour, deleteNeighbour, readNeighbours } from '../../linux/route/neighbours.ts'
import { addRoute, deleteRoute, PROTOCOL_KERNEL, readRoutes, TABLE_MAIN } from '../../linux/route/routes.ts'
import { type Attachment, hostMac, type PodEnd, podMac, wiringOf } from './program.ts'

/** Marks our routes among others (rtm_protocol; not in use by a routing daemon known to iproute2). */
export const PROTOCOL = 119
/** Interfaces of detached pods wait in this group until their namespace goes or the sweep comes. */
export const DOOMED = 0x70770001
const POD_INDEX = 2
const ESRCH = 3
const ENOENT = 2
const ENODEV = 19

/** One node's namespace, open: a socket that acts in it and the next free interface index. */
export class NodeLinks {
	readonly netns: number
	readonly socket: NetlinkSocket
	readonly #encoder = new NetlinkEncoder(4096)
	#nextIndex = 0

	/** `path`: the node's namespace; undefined: the one this thread is in. */
	constructor(path: string | undefined) {
		this.netns = openNetns(path ?? '/proc/thread-self/ns/net')
		try {
			this.socket = inNetns(this.netns, () => new NetlinkSocket(NETLINK_ROUTE, { receiveBuffer: 1 << 20 }))
		} catch (e) {
			closeSync(this.netns)
			throw e
		}
	}

	/** Makes the pod's namespace and wiring; over what is half there or was changed it repairs. Throws Failure. */
	attach(attachment: Attachment): void {
		const fresh = !existsSync(attachment.namespace)
		try {
			if (this.#make(attachment)) return
			this.#repair(attachment)
		} catch (e) {
			// Nothing of a pod that could not be wired stays behind; a running one keeps what it has.
			if (fresh) this.#abandon(attachment)
			throw cannot('attach', attachment, e)
		}
	}

	/** Takes the pod off the network: its routes go at once. Not there: nothing to do. Throws Failure. */
	disconnect(attachment: Attachment): void {
		try {
			const index = this.#indexOf(attachment.hostInterface)
			if (index === undefined) return
			const e = this.#encoder
			// By interface: the address may belong to the next pod already.
			for (const ip of attachment.ips) deleteRoute(e, { destination: hostCidr(ip), index })
			setLink(e, { index, group: DOOMED })
			this.#tolerant(e, [ESRCH, ENOENT, ENODEV])
		} catch (e) {
			throw cannot('detach', attachment, e)
		}
	}

	/**
	 * Lets the pod's namespace go. The kernel removes the veth a little later by itself, or `sweep` does where a process
	 * still holds the namespace. While it does so it holds the lock every other request needs, some 0.1 s for many
	 * namespaces: disconnect all pods that go before the first is released. Throws Failure.
	 */
	release(attachment: Attachment): void {
		try {
			if (attachment.namespace !== '') deleteNetns(attachment.namespace)
		} catch (e) {
			throw cannot('detach', attachment, e)
		}
	}

	/** Deletes interfaces of detached pods that are still there, all at once. Blocks some 20 ms if there are any. */
	sweep(): void {
		deleteGroup(this.#encoder, DOOMED)
		this.#tolerant(this.#encoder, [ENODEV])
	}

	close(): void {
		this.socket.close()
		closeSync(this.netns)
	}

	/** False where something of it exists already. */
	#make(attachment: Attachment): boolean {
		const { namespace, hostInterface, podInterface, ips, mtu } = attachment
		const e = this.#encoder
		let socket: NetlinkSocket | undefined
		let fd: number | undefined
		try {
			createNetns(namespace, () => {
				socket = new NetlinkSocket(NETLINK_ROUTE)
				fd = openSync('/proc/thread-self/ns/net', 'r')
			})
			const index = this.#newIndex()
			addVeth(e, {
				name: hostInterface,
				index,
				mac: hostMac,
				mtu,
				up: true,
				queues: 1,
				peer: { name: podInterface, index: POD_INDEX, mac: podMac(ips), mtu, netns: fd as number },
			})
			this.#writeHost(e, attachment, index)
			this.socket.request(e)
			setLink(e, { index: LOOPBACK, up: true })
			setLink(e, { index: POD_INDEX, up: true })
			this.#writePod(e, attachment, POD_INDEX)
			socket?.request(e)
			this.#settle(index)
			return true
		} catch (failure) {
			if (!isFailure(failure)) throw failure
			// No namespace could be made, and not because it is there: repairing would fail the same way.
			if (fd === undefined && failure.code !== 'EEXIST') throw failure
			return false
		} finally {
			e.reset()
			socket?.close()
			if (fd !== undefined) closeSync(fd)
		}
	}

	#repair(attachment: Attachment): void {
		const { namespace, hostInterface, podInterface, mtu, ips } = attachment
		if (!isNetns(namespace)) {
			deleteNetns(namespace)
			createNetns(namespace)
		}
		const fd = openNetns(namespace)
		const e = this.#encoder
		let socket: NetlinkSocket | undefined
		try {
			socket = inNetns(fd, () => new NetlinkSocket(NETLINK_ROUTE))
			const links = readLinks(this.socket)
			let host = links.find((link) => link.name === hostInterface)
			let pod = readLinks(socket).find((link) => link.name === podInterface)
			if (host === undefined || pod === undefined || host.peer !== pod.index || pod.peer !== host.index) {
				if (host !== undefined) deleteLink(e, { index: host.index })
				this.#tolerant(e, [ENODEV])
				if (pod !== undefined) deleteLink(e, { index: pod.index })
				// A veth's other end went with the first.
				tolerant(socket, e, [ENODEV])
				addVeth(e, { name: hostInterface, mac: hostMac, mtu, queues: 1, peer: { name: podInterface, mtu, netns: fd } })
				this.socket.request(e)
				host = readLink(this.socket, hostInterface)
				pod = readLink(socket, podInterface)
			}
			setLink(e, { index: host.index, up: true, mac: hostMac, mtu, group: 0 })
			this.#writeHost(e, attachment, host.index)
			for (const neighbour of readNeighbours(this.socket)) {
				if (neighbour.index === host.index && neighbour.state === 'permanent' && !ips.includes(neighbour.ip)) {
					deleteNeighbour(e, host.index, neighbour.ip)
				}
			}
			this.#tolerant(e, [ENOENT])
			setLink(e, { index: LOOPBACK, up: true })
			setLink(e, { index: pod.index, up: true, mac: podMac(ips), mtu })
			socket.request(e)
			this.#cleanPod(socket, e, attachment, pod.index)
			this.#writePod(e, attachment, pod.index)
			socket.request(e)
			this.#settle(host.index)
		} finally {
			e.reset()
			socket?.close()
			closeSync(fd)
		}
	}

	#writeHost(e: NetlinkEncoder, attachment: Attachment, index: number): void {
		const mac = podMac(attachment.ips)
		setLink(e, { index, alias: aliasOf(attachment) })
		for (const ip of attachment.ips) {
			addRoute(e, { destination: hostCidr(ip), index, protocol: PROTOCOL })
			addNeighbour(e, index, ip, mac)
		}
	}

	#writePod(e: NetlinkEncoder, attachment: Attachment, index: number): void {
		const pod = wiringOf(attachment).pod as PodEnd
		for (const ip of pod.ips) addAddress(e, index, ip, Number(hostCidr(ip).split('/')[1]))
		for (const ip of pod.ips) addLocalRoute(e, index, ip)
		for (const neighbour of pod.neighbours) addNeighbour(e, index, neighbour.ip, neighbour.mac)
		for (const { destination, via } of pod.routes)
			addRoute(e, { destination, index, ...(via === undefined ? {} : { via }) })
	}

	/** Takes out of the pod what its wiring does not mean: foreign addresses, routes, neighbours. */
	#cleanPod(socket: NetlinkSocket, e: NetlinkEncoder, attachment: Attachment, index: number): void {
		const meant = wiringOf(attachment).pod as PodEnd
		for (const address of readAddresses(socket)) {
			if (address.index === index && address.scope === 'global' && !meant.ips.includes(address.ip)) {
				deleteAddress(e, index, address.ip, address.prefixLength)
			}
		}
		for (const route of readRoutes(socket)) {
			if (route.table !== TABLE_MAIN || route.protocol === PROTOCOL_KERNEL) continue
			const same = meant.routes.some(
				(r) => r.destination === route.destination && r.via === route.via && route.index === index,
			)
			if (same) continue
			deleteRoute(e, {
				destination: route.destination,
				protocol: route.protocol,
				...(route.index === undefined ? {} : { index: route.index }),
				...(route.via === undefined ? {} : { via: route.via }),
				...(route.metric === undefined ? {} : { metric: route.metric }),
			})
		}
		for (const neighbour of readNeighbours(socket)) {
			if (neighbour.index !== index || neighbour.state !== 'permanent') continue
			if (!meant.neighbours.some((n) => n.ip === neighbour.ip)) deleteNeighbour(e, index, neighbour.ip)
		}
		tolerant(socket, e, [ESRCH, ENOENT])
	}

	/**
	 * The end of a veth that came up first (ours) drops what it should send until the kernel has acted on the carrier,
	 * a moment later: a lost first SYN costs a second. Reading the link makes it act now.
	 */
	#settle(index: number): void {
		readLink(this.socket, index)
	}

	#abandon(attachment: Attachment): void {
		for (const step of [() => this.disconnect(attachment), () => this.release(attachment)]) {
			try {
				step()
			} catch {
				// The first failure is the one to report.
			}
		}
	}

	#newIndex(): number {
		if (this.#nextIndex === 0) {
			// Ours start high, so that a link made by others, whose index the kernel chooses, does not take one.
			this.#nextIndex = Math.max(0x10000, ...readLinks(this.socket).map((link) => link.index + 1))
		}
		return this.#nextIndex++
	}

	#indexOf(name: string): number | undefined {
		try {
			return readLink(this.socket, name).index
		} catch (e) {
			if (isFailure(e, 'ENODEV')) return undefined
			throw e
		}
	}

	#tolerant(e: NetlinkEncoder, allowed: readonly number[]): void {
		tolerant(this.socket, e, allowed)
	}
}

function cannot(action: 'attach' | 'detach', attachment: Attachment, e: unknown): Failure {
	const code = isFailure(e) ? e.code : 'Internal'
	return new Failure(code, `Cannot ${action} pod ${JSON.stringify(attachment.pod)}: ${messageOf(e)}`, {}, { cause: e })
}

function tolerant(socket: NetlinkSocket, e: NetlinkEncoder, allowed: readonly number[]): void {
	if (e.messages === 0) return
	try {
		socket.request(e)
	} catch (failure) {
		const errors = isFailure(failure) ? (failure.details.errors as readonly NetlinkError[] | undefined) : undefined
		if (errors === undefined || errors.some((error) => !allowed.includes(error.errno))) throw failure
	}
}

/** What `ip link` shows beside the node's end: whose it is. */
export function aliasOf(attachment: Attachment): string {
	return `podwire ${attachment.uid} ${attachment.pod}`.slice(0, 255)
}

export function readAlias(alias: string | undefined): { readonly uid: string; readonly pod: string } | undefined {
	const parts = alias?.split(' ')
	return parts?.length === 3 && parts[0] === 'podwire'
		? { uid: parts[1] as string, pod: parts[2] as string }
		: undefined
}
