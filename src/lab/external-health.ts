// Health probes of the load balancer before the cluster: HTTP GETs from the router to each node, many at once in one
// wait, and what follows from several in a row. Thresholds as the clouds' load balancers have them, at a lab's pace.

import { performance } from 'node:perf_hooks'
import { isFailure, messageOf } from '../base/failure.ts'
import { familyOf, type Ip, ipToBytes } from '../base/ip.ts'
import { inNetnsAt } from '../linux/netns.ts'
import {
	AF_INET,
	AF_INET6,
	close,
	connect,
	errnoFailure,
	getsockoptInt,
	inetAddress,
	MSG_NOSIGNAL,
	POLLIN,
	POLLOUT,
	recv,
	SO_ERROR,
	SOCK_NONBLOCK,
	SOCK_STREAM,
	SOL_SOCKET,
	send,
	socket,
	waitReady,
} from '../linux/syscalls.ts'

export interface HealthCheck {
	/** Unlike any other's. */
	readonly id: string
	readonly ip: Ip
	readonly port: number
	readonly path: string
}

/** undefined: it answered 200. */
export type HealthAnswer = HealthFault | undefined

export interface HealthFault {
	/** In a few words. */
	readonly why: string
	/** Nobody there said anything, not even no: the node may be gone. */
	readonly mute?: true
}

/** So many answers in a row that differ from what is believed change it. */
export const unhealthyThreshold = 2
export const healthyThreshold = 2

export interface HealthBelief {
	readonly healthy: boolean
	/** Answers in a row that say otherwise. */
	readonly against: number
	/** What it said last, where that was no 200. */
	readonly fault?: HealthFault
}

/** Until it is asked a node counts as healthy: what the API says of it is all that is known. */
const unasked: HealthBelief = { healthy: true, against: 0 }

/** What is believed after one more answer. Pure. */
export function believe(before: HealthBelief | undefined, answer: HealthAnswer): HealthBelief {
	const ok = answer === undefined
	const now = { healthy: ok, against: 0, ...(ok ? {} : { fault: answer }) }
	const old = before ?? unasked
	if (old.healthy === ok) return old.against === 0 && old.fault?.why === answer?.why ? old : now
	const against = old.against + 1
	return against >= (ok ? healthyThreshold : unhealthyThreshold) ? now : { ...old, against }
}

interface Asking {
	readonly check: HealthCheck
	readonly fd: number
	state: 'connecting' | 'asked' | 'done'
	said: string
}

/**
 * Who asks answers, too: the nodes' servers are in this process. When it was kept busy for longer than a round may take,
 * it is given so many turns of the event loop to do what it has pending, before a node counts as silent.
 */
const graceTurns = 10

/** Most sockets at once. */
const batch = 256

/** Asks all of them from inside the namespace; `timeout`: milliseconds for each batch. */
export async function askHealth(
	netns: string,
	checks: readonly HealthCheck[],
	timeout: number,
): Promise<ReadonlyMap<string, HealthAnswer>> {
	const answers = new Map<string, HealthAnswer>()
	for (let from = 0; from < checks.length; from += batch) {
		await askBatch(netns, checks.slice(from, from + batch), timeout, answers)
	}
	return answers
}

async function askBatch(
	netns: string,
	checks: readonly HealthCheck[],
	timeout: number,
	answers: Map<string, HealthAnswer>,
): Promise<void> {
	const end = performance.now() + timeout
	let turns = 0
	const open = new Set<Asking>()
	const finish = (asking: Asking, answer: HealthAnswer) => {
		if (!open.delete(asking)) return
		answers.set(asking.check.id, answer)
		close(asking.fd)
	}
	inNetnsAt(netns, () => {
		for (const check of checks) {
			const fd = socket(familyOf(check.ip) === 6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)
			const asking: Asking = { check, fd, state: 'connecting', said: '' }
			open.add(asking)
			attempt(asking, () => void connect(fd, inetAddress(ipToBytes(check.ip), check.port)))
		}
	})
	function attempt(asking: Asking, what: () => void): void {
		try {
			what()
		} catch (e) {
			if (!isFailure(e)) throw e
			finish(asking, { why: messageOf(e), ...(e.code === 'ECONNREFUSED' ? {} : { mute: true }) })
		}
	}
	try {
		while (open.size > 0) {
			const left = Math.max(0, end - performance.now())
			if (left === 0) {
				if (turns++ === graceTurns) break
				await new Promise((resolve) => setImmediate(resolve))
			}
			const waiting = [...open]
			const events = await waitReady(
				waiting.map(({ fd, state }) => ({ fd, events: state === 'connecting' ? POLLOUT : POLLIN })),
				left,
			)
			for (const [i, asking] of waiting.entries()) if (events[i] !== 0) attempt(asking, () => goOn(asking, finish))
		}
		for (const asking of [...open]) {
			const { ip, port } = asking.check
			finish(asking, { why: `${ip} port ${port} does not answer`, mute: true })
		}
	} finally {
		for (const asking of open) close(asking.fd)
	}
}

function goOn(asking: Asking, finish: (asking: Asking, answer: HealthAnswer) => void): void {
	const { check, fd } = asking
	if (asking.state === 'connecting') {
		const errno = getsockoptInt(fd, SOL_SOCKET, SO_ERROR)
		if (errno !== 0) throw errnoFailure(errno, `connect to ${check.ip} port ${check.port}`)
		const host = familyOf(check.ip) === 6 ? `[${check.ip}]` : check.ip
		const request = `GET ${check.path} HTTP/1.1\r\nHost: ${host}:${check.port}\r\nUser-Agent: podwire-balancer\r\nConnection: close\r\n\r\n`
		send(fd, Buffer.from(request), MSG_NOSIGNAL)
		asking.state = 'asked'
		return
	}
	const bytes = Buffer.alloc(512)
	const n = recv(fd, bytes)
	if (n === undefined) return
	asking.said += bytes.toString('latin1', 0, n)
	const line = /^HTTP\/1\.[01] ([0-9]{3})[^\n]*\n/.exec(asking.said)
	if (line !== null) {
		const why = `${check.ip} port ${check.port}${check.path} answers ${line[1]}`
		finish(asking, line[1] === '200' ? undefined : { why })
	} else if (n === 0) finish(asking, { why: `${check.ip} port ${check.port} says nothing` })
}
