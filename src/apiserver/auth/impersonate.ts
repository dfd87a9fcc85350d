// Acting as somebody else: the Impersonate headers, each allowed by the verb `impersonate`.
// Source: kubernetes.io/docs/reference/access-authn-authz/authentication, "User impersonation".

import type { User } from '../api.ts'
import { badRequest } from '../status.ts'
import type { Authorizer } from './rbac.ts'

const authenticationGroup = 'authentication.k8s.io'

/**
 * The user a request is made as: the one who asks, or the one its headers name. Throws Refusal 403 where he may not,
 * 400 where groups are named without a user.
 */
export function impersonated(authorizer: Authorizer, asker: User, headers: Headers): User {
	const name = headers.get('impersonate-user')
	if (name === null || name === '') {
		for (const header of headers.keys()) {
			if (header.startsWith('impersonate-')) throw badRequest(`${header} is given without impersonating a user`)
		}
		return asker
	}
	const ask = (resource: string, value: string, group = '', namespace = '', subresource = '') =>
		authorizer.require(asker, { verb: 'impersonate', group, resource, subresource, name: value, namespace })
	const account = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(name)
	if (account === null) ask('users', name)
	else ask('serviceaccounts', account[2]!, '', account[1]!)
	let groups = valuesOf(headers.get('impersonate-group'))
	for (const group of groups) ask('groups', group)
	const uid = headers.get('impersonate-uid') ?? ''
	if (uid !== '') ask('uids', uid, authenticationGroup)
	const extra: Record<string, readonly string[]> = {}
	for (const [header, value] of headers) {
		if (!header.startsWith('impersonate-extra-')) continue
		const key = unescaped(header.slice('impersonate-extra-'.length))
		extra[key] = valuesOf(value)
		for (const one of extra[key]) ask('userextras', one, authenticationGroup, '', key)
	}
	if (account !== null && groups.length === 0) groups = accountGroups(account[1]!)
	const [everyone, nobody] = ['system:authenticated', 'system:unauthenticated']
	if (!groups.includes(everyone) && !groups.includes(nobody)) {
		groups = [...groups, name === 'system:anonymous' ? nobody : everyone]
	}
	return { name, groups, ...(uid === '' ? {} : { uid }), ...(Object.keys(extra).length === 0 ? {} : { extra }) }
}

/** The groups of a ServiceAccount. */
export function accountGroups(namespace: string): string[] {
	return ['system:serviceaccounts', `system:serviceaccounts:${namespace}`]
}

/** Values of a header that was sent several times. */
function valuesOf(value: string | null): string[] {
	return value === null || value === '' ? [] : value.split(', ').filter((one) => one !== '')
}

function unescaped(key: string): string {
	try {
		return decodeURIComponent(key)
	} catch {
		return key
	}
}
