// A node with pods in throw-away namespaces, and a model to match: what the tests of Services share. Wired as a real
// node: point-to-point veths, /32 routes, a link-local gateway.

import { createSocket, type Socket as DatagramSocket } from 'node:dgram'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server, Socket } from 'node:net'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { Failure } from '../../src/base/failure.ts'
import { type Cidr, hostCidr, type Ip, ipToBytes } from '../../src/base/ip.ts'
import { emptyTable, tableOf } from '../../src/base/table.ts'
import { NetlinkEncoder } from '../../src/linux/netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../../src/linux/netlink/socket.ts'
import { createNetns, deleteNetns, inNetnsAt, openNetns } from '../../src/linux/netns.ts'
import { addAddress, addLocalRoute } from '../../src/linux/route/addresses.ts'
import { addVeth, LOOPBACK, setLink } from '../../src/linux/route/links.ts'
import { addNeighbour } from '../../src/linux/route/neighbours.ts'
import { addRoute } from '../../src/linux/route/routes.ts'
import {
	AF_INET,
	AF_INET6,
	bind,
	close,
	connect,
	getsockoptInt,
	inetAddress,
	listen,
	POLLIN,
	POLLOUT,
	recv,
	SO_ERROR,
	SO_REUSEADDR,
	SOCK_DGRAM,
	SOCK_NONBLOCK,
	SOCK_STREAM,
	SOL_SOCKET,
	send,
	setsockopt,
	socket,
	waitReady,
} from '../../src/linux/syscalls.ts'
import { writeSysctl } from '../../src/linux/sysctl.ts'
import { frontendKeyOf, frontendsOf } from '../../src/model/frontends.ts'
import type { AddressOwner, Endpoint, NetworkModel, Node, Pod, Service, ServicePort } from '../../src/model/network.ts'
import { objectOrigin } from '../../src/model/origin.ts'

const ip = (text: string) => text as Ip
const cidr = (text: string) => text as Cidr
const gatewayMac = 'ee:ee:ee:ee:ee:ee'
const gateway = ip('169.254.1.1')
const gateway6 = ip('fe80::1')

export function reasonToSkip(): string | false {
	if (process.platform !== 'linux') return 'not Linux'
	if (process.getuid?.() !== 0) return 'needs root, or root of a user namespace'
	return false
}

export const nodeAddress = ip('172.18.0.2')

/** Pods pod-0, pod-1, … with 10.244.1.2, .3, … and fd00:10:244:1::2, …; the node 172.18.0.2; outside 172.18.0.1. */
export interface World {
	readonly node: string
	readonly outside: string
	pod(i: number): string
	/** Answers every TCP connection with `name`, then closes. */
	serveTcp(netns: string, port: number, name: string): void
	/** Answers every datagram with `name`. */
	serveUdp(netns: string, port: number, name: string): void
}

export const podIp = (i: number, family: 4 | 6 = 4) =>
	ip(family === 4 ? `10.244.1.${i + 2}` : `fd00:10:244:1::${i + 2}`)

export async function withWorld<T>(pods: number, test: (world: World) => Promise<T>): Promise<T> {
	const folder = mkdtempSync(join(tmpdir(), 'podwire-test-'))
	const at = (name: string) => join(folder, name)
	const made: string[] = []
	const closers: (() => void)[] = []
	const make = (name: string): NetlinkSocket => {
		const route = createNetns(at(name), () => new NetlinkSocket(NETLINK_ROUTE))
		made.push(name)
		closers.push(() => route.close())
		return route
	}
	try {
		const node = make('node')
		const outside = make('outside')
		wireOutside(node, outside, at('outside'))
		inNetnsAt(at('node'), () => {
			writeSysctl('net.ipv4.ip_forward', '1')
			writeSysctl('net.ipv6.conf.all.forwarding', '1')
			writeSysctl('net.ipv4.conf.all.send_redirects', '0')
			writeSysctl('net.ipv4.conf.default.send_redirects', '0')
		})
		for (let i = 0; i < pods; i++) wirePod(node, make(`pod-${i}`), at(`pod-${i}`), i)
		return await test({
			node: at('node'),
			outside: at('outside'),
			pod: (i) => at(`pod-${i}`),
			serveTcp(netns, port, name) {
				const server = tcpServer(netns, port, name)
				closers.push(() => server.close())
			},
			serveUdp(netns, port, name) {
				const server = udpServer(netns, port, name)
				closers.push(() => server.close())
			},
		})
	} finally {
		for (const shut of closers) shut()
		for (const name of made) deleteNetns(at(name))
		rmSync(folder, { recursive: true, force: true })
	}
}

function wireOutside(node: NetlinkSocket, outside: NetlinkSocket, path: string): void {
	const fd = openNetns(path)
	const e = new NetlinkEncoder()
	addVeth(e, { name: 'eth0', index: 10, up: true, peer: { name: 'up0', index: 10, netns: fd } })
	setLink(e, { index: LOOPBACK, up: true })
	addAddress(e, 10, nodeAddress, 16)
	addRoute(e, { destination: cidr('0.0.0.0/0'), via: ip('172.18.0.1'), index: 10 })
	addAddress(e, 10, ip('fd00:172::2'), 64)
	addLocalRoute(e, 10, ip('fd00:172::2'))
	addRoute(e, { destination: cidr('::/0'), via: ip('fd00:172::1'), index: 10 })
	node.request(e)
	setLink(e, { index: LOOPBACK, up: true })
	setLink(e, { index: 10, up: true })
	addAddress(e, 10, ip('172.18.0.1'), 16)
	addRoute(e, { destination: cidr('10.0.0.0/8'), via: nodeAddress, index: 10 })
	outside.request(e)
	close(fd)
}

function wirePod(node: NetlinkSocket, pod: NetlinkSocket, path: string, i: number): void {
	const fd = openNetns(path)
	const index = 100 + i
	const e = new NetlinkEncoder()
	addVeth(e, {
		name: `veth${i}`,
		index,
		up: true,
		mac: gatewayMac,
		peer: { name: 'eth0', index: 10, mac: `0a:00:00:00:00:0${i}`, netns: fd },
	})
	addRoute(e, { destination: hostCidr(podIp(i)), index })
	addRoute(e, { destination: hostCidr(podIp(i, 6)), index })
	addNeighbour(e, index, podIp(i), `0a:00:00:00:00:0${i}`)
	addNeighbour(e, index, podIp(i, 6), `0a:00:00:00:00:0${i}`)
	node.request(e)
	inNetnsAt(path, () => writeSysctl('net.ipv6.conf.default.accept_dad', '0'))
	inNetnsAt(path, () => writeSysctl('net.ipv6.conf.eth0.accept_dad', '0'))
	setLink(e, { index: LOOPBACK, up: true })
	setLink(e, { index: 10, up: true })
	addAddress(e, 10, podIp(i), 32)
	addRoute(e, { destination: hostCidr(gateway), index: 10 })
	addRoute(e, { destination: cidr('0.0.0.0/0'), via: gateway, index: 10 })
	addNeighbour(e, 10, gateway, gatewayMac)
	addAddress(e, 10, podIp(i, 6), 128)
	addLocalRoute(e, 10, podIp(i, 6))
	addNeighbour(e, 10, gateway6, gatewayMac)
	addRoute(e, { destination: cidr('::/0'), via: gateway6, index: 10 })
	pod.request(e)
	close(fd)
}

function open(netns: string, type: number, family = AF_INET): number {
	return inNetnsAt(netns, () => socket(family, type | SOCK_NONBLOCK, 0))
}

const anyAddress = ip('::')

/** Answers every TCP connection with `name` and the client's address as it sees it, then closes. IPv4 and IPv6. */
export function tcpServer(netns: string, port: number, name: string): Server {
	const fd = open(netns, SOCK_STREAM, AF_INET6)
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, 1)
	bind(fd, inetAddress(ipToBytes(anyAddress), port))
	listen(fd, 64)
	const server = createServer((connection) => {
		connection.on('error', () => {})
		connection.end(`${name} ${connection.remoteAddress?.replace('::ffff:', '')}`)
	})
	return server.listen({ fd })
}

/** Likewise every datagram. */
export function udpServer(netns: string, port: number, name: string): DatagramSocket {
	const fd = open(netns, SOCK_DGRAM, AF_INET6)
	bind(fd, inetAddress(ipToBytes(anyAddress), port))
	const server = createSocket('udp6')
	server.on('error', () => {})
	server.on('message', (_, from) =>
		server.send(`${name} ${from.address.replace('::ffff:', '')}`, from.port, from.address),
	)
	server.bind({ fd })
	return server
}

/** What a connection from inside a namespace comes to: the server's text, an errno name, or `timeout`. */
export async function askTcp(netns: string, to: Ip, port: number, timeout = 8000): Promise<string> {
	const fd = open(netns, SOCK_STREAM, to.includes(':') ? AF_INET6 : AF_INET)
	let handed = false
	try {
		connect(fd, inetAddress(ipToBytes(to), port))
		const [ready = 0] = await waitReady([{ fd, events: POLLOUT }], timeout)
		if (ready === 0) return 'timeout'
		const errno = getsockoptInt(fd, SOL_SOCKET, SO_ERROR)
		if (errno !== 0) return errnoText(errno)
		handed = true
		return await readAll(fd, timeout)
	} catch (e) {
		// Refused at once, before anything was sent.
		if (e instanceof Failure) return e.code
		throw e
	} finally {
		if (!handed) close(fd)
	}
}

function readAll(fd: number, timeout: number): Promise<string> {
	return new Promise((resolve) => {
		const connection = new Socket({ fd })
		let text = ''
		connection.setTimeout(timeout, () => finish('timeout'))
		const finish = (result: string) => {
			connection.destroy()
			resolve(result)
		}
		connection.on('data', (data) => {
			text += data.toString()
		})
		connection.on('end', () => finish(text))
		connection.on('error', (e: NodeJS.ErrnoException) => finish(e.code ?? e.message))
	})
}

export async function askUdp(netns: string, to: Ip, port: number, timeout = 8000): Promise<string> {
	const fd = open(netns, SOCK_DGRAM, to.includes(':') ? AF_INET6 : AF_INET)
	try {
		connect(fd, inetAddress(ipToBytes(to), port))
		send(fd, Buffer.from('?'))
		const [ready = 0] = await waitReady([{ fd, events: POLLIN }], timeout)
		if (ready === 0) return 'timeout'
		const answer = Buffer.alloc(512)
		return answer.toString('utf8', 0, recv(fd, answer) ?? 0)
	} catch (e) {
		if (e instanceof Failure) return e.code
		throw e
	} finally {
		close(fd)
	}
}

function errnoText(errno: number): string {
	return Object.entries(constants.errno).find(([, n]) => n === errno)?.[0] ?? String(errno)
}

// --- models ---

export interface ServiceSketch {
	readonly name: string
	readonly ips: readonly string[]
	readonly ports: readonly {
		readonly port: number
		readonly protocol?: 'TCP' | 'UDP' | 'SCTP'
		readonly endpoints: readonly (Partial<Endpoint> & { readonly ip: string; readonly port: number })[]
	}[]
	readonly more?: Partial<Service>
}

export function sketchService(sketch: ServiceSketch): Service {
	const key = `default/${sketch.name}`
	const source = { file: 'services.yaml', line: 3 }
	return {
		key,
		namespace: 'default',
		name: sketch.name,
		type: 'ClusterIP',
		clusterIps: sketch.ips.map(ip),
		headless: false,
		publishNotReadyAddresses: false,
		internalTrafficPolicy: 'Cluster',
		externalTrafficPolicy: 'Cluster',
		externalIps: [],
		ports: sketch.ports.map(
			(p, i): ServicePort => ({
				name: `p${i}`,
				protocol: p.protocol ?? 'TCP',
				port: p.port,
				targetPort: p.port,
				endpoints: p.endpoints.map((e) => ({
					ready: true,
					serving: true,
					terminating: false,
					hints: [],
					origin: objectOrigin('EndpointSlice', `${key}-1`),
					...e,
					ip: ip(e.ip),
				})),
				origin: objectOrigin('Service', key, `spec.ports[${i}]`, source),
			}),
		),
		origin: objectOrigin('Service', key, undefined, source),
		...sketch.more,
	}
}

const config = {
	clusterDomain: 'cluster.local',
	podCidrs: [cidr('10.244.0.0/16'), cidr('fd00:10:244::/48')],
	serviceCidrs: [cidr('10.96.0.0/16'), cidr('fd00:10:96::/108')],
	mtu: 1500,
}

/** A model with one node, node-1, its pods, and the Services. */
export function sketchModel(services: readonly Service[], pods = 0): NetworkModel {
	const node: Node = {
		name: 'node-1',
		addresses: [nodeAddress, ip('fd00:172::2')],
		podCidrs: [cidr('10.244.1.0/24')],
		ready: true,
		labels: {},
		origin: objectOrigin('Node', 'node-1'),
	}
	const list = Array.from({ length: pods }, (_, i) => sketchPod(i))
	const owners: [Ip, AddressOwner][] = services.flatMap((s) =>
		s.clusterIps.map((address): [Ip, AddressOwner] => [address, { kind: 'service', service: s.key }]),
	)
	for (const pod of list) for (const address of pod.ips) owners.push([address, { kind: 'pod', pod: pod.key }])
	return {
		config,
		nodes: tableOf([[node.name, node]]),
		pods: tableOf(list.map((pod) => [pod.key, pod])),
		services: tableOf(services.map((s) => [s.key, s])),
		addresses: tableOf(owners),
		frontends: frontendTable(services),
		policies: emptyTable(),
		tieredPolicies: emptyTable(),
		namespaces: emptyTable(),
		findings: [],
	}
}

/** Of several Services that claim a frontend the first has it; a ClusterIP is nobody else's. */
export function frontendTable(services: readonly Service[]): NetworkModel['frontends'] {
	const frontends = new Map<string, string>()
	const clusterIps = new Set(services.flatMap((s) => s.clusterIps))
	for (const service of services) {
		for (const frontend of service.ports.flatMap((port) => frontendsOf(service, port))) {
			const key = frontendKeyOf(frontend)
			if (frontend.kind === 'cluster-ip' || (frontend.ip !== undefined && clusterIps.has(frontend.ip))) continue
			if (!frontends.has(key)) frontends.set(key, service.key)
		}
	}
	return tableOf(frontends)
}

function sketchPod(i: number): Pod {
	const key = `default/pod-${i}`
	const origin = objectOrigin('Pod', key)
	return {
		key,
		uid: `uid-${i}`,
		namespace: 'default',
		name: `pod-${i}`,
		labels: {},
		node: 'node-1',
		ips: [podIp(i), podIp(i, 6)],
		hostNetwork: false,
		phase: 'Running',
		ready: true,
		terminating: false,
		ports: [],
		dns: { nameservers: [], searches: [], options: [], origin },
		owner: { kind: 'Pod', key },
		origin,
	}
}
