// Who asks: a client certificate, a ServiceAccount's token, or nobody we know. Wrong credentials are refused (401), none
// at all are the anonymous user. Source: kubernetes.io/docs/reference/access-authn-authz/authentication.

import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { Clock } from '../../base/clock.ts'
import type { User } from '../api.ts'
import { refuse } from '../status.ts'
import type { Store } from '../store.ts'
import { accountGroups } from './impersonate.ts'
import { type Claims, issuer, type Tokens } from './tokens.ts'

export const anonymous: User = { name: 'system:anonymous', groups: ['system:unauthenticated'] }

export interface Authenticator {
	/** Throws Refusal 401. */
	identify(request: IncomingMessage): User
	/** Whose token this is, for one of these audiences; a text: why it is nobody's. */
	identifyToken(
		token: string,
		audiences?: readonly string[],
	): { readonly user: User; readonly audiences: readonly string[] } | string
}

/** The certificate of a connection: read once, not with each request. */
type Certificate = { readonly user: User /** Milliseconds since the epoch. */; readonly until: number } | 'none' | 'bad'

const credential = 'authentication.kubernetes.io/credential-id'
/** What is being deleted still counts for so long: its processes end, and may have to say so. Milliseconds. */
const leeway = 60_000

export function createAuthenticator(options: {
	readonly store: Store
	readonly clock: Clock
	readonly tokens: Tokens
}): Authenticator {
	const { store, clock, tokens } = options
	const certificates = new WeakMap<Socket, Certificate>()

	function identifyToken(token: string, audiences: readonly string[] = [issuer]) {
		const claims = tokens.read(token)
		if (typeof claims === 'string') return claims
		const now = clock.now()
		if (claims.expires * 1000 <= now) return 'service account token has expired'
		if (claims.issuedAt * 1000 > now + leeway) return 'service account token is not valid yet'
		const common = audiences.filter((one) => claims.audiences.includes(one))
		if (common.length === 0) {
			return `token audiences ${JSON.stringify(claims.audiences)} is invalid for the target audiences ${JSON.stringify(audiences)}`
		}
		const gone = findGone(claims, now)
		return gone ?? { user: userOf(claims), audiences: common }
	}

	/** Which of the objects the token depends on is no longer there. */
	function findGone(claims: Claims, now: number): string | undefined {
		const { namespace, account, bound } = claims
		const there = (storage: string, key: string, uid: string) => {
			const { metadata } = store.get(storage, key)?.object ?? {}
			if (metadata === undefined || metadata.uid !== uid) return false
			return metadata.deletionTimestamp === undefined || Date.parse(metadata.deletionTimestamp) + leeway > now
		}
		if (!there('serviceaccounts', `${namespace}/${account.name}`, account.uid))
			return 'service account token has been invalidated'
		if (bound === undefined) return undefined
		const key = bound.kind === 'Node' ? bound.name : `${namespace}/${bound.name}`
		if (there(`${bound.kind.toLowerCase()}s`, key, bound.uid)) return undefined
		return 'service account token has been invalidated'
	}

	function certificateOf(socket: Socket): Certificate {
		const known = certificates.get(socket)
		if (known !== undefined) return known
		const read = readCertificate(socket as TLSSocket)
		certificates.set(socket, read)
		return read
	}

	return {
		identifyToken,
		identify(request) {
			const certificate = certificateOf(request.socket)
			if (typeof certificate === 'object' && clock.now() < certificate.until) return certificate.user
			const token = tokenOf(request)
			if (token === undefined) {
				if (certificate === 'none') return anonymous
				throw refuse('Unauthorized', 'Unauthorized')
			}
			const found = identifyToken(token)
			if (typeof found === 'string') throw refuse('Unauthorized', 'Unauthorized')
			return found.user
		},
	}
}

/** CN is the name, each O a group. */
function readCertificate(socket: TLSSocket): Certificate {
	const certificate = socket.getPeerCertificate?.()
	if (certificate === undefined || certificate === null || Object.keys(certificate).length === 0) return 'none'
	if (!socket.authorized) return 'bad'
	const { CN, O } = certificate.subject as unknown as { CN?: string | string[]; O?: string | string[] }
	const name = Array.isArray(CN) ? CN.at(-1) : CN
	if (name === undefined || name === '') return 'bad'
	const groups = O === undefined ? [] : Array.isArray(O) ? O : [O]
	const print = certificate.fingerprint256.replaceAll(':', '').toLowerCase()
	return {
		user: { name, groups: [...groups, 'system:authenticated'], extra: { [credential]: [`X509SHA256=${print}`] } },
		until: Date.parse(certificate.valid_to),
	}
}

const webSocketToken = 'base64url.bearer.authorization.k8s.io.'

/** The bearer token of a request; a browser's WebSocket has no header for it and names it as a protocol. */
function tokenOf(request: IncomingMessage): string | undefined {
	const [scheme, token] = (request.headers.authorization ?? '').trim().split(' ', 2)
	if (scheme?.toLowerCase() === 'bearer' && token !== undefined && token !== '') return token
	const offered = request.headers['sec-websocket-protocol']
	if (offered === undefined || request.headers.upgrade === undefined) return undefined
	const found = offered.split(',').find((one) => one.trim().startsWith(webSocketToken))
	if (found === undefined) return undefined
	return Buffer.from(found.trim().slice(webSocketToken.length), 'base64url').toString()
}

function userOf(claims: Claims): User {
	const { namespace, account, bound, node } = claims
	const extra: Record<string, readonly string[]> = { [credential]: [`JTI=${claims.id}`] }
	const tell = (kind: string, what: { readonly name: string; readonly uid: string }) => {
		extra[`authentication.kubernetes.io/${kind}-name`] = [what.name]
		extra[`authentication.kubernetes.io/${kind}-uid`] = [what.uid]
	}
	if (bound?.kind === 'Pod') tell('pod', bound)
	if (node !== undefined) tell('node', node)
	if (bound?.kind === 'Node') tell('node', bound)
	return {
		name: `system:serviceaccount:${namespace}:${account.name}`,
		uid: account.uid,
		groups: [...accountGroups(namespace), 'system:authenticated'],
		extra,
	}
}
