// GET of one object and of lists: selectors, pages, resource versions.

import type { UnknownObject } from '../kube/objects/meta.ts'
import {
	type FieldSelector,
	matches,
	matchesFields,
	parseFieldSelector,
	parseSelector,
	type Selector,
	supportedFields,
} from '../kube/selector.ts'
import { entryAnswer, listAnswer } from './answer.ts'
import { type Call, keyIn, shownObject } from './api.ts'
import type { Range } from './collection.ts'
import type { Served } from './registry.ts'
import { badRequest, cause, invalid, notFound, refuse } from './status.ts'
import type { Entry } from './store.ts'

/** Which objects of a resource a list or watch is about. */
export interface Selection {
	/** `namespace/`, or '' for all. */
	readonly prefix: string
	readonly labels: Selector
	readonly fields: FieldSelector
	/** The only name that can match, where the field selector says one. */
	readonly name: string | undefined
}

/** Throws Refusal 400 for selectors that cannot be read and fields that are not offered. */
export function readSelection(call: Call): Selection {
	const labels = parseSelector(call.query.get('labelSelector') ?? '')
	const fields = [...parseFieldSelector(call.query.get('fieldSelector') ?? '')]
	const supported = call.served.custom ? undefined : supportedFields(call.served.resource.kind)
	for (const { field } of fields) {
		const known =
			supported?.includes(field) ??
			(field === 'metadata.name' || field === 'metadata.namespace' || call.served.rules?.selectable?.includes(field))
		if (!known) throw badRequest(`field label not supported: ${field}`)
	}
	if (call.name !== undefined) fields.push({ field: 'metadata.name', equal: true, value: call.name })
	const name = fields.find((f) => f.field === 'metadata.name' && f.equal)?.value
	return { prefix: call.namespace === '' ? '' : `${call.namespace}/`, labels, fields, name }
}

export function isSelective(selection: Selection): boolean {
	return selection.labels.length > 0 || selection.fields.length > 0
}

export function selects(selection: Selection, served: Served, entry: Entry): boolean {
	if (!entry.key.startsWith(selection.prefix)) return false
	if (!isSelective(selection)) return true
	if (selection.name !== undefined && nameOfKey(entry.key) !== selection.name) return false
	const object: UnknownObject = shownObject(served, entry)
	return matches(selection.labels, object.metadata.labels) && matchesFields(selection.fields, object)
}

function nameOfKey(key: string): string {
	return key.slice(key.indexOf('/') + 1)
}

export async function getObject(call: Call): Promise<Response> {
	const { api, served, namespace, name = '' } = call
	checkNotNewer(call, readRevision(call.query.get('resourceVersion')))
	const entry = api.store.get(served.storage, keyIn(namespace, name))
	if (entry === undefined) throw notFound(served.resource, name)
	return entryAnswer(call, 200, entry)
}

/** A resourceVersion parameter: undefined where it is absent or empty. Throws Refusal 400. */
export function readRevision(value: string | null, name = 'resourceVersion'): number | undefined {
	if (value === null || value === '') return undefined
	const revision = /^\d{1,16}$/.test(value) ? Number(value) : Number.NaN
	if (!Number.isSafeInteger(revision)) {
		throw refuse(
			'BadRequest',
			`${name}: Invalid value: ${JSON.stringify(value)}: strconv.ParseUint: parsing: invalid syntax`,
		)
	}
	return revision
}

/** A version from the future never comes: this server alone counts. */
export function checkNotNewer(call: Call, revision: number | undefined): void {
	const have = call.api.store.revision
	if (revision === undefined || revision <= have) return
	throw refuse('Timeout', `Too large resource version: ${revision}, current: ${have}`, {
		retryAfterSeconds: 1,
		causes: [{ reason: 'ResourceVersionTooLarge', message: 'Too large resource version' }],
	})
}

interface Continue {
	readonly v: 'podwire/v1'
	/** The revision of the first page. */
	readonly rv: number
	/** The last key answered. */
	readonly key: string
}

export async function listObjects(call: Call): Promise<Response> {
	const { api, query, served } = call
	const selection = readSelection(call)
	const limit = readCount(query.get('limit'), 'limit') ?? 0
	const revision = readRevision(query.get('resourceVersion'))
	const match = query.get('resourceVersionMatch') ?? ''
	const token = query.get('continue') ?? ''
	const listOptions = { group: 'meta.k8s.io', kind: 'ListOptions' }
	if (match !== '' && token !== '') {
		throw invalid(listOptions, '', [
			cause.forbidden('resourceVersionMatch', 'resourceVersionMatch is forbidden when continue is provided'),
		])
	}
	if (match !== '' && query.get('resourceVersion') === null) {
		throw invalid(listOptions, '', [
			cause.forbidden('resourceVersionMatch', 'resourceVersionMatch is forbidden unless resourceVersion is provided'),
		])
	}
	if (match !== '' && match !== 'Exact' && match !== 'NotOlderThan') {
		throw invalid(listOptions, '', [cause.notSupported('resourceVersionMatch', match, ['Exact', 'NotOlderThan'])])
	}
	if (match === 'Exact' && (revision ?? 0) === 0) {
		throw invalid(listOptions, '', [
			cause.forbidden('resourceVersionMatch', 'resourceVersionMatch "Exact" is forbidden for resourceVersion "0"'),
		])
	}
	let at = api.store.revision
	let from = ''
	if (token !== '') {
		if (revision !== undefined && revision !== 0) {
			throw badRequest('specifying resource version is not allowed when using continue')
		}
		const next = readContinue(token)
		if (!next.key.startsWith(selection.prefix)) throw badRequest('continue key is not valid: it is of another list')
		at = next.rv
		from = next.key
	} else {
		checkNotNewer(call, revision)
		// With a page size, a version that is not "any" is exact, as the real server understands it.
		if (match === 'Exact' || (match === '' && limit > 0 && (revision ?? 0) > 0)) at = revision ?? at
	}
	const { store } = api
	const range =
		at === store.revision
			? store.range(served.storage, selection.prefix, from)
			: at < store.revision
				? store.rangeAt(served.storage, at, selection.prefix, from)
				: undefined
	if (range === undefined) {
		throw refuse(
			'Expired',
			token === ''
				? `The resourceVersion for the provided list is too old.`
				: 'The provided continue parameter is too old to display a consistent list result. You must start a new list without the continue parameter.',
		)
	}
	const { found, remaining } = await choose(range, selection, served, limit)
	const last = found.at(-1)
	return listAnswer(call, found, {
		resourceVersion: String(at),
		...(remaining > 0 && last !== undefined
			? {
					continue: writeContinue({ v: 'podwire/v1', rv: at, key: last.key }),
					...(isSelective(selection) ? {} : { remainingItemCount: remaining }),
				}
			: {}),
	})
}

/** Looking into so many objects takes a few milliseconds at most. */
const atOnce = 64

/**
 * The first `limit` (0: all) that are selected, and whether there are more: exactly how many without selectors; with them
 * the real server does not count either. Others get their turn while a long list is searched.
 */
async function choose(
	{ entries, start, end }: Range,
	selection: Selection,
	served: Served,
	limit: number,
): Promise<{ readonly found: readonly Entry[]; readonly remaining: number }> {
	if (!isSelective(selection)) {
		const until = limit === 0 ? end : Math.min(end, start + limit)
		return { found: entries.slice(start, until), remaining: end - until }
	}
	const found: Entry[] = []
	for (let i = start; i < end; i++) {
		if ((i - start) % atOnce === atOnce - 1) await new Promise((resolve) => setImmediate(resolve))
		const entry = entries[i]!
		if (!selects(selection, served, entry)) continue
		if (limit > 0 && found.length === limit) return { found, remaining: 1 }
		found.push(entry)
	}
	return { found, remaining: 0 }
}

/** A non-negative number parameter. Throws Refusal 400. */
export function readCount(value: string | null, name: string): number | undefined {
	if (value === null || value === '') return undefined
	if (!/^\d{1,10}$/.test(value)) throw badRequest(`${name}: Invalid value: ${JSON.stringify(value)}: must be a number`)
	return Number(value)
}

function writeContinue(next: Continue): string {
	return Buffer.from(JSON.stringify(next)).toString('base64url')
}

function readContinue(token: string): Continue {
	try {
		const next = JSON.parse(Buffer.from(token, 'base64url').toString()) as Partial<Continue>
		if (next.v === 'podwire/v1' && Number.isSafeInteger(next.rv) && typeof next.key === 'string')
			return next as Continue
	} catch {
		// Answered below.
	}
	throw badRequest('continue key is not valid')
}
