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
	return new Response(
		typeof body === 'string' || body instanceof Uint8Array ? (body as BodyInit) : JSON.stringify(body),
		{
			status,
			headers: headers === undefined ? jsonHeaders : { ...jsonHeaders, ...headers },
		},
	)
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
	if (accept.as === 'object' && accept.media === 'json') {
		const head = `{"kind":${JSON.stringify(`${served.resource.kind}List`)},"apiVersion":${JSON.stringify(served.apiVersion)},"metadata":${JSON.stringify(facts)},"items":[`
		const parts: Uint8Array[] = [Buffer.from(head)]
		for (const [i, entry] of entries.entries()) {
			if (i > 0) parts.push(comma)
			parts.push(shownBytes(served, entry))
		}
		parts.push(tail)
		return json(200, Buffer.concat(parts))
	}
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

const comma = Buffer.from(',')
const tail = Buffer.from(']}')

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
