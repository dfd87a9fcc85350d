// The group policy.networking.k8s.io: ClusterNetworkPolicy v1alpha2, and the two kinds before it (v1alpha1).
// Every choice among fields ("exactly one must be set") is optional here: a newer API may have set one we do not know.

import type { KubeObject, LabelSelector } from './meta.ts'

export interface ClusterNetworkPolicy extends KubeObject {
	readonly apiVersion: 'policy.networking.k8s.io/v1alpha2'
	readonly kind: 'ClusterNetworkPolicy'
	readonly spec?: {
		readonly tier?: string
		/** 0–1000, lower comes first. */
		readonly priority?: number
		readonly subject?: TierSubject
		readonly ingress?: readonly ClusterNetworkPolicyRule[]
		readonly egress?: readonly ClusterNetworkPolicyRule[]
	}
}

export interface AdminNetworkPolicy extends KubeObject {
	readonly apiVersion: 'policy.networking.k8s.io/v1alpha1'
	readonly kind: 'AdminNetworkPolicy'
	readonly spec?: {
		readonly priority?: number
		readonly subject?: TierSubject
		readonly ingress?: readonly AdminNetworkPolicyRule[]
		readonly egress?: readonly AdminNetworkPolicyRule[]
	}
}

/** There may be one, called `default`. */
export interface BaselineAdminNetworkPolicy extends KubeObject {
	readonly apiVersion: 'policy.networking.k8s.io/v1alpha1'
	readonly kind: 'BaselineAdminNetworkPolicy'
	readonly spec?: {
		readonly subject?: TierSubject
		readonly ingress?: readonly AdminNetworkPolicyRule[]
		readonly egress?: readonly AdminNetworkPolicyRule[]
	}
}

export interface TierSubject {
	readonly namespaces?: LabelSelector
	readonly pods?: NamespacedPods
}

export interface NamespacedPods {
	/** Absent or empty: all namespaces. */
	readonly namespaceSelector?: LabelSelector
	readonly podSelector?: LabelSelector
}

export interface TierPeer {
	readonly namespaces?: LabelSelector
	readonly pods?: NamespacedPods
	/** Egress only, as the two after it. */
	readonly networks?: readonly string[]
	readonly nodes?: LabelSelector
	readonly domainNames?: readonly string[]
}

interface Rule {
	readonly name?: string
	readonly action?: string
	readonly from?: readonly TierPeer[]
	readonly to?: readonly TierPeer[]
}

export interface ClusterNetworkPolicyRule extends Rule {
	readonly protocols?: readonly ClusterNetworkPolicyProtocol[]
}

export interface ClusterNetworkPolicyProtocol {
	readonly tcp?: { readonly destinationPort?: DestinationPort }
	readonly udp?: { readonly destinationPort?: DestinationPort }
	readonly sctp?: { readonly destinationPort?: DestinationPort }
	readonly destinationNamedPort?: string
}

export interface DestinationPort {
	readonly number?: number
	readonly range?: { readonly start: number; readonly end: number }
}

export interface AdminNetworkPolicyRule extends Rule {
	readonly ports?: readonly AdminNetworkPolicyPort[]
}

export interface AdminNetworkPolicyPort {
	readonly portNumber?: { readonly protocol?: string; readonly port: number }
	readonly portRange?: { readonly protocol?: string; readonly start: number; readonly end: number }
	readonly namedPort?: string
}
