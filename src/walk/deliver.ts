// The end of the way: what takes the packet, as far as the network knows it.

import type { Packet } from '../base/packet.ts'
import { nodePortIps } from '../model/frontends.ts'
import type { NetworkModel, Node, Pod } from '../model/network.ts'
import { nodeHealth } from '../model/node-health.ts'
import type { StepWithReason } from './trace.ts'

/** Container ports are information only: a packet to another port is delivered all the same, and said. */
export function deliverToPod(model: NetworkModel, pod: Pod, packet: Packet): StepWithReason {
	const notes: string[] = []
	const declared = pod.ports.find((p) => p.port === packet.destinationPort && p.protocol === packet.protocol)
	if (packet.protocol !== 'ICMP' && declared === undefined) {
		const list = pod.ports.map((p) => `${p.port}/${p.protocol}`).join(', ')
		notes.push(
			`no container of the pod declares port ${packet.destinationPort}/${packet.protocol}${list === '' ? '' : ` (declared: ${list})`}; that is information only`,
		)
	}
	if (pod.phase !== 'Running') notes.push(`the pod is ${pod.phase}`)
	else if (pod.terminating) notes.push('the pod is terminating')
	else if (!pod.ready) notes.push('the pod is not ready')
	return {
		step: 'deliver',
		pod: pod.key,
		...(model.nodes.has(pod.node ?? '') ? { node: pod.node! } : {}),
		port: packet.destinationPort,
		because: [declared?.origin ?? pod.origin],
		...(notes.length === 0 ? {} : { note: notes.join('\n') }),
	}
}

/** A process of the node, or its service proxy, which answers the health checks of load balancers. */
export function deliverToNode(model: NetworkModel, node: Node, packet: Packet): StepWithReason {
	const { protocol, destination, destinationPort: port } = packet
	const step = { step: 'deliver', node: node.name, port } as const
	if (protocol !== 'TCP' || !nodePortIps(model, node).includes(destination)) return { ...step, because: [node.origin] }
	const checked = [...model.services.values()].filter((s) => s.healthCheckNodePort === port)
	const service = checked.sort((a, b) => (a.key < b.key ? -1 : 1))[0]
	if (service === undefined) return { ...step, because: [node.origin] }
	const { localEndpoints } = nodeHealth(service, node.name)
	const note = `health check of Service "${service.key}": ${localEndpoints > 0 ? 200 : 503}, ${localEndpoints} ready on this node`
	return { ...step, because: [service.fields?.healthCheckNodePort ?? service.origin], note }
}
