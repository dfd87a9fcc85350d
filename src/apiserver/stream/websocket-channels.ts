// Channels in a WebSocket: each message begins with the number of its channel. Source: k8s.io/apimachinery
// pkg/util/remotecommand constants, KEP-4006.

import { type PassThrough, Writable } from 'node:stream'
import type { WebSocket } from 'ws'
import type { Clock } from '../../base/clock.ts'

/** A stream whose chunks go out on a channel; a chunk is done when the connection took it. */
export function channelOut(socket: WebSocket, number: number): Writable {
	return new Writable({
		highWaterMark: 64 * 1024,
		write(chunk: Buffer, _, done) {
			if (socket.readyState !== socket.OPEN) return done(new Error('the client went away'))
			const message = Buffer.allocUnsafe(chunk.length + 1)
			message[0] = number
			chunk.copy(message, 1)
			socket.send(message, (e) => done(e ?? null))
		},
	})
}

/** While we do not read, only a write shows that the client is gone. */
const pulse = 2_000

/** Messages of a channel as a stream; the connection is not read further while the reader does not keep up. */
export function channelIn(stream: PassThrough, socket: WebSocket, data: Buffer, clock: Clock): void {
	if (stream.writableEnded || stream.destroyed) return
	if (stream.write(data)) return
	socket.pause()
	let cancel = () => {}
	const beat = () => {
		cancel = clock.after(pulse, () => {
			if (socket.readyState !== socket.OPEN) return
			socket.ping()
			beat()
		})
	}
	beat()
	const go = () => {
		cancel()
		stream.off('drain', go)
		stream.off('close', go)
		socket.off('close', go)
		socket.resume()
	}
	stream.on('drain', go)
	stream.on('close', go)
	socket.on('close', go)
}
