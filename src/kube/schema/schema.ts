// The types of the Kubernetes API as data: what drives protobuf, field validation, patches, managedFields and OpenAPI.
// The built-in types come from types.json (written by scripts/generate-schema.ts), resolved when first asked for;
// a CustomResourceDefinition's types are built at run time in the same shape.

import { readFileSync } from 'node:fs'

/** What may stand at one place of a JSON document. */
export type ValueSchema = ScalarSchema | ObjectSchema | MapSchema | ListSchema | AnySchema

export interface ObjectSchema {
	readonly type: 'object'
	/** Resolved when first asked, since types may contain themselves. */
	readonly object: TypeSchema
	/** The field (not the type) asks to be owned as a whole. */
	readonly atomic: boolean
}

export interface MapSchema {
	readonly type: 'map'
	readonly value: ValueSchema
	readonly atomic: boolean
}

export interface ListSchema {
	readonly type: 'list'
	readonly items: ValueSchema
	/** How server-side apply merges it. */
	readonly listType: 'atomic' | 'set' | 'map'
	readonly listMapKeys: readonly string[]
	/** In protobuf the list is a message of its own with one field. */
	readonly wrapped: boolean
}

/** Any JSON, kept as it is and owned as a whole. */
export interface AnySchema {
	readonly type: 'any'
	/** Which of the types with their own wire form; absent in CRDs. */
	readonly format?: 'raw' | 'fields' | 'json' | 'schemaOrBool' | 'schemaOrArray' | 'schemaOrStrings'
}

export interface ScalarSchema {
	readonly type: 'string' | 'boolean' | 'integer' | 'number'
	/**
	 * integer: int32, int64, uint32, uint64 (absent: any). number: double.
	 * string: byte (base64), time, microtime, duration, quantity (a number is accepted), intOrString (an int32 too).
	 */
	readonly format?: ScalarFormat
	/** The values allowed, where the type is an enumeration. */
	readonly enum?: readonly string[]
}

export type ScalarFormat =
	| 'int32'
	| 'int64'
	| 'uint32'
	| 'uint64'
	| 'double'
	| 'byte'
	| 'time'
	| 'microtime'
	| 'duration'
	| 'quantity'
	| 'intOrString'

export type PatchStrategy = 'merge' | 'replace' | 'retainKeys'

export interface FieldSchema {
	/** The name in JSON. */
	readonly name: string
	readonly value: ValueSchema
	readonly required: boolean
	/**
	 * When the server writes the field although it is empty. `pointer`: absent is not the same as empty.
	 * `omit`: `never` writes an absent list as null, a string as "", …; `empty` leaves out what is empty, but for a struct,
	 * which is written as {}; `zero` leaves that out too.
	 */
	readonly pointer: boolean
	readonly omit: 'never' | 'empty' | 'zero'
	readonly patchStrategy: readonly PatchStrategy[]
	readonly patchMergeKey?: string
	/** Set where the type itself says a default (list map keys such as `protocol: TCP`; CRD defaults). */
	readonly default?: unknown
}

/** One field of a protobuf message. */
export interface WireField {
	readonly number: number
	readonly pointer: boolean
	/** Absent: the fields of `value` (a struct) stand in the JSON object of the type itself. */
	readonly name?: string
	readonly value: ValueSchema
}

/** One object type. May be built at run time, for CRDs. */
export interface TypeSchema {
	/** As OpenAPI v3 names it: `io.k8s.api.core.v1.Pod`. */
	readonly name: string
	/** By JSON name, in the order of declaration; inlined structs are already flattened. */
	readonly fields: ReadonlyMap<string, FieldSchema>
	/** Server-side apply owns it as a whole. */
	readonly atomic: boolean
	/** Fields that are not listed are kept (x-kubernetes-preserve-unknown-fields), instead of dropped or refused. */
	readonly preserveUnknown: boolean
	/** The type has apiVersion and kind (they are not among `fields` of built-in types). */
	readonly topLevel: boolean
	/** By number; built-in types only. */
	readonly wire?: readonly WireField[]
}

interface Rest {
	strategy?: string
	mergeKey?: string
	list?: 'set' | 'map'
	keys?: string[]
	atomic?: 0 | 1
	default?: unknown
}
type Row = [json: string, number: number, type: string, flags?: string, rest?: Rest]
interface Table {
	/** Go package → prefix of the OpenAPI name. */
	packages: Record<string, string>
	groups: Record<string, { package: string; kinds: string[] }>
	atomic: string[]
	enums: Record<string, string[]>
	types: Record<string, Row[]>
}

let loaded: Table | undefined
/** Reads the table when it is first needed (4 ms, once): start-up pays nothing for it. */
function table(): Table {
	return (loaded ??= JSON.parse(readFileSync(new URL('./types.json', import.meta.url), 'utf8')) as Table)
}

const metaKinds: readonly string[] = [
	'WatchEvent',
	'ListOptions',
	'GetOptions',
	'DeleteOptions',
	'CreateOptions',
	'UpdateOptions',
	'PatchOptions',
]
const unversioned: readonly string[] = ['Status', 'APIVersions', 'APIGroup', 'APIGroupList', 'APIResourceList']

const resolved = new Map<string, TypeSchema>()

/** The built-in type of a kind, `typeOf('apps/v1', 'Deployment')`; lists (`PodList`) and options (`DeleteOptions`) too. */
export function typeOf(apiVersion: string, kind: string): TypeSchema | undefined {
	const group = Object.hasOwn(table().groups, apiVersion) ? table().groups[apiVersion] : undefined
	if (group?.kinds.includes(kind)) return typeById(`${group.package}.${kind}`)
	if (group && metaKinds.includes(kind)) return typeById(`meta.v1.${kind}`)
	if (apiVersion === 'v1' && unversioned.includes(kind)) return typeById(`meta.v1.${kind}`)
	if (apiVersion === 'meta.k8s.io/v1' && metaKinds.includes(kind)) return typeById(`meta.v1.${kind}`)
	return undefined
}

/** A built-in type by its OpenAPI name, `io.k8s.api.core.v1.PodSpec`. */
export function typeNamed(name: string): TypeSchema | undefined {
	for (const [id, prefix] of Object.entries(table().packages)) {
		const found = name.startsWith(`${prefix}.`) ? typeById(id + name.slice(prefix.length)) : undefined
		if (found) return found
	}
	return undefined
}

/** Kinds of a group and version (`apps/v1`, `v1`), in the order of their registration; undefined: not a built-in. */
export function kindsOf(apiVersion: string): readonly string[] | undefined {
	return Object.hasOwn(table().groups, apiVersion) ? table().groups[apiVersion]?.kinds : undefined
}

/** Every built-in group and version: `v1`, `apps/v1`, … */
export function groupVersions(): readonly string[] {
	return Object.keys(table().groups)
}

/** What every object's `metadata` is. */
export function objectMeta(): TypeSchema {
	return typeById('meta.v1.ObjectMeta')!
}

function typeById(id: string): TypeSchema | undefined {
	const known = resolved.get(id)
	if (known) return known
	const rows = Object.hasOwn(table().types, id) ? table().types[id] : undefined
	if (!rows) return undefined
	const cut = id.lastIndexOf('.')
	const pkg = id.slice(0, cut)
	const kind = id.slice(cut + 1)
	const type: TypeSchema = {
		name: `${table().packages[pkg]}${id.slice(cut)}`,
		fields: new Map(rows.flatMap((row) => fieldsOf(row).map((f) => [f.name, f] as const))),
		atomic: table().atomic.includes(id),
		preserveUnknown: false,
		topLevel:
			Object.values(table().groups).some((g) => g.package === pkg && g.kinds.includes(kind)) ||
			(pkg === 'meta.v1' && (metaKinds.includes(kind) || unversioned.includes(kind)) && kind !== 'WatchEvent'),
		wire: rows
			.filter((row) => row[1] !== 0)
			.map(
				(row): WireField => ({
					number: row[1],
					pointer: row[2].startsWith('*'),
					...(row[0] === '' ? {} : { name: row[0] }),
					value: valueSchema(row[2], row[4]),
				}),
			)
			.sort((a, b) => a.number - b.number),
	}
	resolved.set(id, type)
	return type
}

function fieldsOf(row: Row): readonly FieldSchema[] {
	const [name, , word, flags = '', rest] = row
	if (name === '') {
		const inner = [...typeById(word.replace('*', ''))!.fields.values()]
		// Fields of an inlined pointer are all absent when it is.
		return word.startsWith('*') ? inner.map((f) => ({ ...f, required: false })) : inner
	}
	return [
		{
			name,
			value: valueSchema(word, rest),
			required: flags.includes('r'),
			pointer: word.startsWith('*'),
			omit: flags.includes('z') ? 'zero' : flags.includes('e') ? 'empty' : 'never',
			patchStrategy: (rest?.strategy?.split(',') ?? []) as PatchStrategy[],
			...(rest?.mergeKey === undefined ? {} : { patchMergeKey: rest.mergeKey }),
			...(rest?.default === undefined ? {} : { default: rest.default }),
		},
	]
}

const words: Record<string, ValueSchema> = {
	string: { type: 'string' },
	bool: { type: 'boolean' },
	int32: { type: 'integer', format: 'int32' },
	int64: { type: 'integer', format: 'int64' },
	uint32: { type: 'integer', format: 'uint32' },
	uint64: { type: 'integer', format: 'uint64' },
	float64: { type: 'number', format: 'double' },
	bytes: { type: 'string', format: 'byte' },
	Time: { type: 'string', format: 'time' },
	MicroTime: { type: 'string', format: 'microtime' },
	Duration: { type: 'string', format: 'duration' },
	Quantity: { type: 'string', format: 'quantity' },
	IntOrString: { type: 'string', format: 'intOrString' },
	RawExtension: { type: 'any', format: 'raw' },
	FieldsV1: { type: 'any', format: 'fields' },
	JSON: { type: 'any', format: 'json' },
	SchemaOrBool: { type: 'any', format: 'schemaOrBool' },
	SchemaOrArray: { type: 'any', format: 'schemaOrArray' },
	SchemaOrStrings: { type: 'any', format: 'schemaOrStrings' },
}

function valueSchema(word: string, rest?: Rest): ValueSchema {
	if (word.startsWith('*')) return valueSchema(word.slice(1), rest)
	if (word.startsWith('()')) return { ...(valueSchema(word.slice(2), rest) as ListSchema), wrapped: true }
	if (word.startsWith('[]'))
		return {
			type: 'list',
			items: valueSchema(word.slice(2)),
			listType: rest?.list ?? 'atomic',
			listMapKeys: rest?.keys ?? [],
			wrapped: false,
		}
	if (word.startsWith('{}')) return { type: 'map', value: valueSchema(word.slice(2)), atomic: rest?.atomic === 1 }
	const scalar = words[word]
	if (scalar) return scalar
	const values = table().enums[word]
	if (values) return { type: 'string', enum: values }
	let object: TypeSchema | undefined
	return {
		type: 'object',
		get object(): TypeSchema {
			return (object ??= typeById(word)!)
		},
		atomic: rest?.atomic === 1,
	}
}
