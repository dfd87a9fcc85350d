// The names that a domainNames peer means, and the addresses they have: those the cluster's DNS server has answered with,
// for as long as its answers hold. Names are lower case without the final dot.
// Source: network-policy-api NPEP-133 and the field's own text in ClusterNetworkPolicy v1alpha2.

import type { Ip } from '../base/ip.ts'
import type { Table } from '../base/table.ts'
import { normalName } from './zone.ts'

/** By name: its addresses, sorted. Those of a CNAME's target are the alias's as well. */
export type ResolvedNames = Table<string, readonly Ip[]>

/**
 * Whether a peer's entry means a name: itself, or with `*.` before it every name below it, however deep, and not itself.
 * Both in any case, with or without the final dot.
 */
export function nameMatches(entry: string, name: string): boolean {
	const [wanted, is] = [normalName(entry), normalName(name)]
	return wanted.startsWith('*.') ? is.length > wanted.length - 1 && is.endsWith(wanted.slice(1)) : is === wanted
}

/** A resolved name is asked for by address again and again. */
const byAddress = new WeakMap<ResolvedNames, ReadonlyMap<Ip, readonly string[]>>()

/** The names that have the address, sorted. */
export function namesAt(names: ResolvedNames, ip: Ip): readonly string[] {
	let index = byAddress.get(names)
	if (index === undefined) {
		const made = new Map<Ip, string[]>()
		for (const name of [...names.keys()].sort())
			for (const each of names.get(name) ?? []) {
				const list = made.get(each)
				if (list === undefined) made.set(each, [name])
				else list.push(name)
			}
		index = made
		byAddress.set(names, index)
	}
	return index.get(ip) ?? []
}

/** Of the names that one of the entries means, the address's. */
export function meantAt(names: ResolvedNames | undefined, entries: readonly string[], ip: Ip): readonly string[] {
	if (names === undefined) return []
	return namesAt(names, ip).filter((name) => entries.some((entry) => nameMatches(entry, name)))
}
