// One flow as it is told: the fields of Hubble's exporter (cilium/cilium api/v1/flow/flow.proto, as protojson), so that
// what reads those reads these, and beside them what only we know: who decided, in which file and line, and which rule.

import type { Origin } from '../model/origin.ts'

export type FlowVerdict = 'FORWARDED' | 'DROPPED' | 'AUDIT'
export type FlowProtocol = 'TCP' | 'UDP' | 'SCTP' | 'ICMPv4' | 'ICMPv6' | 'unknown'

/** Of Hubble's DropReason: no rule allowed it; a rule denied it. */
export const dropReasons = { POLICY_DENIED: 133, POLICY_DENY: 181 } as const
export type DropReason = keyof typeof dropReasons

export interface FlowEnd {
	readonly namespace?: string
	readonly pod_name?: string
	/** `k8s:app=web`; `reserved:world`, `reserved:host` (the node that tells), `reserved:remote-node`. */
	readonly labels: readonly string[]
	readonly workloads?: readonly { readonly name: string; readonly kind: string }[]
}

export interface FlowPorts {
	readonly source_port: number
	readonly destination_port: number
}

export interface FlowPolicy {
	readonly name: string
	readonly namespace?: string
	readonly kind: string
}

export interface Flow {
	/** RFC 3339, UTC. */
	readonly time: string
	readonly verdict: FlowVerdict
	readonly drop_reason?: number
	readonly drop_reason_desc?: DropReason
	readonly IP: { readonly source: string; readonly destination: string; readonly ipVersion: 'IPv4' | 'IPv6' }
	readonly l4: {
		readonly TCP?: FlowPorts & { readonly flags?: Readonly<Record<string, true>> }
		readonly UDP?: FlowPorts
		readonly SCTP?: FlowPorts
		readonly ICMPv4?: { readonly type: number; readonly code: number }
		readonly ICMPv6?: { readonly type: number; readonly code: number }
	}
	readonly source: FlowEnd
	readonly destination: FlowEnd
	readonly Type: 'L3_L4'
	readonly node_name: string
	readonly destination_service?: { readonly name: string; readonly namespace: string }
	/** Of the pod whose policies were asked: out of it, or into it. */
	readonly traffic_direction: 'INGRESS' | 'EGRESS' | 'TRAFFIC_DIRECTION_UNKNOWN'
	readonly is_reply: boolean
	readonly ingress_denied_by?: readonly FlowPolicy[]
	readonly egress_denied_by?: readonly FlowPolicy[]
	readonly Summary: string
}

export interface FlowDetails {
	/** new: the first packet of a connection. end: conntrack has forgotten it. */
	readonly event: 'new' | 'end'
	/** Who denied it (or would have, under AUDIT): object, field, file and line. */
	readonly because: readonly Origin[]
	/** The rule of the node that decided. */
	readonly rule?: { readonly table: string; readonly chain: string; readonly comment?: string }
	/** What is neither a pod nor the world: `node/node-1`, `svc/shop/web`. */
	readonly source?: string
	readonly destination?: string
	/** What the client asked for, where a Service's address was translated. */
	readonly asked?: { readonly ip: string; readonly port: number }
	/** Further packets of the same connection that met the same end (a SYN that is sent again) and are not told. */
	repeats?: number
	/** Of the end, where the node counts connections. */
	readonly counted?: Readonly<Record<'original' | 'reply', { readonly packets: number; readonly bytes: number }>>
}

export interface FlowEvent {
	readonly flow: Flow
	readonly node_name: string
	readonly time: string
	readonly podwire: FlowDetails
}

/** Events that nobody can tell any more. */
export interface LostEvents {
	readonly lost_events: {
		/**
		 * RATE_LIMIT: packets, denied or on trial, that the rules did not log. NETLINK_SOCKET: the kernel's buffer was full.
		 * RING_BUFFER: overwritten. AGENT_RESTART: packets logged before the node's agent came, forgotten with the one
		 * before it. OBSERVER_QUEUE: read too slowly.
		 */
		readonly source: 'RATE_LIMIT' | 'NETLINK_SOCKET' | 'RING_BUFFER' | 'AGENT_RESTART' | 'OBSERVER_QUEUE'
		readonly num_events_lost: number
	}
	readonly node_name: string
	readonly time: string
}

/** What an observer is sent. */
export type FlowMessage = FlowEvent | LostEvents

export function isLost(message: FlowMessage): message is LostEvents {
	return 'lost_events' in message
}

export function flowProtocol(flow: Flow): FlowProtocol {
	return (Object.keys(flow.l4)[0] as FlowProtocol | undefined) ?? 'unknown'
}

/** Undefined where the protocol has none. */
export function flowPorts(flow: Flow): FlowPorts | undefined {
	return flow.l4.TCP ?? flow.l4.UDP ?? flow.l4.SCTP
}
