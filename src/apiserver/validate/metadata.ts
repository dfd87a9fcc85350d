// Checks of metadata, label selectors and what else all kinds share.

import type { JsonObject } from '../../kube/schema/json.ts'
import { isObject } from '../../kube/schema/json.ts'
import { labelFaults, labelValueFaults, pathSegmentFaults, qualifiedNameFaults, subdomainFaults } from './names.ts'
import { isSet, objectAt, objectsAt, type Report, textAt, textsAt } from './report.ts'

/** Of all keys and values of an object's annotations together. */
export const mostAnnotationBytes = 256 * 1024

/** What may be a name, by `group/Kind`; all others are subdomains. */
const nameRules: Readonly<Record<string, (value: string) => string[]>> = {
	// May begin with a digit (KEP-5311).
	'/Service': labelFaults,
	'/Namespace': labelFaults,
	'rbac.authorization.k8s.io/Role': pathSegmentFaults,
	'rbac.authorization.k8s.io/ClusterRole': pathSegmentFaults,
	'rbac.authorization.k8s.io/RoleBinding': pathSegmentFaults,
	'rbac.authorization.k8s.io/ClusterRoleBinding': pathSegmentFaults,
	// An address: colons and all. The kind's own rule says which.
	'networking.k8s.io/IPAddress': () => [],
}

export function checkMetadata(object: JsonObject, groupKind: string, report: Report): void {
	const metadata = objectAt(object, 'metadata')
	const rule = nameRules[groupKind] ?? subdomainFaults
	const name = textAt(metadata, 'name')
	const generateName = textAt(metadata, 'generateName')
	// The server adds characters: a trailing dash is no fault.
	if (generateName !== '')
		report.invalidFor('metadata.generateName', generateName, rule(generateName.replace(/-$/, 'a')))
	if (name !== '') report.invalidFor('metadata.name', name, rule(name))
	else if (generateName === '') report.required('metadata.name', 'name or generateName is required')
	const namespace = textAt(metadata, 'namespace')
	if (namespace !== '') report.invalidFor('metadata.namespace', namespace, labelFaults(namespace))
	checkLabels(objectAt(metadata, 'labels'), 'metadata.labels', report)
	checkAnnotations(objectAt(metadata, 'annotations'), 'metadata.annotations', report)
	let controllers = 0
	objectsAt(metadata, 'ownerReferences').forEach((owner, i) => {
		const at = `metadata.ownerReferences[${i}]`
		for (const field of ['apiVersion', 'kind', 'name', 'uid'])
			if (!isSet(owner[field])) report.invalid(`${at}.${field}`, owner[field] ?? '', `${field} must not be empty`)
		if (owner.controller === true && ++controllers === 2)
			report.invalid('metadata.ownerReferences', '', 'only one reference can have Controller set to true')
	})
	for (const finalizer of textsAt(metadata, 'finalizers'))
		report.invalidFor('metadata.finalizers', finalizer, qualifiedNameFaults(finalizer))
}

/** What may not change once an object is there. */
export function checkMetadataUpdate(before: JsonObject, after: JsonObject, report: Report): void {
	const had = objectAt(before, 'metadata')
	const has = objectAt(after, 'metadata')
	for (const field of ['name', 'namespace', 'uid', 'creationTimestamp'])
		if (isSet(has[field]) && isSet(had[field]) && has[field] !== had[field])
			report.invalid(`metadata.${field}`, has[field], 'field is immutable')
	if (isSet(had.deletionTimestamp)) {
		const known = textsAt(had, 'finalizers')
		const added = textsAt(has, 'finalizers').filter((finalizer) => !known.includes(finalizer))
		if (added.length > 0)
			report.forbidden(
				'metadata.finalizers',
				`no new finalizers can be added if the object is being deleted, found new finalizers ${JSON.stringify(added)}`,
			)
	}
}

export function checkLabels(labels: JsonObject, at: string, report: Report): void {
	for (const [key, value] of Object.entries(labels)) {
		report.invalidFor(at, key, qualifiedNameFaults(key))
		if (typeof value === 'string') report.invalidFor(at, value, labelValueFaults(value))
	}
}

export function checkAnnotations(annotations: JsonObject, at: string, report: Report): void {
	let bytes = 0
	for (const [key, value] of Object.entries(annotations)) {
		// The case of a prefix does not matter for annotations.
		report.invalidFor(at, key, qualifiedNameFaults(key.toLowerCase()))
		bytes += Buffer.byteLength(key) + Buffer.byteLength(String(value ?? ''))
	}
	if (bytes > mostAnnotationBytes) report.tooLong(at, mostAnnotationBytes)
}

const operators = ['In', 'NotIn', 'Exists', 'DoesNotExist']

export function checkSelector(selector: JsonObject, at: string, report: Report): void {
	checkLabels(objectAt(selector, 'matchLabels'), `${at}.matchLabels`, report)
	objectsAt(selector, 'matchExpressions').forEach((expression, i) => {
		const where = `${at}.matchExpressions[${i}]`
		const operator = textAt(expression, 'operator')
		const values = textsAt(expression, 'values')
		report.invalidFor(`${where}.key`, textAt(expression, 'key'), qualifiedNameFaults(textAt(expression, 'key')))
		if (!operators.includes(operator)) report.invalid(`${where}.operator`, operator, 'not a valid selector operator')
		else if (operator.endsWith('In') && values.length === 0)
			report.required(`${where}.values`, "must be specified when `operator` is 'In' or 'NotIn'")
		else if (operator.endsWith('Exist') || operator === 'Exists') {
			if (values.length > 0)
				report.forbidden(`${where}.values`, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
		}
		values.forEach((value, j) => {
			report.invalidFor(`${where}.values[${j}]`, value, labelValueFaults(value))
		})
	})
}

/** Does a label selector (matchLabels and matchExpressions) select these labels? */
export function selects(selector: JsonObject, labels: JsonObject): boolean {
	for (const [key, value] of Object.entries(objectAt(selector, 'matchLabels'))) if (labels[key] !== value) return false
	return objectsAt(selector, 'matchExpressions').every((expression) => {
		const value = labels[textAt(expression, 'key')]
		const values = textsAt(expression, 'values')
		switch (expression.operator) {
			case 'In':
				return typeof value === 'string' && values.includes(value)
			case 'NotIn':
				return typeof value !== 'string' || !values.includes(value)
			case 'Exists':
				return value !== undefined
			case 'DoesNotExist':
				return value === undefined
			default:
				return false
		}
	})
}

export function isEmptySelector(selector: JsonObject): boolean {
	return (
		Object.keys(objectAt(selector, 'matchLabels')).length === 0 && objectsAt(selector, 'matchExpressions').length === 0
	)
}

/** `selector` where it is an object. */
export function selectorAt(object: JsonObject, key = 'selector'): JsonObject | undefined {
	const selector = object[key]
	return isObject(selector) ? selector : undefined
}
