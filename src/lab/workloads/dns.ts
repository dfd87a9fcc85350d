// The cluster's DNS servers inside the pods of the image podwire/dns: one set of names for all, kept current by the
// daemon; while the daemon is away they answer from what they have. What a policy names is told to the daemon before the
// pod that asked hears it, so that its first packet finds the nodes prepared.

import { systemClock } from '../../base/clock.ts'
import { familyOf, type Ip, type IpFamily, ipToBytes, parseIp } from '../../base/ip.ts'
import { type AnsweredName, AnswerMemory, answeredNames, holdMore, trim } from '../../dataplane/dns/answered.ts'
import { forwardOutside, noOutsideNames, type OutsideNames, type OutsideSockets } from '../../dataplane/dns/outside.ts'
import type { DnsChange } from '../../dataplane/dns/program.ts'
import { createResponder, type Forward } from '../../dataplane/dns/responder.ts'
import { serveDns } from '../../dataplane/dns/server.ts'
import { bindUdp } from '../../linux/listen.ts'
import { inNetnsAt } from '../../linux/netns.ts'
import {
	AF_INET,
	AF_INET6,
	close,
	connect,
	inetAddress,
	SOCK_NONBLOCK,
	SOCK_STREAM,
	socket,
} from '../../linux/syscalls.ts'
import type { StartDns } from './pods.ts'
import { bindInPod } from './sockets.ts'

export interface DnsServers {
	readonly start: StartDns
	update(changes: readonly DnsChange[]): void
	/** What is answered of names outside of the cluster, from now on. */
	setOutside(names: OutsideNames): void
	/** Names, and `*.` with names, whose addresses are told before they are answered; what is known of them. */
	watch(entries: readonly string[]): readonly AnsweredName[]
	/** Every answer with addresses that still holds. */
	answered(): readonly AnsweredName[]
}

const port = 53
/** Milliseconds: what is over so soon counts as over. */
const soon = 2_000

/**
 * `tell` resolves with true when the addresses are known where they must be, with false when that takes too long;
 * undefined: there is nobody to tell.
 */
export function createDnsServers(tell: (names: readonly AnsweredName[]) => Promise<boolean> | undefined): DnsServers {
	const memory = new AnswerMemory(systemClock)
	/** What is known there, by name and address, and until when. */
	const known = new Map<string, Map<Ip, number>>()

	function areKnown(names: readonly AnsweredName[]): boolean {
		const now = systemClock.now()
		return names.every(({ name, addresses }) =>
			addresses.every(({ ip }) => (known.get(name)?.get(ip) ?? 0) > now + soon),
		)
	}

	function noteKnown(names: readonly AnsweredName[]): void {
		for (const { name, addresses } of names) {
			const ips = holdMore(known.get(name), addresses, systemClock.now())
			known.delete(name)
			known.set(name, ips)
		}
		trim(known)
	}

	const responder = createResponder({
		watch: {
			wants: (names) => memory.wants(names),
			told(answer) {
				const names = answeredNames(answer, systemClock.now())
				memory.note(names)
				const wanted = names.filter(({ name }) => memory.wants([name]))
				if (wanted.length === 0) return undefined
				const telling = tell(wanted)?.then((heard) => void (heard && noteKnown(wanted)))
				// That they last longer need not be waited for.
				return areKnown(wanted) ? undefined : telling
			},
		},
	})
	let outside = noOutsideNames
	return {
		start(pod, log) {
			const udp = bindInPod(pod, { protocol: 'UDP', port })
			let tcp: ReturnType<typeof bindInPod>
			try {
				tcp = bindInPod(pod, { protocol: 'TCP', port })
			} catch (e) {
				close(udp.fd)
				throw e
			}
			const sockets = socketsIn(pod.netns)
			let forward: Forward | undefined
			let made: OutsideNames | undefined
			const forwarding = (): Forward | undefined => {
				if (made !== outside) forward = forwardOutside(outside, sockets, systemClock)
				made = outside
				return forward
			}
			const server = serveDns(
				{ respond: (query, transport) => responder.respond(query, transport, forwarding()) },
				{ udp: [udp], tcp: [tcp] },
				{ clock: systemClock, onError: (e) => log.write('stderr', e.message) },
			)
			log.write('stdout', `answering on port ${port}, UDP and TCP, ${responder.program.names.size} names`)
			return {
				update: (next) => next.kind === 'dns',
				stop: () => server.close(),
				ended: new Promise(() => {}),
			}
		},
		update: (changes) => responder.apply(changes),
		setOutside(names) {
			outside = names
		},
		watch(entries) {
			const known = memory.watch(entries)
			responder.forget()
			return known
		},
		answered: () => memory.all(),
	}
}

function socketsIn(netns: string): OutsideSockets {
	return {
		udp: (family: IpFamily) => bindUdp(netns, parseIp(family === 6 ? '::' : '0.0.0.0'), 0),
		tcp: (server: Ip, to: number) =>
			inNetnsAt(netns, () => {
				const fd = socket(familyOf(server) === 6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)
				try {
					connect(fd, inetAddress(ipToBytes(server), to))
					return fd
				} catch (e) {
					close(fd)
					throw e
				}
			}),
	}
}
