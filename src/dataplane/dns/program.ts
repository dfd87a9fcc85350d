// The cluster's names as data: what every DNS server of the cluster answers from. Plain JSON but for the table, so that
// changes travel to the process that holds the sockets, and what it really serves can be read back.

import type { Cidr } from '../../base/ip.ts'
import { diffTables, emptyTable, type Table } from '../../base/table.ts'
import type { NetworkModel } from '../../model/network.ts'
import { share } from '../../model/share.ts'
import { type DnsRecord, type Zone, zoneOf } from '../../model/zone.ts'

export interface DnsProgram {
	/** `cluster.local` */
	readonly domain: string
	/** Networks whose reverse names are ours. */
	readonly networks: readonly Cidr[]
	/** By name, lower case, without the final dot. A name without records is one on the way to others. */
	readonly names: Table<string, DnsName>
}

export interface DnsName {
	readonly records: readonly DnsRecord[]
}

export type DnsChange =
	/** Another domain: all names go. */
	| { readonly change: 'zone'; readonly domain: string; readonly networks: readonly Cidr[] }
	| { readonly change: 'name'; readonly name: string; readonly records: readonly DnsRecord[] | null }

/** The zone a program was made from: only a memory, to follow the difference next time. */
const zones = new WeakMap<DnsProgram, Zone>()

/** The program of a model; it is the same for every node. Shares structure with `previous`; the same one where nothing changed. */
export function compileDns(model: NetworkModel, previous?: DnsProgram): DnsProgram {
	const before = previous === undefined ? undefined : zones.get(previous)
	const zone = zoneOf(model, before)
	const { domain, networks, names } = zone
	const same =
		previous !== undefined && before?.names === names && before.domain === domain && before.networks === networks
	const program = same ? previous : { domain, networks, names }
	zones.set(program, zone)
	return program
}

/** What turns `have` into `want`; empty when they answer alike. `have` undefined: nothing is served yet. */
export function diffDns(have: DnsProgram | undefined, want: DnsProgram): DnsChange[] {
	const changes: DnsChange[] = []
	const anew = have === undefined || have.domain !== want.domain
	if (anew || share(have.networks, want.networks) !== have.networks) {
		changes.push({ change: 'zone', domain: want.domain, networks: want.networks })
	}
	// A change of the domain or the networks empties the table of names (`applyDns`), so all are sent again.
	const before = changes.length > 0 ? emptyTable<string, DnsName>() : have!.names
	diffTables(before, want.names, (name, old, now) => {
		if (old !== undefined && now !== undefined && share(old.records, now.records) === old.records) return
		changes.push({ change: 'name', name, records: now?.records ?? null })
	})
	return changes
}

/** Pure: `applyDns(a, diffDns(a, b))` answers as `b`. */
export function applyDns(program: DnsProgram | undefined, changes: readonly DnsChange[]): DnsProgram {
	let { domain, networks, names } = program ?? { domain: '', networks: [], names: emptyTable<string, DnsName>() }
	names = names.mutate((draft) => {
		for (const change of changes) {
			if (change.change === 'name') {
				if (change.records === null) draft.delete(change.name)
				else draft.set(change.name, { records: change.records })
				continue
			}
			domain = change.domain
			networks = change.networks
			for (const name of names.keys()) draft.delete(name)
		}
	})
	return { domain, networks, names }
}
