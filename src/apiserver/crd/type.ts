// The schema of a definition as a type of src/kube/schema, for patches, server-side apply and managedFields.

import { type FieldSchema, objectMeta, type TypeSchema, type ValueSchema } from '../../kube/schema/schema.ts'
import type { Schema } from './schema.ts'

/** The type of a whole object. */
export function typeOfSchema(schema: Schema, name: string): TypeSchema {
	return objectType(schema, name, true)
}

function objectType(schema: Schema, name: string, isResource: boolean): TypeSchema {
	const fields = new Map<string, FieldSchema>()
	for (const [key, below] of schema.properties ?? []) {
		if (isResource && (key === 'metadata' || key === 'kind' || key === 'apiVersion')) continue
		fields.set(key, fieldOf(key, valueSchema(below, `${name}.${key}`), schema.required.includes(key), below.default))
	}
	if (isResource) fields.set('metadata', fieldOf('metadata', { type: 'object', object: objectMeta(), atomic: false }))
	return {
		name,
		fields,
		atomic: schema.atomicMap,
		preserveUnknown: schema.preserveUnknown || schema.additional === true,
		topLevel: isResource,
	}
}

function fieldOf(name: string, value: ValueSchema, required = false, preset?: unknown): FieldSchema {
	return {
		name,
		value,
		required,
		pointer: true,
		omit: 'empty',
		patchStrategy: [],
		...(preset === undefined ? {} : { default: preset }),
	}
}

function valueSchema(schema: Schema, name: string): ValueSchema {
	if (schema.intOrString) return { type: 'any' }
	switch (schema.type) {
		case 'string':
			return { type: 'string' }
		case 'boolean':
			return { type: 'boolean' }
		case 'integer':
			return { type: 'integer' }
		case 'number':
			return { type: 'number' }
		case 'array': {
			const items: ValueSchema = schema.items ? valueSchema(schema.items, `${name}.items`) : { type: 'any' }
			return { type: 'list', items, listType: schema.listType, listMapKeys: schema.listKeys, wrapped: false }
		}
		default: {
			const { additional, properties } = schema
			if (properties === undefined && additional !== undefined && additional !== true)
				return { type: 'map', value: valueSchema(additional, `${name}.values`), atomic: schema.atomicMap }
			if (schema.type === '' && !schema.preserveUnknown) return { type: 'any' }
			let made: TypeSchema | undefined
			return {
				type: 'object',
				// Read when first asked for: schemas are large.
				get object(): TypeSchema {
					return (made ??= objectType(schema, name, schema.embedded))
				},
				atomic: schema.atomicMap,
			}
		}
	}
}
