// Refusals as the Kubernetes API writes them: a Status with reason, details and causes.
// Wording follows what kubectl and client-go users know (apimachinery api/errors).

import { Failure, isFailure, messageOf } from '../base/failure.ts'
import type { Status, StatusCause, StatusDetails } from '../kube/objects/meta.ts'

/** What the server refuses with. `status` is the body of the answer, its `code` the HTTP status. */
export class Refusal extends Failure {
	readonly status: Status
	constructor(status: Status, options?: ErrorOptions) {
		super(status.reason ?? 'Unknown', status.message ?? '', { status, http: status.code }, options)
		this.name = 'Refusal'
		this.status = status
	}
}

/** A resource as messages name it: `pods`, `deployments.apps`. */
export interface Named {
	readonly group: string
	readonly plural: string
	readonly kind: string
}

const codes: Readonly<Record<string, number>> = {
	BadRequest: 400,
	Unauthorized: 401,
	Forbidden: 403,
	NotFound: 404,
	MethodNotAllowed: 405,
	NotAcceptable: 406,
	AlreadyExists: 409,
	Conflict: 409,
	Gone: 410,
	Expired: 410,
	RequestEntityTooLarge: 413,
	UnsupportedMediaType: 415,
	Invalid: 422,
	TooManyRequests: 429,
	InternalError: 500,
	NotImplemented: 501,
	ServiceUnavailable: 503,
	Unavailable: 503,
	Timeout: 504,
	InsufficientStorage: 507,
}

/** A Status of failure; the HTTP status follows from the reason. */
export function refuse(reason: string, message: string, details?: StatusDetails, code?: number): Refusal {
	return new Refusal({
		kind: 'Status',
		apiVersion: 'v1',
		metadata: {},
		status: 'Failure',
		message,
		reason,
		...(details === undefined ? {} : { details }),
		code: code ?? codes[reason] ?? 500,
	})
}

/** `deployments.apps`; `pods`. */
export function qualified(resource: { readonly group: string; readonly plural: string }): string {
	return resource.group === '' ? resource.plural : `${resource.plural}.${resource.group}`
}

function detailsOf(resource: Named, name: string, more: StatusDetails = {}): StatusDetails {
	const details: { -readonly [K in keyof StatusDetails]: StatusDetails[K] } = {}
	if (name !== '') details.name = name
	if (resource.group !== '') details.group = resource.group
	return { ...details, kind: resource.plural, ...more }
}

export function notFound(resource: Named, name: string): Refusal {
	return refuse('NotFound', `${qualified(resource)} "${name}" not found`, detailsOf(resource, name))
}

export function alreadyExists(resource: Named, name: string): Refusal {
	return refuse('AlreadyExists', `${qualified(resource)} "${name}" already exists`, detailsOf(resource, name))
}

/** Someone wrote in between, or a precondition does not hold. */
export function conflict(
	resource: Named,
	name: string,
	why = 'the object has been modified; please apply your changes to the latest version and try again',
): Refusal {
	return refuse(
		'Conflict',
		`Operation cannot be fulfilled on ${qualified(resource)} "${name}": ${why}`,
		detailsOf(resource, name),
	)
}

export function forbidden(resource: Named, name: string, why: string, causes?: readonly StatusCause[]): Refusal {
	return refuse(
		'Forbidden',
		`${qualified(resource)} "${name}" is forbidden: ${why}`,
		detailsOf(resource, name, causes === undefined ? {} : { causes }),
	)
}

export function badRequest(message: string): Refusal {
	return refuse('BadRequest', message)
}

/** The path names nothing that is served. */
export function noSuchResource(): Refusal {
	return refuse('NotFound', 'the server could not find the requested resource', {})
}

export function methodNotAllowed(): Refusal {
	return refuse('MethodNotAllowed', 'the server does not allow this method on the requested resource', {})
}

/** Field errors of one object: `Service "web" is invalid: spec.ports: Required value`. */
export function invalid(
	resource: { readonly group: string; readonly kind: string },
	name: string,
	causes: readonly StatusCause[],
): Refusal {
	const texts = causes.map((cause) => (cause.field ? `${cause.field}: ${cause.message}` : (cause.message ?? '')))
	const why = texts.length === 1 ? texts[0] : `[${texts.join(', ')}]`
	return refuse('Invalid', `${resource.kind} "${name}" is invalid: ${why}`, {
		name,
		...(resource.group === '' ? {} : { group: resource.group }),
		kind: resource.kind,
		causes,
	})
}

/** One field error in the words of Kubernetes' field package. */
export const cause = {
	invalid: (field: string, value: unknown, why: string): StatusCause => ({
		reason: 'FieldValueInvalid',
		message: `Invalid value: ${shown(value)}: ${why}`,
		field,
	}),
	required: (field: string, why = ''): StatusCause => ({
		reason: 'FieldValueRequired',
		message: `Required value${why === '' ? '' : `: ${why}`}`,
		field,
	}),
	forbidden: (field: string, why: string): StatusCause => ({
		reason: 'FieldValueForbidden',
		message: `Forbidden: ${why}`,
		field,
	}),
	duplicate: (field: string, value: unknown): StatusCause => ({
		reason: 'FieldValueDuplicate',
		message: `Duplicate value: ${shown(value)}`,
		field,
	}),
	notSupported: (field: string, value: unknown, supported: readonly string[]): StatusCause => ({
		reason: 'FieldValueNotSupported',
		message: `Unsupported value: ${shown(value)}: supported values: ${supported.map((s) => JSON.stringify(s)).join(', ')}`,
		field,
	}),
}

function shown(value: unknown): string {
	if (value === undefined || value === null) return 'null'
	return JSON.stringify(value)
}

/**
 * What is answered for anything thrown. A Failure's code is the reason; its details may carry `causes`, and `kind`,
 * `group`, `name`. Anything else is our bug: 500 with its text.
 */
export function statusOf(error: unknown): Status {
	if (error instanceof Refusal) return error.status
	if (isFailure(error)) {
		const details = error.details as StatusDetails & { status?: Status }
		if (details.status !== undefined) return details.status
		const known: { -readonly [K in keyof StatusDetails]: StatusDetails[K] } = {}
		if (details.causes !== undefined) known.causes = details.causes
		if (details.name !== undefined) known.name = details.name
		if (details.kind !== undefined) known.kind = details.kind
		if (details.group !== undefined) known.group = details.group
		if (details.retryAfterSeconds !== undefined) known.retryAfterSeconds = details.retryAfterSeconds
		return refuse(error.code, error.message, known).status
	}
	return refuse('InternalError', `Internal error occurred: ${messageOf(error)}`, {
		causes: [{ message: messageOf(error) }],
	}).status
}
