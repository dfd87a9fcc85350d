// Questions that are answered and not kept: who am I, may I, which rules hold for me.
// Until RBAC is enforced there is one rule: members of system:masters may do everything, others nothing.

import type { UnknownObject } from '../kube/objects/meta.ts'
import { isObject, type JsonObject } from '../kube/schema/json.ts'
import { objectAnswer } from './answer.ts'
import type { Call, User } from './api.ts'
import { mediaTypeOf, parseBody, readBody } from './body.ts'
import { readAs, warningHeaders } from './checks.ts'
import { badRequest, cause, invalid, methodNotAllowed } from './status.ts'
import { readWriteOptions } from './write.ts'

export function isAdmin(user: User): boolean {
	return user.groups.includes('system:masters')
}

/** POST of a review kind. */
export async function review(call: Call): Promise<Response> {
	const { served, user } = call
	if (call.request.method !== 'POST' || call.name !== undefined) throw methodNotAllowed()
	const options = readWriteOptions(call)
	const expected = { apiVersion: served.apiVersion, kind: served.resource.kind }
	const body = await parseBody(await readBody(call.request), mediaTypeOf(call.request), expected)
	const { object, warnings } = readAs(served, body.object, options.fieldValidation, body.text)
	const spec: JsonObject = isObject(object.spec) ? object.spec : {}
	const answer = (status: object, code = 201) =>
		objectAnswer(
			call,
			code,
			{ ...object, metadata: { ...object.metadata, creationTimestamp: null }, status } as unknown as UnknownObject,
			warningHeaders(warnings),
		)
	switch (served.resource.kind) {
		case 'SelfSubjectReview':
			return answer({ userInfo: { username: user.name, groups: user.groups, ...(user.uid ? { uid: user.uid } : {}) } })
		case 'SelfSubjectAccessReview':
			checkAttributes(spec, call)
			return answer(verdict(user))
		case 'SubjectAccessReview':
		case 'LocalSubjectAccessReview': {
			checkAttributes(spec, call)
			const groups = Array.isArray(spec.groups) ? (spec.groups as string[]) : []
			const name = typeof spec.user === 'string' ? spec.user : ''
			if (name === '' && groups.length === 0) {
				throw invalid(served.resource, '', [
					cause.invalid('spec.user', '', 'at least one of user or group must be specified'),
				])
			}
			return answer(verdict({ name, groups }))
		}
		case 'SelfSubjectRulesReview': {
			const every = { verbs: ['*'] }
			const admin = isAdmin(user)
			return answer({
				resourceRules: admin ? [{ ...every, apiGroups: ['*'], resources: ['*'] }] : [],
				nonResourceRules: admin ? [{ ...every, nonResourceURLs: ['*'] }] : [],
				incomplete: false,
			})
		}
		case 'TokenReview':
			return answer({ authenticated: false, error: 'this server knows no bearer tokens', user: {} })
		default:
			throw badRequest(`${served.resource.kind} cannot be asked of this server`)
	}
}

function checkAttributes(spec: JsonObject, call: Call): void {
	const both = isObject(spec.resourceAttributes) && isObject(spec.nonResourceAttributes)
	const neither = !isObject(spec.resourceAttributes) && !isObject(spec.nonResourceAttributes)
	if (!both && !neither) return
	throw invalid(call.served.resource, '', [
		cause.invalid(
			'spec.resourceAttributes',
			spec.resourceAttributes ?? null,
			both
				? 'cannot be specified in combination with nonResourceAttributes'
				: 'exactly one of nonResourceAttributes or resourceAttributes must be specified',
		),
	])
}

function verdict(user: User): object {
	return isAdmin(user)
		? { allowed: true, reason: 'a member of system:masters may do everything' }
		: { allowed: false, reason: 'only members of system:masters are admitted' }
}
