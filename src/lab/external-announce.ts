// Layer 2: the elected node answers ARP for the addresses it announces, and says so unasked when one has moved to it.
// The kernel answers by its proxy entries, also while nobody of ours runs: on the node's uplink, for addresses that a
// route leads elsewhere. That route ends in a bridge without ports; packets take it only where no rule translates them.

import { isFailure } from '../base/failure.ts'
import { cidrAddress, familyOf, hostCidr, type Ip, ipToBytes } from '../base/ip.ts'
import { NetlinkEncoder } from '../linux/netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../linux/netlink/socket.ts'
import { inNetnsAt } from '../linux/netns.ts'
import { addBridge, macToBytes, readLink, readLinks, setLink } from '../linux/route/links.ts'
import { addProxyNeighbour, deleteProxyNeighbour, readProxyNeighbours } from '../linux/route/neighbours.ts'
import { addRoute, deleteRoute, PROTOCOL_STATIC, readRoutes } from '../linux/route/routes.ts'
import { AF_PACKET, close, SOCK_RAW, sendto, socket } from '../linux/syscalls.ts'
import { writeSysctl } from '../linux/sysctl.ts'

/** Where the routes to announced addresses end. */
export const announceInterface = 'announce0'

export interface Announcer {
	/** Brings the node to these addresses, whatever it announces now; those that are new to it. */
	bring(ips: ReadonlySet<Ip>): readonly Ip[]
	/** What the kernel answers for. */
	read(): readonly Ip[]
	/** The next bring reads back first. */
	forget(): void
	/** Tells the neighbours of an IPv4 address that it is here (RFC 5227, 3: a gratuitous ARP request). */
	tell(ip: Ip): void
	close(): void
}

/** `uplink`: the node's interface to the network where it announces. */
export function createAnnouncer(netns: string, uplink: string): Announcer {
	const netlink = inNetnsAt(netns, () => new NetlinkSocket(NETLINK_ROUTE))
	const e = new NetlinkEncoder(4096)
	const { index: uplinkIndex, mac } = readLink(netlink, uplink)
	let known: Set<Ip> | undefined

	function read(): Set<Ip> {
		return new Set(readProxyNeighbours(netlink).flatMap(({ index, ip }) => (index === uplinkIndex ? [ip] : [])))
	}
	/** The bridge, made when first needed. */
	function sink(): number {
		const found = readLinks(netlink).find((link) => link.name === announceInterface)
		if (found !== undefined) return found.index
		addBridge(e, { name: announceInterface })
		netlink.request(e)
		const { index } = readLink(netlink, announceInterface)
		setLink(e, { index, up: true })
		netlink.request(e)
		inNetnsAt(netns, () => {
			writeSysctl(`net/ipv4/neigh/${uplink}/proxy_delay`, '0')
			try {
				writeSysctl(`net/ipv6/conf/${uplink}/proxy_ndp`, '1')
			} catch (e) {
				// A kernel without IPv6 has no such setting.
				if (!isFailure(e, 'ENOENT')) throw e
			}
		})
		return index
	}
	return {
		bring(ips) {
			const have = known ?? read()
			const added = [...ips].filter((ip) => !have.has(ip))
			const gone = [...have].filter((ip) => !ips.has(ip))
			known = undefined
			if (added.length > 0) {
				const device = sink()
				for (const ip of added) {
					// The route first: without it the entry answers nothing.
					addRoute(e, { destination: hostCidr(ip), index: device, protocol: PROTOCOL_STATIC })
					addProxyNeighbour(e, uplinkIndex, ip)
				}
				netlink.request(e)
			}
			if (gone.length > 0) {
				const routed = new Set(
					readRoutes(netlink).flatMap(({ destination }) => (isHost(destination) ? [cidrAddress(destination)] : [])),
				)
				const device = sink()
				for (const ip of gone) {
					deleteProxyNeighbour(e, uplinkIndex, ip)
					if (routed.has(ip)) deleteRoute(e, { destination: hostCidr(ip), index: device })
				}
				netlink.request(e)
			}
			known = new Set(ips)
			return added
		},
		read: () => [...read()],
		forget() {
			known = undefined
		},
		tell(ip) {
			if (familyOf(ip) !== 4 || mac === undefined) return
			const fd = inNetnsAt(netns, () => socket(AF_PACKET, SOCK_RAW, 0))
			try {
				const own = macToBytes(mac)
				const to = new Uint8Array(20)
				const view = new DataView(to.buffer)
				view.setUint16(0, AF_PACKET, true)
				view.setUint16(2, ETH_P_ARP)
				view.setInt32(4, uplinkIndex, true)
				to[11] = 6
				to.fill(0xff, 12, 18)
				sendto(fd, gratuitous(own, ipToBytes(ip)), to)
			} finally {
				close(fd)
			}
		},
		close: () => netlink.close(),
	}
}

const ETH_P_ARP = 0x0806

function gratuitous(mac: Uint8Array, ip: Uint8Array): Uint8Array {
	const everybody = new Uint8Array(6).fill(0xff)
	const header = [...everybody, ...mac, 0x08, 0x06]
	// Ethernet, IPv4, lengths 6 and 4, request.
	const arp = [0, 1, 0x08, 0x00, 6, 4, 0, 1, ...mac, ...ip, ...new Uint8Array(6), ...ip]
	return Uint8Array.from([...header, ...arp])
}

function isHost(destination: string): boolean {
	return destination.endsWith(destination.includes(':') ? '/128' : '/32')
}
