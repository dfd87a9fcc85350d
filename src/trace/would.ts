// The second witness: what the programs read back from the nodes do to the packet. Nothing of the model decides here;
// it only names the pods and nodes that addresses belong to.

import type { BalancerPrograms, NodePrograms } from '../agent/protocol.ts'
import { familyOf, type Ip } from '../base/ip.ts'
import type { Hook, Packet } from '../base/packet.ts'
import type { Evaluated, RuleHit } from '../dataplane/dataplane.ts'
import { type RouteDecision, routeOf } from '../dataplane/links/evaluate.ts'
import { evaluateBalancer, hasAddress, isUnrouted } from '../dataplane/loadbalancer/evaluate.ts'
import { directionOf } from '../dataplane/policy/layout.ts'
import type { NetworkModel, NodeName } from '../model/network.ts'
import type { Origin } from '../model/origin.ts'
import type { Flow } from '../walk/trace.ts'
import { whyNotBelieved, whyNotCarried, whyNotForwarded, whyNotTaken } from './links-state.ts'
import { addressesOf, evaluateTables, type ProxyEvaluator } from './node-rules.ts'
import type { Path, Point } from './witness.ts'
import { type Crossing, replyOfPrograms } from './would-reply.ts'

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
	/** Rules of NetworkPolicies that let it pass. */
	readonly allowing: readonly RuleHit[]
	/** Address and port the destination was translated to. */
	readonly translated?: { readonly ip: Ip; readonly port: number }
	readonly sourceChanged?: { readonly before: Ip; readonly after: Ip }
	/** What the nodes behind it remember. */
	readonly crossings: readonly Crossing[]
}

export interface WouldInput {
	readonly flow: Flow
	readonly destination: Ip
	readonly model: NetworkModel
	readonly programs: ReadonlyMap<NodeName, NodePrograms>
	/** By node: the data planes that are no nftables. */
	readonly proxies?: ReadonlyMap<NodeName, ProxyEvaluator>
	/** What a packet from outside meets first. */
	readonly balancer?: BalancerPrograms
	/** Told of a node that the flow comes to and whose programs are not here: that way is left out. */
	readonly needs?: (node: NodeName) => void
}

/** Every path the programs allow. Throws NotEvaluable where a rule asks for what is not known of the packet. */
export function pathsOfPrograms(input: WouldInput): readonly Path[] {
	const { flow, destination, model } = input
	if (flow.from.kind === 'outside') return fromOutside(input, flow.from.ip)
	const pod = flow.from.kind === 'pod' ? model.pods.get(flow.from.pod) : undefined
	const node = pod?.node ?? (flow.from.kind === 'node' ? flow.from.node : undefined)
	if (node === undefined) return []
	const programs = programsOf(input, node)
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
	const attachment = programs.links.attachments.get(pod.uid)
	return hooks(input, way, node, ['connect'], (asked) => {
		// At the socket the destination may have become another: then that is what is routed.
		const real = asked.packet === packet ? route : routeOf(programs.links, asked.packet.destination, { uid: pod.uid })
		if (real === undefined || real.kind === 'unreachable') {
			return [
				ended(asked, 'route', 'no-route', `pod ${pod.key} has no route to ${asked.packet.destination} on ${node}`),
			]
		}
		const out = { ...asked, routes: [`pod ${pod.key}: ${real.text}`] }
		if (real.kind === 'local') return [delivered(input, out, node)]
		const off = attachment === undefined ? undefined : whyNotTaken(attachment)
		if (off !== undefined) return [ended(out, 'route', 'no-route', off)]
		return throughNode(input, { ...out, packet: withDevices(out.packet, attachment?.hostInterface) }, node, 0)
	})
}

/** The nodes that the load balancer may hand the flow to, as its programs say. */
export function nodesBehind(
	input: Pick<WouldInput, 'flow' | 'destination' | 'model' | 'balancer'>,
): readonly NodeName[] {
	const { flow, destination, balancer } = input
	if (balancer === undefined) return []
	const outside = flow.from.kind === 'outside'
	const packet = { ...blank(flow, destination), source: flow.from.kind === 'outside' ? flow.from.ip : destination }
	const nodes = new Set<NodeName>()
	const note = (_: Way, node: NodeName): readonly Path[] => {
		nodes.add(node)
		return []
	}
	throughBalancer({ ...input, programs: new Map() }, emptyWay('', packet), outside ? 'outside' : 'nodes', note)
	return [...nodes]
}

function fromOutside(input: WouldInput, source: Ip): readonly Path[] {
	const way = { ...emptyWay('', { ...blank(input.flow, input.destination), source }), nodes: [] }
	return throughBalancer(input, way, 'outside', (on, node) =>
		throughNode(input, { ...on, packet: withDevices(on.packet, 'eth0'), nodes: [node] }, node, 0),
	)
}

/** The router's hooks for a packet from one of its sides, then on with each way to the node that gets it. */
function throughBalancer(
	input: WouldInput,
	way: Way,
	side: 'outside' | 'nodes',
	then: (way: Way, node: NodeName) => readonly Path[],
): readonly Path[] {
	const { balancer, model } = input
	if (balancer === undefined) return []
	const { nftables, announced, interfaces, addresses } = balancer
	const from = interfaces[side]
	const meet = (at: Way, hook: Hook, next: (way: Way) => readonly Path[]): readonly Path[] =>
		met(at, evaluateBalancer(nftables, at.packet, hook, addresses)).flatMap(({ way: after, outcome }) => {
			// To a node's port is no Service's endpoint yet.
			const { translated: _, ...on } = after
			if (outcome.verdict === 'accept') return next(on)
			const rule = outcome.rules.at(-1)
			if (!isUnrouted(rule)) return [refused(input, on, outcome.verdict)]
			return [ended(on, 'route', 'no-route', `the router drops it: ${rule?.comment}`)]
		})
	return meet({ ...way, packet: withDevices(way.packet, from) }, 'prerouting', (translated) => {
		const to = translated.packet.destination
		if (hasAddress(nftables, to)) return meet(translated, 'input', (w) => [refused(input, w, 'drop')])
		const owner = model.addresses.get(to)
		const node = owner?.kind === 'node' ? owner.node : announced[to]
		const out = { ...translated, packet: withDevices(translated.packet, from, interfaces.nodes) }
		return meet(out, 'forward', (forwarded) => {
			if (node === undefined) return [ended(forwarded, 'route', 'no-route', `nobody on the nodes' network has ${to}`)]
			return meet(forwarded, 'postrouting', (w) => then(w, node))
		})
	})
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
	return {
		packet,
		arrived: packet,
		chance: 1,
		nodes: [node],
		routes: [],
		because: [],
		translating: [],
		filtering: [],
		allowing: [],
		crossings: [],
	}
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

/** All outcomes of one hook, each with the way so far continued. */
function meet(
	input: WouldInput,
	way: Way,
	node: NodeName,
	hook: Hook,
): readonly { readonly way: Way; readonly outcome: Evaluated }[] {
	const programs = programsOf(input, node)
	if (programs === undefined) return []
	const addresses = addressesOf(input.model, programs)
	const byTables = (at: Way) =>
		evaluateTables(programs, at.packet, hook, { arrived: at.arrived, translated: at.packet, addresses })
	// No packet meets a table before there is one.
	const first = hook === 'connect' ? [{ way, outcome: passed(way.packet) }] : met(way, byTables(way))
	const proxy = input.proxies?.get(node)
	if (proxy === undefined) return first
	// Both stand at the same hooks: what the one let through, the other sees.
	return first.flatMap((each) => {
		if (each.outcome.verdict !== 'accept') return [each]
		const outcomes = proxy(each.way.packet, hook)
		return outcomes === undefined ? [each] : met(each.way, outcomes)
	})
}

function passed(packet: Packet): Evaluated {
	return { verdict: 'accept', packet, rules: [], chance: 1 }
}

/** The way continued by each outcome of one hook. */
function met(way: Way, outcomes: readonly Evaluated[]): readonly { readonly way: Way; readonly outcome: Evaluated }[] {
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
				allowing: [...way.allowing, ...outcome.rules.filter((r) => directionOf(r) !== undefined)],
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
	return hooks(input, way, node, ['connect'], (asked) =>
		hooks(input, { ...asked, arrived: asked.packet }, node, ['output'], (out) =>
			forward(input, out, node, 0, ['postrouting']),
		),
	)
}

/** A packet comes in on a node: prerouting, route, then input or forward and postrouting. */
function throughNode(input: WouldInput, way: Way, node: NodeName, depth: number): readonly Path[] {
	return hooks(input, { ...way, arrived: way.packet }, node, ['prerouting'], (next) => {
		const programs = programsOf(input, node)
		const { source, inInterface } = next.packet
		const doubted = programs === undefined ? undefined : whyNotBelieved(programs, source, inInterface)
		if (doubted !== undefined) return [ended(next, 'route', 'no-route', doubted)]
		return forward(input, next, node, depth, ['forward', 'postrouting'])
	})
}

function forward(input: WouldInput, way: Way, node: NodeName, depth: number, after: readonly Hook[]): readonly Path[] {
	const programs = programsOf(input, node)
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
			delivered(input, crossed(w, node), node),
		])
	}
	const still = after.includes('forward') ? whyNotForwarded(programs, way.packet.destination) : undefined
	if (still !== undefined) return [ended(said, 'route', 'no-route', still)]
	const packet = withDevices(said.packet, said.packet.inInterface, route.device)
	return hooks(input, { ...said, packet }, node, after, (out) => leave(input, crossed(out, node), node, route, depth))
}

/** The node remembers what it made of the connection. */
function crossed(way: Way, node: NodeName): Way {
	return { ...way, crossings: [...way.crossings, { node, arrived: way.arrived, left: way.packet }] }
}

function leave(input: WouldInput, way: Way, node: NodeName, route: RouteDecision, depth: number): readonly Path[] {
	const packet = withDevices(way.packet, undefined)
	const { attachment } = route
	if (attachment !== undefined) {
		const refused = whyNotTaken(attachment, packet.destination)
		if (refused !== undefined) return [ended(way, 'route', 'no-route', refused)]
		return [delivered(input, { ...way, packet }, node, attachment.uid)]
	}
	const off = whyNotCarried(input.programs.get(node)!, route.device)
	if (off !== undefined) return [ended(way, 'route', 'next-hop-down', off)]
	const via = route.via ?? way.packet.destination
	const owner = input.model.addresses.get(via)
	const { balancer } = input
	if (balancer !== undefined && depth + 1 < hopLimit && hasAddress(balancer.nftables, packet.destination)) {
		// The node leaves it to the load balancer (ipMode Proxy).
		return throughBalancer(input, { ...way, packet }, 'nodes', (on, next) =>
			throughNode(
				input,
				{
					...on,
					packet: withDevices(on.packet, 'eth0'),
					nodes: on.nodes.at(-1) === next ? on.nodes : [...on.nodes, next],
				},
				next,
				depth + 1,
			),
		)
	}
	if (owner?.kind !== 'node')
		return [ended(way, 'route', 'left-cluster', `leaves the cluster at ${node} via ${via} dev ${route.device}`)]
	if (depth + 1 >= hopLimit) return [ended(way, 'route', 'loop', `crosses more than ${hopLimit} nodes`)]
	const next = owner.node
	const programs = programsOf(input, next)
	if (programs === undefined) return []
	const deaf = whyNotCarried(programs, 'eth0')
	if (deaf !== undefined) return [ended(way, 'route', 'next-hop-down', deaf)]
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

/** Where a policy let it pass, the rule that did. */
function policyPoints({ allowing }: Way): readonly Point[] {
	return (['egress', 'ingress'] as const).flatMap((stage): Point[] => {
		const rule = allowing.findLast((r) => directionOf(r) === stage)
		if (rule === undefined) return []
		return [{ stage, result: 'allow', text: 'a rule lets it pass', because: rule.because, rules: [rule], details: [] }]
	})
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

function programsOf({ programs, needs }: WouldInput, node: NodeName): NodePrograms | undefined {
	const found = programs.get(node)
	if (found === undefined) needs?.(node)
	return found
}

/** `uid`: of the pod, where it has a namespace of its own. */
function delivered(input: WouldInput, way: Way, node: NodeName, uid?: string): Path {
	const owner = input.model.addresses.get(way.packet.destination)
	const where = owner?.kind === 'pod' ? `to pod ${owner.pod}` : `to node ${node}`
	const points: Point[] = [
		...servicePoint(way),
		...policyPoints(way),
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
	const { flow, model, programs, needs, balancer } = input
	const reply =
		// The load balancer's memory is not read.
		balancer === undefined
			? replyOfPrograms({
					flow,
					model,
					programs,
					...(needs === undefined ? {} : { needs }),
					crossings: way.crossings,
					end: { node, ...(uid === undefined ? {} : { uid }) },
				})
			: undefined
	if (reply === undefined) return { chance: way.chance, points, disposition: 'delivered', delivered: true }
	const came = reply.result === 'returned'
	return {
		chance: way.chance,
		points: [...points, reply],
		disposition: came ? 'delivered' : 'no-route',
		delivered: came,
	}
}

/** A rule refused the packet: at the Service stage unless it was translated already. */
function refused(input: WouldInput, way: Way, verdict: 'drop' | 'reject'): Path {
	const rules = way.filtering
	const last = rules.at(-1)
	const direction = last === undefined ? undefined : directionOf(last)
	if (last !== undefined && direction !== undefined) {
		const denied: Point = {
			stage: direction,
			result: 'deny',
			text: `dropped on ${way.nodes.at(-1)}`,
			because: last.because,
			// The rule that dropped it, and the one that led there.
			rules: rules.slice(-2),
			details: [],
		}
		const points = [...servicePoint(way), ...policyPoints(way).filter((p) => p.stage !== direction), denied]
		return { chance: way.chance, points, disposition: `denied-${direction}`, delivered: false }
	}
	const owner = input.model.addresses.get(way.packet.destination)
	const policy = way.translated !== undefined || owner?.kind === 'pod'
	const point: Point = {
		stage: policy ? 'ingress' : 'service',
		result: policy ? 'deny' : verdict,
		text: `${verdict === 'reject' ? 'rejected' : 'dropped'} ${way.nodes.length === 0 ? 'by the load balancer' : `on ${way.nodes.at(-1)}`}`,
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
	return {
		chance: way.chance,
		points: [...servicePoint(way), ...policyPoints(way), point],
		disposition,
		delivered: false,
	}
}
