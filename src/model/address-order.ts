// The order of addresses: IPv4 before IPv6, then by number.

import { type Ip, ipToBytes } from '../base/ip.ts'

export function compareIps(a: Ip, b: Ip): number {
	if (a === b) return 0
	const x = ipToBytes(a)
	const y = ipToBytes(b)
	if (x.length !== y.length) return x.length - y.length
	for (let i = 0; i < x.length; i++) {
		const difference = x[i]! - y[i]!
		if (difference !== 0) return difference
	}
	return 0
}

export function compareEndpoints(
	a: { readonly ip: Ip; readonly port: number },
	b: { readonly ip: Ip; readonly port: number },
): number {
	return compareIps(a.ip, b.ip) || a.port - b.port
}
