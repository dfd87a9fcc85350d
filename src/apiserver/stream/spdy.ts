// One SPDY/3.1 connection as Kubernetes' servers hold it: the client opens streams, we answer. Kubernetes' clients keep
// no windows (no WINDOW_UPDATE), so a stream that nobody reads holds up its connection, as with the real server.

import { Duplex } from 'node:stream'
import type { Clock } from '../../base/clock.ts'
import {
	createFrameReader,
	createReplyWriter,
	dataHead,
	goAwayFrame,
	pingFrame,
	resetFrame,
	type SpdyFrame,
	type SpdyHeaders,
} from './spdy-frame.ts'

/** A stream the client opened; `finish` as any Duplex, `destroy` resets it. */
export class SpdyStream extends Duplex {
	readonly id: number
	readonly headers: SpdyHeaders
	readonly #connection: SpdyConnection

	constructor(connection: SpdyConnection, id: number, headers: SpdyHeaders) {
		super({ highWaterMark: 256 * 1024, allowHalfOpen: true, emitClose: true })
		this.id = id
		this.headers = headers
		this.#connection = connection
		// Whoever reads and writes hears of it; a reset must never be an unheard exception.
		this.on('error', () => {})
	}

	override _read(): void {
		this.#connection.unblock(this)
	}

	override _write(chunk: Buffer, _: BufferEncoding, done: (e?: Error | null) => void): void {
		this.#connection.sendData(this.id, chunk, done)
	}

	override _final(done: (e?: Error | null) => void): void {
		this.#connection.sendFin(this.id)
		done()
	}

	override _destroy(error: Error | null, done: (e?: Error | null) => void): void {
		this.#connection.forget(this, this.readableEnded && this.writableFinished)
		done(error)
	}
}

export interface SpdyOptions {
	/** A stream begins. */
	readonly onStream: (stream: SpdyStream) => void
	/** The connection has ended, for whatever reason; called once. */
	readonly onClose: () => void
	readonly clock: Clock
}

/** Streams of one connection; more are refused. */
const mostStreams = 1000
/** Data frames of ours: small enough that streams take turns. */
const largestChunk = 64 * 1024
/** While we do not read, only a write shows that the client is gone. */
const pulse = 2_000
/** How long an ended connection waits for the client to end it too. */
const patience = 5_000

export class SpdyConnection {
	readonly #transport: Duplex
	readonly #options: SpdyOptions
	readonly #streams = new Map<number, SpdyStream>()
	/** Streams whose reader is behind: nothing is read while there is one. */
	readonly #blocked = new Set<SpdyStream>()
	readonly #reply = createReplyWriter()
	#last = 0
	#pings = 0
	#ending = false
	#closed = false
	#cancelPulse: (() => void) | undefined

	/** `head`: bytes read already. */
	constructor(transport: Duplex, head: Buffer, options: SpdyOptions) {
		this.#transport = transport
		this.#options = options
		const read = createFrameReader((frame) => this.#take(frame))
		const take = (chunk: Buffer) => {
			if (this.#closed || this.#ending) return
			try {
				read(chunk)
			} catch {
				transport.destroy()
			}
		}
		transport.on('data', take)
		transport.on('error', () => transport.destroy())
		transport.on('end', () => this.end())
		transport.on('close', () => this.#close())
		if (head.length > 0) take(head)
		transport.resume()
	}

	/** Lets what was written go out, then closes. */
	end(): void {
		if (this.#ending || this.#closed) return
		this.#ending = true
		const { clock } = this.#options
		this.#transport.write(goAwayFrame(this.#last))
		this.#transport.end()
		this.#blocked.clear()
		this.#transport.resume()
		const cancel = clock.after(patience, () => this.#transport.destroy())
		this.#transport.once('close', cancel)
	}

	sendData(id: number, chunk: Buffer, done: (e?: Error | null) => void): void {
		const transport = this.#transport
		if (this.#closed || !transport.writable) {
			done(new Error('the client went away'))
			return
		}
		transport.cork()
		let room = true
		for (let at = 0; at < chunk.length; at += largestChunk) {
			const part = chunk.subarray(at, at + largestChunk)
			transport.write(dataHead(id, part.length, false))
			room = transport.write(part)
		}
		transport.uncork()
		if (room) {
			done()
			return
		}
		const go = () => {
			transport.off('drain', go)
			transport.off('close', go)
			done(transport.destroyed ? new Error('the client went away') : null)
		}
		transport.on('drain', go)
		transport.on('close', go)
	}

	sendFin(id: number): void {
		if (!this.#closed && this.#transport.writable) this.#transport.write(dataHead(id, 0, true))
	}

	forget(stream: SpdyStream, complete: boolean): void {
		this.unblock(stream)
		if (!this.#streams.delete(stream.id) || complete || this.#closed || !this.#transport.writable) return
		this.#transport.write(resetFrame(stream.id, 5))
	}

	unblock(stream: SpdyStream): void {
		if (!this.#blocked.delete(stream) || this.#blocked.size > 0) return
		this.#cancelPulse?.()
		this.#cancelPulse = undefined
		this.#transport.resume()
	}

	#block(stream: SpdyStream): void {
		this.#blocked.add(stream)
		this.#transport.pause()
		if (this.#cancelPulse === undefined) this.#beat()
	}

	#beat(): void {
		this.#cancelPulse = this.#options.clock.after(pulse, () => {
			if (this.#closed || !this.#transport.writable) return
			this.#transport.write(pingFrame((this.#pings += 2)))
			this.#beat()
		})
	}

	#take(frame: SpdyFrame): void {
		switch (frame.kind) {
			case 'data': {
				const stream = this.#streams.get(frame.stream)
				if (stream === undefined) return
				if (frame.data.length > 0 && !stream.push(frame.data)) this.#block(stream)
				if (frame.fin) this.#endOf(stream)
				return
			}
			case 'syn-stream':
				this.#open(frame)
				return
			case 'headers': {
				const stream = this.#streams.get(frame.stream)
				if (frame.fin && stream !== undefined) this.#endOf(stream)
				return
			}
			case 'rst-stream': {
				const stream = this.#streams.get(frame.stream)
				if (stream === undefined) return
				// Forgotten first: a reset is not answered with one.
				this.#streams.delete(frame.stream)
				stream.destroy(new Error('the client reset the stream'))
				return
			}
			case 'ping':
				// Odd numbers are the client's, even ones answers to ours.
				if (frame.id % 2 === 1 && this.#transport.writable) this.#transport.write(pingFrame(frame.id))
				return
			case 'goaway':
			case 'other':
				return
			default:
				frame satisfies never
		}
	}

	#open(frame: SpdyFrame & { readonly kind: 'syn-stream' }): void {
		const { stream: id } = frame
		if (id % 2 === 0 || id <= this.#last) throw new Error(`stream ${id} cannot be opened`)
		this.#last = id
		if (this.#streams.size >= mostStreams) {
			this.#transport.write(resetFrame(id, 3))
			return
		}
		const stream = new SpdyStream(this, id, frame.headers)
		this.#streams.set(id, stream)
		this.#transport.write(this.#reply(id))
		if (frame.fin) this.#endOf(stream)
		this.#options.onStream(stream)
	}

	#endOf(stream: SpdyStream): void {
		if (!stream.readableEnded) stream.push(null)
	}

	#close(): void {
		if (this.#closed) return
		this.#closed = true
		this.#cancelPulse?.()
		for (const stream of this.#streams.values()) stream.destroy(new Error('the client went away'))
		this.#streams.clear()
		this.#blocked.clear()
		this.#options.onClose()
	}
}
