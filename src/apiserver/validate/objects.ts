// May this object be kept? The rules of the API about values: one entry a kind.

import type { StatusCause } from '../../kube/objects/meta.ts'
import { isObject, type Json, type JsonObject } from '../../kube/schema/json.ts'
import { type TypeSchema, typeOf, type ValueSchema } from '../../kube/schema/schema.ts'
import * as core from './core.ts'
import { checkMetadata, checkMetadataUpdate } from './metadata.ts'
import * as network from './network.ts'
import { checkPod, checkPodTemplate, checkPodUpdate } from './pod.ts'
import { objectAt, objectsAt, Report } from './report.ts'
import { checkIngressPoint, checkService, checkServiceStatus, checkServiceUpdate } from './service.ts'
import * as workloads from './workloads.ts'

interface Rules {
	readonly check?: (object: JsonObject, report: Report) => void
	readonly checkUpdate?: (before: JsonObject, after: JsonObject, report: Report) => void
	/** Of an update of the status. */
	readonly checkStatus?: (after: JsonObject, before: JsonObject, report: Report) => void
}

/** By group and kind. A kind that is not here has its metadata and its enumerations checked. */
const rules: Readonly<Record<string, Rules>> = {
	'/Service': { check: checkService, checkUpdate: checkServiceUpdate, checkStatus: checkServiceStatus },
	'/Pod': { check: checkPod, checkUpdate: checkPodUpdate },
	'/PodTemplate': {
		check: (object, report) =>
			checkPodTemplate(objectAt(object, 'template'), 'template', ['Always', 'OnFailure', 'Never'], report),
	},
	'/ReplicationController': { check: workloads.checkReplicationController },
	'/Endpoints': { check: network.checkEndpoints },
	'/ConfigMap': { check: core.checkConfigMap, checkUpdate: core.checkImmutable },
	'/Secret': { check: core.checkSecret, checkUpdate: core.checkSecretUpdate },
	'/Node': { check: core.checkNode, checkUpdate: core.checkNodeUpdate },
	'/PersistentVolumeClaim': { check: core.checkClaim },
	'apps/Deployment': { check: workloads.checkDeployment, checkUpdate: workloads.checkSelectorUpdate },
	'apps/ReplicaSet': { check: workloads.checkReplicaSet, checkUpdate: workloads.checkSelectorUpdate },
	'apps/DaemonSet': { check: workloads.checkDaemonSet, checkUpdate: workloads.checkSelectorUpdate },
	'apps/StatefulSet': { check: workloads.checkStatefulSet, checkUpdate: workloads.checkStatefulSetUpdate },
	'batch/Job': { check: workloads.checkJob, checkUpdate: workloads.checkJobUpdate },
	'batch/CronJob': { check: workloads.checkCronJob },
	'discovery.k8s.io/EndpointSlice': {
		check: network.checkEndpointSlice,
		checkUpdate: network.checkEndpointSliceUpdate,
	},
	'networking.k8s.io/NetworkPolicy': { check: network.checkNetworkPolicy },
	'networking.k8s.io/Ingress': { check: network.checkIngress, checkStatus: checkIngressStatus },
	'networking.k8s.io/IngressClass': { check: network.checkIngressClass, checkUpdate: network.checkIngressClassUpdate },
	'networking.k8s.io/IPAddress': { check: network.checkIpAddress, checkUpdate: network.checkIpAddressUpdate },
	'networking.k8s.io/ServiceCIDR': { check: network.checkServiceCidr },
	'coordination.k8s.io/Lease': { check: core.checkLease },
	'rbac.authorization.k8s.io/Role': { check: (object, report) => core.checkRole(object, false, report) },
	'rbac.authorization.k8s.io/ClusterRole': { check: (object, report) => core.checkRole(object, true, report) },
	'rbac.authorization.k8s.io/RoleBinding': {
		check: (object, report) => core.checkBinding(object, false, report),
		checkUpdate: core.checkBindingUpdate,
	},
	'rbac.authorization.k8s.io/ClusterRoleBinding': {
		check: (object, report) => core.checkBinding(object, true, report),
		checkUpdate: core.checkBindingUpdate,
	},
	'policy/PodDisruptionBudget': { check: core.checkDisruptionBudget },
	'autoscaling/HorizontalPodAutoscaler': { check: core.checkAutoscaler },
	'scheduling.k8s.io/PriorityClass': { checkUpdate: core.checkPriorityClassUpdate },
	'storage.k8s.io/StorageClass': { check: core.checkStorageClass },
}

/**
 * What is wrong with the values of an object, as the causes of the Status to answer (`Invalid`, 422); none: keep it.
 * `before`: the stored object, on updates; then what may not change is checked too.
 *
 * The object is in canonical form with its defaults (`readObject`, `applyDefaults`) and what admission and allocation
 * give it. `schema`: of a custom type, for its enumerations.
 */
export function validateObject(object: JsonObject, before?: JsonObject, schema?: TypeSchema): readonly StatusCause[] {
	const apiVersion = String(object.apiVersion)
	const kind = String(object.kind)
	const slash = apiVersion.indexOf('/')
	const groupKind = `${slash < 0 ? '' : apiVersion.slice(0, slash)}/${kind}`
	const rule = Object.hasOwn(rules, groupKind) ? rules[groupKind] : undefined
	const report = new Report()
	checkMetadata(object, groupKind, report)
	rule?.check?.(object, report)
	if (before) {
		checkMetadataUpdate(before, object, report)
		rule?.checkUpdate?.(before, object, report)
	}
	const type = schema ?? typeOf(apiVersion, kind)
	const spec = type?.fields.get('spec')?.value
	if (spec && object.spec !== undefined) {
		const known = new Set(report.causes.map((cause) => cause.field))
		checkEnums(object.spec, spec, 'spec', known, report)
	}
	return report.causes
}

/** What is wrong with the status of an object that takes the place of `before`'s; into `report`. */
export function checkStatus(groupKind: string, after: JsonObject, before: JsonObject, report: Report): void {
	if (Object.hasOwn(rules, groupKind)) rules[groupKind]!.checkStatus?.(after, before, report)
}

function checkIngressStatus(ingress: JsonObject, _before: JsonObject, report: Report): void {
	objectsAt(objectAt(objectAt(ingress, 'status'), 'loadBalancer'), 'ingress').forEach((point, i) => {
		checkIngressPoint(point, `status.loadBalancer.ingress[${i}]`, report)
	})
}

/** Values of closed sets, where no rule of the kind has spoken about the field. */
function checkEnums(
	value: Json | undefined,
	schema: ValueSchema,
	path: string,
	known: ReadonlySet<string | undefined>,
	report: Report,
): void {
	switch (schema.type) {
		case 'object':
			if (!isObject(value)) return
			for (const key of Object.keys(value)) {
				const field = schema.object.fields.get(key)
				if (field) checkEnums(value[key], field.value, `${path}.${key}`, known, report)
			}
			return
		case 'map':
			if (!isObject(value)) return
			for (const key of Object.keys(value)) checkEnums(value[key], schema.value, `${path}[${key}]`, known, report)
			return
		case 'list':
			if (!Array.isArray(value)) return
			value.forEach((item: Json, i) => {
				checkEnums(item, schema.items, `${path}[${i}]`, known, report)
			})
			return
		case 'string':
			if (schema.enum && !known.has(path)) report.oneOf(path, value, schema.enum)
			return
		default:
			return
	}
}
