// What a node says to load balancers about a Service with externalTrafficPolicy Local: KEP-1669. Endpoints that only
// terminate do not count, though they still serve: the node is to be taken out before they are gone.

import { familyOf } from '../base/ip.ts'
import type { NodeName, Service } from './network.ts'

export interface NodeHealth {
	/** Ready endpoints on the node, each pod once: its address of the Service's first family, whatever ports it has. */
	readonly localEndpoints: number
}

export function nodeHealth(service: Service, node: NodeName): NodeHealth {
	const ips = new Set<string>()
	const primary = service.clusterIps[0]
	for (const port of service.ports) {
		for (const { ip, ready, node: place } of port.endpoints) {
			if (ready && place === node && (primary === undefined || familyOf(ip) === familyOf(primary))) ips.add(ip)
		}
	}
	return { localEndpoints: ips.size }
}
