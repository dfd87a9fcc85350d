// metadata.managedFields: who owns which field.
// Rules: k8s.io/apimachinery/pkg/util/managedfields and structured-merge-diff, as the documentation "Server-Side Apply".

import { canonical } from '../../kube/schema/canonical.ts'
import { isObject, type Json, type JsonObject, sameJson } from '../../kube/schema/json.ts'
import type { TypeSchema } from '../../kube/schema/schema.ts'
import {
	difference,
	emptySet,
	type FieldSet,
	FieldSetBuilder,
	fromFieldsV1,
	intersection,
	isEmptySet,
	toFieldsV1,
	union,
	without,
} from './field-set.ts'
import { compare, shapeOf } from './structure.ts'

/** One manager's claim. */
export interface Claim {
	readonly manager: string
	readonly operation: 'Apply' | 'Update'
	readonly apiVersion: string
	readonly subresource: string
	readonly time?: string
	readonly fields: FieldSet
}

/** By the identity of the manager. */
export type Claims = ReadonlyMap<string, Claim>

export interface ManagerOptions {
	readonly schema?: TypeSchema
	readonly manager: string
	readonly apiVersion: string
	readonly subresource?: string
	readonly now: string
	/**
	 * Fields this endpoint does not write, so nobody owns them by it (`status` of the main resource, `spec` of `status`).
	 * Default: just these two for built-in types; none for custom ones (pass `['status']` where the CRD has the
	 * subresource).
	 */
	readonly resetFields?: readonly string[]
}

const maxUpdateManagers = 10

/** Fields every object has, which nobody owns. */
const unowned = pathsSet([
	['apiVersion'],
	['kind'],
	['metadata'],
	...[
		'name',
		'namespace',
		'creationTimestamp',
		'selfLink',
		'uid',
		'clusterName',
		'generation',
		'managedFields',
		'resourceVersion',
	].map((name) => ['metadata', name]),
])

function pathsSet(paths: readonly string[][]): FieldSet {
	const set = new FieldSetBuilder()
	for (const path of paths) set.add(path.map((name) => `f:${name}`))
	return set.done()
}

/**
 * The object `after` with its `metadata.managedFields` as the server keeps it once `manager` created it (no `before`)
 * or updated it by POST, PUT or a patch other than apply.
 *
 * Call it after defaults and before storing, with the schema of the object itself, also for subresources.
 * `after.metadata.managedFields` as the client sent it is honoured as the real server does: absent means "as it was",
 * an empty list (or one empty entry) means "reset". If nothing but a time in managedFields would change, the entries of
 * `before` are kept.
 */
export function updateManagedFields(
	change: { readonly before?: JsonObject; readonly after: JsonObject } & ManagerOptions,
): JsonObject {
	const { before, after } = change
	const live = entriesOf(before)
	const sent = entriesOf(after)
	const isReset =
		!change.subresource && sent !== undefined && (sent.length === 0 || (sent.length === 1 && isBareObject(sent[0]!)))
	let claims = change.subresource ? undefined : isReset ? new Map<string, Claim>() : readClaims(sent)
	if (!isReset && (claims === undefined || claims.size === 0)) claims = readClaims(live)
	claims ??= new Map()
	const was = before && withManagedFields(before, undefined)
	const is = withManagedFields(after, undefined)
	// An object nobody is known to manage stays so until the first apply.
	if (claims.size === 0 && before !== undefined) return isReset ? is : withManagedFields(after, live)
	const next = claimUpdate(claims, was, is, change)
	const capped = mergeOldest(next)
	const result = withManagedFields(after, writeClaims(capped))
	if (before && sameButTimes(before, result)) return withManagedFields(after, live)
	return result
}

/** What `manager` owns after it changed `before` into `after`, and what the others lost by it. */
export function claimUpdate(
	claims: Claims,
	before: JsonObject | undefined,
	after: JsonObject,
	options: ManagerOptions,
): Claims {
	const ignored = ignoredFields(options)
	const shape = shapeOf(options.schema)
	const differences = compare(before ?? emptyOf(after, options.schema), after, shape)
	const changed = without(union(differences.modified, differences.added), ignored)
	const removed = without(differences.removed, ignored)
	const next = new Map<string, Claim>()
	for (const [id, claim] of claims) {
		const fields = difference(difference(claim.fields, changed), removed)
		if (!isEmptySet(fields)) next.set(id, { ...claim, fields })
	}
	const own = difference(changed, unowned)
	if (isEmptySet(own)) return next
	const claim: Omit<Claim, 'fields'> = {
		manager: options.manager || 'unknown',
		operation: 'Update',
		apiVersion: options.apiVersion,
		subresource: options.subresource ?? '',
		time: options.now,
	}
	const id = identity(claim)
	next.set(id, { ...claim, fields: union(own, next.get(id)?.fields ?? emptySet) })
	return next
}

/** What a built-in type is before anything is set: structs are there, so nobody is the first to set them. */
function emptyOf(object: JsonObject, schema: TypeSchema | undefined): JsonObject {
	const { apiVersion, kind } = object
	return schema?.wire ? canonical({ apiVersion, kind }, schema) : { apiVersion, kind }
}

export function ignoredFields(options: ManagerOptions): FieldSet {
	const names =
		options.resetFields ??
		(!options.schema?.wire || !options.schema.fields.has('status')
			? []
			: options.subresource === 'status'
				? ['spec']
				: options.subresource === undefined
					? ['status']
					: [])
	return pathsSet(names.map((name) => [name]))
}

/** What may be owned of these fields at all. */
export function ownable(fields: FieldSet, options: ManagerOptions): FieldSet {
	return difference(without(fields, ignoredFields(options)), unowned)
}

/** Past ten, the oldest Update entries are merged into one of the name "ancient-changes". */
function mergeOldest(claims: Claims): Claims {
	const updates = [...claims].filter(([, claim]) => claim.operation === 'Update')
	if (updates.length <= maxUpdateManagers) return claims
	updates.sort(([a, x], [b, y]) => (x.time ?? '').localeCompare(y.time ?? '') || (a < b ? -1 : 1))
	const next = new Map(claims)
	const first = new Map<string, string>()
	let count = updates.length
	for (const [id, claim] of updates) {
		if (count <= maxUpdateManagers) break
		const bucket: Omit<Claim, 'fields'> = {
			manager: 'ancient-changes',
			operation: 'Update',
			apiVersion: claim.apiVersion,
			subresource: '',
			...(claim.time === undefined ? {} : { time: claim.time }),
		}
		const bucketId = identity(bucket)
		const earlier = first.get(claim.apiVersion)
		if (earlier === undefined) {
			first.set(claim.apiVersion, id)
			continue
		}
		const base = next.get(bucketId) ?? next.get(earlier)!
		if (earlier !== bucketId) next.delete(earlier)
		next.delete(id)
		next.set(bucketId, { ...bucket, fields: union(base.fields, claim.fields) })
		count--
	}
	return next
}

/** Appliers are the same manager in every version. */
export function identity(claim: Pick<Claim, 'manager' | 'operation' | 'apiVersion' | 'subresource'>): string {
	const version = claim.operation === 'Apply' ? '' : claim.apiVersion
	return JSON.stringify([claim.manager, claim.operation, version, claim.subresource])
}

function entriesOf(object: JsonObject | undefined): readonly Json[] | undefined {
	const metadata = object?.metadata
	const entries = isObject(metadata) ? metadata.managedFields : undefined
	return Array.isArray(entries) ? (entries as readonly Json[]) : undefined
}

function isBareObject(value: Json): boolean {
	return isObject(value) && Object.keys(value).length === 0
}

/** The claims of an object; undefined if an entry cannot be read. */
export function claimsOf(object: JsonObject): Claims | undefined {
	return readClaims(entriesOf(object))
}

function readClaims(entries: readonly Json[] | undefined): Claims | undefined {
	const claims = new Map<string, Claim>()
	for (const entry of entries ?? []) {
		if (!isObject(entry)) return undefined
		const { manager = '', operation, apiVersion, subresource = '', time, fieldsType, fieldsV1 } = entry
		if (operation !== 'Apply' && operation !== 'Update') return undefined
		if (typeof apiVersion !== 'string' || apiVersion === '' || fieldsType !== 'FieldsV1') return undefined
		if (typeof manager !== 'string' || typeof subresource !== 'string') return undefined
		const fields = fromFieldsV1(fieldsV1 ?? {})
		if (!fields) return undefined
		const claim: Claim = {
			manager,
			operation,
			apiVersion,
			subresource,
			...(typeof time === 'string' ? { time } : {}),
			fields,
		}
		claims.set(identity(claim), claim)
	}
	return claims
}

/** The entries in the server's order: appliers first, then by time, manager, version, subresource. */
export function writeClaims(claims: Claims): Json[] | undefined {
	if (claims.size === 0) return undefined
	const order = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)
	return [...claims.values()]
		.sort(
			(a, b) =>
				order(a.operation, b.operation) ||
				order(a.time ?? '', b.time ?? '') ||
				order(a.manager, b.manager) ||
				order(a.apiVersion, b.apiVersion) ||
				order(a.subresource, b.subresource),
		)
		.map((claim) => ({
			...(claim.manager === '' ? {} : { manager: claim.manager }),
			operation: claim.operation,
			apiVersion: claim.apiVersion,
			...(claim.time === undefined ? {} : { time: claim.time }),
			fieldsType: 'FieldsV1',
			fieldsV1: toFieldsV1(claim.fields),
			...(claim.subresource === '' ? {} : { subresource: claim.subresource }),
		}))
}

export function withManagedFields(object: JsonObject, entries: readonly Json[] | undefined): JsonObject {
	const metadata = isObject(object.metadata) ? object.metadata : {}
	const { managedFields: _, ...rest } = metadata
	if (object.metadata === undefined && entries === undefined) return object
	return { ...object, metadata: entries === undefined ? rest : { ...rest, managedFields: entries } }
}

/** Equal but for the times in managedFields. */
export function sameButTimes(a: JsonObject, b: JsonObject): boolean {
	return sameJson(withoutTimes(a), withoutTimes(b))
}

function withoutTimes(object: JsonObject): JsonObject {
	const entries = entriesOf(object)?.map((entry) => {
		if (!isObject(entry)) return entry
		const { time: _, ...rest } = entry
		return rest
	})
	return withManagedFields(object, entries)
}

/** The part of each claim that `changed` touches. */
export function conflictsWith(claims: Claims, self: string, changed: FieldSet): [claim: Claim, fields: FieldSet][] {
	const conflicts: [Claim, FieldSet][] = []
	for (const id of [...claims.keys()].sort()) {
		if (id === self) continue
		const claim = claims.get(id)!
		const fields = intersection(claim.fields, changed)
		if (!isEmptySet(fields)) conflicts.push([claim, fields])
	}
	return conflicts
}
