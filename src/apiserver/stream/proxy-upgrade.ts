// Upgrades (WebSocket, SPDY, any other) through pods/proxy and services/proxy: the request is passed on, and when the pod
// changes protocols both sides are one stream. Source: apimachinery's upgrade-aware proxy, its rules.

import type { IncomingMessage } from 'node:http'
import { pipeline } from 'node:stream'
import { refuse } from '../status.ts'
import type { Upgrade } from './handshake.ts'
import { dial, hostOf, notPassedOn, type ProxyCall, placeOf } from './proxy.ts'

/** A WebSocket from a browser carries its token as a protocol: none of a pod's business. */
const tokenProtocol = 'base64url.bearer.authorization.k8s.io.'
const longestHead = 64 * 1024

/** Takes the connection over. `path`: what the pod is asked for, with the query. Throws Refusal 400, 404, 503. */
export async function proxyUpgrade(call: ProxyCall, upgrade: Upgrade, path: string): Promise<void> {
	const { incoming, socket, head } = upgrade
	const place = placeOf(call)
	const { raw, connection } = await dial(call, place)
	const end = () => {
		raw.destroy()
		socket.destroy()
	}
	connection.on('error', end)
	socket.on('error', end)
	socket.on('close', end)
	connection.write(`${incoming.method ?? 'GET'} ${path} HTTP/1.1\r\n${headersOf(incoming, hostOf(place))}\r\n`)
	const answer = await readHead(connection).catch((e: Error) => {
		raw.destroy()
		throw refuse('ServiceUnavailable', `error trying to reach service: ${hostOf(place)}: ${e.message}`, {})
	})
	if (socket.destroyed) return end()
	socket.write(answer.bytes)
	if (answer.status === 101) {
		// Only now: whoever is not let in must not go on talking on a connection that is open to the pod.
		if (head.length > 0) connection.write(head)
		pipeline(socket, connection, end)
		pipeline(connection, socket, end)
		return
	}
	connection.on('end', end)
	connection.pipe(socket)
}

function headersOf(incoming: IncomingMessage, host: string): string {
	let out = `host: ${host}\r\nconnection: Upgrade\r\nupgrade: ${incoming.headers.upgrade ?? ''}\r\n`
	const raw = incoming.rawHeaders
	for (let i = 0; i + 1 < raw.length; i += 2) {
		const name = raw[i]!.toLowerCase()
		let value = raw[i + 1]!
		if (name === 'host' || notPassedOn.has(name) || name.startsWith('impersonate-')) continue
		if (name === 'sec-websocket-protocol') {
			const rest = value.split(',').filter((one) => !one.trim().startsWith(tokenProtocol))
			if (rest.length === 0) continue
			value = rest.join(',').trim()
		}
		out += `${raw[i]}: ${value}\r\n`
	}
	return out
}

/** The answer up to and with the empty line, and what came after it in the same bytes. */
function readHead(connection: NodeJS.ReadableStream): Promise<{ readonly status: number; readonly bytes: Buffer }> {
	return new Promise((resolve, reject) => {
		let bytes = Buffer.alloc(0)
		const stop = () => {
			connection.off('data', onData)
			connection.off('end', onEnd)
			connection.off('close', onEnd)
			connection.off('error', onError)
		}
		const onData = (chunk: Buffer) => {
			bytes = Buffer.concat([bytes, chunk])
			const status = /^HTTP\/1\.\d (\d{3})/.exec(bytes.toString('latin1', 0, 16))?.[1]
			if (bytes.includes('\r\n\r\n') && status !== undefined) {
				stop()
				connection.pause()
				resolve({ status: Number(status), bytes })
			} else if (bytes.length > longestHead || (bytes.length > 16 && status === undefined)) {
				stop()
				reject(new Error('it does not answer in HTTP/1.1'))
			}
		}
		const onEnd = () => {
			stop()
			reject(new Error('it closed the connection'))
		}
		const onError = (e: Error) => {
			stop()
			reject(e)
		}
		connection.on('data', onData)
		connection.on('end', onEnd)
		connection.on('close', onEnd)
		connection.on('error', onError)
	})
}
