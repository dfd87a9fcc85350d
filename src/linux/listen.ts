// Listening sockets inside a network namespace, for servers of this process: made here, handed over as descriptors
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
	return inNetnsAt(netns, () => {
		const six = familyOf(ip) === 6
		const fd = socket(six ? AF_INET6 : AF_INET, SOCK_STREAM, 0)
		try {
			setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, 1)
			if (six) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, ip === '::' ? 0 : 1)
			bind(fd, inetAddress(ipToBytes(ip), port))
			return fd
		} catch (e) {
			close(fd)
			throw e
		}
	})
}
