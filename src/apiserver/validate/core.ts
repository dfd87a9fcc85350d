// Checks of the other kinds users meet: ConfigMap, Secret, Node, PersistentVolumeClaim, Lease, roles and bindings, …
// Source: Kubernetes' pkg/apis/*/validation.

import { type JsonObject, sameJson } from '../../kube/schema/json.ts'
import { checkSelector } from './metadata.ts'
import { cidrFaults, dataKeyFaults, labelValueFaults, qualifiedNameFaults } from './names.ts'
import { isSet, objectAt, objectsAt, type Report, textAt, textsAt } from './report.ts'

const mostDataBytes = 1024 * 1024

export function checkConfigMap(map: JsonObject, report: Report): void {
	const data = objectAt(map, 'data')
	const binary = objectAt(map, 'binaryData')
	let bytes = 0
	for (const [key, value] of Object.entries(data)) {
		report.invalidFor(`data[${key}]`, key, dataKeyFaults(key))
		if (Object.hasOwn(binary, key)) report.invalid(`data[${key}]`, key, `duplicate of key present in binaryData`)
		bytes += Buffer.byteLength(String(value ?? ''))
	}
	for (const [key, value] of Object.entries(binary)) {
		report.invalidFor(`binaryData[${key}]`, key, dataKeyFaults(key))
		bytes += Buffer.byteLength(String(value ?? ''), 'base64')
	}
	if (bytes > mostDataBytes) report.tooLong('', mostDataBytes)
}

export function checkSecret(secret: JsonObject, report: Report): void {
	const data = objectAt(secret, 'data')
	const type = textAt(secret, 'type')
	let bytes = 0
	for (const [key, value] of Object.entries(data)) {
		report.invalidFor(`data[${key}]`, key, dataKeyFaults(key))
		bytes += Buffer.byteLength(String(value ?? ''), 'base64')
	}
	if (bytes > mostDataBytes) report.tooLong('data', mostDataBytes)
	for (const key of neededKeys[type] ?? []) if (data[key] === undefined) report.required(`data[${key}]`)
	if (type === 'kubernetes.io/basic-auth' && data.username === undefined && data.password === undefined)
		for (const key of ['username', 'password']) report.required(`data[${key}]`)
	if (type === 'kubernetes.io/service-account-token') {
		const at = 'metadata.annotations[kubernetes.io/service-account.name]'
		const annotations = objectAt(objectAt(secret, 'metadata'), 'annotations')
		if (!isSet(annotations['kubernetes.io/service-account.name'])) report.required(at)
	}
	for (const key of ['.dockerconfigjson', '.dockercfg'])
		if (neededKeys[type]?.includes(key) && data[key] !== undefined && !isJson(data[key]))
			report.invalid(`data[${key}]`, '<secret contents redacted>', 'must be valid JSON')
}

const neededKeys: Readonly<Record<string, readonly string[]>> = {
	'kubernetes.io/tls': ['tls.crt', 'tls.key'],
	'kubernetes.io/dockerconfigjson': ['.dockerconfigjson'],
	'kubernetes.io/dockercfg': ['.dockercfg'],
	'kubernetes.io/ssh-auth': ['ssh-privatekey'],
}

function isJson(base64: unknown): boolean {
	try {
		JSON.parse(Buffer.from(String(base64), 'base64').toString())
		return true
	} catch {
		return false
	}
}

/** ConfigMaps and Secrets that say so never change. */
export function checkImmutable(before: JsonObject, after: JsonObject, report: Report): void {
	if (before.immutable !== true) return
	if (after.immutable !== true) report.forbidden('immutable', 'field is immutable when `immutable` is set')
	for (const field of ['data', 'binaryData'])
		if (!sameJson(before[field], after[field])) report.forbidden(field, 'field is immutable when `immutable` is set')
}

export function checkSecretUpdate(before: JsonObject, after: JsonObject, report: Report): void {
	checkImmutable(before, after, report)
	if (before.type !== after.type) report.invalid('type', after.type, 'field is immutable')
}

export function checkNode(node: JsonObject, report: Report): void {
	const spec = objectAt(node, 'spec')
	const cidrs = textsAt(spec, 'podCIDRs')
	if (isSet(spec.podCIDR) && cidrs.length > 0 && spec.podCIDR !== cidrs[0])
		report.invalid('spec.podCIDRs', cidrs, 'first value must match `podCIDR`')
	if (cidrs.length > 2) report.invalid('spec.podCIDRs', cidrs, 'may specify no more than one CIDR for each IP family')
	cidrs.forEach((cidr, i) => {
		report.invalidFor(`spec.podCIDRs[${i}]`, cidr, cidrFaults(cidr))
	})
	const seen = new Set<string>()
	objectsAt(spec, 'taints').forEach((taint, i) => {
		const at = `spec.taints[${i}]`
		report.invalidFor(`${at}.key`, textAt(taint, 'key'), qualifiedNameFaults(textAt(taint, 'key')))
		report.invalidFor(`${at}.value`, textAt(taint, 'value'), labelValueFaults(textAt(taint, 'value')))
		if (!isSet(taint.effect)) report.required(`${at}.effect`)
		else report.oneOf(`${at}.effect`, taint.effect, ['NoExecute', 'NoSchedule', 'PreferNoSchedule'])
		const key = `${textAt(taint, 'key')}:${textAt(taint, 'effect')}`
		if (seen.has(key)) report.duplicate(at, taint)
		seen.add(key)
	})
}

export function checkNodeUpdate(before: JsonObject, after: JsonObject, report: Report): void {
	const had = objectAt(before, 'spec')
	const has = objectAt(after, 'spec')
	if (textsAt(had, 'podCIDRs').length > 0 && !sameJson(had.podCIDRs, has.podCIDRs))
		report.forbidden('spec.podCIDRs', 'node updates may not change podCIDR except from "" to valid')
	if (isSet(had.providerID) && had.providerID !== has.providerID)
		report.forbidden('spec.providerID', 'node updates may not change providerID except from "" to valid')
}

export function checkClaim(claim: JsonObject, report: Report): void {
	const spec = objectAt(claim, 'spec')
	if (textsAt(spec, 'accessModes').length === 0)
		report.required('spec.accessModes', 'at least 1 access mode is required')
	if (!isSet(objectAt(objectAt(spec, 'resources'), 'requests').storage)) report.required('spec.resources[storage]')
	checkSelector(objectAt(spec, 'selector'), 'spec.selector', report)
}

export function checkLease(lease: JsonObject, report: Report): void {
	const spec = objectAt(lease, 'spec')
	report.positive('spec.leaseDurationSeconds', spec.leaseDurationSeconds)
	report.notNegative('spec.leaseTransitions', spec.leaseTransitions)
}

export function checkRole(role: JsonObject, isCluster: boolean, report: Report): void {
	objectsAt(role, 'rules').forEach((rule, i) => {
		const at = `rules[${i}]`
		const urls = textsAt(rule, 'nonResourceURLs')
		if (textsAt(rule, 'verbs').length === 0) report.required(`${at}.verbs`, 'verbs must contain at least one value')
		if (urls.length > 0) {
			if (!isCluster)
				report.invalid(`${at}.nonResourceURLs`, urls, 'namespaced rules cannot apply to non-resource URLs')
			if (['apiGroups', 'resources', 'resourceNames'].some((field) => textsAt(rule, field).length > 0))
				report.invalid(
					`${at}.nonResourceURLs`,
					urls,
					'rules cannot apply to both regular resources and non-resource URLs',
				)
			return
		}
		if (textsAt(rule, 'apiGroups').length === 0)
			report.required(`${at}.apiGroups`, 'resource rules must supply at least one api group')
		if (textsAt(rule, 'resources').length === 0)
			report.required(`${at}.resources`, 'resource rules must supply at least one resource')
	})
	objectsAt(objectAt(role, 'aggregationRule'), 'clusterRoleSelectors').forEach((selector, i) => {
		checkSelector(selector, `aggregationRule.clusterRoleSelectors[${i}]`, report)
	})
}

export function checkBinding(binding: JsonObject, isCluster: boolean, report: Report): void {
	const role = objectAt(binding, 'roleRef')
	report.oneOf('roleRef.apiGroup', role.apiGroup, ['rbac.authorization.k8s.io'])
	const kinds = isCluster ? ['ClusterRole'] : ['ClusterRole', 'Role']
	if (!kinds.includes(textAt(role, 'kind'))) report.notSupported('roleRef.kind', role.kind ?? '', kinds)
	if (!isSet(role.name)) report.required('roleRef.name')
	objectsAt(binding, 'subjects').forEach((subject, i) => {
		const at = `subjects[${i}]`
		if (!isSet(subject.name)) report.required(`${at}.name`)
		const kind = textAt(subject, 'kind')
		if (!['ServiceAccount', 'User', 'Group'].includes(kind))
			report.notSupported(`${at}.kind`, kind, ['Group', 'ServiceAccount', 'User'])
		if (kind === 'ServiceAccount') {
			if (isSet(subject.apiGroup)) report.notSupported(`${at}.apiGroup`, subject.apiGroup, [''])
			if (isCluster && !isSet(subject.namespace)) report.required(`${at}.namespace`)
		} else report.oneOf(`${at}.apiGroup`, subject.apiGroup, ['rbac.authorization.k8s.io'])
	})
}

export function checkBindingUpdate(before: JsonObject, after: JsonObject, report: Report): void {
	if (!sameJson(before.roleRef, after.roleRef)) report.invalid('roleRef', after.roleRef, 'cannot change roleRef')
}

export function checkDisruptionBudget(budget: JsonObject, report: Report): void {
	const spec = objectAt(budget, 'spec')
	if (isSet(spec.minAvailable) && isSet(spec.maxUnavailable))
		report.invalid('spec', spec, 'minAvailable and maxUnavailable cannot be both set')
	for (const field of ['minAvailable', 'maxUnavailable']) {
		const value = spec[field]
		report.notNegative(`spec.${field}`, value)
		if (typeof value === 'string' && !/^\d+%$/.test(value))
			report.invalid(
				`spec.${field}`,
				value,
				"a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%' or '93%')",
			)
	}
	checkSelector(objectAt(spec, 'selector'), 'spec.selector', report)
}

export function checkAutoscaler(autoscaler: JsonObject, report: Report): void {
	const spec = objectAt(autoscaler, 'spec')
	const [least, most] = [spec.minReplicas, spec.maxReplicas]
	if (typeof least === 'number' && least < 1)
		report.invalid('spec.minReplicas', least, 'must be greater than or equal to 1')
	if (typeof most !== 'number' || most < 1) report.invalid('spec.maxReplicas', most ?? 0, 'must be greater than 0')
	else if (typeof least === 'number' && most < least)
		report.invalid('spec.maxReplicas', most, 'must be greater than or equal to `minReplicas`')
	const target = objectAt(spec, 'scaleTargetRef')
	for (const field of ['kind', 'name']) if (!isSet(target[field])) report.required(`spec.scaleTargetRef.${field}`)
}

export function checkPriorityClassUpdate(before: JsonObject, after: JsonObject, report: Report): void {
	if ((before.value ?? 0) !== (after.value ?? 0)) report.forbidden('value', 'may not be changed in an update.')
}

export function checkStorageClass(storage: JsonObject, report: Report): void {
	if (!isSet(storage.provisioner)) report.required('provisioner')
	report.oneOf('reclaimPolicy', storage.reclaimPolicy, ['Delete', 'Retain'])
	report.oneOf('volumeBindingMode', storage.volumeBindingMode, ['Immediate', 'WaitForFirstConsumer'])
}
