// Sockets inside a pod's namespace: made there, used from here, for a socket stays in the namespace it was made in.

import { familyOf, type IpFamily } from '../../base/ip.ts'
import { inNetnsAt } from '../../linux/netns.ts'
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
} from '../../linux/syscalls.ts'
import type { Listener, WorkloadPod } from './protocol.ts'

export interface BoundSocket {
	readonly fd: number
	/** 6: takes IPv4, too. */
	readonly family: IpFamily
}

/** A socket bound to the wildcard of the pod's families; it does not listen yet. Throws Failure (EADDRINUSE, …). */
export function bindInPod(pod: WorkloadPod, { protocol, port }: Listener): BoundSocket {
	const family = pod.ips.some((ip) => familyOf(ip) === 6) ? 6 : 4
	const fd = inNetnsAt(pod.netns, () => {
		const made = socket(family === 6 ? AF_INET6 : AF_INET, protocol === 'TCP' ? SOCK_STREAM : SOCK_DGRAM, 0)
		try {
			if (protocol === 'TCP') setsockopt(made, SOL_SOCKET, SO_REUSEADDR, 1)
			bind(made, inetAddress(new Uint8Array(family === 6 ? 16 : 4), port))
			return made
		} catch (e) {
			close(made)
			throw e
		}
	})
	return { fd, family }
}
