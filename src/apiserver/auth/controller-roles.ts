// The ClusterRoles of a real cluster's controllers, each bound to the ServiceAccount of its name in kube-system: who runs
// a controller of their own (a cloud's, a replacement for one of ours) finds the role it is started with.
// The facts are those of Kubernetes 1.35 (bootstrappolicy), as data.

import type { Rule } from './rules.ts'

/**
 * Name → rules `groups resources verbs`, lists in them with commas; `core` is ''. Verbs: `read` is get, list and watch,
 * `see` is list and watch, `write` is patch and update; `*` stays. A last rule `-` leaves out what nearly all have: to write events.
 */
const roles: Readonly<Record<string, readonly string[]>> = {
	'attachdetach-controller': [
		'core persistentvolumeclaims,persistentvolumes,pods see',
		'core nodes read',
		'core nodes/status write',
		'storage.k8s.io volumeattachments create,delete,read',
		'storage.k8s.io csidrivers,csinodes read',
	],
	'certificate-controller': [
		'certificates.k8s.io certificatesigningrequests delete,read',
		'certificates.k8s.io certificatesigningrequests/approval,certificatesigningrequests/status update',
		'certificates.k8s.io signers approve kubernetes.io/kube-apiserver-client-kubelet',
		'certificates.k8s.io signers sign kubernetes.io/kube-apiserver-client,kubernetes.io/kube-apiserver-client-kubelet,kubernetes.io/kubelet-serving,kubernetes.io/legacy-unknown',
		'authorization.k8s.io subjectaccessreviews create',
	],
	'clusterrole-aggregation-controller': ['rbac.authorization.k8s.io clusterroles escalate,read,write', '-'],
	'cronjob-controller': [
		'batch cronjobs read,update',
		'batch jobs create,delete,read,write',
		'batch cronjobs/status,cronjobs/finalizers update',
		'core pods delete,see',
	],
	'daemon-set-controller': [
		'apps,extensions daemonsets read',
		'apps,extensions daemonsets/status,daemonsets/finalizers update',
		'core nodes see',
		'core pods create,delete,see,patch',
		'core pods/binding create',
		'apps controllerrevisions create,delete,read,write',
	],
	'deployment-controller': [
		'apps,extensions deployments read,update',
		'apps,extensions deployments/status,deployments/finalizers update',
		'apps,extensions replicasets create,delete,read,write',
		'core pods read,update',
	],
	'disruption-controller': [
		'apps,extensions deployments,replicasets read',
		'core replicationcontrollers read',
		'policy poddisruptionbudgets read',
		'apps statefulsets read',
		'policy poddisruptionbudgets/status update',
		'core pods/status write',
		'* */scale get',
	],
	'endpoint-controller': [
		'core pods,services read',
		'core endpoints create,delete,read,update',
		'core endpoints/restricted create',
	],
	'endpointslice-controller': [
		'core nodes,pods,services read',
		'core services/finalizers update',
		'discovery.k8s.io endpointslices create,delete,read,update',
	],
	'endpointslicemirroring-controller': [
		'core endpoints,services read',
		'core services/finalizers,endpoints/finalizers update',
		'discovery.k8s.io endpointslices create,delete,read,update',
	],
	'ephemeral-volume-controller': [
		'core pods read',
		'core pods/finalizers update',
		'core persistentvolumeclaims create,read',
	],
	'expand-controller': [
		'core persistentvolumes read,write',
		'core persistentvolumeclaims/status write',
		'core persistentvolumeclaims read',
	],
	'generic-garbage-collector': ['* * delete,read,write'],
	'horizontal-pod-autoscaler': [
		'autoscaling horizontalpodautoscalers read',
		'autoscaling horizontalpodautoscalers/status update',
		'* */scale get,update',
		'core pods see',
		'metrics.k8s.io pods see',
		'custom.metrics.k8s.io,external.metrics.k8s.io * read',
	],
	'job-controller': [
		'batch jobs read,write',
		'batch jobs/status,jobs/finalizers update',
		'core pods create,delete,see,patch',
	],
	'legacy-service-account-token-cleaner': [
		'core configmaps get kube-apiserver-legacy-service-account-token-tracking',
		'core secrets delete,patch',
		'-',
	],
	'namespace-controller': [
		'core namespaces delete,read',
		'core namespaces/finalize,namespaces/status update',
		'* * delete,deletecollection,read',
		'-',
	],
	'node-controller': ['core nodes delete,read,write', 'core nodes/status,pods/status write', 'core pods delete,read'],
	'persistent-volume-binder': [
		'core persistentvolumes create,delete,read,update',
		'core persistentvolumes/status,persistentvolumeclaims/status update',
		'core persistentvolumeclaims read,update',
		'core pods create,delete,read',
		'storage.k8s.io storageclasses read',
		'core nodes see',
		'core events watch',
	],
	'pod-garbage-collector': ['core pods delete,see', 'core nodes read', 'core pods/status patch', '-'],
	'pv-protection-controller': ['core persistentvolumes read,update'],
	'pvc-protection-controller': [
		'core persistentvolumeclaims read,update',
		'core persistentvolumeclaims/status update',
		'core pods read',
	],
	'replicaset-controller': [
		'apps,extensions replicasets read,update',
		'apps,extensions replicasets/status,replicasets/finalizers update',
		'core pods create,delete,see,patch',
	],
	'replication-controller': [
		'core replicationcontrollers read,update',
		'core replicationcontrollers/status,replicationcontrollers/finalizers update',
		'core pods create,delete,see,patch',
	],
	'resource-claim-controller': [
		'core pods read',
		'core pods/finalizers update',
		'resource.k8s.io resourceclaims create,delete,read',
		'resource.k8s.io resourceclaims,resourceclaims/status,resourceclaims/binding write',
		'core pods/status write',
	],
	'resourcequota-controller': ['* * see', 'core resourcequotas/status update'],
	'root-ca-cert-publisher': ['core configmaps create,update'],
	'route-controller': ['core nodes see', 'core nodes/status patch'],
	'selinux-warning-controller': [
		'core persistentvolumes,persistentvolumeclaims,pods read',
		'storage.k8s.io csidrivers read',
	],
	'service-account-controller': ['core serviceaccounts create'],
	'service-cidrs-controller': [
		'networking.k8s.io servicecidrs read,write',
		'networking.k8s.io servicecidrs/finalizers,servicecidrs/status write',
		'networking.k8s.io ipaddresses read',
	],
	'service-controller': ['core services read', 'core services/status write', 'core nodes see'],
	'statefulset-controller': [
		'apps statefulsets read',
		'apps statefulsets/status,statefulsets/finalizers update',
		'core pods create,delete,read,write',
		'apps controllerrevisions create,delete,read,write',
		'core persistentvolumeclaims create,delete,read,update',
		'core pods/finalizers update',
	],
	'taint-eviction-controller': ['core pods delete,read', 'core nodes read', 'core pods/status write'],
	'ttl-after-finished-controller': ['batch jobs delete,read'],
	'ttl-controller': ['core nodes see,write'],
	'validatingadmissionpolicy-status-controller': [
		'admissionregistration.k8s.io validatingadmissionpolicies read',
		'admissionregistration.k8s.io validatingadmissionpolicies/status get,write',
	],
	'volumeattributesclass-protection-controller': [
		'core persistentvolumeclaims,persistentvolumes read',
		'storage.k8s.io volumeattributesclasses read,update',
	],
}

const verbs: Readonly<Record<string, readonly string[]>> = {
	read: ['get', 'list', 'watch'],
	see: ['list', 'watch'],
	write: ['patch', 'update'],
}

const events = 'core,events.k8s.io events create,write'

/** Role (and binding) name, the ServiceAccount in kube-system it is bound to, rules. */
export function controllerRoles(): readonly {
	readonly name: string
	readonly account: string
	readonly rules: readonly Rule[]
}[] {
	return Object.entries(roles).map(([account, lines]) => ({
		name: `system:controller:${account}`,
		account,
		rules: (lines.at(-1) === '-' ? lines.slice(0, -1) : [...lines, events]).map(ruleOf),
	}))
}

function ruleOf(line: string): Rule {
	const [groups = '', resources = '', allowed = '', names] = line.split(' ')
	return {
		apiGroups: groups.split(',').map((group) => (group === 'core' ? '' : group)),
		...(names === undefined ? {} : { resourceNames: names.split(',') }),
		resources: resources.split(',').sort(),
		verbs: allowed
			.split(',')
			.flatMap((verb) => verbs[verb] ?? [verb])
			.sort(),
	}
}
