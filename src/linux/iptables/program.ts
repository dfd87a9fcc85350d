// iptables as data: tables, chains and rules with the matches and targets that kube-proxy uses, structured; whatever
// else a rule holds (other programs' rules) stays as the words iptables-save prints. Reference: iptables-extensions(8).

import type { Cidr, Ip, IpFamily } from '../../base/ip.ts'
import type { Table } from '../../base/table.ts'

export type TableName = 'raw' | 'mangle' | 'nat' | 'filter' | 'security'
export type Policy = 'ACCEPT' | 'DROP'

/** Chains by `chainKey`. One ruleset is of one family. */
export type Ruleset = Table<string, Chain>

export interface Chain {
	readonly table: TableName
	readonly name: string
	/** Set exactly for the chains iptables has itself: PREROUTING, INPUT, … */
	readonly policy?: Policy
	readonly rules: readonly Rule[]
}

export interface Rule {
	readonly source?: Negatable<Cidr>
	readonly destination?: Negatable<Cidr>
	readonly inInterface?: Negatable<string>
	readonly outInterface?: Negatable<string>
	/** `tcp`, `udp`, `sctp`, `icmp`, `ipv6-icmp` or a number. */
	readonly protocol?: Negatable<string>
	/** In order: some (recent) have effects. */
	readonly matches: readonly Match[]
	/** Undefined: the rule only counts. */
	readonly target?: Target
	readonly counters?: Counters
}

export interface Negatable<T> {
	readonly not?: true
	readonly value: T
}

export interface Counters {
	readonly packets: bigint
	readonly bytes: bigint
}

export type ConnectionWord = (typeof connectionWords)[number]
/** In the order in which iptables-save prints them. */
export const connectionWords = ['INVALID', 'NEW', 'RELATED', 'ESTABLISHED', 'UNTRACKED', 'SNAT', 'DNAT'] as const

export type Match =
	| { readonly match: 'comment'; readonly text: string }
	/** `-m tcp --dport 80`; a port is `first:last` where they differ. */
	| {
			readonly match: 'tcp' | 'udp' | 'sctp'
			readonly sport?: Negatable<PortRange>
			readonly dport?: Negatable<PortRange>
	  }
	| { readonly match: 'mark'; readonly not?: true; readonly value: number; readonly mask: number }
	| { readonly match: 'conntrack'; readonly not?: true; readonly states: readonly ConnectionWord[] }
	| {
			readonly match: 'addrtype'
			readonly source?: Negatable<AddressType>
			readonly destination?: Negatable<AddressType>
	  }
	/** `--mode random`; the chance is share / 2^31, as the kernel keeps it. */
	| { readonly match: 'statistic'; readonly not?: true; readonly share: number }
	| {
			readonly match: 'recent'
			readonly not?: true
			readonly op: 'set' | 'rcheck' | 'update' | 'remove'
			readonly name: string
			readonly seconds?: number
			readonly reap?: true
	  }
	| { readonly match: 'set'; readonly not?: true; readonly set: string; readonly fields: readonly ('src' | 'dst')[] }
	| { readonly match: 'other'; readonly words: readonly string[] }

export interface PortRange {
	readonly first: number
	readonly last: number
}

export type AddressType = 'LOCAL' | 'UNICAST' | 'BROADCAST' | 'MULTICAST' | 'ANYCAST' | 'BLACKHOLE' | 'UNREACHABLE'

export type Target =
	| { readonly target: 'accept' | 'drop' | 'return' }
	| { readonly target: 'jump' | 'goto'; readonly chain: string }
	/** The mark becomes (mark & ~mask) ^ value. */
	| { readonly target: 'mark'; readonly value: number; readonly mask: number }
	| { readonly target: 'dnat'; readonly ip: Ip; readonly port?: number }
	| { readonly target: 'masquerade'; readonly randomFully?: true }
	| { readonly target: 'reject'; readonly with: string }
	| { readonly target: 'other'; readonly words: readonly string[] }

export const probabilityUnit = 0x80000000

export function chainKey(table: TableName, name: string): string {
	return `${table} ${name}`
}

/** Without iptables' own chains that hold nothing: they are there as soon as somebody looks. */
export function occupied(ruleset: Ruleset): Ruleset {
	return ruleset.mutate((draft) => {
		for (const [key, { policy, rules }] of ruleset) if (policy === 'ACCEPT' && rules.length === 0) draft.delete(key)
	})
}

/** What REJECT answers where the rule does not say. */
export function defaultReject(family: IpFamily): string {
	return family === 4 ? 'icmp-port-unreachable' : 'icmp6-port-unreachable'
}

/** The text of the rule's comment, undefined where it has none. */
export function commentOf(rule: Rule): string | undefined {
	for (const m of rule.matches) if (m.match === 'comment') return m.text
	return undefined
}

/** The chain a rule leads to. */
export function chainAfter(rule: Rule): string | undefined {
	const { target } = rule
	return target?.target === 'jump' || target?.target === 'goto' ? target.chain : undefined
}
