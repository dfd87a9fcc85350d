// What this server serves: the built-in rows of src/kube/resources.ts and those added at run time (CRDs), each with
// where its objects are kept, its type and its conversion between versions.

import type { StatusCause, UnknownObject } from '../kube/objects/meta.ts'
import { apiVersionOf, findResource, type Resource, resources } from '../kube/resources.ts'
import type { JsonObject } from '../kube/schema/json.ts'
import { type TypeSchema, typeOf } from '../kube/schema/schema.ts'
import { coreEventOf, eventsEventOf } from './event-versions.ts'
import { qualified } from './status.ts'
import type { KindTable } from './table/table.ts'
import type { FieldValidation } from './validate/fields.ts'

/** How a kind is read, checked and shown where it has a way of its own: custom kinds, and what defines them. */
export interface KindRules {
	/** From a body with apiVersion and kind to the object with its defaults. Throws Failure BadRequest. */
	readonly read?: (
		object: JsonObject,
		level: FieldValidation,
		text: string | undefined,
	) => { readonly object: JsonObject; readonly warnings: readonly string[] }
	/** What is wrong with the values; `before`: what the object takes the place of. */
	readonly check?: (object: JsonObject, before: JsonObject | undefined) => readonly StatusCause[]
	readonly table?: KindTable | undefined
	/** What field selectors may name besides name and namespace. */
	readonly selectable?: readonly string[]
	/** Where the scale subresource finds its numbers: `.spec.replicas`. */
	readonly scale?: {
		readonly specReplicasPath: string
		readonly statusReplicasPath: string
		readonly labelSelectorPath?: string
	}
	/** Top-level fields an endpoint does not write. */
	readonly resetFields?: (subresource: string | undefined) => readonly string[]
	/** Told to everyone who asks for it, whatever is asked. */
	readonly warnings?: readonly string[]
	/** Throws Refusal where no object may be made now. */
	readonly admitCreate?: () => void
}

/** One resource in one version. */
export interface Served {
	readonly resource: Resource
	/** `v1`, `apps/v1`. */
	readonly apiVersion: string
	/** The storage its objects are kept in; several versions share one. */
	readonly storage: string
	/** Absent: any fields. */
	readonly type: TypeSchema | undefined
	/** Not a built-in. */
	readonly custom: boolean
	/** To the form in which it is kept. Absent: this is the form. */
	readonly toKept?: (object: UnknownObject) => UnknownObject
	readonly fromKept?: (object: UnknownObject) => UnknownObject
	/** As toKept, where someone else must be asked; then it is checked in the version of the request. */
	readonly toStorage?: (object: UnknownObject) => Promise<UnknownObject>
	/** The form in which it is kept, where that is not the first resource of its storage. */
	readonly kept?: Served
	readonly rules?: KindRules
	/** The schema as clients are shown it; custom kinds alone. */
	readonly openApiSchema?: JsonObject
	/** To be awaited before a request is answered. */
	readonly prepare?: () => Promise<void>
}

export interface Registry {
	/** The resource at a path; undefined: not served. */
	find(group: string, version: string, plural: string): Served | undefined
	ofKind(apiVersion: string, kind: string): Served | undefined
	/** The first served resource kept in a storage. */
	ofStorage(storage: string): Served | undefined
	/** In the order of announcement. */
	all(): readonly Served[]
	add(served: Served): void
	remove(apiVersion: string, plural: string): void
	/** Grows with each add and remove. */
	readonly generation: number
}

export function createRegistry(): Registry {
	const rows = new Map<string, Served>()
	let generation = 0
	for (const resource of resources) {
		const served = builtIn(resource)
		rows.set(`${served.apiVersion} ${resource.plural}`, served)
	}
	return {
		find: (group, version, plural) => rows.get(`${apiVersionOf({ group, version })} ${plural}`),
		ofKind(apiVersion, kind) {
			const known = findResource({ apiVersion, kind })
			if (known !== undefined) return rows.get(`${apiVersion} ${known.plural}`)
			for (const row of rows.values()) if (row.apiVersion === apiVersion && row.resource.kind === kind) return row
			return undefined
		},
		ofStorage(storage) {
			for (const row of rows.values()) if (row.storage === storage && row.fromKept === undefined) return row
			return undefined
		},
		all: () => [...rows.values()],
		add(served) {
			rows.set(`${served.apiVersion} ${served.resource.plural}`, served)
			generation++
		},
		remove(apiVersion, plural) {
			if (rows.delete(`${apiVersion} ${plural}`)) generation++
		},
		get generation() {
			return generation
		},
	}
}

function builtIn(resource: Resource): Served {
	const apiVersion = apiVersionOf(resource)
	// Core Events and events.k8s.io Events are the same objects.
	const converted = apiVersion === 'events.k8s.io/v1'
	return {
		resource,
		apiVersion,
		storage: converted ? 'events' : qualified(resource),
		custom: false,
		// Read when first asked for: the table of types costs a few milliseconds.
		get type() {
			return typeOf(apiVersion, resource.kind)
		},
		...(converted ? { toKept: coreEventOf, fromKept: eventsEventOf } : {}),
		...(resource.group === 'admissionregistration.k8s.io' ? webhookRules() : {}),
	}
}

/** Their checks compile expressions, and the language is loaded when it is first needed. */
function webhookRules(): Pick<Served, 'prepare' | 'rules'> {
	let check: KindRules['check']
	return {
		async prepare() {
			if (check !== undefined) return
			const [{ checkConfiguration }, { compileCondition }] = await Promise.all([
				import('./webhooks/check.ts'),
				import('./webhooks/conditions.ts'),
			])
			check = (object) => checkConfiguration(object, compileCondition)
		},
		rules: { check: (object, before) => check?.(object, before) ?? [] },
	}
}
