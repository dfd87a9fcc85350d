// Sockets of servers inside a network namespace, bound: made here, handed over as descriptors
// (`server.listen({ fd })`), because Node binds later and then in the wrong namespace.

import { familyOf, type Ip, ipToBytes } from '../base/ip.ts'
import { inNetnsAt } from './netns.ts'
import {
	AF_INET,
	AF_INET6,
	bind,
	close,
	inetAddress,
	SO_REUSEADDR,
	SOCK_DGRAM,
	SOCK_STREAM,
	SOL_SOCKET,
	setsockopt,
	socket,
} from './syscalls.ts'

const IPPROTO_IPV6 = 41
const IPV6_V6ONLY = 26

/**
 * A TCP socket bound to `ip` and `port` in the namespace of the file `netns`. `::` takes IPv4 as well. Whoever listens
 * on the descriptor closes it. Throws Failure EADDRINUSE, EADDRNOTAVAIL, ….
 */
export function bindTcp(netns: string, ip: Ip, port: number): number {
	return bound(netns, SOCK_STREAM, ip, port)
}

/** As bindTcp, for datagrams. */
export function bindUdp(netns: string, ip: Ip, port: number): number {
	return bound(netns, SOCK_DGRAM, ip, port)
}

function bound(netns: string, type: number, ip: Ip, port: number): number {
	return inNetnsAt(netns, () => {
		const six = familyOf(ip) === 6
		const fd = socket(six ? AF_INET6 : AF_INET, type, 0)
		try {
			// Connections that linger do not keep a server from its port. For datagrams it would let two servers share one.
			if (type === SOCK_STREAM) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, 1)
			if (six) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, ip === '::' ? 0 : 1)
			bind(fd, inetAddress(ipToBytes(ip), port))
			return fd
		} catch (e) {
			close(fd)
			throw e
		}
	})
}
