// The answer's way back by the programs read back: the routes, the rules for packets of a connection that is there, and
// each node's memory of what it translated.

import type { NodePrograms } from '../agent/protocol.ts'
import type { Ip } from '../base/ip.ts'
import type { Hook, Packet } from '../base/packet.ts'
import type { RuleHit } from '../dataplane/dataplane.ts'
import { type RouteDecision, routeOf } from '../dataplane/links/evaluate.ts'
import type { NetworkModel, NodeName } from '../model/network.ts'
import type { Flow } from '../walk/trace.ts'
import { whyNotBelieved, whyNotCarried, whyNotForwarded, whyNotTaken } from './links-state.ts'
import { addressesOf, evaluateTables } from './node-rules.ts'
import type { Point } from './witness.ts'

/** A packet's passage of one node: as it came, and as it left. */
export interface Crossing {
	readonly node: NodeName
	readonly arrived: Packet
	readonly left: Packet
}

export interface ReplyInput {
	readonly flow: Flow
	readonly model: NetworkModel
	readonly programs: ReadonlyMap<NodeName, NodePrograms>
	/** A node whose programs would have to be known. */
	readonly needs?: (node: NodeName) => void
	/** What each node that the question crossed remembers, in that order. */
	readonly crossings: readonly Crossing[]
	/** Where it was delivered; `uid` of a pod with a namespace of its own. */
	readonly end: { readonly node: NodeName; readonly uid?: string }
}

const hopLimit = 8

/** undefined where the way back leads past what is known here: out of the cluster. */
export function replyOfPrograms(input: ReplyInput): Point | undefined {
	const { flow, crossings, end } = input
	const first = crossings[0]
	const last = crossings.at(-1)
	if (first === undefined || last === undefined || flow.from.kind === 'outside') return undefined
	const back = new WayBack(input, answerTo(last.left))
	const asked = answerTo(first.arrived)
	const lost = back.walk(end)
	if (lost === 'unknown') return undefined
	if (lost !== undefined) return back.point('drop', lost.text, lost.rules)
	const { source, sourcePort } = back.packet
	if (source === asked.source && sourcePort === asked.sourcePort)
		return back.point('returned', `comes back as ${source}:${sourcePort}`)
	return back.point(
		'drop',
		`comes back as ${source}:${sourcePort}, past the translation: asked was ${asked.source}:${asked.sourcePort}`,
	)
}

interface Lost {
	readonly text: string
	readonly rules?: readonly RuleHit[]
}

function answerTo({ source, sourcePort, destination, destinationPort, ...rest }: Packet): Packet {
	const { inInterface: _in, outInterface: _out, ...kept } = rest
	return {
		...kept,
		source: destination,
		sourcePort: destinationPort,
		destination: source,
		destinationPort: sourcePort,
		state: 'established',
		mark: 0,
	}
}

class WayBack {
	packet: Packet
	readonly #input: ReplyInput
	readonly #routes: string[] = []

	constructor(input: ReplyInput, packet: Packet) {
		this.#input = input
		this.packet = packet
	}

	point(result: string, text: string, rules: readonly RuleHit[] = []): Point {
		return {
			stage: 'reply',
			result,
			text: result === 'drop' ? `the answer is lost: ${text}` : text,
			because: rules.at(-1)?.because ?? [],
			rules: rules.slice(-2),
			details: this.#routes,
		}
	}

	/** Leads `packet` back. undefined: it arrived where the question came from. */
	walk({ node: start, uid }: ReplyInput['end']): Lost | 'unknown' | undefined {
		const { model } = this.#input
		let node = start
		let device: string | undefined
		let own = true
		if (uid !== undefined) {
			const programs = this.#programs(node)
			if (programs === undefined) return 'unknown'
			const attachment = programs.links.attachments.get(uid)
			const off = attachment === undefined ? undefined : whyNotTaken(attachment)
			if (off !== undefined) return { text: off }
			const route = routeOf(programs.links, this.packet.destination, { uid })
			const name = attachment?.pod ?? 'the pod'
			if (route === undefined || route.kind === 'unreachable')
				return { text: `pod ${name} has no route to ${this.packet.destination}` }
			this.#routes.push(`pod ${name}: ${route.text}`)
			if (route.kind === 'local') return undefined
			device = attachment?.hostInterface
			own = false
		}
		for (let depth = 0; depth < hopLimit; depth++) {
			const programs = this.#programs(node)
			if (programs === undefined) return 'unknown'
			const crossing = this.#remembered(node)
			if (crossing !== undefined) {
				const { destination, destinationPort } = answerTo(crossing.arrived)
				this.packet = { ...this.packet, destination, destinationPort }
			}
			const first = this.#meet(programs, own ? 'output' : 'prerouting', crossing, device)
			if (first !== undefined) return first
			const doubted = own ? undefined : whyNotBelieved(programs, this.packet.source, device)
			if (doubted !== undefined) return { text: doubted }
			const route = routeOf(programs.links, this.packet.destination, 'node')
			if (route === undefined || route.kind === 'unreachable')
				return { text: `${node} has no route to ${this.packet.destination}` }
			this.#routes.push(`${node}: ${route.text}`)
			const lost = this.#pass(programs, route, own, crossing, device)
			if (crossing !== undefined) {
				const { source, sourcePort } = answerTo(crossing.arrived)
				this.packet = { ...this.packet, source, sourcePort }
			}
			if (lost !== undefined) return lost
			if (route.kind === 'local') return undefined
			if (route.attachment !== undefined) {
				const refused = whyNotTaken(route.attachment, this.packet.destination)
				return refused === undefined ? undefined : { text: refused }
			}
			const owner = model.addresses.get(route.via ?? this.packet.destination)
			if (owner?.kind !== 'node') return 'unknown'
			const off = whyNotCarried(programs, route.device)
			if (off !== undefined) return { text: off }
			const next = this.#programs(owner.node)
			if (next === undefined) return 'unknown'
			const deaf = whyNotCarried(next, 'eth0')
			if (deaf !== undefined) return { text: deaf }
			node = owner.node
			device = 'eth0'
			own = false
		}
		return { text: `it crosses more than ${hopLimit} nodes` }
	}

	/** The hooks after the routing decision. */
	#pass(
		programs: NodePrograms,
		route: RouteDecision,
		own: boolean,
		crossing: Crossing | undefined,
		device: string | undefined,
	): Lost | undefined {
		if (route.kind === 'local') return own ? undefined : this.#meet(programs, 'input', crossing, device)
		const refused = own ? undefined : whyNotForwarded(programs, this.packet.destination)
		if (refused !== undefined) return { text: refused }
		for (const hook of own ? (['postrouting'] as const) : (['forward', 'postrouting'] as const)) {
			const lost = this.#meet(programs, hook, crossing, device, route.device)
			if (lost !== undefined) return lost
		}
		return undefined
	}

	#programs(node: NodeName): NodePrograms | undefined {
		const programs = this.#input.programs.get(node)
		if (programs === undefined) this.#input.needs?.(node)
		return programs
	}

	/** The passage that this packet answers. */
	#remembered(node: NodeName): Crossing | undefined {
		const { source, sourcePort, destination, destinationPort } = this.packet
		return this.#input.crossings.findLast(
			({ node: where, left }) =>
				where === node &&
				left.destination === source &&
				left.destinationPort === sourcePort &&
				left.source === destination &&
				left.sourcePort === destinationPort,
		)
	}

	#meet(
		programs: NodePrograms,
		hook: Hook,
		crossing: Crossing | undefined,
		inInterface: string | undefined,
		outInterface?: string,
	): Lost | undefined {
		const packet: Packet = {
			...this.packet,
			...(inInterface === undefined ? {} : { inInterface }),
			...(outInterface === undefined ? {} : { outInterface }),
		}
		const addresses: readonly Ip[] = addressesOf(this.#input.model, programs)
		const outcomes = evaluateTables(programs, packet, hook, {
			arrived: crossing?.arrived ?? answerTo(packet),
			translated: crossing?.left ?? answerTo(packet),
			addresses,
		})
		const refused = outcomes.find(({ verdict }) => verdict !== 'accept')
		if (refused === undefined) return undefined
		const how = refused.verdict === 'reject' ? 'rejected' : 'dropped'
		return { text: `${how} on ${programs.node}`, rules: refused.rules }
	}
}
