// What a node says to load balancers about a Service with externalTrafficPolicy Local: KEP-1669. Endpoints that only
// terminate do not count, though they still serve: the node is to be taken out before they are gone.

import type { NodeName, Service } from './network.ts'

export interface NodeHealth {
	/** Ready endpoints on the node, each address once whatever ports it has. */
	readonly localEndpoints: number
}

export function nodeHealth(service: Service, node: NodeName): NodeHealth {
	const ips = new Set<string>()
	for (const port of service.ports) {
		for (const endpoint of port.endpoints) if (endpoint.ready && endpoint.node === node) ips.add(endpoint.ip)
	}
	return { localEndpoints: ips.size }
}
