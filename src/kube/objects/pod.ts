// core/v1 Pod, the largest of the objects. Only fields we use.

import type { ApiProtocol, Taint } from './core.ts'
import type { IntOrString, KubeObject, LabelSelector, ObjectMeta, Quantity, Time } from './meta.ts'

export interface Pod extends KubeObject {
	readonly apiVersion: 'v1'
	readonly kind: 'Pod'
	readonly spec?: PodSpec
	readonly status?: PodStatus
}

export interface PodTemplateSpec {
	readonly metadata?: Partial<ObjectMeta>
	readonly spec?: PodSpec
}

export interface PodSpec {
	readonly containers: readonly Container[]
	readonly initContainers?: readonly Container[]
	readonly ephemeralContainers?: readonly Container[]
	readonly volumes?: readonly Volume[]
	readonly restartPolicy?: 'Always' | 'OnFailure' | 'Never'
	readonly terminationGracePeriodSeconds?: number
	readonly activeDeadlineSeconds?: number
	readonly dnsPolicy?: 'ClusterFirst' | 'ClusterFirstWithHostNet' | 'Default' | 'None'
	readonly dnsConfig?: PodDnsConfig
	readonly nodeSelector?: Readonly<Record<string, string>>
	readonly nodeName?: string
	readonly serviceAccountName?: string
	readonly automountServiceAccountToken?: boolean
	readonly hostNetwork?: boolean
	readonly hostPID?: boolean
	readonly hostIPC?: boolean
	readonly shareProcessNamespace?: boolean
	readonly securityContext?: PodSecurityContext
	readonly imagePullSecrets?: readonly { readonly name?: string }[]
	readonly hostname?: string
	readonly subdomain?: string
	readonly setHostnameAsFQDN?: boolean
	readonly affinity?: Affinity
	readonly schedulerName?: string
	readonly tolerations?: readonly Toleration[]
	readonly hostAliases?: readonly { readonly ip: string; readonly hostnames?: readonly string[] }[]
	readonly priorityClassName?: string
	readonly priority?: number
	readonly readinessGates?: readonly { readonly conditionType: string }[]
	readonly schedulingGates?: readonly { readonly name: string }[]
	readonly enableServiceLinks?: boolean
	readonly topologySpreadConstraints?: readonly TopologySpreadConstraint[]
	readonly overhead?: Readonly<Record<string, Quantity>>
	readonly runtimeClassName?: string
}

export interface PodSecurityContext {
	readonly runAsUser?: number
	readonly runAsGroup?: number
	readonly runAsNonRoot?: boolean
	readonly fsGroup?: number
	readonly sysctls?: readonly { readonly name: string; readonly value: string }[]
}

export interface PodDnsConfig {
	readonly nameservers?: readonly string[]
	readonly searches?: readonly string[]
	readonly options?: readonly { readonly name?: string; readonly value?: string }[]
}

export interface Container {
	readonly name: string
	readonly image?: string
	readonly imagePullPolicy?: 'Always' | 'IfNotPresent' | 'Never'
	readonly command?: readonly string[]
	readonly args?: readonly string[]
	readonly workingDir?: string
	readonly ports?: readonly ContainerPort[]
	readonly env?: readonly EnvVar[]
	readonly envFrom?: readonly EnvFromSource[]
	readonly resources?: {
		readonly limits?: Readonly<Record<string, Quantity>>
		readonly requests?: Readonly<Record<string, Quantity>>
	}
	readonly restartPolicy?: 'Always' | 'OnFailure' | 'Never'
	readonly volumeMounts?: readonly VolumeMount[]
	readonly livenessProbe?: Probe
	readonly readinessProbe?: Probe
	readonly startupProbe?: Probe
	readonly lifecycle?: { readonly postStart?: Handler; readonly preStop?: Handler }
	readonly terminationMessagePath?: string
	readonly terminationMessagePolicy?: 'File' | 'FallbackToLogsOnError'
	readonly securityContext?: Readonly<Record<string, unknown>>
	readonly stdin?: boolean
	readonly stdinOnce?: boolean
	readonly tty?: boolean
	/** Ephemeral containers only. */
	readonly targetContainerName?: string
}

export interface ContainerPort {
	readonly name?: string
	readonly containerPort: number
	readonly protocol?: ApiProtocol
	readonly hostPort?: number
	readonly hostIP?: string
}

export interface EnvVar {
	readonly name: string
	readonly value?: string
	readonly valueFrom?: {
		readonly fieldRef?: { readonly apiVersion?: string; readonly fieldPath: string }
		readonly resourceFieldRef?: {
			readonly containerName?: string
			readonly resource: string
			readonly divisor?: Quantity
		}
		readonly configMapKeyRef?: KeyReference
		readonly secretKeyRef?: KeyReference
	}
}

export interface KeyReference {
	readonly name?: string
	readonly key: string
	readonly optional?: boolean
}

export interface EnvFromSource {
	readonly prefix?: string
	readonly configMapRef?: { readonly name?: string; readonly optional?: boolean }
	readonly secretRef?: { readonly name?: string; readonly optional?: boolean }
}

export interface VolumeMount {
	readonly name: string
	readonly mountPath: string
	readonly readOnly?: boolean
	readonly subPath?: string
	readonly subPathExpr?: string
}

export interface KeyToPath {
	readonly key: string
	readonly path: string
	readonly mode?: number
}

export interface ConfigMapVolume {
	readonly name?: string
	readonly items?: readonly KeyToPath[]
	readonly optional?: boolean
	readonly defaultMode?: number
}

export interface SecretVolume {
	readonly secretName?: string
	readonly items?: readonly KeyToPath[]
	readonly optional?: boolean
	readonly defaultMode?: number
}

export interface DownwardVolume {
	readonly items?: readonly {
		readonly path: string
		readonly mode?: number
		readonly fieldRef?: { readonly apiVersion?: string; readonly fieldPath: string }
		readonly resourceFieldRef?: {
			readonly containerName?: string
			readonly resource: string
			readonly divisor?: Quantity
		}
	}[]
	readonly defaultMode?: number
}

export interface Volume {
	readonly name: string
	readonly emptyDir?: { readonly medium?: string; readonly sizeLimit?: Quantity }
	readonly hostPath?: { readonly path: string; readonly type?: string }
	readonly configMap?: ConfigMapVolume
	readonly secret?: SecretVolume
	readonly downwardAPI?: DownwardVolume
	readonly projected?: {
		readonly defaultMode?: number
		readonly sources?: readonly {
			readonly configMap?: ConfigMapVolume
			readonly secret?: { readonly name?: string; readonly items?: readonly KeyToPath[]; readonly optional?: boolean }
			readonly downwardAPI?: DownwardVolume
			readonly serviceAccountToken?: {
				readonly audience?: string
				readonly expirationSeconds?: number
				readonly path: string
			}
		}[]
	}
	readonly persistentVolumeClaim?: { readonly claimName: string; readonly readOnly?: boolean }
}

export interface HttpGetAction {
	readonly path?: string
	readonly port: IntOrString
	readonly host?: string
	readonly scheme?: 'HTTP' | 'HTTPS'
	readonly httpHeaders?: readonly { readonly name: string; readonly value: string }[]
}

export interface Handler {
	readonly exec?: { readonly command?: readonly string[] }
	readonly httpGet?: HttpGetAction
	readonly tcpSocket?: { readonly port: IntOrString; readonly host?: string }
	readonly sleep?: { readonly seconds: number }
}

export interface Probe extends Handler {
	readonly grpc?: { readonly port: number; readonly service?: string }
	readonly initialDelaySeconds?: number
	readonly timeoutSeconds?: number
	readonly periodSeconds?: number
	readonly successThreshold?: number
	readonly failureThreshold?: number
	readonly terminationGracePeriodSeconds?: number
}

export interface Toleration {
	readonly key?: string
	readonly operator?: 'Exists' | 'Equal' | 'Lt' | 'Gt'
	readonly value?: string
	readonly effect?: Taint['effect']
	readonly tolerationSeconds?: number
}

export interface Affinity {
	readonly nodeAffinity?: {
		readonly requiredDuringSchedulingIgnoredDuringExecution?: {
			readonly nodeSelectorTerms: readonly NodeSelectorTerm[]
		}
		readonly preferredDuringSchedulingIgnoredDuringExecution?: readonly {
			readonly weight: number
			readonly preference: NodeSelectorTerm
		}[]
	}
	readonly podAffinity?: PodAffinity
	readonly podAntiAffinity?: PodAffinity
}

export interface NodeSelectorTerm {
	readonly matchExpressions?: readonly NodeSelectorRequirement[]
	readonly matchFields?: readonly NodeSelectorRequirement[]
}

export interface NodeSelectorRequirement {
	readonly key: string
	readonly operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist' | 'Gt' | 'Lt'
	readonly values?: readonly string[]
}

export interface PodAffinity {
	readonly requiredDuringSchedulingIgnoredDuringExecution?: readonly PodAffinityTerm[]
	readonly preferredDuringSchedulingIgnoredDuringExecution?: readonly {
		readonly weight: number
		readonly podAffinityTerm: PodAffinityTerm
	}[]
}

export interface PodAffinityTerm {
	readonly labelSelector?: LabelSelector
	readonly namespaces?: readonly string[]
	readonly namespaceSelector?: LabelSelector
	readonly topologyKey: string
	readonly matchLabelKeys?: readonly string[]
	readonly mismatchLabelKeys?: readonly string[]
}

export interface TopologySpreadConstraint {
	readonly maxSkew: number
	readonly topologyKey: string
	readonly whenUnsatisfiable: 'DoNotSchedule' | 'ScheduleAnyway'
	readonly labelSelector?: LabelSelector
	readonly minDomains?: number
	readonly nodeAffinityPolicy?: 'Honor' | 'Ignore'
	readonly nodeTaintsPolicy?: 'Honor' | 'Ignore'
	readonly matchLabelKeys?: readonly string[]
}

export type PodPhase = 'Pending' | 'Running' | 'Succeeded' | 'Failed' | 'Unknown'

export interface PodStatus {
	readonly phase?: PodPhase
	readonly conditions?: readonly PodCondition[]
	readonly message?: string
	readonly reason?: string
	readonly nominatedNodeName?: string
	readonly hostIP?: string
	readonly hostIPs?: readonly { readonly ip: string }[]
	readonly podIP?: string
	readonly podIPs?: readonly { readonly ip: string }[]
	readonly startTime?: Time
	readonly containerStatuses?: readonly ContainerStatus[]
	readonly initContainerStatuses?: readonly ContainerStatus[]
	readonly ephemeralContainerStatuses?: readonly ContainerStatus[]
	readonly qosClass?: 'Guaranteed' | 'Burstable' | 'BestEffort'
	readonly observedGeneration?: number
}

export interface PodCondition {
	readonly type: string
	readonly status: 'True' | 'False' | 'Unknown'
	readonly lastProbeTime?: Time | null
	readonly lastTransitionTime?: Time | null
	readonly observedGeneration?: number
	readonly reason?: string
	readonly message?: string
}

export interface ContainerStatus {
	readonly name: string
	readonly state?: ContainerState
	readonly lastState?: ContainerState
	readonly ready: boolean
	readonly started?: boolean
	readonly restartCount: number
	readonly image: string
	readonly imageID: string
	readonly containerID?: string
}

export interface ContainerState {
	readonly waiting?: { readonly reason?: string; readonly message?: string }
	readonly running?: { readonly startedAt?: Time }
	readonly terminated?: {
		readonly exitCode: number
		readonly signal?: number
		readonly reason?: string
		readonly message?: string
		readonly startedAt?: Time
		readonly finishedAt?: Time
		readonly containerID?: string
	}
}
