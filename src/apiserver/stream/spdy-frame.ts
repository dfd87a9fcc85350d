// Frames of SPDY/3.1, as far as Kubernetes' clients use them: read from bytes and written to bytes. Source: the
// IETF draft draft-mbelshe-httpbis-spdy-00, section 2 (frames) and 2.6.10 (header blocks and their compression).

import { constants, inflateRawSync } from 'node:zlib'
import { headerDictionary, headerDictionaryId } from './spdy-dictionary.ts'

/** Names in lower case; several values of one name are separated by NUL. */
export type SpdyHeaders = ReadonlyMap<string, string>

export type SpdyFrame =
	| { readonly kind: 'data'; readonly stream: number; readonly fin: boolean; readonly data: Buffer }
	| { readonly kind: 'syn-stream'; readonly stream: number; readonly fin: boolean; readonly headers: SpdyHeaders }
	| { readonly kind: 'headers'; readonly stream: number; readonly fin: boolean }
	| { readonly kind: 'rst-stream'; readonly stream: number; readonly status: number }
	| { readonly kind: 'ping'; readonly id: number }
	| { readonly kind: 'goaway' }
	/** Settings, windows (Kubernetes' clients keep none) and what is unknown: nothing to do. */
	| { readonly kind: 'other' }

const type = { synStream: 1, synReply: 2, rstStream: 3, ping: 6, goAway: 7, headers: 8 } as const
const flagFin = 1

/** Nobody who means well sends more in one frame; what does is cut off. */
const largestData = 0xffffff
const largestControl = 64 * 1024
const largestHeaders = 256 * 1024

/** Takes bytes as they come, gives whole frames. Throws Error at the first that breaks the protocol. */
export function createFrameReader(each: (frame: SpdyFrame) => void): (chunk: Buffer) => void {
	const inflate = createHeaderInflater()
	let held: Buffer[] = []
	let size = 0
	/** Bytes that must be there before it is worth looking again. */
	let wanted = 8
	return (chunk) => {
		held.push(chunk)
		size += chunk.length
		if (size < wanted) return
		let bytes = held.length === 1 ? held[0]! : Buffer.concat(held)
		wanted = 8
		while (bytes.length >= 8) {
			const control = bytes[0]! >= 0x80
			const length = bytes.readUIntBE(5, 3)
			if (length > (control ? largestControl : largestData)) throw new Error(`a frame of ${length} bytes is too long`)
			if (bytes.length < 8 + length) {
				wanted = 8 + length
				break
			}
			each(readFrame(bytes, bytes.subarray(8, 8 + length), inflate))
			bytes = bytes.subarray(8 + length)
		}
		held = bytes.length === 0 ? [] : [bytes]
		size = bytes.length
	}
}

function readFrame(head: Buffer, body: Buffer, inflate: (block: Buffer) => Buffer): SpdyFrame {
	const fin = (head[4]! & flagFin) !== 0
	if (head[0]! < 0x80) return { kind: 'data', stream: head.readUInt32BE(0), fin, data: body }
	const version = head.readUInt16BE(0) & 0x7fff
	if (version !== 3) throw new Error(`SPDY version ${version} is not spoken`)
	const need = (length: number) => {
		if (body.length < length) throw new Error('a frame is too short for its kind')
	}
	switch (head.readUInt16BE(2)) {
		case type.synStream:
			need(10)
			return {
				kind: 'syn-stream',
				stream: body.readUInt32BE(0) & 0x7fffffff,
				fin,
				headers: readHeaders(inflate(body.subarray(10))),
			}
		// Read although nobody looks at them: the compression goes on from frame to frame.
		case type.synReply:
		case type.headers:
			need(4)
			inflate(body.subarray(4))
			return { kind: 'headers', stream: body.readUInt32BE(0) & 0x7fffffff, fin }
		case type.rstStream:
			need(8)
			return { kind: 'rst-stream', stream: body.readUInt32BE(0) & 0x7fffffff, status: body.readUInt32BE(4) }
		case type.ping:
			need(4)
			return { kind: 'ping', id: body.readUInt32BE(0) }
		case type.goAway:
			return { kind: 'goaway' }
		default:
			return { kind: 'other' }
	}
}

/**
 * Header blocks of a connection are one zlib stream, flushed after each block (2.6.10.1). At a flush the state of a
 * decompressor is the last 32 KiB it gave: each block is decompressed alone, with those as its dictionary.
 */
function createHeaderInflater(): (block: Buffer) => Buffer {
	let window: Buffer | undefined
	return (block) => {
		let rest = block
		if (window === undefined) {
			if (block.length < 6 || (block[0]! & 15) !== 8) throw new Error('the headers are no zlib stream')
			const named = (block[1]! & 0x20) !== 0
			if (named && block.readUInt32BE(2) !== headerDictionaryId) throw new Error('the headers use another dictionary')
			window = named ? headerDictionary() : Buffer.alloc(0)
			rest = block.subarray(named ? 6 : 2)
		}
		const out = inflateRawSync(rest, {
			...(window.length > 0 ? { dictionary: window } : {}),
			finishFlush: constants.Z_SYNC_FLUSH,
			maxOutputLength: largestHeaders,
		})
		window = Buffer.concat([window, out]).subarray(-32 * 1024)
		return out
	}
}

function readHeaders(block: Buffer): SpdyHeaders {
	const headers = new Map<string, string>()
	let at = 0
	const number = () => {
		if (at + 4 > block.length) throw new Error('a header block is cut off')
		at += 4
		return block.readUInt32BE(at - 4)
	}
	const text = () => {
		const length = number()
		if (at + length > block.length) throw new Error('a header block is cut off')
		at += length
		return block.toString('latin1', at - length, at)
	}
	for (let left = number(); left > 0; left--) {
		const name = text().toLowerCase()
		headers.set(name, text())
	}
	return headers
}

function control(kind: number, body: Buffer): Buffer {
	const head = Buffer.alloc(8)
	head.writeUInt16BE(0x8003, 0)
	head.writeUInt16BE(kind, 2)
	head.writeUIntBE(body.length, 5, 3)
	return Buffer.concat([head, body])
}

function numbers(...values: readonly number[]): Buffer {
	const body = Buffer.alloc(values.length * 4)
	for (const [i, value] of values.entries()) body.writeUInt32BE(value >>> 0, i * 4)
	return body
}

/** Writes SYN_REPLY frames without headers; one per connection, because they too are one zlib stream. */
export function createReplyWriter(): (stream: number) => Buffer {
	let begun = false
	return (stream) => {
		// zlib without compression: a stored block of four bytes (no headers: the count 0), an empty one to flush it.
		const block = Buffer.from([0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff])
		const start = begun ? Buffer.alloc(0) : Buffer.from([0x78, 0x01])
		begun = true
		return control(type.synReply, Buffer.concat([numbers(stream), start, block]))
	}
}

/** The head of a data frame; `length` bytes (less than 2^24) must follow. */
export function dataHead(stream: number, length: number, fin: boolean): Buffer {
	const head = Buffer.alloc(8)
	head.writeUInt32BE(stream, 0)
	head[4] = fin ? flagFin : 0
	head.writeUIntBE(length, 5, 3)
	return head
}

/** Status codes: 1 protocol error, 3 refused, 5 cancelled (2.6.3). */
export const resetFrame = (stream: number, status: number): Buffer => control(type.rstStream, numbers(stream, status))
export const pingFrame = (id: number): Buffer => control(type.ping, numbers(id))
export const goAwayFrame = (last: number): Buffer => control(type.goAway, numbers(last, 0))
