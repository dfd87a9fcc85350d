// Model to program. Only pods of the node that ask for host ports count; while none of them changes, the program stays
// the same object. The result depends on the model alone.

import { familyOf } from '../../base/ip.ts'
import { diffTables, emptyTable, type Table, tableOf } from '../../base/table.ts'
import { emptyProgram, type NftElement, type NftProgram, type NftTable, tableKey } from '../../linux/nft/program.ts'
import { compareHostPorts, type HostPort, hostPortsOf } from '../../model/host-ports.ts'
import type { NetworkModel, NodeName, Pod } from '../../model/network.ts'
import type { ObjectKey } from '../../model/origin.ts'
import { originComment } from '../origin.ts'
import { chainsOf, declarationsOf, type Family, names, tableName } from './layout.ts'

export interface Compiled {
	readonly node: NodeName
	readonly pods: Table<ObjectKey, Pod>
	/** Of this node's pods that ask for any. */
	readonly asked: ReadonlyMap<ObjectKey, readonly HostPort[]>
	readonly program: NftProgram
}

export function compileProgram(
	model: Pick<NetworkModel, 'pods'>,
	node: NodeName,
	previous: Compiled | undefined,
): Compiled {
	const keep = previous?.node === node ? previous : undefined
	if (keep?.pods === model.pods) return keep
	const asked = new Map(keep?.asked)
	let changed = false
	diffTables(keep?.pods ?? emptyTable<ObjectKey, Pod>(), model.pods, (key, _, pod) => {
		const asks = pod?.node === node && pod.ports.some((p) => p.hostPort !== undefined) ? hostPortsOf(pod) : []
		if (asks.length > 0) asked.set(key, asks)
		else if (!asked.delete(key)) return
		changed = true
	})
	if (keep !== undefined && !changed) return { ...keep, pods: model.pods }
	const all = [...asked.values()].flat().sort(compareHostPorts)
	const old = keep?.program ?? emptyProgram
	const tables = (['ip', 'ip6'] as const).flatMap((family) => {
		const table = tableFor(family, all, old.tables.get(tableKey(family, tableName)))
		return table === undefined ? [] : [table]
	})
	const same =
		tables.length === old.tables.size && tables.every((t) => old.tables.get(tableKey(t.family, t.name)) === t)
	const program = same ? old : { tables: tableOf(tables.map((t) => [tableKey(t.family, t.name), t] as const)) }
	return { node, pods: model.pods, asked, program }
}

/** As nft writes them. */
const protocolNames = { TCP: 'tcp', UDP: 'udp', SCTP: 'sctp' } as const

/** Undefined where no pod asks for a port of the family. */
function tableFor(family: Family, all: readonly HostPort[], old: NftTable | undefined): NftTable | undefined {
	const ports = new Map<string, NftElement>()
	const addressPorts = new Map<string, NftElement>()
	const hairpin = new Map<string, NftElement>()
	for (const { pod, port, protocol, number, at, to } of all) {
		if ((familyOf(to.ip) === 4) !== (family === 'ip')) continue
		const element: NftElement = { data: `${to.ip} . ${to.port}`, comment: originComment(port.origin) }
		const key = `${protocolNames[protocol]} . ${number}`
		// The first has it; the others are a finding.
		if (at === undefined) ports.set(key, ports.get(key) ?? element)
		else addressPorts.set(`${at} . ${key}`, addressPorts.get(`${at} . ${key}`) ?? element)
		hairpin.set(`${to.ip} . ${to.ip}`, { comment: originComment({ kind: 'Pod', key: pod.key }) })
	}
	if (hairpin.size === 0) return undefined
	const declared = declarationsOf(family)
	const sets = [
		{ ...declared.ports, elements: follow(old, names.ports, ports) },
		{ ...declared.addressPorts, elements: follow(old, names.addressPorts, addressPorts) },
		{ ...declared.hairpin, elements: follow(old, names.hairpin, hairpin) },
	]
	if (old !== undefined && sets.every((set) => old.sets.get(set.name)?.elements === set.elements)) return old
	return {
		family,
		name: tableName,
		comment: 'hostPorts; written by podwire, changes are undone',
		chains: old?.chains ?? tableOf(chainsOf(family).map((chain) => [chain.name, chain] as const)),
		sets: tableOf(sets.map((set) => [set.name, set] as const)),
	}
}

/** The wanted elements, sharing those of the last program that mean the same. */
function follow(
	old: NftTable | undefined,
	name: string,
	want: ReadonlyMap<string, NftElement>,
): Table<string, NftElement> {
	return (old?.sets.get(name)?.elements ?? emptyTable<string, NftElement>()).mutate((draft) => {
		for (const key of old?.sets.get(name)?.elements.keys() ?? []) if (!want.has(key)) draft.delete(key)
		for (const [key, element] of want) {
			const have = draft.get(key)
			if (have?.data !== element.data || have?.comment !== element.comment) draft.set(key, element)
		}
	})
}
