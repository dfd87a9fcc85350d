// Two nodes on a wire, room for four pods on each, and somebody outside, all of both families: namespaces in which every
// generated cluster of the policies' law finds its places.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Cidr, Ip } from '../../../src/base/ip.ts'
import { hostCidr } from '../../../src/base/ip.ts'
import { NetlinkEncoder } from '../../../src/linux/netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../../../src/linux/netlink/socket.ts'
import { createNetns, deleteNetns, inNetnsAt, openNetns } from '../../../src/linux/netns.ts'
import { addAddress, addLocalRoute } from '../../../src/linux/route/addresses.ts'
import { addBridge, addVeth, LOOPBACK, setLink } from '../../../src/linux/route/links.ts'
import { addNeighbour } from '../../../src/linux/route/neighbours.ts'
import { addRoute } from '../../../src/linux/route/routes.ts'
import { close } from '../../../src/linux/syscalls.ts'
import { writeSysctl } from '../../../src/linux/sysctl.ts'

export const nodeNames = ['n1', 'n2'] as const
const podsEach = 4
/** On the wire: nobody has to ask for a neighbour, and no answer comes too late. */
const wireMac = (i: number) => `0a:00:00:00:01:0${i}`
const gatewayMac = 'ee:ee:ee:ee:ee:ee'
const gateways = ['169.254.1.1', 'fe80::1'] as Ip[]
const cidr = (text: string) => text as Cidr

/** Every place by its IPv4 address: the pods 10.244.0.5 to .8 and 10.244.1.5 to .8, the nodes, 203.0.113.9. */
export interface PolicyWorld {
	readonly places: readonly Place[]
	/** The namespace of a node. */
	node(name: string): string
}

export interface Place {
	readonly netns: string
	readonly ips: readonly [four: Ip, six: Ip]
}

const podIps = (node: number, i: number): Place['ips'] => [
	`10.244.${node}.${i + 5}` as Ip,
	`fd00:10:244:${node === 0 ? '' : node}::${i + 5}`.replace(':::', '::') as Ip,
]
const nodeIps = (node: number): Place['ips'] => [`172.18.0.${node + 2}` as Ip, `fd00:172:18::${node + 2}` as Ip]
const wire: Place['ips'] = ['172.18.0.1' as Ip, 'fd00:172:18::1' as Ip]
const strangers: Place['ips'] = ['203.0.113.9' as Ip, '2001:db8:113::9' as Ip]
const podNetworks = (node: number) =>
	[`10.244.${node}.0/24`, `fd00:10:244:${node}::/64`.replace(':0::', '::')].map(cidr)

export async function withPolicyWorld<T>(test: (world: PolicyWorld) => Promise<T>): Promise<T> {
	const folder = mkdtempSync(join(tmpdir(), 'podwire-test-'))
	const at = (name: string) => join(folder, name)
	const made: string[] = []
	const places: Place[] = []
	const sockets: NetlinkSocket[] = []
	const make = (name: string): NetlinkSocket => {
		const route = createNetns(at(name), () => new NetlinkSocket(NETLINK_ROUTE))
		made.push(name)
		sockets.push(route)
		inNetnsAt(at(name), () => {
			for (const scope of ['all', 'default']) {
				writeSysctl(`net.ipv4.conf.${scope}.rp_filter`, '0')
				writeSysctl(`net.ipv4.conf.${scope}.send_redirects`, '0')
				writeSysctl(`net.ipv6.conf.${scope}.forwarding`, '1')
			}
			writeSysctl('net.ipv4.ip_forward', '1')
		})
		return route
	}
	try {
		const e = new NetlinkEncoder(1 << 16)
		const underlay = make('underlay')
		setLink(e, { index: LOOPBACK, up: true })
		addBridge(e, { name: 'br0', index: 2, mac: wireMac(0) })
		underlay.request(e)
		for (const ip of [...wire, ...strangers]) own(e, 2, ip, strangers.includes(ip) ? 0 : 1)
		underlay.request(e)
		places.push({ netns: at('underlay'), ips: strangers })
		for (const [n, name] of nodeNames.entries()) {
			const node = make(name)
			const fd = openNetns(at(name))
			addVeth(e, {
				name,
				index: 10 + n,
				master: 2,
				up: true,
				peer: { name: 'eth0', index: 2, mac: wireMac(n + 1), netns: fd },
			})
			underlay.request(e)
			close(fd)
			setLink(e, { index: LOOPBACK, up: true })
			setLink(e, { index: 2, up: true })
			for (const [i, ip] of nodeIps(n).entries()) {
				own(e, 2, ip, 1)
				addRoute(e, { destination: cidr(i === 0 ? '0.0.0.0/0' : '::/0'), via: wire[i] as Ip, index: 2 })
				const [other, network] = [nodeIps(1 - n)[i] as Ip, podNetworks(1 - n)[i] as Cidr]
				addRoute(e, { destination: network, via: other, index: 2 })
				addNeighbour(e, 2, other, wireMac(2 - n))
				addNeighbour(e, 2, wire[i] as Ip, wireMac(0))
			}
			node.request(e)
			for (const [i, ip] of nodeIps(n).entries()) {
				addRoute(e, { destination: podNetworks(n)[i] as Cidr, via: ip, index: 2 })
				addNeighbour(e, 2, ip, wireMac(n + 1))
			}
			underlay.request(e)
			places.push({ netns: at(name), ips: nodeIps(n) })
			for (let i = 0; i < podsEach; i++) {
				const pod = `${name}-${i}`
				wirePod(e, node, make(pod), at(pod), 100 + i, podIps(n, i))
				places.push({ netns: at(pod), ips: podIps(n, i) })
			}
		}
		return await test({ places, node: at })
	} finally {
		for (const socket of sockets) socket.close()
		for (const name of made) deleteNetns(at(name))
		rmSync(folder, { recursive: true, force: true })
	}
}

/** `wide`: 1 where the neighbours on the wire are reached by it. */
function own(e: NetlinkEncoder, index: number, ip: Ip, wide: 0 | 1): void {
	const six = ip.includes(':')
	addAddress(e, index, ip, wide === 1 ? (six ? 64 : 16) : six ? 128 : 32)
	addLocalRoute(e, index, ip)
}

function wirePod(
	e: NetlinkEncoder,
	node: NetlinkSocket,
	pod: NetlinkSocket,
	path: string,
	index: number,
	ips: Place['ips'],
): void {
	const fd = openNetns(path)
	const mac = `0a:00:00:00:00:0${index - 100}`
	addVeth(e, {
		name: `veth${index}`,
		index,
		up: true,
		mac: gatewayMac,
		peer: { name: 'eth0', index: 10, mac, netns: fd },
	})
	for (const ip of ips) {
		addRoute(e, { destination: hostCidr(ip), index })
		addNeighbour(e, index, ip, mac)
	}
	node.request(e)
	close(fd)
	setLink(e, { index: LOOPBACK, up: true })
	setLink(e, { index: 10, up: true })
	for (const [i, ip] of ips.entries()) {
		own(e, 10, ip, 0)
		const gateway = gateways[i] as Ip
		if (i === 0) addRoute(e, { destination: hostCidr(gateway), index: 10 })
		addNeighbour(e, 10, gateway, gatewayMac)
		addRoute(e, { destination: cidr(i === 0 ? '0.0.0.0/0' : '::/0'), via: gateway, index: 10 })
	}
	pod.request(e)
}
