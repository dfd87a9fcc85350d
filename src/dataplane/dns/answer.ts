// One question, one answer: pure. What the zone says, in the terms of the protocol (RFC 1034 §4.3.2, RFC 2308, RFC 6891).

import { cidrAddress, cidrContains, cidrLength, familyOf } from '../../base/ip.ts'
import {
	addressOfReverseName,
	covers,
	type DnsRecord,
	lookup,
	normalName,
	recordTtl,
	reverseName,
} from '../../model/zone.ts'
import type { DnsProgram } from './program.ts'
import type { DnsMessage, Question, Rcode, WireRecord } from './wire.ts'

export interface Reply {
	readonly message: DnsMessage
	/** Names the answer depends on: when none of them changes, it stays the same. Empty: do not keep it. */
	readonly names: readonly string[]
	/** The answer goes on at this name, outside of the zone. */
	readonly outside?: string
}

/** The largest UDP answer we send: it fits any path unfragmented (DNS flag day 2020). */
export const largestUdp = 1232
const transferTypes: readonly string[] = ['TYPE251', 'TYPE252']

/** undefined: not a query; nothing is answered, or two servers could answer each other for ever. */
export function answerQuery(program: DnsProgram, query: DnsMessage, recursion: boolean): Reply | undefined {
	if (query.response) return undefined
	const base: DnsMessage = {
		id: query.id,
		response: true,
		opcode: query.opcode,
		authoritative: false,
		truncated: false,
		recursionDesired: query.recursionDesired,
		recursionAvailable: recursion,
		rcode: 'NOERROR',
		questions: query.questions.slice(0, 1),
		answers: [],
		authorities: [],
		additionals: [],
		...(query.edns === undefined ? {} : { edns: { size: largestUdp, version: 0, dnssecOk: query.edns.dnssecOk } }),
	}
	const refuse = (rcode: Rcode): Reply => ({ message: { ...base, rcode }, names: [] })
	if (query.opcode !== 0) return refuse('NOTIMP')
	const [question, ...more] = query.questions
	if (query.malformed !== undefined || question === undefined || more.length > 0) return refuse('FORMERR')
	// BADVERS
	if (query.edns !== undefined && query.edns.version > 0) return refuse('RCODE16')
	if ((question.class !== 1 && question.class !== 255) || transferTypes.includes(question.type))
		return refuse('REFUSED')
	return answerQuestion(program, base, question)
}

function answerQuestion(program: DnsProgram, base: DnsMessage, question: Question): Reply {
	const asked = normalName(question.name)
	const found = lookup(program, asked, question.type)
	if (!found.authoritative)
		return { message: { ...base, rcode: 'SERVFAIL' }, names: [], outside: found.outside ?? asked }
	const answers = found.records.map(wire)
	const targets = new Set(found.records.flatMap((r) => (r.type === 'SRV' ? [r.target] : [])))
	const names = [asked, ...found.records.flatMap((r) => (r.type === 'CNAME' ? [r.target] : [])), ...targets]
	const complete = found.records.some((r) => r.type !== 'CNAME') || (question.type === 'CNAME' && answers.length > 0)
	const message: DnsMessage = {
		...base,
		authoritative: true,
		rcode: found.rcode,
		answers,
		authorities: complete || found.outside !== undefined ? [] : startOfAuthority(program, names.at(-1) ?? asked),
		additionals: [...targets].flatMap((target) => addressesOf(program, target)),
	}
	const pod = `.pod.${program.domain}`
	// A pod's name is not in the table: it exists with its namespace.
	for (const name of [...names]) if (name.endsWith(pod)) names.push(name.slice(name.indexOf('.') + 1))
	return { message, names, ...(found.outside === undefined ? {} : { outside: found.outside }) }
}

function wire(record: DnsRecord): WireRecord {
	const { because: _, ...rest } = record
	return { ...rest, class: 1 }
}

function addressesOf(program: DnsProgram, name: string): WireRecord[] {
	const records = program.names.get(name)?.records ?? []
	return records.filter((r) => r.type === 'A' || r.type === 'AAAA').map(wire)
}

/** The SOA of the zone a name belongs to: how long its absence may be remembered (RFC 2308 §3). */
function startOfAuthority(program: DnsProgram, name: string): WireRecord[] {
	const soa = program.names.get(program.domain)?.records.find((r) => r.type === 'SOA')
	if (soa === undefined || soa.type !== 'SOA' || !covers(program, name)) return []
	const apex = name.endsWith('.arpa') ? reverseApex(program, name) : program.domain
	return [{ ...wire(soa), name: apex, ttl: Math.min(soa.ttl, soa.minimum, recordTtl) }]
}

/** `244.10.in-addr.arpa` for a name in 10.244.0.0/16. */
function reverseApex(program: DnsProgram, name: string): string {
	const ip = addressOfReverseName(name)
	const network = program.networks.find((n) => ip !== undefined && cidrContains(n, ip))
	if (network === undefined) return name
	const [labels, step] = familyOf(network) === 4 ? [4, 8] : [32, 4]
	const drop = labels - Math.floor(cidrLength(network) / step)
	return reverseName(cidrAddress(network)).split('.').slice(drop).join('.')
}
