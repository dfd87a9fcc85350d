import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseCidr, parseIp } from '../../base/ip.ts'
import { tableOf } from '../../base/table.ts'
import { type DnsRecord, recordTtl } from '../../model/zone.ts'
import { applyDns, type DnsChange, type DnsName, type DnsProgram, diffDns } from './program.ts'
import { createResponder, type DnsResponder, type Forward, type Transport } from './responder.ts'
import { type DnsMessage, decodeMessage, encodeMessage, encodeQuery, type TypeName, type WireRecord } from './wire.ts'

const because = [{ default: 'the test' }]
const address = (name: string, ip: string): DnsRecord => ({
	name,
	type: ip.includes(':') ? 'AAAA' : 'A',
	address: parseIp(ip),
	ttl: recordTtl,
	because,
})
const alias = (name: string, target: string): DnsRecord => ({ name, type: 'CNAME', target, ttl: recordTtl, because })
const d = 'cluster.local'
const web = `web.default.svc.${d}`
const records: DnsRecord[] = [
	{
		name: d,
		type: 'SOA',
		primary: `ns.dns.${d}`,
		mailbox: `hostmaster.${d}`,
		serial: 1,
		refresh: 7200,
		retry: 1800,
		expire: 86400,
		minimum: recordTtl,
		ttl: recordTtl,
		because,
	},
	address(web, '10.96.0.20'),
	{ name: `_http._tcp.${web}`, type: 'SRV', priority: 0, weight: 100, port: 80, target: web, ttl: recordTtl, because },
	...Array.from({ length: 3 }, (_, i) => address(`db.default.svc.${d}`, `10.244.1.${i + 1}`)),
	...Array.from({ length: 100 }, (_, i) => address(`big.default.svc.${d}`, `10.244.2.${i + 1}`)),
	alias(`out.default.svc.${d}`, 'www.example.com'),
	alias(`alias.default.svc.${d}`, web),
	alias(`dangling.default.svc.${d}`, `gone.default.svc.${d}`),
	{ name: '20.0.96.10.in-addr.arpa', type: 'PTR', target: web, ttl: recordTtl, because },
]
const onTheWay = [`svc.${d}`, `default.svc.${d}`, `default.pod.${d}`, `_tcp.${web}`]

function programOf(list: readonly DnsRecord[]): DnsProgram {
	const names = new Map<string, DnsName>(onTheWay.map((name) => [name, { records: [] }]))
	for (const r of list) names.set(r.name, { records: [...(names.get(r.name)?.records ?? []), r] })
	return { domain: d, networks: [parseCidr('10.96.0.0/16'), parseCidr('10.244.0.0/16')], names: tableOf(names) }
}
const program = programOf(records)

function show(r: WireRecord): string {
	if ('address' in r) return r.address
	if ('target' in r) return r.type === 'SRV' ? `${r.port} ${r.target}` : `${r.type} ${r.target}`
	return r.type === 'SOA' ? `SOA ${r.name} ${r.ttl}` : r.type
}
function ask(responder: DnsResponder, bytes: Uint8Array, transport: Transport = 'udp'): DnsMessage | undefined {
	const answer = responder.respond(bytes, transport)
	assert.ok(!(answer instanceof Promise))
	return answer === undefined ? undefined : decodeMessage(answer)
}
function line(m: DnsMessage | undefined): string {
	if (m === undefined) return 'nothing'
	const flags = `${m.authoritative ? ' aa' : ''}${m.truncated ? ' tc' : ''}`
	const part = (title: string, list: readonly WireRecord[]) =>
		list.length === 0 ? '' : ` ${title}: ${list.map(show).join(', ')}`
	return `${m.rcode}${flags}${part('answer', m.answers)}${part('authority', m.authorities)}${part('more', m.additionals)}`
}

test('answers', () => {
	const soa = ` authority: SOA ${d} 5`
	const table: [string, TypeName, string][] = [
		[web, 'A', 'NOERROR aa answer: 10.96.0.20'],
		['WEB.default.SVC.cluster.local', 'A', 'NOERROR aa answer: 10.96.0.20'],
		[web, 'AAAA', `NOERROR aa${soa}`],
		[`nope.default.svc.${d}`, 'A', `NXDOMAIN aa${soa}`],
		[`default.svc.${d}`, 'A', `NOERROR aa${soa}`],
		[`_http._tcp.${web}`, 'SRV', `NOERROR aa answer: 80 ${web} more: 10.96.0.20`],
		[`db.default.svc.${d}`, 'A', 'NOERROR aa answer: 10.244.1.1, 10.244.1.2, 10.244.1.3'],
		[`alias.default.svc.${d}`, 'A', `NOERROR aa answer: CNAME ${web}, 10.96.0.20`],
		[`alias.default.svc.${d}`, 'AAAA', `NOERROR aa answer: CNAME ${web}${soa}`],
		[`dangling.default.svc.${d}`, 'A', `NXDOMAIN aa answer: CNAME gone.default.svc.${d}${soa}`],
		[`out.default.svc.${d}`, 'A', 'NOERROR aa answer: CNAME www.example.com'],
		[`10-244-1-3.default.pod.${d}`, 'A', 'NOERROR aa answer: 10.244.1.3'],
		['20.0.96.10.in-addr.arpa', 'PTR', `NOERROR aa answer: PTR ${web}`],
		['9.9.244.10.in-addr.arpa', 'PTR', 'NXDOMAIN aa authority: SOA 244.10.in-addr.arpa 5'],
		['8.8.8.8.in-addr.arpa', 'PTR', 'SERVFAIL'],
		['www.example.com', 'A', 'SERVFAIL'],
		['', 'NS', 'SERVFAIL'],
	]
	const responder = createResponder({ program })
	assert.deepEqual(
		table.map(([name, type]) => [name, type, line(ask(responder, encodeQuery(name, type)))]),
		table,
	)
})

test('odd queries get their code, or nothing', () => {
	const query = decodeMessage(encodeQuery(web, 'A', { id: 7 }))
	const q = query.questions[0]!
	const table: [Partial<DnsMessage>, string][] = [
		[{}, 'NOERROR aa answer: 10.96.0.20'],
		[{ response: true }, 'nothing'],
		[{ opcode: 4 }, 'NOTIMP'],
		[{ questions: [] }, 'FORMERR'],
		[{ questions: [q, q] }, 'FORMERR'],
		[{ questions: [{ ...q, class: 3 }] }, 'REFUSED'],
		[{ questions: [{ ...q, class: 255 }] }, 'NOERROR aa answer: 10.96.0.20'],
		[{ questions: [{ ...q, type: 'TYPE252' }] }, 'REFUSED'],
		[{ questions: [{ ...q, type: 'TYPE65' }] }, `NOERROR aa authority: SOA ${d} 5`],
		[{ questions: [{ ...q, type: 'ANY' }] }, 'NOERROR aa answer: 10.96.0.20'],
		[{ edns: { size: 1232, version: 1, dnssecOk: false } }, 'RCODE16'],
		[{ edns: { size: 0, version: 0, dnssecOk: true } }, 'NOERROR aa answer: 10.96.0.20'],
	]
	for (const [change, want] of table) {
		const responder = createResponder({ program })
		const bytes = encodeMessage({ ...query, ...change })
		for (const turn of [1, 2]) assert.equal(line(ask(responder, bytes)), want, `${JSON.stringify(change)} turn ${turn}`)
		const answer = ask(responder, bytes)
		if (answer === undefined) continue
		assert.equal(answer.id, 7)
		assert.equal(answer.recursionDesired, true)
		assert.equal(answer.edns !== undefined, change.edns !== undefined)
		assert.equal(answer.malformed, undefined)
	}
	assert.equal(line(ask(createResponder({ program }), encodeQuery(web, 'A').slice(0, 20))), 'FORMERR')
	assert.equal(ask(createResponder({ program }), new Uint8Array(11)), undefined)
})

test('the question comes back with its case, and every id with its own answer', () => {
	const responder = createResponder({ program })
	for (const [i, name] of ['WeB.default.svc.cluster.local', web, 'WeB.default.svc.cluster.local'].entries()) {
		const answer = ask(responder, encodeQuery(name, 'A', { id: i, recursionDesired: i !== 1 }))
		assert.equal(answer?.id, i)
		assert.equal(answer?.recursionDesired, i !== 1)
		assert.equal(answer?.questions[0]?.name, name)
		assert.equal(answer?.answers[0]?.name, name)
	}
	assert.deepEqual(responder.counters, { kept: 1, built: 2 })
})

test('large answers are cut for UDP, whole for TCP, and all addresses get their turn', () => {
	const responder = createResponder({ program })
	const big = `big.default.svc.${d}`
	const size = (edns: number | undefined, transport: Transport) => {
		const bytes = encodeQuery(big, 'A', edns === undefined ? {} : { ednsSize: edns })
		const answer = responder.respond(bytes, transport) as Uint8Array
		const message = decodeMessage(answer)
		assert.ok(answer.length <= (transport === 'tcp' ? 65535 : Math.min(1232, Math.max(512, edns ?? 512))))
		return `${message.answers.length}${message.truncated ? ' tc' : ''}`
	}
	for (const _turn of [1, 2]) {
		assert.equal(size(undefined, 'udp'), '29 tc')
		assert.equal(size(512, 'udp'), '28 tc')
		assert.equal(size(4096, 'udp'), '73 tc')
		assert.equal(size(1232, 'udp'), '73 tc')
		assert.equal(size(undefined, 'tcp'), '100')
		assert.equal(size(100, 'tcp'), '100')
	}
	const firsts = Array.from({ length: 6 }, () =>
		show(ask(responder, encodeQuery(`db.default.svc.${d}`, 'A'))!.answers[0]!),
	)
	assert.deepEqual(firsts, ['10.244.1.1', '10.244.1.2', '10.244.1.3', '10.244.1.1', '10.244.1.2', '10.244.1.3'])
})

test('a change is answered from the next query on; other answers are kept', () => {
	const responder = createResponder()
	responder.apply(diffDns(undefined, program))
	const names = [
		web,
		`alias.default.svc.${d}`,
		`nope.default.svc.${d}`,
		`10-1-1-1.default.pod.${d}`,
		`10-1-1-1.late.pod.${d}`,
		`_http._tcp.${web}`,
		`db.default.svc.${d}`,
	]
	const all = () => names.map((name) => line(ask(responder, encodeQuery(name, name.startsWith('_') ? 'SRV' : 'A'))))
	all()
	const built = responder.counters.built
	all()
	assert.equal(responder.counters.built, built)
	const next = {
		...program,
		names: program.names
			.set(web, { records: [address(web, '10.96.0.99')] })
			.set(`nope.default.svc.${d}`, { records: [address(`nope.default.svc.${d}`, '10.96.0.77')] })
			.set(`late.pod.${d}`, { records: [] })
			.delete(`default.pod.${d}`),
	}
	const changes = diffDns(program, next)
	assert.equal(changes.length, 4)
	responder.apply(JSON.parse(JSON.stringify(changes)) as DnsChange[])
	const soa = `authority: SOA ${d} 5`
	assert.deepEqual(all(), [
		'NOERROR aa answer: 10.96.0.99',
		`NOERROR aa answer: CNAME ${web}, 10.96.0.99`,
		'NOERROR aa answer: 10.96.0.77',
		`NXDOMAIN aa ${soa}`,
		'NOERROR aa answer: 10.1.1.1',
		`NOERROR aa answer: 80 ${web} more: 10.96.0.99`,
		// kept, and in its third turn
		'NOERROR aa answer: 10.244.1.3, 10.244.1.1, 10.244.1.2',
	])
	assert.equal(responder.counters.built, built + 6)
})

test('apply(diff(a, b), a) = b; diff(a, a) is empty', () => {
	const some = fc.subarray(records)
	fc.assert(
		fc.property(some, some, fc.boolean(), (first, second, renamed) => {
			const a = programOf(first)
			const b = { ...programOf(second), ...(renamed ? { domain: 'other.local' } : {}) }
			const plain = (p: DnsProgram) => ({
				...p,
				names: Object.fromEntries([...p.names].sort(([x], [y]) => (x < y ? -1 : 1))),
			})
			assert.deepEqual(plain(applyDns(a, diffDns(a, b))), plain(b))
			assert.deepEqual(plain(applyDns(undefined, diffDns(undefined, b))), plain(b))
			assert.deepEqual(diffDns(a, programOf(first)), [])
		}),
	)
})

test('names outside go upstream', async () => {
	const asked: string[] = []
	let reply: (query: DnsMessage) => Partial<DnsMessage> = (query) => ({
		answers: [{ name: query.questions[0]!.name, class: 1, ttl: 60, type: 'A', address: parseIp('192.0.2.1') }],
	})
	const forward: Forward = async (bytes) => {
		const query = decodeMessage(bytes)
		asked.push(query.questions[0]!.name)
		return encodeMessage({ ...query, response: true, recursionAvailable: true, ...reply(query) })
	}
	const responder = createResponder({ program, forward })
	const get = async (name: string) => {
		const answer = await responder.respond(encodeQuery(name, 'A', { id: 9 }), 'udp')
		const message = decodeMessage(answer!)
		assert.equal(message.id, 9)
		assert.equal(message.recursionAvailable, true)
		assert.equal(message.questions[0]?.name, name)
		return line(message)
	}
	assert.equal(await get('www.example.com'), 'NOERROR answer: 192.0.2.1')
	assert.equal(await get(`out.default.svc.${d}`), 'NOERROR aa answer: CNAME www.example.com, 192.0.2.1')
	assert.equal(await get(web), 'NOERROR aa answer: 10.96.0.20')
	assert.deepEqual(asked, ['www.example.com', 'www.example.com'])
	reply = () => ({ rcode: 'NXDOMAIN' })
	assert.equal(await get('nope.example.com'), 'NXDOMAIN')
	reply = () => ({ id: 12345 })
	assert.equal(await get('forged.example.com'), 'SERVFAIL')
	reply = () => {
		throw new Error('timeout')
	}
	assert.equal(await get('slow.example.com'), 'SERVFAIL')
})

test('any bytes are answered or dropped', () => {
	const responder = createResponder({ program })
	const base = [encodeQuery(web, 'A'), encodeQuery(`big.default.svc.${d}`, 'A', { ednsSize: 1232 })]
	fc.assert(
		fc.property(
			fc.constantFrom(...base),
			fc.array(fc.tuple(fc.nat(70), fc.nat(255)), { maxLength: 6 }),
			fc.nat(80),
			fc.constantFrom<Transport>('udp', 'tcp'),
			(bytes, changes, cut, transport) => {
				const packet = bytes.slice(0, cut)
				for (const [at, value] of changes) if (at < packet.length) packet[at] = value
				const first = responder.respond(packet, transport)
				assert.ok(!(first instanceof Promise))
				if (first === undefined) return
				const message = decodeMessage(first)
				assert.equal(message.malformed, undefined)
				assert.equal(message.response, true)
				assert.deepEqual(first.slice(0, 2), packet.slice(0, 2))
			},
		),
		{ numRuns: 2000 },
	)
})
