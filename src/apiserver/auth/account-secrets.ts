// Secrets of type kubernetes.io/service-account-token: filled with a token when they are made. What dashboards and CI
// systems still use where a token must last: it is bound to the Secret, and dies with it or with the account.
// Source: kubernetes.io/docs/concepts/configuration/secret, "ServiceAccount token Secrets".

import type { UnknownObject } from '../../kube/objects/meta.ts'
import { isObject } from '../../kube/schema/json.ts'
import type { AdmitHook } from '../admit/admission.ts'
import type { Store } from '../store.ts'
import { issuer, type Tokens } from './tokens.ts'

const type = 'kubernetes.io/service-account-token'
const nameOfAccount = 'kubernetes.io/service-account.name'
const uidOfAccount = 'kubernetes.io/service-account.uid'
/** Seconds. The real ones have no end; ten years come to the same. */
const lifetime = 10 * 365 * 86_400

export function createAccountSecrets(store: Store, tokens: Tokens, now: () => number): AdmitHook {
	return (served, object, before) => {
		if (served.storage !== 'secrets' || before !== undefined || object.type !== type) return object
		const { name, namespace = '', uid = '', annotations } = object.metadata
		const account = store.current('serviceaccounts', `${namespace}/${annotations?.[nameOfAccount] ?? ''}`)?.object
			.metadata
		const data = isObject(object.data) ? object.data : {}
		if (account === undefined || data.token !== undefined) return object
		const authority = store.current('configmaps', `${namespace}/kube-root-ca.crt`)?.object.data
		const certificate = isObject(authority) ? authority['ca.crt'] : undefined
		const issuedAt = Math.floor(now() / 1000)
		const token = tokens.issue({
			namespace,
			account: { name: account.name, uid: account.uid ?? '' },
			audiences: [issuer],
			issuedAt,
			expires: issuedAt + lifetime,
			bound: { kind: 'Secret', name, uid },
		})
		return {
			...object,
			metadata: { ...object.metadata, annotations: { ...annotations, [uidOfAccount]: account.uid ?? '' } },
			data: {
				...data,
				...(typeof certificate === 'string' ? { 'ca.crt': base64(certificate) } : {}),
				namespace: base64(namespace),
				token: base64(token),
			},
		} as UnknownObject
	}
}

function base64(text: string): string {
	return Buffer.from(text).toString('base64')
}
