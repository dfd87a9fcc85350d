// The table of one family in the making: chains, the sets they ask for, and the elements of those, edited in place and
// handed out as values that share what did not change.

import { emptyTable, type Table, tableOf } from '../../base/table.ts'
import type { NftChain, NftElement, NftSet, NftTable } from '../../linux/nft/program.ts'
import {
	baseChains,
	type Family,
	hasSelf,
	namedSet,
	names,
	type PolicyConfig,
	peerSet,
	podMap,
	selfSet,
	tableName,
} from './layout.ts'
import type { GroupChains } from './rules.ts'

type Elements = Table<string, NftElement>
type Declaration = Omit<NftSet, 'elements'>

const noElements: Elements = emptyTable()
/** The table is there while one of them has an element. */
const subjects = [names.ingress, names.egress]

interface Use {
	readonly declaration: Declaration
	/** Of a set whose contents are fixed. */
	readonly constant?: Elements
	/** Chains that ask for it. */
	count: number
}

export class FamilyTable {
	readonly #family: Family
	#chains: Table<string, NftChain>
	/** Of each group of chains, by the name of the first. */
	readonly #chainsOf = new Map<string, readonly string[]>()
	readonly #setsOf = new Map<string, readonly string[]>()
	readonly #uses = new Map<string, Use>()
	readonly #elements = new Map<string, Elements>()
	readonly #edits = new Map<string, Map<string, NftElement | undefined>>()
	readonly #changed = new Set<string>()
	#table: NftTable | undefined

	constructor(family: Family, config: PolicyConfig) {
		this.#family = family
		this.#chains = tableOf(baseChains(family, config).map((chain) => [chain.name, chain]))
		const permanent = [podMap(family, 'ingress'), podMap(family, 'egress')]
		if (hasSelf(config)) permanent.push(selfSet(family))
		for (const declaration of permanent) this.#uses.set(declaration.name, { declaration, count: 1 })
	}

	/** undefined deletes. The last edit of a key counts. */
	edit(set: string, key: string, element: NftElement | undefined): void {
		const edits = this.#edits.get(set)
		if (edits === undefined) this.#edits.set(set, new Map([[key, element]]))
		else edits.set(key, element)
	}

	/** All elements of a set that nobody asks for any more. */
	clear(set: string): void {
		this.#elements.delete(set)
		this.#edits.delete(set)
		this.#changed.add(set)
	}

	/** The names of the sets with changing contents that the chains under this name asked for before: each counts one use less. */
	setChains(name: string, { chains, memberships, domains, constants }: GroupChains): readonly string[] {
		for (const m of memberships) {
			const declare = m.port === undefined ? peerSet : namedSet
			this.#use(m.name, () => ({ declaration: declare(this.#family, m.name, m.comment), count: 0 }))
		}
		for (const { name: set, comment } of domains)
			this.#use(set, () => ({ declaration: peerSet(this.#family, set, comment), count: 0 }))
		for (const { elements, ...declaration } of constants)
			this.#use(declaration.name, () => ({ declaration, constant: elements, count: 0 }))
		const dropped = this.removeChains(name)
		this.#setsOf.set(
			name,
			[...memberships, ...domains, ...constants].map((s) => s.name),
		)
		this.#chainsOf.set(
			name,
			chains.map((c) => c.name),
		)
		for (const chain of chains) this.#chains = this.#chains.set(chain.name, chain)
		return dropped
	}

	/** The names of the sets with changing contents it asked for. */
	removeChains(name: string): readonly string[] {
		for (const chain of this.#chainsOf.get(name) ?? []) this.#chains = this.#chains.delete(chain)
		this.#chainsOf.delete(name)
		return this.#drop(name)
	}

	#use(name: string, make: () => Use): void {
		let use = this.#uses.get(name)
		if (use === undefined) {
			use = make()
			this.#uses.set(name, use)
			this.#changed.add(name)
		}
		use.count++
	}

	#drop(group: string): string[] {
		const memberships: string[] = []
		for (const name of this.#setsOf.get(group) ?? []) {
			const use = this.#uses.get(name)
			if (use === undefined) continue
			if (use.constant === undefined) memberships.push(name)
			if (--use.count > 0) continue
			this.#uses.delete(name)
			this.#changed.add(name)
		}
		this.#setsOf.delete(group)
		return memberships
	}

	/** Undefined where no policy selects a pod of this node in this family. */
	finish(): NftTable | undefined {
		for (const [name, edits] of this.#edits) {
			const before = this.#elements.get(name) ?? noElements
			const after = before.mutate((draft) => {
				for (const [key, element] of edits) {
					if (element === undefined) draft.delete(key)
					else if (!sameElement(draft.get(key), element)) draft.set(key, element)
				}
			})
			if (after === before) continue
			this.#elements.set(name, after)
			this.#changed.add(name)
		}
		this.#edits.clear()
		const pods = subjects.reduce((n, name) => n + (this.#elements.get(name)?.size ?? 0), 0)
		if (pods === 0) {
			this.#table = undefined
			return undefined
		}
		const old = this.#table
		const sets = (old?.sets ?? emptyTable<string, NftSet>()).mutate((draft) => {
			for (const name of old === undefined ? this.#uses.keys() : this.#changed) {
				const use = this.#uses.get(name)
				if (use === undefined) draft.delete(name)
				else {
					const elements = use.constant ?? this.#elements.get(name) ?? noElements
					if (draft.get(name)?.elements !== elements) draft.set(name, { ...use.declaration, elements })
				}
			}
		})
		this.#changed.clear()
		const chains = this.#chains
		if (old !== undefined && old.sets === sets && old.chains === chains) return old
		this.#table = {
			family: this.#family,
			name: tableName,
			comment: 'NetworkPolicy; written by podwire, changes are undone',
			chains,
			sets,
		}
		return this.#table
	}
}

function sameElement(a: NftElement | undefined, b: NftElement): boolean {
	return a !== undefined && a.data === b.data && a.comment === b.comment
}
