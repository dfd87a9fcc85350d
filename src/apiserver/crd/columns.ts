// What `kubectl get` prints of custom objects: the columns their definition names.
// Source: apiextensions-apiserver, pkg/registry/customresource/tableconvertor, its rules.

import type { Json } from '../../kube/schema/json.ts'
import { ageOf, type Cell } from '../table/cells.ts'
import type { KindTable } from '../table/table.ts'
import type { PrinterColumn, Version } from './definition.ts'
import { parseJsonPath } from './json-path.ts'

const age: PrinterColumn = {
	name: 'Age',
	type: 'date',
	jsonPath: '.metadata.creationTimestamp',
	description: 'When the object was made.',
}

export function tableOfVersion(version: Version): KindTable {
	const given = version.additionalPrinterColumns ?? []
	const columns = (given.length > 0 ? given : [age]).map((column) => ({
		...column,
		find: parseJsonPath(column.jsonPath),
	}))
	return {
		columns: [
			{ name: 'Name', type: 'string', format: 'name', description: 'The name of the object.', priority: 0 },
			...columns.map(({ name, type, format = '', description, jsonPath, priority = 0 }) => ({
				name,
				type,
				format,
				description: description || `Custom resource definition column (in JSONPath format): ${jsonPath}`,
				priority,
			})),
		],
		cells: (object, now) => [
			object.metadata.name,
			...columns.map(({ type, find }) => cellOf(type, find(object as unknown as Json)[0], now)),
		],
	}
}

function cellOf(type: string, value: Json | undefined, now: number): Cell | null {
	if (value === undefined || value === null) return null
	switch (type) {
		case 'integer':
			return typeof value === 'number' ? Math.trunc(value) : null
		case 'number':
			return typeof value === 'number' ? value : null
		case 'boolean':
			return typeof value === 'boolean' ? value : null
		case 'date':
			if (typeof value !== 'string') return null
			return Number.isNaN(Date.parse(value)) ? '<invalid>' : ageOf(value, now)
		default:
			return typeof value === 'object' ? JSON.stringify(value) : String(value)
	}
}
