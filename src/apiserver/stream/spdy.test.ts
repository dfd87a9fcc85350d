// SPDY frames as bytes: the dictionary, headers over several frames, and what is not SPDY.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { constants, createDeflate, inflateSync } from 'node:zlib'
import { headerDictionary, headerDictionaryId } from './spdy-dictionary.ts'
import { createFrameReader, createReplyWriter, dataHead, pingFrame, type SpdyFrame } from './spdy-frame.ts'

/** A client's side: one zlib stream for all header blocks, flushed after each. */
function client() {
	const deflate = createDeflate({ dictionary: headerDictionary() })
	return async (stream: number, headers: Readonly<Record<string, string>>): Promise<Buffer> => {
		const number = (value: number) => {
			const bytes = Buffer.alloc(4)
			bytes.writeUInt32BE(value)
			return bytes
		}
		const text = (value: string) => Buffer.concat([number(value.length), Buffer.from(value)])
		const entries = Object.entries(headers)
		deflate.write(Buffer.concat([number(entries.length), ...entries.flatMap(([n, v]) => [text(n), text(v)])]))
		await new Promise<void>((resolve) => deflate.flush(constants.Z_SYNC_FLUSH, resolve))
		const block = deflate.read() as Buffer
		const body = Buffer.concat([number(stream), number(0), Buffer.alloc(2), block])
		const head = Buffer.from([0x80, 3, 0, 1, 0, 0, 0, 0])
		head.writeUIntBE(body.length, 5, 3)
		return Buffer.concat([head, body])
	}
}

/** Adler-32 (RFC 1950). */
function adler(bytes: Buffer): number {
	let [a, b] = [1, 0]
	for (const byte of bytes) {
		a = (a + byte) % 65521
		b = (b + a) % 65521
	}
	return b * 65536 + a
}

test('the dictionary is the one whose checksum every client sends', () => {
	assert.equal(headerDictionary().length, 1423)
	assert.equal(adler(headerDictionary()), headerDictionaryId)
})

test('headers of many streams, in pieces of every size', async () => {
	const open = client()
	const sent: Buffer[] = []
	for (let i = 0; i < 400; i++) {
		sent.push(await open(2 * i + 1, { Streamtype: i % 2 ? 'data' : 'error', port: '80', requestid: String(i >> 1) }))
		sent.push(dataHead(2 * i + 1, 5, i % 3 === 0), Buffer.from('hello'))
	}
	sent.push(pingFrame(7))
	const bytes = Buffer.concat(sent)
	for (const size of [1, 7, 64, 1000, bytes.length]) {
		const frames: SpdyFrame[] = []
		const read = createFrameReader((frame) => frames.push(frame))
		for (let at = 0; at < bytes.length; at += size) read(bytes.subarray(at, at + size))
		assert.equal(frames.length, 801)
		const last = frames[798]
		assert.ok(last?.kind === 'syn-stream')
		assert.deepEqual(
			[...last.headers],
			[
				['streamtype', 'data'],
				['port', '80'],
				['requestid', '199'],
			],
		)
		assert.deepEqual(frames[797], { kind: 'data', stream: 797, fin: false, data: Buffer.from('hello') })
		assert.deepEqual(frames[800], { kind: 'ping', id: 7 })
	}
})

test('replies are one zlib stream that ends at a flush', () => {
	const reply = createReplyWriter()
	const blocks = [reply(1), reply(3)].map((frame) => frame.subarray(12))
	const out = inflateSync(Buffer.concat(blocks), { finishFlush: constants.Z_SYNC_FLUSH })
	assert.deepEqual(out, Buffer.alloc(8))
})

test('what is not SPDY/3 is refused', () => {
	const cases: [string, readonly number[]][] = [
		['another version', [0x80, 2, 0, 1, 0, 0, 0, 0]],
		['a control frame without end', [0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]],
		['a stream without a number', [0x80, 3, 0, 1, 0, 0, 0, 2, 0, 0]],
		['headers that are no zlib', [0x80, 3, 0, 1, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6]],
		['another dictionary', [0x80, 3, 0, 1, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x78, 0xbb, 3, 4, 5, 6]],
	]
	for (const [what, bytes] of cases) {
		assert.throws(() => createFrameReader(() => {})(Buffer.from(bytes)), Error, what)
	}
})
