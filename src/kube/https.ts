// A Transport to a real API server: node:https with kept-alive connections, bodies streamed for watches and logs.

import { readFile } from 'node:fs/promises'
import http, { type IncomingMessage } from 'node:http'
import https from 'node:https'
import { Readable } from 'node:stream'
import { Failure } from '../base/failure.ts'
import type { ClusterAccess } from './kubeconfig.ts'
import type { Transport } from './transport.ts'

/** `close` ends the kept connections, and with them what is under way. */
export type HttpsTransport = Transport & { close(): void }

/** Throws Failure `Unreachable` (from the transport) where no answer comes: refused, reset, no such host, bad certificate. */
export function transportOf(access: ClusterAccess): HttpsTransport {
	const secure = access.server.startsWith('https:')
	const options = {
		keepAlive: true,
		keepAliveMsecs: 30_000,
		maxSockets: Number.POSITIVE_INFINITY,
		scheduling: 'lifo' as const,
	}
	const agent = secure
		? new https.Agent({
				...options,
				...(access.certificateAuthority === undefined ? {} : { ca: access.certificateAuthority }),
				...(access.clientCertificate === undefined ? {} : { cert: access.clientCertificate, key: access.clientKey }),
				...(access.serverName === undefined ? {} : { servername: access.serverName }),
				rejectUnauthorized: !access.insecure,
			})
		: new http.Agent(options)
	const base = new URL(access.server)
	const prefix = base.pathname.replace(/\/$/, '')

	const transport: Transport = async (request) => {
		const url = new URL(request.url)
		const headers: Record<string, string | string[]> = Object.fromEntries(request.headers)
		Object.assign(headers, await credentials(access))
		const body = request.body === null ? undefined : Buffer.from(await request.arrayBuffer())
		if (body !== undefined) headers['content-length'] = String(body.length)
		const target = {
			agent,
			protocol: base.protocol,
			hostname: base.hostname.replace(/^\[|\]$/g, ''),
			port: base.port === '' ? (secure ? 443 : 80) : base.port,
			path: prefix + url.pathname + url.search,
			method: request.method,
			headers,
			signal: request.signal,
		}
		for (let attempt = 0; ; attempt++) {
			try {
				const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
				const sent = (secure ? https : http).request(target, resolve)
				sent.on('error', (e) => {
					Object.assign(e, { reused: sent.reusedSocket })
					reject(e)
				})
				sent.end(body)
				return await answer(await promise, url)
			} catch (e) {
				if (request.signal.aborted) throw request.signal.reason
				// The server may close a kept connection just as we use it; asking once more is safe where nothing is changed.
				const { reused, code } = e as { reused?: boolean; code?: string }
				const lost = code === 'ECONNRESET' || code === 'EPIPE'
				if (reused && lost && /^(?:GET|HEAD|OPTIONS)$/.test(request.method) && attempt < 3) continue
				throw unreachable(access, e)
			}
		}
	}
	return Object.assign(transport, { close: () => agent.destroy() })
}

async function credentials(access: ClusterAccess): Promise<Record<string, string | string[]>> {
	const out: Record<string, string | string[]> = {}
	if (access.tokenFile !== undefined) {
		try {
			out.authorization = `Bearer ${(await readFile(access.tokenFile, 'utf8')).trim()}`
		} catch (cause) {
			throw new Failure('Unauthorized', `Cannot read the token in "${access.tokenFile}"`, {}, { cause })
		}
	} else if (access.token !== undefined) out.authorization = `Bearer ${access.token}`
	else if (access.basic !== undefined) {
		const { username, password } = access.basic
		out.authorization = `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
	}
	if (access.impersonate !== undefined) {
		const { user, groups, uid } = access.impersonate
		out['impersonate-user'] = user
		if (groups.length > 0) out['impersonate-group'] = [...groups]
		if (uid !== undefined) out['impersonate-uid'] = uid
	}
	return out
}

async function answer(message: IncomingMessage, url: URL): Promise<Response> {
	const status = message.statusCode ?? 500
	const headers = new Headers()
	for (let i = 0; i + 1 < message.rawHeaders.length; i += 2)
		headers.append(message.rawHeaders[i]!, message.rawHeaders[i + 1]!)
	if (status === 204 || status === 205 || status === 304) {
		message.resume()
		return new Response(null, { status, headers })
	}
	const streams = url.searchParams.get('watch') ?? url.searchParams.get('follow')
	if (streams === 'true' || streams === '1') {
		return new Response(Readable.toWeb(message) as ReadableStream<Uint8Array>, { status, headers })
	}
	const chunks: Buffer[] = []
	for await (const chunk of message) chunks.push(chunk as Buffer)
	return new Response(Buffer.concat(chunks), { status, headers })
}

const reasons: Readonly<Record<string, string>> = {
	ECONNREFUSED: 'connection refused (is the cluster running?)',
	ECONNRESET: 'the connection was reset',
	ENOTFOUND: 'no such host',
	EAI_AGAIN: 'the host name cannot be resolved now',
	ETIMEDOUT: 'no answer',
	EHOSTUNREACH: 'no route to the host',
	ENETUNREACH: 'no route to the network',
	DEPTH_ZERO_SELF_SIGNED_CERT: "its certificate is not signed by the context's certificate authority",
	SELF_SIGNED_CERT_IN_CHAIN: "its certificate is not signed by the context's certificate authority",
	UNABLE_TO_VERIFY_LEAF_SIGNATURE: "its certificate is not signed by the context's certificate authority",
	UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "its certificate is not signed by the context's certificate authority",
	CERT_SIGNATURE_FAILURE: "its certificate is not signed by the context's certificate authority",
	CERT_HAS_EXPIRED: 'its certificate has expired',
	ERR_TLS_CERT_ALTNAME_INVALID: 'its certificate is for another name',
}

function unreachable(access: ClusterAccess, cause: unknown): Failure {
	if (cause instanceof Failure) return cause
	// A name with several addresses fails with all their errors together.
	const first = cause instanceof AggregateError ? (cause.errors[0] as unknown) : cause
	const code = String((first as { code?: unknown }).code ?? '')
	const why = reasons[code] ?? (first instanceof Error ? first.message : String(first))
	return new Failure(
		'Unreachable',
		`Cannot reach ${access.server} (context "${access.context}"): ${why}`,
		{ code },
		{ cause },
	)
}
