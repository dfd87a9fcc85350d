// What one node's iptables hold for Services: a ruleset a family, and what it takes to evaluate and explain them.

import type { Ip, IpFamily } from '../../base/ip.ts'
import { emptyTable, type Table, tableOf } from '../../base/table.ts'
import type { Chain, Ruleset } from '../../linux/iptables/program.ts'
import type { Origin } from '../../model/origin.ts'

export const families: readonly IpFamily[] = [4, 6]

export interface IptablesProgram {
	readonly rulesets: Readonly<Record<IpFamily, Ruleset>>
	/** The node's own addresses, primary ones first: what `addrtype LOCAL` and MASQUERADE mean. Not compared. */
	readonly localAddresses: readonly Ip[]
	/** By `namespace/name:port`, which kube-proxy's comments say: where the port was written. Not compared. */
	readonly origins: Table<string, Origin>
}

export const emptyProgram: IptablesProgram = {
	rulesets: { 4: emptyTable(), 6: emptyTable() },
	localAddresses: [],
	origins: emptyTable(),
}

interface ProgramJson {
	readonly rulesets: Readonly<Record<IpFamily, readonly (readonly [string, Chain])[]>>
	readonly localAddresses: readonly Ip[]
	readonly origins: readonly (readonly [string, Origin])[]
}

/** Counters are left out: they are no part of what a packet meets. */
export function programToJson(program: IptablesProgram): unknown {
	const plain = (ruleset: Ruleset) =>
		[...ruleset].map(([key, chain]) => [
			key,
			{ ...chain, rules: chain.rules.map(({ counters: _, ...rule }) => rule) },
		]) as [string, Chain][]
	const json: ProgramJson = {
		rulesets: { 4: plain(program.rulesets[4]), 6: plain(program.rulesets[6]) },
		localAddresses: program.localAddresses,
		origins: [...program.origins],
	}
	return json
}

export function programFromJson(json: unknown): IptablesProgram {
	const { rulesets, localAddresses, origins } = json as ProgramJson
	return {
		rulesets: { 4: tableOf(rulesets[4]), 6: tableOf(rulesets[6]) },
		localAddresses,
		origins: tableOf(origins),
	}
}
