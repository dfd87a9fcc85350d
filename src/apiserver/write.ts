// POST, PUT and PATCH of objects: from a body to a kept object, through defaults, admission, checks and ownership.
// From reading the current state to staging the write nothing waits, so no one can come in between.

import { randomBytes, randomUUID } from 'node:crypto'
import type { UnknownObject } from '../kube/objects/meta.ts'
import { isObject, type Json, type JsonObject, sameJson } from '../kube/schema/json.ts'
import { entryAnswer, objectAnswer } from './answer.ts'
import { type Call, keyIn, shownObject } from './api.ts'
import { mediaTypeOf, parseBody, readBody } from './body.ts'
import {
	checkMetadataOnly,
	checkValues,
	type FieldValidation,
	readAs,
	readFieldValidation,
	readStatusAs,
	warningHeaders,
	withDefaults,
} from './checks.ts'

import { finishDeletion, isFinished } from './delete.ts'
import { updateManagedFields } from './patch/managed-fields.ts'
import { patch, patchTypes } from './patch/patch.ts'
import type { Served } from './registry.ts'
import { alreadyExists, badRequest, cause, conflict, invalid, methodNotAllowed, notFound, refuse } from './status.ts'
import type { Entry } from './store.ts'
import { needsRevision, prepareCreate, prepareStatusUpdate, prepareUpdate } from './strategy.ts'
import { warningsOf } from './validate/warnings.ts'
import type { Write } from './webhooks/admission.ts'

export interface WriteOptions {
	readonly dryRun: boolean
	readonly fieldManager: string
	readonly fieldValidation: FieldValidation
}

/** Reads dryRun, fieldManager and fieldValidation. Throws Refusal. */
export function readWriteOptions(call: Pick<Call, 'query' | 'request'>): WriteOptions {
	const { query, request } = call
	for (const value of query.getAll('dryRun')) checkDryRun(value)
	const fieldManager = query.get('fieldManager') ?? ''
	if (fieldManager.length > 128 || /[^\x20-\x7e]/.test(fieldManager)) {
		const why =
			fieldManager.length > 128
				? 'Too long: may not be more than 128 bytes'
				: 'should only contain printable characters'
		throw invalid({ group: 'meta.k8s.io', kind: 'PatchOptions' }, '', [
			{
				reason: 'FieldValueInvalid',
				message: `Invalid value: ${JSON.stringify(fieldManager)}: ${why}`,
				field: 'fieldManager',
			},
		])
	}
	return {
		dryRun: query.getAll('dryRun').includes('All'),
		// As the real server names a writer that does not: the first word of its User-Agent.
		fieldManager: fieldManager || (request.headers.get('user-agent') ?? 'unknown').split('/')[0]!.slice(0, 128),
		fieldValidation: readFieldValidation(query.get('fieldValidation')),
	}
}

export function checkDryRun(value: unknown): void {
	if (value === 'All' || value === '') return
	throw invalid({ group: 'meta.k8s.io', kind: 'CreateOptions' }, '', [cause.notSupported('dryRun', value, ['All'])])
}

/** The service that is kept: of two versions of one storage, the one in whose form objects are stored. */
export function keptForm(call: Pick<Call, 'api' | 'served'>): Served {
	const { served, api } = call
	if (served.kept !== undefined) return served.kept
	return served.toKept === undefined ? served : (api.registry.ofStorage(served.storage) ?? served)
}

export async function createObject(call: Call): Promise<Response> {
	const { served } = call
	const options = readWriteOptions(call)
	const bytes = await readBody(call.request)
	const expected = { apiVersion: served.apiVersion, kind: served.resource.kind }
	const body = await parseBody(bytes, mediaTypeOf(call.request), expected)
	const { object, warnings } = readAs(served, body.object, options.fieldValidation, body.text)
	return insert(call, object, options, warnings)
}

/** `object` is in the request's version, its type checked. */
async function insert(
	call: Call,
	given: UnknownObject,
	options: WriteOptions,
	warnings: readonly string[],
	/** managedFields are as apply left them. */
	applied = false,
): Promise<Response> {
	const { api, served } = call
	const kept = keptForm(call)
	served.rules?.admitCreate?.()
	if (served.resource.namespaced && call.namespace === '')
		throw badRequest('an empty namespace may not be set during creation')
	let object = withDefaults(served.toKept?.(given) ?? given)
	const metadata = firstMetadata(call, object.metadata)
	const { generateName } = metadata
	if ((metadata.name ?? '') === '' && typeof generateName === 'string' && generateName !== '') {
		for (let attempt = 0; attempt < 8; attempt++) {
			const name = generatedName(generateName)
			metadata.name = name
			if (api.store.current(served.storage, keyIn(call.namespace, name)) === undefined) break
		}
	}
	object = prepareCreate(kept, { ...object, metadata } as unknown as UnknownObject)
	const name = object.metadata.name ?? ''
	const key = keyIn(call.namespace, name)
	const context = { dryRun: options.dryRun, user: call.user }
	object = api.admission.create(kept, object, context)
	const said: string[] = []
	const changing = api.webhooks.mutate(webhookWrite(call, options, object, undefined))
	if (changing !== undefined) {
		const { object: wanted, warnings } = await changing
		said.push(...warnings)
		const changed = afterWebhooks(call, object, wanted)
		if (changed !== undefined) object = prepareCreate(kept, withDefaults(changed))
		// The namespace may have gone meanwhile.
		object = api.admission.create(kept, object, context)
	}
	const free = () => {
		if (name !== '' && api.store.current(served.storage, key) !== undefined) throw alreadyExists(served.resource, name)
	}
	free()
	object = api.admission.allocate(kept, object, undefined)
	checkValues(kept, object, undefined)
	if (!applied) object = withManagers(kept, undefined, object, options, undefined, api.now())
	const judged = api.webhooks.validate(webhookWrite(call, options, object, undefined))
	if (judged !== undefined) {
		said.push(...(await judged))
		// While we waited its name, its namespace or its addresses may have gone.
		free()
		api.admission.create(kept, object, context)
		object = api.admission.allocate(kept, object, undefined)
	}
	const headers = warningHeaders(withWarnings(kept, object, [...warnings, ...said]))
	if (options.dryRun) return objectAnswer(call, 201, served.fromKept?.(object) ?? object, headers)
	const stored = served.toStorage === undefined ? object : await served.toStorage(object)
	// Someone may have been faster while we waited.
	if (api.store.current(served.storage, key) !== undefined) throw alreadyExists(served.resource, name)
	const write = api.store.put(served.storage, key, stored, undefined)
	await write.kept
	return entryAnswer(call, 201, write.entry, headers)
}

/** What webhooks made of the object, in the form it is kept in; undefined: it is as it was. */
function afterWebhooks(
	call: Call,
	object: UnknownObject,
	wanted: UnknownObject | undefined,
): UnknownObject | undefined {
	if (wanted === undefined) return undefined
	const { object: read } = readAs(keptForm(call), wanted as unknown as JsonObject, 'Ignore')
	// Who and where it is stays the server's to say.
	const { name, namespace, uid, creationTimestamp, generation, resourceVersion, managedFields } = object.metadata
	const own = { name, namespace, uid, creationTimestamp, generation, resourceVersion, managedFields }
	const metadata: Record<string, unknown> = { ...read.metadata }
	for (const [field, value] of Object.entries(own)) {
		if (value === undefined) delete metadata[field]
		else metadata[field] = value
	}
	return { ...read, metadata } as unknown as UnknownObject
}

function webhookWrite(
	call: Call,
	options: WriteOptions,
	object: UnknownObject,
	before: UnknownObject | undefined,
): Write {
	const { served, subresource, namespace, user } = call
	const { dryRun, fieldManager, fieldValidation } = options
	const kind = before === undefined ? 'CreateOptions' : 'UpdateOptions'
	return {
		operation: before === undefined ? 'CREATE' : 'UPDATE',
		served,
		subresource,
		namespace,
		name: object.metadata.name ?? '',
		user,
		dryRun,
		options: {
			kind,
			apiVersion: 'meta.k8s.io/v1',
			...(dryRun ? { dryRun: ['All'] } : {}),
			fieldManager,
			fieldValidation,
		},
		object,
		before,
	}
}

function withWarnings(kept: Served, object: UnknownObject, warnings: readonly string[]): readonly string[] {
	const own = warningsOf(kept.storage, object as unknown as JsonObject)
	return own.length === 0 ? warnings : [...warnings, ...own]
}

function firstMetadata(call: Call, given: UnknownObject['metadata']): Record<string, unknown> {
	const metadata: Record<string, unknown> = { ...given }
	for (const field of [
		'resourceVersion',
		'deletionTimestamp',
		'deletionGracePeriodSeconds',
		'selfLink',
		'generation',
	]) {
		delete metadata[field]
	}
	if (given.resourceVersion !== undefined && given.resourceVersion !== '' && given.resourceVersion !== '0') {
		throw badRequest('resourceVersion should not be set on objects to be created')
	}
	if (call.served.resource.namespaced) {
		const namespace = given.namespace ?? ''
		if (namespace !== '' && namespace !== call.namespace) {
			throw badRequest('the namespace of the provided object does not match the namespace sent on the request')
		}
		metadata.namespace = call.namespace
	} else delete metadata.namespace
	metadata.uid = randomUUID()
	metadata.creationTimestamp = call.api.now()
	return metadata
}

/** Letters and digits that do not form words (apimachinery util/rand). */
const alphabet = 'bcdfghjklmnpqrstvwxz2456789'

export function generatedName(prefix: string): string {
	let name = prefix.slice(0, 58)
	for (const byte of randomBytes(5)) name += alphabet[byte % alphabet.length]
	return name
}

function withManagers(
	kept: Served,
	before: UnknownObject | undefined,
	after: UnknownObject,
	options: WriteOptions,
	subresource: string | undefined,
	now: string,
): UnknownObject {
	return updateManagedFields({
		...(before === undefined ? {} : { before: before as unknown as JsonObject }),
		after: after as unknown as JsonObject,
		...(kept.type === undefined ? {} : { schema: kept.type }),
		manager: options.fieldManager,
		apiVersion: kept.apiVersion,
		...(subresource === undefined ? {} : { subresource }),
		...resetFieldsOf(kept, subresource),
		now,
	}) as unknown as UnknownObject
}

function resetFieldsOf(served: Served, subresource: string | undefined): { readonly resetFields?: readonly string[] } {
	const resetFields = served.rules?.resetFields?.(subresource)
	return resetFields === undefined ? {} : { resetFields }
}

export async function updateObject(call: Call): Promise<Response> {
	const { served, name = '' } = call
	const options = readWriteOptions(call)
	const bytes = await readBody(call.request)
	const expected = { apiVersion: served.apiVersion, kind: served.resource.kind }
	const body = await parseBody(bytes, mediaTypeOf(call.request), expected)
	const { object, warnings } =
		call.subresource === 'status'
			? readStatusAs(served, body.object, options.fieldValidation)
			: readAs(served, body.object, options.fieldValidation, body.text)
	checkSameName(call, object)
	return again(call, () => {
		const before = call.api.store.current(served.storage, keyIn(call.namespace, name))
		if (before === undefined) throw notFound(served.resource, name)
		return replace(call, before, object, options, { warnings })
	})
}

/** The object was written by another while a webhook was asked. */
class Moved extends Error {}

const mostAttempts = 5

/** Tries a write that someone came in between of again. Throws Refusal Conflict where it is always so. */
export async function again(call: Call, attempt: () => Promise<Response>): Promise<Response> {
	for (let i = 0; i < mostAttempts; i++) {
		try {
			return await attempt()
		} catch (e) {
			if (!(e instanceof Moved)) throw e
		}
	}
	throw conflict(call.served.resource, call.name ?? '')
}

function checkSameName(call: Call, object: UnknownObject): void {
	const { name = '', namespace, served } = call
	const given = object.metadata.name ?? ''
	if (given !== name) {
		throw badRequest(
			given === ''
				? `the name of the object must be provided on update; it must be ${JSON.stringify(name)} as in the URL`
				: `the name of the object (${given}) does not match the name on the URL (${name})`,
		)
	}
	const givenNamespace = object.metadata.namespace ?? ''
	if (served.resource.namespaced && givenNamespace !== '' && givenNamespace !== namespace) {
		throw badRequest('the namespace of the provided object does not match the namespace sent on the request')
	}
}

/** Puts `next` (in the request's version) in the place of `before`, as an update of the object or of its status. */
export async function replace(
	call: Call,
	before: Entry,
	given: UnknownObject,
	options: WriteOptions,
	extra: {
		readonly warnings?: readonly string[]
		readonly applied?: boolean
		/** How the two are brought together, where it is neither an update of the object nor of its status. */
		readonly prepare?: (before: UnknownObject, next: UnknownObject) => UnknownObject
		/** The specification is as it was, or as it may be (a binding's). */
		readonly specStays?: boolean
		/** Webhooks are not asked: what they would be asked about is no object of this kind (a Scale, a Binding). */
		readonly unasked?: true
		/** The subresource that the change is noted under, where it is not the call's (scale). */
		readonly managedBy?: string
		/** How the result is answered (scale). */
		readonly answer?: (entry: Entry) => Promise<Response>
	} = {},
): Promise<Response> {
	const { api, served, name = '' } = call
	const kept = keptForm(call)
	const old = served.toStorage === undefined ? before.object : shownObject(served, before)
	checkPreconditions(call, before, given.metadata, name)
	// Most writes are of status: what they leave as it was is neither filled in nor checked again.
	const specStays = call.subresource === 'status' || extra.specStays === true
	const prepare = (inKeptForm: UnknownObject): UnknownObject => {
		const whole = specStays ? inKeptForm : withDefaults(inKeptForm)
		if (extra.prepare !== undefined) return extra.prepare(old, whole)
		return call.subresource === 'status' ? prepareStatusUpdate(kept, old, whole) : prepareUpdate(kept, old, whole)
	}
	let next = prepare(served.toKept?.(given) ?? given)
	const context = { dryRun: options.dryRun, user: call.user }
	next = api.admission.update(kept, next, old, context)
	const said: string[] = []
	const checkStill = () => {
		if (api.store.current(served.storage, before.key) !== before) throw new Moved()
	}
	if (extra.unasked !== true) {
		const changing = api.webhooks.mutate(webhookWrite(call, options, next, old))
		if (changing !== undefined) {
			const { object: wanted, warnings } = await changing
			checkStill()
			said.push(...warnings)
			const changed = afterWebhooks(call, next, wanted)
			if (changed !== undefined) next = api.admission.update(kept, prepare(changed), old, context)
		}
	}
	if (specStays) checkMetadataOnly(kept, next, old)
	else {
		next = api.admission.allocate(kept, next, old)
		// A subresource with a way of its own changes what an update of the object may not.
		checkValues(kept, next, extra.prepare === undefined ? old : undefined)
	}
	if (!extra.applied) next = withManagers(kept, old, next, options, extra.managedBy ?? call.subresource, api.now())
	const judged = extra.unasked === true ? undefined : api.webhooks.validate(webhookWrite(call, options, next, old))
	if (judged !== undefined) {
		said.push(...(await judged))
		checkStill()
		if (!specStays) next = api.admission.allocate(kept, next, old)
	}
	const warnings = [...(extra.warnings ?? []), ...said]
	const headers = warningHeaders(specStays ? warnings : withWarnings(kept, next, warnings))
	const answer = extra.answer ?? ((entry: Entry) => entryAnswer(call, 200, entry, headers))
	next = { ...next, metadata: { ...next.metadata, resourceVersion: String(before.revision) } }
	if (sameJson(old as unknown as Json, next as unknown as Json)) {
		// Nothing to write; but what we saw may have been written in this very turn.
		await api.store.settled()
		const now = api.store.get(served.storage, before.key)
		if (now === undefined) throw notFound(served.resource, name)
		return answer(now)
	}
	if (options.dryRun) return objectAnswer(call, 200, served.fromKept?.(next) ?? next, headers)
	if (served.toStorage !== undefined) {
		const stored = await served.toStorage(next)
		checkStill()
		next = stored
	}
	const write = isFinished(kept, next)
		? finishDeletion(api, before, next)
		: api.store.put(served.storage, before.key, next, before)
	await write.kept
	return answer(write.entry)
}

function checkPreconditions(call: Call, before: Entry, given: UnknownObject['metadata'], name: string): void {
	const { served } = call
	const uid = given.uid ?? ''
	const have = before.object.metadata.uid ?? ''
	if (uid !== '' && uid !== have) {
		throw conflict(
			served.resource,
			name,
			`Precondition failed: UID in precondition: ${uid}, UID in object meta: ${have}`,
		)
	}
	const revision = given.resourceVersion ?? ''
	if (revision !== '' && revision !== '0') {
		if (revision !== String(before.revision)) throw conflict(served.resource, name)
	} else if (needsRevision(served) && call.request.method === 'PUT') {
		throw invalid(served.resource, name, [
			cause.invalid('metadata.resourceVersion', 0, 'must be specified for an update'),
		])
	}
}

const knownPatches: ReadonlySet<string> = new Set(Object.values(patchTypes))

export async function patchObject(call: Call): Promise<Response> {
	const mediaType = mediaTypeOf(call.request)
	if (!knownPatches.has(mediaType)) {
		throw refuse(
			'UnsupportedMediaType',
			`the body of the request was in an unknown format - accepted media types include: ${[...knownPatches].join(', ')}`,
		)
	}
	if (
		call.subresource !== undefined &&
		call.subresource !== 'status' &&
		call.subresource !== 'ephemeralcontainers' &&
		call.subresource !== 'resize'
	) {
		throw methodNotAllowed()
	}
	const options = readWriteOptions(call)
	const apply = mediaType === patchTypes.applyYaml
	const force = call.query.get('force') === 'true' || call.query.get('force') === '1'
	if (apply && (call.query.get('fieldManager') ?? '') === '') {
		throw invalid({ group: 'meta.k8s.io', kind: 'PatchOptions' }, '', [
			cause.required('fieldManager', 'is required for apply patch'),
		])
	}
	if (!apply && call.query.get('force') !== null) {
		throw invalid({ group: 'meta.k8s.io', kind: 'PatchOptions' }, '', [
			cause.forbidden('force', 'may not be specified for non-apply patch'),
		])
	}
	const body = await readBody(call.request)
	return again(call, () => patchOnce(call, { mediaType, options, apply, force, body }))
}

async function patchOnce(
	call: Call,
	given: {
		readonly mediaType: string
		readonly options: WriteOptions
		readonly apply: boolean
		readonly force: boolean
		readonly body: Awaited<ReturnType<typeof readBody>>
	},
): Promise<Response> {
	const { api, served, namespace, name = '' } = call
	const { mediaType, options, apply, force, body } = given
	const before = api.store.current(served.storage, keyIn(namespace, name))
	if (before === undefined && (!apply || call.subresource !== undefined)) throw notFound(served.resource, name)
	const current = before === undefined ? undefined : (shownObject(served, before) as unknown as JsonObject)
	const patched = patch(mediaType, body, current, {
		...(served.type === undefined ? {} : { schema: served.type }),
		apiVersion: served.apiVersion,
		fieldManager: options.fieldManager,
		force,
		...(call.subresource === undefined ? {} : { subresource: call.subresource }),
		now: api.now(),
		custom: served.custom,
		...resetFieldsOf(served, call.subresource),
	})
	const { object, warnings } =
		call.subresource === 'status'
			? readStatusAs(served, patched.object, options.fieldValidation, current)
			: readAs(served, patched.object, options.fieldValidation)
	if (!isObject(object.metadata)) throw badRequest('metadata must be an object')
	if (before === undefined) {
		const given = object.metadata.name ?? ''
		if (given !== name)
			throw badRequest(`the name of the object (${given}) does not match the name on the URL (${name})`)
		return insert(call, object, options, warnings, true)
	}
	checkSameName(call, object)
	return replace(call, before, object, options, { warnings, applied: apply })
}
