// Address pools of load balancers, and which addresses of them a Service can have. Pure.

import {
	type Cidr,
	cidrContains,
	cidrLength,
	cidrNth,
	cidrSize,
	familyOf,
	type Ip,
	type IpFamily,
} from '../../base/ip.ts'

export interface AddressPool {
	readonly name: string
	/** Of either family. */
	readonly cidrs: readonly Cidr[]
	/** false: only for Services that name the pool or one of its addresses. */
	readonly autoAssign: boolean
}

/** The pool that has the address, whether it gives it away by itself or not. */
export function poolOf(pools: readonly AddressPool[], ip: Ip): AddressPool | undefined {
	return pools.find((pool) => pool.cidrs.some((cidr) => isIn(cidr, ip)))
}

/** The lowest address of the pool that is not taken. */
export function freeAddress(pool: AddressPool, family: IpFamily, isTaken: (ip: Ip) => boolean): Ip | undefined {
	for (const cidr of pool.cidrs) {
		if (familyOf(cidr) !== family) continue
		const size = cidrSize(cidr)
		const first = hasEdges(cidr) || (familyOf(cidr) === 6 && size > 2n) ? 1n : 0n
		const end = hasEdges(cidr) ? size - 1n : size
		for (let offset = first; offset < end; offset++) {
			const ip = cidrNth(cidr, offset)
			if (!isTaken(ip)) return ip
		}
	}
	return undefined
}

/**
 * First and last address of an IPv4 network may be its own name and everybody's: some hosts do not talk to them. The first
 * of an IPv6 network is every router's (RFC 4291, 2.6.1).
 */
function hasEdges(cidr: Cidr): boolean {
	return familyOf(cidr) === 4 && cidrLength(cidr) < 31
}

function isIn(cidr: Cidr, ip: Ip): boolean {
	if (familyOf(cidr) !== familyOf(ip) || !cidrContains(cidr, ip)) return false
	return !hasEdges(cidr) || (ip !== cidrNth(cidr, 0n) && ip !== cidrNth(cidr, cidrSize(cidr) - 1n))
}
