// Sockets inside a pod's namespace.

import { familyOf, type IpFamily, parseIp } from '../../base/ip.ts'
import { bindTcp, bindUdp } from '../../linux/listen.ts'
import type { Listener, WorkloadPod } from './protocol.ts'

export interface BoundSocket {
	readonly fd: number
	/** 6: takes IPv4, too. */
	readonly family: IpFamily
}

/** A socket bound to the wildcard of the pod's families; it does not listen yet. Throws Failure (EADDRINUSE, …). */
export function bindInPod(pod: WorkloadPod, { protocol, port }: Listener): BoundSocket {
	const family = pod.ips.some((ip) => familyOf(ip) === 6) ? 6 : 4
	const bind = protocol === 'TCP' ? bindTcp : bindUdp
	return { fd: bind(pod.netns, parseIp(family === 6 ? '::' : '0.0.0.0'), port), family }
}
