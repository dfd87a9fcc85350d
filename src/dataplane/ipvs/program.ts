// What IPVS mode holds on one node: virtual servers with their destinations, sets, addresses of the dummy device, and the
// iptables rules that look into the sets.

import type { Ip, IpFamily } from '../../base/ip.ts'
import { emptyTable, type Table, tableOf } from '../../base/table.ts'
import type { Chain, Ruleset } from '../../linux/iptables/program.ts'
import type { Destination, ServerAddress, VirtualServer } from '../../linux/ipvs/ipvs.ts'
import type { Origin } from '../../model/origin.ts'

export const families: readonly IpFamily[] = [4, 6]

export interface ServerEntry {
	readonly server: VirtualServer
	/** Sorted by address, then port. */
	readonly destinations: readonly Destination[]
}

export interface IpvsProgram {
	/** By serverKey. */
	readonly servers: Table<string, ServerEntry>
	/** Names of our sets that are there. */
	readonly sets: readonly string[]
	/** `SET ENTRY` → how many ask for it: 1 or more. */
	readonly entries: Table<string, number>
	/** The dummy device is there. */
	readonly device: boolean
	/** Its addresses → how many ask for it. */
	readonly addresses: Table<Ip, number>
	readonly rulesets: Readonly<Record<IpFamily, Ruleset>>
	/** The node's own addresses, primary ones first. Not compared. */
	readonly localAddresses: readonly Ip[]
	/** By serverKey: the port of the Service that has the address. Not compared. */
	readonly origins: Table<string, Origin>
}

export const emptyProgram: IpvsProgram = {
	servers: emptyTable(),
	sets: [],
	entries: emptyTable(),
	device: false,
	addresses: emptyTable(),
	rulesets: { 4: emptyTable(), 6: emptyTable() },
	localAddresses: [],
	origins: emptyTable(),
}

export function serverKey({ protocol, ip, port }: ServerAddress): string {
	return `${protocol} ${ip} ${port}`
}

export function entryKey(set: string, entry: string): string {
	return `${set} ${entry}`
}

/** Set and entry of an entryKey. */
export function splitEntry(key: string): readonly [set: string, entry: string] {
	const space = key.indexOf(' ')
	return [key.slice(0, space), key.slice(space + 1)]
}

type Entries<V> = readonly (readonly [string, V])[]

interface ProgramJson extends Omit<IpvsProgram, 'servers' | 'entries' | 'addresses' | 'rulesets' | 'origins'> {
	readonly servers: Entries<ServerEntry>
	readonly entries: Entries<number>
	readonly addresses: readonly (readonly [Ip, number])[]
	readonly rulesets: Readonly<Record<IpFamily, Entries<Chain>>>
	readonly origins: Entries<Origin>
}

/** Counters of rules are left out: they are no part of what a packet meets. */
export function programToJson(program: IpvsProgram): unknown {
	const plain = (ruleset: Ruleset) =>
		[...ruleset].map(([key, chain]): [string, Chain] => [
			key,
			{ ...chain, rules: chain.rules.map(({ counters: _, ...rule }) => rule) },
		])
	const { sets, device, localAddresses } = program
	const json: ProgramJson = {
		servers: [...program.servers],
		sets,
		entries: [...program.entries],
		device,
		addresses: [...program.addresses],
		rulesets: { 4: plain(program.rulesets[4]), 6: plain(program.rulesets[6]) },
		localAddresses,
		origins: [...program.origins],
	}
	return json
}

export function programFromJson(json: unknown): IpvsProgram {
	const { servers, entries, addresses, rulesets, origins, ...rest } = json as ProgramJson
	return {
		...rest,
		servers: tableOf(servers),
		entries: tableOf(entries),
		addresses: tableOf(addresses),
		rulesets: { 4: tableOf(rulesets[4]), 6: tableOf(rulesets[6]) },
		origins: tableOf(origins),
	}
}
