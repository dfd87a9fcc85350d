// Model to program, incrementally: only Services that changed since the last call are looked at, all else is shared with
// the last result. The result depends on the model alone, not on what was compiled before.

import { familyOf, type Ip, type IpFamily } from '../../base/ip.ts'
import { type Draft, diffTables, emptyTable, type Table, tableOf } from '../../base/table.ts'
import { chainKey, type Ruleset } from '../../linux/iptables/program.ts'
import type { Scheduler } from '../../linux/ipvs/ipvs.ts'
import { isProxied, nodePortIps, ownsFrontend } from '../../model/frontends.ts'
import type { NetworkModel, Node, NodeName, Service } from '../../model/network.ts'
import type { ObjectKey } from '../../model/origin.ts'
import { type Contribution, contribute, nothing, type Vantage } from './contribute.ts'
import { setIds, setName } from './layout.ts'
import { emptyProgram, families, type IpvsProgram, splitEntry } from './program.ts'
import { chainsOf, type Shape } from './rules.ts'

export interface Compiled {
	readonly model: Pick<NetworkModel, 'config' | 'services' | 'addresses' | 'frontends'>
	readonly node: Node | undefined
	readonly contributions: Table<ObjectKey, Contribution>
	/** Entries in each set. */
	readonly sizes: Table<string, number>
	/** How many ask that the node not reach a load balancer: `address protocol port`. */
	readonly notFromNode: Table<string, number>
	readonly shapes: Readonly<Record<IpFamily, string>>
	readonly program: IpvsProgram
}

const noShapes = { 4: '', 6: '' }

export function compileProgram(
	model: NetworkModel,
	name: NodeName,
	previous: Compiled | undefined,
	scheduler: Scheduler,
): Compiled {
	const node = model.nodes.get(name)
	const { config, services, addresses, frontends } = model
	const keep =
		previous !== undefined && previous.model.config === config && sameNode(previous.node, node) ? previous : undefined
	const touched = touchedServices(keep?.model, model)
	const seen = { config, services, addresses, frontends }
	if (keep !== undefined && touched.size === 0) return { ...keep, model: seen }
	const vantage: Vantage = {
		node: name,
		...(node?.zone === undefined ? {} : { zone: node.zone }),
		addresses: node?.addresses ?? [],
		nodePortIps: node === undefined ? [] : nodePortIps(model, node),
		scheduler,
		isForeign(ip) {
			const owner = addresses.get(ip)
			return owner !== undefined && owner.kind !== 'service' && !(node?.addresses.includes(ip) ?? false)
		},
	}
	const before = keep?.program ?? emptyProgram
	const changed: [Contribution, Contribution][] = []
	const contributions = (keep?.contributions ?? emptyTable<ObjectKey, Contribution>()).mutate((draft) => {
		for (const [key, service] of touched) {
			const old = draft.get(key) ?? nothing
			const now =
				service === undefined || !isProxied(service)
					? nothing
					: contribute(service, vantage, (f) => ownsFrontend(model, service, f))
			changed.push([old, now])
			if (now === nothing) draft.delete(key)
			else draft.set(key, now)
		}
	})
	const tables = count(before, keep, changed)
	const wanted = families.filter((family) =>
		[...config.podCidrs, ...config.serviceCidrs].some((cidr) => familyOf(cidr) === family),
	)
	const shapes: Record<IpFamily, string> = { 4: '', 6: '' }
	const rulesets: Record<IpFamily, Ruleset> = { 4: emptyTable(), 6: emptyTable() }
	for (const family of wanted) {
		const shape: Shape = {
			family,
			podCidrs: config.podCidrs.filter((cidr) => familyOf(cidr) === family),
			serviceCidrs: config.serviceCidrs.filter((cidr) => familyOf(cidr) === family),
			used: setIds.filter((id) => tables.sizes.has(setName(id, family))),
			notFromNode: [...tables.notFromNode.keys()].filter((key) => familyOf(key.split(' ')[0] as Ip) === family).sort(),
		}
		shapes[family] = JSON.stringify(shape)
		rulesets[family] =
			keep !== undefined && shapes[family] === keep.shapes[family]
				? before.rulesets[family]
				: tableOf(chainsOf(shape).map((chain) => [chainKey(chain.table, chain.name), chain] as const))
	}
	const program: IpvsProgram = {
		servers: tables.servers,
		sets: wanted.flatMap((family) => setIds.map((id) => setName(id, family))).sort(),
		entries: tables.entries,
		device: wanted.length > 0,
		addresses: tables.addresses,
		rulesets,
		localAddresses: node?.addresses ?? [],
		origins: tables.origins,
	}
	const { sizes, notFromNode } = tables
	return { model: seen, node, contributions, sizes, notFromNode, shapes: { ...noShapes, ...shapes }, program }
}

/** What of a node the program depends on; its conditions and labels come and go. */
function sameNode(a: Node | undefined, b: Node | undefined): boolean {
	return a?.name === b?.name && a?.zone === b?.zone && a?.addresses.join() === b?.addresses.join()
}

/** Services that differ, and those one of whose frontends changed hands; undefined where it is gone. */
function touchedServices(
	before: Compiled['model'] | undefined,
	model: NetworkModel,
): ReadonlyMap<ObjectKey, Service | undefined> {
	const touched = new Map<ObjectKey, Service | undefined>()
	diffTables(before?.services ?? emptyTable<ObjectKey, Service>(), model.services, (key, _, now) => {
		touched.set(key, now)
	})
	if (before === undefined) return touched
	const also = (key: ObjectKey | undefined) => {
		const service = key === undefined ? undefined : model.services.get(key)
		if (service !== undefined) touched.set(service.key, service)
	}
	diffTables(before.frontends, model.frontends, (_, a, b) => {
		also(a)
		also(b)
	})
	// Services that claim an address of a node or a pod as external: hardly ever any.
	const claimants = claims(model)
	diffTables(before.addresses, model.addresses, (ip, a, b) => {
		for (const owner of [a, b]) {
			if (owner?.kind === 'service') also(owner.service)
			else if (owner !== undefined) claimants.get(ip)?.forEach(also)
		}
	})
	return touched
}

function claims(model: NetworkModel): ReadonlyMap<string, ObjectKey[]> {
	const found = new Map<string, ObjectKey[]>()
	for (const [key, service] of model.frontends) {
		const ip = key.slice(0, key.indexOf(' '))
		if (!ip.startsWith('*')) found.set(ip, [...(found.get(ip) ?? []), service])
	}
	return found
}

/** First everything that goes, then everything that comes: an address may move from one Service to another. */
function count(
	before: IpvsProgram,
	keep: Compiled | undefined,
	changed: readonly (readonly [Contribution, Contribution])[],
) {
	const sizes = new Map(keep?.sizes ?? [])
	const step = <K extends string>(draft: Draft<K, number>, key: K, by: 1 | -1): number => {
		const n = (draft.get(key) ?? 0) + by
		if (n === 0) draft.delete(key)
		else draft.set(key, n)
		return n
	}
	const entries = before.entries.mutate((draft) => {
		const put = (key: string, by: 1 | -1) => {
			const n = step(draft, key, by)
			const [set] = splitEntry(key)
			if (n === 0 && by < 0) sizes.set(set, (sizes.get(set) ?? 0) - 1)
			else if (n === 1 && by > 0) sizes.set(set, (sizes.get(set) ?? 0) + 1)
		}
		for (const [old] of changed) for (const key of old.entries) put(key, -1)
		for (const [, now] of changed) for (const key of now.entries) put(key, 1)
	})
	const addresses = before.addresses.mutate((draft) => {
		for (const [old] of changed) for (const ip of old.addresses) step(draft, ip, -1)
		for (const [, now] of changed) for (const ip of now.addresses) step(draft, ip, 1)
	})
	const notFromNode = (keep?.notFromNode ?? emptyTable<string, number>()).mutate((draft) => {
		for (const [old] of changed) for (const key of old.notFromNode) step(draft, key, -1)
		for (const [, now] of changed) for (const key of now.notFromNode) step(draft, key, 1)
	})
	const servers = before.servers.mutate((draft) => {
		const old = new Map(changed.flatMap(([gone]) => gone.servers.map(([key, entry]) => [key, entry] as const)))
		for (const [, now] of changed) {
			for (const [key, entry] of now.servers) {
				const same = old.get(key)
				old.delete(key)
				if (same === undefined || JSON.stringify(same) !== JSON.stringify(entry)) draft.set(key, entry)
			}
		}
		for (const key of old.keys()) draft.delete(key)
	})
	const origins = before.origins.mutate((draft) => {
		for (const [old] of changed) for (const [key] of old.servers) draft.delete(key)
		for (const [, now] of changed) for (const [key, , origin] of now.servers) draft.set(key, origin)
	})
	const used = tableOf([...sizes].filter(([, n]) => n > 0))
	return { entries, addresses, notFromNode, servers, origins, sizes: used }
}
