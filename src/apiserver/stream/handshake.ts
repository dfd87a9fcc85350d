// How a connection is taken over: the WebSocket handshake, and the older upgrade to SPDY/3.1.

import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'
import type { User } from '../api.ts'
import { badRequest, refuse } from '../status.ts'

export interface Upgrade {
	readonly incoming: IncomingMessage
	readonly socket: Duplex
	readonly head: Buffer
	/** Path and query. */
	readonly path: string
	readonly user: User
}

/** What the client asks to change to. Throws Refusal 400 for what this server cannot speak. */
export function upgradeKind({ incoming }: Upgrade): 'websocket' | 'spdy' {
	const kind = (incoming.headers.upgrade ?? '').toLowerCase()
	if (kind === 'websocket') return 'websocket'
	if (kind === 'spdy/3.1') return 'spdy'
	throw badRequest(
		`unable to upgrade: this server speaks WebSocket and SPDY/3.1, the client asked for ${JSON.stringify(incoming.headers.upgrade ?? '')}`,
	)
}

/** The WebSocket subprotocols a client offers, the one it likes most first. */
export function offeredProtocols({ incoming }: Upgrade): string[] {
	return (incoming.headers['sec-websocket-protocol'] ?? '').split(',').map((p) => p.trim())
}

/** The WebSocket handshake. `ours`: the best first. Throws Refusal 400 where the client offers none of them. */
export async function acceptWebSocket<P extends string>(
	request: Upgrade,
	ours: readonly P[],
): Promise<{ readonly socket: WebSocket; readonly protocol: P }> {
	const offered = offeredProtocols(request)
	const protocol = ours.find((p) => offered.includes(p))
	if (protocol === undefined) {
		throw badRequest(`unable to upgrade: none of the protocols ${JSON.stringify(offered)} is one of ${ours.join(', ')}`)
	}
	const { WebSocketServer } = await import('ws')
	// A tunnel for SPDY is named with a slash, which RFC 6455 does not allow and ws refuses: it is shown a name without.
	request.incoming.headers['sec-websocket-protocol'] = 'chosen'
	const accepting = new WebSocketServer({
		noServer: true,
		clientTracking: false,
		perMessageDeflate: false,
		handleProtocols: () => protocol,
		maxPayload: 32 * 1024 * 1024,
	})
	return new Promise((resolve) => {
		accepting.handleUpgrade(request.incoming, request.socket, request.head, (socket) => {
			socket.on('error', () => {})
			resolve({ socket, protocol })
		})
	})
}

/**
 * The upgrade to SPDY/3.1: answers 101 and the protocol both speak. Throws Refusal 403 where the client offers none of
 * `ours` (best first), as the real server does. After it the socket speaks SPDY, beginning with `request.head`.
 */
export function acceptSpdy<P extends string>(request: Upgrade, ours: readonly P[]): P {
	// Node joins repeated headers with a comma: client-go sends one line for each.
	const offered = String(request.incoming.headers['x-stream-protocol-version'] ?? '')
		.split(',')
		.map((p) => p.trim())
	const protocol = ours.find((p) => offered.includes(p))
	if (protocol === undefined) {
		throw refuse(
			'Forbidden',
			`unable to upgrade: none of the protocols ${JSON.stringify(offered)} is one of ${ours.join(', ')}`,
			{},
		)
	}
	request.socket.write(
		`HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: SPDY/3.1\r\nx-stream-protocol-version: ${protocol}\r\n\r\n`,
	)
	return protocol
}
