// THE registry of kinds: one row for each built-in resource Podwire knows. The API server serves these rows,
// the client finds paths in them, manifests are checked against them. Kinds of CRDs join at run time.
// Names, short names, categories and verbs are those the Kubernetes API server announces.

import { splitApiVersion } from './objects/meta.ts'

export type Verb =
	| 'create'
	| 'delete'
	| 'deletecollection'
	| 'get'
	| 'list'
	| 'patch'
	| 'update'
	| 'watch'
	| 'proxy'
	| 'connect'
	| 'impersonate'
	| 'bind'
	| 'escalate'

export interface Subresource {
	readonly name: string
	readonly verbs: readonly Verb[]
	/** The kind of its body where it differs from the parent's. */
	readonly body?: { readonly group: string; readonly version: string; readonly kind: string }
}

export interface Resource {
	/** '' for core. */
	readonly group: string
	readonly version: string
	readonly kind: string
	readonly plural: string
	readonly singular: string
	readonly shortNames: readonly string[]
	readonly categories: readonly string[]
	readonly namespaced: boolean
	readonly verbs: readonly Verb[]
	readonly subresources: readonly Subresource[]
	/** A review is answered and not stored. */
	readonly stored: boolean
}

const all: readonly Verb[] = ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch']
const status: Subresource = { name: 'status', verbs: ['get', 'patch', 'update'] }
const scale: Subresource = {
	name: 'scale',
	verbs: ['get', 'patch', 'update'],
	body: { group: 'autoscaling', version: 'v1', kind: 'Scale' },
}
const connect = (name: string, verbs: readonly Verb[], kind: string): Subresource => ({
	name,
	verbs,
	body: { group: '', version: 'v1', kind },
})

type Extra = Partial<Pick<Resource, 'shortNames' | 'categories' | 'verbs' | 'subresources' | 'stored' | 'singular'>>

function row(apiVersion: string, kind: string, plural: string, namespaced: boolean, extra: Extra = {}): Resource {
	return {
		...splitApiVersion(apiVersion),
		kind,
		plural,
		singular: kind.toLowerCase(),
		shortNames: [],
		categories: [],
		namespaced,
		verbs: all,
		subresources: [],
		stored: true,
		...extra,
	}
}
const review = (apiVersion: string, kind: string, plural: string, namespaced = false): Resource =>
	row(apiVersion, kind, plural, namespaced, { verbs: ['create'], stored: false })

const proxyVerbs: readonly Verb[] = ['create', 'delete', 'get', 'patch', 'update']

function makeRows(): readonly Resource[] {
	return [
		// core
		row('v1', 'Binding', 'bindings', true, { verbs: ['create'], stored: false }),
		row('v1', 'ConfigMap', 'configmaps', true, { shortNames: ['cm'] }),
		row('v1', 'Endpoints', 'endpoints', true, { shortNames: ['ep'] }),
		row('v1', 'Event', 'events', true, { shortNames: ['ev'] }),
		row('v1', 'LimitRange', 'limitranges', true, { shortNames: ['limits'] }),
		row('v1', 'Namespace', 'namespaces', false, {
			shortNames: ['ns'],
			verbs: ['create', 'delete', 'get', 'list', 'patch', 'update', 'watch'],
			subresources: [{ name: 'finalize', verbs: ['update'] }, status],
		}),
		row('v1', 'Node', 'nodes', false, {
			shortNames: ['no'],
			subresources: [connect('proxy', proxyVerbs, 'NodeProxyOptions'), status],
		}),
		row('v1', 'PersistentVolumeClaim', 'persistentvolumeclaims', true, {
			shortNames: ['pvc'],
			subresources: [status],
		}),
		row('v1', 'PersistentVolume', 'persistentvolumes', false, { shortNames: ['pv'], subresources: [status] }),
		row('v1', 'Pod', 'pods', true, {
			shortNames: ['po'],
			categories: ['all'],
			subresources: [
				connect('attach', ['create', 'get'], 'PodAttachOptions'),
				connect('binding', ['create'], 'Binding'),
				{ name: 'ephemeralcontainers', verbs: ['get', 'patch', 'update'] },
				{ name: 'eviction', verbs: ['create'], body: { group: 'policy', version: 'v1', kind: 'Eviction' } },
				connect('exec', ['create', 'get'], 'PodExecOptions'),
				{ name: 'log', verbs: ['get'] },
				connect('portforward', ['create', 'get'], 'PodPortForwardOptions'),
				connect('proxy', proxyVerbs, 'PodProxyOptions'),
				{ name: 'resize', verbs: ['get', 'patch', 'update'] },
				status,
			],
		}),
		row('v1', 'PodTemplate', 'podtemplates', true),
		row('v1', 'ReplicationController', 'replicationcontrollers', true, {
			shortNames: ['rc'],
			categories: ['all'],
			subresources: [scale, status],
		}),
		row('v1', 'ResourceQuota', 'resourcequotas', true, { shortNames: ['quota'], subresources: [status] }),
		row('v1', 'Secret', 'secrets', true),
		row('v1', 'ServiceAccount', 'serviceaccounts', true, {
			shortNames: ['sa'],
			subresources: [
				{
					name: 'token',
					verbs: ['create'],
					body: { group: 'authentication.k8s.io', version: 'v1', kind: 'TokenRequest' },
				},
			],
		}),
		row('v1', 'Service', 'services', true, {
			shortNames: ['svc'],
			categories: ['all'],
			subresources: [connect('proxy', proxyVerbs, 'ServiceProxyOptions'), status],
		}),
		// apiextensions, apiregistration, admission
		row('admissionregistration.k8s.io/v1', 'MutatingWebhookConfiguration', 'mutatingwebhookconfigurations', false, {
			categories: ['api-extensions'],
		}),
		row('admissionregistration.k8s.io/v1', 'ValidatingWebhookConfiguration', 'validatingwebhookconfigurations', false, {
			categories: ['api-extensions'],
		}),
		row('apiextensions.k8s.io/v1', 'CustomResourceDefinition', 'customresourcedefinitions', false, {
			shortNames: ['crd', 'crds'],
			categories: ['api-extensions'],
			subresources: [status],
		}),
		row('apiregistration.k8s.io/v1', 'APIService', 'apiservices', false, {
			categories: ['api-extensions'],
			subresources: [status],
		}),
		// apps
		row('apps/v1', 'ControllerRevision', 'controllerrevisions', true),
		row('apps/v1', 'DaemonSet', 'daemonsets', true, {
			shortNames: ['ds'],
			categories: ['all'],
			subresources: [status],
		}),
		row('apps/v1', 'Deployment', 'deployments', true, {
			shortNames: ['deploy'],
			categories: ['all'],
			subresources: [scale, status],
		}),
		row('apps/v1', 'ReplicaSet', 'replicasets', true, {
			shortNames: ['rs'],
			categories: ['all'],
			subresources: [scale, status],
		}),
		row('apps/v1', 'StatefulSet', 'statefulsets', true, {
			shortNames: ['sts'],
			categories: ['all'],
			subresources: [scale, status],
		}),
		// reviews
		review('authentication.k8s.io/v1', 'SelfSubjectReview', 'selfsubjectreviews'),
		review('authentication.k8s.io/v1', 'TokenReview', 'tokenreviews'),
		review('authorization.k8s.io/v1', 'LocalSubjectAccessReview', 'localsubjectaccessreviews', true),
		review('authorization.k8s.io/v1', 'SelfSubjectAccessReview', 'selfsubjectaccessreviews'),
		review('authorization.k8s.io/v1', 'SelfSubjectRulesReview', 'selfsubjectrulesreviews'),
		review('authorization.k8s.io/v1', 'SubjectAccessReview', 'subjectaccessreviews'),
		// autoscaling, batch
		row('autoscaling/v2', 'HorizontalPodAutoscaler', 'horizontalpodautoscalers', true, {
			shortNames: ['hpa'],
			categories: ['all'],
			subresources: [status],
		}),
		row('batch/v1', 'CronJob', 'cronjobs', true, {
			shortNames: ['cj'],
			categories: ['all'],
			subresources: [status],
		}),
		row('batch/v1', 'Job', 'jobs', true, { categories: ['all'], subresources: [status] }),
		row('certificates.k8s.io/v1', 'CertificateSigningRequest', 'certificatesigningrequests', false, {
			shortNames: ['csr'],
			subresources: [{ name: 'approval', verbs: ['get', 'patch', 'update'] }, status],
		}),
		row('coordination.k8s.io/v1', 'Lease', 'leases', true),
		row('discovery.k8s.io/v1', 'EndpointSlice', 'endpointslices', true),
		row('events.k8s.io/v1', 'Event', 'events', true, { shortNames: ['ev'] }),
		// networking
		row('networking.k8s.io/v1', 'IngressClass', 'ingressclasses', false),
		row('networking.k8s.io/v1', 'Ingress', 'ingresses', true, { shortNames: ['ing'], subresources: [status] }),
		row('networking.k8s.io/v1', 'IPAddress', 'ipaddresses', false, { shortNames: ['ip'] }),
		row('networking.k8s.io/v1', 'NetworkPolicy', 'networkpolicies', true, { shortNames: ['netpol'] }),
		row('networking.k8s.io/v1', 'ServiceCIDR', 'servicecidrs', false, { subresources: [status] }),
		row('node.k8s.io/v1', 'RuntimeClass', 'runtimeclasses', false),
		row('policy/v1', 'PodDisruptionBudget', 'poddisruptionbudgets', true, {
			shortNames: ['pdb'],
			subresources: [status],
		}),
		// rbac
		row('rbac.authorization.k8s.io/v1', 'ClusterRoleBinding', 'clusterrolebindings', false),
		row('rbac.authorization.k8s.io/v1', 'ClusterRole', 'clusterroles', false),
		row('rbac.authorization.k8s.io/v1', 'RoleBinding', 'rolebindings', true),
		row('rbac.authorization.k8s.io/v1', 'Role', 'roles', true),
		// scheduling, storage
		row('scheduling.k8s.io/v1', 'PriorityClass', 'priorityclasses', false, { shortNames: ['pc'] }),
		row('storage.k8s.io/v1', 'CSIDriver', 'csidrivers', false),
		row('storage.k8s.io/v1', 'CSINode', 'csinodes', false),
		row('storage.k8s.io/v1', 'CSIStorageCapacity', 'csistoragecapacities', true),
		row('storage.k8s.io/v1', 'StorageClass', 'storageclasses', false, { shortNames: ['sc'] }),
		row('storage.k8s.io/v1', 'VolumeAttachment', 'volumeattachments', false, { subresources: [status] }),
	]
}

/** Every built-in resource; within a group in the order the rows are announced. */
export const resources: readonly Resource[] = makeRows()

/** `apps/v1`; `v1` for core. */
export function apiVersionOf(resource: { readonly group: string; readonly version: string }): string {
	return resource.group === '' ? resource.version : `${resource.group}/${resource.version}`
}

const byKind: ReadonlyMap<string, Resource> = new Map(resources.map((r) => [`${apiVersionOf(r)} ${r.kind}`, r]))
const byPlural: ReadonlyMap<string, Resource> = new Map(resources.map((r) => [`${apiVersionOf(r)} ${r.plural}`, r]))

/** What names a resource: by its path segment or by the kind of its objects. */
export type ResourceName =
	| { readonly group: string; readonly version: string; readonly plural: string }
	| { readonly apiVersion: string; readonly kind: string }

/** undefined: not a built-in resource (it may be a CRD's). */
export function findResource(name: ResourceName): Resource | undefined {
	return 'plural' in name
		? byPlural.get(`${apiVersionOf(name)} ${name.plural}`)
		: byKind.get(`${name.apiVersion} ${name.kind}`)
}

/** The row of a built-in kind that must exist; another name is our bug. */
export function resourceOf(apiVersion: string, kind: string): Resource {
	const resource = findResource({ apiVersion, kind })
	if (resource === undefined) throw new Error(`No resource has kind ${kind} in ${apiVersion}`)
	return resource
}

/**
 * `/api/v1/namespaces/default/pods/web/status`: the path of a collection, an object or a subresource.
 * `namespace` is ignored for cluster-scoped resources and may be absent to mean all namespaces.
 */
export function resourcePath(
	resource: Pick<Resource, 'group' | 'version' | 'plural' | 'namespaced'>,
	at: { readonly namespace?: string; readonly name?: string; readonly subresource?: string } = {},
): string {
	let path = resource.group === '' ? `/api/${resource.version}` : `/apis/${resource.group}/${resource.version}`
	if (resource.namespaced && at.namespace !== undefined && at.namespace !== '') {
		path += `/namespaces/${encodeURIComponent(at.namespace)}`
	}
	path += `/${resource.plural}`
	if (at.name !== undefined) path += `/${encodeURIComponent(at.name)}`
	if (at.subresource !== undefined) path += `/${at.subresource}`
	return path
}
