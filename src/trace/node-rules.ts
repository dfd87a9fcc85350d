// What the rules of one node make of a packet at a hook: its nftables, and the data plane that carries Services beside it.

import type { NodePrograms } from '../agent/protocol.ts'
import { familyOf, type Ip } from '../base/ip.ts'
import type { Hook, Packet } from '../base/packet.ts'
import { tableOf } from '../base/table.ts'
import type { Evaluated, ServiceProxyMode } from '../dataplane/dataplane.ts'
import { routeOf } from '../dataplane/links/evaluate.ts'
import { evaluate } from '../dataplane/nftables/evaluate.ts'
import { serviceProxies } from '../dataplane/proxies/service-proxies.ts'
import type { NftProgram } from '../linux/nft/program.ts'
import type { NetworkModel, NodeName } from '../model/network.ts'

/** What a data plane beside nftables does to a packet at a hook; undefined where it has no part in that hook. */
export type ProxyEvaluator = (packet: Packet, hook: Hook) => readonly Evaluated[] | undefined

/** Evaluators of the programs that nodes gave back, loaded as far as their modes need it. */
export async function proxyEvaluators(
	programs: ReadonlyMap<NodeName, NodePrograms>,
): Promise<ReadonlyMap<NodeName, ProxyEvaluator>> {
	const evaluators = new Map<NodeName, ProxyEvaluator>()
	for (const [node, { proxies = {} }] of programs) {
		const parts: ProxyEvaluator[] = []
		for (const [mode, json] of Object.entries(proxies) as [ServiceProxyMode, unknown][]) {
			const dataplane = await serviceProxies[mode]?.create({})
			if (dataplane === undefined) continue
			const program = dataplane.fromJson(json)
			parts.push((packet, hook) =>
				(hook === 'connect') === (mode === 'ebpf') ? dataplane.evaluate(program, packet, hook) : undefined,
			)
		}
		if (parts.length > 0)
			evaluators.set(node, (packet, hook) => {
				for (const part of parts) {
					const outcomes = part(packet, hook)
					if (outcomes !== undefined) return outcomes
				}
				return undefined
			})
	}
	return evaluators
}

/** Tables that the iptables program of the nf_tables kind keeps: not evaluated here, the iptables program is. */
const iptablesTables = new Set(['raw', 'mangle', 'nat', 'filter', 'security'])

/** The tables that are evaluated as such. */
function ownTables(programs: NodePrograms): NftProgram {
	const { serviceProxy, nftables } = programs
	if (serviceProxy !== 'iptables' && serviceProxy !== 'ipvs') return nftables
	const kept = [...nftables.tables].filter(
		([, table]) => !(iptablesTables.has(table.name) && (table.family === 'ip' || table.family === 'ip6')),
	)
	return { ...nftables, tables: tableOf(kept) }
}

/** conntrack status bits after translation (linux/netfilter/nf_conntrack_common.h). */
const statusDnat = 32
const statusSnat = 16

/** Every node tracks the connection by itself: what another node translated is no translation here. */
function statusOf(arrived: Packet, packet: Packet): number {
	const dnat = arrived.destination !== packet.destination || arrived.destinationPort !== packet.destinationPort
	const snat = arrived.source !== packet.source || arrived.sourcePort !== packet.sourcePort
	return (dnat ? statusDnat : 0) | (snat ? statusSnat : 0)
}

/** `arrived`: as the connection's first packet came to the node; `translated`: what the node has made of it so far. */
export function evaluateTables(
	programs: NodePrograms,
	packet: Packet,
	hook: Hook,
	{ arrived, translated, addresses }: { arrived: Packet; translated: Packet; addresses: readonly Ip[] },
): readonly Evaluated[] {
	return evaluate(ownTables(programs), packet, hook, {
		connectionStatus: statusOf(arrived, translated),
		original: arrived,
		addressType: (ip) => (addresses.includes(ip as Ip) ? 'local' : 'unicast'),
		wayBack: (ip, device) => routeOf(programs.links, ip as Ip, 'node')?.device === device,
		masqueradeAddress: (p) => addresses.find((a) => familyOf(a) === familyOf(p.destination)),
	})
}

/** The addresses of the node itself. */
export function addressesOf(model: NetworkModel, { node, links }: NodePrograms): readonly Ip[] {
	return links.surroundings?.addresses ?? model.nodes.get(node)?.addresses ?? []
}
