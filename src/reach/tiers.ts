// Policies that stand before and behind NetworkPolicy: an ordered list of rules that accept, deny or pass.
// Admin tier → NetworkPolicy (final for the pods it isolates) → Baseline tier → allowed (network-policy-api).

import type { LabelSelector, PolicyPeer, PolicyPort } from '../model/network.ts'
import type { ObjectKey, Origin } from '../model/origin.ts'

export type TierName = 'Admin' | 'Baseline'

export interface TierPolicy {
	readonly kind: string
	readonly key: ObjectKey
	readonly tier: TierName
	/** Lower comes first; of equals the one whose key is first. */
	readonly priority: number
	readonly subject: { readonly namespaces: LabelSelector; readonly pods?: LabelSelector }
	readonly ingress: readonly TierRule[]
	readonly egress: readonly TierRule[]
	readonly origin: Origin
}

export interface TierRule {
	readonly action: 'Accept' | 'Deny' | 'Pass'
	/** Peers of kind `pods` always have `namespaces`. Empty: matches nobody. */
	readonly peers: readonly PolicyPeer[]
	/** Empty: any port and protocol. */
	readonly ports: readonly PolicyPort[]
	readonly origin: Origin
}

export function inOrder(policies: readonly TierPolicy[]): readonly TierPolicy[] {
	return [...policies].sort((a, b) => a.priority - b.priority || (a.key < b.key ? -1 : 1))
}
