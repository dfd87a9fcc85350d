// The core group (v1) without Pod: Service, Endpoints, Node, Namespace and what a pod mounts. Only fields we use.

import type { Condition, IntOrString, KubeObject, MicroTime, ObjectMeta, Quantity, Time } from './meta.ts'
import type { PodTemplateSpec } from './pod.ts'

export type ApiProtocol = 'TCP' | 'UDP' | 'SCTP'

export interface Service extends KubeObject {
	readonly apiVersion: 'v1'
	readonly kind: 'Service'
	readonly spec?: ServiceSpec
	readonly status?: ServiceStatus
}

export interface ServiceSpec {
	readonly type?: 'ClusterIP' | 'NodePort' | 'LoadBalancer' | 'ExternalName'
	readonly ports?: readonly ServicePort[]
	readonly selector?: Readonly<Record<string, string>>
	/** `None` for headless, '' or absent until allocated. */
	readonly clusterIP?: string
	readonly clusterIPs?: readonly string[]
	readonly externalIPs?: readonly string[]
	readonly externalName?: string
	readonly sessionAffinity?: 'None' | 'ClientIP'
	readonly sessionAffinityConfig?: { readonly clientIP?: { readonly timeoutSeconds?: number } }
	readonly loadBalancerIP?: string
	readonly loadBalancerClass?: string
	readonly loadBalancerSourceRanges?: readonly string[]
	readonly allocateLoadBalancerNodePorts?: boolean
	readonly externalTrafficPolicy?: 'Cluster' | 'Local'
	readonly internalTrafficPolicy?: 'Cluster' | 'Local'
	readonly healthCheckNodePort?: number
	readonly publishNotReadyAddresses?: boolean
	readonly ipFamilies?: readonly ('IPv4' | 'IPv6')[]
	readonly ipFamilyPolicy?: 'SingleStack' | 'PreferDualStack' | 'RequireDualStack'
	readonly trafficDistribution?: 'PreferClose' | 'PreferSameZone' | 'PreferSameNode'
}

export interface ServicePort {
	readonly name?: string
	readonly protocol?: ApiProtocol
	readonly appProtocol?: string
	readonly port: number
	readonly targetPort?: IntOrString
	readonly nodePort?: number
}

export interface ServiceStatus {
	readonly loadBalancer?: { readonly ingress?: readonly LoadBalancerIngress[] }
	readonly conditions?: readonly Condition[]
}

export interface LoadBalancerIngress {
	readonly ip?: string
	readonly hostname?: string
	readonly ipMode?: 'VIP' | 'Proxy'
	readonly ports?: readonly { readonly port: number; readonly protocol: ApiProtocol; readonly error?: string }[]
}

export interface Endpoints extends KubeObject {
	readonly apiVersion: 'v1'
	readonly kind: 'Endpoints'
	readonly subsets?: readonly EndpointSubset[]
}

export interface EndpointSubset {
	readonly addresses?: readonly EndpointAddress[]
	readonly notReadyAddresses?: readonly EndpointAddress[]
	readonly ports?: readonly {
		readonly name?: string
		readonly port: number
		readonly protocol?: ApiProtocol
		readonly appProtocol?: string
	}[]
}

export interface EndpointAddress {
	readonly ip: string
	readonly hostname?: string
	readonly nodeName?: string
	readonly targetRef?: ObjectReference
}

export interface ObjectReference {
	readonly apiVersion?: string
	readonly kind?: string
	readonly namespace?: string
	readonly name?: string
	readonly uid?: string
	readonly resourceVersion?: string
	readonly fieldPath?: string
}

export interface Node extends KubeObject {
	readonly apiVersion: 'v1'
	readonly kind: 'Node'
	readonly spec?: NodeSpec
	readonly status?: NodeStatus
}

export interface NodeSpec {
	readonly podCIDR?: string
	readonly podCIDRs?: readonly string[]
	readonly providerID?: string
	readonly unschedulable?: boolean
	readonly taints?: readonly Taint[]
}

export interface Taint {
	readonly key: string
	readonly value?: string
	readonly effect: 'NoSchedule' | 'PreferNoSchedule' | 'NoExecute'
	readonly timeAdded?: Time
}

export interface NodeStatus {
	readonly addresses?: readonly NodeAddress[]
	readonly capacity?: Readonly<Record<string, Quantity>>
	readonly allocatable?: Readonly<Record<string, Quantity>>
	readonly conditions?: readonly NodeCondition[]
	readonly nodeInfo?: NodeSystemInfo
	readonly daemonEndpoints?: { readonly kubeletEndpoint?: { readonly Port: number } }
	readonly images?: readonly { readonly names?: readonly string[]; readonly sizeBytes?: number }[]
}

export interface NodeAddress {
	readonly type: 'InternalIP' | 'ExternalIP' | 'Hostname' | 'InternalDNS' | 'ExternalDNS'
	readonly address: string
}

export interface NodeCondition extends Condition {
	readonly lastHeartbeatTime?: Time
}

export interface NodeSystemInfo {
	readonly machineID: string
	readonly systemUUID: string
	readonly bootID: string
	readonly kernelVersion: string
	readonly osImage: string
	readonly containerRuntimeVersion: string
	readonly kubeletVersion: string
	readonly kubeProxyVersion: string
	readonly operatingSystem: string
	readonly architecture: string
}

export interface Namespace extends KubeObject {
	readonly apiVersion: 'v1'
	readonly kind: 'Namespace'
	readonly spec?: { readonly finalizers?: readonly string[] }
	readonly status?: { readonly phase?: 'Active' | 'Terminating'; readonly conditions?: readonly Condition[] }
}

export interface ConfigMap extends KubeObject {
	readonly apiVersion: 'v1'
	readonly kind: 'ConfigMap'
	readonly data?: Readonly<Record<string, string>>
	/** Base64. */
	readonly binaryData?: Readonly<Record<string, string>>
	readonly immutable?: boolean
}

export interface Secret extends KubeObject {
	readonly apiVersion: 'v1'
	readonly kind: 'Secret'
	readonly type?: string
	/** Base64. */
	readonly data?: Readonly<Record<string, string>>
	readonly stringData?: Readonly<Record<string, string>>
	readonly immutable?: boolean
}

export interface ServiceAccount extends KubeObject {
	readonly apiVersion: 'v1'
	readonly kind: 'ServiceAccount'
	readonly secrets?: readonly ObjectReference[]
	readonly imagePullSecrets?: readonly { readonly name?: string }[]
	readonly automountServiceAccountToken?: boolean
}

export interface ReplicationController extends KubeObject {
	readonly apiVersion: 'v1'
	readonly kind: 'ReplicationController'
	readonly spec?: {
		readonly replicas?: number
		readonly minReadySeconds?: number
		readonly selector?: Readonly<Record<string, string>>
		readonly template?: PodTemplateSpec
	}
	readonly status?: {
		readonly replicas: number
		readonly readyReplicas?: number
		readonly availableReplicas?: number
		readonly fullyLabeledReplicas?: number
		readonly observedGeneration?: number
		readonly conditions?: readonly Condition[]
	}
}

/** A v1 Event; events.k8s.io/v1 stores the same object under other field names. */
export interface Event extends KubeObject {
	readonly apiVersion: 'v1'
	readonly kind: 'Event'
	readonly metadata: ObjectMeta
	readonly involvedObject: ObjectReference
	readonly reason?: string
	readonly message?: string
	readonly source?: { readonly component?: string; readonly host?: string }
	readonly firstTimestamp?: Time | null
	readonly lastTimestamp?: Time | null
	readonly count?: number
	readonly type?: 'Normal' | 'Warning'
	readonly eventTime?: MicroTime | null
	readonly series?: { readonly count?: number; readonly lastObservedTime?: MicroTime }
	readonly action?: string
	readonly related?: ObjectReference
	readonly reportingComponent?: string
	readonly reportingInstance?: string
}
