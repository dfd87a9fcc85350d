// Model to program, incrementally: only Services, addresses and pods that changed since the last call are looked at, all
// else is shared with the last result. The result depends on the model alone, not on what was compiled before.

import { type Cidr, cidrAddress, cidrLength, familyOf, type Ip, ipToBytes } from '../../base/ip.ts'
import { diffTables, emptyTable, type Table, tableOf } from '../../base/table.ts'
import { type NftElement, type NftProgram, type NftSet, type NftTable, tableKey } from '../../linux/nft/program.ts'
import {
	type AddressOwner,
	type NetworkConfig,
	type NetworkModel,
	type NodeName,
	type Pod,
	podAddresses,
	type Service,
} from '../../model/network.ts'
import type { ObjectKey } from '../../model/origin.ts'
import { originComment } from '../origin.ts'
import { contribute, type Emit, type Vantage } from './contribute.ts'
import { endpointsOf, type Family, largestClass, makeSet, names, tableName } from './layout.ts'
import { chainsOf, type Shape, shapeText } from './skeleton.ts'

type Elements = Table<string, NftElement>

interface FamilyState {
	readonly sets: ReadonlyMap<string, Elements>
	/** Service ports by endpoint count, of those with many. */
	readonly many: ReadonlyMap<number, number>
	/** Service addresses outside the Service networks. */
	readonly outside: number
	readonly shape: string
	readonly table: NftTable | undefined
}

export interface Compiled {
	readonly model: Pick<NetworkModel, 'config' | 'services' | 'addresses' | 'pods'>
	readonly vantage: Vantage
	readonly families: Readonly<Record<Family, FamilyState>>
	readonly program: NftProgram
}

const nothing: FamilyState = { sets: new Map(), many: new Map(), outside: 0, shape: '', table: undefined }

export function compileProgram(model: NetworkModel, node: NodeName, previous: Compiled | undefined): Compiled {
	const zone = model.nodes.get(node)?.zone
	const vantage: Vantage = { node, ...(zone === undefined ? {} : { zone }) }
	const keep =
		previous !== undefined &&
		previous.vantage.node === node &&
		previous.vantage.zone === zone &&
		previous.model.config === model.config
			? previous
			: undefined
	const before = keep?.model
	const work = { ip: new Work(keep?.families.ip ?? nothing), ip6: new Work(keep?.families.ip6 ?? nothing) }
	changeServices(before, model, vantage, model.config, work)
	changeHairpins(before, model, node, work)
	const families = {
		ip: work.ip.finish('ip', model.config),
		ip6: work.ip6.finish('ip6', model.config),
	}
	const tables = [families.ip.table, families.ip6.table].filter((t) => t !== undefined)
	const same =
		keep !== undefined && families.ip.table === keep.families.ip.table && families.ip6.table === keep.families.ip6.table
	const program = same ? keep.program : { tables: tableOf(tables.map((t) => [tableKey(t.family, t.name), t] as const)) }
	const { config, services, addresses, pods } = model
	return { model: { config, services, addresses, pods }, vantage, families, program }
}

/** Edits of one family's sets, gathered before they are made. */
class Work {
	readonly #state: FamilyState
	/** By set: key, element, key, element, …; a key comes once. */
	readonly #edits = new Map<string, (string | NftElement | undefined)[]>()
	readonly #many: Map<number, number>
	#outside: number

	constructor(state: FamilyState) {
		this.#state = state
		this.#many = new Map(state.many)
		this.#outside = state.outside
	}

	/** undefined deletes. */
	edit(set: string, key: string, element: NftElement | undefined): void {
		let edits = this.#edits.get(set)
		if (edits === undefined) {
			edits = []
			this.#edits.set(set, edits)
		}
		edits.push(key, element)
	}

	countMany(element: NftElement, by: 1 | -1): void {
		const n = Number((element.data as string).slice('goto pick-'.length))
		const count = (this.#many.get(n) ?? 0) + by
		if (count === 0) this.#many.delete(n)
		else this.#many.set(n, count)
	}

	countOutside(by: 1 | -1): void {
		this.#outside += by
	}

	finish(family: Family, config: NetworkConfig): FamilyState {
		const old = this.#state
		const wanted = [...config.serviceCidrs, ...config.podCidrs].some((c) => (familyOf(c) === 4) === (family === 'ip'))
		const sets = this.#sets()
		if (!wanted && (sets.get(names.clusterIps)?.size ?? 0) === 0) return { ...nothing, sets, outside: this.#outside }
		const shape: Shape = {
			family,
			serviceCidrs: config.serviceCidrs,
			outside: this.#outside > 0,
			counts: countsOf(sets, this.#many),
			affinities: [...sets.keys()]
				.filter((name) => name.startsWith('affinity-'))
				.map((name) => Number(name.slice('affinity-'.length)))
				.sort((a, b) => a - b),
		}
		const text = shapeText(shape)
		if (old.table !== undefined && old.shape === text && sets === old.sets) return old
		const chains =
			old.table !== undefined && old.shape === text
				? old.table.chains
				: tableOf(chainsOf(shape).map((chain) => [chain.name, chain] as const))
		const table: NftTable = {
			family,
			name: tableName,
			comment: 'Services; written by podwire, changes are undone',
			chains,
			sets: this.#tableSets(family, sets, shape),
		}
		return { sets, many: this.#many, outside: this.#outside, shape: text, table }
	}

	#sets(): ReadonlyMap<string, Elements> {
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

	/** The sets rules always name are there also when empty; the others come and go with their elements. */
	#tableSets(family: Family, sets: ReadonlyMap<string, Elements>, shape: Shape): Table<string, NftSet> {
		const all: [string, Elements][] = [...sets]
		for (const name of [names.clusterIps, names.hairpin, names.noEndpoints, names.noLocalEndpoints]) {
			if (!sets.has(name)) all.push([name, emptyTable()])
		}
		if (shape.affinities.length > 0) all.push([names.clients, emptyTable()])
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

function countsOf(sets: ReadonlyMap<string, Elements>, many: ReadonlyMap<number, number>): number[] {
	const counts = [...many.keys()]
	for (let n = 1; n <= largestClass; n++) if (sets.has(endpointsOf(n))) counts.push(n)
	return counts.sort((a, b) => a - b)
}

function changeServices(
	before: Compiled['model'] | undefined,
	model: NetworkModel,
	vantage: Vantage,
	config: NetworkConfig,
	work: Readonly<Record<Family, Work>>,
): void {
	const services = before?.services ?? emptyTable<ObjectKey, Service>()
	const leaving: Service[] = []
	const coming: Service[] = []
	diffTables(services, model.services, (_, a, b) => {
		if (a !== undefined) leaving.push(a)
		if (b !== undefined) coming.push(b)
	})
	// A Service that is the same may have gained or lost an address that another one claims, too.
	const claimed = before === undefined ? undefined : claims(before, model)
	for (const key of claimed ?? []) {
		const service = model.services.get(key)
		if (service === undefined || services.get(key) !== service) continue
		leaving.push(service)
		coming.push(service)
	}
	const ownerBefore = (ip: Ip): AddressOwner | undefined => before?.addresses.get(ip)
	const ownerNow = (ip: Ip): AddressOwner | undefined => model.addresses.get(ip)
	const inside = networksOf(config.serviceCidrs)
	// First everything that goes, then everything that comes: an address may move from one Service to another.
	const gone = new Map<string, Contribution>()
	for (const service of leaving) {
		contribute(service, vantage, ownerBefore, (family, set, at, element) => {
			gone.set(`${family} ${set} ${at}`, { family, set, key: at, element })
		})
	}
	const put: Emit = (family, set, at, element) => {
		const id = gone.size === 0 ? '' : `${family} ${set} ${at}`
		const old = id === '' ? undefined : gone.get(id)
		if (old !== undefined) {
			gone.delete(id)
			if (old.element.data === element.data && old.element.comment === element.comment) return
			account(work[family], set, at, old.element, inside, -1)
		}
		account(work[family], set, at, element, inside, 1)
		work[family].edit(set, at, element)
	}
	for (const service of coming) contribute(service, vantage, ownerNow, put)
	for (const { family, set, key, element } of gone.values()) {
		account(work[family], set, key, element, inside, -1)
		work[family].edit(set, key, undefined)
	}
}

interface Contribution {
	readonly family: Family
	readonly set: string
	readonly key: string
	readonly element: NftElement
}

/** Services one of whose addresses changed hands. */
function claims(before: Compiled['model'], model: NetworkModel): Set<ObjectKey> {
	const keys = new Set<ObjectKey>()
	diffTables(before.addresses, model.addresses, (_, a, b) => {
		if (a?.kind === 'service') keys.add(a.service)
		if (b?.kind === 'service') keys.add(b.service)
	})
	return keys
}

function account(
	work: Work,
	set: string,
	key: string,
	element: NftElement,
	inside: (ip: Ip) => boolean,
	by: 1 | -1,
): void {
	if (set === names.countMany) work.countMany(element, by)
	else if (set === names.clusterIps && !inside(key as Ip)) work.countOutside(by)
}

/** Whether an address is in one of the networks: asked for every Service of a load. */
function networksOf(cidrs: readonly Cidr[]): (ip: Ip) => boolean {
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

/** The pods of this node that could reach themselves through a Service. */
function changeHairpins(
	before: Compiled['model'] | undefined,
	model: NetworkModel,
	node: NodeName,
	work: Readonly<Record<Family, Work>>,
): void {
	const touched = new Set<Ip>()
	const none = emptyTable<ObjectKey, Pod>()
	diffTables(before?.pods ?? none, model.pods, (_, a, b) => {
		for (const ip of [...podAddresses(a), ...podAddresses(b)]) touched.add(ip)
	})
	diffTables(before?.addresses ?? emptyTable<Ip, AddressOwner>(), model.addresses, (ip, a, b) => {
		if (a?.kind === 'pod' || b?.kind === 'pod') touched.add(ip)
	})
	for (const ip of touched) {
		const family: Family = familyOf(ip) === 4 ? 'ip' : 'ip6'
		const was = before === undefined ? undefined : localPod(before, ip, node)
		const is = localPod(model, ip, node)
		const key = `${ip} . ${ip}`
		if (is === undefined) {
			if (was !== undefined) work[family].edit(names.hairpin, key, undefined)
		} else {
			const comment = originComment({ kind: 'Pod', key: is.key })
			if (was === undefined || originComment({ kind: 'Pod', key: was.key }) !== comment) {
				work[family].edit(names.hairpin, key, { comment })
			}
		}
	}
}

function localPod(model: Pick<NetworkModel, 'pods' | 'addresses'>, ip: Ip, node: NodeName): Pod | undefined {
	const owner = model.addresses.get(ip)
	const pod = owner?.kind === 'pod' ? model.pods.get(owner.pod) : undefined
	return pod !== undefined && pod.node === node && podAddresses(pod).includes(ip) ? pod : undefined
}
