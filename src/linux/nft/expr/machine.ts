// The state a rule is evaluated in: 64 bytes of registers, the packet, what conntrack would know, the sets of the table.

import type { Hook, Packet } from '../../../base/packet.ts'
import type { NftElement, NftSet } from '../program.ts'
import type { VerdictName } from '../wire.ts'

/** undefined: the next expression; break: this rule does not match. */
export type Step = undefined | 'break' | Decision

export interface Decision {
	readonly verdict: VerdictName | 'reject'
	/** Of jump and goto. */
	readonly chain?: string
}

export interface Machine {
	readonly registers: Buffer
	packet: Packet
	readonly hook: Hook
	/** Source or destination were translated at this hook: later nat chains of the hook are not asked. */
	translated: boolean
	readonly family: 'ip' | 'ip6'
	findSet(name: string): NftSet
	/** An element by the bytes of its key. */
	findElement(set: NftSet, key: Buffer): { readonly key: string; readonly element: NftElement } | undefined
	/** Notes an element that decided something, as nft prints it. */
	note(set: NftSet, key: string, element: NftElement): void
	/** Calls `put` with one of 0 … n-1; every value that makes a difference is taken in one of the outcomes. */
	choose(n: number, put: (value: number) => void): void
	/** What a rule cannot see in the packet. */
	readonly context: EvaluationContext
}

/** Facts beside the packet that rules may ask for. */
export interface EvaluationContext {
	/** Type of an address on the node: `local`, `unicast`, … */
	readonly addressType?: (ip: string) => string | undefined
	/** conntrack status bits (dnat = 32). Where absent: 0 for a new connection. */
	readonly connectionStatus?: number
	/**
	 * The first packet of the connection as it came to this node, before any translation (`ct original`). Where absent:
	 * the packet itself, if it begins a connection and nothing has translated that.
	 */
	readonly original?: Packet
	/** Whether the way back to an address leads through an interface (`fib saddr . iif oif exists`). */
	readonly wayBack?: (ip: string, device: string) => boolean
	/** Address a masquerade takes for an output interface. */
	readonly masqueradeAddress?: (packet: Packet) => string | undefined
}

/** A rule asks for something that is not known of the packet. The caller says "cannot tell", it does not guess. */
export class NotEvaluable extends Error {
	readonly code = 'NotEvaluable'
}
