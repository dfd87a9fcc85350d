// All the ways a flow may take through the network that Kubernetes means: one trace for each choice on the way.
// At a node a packet meets, in the kernel's order: Service translation, route, NetworkPolicy (which therefore sees
// pod addresses and pod ports), source translation. The answer is walked back by what each node remembers.

import { familyOf, hostCidr, type Ip } from '../base/ip.ts'
import type { Packet } from '../base/packet.ts'
import {
	admits,
	type ClientPlace,
	externalIpsOff,
	findFrontend,
	ignoredAt,
	placeOf,
	servicesAt,
	treat,
	unservedAt,
} from '../model/frontends.ts'
import { hostPortAt } from '../model/host-ports.ts'
import type { Endpoint, NetworkModel, Node, Pod, Service } from '../model/network.ts'
import { defaultOrigin, type Origin } from '../model/origin.ts'
import { decide, type Peer, type Question } from '../model/policy.ts'
import { policyProfiles } from '../model/policy-profile.ts'
import { hasBalancer, throughBalancer } from './balancer.ts'
import { deliverToNode, deliverToPod } from './deliver.ts'
import { explainDenial, explainPolicy } from './explain.ts'
import { walkReply } from './reply.ts'
import { resolve } from './resolve.ts'
import { fieldOf, nodeAddress, podDefaultRoute, routeFrom, routeStep } from './route.ts'
import type { Flow, StepWithReason, Trace } from './trace.ts'
import {
	lost,
	type Place,
	reverse,
	type Session,
	type Start,
	sameTuple,
	stepAt,
	type Walk,
	type WalkOptions,
	type Way,
} from './way.ts'

export type { WalkOptions } from './way.ts'

/** Stands for the client's ephemeral port: 32768 is the first of Linux' default range. */
export const clientPort = 32768

/**
 * Every possible trace of the flow; their chances sum to 1. Pure.
 * Throws where the flow names a pod or node that the model does not have: whoever made the flow checks that.
 */
export function walk(model: NetworkModel, flow: Flow, options: WalkOptions = {}): readonly Trace[] {
	const w: Walk = { model, flow, options }
	const start = startOf(model, flow)
	const begin: Way = { hops: [], packet: emptyPacket(flow), chance: 1, sessions: [] }
	const pod = start.pod
	if (pod !== undefined && start.node === undefined) {
		const text =
			pod.node === undefined
				? `pod "${pod.key}" is not scheduled to a node`
				: `node "${pod.node}" of pod "${pod.key}" does not exist`
		return [lost(w, begin, start.place, 'no-route', 'drop', [pod.origin], text)]
	}
	if ('ip' in flow.to) return fromStart(w, start, begin, flow.to.ip)
	const resolved = resolve(w, start, begin, (to) => walk(model, to, options))
	return resolved.kind === 'traces'
		? resolved.traces
		: resolved.choices.flatMap(({ way, ip }) => fromStart(w, start, way, ip))
}

function startOf(model: NetworkModel, { from }: Flow): Start {
	if (from.kind === 'outside') return { place: {} }
	const pod = from.kind === 'pod' ? model.pods.get(from.pod) : undefined
	if (from.kind === 'pod' && pod === undefined)
		throw new Error(`Cannot walk from pod "${from.pod}": the model has no such pod`)
	const name = from.kind === 'node' ? from.node : pod?.node
	const node = name === undefined ? undefined : model.nodes.get(name)
	if (from.kind === 'node' && node === undefined)
		throw new Error(`Cannot walk from node "${from.node}": the model has no such node`)
	const place: Place = {
		...(name === undefined ? {} : { node: name }),
		// A hostNetwork pod is in its node's namespace: it starts where the node starts.
		...(pod === undefined || pod.hostNetwork ? {} : { pod: pod.key }),
	}
	return { place, ...(pod === undefined ? {} : { pod }), ...(node === undefined ? {} : { node }) }
}

function emptyPacket(flow: Flow): Packet {
	const none = '' as Ip
	const ports = flow.protocol !== 'ICMP'
	return {
		protocol: flow.protocol,
		source: none,
		destination: none,
		sourcePort: ports ? clientPort : 0,
		destinationPort: ports ? flow.port : 0,
		state: 'new',
		mark: 0,
	}
}

/** The client sends: its own routes come before those of its node. */
function fromStart(w: Walk, start: Start, way: Way, destination: Ip): readonly Trace[] {
	const { model, flow } = w
	const { pod, node, place } = start
	if (flow.from.kind === 'outside') return fromOutside(w, way, flow.from.ip, destination)
	if (pod === undefined || pod.hostNetwork) {
		const source = nodeAddress(node!, destination)
		if (source === undefined)
			return [
				lost(
					w,
					way,
					place,
					'no-route',
					'drop',
					[node!.origin],
					`node "${node!.name}" has no address of the family of ${destination}`,
				),
			]
		return atNode(w, { ...way, packet: { ...way.packet, source, destination } }, node!, 'self')
	}
	const source = pod.ips.find((ip) => familyOf(ip) === familyOf(destination))
	if (source === undefined) {
		const text =
			pod.ips.length === 0
				? `pod "${pod.key}" has no address yet`
				: `pod "${pod.key}" has no address of the family of ${destination}`
		return [lost(w, way, place, 'no-route', 'drop', [pod.origin], text)]
	}
	const packet = { ...way.packet, source, destination }
	if (pod.ips.includes(destination)) {
		const own: StepWithReason = {
			step: 'route',
			destination: hostCidr(destination),
			device: 'lo',
			because: [pod.origin],
		}
		const there = stepAt({ ...way, packet }, place, own, deliverToPod(w.model, pod, packet))
		const back: StepWithReason = { step: 'deliver', pod: pod.key, port: packet.sourcePort, because: [pod.origin] }
		return [
			{ flow, hops: there.hops, reply: [{ ...place, steps: [back] }], disposition: 'delivered', chance: way.chance },
		]
	}
	const out = stepAt({ ...way, packet }, place, podDefaultRoute(model, pod, packet))
	return atNode(w, out, node!, 'pod')
}

/** From outside only nodes and load balancers are known to routers; pod and Service networks end inside the cluster. */
function fromOutside(w: Walk, way: Way, source: Ip, destination: Ip): readonly Trace[] {
	const sent = { ...way, packet: { ...way.packet, source, destination } }
	const owner = w.model.addresses.get(destination)
	const node = owner?.kind === 'node' ? w.model.nodes.get(owner.node) : undefined
	if (node !== undefined) {
		const step: StepWithReason = {
			step: 'route',
			destination: hostCidr(destination),
			device: 'eth0',
			because: [node.origin],
		}
		const out = stepAt(sent, {}, step)
		return node.ready ? atNode(w, out, node, 'wire') : [down(w, out, {}, node)]
	}
	if (hasBalancer(w.model, destination)) return throughBalancer(w, sent, 'outside', atNodeFromWire)
	const text = 'only the addresses of nodes and load balancers are routed from outside of the cluster'
	const external = servicesAt(w.model, destination)
	const ignored = ignoredBy(w.model, destination)
	const because = [...external.map((s) => s.fields?.externalIPs ?? s.origin), ...ignored.because]
	const note =
		external.length === 0
			? ignored.note
			: 'nothing in the cluster routes an externalIP to a node: that is left to its network'
	return [lost(w, sent, {}, 'no-route', 'drop', [defaultOrigin(text), ...because], note)]
}

/** The ways on of a packet that comes to `node` over the wire. `flow` is what the traces say they are of. */
export function walkAt(model: NetworkModel, flow: Flow, node: Node, packet: Packet): readonly Trace[] {
	return atNode({ model, flow, options: {} }, { hops: [], packet, chance: 1, sessions: [] }, node, 'wire')
}

function atNodeFromWire(w: Walk, way: Way, node: Node): readonly Trace[] {
	return node.ready ? atNode(w, way, node, 'wire') : [down(w, way, { node: node.name }, node)]
}

/** How a packet came to a node: from one of its pods, from the node itself, or over the wire. */
type Arrival = 'pod' | 'self' | 'wire'

function atNode(w: Walk, way: Way, node: Node, arrival: Arrival): readonly Trace[] {
	const place = { node: node.name }
	if (
		way.sessions.some(
			(s) =>
				s.node === node.name &&
				s.before.destination === way.packet.destination &&
				s.before.destinationPort === way.packet.destinationPort,
		)
	) {
		return [lost(w, way, place, 'loop', 'drop', [node.origin], 'the packet was here before, with this destination')]
	}
	const { packet } = way
	const to = { ip: packet.destination, protocol: packet.protocol, port: packet.destinationPort }
	const found = findFrontend(w.model, node, to)
	if (found === undefined) return route(w, throughHostPort(w, way, node), node, arrival, packet, undefined)
	const { service } = found
	if (found.kind === 'unknown-port') {
		const ports = service.ports.map((p) => `${p.port}/${p.protocol}`).join(', ')
		const text = `Service "${service.key}" has ${ports === '' ? 'no port' : `the ports ${ports}`}`
		return [lost(w, way, place, 'unknown-service-port', 'reject', [service.origin], text)]
	}
	const { port, frontend } = found
	const client = placeOf(w.model, node, packet.source)
	const short = isShortCut(service, frontend.traffic, client)
	const spared = short && client === 'pod' && arrival === 'wire'
	const known = stepAt(spared ? { ...way, spared: service } : way, place, {
		step: 'service',
		service: service.key,
		port: port.name,
		...(frontend.kind === 'cluster-ip' ? {} : { frontend: frontend.kind }),
		because: [frontend.origin],
		...(short
			? { note: 'externalTrafficPolicy Local is for clients outside: pods and the node reach every endpoint' }
			: {}),
	})
	if (!admits(frontend, packet.source)) {
		const because = [service.fields?.loadBalancerSourceRanges ?? service.origin]
		const text = `${packet.source} is in none of the source ranges ${frontend.sourceRanges?.join(', ')}`
		return [lost(w, known, place, 'denied-source-range', 'drop', because, text)]
	}
	const zone = node.zone === undefined ? {} : { zone: node.zone }
	const { serving, masquerade } = treat(service, port, frontend, { place: client, node: node.name, ...zone })
	if (serving.none !== undefined)
		return [lost(w, known, place, 'no-endpoints', serving.none, [port.origin, ...serving.because])]
	return serving.endpoints.flatMap((endpoint) => {
		const of = serving.endpoints.length
		const chosen = translate(known, place, service, endpoint, of, serving.because)
		return route(w, chosen, node, arrival, packet, masquerade)
	})
}

function isShortCut(service: Service, traffic: 'internal' | 'external', client: ClientPlace): boolean {
	return traffic === 'external' && service.externalTrafficPolicy === 'Local' && client !== 'outside'
}

/** Whose external IP it would be, and which switch decided that it is not. */
function ignoredBy(model: NetworkModel, ip: Ip): { readonly because: readonly Origin[]; readonly note?: string } {
	const services = ignoredAt(model, ip)
	if (services.length === 0) return { because: [] }
	const names = services.map(({ key }) => `"${key}"`).join(', ')
	return {
		because: [...services.map((s) => s.fields?.externalIPs ?? s.origin), externalIpsOff],
		note: `an external IP of Service ${names}, but ${externalIpsOff.default}`,
	}
}

/** A port of the node that leads to a pod of it, translated; the way as it is where the packet is for none. */
function throughHostPort(w: Walk, way: Way, node: Node): Way {
	const { packet } = way
	const found = hostPortAt(w.model, node, packet.destination, packet.protocol, packet.destinationPort)
	if (found === undefined) return way
	const after: Packet = { ...packet, destination: found.to.ip, destinationPort: found.to.port }
	const note = `hostPort ${found.number}/${found.protocol} of pod "${found.pod.key}"`
	const because = [found.port.origin]
	return stepAt(
		{ ...way, packet: after },
		{ node: node.name },
		{
			step: 'translate',
			before: packet,
			after,
			what: 'destination',
			because,
			note,
		},
	)
}

function translate(
	way: Way,
	place: Place,
	service: Service,
	endpoint: Endpoint,
	of: number,
	because: readonly Origin[],
): Way {
	const after: Packet = { ...way.packet, destination: endpoint.ip, destinationPort: endpoint.port }
	const affinity =
		service.sessionAffinity === undefined
			? {}
			: {
					affinity: service.sessionAffinity,
					note: `session affinity: for ${service.sessionAffinity} s later connections of this client take the same endpoint`,
				}
	const choice: StepWithReason = {
		step: 'endpoint',
		ip: endpoint.ip,
		port: endpoint.port,
		...(endpoint.pod === undefined ? {} : { pod: endpoint.pod }),
		chance: 1 / of,
		of,
		because: [endpoint.origin, ...because],
		...affinity,
	}
	const rewrite: StepWithReason = {
		step: 'translate',
		before: way.packet,
		after,
		what: 'destination',
		because: [endpoint.origin],
	}
	return stepAt({ ...way, packet: after, chance: way.chance / of }, place, choice, rewrite)
}

function isTranslated(after: Packet, before: Packet): boolean {
	return after.destination !== before.destination || after.destinationPort !== before.destinationPort
}

/** How a translated packet is refused that is for a Service again, one that nobody serves. */
function unservedBy(model: NetworkModel, node: Node, packet: Packet) {
	const { destination: ip, protocol, destinationPort: port } = packet
	const found = unservedAt(model, node, { ip, protocol, port })
	if (found === undefined) return undefined
	const text = `${ip} port ${port} is Service "${found.service.key}" again: a connection is translated once, and nobody serves that one`
	return [found.how, found.because, text] as const
}

/** After translation: route, policies, source translation, and out. `arrived` is the packet before translation. */
function route(
	w: Walk,
	way: Way,
	node: Node,
	arrival: Arrival,
	arrived: Packet,
	masquerade: Origin | undefined,
): readonly Trace[] {
	const { model } = w
	const place = { node: node.name }
	const unserved = isTranslated(way.packet, arrived) ? unservedBy(model, node, way.packet) : undefined
	if (unserved !== undefined) return [lost(w, way, place, 'no-endpoints', ...unserved)]
	const decision = routeFrom(model, node, way.packet.destination)
	// Where nothing translated it although a Service says so.
	const { because: ignored, note: why } = ignoredBy(model, way.packet.destination)
	if (decision.to === 'nowhere') {
		const note = decision.note ?? why
		return [lost(w, way, place, decision.disposition, decision.how, [...decision.because, ...ignored], note)]
	}
	const step = routeStep(model, decision, way.packet)
	const explained = why === undefined ? step : { ...step, because: [...step.because, ...ignored], note: why }
	let next = stepAt(way, place, explained)

	const sender = senderOf(w)
	if (arrival === 'pod' && sender !== undefined) {
		const peer = peerOf(model, way.packet.destination)
		const checked = policy(w, next, place, 'egress', sender, peer, arrived)
		if (checked.denied !== undefined) return [checked.denied]
		next = checked.way
	}
	if (decision.to === 'pod') {
		const checked = policy(w, next, place, 'ingress', decision.pod, sourceOf(w, way.packet.source), arrived)
		if (checked.denied !== undefined) return [checked.denied]
		next = checked.way
	}
	// What came from elsewhere and is for the node itself never leaves it, so nothing translates its source.
	const because = decision.to === 'self' && arrival !== 'self' ? undefined : whyMasquerade(next, arrived, masquerade)
	if (because !== undefined) {
		const source = nodeAddress(node, next.packet.destination)
		if (source === undefined) {
			const note = `node "${node.name}" has no address of the family of ${next.packet.destination} to put in place of the source`
			return [lost(w, next, place, 'no-route', 'drop', [because, node.origin], note)]
		}
		next = translateSource(next, node, source, because)
	}
	next = remember(next, node, arrived)

	switch (decision.to) {
		case 'pod': {
			const inside = { node: node.name, pod: decision.pod.key }
			return [arrive(w, stepAt(next, inside, deliverToPod(w.model, decision.pod, next.packet)), inside)]
		}
		case 'self': {
			return [arrive(w, stepAt(next, place, deliverToNode(w.model, node, next.packet)), place)]
		}
		case 'node':
			return decision.node.ready ? atNode(w, next, decision.node, 'wire') : [down(w, next, place, decision.node)]
		case 'outside':
			if (hasBalancer(model, next.packet.destination)) return throughBalancer(w, next, 'nodes', atNodeFromWire)
			return [{ flow: w.flow, hops: next.hops, reply: [], disposition: 'left-cluster', chance: next.chance }]
		default: {
			const never: never = decision
			throw new Error(`No such route: ${JSON.stringify(never)}`)
		}
	}
}

function policy(
	w: Walk,
	way: Way,
	place: Place,
	direction: 'egress' | 'ingress',
	pod: Pod,
	peer: Peer,
	arrived: Packet,
): { readonly way: Way; readonly denied?: Trace } {
	const { packet } = way
	const question: Question = { direction, pod, peer, protocol: packet.protocol, port: packet.destinationPort }
	const profile = w.options.policyProfile ?? policyProfiles.default
	const decision = decide(w.model, question, undefined, profile)
	const tiered = decision.tier === 'Admin' || decision.tier === 'Baseline'
	const enforced = w.options.policyEnforced === true && (!tiered || w.options.tiersEnforced === true)
	const reasons = explainDenial(decision, direction, { from: arrived.destinationPort, to: packet.destinationPort })
	const denied = decision.verdict === 'deny'
	const audited = decision.audited === true ? ['it would be denied, were the policies not on trial'] : []
	const texts = [...(denied && !enforced ? ['not enforced yet by this data plane'] : audited), ...reasons]
	const next = stepAt(way, place, {
		step: 'policy',
		direction,
		verdict: decision.verdict,
		pod: pod.key,
		enforced,
		because: decision.because,
		...(w.options.explain === true ? { explanation: explainPolicy(w.model, question, decision, profile) } : {}),
		...(texts.length === 0 ? {} : { note: texts.join('\n') }),
	})
	return denied
		? {
				way: next,
				denied: lost(
					w,
					next,
					place,
					direction === 'egress' ? 'denied-egress' : 'denied-ingress',
					'drop',
					decision.because,
				),
			}
		: { way: next }
}

/** The pod that sends the first packet, where one with an address of its own does. */
function senderOf({ model, flow }: Walk): Pod | undefined {
	const pod = flow.from.kind === 'pod' ? model.pods.get(flow.from.pod) : undefined
	return pod === undefined || pod.hostNetwork ? undefined : pod
}

/** The sender, known for certain while its own address is on the packet (two pods may claim one address). */
function sourceOf(w: Walk, ip: Ip): Peer {
	const sender = senderOf(w)
	return sender?.ips.includes(ip) ? { ip, pod: sender } : peerOf(w.model, ip)
}

function peerOf(model: NetworkModel, ip: Ip): Peer {
	const owner = model.addresses.get(ip)
	if (owner?.kind === 'node') return { ip, node: owner.node }
	const pod = owner?.kind === 'pod' ? model.pods.get(owner.pod) : undefined
	return pod === undefined ? { ip } : { ip, pod }
}

const hairpin = defaultOrigin(
	'a pod that reaches itself through a Service would answer itself directly: the node puts its own address in between',
)

/**
 * Masquerade: where the endpoint is the client itself, and where the treatment of the frontend says so, the answer must
 * come back through this node. The kernel takes the node's own address, and drops where there is none.
 */
function whyMasquerade({ packet }: Way, arrived: Packet, masquerade: Origin | undefined): Origin | undefined {
	const toItself = packet.source === packet.destination && arrived.destination !== packet.destination
	return masquerade ?? (toItself ? hairpin : undefined)
}

function translateSource(way: Way, node: Node, source: Ip, because: Origin): Way {
	const { packet } = way
	if (source === packet.source) return way
	const after: Packet = { ...packet, source }
	return stepAt(
		{ ...way, packet: after },
		{ node: node.name },
		{ step: 'translate', before: packet, after, what: 'source', because: [because] },
	)
}

function remember(way: Way, node: Node, before: Packet): Way {
	const session: Session = { node: node.name, before, after: way.packet }
	return { ...way, sessions: [...way.sessions, session] }
}

/** The packet is where it wanted to go; now the answer has to find back, from where the client asked. */
function arrive(w: Walk, way: Way, place: Place): Trace {
	const { hops, failed, packet } = walkReply(w.model, reverse(way.packet), way.sessions, place)
	const asked = way.sessions[0]?.before ?? way.packet
	const trace = { flow: w.flow, hops: way.hops, chance: way.chance }
	if (failed !== undefined || sameTuple(packet, reverse(asked)))
		return { ...trace, reply: hops, disposition: failed ?? 'delivered' }
	const note = `the client asked ${asked.destination}:${asked.destinationPort} and is answered by ${packet.source}:${packet.sourcePort}: it knows of no such connection`
	const last = hops.at(-1)
	const end = stepAt(
		{ ...way, hops },
		{
			...(last?.node === undefined ? {} : { node: last.node }),
			...(last?.pod === undefined ? {} : { pod: last.pod }),
		},
		{ step: 'drop', how: 'drop', disposition: 'no-route', because: [bypassed, ...whySpared(way)], note },
	)
	return { ...trace, reply: end.hops, disposition: 'no-route' }
}

/** Why the node that was asked did not put its own address in between. kube-proxy does the same (its clusterCIDR). */
function whySpared({ spared }: Way): readonly Origin[] {
	if (spared === undefined) return []
	return [spared.fields?.externalTrafficPolicy ?? spared.origin, sparesAllPods]
}

const sparesAllPods = defaultOrigin(
	'as with kube-proxy (detectLocalMode ClusterCIDR) a node spares pods of other nodes policy Local, too, and leaves them their address: an endpoint elsewhere answers past it. A pod that asks its own node, or the ClusterIP, is answered',
)

const bypassed = defaultOrigin('the answer takes another way back than the question came, past who translated it')

function down(w: Walk, way: Way, place: Place, node: Node): Trace {
	const because = [fieldOf(node.origin, 'Node', node.name, 'status.conditions')]
	return lost(w, way, place, 'next-hop-down', 'drop', because, `node "${node.name}" is not ready`)
}
