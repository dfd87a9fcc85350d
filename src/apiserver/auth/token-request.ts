// The token subresource of ServiceAccounts: a signed token for an audience, for a time, bound to an object.
// Source: registry/core/serviceaccount/storage/token.go, its rules; KEP-1205.

import type { UnknownObject } from '../../kube/objects/meta.ts'
import { isObject, type JsonObject } from '../../kube/schema/json.ts'
import { typeOf } from '../../kube/schema/schema.ts'
import { objectAnswer } from '../answer.ts'
import { type Api, type Call, keyIn } from '../api.ts'
import { mediaTypeOf, parseBody, readBody } from '../body.ts'
import { readAs, warningHeaders } from '../checks.ts'
import { badRequest, cause, conflict, invalid, notFound } from '../status.ts'
import { readWriteOptions } from '../write.ts'
import { type Claims, issuer, type Reference } from './tokens.ts'

/** Seconds. */
const shortest = 600
const longest = 2 ** 32
/** What admission asks for in pods: old clients do not read a renewed token again, so it lives for a year. */
export const podTokenSeconds = 3607
const year = 365 * 86_400

const part = (object: object, name: string): JsonObject => {
	const value = (object as JsonObject)[name]
	return isObject(value) ? value : {}
}

export async function issueToken(call: Call): Promise<Response> {
	const { api, namespace, name = '' } = call
	const options = readWriteOptions(call)
	const type = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest' }
	const body = await parseBody(await readBody(call.request), mediaTypeOf(call.request), type)
	const served = {
		resource: { ...call.served.resource, group: 'authentication.k8s.io', version: 'v1', kind: 'TokenRequest' },
		apiVersion: type.apiVersion,
		storage: '',
		type: typeOf(type.apiVersion, type.kind),
		custom: false,
	}
	const { object, warnings } = readAs(served, body.object, options.fieldValidation, body.text)
	const account = api.store.get('serviceaccounts', keyIn(namespace, name))
	if (account === undefined) throw notFound(call.served.resource, name)
	const given = object.metadata
	if ((given.name ?? name) !== name) {
		throw badRequest(`the name of the object (${given.name}) does not match the name on the URL (${name})`)
	}
	if ((given.namespace ?? namespace) !== namespace) {
		throw badRequest('the namespace of the provided object does not match the namespace sent on the request')
	}
	const spec = part(object, 'spec')
	const seconds = typeof spec.expirationSeconds === 'number' ? spec.expirationSeconds : 3600
	if (seconds < shortest || seconds > longest) {
		const why =
			seconds < shortest
				? 'may not specify a duration less than 10 minutes'
				: 'may not specify a duration larger than 2^32 seconds'
		throw invalid(served.resource, name, [cause.invalid('spec.expirationSeconds', seconds, why)])
	}
	const asked = Array.isArray(spec.audiences) ? (spec.audiences as string[]) : []
	const audiences = asked.length > 0 ? asked : [issuer]
	const { uid = '' } = account.object.metadata
	const { bound, node } = readBound(api, namespace, name, part(spec, 'boundObjectRef'))
	const issuedAt = Math.floor(api.clock.now() / 1000)
	const extended = seconds === podTokenSeconds && bound?.kind === 'Pod' && audiences.every((one) => one === issuer)
	const token = options.dryRun
		? ''
		: api.tokens.issue({
				namespace,
				account: { name, uid },
				audiences,
				issuedAt,
				expires: issuedAt + (extended ? year : seconds),
				...(extended ? { warnAfter: issuedAt + seconds } : {}),
				...(bound === undefined ? {} : { bound }),
				...(node === undefined ? {} : { node }),
			})
	const { expirationSeconds: _, audiences: _a, boundObjectRef: reference, ...rest } = spec
	return objectAnswer(
		call,
		201,
		{
			kind: type.kind,
			apiVersion: type.apiVersion,
			metadata: { ...given, name, namespace, creationTimestamp: api.now() },
			spec: { ...rest, audiences, expirationSeconds: seconds, boundObjectRef: reference ?? null },
			status: {
				token,
				expirationTimestamp: `${new Date((issuedAt + seconds) * 1000).toISOString().slice(0, 19)}Z`,
			},
		} as unknown as UnknownObject,
		warningHeaders(warnings),
	)
}

/** The object a token is bound to, as it is now. */
function readBound(
	api: Api,
	namespace: string,
	account: string,
	reference: JsonObject,
): { readonly bound?: NonNullable<Claims['bound']>; readonly node?: Reference } {
	if (reference.kind === undefined && reference.name === undefined) return {}
	const { kind, name = '', uid = '', apiVersion = 'v1' } = reference as Readonly<Record<string, string | undefined>>
	if (apiVersion !== 'v1' || (kind !== 'Pod' && kind !== 'Secret' && kind !== 'Node')) {
		throw badRequest(`cannot bind token for serviceaccount to object of type ${apiVersion}, Kind=${kind ?? ''}`)
	}
	const plural = `${kind.toLowerCase()}s`
	const entry = api.store.get(plural, kind === 'Node' ? name : keyIn(namespace, name))
	if (entry === undefined) throw notFound({ group: '', plural, kind }, name)
	const { metadata } = entry.object
	if (uid !== '' && uid !== metadata.uid) {
		throw conflict(
			{ group: '', plural: kind, kind },
			name,
			`the UID in the bound object reference (${uid}) does not match the UID in record. The object might have been deleted and then recreated`,
		)
	}
	const bound = { kind, name, uid: metadata.uid ?? '' } as const
	if (kind !== 'Pod') return { bound }
	const { serviceAccountName = 'default', nodeName = '' } = part(entry.object, 'spec') as Readonly<
		Record<string, string>
	>
	if (serviceAccountName !== account) {
		throw badRequest(
			`cannot bind token for serviceaccount "${account}" to pod running with different serviceaccount name.`,
		)
	}
	const node = nodeName === '' ? undefined : api.store.get('nodes', nodeName)?.object.metadata
	return { bound, ...(node === undefined ? {} : { node: { name: nodeName, uid: node.uid ?? '' } }) }
}
