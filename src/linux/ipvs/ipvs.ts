// IPVS, the kernel's layer-4 load balancer: virtual servers and their destinations as data, and the generic netlink
// messages that add, change, delete and list them. Attributes and flags: linux/ip_vs.h; what ipvsadm(8) speaks.

import { familyOf, type Ip, ipFromBytes, ipToBytes } from '../../base/ip.ts'
import { attributesOf, eachAttribute, type NetlinkMessage, readString } from '../netlink/decode.ts'
import { NetlinkEncoder, NLM_F_ACK, NLM_F_DUMP } from '../netlink/encode.ts'
import { NetlinkSocket } from '../netlink/socket.ts'
import { AF_INET, AF_INET6 } from '../syscalls.ts'

export const NETLINK_GENERIC = 16

/** The kernel's own schedulers; each is a module ip_vs_NAME. */
export const schedulers = [
	'rr',
	'wrr',
	'lc',
	'wlc',
	'lblc',
	'lblcr',
	'sh',
	'dh',
	'sed',
	'nq',
	'fo',
	'ovf',
	'mh',
] as const
export type Scheduler = (typeof schedulers)[number]

export type IpvsProtocol = 'TCP' | 'UDP' | 'SCTP'

export interface ServerAddress {
	readonly protocol: IpvsProtocol
	readonly ip: Ip
	readonly port: number
}

export interface VirtualServer extends ServerAddress {
	readonly scheduler: Scheduler
	/** Seconds a client stays with its destination after its last connection; undefined: it does not. */
	readonly persistence?: number
	/** sh and mh: the client's port counts, too, beside its address. */
	readonly hashPort?: true
	/** sh and mh: the next destination where the one hashed to takes no connections; otherwise they are refused. */
	readonly fallback?: true
}

/** How packets reach the destination. */
export type Forwarding = 'masquerade' | 'local' | 'tunnel' | 'route' | 'bypass'
const forwardings: readonly Forwarding[] = ['masquerade', 'local', 'tunnel', 'route', 'bypass']

export interface Destination {
	readonly ip: Ip
	readonly port: number
	/** 0: no new connections, those that are there go on. */
	readonly weight: number
	readonly forwarding: Forwarding
	/** Connections above which it gets no more, and below which it gets some again; 0: no limit. */
	readonly upper: number
	readonly lower: number
	/** Connections now, when read: carrying data, and closing or idle. */
	readonly active?: number
	readonly inactive?: number
}

export interface IpvsTimeouts {
	/** Seconds; 0 in a request leaves it as it is. */
	readonly tcp: number
	readonly tcpFin: number
	readonly udp: number
}

const command = {
	newService: 1,
	setService: 2,
	delService: 3,
	getService: 4,
	newDest: 5,
	setDest: 6,
	delDest: 7,
	getDest: 8,
	setConfig: 12,
	getConfig: 13,
	getInfo: 15,
	flush: 17,
} as const
const attribute = { service: 1, dest: 2, timeoutTcp: 4, timeoutTcpFin: 5, timeoutUdp: 6 } as const
const service = {
	family: 1,
	protocol: 2,
	address: 3,
	port: 4,
	scheduler: 6,
	flags: 7,
	timeout: 8,
	netmask: 9,
} as const
const dest = {
	address: 1,
	port: 2,
	forwarding: 3,
	weight: 4,
	upper: 5,
	lower: 6,
	active: 7,
	inactive: 8,
	family: 11,
} as const

const F_PERSISTENT = 0x1
/** The kernel's own mark of a server that is in its table. */
const F_HASHED = 0x2
/** Of sh and mh: fall back to another destination. */
const F_SCHED1 = 0x8
/** Of sh and mh: hash the port, too. */
const F_SCHED2 = 0x10
const protocolNumbers: Readonly<Record<IpvsProtocol, number>> = { TCP: 6, UDP: 17, SCTP: 132 }

// --- messages ---

/** Opens a message of a generic netlink family. */
function begin(e: NetlinkEncoder, family: number, cmd: number, flags: number): void {
	e.begin(family, flags).raw(Uint8Array.of(cmd, 1, 0, 0))
}

function address(ip: Ip): Uint8Array {
	const bytes = new Uint8Array(16)
	bytes.set(ipToBytes(ip))
	return bytes
}

function u16be(value: number): Uint8Array {
	return Uint8Array.of(value >> 8, value & 255)
}

/** What names a server; enough to delete it and to speak of its destinations. */
function writeServerAddress(e: NetlinkEncoder, server: ServerAddress): void {
	e.u16(service.family, familyOf(server.ip) === 4 ? AF_INET : AF_INET6)
	e.u16(service.protocol, protocolNumbers[server.protocol])
	e.attr(service.address, address(server.ip))
	e.attr(service.port, u16be(server.port))
}

function writeServer(e: NetlinkEncoder, server: VirtualServer): void {
	writeServerAddress(e, server)
	e.string(service.scheduler, server.scheduler)
	const flags = new Uint8Array(8)
	flags[0] =
		(server.persistence === undefined ? 0 : F_PERSISTENT) |
		(server.fallback ? F_SCHED1 : 0) |
		(server.hashPort ? F_SCHED2 : 0)
	// All flags are set as said.
	flags.fill(0xff, 4)
	e.attr(service.flags, flags)
	e.u32(service.timeout, server.persistence ?? 0)
	// Every client for itself: a mask for IPv4, a prefix length for IPv6.
	if (familyOf(server.ip) === 4) e.u32(service.netmask, 0xffffffff)
	else e.u32(service.netmask, 128)
}

/** Adds a virtual server (`set`: changes the one that is there). */
export function addServer(e: NetlinkEncoder, family: number, server: VirtualServer, set = false): void {
	begin(e, family, set ? command.setService : command.newService, NLM_F_ACK)
	const mark = e.nest(attribute.service)
	writeServer(e, server)
	e.close(mark).end()
}

/** Deletes it with its destinations; connections through it end. */
export function deleteServer(e: NetlinkEncoder, family: number, server: ServerAddress): void {
	begin(e, family, command.delService, NLM_F_ACK)
	const mark = e.nest(attribute.service)
	writeServerAddress(e, server)
	e.close(mark).end()
}

/** Adds a destination of a server (`set`: changes the one that is there). */
export function addDestination(
	e: NetlinkEncoder,
	family: number,
	server: ServerAddress,
	destination: Destination,
	set = false,
): void {
	begin(e, family, set ? command.setDest : command.newDest, NLM_F_ACK)
	const outer = e.nest(attribute.service)
	writeServerAddress(e, server)
	e.close(outer)
	const mark = e.nest(attribute.dest)
	writeDestinationAddress(e, destination)
	e.u32(dest.forwarding, forwardings.indexOf(destination.forwarding))
	e.u32(dest.weight, destination.weight)
	e.u32(dest.upper, destination.upper)
	e.u32(dest.lower, destination.lower)
	e.close(mark).end()
}

export function deleteDestination(
	e: NetlinkEncoder,
	family: number,
	server: ServerAddress,
	destination: Pick<Destination, 'ip' | 'port'>,
): void {
	begin(e, family, command.delDest, NLM_F_ACK)
	const outer = e.nest(attribute.service)
	writeServerAddress(e, server)
	e.close(outer)
	const mark = e.nest(attribute.dest)
	writeDestinationAddress(e, destination)
	e.close(mark).end()
}

function writeDestinationAddress(e: NetlinkEncoder, destination: Pick<Destination, 'ip' | 'port'>): void {
	e.u16(dest.family, familyOf(destination.ip) === 4 ? AF_INET : AF_INET6)
	e.attr(dest.address, address(destination.ip))
	e.attr(dest.port, u16be(destination.port))
}

export function setTimeouts(e: NetlinkEncoder, family: number, timeouts: IpvsTimeouts): void {
	begin(e, family, command.setConfig, NLM_F_ACK)
	e.u32(attribute.timeoutTcp, timeouts.tcp)
	e.u32(attribute.timeoutTcpFin, timeouts.tcpFin)
	e.u32(attribute.timeoutUdp, timeouts.udp)
	e.end()
}

/** Deletes every server of the namespace. */
export function flushServers(e: NetlinkEncoder, family: number): void {
	begin(e, family, command.flush, NLM_F_ACK)
	e.end()
}

// --- what the kernel answers ---

/** A server of a dump; undefined for one by firewall mark, which has no address. */
export function decodeServer(message: Pick<NetlinkMessage, 'body'>): VirtualServer | undefined {
	const nested = attributesOf(message.body, 4).get(attribute.service)
	if (nested === undefined) throw new Error('an IPVS service message has no service')
	const all = attributesOf(nested)
	const bytes = all.get(service.address)
	const number = all.get(service.protocol)?.readUInt16LE(0)
	const protocol = (Object.keys(protocolNumbers) as IpvsProtocol[]).find((p) => protocolNumbers[p] === number)
	if (bytes === undefined || protocol === undefined) return undefined
	const flags = (all.get(service.flags)?.readUInt32LE(0) ?? 0) & ~F_HASHED
	return {
		protocol,
		ip: ipOf(bytes, all.get(service.family)?.readUInt16LE(0)),
		port: all.get(service.port)?.readUInt16BE(0) ?? 0,
		scheduler: readString(all.get(service.scheduler) ?? Buffer.alloc(0)) as Scheduler,
		...((flags & F_PERSISTENT) === 0 ? {} : { persistence: all.get(service.timeout)?.readUInt32LE(0) ?? 0 }),
		...((flags & F_SCHED2) === 0 ? {} : { hashPort: true as const }),
		...((flags & F_SCHED1) === 0 ? {} : { fallback: true as const }),
	}
}

export function decodeDestination(message: Pick<NetlinkMessage, 'body'>): Destination {
	const nested = attributesOf(message.body, 4).get(attribute.dest)
	if (nested === undefined) throw new Error('an IPVS destination message has no destination')
	const all = attributesOf(nested)
	const u32 = (type: number) => all.get(type)?.readUInt32LE(0) ?? 0
	return {
		ip: ipOf(all.get(dest.address) ?? Buffer.alloc(16), all.get(dest.family)?.readUInt16LE(0)),
		port: all.get(dest.port)?.readUInt16BE(0) ?? 0,
		weight: u32(dest.weight),
		forwarding: forwardings[u32(dest.forwarding) & 7] ?? 'masquerade',
		upper: u32(dest.upper),
		lower: u32(dest.lower),
		active: u32(dest.active),
		inactive: u32(dest.inactive),
	}
}

function ipOf(bytes: Buffer, family: number | undefined): Ip {
	return ipFromBytes(bytes.subarray(0, family === AF_INET6 ? 16 : 4))
}

// --- a socket ---

const controlFamily = 0x10
const getFamily = 3

/** The number a generic netlink family has on this kernel. Throws Failure ENOENT where it is not there. */
function findFamily(socket: NetlinkSocket, name: string): number {
	const e = new NetlinkEncoder()
	begin(e, controlFamily, getFamily, NLM_F_ACK)
	e.string(2, name).end()
	for (const { body } of socket.request(e)) {
		const id = attributesOf(body, 4).get(1)
		if (id !== undefined) return id.readUInt16LE(0)
	}
	throw new Error(`generic netlink did not say the number of family ${name}`)
}

/** IPVS of the namespace the calling thread is in; it stays that one's. */
export class Ipvs {
	readonly #socket: NetlinkSocket
	readonly family: number

	/** Throws Failure ENOENT where the kernel has no IPVS (asking for it loads the module where there is one). */
	constructor() {
		this.#socket = new NetlinkSocket(NETLINK_GENERIC, { sendBuffer: 1 << 20 })
		try {
			this.family = findFamily(this.#socket, 'IPVS')
		} catch (e) {
			this.#socket.close()
			throw e
		}
	}

	/** Sends what `write` encodes. Throws the first refusal; the messages before and after it are in force. */
	request(write: (e: NetlinkEncoder, family: number) => void): void {
		const e = new NetlinkEncoder()
		write(e, this.family)
		if (e.messages > 0) this.#socket.request(e)
	}

	servers(): VirtualServer[] {
		const messages = this.#socket.dump((e) => {
			begin(e, this.family, command.getService, NLM_F_DUMP)
			e.end()
		})
		return messages.map(decodeServer).filter((s) => s !== undefined)
	}

	destinations(server: ServerAddress): Destination[] {
		const messages = this.#socket.dump((e) => {
			begin(e, this.family, command.getDest, NLM_F_DUMP)
			const mark = e.nest(attribute.service)
			writeServerAddress(e, server)
			e.close(mark).end()
		})
		return messages.map(decodeDestination)
	}

	timeouts(): IpvsTimeouts {
		const e = new NetlinkEncoder()
		begin(e, this.family, command.getConfig, NLM_F_ACK)
		e.end()
		const found = { tcp: 0, tcpFin: 0, udp: 0 }
		for (const { body } of this.#socket.request(e)) {
			eachAttribute(body, 4, (type, value) => {
				if (type === attribute.timeoutTcp) found.tcp = value.readUInt32LE(0)
				else if (type === attribute.timeoutTcpFin) found.tcpFin = value.readUInt32LE(0)
				else if (type === attribute.timeoutUdp) found.udp = value.readUInt32LE(0)
			})
		}
		return found
	}

	close(): void {
		this.#socket.close()
	}
}
