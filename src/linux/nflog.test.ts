import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { decodeConnectionEvent } from './conntrack-events.ts'
import { type NetlinkMessage, readMessages } from './netlink/decode.ts'
import { NetlinkEncoder, NLM_F_CREATE } from './netlink/encode.ts'
import { decodeLogged, readHeaders, writeConfig } from './nflog.ts'

const hex = (text: string) => Buffer.from(text.replaceAll(/[^0-9a-f]/g, ''), 'hex')

function message(type: number, write: (e: NetlinkEncoder) => void, flags = 0): NetlinkMessage {
	const e = new NetlinkEncoder()
	e.begin(type, flags).nfgen(2, 0)
	write(e)
	e.end()
	return readMessages(e.bytes())[0]!
}

/** 10.244.1.3:43926 → 10.244.2.4:5432, SYN. */
const syn = hex(`45000034 00004000 40060000 0af40103 0af40204
	ab961538 00000001 00000000 80c2faf0 00000000 020405b4 01030307`)

describe('nflog', () => {
	it('asks for a group as the kernel documents, byte by byte', () => {
		const e = new NetlinkEncoder()
		writeConfig(e, 5771)
		assert.equal(
			e.bytes().toString('hex').match(/.{8}/g)?.join(' '),
			[
				'1c000000 01040500 01000000 00000000', // 28 bytes, ULOG config, REQUEST|ACK
				'0000168b', // group 5771
				'05000100 01000000', // bind
				'38000000 01040500 02000000 00000000',
				'0000168b',
				'0a000200 000000a0 02000000', // 160 bytes of the packet
				'08000400 00000005', // after 50 ms
				'08000500 00000020', // or 32 packets
				'06000600 00010000', // numbered
			].join(' '),
		)
	})

	it('reads a packet: prefix, place, time, headers', () => {
		const [logged] = decodeLogged(
			message(4 << 8, (e) =>
				e
					.attr(1, hex('08000200'))
					.u32be(2, 0x4000)
					.attr(3, hex('0000000069000000 000000000001e240'))
					.u32be(4, 7)
					.u32be(5, 9)
					.attr(8, hex('00060000 eeeeeeeeeeee0000'))
					.attr(9, syn)
					.string(10, 'podwire deny ingress-shop-0a1b NetworkPolicy shop/db')
					.u32be(12, 41),
			),
		)
		assert.deepEqual(logged, {
			prefix: 'podwire deny ingress-shop-0a1b NetworkPolicy shop/db',
			hook: 'forward',
			inIndex: 7,
			outIndex: 9,
			mark: 0x4000,
			time: 0x69000000 * 1000 + 123.456,
			hardwareAddress: 'ee:ee:ee:ee:ee:ee',
			sequence: 41,
			packet: {
				source: '10.244.1.3',
				destination: '10.244.2.4',
				protocolNumber: 6,
				protocol: 'TCP',
				sourcePort: 43926,
				destinationPort: 5432,
				tcpFlags: 'SEW',
				length: 52,
			},
		})
	})

	it('takes what the kernel leaves out as not there', () => {
		const [logged] = decodeLogged(message(4 << 8, (e) => e.string(10, 'x')))
		assert.deepEqual(logged, { prefix: 'x', mark: 0 })
		assert.deepEqual(decodeLogged(message((4 << 8) | 1, () => {})), [])
	})

	const six = (next: string, rest: string) =>
		hex(`60000000 0020 ${next} 40 fd000000000000000000000000000001 fd000000000000000000000000000002 ${rest}`)
	const headers: readonly (readonly [string, Buffer, Record<string, unknown> | undefined])[] = [
		['UDP over IPv6', six('11', '0035d43100200000'), { protocol: 'UDP', sourcePort: 53, destinationPort: 54321 }],
		[
			'SCTP behind hop-by-hop and destination options',
			six('00', '3c00050200000000 8400010400000000 1f400050'),
			{ protocol: 'SCTP', sourcePort: 8000, destinationPort: 80 },
		],
		[
			'UDP behind options of 16 bytes',
			six('00', '1101050c00000000 0000000000000000 0035d43100200000'),
			{ protocol: 'UDP', sourcePort: 53 },
		],
		['the first fragment', six('2c', '1100000100000001 0035d43100200000'), { protocol: 'UDP', sourcePort: 53 }],
		[
			'a later fragment has no ports',
			six('2c', '1100010100000001 0035d43100200000'),
			{ protocol: 'UDP', sourcePort: 0, destinationPort: 0 },
		],
		['an echo request', six('3a', '8000000000010001'), { protocol: 'ICMP', icmp: { type: 128, code: 0 } }],
		['a protocol of somebody else', six('2f', '00000000'), { protocol: undefined, protocolNumber: 47 }],
		['a later fragment of IPv4', hex('4500003400002001 40110000 0af40103 0af40204 00350035'), { sourcePort: 0 }],
		['options of IPv4', hex('46000038 00004000 40110000 0af40103 0af40204 01010101 00350036'), { sourcePort: 53 }],
		['cut off in TCP', syn.subarray(0, 24), { protocol: 'TCP', destinationPort: 5432, tcpFlags: undefined }],
		['cut off in IP', syn.subarray(0, 19), undefined],
		['not IP', hex('0001080006040001'.repeat(4)), undefined],
	]
	for (const [name, packet, expected] of headers) {
		it(`reads ${name}`, () => {
			const read = readHeaders(packet)
			if (expected === undefined) assert.equal(read, undefined)
			else
				for (const [key, value] of Object.entries(expected)) assert.deepEqual(read?.[key as keyof typeof read], value)
		})
	}
})

describe('conntrack events', () => {
	const tuple = (e: NetlinkEncoder, type: number, source: string, destination: string, ports: [number, number]) => {
		const outer = e.nest(type)
		const ip = e.nest(1)
		e.attr(1, hex(source)).attr(2, hex(destination)).close(ip)
		const proto = e.nest(2)
		e.u8(1, 6).u16be(2, ports[0]).u16be(3, ports[1]).close(proto).close(outer)
	}
	const connection = (e: NetlinkEncoder) => {
		tuple(e, 1, '0af40103', '0a60000a', [40000, 80])
		tuple(e, 2, '0af40204', '0af40103', [8080, 40000])
	}
	it('tells a new connection from news of an old one', () => {
		const [event] = decodeConnectionEvent(message(1 << 8, connection, NLM_F_CREATE))
		assert.equal(event?.event, 'new')
		assert.equal(event?.connection.original.destination, '10.96.0.10')
		assert.equal(event?.connection.reply.source, '10.244.2.4')
		assert.equal(event?.connection.reply.sourcePort, 8080)
		assert.deepEqual(decodeConnectionEvent(message(1 << 8, connection)), [])
	})
	it('tells what an ICMP message asks, of both families', () => {
		for (const [type, code, number] of [
			[5, 6, 1],
			[8, 9, 58],
		] as const) {
			const ping = (e: NetlinkEncoder, tuple: number) => {
				const outer = e.nest(tuple)
				const ip = e.nest(1)
				e.attr(1, hex('0af40103')).attr(2, hex('0af40204')).close(ip)
				const proto = e.nest(2)
				e.u8(1, number).u8(type, 13).u8(code, 2).close(proto).close(outer)
			}
			const [event] = decodeConnectionEvent(
				message(
					1 << 8,
					(e) => {
						ping(e, 1)
						ping(e, 2)
					},
					NLM_F_CREATE,
				),
			)
			assert.deepEqual(event?.icmp, { type: 13, code: 2 })
		}
	})
	it('tells the end, with what was counted', () => {
		const counters = (e: NetlinkEncoder, type: number, packets: bigint, bytes: bigint) => {
			const mark = e.nest(type)
			e.u64be(1, packets).u64be(2, bytes).close(mark)
		}
		const [event] = decodeConnectionEvent(
			message((1 << 8) | 2, (e) => {
				connection(e)
				counters(e, 9, 5n, 400n)
				counters(e, 10, 4n, 4000n)
			}),
		)
		assert.equal(event?.event, 'end')
		assert.deepEqual(event?.counted, { original: { packets: 5, bytes: 400 }, reply: { packets: 4, bytes: 4000 } })
		assert.equal(decodeConnectionEvent(message((1 << 8) | 2, connection))[0]?.counted, undefined)
	})
})
