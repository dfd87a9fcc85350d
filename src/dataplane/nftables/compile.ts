// Model to program, incrementally: only Services, addresses and pods that changed since the last call are looked at, all
// else is shared with the last result. The result depends on the model alone, not on what was compiled before.

import { familyOf, type Ip } from '../../base/ip.ts'
import { diffTables, emptyTable, tableOf } from '../../base/table.ts'
import { type NftElement, type NftProgram, tableKey } from '../../linux/nft/program.ts'
import {
	type AddressOwner,
	type NetworkModel,
	type NodeName,
	type Pod,
	podAddresses,
	type Service,
} from '../../model/network.ts'
import type { ObjectKey } from '../../model/origin.ts'
import { originComment } from '../origin.ts'
import { contribute, type Emit, type Vantage, vantageOf } from './contribute.ts'
import { type Family, names } from './layout.ts'
import { type FamilyState, networksOf, nothing, Work } from './work.ts'

export interface Compiled {
	readonly model: Pick<NetworkModel, 'config' | 'services' | 'addresses' | 'frontends' | 'pods'>
	readonly vantage: Vantage
	readonly families: Readonly<Record<Family, FamilyState>>
	readonly program: NftProgram
}

export function compileProgram(model: NetworkModel, node: NodeName, previous: Compiled | undefined): Compiled {
	const now = vantageOf(model, node)
	const keep =
		previous !== undefined && sameVantage(previous.vantage, now) && previous.model.config === model.config
			? previous
			: undefined
	const vantage = keep?.vantage ?? now
	const before = keep?.model
	const inside = networksOf(model.config.serviceCidrs)
	const work = {
		ip: new Work(keep?.families.ip ?? nothing, inside),
		ip6: new Work(keep?.families.ip6 ?? nothing, inside),
	}
	changeServices(before, model, vantage, work)
	changeHairpins(before, model, node, work)
	const families = {
		ip: work.ip.finish('ip', model.config),
		ip6: work.ip6.finish('ip6', model.config),
	}
	const tables = [families.ip.table, families.ip6.table].filter((t) => t !== undefined)
	const same =
		keep !== undefined && families.ip.table === keep.families.ip.table && families.ip6.table === keep.families.ip6.table
	const program = same ? keep.program : { tables: tableOf(tables.map((t) => [tableKey(t.family, t.name), t] as const)) }
	const { config, services, addresses, frontends, pods } = model
	return { model: { config, services, addresses, frontends, pods }, vantage, families, program }
}

function sameVantage(a: Vantage, b: Vantage): boolean {
	return JSON.stringify(a) === JSON.stringify(b)
}

function changeServices(
	before: Compiled['model'] | undefined,
	model: NetworkModel,
	vantage: Vantage,
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
	const claimed = before === undefined ? undefined : claims(before, model, vantage)
	for (const key of claimed ?? []) {
		const service = model.services.get(key)
		if (service === undefined || services.get(key) !== service) continue
		leaving.push(service)
		coming.push(service)
	}
	// First everything that goes, then everything that comes: an address may move from one Service to another.
	const gone = new Map<string, Contribution>()
	for (const service of leaving) {
		contribute(service, vantage, before ?? model, (family, set, at, element) => {
			if (set === names.externalIps) work[family].share(at, -1)
			else gone.set(`${family} ${set} ${at}`, { family, set, key: at, element })
		})
	}
	const put: Emit = (family, set, at, element) => {
		if (set === names.externalIps) {
			work[family].share(at, 1)
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
	for (const service of coming) contribute(service, vantage, model, put)
	for (const { family, set, key, element } of gone.values()) work[family].take(set, key, element)
}

interface Contribution {
	readonly family: Family
	readonly set: string
	readonly key: string
	readonly element: NftElement
}

/** Services one of whose addresses or ports changed hands. */
function claims(before: Compiled['model'], model: NetworkModel, vantage: Vantage): Set<ObjectKey> {
	const keys = new Set<ObjectKey>()
	diffTables(before.addresses, model.addresses, (ip, a, b) => {
		if (a?.kind === 'service') keys.add(a.service)
		if (b?.kind === 'service') keys.add(b.service)
		// A node port does not answer at an address that is a Service's by itself.
		if ((a?.kind === 'service') !== (b?.kind === 'service') && vantage.nodePortIps.includes(ip))
			for (const key of model.frontends.keys()) if (key.startsWith('*')) keys.add(model.frontends.get(key) as ObjectKey)
	})
	diffTables(before.frontends, model.frontends, (key, a, b) => {
		if (a !== undefined) keys.add(a)
		if (b !== undefined) keys.add(b)
		const [ip = '', protocol, port] = key.split(' ')
		if (!vantage.nodePortIps.includes(ip as Ip)) return
		const nodePort = `*${familyOf(ip as Ip)} ${protocol} ${port}`
		for (const owner of [before.frontends.get(nodePort), model.frontends.get(nodePort)])
			if (owner !== undefined) keys.add(owner)
	})
	return keys
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
