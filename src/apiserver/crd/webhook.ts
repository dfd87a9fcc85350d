// Calls a webhook (of conversion, of admission): HTTPS to a URL, or to a Service through one of its endpoints' pods; the certificate is
// checked against the caBundle. Source: apiserver pkg/util/webhook, its rules.

import type { RequestOptions } from 'node:https'
import type { Duplex } from 'node:stream'
import { messageOf } from '../../base/failure.ts'
import type { JsonObject } from '../../kube/schema/json.ts'
import type { Api } from '../api.ts'
import type { WebhookClient } from './definition.ts'

/** How long a webhook may take. Milliseconds. */
const conversionPatience = 30_000
const longestAnswer = 64 * 1024 * 1024

/** The answer's JSON. Throws an Error that says what was asked and why it failed. */
export async function callWebhook(
	api: Api,
	client: WebhookClient,
	body: JsonObject,
	/** Milliseconds; told to the webhook where it is given. */
	timeout?: number,
): Promise<JsonObject> {
	const { service } = client
	const port = service?.port ?? 443
	const url =
		service === undefined
			? new URL(client.url ?? '')
			: new URL(`https://${service.name}.${service.namespace}.svc:${port}/${(service.path ?? '').replace(/^\//, '')}`)
	if (timeout !== undefined) url.searchParams.set('timeout', `${timeout / 1000}s`)
	try {
		const connection = service === undefined ? undefined : await dialService(api, service, port)
		return await post(url, client.caBundle, connection, body, timeout ?? conversionPatience)
	} catch (e) {
		throw new Error(`Post "${url.href}": ${messageOf(e)}`, { cause: e })
	}
}

async function dialService(
	api: Api,
	{ namespace, name }: NonNullable<WebhookClient['service']>,
	port: number,
): Promise<Duplex> {
	const { dial, placeOf } = await import('../stream/proxy.ts')
	const served = api.registry.find('', 'v1', 'services')!
	// In the clear: TLS is ours, with the webhook's own authority.
	const place = placeOf({ api, served, namespace, name: `http:${name}:${port}` })
	return (await dial({ api }, place)).raw
}

async function post(
	url: URL,
	caBundle: string | undefined,
	raw: Duplex | undefined,
	body: JsonObject,
	patience: number,
): Promise<JsonObject> {
	const [{ request }, { connect }] = await Promise.all([import('node:https'), import('node:tls')])
	const ca = caBundle === undefined || caBundle === '' ? undefined : Buffer.from(caBundle, 'base64').toString()
	const bytes = Buffer.from(JSON.stringify(body))
	const options: RequestOptions = {
		method: 'POST',
		headers: { 'content-type': 'application/json', accept: 'application/json', 'content-length': bytes.length },
		timeout: patience,
		...(ca === undefined ? {} : { ca }),
		// A connection of its own is used where no agent is named.
		...(raw === undefined
			? { agent: false }
			: {
					createConnection: () =>
						connect({ socket: raw, servername: url.hostname, ...(ca === undefined ? {} : { ca }) }) as never,
				}),
	}
	return new Promise((resolve, reject) => {
		const sent = request(url, options, (answer) => {
			const chunks: Buffer[] = []
			let size = 0
			answer.on('data', (chunk: Buffer) => {
				size += chunk.length
				if (size > longestAnswer) sent.destroy(new Error('its answer is too long'))
				else chunks.push(chunk)
			})
			answer.on('error', reject)
			answer.on('end', () => {
				const text = Buffer.concat(chunks).toString()
				if (answer.statusCode !== 200) {
					reject(new Error(`it answered ${answer.statusCode}: ${text.slice(0, 200)}`))
					return
				}
				try {
					const value = JSON.parse(text) as unknown
					if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error('no object')
					resolve(value as JsonObject)
				} catch {
					reject(new Error('its answer is not a JSON object'))
				}
			})
		})
		sent.on('timeout', () => sent.destroy(new Error(`no answer within ${patience / 1000} s`)))
		sent.on('error', (e) => {
			raw?.destroy()
			reject(e)
		})
		sent.end(bytes)
	})
}
