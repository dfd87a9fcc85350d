// DELETE: preconditions, grace (pods), finalizers and propagation, namespaces, and the end of an object whose last
// finalizer went. Source: apiserver registry/generic/registry/store.go and registry/rest/delete.go, their rules.

import type { UnknownObject } from '../kube/objects/meta.ts'
import { isObject, type JsonObject } from '../kube/schema/json.ts'
import { entryAnswer, listAnswer, objectAnswer } from './answer.ts'
import { type Api, type Call, keyIn, shownObject } from './api.ts'
import { mediaTypeOf, parseBody, readBody } from './body.ts'
import { cleanupFinalizer, definitionsStorage } from './crd/definition.ts'
import { readSelection, selects } from './read.ts'
import type { Served } from './registry.ts'
import { badRequest, cause, conflict, invalid, notFound, type Refusal } from './status.ts'
import type { Entry } from './store.ts'
import { answersDeleted } from './strategy.ts'
import type { Write } from './webhooks/admission.ts'
import { checkDryRun, keptForm } from './write.ts'

export interface DeleteOptions {
	readonly gracePeriodSeconds?: number
	readonly propagationPolicy?: 'Orphan' | 'Background' | 'Foreground'
	readonly uid?: string
	readonly resourceVersion?: string
	readonly dryRun: boolean
}

/** Options come in the body or in the query. Throws Refusal 400, 422. */
export async function readDeleteOptions(call: Call): Promise<DeleteOptions> {
	const bytes = await readBody(call.request)
	let body: JsonObject = {}
	if (bytes.length > 0) {
		const expected = { apiVersion: 'v1', kind: 'DeleteOptions' }
		body = (await parseBody(bytes, mediaTypeOf(call.request), expected)).object
		const kind = body.kind ?? 'DeleteOptions'
		if (kind !== 'DeleteOptions') throw badRequest(`the body of a delete must be DeleteOptions, not ${String(kind)}`)
	}
	const { query } = call
	const wrong = (c: ReturnType<typeof cause.invalid>): Refusal =>
		invalid({ group: 'meta.k8s.io', kind: 'DeleteOptions' }, '', [c])
	const grace = body.gracePeriodSeconds ?? numberOf(query.get('gracePeriodSeconds'))
	if (grace !== undefined && grace !== null && (!Number.isSafeInteger(grace) || (grace as number) < 0)) {
		throw wrong(cause.invalid('gracePeriodSeconds', grace, 'must be a non-negative integer'))
	}
	const policies = ['Orphan', 'Background', 'Foreground'] as const
	let policy = (body.propagationPolicy ?? query.get('propagationPolicy') ?? undefined) as string | undefined
	const orphan = body.orphanDependents ?? query.get('orphanDependents') ?? undefined
	if (orphan !== undefined && policy !== undefined) {
		throw wrong(
			cause.invalid('propagationPolicy', policy, 'orphanDependents and deletionPropagation cannot be both set'),
		)
	}
	if (orphan !== undefined) policy = orphan === true || orphan === 'true' ? 'Orphan' : 'Background'
	if (policy !== undefined && !policies.includes(policy as 'Orphan')) {
		throw wrong(cause.notSupported('propagationPolicy', policy, [...policies]))
	}
	const dryRuns = [...(Array.isArray(body.dryRun) ? body.dryRun : []), ...query.getAll('dryRun')]
	for (const value of dryRuns) checkDryRun(value)
	const preconditions = isObject(body.preconditions) ? body.preconditions : {}
	return {
		...(typeof grace === 'number' ? { gracePeriodSeconds: grace } : {}),
		...(policy === undefined ? {} : { propagationPolicy: policy as 'Orphan' }),
		...(typeof preconditions.uid === 'string' ? { uid: preconditions.uid } : {}),
		...(typeof preconditions.resourceVersion === 'string' ? { resourceVersion: preconditions.resourceVersion } : {}),
		dryRun: dryRuns.includes('All'),
	}
}

function numberOf(value: string | null): number | undefined {
	return value === null || value === '' ? undefined : Number(value)
}

export async function deleteObject(call: Call): Promise<Response> {
	const { api, served, name = '' } = call
	const options = await readDeleteOptions(call)
	const before = api.store.current(served.storage, keyIn(call.namespace, name))
	if (before === undefined) throw notFound(served.resource, name)
	const asking = askAbout(call, before, options)
	if (asking !== undefined) await asking
	const still = asking === undefined ? before : api.store.current(served.storage, before.key)
	// Another was faster; what is there now was made after it.
	if (still === undefined || still.id !== before.id) throw notFound(served.resource, name)
	const done = remove(call, still, options)
	if (done.write === undefined) {
		if (!options.dryRun) await api.store.settled()
		return objectAnswer(call, 200, shownAs(served, done.object))
	}
	await done.write.kept
	if (done.gone && !answersDeleted(served)) {
		const { uid } = before.object.metadata
		const { group, plural } = served.resource
		return objectAnswer({ ...call, accept: { ...call.accept, as: 'object' } }, 200, {
			kind: 'Status',
			apiVersion: 'v1',
			metadata: {},
			status: 'Success',
			details: { name, ...(group === '' ? {} : { group }), kind: plural, uid },
		} as unknown as UnknownObject)
	}
	return entryAnswer(call, 200, done.write.entry)
}

/** What webhooks say about a deletion; undefined: none is to be asked. Throws Refusal where one denies. */
function askAbout(call: Call, before: Entry, options: DeleteOptions): Promise<unknown> | undefined {
	const { api, served, user } = call
	const { dryRun, gracePeriodSeconds, propagationPolicy } = options
	const object = served.toStorage === undefined ? before.object : shownObject(served, before)
	const write: Write = {
		operation: 'DELETE',
		served,
		subresource: undefined,
		namespace: before.object.metadata.namespace ?? '',
		name: before.object.metadata.name ?? '',
		user,
		dryRun,
		options: {
			kind: 'DeleteOptions',
			apiVersion: 'meta.k8s.io/v1',
			...(dryRun ? { dryRun: ['All'] } : {}),
			...(gracePeriodSeconds === undefined ? {} : { gracePeriodSeconds }),
			...(propagationPolicy === undefined ? {} : { propagationPolicy }),
		},
		object: undefined,
		before: object,
	}
	const first = api.webhooks.mutate(write)
	return first === undefined ? api.webhooks.validate(write) : first.then(() => api.webhooks.validate(write))
}

function shownAs(served: Served, object: UnknownObject): UnknownObject {
	return served.fromKept?.(object) ?? object
}

interface Removal {
	/** Absent: nothing is to be written (dry run, or it is being deleted already). */
	readonly write?: { readonly entry: Entry; readonly kept: Promise<void> }
	readonly object: UnknownObject
	readonly gone: boolean
}

/** Stages the deletion of one object: at once, or as far as grace and finalizers let it. */
export function remove(call: Call, before: Entry, options: DeleteOptions): Removal {
	const { api } = call
	const kept = keptForm(call)
	const old = before.object
	checkPreconditions(kept, before, options)
	api.admission.delete(kept, old, { dryRun: options.dryRun, user: call.user })
	const finalizers = finalizersFor(kept, old, options)
	const deleting = old.metadata.deletionTimestamp !== undefined
	const grace = graceOf(kept, old, options)
	if (kept.storage === 'namespaces') return removeNamespace(api, before, finalizers, options)
	let next: UnknownObject | undefined
	if (deleting) {
		const last = old.metadata.deletionGracePeriodSeconds ?? 0
		// A shorter grace is honoured, a longer one is not; without a new word all stays as it is.
		if (grace < last && options.gracePeriodSeconds !== undefined) {
			next = withDeletion(api, old, old.metadata.finalizers ?? [], grace, (grace - last) * 1000)
		} else if (grace > 0 || (old.metadata.finalizers ?? []).length > 0) return { object: old, gone: false }
		else next = old
	} else next = withDeletion(api, old, finalizers, grace, undefined)
	const gone = (next.metadata.finalizers ?? []).length === 0 && grace === 0
	if (options.dryRun) return { object: next, gone }
	if (gone) return { write: finishDeletion(api, before, deleting ? next : old), object: next, gone }
	return { write: api.store.put(before.storage, before.key, next, before), object: next, gone }
}

function checkPreconditions(kept: Served, before: Entry, options: DeleteOptions): void {
	const { name, uid = '' } = before.object.metadata
	if (options.uid !== undefined && options.uid !== uid) {
		throw conflict(
			kept.resource,
			name,
			`Precondition failed: UID in precondition: ${options.uid}, UID in object meta: ${uid}`,
		)
	}
	if (options.resourceVersion !== undefined && options.resourceVersion !== String(before.revision)) {
		throw conflict(
			kept.resource,
			name,
			`Precondition failed: ResourceVersion in precondition: ${options.resourceVersion}, ResourceVersion in object meta: ${before.revision}`,
		)
	}
}

/** How many seconds the object is given. Only pods are: their containers must stop first. */
function graceOf(kept: Served, object: UnknownObject, options: DeleteOptions): number {
	if (kept.storage !== 'pods') return 0
	const spec = isObject(object.spec) ? object.spec : {}
	const status = isObject(object.status) ? object.status : {}
	if (options.gracePeriodSeconds === undefined && object.metadata.deletionTimestamp !== undefined) {
		return object.metadata.deletionGracePeriodSeconds ?? 0
	}
	// No kubelet has it: there is no one to wait for.
	if ((spec.nodeName ?? '') === '') return 0
	if (status.phase === 'Failed' || status.phase === 'Succeeded') return 0
	const own = spec.terminationGracePeriodSeconds
	const grace = options.gracePeriodSeconds ?? (typeof own === 'number' ? own : 30)
	return grace < 0 ? 1 : grace
}

const foreground = 'foregroundDeletion'
const orphan = 'orphan'

/** The finalizers by which the garbage collector learns what becomes of dependents. */
function finalizersFor(kept: Served, object: UnknownObject, options: DeleteOptions): readonly string[] {
	const own = object.metadata.finalizers ?? []
	// A definition goes after its objects.
	const have = kept.storage === definitionsStorage && !own.includes(cleanupFinalizer) ? [...own, cleanupFinalizer] : own
	const want = options.propagationPolicy
	// Without a policy what is asked for already stays.
	if (want === undefined) return have
	const rest = have.filter((f) => f !== foreground && f !== orphan)
	if (want === 'Orphan') return [...rest, orphan]
	if (want === 'Foreground') return [...rest, foreground]
	return rest
}

function withDeletion(
	api: Api,
	object: UnknownObject,
	finalizers: readonly string[],
	grace: number,
	/** Milliseconds by which an earlier deletion is moved. */
	moved: number | undefined,
): UnknownObject {
	const { generation, deletionTimestamp } = object.metadata
	const due =
		moved === undefined || deletionTimestamp === undefined
			? api.clock.now() + grace * 1000
			: Date.parse(deletionTimestamp) + moved
	const metadata: Record<string, unknown> = { ...object.metadata }
	if (generation !== undefined && deletionTimestamp === undefined) metadata.generation = generation + 1
	metadata.deletionTimestamp = `${new Date(due).toISOString().slice(0, 19)}Z`
	metadata.deletionGracePeriodSeconds = grace
	if (finalizers.length > 0) metadata.finalizers = finalizers
	else delete metadata.finalizers
	return { ...object, metadata } as unknown as UnknownObject
}

function removeNamespace(api: Api, before: Entry, finalizers: readonly string[], options: DeleteOptions): Removal {
	const old = before.object
	if (old.metadata.deletionTimestamp !== undefined) {
		if (isFinishedNamespace(old)) {
			if (options.dryRun) return { object: old, gone: true }
			return { write: finishDeletion(api, before, old), object: old, gone: true }
		}
		const why = `The system is ensuring all content is removed from this namespace.  Upon completion, this namespace will automatically be purged by the system.`
		throw conflict({ group: '', plural: 'namespaces', kind: 'Namespace' }, old.metadata.name, why)
	}
	const status = isObject(old.status) ? old.status : {}
	const marked = withDeletion(api, old, finalizers, 0, undefined)
	const { deletionGracePeriodSeconds: _, ...metadata } = marked.metadata
	const next = { ...marked, metadata, status: { ...status, phase: 'Terminating' } } as unknown as UnknownObject
	const gone = isFinishedNamespace(next)
	if (options.dryRun) return { object: next, gone }
	if (gone) return { write: finishDeletion(api, before, next), object: next, gone }
	return { write: api.store.put(before.storage, before.key, next, before), object: next, gone }
}

function isFinishedNamespace(namespace: UnknownObject): boolean {
	const spec = isObject(namespace.spec) ? namespace.spec : {}
	const own = Array.isArray(spec.finalizers) ? spec.finalizers : []
	return own.length === 0 && (namespace.metadata.finalizers ?? []).length === 0
}

/** Whether an object that is being deleted has nothing left to wait for. */
export function isFinished(kept: Served, object: UnknownObject): boolean {
	const { deletionTimestamp, finalizers = [], deletionGracePeriodSeconds = 0 } = object.metadata
	if (deletionTimestamp === undefined || finalizers.length > 0 || deletionGracePeriodSeconds > 0) return false
	return kept.storage !== 'namespaces' || isFinishedNamespace(object)
}

/** Stages the end of an object; watchers see `last`. */
export function finishDeletion(
	api: Api,
	before: Entry,
	last: UnknownObject,
): { readonly entry: Entry; readonly kept: Promise<void> } {
	return api.store.remove(before, last)
}

/** DELETE of a collection: all that is selected; answers what was. */
export async function deleteCollection(call: Call): Promise<Response> {
	const { api, served } = call
	const options = await readDeleteOptions(call)
	const selection = readSelection(call)
	const found = [...api.store.list(served.storage, selection.prefix)].filter((entry) =>
		selects(selection, served, entry),
	)
	let kept: Promise<void>[] = []
	for (const entry of found) {
		const asking = askAbout(call, entry, options)
		if (asking !== undefined) await asking
		const now = api.store.current(served.storage, entry.key)
		if (now === undefined) continue
		const { write } = remove(call, now, options)
		if (write !== undefined) kept.push(write.kept)
		// So that others get their turn while a large collection goes.
		if (kept.length < 100) continue
		await Promise.all(kept)
		kept = []
	}
	await Promise.all(kept)
	return listAnswer(call, found, { resourceVersion: String(api.store.revision) })
}
