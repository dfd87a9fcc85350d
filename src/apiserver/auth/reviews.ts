// Questions that are answered and not kept: who am I, may I, may he, which rules hold for me, whose token is this.

import type { UnknownObject } from '../../kube/objects/meta.ts'
import { isObject, type JsonObject } from '../../kube/schema/json.ts'
import { objectAnswer } from '../answer.ts'
import type { Call, User } from '../api.ts'
import { mediaTypeOf, parseBody, readBody } from '../body.ts'
import { readAs, warningHeaders } from '../checks.ts'
import { badRequest, cause, invalid, methodNotAllowed } from '../status.ts'
import { readWriteOptions } from '../write.ts'
import type { Attributes } from './attributes.ts'
import { isAdmin, together } from './rbac.ts'
import { issuer } from './tokens.ts'

/** POST of a review kind. */
export async function review(call: Call): Promise<Response> {
	const { api, served, user } = call
	if (call.request.method !== 'POST' || call.name !== undefined) throw methodNotAllowed()
	const options = readWriteOptions(call)
	const expected = { apiVersion: served.apiVersion, kind: served.resource.kind }
	const body = await parseBody(await readBody(call.request), mediaTypeOf(call.request), expected)
	const { object, warnings } = readAs(served, body.object, options.fieldValidation, body.text)
	const spec: JsonObject = isObject(object.spec) ? object.spec : {}
	const answer = (status: object) =>
		objectAnswer(
			call,
			201,
			{ ...object, metadata: { ...object.metadata, creationTimestamp: null }, status } as unknown as UnknownObject,
			warningHeaders(warnings),
		)
	const verdict = (asked: User) => {
		const { allowed, reason } = api.authorizer.decide(asked, readAttributes(spec, call))
		return answer({ allowed, ...(reason === '' ? {} : { reason }) })
	}
	switch (served.resource.kind) {
		case 'SelfSubjectReview':
			return answer({ userInfo: userInfo(user) })
		case 'SelfSubjectAccessReview':
			return verdict(user)
		case 'SubjectAccessReview':
			return verdict(readUser(spec, call))
		case 'LocalSubjectAccessReview': {
			const { namespace } = isObject(spec.resourceAttributes) ? spec.resourceAttributes : {}
			if (object.metadata.namespace !== undefined && object.metadata.namespace !== call.namespace) {
				throw badRequest('the namespace of the provided object does not match the namespace sent on the request')
			}
			if (isObject(spec.nonResourceAttributes)) {
				throw invalid(served.resource, '', [
					cause.invalid('spec.nonResourceAttributes', spec.nonResourceAttributes, 'disallowed on this kind of request'),
				])
			}
			if (namespace !== call.namespace) {
				throw invalid(served.resource, '', [
					cause.invalid('spec.resourceAttributes.namespace', namespace ?? '', 'must match metadata.namespace'),
				])
			}
			return verdict(readUser(spec, call))
		}
		case 'SelfSubjectRulesReview': {
			const namespace = typeof spec.namespace === 'string' ? spec.namespace : ''
			if (namespace === '') throw badRequest('no namespace on request')
			return answer(rulesStatus(call, namespace))
		}
		case 'TokenReview':
			return answer(tokenStatus(call, spec))
		default:
			throw badRequest(`${served.resource.kind} cannot be asked of this server`)
	}
}

function userInfo(user: User): object {
	const { name, uid, groups, extra } = user
	return {
		username: name,
		...(uid === undefined ? {} : { uid }),
		groups,
		...(extra === undefined ? {} : { extra }),
	}
}

const text = (object: JsonObject, field: string): string => {
	const value = object[field]
	return typeof value === 'string' ? value : ''
}

/** Throws Refusal 422 unless exactly one kind of attributes is given. */
function readAttributes(spec: JsonObject, call: Call): Attributes {
	const { resourceAttributes: resource, nonResourceAttributes: path } = spec
	if (isObject(resource) && !isObject(path)) {
		return {
			verb: text(resource, 'verb'),
			group: text(resource, 'group'),
			resource: text(resource, 'resource'),
			subresource: text(resource, 'subresource'),
			name: text(resource, 'name'),
			namespace: text(resource, 'namespace'),
		}
	}
	if (isObject(path) && !isObject(resource)) return { verb: text(path, 'verb'), path: text(path, 'path') }
	throw invalid(call.served.resource, '', [
		cause.invalid(
			'spec.resourceAttributes',
			resource ?? null,
			isObject(resource)
				? 'cannot be specified in combination with nonResourceAttributes'
				: 'exactly one of nonResourceAttributes or resourceAttributes must be specified',
		),
	])
}

function readUser(spec: JsonObject, call: Call): User {
	const name = text(spec, 'user')
	const groups = Array.isArray(spec.groups) ? (spec.groups as string[]) : []
	if (name === '' && groups.length === 0) {
		throw invalid(call.served.resource, '', [
			cause.invalid('spec.user', '', 'at least one of user or group must be specified'),
		])
	}
	return { name, groups }
}

function rulesStatus(call: Call, namespace: string): object {
	const { api, user } = call
	const { rules, errors } = api.authorizer.rulesOf(user, namespace)
	const all = isAdmin(user)
		? [{ verbs: ['*'], apiGroups: ['*'], resources: ['*'] }, { verbs: ['*'], nonResourceURLs: ['*'] }, ...rules]
		: rules
	const seen = new Set<string>()
	const resourceRules: object[] = []
	const nonResourceRules: object[] = []
	for (const { verbs, apiGroups, resources, resourceNames, nonResourceURLs } of all) {
		const rule = nonResourceURLs?.length
			? { verbs, nonResourceURLs }
			: { verbs, apiGroups, resources, ...(resourceNames?.length ? { resourceNames } : {}) }
		const key = JSON.stringify(rule)
		if (seen.has(key)) continue
		seen.add(key)
		if ('nonResourceURLs' in rule) nonResourceRules.push(rule)
		else resourceRules.push(rule)
	}
	return {
		resourceRules,
		nonResourceRules,
		incomplete: errors.length > 0,
		...(errors.length > 0 ? { evaluationError: together(errors) } : {}),
	}
}

function tokenStatus(call: Call, spec: JsonObject): object {
	const token = text(spec, 'token')
	if (token === '') throw badRequest('token is required for TokenReview in authentication')
	const asked = Array.isArray(spec.audiences) ? (spec.audiences as string[]) : []
	const found = call.api.authenticator.identifyToken(token, asked.length > 0 ? asked : [issuer])
	if (typeof found === 'string') return { user: {}, error: `[invalid bearer token, ${found}]` }
	return { authenticated: true, user: userInfo(found.user), audiences: found.audiences }
}
