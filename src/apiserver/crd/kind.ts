// One version of a custom kind as the server serves it: read, defaults, checks, columns, scale.

import { Failure } from '../../base/failure.ts'
import type { UnknownObject } from '../../kube/objects/meta.ts'
import { apiVersionOf, type Resource, type Subresource } from '../../kube/resources.ts'
import type { JsonObject } from '../../kube/schema/json.ts'
import { objectMeta, type TypeSchema } from '../../kube/schema/schema.ts'
import type { KindRules, Served } from '../registry.ts'
import { methodNotAllowed, qualified } from '../status.ts'
import { checkFields, duplicateFields, type FieldValidation, readObject } from '../validate/fields.ts'
import { tableOfVersion } from './columns.ts'
import { type CallWebhook, type Converter, createConverter } from './convert.ts'
import type { Definition, Version } from './definition.ts'
import { stepsOf } from './field-path.ts'
import { prune, withSchemaDefaults } from './fill.ts'
import { checkRules } from './rules.ts'
import { readSchema, type Schema } from './schema.ts'
import { typeOfSchema } from './type.ts'
import { checkSchema } from './values.ts'

/** What conversion by a webhook needs of the server. */
export interface ConversionWorld {
	readonly call: CallWebhook
	readonly count: () => number
	readonly has: (key: string) => boolean
	/** All that is kept now. */
	readonly all: () => Iterable<UnknownObject>
}

/** The rows of all served versions of a definition. `isTerminating`: nothing may be made any more. */
export function servedOf(
	definition: Definition,
	isTerminating: () => boolean,
	world?: ConversionWorld,
): readonly Served[] {
	const { spec } = definition
	const stored = spec.versions.find((version) => version.storage) ?? spec.versions[0]!
	// Objects may have been kept in another version, or before the schema had its defaults.
	const isPlain =
		spec.versions.length === 1 &&
		(definition.status?.storedVersions ?? []).length <= 1 &&
		(definition.metadata.generation ?? 1) <= 1
	const byWebhook = spec.conversion?.strategy === 'Webhook' && world !== undefined && spec.versions.length > 1
	const converter = byWebhook ? createConverter(definition, world) : undefined
	return spec.versions
		.filter((version) => version.served)
		.map((version) => {
			const row = rowOf(definition, version, stored, isPlain, isTerminating)
			return converter === undefined || world === undefined ? row : converted(row, converter, world)
		})
}

const status: Subresource = { name: 'status', verbs: ['get', 'patch', 'update'] }
const scale: Subresource = {
	name: 'scale',
	verbs: ['get', 'patch', 'update'],
	body: { group: 'autoscaling', version: 'v1', kind: 'Scale' },
}

function resourceOf({ spec }: Definition, version: Version): Resource {
	const { names } = spec
	return {
		group: spec.group,
		version: version.name,
		kind: names.kind,
		plural: names.plural,
		singular: names.singular,
		shortNames: names.shortNames ?? [],
		categories: names.categories ?? [],
		namespaced: spec.scope === 'Namespaced',
		verbs: ['delete', 'deletecollection', 'get', 'list', 'patch', 'create', 'update', 'watch'],
		subresources: [...(version.subresources?.status ? [status] : []), ...(version.subresources?.scale ? [scale] : [])],
		stored: true,
	}
}

function rowOf(
	definition: Definition,
	version: Version,
	stored: Version,
	isPlain: boolean,
	isTerminating: () => boolean,
): Served {
	const resource = resourceOf(definition, version)
	const apiVersion = apiVersionOf(resource)
	const json = version.schema?.openAPIV3Schema ?? { type: 'object', 'x-kubernetes-preserve-unknown-fields': true }
	let schema: Schema | undefined
	const schemaOf = (): Schema => (schema ??= readSchema(json))
	let type: TypeSchema | undefined
	const typeOf = (): TypeSchema =>
		(type ??= typeOfSchema(schemaOf(), `${resource.group}.${version.name}.${resource.kind}`))
	const rules = rulesOf(version, schemaOf, resource, isTerminating)
	const shown = new WeakMap<UnknownObject, UnknownObject>()
	const fromKept = (object: UnknownObject): UnknownObject => {
		const known = shown.get(object)
		if (known !== undefined) return known
		const named = object.apiVersion === apiVersion ? object : ({ ...object, apiVersion } as UnknownObject)
		const filled = withSchemaDefaults(named as unknown as JsonObject, schemaOf()) as unknown as UnknownObject
		shown.set(object, filled)
		return filled
	}
	const base = {
		storage: qualified(resource),
		custom: true,
		rules,
		openApiSchema: json,
	}
	const isStored = version.name === stored.name
	const storedVersion = apiVersionOf({ group: resource.group, version: stored.name })
	return {
		...base,
		resource,
		apiVersion,
		// Made when first asked for: start-up pays nothing for it.
		get type() {
			return typeOf()
		},
		...(isPlain ? {} : { fromKept }),
		...(isStored
			? {}
			: {
					toKept: (object: UnknownObject) => ({ ...object, apiVersion: storedVersion }) as UnknownObject,
					kept: {
						...base,
						resource: { ...resource, version: stored.name },
						apiVersion: storedVersion,
						get type() {
							return typeOf()
						},
					},
				}),
	}
}

/** The row of a version whose objects a webhook converts: it is read and checked as it is asked for, and kept as stored. */
function converted(row: Served, converter: Converter, world: ConversionWorld): Served {
	const { resource, apiVersion, storage, rules, openApiSchema } = row
	let all: Promise<void> | undefined
	return {
		resource,
		apiVersion,
		storage,
		custom: true,
		...(rules === undefined ? {} : { rules }),
		...(openApiSchema === undefined ? {} : { openApiSchema }),
		get type() {
			return row.type
		},
		fromKept: (object) => {
			const shown = converter.convert(object, apiVersion)
			return row.fromKept?.(shown) ?? shown
		},
		toStorage: (object) => converter.store(object),
		// What was kept before this version was served, or before this process: once. Writes convert what they keep.
		prepare: () =>
			(all ??= converter.ready(world.all(), apiVersion).catch((e: unknown) => {
				all = undefined
				throw e
			})),
	}
}

/** Only metadata: what of a body the server's own types read. */
const metadataOnly = (): TypeSchema => ({
	name: 'metadata',
	fields: new Map([
		[
			'metadata',
			{
				name: 'metadata',
				value: { type: 'object', object: objectMeta(), atomic: false },
				required: false,
				pointer: true,
				omit: 'empty',
				patchStrategy: [],
			},
		],
	]),
	atomic: false,
	preserveUnknown: false,
	topLevel: true,
})

function rulesOf(
	version: Version,
	schemaOf: () => Schema,
	resource: Resource,
	isTerminating: () => boolean,
): KindRules {
	let table: KindRules['table']
	const scalePaths = version.subresources?.scale
	const hasStatus = Boolean(version.subresources?.status)
	return {
		read: (object, level, text) => readCustom(object, schemaOf(), level, text),
		check(object, before) {
			const schema = schemaOf()
			const causes = checkSchema(object, before, schema)
			if (!schema.hasRules) return causes
			// Rules may count on values of the right type.
			if (causes.some((found) => blocking.has(found.reason ?? ''))) {
				causes.push({
					reason: 'FieldValueInvalid',
					message:
						'Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation',
					field: '<nil>',
				})
				return causes
			}
			return [...causes, ...checkRules(object, before, schema)]
		},
		get table() {
			return (table ??= tableOfVersion(version))
		},
		selectable: (version.selectableFields ?? []).map(({ jsonPath }) => selectableName(jsonPath)),
		...(scalePaths ? { scale: scalePaths } : {}),
		resetFields: (subresource) =>
			!hasStatus ? [] : subresource === 'status' ? ['spec'] : subresource === undefined ? ['status'] : [],
		warnings: version.deprecated
			? [version.deprecationWarning ?? `${resource.group}/${version.name} ${resource.kind} is deprecated`]
			: [],
		admitCreate() {
			if (isTerminating()) throw methodNotAllowed()
		},
	}
}

/** Faults after which rules would meet what they do not expect. */
const blocking: ReadonlySet<string> = new Set([
	'FieldValueNotSupported',
	'FieldValueRequired',
	'FieldValueTooLong',
	'FieldValueTooMany',
	'FieldValueTypeInvalid',
])

function selectableName(path: string): string {
	return (stepsOf(path) ?? []).map(({ name }) => name).join('.')
}

function readCustom(
	object: JsonObject,
	schema: Schema,
	level: FieldValidation,
	text: string | undefined,
): { readonly object: JsonObject; readonly warnings: readonly string[] } {
	const { apiVersion, kind, metadata, ...rest } = object
	const type = metadataOnly()
	const head: JsonObject = { apiVersion, kind, ...(metadata === undefined ? {} : { metadata }) }
	// Also bounds how deep the object is: all below may recurse.
	const report = checkFields({ ...rest, ...head }, { ...type, preserveUnknown: true })
	const read = readObject(head, type, 'Ignore').object
	const unknown = [...report.unknown]
	const pruned = prune({ ...read, ...rest }, schema, unknown)
	let warnings: string[] = []
	if (level !== 'Ignore') {
		warnings = unknown.map((path) => `unknown field "${path}"`)
		if (text !== undefined) warnings.push(...duplicateFields(text).map((path) => `duplicate field "${path}"`))
		if (level === 'Strict' && warnings.length > 0) {
			const version = String(apiVersion).split('/').at(-1)
			throw new Failure(
				'BadRequest',
				`${String(kind)} in version "${version}" cannot be handled as a ${String(kind)}: strict decoding error: ${warnings.join(', ')}`,
				{
					causes: warnings.map((message) => ({
						reason: 'FieldValueInvalid',
						field: message.split('"')[1] ?? '',
						message,
					})),
				},
			)
		}
	}
	return { object: withSchemaDefaults(pruned, schema), warnings }
}
