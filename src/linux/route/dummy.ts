// Dummy interfaces by rtnetlink: places for addresses that the machine is to take as its own (linux/if_link.h).

import { familyOf, type Ip, ipToBytes } from '../../base/ip.ts'
import { type NetlinkEncoder, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from '../netlink/encode.ts'

const RTM_NEWLINK = 16
const RTM_NEWADDR = 20
const AF_INET = 2
const AF_INET6 = 10
const IFA_ADDRESS = 1
const IFA_LOCAL = 2
const IFA_CACHEINFO = 6
const IFA_FLAGS = 8
/** Without duplicate address detection. */
const IFA_F_NODAD = 2
const RT_SCOPE_HOST = 254
const IFF_UP = 1
const IFLA_IFNAME = 3
const IFLA_LINKINFO = 18
const IFLA_INFO_KIND = 1

/** Makes one, up: only then do its IPv6 addresses count. Refused with EOPNOTSUPP where the kernel has no such kind. */
export function addDummy(e: NetlinkEncoder, name: string): void {
	const header = new Uint8Array(16)
	header[8] = IFF_UP
	header[12] = IFF_UP
	e.begin(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
	e.raw(header).string(IFLA_IFNAME, name)
	const info = e.nest(IFLA_LINKINFO)
	e.string(IFLA_INFO_KIND, 'dummy').close(info).end()
}

/**
 * An address that the machine takes packets for and does not speak from by itself: of scope "host" (IPv4), deprecated
 * (IPv6). Otherwise masquerading and unconnected sockets would choose it, and the far side would not know it.
 */
export function addServedAddress(e: NetlinkEncoder, index: number, ip: Ip): void {
	const bytes = ipToBytes(ip)
	const six = familyOf(ip) === 6
	const header = new Uint8Array(8)
	header.set(six ? [AF_INET6, 128, 0, 0] : [AF_INET, 32, 0, RT_SCOPE_HOST])
	new DataView(header.buffer).setUint32(4, index, true)
	e.begin(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE).raw(header)
	e.attr(IFA_LOCAL, bytes).attr(IFA_ADDRESS, bytes)
	if (six) {
		e.u32(IFA_FLAGS, IFA_F_NODAD)
		// Preferred for 0 seconds, valid for ever.
		e.attr(IFA_CACHEINFO, Uint8Array.from([0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]))
	}
	e.end()
}
