// May this CustomResourceDefinition be kept? Names, versions, schemas, subresources, columns.
// Source: apiextensions-apiserver, pkg/apis/apiextensions/validation, its rules.

import { isFailure, messageOf } from '../../base/failure.ts'
import type { StatusCause } from '../../kube/objects/meta.ts'
import { isObject, type JsonObject, sameJson } from '../../kube/schema/json.ts'
import { label1035Faults, subdomainFaults } from '../validate/names.ts'
import { Report } from '../validate/report.ts'
import { checkSchemaOf } from './check-schema.ts'
import { reviewVersions } from './convert.ts'
import { type Definition, isEstablished, type Version, type WebhookClient } from './definition.ts'
import { schemaAtPath, stepsOf } from './field-path.ts'
import { parseJsonPath } from './json-path.ts'
import { readSchema, type Schema } from './schema.ts'

const approval = 'api-approved.kubernetes.io'

export function checkDefinition(object: JsonObject, beforeObject: JsonObject | undefined): readonly StatusCause[] {
	const report = new Report()
	const definition = object as unknown as Definition
	const before = beforeObject as unknown as Definition | undefined
	const { spec } = definition
	if (!isObject(object.spec)) {
		report.required('spec')
		return report.causes
	}
	const names = spec.names ?? {}
	const group = spec.group ?? ''
	const name = definition.metadata.name ?? ''
	if (name !== `${names.plural ?? ''}.${group}`)
		report.invalid('metadata.name', name, 'must be spec.names.plural+"."+spec.group')
	if (group === '') report.required('spec.group')
	else {
		report.invalidFor('spec.group', group, subdomainFaults(group))
		if (!group.includes('.')) report.invalid('spec.group', group, 'should be a domain with at least one dot')
	}
	checkApproval(definition, before, report)
	const { scope } = spec
	if (!scope) report.required('spec.scope')
	else report.oneOf('spec.scope', scope, ['Cluster', 'Namespaced'])
	checkNames(definition, report)
	if (spec.preserveUnknownFields === true)
		report.invalid(
			'spec.preserveUnknownFields',
			true,
			'cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead',
		)
	checkConversion(spec.conversion, report)
	checkVersions(spec.versions ?? [], before?.spec.versions, report)
	if (before !== undefined) checkChange(before, definition, report)
	return report.causes
}

/** Groups of the Kubernetes project want a word of its reviewers. */
function checkApproval(definition: Definition, before: Definition | undefined, report: Report): void {
	const { group = '' } = definition.spec
	if (!isProtected(group)) return
	const value = definition.metadata.annotations?.[approval]
	if (before !== undefined && before.metadata.annotations?.[approval] === value) return
	const at = `metadata.annotations[${approval}]`
	if (value === undefined || value === '')
		report.required(
			at,
			`protected groups must have approval annotation "${approval}", see https://github.com/kubernetes/enhancements/pull/1111`,
		)
	else if (!value.startsWith('unapproved') && !/^[a-z]+:\/\/[^/]+/i.test(value))
		report.invalid(
			at,
			value,
			`protected groups must have approval annotation "${approval}" with either a URL or a reason starting with "unapproved", see https://github.com/kubernetes/enhancements/pull/1111`,
		)
}

export function isProtected(group: string): boolean {
	return (
		group === 'k8s.io' || group.endsWith('.k8s.io') || group === 'kubernetes.io' || group.endsWith('.kubernetes.io')
	)
}

function checkNames({ spec }: Definition, report: Report): void {
	const names = spec.names ?? {}
	for (const field of ['plural', 'singular'] as const) {
		const value = names[field] ?? ''
		if (value === '') report.required(`spec.names.${field}`)
		else report.invalidFor(`spec.names.${field}`, value, label1035Faults(value))
	}
	for (const field of ['kind', 'listKind'] as const) {
		const value = names[field] ?? ''
		if (value === '') report.required(`spec.names.${field}`)
		else
			report.invalidFor(
				`spec.names.${field}`,
				value,
				label1035Faults(value.toLowerCase()).map((why) => `may have mixed case, but should otherwise match: ${why}`),
			)
	}
	if (names.kind !== undefined && names.kind !== '' && names.kind === names.listKind)
		report.invalid('spec.names.listKind', names.listKind, 'kind and listKind may not be the same')
	for (const field of ['shortNames', 'categories'] as const)
		for (const [i, value] of (names[field] ?? []).entries())
			report.invalidFor(`spec.names.${field}[${i}]`, value, label1035Faults(value))
}

function checkConversion(conversion: Definition['spec']['conversion'], report: Report): void {
	const { strategy, webhook } = conversion ?? {}
	const at = 'spec.conversion'
	report.oneOf(`${at}.strategy`, strategy, ['None', 'Webhook'])
	if (strategy !== 'Webhook') {
		if (webhook !== undefined)
			report.forbidden(`${at}.webhook`, 'should not be set when strategy is not set to Webhook')
		return
	}
	const { clientConfig: client, conversionReviewVersions: versions = [] } = webhook ?? {}
	if (client === undefined) report.required(`${at}.webhook.clientConfig`, 'required when strategy is set to Webhook')
	else checkWebhookClient(client, `${at}.webhook.clientConfig`, report)
	if (versions.length === 0) report.required(`${at}.webhook.conversionReviewVersions`)
	else if (!versions.some((version) => reviewVersions.includes(version)))
		report.invalid(
			`${at}.webhook.conversionReviewVersions`,
			versions,
			`must include at least one of ${reviewVersions.join(', ')}`,
		)
}

function checkWebhookClient({ url, service }: WebhookClient, at: string, report: Report): void {
	if ((url === undefined) === (service === undefined)) {
		report.required(at, 'exactly one of url or service is required')
		return
	}
	if (url !== undefined) {
		const parsed = URL.canParse(url) ? new URL(url) : undefined
		if (parsed === undefined) report.required(`${at}.url`, 'url must be a valid URL')
		else if (parsed.protocol !== 'https:') report.invalid(`${at}.url`, url, "'https' is the only allowed URL scheme")
		else if (parsed.username !== '' || parsed.search !== '' || parsed.hash !== '')
			report.invalid(`${at}.url`, url, 'user information, queries and fragments are not permitted in the URL')
	} else if (service !== undefined) {
		if (!service.name) report.required(`${at}.service.name`, 'service name is required')
		if (!service.namespace) report.required(`${at}.service.namespace`, 'service namespace is required')
		report.between(`${at}.service.port`, service.port, 1, 65535)
		if (service.path !== undefined && !service.path.startsWith('/'))
			report.invalid(`${at}.service.path`, service.path, "must start with a '/'")
	}
}

function checkVersions(versions: readonly Version[], before: readonly Version[] | undefined, report: Report): void {
	if (versions.length === 0) report.required('spec.versions', 'must have at least one version')
	const stored = versions.filter((version) => version.storage)
	if (versions.length > 0 && stored.length !== 1)
		report.invalid(
			'spec.versions',
			versions.map((version) => version.name),
			'must have exactly one version marked as storage version',
		)
	for (const [i, version] of versions.entries()) {
		const at = `spec.versions[${i}]`
		const { name } = version
		report.invalidFor(`${at}.name`, name, label1035Faults(name ?? ''))
		if (versions.findIndex((other) => other.name === name) !== i)
			report.invalid(`${at}.name`, name, 'must contain unique version names')
		if (version.deprecationWarning !== undefined && version.deprecated !== true)
			report.invalid(`${at}.deprecationWarning`, version.deprecationWarning, 'can only be set for deprecated versions')
		const json = version.schema?.openAPIV3Schema
		if (!isObject(json)) {
			report.required(`${at}.schema.openAPIV3Schema`, 'schemas are required')
			continue
		}
		const was = before?.find((other) => other.name === name)
		// What is as it was has been looked at: schemas are large.
		if (was === undefined || !sameJson(was.schema?.openAPIV3Schema, json))
			checkSchemaOf(json, `${at}.schema.openAPIV3Schema`, report)
		checkSubresources(version, at, report)
		checkColumns(version, at, report)
		checkSelectable(version, readSchema(json), at, report)
	}
}

function checkSubresources(version: Version, at: string, report: Report): void {
	const scale = version.subresources?.scale
	if (scale === undefined || scale === null) return
	const paths = [
		['specReplicasPath', '.spec.', true],
		['statusReplicasPath', '.status.', true],
		['labelSelectorPath', '', false],
	] as const
	for (const [field, prefix, required] of paths) {
		const path = scale[field] ?? ''
		const where = `${at}.subresources.scale.${field}`
		if (path === '') {
			if (required) report.required(where)
			continue
		}
		if (stepsOf(path) === undefined || path.includes('['))
			report.invalid(where, path, 'should be a simple json path without array notation')
		else if (!(prefix === '' ? /^\.(spec|status)\./ : new RegExp(`^\\${prefix.slice(0, -1)}\\.`)).test(path))
			report.invalid(
				where,
				path,
				prefix === ''
					? 'should be a json path under either .spec or .status'
					: `should be a json path under ${prefix.slice(0, -1)}`,
			)
	}
}

const columnTypes = ['boolean', 'date', 'integer', 'number', 'string']
const columnFormats = ['int32', 'int64', 'float', 'double', 'byte', 'date', 'date-time', 'password']

function checkColumns(version: Version, at: string, report: Report): void {
	for (const [i, column] of (version.additionalPrinterColumns ?? []).entries()) {
		const where = `${at}.additionalPrinterColumns[${i}]`
		if ((column.name ?? '') === '') report.required(`${where}.name`)
		if ((column.type ?? '') === '') report.required(`${where}.type`)
		else report.oneOf(`${where}.type`, column.type, columnTypes)
		report.oneOf(`${where}.format`, column.format, columnFormats)
		if ((column.jsonPath ?? '') === '') {
			report.required(`${where}.jsonPath`)
			continue
		}
		try {
			parseJsonPath(column.jsonPath)
		} catch (e) {
			report.invalid(`${where}.jsonPath`, column.jsonPath, messageOf(e))
		}
	}
}

function checkSelectable(version: Version, schema: Schema, at: string, report: Report): void {
	const fields = version.selectableFields ?? []
	if (fields.length > 8) report.tooMany(`${at}.selectableFields`, fields.length, 8)
	for (const [i, { jsonPath }] of fields.entries()) {
		const where = `${at}.selectableFields[${i}].jsonPath`
		if ((jsonPath ?? '') === '') {
			report.required(where)
			continue
		}
		if (fields.findIndex((other) => other.jsonPath === jsonPath) !== i) report.duplicate(where, jsonPath)
		if (jsonPath.includes('[')) {
			report.invalid(where, jsonPath, 'is an invalid path: array notation is not allowed')
			continue
		}
		if (/^\.metadata(\.|$)/.test(jsonPath)) {
			report.invalid(where, jsonPath, 'must not point to fields in metadata')
			continue
		}
		try {
			const { type } = schemaAtPath(jsonPath, schema)
			if (type !== 'string' && type !== 'integer' && type !== 'boolean')
				report.invalid(
					where,
					jsonPath,
					'must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.',
				)
		} catch (e) {
			if (!isFailure(e)) throw e
			report.invalid(where, jsonPath, `is an invalid path: ${e.message}`)
		}
	}
}

function checkChange(before: Definition, after: Definition, report: Report): void {
	if (isEstablished(before)) {
		const fields = [
			['spec.group', before.spec.group, after.spec.group],
			['spec.scope', before.spec.scope, after.spec.scope],
			['spec.names.kind', before.spec.names.kind, after.spec.names.kind],
			['spec.names.plural', before.spec.names.plural, after.spec.names.plural],
		] as const
		for (const [field, was, is] of fields) if (was !== is) report.invalid(field, is, 'field is immutable')
	}
	const versions = new Set(after.spec.versions?.map((version) => version.name))
	for (const [i, stored] of (before.status?.storedVersions ?? []).entries())
		if (!versions.has(stored))
			report.invalid(
				`status.storedVersions[${i}]`,
				stored,
				`missing from spec.versions; ${stored} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in ${stored} and removes ${stored} from status.storedVersions`,
			)
}
