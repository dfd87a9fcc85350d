// Topology aware routing (annotation service.kubernetes.io/topology-mode: Auto): each zone is given endpoints in
// proportion to the CPU of its nodes. All or nothing: where it cannot be done well, no endpoint has a hint.
// Rules: KEP-2433 and Kubernetes documentation, "Topology Aware Routing". Pure.

import type { Node, Service } from '../../kube/objects/core.ts'
import type { Endpoint } from '../../kube/objects/discovery.ts'
import { parseQuantity } from '../../kube/schema/quantity.ts'

const zoneLabel = 'topology.kubernetes.io/zone'
/** By how much the share of an endpoint may be exceeded. */
const overload = 0.2

/** The annotation counts before `trafficDistribution`; its old name too. */
export function isTopologyAuto({ metadata: { annotations } }: Service): boolean {
	const mode =
		annotations?.['service.kubernetes.io/topology-mode'] ?? annotations?.['service.kubernetes.io/topology-aware-hints']
	return mode === 'Auto' || mode === 'auto'
}

/** The part of the cluster's CPU in each zone, or undefined where a node's zone or CPU is not known or there is one zone. */
export function zoneShares(nodes: Iterable<Node>): ReadonlyMap<string, number> | undefined {
	const cpus = new Map<string, number>()
	let total = 0
	for (const node of nodes) {
		const { labels } = node.metadata
		if (labels?.['node-role.kubernetes.io/control-plane'] !== undefined) continue
		if (!node.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True')) continue
		const zone = labels?.[zoneLabel]
		const cpu = cpuOf(node.status.allocatable?.cpu)
		if (zone === undefined || zone === '' || cpu === undefined) return undefined
		cpus.set(zone, (cpus.get(zone) ?? 0) + cpu)
		total += cpu
	}
	if (cpus.size < 2) return undefined
	return new Map([...cpus].map(([zone, cpu]) => [zone, cpu / total]))
}

/** In nanoCPU. */
function cpuOf(text: string | undefined): number | undefined {
	const cpu = Number(parseQuantity(text ?? '')?.nano ?? 0n)
	return cpu > 0 ? cpu : undefined
}

/** What zoneShares makes of one node, as text. */
export function shareText(node: Node | undefined): string {
	const ready = node?.status?.conditions?.find((c) => c.type === 'Ready')?.status
	return `${node?.metadata.labels?.[zoneLabel]} ${node?.status?.allocatable?.cpu} ${ready}`
}

/**
 * The zone each ready endpoint is meant for, or undefined: too few endpoints, or one whose zone is not among the shares.
 * An endpoint serves its own zone unless that has more than its share and another has less.
 */
export function assignZones(
	endpoints: Iterable<Endpoint>,
	shares: ReadonlyMap<string, number>,
): ReadonlyMap<Endpoint, string> | undefined {
	const ready = [...endpoints]
		.filter((e) => e.conditions?.ready === true)
		.sort((a, b) => (a.addresses[0]! < b.addresses[0]! ? -1 : 1))
	if (ready.length < shares.size) return undefined
	const least = new Map<string, number>()
	let spare = ready.length
	for (const [zone, share] of shares) {
		// The small part taken off keeps 3.0000001 from being four.
		const minimum = Math.ceil((share * ready.length) / (1 + overload) - 1e-9)
		least.set(zone, minimum)
		spare -= minimum
	}
	if (spare < 0) return undefined
	const byZone = new Map<string, Endpoint[]>([...shares.keys()].map((zone) => [zone, []]))
	for (const endpoint of ready) {
		const own = endpoint.zone === undefined ? undefined : byZone.get(endpoint.zone)
		if (own === undefined) return undefined
		own.push(endpoint)
	}
	const hints = new Map<Endpoint, string>()
	for (const [zone, list] of byZone) for (const endpoint of list) hints.set(endpoint, zone)
	// The poorest zone takes from the richest until each has its least.
	const over = (zone: string): number => byZone.get(zone)!.length - least.get(zone)!
	for (;;) {
		const zones = [...byZone.keys()].sort((a, b) => over(a) - over(b) || (a < b ? -1 : 1))
		const [poorest, richest] = [zones[0]!, zones.at(-1)!]
		if (over(poorest) >= 0) return hints
		const moved = byZone.get(richest)!.pop()!
		byZone.get(poorest)!.push(moved)
		hints.set(moved, poorest)
	}
}
