// A Transport over a unix socket.

import { request as httpRequest, type IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import { Failure } from '../base/failure.ts'
import type { Transport } from '../kube/transport.ts'

/** A Transport over a unix socket; `prefix` is put before each path. Unreachable: Failure Unreachable. */
export function unixTransport(socketPath: string, prefix: string): Transport {
	return async (request) => {
		const url = new URL(request.url)
		const headers: Record<string, string> = {}
		request.headers.forEach((value, name) => {
			headers[name] = value
		})
		const body = request.body === null ? undefined : Buffer.from(await request.arrayBuffer())
		const message = await new Promise<IncomingMessage>((resolve, reject) => {
			const outgoing = httpRequest(
				{
					socketPath,
					method: request.method,
					path: `${prefix}${url.pathname}${url.search}`,
					headers: body === undefined ? headers : { ...headers, 'content-length': body.length },
					signal: request.signal,
				},
				resolve,
			)
			outgoing.once('error', (e: NodeJS.ErrnoException) => {
				if (request.signal.aborted) reject(request.signal.reason)
				else
					reject(
						new Failure(
							'Unreachable',
							`Cannot reach the lab at ${JSON.stringify(socketPath)}: ${e.message}`,
							{},
							{ cause: e },
						),
					)
			})
			outgoing.end(body)
		})
		return responseOf(message)
	}
}

function responseOf(message: IncomingMessage): Response {
	const headers = new Headers()
	for (let i = 0; i < message.rawHeaders.length; i += 2) {
		headers.append(message.rawHeaders[i] as string, message.rawHeaders[i + 1] as string)
	}
	const status = message.statusCode ?? 500
	const empty = status === 204 || status === 304 || status === 205
	if (empty) message.resume()
	return new Response(empty ? null : (Readable.toWeb(message) as ReadableStream), { status, headers })
}
