// What an API server's refusal means: a Status body becomes a Failure whose code is the Kubernetes reason.

import { Failure, isFailure } from '../base/failure.ts'
import type { Status } from './objects/meta.ts'

/** Reasons by HTTP status, for answers that carry no Status (a proxy's, a load balancer's). */
const reasons: Readonly<Record<number, string>> = {
	400: 'BadRequest',
	401: 'Unauthorized',
	403: 'Forbidden',
	404: 'NotFound',
	405: 'MethodNotAllowed',
	406: 'NotAcceptable',
	409: 'Conflict',
	410: 'Gone',
	413: 'RequestEntityTooLarge',
	415: 'UnsupportedMediaType',
	422: 'Invalid',
	429: 'TooManyRequests',
	500: 'InternalError',
	503: 'ServiceUnavailable',
	504: 'Timeout',
}

/** `details`: `{ status, http }`. `action` opens the message: `Cannot get Pod "default/web"`. */
export function failureOfStatus(action: string, status: Status, http = status.code ?? 500): Failure {
	const code = status.reason || reasons[http] || 'Unknown'
	return new Failure(code, `${action}: ${status.message ?? code}`, { status, http })
}

/** The failure in an answer that is not 2xx; reads its body. */
export async function failureOfResponse(action: string, response: Response): Promise<Failure> {
	let text = ''
	try {
		text = await response.text()
		const body: unknown = JSON.parse(text)
		if (typeof body === 'object' && body !== null && 'kind' in body && body.kind === 'Status') {
			return failureOfStatus(action, body as Status, response.status)
		}
	} catch {
		// Not a Status: say what came instead.
	}
	const code = reasons[response.status] ?? 'Unknown'
	const said = text.trim().slice(0, 300)
	return new Failure(code, `${action}: HTTP ${response.status}${said === '' ? '' : `, ${said}`}`, {
		http: response.status,
	})
}

export const isNotFound = (e: unknown) => isFailure(e, 'NotFound')
/** The object was changed by someone else since it was read. */
export const isConflict = (e: unknown) => isFailure(e, 'Conflict')
export const isAlreadyExists = (e: unknown) => isFailure(e, 'AlreadyExists')
export const isInvalid = (e: unknown) => isFailure(e, 'Invalid')
export const isForbidden = (e: unknown) => isFailure(e, 'Forbidden')
export const isUnauthorized = (e: unknown) => isFailure(e, 'Unauthorized')
/** The resource version asked for is no longer kept: list again. */
export const isExpired = (e: unknown) => isFailure(e, 'Expired') || isFailure(e, 'Gone')
export const isTooManyRequests = (e: unknown) => isFailure(e, 'TooManyRequests')
/** The server could not be reached at all. */
export const isUnreachable = (e: unknown) => isFailure(e, 'Unreachable')
