// A schema of a CustomResourceDefinition in the form the server works with: what is where (the structure), and what the
// values must be. Made from the JSON of `openAPIV3Schema` once for each version of a definition.
// Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/

import { isObject, type Json, type JsonObject } from '../../kube/schema/json.ts'

/** One of `x-kubernetes-validations`. */
export interface Rule {
	readonly rule: string
	readonly message: string
	readonly messageExpression: string
	readonly reason: string | undefined
	readonly fieldPath: string
	readonly optionalOldSelf: boolean
}

/** What values must be, apart from where they are. */
export interface Values {
	readonly format: string
	readonly enum: readonly Json[] | undefined
	readonly pattern: string
	readonly minLength: number | undefined
	readonly maxLength: number | undefined
	readonly minimum: number | undefined
	readonly maximum: number | undefined
	readonly exclusiveMinimum: boolean
	readonly exclusiveMaximum: boolean
	readonly multipleOf: number | undefined
	readonly minItems: number | undefined
	readonly maxItems: number | undefined
	readonly minProperties: number | undefined
	readonly maxProperties: number | undefined
	readonly required: readonly string[]
	readonly allOf: readonly Schema[]
	readonly anyOf: readonly Schema[]
	readonly oneOf: readonly Schema[]
	readonly not: Schema | undefined
}

export interface Schema extends Values {
	/** '' where nothing is said. */
	readonly type: '' | 'object' | 'array' | 'string' | 'integer' | 'number' | 'boolean'
	readonly nullable: boolean
	/** undefined: there is none. */
	readonly default: Json | undefined
	readonly properties: ReadonlyMap<string, Schema> | undefined
	/** true: anything; undefined: nothing is said. */
	readonly additional: Schema | true | undefined
	readonly items: Schema | undefined
	readonly preserveUnknown: boolean
	readonly embedded: boolean
	readonly intOrString: boolean
	readonly listType: 'atomic' | 'set' | 'map'
	readonly listKeys: readonly string[]
	/** `x-kubernetes-map-type: atomic` */
	readonly atomicMap: boolean
	readonly rules: readonly Rule[]
	/** Whether this or anything below has a default, rules. What has none need not be walked. */
	readonly hasDefaults: boolean
	readonly hasRules: boolean
}

const text = (json: JsonObject, key: string): string => {
	const value = json[key]
	return typeof value === 'string' ? value : ''
}
const amount = (json: JsonObject, key: string): number | undefined => {
	const value = json[key]
	return typeof value === 'number' ? value : undefined
}
const list = (json: JsonObject, key: string): readonly Json[] => {
	const value = json[key]
	return Array.isArray(value) ? (value as readonly Json[]) : []
}
const texts = (json: JsonObject, key: string): readonly string[] =>
	list(json, key).filter((item): item is string => typeof item === 'string')

/** Reads a schema; what is not understood is left out (the definition was checked before). */
export function readSchema(json: JsonObject): Schema {
	const schemas = (key: string): readonly Schema[] => list(json, key).filter(isObject).map(readSchema)
	const items = isObject(json.items) ? readSchema(json.items) : undefined
	const properties = isObject(json.properties)
		? new Map(
				Object.entries(json.properties).flatMap(([name, value]) =>
					isObject(value) ? [[name, readSchema(value)] as const] : [],
				),
			)
		: undefined
	const additional = isObject(json.additionalProperties)
		? readSchema(json.additionalProperties)
		: json.additionalProperties === true
			? true
			: undefined
	const allOf = schemas('allOf')
	const below = [
		...(items ? [items] : []),
		...(properties?.values() ?? []),
		...(additional !== undefined && additional !== true ? [additional] : []),
	]
	const rules = list(json, 'x-kubernetes-validations').filter(isObject).map(readRule)
	const listType = text(json, 'x-kubernetes-list-type')
	return {
		type: text(json, 'type') as Schema['type'],
		format: text(json, 'format'),
		nullable: json.nullable === true,
		default: json.default ?? undefined,
		enum: Array.isArray(json.enum) ? list(json, 'enum') : undefined,
		pattern: text(json, 'pattern'),
		minLength: amount(json, 'minLength'),
		maxLength: amount(json, 'maxLength'),
		minimum: amount(json, 'minimum'),
		maximum: amount(json, 'maximum'),
		exclusiveMinimum: json.exclusiveMinimum === true,
		exclusiveMaximum: json.exclusiveMaximum === true,
		multipleOf: amount(json, 'multipleOf'),
		minItems: amount(json, 'minItems'),
		maxItems: amount(json, 'maxItems'),
		minProperties: amount(json, 'minProperties'),
		maxProperties: amount(json, 'maxProperties'),
		required: texts(json, 'required'),
		allOf,
		anyOf: schemas('anyOf'),
		oneOf: schemas('oneOf'),
		not: isObject(json.not) ? readSchema(json.not) : undefined,
		properties,
		additional,
		items,
		preserveUnknown: json['x-kubernetes-preserve-unknown-fields'] === true,
		embedded: json['x-kubernetes-embedded-resource'] === true,
		intOrString: json['x-kubernetes-int-or-string'] === true,
		listType: listType === 'set' || listType === 'map' ? listType : 'atomic',
		listKeys: texts(json, 'x-kubernetes-list-map-keys'),
		atomicMap: json['x-kubernetes-map-type'] === 'atomic',
		rules,
		hasDefaults: (json.default ?? undefined) !== undefined || below.some((s) => s.hasDefaults),
		hasRules: rules.length > 0 || below.some((s) => s.hasRules) || allOf.some((s) => s.hasRules),
	}
}

function readRule(json: JsonObject): Rule {
	return {
		rule: text(json, 'rule'),
		message: text(json, 'message'),
		messageExpression: text(json, 'messageExpression'),
		reason: typeof json.reason === 'string' && json.reason !== '' ? json.reason : undefined,
		fieldPath: text(json, 'fieldPath'),
		optionalOldSelf: json.optionalOldSelf === true,
	}
}

/** `spec.rules`; of the root: the name alone. */
export function childPath(path: string, name: string): string {
	return path === '' ? name : `${path}.${name}`
}

/** The schema of what is at a key of an object; undefined: unknown. */
export function schemaAt(schema: Schema, name: string): Schema | undefined {
	const own = schema.properties?.get(name)
	if (own !== undefined) return own
	return schema.additional === true ? undefined : schema.additional
}

/** The items of a list by what tells them apart in a list with keys. */
export function keyOfItem(item: Json, schema: Schema): string | undefined {
	if (!isObject(item)) return undefined
	const { items, listKeys } = schema
	return JSON.stringify(
		listKeys.map(
			(key) => (Object.hasOwn(item, key) ? item[key] : undefined) ?? items?.properties?.get(key)?.default ?? null,
		),
	)
}
