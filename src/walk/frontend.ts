// Which Service answers for an address: its ClusterIP anywhere, its node port on the node that owns the address.

import type { Packet } from '../base/packet.ts'
import type { NetworkModel, Node, Service, ServicePort } from '../model/network.ts'

export type Frontend =
	| {
			readonly kind: 'port'
			readonly service: Service
			readonly port: ServicePort
			/** Which of the two traffic policies counts. */
			readonly traffic: 'internal' | 'external'
	  }
	/** A known ClusterIP that has no such port. */
	| { readonly kind: 'unknown-port'; readonly service: Service }

/** Undefined: no Service translates this packet at `node`. */
export function frontendOf(model: NetworkModel, packet: Packet, node: Node): Frontend | undefined {
	const owner = model.addresses.get(packet.destination)
	if (owner?.kind === 'service') {
		const service = model.services.get(owner.service)
		if (service === undefined) return undefined
		const port = service.ports.find((p) => p.protocol === packet.protocol && p.port === packet.destinationPort)
		return port === undefined ? { kind: 'unknown-port', service } : { kind: 'port', service, port, traffic: 'internal' }
	}
	if (!node.addresses.includes(packet.destination)) return undefined
	return nodePort(model, packet)
}

/** Node ports are few and asked for rarely; nobody keeps an index of them. */
function nodePort(model: NetworkModel, packet: Packet): Frontend | undefined {
	let found: Extract<Frontend, { kind: 'port' }> | undefined
	for (const service of model.services.values()) {
		if (service.type !== 'NodePort' && service.type !== 'LoadBalancer') continue
		const port = service.ports.find((p) => p.nodePort === packet.destinationPort && p.protocol === packet.protocol)
		if (port === undefined) continue
		if (found === undefined || service.key < found.service.key)
			found = { kind: 'port', service, port, traffic: 'external' }
	}
	return found
}
