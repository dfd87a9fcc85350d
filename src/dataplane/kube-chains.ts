// What iptables mode and IPVS mode have in common: chains of one name, which of the two they belong to while one follows
// the other, and how a rule that matched is told.

import type { IptablesHit } from '../linux/iptables/evaluate.ts'
import { commentOf } from '../linux/iptables/program.ts'
import type { Origin } from '../model/origin.ts'
import type { RuleHit } from './dataplane.ts'

/** kube-proxy's chains of both modes, and ours. */
export const commonChains = {
	services: 'KUBE-SERVICES',
	postrouting: 'KUBE-POSTROUTING',
	markMasquerade: 'KUBE-MARK-MASQ',
	forward: 'KUBE-FORWARD',
	firewall: 'KUBE-PROXY-FIREWALL',
	/** Ours, only where pods have several networks of one family: an iptables rule can exclude no more than one. */
	markOutside: 'KUBE-MARK-OUTSIDE',
	/** Ours: addresses of no Service. */
	unserved: 'PODWIRE-UNSERVED',
} as const

const common: ReadonlySet<string> = new Set(Object.values(commonChains))

/** A chain that only the one mode has, by its table and name: where it is, the mode is. */
export const signOfIptables = 'nat KUBE-PROXY-CANARY'
export const signOfIpvs = 'filter KUBE-IPVS-FILTER'

/** Which chains go when a mode does: where the other one has taken over already, those that both have are the other one's. */
export function leavingChains(
	have: { has(key: string): boolean } | undefined,
	isOwn: (name: string) => boolean,
	signOfOther: string,
): (name: string) => boolean {
	const taken = have?.has(signOfOther) === true
	return (name) => isOwn(name) && !(taken && common.has(name))
}

export function ruleHit(hit: IptablesHit, because: readonly Origin[]): RuleHit {
	const comment = commentOf(hit.rule)
	return {
		family: hit.family,
		table: hit.table,
		chain: hit.chain,
		text: hit.text,
		...(comment === undefined ? {} : { comment }),
		elements: hit.elements,
		because,
	}
}
