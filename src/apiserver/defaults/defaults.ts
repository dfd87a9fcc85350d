// The values the API server fills in where an object says none, kind by kind. Fields another part decides are left to
// it: cluster IPs and node ports (allocation), service accounts and tolerations of pods (admission), status.
// Source: the defaults.go files of Kubernetes' pkg/apis/*/v*.

import type { JsonObject } from '../../kube/schema/json.ts'
import { type Draft, each, ensure, inner, preset } from './draft.ts'
import { presetPod, presetPodTemplate } from './pod.ts'

/**
 * The object with the defaults of its kind: a new object where there are any for the kind, else the same.
 * Idempotent. Takes and gives canonical form (`canonical`, src/kube/schema); values of wrong types are left alone.
 */
export function applyDefaults(object: JsonObject): JsonObject {
	const { apiVersion, kind } = object
	const rule = rules[`${String(apiVersion).split('/').slice(0, -1).join('/')}/${String(kind)}`]
	if (!rule) return object
	const draft = structuredClone(object) as Draft
	rule(draft)
	return draft as JsonObject
}

type Rule = (draft: Draft) => void

/** A rule for `spec`, which is made where it is absent. */
function ofSpec(rule: (spec: Draft, draft: Draft) => void): Rule {
	return (draft) => rule(ensure(draft, 'spec'), draft)
}

/** By group and kind; every served version of a kind has the same. */
const rules: Readonly<Record<string, Rule>> = {
	'/Pod': ofSpec(presetPod),
	'/PodTemplate': (draft) => presetPodTemplate(inner(draft, 'template')),
	'/ReplicationController': ofSpec((spec, draft) => {
		preset(spec, 'replicas', 1)
		const template = inner(spec, 'template')
		const labels = template && inner(ensure(template, 'metadata'), 'labels')
		if (labels) {
			preset(spec, 'selector', { ...labels })
			preset(ensure(draft, 'metadata'), 'labels', { ...labels })
		}
		presetPodTemplate(template)
	}),
	'/Service': ofSpec(presetService),
	'/Secret': (draft) => preset(draft, 'type', 'Opaque'),
	'/Endpoints': (draft) =>
		each(draft, 'subsets', (subset) => each(subset, 'ports', (port) => preset(port, 'protocol', 'TCP'))),
	'/PersistentVolumeClaim': ofSpec((spec) => preset(spec, 'volumeMode', 'Filesystem')),
	'/PersistentVolume': ofSpec((spec) => {
		preset(spec, 'persistentVolumeReclaimPolicy', 'Retain')
		preset(spec, 'volumeMode', 'Filesystem')
		const hostPath = inner(spec, 'hostPath')
		if (hostPath) preset(hostPath, 'type', '')
	}),
	'apps/Deployment': ofSpec((spec) => {
		preset(spec, 'replicas', 1)
		preset(spec, 'revisionHistoryLimit', 10)
		preset(spec, 'progressDeadlineSeconds', 600)
		const strategy = ensure(spec, 'strategy')
		preset(strategy, 'type', 'RollingUpdate')
		if (strategy.type === 'RollingUpdate') {
			const rolling = ensure(strategy, 'rollingUpdate')
			preset(rolling, 'maxUnavailable', '25%')
			preset(rolling, 'maxSurge', '25%')
		}
		presetPodTemplate(inner(spec, 'template'))
	}),
	'apps/ReplicaSet': ofSpec((spec) => {
		preset(spec, 'replicas', 1)
		presetPodTemplate(inner(spec, 'template'))
	}),
	'apps/StatefulSet': ofSpec(presetStatefulSet),
	'apps/DaemonSet': ofSpec((spec) => {
		preset(spec, 'revisionHistoryLimit', 10)
		const strategy = ensure(spec, 'updateStrategy')
		preset(strategy, 'type', 'RollingUpdate')
		if (strategy.type === 'RollingUpdate') {
			const rolling = ensure(strategy, 'rollingUpdate')
			preset(rolling, 'maxUnavailable', 1)
			preset(rolling, 'maxSurge', 0)
		}
		presetPodTemplate(inner(spec, 'template'))
	}),
	'batch/Job': ofSpec((spec, draft) => {
		const template = inner(spec, 'template')
		const labels = template && inner(ensure(template, 'metadata'), 'labels')
		if (labels) preset(ensure(draft, 'metadata'), 'labels', { ...labels })
		presetJob(spec)
	}),
	'batch/CronJob': ofSpec((spec) => {
		preset(spec, 'concurrencyPolicy', 'Allow')
		preset(spec, 'suspend', false)
		preset(spec, 'successfulJobsHistoryLimit', 3)
		preset(spec, 'failedJobsHistoryLimit', 1)
		const template = inner(spec, 'jobTemplate')
		const job = template && inner(template, 'spec')
		if (job) presetPodTemplate(inner(job, 'template'))
	}),
	'networking.k8s.io/NetworkPolicy': ofSpec((spec) => {
		for (const direction of ['ingress', 'egress'])
			each(spec, direction, (rule) => each(rule, 'ports', (port) => preset(port, 'protocol', 'TCP')))
		if (!Array.isArray(spec.policyTypes) || spec.policyTypes.length === 0)
			spec.policyTypes = Array.isArray(spec.egress) && spec.egress.length > 0 ? ['Ingress', 'Egress'] : ['Ingress']
	}),
	'networking.k8s.io/IngressClass': ofSpec((spec) => {
		const parameters = inner(spec, 'parameters')
		if (parameters) preset(parameters, 'scope', 'Cluster')
	}),
	'discovery.k8s.io/EndpointSlice': (draft) =>
		each(draft, 'ports', (port) => {
			port.name ??= ''
			preset(port, 'protocol', 'TCP')
		}),
	'autoscaling/HorizontalPodAutoscaler': ofSpec((spec) => preset(spec, 'minReplicas', 1)),
	'rbac.authorization.k8s.io/RoleBinding': presetBinding,
	'rbac.authorization.k8s.io/ClusterRoleBinding': presetBinding,
	'storage.k8s.io/StorageClass': (draft) => {
		preset(draft, 'reclaimPolicy', 'Delete')
		preset(draft, 'volumeBindingMode', 'Immediate')
	},
	'scheduling.k8s.io/PriorityClass': (draft) => preset(draft, 'preemptionPolicy', 'PreemptLowerPriority'),
	'apiextensions.k8s.io/CustomResourceDefinition': ofSpec((spec) => {
		const names = ensure(spec, 'names')
		if (typeof names.kind === 'string' && names.kind !== '') {
			preset(names, 'singular', names.kind.toLowerCase())
			preset(names, 'listKind', `${names.kind}List`)
		}
		const conversion = ensure(spec, 'conversion')
		preset(conversion, 'strategy', 'None')
		const webhook = inner(conversion, 'webhook')
		const client = webhook && inner(webhook, 'clientConfig')
		const service = client && inner(client, 'service')
		if (service) preset(service, 'port', 443)
	}),
	'admissionregistration.k8s.io/MutatingWebhookConfiguration': (draft) =>
		each(draft, 'webhooks', (webhook) => {
			preset(webhook, 'reinvocationPolicy', 'Never')
			presetWebhook(webhook)
		}),
	'admissionregistration.k8s.io/ValidatingWebhookConfiguration': (draft) => each(draft, 'webhooks', presetWebhook),
}

function presetService(spec: Draft): void {
	preset(spec, 'type', 'ClusterIP')
	const type = spec.type
	preset(spec, 'sessionAffinity', 'None')
	if (spec.sessionAffinity === 'ClientIP')
		preset(ensure(ensure(spec, 'sessionAffinityConfig'), 'clientIP'), 'timeoutSeconds', 10800)
	else delete spec.sessionAffinityConfig
	each(spec, 'ports', (port) => {
		preset(port, 'protocol', 'TCP')
		if (port.targetPort === undefined || port.targetPort === 0 || port.targetPort === '') port.targetPort = port.port
	})
	const isPublished =
		type === 'NodePort' ||
		type === 'LoadBalancer' ||
		(type === 'ClusterIP' && Array.isArray(spec.externalIPs) && spec.externalIPs.length > 0)
	if (isPublished) preset(spec, 'externalTrafficPolicy', 'Cluster')
	if (type !== 'ExternalName') preset(spec, 'internalTrafficPolicy', 'Cluster')
	if (type === 'LoadBalancer') preset(spec, 'allocateLoadBalancerNodePorts', true)
}

function presetStatefulSet(spec: Draft): void {
	preset(spec, 'replicas', 1)
	preset(spec, 'revisionHistoryLimit', 10)
	preset(spec, 'podManagementPolicy', 'OrderedReady')
	const strategy = ensure(spec, 'updateStrategy')
	preset(strategy, 'type', 'RollingUpdate')
	if (strategy.type === 'RollingUpdate') preset(ensure(strategy, 'rollingUpdate'), 'partition', 0)
	const retention = ensure(spec, 'persistentVolumeClaimRetentionPolicy')
	preset(retention, 'whenDeleted', 'Retain')
	preset(retention, 'whenScaled', 'Retain')
	each(spec, 'volumeClaimTemplates', (claim) => {
		preset(claim, 'kind', 'PersistentVolumeClaim')
		preset(claim, 'apiVersion', 'v1')
		preset(ensure(claim, 'spec'), 'volumeMode', 'Filesystem')
		preset(ensure(claim, 'status'), 'phase', 'Pending')
	})
	presetPodTemplate(inner(spec, 'template'))
}

function presetJob(spec: Draft): void {
	// Without both numbers the job is done with one success; with a parallelism alone it is a work queue.
	if (spec.completions === undefined && spec.parallelism === undefined) preset(spec, 'completions', 1)
	preset(spec, 'parallelism', 1)
	preset(spec, 'backoffLimit', spec.backoffLimitPerIndex === undefined ? 6 : 2147483647)
	preset(spec, 'completionMode', 'NonIndexed')
	preset(spec, 'suspend', false)
	preset(spec, 'podReplacementPolicy', inner(spec, 'podFailurePolicy') ? 'Failed' : 'TerminatingOrFailed')
	presetPodTemplate(inner(spec, 'template'))
}

function presetBinding(draft: Draft): void {
	const group = 'rbac.authorization.k8s.io'
	const role = inner(draft, 'roleRef')
	if (role) preset(role, 'apiGroup', group)
	each(draft, 'subjects', (subject) => {
		if (subject.kind === 'User' || subject.kind === 'Group') preset(subject, 'apiGroup', group)
	})
}

function presetWebhook(webhook: Draft): void {
	preset(webhook, 'failurePolicy', 'Fail')
	preset(webhook, 'matchPolicy', 'Equivalent')
	preset(webhook, 'namespaceSelector', {})
	preset(webhook, 'objectSelector', {})
	preset(webhook, 'timeoutSeconds', 10)
	each(webhook, 'rules', (rule) => preset(rule, 'scope', '*'))
	const client = inner(webhook, 'clientConfig')
	const service = client && inner(client, 'service')
	if (service) preset(service, 'port', 443)
}
