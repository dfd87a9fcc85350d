// ServiceAccount tokens: JWTs, signed with ES256 and nothing else, by this server for this cluster.
// Source: RFC 7519, RFC 7515; KEP-1205 for the claims. Why no library: docs/decisions/dependencies.md.

import { createHash, createPublicKey, generateKeyPairSync, type KeyObject, randomUUID, sign, verify } from 'node:crypto'

export interface Reference {
	readonly name: string
	readonly uid: string
}

/** What a token says. Times are seconds since the epoch. */
export interface Claims {
	readonly namespace: string
	readonly account: Reference
	readonly audiences: readonly string[]
	readonly issuedAt: number
	readonly expires: number
	/** The token dies with this object. */
	readonly bound?: Reference & { readonly kind: 'Pod' | 'Secret' | 'Node' }
	/** Where the pod it is bound to runs. */
	readonly node?: Reference
	/** After this time a client that still uses the token has not noticed that it was renewed. */
	readonly warnAfter?: number
	/** jti */
	readonly id: string
}

export interface Tokens {
	issue(claims: Omit<Claims, 'id'>): string
	/** The claims of a token this server has signed; a text: why it is none. Expiry is the caller's to check. */
	read(token: string): Claims | string
	/** The public key as a JSON Web Key Set (RFC 7517). */
	keys(): object
}

/** The issuer, and the audience of tokens for this server. */
export const issuer = 'https://kubernetes.default.svc.cluster.local'

/** A node:http server refuses longer headers anyhow. */
const longest = 16_384
/** Tokens whose signature was seen to be right. */
const remembered = 4096

/** `key`: a private key on P-256; absent: one is made when first needed and lives as long as the process. */
export function createTokens(key?: KeyObject): Tokens {
	let own: { readonly privateKey: KeyObject; readonly publicKey: KeyObject; readonly id: string } | undefined
	const pair = () => {
		if (own !== undefined) return own
		const privateKey = key ?? generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
		const publicKey = createPublicKey(privateKey)
		const spki = publicKey.export({ type: 'spki', format: 'der' })
		return (own = { privateKey, publicKey, id: createHash('sha256').update(spki).digest('base64url') })
	}
	const known = new Map<string, Claims>()
	return {
		issue(claims) {
			const { privateKey, id } = pair()
			const body = `${encode({ alg: 'ES256', kid: id, typ: 'JWT' })}.${encode(payloadOf(claims))}`
			const signature = sign('sha256', Buffer.from(body), { key: privateKey, dsaEncoding: 'ieee-p1363' })
			return `${body}.${signature.toString('base64url')}`
		},
		read(token) {
			const seen = known.get(token)
			if (seen !== undefined) return seen
			if (token.length > longest) return 'token is too long'
			const parts = token.split('.')
			if (parts.length !== 3 || !parts.every((part) => /^[A-Za-z0-9_-]+$/.test(part))) return 'token is malformed'
			const [head, body, end] = parts as [string, string, string]
			const header = decode(head)
			const payload = decode(body)
			const signature = Buffer.from(end, 'base64url')
			if (header === undefined || payload === undefined) return 'token is malformed'
			// The algorithm is ours to say, never the token's: no `none`, no HMAC with the public key.
			if (header.alg !== 'ES256' || header.crit !== undefined || signature.length !== 64)
				return 'token is not signed by this cluster'
			if (header.kid !== pair().id) return 'token is not signed by this cluster'
			const signed = Buffer.from(`${head}.${body}`)
			if (!verify('sha256', signed, { key: pair().publicKey, dsaEncoding: 'ieee-p1363' }, signature)) {
				return 'token is not signed by this cluster'
			}
			const claims = claimsOf(payload)
			if (claims === undefined) return 'token has no claims of a ServiceAccount'
			if (known.size >= remembered) known.delete(known.keys().next().value!)
			known.set(token, claims)
			return claims
		},
		keys() {
			const { publicKey, id } = pair()
			const { kty, crv, x, y } = publicKey.export({ format: 'jwk' })
			return { keys: [{ use: 'sig', kty, kid: id, crv, alg: 'ES256', x, y }] }
		},
	}
}

type JsonObject = Readonly<Record<string, unknown>>

function encode(part: object): string {
	return Buffer.from(JSON.stringify(part)).toString('base64url')
}

function decode(part: string): JsonObject | undefined {
	try {
		const value: unknown = JSON.parse(Buffer.from(part, 'base64url').toString())
		return isRecord(value) ? value : undefined
	} catch {
		return undefined
	}
}

function isRecord(value: unknown): value is JsonObject {
	return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function payloadOf(claims: Omit<Claims, 'id'>): object {
	const { namespace, account, bound, node } = claims
	return {
		aud: claims.audiences,
		exp: claims.expires,
		iat: claims.issuedAt,
		iss: issuer,
		jti: randomUUID(),
		'kubernetes.io': {
			namespace,
			...(node === undefined ? {} : { node }),
			...(bound === undefined ? {} : { [bound.kind.toLowerCase()]: { name: bound.name, uid: bound.uid } }),
			serviceaccount: account,
			...(claims.warnAfter === undefined ? {} : { warnafter: claims.warnAfter }),
		},
		nbf: claims.issuedAt,
		sub: `system:serviceaccount:${namespace}:${account.name}`,
	}
}

/** The claims of a payload whose signature is right; undefined: it is no ServiceAccount's. */
function claimsOf(payload: JsonObject): Claims | undefined {
	const own = payload['kubernetes.io']
	const { aud, exp, iat, iss, jti, sub } = payload
	if (iss !== issuer || !isRecord(own) || typeof own.namespace !== 'string') return undefined
	if (typeof exp !== 'number' || typeof iat !== 'number' || typeof jti !== 'string') return undefined
	if (!Array.isArray(aud) || !aud.every((one) => typeof one === 'string')) return undefined
	const account = reference(own.serviceaccount)
	if (account === undefined || sub !== `system:serviceaccount:${own.namespace}:${account.name}`) return undefined
	const [pod, secret, node] = [reference(own.pod), reference(own.secret), reference(own.node)]
	const bound =
		pod !== undefined
			? { kind: 'Pod' as const, ...pod }
			: secret !== undefined
				? { kind: 'Secret' as const, ...secret }
				: node !== undefined
					? { kind: 'Node' as const, ...node }
					: undefined
	return {
		namespace: own.namespace,
		account,
		audiences: aud,
		issuedAt: iat,
		expires: exp,
		id: jti,
		...(bound === undefined ? {} : { bound }),
		...(pod === undefined || node === undefined ? {} : { node }),
		...(typeof own.warnafter === 'number' ? { warnAfter: own.warnafter } : {}),
	}
}

function reference(value: unknown): Reference | undefined {
	if (!isRecord(value) || typeof value.name !== 'string' || typeof value.uid !== 'string') return undefined
	return { name: value.name, uid: value.uid }
}
