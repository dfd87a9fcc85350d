// Answers /openapi/v2 and /openapi/v3: documents are made when they are first asked for and kept until what is served
// changes.

import { createHash } from 'node:crypto'
import type { Json, JsonObject } from '../../kube/schema/json.ts'
import { type Documented, documentV2, documentV3 } from './documents.ts'
import { encodeSwagger } from './swagger-protobuf.ts'

export interface OpenApiSource {
	/** What is served now. */
	all(): readonly Documented[]
	/** Grows with every change of it. */
	readonly generation: number
}

interface Answer {
	readonly body: Uint8Array
	readonly type: string
	readonly etag: string
}

/** Grows with changes of how documents are made: clients keep them by their hash. */
const revision = 2

const swaggerProtobuf = [
	'application/com.github.proto-openapi.spec.v2@v1.0+protobuf',
	'application/com.github.proto-openapi.spec.v2.v1.0+protobuf',
	'application/com.github.googleapis.gnostic.OpenAPIv2@68f4ded+protobuf',
]

/** What the answer is called: '@' may not stand in a media type. */
const protobufAnswer = 'application/com.github.proto-openapi.spec.v2.v1.0+protobuf'

/** The answers to GET under /openapi; undefined: there is no such document (404), or not in an accepted form (406). */
export function createOpenApi(source: OpenApiSource, serverVersion: string): (request: Request) => Response {
	let generation = -1
	const kept = new Map<string, Answer>()
	let hashes = new Map<string, string>()

	const refresh = (): void => {
		if (generation === source.generation) return
		generation = source.generation
		kept.clear()
		hashes = hashesOf(source.all(), serverVersion, generation)
	}
	const keep = (key: string, make: () => Answer): Answer => {
		const known = kept.get(key)
		if (known) return known
		const made = make()
		kept.set(key, made)
		return made
	}
	const json = (value: Json): Answer => answer(Buffer.from(JSON.stringify(value)), 'application/json')

	return (request) => {
		refresh()
		const url = new URL(request.url)
		const parts = url.pathname.split('/').filter((part) => part !== '')
		const accept = request.headers.get('accept') ?? '*/*'
		const acceptsJson = /application\/json|\*\/\*|application\/\*/.test(accept)
		if (parts[1] === 'v2' && parts.length === 2) {
			const protobuf = swaggerProtobuf.some((type) => accept.includes(type))
			if (protobuf)
				return respond(
					request,
					keep('v2 protobuf', () => answer(encodeSwagger(documentV2(source.all(), serverVersion)), protobufAnswer)),
				)
			if (!acceptsJson) return new Response(null, { status: 406 })
			return respond(
				request,
				keep('v2', () => json(documentV2(source.all(), serverVersion))),
			)
		}
		if (parts[1] !== 'v3') return notFound()
		if (!acceptsJson) return new Response(null, { status: 406 })
		if (parts.length === 2)
			return respond(
				request,
				keep('v3', () => json(index(hashes))),
			)
		const path = parts.slice(2).join('/')
		const hash = hashes.get(path)
		if (hash === undefined) return notFound()
		const apiVersion = path.slice(path.indexOf('/') + 1)
		const response = respond(
			request,
			keep(path, () => json(documentV3(apiVersion, source.all(), serverVersion))),
		)
		// Asked for by its hash, a document never changes.
		if (url.searchParams.get('hash') === hash) response.headers.set('cache-control', 'public, immutable')
		return response
	}
}

/** `api/v1`, `apis/apps/v1` → what stands for the content of its document. */
function hashesOf(served: readonly Documented[], serverVersion: string, generation: number): Map<string, string> {
	const hashes = new Map<string, string>()
	const groups = new Map<string, unknown[]>()
	for (const { resource, apiVersion, openApiSchema, type } of served) {
		const path = resource.group === '' ? `api/${apiVersion}` : `apis/${apiVersion}`
		const rows = groups.get(path) ?? []
		// A type made at run time has no text to take a hash of: its generation stands for it.
		rows.push([resource, openApiSchema ?? (type && !type.wire ? generation : null)])
		groups.set(path, rows)
	}
	for (const [path, rows] of [...groups].sort(([a], [b]) => (a < b ? -1 : 1))) {
		const hash = createHash('sha256').update(JSON.stringify([revision, serverVersion, rows]))
		hashes.set(path, hash.digest('hex').toUpperCase())
	}
	return hashes
}

function index(hashes: ReadonlyMap<string, string>): JsonObject {
	return {
		paths: Object.fromEntries(
			[...hashes].map(([path, hash]) => [path, { serverRelativeURL: `/openapi/v3/${path}?hash=${hash}` }]),
		),
	}
}

function answer(body: Uint8Array, type: string): Answer {
	return { body, type, etag: `"${createHash('sha256').update(body).digest('hex').slice(0, 32).toUpperCase()}"` }
}

function respond(request: Request, { body, type, etag }: Answer): Response {
	const headers = { 'content-type': type, etag, vary: 'Accept' }
	if (request.headers.get('if-none-match') === etag) return new Response(null, { status: 304, headers })
	return new Response(request.method === 'HEAD' ? null : Buffer.from(body), { status: 200, headers })
}

function notFound(): Response {
	return new Response('404 page not found\n', { status: 404, headers: { 'content-type': 'text/plain' } })
}
