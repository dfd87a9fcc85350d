// Between Node's HTTP over a unix socket and the Request and Response of a Transport.

import { request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http'
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

/** Serves one request by a Transport, as if it had come to `path`. */
export async function serveByTransport(
	transport: Transport,
	path: string,
	message: IncomingMessage,
	response: ServerResponse,
): Promise<void> {
	const abort = new AbortController()
	response.once('close', () => abort.abort())
	const headers = new Headers()
	for (let i = 0; i < message.rawHeaders.length; i += 2) {
		const name = (message.rawHeaders[i] as string).toLowerCase()
		if (name !== 'connection' && name !== 'transfer-encoding' && name !== 'keep-alive') {
			headers.append(name, message.rawHeaders[i + 1] as string)
		}
	}
	const method = message.method ?? 'GET'
	const hasBody = method !== 'GET' && method !== 'HEAD'
	const answer = await transport(
		new Request(`http://lab${path}`, {
			method,
			headers,
			signal: abort.signal,
			...(hasBody ? { body: Readable.toWeb(message) as ReadableStream, duplex: 'half' } : {}),
		} as RequestInit),
	)
	response.writeHead(answer.status, Object.fromEntries(answer.headers))
	if (answer.body === null) {
		response.end()
		return
	}
	// Headers at once: a watch may stay silent for long.
	response.flushHeaders()
	try {
		for await (const chunk of answer.body) {
			if (!response.write(chunk)) await new Promise<void>((resolve) => onceWritable(response, resolve))
			if (response.destroyed) return
		}
	} catch (e) {
		if (!abort.signal.aborted) response.destroy(e as Error)
		return
	}
	response.end()
}

function onceWritable(response: ServerResponse, done: () => void): void {
	const finish = () => {
		response.off('drain', finish)
		response.off('close', finish)
		done()
	}
	response.on('drain', finish)
	response.on('close', finish)
}
