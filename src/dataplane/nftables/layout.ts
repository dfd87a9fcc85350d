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
	/** Addresses of all other frontends: the node's own for node ports, load balancers', external IPs. */
	externalIps: 'external-ips',
	/** External frontends by their traffic policy. */
	policyCluster: 'policy-cluster',
	policyLocal: 'policy-local',
	hairpin: 'hairpin',
	/** Pods of other nodes that may reach themselves through a node port of this one. */
	hairpinElsewhere: 'hairpin-elsewhere',
	noEndpoints: 'no-endpoints',
	noLocalEndpoints: 'no-local-endpoints',
	/** Frontends not everybody may connect to, and who may. */
	restricted: 'restricted',
	sourceRanges: 'source-ranges',
	/** Which endpoint a client was given, written by the kernel. */
	clients: 'clients',
	services: 'services',
	/** Where connections to external frontends come in, from elsewhere and from the node itself. */
	external: 'external',
	externalFromHere: 'external-from-here',
	/** Where those from outside of the cluster go under policy Local. */
	localServices: 'local-services',
	unserved: 'unserved',
	externalUnserved: 'external-unserved',
	firewall: 'firewall',
	masquerade: 'masquerade-services',
	reject: 'reject-connection',
} as const

/** Sets whose elements several frontends may ask for: one is there once for all of them. */
export const sharedSets = [names.externalIps, names.hairpinElsewhere] as const
export type SharedSet = (typeof sharedSets)[number]

export function isShared(set: string): set is SharedSet {
	return set === names.externalIps || set === names.hairpinElsewhere
}

export type Family = 'ip' | 'ip6'

/**
 * The two choices of endpoints a frontend may have. `all`: of every frontend, by its policies and hints. `local`: of
 * external frontends with policy Local, for clients outside of the cluster.
 */
export type Choice = 'all' | 'local'
export const choices: readonly Choice[] = ['all', 'local']

interface ChoiceNames {
	/** Endpoint map of the frontends with exactly so many endpoints; of larger ones the last. */
	readonly classes: readonly string[]
	readonly many: string
	/** Leads the frontends in `many` to the chain of their count. */
	readonly countMany: string
}

function namesOfChoice(prefix: string): ChoiceNames {
	return {
		classes: Array.from({ length: largestClass + 1 }, (_, n) => `${prefix}endpoints-${n}`),
		many: `${prefix}endpoints-many`,
		countMany: `${prefix}count-many`,
	}
}

const choiceNames: Readonly<Record<Choice, ChoiceNames>> = { all: namesOfChoice(''), local: namesOfChoice('local-') }

/** Endpoint map of the frontends with exactly `count` endpoints. */
export function endpointsOf(choice: Choice, count: number): string {
	return choiceNames[choice].classes[count] ?? choiceNames[choice].many
}

export function countManyOf(choice: Choice): string {
	return choiceNames[choice].countMany
}

export function pickChain(choice: Choice, count: number): string {
	return choice === 'all' ? `pick-${count}` : `local-pick-${count}`
}

/** Set of the ports whose clients stay with an endpoint for so many seconds. */
export function affinitySet(seconds: number): string {
	return `affinity-${seconds}`
}

/** Which choice an endpoint map belongs to; undefined for other sets. */
export function choiceOfMap(set: string): Choice | undefined {
	return set.startsWith('endpoints-') ? 'all' : set.startsWith('local-endpoints-') ? 'local' : undefined
}

/** `ip daddr . meta l4proto . th dport`: what identifies a frontend, for every protocol that has ports. */
export function frontendKey(family: Family): readonly Part[] {
	return [addresses(family).daddr, l4proto, th.dport]
}

export function slotKey(family: Family, count: number): readonly Part[] {
	return count === 1 ? frontendKey(family) : [...frontendKey(family), random(count)]
}

/** Frontend and client, in the order that spares an interval set from looking at clients of other frontends. */
export function rangeKey(family: Family): readonly Part[] {
	return [...frontendKey(family), addresses(family).saddr]
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
		case names.hairpinElsewhere:
			return { key: fieldsOf([saddr, daddr]), flags: plain, comment: 'endpoints on other nodes, to themselves' }
		case names.noEndpoints:
			return { key: frontend, flags: plain, comment: 'Service ports that nobody serves' }
		case names.noLocalEndpoints:
			return { key: frontend, flags: plain, comment: 'Service ports that nobody serves on this node' }
		case names.externalIps:
			return { key: fieldsOf([daddr]), flags: plain, comment: 'other addresses at which Services answer' }
		case names.policyCluster:
			return { key: frontend, flags: plain, comment: 'externalTrafficPolicy Cluster' }
		case names.policyLocal:
			return { key: frontend, flags: plain, comment: 'externalTrafficPolicy Local' }
		case names.restricted:
			return { key: frontend, flags: plain, comment: 'loadBalancerSourceRanges are set' }
		case names.sourceRanges:
			return { key: fieldsOf(rangeKey(family)), flags: ['interval'], comment: 'loadBalancerSourceRanges' }
		case countManyOf('all'):
		case countManyOf('local'):
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
			return { key: fieldsOf(slotKey(family, set.endsWith('endpoints-1') ? 1 : 2)), data: endpoint, flags: plain }
	}
}

export function makeSet(family: Family, name: string, elements: Table<string, NftElement>): NftSet {
	return { name, ...declarationOf(family, name), elements }
}
