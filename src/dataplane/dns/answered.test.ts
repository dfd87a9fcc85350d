// What is remembered of answers, for how long and how much; that a pod hears an answer after whoever watches it.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Ip, parseCidr } from '../../base/ip.ts'
import { createManualClock } from '../../base/manual-clock.ts'
import { tableOf } from '../../base/table.ts'
import { type AnsweredName, AnswerMemory, answeredNames, mostAddresses, mostNames, shortestHold } from './answered.ts'
import { forwardOutside } from './outside.ts'
import { createResponder } from './responder.ts'
import { type DnsMessage, decodeMessage, encodeQuery, type WireRecord } from './wire.ts'

const ip = (text: string) => text as Ip
const at = (name: string, address: string, ttl: number): WireRecord => ({
	name,
	class: 1,
	ttl,
	type: address.includes(':') ? 'AAAA' : 'A',
	address: ip(address),
})
const alias = (name: string, target: string, ttl: number): WireRecord => ({
	name,
	class: 1,
	ttl,
	type: 'CNAME',
	target,
})

function answer(name: string, answers: readonly WireRecord[], more: Partial<DnsMessage> = {}): DnsMessage {
	return { ...decodeMessage(encodeQuery(name, 'A')), response: true, answers, ...more }
}

const show = (names: readonly AnsweredName[]) =>
	names.map(({ name, addresses }) => `${name} ${addresses.map((a) => `${a.ip} ${a.until}`).join(', ')}`)

for (const [what, message, expected] of [
	[
		'addresses, and how long',
		answer('A.example.com', [at('a.EXAMPLE.com', '192.0.2.1', 60)]),
		['a.example.com 192.0.2.1 61000'],
	],
	[
		'every name of the chain, each as long as what lies between',
		answer('www.example.com', [
			alias('www.example.com', 'b.cdn.example', 600),
			alias('b.cdn.example', 'c.cdn.example', 30),
			at('c.cdn.example', '192.0.2.1', 90),
			at('c.cdn.example', '2001:db8::1', 20),
		]),
		[
			'www.example.com 192.0.2.1 31000, 2001:db8::1 21000',
			'b.cdn.example 192.0.2.1 31000, 2001:db8::1 21000',
			'c.cdn.example 192.0.2.1 91000, 2001:db8::1 21000',
		],
	],
	[
		'a TTL of nothing is some time',
		answer('a.example', [at('a.example', '192.0.2.1', 0)]),
		[`a.example 192.0.2.1 ${1000 + shortestHold}`],
	],
	[
		'a TTL of years is a day',
		answer('a.example', [at('a.example', '192.0.2.1', 1e9)]),
		['a.example 192.0.2.1 86401000'],
	],
	['what nobody asked for', answer('a.example', [at('b.example', '192.0.2.1', 60)]), []],
	['an alias without an address', answer('a.example', [alias('a.example', 'b.example', 60)]), []],
	[
		'aliases in a circle',
		answer('a.example', [alias('a.example', 'b.example', 60), alias('b.example', 'a.example', 60)]),
		[],
	],
	['a refusal', answer('a.example', [at('a.example', '192.0.2.1', 60)], { rcode: 'SERVFAIL' }), []],
] as const)
	test(`an answer: ${what}`, () => assert.deepEqual(show(answeredNames(message, 1000)), expected))

test('memory: what holds, wanted or not yet; bounded', () => {
	const clock = createManualClock(0)
	const memory = new AnswerMemory(clock)
	const name = (text: string, until: number, ...ips: string[]): AnsweredName => ({
		name: text,
		addresses: ips.map((each) => ({ ip: ip(each), until })),
	})
	memory.note([name('a.example.com', 50_000, '192.0.2.1')])
	assert.equal(memory.wants(['a.example.com']), false)
	assert.deepEqual(
		show(memory.watch(['*.example.com'])),
		['a.example.com 192.0.2.1 50000'],
		'asked for before it was wanted',
	)
	assert.equal(memory.wants(['x', 'a.example.com']), true)
	memory.note([name('a.example.com', 40_000, '192.0.2.1', '192.0.2.2')])
	assert.deepEqual(show(memory.all()), ['a.example.com 192.0.2.1 50000, 192.0.2.2 40000'], 'the longer of two')
	clock.advance(45_000)
	assert.deepEqual(show(memory.all()), ['a.example.com 192.0.2.1 50000'])
	assert.deepEqual(memory.watch([]), [])
	assert.equal(memory.all().length, 1, 'still known')
	clock.advance(5_000)
	assert.deepEqual(memory.all(), [])

	memory.watch(['wanted.example'])
	memory.note([name('wanted.example', 1e6, '192.0.2.1')])
	for (let i = 0; i < mostNames + 10; i++) memory.note([name(`n${i}.example`, 1e6, '192.0.2.1')])
	const names = memory.all().map((n) => n.name)
	assert.equal(names.length, mostNames + 1)
	assert.ok(names.includes('wanted.example') && !names.includes('n9.example') && names.includes('n10.example'))
	const many = Array.from({ length: mostAddresses + 9 }, (_, i) => ({
		ip: ip(`10.0.${i >> 8}.${i & 255}`),
		until: 1e6 + i,
	}))
	memory.note([{ name: 'wanted.example', addresses: many }])
	const [kept] = memory.all()
	assert.equal(kept?.addresses.length, mostAddresses)
	assert.ok(!kept.addresses.some((a) => a.ip === '192.0.2.1' || a.ip === '10.0.0.0'), 'those that end first went')
})

test('a pod hears what is watched after those who watch, the rest at once', async () => {
	const web = 'web.default.svc.cluster.local'
	const address = { name: web, type: 'A' as const, address: ip('10.244.0.5'), ttl: 5, because: [] }
	const program = {
		domain: 'cluster.local',
		networks: [parseCidr('10.244.0.0/16')],
		names: tableOf([[web, { records: [address] }]]),
	}
	const memory = new AnswerMemory(createManualClock(0))
	const told: string[] = []
	let know = () => {}
	const responder = createResponder({
		program,
		watch: {
			wants: (names) => memory.wants(names),
			told(message) {
				const names = answeredNames(message, 0)
				if (!memory.wants(names.map((n) => n.name))) return undefined
				told.push(...show(names))
				return new Promise((resolve) => {
					know = resolve
				})
			},
		},
	})
	const sockets = { udp: () => assert.fail('no upstream'), tcp: () => assert.fail('no upstream') }
	const hosts = [{ name: 'api.example.com', addresses: [ip('192.0.2.1'), ip('2001:db8::1')], ttl: 30 }]
	const forward = forwardOutside({ hosts, upstreams: [] }, sockets, createManualClock(0))
	const ask = (name: string, type: 'A' | 'AAAA' = 'A') => responder.respond(encodeQuery(name, type), 'udp', forward)
	const addresses = (bytes: Uint8Array | undefined) =>
		decodeMessage(bytes!).answers.map((r) => ('address' in r ? `${r.address} ${r.ttl}` : r.type))

	assert.ok(ask(web) instanceof Uint8Array, 'at once')
	assert.deepEqual(addresses(await ask('api.example.com')), ['192.0.2.1 30'])
	assert.deepEqual(addresses(await ask('API.example.com', 'AAAA')), ['2001:db8::1 30'])
	assert.equal(decodeMessage((await ask('other.example.com'))!).rcode, 'SERVFAIL', 'nobody knows')
	assert.deepEqual(told, [])

	memory.watch(['*.example.com', web])
	responder.forget()
	for (const [name, expected] of [
		['api.example.com', `api.example.com 192.0.2.1 30000`],
		[web, `${web} 10.244.0.5 ${shortestHold}`],
	] as const) {
		let heard = false
		const asked = Promise.resolve(ask(name)).then((bytes) => {
			heard = true
			return bytes
		})
		await new Promise((resolve) => setImmediate(resolve))
		assert.deepEqual(told.splice(0), [expected])
		assert.equal(heard, false, `${name}: not yet`)
		know()
		assert.equal(addresses(await asked).length, 1)
	}
})
