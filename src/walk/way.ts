// A trace in the making: the hops so far, the packet as it is now, and what each node remembers of it. Immutable, so
// that ways can part.

import type { Packet } from '../base/packet.ts'
import type { NetworkModel, Node, NodeName, Pod, Service } from '../model/network.ts'
import type { ObjectKey, Origin } from '../model/origin.ts'
import type { PolicyProfile } from '../model/policy-profile.ts'
import type { Zone } from '../model/zone.ts'
import type { Disposition, Flow, Hop, StepWithReason, Trace } from './trace.ts'

export interface WalkOptions {
	/** The names of the cluster; made from the model when absent. */
	readonly zone?: Zone
	/** Whether the data plane enforces NetworkPolicy. Steps say so; the disposition is what Kubernetes means either way. */
	readonly policyEnforced?: boolean
	/** Whether it enforces the tiers around NetworkPolicy too. */
	readonly tiersEnforced?: boolean
	/** How to read what the API of policies leaves open; the default's way when absent. */
	readonly policyProfile?: PolicyProfile
	/** Steps of policies carry an explanation: what allows or denies, what would have to change. */
	readonly explain?: boolean
}

/** The walk of one flow: what does not change from way to way. */
export interface Walk {
	readonly model: NetworkModel
	readonly flow: Flow
	readonly options: WalkOptions
}

/** Where the first packet starts. */
export interface Start {
	readonly place: Place
	readonly pod?: Pod
	readonly node?: Node
}

export interface Way {
	readonly hops: readonly Hop[]
	readonly packet: Packet
	readonly chance: number
	readonly sessions: readonly Session[]
	/** The Service from whose policy Local a node spared a pod that is not its own. */
	readonly spared?: Service
}

/** What connection tracking keeps: the packet as it came and as it left. */
export interface Session {
	/** Undefined: the load balancer before the cluster. */
	readonly node: NodeName | undefined
	readonly before: Packet
	readonly after: Packet
}

export interface Place {
	readonly node?: NodeName
	readonly pod?: ObjectKey
	readonly balancer?: true
}

/** The way with more steps at `place`: in its last hop when that is there, in a new one otherwise. */
export function stepAt(way: Way, place: Place, ...steps: readonly StepWithReason[]): Way {
	const last = way.hops.at(-1)
	const here =
		last !== undefined && last.node === place.node && last.pod === place.pod && last.balancer === place.balancer
	const hop: Hop = here
		? { ...last, steps: [...last.steps, ...steps] }
		: {
				...(place.node === undefined ? {} : { node: place.node }),
				...(place.pod === undefined ? {} : { pod: place.pod }),
				...(place.balancer === undefined ? {} : { balancer: place.balancer }),
				steps,
			}
	return { ...way, hops: here ? [...way.hops.slice(0, -1), hop] : [...way.hops, hop] }
}

/** The packet of the other direction. */
export function reverse(packet: Packet): Packet {
	return {
		...packet,
		source: packet.destination,
		sourcePort: packet.destinationPort,
		destination: packet.source,
		destinationPort: packet.sourcePort,
	}
}

export function sameTuple(a: Packet, b: Packet): boolean {
	return (
		a.protocol === b.protocol &&
		a.source === b.source &&
		a.destination === b.destination &&
		a.sourcePort === b.sourcePort &&
		a.destinationPort === b.destinationPort
	)
}

/** The trace that ends here, other than by delivery. */
export function lost(
	w: Walk,
	way: Way,
	place: Place,
	disposition: Disposition,
	how: 'reject' | 'drop',
	because: readonly Origin[],
	note?: string,
): Trace {
	const end = stepAt(way, place, { step: 'drop', how, disposition, because, ...(note === undefined ? {} : { note }) })
	return { flow: w.flow, hops: end.hops, reply: [], disposition, chance: way.chance }
}
