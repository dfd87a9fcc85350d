// One form for what the three witnesses say of a flow, so that they can be set side by side:
// should (the model's walk), would (the programs read back from the nodes), did (a real packet).

import type { RuleHit } from '../dataplane/dataplane.ts'
import type { Origin } from '../model/origin.ts'

export type WitnessName = 'should' | 'would' | 'did'

/** The points of a flow's way at which the witnesses are compared, in the order a packet meets them. */
export const stages = ['name', 'service', 'egress', 'route', 'ingress', 'deliver', 'reply'] as const
export type Stage = (typeof stages)[number]

/** What one witness says at one stage. */
export interface Point {
	readonly stage: Stage
	/** Compared between witnesses: an address and port, `allow`, `deny`, `node-1 > node-2`, `connected`, `refused`, `drop`. */
	readonly result: string
	/** For a person: one line. */
	readonly text: string
	readonly because: readonly Origin[]
	readonly rules: readonly RuleHit[]
	/** Further lines: each search-list query, each policy that did not match, the time of each hop. */
	readonly details: readonly string[]
	/** What stands for the details where there is little room. */
	readonly summary?: string
	/** What would change the result: the smallest edit of a policy, and how other implementations decide. */
	readonly advice?: readonly string[]
	/** false: this data plane does not carry out what the stage says yet. */
	readonly enforced?: boolean
}

/** One way a flow may take. The chances of one witness's paths sum to 1. */
export interface Path {
	readonly chance: number
	readonly points: readonly Point[]
	/** `delivered`, or the disposition that ended it (docs/dispositions.md), or what the socket saw: `refused`, `timeout`. */
	readonly disposition: string
	readonly delivered: boolean
	/** Session affinity: a client that came before does not choose, it keeps the endpoint it had. */
	readonly sticky?: true
}

/** What a witness says, or why it cannot be heard. */
export type Testimony =
	| { readonly paths: readonly Path[]; readonly missing: readonly string[] }
	| { readonly silent: string }

export function pointAt(path: Path | undefined, stage: Stage): Point | undefined {
	return path?.points.find((p) => p.stage === stage)
}

/** What tells one path from another: the endpoint the flow is translated to, else where it is delivered. */
export function pathKey(path: Path): string {
	return pointAt(path, 'service')?.result ?? path.disposition
}
