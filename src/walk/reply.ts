// The answer's way back. It needs no permission and no Service, but it needs routes of its own, and each node that
// translated the packet must see the answer to undo it. Half of the real faults are on this way.

import type { Ip } from '../base/ip.ts'
import type { Packet } from '../base/packet.ts'
import type { NetworkModel, Node, NodeName } from '../model/network.ts'
import { defaultOrigin, type Origin } from '../model/origin.ts'
import { fieldOf, podDefaultRoute, routeFrom, routeStep } from './route.ts'
import type { Disposition, Hop } from './trace.ts'
import { type Place, reverse, type Session, sameTuple, stepAt, type Way } from './way.ts'

export interface Reply {
	readonly hops: readonly Hop[]
	/** Set where the answer does not come back. */
	readonly failed?: Disposition
	/** The answer as the client sees it, or as it was when it got lost. */
	readonly packet: Packet
}

/** Walks `packet` (already of the other direction) from `place` by what the nodes remember. */
export function walkReply(model: NetworkModel, packet: Packet, sessions: readonly Session[], place: Place): Reply {
	let way: Way = { hops: [], packet: { ...packet, state: 'established' }, chance: 1, sessions }
	const pod = place.pod === undefined ? undefined : model.pods.get(place.pod)
	if (pod !== undefined) way = stepAt(way, place, podDefaultRoute(model, pod, way.packet))
	let node = place.node === undefined ? undefined : model.nodes.get(place.node)
	const visited = new Set<string>()
	while (node !== undefined) {
		const here = { node: node.name }
		const id = `${node.name} ${way.packet.destination}`
		if (visited.has(id)) return fail(way, here, 'loop', [node.origin], 'the answer was here before')
		visited.add(id)
		way = restore(way, node.name)
		const decision = routeFrom(model, node, way.packet.destination)
		if (decision.to === 'nowhere')
			return fail(way, here, decision.disposition, decision.because, `the answer does not come back: ${decision.note}`)
		way = stepAt(way, here, routeStep(model, decision, way.packet))
		switch (decision.to) {
			case 'pod': {
				const inside = { node: node.name, pod: decision.pod.key }
				const port = way.packet.destinationPort
				way = stepAt(way, inside, {
					step: 'deliver',
					pod: decision.pod.key,
					node: node.name,
					port,
					because: [decision.pod.origin],
				})
				return { hops: way.hops, packet: way.packet }
			}
			case 'self': {
				const port = way.packet.destinationPort
				way = stepAt(way, here, { step: 'deliver', node: node.name, port, because: [node.origin] })
				return { hops: way.hops, packet: way.packet }
			}
			case 'outside':
				way = restore(way, undefined)
				node = homeOf(model, way.packet.destination)
				if (node === undefined) return { hops: way.hops, packet: way.packet }
				break
			case 'node': {
				const next: Node = decision.node
				if (!next.ready) {
					const because = [fieldOf(next.origin, 'Node', next.name, 'status.conditions')]
					return fail(
						way,
						here,
						'next-hop-down',
						because,
						`the answer does not come back: node "${next.name}" is not ready`,
					)
				}
				node = next
				break
			}
			default: {
				const never: never = decision
				throw new Error(`No such route: ${JSON.stringify(never)}`)
			}
		}
	}
	return { hops: way.hops, packet: way.packet }
}

/** The node of an address in the cluster: where the load balancer's answer to a client on the nodes' network goes. */
function homeOf(model: NetworkModel, ip: Ip): Node | undefined {
	const owner = model.addresses.get(ip)
	const name = owner?.kind === 'node' ? owner.node : owner?.kind === 'pod' ? model.pods.get(owner.pod)?.node : undefined
	return name === undefined ? undefined : model.nodes.get(name)
}

const remembered = defaultOrigin('connection tracking undoes the translation it made')

/** At a node, or (undefined) at the load balancer, which is on the way to everything outside. */
function restore(way: Way, node: NodeName | undefined): Way {
	const session = way.sessions.findLast((s) => s.node === node && sameTuple(reverse(s.after), way.packet))
	if (session === undefined || sameTuple(session.before, session.after)) return way
	const after: Packet = { ...reverse(session.before), state: 'established' }
	return stepAt({ ...way, packet: after }, node === undefined ? { balancer: true } : { node }, {
		step: 'translate',
		before: way.packet,
		after,
		what: 'restore',
		because: [remembered],
	})
}

function fail(way: Way, place: Place, disposition: Disposition, because: readonly Origin[], note: string): Reply {
	const end = stepAt(way, place, { step: 'drop', how: 'drop', disposition, because, note })
	return { hops: end.hops, failed: disposition, packet: way.packet }
}
