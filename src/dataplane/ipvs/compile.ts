// Model to program, incrementally: only Services that changed since the last call are looked at, all else is shared with
// the last result. The result depends on the model alone, not on what was compiled before.

import { familyOf, type Ip, type IpFamily } from '../../base/ip.ts'
import { type Draft, diffTables, emptyTable, type Table, tableOf } from '../../base/table.ts'
import { chainKey, type Ruleset } from '../../linux/iptables/program.ts'
import type { Scheduler } from '../../linux/ipvs/ipvs.ts'
import { changedServices, isProxied, nodePortIps, ownsFrontend, sameNode } from '../../model/frontends.ts'
import type { NetworkModel, Node, NodeName } from '../../model/network.ts'
import type { ObjectKey } from '../../model/origin.ts'
import { type Contribution, contribute, nothing, type Vantage } from './contribute.ts'
import { setIds, setName } from './layout.ts'
import { emptyProgram, families, type IpvsProgram, splitEntry } from './program.ts'
import { chainsOf, type Shape } from './rules.ts'

export interface Compiled {
	readonly model: Pick<NetworkModel, 'config' | 'services' | 'addresses' | 'frontends'>
	readonly node: Node | undefined
	readonly scheduler: Scheduler
	readonly contributions: Table<ObjectKey, Contribution>
	/** Frontends other than ClusterIPs and node ports by their address: who has to be asked when it is somebody's. */
	readonly claims: Claims
	/** Entries in each set. */
	readonly sizes: Table<string, number>
	/** How many ask that the node not reach a load balancer: `address protocol port`. */
	readonly notFromNode: Table<string, number>
	readonly shapes: Readonly<Record<IpFamily, string>>
	readonly program: IpvsProgram
}

type Claims = Table<Ip, Table<string, ObjectKey>>

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
		previous?.scheduler === scheduler && previous.model.config === config && sameNode(previous.node, node)
			? previous
			: undefined
	const seen = { config, services, addresses, frontends }
	const claimed = keep?.claims ?? emptyTable<Ip, Table<string, ObjectKey>>()
	const claims = claimsOf(claimed, keep?.model.frontends ?? emptyTable<string, ObjectKey>(), frontends)
	const touched = changedServices(keep?.model, model, { claimantsOf: (ip) => claims.get(ip)?.values() ?? [] })
	if (keep !== undefined && touched.size === 0) return { ...keep, model: seen, claims }
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
		for (const [key, { now: service }] of touched) {
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
	return {
		model: seen,
		node,
		scheduler,
		contributions,
		claims,
		sizes,
		notFromNode,
		shapes: { ...noShapes, ...shapes },
		program,
	}
}

function claimsOf(claims: Claims, before: NetworkModel['frontends'], frontends: NetworkModel['frontends']): Claims {
	return claims.mutate((draft) => {
		diffTables(before, frontends, (key, _, service) => {
			const ip = key.slice(0, key.indexOf(' ')) as Ip
			if (ip.startsWith('*')) return
			const known = draft.get(ip) ?? emptyTable<string, ObjectKey>()
			const now = service === undefined ? known.delete(key) : known.set(key, service)
			if (now.size === 0) draft.delete(ip)
			else draft.set(ip, now)
		})
	})
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
