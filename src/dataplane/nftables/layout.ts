// The names and types of everything in our tables: the one place that knows the ruleset's layout.

import type { Table } from '../../base/table.ts'
import { addresses, fieldsOf, l4proto, type Part, random, th } from '../../linux/nft/build.ts'
import type { NftElement, NftSet } from '../../linux/nft/program.ts'

/** Our tables: `ip podwire`, `ip6 podwire`. */
export const tableName = 'podwire'

/** Up to so many endpoints a Service port is in a map of its own size; beyond, it shares one map and is reached by a verdict. */
export const largestClass = 8

export const names = {
	clusterIps: 'cluster-ips',
	hairpin: 'hairpin',
	noEndpoints: 'no-endpoints',
	noLocalEndpoints: 'no-local-endpoints',
	/** Endpoint map of ports with more than `largestClass` endpoints, and the chain for each count. */
	manyEndpoints: 'endpoints-many',
	countMany: 'count-many',
	/** Which endpoint a client was given, written by the kernel. */
	clients: 'clients',
	services: 'services',
	unserved: 'unserved',
	reject: 'reject-connection',
} as const

export type Family = 'ip' | 'ip6'

const classes = Array.from({ length: largestClass + 1 }, (_, n) => `endpoints-${n}`)

/** Endpoint map of the ports with exactly `count` endpoints. */
export function endpointsOf(count: number): string {
	return classes[count] ?? names.manyEndpoints
}

export function pickChain(count: number): string {
	return `pick-${count}`
}

/** Set of the ports whose clients stay with an endpoint for so many seconds. */
export function affinitySet(seconds: number): string {
	return `affinity-${seconds}`
}

export function isEndpointMap(set: string): boolean {
	return set.startsWith('endpoints-')
}

/** `ip daddr . meta l4proto . th dport`: what identifies a frontend, for every protocol that has ports. */
export function frontendKey(family: Family): readonly Part[] {
	return [addresses(family).daddr, l4proto, th.dport]
}

export function slotKey(family: Family, count: number): readonly Part[] {
	return count === 1 ? frontendKey(family) : [...frontendKey(family), random(count)]
}

/** Client and frontend. */
export function clientKey(family: Family): readonly Part[] {
	return [addresses(family).saddr, ...frontendKey(family)]
}

type Declaration = Omit<NftSet, 'elements' | 'name'>
const maximumClients = 1 << 18
const declarations = new Map<string, Declaration>()

/** How a set of that name is declared; always the same object, so that comparing costs nothing. */
function declarationOf(family: Family, set: string): Declaration {
	const key = `${family} ${set}`
	const known = declarations.get(key)
	if (known !== undefined) return known
	const made = declare(family, set)
	declarations.set(key, made)
	return made
}

function declare(family: Family, set: string): Declaration {
	const { saddr, daddr } = addresses(family)
	const endpoint = fieldsOf([daddr, th.dport])
	const frontend = fieldsOf(frontendKey(family))
	const plain: Declaration['flags'] = []
	switch (set) {
		case names.clusterIps:
			return { key: fieldsOf([daddr]), flags: plain, comment: 'addresses of Services' }
		case names.hairpin:
			return { key: fieldsOf([saddr, daddr]), flags: plain, comment: 'pods of this node, to themselves' }
		case names.noEndpoints:
			return { key: frontend, flags: plain, comment: 'Service ports that nobody serves' }
		case names.noLocalEndpoints:
			return { key: frontend, flags: plain, comment: 'Service ports that nobody serves on this node' }
		case names.countMany:
			return {
				// nft lists verdict maps by type only: declared so, a listing loaded again is the same.
				key: frontend.map(({ type, bytes }) => ({ type, bytes })),
				data: 'verdict',
				flags: plain,
				comment: `Service ports with more than ${largestClass} endpoints`,
			}
		case names.clients:
			return {
				key: fieldsOf(clientKey(family)),
				data: endpoint,
				flags: ['timeout', 'dynamic'],
				size: maximumClients,
				comment: 'the endpoint each client stays with',
			}
		default:
			if (set.startsWith('affinity-'))
				return { key: frontend, flags: plain, comment: 'Service ports with session affinity' }
			return { key: fieldsOf(slotKey(family, set === 'endpoints-1' ? 1 : 2)), data: endpoint, flags: plain }
	}
}

export function makeSet(family: Family, name: string, elements: Table<string, NftElement>): NftSet {
	return { name, ...declarationOf(family, name), elements }
}
