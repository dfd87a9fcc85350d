// The cluster's DNS servers inside the pods of the image podwire/dns: one set of records, kept current by the daemon.

import { Failure } from '../../base/failure.ts'
import type { StartDns } from './pods.ts'

export interface DnsServers {
	readonly start: StartDns
	update(delta: unknown): null
}

export function createDnsServers(): DnsServers {
	return {
		start() {
			throw new Failure('Unavailable', 'no DNS server yet')
		},
		update: () => null,
	}
}
