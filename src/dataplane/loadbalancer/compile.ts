// Model and health to the appliance's program. It depends on nothing else: who starts it again gets the same one.

import { type Cidr, cidrAddress, cidrContains, cidrLength, familyOf, type Ip } from '../../base/ip.ts'
import { emptyTable, type Table, tableOf } from '../../base/table.ts'
import {
	bareElement,
	emptyProgram,
	type NftElement,
	type NftProgram,
	type NftTable,
	tableKey,
} from '../../linux/nft/program.ts'
import { byAge, isReachable, targetsOf, wayOf } from '../../model/load-balancer.ts'
import type { NetworkModel, NodeName, Service } from '../../model/network.ts'
import type { ObjectKey, Origin } from '../../model/origin.ts'
import { originComment } from '../origin.ts'
import {
	chainsOf,
	declarationsOf,
	type Edge,
	type Family,
	names,
	type Picking,
	pickChain,
	tableName,
} from './layout.ts'

/** Whether the node passes the health check of the Service; only asked of nodes the model would take. */
export type Health = (service: ObjectKey, node: NodeName) => boolean

/** As nft writes them. */
const protocolNames = { TCP: 'tcp', UDP: 'udp', SCTP: 'sctp' } as const

type Elements = Record<keyof typeof names, Map<string, NftElement>>

/** `previous` is shared where it means the same. */
export function compileBalancer(
	model: Pick<NetworkModel, 'services' | 'nodes'>,
	edge: Edge,
	health: Health,
	previous: NftProgram = emptyProgram,
): NftProgram {
	const holders = holdersOf(model)
	const tables = (['ip', 'ip6'] as const).flatMap((family) => {
		const nodes = edge.nodes.filter((cidr) => isOf(family, cidr))
		if (nodes.length === 0) return []
		return tableFor(
			model,
			family,
			{ ...edge, nodes },
			holders,
			health,
			previous.tables.get(tableKey(family, tableName)),
		)
	})
	const same =
		tables.length === previous.tables.size && tables.every((t) => previous.tables.get(tableKey(t.family, t.name)) === t)
	return same ? previous : { tables: tableOf(tables.map((t) => [tableKey(t.family, t.name), t] as const)) }
}

/** The Services of each address our load balancers have, the older first. */
export function holdersOf(model: Pick<NetworkModel, 'services'>): ReadonlyMap<Ip, readonly Service[]> {
	const holders = new Map<Ip, Service[]>()
	for (const service of model.services.values()) {
		if (service.loadBalancer?.by === undefined) continue
		for (const { ip } of service.loadBalancer.ingress) {
			const list = ip === undefined ? undefined : holders.get(ip)
			if (list !== undefined) list.push(service)
			else if (ip !== undefined) holders.set(ip, [service])
		}
	}
	for (const list of holders.values()) list.sort(byAge)
	return holders
}

function tableFor(
	model: Pick<NetworkModel, 'nodes'>,
	family: Family,
	edge: Edge,
	holders: ReadonlyMap<Ip, readonly Service[]>,
	health: Health,
	old: NftTable | undefined,
): NftTable {
	const elements: Elements = {
		addresses: new Map(),
		internal: new Map(),
		frontends: new Map(),
		targets: new Map(),
		ranged: new Map(),
		sourceRanges: new Map(),
		routed: new Map(),
	}
	for (const node of model.nodes.values()) {
		for (const ip of node.addresses) if (isOf(family, ip)) elements.routed.set(ip, { comment: `node ${node.name}` })
	}
	const picks = new Set<string>()
	for (const [ip, services] of holders) {
		if (!isOf(family, ip)) continue
		const hidden = services.find((service) => !isReachable(service, 'outside'))
		if (hidden !== undefined) elements.internal.set(ip, commented(hidden.loadBalancer?.internal ?? hidden.origin))
		// What a node announces passes by unchanged.
		if (wayOf(services) === 'announce') {
			if (hidden === undefined && edge.nodes.some((cidr) => cidrContains(cidr, ip)))
				elements.routed.set(ip, commented(services[0]!.fields?.type ?? services[0]!.origin))
			continue
		}
		elements.addresses.set(ip, commented(services[0]!.fields?.type ?? services[0]!.origin))
		const claimed = new Set<string>()
		for (const service of services) contribute(model, service, ip, health, elements, picks, claimed)
	}
	const declared = declarationsOf(family)
	const sets = (Object.keys(names) as (keyof typeof names)[]).map((name) => ({
		...declared[name],
		elements: follow(old?.sets.get(names[name])?.elements, elements[name]),
	}))
	const chains = chainsOf({ family, picks: [...picks].sort(), edge })
	const keepChains =
		old !== undefined && chains.length === old.chains.size && chains.every((c) => old.chains.has(c.name))
	if (keepChains && sets.every((set) => old.sets.get(set.name)?.elements === set.elements)) return old
	return {
		family,
		name: tableName,
		comment: 'the load balancer before the cluster; written by podwire, changes are undone',
		chains: keepChains ? old.chains : tableOf(chains.map((chain) => [chain.name, chain] as const)),
		sets: tableOf(sets.map((set) => [set.name, set] as const)),
	}
}

function isOf(family: Family, address: Ip | Cidr): boolean {
	return (familyOf(address) === 4) === (family === 'ip')
}

function contribute(
	model: Pick<NetworkModel, 'nodes'>,
	service: Service,
	ip: Ip,
	health: Health,
	into: Elements,
	picks: Set<string>,
	claimed: Set<string>,
): void {
	const ranges = outermost(service.loadBalancer?.sourceRanges.filter((c) => familyOf(c) === familyOf(ip)) ?? [])
	for (const port of service.ports) {
		if (port.protocol === 'ICMP' || port.nodePort === undefined) continue
		const key = `${ip} . ${protocolNames[port.protocol]} . ${port.port}`
		// Of two Services with one port on one address the first has it, as the model says.
		if (claimed.has(key)) continue
		claimed.add(key)
		const why = commented(port.origin)
		if (ranges.length > 0) {
			const said = commented(service.fields?.loadBalancerSourceRanges ?? service.origin)
			into.ranged.set(key, said)
			for (const cidr of ranges) into.sourceRanges.set(`${key} . ${rangeText(cidr)}`, said)
		}
		const targets = targetsOf(model, service, port.nodePort, ip).filter(({ node }) => health(service.key, node))
		if (targets.length === 0) continue
		const picking: Picking = service.sessionAffinity === undefined ? 'next' : 'client'
		const chain = pickChain(picking, targets.length)
		picks.add(chain)
		into.frontends.set(key, { data: `goto ${chain}`, ...why })
		for (const [slot, target] of targets.entries()) {
			into.targets.set(`${key} . ${slot}`, { data: `${target.ip} . ${target.port}`, comment: `node ${target.node}` })
		}
	}
}

/** Ranges that overlap are refused by the kernel; prefixes are disjoint or one inside the other. */
function outermost(ranges: readonly Cidr[]): readonly Cidr[] {
	return ranges.filter(
		(cidr, i) =>
			!ranges.some((other, j) =>
				other === cidr ? j < i : cidrLength(other) < cidrLength(cidr) && cidrContains(other, cidrAddress(cidr)),
			),
	)
}

/** As nft prints it: one address without its length. */
function rangeText(cidr: Cidr): string {
	return cidrLength(cidr) === (familyOf(cidr) === 4 ? 32 : 128) ? cidrAddress(cidr) : cidr
}

function commented(origin: Origin): NftElement {
	return { comment: originComment(origin) }
}

/** The wanted elements, sharing those of the last program that mean the same. */
function follow(
	old: Table<string, NftElement> | undefined,
	want: ReadonlyMap<string, NftElement>,
): Table<string, NftElement> {
	return (old ?? emptyTable<string, NftElement>()).mutate((draft) => {
		for (const key of old?.keys() ?? []) if (!want.has(key)) draft.delete(key)
		for (const [key, element] of want) {
			const have = draft.get(key)
			if (have?.data !== element.data || have?.comment !== element.comment) draft.set(key, element ?? bareElement)
		}
	})
}
