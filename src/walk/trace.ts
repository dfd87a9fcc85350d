// The result of a walk: every path a flow may take, hop by hop, each step with its reasons.
// The vocabulary is closed: a new step or disposition is added here and in docs/dispositions.md.

import type { Ip } from '../base/ip.ts'
import type { Packet, Protocol } from '../base/packet.ts'
import type { FrontendKind } from '../model/frontends.ts'
import type { NodeName } from '../model/network.ts'
import type { ObjectKey, Origin } from '../model/origin.ts'
import type { PolicyExplanation } from './explain.ts'

/** Where a flow starts. */
export type FlowSource =
	| { readonly kind: 'pod'; readonly pod: ObjectKey }
	| { readonly kind: 'node'; readonly node: NodeName }
	| { readonly kind: 'outside'; readonly ip: Ip }

export interface Flow {
	readonly from: FlowSource
	/** A name to resolve first, or an address. */
	readonly to: { readonly name: string } | { readonly ip: Ip }
	readonly protocol: Protocol
	readonly port: number
}

export type Disposition =
	| 'delivered'
	| 'answered-by-proxy'
	| 'left-cluster'
	| 'denied-egress'
	| 'denied-ingress'
	| 'denied-mesh'
	| 'denied-source-range'
	| 'no-endpoints'
	| 'unknown-service-port'
	| 'unassigned-address'
	| 'no-route'
	| 'next-hop-down'
	| 'no-such-name'
	| 'no-matching-route'
	| 'loop'
	| 'too-big'

export type Step =
	/**
	 * One query of the search list, in the order the resolver asks. forwarded: the name is outside of the cluster's
	 * domain, somebody else answers. no-answer: the question does not reach the server; the hops after it say why.
	 */
	| {
			readonly step: 'query'
			readonly name: string
			readonly answer: 'found' | 'no-such-name' | 'no-data' | 'forwarded' | 'no-answer'
			readonly addresses: readonly Ip[]
	  }
	| { readonly step: 'resolve'; readonly name: string; readonly address: Ip }
	| {
			readonly step: 'policy'
			readonly direction: 'egress' | 'ingress'
			readonly verdict: 'allow' | 'deny'
			readonly pod: ObjectKey
			readonly enforced: boolean
			/** Where the walk was asked to explain. */
			readonly explanation?: PolicyExplanation
	  }
	/** `frontend`: what the packet was sent to, other than a ClusterIP. */
	| {
			readonly step: 'service'
			readonly service: ObjectKey
			readonly port: string
			readonly frontend?: Exclude<FrontendKind, 'cluster-ip'>
	  }
	/**
	 * A load balancer before the cluster hands the connection to a node: announce, as it came; forward, to the node's
	 * port (a translate step follows). `chance` is that of this node among `of`.
	 */
	| {
			readonly step: 'balance'
			readonly how: 'announce' | 'forward'
			readonly node: NodeName
			readonly chance: number
			readonly of: number
	  }
	/**
	 * A choice among `of` endpoints; `chance` is that of this one. `affinity`: seconds for which a client that came
	 * before stays with the endpoint it had, so that there is no choice for it.
	 */
	| {
			readonly step: 'endpoint'
			readonly ip: Ip
			readonly port: number
			readonly pod?: ObjectKey
			readonly chance: number
			readonly of: number
			readonly affinity?: number
	  }
	| {
			readonly step: 'translate'
			readonly before: Packet
			readonly after: Packet
			readonly what: 'destination' | 'source' | 'restore'
	  }
	| {
			readonly step: 'route'
			readonly destination: string
			readonly via?: Ip
			readonly device: string
			readonly mtu?: number
	  }
	| { readonly step: 'deliver'; readonly pod?: ObjectKey; readonly node?: NodeName; readonly port: number }
	| { readonly step: 'drop'; readonly how: 'reject' | 'drop'; readonly disposition: Disposition }

export type StepWithReason = Step & { readonly because: readonly Origin[]; readonly note?: string }

export interface Hop {
	/** Where: in the pod, on a node, on the wire's far side. */
	readonly node?: NodeName
	readonly pod?: ObjectKey
	/** At a load balancer before the cluster. */
	readonly balancer?: true
	readonly steps: readonly StepWithReason[]
}

export interface Trace {
	readonly flow: Flow
	readonly hops: readonly Hop[]
	/** The way back, walked from the session the way out set up. Empty where nothing comes back. */
	readonly reply: readonly Hop[]
	readonly disposition: Disposition
	/** 0 < chance ≤ 1; the chances of all traces of one flow sum to 1. */
	readonly chance: number
}
