// From query bytes to answer bytes. Answers are built once and kept per question; a change of the program forgets
// exactly those that depend on the names that changed.

import { answerQuery, largestUdp, type Reply } from './answer.ts'
import type { AnswerWatch } from './answered.ts'
import { applyDns, type DnsChange, type DnsProgram } from './program.ts'
import { type DnsMessage, decodeMessage, encodeMessage } from './wire.ts'

/** Asks an upstream server; resolves with its answer. Rejects when none comes. */
export type Forward = (query: Uint8Array) => Promise<Uint8Array>

export type Transport = 'udp' | 'tcp'

export interface DnsResponder {
	/** What is served now. */
	readonly program: DnsProgram
	apply(changes: readonly DnsChange[]): void
	/**
	 * undefined: the packet deserves no answer. Never throws, never rejects. A promise only where an upstream is asked, or
	 * somebody is told first. `forward`: in place of the responder's own.
	 */
	respond(
		query: Uint8Array,
		transport: Transport,
		forward?: Forward,
	): Uint8Array | undefined | Promise<Uint8Array | undefined>
	/** Answers that were kept are built again: others may be watched now. */
	forget(): void
	/** Questions answered from what was kept, and those that were not. */
	readonly counters: { readonly kept: number; readonly built: number }
}

interface Kept {
	/** The whole answer with id 0, its addresses in turn. */
	readonly turns: readonly Uint8Array[]
	next: number
}

const mostKept = 20_000
/** Orders of the addresses of one answer, so that clients that take the first spread. */
const mostTurns = 8

export function createResponder(
	options: { readonly program?: DnsProgram; readonly forward?: Forward; readonly watch?: AnswerWatch } = {},
): DnsResponder {
	return new Responder(options.program ?? applyDns(undefined, []), options.forward, options.watch)
}

class Responder implements DnsResponder {
	program: DnsProgram
	readonly counters = { kept: 0, built: 0 }
	readonly #forward: Forward | undefined
	readonly #watch: AnswerWatch | undefined
	#turn = 0
	readonly #kept = new Map<string, Kept>()
	/** Keys of kept answers by the names they depend on. */
	readonly #byName = new Map<string, string[]>()

	constructor(program: DnsProgram, forward: Forward | undefined, watch: AnswerWatch | undefined) {
		this.program = program
		this.#forward = forward
		this.#watch = watch
	}

	forget(): void {
		this.#kept.clear()
		this.#byName.clear()
	}

	apply(changes: readonly DnsChange[]): void {
		this.program = applyDns(this.program, changes)
		for (const change of changes) {
			if (change.change === 'zone') {
				this.forget()
				continue
			}
			for (const key of this.#byName.get(change.name) ?? []) this.#kept.delete(key)
			this.#byName.delete(change.name)
		}
	}

	respond(
		query: Uint8Array,
		transport: Transport,
		forward: Forward | undefined = this.#forward,
	): Uint8Array | undefined | Promise<Uint8Array | undefined> {
		const key = keyOf(query, transport)
		if (key !== undefined) {
			const kept = this.#kept.get(key)
			if (kept !== undefined) {
				this.counters.kept++
				const turn = kept.turns[kept.next]!
				kept.next = kept.next + 1 === kept.turns.length ? 0 : kept.next + 1
				return stamped(turn, query)
			}
		}
		this.counters.built++
		const message = decodeMessage(query)
		if (query.length < 12) return undefined
		const reply = answerQuery(this.program, message, forward !== undefined)
		if (reply === undefined) return undefined
		const limit = transport === 'tcp' ? 65535 : udpLimit(message.edns?.size)
		if (reply.outside !== undefined && forward !== undefined) {
			return this.#ask(reply, reply.outside, forward).then(async (m) => {
				await this.#watch?.told(m)
				return encodeMessage(m, limit)
			})
		}
		if (this.#watch?.wants(reply.names) === true) {
			const turns = turnsOf(reply.message)
			const answer = encodeMessage(turns[this.#turn++ % turns.length]!, limit)
			const telling = this.#watch.told(reply.message)
			return telling === undefined ? answer : telling.then(() => answer)
		}
		const turns = turnsOf(reply.message).map((m) => encodeMessage({ ...m, id: 0, recursionDesired: false }, limit))
		if (key !== undefined && reply.names.length > 0)
			this.#keep(key, { turns, next: turns.length > 1 ? 1 : 0 }, reply.names)
		return stamped(turns[0]!, query)
	}

	#keep(key: string, kept: Kept, names: readonly string[]): void {
		if (this.#kept.size >= mostKept) this.forget()
		this.#kept.set(key, kept)
		for (const name of new Set(names)) {
			const keys = this.#byName.get(name)
			if (keys === undefined) this.#byName.set(name, [key])
			else if (!keys.includes(key)) keys.push(key)
		}
	}

	async #ask(reply: Reply, name: string, forward: Forward): Promise<DnsMessage> {
		const { message } = reply
		const [question] = message.questions
		try {
			const id = message.id
			const query: DnsMessage = {
				...message,
				response: false,
				authoritative: false,
				recursionAvailable: false,
				recursionDesired: true,
				rcode: 'NOERROR',
				questions: [{ ...question!, name }],
				answers: [],
				authorities: [],
				additionals: [],
				edns: { size: largestUdp, version: 0, dnssecOk: false },
			}
			const answer = decodeMessage(await forward(encodeMessage(query)))
			if (answer.malformed !== undefined || !answer.response || answer.id !== id)
				throw new Error('not an answer to the query')
			const { rcode, authorities, additionals, truncated } = answer
			const answers = [...message.answers, ...answer.answers]
			return {
				...message,
				authoritative: message.answers.length > 0,
				rcode,
				truncated,
				answers,
				authorities,
				additionals,
			}
		} catch {
			return { ...message, authoritative: false, rcode: 'SERVFAIL', answers: [], authorities: [], additionals: [] }
		}
	}
}

function udpLimit(edns: number | undefined): number {
	return edns === undefined ? 512 : Math.min(largestUdp, Math.max(512, edns))
}

/** A copy with the id of the query, and its RD bit. */
function stamped(answer: Uint8Array, query: Uint8Array): Uint8Array {
	const out = new Uint8Array(answer)
	out[0] = query[0]!
	out[1] = query[1]!
	out[2] = out[2]! | (query[2]! & 1)
	return out
}

/**
 * What tells one plain query from another: its question as it was asked (with its case, which the answer repeats) and
 * what room it leaves. undefined for anything unusual, which takes the long way.
 */
function keyOf(query: Uint8Array, transport: Transport): string | undefined {
	const { length } = query
	// QR and opcode 0; one question, no answer, no authority, at most one additional record.
	if (length < 17 || (query[2]! & 0xf8) !== 0 || query[4] !== 0 || query[5] !== 1) return undefined
	if (query[6] !== 0 || query[7] !== 0 || query[8] !== 0 || query[9] !== 0 || query[10] !== 0 || query[11]! > 1)
		return undefined
	let at = 12
	for (;;) {
		const label = query[at]
		if (label === undefined || label > 63) return undefined
		at += label + 1
		if (label === 0) break
		if (at > 12 + 255) return undefined
	}
	at += 4
	if (at > length) return undefined
	const question = Buffer.from(query.buffer, query.byteOffset, length).toString('latin1', 12, at)
	if (query[11] === 0) return length === at ? `${question}${transport}` : undefined
	// OPT of version 0: root, type 41, size, extended code, version, flags, options.
	if (length < at + 11 || query[at] !== 0 || query[at + 1] !== 0 || query[at + 2] !== 41 || query[at + 6] !== 0)
		return undefined
	if (length !== at + 11 + ((query[at + 9]! << 8) | query[at + 10]!)) return undefined
	const limit = transport === 'tcp' ? 0 : udpLimit((query[at + 3]! << 8) | query[at + 4]!)
	return `${question}${transport}${limit}${query[at + 7]! & 0x80}`
}

/** The message with its addresses (or SRV records) rotated; CNAMEs before them stay in front. */
function turnsOf(message: DnsMessage): DnsMessage[] {
	const first = message.answers.findIndex((r) => r.type !== 'CNAME')
	const head = message.answers.slice(0, first)
	const rest = first < 0 ? [] : message.answers.slice(first)
	const same = rest.every((r) => r.type === rest[0]?.type)
	if (rest.length < 2 || !same) return [message]
	// Evenly spread beginnings where there are more records than turns.
	const count = Math.min(mostTurns, rest.length)
	return Array.from({ length: count }, (_, i) => {
		const from = Math.floor((i * rest.length) / count)
		return { ...message, answers: [...head, ...rest.slice(from), ...rest.slice(0, from)] }
	})
}
