// Who owns each address: nodes, Services, pods. Several may claim one by mistake; the choice among them must not
// depend on the order in which they came.

import type { Ip } from '../../base/ip.ts'
import { diffTables, emptyTable, type Table } from '../../base/table.ts'
import { type AddressOwner, type NetworkModel, type Node, type Pod, podAddresses, type Service } from '../network.ts'
import type { BuildInput } from './input.ts'

export interface BuiltAddresses {
	readonly addresses: Table<Ip, AddressOwner>
	readonly claims: Table<string, readonly AddressOwner[]>
}

export function buildAddresses(
	input: BuildInput,
	parts: Pick<NetworkModel, 'nodes' | 'pods' | 'services'>,
): BuiltAddresses {
	const last = input.last?.parts
	let claims = input.last?.index.claims ?? emptyTable<string, readonly AddressOwner[]>()
	const touched = new Set<Ip>()
	const move = (owner: AddressOwner, before: readonly Ip[], after: readonly Ip[]) => {
		const same = before.length === after.length && before.every((ip, i) => ip === after[i])
		if (same) return
		for (const ip of before) {
			touched.add(ip)
			const rest = (claims.get(ip) ?? []).filter((c) => rank(c) !== rank(owner))
			claims = rest.length === 0 ? claims.delete(ip) : claims.set(ip, rest)
		}
		for (const ip of after) {
			touched.add(ip)
			const others = (claims.get(ip) ?? []).filter((c) => rank(c) !== rank(owner))
			claims = claims.set(ip, others.length === 0 ? [owner] : [...others, owner].sort(compareClaims))
		}
	}
	diffTables(last?.nodes ?? emptyTable<string, Node>(), parts.nodes, (node, before, after) =>
		move({ kind: 'node', node }, before?.addresses ?? [], after?.addresses ?? []),
	)
	diffTables(last?.services ?? emptyTable<string, Service>(), parts.services, (service, before, after) =>
		move({ kind: 'service', service }, before?.clusterIps ?? [], after?.clusterIps ?? []),
	)
	diffTables(last?.pods ?? emptyTable<string, Pod>(), parts.pods, (pod, before, after) =>
		move({ kind: 'pod', pod }, podAddresses(before), podAddresses(after)),
	)
	const addresses = (last?.addresses ?? emptyTable<Ip, AddressOwner>()).mutate((draft) => {
		for (const ip of touched) {
			const owner = claims.get(ip)?.[0]
			if (owner === undefined) draft.delete(ip)
			else if (draft.get(ip) === undefined || rank(draft.get(ip)!) !== rank(owner)) draft.set(ip, owner)
		}
	})
	return { addresses, claims }
}

/** Nodes before Services before pods, then by name. */
function rank(owner: AddressOwner): string {
	switch (owner.kind) {
		case 'node':
			return `0 ${owner.node}`
		case 'service':
			return `1 ${owner.service}`
		case 'pod':
			return `2 ${owner.pod}`
		default: {
			const never: never = owner
			throw new Error(`No such owner: ${never}`)
		}
	}
}

function compareClaims(a: AddressOwner, b: AddressOwner): number {
	return rank(a) < rank(b) ? -1 : 1
}
