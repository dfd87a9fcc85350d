// Server-side apply: merge a manager's configuration, remove what it no longer names, refuse what others own.

import { Failure } from '../../base/failure.ts'
import { canonical } from '../../kube/schema/canonical.ts'
import { isObject, type Json, type JsonObject, sameJson } from '../../kube/schema/json.ts'
import { checkFields } from '../validate/fields.ts'
import { mostAnnotationBytes } from '../validate/metadata.ts'
import {
	difference,
	emptySet,
	type FieldSet,
	hasPath,
	intersection,
	isEmptySet,
	pathsOf,
	printPath,
	union,
	without,
} from './field-set.ts'
import {
	type Claim,
	type Claims,
	claimsOf,
	claimUpdate,
	conflictsWith,
	identity,
	ignoredFields,
	type ManagerOptions,
	ownable,
	sameButTimes,
	withManagedFields,
	writeClaims,
} from './managed-fields.ts'
import { compare, fieldsOf, mergeConfig, removeFields, type Shape, shapeOf, withParents } from './structure.ts'

export interface ApplyOptions extends ManagerOptions {
	readonly force: boolean
}

interface Applied {
	readonly object: JsonObject
	readonly claims: Claims
}

interface Conflict {
	readonly claim: Claim
	readonly path: readonly string[]
}

class Conflicts extends Error {
	readonly conflicts: readonly Conflict[]
	constructor(conflicts: readonly Conflict[]) {
		super('conflicts')
		this.conflicts = conflicts
	}
}

const lastAppliedAnnotation = 'kubectl.kubernetes.io/last-applied-configuration'

/**
 * The object after `config` was applied by `options.manager`, with its managedFields; `current` absent: to be created.
 * Fields the manager applied last time and does not name now go, unless another manager owns them.
 *
 * Failures: BadRequest (the configuration says managedFields, another version or a field the type has not),
 * Conflict (409, as the real server words it, `details.causes`), Invalid (no manager).
 */
export function applyConfig(current: JsonObject | undefined, config: JsonObject, options: ApplyOptions): JsonObject {
	checkConfig(current, config, options)
	const live = current
		? withManagedFields(current, undefined)
		: { apiVersion: config.apiVersion, kind: config.kind, metadata: nameOf(config) }
	let claims = (current && claimsOf(current)) ?? new Map<string, Claim>()
	if (current && claims.size === 0)
		claims = claimUpdate(claims, undefined, live, { ...options, manager: 'before-first-apply' })
	const { object, claims: owned } = applyUpgrading(live, config, claims, options)
	const synced = syncLastApplied(object, config, options)
	const shaped = options.schema ? canonical(synced, options.schema) : synced
	const result = withManagedFields(shaped, writeClaims(owned))
	return current && sameButTimes(current, result) ? current : result
}

function nameOf(config: JsonObject): JsonObject {
	const metadata = isObject(config.metadata) ? config.metadata : {}
	return {
		...(metadata.name === undefined ? {} : { name: metadata.name }),
		...(metadata.namespace === undefined ? {} : { namespace: metadata.namespace }),
	}
}

function checkConfig(current: JsonObject | undefined, config: JsonObject, options: ApplyOptions): void {
	if (options.manager === '') {
		const message = 'is required for apply patch'
		throw new Failure('Invalid', `PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: ${message}`, {
			causes: [{ reason: 'FieldValueRequired', message: `Required value: ${message}`, field: 'fieldManager' }],
		})
	}
	const { apiVersion, kind } = config
	if (apiVersion !== options.apiVersion || (current?.kind !== undefined && kind !== current.kind))
		throw new Failure(
			'BadRequest',
			`cannot apply: the body is a ${JSON.stringify(kind)} of ${JSON.stringify(apiVersion)}, the request is for ${
				current?.kind === undefined ? '' : `a ${JSON.stringify(current.kind)} of `
			}${JSON.stringify(options.apiVersion)}`,
		)
	if (isObject(config.metadata) && config.metadata.managedFields !== undefined)
		throw new Failure('BadRequest', 'metadata.managedFields must be nil')
	if (!options.schema) return
	const found = checkFields(config, options.schema)
	const faults = [
		...found.wrongTypes.map((fault) => `.${fault.path}: expected ${fault.wanted}, got ${fault.found}`),
		...found.unknown.map((path) => `.${path}: field not declared in schema`),
	]
	if (faults.length > 0)
		throw new Failure(
			'BadRequest',
			`failed to create typed patch object (${describe(config)}): ${
				faults.length === 1 ? faults[0] : `errors:\n  ${faults.join('\n  ')}`
			}`,
			{ causes: faults.map((message) => ({ reason: 'FieldValueInvalid', message })) },
		)
}

function describe(config: JsonObject): string {
	const metadata = isObject(config.metadata) ? config.metadata : {}
	return `${metadata.namespace ?? ''}/${metadata.name ?? ''}; ${config.apiVersion}, Kind=${config.kind}`
}

/** Applies; kubectl taking over from its own client-side apply is no conflict. */
function applyUpgrading(live: JsonObject, config: JsonObject, claims: Claims, options: ApplyOptions): Applied {
	try {
		return applyOnce(live, config, claims, options)
	} catch (e) {
		if (!(e instanceof Conflicts)) throw e
		const allowed = options.manager === 'kubectl' ? fieldsLastApplied(live, options) : emptySet
		const left = e.conflicts.filter((conflict) => !hasPath(allowed, conflict.path))
		if (left.length > 0) throw conflictFailure(left)
		return applyOnce(live, config, claims, { ...options, force: true })
	}
}

function applyOnce(live: JsonObject, config: JsonObject, claims: Claims, options: ApplyOptions): Applied {
	const shape = shapeOf(options.schema)
	const merged = mergeConfig(live, config, shape, (path) => {
		return new Failure(
			'BadRequest',
			`failed to create typed patch object (${describe(config)}): ${printPath(path.slice(0, -1))}: duplicate entries for key ${printPath(path.slice(-1))}`,
		)
	})
	const self: Omit<Claim, 'fields'> = {
		manager: options.manager,
		operation: 'Apply',
		apiVersion: options.apiVersion,
		subresource: options.subresource ?? '',
	}
	const id = identity(self)
	const last = claims.get(id)
	const ignored = ignoredFields(options)
	const given = without(fieldsOf(config, shape), ignored)
	const fields = ownable(given, options)
	const others = [...claims.values()].filter((claim) => claim !== last).map((claim) => claim.fields)
	const pruned = prune((merged ?? {}) as JsonObject, last?.fields ?? emptySet, [given, ...others].reduce(union), shape)
	// Types of Go tell a struct that lost all it had from one that is gone; canonical form drops the nulls.
	const object = options.schema?.wire ? pruned.withNulls : pruned.object

	const differences = compare(live, pruned.withNulls, shape)
	const changed = without(union(differences.modified, differences.added), ignored)
	const removed = without(differences.removed, ignored)
	if (!options.force) {
		const conflicts = conflictsWith(claims, id, changed).flatMap(([claim, both]) =>
			pathsOf(both).map((path) => ({ claim, path })),
		)
		if (conflicts.length > 0) throw new Conflicts(conflicts)
	}
	const next = new Map<string, Claim>()
	for (const [other, claim] of claims) {
		if (other === id) continue
		const left = difference(difference(claim.fields, changed), removed)
		if (!isEmptySet(left)) next.set(other, { ...claim, fields: left })
	}
	if (!isEmptySet(fields)) {
		const isSame = last !== undefined && sameJson(live, object) && isSameSet(last.fields, fields)
		const time = isSame ? last.time : options.now
		next.set(id, { ...self, ...(time === undefined ? {} : { time }), fields })
	}
	return { object, claims: next }
}

function isSameSet(a: FieldSet, b: FieldSet): boolean {
	return isEmptySet(difference(a, b)) && isEmptySet(difference(b, a))
}

/**
 * Removes what the manager applied last and nobody owns now. `withNulls` keeps a null where a map or list lost all it
 * had: who owned the map itself still does.
 */
function prune(
	merged: JsonObject,
	last: FieldSet,
	managed: FieldSet,
	shape: Shape,
): { readonly object: JsonObject; readonly withNulls: JsonObject } {
	if (isEmptySet(last)) return { object: merged, withNulls: merged }
	const lastParents = withParents(last, shape)
	const set = (value: Json): FieldSet => withParents(fieldsOf(value, shape), shape)
	const remove = (fields: FieldSet, emptied?: null): JsonObject =>
		(removeFields(merged, fields, shape, emptied) ?? {}) as JsonObject
	const mergedSet = set(merged)
	// All of it, then back what someone owns, then back what it never owned itself.
	const owned = union(set(remove(lastParents, null)), withParents(managed, shape))
	const kept = set(remove(difference(mergedSet, owned), null))
	const gone = intersection(difference(mergedSet, kept), lastParents)
	return { object: remove(gone), withNulls: remove(gone, null) }
}

function conflictFailure(conflicts: readonly Conflict[]): Failure {
	const causes = conflicts.map(({ claim, path }) => ({
		reason: 'FieldManagerConflict',
		message: `conflict with ${printManager(claim)}`,
		field: printPath(path),
	}))
	if (conflicts.length === 1)
		return new Failure('Conflict', `Apply failed with 1 conflict: ${causes[0]!.message}: ${causes[0]!.field}`, {
			causes,
		})
	const lines: string[] = []
	let manager: Claim | undefined
	for (const { claim, path } of conflicts) {
		if (claim !== manager) lines.push(`conflicts with ${printManager(claim)}:`)
		manager = claim
		lines.push(`- ${printPath(path)}`)
	}
	return new Failure('Conflict', `Apply failed with ${conflicts.length} conflicts: ${lines.join('\n')}`, { causes })
}

function printManager(claim: Claim): string {
	const subresource = claim.subresource === '' ? '' : ` with subresource ${JSON.stringify(claim.subresource)}`
	const version = claim.operation === 'Update' ? ` using ${claim.apiVersion}` : ''
	return `${JSON.stringify(claim.manager)}${subresource}${version}`
}

/** The fields kubectl's client-side apply set and nobody changed since, from its annotation. */
function fieldsLastApplied(live: JsonObject, options: ApplyOptions): FieldSet {
	const text = annotationOf(live)
	if (text === undefined) return emptySet
	let config: unknown
	try {
		config = JSON.parse(text)
	} catch {
		return emptySet
	}
	if (!isObject(config) || config.apiVersion !== options.apiVersion) return emptySet
	const shape = shapeOf(options.schema)
	const { modified, added, removed } = compare(config, live, shape)
	return difference(difference(difference(fieldsOf(config, shape), modified), added), removed)
}

function annotationOf(object: JsonObject): string | undefined {
	const metadata = isObject(object.metadata) ? object.metadata : {}
	const annotations = isObject(metadata.annotations) ? metadata.annotations : {}
	const text = annotations[lastAppliedAnnotation]
	return typeof text === 'string' && text !== '' ? text : undefined
}

/** Where kubectl's annotation is, it follows what kubectl applies. */
function syncLastApplied(object: JsonObject, config: JsonObject, options: ApplyOptions): JsonObject {
	if (options.manager !== 'kubectl' || annotationOf(object) === undefined) return object
	const { metadata: own = {}, ...rest } = config
	const { annotations = {}, ...metadata } = own as { annotations?: JsonObject }
	const { [lastAppliedAnnotation]: _, ...others } = annotations
	const stripped: JsonObject = {
		...rest,
		metadata: { ...metadata, ...(Object.keys(others).length > 0 ? { annotations: others } : {}) },
	}
	const live = object.metadata as { annotations: JsonObject }
	const next: JsonObject = { ...live.annotations, [lastAppliedAnnotation]: `${JSON.stringify(stripped)}\n` }
	if (annotationBytes(next) <= mostAnnotationBytes) return { ...object, metadata: { ...live, annotations: next } }
	// Too large to be kept: then there is none, and kubectl does without it.
	const { [lastAppliedAnnotation]: _gone, ...left } = live.annotations
	return { ...object, metadata: { ...live, annotations: left } }
}

function annotationBytes(annotations: JsonObject): number {
	return Object.entries(annotations).reduce(
		(sum, [key, value]) => sum + Buffer.byteLength(key) + Buffer.byteLength(String(value)),
		0,
	)
}
