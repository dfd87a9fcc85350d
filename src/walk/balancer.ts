// The hop before the cluster: a load balancer that has the address hands the connection to a node, as it came or to the
// node's port. Which node is the model's to say (model/load-balancer.ts); of load balancers that are not ours only what
// every one of them may do is known.

import { familyOf, hostCidr, type Ip } from '../base/ip.ts'
import type { Packet } from '../base/packet.ts'
import { findFrontend, servicesAt } from '../model/frontends.ts'
import {
	type BalancerSide,
	balance,
	balancedAt,
	isReachable,
	servesExternally,
	takesPart,
	wayOf,
} from '../model/load-balancer.ts'
import type { NetworkModel, Node, Service } from '../model/network.ts'
import { defaultOrigin, type Origin } from '../model/origin.ts'
import type { StepWithReason, Trace } from './trace.ts'
import { lost, type Place, stepAt, type Walk, type Way } from './way.ts'

const here: Place = { balancer: true }
const foreign = defaultOrigin(
	'this load balancer is not ours: it may take any node that is ready and passes its health check',
)

/** Whether the address is some Service's load balancer's. */
export function hasBalancer(model: NetworkModel, ip: Ip): boolean {
	return holdersOf(model, ip).length > 0
}

function holdersOf(model: NetworkModel, ip: Ip): readonly Service[] {
	const ours = balancedAt(model, ip)
	if (ours.length > 0) return ours
	return servicesAt(model, ip).filter((service) => service.loadBalancer?.ingress.some((i) => i.ip === ip))
}

/** On with the connection at each node that may get it. */
export function throughBalancer(
	w: Walk,
	way: Way,
	side: BalancerSide,
	atNode: (w: Walk, way: Way, node: Node) => readonly Trace[],
): readonly Trace[] {
	const { model } = w
	const { packet } = way
	const { destination, protocol, destinationPort } = packet
	const holders = holdersOf(model, destination)
	const closed = holders.filter((service) => !isReachable(service, side))
	if (holders.length > 0 && closed.length === holders.length) {
		const because = closed.flatMap((service) => service.loadBalancer?.internal ?? [])
		const text = 'the load balancer is internal: only the network of the nodes reaches it'
		return [lost(w, way, {}, 'no-route', 'drop', because, text)]
	}
	const step: StepWithReason = {
		step: 'route',
		destination: hostCidr(destination),
		device: 'eth0',
		because: holders.map((s) => s.origin),
	}
	// From a node the route was said before.
	const sent = side === 'outside' ? stepAt(way, {}, step) : way
	if (balancedAt(model, destination).length === 0) return throughForeign(w, sent, holders, atNode)
	const balanced = balance(model, destination, protocol, destinationPort, packet.source, side)
	if (balanced === undefined) return [unanswered(w, sent, holders)]
	switch (balanced.kind) {
		case 'drop': {
			const text = `${packet.source} is in none of the source ranges`
			return [lost(w, sent, here, 'denied-source-range', 'drop', balanced.because, text)]
		}
		case 'announce': {
			const node = model.nodes.get(balanced.node)!
			return hand(w, sent, [{ node, because: balanced.because }], 'announce', atNode)
		}
		case 'forward': {
			if (balanced.targets.length === 0) {
				const text = 'no node passes the health check of the load balancer'
				return [lost(w, sent, here, 'no-endpoints', 'reject', balanced.because, text)]
			}
			const targets = balanced.targets.map(({ node, ip, port, because }) => ({
				node: model.nodes.get(node)!,
				to: { ip, port },
				because: [...balanced.because, ...because],
			}))
			return hand(w, sent, targets, 'forward', atNode, side)
		}
		default: {
			const never: never = balanced
			throw new Error(`No such way to balance: ${JSON.stringify(never)}`)
		}
	}
}

interface Target {
	readonly node: Node
	/** Undefined: the destination stays. */
	readonly to?: { readonly ip: Ip; readonly port: number }
	readonly because: readonly Origin[]
}

function hand(
	w: Walk,
	way: Way,
	targets: readonly Target[],
	how: 'announce' | 'forward',
	atNode: (w: Walk, way: Way, node: Node) => readonly Trace[],
	side: BalancerSide = 'outside',
): readonly Trace[] {
	const of = targets.length
	return targets.flatMap(({ node, to, because }) => {
		const choice: StepWithReason = { step: 'balance', how, node: node.name, chance: 1 / of, of, because }
		const chosen = stepAt({ ...way, chance: way.chance / of }, here, choice)
		if (to === undefined) {
			const { destination: ip, protocol, destinationPort: port } = chosen.packet
			if (findFrontend(w.model, node, { ip, protocol, port }) !== undefined) return atNode(w, chosen, node)
			const text = `node "${node.name}" gets it and no Service of this address has the port: there is nowhere to go`
			return [lost(w, chosen, { node: node.name }, 'unknown-service-port', 'drop', [node.origin], text)]
		}
		const { packet } = chosen
		const there: Packet = { ...packet, destination: to.ip, destinationPort: to.port }
		const next = stepAt(chosen, here, { step: 'translate', before: packet, after: there, what: 'destination', because })
		// A client on the nodes' network would be answered directly, past the load balancer.
		const after = side === 'nodes' ? { ...there, source: ownAddress(w.model, packet) } : there
		const out =
			side === 'nodes'
				? stepAt(next, here, { step: 'translate', before: there, after, what: 'source', because: [inside] })
				: next
		const session = { node: undefined, before: packet, after }
		return atNode(w, { ...out, packet: after, sessions: [...out.sessions, session] }, node)
	})
}

const inside = defaultOrigin('the client is in the cluster, too: the answer must come back through the load balancer')

/** What the load balancer puts in place of a source: the router's address, or what it is asked at where that is not known. */
function ownAddress(model: NetworkModel, { destination }: Packet): Ip {
	return model.config.routerIps?.find((ip) => familyOf(ip) === familyOf(destination)) ?? destination
}

/** Nobody answers for the address, or for the port there: why. */
function unanswered(w: Walk, way: Way, holders: readonly Service[]): Trace {
	const because = holders.map((s) => s.fields?.type ?? s.origin)
	const able = [...w.model.nodes.values()].filter((node) => takesPart(node).takes)
	if (able.length === 0) {
		const why = [...w.model.nodes.values()].flatMap((node) => takesPart(node).because)
		const text = 'no node takes part in load balancing'
		return lost(w, way, here, 'next-hop-down', 'drop', why.length === 0 ? because : why, text)
	}
	if (wayOf(holders) === 'announce') {
		const policies = holders.map((s) => s.fields?.externalTrafficPolicy ?? s.origin)
		const text = 'no node announces the address: none has an endpoint'
		return lost(w, way, here, 'no-endpoints', 'drop', policies, text)
	}
	const ports = holders.flatMap((s) => s.ports.map((p) => `${p.port}/${p.protocol}`)).join(', ')
	const text = `the load balancer of this address has the ports ${ports}`
	return lost(w, way, here, 'unknown-service-port', 'reject', because, text)
}

/**
 * A load balancer of a foreign class. By the API's contract (KEP-1860) one with ipMode VIP hands packets to a node as
 * they are, one with ipMode Proxy to a node port.
 */
function throughForeign(
	w: Walk,
	way: Way,
	holders: readonly Service[],
	atNode: (w: Walk, way: Way, node: Node) => readonly Trace[],
): readonly Trace[] {
	const { destination, protocol, destinationPort } = way.packet
	for (const service of holders) {
		const port = service.ports.find((p) => p.protocol === protocol && p.port === destinationPort)
		if (port === undefined) continue
		const proxy = service.loadBalancer?.ingress.some((i) => i.ip === destination && i.ipMode === 'Proxy') === true
		const targets: Target[] = []
		for (const node of [...w.model.nodes.values()].sort((a, b) => (a.name < b.name ? -1 : 1))) {
			if (!takesPart(node).takes || !servesExternally(service, node.name)) continue
			const ip = node.addresses.find((a) => familyOf(a) === familyOf(destination))
			const because = [port.origin, foreign]
			if (!proxy) targets.push({ node, because })
			else if (ip !== undefined && port.nodePort !== undefined)
				targets.push({ node, to: { ip, port: port.nodePort }, because })
		}
		if (targets.length > 0) return hand(w, way, targets, proxy ? 'forward' : 'announce', atNode)
		return [lost(w, way, here, 'no-endpoints', 'drop', [port.origin, foreign], 'no node passes the health check')]
	}
	return [unanswered(w, way, holders)]
}
