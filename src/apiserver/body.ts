// Request bodies: bounded, JSON, YAML or protobuf, to one JSON object.

import { messageOf } from '../base/failure.ts'
import { isObject, type JsonObject } from '../kube/schema/json.ts'
import { badRequest, refuse } from './status.ts'

/** The real server's bound. */
export const largestBody = 3 * 1024 * 1024

export function tooLarge() {
	return refuse('RequestEntityTooLarge', `Request entity too large: limit is ${largestBody} bytes`)
}

/** The bytes of the body. Throws Refusal 413. */
export async function readBody(request: Request): Promise<Uint8Array> {
	const length = request.headers.get('content-length')
	if (length !== null && Number(length) > largestBody) throw tooLarge()
	if (request.body === null) return new Uint8Array()
	const bytes = new Uint8Array(await request.arrayBuffer())
	if (bytes.length > largestBody) throw tooLarge()
	return bytes
}

export function mediaTypeOf(request: Request): string {
	const header = request.headers.get('content-type')
	if (header === null) return ''
	const end = header.indexOf(';')
	return (end < 0 ? header : header.slice(0, end)).trim().toLowerCase()
}

export interface Body {
	readonly object: JsonObject
	/** The JSON itself, where the body was JSON: duplicate fields show only there. */
	readonly text?: string
}

/**
 * One object from a body. `expected` names the type where a protobuf envelope does not.
 * Throws Refusal: 400 with the place of the mistake, 415.
 */
export async function parseBody(
	bytes: Uint8Array,
	mediaType: string,
	expected?: { readonly apiVersion: string; readonly kind: string },
): Promise<Body> {
	let value: unknown
	let text: string | undefined
	switch (mediaType) {
		// fetch() names a string body text/plain where no one says otherwise; curl -d says a form.
		case '':
		case 'text/plain':
		case 'application/json':
			text = readText(bytes)
			value = parseJson(text)
			break
		case 'application/yaml':
		case 'text/yaml':
			value = await parseYaml(bytes)
			break
		case 'application/vnd.kubernetes.protobuf': {
			const { decodeProtobuf } = await import('./protobuf/decode.ts')
			value = decodeProtobuf(bytes, expected)
			break
		}
		default:
			throw refuse(
				'UnsupportedMediaType',
				`the body of the request was in an unknown format (${mediaType}) - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf`,
			)
	}
	if (!isObject(value)) throw badRequest('the body of the request is not an object')
	return text === undefined ? { object: value } : { object: value, text }
}

function readText(bytes: Uint8Array): string {
	try {
		return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
	} catch {
		throw badRequest('the body of the request is not UTF-8')
	}
}

function parseJson(text: string): unknown {
	if (text.trim() === '') throw badRequest('the body of the request is empty')
	try {
		return JSON.parse(text)
	} catch (e) {
		throw badRequest(`the body of the request is not JSON: ${messageOf(e)}`)
	}
}

async function parseYaml(bytes: Uint8Array): Promise<unknown> {
	const { parseDocument } = await import('yaml')
	const document = parseDocument(new TextDecoder().decode(bytes), { schema: 'core', version: '1.2' })
	const mistake = document.errors[0]
	if (mistake !== undefined) throw badRequest(`the body of the request is not YAML: ${mistake.message}`)
	try {
		// The bound on aliases keeps a small text from becoming a huge object.
		return document.toJS({ maxAliasCount: 100 })
	} catch (e) {
		throw badRequest(`the body of the request is not YAML: ${messageOf(e)}`)
	}
}
