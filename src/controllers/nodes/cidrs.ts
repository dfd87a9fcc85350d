// Which pod network each node gets: the lowest free one of the cluster's, once and for all. Pure.

import {
	type Cidr,
	cidrAddress,
	cidrContains,
	cidrLength,
	cidrNth,
	cidrSize,
	familyOf,
	ipToBigInt,
	parseCidr,
	tryParseCidr,
} from '../../base/ip.ts'
import type { Node } from '../../kube/objects/core.ts'

export interface PodNetwork {
	/** The cluster's pod network of one family. */
	readonly cidr: Cidr
	/** Length of the mask of one node's share, such as 24. */
	readonly nodeMask: number
}

export interface CidrPlan {
	/** The shares of nodes that have none yet, one of each network, in the order of the networks. */
	readonly assign: ReadonlyMap<string, readonly Cidr[]>
	/** Nodes for which nothing is left. */
	readonly full: readonly string[]
}

/** Shares for the nodes without one, in order of their names. A share is never given twice, nor taken back from a node. */
export function planNodeCidrs(nodes: Iterable<Node>, networks: readonly PodNetwork[]): CidrPlan {
	const taken = networks.map(() => new Set<bigint>())
	const bare: string[] = []
	for (const node of nodes) {
		const have = node.spec?.podCIDRs ?? (node.spec?.podCIDR === undefined ? [] : [node.spec.podCIDR])
		if (have.length === 0) bare.push(node.metadata.name)
		for (const text of have) {
			const cidr = tryParseCidr(text)
			if (cidr !== undefined) for (const [i, network] of networks.entries()) occupy(taken[i]!, network, cidr)
		}
	}
	bare.sort((a, b) => a.length - b.length || (a < b ? -1 : 1))
	const assign = new Map<string, readonly Cidr[]>()
	const full: string[] = []
	const from = networks.map(() => 0n)
	for (const name of bare) {
		const free = networks.map((network, i) => {
			const count = sharesOf(network)
			while (from[i]! < count && taken[i]!.has(from[i]!)) from[i]!++
			return from[i]! < count ? from[i]! : undefined
		})
		if (free.includes(undefined)) {
			full.push(name)
			continue
		}
		assign.set(
			name,
			networks.map((network, i) => shareAt(network, free[i]!)),
		)
		for (const [i, share] of free.entries()) taken[i]!.add(share!)
	}
	return { assign, full }
}

function sharesOf({ cidr, nodeMask }: PodNetwork): bigint {
	return 1n << BigInt(Math.max(0, nodeMask - cidrLength(cidr)))
}

function shareSize({ cidr, nodeMask }: PodNetwork): bigint {
	return 1n << BigInt((familyOf(cidr) === 4 ? 32 : 128) - nodeMask)
}

function shareAt(network: PodNetwork, share: bigint): Cidr {
	return parseCidr(`${cidrNth(network.cidr, share * shareSize(network))}/${network.nodeMask}`)
}

/** Marks every share that `cidr` touches. */
function occupy(taken: Set<bigint>, network: PodNetwork, cidr: Cidr): void {
	if (familyOf(cidr) !== familyOf(network.cidr)) return
	if (cidrContains(cidr, cidrAddress(network.cidr)) && cidrLength(cidr) <= cidrLength(network.cidr)) {
		for (let share = 0n; share < sharesOf(network); share++) taken.add(share)
		return
	}
	if (!cidrContains(network.cidr, cidrAddress(cidr))) return
	const offset = offsetIn(network.cidr, cidr)
	const size = shareSize(network)
	const last = offset + cidrSize(cidr) - 1n
	for (let share = offset / size; share <= last / size; share++) taken.add(share)
}

function offsetIn(network: Cidr, cidr: Cidr): bigint {
	return ipToBigInt(cidrAddress(cidr)) - ipToBigInt(cidrAddress(network))
}
