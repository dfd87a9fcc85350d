// Model to program, incrementally: only Services, addresses and pods that changed since the last call are looked at, all
// else is shared with the last result. The result depends on the model alone, not on what was compiled before.

import { familyOf, type Ip } from '../../base/ip.ts'
import { diffTables, emptyTable, tableOf } from '../../base/table.ts'
import { type NftElement, type NftProgram, tableKey } from '../../linux/nft/program.ts'
import { changedServices, sameNode } from '../../model/frontends.ts'
import {
	type AddressOwner,
	type NetworkModel,
	type Node,
	type NodeName,
	type Pod,
	podAddresses,
} from '../../model/network.ts'
import type { ObjectKey } from '../../model/origin.ts'
import { originComment } from '../origin.ts'
import { contribute, type Emit, type Vantage, vantageOf } from './contribute.ts'
import { type Family, isShared, names } from './layout.ts'
import { type FamilyState, networksOf, nothing, Work } from './work.ts'

export interface Compiled {
	readonly model: Pick<NetworkModel, 'config' | 'services' | 'addresses' | 'frontends' | 'pods'>
	readonly node: Node | undefined
	readonly vantage: Vantage
	readonly families: Readonly<Record<Family, FamilyState>>
	readonly program: NftProgram
}

export function compileProgram(model: NetworkModel, name: NodeName, previous: Compiled | undefined): Compiled {
	const node = model.nodes.get(name)
	const keep =
		previous !== undefined && previous.model.config === model.config && sameNode(previous.node, node)
			? previous
			: undefined
	const vantage = keep?.vantage ?? vantageOf(model, name)
	const before = keep?.model
	const inside = networksOf(model.config.serviceCidrs)
	const work = {
		ip: new Work(keep?.families.ip ?? nothing, inside),
		ip6: new Work(keep?.families.ip6 ?? nothing, inside),
	}
	changeServices(before, model, vantage, work)
	changeHairpins(before, model, name, work)
	const families = {
		ip: work.ip.finish('ip', model.config),
		ip6: work.ip6.finish('ip6', model.config),
	}
	const tables = [families.ip.table, families.ip6.table].filter((t) => t !== undefined)
	const same =
		keep !== undefined && families.ip.table === keep.families.ip.table && families.ip6.table === keep.families.ip6.table
	const program = same ? keep.program : { tables: tableOf(tables.map((t) => [tableKey(t.family, t.name), t] as const)) }
	const { config, services, addresses, frontends, pods } = model
	return { model: { config, services, addresses, frontends, pods }, node, vantage, families, program }
}

function changeServices(
	before: Compiled['model'] | undefined,
	model: NetworkModel,
	vantage: Vantage,
	work: Readonly<Record<Family, Work>>,
): void {
	const changed = changedServices(before, model, vantage)
	// First everything that goes, then everything that comes: an address may move from one Service to another.
	const gone = new Map<string, Contribution>()
	for (const { before: service } of changed.values()) {
		if (service === undefined) continue
		contribute(service, vantage, before ?? model, (family, set, at, element) => {
			if (isShared(set)) work[family].share(set, at, -1)
			else gone.set(`${family} ${set} ${at}`, { family, set, key: at, element })
		})
	}
	const put: Emit = (family, set, at, element) => {
		if (isShared(set)) {
			work[family].share(set, at, 1)
			return
		}
		const id = gone.size === 0 ? '' : `${family} ${set} ${at}`
		const old = id === '' ? undefined : gone.get(id)
		if (old !== undefined) {
			gone.delete(id)
			if (old.element.data === element.data && old.element.comment === element.comment) return
		}
		work[family].put(set, at, element, old?.element)
	}
	for (const { now } of changed.values()) if (now !== undefined) contribute(now, vantage, model, put)
	for (const { family, set, key, element } of gone.values()) work[family].take(set, key, element)
}

interface Contribution {
	readonly family: Family
	readonly set: string
	readonly key: string
	readonly element: NftElement
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
