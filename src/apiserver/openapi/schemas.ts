// Types as OpenAPI schemas, with the extensions Kubernetes clients read (x-kubernetes-*).
// Descriptions are short sentences made from names: the API's documentation is its own project's text.

import type { Json, JsonObject } from '../../kube/schema/json.ts'
import type { FieldSchema, ScalarFormat, TypeSchema, ValueSchema } from '../../kube/schema/schema.ts'

export type Dialect = 'v2' | 'v3'

/** Types with a form of their own: clients know them by these names. */
const named: Readonly<
	Partial<Record<ScalarFormat | 'raw' | 'fields' | 'json', readonly [name: string, schema: JsonObject]>>
> = {
	time: [
		'io.k8s.apimachinery.pkg.apis.meta.v1.Time',
		{ type: 'string', format: 'date-time', description: 'A time in RFC 3339, of whole seconds.' },
	],
	microtime: [
		'io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime',
		{ type: 'string', format: 'date-time', description: 'A time in RFC 3339, of whole microseconds.' },
	],
	duration: [
		'io.k8s.apimachinery.pkg.apis.meta.v1.Duration',
		{ type: 'string', description: 'A duration such as 1h30m.' },
	],
	quantity: ['io.k8s.apimachinery.pkg.api.resource.Quantity', { description: 'An amount such as 100m, 2 or 1Gi.' }],
	intOrString: [
		'io.k8s.apimachinery.pkg.util.intstr.IntOrString',
		{ format: 'int-or-string', description: 'A number or a name.' },
	],
	raw: ['io.k8s.apimachinery.pkg.runtime.RawExtension', { type: 'object', description: 'Any object.' }],
	fields: ['io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1', { type: 'object', description: 'A set of fields.' }],
	json: ['io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON', { description: 'Any JSON.' }],
}

/** Schemas by name, gathered while references to them are made. */
export class SchemaSet {
	readonly schemas: Record<string, JsonObject> = {}
	private readonly dialect: Dialect
	private readonly prefix: string

	constructor(dialect: Dialect) {
		this.dialect = dialect
		this.prefix = dialect === 'v3' ? '#/components/schemas/' : '#/definitions/'
	}

	/** A reference to a built-in type; the type and all it refers to join the set. */
	ref(type: TypeSchema): JsonObject {
		if (this.schemas[type.name] === undefined) {
			this.schemas[type.name] = {} // types may contain themselves
			this.schemas[type.name] = this.objectOf(type)
		}
		return { $ref: this.prefix + type.name }
	}

	/** Adds to a schema that is already there. */
	extend(name: string, more: JsonObject): void {
		this.schemas[name] = { ...this.schemas[name], ...more }
	}

	/** Puts a schema under a name. */
	set(name: string, schema: JsonObject): JsonObject {
		this.schemas[name] = schema
		return { $ref: this.prefix + name }
	}

	objectOf(type: TypeSchema): JsonObject {
		const properties: Record<string, JsonObject> = {}
		const required: string[] = []
		if (type.topLevel) {
			properties.apiVersion = { type: 'string', description: 'The version of the API: group/version.' }
			properties.kind = { type: 'string', description: 'The kind of the object.' }
		}
		for (const field of type.fields.values()) {
			properties[field.name] = this.propertyOf(field, type)
			if (field.required) required.push(field.name)
		}
		return {
			description: describeType(type),
			type: 'object',
			...(required.length > 0 ? { required } : {}),
			...(Object.keys(properties).length > 0 ? { properties } : {}),
			...(type.atomic ? { 'x-kubernetes-map-type': 'atomic' } : {}),
			...(type.preserveUnknown ? { 'x-kubernetes-preserve-unknown-fields': true } : {}),
		}
	}

	private propertyOf(field: FieldSchema, owner: TypeSchema): JsonObject {
		const schema = this.valueOf(field.value)
		const { value } = field
		const more: Record<string, Json> = { description: describeField(field, owner) }
		if (field.default !== undefined) more.default = field.default as Json
		if (field.patchStrategy.length > 0) more['x-kubernetes-patch-strategy'] = field.patchStrategy.join(',')
		if (field.patchMergeKey !== undefined) more['x-kubernetes-patch-merge-key'] = field.patchMergeKey
		if ((value.type === 'map' || value.type === 'object') && value.atomic) more['x-kubernetes-map-type'] = 'atomic'
		// What stands beside a reference counts only in version 2 if the reference is wrapped.
		const { $ref, ...rest } = schema
		if ($ref === undefined) return { ...rest, ...more }
		return this.dialect === 'v3' ? { ...more, allOf: [{ $ref }] } : { ...more, $ref }
	}

	private valueOf(value: ValueSchema): JsonObject {
		switch (value.type) {
			case 'object':
				// Types made at run time have no name others could refer to.
				return value.object.wire ? this.ref(value.object) : this.objectOf(value.object)
			case 'map':
				return { type: 'object', additionalProperties: this.valueOf(value.value) }
			case 'list':
				return {
					type: 'array',
					items: this.valueOf(value.items),
					'x-kubernetes-list-type': value.listType,
					...(value.listMapKeys.length > 0 ? { 'x-kubernetes-list-map-keys': value.listMapKeys } : {}),
				}
			case 'any':
				if (value.format === undefined) return { 'x-kubernetes-preserve-unknown-fields': true }
				return this.special(value.format === 'raw' || value.format === 'fields' ? value.format : 'json')
			case 'boolean':
				return { type: 'boolean' }
			case 'integer':
				return { type: 'integer', ...(value.format ? { format: value.format } : {}) }
			case 'number':
				return { type: 'number', ...(value.format ? { format: value.format } : {}) }
			case 'string': {
				if (value.format !== undefined && value.format !== 'byte') return this.special(value.format)
				return {
					type: 'string',
					...(value.format ? { format: value.format } : {}),
					...(value.enum ? { enum: value.enum } : {}),
				}
			}
		}
	}

	private special(format: ScalarFormat | 'raw' | 'fields' | 'json'): JsonObject {
		const entry = named[format]
		if (!entry) return { type: 'string' }
		const [name, schema] = entry
		if (this.schemas[name] === undefined) {
			const several =
				format === 'quantity'
					? { oneOf: [{ type: 'string' }, { type: 'number' }] }
					: format === 'intOrString'
						? { oneOf: [{ type: 'integer' }, { type: 'string' }] }
						: {}
			// Version 2 has no alternatives: these are strings there.
			const shape = this.dialect === 'v3' || Object.keys(several).length === 0 ? several : { type: 'string' }
			this.schemas[name] = { ...schema, ...shape }
		}
		return { $ref: this.prefix + name }
	}
}

/** `io.k8s.api.core.v1.PodSpec` → `core/v1`, `PodSpec`. */
function partsOf(name: string): { group: string; short: string } {
	const parts = name.split('.')
	return { short: parts.at(-1) ?? name, group: parts.slice(-3, -1).join('/') }
}

function describeType(type: TypeSchema): string {
	const { group, short } = partsOf(type.name)
	if (!type.wire) return `${short}.`
	return type.topLevel
		? `${short} is a kind of ${group}. Its documentation: https://kubernetes.io/docs/reference/kubernetes-api/`
		: `${short} is a part of the kinds of ${group}.`
}

/** `terminationGracePeriodSeconds` → `Termination grace period seconds`. */
export function wordsOf(name: string): string {
	const words = name
		.replace(/([a-z0-9])([A-Z])/g, '$1 $2')
		.replace(/([A-Z]+)([A-Z](?!s(?![a-z]))[a-z])/g, '$1 $2')
		.split(' ')
		.map((word) => (/^[A-Z0-9]{2,}s?$/.test(word) ? word : word.toLowerCase()))
		.join(' ')
	return words.charAt(0).toUpperCase() + words.slice(1)
}

function describeField(field: FieldSchema, owner: TypeSchema): string {
	const sentences = [`${wordsOf(field.name)} of the ${partsOf(owner.name).short}.`]
	const { value } = field
	if (value.type === 'list' && value.listType === 'map')
		sentences.push(`Items are told apart by ${value.listMapKeys.join(', ')}.`)
	if (value.type === 'list' && value.listType === 'set') sentences.push('A set: no value twice.')
	if (field.default !== undefined) sentences.push(`Default: ${JSON.stringify(field.default)}.`)
	return sentences.join(' ')
}
