// The network as Kubernetes means it: what the builders produce, what the walk and every data plane read.
// Pure data. No API types past this line. Unchanged parts are the same object from one build to the next.

import type { Cidr, Ip } from '../base/ip.ts'
import type { Protocol } from '../base/packet.ts'
import type { Table } from '../base/table.ts'
import type { Finding } from './finding.ts'
import type { ObjectKey, Origin } from './origin.ts'
import type { ResolvedNames } from './resolved-names.ts'

export type NodeName = string

export interface NetworkModel {
	readonly config: NetworkConfig
	readonly nodes: Table<NodeName, Node>
	/** By pod key; pods without an address or node are there too (they explain a Service without endpoints). */
	readonly pods: Table<ObjectKey, Pod>
	readonly services: Table<ObjectKey, Service>
	/** Who owns an address: pod IPs, node IPs, ClusterIPs. */
	readonly addresses: Table<Ip, AddressOwner>
	/**
	 * The Service that has each frontend other than ClusterIPs: external IPs, load balancers' addresses, node ports;
	 * keys as `frontendKeyOf` (frontends.ts) writes them. Whoever is not named here does not get its connections.
	 */
	readonly frontends: Table<string, ObjectKey>
	readonly policies: Table<ObjectKey, Policy>
	/** Policies of the tiers before and behind NetworkPolicy, by `Kind name`. */
	readonly tieredPolicies: Table<string, TieredPolicy>
	readonly namespaces: Table<string, Namespace>
	/** What policies that name domains go by; absent: nobody has told. */
	readonly resolvedNames?: ResolvedNames
	readonly findings: readonly Finding[]
}

export interface NetworkConfig {
	/** `cluster.local` */
	readonly clusterDomain: string
	readonly podCidrs: readonly Cidr[]
	readonly serviceCidrs: readonly Cidr[]
	/** MTU of a pod's interface. */
	readonly mtu: number
	/** ClusterIP of the cluster DNS Service, undefined where there is none. */
	readonly dnsServiceIp?: Ip
	/** The nodes' default router, which is the load balancer before the cluster as well, on the nodes' network. */
	readonly routerIps?: readonly Ip[]
	/** Networks whose node addresses answer for node ports. Undefined: the primary address of each family. */
	readonly nodePortAddresses?: readonly Cidr[]
	/** Services' externalIPs count for nothing: the feature gate AllowServiceExternalIPs is off. */
	readonly ignoreExternalIps?: true
	/** resolv.conf of the nodes, which pods with dnsPolicy Default inherit. Undefined: it names no server. */
	readonly nodeDns?: ResolverConfig
}

/** The three statements of resolv.conf(5) that Kubernetes writes. */
export interface ResolverConfig {
	readonly nameservers: readonly Ip[]
	readonly searches: readonly string[]
	readonly options: readonly { readonly name: string; readonly value?: string }[]
}

export interface Namespace {
	readonly name: string
	readonly labels: Readonly<Record<string, string>>
	readonly origin: Origin
}

export interface Node {
	readonly name: NodeName
	readonly addresses: readonly Ip[]
	readonly podCidrs: readonly Cidr[]
	readonly ready: boolean
	/** Being deleted, or tainted by the cluster autoscaler to be: it takes no new traffic from load balancers (KEP-3836). */
	readonly leaving?: true
	readonly zone?: string
	readonly labels: Readonly<Record<string, string>>
	readonly origin: Origin
}

export interface Pod {
	readonly key: ObjectKey
	readonly uid: string
	readonly namespace: string
	readonly name: string
	readonly labels: Readonly<Record<string, string>>
	/** Undefined until scheduled. */
	readonly node?: NodeName
	readonly ips: readonly Ip[]
	readonly hostNetwork: boolean
	readonly phase: 'Pending' | 'Running' | 'Succeeded' | 'Failed' | 'Unknown'
	readonly ready: boolean
	readonly terminating: boolean
	/** `hostname.subdomain.namespace.svc.cluster.local` where set. */
	readonly hostname?: string
	readonly subdomain?: string
	readonly ports: readonly ContainerPort[]
	readonly dns: PodDns
	/** The workload that owns it: `Deployment default/web`; the pod itself where it has no owner. */
	readonly owner: { readonly kind: string; readonly key: ObjectKey }
	readonly origin: Origin
}

/** A finished pod has given its address back; a hostNetwork pod has none of its own. */
export function podAddresses(pod: Pod | undefined): readonly Ip[] {
	if (pod === undefined || pod.hostNetwork || pod.phase === 'Succeeded' || pod.phase === 'Failed') return []
	return pod.ips
}

export interface ContainerPort {
	readonly container: string
	readonly name?: string
	readonly port: number
	readonly protocol: Protocol
	/** The port of the node that leads here; undefined for a hostNetwork pod, whose ports are the node's own. */
	readonly hostPort?: number
	/** The only address of the node it is on; undefined: all. `0.0.0.0` and `::` are all of their family. */
	readonly hostIp?: Ip
	readonly origin: Origin
}

/** What the kubelet writes into the pod's /etc/resolv.conf (dnsPolicy and dnsConfig applied). */
export interface PodDns extends ResolverConfig {
	readonly origin: Origin
}

export type ServiceType = 'ClusterIP' | 'NodePort' | 'LoadBalancer' | 'ExternalName'

export interface Service {
	readonly key: ObjectKey
	readonly namespace: string
	readonly name: string
	readonly type: ServiceType
	/** Empty for headless and ExternalName. */
	readonly clusterIps: readonly Ip[]
	readonly headless: boolean
	readonly externalName?: string
	readonly selector?: Readonly<Record<string, string>>
	readonly publishNotReadyAddresses: boolean
	/** Seconds; undefined without session affinity. */
	readonly sessionAffinity?: number
	readonly internalTrafficPolicy: 'Cluster' | 'Local'
	readonly externalTrafficPolicy: 'Cluster' | 'Local'
	/** spec.externalIPs, where the cluster allows them. */
	readonly externalIps: readonly Ip[]
	/** spec.externalIPs, where the cluster does not. */
	readonly ignoredExternalIps?: readonly Ip[]
	/** Set exactly for type LoadBalancer. */
	readonly loadBalancer?: ServiceLoadBalancer
	/** Answers whether this node has a ready endpoint. Only type LoadBalancer with externalTrafficPolicy Local. */
	readonly healthCheckNodePort?: number
	readonly ports: readonly ServicePort[]
	/** Endpoints of slices without ports (port 0): names of a headless Service that has no port. */
	readonly addresses?: readonly Endpoint[]
	/** Set where a label leaves the Service to another proxy: no node answers for it. */
	readonly otherProxy?: Origin
	/** metadata.creationTimestamp, RFC 3339 in UTC: of two that claim one frontend the older has it. */
	readonly created?: string
	readonly origin: Origin
	/** Origins of single fields that decide something, with the line of the field where the manifest is known. */
	readonly fields?: Readonly<Partial<Record<ServiceField, Origin>>>
}

export interface ServiceLoadBalancer {
	/** Undefined: the cluster's default one. */
	readonly class?: string
	/** status.loadBalancer.ingress: what was given. */
	readonly ingress: readonly {
		readonly ip?: Ip
		readonly hostname?: string
		readonly ipMode: 'VIP' | 'Proxy'
	}[]
	/** spec.loadBalancerIP: what is asked for. */
	readonly requestedIp?: Ip
	/** spec.loadBalancerSourceRanges (or the annotation of old); empty: everybody may. */
	readonly sourceRanges: readonly Cidr[]
	readonly allocateNodePorts: boolean
	/** Who balances: a lab's appliance, or the node that announces the address. Undefined: the class is somebody else's. */
	readonly by?: 'appliance' | 'layer-2'
	/** Set where only the nodes' own network reaches it: the annotation that says so. */
	readonly internal?: Origin
}

export type ServiceField =
	| 'externalIPs'
	| 'loadBalancerSourceRanges'
	| 'loadBalancerIP'
	| 'loadBalancerClass'
	| 'healthCheckNodePort'
	| 'type'
	| 'clusterIP'
	| 'selector'
	| 'externalName'
	| 'internalTrafficPolicy'
	| 'externalTrafficPolicy'
	| 'sessionAffinity'
	| 'trafficDistribution'
	| 'publishNotReadyAddresses'

export interface ServicePort {
	readonly name: string
	readonly protocol: Protocol
	readonly port: number
	readonly nodePort?: number
	readonly targetPort: number | string
	readonly appProtocol?: string
	/** Every endpoint of the port, also those that may not serve now; `endpoints.ts` says who may. Sorted by address, then port. */
	readonly endpoints: readonly Endpoint[]
	readonly origin: Origin
}

export interface Endpoint {
	readonly ip: Ip
	readonly port: number
	readonly pod?: ObjectKey
	readonly node?: NodeName
	readonly zone?: string
	readonly hostname?: string
	readonly ready: boolean
	readonly serving: boolean
	readonly terminating: boolean
	readonly hints: readonly { readonly kind: 'node' | 'zone'; readonly name: string }[]
	readonly origin: Origin
}

export type AddressOwner =
	| { readonly kind: 'pod'; readonly pod: ObjectKey }
	| { readonly kind: 'node'; readonly node: NodeName }
	| { readonly kind: 'service'; readonly service: ObjectKey }

/** networking.k8s.io/v1 NetworkPolicy, selectors kept as predicates over labels so that the walk can say what failed. */
export interface Policy {
	readonly key: ObjectKey
	readonly namespace: string
	readonly subject: LabelSelector
	/** undefined: this policy does not isolate that direction. An empty list denies all. */
	readonly ingress?: readonly PolicyRule[]
	readonly egress?: readonly PolicyRule[]
	/** On trial (annotation `podwire.dev/audit`): what it alone denies is said and passes. Why: the policy, or its namespace. */
	readonly audit?: Origin
	readonly origin: Origin
}

export interface PolicyRule {
	/** Empty: any peer. */
	readonly peers: readonly PolicyPeer[]
	/** Empty: any port and protocol. */
	readonly ports: readonly PolicyPort[]
	readonly origin: Origin
}

export type PolicyPeer =
	| {
			readonly kind: 'pods'
			/** undefined: the policy's own namespace. */
			readonly namespaces?: LabelSelector
			/** undefined: all pods. */
			readonly pods?: LabelSelector
			readonly origin: Origin
	  }
	| { readonly kind: 'block'; readonly cidr: Cidr; readonly except: readonly Cidr[]; readonly origin: Origin }

export interface PolicyPort {
	readonly protocol: Protocol
	/** undefined: all ports of the protocol; a name is resolved for each destination pod. */
	readonly port?: number | string
	readonly endPort?: number
	readonly origin: Origin
}

/**
 * policy.networking.k8s.io ClusterNetworkPolicy, AdminNetworkPolicy and BaselineAdminNetworkPolicy: rules in order that
 * accept, deny or pass. Admin tier → NetworkPolicy (final for the pods it isolates) → Baseline tier → allowed.
 */
export interface TieredPolicy {
	readonly kind: 'ClusterNetworkPolicy' | 'AdminNetworkPolicy' | 'BaselineAdminNetworkPolicy'
	/** The name: all three are cluster-scoped. */
	readonly key: ObjectKey
	readonly tier: 'Admin' | 'Baseline'
	/** Lower comes first; `inOrder` (policy.ts) breaks ties. A BaselineAdminNetworkPolicy, which has none, comes last. */
	readonly priority: number
	readonly subject: { readonly namespaces: LabelSelector; readonly pods?: LabelSelector }
	readonly ingress: readonly TieredRule[]
	readonly egress: readonly TieredRule[]
	/** What of it cannot be read outside of rules: it is not as its author wants it. */
	readonly unreadable?: readonly Origin[]
	readonly origin: Origin
}

export interface TieredRule {
	readonly action: 'Accept' | 'Deny' | 'Pass'
	/** What the author calls it. */
	readonly name?: string
	/** Peers of kind `pods` always have `namespaces`. Empty: matches nobody. */
	readonly peers: readonly TieredPeer[]
	/** Empty: any port and protocol. A name stands there once for each protocol. */
	readonly ports: readonly PolicyPort[]
	/**
	 * A field that no version we know has, or none where one must be: the rule fails closed. An Accept then has no peers;
	 * a Deny or Pass is a Deny of every address and port.
	 */
	readonly unreadable?: readonly Origin[]
	readonly origin: Origin
}

/** `domains` means the addresses that the model's `resolvedNames` has for its names. */
export type TieredPeer =
	| PolicyPeer
	| { readonly kind: 'nodes'; readonly nodes: LabelSelector; readonly origin: Origin }
	| { readonly kind: 'domains'; readonly names: readonly string[]; readonly origin: Origin }

export interface LabelSelector {
	readonly matchLabels: Readonly<Record<string, string>>
	readonly matchExpressions: readonly {
		readonly key: string
		readonly operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist'
		readonly values: readonly string[]
	}[]
}
