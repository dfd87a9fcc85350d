// The ClusterRoles and bindings every cluster starts with. The facts are those of Kubernetes
// (kubernetes.io/docs/reference/access-authn-authz/rbac, "Default roles and role bindings"), as data.

import { controllerRoles } from './controller-roles.ts'
import { type Binding, rbacGroup } from './rbac.ts'
import type { Rule } from './rules.ts'

export interface DefaultRole {
	readonly name: string
	/** `view`, `edit` or `admin`: the role its rules are added to. */
	readonly joins?: string
	/** Gathers the rules of the roles that join it under this name. */
	readonly gathers?: string
	readonly rules: readonly Rule[]
}

const read = 'get list watch'
const write = 'create delete deletecollection patch update'
const every = 'create delete deletecollection get list patch update watch'

const words = (text: string): string[] => text.split(' ')
/** Groups are separated by commas, `core` is ''. */
const on = (group: string, resources: string, verbs: string, names?: string): Rule => ({
	apiGroups: group.split(',').map((one) => (one === 'core' ? '' : one)),
	...(names === undefined ? {} : { resourceNames: words(names) }),
	resources: words(resources),
	verbs: words(verbs),
})
const paths = (urls: string, verbs = 'get'): Rule => ({ nonResourceURLs: words(urls), verbs: words(verbs) })

const authentication = 'authentication.k8s.io'
const authorization = 'authorization.k8s.io'
const certificates = 'certificates.k8s.io'
const coordination = 'coordination.k8s.io'
const discovery = 'discovery.k8s.io'
const networking = 'networking.k8s.io'
const storage = 'storage.k8s.io'
const recordEvents = on('core,events.k8s.io', 'events', 'create patch update')
const delegate = [on(authentication, 'tokenreviews', 'create'), on(authorization, 'subjectaccessreviews', 'create')]
const approver = (name: string): DefaultRole => ({
	name: `system:certificates.k8s.io:${name}-approver`,
	rules: [on(certificates, 'signers', 'approve', `kubernetes.io/${name}`)],
})

export function defaultRoles(): readonly DefaultRole[] {
	return [
		{ name: 'cluster-admin', rules: [on('*', '*', '*'), paths('*', '*')] },
		{ name: 'admin', gathers: 'admin', rules: [] },
		{ name: 'edit', gathers: 'edit', joins: 'admin', rules: [] },
		{ name: 'view', gathers: 'view', joins: 'edit', rules: [] },
		{
			name: 'system:aggregate-to-admin',
			joins: 'admin',
			rules: [on(authorization, 'localsubjectaccessreviews', 'create'), on(rbacGroup, 'rolebindings roles', every)],
		},
		{
			name: 'system:aggregate-to-edit',
			joins: 'edit',
			rules: [
				on('core', 'pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy', read),
				on('core', 'serviceaccounts', 'impersonate'),
				on('core', 'pods pods/attach pods/exec pods/portforward pods/proxy', write),
				on('core', 'pods/eviction', 'create'),
				on(
					'core',
					'configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets serviceaccounts services services/proxy',
					write,
				),
				on('core', 'serviceaccounts/token', 'create'),
				on(
					'apps',
					'daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale',
					write,
				),
				on('autoscaling', 'horizontalpodautoscalers', write),
				on('batch', 'cronjobs jobs', write),
				on(
					'extensions',
					'daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets replicasets/scale replicationcontrollers/scale',
					write,
				),
				on('policy', 'poddisruptionbudgets', write),
				on(networking, 'ingresses networkpolicies', write),
				on(coordination, 'leases', every),
			],
		},
		{
			name: 'system:aggregate-to-view',
			joins: 'view',
			rules: [
				on(
					'core',
					'configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status',
					read,
				),
				on(
					'core',
					'bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status resourcequotas resourcequotas/status',
					read,
				),
				on('core', 'namespaces', read),
				on(discovery, 'endpointslices', read),
				on(
					'apps',
					'controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status',
					read,
				),
				on('autoscaling', 'horizontalpodautoscalers horizontalpodautoscalers/status', read),
				on('batch', 'cronjobs cronjobs/status jobs jobs/status', read),
				on(
					'extensions',
					'daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status networkpolicies replicasets replicasets/scale replicasets/status replicationcontrollers/scale',
					read,
				),
				on('policy', 'poddisruptionbudgets poddisruptionbudgets/status', read),
				on(networking, 'ingresses ingresses/status networkpolicies', read),
			],
		},
		{
			name: 'system:discovery',
			rules: [paths('/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/')],
		},
		{ name: 'system:public-info-viewer', rules: [paths('/healthz /livez /readyz /version /version/')] },
		{
			name: 'system:basic-user',
			rules: [
				on(authorization, 'selfsubjectaccessreviews selfsubjectrulesreviews', 'create'),
				on(authentication, 'selfsubjectreviews', 'create'),
			],
		},
		{
			name: 'system:monitoring',
			rules: [paths('/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*')],
		},
		{
			name: 'system:service-account-issuer-discovery',
			rules: [
				paths('/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/'),
			],
		},
		{ name: 'system:auth-delegator', rules: delegate },
		{
			name: 'system:heapster',
			rules: [on('core', 'events namespaces nodes pods', read), on('extensions', 'deployments', read)],
		},
		{ name: 'system:kube-aggregator', rules: [on('core', 'endpoints services', read)] },
		{
			name: 'system:kube-dns',
			rules: [on('core', 'endpoints services', 'list watch'), on(discovery, 'endpointslices', 'list watch')],
		},
		{
			name: 'system:kube-controller-manager',
			rules: [
				recordEvents,
				on(coordination, 'leases', 'create'),
				on(coordination, 'leases', 'get update', 'kube-controller-manager'),
				on('core', 'secrets serviceaccounts', 'create'),
				on('core', 'secrets', 'delete'),
				on('core', 'configmaps namespaces secrets serviceaccounts', 'get'),
				on('core', 'secrets serviceaccounts', 'update'),
				...delegate,
				on('*', '*', 'list watch'),
				on('core', 'serviceaccounts/token', 'create'),
			],
		},
		{
			name: 'system:kube-scheduler',
			rules: [
				recordEvents,
				on(coordination, 'leases', 'create'),
				on(coordination, 'leases', 'get list update watch', 'kube-scheduler'),
				on('core', 'nodes', read),
				on('core', 'pods', 'delete get list watch'),
				on('core', 'bindings pods/binding', 'create'),
				on('core', 'pods/status', 'patch update'),
				on('core', 'replicationcontrollers services', read),
				on('apps,extensions', 'replicasets', read),
				on('apps', 'statefulsets', read),
				on('policy', 'poddisruptionbudgets', read),
				on('core', 'persistentvolumeclaims persistentvolumes', read),
				...delegate,
				on(storage, 'csinodes', read),
				on('core', 'namespaces', read),
				on(storage, 'csidrivers', read),
				on(storage, 'csistoragecapacities', read),
			],
		},
		{
			name: 'system:volume-scheduler',
			rules: [
				on('core', 'persistentvolumes', 'get list patch update watch'),
				on(storage, 'storageclasses', read),
				on('core', 'persistentvolumeclaims', 'get list patch update watch'),
			],
		},
		{
			name: 'system:persistent-volume-provisioner',
			rules: [
				on('core', 'persistentvolumes', 'create delete get list watch'),
				on('core', 'persistentvolumeclaims', 'get list update watch'),
				on(storage, 'storageclasses', read),
				on('core', 'events', 'watch'),
				recordEvents,
			],
		},
		{
			name: 'system:node-proxier',
			rules: [
				on('core', 'endpoints services', 'list watch'),
				on('core', 'nodes', read),
				recordEvents,
				on(discovery, 'endpointslices', 'list watch'),
				on(networking, 'servicecidrs', 'list watch'),
			],
		},
		{
			name: 'system:node-problem-detector',
			rules: [on('core', 'nodes', 'get'), on('core', 'nodes/status', 'patch'), recordEvents],
		},
		{
			name: 'system:kubelet-api-admin',
			rules: [
				on('core', 'nodes', read),
				on('core', 'nodes', 'proxy'),
				on('core', 'nodes/log nodes/metrics nodes/proxy nodes/spec nodes/stats', '*'),
			],
		},
		{
			name: 'system:node-bootstrapper',
			rules: [on(certificates, 'certificatesigningrequests', 'create get list watch')],
		},
		{
			name: 'system:node',
			rules: [
				on(authentication, 'tokenreviews', 'create'),
				on(authorization, 'localsubjectaccessreviews subjectaccessreviews', 'create'),
				on('core', 'services', read),
				on('core', 'nodes', 'create get list watch'),
				on('core', 'nodes/status', 'patch update'),
				on('core', 'nodes', 'patch update'),
				on('core', 'events', 'create patch update'),
				on('core', 'pods', read),
				on('core', 'pods', 'create delete'),
				on('core', 'pods/status', 'patch update'),
				on('core', 'pods/eviction', 'create'),
				on('core', 'configmaps secrets', read),
				on('core', 'persistentvolumeclaims persistentvolumes', 'get'),
				on('core', 'endpoints', 'get'),
				on(certificates, 'certificatesigningrequests', 'create get list watch'),
				on(coordination, 'leases', 'create delete get patch update'),
				on(storage, 'volumeattachments', 'get'),
				on('core', 'persistentvolumeclaims/status', 'get patch update'),
				on('core', 'serviceaccounts/token', 'create'),
				on(storage, 'csidrivers', read),
				on(storage, 'csinodes', 'create delete get patch update'),
				on('node.k8s.io', 'runtimeclasses', read),
			],
		},
		...['nodeclient', 'selfnodeclient'].map((kind) => ({
			name: `system:certificates.k8s.io:certificatesigningrequests:${kind}`,
			rules: [on(certificates, `certificatesigningrequests/${kind}`, 'create')],
		})),
		approver('kube-apiserver-client'),
		approver('kube-apiserver-client-kubelet'),
		approver('kubelet-serving'),
		approver('legacy-unknown'),
		...controllerRoles().map(({ name, rules }) => ({ name, rules })),
	]
}

/** Role → subjects: `g:` a group, `u:` a user, `s:` a ServiceAccount. The binding has the role's name. */
const bound: Readonly<Record<string, readonly string[]>> = {
	'cluster-admin': ['g:system:masters'],
	'system:basic-user': ['g:system:authenticated'],
	'system:discovery': ['g:system:authenticated'],
	'system:kube-controller-manager': ['u:system:kube-controller-manager'],
	'system:kube-dns': ['s:kube-system/kube-dns'],
	'system:kube-scheduler': ['u:system:kube-scheduler'],
	'system:monitoring': ['g:system:monitoring'],
	'system:node': [],
	'system:node-proxier': ['u:system:kube-proxy'],
	'system:public-info-viewer': ['g:system:authenticated', 'g:system:unauthenticated'],
	'system:service-account-issuer-discovery': ['g:system:serviceaccounts'],
	'system:volume-scheduler': ['u:system:kube-scheduler'],
}

export function defaultBindings(): readonly Pick<Binding, 'roleRef' | 'subjects'>[] {
	const controllers = controllerRoles().map(({ name, account }) => [name, [`s:kube-system/${account}`]] as const)
	return [...Object.entries(bound), ...controllers].map(([name, subjects]) => ({
		roleRef: { apiGroup: rbacGroup, kind: 'ClusterRole', name },
		...(subjects.length === 0 ? {} : { subjects: subjects.map(subjectOf) }),
	}))
}

function subjectOf(text: string): NonNullable<Binding['subjects']>[number] {
	const name = text.slice(2)
	if (text.startsWith('g:')) return { kind: 'Group', apiGroup: rbacGroup, name }
	if (text.startsWith('u:')) return { kind: 'User', apiGroup: rbacGroup, name }
	const [namespace = '', account = ''] = name.split('/')
	return { kind: 'ServiceAccount', name: account, namespace }
}
