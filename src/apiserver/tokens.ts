// ServiceAccount tokens (JWT, ES256) for the TokenRequest subresource. Source: KEP-1205; RFC 7519.

import type { KeyObject } from 'node:crypto'

export interface TokenIssuer {
	/** A signed token. Times are seconds since the epoch. */
	issue(claims: {
		readonly namespace: string
		readonly account: string
		readonly uid: string
		readonly audiences: readonly string[]
		readonly issuedAt: number
		readonly expires: number
		readonly bound?: { readonly kind: string; readonly name: string; readonly uid: string }
	}): Promise<string>
}

export const issuer = 'https://kubernetes.default.svc.cluster.local'

/** `key`: a private key on P-256; absent: one is made when first needed and lives as long as the process. */
export function createTokenIssuer(key?: KeyObject): TokenIssuer {
	let signing: Promise<KeyObject> | undefined = key === undefined ? undefined : Promise.resolve(key)
	const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url')
	return {
		async issue(claims) {
			const { createHash, createPublicKey, generateKeyPairSync, randomUUID, sign } = await import('node:crypto')
			signing ??= Promise.resolve(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
			const privateKey = await signing
			const spki = createPublicKey(privateKey).export({ type: 'spki', format: 'der' })
			const kid = createHash('sha256').update(spki).digest('base64url')
			const { namespace, account, uid, bound } = claims
			const payload = {
				aud: claims.audiences,
				exp: claims.expires,
				iat: claims.issuedAt,
				iss: issuer,
				jti: randomUUID(),
				'kubernetes.io': {
					namespace,
					...(bound === undefined ? {} : { [bound.kind.toLowerCase()]: { name: bound.name, uid: bound.uid } }),
					serviceaccount: { name: account, uid },
				},
				nbf: claims.issuedAt,
				sub: `system:serviceaccount:${namespace}:${account}`,
			}
			const body = `${encode({ alg: 'ES256', kid, typ: 'JWT' })}.${encode(payload)}`
			const signature = sign('sha256', Buffer.from(body), { key: privateKey, dsaEncoding: 'ieee-p1363' })
			return `${body}.${signature.toString('base64url')}`
		},
	}
}
