// The group networking.k8s.io/v1: NetworkPolicy, Ingress, IngressClass, ServiceCIDR, IPAddress.

import type { ApiProtocol } from './core.ts'
import type { Condition, IntOrString, KubeObject, LabelSelector } from './meta.ts'

export interface NetworkPolicy extends KubeObject {
	readonly apiVersion: 'networking.k8s.io/v1'
	readonly kind: 'NetworkPolicy'
	readonly spec?: NetworkPolicySpec
}

export interface NetworkPolicySpec {
	/** Absent since 1.35 means the same as empty: all pods. */
	readonly podSelector?: LabelSelector
	readonly policyTypes?: readonly ('Ingress' | 'Egress')[]
	readonly ingress?: readonly NetworkPolicyIngressRule[]
	readonly egress?: readonly NetworkPolicyEgressRule[]
}

export interface NetworkPolicyIngressRule {
	readonly ports?: readonly NetworkPolicyPort[]
	readonly from?: readonly NetworkPolicyPeer[]
}

export interface NetworkPolicyEgressRule {
	readonly ports?: readonly NetworkPolicyPort[]
	readonly to?: readonly NetworkPolicyPeer[]
}

export interface NetworkPolicyPort {
	readonly protocol?: ApiProtocol
	readonly port?: IntOrString
	readonly endPort?: number
}

export interface NetworkPolicyPeer {
	readonly podSelector?: LabelSelector
	readonly namespaceSelector?: LabelSelector
	readonly ipBlock?: { readonly cidr: string; readonly except?: readonly string[] }
}

export interface Ingress extends KubeObject {
	readonly apiVersion: 'networking.k8s.io/v1'
	readonly kind: 'Ingress'
	readonly spec?: IngressSpec
	readonly status?: {
		readonly loadBalancer?: { readonly ingress?: readonly { readonly ip?: string; readonly hostname?: string }[] }
	}
}

export interface IngressSpec {
	readonly ingressClassName?: string
	readonly defaultBackend?: IngressBackend
	readonly tls?: readonly { readonly hosts?: readonly string[]; readonly secretName?: string }[]
	readonly rules?: readonly IngressRule[]
}

export interface IngressRule {
	readonly host?: string
	readonly http?: {
		readonly paths: readonly {
			readonly path?: string
			readonly pathType: 'Exact' | 'Prefix' | 'ImplementationSpecific'
			readonly backend: IngressBackend
		}[]
	}
}

export interface IngressBackend {
	readonly service?: { readonly name: string; readonly port?: { readonly name?: string; readonly number?: number } }
	readonly resource?: { readonly apiGroup?: string; readonly kind: string; readonly name: string }
}

export interface IngressClass extends KubeObject {
	readonly apiVersion: 'networking.k8s.io/v1'
	readonly kind: 'IngressClass'
	readonly spec?: {
		readonly controller?: string
		readonly parameters?: {
			readonly apiGroup?: string
			readonly kind: string
			readonly name: string
			readonly scope?: 'Cluster' | 'Namespace'
			readonly namespace?: string
		}
	}
}

export interface ServiceCIDR extends KubeObject {
	readonly apiVersion: 'networking.k8s.io/v1'
	readonly kind: 'ServiceCIDR'
	readonly spec?: { readonly cidrs?: readonly string[] }
	readonly status?: { readonly conditions?: readonly Condition[] }
}

export interface IPAddress extends KubeObject {
	readonly apiVersion: 'networking.k8s.io/v1'
	readonly kind: 'IPAddress'
	readonly spec?: {
		readonly parentRef?: {
			readonly group?: string
			readonly resource: string
			readonly namespace?: string
			readonly name: string
		}
	}
}
