// The built-in resources with the type of their objects, so that `client.list(pods)` yields Pods.

import type { ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet } from './objects/apps.ts'
import type { Job } from './objects/batch.ts'
import type { Lease } from './objects/coordination.ts'
import type {
	ConfigMap,
	Endpoints,
	Event,
	Namespace,
	Node,
	ReplicationController,
	Secret,
	Service,
	ServiceAccount,
} from './objects/core.ts'
import type { EndpointSlice } from './objects/discovery.ts'
import type { KubeObject } from './objects/meta.ts'
import type { Ingress, IngressClass, IPAddress, NetworkPolicy, ServiceCIDR } from './objects/networking.ts'
import type { Pod } from './objects/pod.ts'
import type { PodDisruptionBudget } from './objects/policy.ts'
import type { PersistentVolume, PersistentVolumeClaim, StorageClass } from './objects/storage.ts'
import { type Resource, resourceOf } from './resources.ts'

/** What a client must know of a resource; `object` exists for the compiler alone. */
export interface Kind<T extends KubeObject = KubeObject>
	extends Pick<Resource, 'group' | 'version' | 'kind' | 'plural' | 'namespaced'> {
	readonly object?: T
}

function kind<T extends KubeObject>(apiVersion: T['apiVersion'], name: T['kind']): Kind<T> & Resource {
	return resourceOf(apiVersion, name)
}

export const configMaps = kind<ConfigMap>('v1', 'ConfigMap')
export const endpoints = kind<Endpoints>('v1', 'Endpoints')
export const events = kind<Event>('v1', 'Event')
export const namespaces = kind<Namespace>('v1', 'Namespace')
export const nodes = kind<Node>('v1', 'Node')
export const persistentVolumeClaims = kind<PersistentVolumeClaim>('v1', 'PersistentVolumeClaim')
export const persistentVolumes = kind<PersistentVolume>('v1', 'PersistentVolume')
export const pods = kind<Pod>('v1', 'Pod')
export const replicationControllers = kind<ReplicationController>('v1', 'ReplicationController')
export const secrets = kind<Secret>('v1', 'Secret')
export const serviceAccounts = kind<ServiceAccount>('v1', 'ServiceAccount')
export const services = kind<Service>('v1', 'Service')
export const controllerRevisions = kind<ControllerRevision>('apps/v1', 'ControllerRevision')
export const daemonSets = kind<DaemonSet>('apps/v1', 'DaemonSet')
export const deployments = kind<Deployment>('apps/v1', 'Deployment')
export const replicaSets = kind<ReplicaSet>('apps/v1', 'ReplicaSet')
export const statefulSets = kind<StatefulSet>('apps/v1', 'StatefulSet')
export const jobs = kind<Job>('batch/v1', 'Job')
export const leases = kind<Lease>('coordination.k8s.io/v1', 'Lease')
export const endpointSlices = kind<EndpointSlice>('discovery.k8s.io/v1', 'EndpointSlice')
export const ingresses = kind<Ingress>('networking.k8s.io/v1', 'Ingress')
export const ingressClasses = kind<IngressClass>('networking.k8s.io/v1', 'IngressClass')
export const ipAddresses = kind<IPAddress>('networking.k8s.io/v1', 'IPAddress')
export const networkPolicies = kind<NetworkPolicy>('networking.k8s.io/v1', 'NetworkPolicy')
export const podDisruptionBudgets = kind<PodDisruptionBudget>('policy/v1', 'PodDisruptionBudget')
export const serviceCidrs = kind<ServiceCIDR>('networking.k8s.io/v1', 'ServiceCIDR')
export const storageClasses = kind<StorageClass>('storage.k8s.io/v1', 'StorageClass')
