// Dummy interfaces by rtnetlink: places for addresses that the machine is to take as its own (linux/if_link.h).

import { type NetlinkEncoder, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL } from '../netlink/encode.ts'

const RTM_NEWLINK = 16
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
