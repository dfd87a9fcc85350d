// One family's sets while they are edited, and the table they make: what is counted while elements come and go decides
// which chains there are, so that nobody ever walks all elements.

import { type Cidr, cidrAddress, cidrLength, familyOf, type Ip, ipToBytes } from '../../base/ip.ts'
import { emptyTable, type Table, tableOf } from '../../base/table.ts'
import { bareElement, type NftElement, type NftSet, type NftTable } from '../../linux/nft/program.ts'
import type { NetworkConfig } from '../../model/network.ts'
import {
	type Choice,
	countManyOf,
	endpointsOf,
	type Family,
	largestClass,
	makeSet,
	names,
	pickChain,
	type SharedSet,
	sharedSets,
	tableName,
} from './layout.ts'
import { chainsOf, type ProtocolName, protocolNames, type Shape, shapeText } from './skeleton.ts'

export type Elements = Table<string, NftElement>

export interface FamilyState {
	readonly sets: ReadonlyMap<string, Elements>
	/** Of the shared sets: how many frontends ask for each element. */
	readonly shares: Readonly<Record<SharedSet, Table<string, number>>>
	/**
	 * A handful of things the chains depend on: `goto pick-12` frontends of so many endpoints, `protocol tcp` external
	 * frontends with policy Cluster, `outside` ClusterIPs outside of the Service networks, `inside` external frontends
	 * inside of them.
	 */
	readonly counts: ReadonlyMap<string, number>
	readonly shape: string
	readonly table: NftTable | undefined
}

export const nothing: FamilyState = {
	sets: new Map(),
	shares: { [names.externalIps]: emptyTable(), [names.hairpinElsewhere]: emptyTable() },
	counts: new Map(),
	shape: '',
	table: undefined,
}

/** Sets that rules name also when they are empty; all others come and go with their elements. */
const permanent = [names.clusterIps, names.hairpin, names.noEndpoints, names.noLocalEndpoints]

/** Edits of one family's sets, gathered before they are made. */
export class Work {
	readonly #state: FamilyState
	readonly #inside: (ip: Ip) => boolean
	/** By set: key, element, key, element, …; a key comes once. */
	readonly #edits = new Map<string, (string | NftElement | undefined)[]>()
	/** By how much the counts change. */
	readonly #counts = new Map<string, number>()
	readonly #shares: Readonly<Record<SharedSet, Map<string, number>>> = {
		[names.externalIps]: new Map(),
		[names.hairpinElsewhere]: new Map(),
	}

	/** `inside`: whether an address lies in the Service networks. */
	constructor(state: FamilyState, inside: (ip: Ip) => boolean) {
		this.#state = state
		this.#inside = inside
	}

	/** An element comes; `before`: that of its key so far. */
	put(set: string, key: string, element: NftElement, before?: NftElement): void {
		if (before !== undefined) this.#account(set, key, before, -1)
		this.#account(set, key, element, 1)
		this.edit(set, key, element)
	}

	take(set: string, key: string, element: NftElement): void {
		this.#account(set, key, element, -1)
		this.edit(set, key, undefined)
	}

	/** One frontend more or less that asks for the element. */
	share(set: SharedSet, key: string, by: 1 | -1): void {
		add(this.#shares[set], key, by)
		if (set === names.externalIps && this.#inside(key as Ip)) add(this.#counts, 'inside', by)
	}

	/** undefined deletes. Counts nothing. */
	edit(set: string, key: string, element: NftElement | undefined): void {
		let edits = this.#edits.get(set)
		if (edits === undefined) {
			edits = []
			this.#edits.set(set, edits)
		}
		edits.push(key, element)
	}

	#account(set: string, key: string, element: NftElement, by: 1 | -1): void {
		switch (set) {
			case names.clusterIps:
				if (!this.#inside(key as Ip)) add(this.#counts, 'outside', by)
				return
			case names.policyCluster:
				add(this.#counts, `protocol ${key.split(' . ', 2)[1]}`, by)
				return
			case countManyOf('all'):
			case countManyOf('local'):
				add(this.#counts, element.data ?? '', by)
				return
			default:
				return
		}
	}

	finish(family: Family, config: NetworkConfig): FamilyState {
		const old = this.#state
		const shares = this.#finishShares()
		const counts = this.#finishCounts()
		const sets = this.#finishSets()
		const wanted = [...config.serviceCidrs, ...config.podCidrs].some((c) => (familyOf(c) === 4) === (family === 'ip'))
		if (!wanted && (sets.get(names.clusterIps)?.size ?? 0) === 0) return { ...nothing, sets, shares, counts }
		const shape = shapeOf(family, config, sets, counts)
		const text = shapeText(shape)
		const same = old.table !== undefined && old.shape === text ? old.table : undefined
		if (same !== undefined && sets === old.sets) return { ...old, shares, counts }
		const table: NftTable = {
			family,
			name: tableName,
			comment: 'Services; written by podwire, changes are undone',
			chains: same?.chains ?? tableOf(chainsOf(shape).map((chain) => [chain.name, chain] as const)),
			sets: this.#tableSets(family, sets, shape),
		}
		return { sets, shares, counts, shape: text, table }
	}

	#finishShares(): FamilyState['shares'] {
		const { shares } = this.#state
		if (sharedSets.every((set) => this.#shares[set].size === 0)) return shares
		return {
			[names.externalIps]: this.#finishShare(names.externalIps),
			[names.hairpinElsewhere]: this.#finishShare(names.hairpinElsewhere),
		}
	}

	#finishShare(set: SharedSet): Table<string, number> {
		const changes = this.#shares[set]
		if (changes.size === 0) return this.#state.shares[set]
		return this.#state.shares[set].mutate((draft) => {
			for (const [key, by] of changes) {
				const before = draft.get(key) ?? 0
				const after = before + by
				if (after === 0) draft.delete(key)
				else draft.set(key, after)
				if ((before === 0) !== (after === 0)) this.edit(set, key, after === 0 ? undefined : bareElement)
			}
		})
	}

	#finishCounts(): ReadonlyMap<string, number> {
		if (this.#counts.size === 0) return this.#state.counts
		const counts = new Map(this.#state.counts)
		for (const [key, by] of this.#counts) add(counts, key, by)
		return counts
	}

	#finishSets(): ReadonlyMap<string, Elements> {
		if (this.#edits.size === 0) return this.#state.sets
		const sets = new Map(this.#state.sets)
		for (const [name, edits] of this.#edits) {
			const elements = (sets.get(name) ?? emptyTable<string, NftElement>()).mutate((draft) => {
				for (let i = 0; i < edits.length; i += 2) {
					const key = edits[i] as string
					const element = edits[i + 1] as NftElement | undefined
					if (element === undefined) draft.delete(key)
					else draft.set(key, element)
				}
			})
			if (elements.size === 0) sets.delete(name)
			else sets.set(name, elements)
		}
		return sets
	}

	#tableSets(family: Family, sets: ReadonlyMap<string, Elements>, shape: Shape): Table<string, NftSet> {
		const all: [string, Elements][] = [...sets]
		for (const name of permanent) if (!sets.has(name)) all.push([name, emptyTable()])
		if (shape.affinities.length > 0) all.push([names.clients, emptyTable()])
		// Everybody outside of the ranges is refused, also where there is none of this family.
		if (shape.restricted && !sets.has(names.sourceRanges)) all.push([names.sourceRanges, emptyTable()])
		const old = this.#state.table?.sets
		return (old ?? emptyTable<string, NftSet>()).mutate((draft) => {
			const wanted = new Set(all.map(([name]) => name))
			for (const name of old?.keys() ?? []) if (!wanted.has(name)) draft.delete(name)
			for (const [name, elements] of all) {
				if (draft.get(name)?.elements !== elements) draft.set(name, makeSet(family, name, elements))
			}
		})
	}
}

function add(counts: Map<string, number>, key: string, by: number): void {
	const after = (counts.get(key) ?? 0) + by
	if (after === 0) counts.delete(key)
	else counts.set(key, after)
}

function shapeOf(
	family: Family,
	{ serviceCidrs, podCidrs }: NetworkConfig,
	sets: ReadonlyMap<string, Elements>,
	counts: ReadonlyMap<string, number>,
): Shape {
	return {
		family,
		serviceCidrs,
		podCidrs,
		outside: counts.has('outside'),
		external: sets.has(names.externalIps),
		externalInside: counts.has('inside'),
		policyCluster: protocolNames.filter((name: ProtocolName) => counts.has(`protocol ${name}`)),
		policyLocal: sets.has(names.policyLocal),
		hairpinElsewhere: sets.has(names.hairpinElsewhere),
		restricted: sets.has(names.restricted),
		counts: { all: countsOf('all', sets, counts), local: countsOf('local', sets, counts) },
		affinities: [...sets.keys()]
			.filter((name) => name.startsWith('affinity-'))
			.map((name) => Number(name.slice('affinity-'.length)))
			.sort((a, b) => a - b),
	}
}

function countsOf(
	choice: Choice,
	sets: ReadonlyMap<string, Elements>,
	counts: ReadonlyMap<string, number>,
): readonly number[] {
	const found: number[] = []
	for (let n = 1; n <= largestClass; n++) if (sets.has(endpointsOf(choice, n))) found.push(n)
	const prefix = `goto ${pickChain(choice, 0).slice(0, -1)}`
	for (const key of counts.keys()) if (key.startsWith(prefix)) found.push(Number(key.slice(prefix.length)))
	return found.sort((a, b) => a - b)
}

/** Whether an address is in one of the networks: asked for every Service of a load. */
export function networksOf(cidrs: readonly Cidr[]): (ip: Ip) => boolean {
	const networks = cidrs.map((cidr) => ({ bytes: ipToBytes(cidrAddress(cidr)), bits: cidrLength(cidr) }))
	return (ip) => {
		const bytes = ipToBytes(ip)
		return networks.some((network) => {
			if (network.bytes.length !== bytes.length) return false
			for (let i = 0; i * 8 < network.bits; i++) {
				const mask = (0xff00 >> Math.min(8, network.bits - i * 8)) & 0xff
				if ((((bytes[i] ?? 0) ^ (network.bytes[i] ?? 0)) & mask) !== 0) return false
			}
			return true
		})
	}
}
