// Is the schema of a definition one the server can work with? It must be structural: what is where is said once, apart
// from conditions on values. Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema

import { messageOf } from '../../base/failure.ts'
import { isObject, type Json, type JsonObject } from '../../kube/schema/json.ts'
import { cause } from '../status.ts'
import type { Report } from '../validate/report.ts'
import { regexOf } from './cel/regex.ts'
import { prune } from './fill.ts'
import { compileRule } from './rules.ts'
import { readSchema, type Schema } from './schema.ts'
import { checkValue } from './values.ts'

/** Fields of JSON schema that have no place in a definition. */
const neverAllowed = [
	'$ref',
	'definitions',
	'dependencies',
	'deprecated',
	'discriminator',
	'id',
	'patternProperties',
	'readOnly',
	'writeOnly',
	'xml',
	'additionalItems',
] as const

/** What says where something is, or describes it, may not stand within a condition on values. */
const onlyOutside = [
	'description',
	'type',
	'default',
	'title',
	'nullable',
	'additionalProperties',
	'x-kubernetes-preserve-unknown-fields',
	'x-kubernetes-embedded-resource',
	'x-kubernetes-int-or-string',
	'x-kubernetes-list-type',
	'x-kubernetes-list-map-keys',
	'x-kubernetes-map-type',
] as const

const knownTypes: ReadonlySet<string> = new Set(['object', 'array', 'string', 'integer', 'number', 'boolean'])
const reasons = ['FieldValueInvalid', 'FieldValueForbidden', 'FieldValueRequired', 'FieldValueDuplicate']

/** Adds the faults of a schema to a report. `path`: where it stands, `spec.versions[0].schema.openAPIV3Schema`. */
export function checkSchemaOf(json: JsonObject, path: string, report: Report): void {
	const schema = readSchema(json)
	const structure = { json, schema, path, report }
	if (schema.type === '') report.required(`${path}.type`, 'must not be empty at the root')
	else if (schema.type !== 'object') report.invalid(`${path}.type`, schema.type, 'must be object at the root')
	if (json.nullable === true) report.forbidden(`${path}.nullable`, 'nullable cannot be true at the root')
	checkRootMetadata(structure)
	checkStructure(structure, 'root', { isResource: true, correlatable: true })
}

interface Place {
	readonly json: JsonObject
	readonly schema: Schema
	readonly path: string
	readonly report: Report
}

interface Within {
	readonly isResource: boolean
	/** Whether an old value can be found for each new one. */
	readonly correlatable: boolean
}

function checkRootMetadata({ json, path, report }: Place): void {
	const metadata = isObject(json.properties) ? json.properties.metadata : undefined
	if (!isObject(metadata)) return
	const at = `${path}.properties[metadata]`
	if (metadata.type !== undefined && metadata.type !== 'object')
		report.invalid(`${at}.type`, metadata.type, 'must be object')
	const names = isObject(metadata.properties) ? Object.keys(metadata.properties) : []
	const odd = names.some((name) => name !== 'name' && name !== 'generateName')
	if (odd || metadata.default !== undefined)
		report.forbidden(
			at,
			'must not specify anything other than name and generateName, but metadata is implicitly specified',
		)
}

function checkStructure(place: Place, where: 'root' | 'field' | 'item' | 'value', within: Within): void {
	const { json, schema, path, report } = place
	const hasType = schema.type !== ''
	if (!hasType && !schema.intOrString && !schema.preserveUnknown && where !== 'root') {
		const what =
			where === 'item' ? 'must not be empty for specified array items' : 'must not be empty for specified object fields'
		report.required(`${path}.type`, what)
	} else if (hasType && !knownTypes.has(schema.type)) report.notSupported(`${path}.type`, schema.type, [...knownTypes])
	if (schema.intOrString && hasType)
		report.forbidden(`${path}.type`, 'must be empty if x-kubernetes-int-or-string is true')
	for (const key of neverAllowed) if (isGiven(json[key])) report.forbidden(`${path}.${key}`, `${key} is not supported`)
	if (json.uniqueItems === true)
		report.forbidden(
			`${path}.uniqueItems`,
			'uniqueItems cannot be set to true since the runtime complexity becomes quadratic',
		)
	if (json['x-kubernetes-preserve-unknown-fields'] === false)
		report.invalid(`${path}.x-kubernetes-preserve-unknown-fields`, false, 'must be true or undefined')
	if (schema.embedded) {
		if (schema.type !== 'object')
			report.invalid(`${path}.type`, schema.type, 'must be object if x-kubernetes-embedded-resource is true')
		if (schema.properties === undefined && !schema.preserveUnknown)
			report.required(
				`${path}.properties`,
				'must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields',
			)
	}
	if (isObject(json.properties) && json.additionalProperties !== undefined)
		report.forbidden(`${path}.additionalProperties`, 'additionalProperties and properties are mutual exclusive')
	if (json.additionalProperties === false)
		report.forbidden(`${path}.additionalProperties`, 'additionalProperties cannot be set to false')
	if (schema.type === 'array' && !isObject(json.items)) {
		if (Array.isArray(json.items)) report.forbidden(`${path}.items`, 'items must be a schema object and not an array')
		else if (!schema.preserveUnknown) report.required(`${path}.items`, 'must be specified')
	}
	checkListType(place)
	checkPattern(place)
	checkLogic(place, json, path)
	checkRules(place, within)
	if (schema.default !== undefined) checkDefault(place, within)
	const below = { isResource: false, correlatable: within.correlatable && !schema.atomicMap }
	for (const [name, inner] of schema.properties ?? []) {
		// What every object has is known; only its conditions count.
		if (within.isResource && (name === 'metadata' || name === 'apiVersion' || name === 'kind')) continue
		const at = {
			json: (json.properties as JsonObject)[name] as JsonObject,
			schema: inner,
			path: `${path}.properties[${name}]`,
			report,
		}
		checkStructure(at, 'field', { ...below, isResource: inner.embedded })
	}
	if (schema.items !== undefined) {
		const at = { json: json.items as JsonObject, schema: schema.items, path: `${path}.items`, report }
		checkStructure(at, 'item', {
			isResource: schema.items.embedded,
			correlatable: within.correlatable && schema.listType === 'map',
		})
	}
	if (schema.additional !== undefined && schema.additional !== true) {
		const { additional } = schema
		const at = {
			json: json.additionalProperties as JsonObject,
			schema: additional,
			path: `${path}.additionalProperties`,
			report,
		}
		checkStructure(at, 'value', { ...below, isResource: additional.embedded })
	}
}

function isGiven(value: Json | undefined): boolean {
	if (value === undefined || value === null || value === '' || value === false) return false
	return !(isObject(value) && Object.keys(value).length === 0)
}

function checkListType({ json, schema, path, report }: Place): void {
	const listType = json['x-kubernetes-list-type']
	const keys = schema.listKeys
	if (listType !== undefined && listType !== null) {
		const at = `${path}.x-kubernetes-list-type`
		if (schema.type !== 'array')
			report.invalid(`${path}.type`, schema.type, 'must be array if x-kubernetes-list-type is specified')
		if (listType !== 'atomic' && listType !== 'set' && listType !== 'map')
			report.notSupported(at, listType, ['atomic', 'set', 'map'])
	}
	const items = schema.items
	if (listType === 'map') {
		const at = `${path}.x-kubernetes-list-map-keys`
		if (keys.length === 0) report.required(at, 'must not be empty if x-kubernetes-list-type is map')
		if (items !== undefined && items.type !== 'object')
			report.invalid(`${path}.items.type`, items.type, "must be object if parent array's x-kubernetes-list-type is map")
		for (const [i, key] of keys.entries()) {
			if (keys.indexOf(key) !== i) report.duplicate(`${at}[${i}]`, key)
			const field = items?.properties?.get(key)
			if (field === undefined) report.invalid(`${at}[${i}]`, key, 'entries must all be names of item properties')
			else if (field.type === 'object' || field.type === 'array')
				report.invalid(
					`${path}.items.properties[${key}].type`,
					field.type,
					"must be a scalar type if parent array's x-kubernetes-list-type is map",
				)
			else if (field.default === undefined && !items?.required.includes(key))
				report.required(
					`${path}.items.properties[${key}].default`,
					`this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property`,
				)
		}
	} else if (keys.length > 0)
		report.forbidden(`${path}.x-kubernetes-list-map-keys`, 'must not be set if x-kubernetes-list-type is not map')
	if (listType === 'set' && items !== undefined) {
		const isAtomic =
			(items.type === 'object' && items.atomicMap) ||
			(items.type === 'array' && items.listType === 'atomic') ||
			(items.type !== 'object' && items.type !== 'array')
		if (!isAtomic)
			report.forbidden(
				`${path}.items.x-kubernetes-map-type`,
				'must be atomic as item of a list with x-kubernetes-list-type=set',
			)
		if (items.nullable) report.forbidden(`${path}.items.nullable`, 'cannot be true when x-kubernetes-list-type is set')
	}
	const mapType = json['x-kubernetes-map-type']
	if (mapType !== undefined && mapType !== null) {
		if (schema.type !== 'object')
			report.invalid(`${path}.type`, schema.type, 'must be object if x-kubernetes-map-type is specified')
		if (mapType !== 'atomic' && mapType !== 'granular')
			report.notSupported(`${path}.x-kubernetes-map-type`, mapType, ['atomic', 'granular'])
	}
}

function checkPattern({ schema, path, report }: Pick<Place, 'schema' | 'path' | 'report'>): void {
	if (schema.pattern === '') return
	try {
		regexOf(schema.pattern)
	} catch (e) {
		report.invalid(`${path}.pattern`, schema.pattern, `must be a valid regular expression, but isn't: ${messageOf(e)}`)
	}
}

/** Conditions within allOf, anyOf, oneOf and not. `outside`: the structure they speak about. */
function checkLogic({ schema: outside, report }: Place, json: JsonObject, path: string): void {
	const visit = (inner: JsonObject, around: Schema | undefined, at: string): void => {
		for (const key of onlyOutside) {
			if (!isGiven(inner[key])) continue
			// The one exception: how int-or-string is told to clients that do not know it.
			if (key === 'type' && around?.intOrString) continue
			report.forbidden(`${at}.${key}`, 'must be empty to be structural')
		}
		checkPattern({ schema: readSchema({ ...inner, properties: undefined, items: undefined }), path: at, report })
		if (isObject(inner.properties))
			for (const [name, below] of Object.entries(inner.properties)) {
				if (!isObject(below)) continue
				const known = around?.properties?.get(name)
				const atField = `${at}.properties[${name}]`
				if (
					known === undefined &&
					around !== undefined &&
					!(around === outside && (name === 'metadata' || name === 'kind' || name === 'apiVersion'))
				)
					report.required(
						atField.replace(/\.(?:allOf|anyOf|oneOf)\[\d+\]|\.not/g, ''),
						`because it is defined in ${atField}`,
					)
				visit(below, known, atField)
			}
		if (isObject(inner.items)) visit(inner.items, around?.items, `${at}.items`)
		logic(inner, around, at)
	}
	const logic = (of: JsonObject, around: Schema | undefined, at: string): void => {
		for (const key of ['allOf', 'anyOf', 'oneOf'] as const) {
			const list = of[key]
			if (!Array.isArray(list)) continue
			for (const [i, inner] of (list as readonly Json[]).entries())
				if (isObject(inner)) visit(inner, around, `${at}.${key}[${i}]`)
		}
		if (isObject(of.not)) visit(of.not, around, `${at}.not`)
	}
	logic(json, outside, path)
}

function checkRules({ schema, path, report }: Place, within: Within): void {
	for (const [i, rule] of schema.rules.entries()) {
		const at = `${path}.x-kubernetes-validations[${i}]`
		if (rule.rule.trim() === '') {
			report.required(`${at}.rule`, 'rule is not specified')
			continue
		}
		if (rule.message !== '' && rule.message.trim() === '')
			report.invalid(`${at}.message`, rule.message, 'message must be non-empty if specified')
		else if (/\n/.test(rule.message.trim()))
			report.invalid(`${at}.message`, rule.message, 'message must not contain line breaks')
		else if (/\n/.test(rule.rule.trim()) && rule.message === '' && rule.messageExpression === '')
			report.required(`${at}.message`, 'message must be specified if rule contains line breaks')
		if (rule.reason !== undefined && !reasons.includes(rule.reason))
			report.notSupported(`${at}.reason`, rule.reason, reasons)
		try {
			const compiled = compileRule(rule, schema, within.isResource)
			if (compiled.usesOldSelf && !within.correlatable)
				report.invalid(
					`${at}.rule`,
					rule.rule,
					`oldSelf cannot be used on the uncorrelatable portion of the schema within ${path}`,
				)
		} catch (e) {
			const field = isPathFault(e) ? 'fieldPath' : 'rule'
			const value = field === 'rule' ? rule.rule : rule.fieldPath
			report.invalid(`${at}.${field}`, value, field === 'rule' ? `compilation failed: ${messageOf(e)}` : messageOf(e))
		}
	}
}

function isPathFault(e: unknown): boolean {
	return e instanceof Error && 'code' in e
}

function checkDefault({ schema, path, report }: Place, within: Within): void {
	if (within.isResource) {
		report.forbidden(`${path}.default`, 'must not be set')
		return
	}
	const value = schema.default!
	const unknown: string[] = []
	if (isObject(value)) prune(value, schema, unknown)
	for (const field of unknown)
		report.causes.push(cause.invalid(`${path}.default`, value, `must not have unknown field ${JSON.stringify(field)}`))
	for (const fault of checkValue(value, schema, `${path}.default`)) report.causes.push(fault)
}
