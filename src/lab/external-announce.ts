// Layer 2: the elected node answers ARP and neighbour solicitations for the addresses it announces, and says so unasked
// when one has moved to it. The kernel answers by its proxy entries, also while nobody of ours runs: on the node's
// uplink, for addresses that a route leads elsewhere. That route ends in a bridge without ports; packets take it only
// where no rule translates them.

import { isFailure } from '../base/failure.ts'
import { cidrAddress, familyOf, hostCidr, type Ip, ipToBytes } from '../base/ip.ts'
import { NetlinkEncoder } from '../linux/netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../linux/netlink/socket.ts'
import { inNetnsAt } from '../linux/netns.ts'
import { readAddresses } from '../linux/route/addresses.ts'
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
	/** Tells the neighbours unasked that the address is here now. */
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
				writeSysctl(`net/ipv6/neigh/${uplink}/proxy_delay`, '0')
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
			if (mac === undefined) return
			const own = macToBytes(mac)
			const six = familyOf(ip) === 6
			const source = six ? addressOf(netlink, uplinkIndex) : undefined
			if (six && source === undefined) return
			const frame = source === undefined ? gratuitous(own, ipToBytes(ip)) : advertisement(own, source, ipToBytes(ip))
			const fd = inNetnsAt(netns, () => socket(AF_PACKET, SOCK_RAW, 0))
			try {
				sendto(fd, frame, linkAddress(uplinkIndex, frame))
			} finally {
				close(fd)
			}
		},
		close: () => netlink.close(),
	}
}

/** struct sockaddr_ll for a whole frame. */
function linkAddress(index: number, frame: Uint8Array): Uint8Array {
	const to = new Uint8Array(20)
	const view = new DataView(to.buffer)
	view.setUint16(0, AF_PACKET, true)
	to.set(frame.subarray(12, 14), 2)
	view.setInt32(4, index, true)
	to[11] = 6
	to.set(frame.subarray(0, 6), 12)
	return to
}

/** A gratuitous ARP request (RFC 5227, 3), to everybody. */
function gratuitous(mac: Uint8Array, ip: Uint8Array): Uint8Array {
	const everybody = new Uint8Array(6).fill(0xff)
	// Ethernet, IPv4, lengths 6 and 4, request.
	const arp = [0, 1, 0x08, 0x00, 6, 4, 0, 1, ...mac, ...ip, ...new Uint8Array(6), ...ip]
	return Uint8Array.from([...everybody, ...mac, 0x08, 0x06, ...arp])
}

/** An unsolicited neighbour advertisement that overrides (RFC 4861, 7.2.6), to all nodes. */
function advertisement(mac: Uint8Array, source: Uint8Array, target: Uint8Array): Uint8Array {
	const allNodes = [0xff, 0x02, ...new Uint8Array(13), 1]
	const override = 0x20
	const icmp = Uint8Array.from([136, 0, 0, 0, override, 0, 0, 0, ...target, 2, 1, ...mac])
	const pseudo = [...source, ...allNodes, 0, 0, 0, icmp.length, 0, 0, 0, ICMPV6]
	new DataView(icmp.buffer).setUint16(2, checksum(Uint8Array.from([...pseudo, ...icmp])))
	const header = [0x60, 0, 0, 0, 0, icmp.length, ICMPV6, 255, ...source, ...allNodes]
	return Uint8Array.from([0x33, 0x33, 0, 0, 0, 1, ...mac, 0x86, 0xdd, ...header, ...icmp])
}

const ICMPV6 = 58

/** The Internet checksum (RFC 1071) of an even number of bytes. */
function checksum(bytes: Uint8Array): number {
	let sum = 0
	for (let i = 0; i < bytes.length; i += 2) sum += ((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0)
	while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
	return ~sum & 0xffff
}

/** An IPv6 address of the interface, rather one that is no link-local. */
function addressOf(netlink: NetlinkSocket, index: number): Uint8Array | undefined {
	const own = readAddresses(netlink).filter((a) => a.index === index && familyOf(a.ip) === 6)
	const found = own.find((a) => a.scope === 'global') ?? own[0]
	return found === undefined ? undefined : ipToBytes(found.ip)
}

function isHost(destination: string): boolean {
	return destination.endsWith(destination.includes(':') ? '/128' : '/32')
}
