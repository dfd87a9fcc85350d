// Addresses of interfaces by rtnetlink. Reference: linux/if_addr.h, man 7 rtnetlink.

import { familyOf, hostCidr, type Ip, ipFromBytes, ipToBytes } from '../../base/ip.ts'
import { attributesOf, type NetlinkMessage } from '../netlink/decode.ts'
import { type NetlinkEncoder, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE } from '../netlink/encode.ts'
import type { NetlinkSocket } from '../netlink/socket.ts'
import { AF_INET, AF_INET6 } from '../syscalls.ts'
import { addRoute, PROTOCOL_KERNEL, TABLE_LOCAL } from './routes.ts'

const RTM_NEWADDR = 20
const RTM_DELADDR = 21
const RTM_GETADDR = 22
const IFA_ADDRESS = 1
const IFA_LOCAL = 2
const IFA_FLAGS = 8
const IFA_F_NODAD = 0x02
const SCOPE_LINK = 253
const SCOPE_HOST = 254

export interface Address {
	readonly index: number
	readonly ip: Ip
	readonly prefixLength: number
	readonly scope: 'global' | 'link' | 'host'
}

/**
 * Adds or confirms an address. IPv6: without duplicate address detection; packets to it arrive once its route is there,
 * which the kernel makes in its own time (`addLocalRoute`).
 */
export function addAddress(e: NetlinkEncoder, index: number, ip: Ip, prefixLength: number): void {
	const bytes = ipToBytes(ip)
	const six = familyOf(ip) === 6
	e.begin(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)
	e.raw(ifaddrmsg(six, prefixLength, index))
		.attr(IFA_LOCAL, bytes)
		.attr(IFA_ADDRESS, bytes)
	if (six) e.u32(IFA_FLAGS, IFA_F_NODAD)
	e.end()
}

/**
 * The route by which packets to an address of this machine arrive, for an interface that is up. Of IPv4 nothing is to be
 * done. For IPv6 the kernel makes its own from a work queue that waits for the lock of all namespaces' interfaces
 * (addrconf_dad_work): measured 50 µs on an idle machine and 30 ms on a busy one, in which what is sent to the address
 * goes astray. Ours is there when the request is answered; the kernel's comes beside it, with a lower metric.
 */
export function addLocalRoute(e: NetlinkEncoder, index: number, ip: Ip): void {
	if (familyOf(ip) === 4) return
	addRoute(e, { kind: 'local', destination: hostCidr(ip), index, table: TABLE_LOCAL, protocol: PROTOCOL_KERNEL })
}

export function deleteAddress(e: NetlinkEncoder, index: number, ip: Ip, prefixLength: number): void {
	const bytes = ipToBytes(ip)
	e.begin(RTM_DELADDR, NLM_F_ACK).raw(ifaddrmsg(familyOf(ip) === 6, prefixLength, index))
	e.attr(IFA_LOCAL, bytes).attr(IFA_ADDRESS, bytes).end()
}

/** All addresses of the socket's namespace. */
export function readAddresses(socket: NetlinkSocket): Address[] {
	return socket.dump((e) => e.begin(RTM_GETADDR, NLM_F_DUMP).raw(new Uint8Array(8)).end()).flatMap(decodeAddress)
}

function decodeAddress(message: NetlinkMessage): Address[] {
	const { body } = message
	const family = body.readUInt8(0)
	if (family !== AF_INET && family !== AF_INET6) return []
	const attributes = attributesOf(body, 8)
	// On a point-to-point link IFA_ADDRESS is the far side's; the local one counts.
	const ip = attributes.get(IFA_LOCAL) ?? attributes.get(IFA_ADDRESS)
	if (ip === undefined) return []
	const scope = body.readUInt8(3)
	return [
		{
			index: body.readUInt32LE(4),
			ip: ipFromBytes(ip),
			prefixLength: body.readUInt8(1),
			scope: scope === SCOPE_HOST ? 'host' : scope === SCOPE_LINK ? 'link' : 'global',
		},
	]
}

function ifaddrmsg(six: boolean, prefixLength: number, index: number): Uint8Array {
	const bytes = new Uint8Array(8)
	bytes[0] = six ? AF_INET6 : AF_INET
	bytes[1] = prefixLength
	new DataView(bytes.buffer).setUint32(4, index, true)
	return bytes
}
