// The rules one class is subject to, and what is asked of them one at a time.

import type { IpFamily } from '../base/ip.ts'
import { contains, intervalOf } from './addresses.ts'
import { eachOfAll } from './bits.ts'
import type { EndClass } from './classes.ts'
import type { Block, CompiledPolicy, CompiledRule } from './compile.ts'

/** The rules that one class is subject to in one direction; shared by all classes with the same. */
export interface Profile {
	readonly admin: readonly CompiledRule[]
	/** Undefined: no NetworkPolicy isolates. */
	readonly rules: readonly CompiledRule[] | undefined
	/** All that isolate are on trial: what none of their rules allows goes on to the tier behind. */
	readonly trial: boolean
	readonly baseline: readonly CompiledRule[]
	readonly policies: readonly CompiledPolicy[]
	/** For ingress: a destination with the named ports that the rules are about. */
	readonly destination: EndClass | undefined
	/** No rule at all, and nothing isolates: everything is allowed. */
	readonly open: boolean
	/** Some peer is told by the labels of its namespace. */
	readonly asksNamespaces: boolean
	users: number
	/** By class, and by piece of the address space; made when first asked for. */
	row: Uint32Array | undefined
	pieces: Uint32Array | undefined
}

/** Not only rules that add up. */
export function isOrdered(profile: Profile): boolean {
	return profile.admin.length > 0 || profile.baseline.length > 0 || profile.trial
}

export function matchesClass(rule: CompiledRule, id: number): boolean {
	return rule.peers === undefined || rule.peers.some(({ matchers }) => matchers.every((m) => m.bits.has(id)))
}

export function holds(block: Block, family: IpFamily, position: number | bigint): boolean {
	if (!contains(intervalOf(block.cidr), family, position)) return false
	return !block.except.some((cidr) => contains(intervalOf(cidr), family, position))
}

export function eachSubject(policy: CompiledPolicy, each: (id: number) => void): void {
	eachOfAll(
		policy.subject.map((m) => m.bits),
		each,
	)
}

export function byKey(a: { readonly key: string }, b: { readonly key: string }): number {
	return a.key < b.key ? -1 : a.key > b.key ? 1 : 0
}
