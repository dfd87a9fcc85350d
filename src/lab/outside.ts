// Outside of the cluster: a namespace with one client on a network of its own, behind the underlay's router. It knows
// nothing of the cluster but the way to the router, and the nodes know it by their default route.

import { Failure, isFailure } from '../base/failure.ts'
import { cidrLength } from '../base/ip.ts'
import { NetlinkEncoder } from '../linux/netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../linux/netlink/socket.ts'
import { createNetns, inNetns, inNetnsAt, isNetns, openNetns } from '../linux/netns.ts'
import { addAddress, addLocalRoute } from '../linux/route/addresses.ts'
import { addVeth, LOOPBACK, readLinks, setLink } from '../linux/route/links.ts'
import { addRoute, PROTOCOL_STATIC } from '../linux/route/routes.ts'
import { close } from '../linux/syscalls.ts'
import { writeSysctl } from '../linux/sysctl.ts'
import { underlayInterface, underlayMtu } from './addresses.ts'
import { everywhere, type FamilyNetworks } from './ip-family.ts'

/** The router's interface to the outside. */
export const outsideInterface = 'outside0'
const clientInterface = 'eth0'
/** Of routes that any other goes before. */
const lastMetric = 0xffff_fffe

/**
 * Makes what is missing of the client's namespace at `path` and of the router's side. `router` is the underlay's
 * namespace, `socket` one of its sockets. Returns `path`.
 */
export function createOutside(
	path: string,
	router: string,
	socket: NetlinkSocket,
	networks: readonly FamilyNetworks[],
): string {
	const six = networks.some(({ family }) => family === 6)
	if (!isNetns(path)) createNetns(path)
	if (six) inNetnsAt(path, settleInterfaces)
	inNetnsAt(router, () => {
		writeSysctl('net.ipv4.ip_forward', '1')
		if (six) writeSysctl('net.ipv6.conf.all.forwarding', '1')
		// What comes from a node and goes back to one is translated on the way: there is no shorter one.
		writeSysctl('net.ipv4.conf.all.send_redirects', '0')
		writeSysctl(`net.ipv4.conf.${underlayInterface}.send_redirects`, '0')
		keepBridgePlain()
	})
	const e = new NetlinkEncoder(2048)
	const fd = openNetns(path)
	const inside = inNetns(fd, () => new NetlinkSocket(NETLINK_ROUTE))
	try {
		let found = readLinks(inside).find((l) => l.name === clientInterface)
		if (found === undefined) {
			const peer = { name: clientInterface, mtu: underlayMtu, netns: fd }
			addVeth(e, { name: outsideInterface, mtu: underlayMtu, up: true, peer })
			socket.request(e)
			found = readLinks(inside).find((l) => l.name === clientInterface)!
		}
		const port = readLinks(socket).find((l) => l.name === outsideInterface)!.index
		for (const { outside, outsideGateway } of networks) addAddress(e, port, outsideGateway, cidrLength(outside))
		setLink(e, { index: port, up: true })
		for (const { outsideGateway } of networks) addLocalRoute(e, port, outsideGateway)
		// A router of the Internet's edge does not say of every address that it does not exist.
		for (const { family } of networks) {
			const destination = everywhere(family)
			addRoute(e, { kind: 'blackhole', destination, metric: lastMetric, protocol: PROTOCOL_STATIC })
		}
		socket.request(e)

		setLink(e, { index: LOOPBACK, up: true })
		for (const { outside, outsideIp } of networks) addAddress(e, found.index, outsideIp, cidrLength(outside))
		setLink(e, { index: found.index, up: true })
		for (const { outsideIp } of networks) addLocalRoute(e, found.index, outsideIp)
		for (const { family, outsideGateway: via } of networks) {
			addRoute(e, { destination: everywhere(family), via, index: found.index, protocol: PROTOCOL_STATIC })
		}
		inside.request(e)
		return path
	} finally {
		inside.close()
		close(fd)
	}
}

/**
 * For interfaces that come later, in the thread's namespace: their link-local addresses are good at once (until then
 * nothing is forwarded, RFC 4862 5.4), and no router's word is waited for or taken.
 */
export function settleInterfaces(): void {
	try {
		for (const name of ['accept_dad', 'accept_ra', 'router_solicitations']) {
			writeSysctl(`net.ipv6.conf.default.${name}`, '0')
		}
	} catch (e) {
		if (!isFailure(e, 'ENOENT')) throw e
		throw new Failure(
			'Unsupported',
			'Cannot use IPv6 in the lab: this kernel does not have it (--ip-family ipv4 works)',
		)
	}
}

/** Where br_netfilter is loaded, frames between nodes would meet the router's rules as if it routed them. */
function keepBridgePlain(): void {
	for (const name of ['net.bridge.bridge-nf-call-iptables', 'net.bridge.bridge-nf-call-ip6tables']) {
		try {
			writeSysctl(name, '0')
		} catch (e) {
			if (!isFailure(e, 'ENOENT')) throw e
		}
	}
}
