// The contract of every data plane: a program is data; declare, don't command.

import type { Hook, Packet } from '../base/packet.ts'
import type { NetworkModel, NodeName } from '../model/network.ts'
import type { Origin } from '../model/origin.ts'

export interface Dataplane<Program, Change> {
	/** Pure. The program this node needs. Shares structure with an earlier result where the model does. */
	compile(model: NetworkModel, node: NodeName): Program
	/** Pure. What turns `have` into `want`; empty when equal. `have` undefined: nothing is installed. */
	diff(have: Program | undefined, want: Program): readonly Change[]
	/** One transaction where the kernel has one. Says what was truly reached. */
	apply(changes: readonly Change[], signal?: AbortSignal): Promise<Outcome>
	/** What is really installed, in the program's own terms; origins from the kernel's comments. */
	read(signal?: AbortSignal): Promise<Program>
	/** Pure. All outcomes for one packet at one hook, with their chances; names the rule that decided. */
	evaluate(program: Program, packet: Packet, at: Hook): readonly Evaluated[]
}

/**
 * ok: everything was applied. Otherwise nothing of a failed transaction is in force, and `error` says why; where the
 * kernel has no transactions, `failed` are the positions of the changes that are not in force, all others are.
 */
export type Outcome =
	| { readonly ok: true }
	| { readonly ok: false; readonly error: Error; readonly applied: number; readonly failed?: readonly number[] }

export interface Evaluated {
	readonly verdict: 'accept' | 'drop' | 'reject'
	readonly packet: Packet
	/** Every rule that matched, in order; the last one decided. */
	readonly rules: readonly RuleHit[]
	readonly chance: number
}

/** A rule in the kernel as a person finds it again: `nft -a list chain inet podwire services`. */
export interface RuleHit {
	readonly family: string
	readonly table: string
	readonly chain: string
	/** The kernel's handle; undefined in a program that was compiled and not read. */
	readonly handle?: number
	/** As nft prints it. */
	readonly text: string
	readonly comment?: string
	/** Map or set elements that were looked up on the way, as nft prints them. */
	readonly elements: readonly string[]
	readonly because: readonly Origin[]
}

/** kube-proxy's modes and one more; `--service-proxy`. */
export type ServiceProxyMode = 'nftables' | 'ebpf' | 'iptables' | 'ipvs'

/**
 * A data plane that carries Services. In mode ebpf the agent keeps an nftables one beside it, for what sockets do not
 * see: forwarded packets, node ports, clients outside.
 */
export interface ServiceDataplane<Program, Change> extends Dataplane<Program, Change> {
	/** The program of a cluster without Services: bringing a node to it leaves nothing of this data plane in the kernel. */
	readonly empty: Program
	/** Programs cross sockets as JSON: what `read` gave on a node is evaluated elsewhere. */
	toJson(program: Program): unknown
	fromJson(json: unknown): Program
	/** Closes descriptors; what is installed stays. */
	close(): void
}
