// Port-forward in its three forms: SPDY/3.1 (client-go), the same inside a WebSocket (kubectl from 1.31 on, KEP-4006),
// and channels in a WebSocket (other clients). Source: kubelet pkg/cri/streaming/portforward, its protocols.

import { type Duplex, PassThrough } from 'node:stream'
import { messageOf } from '../../base/failure.ts'
import type { Call } from '../api.ts'
import type { KubeletApi } from '../kubelet.ts'
import { kubeletOf, podFor } from '../log.ts'
import { badRequest } from '../status.ts'
import { acceptSpdy, acceptWebSocket, offeredProtocols, type Upgrade, upgradeKind } from './handshake.ts'
import { SpdyConnection, type SpdyStream } from './spdy.ts'
import { channelIn, channelOut } from './websocket-channels.ts'

type Target = Pick<Call, 'api' | 'served' | 'namespace' | 'name'>

interface ForwardedPod {
	readonly kubelet: KubeletApi
	readonly namespace: string
	readonly name: string
}

const tunnel = 'SPDY/3.1+portforward.k8s.io'
const channels = ['v5.channel.k8s.io', 'v4.channel.k8s.io'] as const

/** Takes the connection over. Throws Refusal where there is nothing to forward to. */
export async function forwardPorts(target: Target, request: Upgrade, query: URLSearchParams): Promise<void> {
	const { pod } = podFor(target, 'portforward', firstContainer(target))
	const { namespace = '', name } = pod.metadata
	const forwarded = { kubelet: kubeletOf(target), namespace, name }
	if (upgradeKind(request) === 'spdy') {
		acceptSpdy(request, ['portforward.k8s.io'])
		forwardStreams(forwarded, request.socket, request.head, target)
		return
	}
	if (offeredProtocols(request).includes(tunnel)) {
		const { socket } = await acceptWebSocket(request, [tunnel])
		const { createWebSocketStream } = await import('ws')
		forwardStreams(forwarded, createWebSocketStream(socket), Buffer.alloc(0), target)
		return
	}
	return forwardChannels(forwarded, request, query, target)
}

function firstContainer(target: Target): string {
	const entry = target.api.store.get('pods', `${target.namespace}/${target.name}`)
	const spec = entry?.object.spec as { containers?: readonly { name: string }[] } | undefined
	return spec?.containers?.[0]?.name ?? ''
}

function isPort(port: number): boolean {
	return Number.isInteger(port) && port >= 1 && port <= 65535
}

const failure = (port: number, pod: string, e: unknown) =>
	`error forwarding port ${port} to pod ${pod}: ${messageOf(e)}`

/** How long the second stream of a pair may take. */
const pairPatience = 30_000

/** SPDY: for each connection to a port the client opens two streams, error and data, with one request number. */
function forwardStreams(pod: ForwardedPod, transport: Duplex, head: Buffer, { api }: Target): void {
	const waiting = new Map<string, { stream: SpdyStream; cancel: () => void }>()
	new SpdyConnection(transport, head, {
		clock: api.clock,
		onStream(stream) {
			const kind = stream.headers.get('streamtype')
			const port = Number(stream.headers.get('port') ?? '')
			if ((kind !== 'error' && kind !== 'data') || !isPort(port)) {
				stream.destroy()
				return
			}
			// Clients without request numbers open the two one after the other: the error stream's number names the pair.
			const request = stream.headers.get('requestid') ?? `stream ${kind === 'error' ? stream.id : stream.id - 2}`
			const other = waiting.get(request)
			if (other === undefined) {
				const cancel = api.clock.after(pairPatience, () => {
					waiting.delete(request)
					stream.destroy()
				})
				waiting.set(request, { stream, cancel })
				return
			}
			other.cancel()
			waiting.delete(request)
			if (other.stream.headers.get('streamtype') === kind) {
				stream.destroy()
				other.stream.destroy()
				return
			}
			const [errors, data] = kind === 'data' ? [other.stream, stream] : [stream, other.stream]
			errors.resume()
			void joinPort(pod, port, errors, data)
		},
		onClose() {
			for (const { cancel } of waiting.values()) cancel()
			waiting.clear()
		},
	})
}

/** Bytes both ways between a client's stream and a port; half-closes travel. */
async function joinPort(pod: ForwardedPod, port: number, errors: SpdyStream, data: SpdyStream): Promise<void> {
	let socket: Duplex
	try {
		socket = await pod.kubelet.dial({ namespace: pod.namespace, pod: pod.name, port })
	} catch (e) {
		errors.end(failure(port, pod.name, e))
		data.end()
		data.resume()
		return
	}
	if (data.destroyed) {
		socket.on('error', () => {})
		socket.destroy()
		return
	}
	data.on('close', () => socket.destroy())
	socket.on('error', (e) => {
		if (!errors.writableEnded) errors.end(failure(port, pod.name, e))
		data.end()
		data.resume()
	})
	socket.on('end', () => {
		// The client waits for the end of both; what it still sends goes to the pod until it ends or resets the stream.
		if (!errors.writableEnded) errors.end()
	})
	socket.on('close', () => {
		if (!errors.writableEnded) errors.end()
		data.end()
		data.resume()
	})
	data.pipe(socket)
	socket.pipe(data)
}

/** Each port has two channels, data and error; the first message on each is the port's number. */
async function forwardChannels(
	pod: ForwardedPod,
	request: Upgrade,
	query: URLSearchParams,
	{ api }: Target,
): Promise<void> {
	const ports = query
		.getAll('ports')
		.flatMap((value) => value.split(','))
		.map(Number)
	if (ports.length === 0) throw badRequest('you must specify at least 1 port to forward')
	for (const port of ports) if (!isPort(port)) throw badRequest(`port ${port} is not a port number`)
	const { socket } = await acceptWebSocket(request, channels)
	const inputs: PassThrough[] = []
	const sendError = (i: number, port: number, e: unknown) => {
		if (socket.readyState !== socket.OPEN) return
		socket.send(Buffer.concat([Buffer.from([i * 2 + 1]), Buffer.from(failure(port, pod.name, e))]))
	}
	for (const [i, port] of ports.entries()) {
		for (const number of [i * 2, i * 2 + 1]) socket.send(Buffer.from([number, port & 255, port >> 8]))
		const input = new PassThrough({ highWaterMark: 1024 * 1024 })
		input.on('error', () => {})
		inputs.push(input)
		void (async () => {
			try {
				const stream = await pod.kubelet.dial({ namespace: pod.namespace, pod: pod.name, port })
				socket.once('close', () => stream.destroy())
				stream.on('error', (e) => sendError(i, port, e))
				const out = channelOut(socket, i * 2)
				out.on('error', () => stream.destroy())
				input.pipe(stream)
				stream.pipe(out)
				out.on('finish', () => {
					// The protocol has no way to end one port: the connection ends with its only one.
					if (ports.length === 1) socket.close(1000)
				})
			} catch (e) {
				sendError(i, port, e)
			}
		})()
	}
	socket.on('message', (data: Buffer) => {
		const message = Buffer.isBuffer(data) ? data : Buffer.from(data)
		const input = message.length > 1 && message[0]! % 2 === 0 ? inputs[message[0]! / 2] : undefined
		if (input !== undefined) channelIn(input, socket, message.subarray(1), api.clock)
	})
	socket.on('close', () => {
		for (const input of inputs) input.end()
	})
}
