// OpenAPI documents: version 3 by group and version, version 2 for all of it. Made from the tables of types and of
// resources, so that they say what this server does.

import type { Resource } from '../../kube/resources.ts'
import type { JsonObject } from '../../kube/schema/json.ts'
import { objectMeta, type TypeSchema, typeOf } from '../../kube/schema/schema.ts'
import { pathsOf, sharedParameters } from './paths.ts'
import { type Dialect, SchemaSet } from './schemas.ts'

/** A served resource as the documents need it (the registry's `Served` is one). */
export interface Documented {
	readonly resource: Resource
	/** `v1`, `apps/v1`. */
	readonly apiVersion: string
	/** Absent: any fields. */
	readonly type: TypeSchema | undefined
	/** Of a CRD: the schema of its version as it was given; wins over `type`. */
	readonly openApiSchema?: JsonObject
}

/** The document of one group and version (`apps/v1`). */
export function documentV3(apiVersion: string, served: readonly Documented[], serverVersion: string): JsonObject {
	const { paths, set } = documentOf(
		served.filter((row) => row.apiVersion === apiVersion),
		'v3',
	)
	return {
		openapi: '3.0.0',
		info: { title: 'Kubernetes', version: serverVersion },
		paths,
		components: { schemas: sorted(set.schemas), parameters: sharedParameters() },
	}
}

/** The document of everything. */
export function documentV2(served: readonly Documented[], serverVersion: string): JsonObject {
	const { paths, set } = documentOf(served, 'v2')
	return {
		swagger: '2.0',
		info: { title: 'Kubernetes', version: serverVersion },
		paths,
		definitions: sorted(set.schemas),
	}
}

function sorted(schemas: Record<string, JsonObject>): JsonObject {
	return Object.fromEntries(Object.entries(schemas).sort(([a], [b]) => (a < b ? -1 : 1)))
}

function documentOf(served: readonly Documented[], dialect: Dialect): { paths: JsonObject; set: SchemaSet } {
	const set = new SchemaSet(dialect)
	const paths: Record<string, JsonObject> = {}
	const status = set.ref(typeOf('v1', 'Status')!)
	set.extend(typeOf('v1', 'Status')!.name, kindOf({ group: '', version: 'v1', kind: 'Status' }))
	const optionsType = typeOf('v1', 'DeleteOptions')!
	const options = set.ref(optionsType)
	for (const row of served) {
		const { resource } = row
		const object = refOf(row, set)
		const list = listOf(row, object, set)
		Object.assign(paths, pathsOf(row, { object, list, status, options }, dialect))
		for (const sub of resource.subresources) {
			const body =
				sub.body &&
				typeOf(sub.body.group === '' ? sub.body.version : `${sub.body.group}/${sub.body.version}`, sub.body.kind)
			if (!sub.body || !body?.topLevel) continue
			set.ref(body)
			set.extend(body.name, kindOf(sub.body))
		}
	}
	const kinds = [...new Set(served.map((row) => `${row.resource.group} ${row.resource.version}`))].map((text) => {
		const [group = '', version = ''] = text.split(' ')
		return { group, kind: 'DeleteOptions', version }
	})
	set.extend(optionsType.name, { 'x-kubernetes-group-version-kind': kinds })
	return { paths, set }
}

function kindOf({ group, version, kind }: { group: string; version: string; kind: string }): JsonObject {
	return { 'x-kubernetes-group-version-kind': [{ group, kind, version }] }
}

/** The name of a custom type: the group backwards, as for built-in ones. */
function customName({ group, version, kind }: Resource): string {
	return `${group.split('.').reverse().join('.')}.${version}.${kind}`
}

function refOf(row: Documented, set: SchemaSet): JsonObject {
	const { resource, type } = row
	if (type?.wire && !row.openApiSchema) {
		const ref = set.ref(type)
		set.extend(type.name, kindOf(resource))
		return ref
	}
	const name = customName(resource)
	if (set.schemas[name] !== undefined) return set.set(name, set.schemas[name])
	const metadata = set.ref(objectMeta())
	const given = row.openApiSchema ?? (type ? set.objectOf(type) : { 'x-kubernetes-preserve-unknown-fields': true })
	const properties = (given.properties ?? {}) as JsonObject
	return set.set(name, {
		...given,
		type: 'object',
		properties: {
			...properties,
			apiVersion: { type: 'string', description: 'The version of the API: group/version.' },
			kind: { type: 'string', description: 'The kind of the object.' },
			metadata: { description: 'Metadata of the object.', ...metadata },
		},
		...kindOf(resource),
	})
}

function listOf(row: Documented, object: JsonObject, set: SchemaSet): JsonObject {
	const { resource } = row
	if (!resource.verbs.includes('list')) return object
	const kind = `${resource.kind}List`
	const known = row.type?.wire ? typeOf(row.apiVersion, kind) : undefined
	const gvk = kindOf({ ...resource, kind })
	if (known) {
		const ref = set.ref(known)
		set.extend(known.name, gvk)
		return ref
	}
	const listMeta = typeOf('v1', 'PodList')!.fields.get('metadata')!.value
	return set.set(`${customName(resource)}List`, {
		description: `A list of ${resource.plural}.`,
		type: 'object',
		required: ['items'],
		properties: {
			apiVersion: { type: 'string' },
			kind: { type: 'string' },
			metadata: listMeta.type === 'object' ? set.ref(listMeta.object) : {},
			items: { type: 'array', items: object },
		},
		...gvk,
	})
}
