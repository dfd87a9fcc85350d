import assert from 'node:assert/strict'
import { createSocket } from 'node:dgram'
import { connect, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import { systemClock } from '../../base/clock.ts'
import { parseCidr, parseIp } from '../../base/ip.ts'
import { createManualClock } from '../../base/manual-clock.ts'
import { tableOf } from '../../base/table.ts'
import { AF_INET, bind, getsockname, inetAddress, SOCK_DGRAM, SOCK_STREAM, socket } from '../../linux/syscalls.ts'
import { createResponder } from './responder.ts'
import { type DnsServerOptions, serveDns } from './server.ts'
import { decodeMessage, encodeQuery } from './wire.ts'

const name = 'web.default.svc.cluster.local'
const address = parseIp('10.96.0.20')
const program = {
	domain: 'cluster.local',
	networks: [parseCidr('10.96.0.0/16')],
	names: tableOf([[name, { records: [{ name, type: 'A' as const, address, ttl: 5, because: [] }] }]]),
}

function serve(t: TestContext, options: Partial<DnsServerOptions> = {}): number {
	if (process.platform !== 'linux') {
		t.skip('sockets are made by Linux system calls')
		return 0
	}
	const loopback = Uint8Array.of(127, 0, 0, 1)
	const udp = socket(AF_INET, SOCK_DGRAM, 0)
	bind(udp, inetAddress(loopback, 0))
	const bound = getsockname(udp)
	const port = (bound[2]! << 8) | bound[3]!
	const tcp = socket(AF_INET, SOCK_STREAM, 0)
	bind(tcp, inetAddress(loopback, port))
	const server = serveDns(
		createResponder({ program }),
		{ udp: [{ fd: udp, family: 4 }], tcp: [{ fd: tcp }] },
		{ clock: systemClock, ...options },
	)
	t.after(() => server.close())
	return port
}

function dial(t: TestContext, port: number): Promise<Socket> {
	const { promise, resolve, reject } = Promise.withResolvers<Socket>()
	const client = connect({ port, host: '127.0.0.1', allowHalfOpen: true }, () => resolve(client))
	client.on('error', reject)
	t.after(() => client.destroy())
	return promise
}

const framed = (bytes: Uint8Array) => Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 255]), bytes])

test('UDP', async (t) => {
	const port = serve(t)
	if (port === 0) return
	const client = createSocket('udp4')
	t.after(() => client.close())
	const { promise, resolve } = Promise.withResolvers<Buffer>()
	client.on('message', resolve)
	client.send(Buffer.from([1, 2, 3]), port, '127.0.0.1')
	client.send(encodeQuery(name, 'A', { id: 77 }), port, '127.0.0.1')
	const answer = decodeMessage(await promise)
	assert.equal(answer.id, 77)
	assert.deepEqual(answer.answers, [{ name, class: 1, ttl: 5, type: 'A', address }])
})

test('TCP: several messages on one connection, in pieces, then the end', async (t) => {
	const port = serve(t)
	if (port === 0) return
	const client = await dial(t, port)
	const all = Buffer.concat([1, 2, 3].map((id) => framed(encodeQuery(name, 'A', { id }))))
	for (const byte of all.subarray(0, 20)) client.write(Buffer.of(byte))
	client.end(all.subarray(20))
	let got = Buffer.alloc(0)
	for await (const chunk of client) got = Buffer.concat([got, chunk as Buffer])
	const ids: number[] = []
	while (got.length > 0) {
		const end = 2 + got.readUInt16BE(0)
		ids.push(decodeMessage(got.subarray(2, end)).id)
		got = got.subarray(end)
	}
	assert.deepEqual(ids, [1, 2, 3])
})

test('TCP: idle clients are cut, and there are only so many', async (t) => {
	const clock = createManualClock()
	const port = serve(t, { clock, patience: 1000, connections: 2 })
	if (port === 0) return
	const first = await dial(t, port)
	const second = await dial(t, port)
	const ended = (client: Socket) =>
		new Promise<void>((resolve) =>
			client
				.on('close', () => resolve())
				.on('end', () => client.destroy())
				.resume(),
		)
	const third = await dial(t, port)
	await ended(third)
	const answered = new Promise<void>((resolve) => second.once('data', () => resolve()))
	clock.advance(900)
	second.write(framed(encodeQuery(name, 'A')))
	await answered
	const firstEnds = ended(first)
	clock.advance(200)
	await firstEnds
	assert.equal(second.destroyed, false)
	const secondEnds = ended(second)
	clock.advance(1000)
	await secondEnds
})
