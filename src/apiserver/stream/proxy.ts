// pods/proxy and services/proxy: an HTTP request passed on to a port of a pod and its answer back, both as they
// stream. Source: registry/core/{pod,service} ResourceLocation and apimachinery's upgrade-aware proxy, their rules.

import type { IncomingMessage, RequestOptions } from 'node:http'
import { type Duplex, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { ReadableStream as NodeStream } from 'node:stream/web'
import { messageOf } from '../../base/failure.ts'
import type { Service } from '../../kube/objects/core.ts'
import type { EndpointSlice } from '../../kube/objects/discovery.ts'
import { serviceNameLabel } from '../../kube/objects/discovery.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { type Call, keyIn } from '../api.ts'
import { kubeletOf } from '../log.ts'
import { badRequest, notFound, type Refusal, refuse } from '../status.ts'

/** Where a request goes. */
export interface Place {
	readonly scheme: 'http' | 'https'
	readonly namespace: string
	readonly pod: string
	readonly ip: string
	readonly port: number
}

interface Named {
	readonly scheme: 'http' | 'https'
	readonly name: string
	/** A number or a name; '' where none is said. */
	readonly port: string
}

/** Reads `name`, `name:port`, `https:name:port` (the port may be empty). Throws Refusal 400. */
export function readProxyName(text: string): Named {
	const parts = text.split(':')
	if (parts.length === 1) return { scheme: 'http', name: text, port: '' }
	if (parts.length === 2) return { scheme: 'http', name: parts[0]!, port: parts[1]! }
	const scheme = parts[0] === '' ? 'http' : parts[0]
	if (parts.length > 3 || (scheme !== 'http' && scheme !== 'https')) {
		throw badRequest(`invalid proxy request ${JSON.stringify(text)}: expected [https:]name[:port]`)
	}
	return { scheme, name: parts[1]!, port: parts[2]! }
}

/** Where a request to `pods/NAME/proxy` or `services/NAME/proxy` goes. Throws Refusal 400, 404, 503. */
export function placeOf(call: ProxyCall): Place {
	const named = readProxyName(call.name ?? '')
	return call.served.storage === 'pods' ? placeOfPod(call, named) : placeOfService(call, named)
}

/** What is needed of a call to find its place. */
export type ProxyCall = Pick<Call, 'api' | 'served' | 'namespace' | 'name'>

function portNumber(text: string): number | undefined {
	const port = Number(text)
	return /^\d{1,5}$/.test(text) && port >= 1 && port <= 65535 ? port : undefined
}

function placeOfPod(call: ProxyCall, { scheme, name, port }: Named): Place {
	const pod = call.api.store.get('pods', keyIn(call.namespace, name))?.object as unknown as Pod | undefined
	if (pod === undefined) throw notFound({ group: '', plural: 'pods', kind: 'Pod' }, name)
	const ip = pod.status?.podIP
	if (!ip) throw badRequest('address not allowed')
	const declared = (pod.spec?.containers ?? []).flatMap((c) => c.ports ?? [])
	const number =
		port === ''
			? (declared[0]?.containerPort ?? (scheme === 'https' ? 443 : 80))
			: (portNumber(port) ?? declared.find((p) => p.name === port)?.containerPort)
	if (number === undefined) throw badRequest(`pod ${name} has no port ${JSON.stringify(port)}`)
	return { scheme, namespace: call.namespace, pod: name, ip, port: number }
}

/** A ready endpoint of the Service, any of them. */
function placeOfService(call: ProxyCall, { scheme, name, port }: Named): Place {
	const { api, namespace } = call
	const service = api.store.get('services', keyIn(namespace, name))?.object as unknown as Service | undefined
	if (service === undefined) throw notFound({ group: '', plural: 'services', kind: 'Service' }, name)
	const ports = service.spec?.ports ?? []
	const wanted =
		port === ''
			? ports.length === 1
				? ports[0]
				: undefined
			: ports.find((p) => p.name === port || String(p.port) === port)
	if (wanted === undefined) {
		throw refuse(
			'ServiceUnavailable',
			port === ''
				? `a port must be named for service ${JSON.stringify(name)}: it has ${ports.length}`
				: `no service port ${JSON.stringify(port)} found for service ${JSON.stringify(name)}`,
			{},
		)
	}
	const places: Place[] = []
	for (const { object } of api.store.list('endpointslices.discovery.k8s.io', `${namespace}/`)) {
		const slice = object as unknown as EndpointSlice
		if (slice.metadata.labels?.[serviceNameLabel] !== name || slice.addressType === 'FQDN') continue
		const number = slice.ports?.find((p) => (p.name ?? '') === (wanted.name ?? ''))?.port
		if (number === undefined) continue
		for (const { addresses, conditions, targetRef } of slice.endpoints ?? []) {
			if (conditions?.ready === false || targetRef?.kind !== 'Pod' || !targetRef.name) continue
			const ip = addresses[0]
			if (ip !== undefined) places.push({ scheme, namespace, pod: targetRef.name, ip, port: number })
		}
	}
	// Which one does not matter, as long as it is not always the same.
	const chosen = places[Math.floor(api.clock.now()) % Math.max(1, places.length)]
	if (chosen === undefined) {
		throw refuse('ServiceUnavailable', `no endpoints available for service ${JSON.stringify(name)}`, {})
	}
	return chosen
}

/** Headers of one hop (RFC 9110 7.6.1), and what says who asks the API server: none of a pod's business. */
export const notPassedOn: ReadonlySet<string> = new Set([
	'authorization',
	'connection',
	'keep-alive',
	'proxy-authenticate',
	'proxy-authorization',
	'proxy-connection',
	'te',
	'trailer',
	'transfer-encoding',
	'upgrade',
])

/** Answers with what the pod answers. Throws Refusal: 404, 400, 503 where nothing answers. */
export async function answerProxy(call: Call): Promise<Response> {
	const { request } = call
	const { pathname, search } = new URL(request.url)
	if (call.rest === undefined && (request.method === 'GET' || request.method === 'HEAD')) {
		// So that relative links of a page lead where they should.
		return new Response(null, { status: 301, headers: { location: `${pathname}/${search}` } })
	}
	const place = placeOf(call)
	const base = call.rest === undefined ? pathname : pathname.slice(0, pathname.length - call.rest.length - 1)
	const answer = await ask(call, place, `/${call.rest ?? ''}${search}`, base)
	const headers = new Headers()
	for (let i = 0; i + 1 < answer.rawHeaders.length; i += 2) {
		const name = answer.rawHeaders[i]!
		if (notPassedOn.has(name.toLowerCase())) continue
		const value = answer.rawHeaders[i + 1]!
		headers.append(name, name.toLowerCase() === 'location' ? relocated(value, place, base) : value)
	}
	const status = answer.statusCode ?? 502
	if (request.method === 'HEAD' || status === 204 || status === 304) {
		answer.resume()
		return new Response(null, { status, headers })
	}
	return new Response(Readable.toWeb(answer) as unknown as ReadableStream<Uint8Array>, { status, headers })
}

/** A redirection of the pod, as a path of the API server; to elsewhere it stays what it is. */
function relocated(location: string, place: Place, base: string): string {
	if (location.startsWith('/') && !location.startsWith('//')) return `${base}${location}`
	const host = place.ip.includes(':') ? `[${place.ip}]` : place.ip
	const own = `${place.scheme}://${host}:${place.port}`
	return location.startsWith(`${own}/`) || location === own ? `${base}${location.slice(own.length)}` : location
}

function unreachable({ ip, port }: Place, e: unknown): Refusal {
	return refuse('ServiceUnavailable', `error trying to reach service: ${ip}:${port}: ${messageOf(e)}`, {})
}

/** The place as a Host header says it. */
export function hostOf({ ip, port }: Place): string {
	return `${ip.includes(':') ? `[${ip}]` : ip}:${port}`
}

/** A connection to a place, in TLS where it is https. Throws Refusal 503. */
export async function dial(
	call: Pick<Call, 'api'>,
	place: Place,
): Promise<{ readonly raw: Duplex; readonly connection: Duplex }> {
	const { namespace, pod, port, ip } = place
	const raw = await kubeletOf(call)
		.dial({ namespace, pod, port, ip })
		.catch((e: unknown) => {
			throw unreachable(place, e)
		})
	raw.on('error', () => {})
	if (place.scheme === 'http') return { raw, connection: raw }
	const { connect } = await import('node:tls')
	// Nobody knows a pod's authority: the real server does not check either.
	return { raw, connection: connect({ socket: raw, rejectUnauthorized: false }) }
}

async function ask(call: Call, place: Place, path: string, base: string): Promise<IncomingMessage> {
	const { request } = call
	const { raw, connection } = await dial(call, place)
	const headers: Record<string, string | string[]> = {}
	for (const [name, value] of request.headers)
		if (!notPassedOn.has(name) && !name.startsWith('impersonate-')) headers[name] = value
	headers.host = hostOf(place)
	headers['x-forwarded-uri'] = `${base}${path}`
	headers.connection = 'close'
	const { request: send } = await import('node:http')
	const options: RequestOptions = {
		method: request.method,
		path,
		headers,
		// No agent, or this connection is not the one it uses.
		createConnection: () => connection as never,
	}
	return new Promise((resolve, reject) => {
		const out = send(options, (answer) => {
			answer.on('close', () => raw.destroy())
			answer.on('error', () => {})
			resolve(answer)
		})
		out.on('error', (e) => {
			raw.destroy()
			reject(unreachable(place, e))
		})
		const leave = () => {
			out.destroy()
			raw.destroy()
		}
		request.signal.addEventListener('abort', leave, { once: true })
		if (request.signal.aborted) leave()
		else if (request.body === null) out.end()
		// A pod may answer before it has read everything: then the answer counts, not the rest.
		else pipeline(Readable.fromWeb(request.body as unknown as NodeStream), out).catch(() => {})
	})
}
