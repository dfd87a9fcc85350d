// What a node agent answers to those who explain: its installed programs, and one real packet.
// In a lab it travels over the lab's control socket as JSON; on a real cluster over the agent's own socket.

import type { Ip } from '../base/ip.ts'
import type { Protocol } from '../base/packet.ts'
import type { RuleHit, ServiceProxyMode } from '../dataplane/dataplane.ts'
import type { LinksProgram } from '../dataplane/links/program.ts'
import type { NftProgram } from '../linux/nft/program.ts'
import type { NodeName } from '../model/network.ts'
import type { ObjectKey } from '../model/origin.ts'
import type { ProxyPrograms } from './service-planes.ts'

export interface NodeAgentApi {
	/** The programs read back from the node's kernel now, not those last applied. */
	read(node: NodeName): Promise<NodePrograms>
	/** A real connection from inside a pod (or the node itself), traced in every kernel it may cross. */
	probe(request: ProbeRequest): Promise<ProbeResult>
	/** What stands before the nodes, where that is on this machine, too. */
	readBalancer?(): Promise<BalancerPrograms>
}

/** The load balancer's programs, read back: the appliance's, and who announces which address on the nodes' network. */
export interface BalancerPrograms {
	readonly nftables: NftProgram
	readonly announced: Readonly<Record<Ip, NodeName>>
	/** The router's interfaces. */
	readonly interfaces: { readonly outside: string; readonly nodes: string }
	/** The router's own addresses on the nodes' network: what it masquerades with. */
	readonly addresses: readonly Ip[]
}

export interface NodePrograms {
	readonly node: NodeName
	readonly links: LinksProgram
	/** Every table of the node's namespace. */
	readonly nftables: NftProgram
	readonly serviceProxy?: ServiceProxyMode
	/** Programs of data planes that are no nftables, as JSON that their own `fromJson` reads. */
	readonly proxies?: ProxyPrograms
}

export interface ProbeRequest {
	/** outside: a client that is no part of the cluster, where a lab has one. */
	readonly from: { readonly pod: ObjectKey } | { readonly node: NodeName } | { readonly outside: true }
	readonly to: Ip
	readonly port: number
	readonly protocol: Protocol
	/** The nodes whose kernels are to be traced. */
	readonly nodes: readonly NodeName[]
	/** Milliseconds until the connection counts as dropped. */
	readonly timeout: number
	/** false: only the exchange itself, nothing is traced or captured; the observed parts of the result are empty. */
	readonly observe?: boolean
	/** Base64 of what to send (a DNS query, say); undefined: the probe's own greeting. */
	readonly payload?: string
}

export interface ProbeResult {
	/** connected: TCP handshake done, or a UDP answer came. */
	readonly outcome: 'connected' | 'refused' | 'timeout' | 'unreachable' | 'error'
	/** errno name where the kernel gave one. */
	readonly errno?: string
	readonly source: { readonly ip: Ip; readonly port: number }
	/** Milliseconds from connect() to the answer. */
	readonly elapsed: number
	/** What the far side said first, at most 4 KiB, where it said something (stand-ins name their pod). */
	readonly answer?: string
	/** Base64 of the first bytes that came back, at most 4 KiB. */
	readonly answerBytes?: string
	/** Rules hit (those of the load balancer under its place's name), in the order the kernels reported them, with the verdict each gave. */
	readonly rules: readonly (RuleHit & { readonly node: NodeName; readonly verdict: string })[]
	/** Every interface the first packet of each direction crossed, in time order. Microseconds since the first sighting. */
	readonly sightings: readonly Sighting[]
	/** conntrack entries of the connection after it was made, one per node that has one. */
	readonly conntrack: readonly ConntrackEntry[]
	/** Counters of rules that changed while the probe ran. */
	readonly counters: readonly { readonly node: NodeName; readonly rule: RuleHit; readonly packets: number }[]
	/** Where something could not be observed, and why ("nftables tracing: EPERM"). */
	readonly missing: readonly string[]
}

/** Places that are no part of the cluster: the client outside, and the load balancer before the nodes. */
export type OutsidePlace = 'outside' | 'load balancer'

/** At a node, in a pod or at another place. */
export interface Sighting {
	readonly node?: NodeName
	readonly pod?: ObjectKey
	readonly place?: OutsidePlace
	readonly device: string
	readonly direction: 'in' | 'out'
	readonly microseconds: number
	readonly source: Ip
	readonly sourcePort: number
	readonly destination: Ip
	readonly destinationPort: number
	readonly reply: boolean
	/** TCP flags as tcpdump writes them, empty for UDP. */
	readonly flags: string
}

export interface ConntrackEntry {
	readonly node: NodeName
	readonly protocol: Protocol
	readonly state?: string
	readonly original: {
		readonly source: Ip
		readonly sourcePort: number
		readonly destination: Ip
		readonly destinationPort: number
	}
	readonly reply: {
		readonly source: Ip
		readonly sourcePort: number
		readonly destination: Ip
		readonly destinationPort: number
	}
}
