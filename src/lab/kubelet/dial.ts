// Connections made inside a pod's network namespace: the socket is opened there, connected, and used from here.

import { Socket } from 'node:net'
import { Failure } from '../../base/failure.ts'
import { familyOf, type Ip, ipToBytes } from '../../base/ip.ts'
import { inNetnsAt } from '../../linux/netns.ts'
import {
	AF_INET,
	AF_INET6,
	close,
	connect,
	errnoFailure,
	getsockoptInt,
	inetAddress,
	POLLOUT,
	poll,
	SO_ERROR,
	SOCK_NONBLOCK,
	SOCK_STREAM,
	SOL_SOCKET,
	socket,
	waitReady,
} from '../../linux/syscalls.ts'

/** `timeout`: milliseconds. Throws Failure ECONNREFUSED, ETIMEDOUT, … */
export async function dialInside(netns: string, ip: Ip, port: number, timeout: number): Promise<Socket> {
	const fd = inNetnsAt(netns, () => {
		const made = socket(familyOf(ip) === 6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)
		try {
			connect(made, inetAddress(ipToBytes(ip), port))
			return made
		} catch (e) {
			close(made)
			throw e
		}
	})
	try {
		// To an address of the pod itself the kernel has connected by now; only a real wait takes a thread.
		let [events] = poll([{ fd, events: POLLOUT }])
		if (events === 0) [events] = await waitReady([{ fd, events: POLLOUT }], timeout)
		if (events === 0) throw new Failure('ETIMEDOUT', `Cannot connect to ${ip} port ${port}: no answer`)
		const errno = getsockoptInt(fd, SOL_SOCKET, SO_ERROR)
		if (errno !== 0) throw errnoFailure(errno, `connect to ${ip} port ${port}`)
	} catch (e) {
		close(fd)
		throw e
	}
	return new Socket({ fd, readable: true, writable: true, allowHalfOpen: true })
}
