// An AdmissionReview: what a webhook is asked, and what its answer means. Both versions have the same form.

import type { Status, UnknownObject } from '../../kube/objects/meta.ts'
import { isObject, type Json, type JsonObject } from '../../kube/schema/json.ts'
import type { User } from '../api.ts'
import { jsonPatch } from '../patch/json-patch.ts'
import type { Served } from '../registry.ts'
import { Refusal } from '../status.ts'
import type { Operation } from './configuration.ts'

export const reviewVersions = ['v1', 'v1beta1']

export interface ReviewOf {
	readonly uid: string
	/** The version the webhook is asked in. */
	readonly served: Served
	/** The version of the request. */
	readonly requested: Served
	readonly subresource: string | undefined
	readonly operation: Operation
	readonly namespace: string
	readonly name: string
	readonly user: User
	readonly object: UnknownObject | undefined
	readonly before: UnknownObject | undefined
	readonly dryRun: boolean
	readonly options: JsonObject
}

const kindOf = ({ resource: { group, version, kind } }: Served) => ({ group, version, kind })
const resourceOf = ({ resource: { group, version, plural } }: Served) => ({ group, version, resource: plural })
const json = (object: UnknownObject | undefined) => (object ?? null) as unknown as Json

/** `request` of the review. */
export function requestOf(review: ReviewOf): JsonObject {
	const { uid, served, requested, subresource, operation, namespace, name, user, dryRun, options } = review
	const sub = subresource === undefined ? {} : { subResource: subresource, requestSubResource: subresource }
	return {
		uid,
		kind: kindOf(served),
		resource: resourceOf(served),
		requestKind: kindOf(requested),
		requestResource: resourceOf(requested),
		...sub,
		...(name === '' ? {} : { name }),
		...(namespace === '' ? {} : { namespace }),
		operation,
		userInfo: {
			username: user.name,
			...(user.uid === undefined ? {} : { uid: user.uid }),
			groups: user.groups,
			...(user.extra === undefined ? {} : { extra: user.extra }),
		},
		object: json(review.object),
		oldObject: json(review.before),
		dryRun,
		options,
	}
}

export interface Answer {
	readonly allowed: boolean
	readonly status: JsonObject
	readonly warnings: readonly string[]
	/** Of a mutating webhook: the object as it wants it. */
	readonly patch: readonly Json[] | undefined
}

/** Throws Error where the answer is not of the form. */
export function readAnswer(body: JsonObject, uid: string, mayPatch: boolean): Answer {
	const response = isObject(body.response) ? body.response : undefined
	if (response === undefined) throw new Error('webhook response was absent')
	if (response.uid !== uid)
		throw new Error(`expected response.uid=${JSON.stringify(uid)}, got ${JSON.stringify(response.uid ?? '')}`)
	const warnings = Array.isArray(response.warnings)
		? (response.warnings as readonly Json[]).filter((w): w is string => typeof w === 'string')
		: []
	let patch: readonly Json[] | undefined
	if (typeof response.patch === 'string' && response.patch !== '') {
		if (!mayPatch) throw new Error('validating webhook may not return response.patch')
		if (response.patchType !== 'JSONPatch' && body.apiVersion !== 'admission.k8s.io/v1beta1')
			throw new Error(`invalid response.patchType, expected JSONPatch, got ${JSON.stringify(response.patchType ?? '')}`)
		const operations = JSON.parse(Buffer.from(response.patch, 'base64').toString()) as Json
		if (!Array.isArray(operations)) throw new Error('response.patch is not a list of operations')
		patch = operations
	}
	return {
		allowed: response.allowed === true,
		status: isObject(response.status) ? response.status : {},
		warnings,
		patch,
	}
}

/** The object after the webhook's patch. Throws Failure where an operation cannot be done. */
export function patched(object: UnknownObject, patch: readonly Json[]): UnknownObject {
	return jsonPatch(object as unknown as JsonObject, patch) as unknown as UnknownObject
}

/** Why the write is refused, in the words of the real server (plugin/webhook/errors). */
export function denial(webhook: string, status: JsonObject): Refusal {
	const denied = `admission webhook ${JSON.stringify(webhook)} denied the request`
	const { message, reason } = status
	const text = (value: Json | undefined) => (typeof value === 'string' && value !== '' ? value : undefined)
	const said = text(message) ?? text(reason)
	const code = typeof status.code === 'number' && status.code >= 400 ? status.code : 400
	return new Refusal({
		kind: 'Status',
		apiVersion: 'v1',
		metadata: {},
		...(isObject(status.details) ? { details: status.details as Status['details'] & object } : {}),
		status: 'Failure',
		message: said === undefined ? `${denied} without explanation` : `${denied}: ${said}`,
		...(text(reason) === undefined ? {} : { reason: text(reason) as string }),
		code,
	})
}
