// Two nodes with pods, the network between them and a client outside of the cluster, in throw-away namespaces, both
// families: what the suite of Service data planes sends real packets through. And the model that says the same.
//
// The plan: node i = 172.18.0.(i+1), fd00:172::(i+1); its pods a, b, … = 10.244.(i-1).2, .3, …; fd00:10:244:i::2, …;
// outside = 172.18.0.100, fd00:172::100, which reaches 203.0.113.0/24 and ClusterIPs through node 1 and 198.51.100.0/24
// through node 2.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isFailure } from '../../src/base/failure.ts'
import { type Cidr, hostCidr, type Ip } from '../../src/base/ip.ts'
import { emptyTable, tableOf } from '../../src/base/table.ts'
import type { ServiceDataplane } from '../../src/dataplane/dataplane.ts'
import type { ServiceDataplaneOptions } from '../../src/dataplane/proxies/service-proxies.ts'
import { NetlinkEncoder } from '../../src/linux/netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../../src/linux/netlink/socket.ts'
import { createNetns, deleteNetns, inNetnsAt, openNetns } from '../../src/linux/netns.ts'
import { addAddress, addLocalRoute } from '../../src/linux/route/addresses.ts'
import { addBridge, addVeth, LOOPBACK, setLink } from '../../src/linux/route/links.ts'
import { addNeighbour } from '../../src/linux/route/neighbours.ts'
import { addRoute } from '../../src/linux/route/routes.ts'
import { close } from '../../src/linux/syscalls.ts'
import { writeSysctl } from '../../src/linux/sysctl.ts'
import type { AddressOwner, NetworkConfig, NetworkModel, Node, Pod, Service } from '../../src/model/network.ts'
import { objectOrigin } from '../../src/model/origin.ts'
import { frontendTable } from './services-world.ts'

// biome-ignore lint/suspicious/noExplicitAny: a program is only handed back to the data plane it came from.
export type AnyServiceDataplane = ServiceDataplane<any, any>

const ip = (text: string) => text as Ip
const cidr = (text: string) => text as Cidr
const gatewayMac = 'ee:ee:ee:ee:ee:ee'
const gateway = { 4: ip('169.254.1.1'), 6: ip('fe80::1') } as const

export type Family = 4 | 6
export const families: readonly Family[] = [4, 6]
export const nodeNames = ['node-1', 'node-2'] as const
export type NodeName = (typeof nodeNames)[number]
export const podNames = ['p1a', 'p1b', 'p2a', 'p2b'] as const
export type PodName = (typeof podNames)[number]
/** A place that has a network namespace of its own. hostNetwork pods are in their node's. */
export type Place = NodeName | PodName | 'outside'

export function nodeOf(place: PodName): NodeName {
	return `node-${place[1]}` as NodeName
}

export function ipOf(place: Place, family: Family = 4): Ip {
	if (place === 'outside') return ip(family === 4 ? '172.18.0.100' : 'fd00:172::100')
	const node = Number(place.startsWith('node-') ? place.slice(5) : place[1])
	if (place.startsWith('node-')) return ip(family === 4 ? `172.18.0.${node + 1}` : `fd00:172::${node + 1}`)
	const host = place.charCodeAt(2) - 'a'.charCodeAt(0) + 2
	return ip(family === 4 ? `10.244.${node - 1}.${host}` : `fd00:10:244:${node}::${host}`)
}

/** An address of no node that the client outside reaches through that node. */
export function externalIp(through: NodeName, host: number, family: Family = 4): Ip {
	if (through === 'node-1') return ip(family === 4 ? `203.0.113.${host}` : `fd00:203::${host.toString(16)}`)
	return ip(family === 4 ? `198.51.100.${host}` : `fd00:198::${host.toString(16)}`)
}

const config: NetworkConfig = {
	clusterDomain: 'cluster.local',
	podCidrs: [cidr('10.244.0.0/16'), cidr('fd00:10:244::/48')],
	serviceCidrs: [cidr('10.96.0.0/16'), cidr('fd00:10:96::/108')],
	mtu: 1500,
}

const podCidr = (node: number, family: Family) =>
	cidr(family === 4 ? `10.244.${node - 1}.0/24` : `fd00:10:244:${node}::/64`)

const nodes = tableOf(
	nodeNames.map((name, i): [string, Node] => [
		name,
		{
			name,
			addresses: families.map((family) => ipOf(name, family)),
			podCidrs: families.map((family) => podCidr(i + 1, family)),
			ready: true,
			labels: {},
			origin: objectOrigin('Node', name),
		},
	]),
)

const pods = tableOf(
	podNames.map((name): [string, Pod] => {
		const key = `default/${name}`
		const origin = objectOrigin('Pod', key)
		return [
			key,
			{
				key,
				uid: `uid-${name}`,
				namespace: 'default',
				name,
				labels: {},
				node: nodeOf(name),
				ips: families.map((family) => ipOf(name, family)),
				hostNetwork: false,
				phase: 'Running',
				ready: true,
				terminating: false,
				ports: [],
				dns: { nameservers: [], searches: [], options: [], origin },
				owner: { kind: 'Pod', key },
				origin,
			},
		]
	}),
)

const fixedOwners: readonly [Ip, AddressOwner][] = families.flatMap((family) => [
	...nodeNames.map((name): [Ip, AddressOwner] => [ipOf(name, family), { kind: 'node', node: name }]),
	...podNames.map((name): [Ip, AddressOwner] => [ipOf(name, family), { kind: 'pod', pod: `default/${name}` }]),
])

/** The two nodes and four pods, and these Services. */
export function clusterModel(services: readonly Service[]): NetworkModel {
	const owners = services.flatMap((s) =>
		s.clusterIps.map((address): [Ip, AddressOwner] => [address, { kind: 'service', service: s.key }]),
	)
	return {
		config,
		nodes,
		pods,
		services: tableOf(services.map((s) => [s.key, s])),
		addresses: tableOf([...fixedOwners, ...owners]),
		frontends: frontendTable(services),
		policies: emptyTable(),
		tieredPolicies: emptyTable(),
		namespaces: emptyTable(),
		findings: [],
	}
}

export interface ClusterNode {
	readonly name: NodeName
	readonly netns: string
	/** In the order they are brought up. */
	readonly planes: readonly AnyServiceDataplane[]
}

export type MakePlanes = (
	options: ServiceDataplaneOptions & { readonly netns: string },
) => Promise<readonly AnyServiceDataplane[]>

/** Called for each node when the data planes carry the new model. */
export type AfterBring = (node: ClusterNode, before: NetworkModel | undefined, after: NetworkModel) => void

export class Cluster {
	readonly #folder: string
	readonly #make: MakePlanes
	readonly #made: string[] = []
	readonly #sockets: NetlinkSocket[] = []
	readonly #have = new Map<AnyServiceDataplane, unknown>()
	#nodes: ClusterNode[] = []
	#model: NetworkModel | undefined

	private constructor(folder: string, make: MakePlanes) {
		this.#folder = folder
		this.#make = make
	}

	static async create(make: MakePlanes): Promise<Cluster> {
		const cluster = new Cluster(mkdtempSync(join(tmpdir(), 'podwire-services-')), make)
		try {
			cluster.#wire()
			await cluster.#makePlanes()
			return cluster
		} catch (e) {
			cluster.remove()
			throw e
		}
	}

	get nodes(): readonly ClusterNode[] {
		return this.#nodes
	}

	get model(): NetworkModel | undefined {
		return this.#model
	}

	netns(place: Place): string {
		return join(this.#folder, place)
	}

	/** One more address of the node, behind its first. */
	addAddress(node: NodeName, address: Ip): void {
		const route = inNetnsAt(this.netns(node), () => new NetlinkSocket(NETLINK_ROUTE))
		const e = new NetlinkEncoder()
		addAddress(e, 10, address, address.includes(':') ? 128 : 32)
		addLocalRoute(e, 10, address)
		route.request(e)
		route.close()
	}

	/** The nodes carry exactly these Services. */
	async bring(services: readonly Service[], after?: AfterBring): Promise<void> {
		await this.bringModel(clusterModel(services), after)
	}

	async bringModel(model: NetworkModel, after?: AfterBring): Promise<void> {
		const before = this.#model
		this.#model = model
		for (const node of this.#nodes) {
			for (const plane of node.planes) {
				const want = plane.compile(model, node.name)
				await this.#apply(plane, want)
			}
			after?.(node, before, model)
			// Requests go on between one node and the next.
			await new Promise((resolve) => setImmediate(resolve))
		}
	}

	async #apply(plane: AnyServiceDataplane, want: unknown): Promise<void> {
		const outcome = await plane.apply(plane.diff(this.#have.get(plane), want))
		if (!outcome.ok) throw outcome.error
		this.#have.set(plane, want)
	}

	/** As an agent that ended and begins again: nothing is known but what is read from the kernel. */
	async restart(): Promise<void> {
		for (const { planes } of this.#nodes) for (const plane of planes) plane.close()
		this.#have.clear()
		await this.#makePlanes()
		for (const { planes } of this.#nodes) for (const plane of planes) this.#have.set(plane, await plane.read())
		if (this.#model !== undefined) await this.bringModel(this.#model)
	}

	/** Takes everything of the data planes out of the kernel, the last one first. */
	async clear(): Promise<void> {
		for (const { planes } of this.#nodes) {
			for (const plane of [...planes].reverse()) if (this.#have.has(plane)) await this.#apply(plane, plane.empty)
		}
		this.#model = undefined
	}

	remove(): void {
		for (const { planes } of this.#nodes) for (const plane of planes) plane.close()
		for (const socket of this.#sockets) socket.close()
		for (const name of this.#made) deleteNetns(join(this.#folder, name))
		rmSync(this.#folder, { recursive: true, force: true })
	}

	async #makePlanes(): Promise<void> {
		this.#nodes = []
		for (const name of nodeNames) {
			const netns = this.netns(name)
			const inside = podNames.filter((pod) => nodeOf(pod) === name)
			const namespaces = () => [
				{ path: netns, ips: [] },
				...inside.map((pod) => ({ path: this.netns(pod), ips: families.map((family) => ipOf(pod, family)) })),
			]
			this.#nodes.push({ name, netns, planes: await this.#make({ netns, namespaces }) })
		}
	}

	#netns(name: string): NetlinkSocket {
		const route = createNetns(join(this.#folder, name), () => {
			// Before there is any interface: they begin with it.
			writeSysctl('net.ipv6.conf.default.accept_dad', '0')
			writeSysctl('net.ipv6.conf.all.accept_dad', '0')
			return new NetlinkSocket(NETLINK_ROUTE)
		})
		this.#made.push(name)
		this.#sockets.push(route)
		return route
	}

	#wire(): void {
		const underlay = this.#netns('underlay')
		const e = new NetlinkEncoder()
		addBridge(e, { name: 'br0', index: 2 })
		addAddress(e, 2, ip('172.18.0.1'), 16)
		addAddress(e, 2, ip('fd00:172::1'), 64)
		underlay.request(e)
		for (const [i, name] of nodeNames.entries()) {
			const node = this.#connect(underlay, name, 10 + i)
			inNetnsAt(this.netns(name), () => {
				writeSysctl('net.ipv4.ip_forward', '1')
				writeSysctl('net.ipv6.conf.all.forwarding', '1')
				// Every refusal is to be heard, however many a second there are.
				writeSysctl('net.ipv4.icmp_ratelimit', '0')
				writeSysctl('net.ipv6.icmp.ratelimit', '0')
				try {
					// Of the namespace since Linux 6.12: 50 at once by default, of all kinds together.
					writeSysctl('net.ipv4.icmp_msgs_per_sec', '100000')
					writeSysctl('net.ipv4.icmp_msgs_burst', '10000')
				} catch (e) {
					if (!isFailure(e)) throw e
				}
				for (const which of ['all', 'default', 'eth0']) writeSysctl(`net.ipv4.conf.${which}.send_redirects`, '0')
			})
			for (const family of families) {
				const other = nodeNames[1 - i] as NodeName
				addRoute(e, { destination: podCidr(2 - i, family), via: ipOf(other, family), index: 10 })
				const all = family === 4 ? '0.0.0.0/0' : '::/0'
				addRoute(e, { destination: cidr(all), via: ip(family === 4 ? '172.18.0.1' : 'fd00:172::1'), index: 10 })
			}
			node.request(e)
			for (const pod of podNames.filter((p) => nodeOf(p) === name)) this.#wirePod(node, pod)
		}
		const outside = this.#connect(underlay, 'outside', 20)
		for (const [text, through] of [
			['10.96.0.0/16', 'node-1'],
			['203.0.113.0/24', 'node-1'],
			['198.51.100.0/24', 'node-2'],
			['10.244.0.0/24', 'node-1'],
			['10.244.1.0/24', 'node-2'],
			['fd00:10:96::/108', 'node-1'],
			['fd00:203::/64', 'node-1'],
			['fd00:198::/64', 'node-2'],
			['fd00:10:244:1::/64', 'node-1'],
			['fd00:10:244:2::/64', 'node-2'],
		] as const)
			addRoute(e, { destination: cidr(text), via: ipOf(through, text.includes(':') ? 6 : 4), index: 10 })
		outside.request(e)
	}

	/** A namespace on the bridge, with its addresses. */
	#connect(underlay: NetlinkSocket, name: Place, index: number): NetlinkSocket {
		const inside = this.#netns(name)
		const fd = openNetns(this.netns(name))
		const e = new NetlinkEncoder()
		addVeth(e, { name: `to-${name}`, index, master: 2, up: true, peer: { name: 'eth0', index: 10, netns: fd } })
		underlay.request(e)
		close(fd)
		setLink(e, { index: LOOPBACK, up: true })
		setLink(e, { index: 10, up: true })
		addAddress(e, 10, ipOf(name), 16)
		addAddress(e, 10, ipOf(name, 6), 64)
		addLocalRoute(e, 10, ipOf(name, 6))
		inside.request(e)
		return inside
	}

	/** As a real node: a point-to-point veth, a route to the one address, a link-local gateway. */
	#wirePod(node: NetlinkSocket, name: PodName): void {
		const pod = this.#netns(name)
		const fd = openNetns(this.netns(name))
		const index = 100 + podNames.indexOf(name)
		const mac = `0a:00:00:00:00:0${podNames.indexOf(name)}`
		const e = new NetlinkEncoder()
		addVeth(e, {
			name: `veth-${name}`,
			index,
			up: true,
			mac: gatewayMac,
			peer: { name: 'eth0', index: 10, mac, netns: fd },
		})
		for (const family of families) {
			addRoute(e, { destination: hostCidr(ipOf(name, family)), index })
			addNeighbour(e, index, ipOf(name, family), mac)
		}
		node.request(e)
		setLink(e, { index: LOOPBACK, up: true })
		setLink(e, { index: 10, up: true })
		addAddress(e, 10, ipOf(name), 32)
		addAddress(e, 10, ipOf(name, 6), 128)
		addLocalRoute(e, 10, ipOf(name, 6))
		addRoute(e, { destination: hostCidr(gateway[4]), index: 10 })
		for (const family of families) {
			addNeighbour(e, 10, gateway[family], gatewayMac)
			addRoute(e, { destination: cidr(family === 4 ? '0.0.0.0/0' : '::/0'), via: gateway[family], index: 10 })
		}
		pod.request(e)
		close(fd)
	}
}
