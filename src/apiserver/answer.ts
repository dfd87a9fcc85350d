// Answers: one object, a list, a Status; as JSON, YAML or protobuf, whole or as Table rows or metadata.

import type { UnknownObject } from '../kube/objects/meta.ts'
import type { JsonObject } from '../kube/schema/json.ts'
import { type Call, shownBytes, shownObject } from './api.ts'
import { metadataOnly } from './metadata-only.ts'
import type { Accepted } from './negotiate.ts'
import { refuse, statusOf } from './status.ts'
import type { Entry } from './store.ts'
import { tableOf } from './table/table.ts'

/** Exactly this, without charset: old clients compare it. */
export const jsonHeaders: Readonly<Record<string, string>> = {
	'content-type': 'application/json',
	'cache-control': 'no-cache, private',
}

export function json(status: number, body: unknown, headers?: Readonly<Record<string, string>>): Response {
	const ready = typeof body === 'string' || body instanceof Uint8Array || body instanceof ReadableStream
	return new Response(ready ? (body as BodyInit) : JSON.stringify(body), {
		status,
		headers: headers === undefined ? jsonHeaders : { ...jsonHeaders, ...headers },
	})
}

export function text(status: number, body: string): Response {
	return new Response(body, { status, headers: { 'content-type': 'text/plain; charset=utf-8' } })
}

/** The answer to anything thrown. */
export function failed(error: unknown): Response {
	const status = statusOf(error)
	const seconds = status.details?.retryAfterSeconds
	return json(status.code ?? 500, status, seconds === undefined ? undefined : { 'retry-after': String(seconds) })
}

/** One kept object. */
export async function entryAnswer(
	call: Call,
	status: number,
	entry: Entry,
	headers?: Readonly<Record<string, string>>,
): Promise<Response> {
	if (call.accept.as === 'object' && call.accept.media === 'json') {
		return json(status, shownBytes(call.served, entry), headers)
	}
	return objectAnswer(call, status, shownObject(call.served, entry), headers)
}

/** One object that is not kept in this form. */
export async function objectAnswer(
	call: Call,
	status: number,
	object: UnknownObject,
	headers?: Readonly<Record<string, string>>,
): Promise<Response> {
	switch (call.accept.as) {
		case 'object':
			return encoded(call.accept, status, object, headers)
		case 'Table': {
			if (object.kind === 'Status') return encoded(call.accept, status, object, headers)
			const { resourceVersion } = object.metadata
			return encoded(
				call.accept,
				status,
				tableOf(call.served, [object], { resourceVersion }, tableOptions(call)),
				headers,
			)
		}
		case 'PartialObjectMetadata':
			return encoded(call.accept, status, object.kind === 'Status' ? object : metadataOnly(object), headers)
		default:
			return call.accept.as satisfies never
	}
}

export function tableOptions(call: Call): { include: 'None' | 'Metadata' | 'Object'; now: number } {
	const include = call.query.get('includeObject') || 'Metadata'
	if (include !== 'None' && include !== 'Metadata' && include !== 'Object') {
		throw refuse('BadRequest', `includeObject must be None, Metadata or Object, not ${JSON.stringify(include)}`)
	}
	return { include, now: call.api.clock.now() }
}

export interface ListFacts {
	readonly resourceVersion: string
	readonly continue?: string
	readonly remainingItemCount?: number
}

export async function listAnswer(call: Call, entries: readonly Entry[], facts: ListFacts): Promise<Response> {
	const { served, accept } = call
	if (accept.media === 'json') return json(200, listBody(entries, listForm(call, facts)))
	const objects = entries.map((entry) => shownObject(served, entry))
	let body: object
	if (accept.as === 'Table') body = tableOf(served, objects, facts, tableOptions(call))
	else if (accept.as === 'PartialObjectMetadata') {
		body = {
			kind: 'PartialObjectMetadataList',
			apiVersion: 'meta.k8s.io/v1',
			metadata: facts,
			items: objects.map(metadataOnly),
		}
	} else body = { kind: `${served.resource.kind}List`, apiVersion: served.apiVersion, metadata: facts, items: objects }
	return encoded(accept, 200, body)
}

/** A list in JSON: what comes before the items, each item, and the end. */
interface ListForm {
	readonly head: string
	item(entry: Entry): Uint8Array
}

const tail = Buffer.from(']}')
const comma = Buffer.from(',')

function listForm(call: Call, facts: ListFacts): ListForm {
	const { served, accept } = call
	/** Of a document whose last field is an empty array: all before its end. */
	const opened = (document: object) => JSON.stringify(document).slice(0, -2)
	switch (accept.as) {
		case 'object':
			return {
				head: opened({
					kind: `${served.resource.kind}List`,
					apiVersion: served.apiVersion,
					metadata: facts,
					items: [],
				}),
				item: (entry) => shownBytes(served, entry),
			}
		case 'PartialObjectMetadata':
			return {
				head: opened({
					kind: 'PartialObjectMetadataList',
					apiVersion: 'meta.k8s.io/v1',
					metadata: facts,
					items: [],
				}),
				item: (entry) => Buffer.from(JSON.stringify(metadataOnly(shownObject(served, entry)))),
			}
		case 'Table': {
			const options = tableOptions(call)
			const bare = { ...options, bare: true }
			return {
				head: opened(tableOf(served, [], facts, options)),
				item(entry) {
					const { rows } = tableOf(served, [shownObject(served, entry)], facts, bare) as { rows: object[] }
					return Buffer.from(JSON.stringify(rows[0]))
				},
			}
		}
		default:
			return accept.as satisfies never
	}
}

/** Lists up to about this size are answered in one piece. */
const onePiece = 128 * 1024

/** The first piece where it is all, else a stream of pieces, each made when the client takes it: others get their turn. */
function listBody(entries: readonly Entry[], form: ListForm): Uint8Array | ReadableStream<Uint8Array> {
	let next = 0
	const piece = (start: readonly Uint8Array[]): Uint8Array => {
		const parts = [...start]
		let size = 0
		while (next < entries.length && size < onePiece) {
			if (next > 0) parts.push(comma)
			const bytes = form.item(entries[next++]!)
			parts.push(bytes)
			size += bytes.length
		}
		if (next === entries.length) parts.push(tail)
		return Buffer.concat(parts)
	}
	const first = piece([Buffer.from(form.head)])
	if (next === entries.length) return first
	return new ReadableStream<Uint8Array>(
		{
			start: (controller) => controller.enqueue(first),
			pull(controller) {
				controller.enqueue(piece([]))
				if (next === entries.length) controller.close()
			},
		},
		{ highWaterMark: 0 },
	)
}

async function encoded(
	accept: Accepted,
	status: number,
	body: object,
	headers?: Readonly<Record<string, string>>,
): Promise<Response> {
	switch (accept.media) {
		case 'json':
			return json(status, body, headers)
		case 'yaml': {
			const { stringify } = await import('yaml')
			return json(status, stringify(body), { ...headers, 'content-type': 'application/yaml' })
		}
		case 'protobuf': {
			const { encodeProtobuf } = await import('./protobuf/encode.ts')
			const bytes = encodeProtobuf(body as JsonObject)
			if (bytes === undefined) throw refuse('NotAcceptable', 'this object can only be answered as application/json')
			return json(status, bytes, { ...headers, 'content-type': 'application/vnd.kubernetes.protobuf' })
		}
		default:
			return accept.media satisfies never
	}
}
