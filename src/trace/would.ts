// The second witness: what the programs read back from the nodes do to the packet. Nothing of the model decides here;
// it only names the pods and nodes that addresses belong to.

import type { NodePrograms } from '../agent/protocol.ts'
import { familyOf, type Ip } from '../base/ip.ts'
import type { Hook, Packet } from '../base/packet.ts'
import type { Evaluated, RuleHit } from '../dataplane/dataplane.ts'
import { type RouteDecision, routeOf } from '../dataplane/links/evaluate.ts'
import { evaluate } from '../dataplane/nftables/evaluate.ts'
import type { NetworkModel, NodeName } from '../model/network.ts'
import type { Origin } from '../model/origin.ts'
import type { Flow } from '../walk/trace.ts'
import type { Path, Point } from './witness.ts'

/** A flow crosses so many nodes at most before it counts as a loop. */
const hopLimit = 8

interface Way {
	readonly packet: Packet
	/** As it came to the node it is on: what that node's connection tracking keeps as the original direction. */
	readonly arrived: Packet
	readonly chance: number
	readonly nodes: readonly NodeName[]
	readonly routes: readonly string[]
	readonly because: readonly Origin[]
	readonly translating: readonly RuleHit[]
	readonly filtering: readonly RuleHit[]
	/** Address and port the destination was translated to. */
	readonly translated?: { readonly ip: Ip; readonly port: number }
	readonly sourceChanged?: { readonly before: Ip; readonly after: Ip }
}

export interface WouldInput {
	readonly flow: Flow
	readonly destination: Ip
	readonly model: NetworkModel
	readonly programs: ReadonlyMap<NodeName, NodePrograms>
}

/** Every path the programs allow. Throws NotEvaluable where a rule asks for what is not known of the packet. */
export function pathsOfPrograms(input: WouldInput): readonly Path[] {
	const { flow, destination, model } = input
	const pod = flow.from.kind === 'pod' ? model.pods.get(flow.from.pod) : undefined
	const node = pod?.node ?? (flow.from.kind === 'node' ? flow.from.node : undefined)
	if (node === undefined) return []
	const programs = input.programs.get(node)
	if (programs === undefined) return []
	const inNode = pod === undefined || pod.hostNetwork
	const source = sourceOf(input, pod?.uid, node, inNode, destination)
	if (source === undefined)
		return [
			ended(
				emptyWay(node, { ...blank(flow, destination) }),
				'route',
				'no-route',
				'no address of this family at the source',
			),
		]
	const packet: Packet = { ...blank(flow, destination), source }
	const way = emptyWay(node, packet)
	if (inNode) return fromNode(input, way, node)
	const route = routeOf(programs.links, destination, { uid: pod.uid })
	if (route === undefined || route.kind === 'unreachable') {
		return [ended(way, 'route', 'no-route', `pod ${pod.key} has no route to ${destination} on ${node}`)]
	}
	const out = { ...way, routes: [`pod ${pod.key}: ${route.text}`] }
	if (route.kind === 'local') return [delivered(input, out, node)]
	const attachment = programs.links.attachments.get(pod.uid)
	return throughNode(input, { ...out, packet: withDevices(packet, attachment?.hostInterface) }, node, 0)
}

function blank(flow: Flow, destination: Ip): Packet {
	return {
		protocol: flow.protocol,
		source: destination,
		destination,
		sourcePort: flow.protocol === 'ICMP' ? 0 : 32768,
		destinationPort: flow.port,
		state: 'new',
		mark: 0,
	}
}

function emptyWay(node: NodeName, packet: Packet): Way {
	return { packet, arrived: packet, chance: 1, nodes: [node], routes: [], because: [], translating: [], filtering: [] }
}

function sourceOf(
	input: WouldInput,
	uid: string | undefined,
	node: NodeName,
	inNode: boolean,
	destination: Ip,
): Ip | undefined {
	if (inNode) return input.model.nodes.get(node)?.addresses.find((a) => familyOf(a) === familyOf(destination))
	const ips = uid === undefined ? [] : (input.programs.get(node)?.links.attachments.get(uid)?.ips ?? [])
	return ips.find((ip) => familyOf(ip) === familyOf(destination))
}

function withDevices(packet: Packet, inInterface: string | undefined, outInterface?: string): Packet {
	const { inInterface: _in, outInterface: _out, ...rest } = packet
	return {
		...rest,
		...(inInterface === undefined ? {} : { inInterface }),
		...(outInterface === undefined ? {} : { outInterface }),
	}
}

/** conntrack status bits after translation (linux/netfilter/nf_conntrack_common.h). */
const statusDnat = 32
const statusSnat = 16

/** Every node tracks the connection by itself: what another node translated is no translation here. */
function statusOf({ arrived, packet }: Way): number {
	const dnat = arrived.destination !== packet.destination || arrived.destinationPort !== packet.destinationPort
	const snat = arrived.source !== packet.source || arrived.sourcePort !== packet.sourcePort
	return (dnat ? statusDnat : 0) | (snat ? statusSnat : 0)
}

/** All outcomes of one hook, each with the way so far continued. */
function meet(
	input: WouldInput,
	way: Way,
	node: NodeName,
	hook: Hook,
): readonly { readonly way: Way; readonly outcome: Evaluated }[] {
	const programs = input.programs.get(node)
	if (programs === undefined) return []
	const addresses = programs.links.surroundings?.addresses ?? input.model.nodes.get(node)?.addresses ?? []
	const outcomes = evaluate(programs.nftables, way.packet, hook, {
		connectionStatus: statusOf(way),
		original: way.arrived,
		addressType: (ip) => (addresses.includes(ip as Ip) ? 'local' : 'unicast'),
		masqueradeAddress: (packet) => addresses.find((a) => familyOf(a) === familyOf(packet.destination)),
	})
	return outcomes.map((outcome) => {
		const before = way.packet
		const after = outcome.packet
		const dnat = before.destination !== after.destination || before.destinationPort !== after.destinationPort
		const snat = before.source !== after.source || before.sourcePort !== after.sourcePort
		return {
			outcome,
			way: {
				...way,
				packet: after,
				chance: way.chance * outcome.chance,
				translating: dnat || snat ? [...way.translating, ...outcome.rules] : way.translating,
				filtering: outcome.verdict === 'accept' ? way.filtering : [...way.filtering, ...outcome.rules],
				...(dnat ? { translated: { ip: after.destination, port: after.destinationPort } } : {}),
				...(snat ? { sourceChanged: { before: before.source, after: after.source } } : {}),
			},
		}
	})
}

/** A chain of hooks on one node; `then` continues what every hook accepted. */
function hooks(
	input: WouldInput,
	way: Way,
	node: NodeName,
	list: readonly Hook[],
	then: (way: Way) => readonly Path[],
): readonly Path[] {
	const [hook, ...rest] = list
	if (hook === undefined) return then(way)
	return meet(input, way, node, hook).flatMap(({ way: next, outcome }) =>
		outcome.verdict === 'accept' ? hooks(input, next, node, rest, then) : [refused(input, next, outcome.verdict)],
	)
}

/** The node itself sends: output, then (where the destination is elsewhere) postrouting. */
function fromNode(input: WouldInput, way: Way, node: NodeName): readonly Path[] {
	return hooks(input, way, node, ['output'], (out) => forward(input, out, node, 0, ['postrouting']))
}

/** A packet comes in on a node: prerouting, route, then input or forward and postrouting. */
function throughNode(input: WouldInput, way: Way, node: NodeName, depth: number): readonly Path[] {
	return hooks(input, { ...way, arrived: way.packet }, node, ['prerouting'], (next) =>
		forward(input, next, node, depth, ['forward', 'postrouting']),
	)
}

function forward(input: WouldInput, way: Way, node: NodeName, depth: number, after: readonly Hook[]): readonly Path[] {
	const programs = input.programs.get(node)
	if (programs === undefined) return []
	const route = routeOf(programs.links, way.packet.destination, 'node')
	if (route === undefined || route.kind === 'unreachable') {
		// The kernel asks for a route before forward: no rule there is met.
		return [ended(way, 'route', 'no-route', `${node} has no route to ${way.packet.destination}`)]
	}
	const said = {
		...way,
		routes: [...way.routes, `${node}: ${route.text}`],
		because: [...way.because, ...route.because],
	}
	if (route.kind === 'local') {
		return hooks(input, said, node, after.includes('forward') ? ['input'] : ['postrouting'], (w) => [
			delivered(input, w, node),
		])
	}
	const packet = withDevices(said.packet, said.packet.inInterface, route.device)
	return hooks(input, { ...said, packet }, node, after, (out) => leave(input, out, node, route, depth))
}

function leave(input: WouldInput, way: Way, node: NodeName, route: RouteDecision, depth: number): readonly Path[] {
	const packet = withDevices(way.packet, undefined)
	if (route.attachment !== undefined) return [delivered(input, { ...way, packet }, node)]
	const via = route.via ?? way.packet.destination
	const owner = input.model.addresses.get(via)
	if (owner?.kind !== 'node')
		return [ended(way, 'route', 'left-cluster', `leaves the cluster at ${node} via ${via} dev ${route.device}`)]
	if (depth + 1 >= hopLimit) return [ended(way, 'route', 'loop', `crosses more than ${hopLimit} nodes`)]
	const next = owner.node
	return throughNode(
		input,
		{ ...way, packet: withDevices(packet, 'eth0'), nodes: [...way.nodes, next] },
		next,
		depth + 1,
	)
}

function servicePoint(way: Way): readonly Point[] {
	if (way.translated === undefined) return []
	const { ip, port } = way.translated
	const rules = way.translating.filter((r) => r.elements.length > 0 || /dnat|snat|masquerade/.test(r.text))
	return [
		{
			stage: 'service',
			result: `${ip}:${port}`,
			text: `→ ${ip}:${port}`,
			because: rules.flatMap((r) => r.because),
			rules,
			details:
				way.sourceChanged === undefined
					? []
					: [`source ${way.sourceChanged.before} becomes ${way.sourceChanged.after}`],
		},
	]
}

function routePoint(way: Way): Point {
	return {
		stage: 'route',
		result: way.nodes.join(' > '),
		text: way.nodes.length > 1 ? way.nodes.join(' → ') : `within ${way.nodes[0]}`,
		because: way.because,
		rules: [],
		details: way.routes,
	}
}

function delivered(input: WouldInput, way: Way, node: NodeName): Path {
	const owner = input.model.addresses.get(way.packet.destination)
	const where = owner?.kind === 'pod' ? `to pod ${owner.pod}` : `to node ${node}`
	const points: Point[] = [
		...servicePoint(way),
		routePoint(way),
		{
			stage: 'deliver',
			result: 'delivered',
			text: `${where} port ${way.packet.destinationPort}`,
			because: [],
			rules: [],
			details: [],
		},
	]
	return { chance: way.chance, points, disposition: 'delivered', delivered: true }
}

/** A rule refused the packet: at the Service stage unless it was translated already. */
function refused(input: WouldInput, way: Way, verdict: 'drop' | 'reject'): Path {
	const rules = way.filtering
	const owner = input.model.addresses.get(way.packet.destination)
	const policy = way.translated !== undefined || owner?.kind === 'pod'
	const point: Point = {
		stage: policy ? 'ingress' : 'service',
		result: policy ? 'deny' : verdict,
		text: `${verdict === 'reject' ? 'rejected' : 'dropped'} on ${way.nodes.at(-1)}`,
		because: rules.flatMap((r) => r.because),
		// The rule that refused, and the one that sent the packet there.
		rules: rules.slice(-2),
		details: [],
	}
	return { chance: way.chance, points: [...servicePoint(way), point], disposition: verdict, delivered: false }
}

function ended(way: Way, stage: 'route', disposition: string, text: string): Path {
	const point: Point = {
		stage,
		result: way.nodes.join(' > '),
		text,
		because: way.because,
		rules: [],
		details: way.routes,
	}
	return { chance: way.chance, points: [...servicePoint(way), point], disposition, delivered: false }
}
