import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ipFromBytes, parseIp } from '../../base/ip.ts'
import { type DnsMessage, decodeMessage, encodeMessage, encodeQuery, type WireRecord } from './wire.ts'

const hex = (text: string) => Uint8Array.from(Buffer.from(text.replaceAll(/\s/g, ''), 'hex'))
const empty: DnsMessage = {
	id: 0,
	response: false,
	opcode: 0,
	authoritative: false,
	truncated: false,
	recursionDesired: false,
	recursionAvailable: false,
	rcode: 'NOERROR',
	questions: [],
	answers: [],
	authorities: [],
	additionals: [],
}

test('a query as dig sends it', () => {
	// dig +noedns web.default.svc.cluster.local
	const bytes = hex(
		'beef0100 00010000 00000000 03776562 0764656661756c74 03737663 07636c7573746572 056c6f63616c 00 0001 0001',
	)
	assert.deepEqual(encodeQuery('web.default.svc.cluster.local.', 'A', { id: 0xbeef }), bytes)
	assert.deepEqual(decodeMessage(bytes), {
		...empty,
		id: 0xbeef,
		recursionDesired: true,
		questions: [{ name: 'web.default.svc.cluster.local', type: 'A', class: 1 }],
	})
	const edns = encodeQuery('a', 'ANY', { ednsSize: 1232 })
	assert.deepEqual(edns.slice(-11), hex('00 0029 04d0 00000000 0000'))
	assert.deepEqual(decodeMessage(edns).edns, { size: 1232, version: 0, dnssecOk: false })
})

test('an answer is compressed, but the target of a SRV record is not', () => {
	const name = '_http._tcp.web.default.svc.cluster.local'
	const target = 'web.default.svc.cluster.local'
	const bytes = encodeMessage({
		...empty,
		questions: [{ name, type: 'SRV', class: 1 }],
		answers: [{ name, class: 1, ttl: 5, type: 'SRV', priority: 0, weight: 100, port: 80, target }],
		additionals: [{ name: target, class: 1, ttl: 5, type: 'A', address: parseIp('10.96.0.1') }],
	})
	// header, question, answer (pointer, fixed part, data with the whole target), additional (pointer, fixed part, address)
	assert.equal(bytes.length, 12 + (42 + 4) + (2 + 10 + 6 + 31) + (2 + 10 + 4))
	assert.deepEqual(decodeMessage(bytes).answers[0], {
		name,
		class: 1,
		ttl: 5,
		type: 'SRV',
		priority: 0,
		weight: 100,
		port: 80,
		target,
	})
})

const label = fc.oneof(
	fc.stringMatching(/^[a-z0-9_-]{1,12}$/),
	fc
		.uint8Array({ minLength: 1, maxLength: 6 })
		.map((bytes) =>
			[...bytes]
				.map((b) =>
					b === 46 || b === 92
						? `\\${String.fromCharCode(b)}`
						: b > 32 && b < 127
							? String.fromCharCode(b)
							: `\\${String(b).padStart(3, '0')}`,
				)
				.join(''),
		),
)
// Lower case: compression may give a name the case of an equal one before it.
const name = fc.array(label, { maxLength: 6 }).map((labels) => labels.join('.').toLowerCase())
const ip4 = fc.uint8Array({ minLength: 4, maxLength: 4 }).map(ipFromBytes)
const ip6 = fc.uint8Array({ minLength: 16, maxLength: 16 }).map(ipFromBytes)
const word = fc.nat(0xffff)
const long = fc.nat(0x7fffffff)
const plain = { noNullPrototype: true }
const data = fc.oneof(
	fc.record({ type: fc.constant('A' as const), address: ip4 }, plain),
	fc.record({ type: fc.constant('AAAA' as const), address: ip6 }, plain),
	fc.record({ type: fc.constantFrom('CNAME' as const, 'NS' as const, 'PTR' as const), target: name }, plain),
	fc.record({ type: fc.constant('SRV' as const), priority: word, weight: word, port: word, target: name }, plain),
	fc.record({ type: fc.constant('TXT' as const), texts: fc.array(fc.string({ maxLength: 50 })) }, plain),
	fc.record(
		{
			type: fc.constant('SOA' as const),
			primary: name,
			mailbox: name,
			serial: long,
			refresh: long,
			retry: long,
			expire: long,
			minimum: long,
		},
		plain,
	),
	fc.record({ type: fc.constant('TYPE65' as const), data: fc.uint8Array({ maxLength: 20 }) }, plain),
)
const record: fc.Arbitrary<WireRecord> = fc
	.tuple(name, long, data)
	.map(([n, ttl, d]) => ({ name: n, class: 1, ttl, ...d }))
const bit = fc.boolean()
const message: fc.Arbitrary<DnsMessage> = fc.record(
	{
		id: word,
		response: bit,
		opcode: fc.nat(15),
		authoritative: bit,
		truncated: fc.constant(false),
		recursionDesired: bit,
		recursionAvailable: bit,
		rcode: fc.constantFrom('NOERROR' as const, 'NXDOMAIN' as const, 'RCODE9' as const),
		questions: fc.array(
			fc.record({ name, type: fc.constantFrom('A' as const, 'ANY' as const, 'TYPE65' as const), class: word }, plain),
			{ maxLength: 2 },
		),
		answers: fc.array(record),
		authorities: fc.array(record),
		additionals: fc.array(record),
	},
	plain,
)

test('decode(encode(message)) = message', () => {
	fc.assert(
		fc.property(message, fc.boolean(), (m, withEdns) => {
			const sent = withEdns ? { ...m, rcode: 'RCODE16' as const, edns: { size: 1232, version: 0, dnssecOk: true } } : m
			assert.deepEqual(decodeMessage(encodeMessage(sent)), sent)
		}),
		{ numRuns: 300 },
	)
})

test('what does not fit is left out whole, and TC says so', () => {
	const answers = Array.from(
		{ length: 100 },
		(_, i): WireRecord => ({ name: 'big.example', class: 1, ttl: 5, type: 'A', address: parseIp(`10.0.0.${i}`) }),
	)
	const whole: DnsMessage = {
		...empty,
		response: true,
		questions: [{ name: 'big.example', type: 'A', class: 1 }],
		answers,
	}
	for (const limit of [512, 513, 527, 528, 1232, 65535]) {
		for (const edns of [undefined, { size: 4096, version: 0, dnssecOk: false }]) {
			const bytes = encodeMessage({ ...whole, ...(edns === undefined ? {} : { edns }) }, limit)
			assert.ok(bytes.length <= limit && (bytes.length > limit - 16 || limit === 65535))
			const read = decodeMessage(bytes)
			assert.equal(read.malformed, undefined)
			assert.deepEqual(read.answers, answers.slice(0, read.answers.length))
			assert.equal(read.truncated, read.answers.length < 100)
			assert.equal(read.edns !== undefined, edns !== undefined)
		}
	}
	// additionals that do not fit are no loss
	const more = encodeMessage({ ...whole, answers: answers.slice(0, 10), additionals: answers }, 512)
	assert.equal(decodeMessage(more).truncated, false)
	assert.equal(decodeMessage(more).answers.length, 10)
})

test('malformed packets are described, never thrown', () => {
	const table: [string, RegExp][] = [
		['', /ends at byte 0/],
		['beef', /ends at byte 2/],
		['beef01000001000000000000', /past the end/],
		['beef01000001000000000000 c00c 0001 0001', /points forward or to itself/],
		['beef01000001000000000000 c0ff 0001 0001', /points forward/],
		['beef01000001000000000000 0161 c00c 0001 0001', /more than 255 octets/],
		['beef01000001000000000000 4061', /unknown form/],
		['beef01000001000000000000 0561', /past the end/],
		['beef01000000000000000000 00', /1 bytes follow the message/],
		['beef81000000000100000000 00 0001 0001 00000000 0003 010203', /wrong length|middle of a field/],
		['beef81000000000100000000 00 0001 0001 00000000 0005 0102030405', /wrong length/],
		['beef81000000000100000000 00 0010 0001 00000000 0002 05 61', /middle of a field/],
		['beef01000000000000000002 00 0029 1000 00000000 0000 00 0029 1000 00000000 0000', /more than one OPT/],
	]
	for (const [bytes, why] of table) {
		const { malformed } = decodeMessage(hex(bytes))
		assert.match(malformed ?? 'well-formed', why, bytes)
	}
	fc.assert(
		fc.property(fc.uint8Array({ maxLength: 80, size: 'max' }), (bytes) => {
			decodeMessage(bytes)
		}),
		{ numRuns: 500 },
	)
	fc.assert(
		fc.property(
			message,
			fc.array(fc.tuple(fc.nat(300), fc.nat(255)), { maxLength: 8 }),
			fc.nat(400),
			(m, changes, cut) => {
				const bytes = encodeMessage(m).slice(0, cut)
				for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value
				decodeMessage(bytes)
			},
		),
		{ numRuns: 500 },
	)
})

test('names that cannot be sent are refused', () => {
	for (const bad of [`${'a'.repeat(64)}.b`, 'a..b', Array(60).fill('abcd').join('.')]) {
		assert.throws(() => encodeQuery(bad, 'A'), RangeError)
	}
})
