// The cluster's DNS servers inside the pods of the image podwire/dns: one set of names for all, kept current by the
// daemon; while the daemon is away they answer from what they have.

import { systemClock } from '../../base/clock.ts'
import type { DnsChange } from '../../dataplane/dns/program.ts'
import { createResponder } from '../../dataplane/dns/responder.ts'
import { serveDns } from '../../dataplane/dns/server.ts'
import { close } from '../../linux/syscalls.ts'
import type { StartDns } from './pods.ts'
import { bindInPod } from './sockets.ts'

export interface DnsServers {
	readonly start: StartDns
	update(changes: readonly DnsChange[]): void
}

const port = 53

export function createDnsServers(): DnsServers {
	const responder = createResponder()
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
			const server = serveDns(
				responder,
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
	}
}
