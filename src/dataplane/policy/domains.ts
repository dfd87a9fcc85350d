// The sets of addresses that names of domains have: one for each list of names that a peer gives, whoever gives it. What
// is in them the cluster's DNS server says, through the model.

import { nameMatches } from '../../model/resolved-names.ts'
import { normalName } from '../../model/zone.ts'
import { clip, digest } from './members.ts'

export interface DomainSet {
	/** Of the set. */
	readonly name: string
	readonly comment: string
	/** Names, and `*.` with a name for those below it. */
	readonly entries: readonly string[]
}

export function domainSetOf(names: readonly string[]): DomainSet {
	const entries = [...new Set(names.map(normalName))].sort()
	return { name: `names-${digest(entries)}`, comment: clip(`addresses of ${entries.join(', ')}`), entries }
}

export function meansName({ entries }: DomainSet, name: string): boolean {
	return entries.some((entry) => nameMatches(entry, name))
}
