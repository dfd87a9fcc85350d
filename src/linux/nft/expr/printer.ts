// Prints one rule as `nft list ruleset` does: registers are followed symbolically, each load becomes a term, each
// comparison, lookup or action a statement.

import { dataType, type Field, printFields, printNumber, readUint, sortKey } from '../datatype.ts'
import type { NftSet } from '../program.ts'
import type { Family } from '../wire.ts'

/** What a register holds, as text and type. */
export interface Term {
	readonly text: string
	readonly fields: readonly Field[]
	/** A constant: its bytes, printed by the type of whoever uses it. */
	readonly value?: string
	/** Applied by a bitwise expression: value & mask ^ xor, hexadecimal. */
	readonly mask?: string
	readonly xor?: string
	/** A payload field of the transport header: needs `meta l4proto` said before. */
	readonly layer?: 'link' | 'network' | 'transport'
	/** Only the first bytes of the field were loaded. */
	readonly prefixBytes?: number
	/** Neighbouring fields loaded at once: nft merges `tcp sport 1 tcp dport 2` into one comparison. */
	readonly parts?: readonly Term[]
}

interface Statement {
	text: string
	/** Says only what a later field implies (`meta l4proto tcp` before `tcp dport`). */
	readonly implies?: 'l4proto' | 'nfproto'
	/** A comparison; anything else between two of them makes nft keep what the first says. */
	readonly match?: true
	/** A lower bound that the next upper bound completes to a range. */
	readonly from?: { readonly term: string; readonly value: string }
}

export class RulePrinter {
	readonly family: Family
	/** Transport protocol and network protocol that earlier comparisons fixed. */
	l4proto: string | undefined
	network: 'ip' | 'ip6' | undefined
	readonly #registers: (Term | undefined)[] = []
	readonly #statements: Statement[] = []
	readonly #findSet: (name: string) => NftSet | undefined

	constructor(family: Family, findSet: (name: string) => NftSet | undefined) {
		this.family = family
		this.#findSet = findSet
		if (family === 'ip' || family === 'ip6') this.network = family
	}

	text(): string {
		return this.#statements.map((s) => s.text).join(' ')
	}

	load(word: number, term: Term): void {
		this.#registers[word] = term
		// A value of several words hides what was in them.
		const words = Math.ceil(term.fields.reduce((n, f) => n + ((f.bytes + 3) & ~3), 0) / 4)
		for (let i = 1; i < words; i++) this.#registers[word + i] = undefined
	}

	term(word: number): Term {
		return this.#registers[word] ?? { text: `reg ${word}`, fields: [{ type: 'integer', bytes: 4 }] }
	}

	/** The terms that make up `bytes` bytes from a register on: a concatenation. */
	concatenation(word: number, bytes: number): Term {
		const terms: Term[] = []
		for (let at = 0; at * 4 < bytes; ) {
			const term = this.term(word + at)
			terms.push(term)
			const size = term.fields.reduce((n, f) => n + ((f.bytes + 3) & ~3), 0)
			at += Math.max(1, size / 4)
		}
		const only = terms[0]
		if (terms.length === 1 && only !== undefined) return only
		for (const term of terms) this.used(term)
		return { text: terms.map((t) => t.text).join(' . '), fields: terms.flatMap((t) => t.fields) }
	}

	/** The fields of the key a set declares, undefined where the set is not known. */
	set(name: string): NftSet | undefined {
		return this.#findSet(name)
	}

	/** `@name`, or the elements of an anonymous set in braces. */
	reference(name: string): string {
		const set = this.#findSet(name)
		if (set === undefined || !set.flags.includes('anonymous')) return `@${name}`
		return `{ ${sortElements(set)
			.map(([key, element]) => (element.data === undefined ? key : `${key} : ${element.data}`))
			.join(', ')} }`
	}

	/** A constant in a register, printed as `fields` say; another term as it is. */
	printAs(word: number, fields: readonly Field[]): string {
		const term = this.term(word)
		if (term.value === undefined) return masked(term)
		return printFields(fields, Buffer.from(term.value, 'hex'))
	}

	say(text: string, more: Partial<Statement> = {}): void {
		this.#statements.push({ text, ...more })
	}

	last(): Statement | undefined {
		return this.#statements.at(-1)
	}

	/** A field was matched that implies these comparisons: nft does not print them then. */
	drop(implied: 'l4proto' | 'nfproto'): void {
		const at = this.#statements.findLastIndex((s) => s.implies === implied)
		if (at >= 0 && this.#statements.slice(at).every((s) => s.match === true)) this.#statements.splice(at, 1)
	}

	/** Called by whoever uses a term in a match. */
	used(term: Term): void {
		if (term.layer === 'transport' && !term.text.startsWith('th ')) this.drop('l4proto')
		if (term.layer === 'network') this.drop('nfproto')
	}
}

/** Elements of a set in nft's order. */
export function sortElements(
	set: NftSet,
): (readonly [string, NftSet['elements'] extends Iterable<readonly [string, infer E]> ? E : never])[] {
	const sorted = [...set.elements].map(([key, element]) => ({
		key,
		element,
		order: sortKey(set.key, firstOf(key, set)),
	}))
	sorted.sort((a, b) => (a.order < b.order ? -1 : a.order === b.order ? 0 : 1))
	return sorted.map(({ key, element }) => [key, element] as const)
}

/** The lower end of an interval's text. */
export function firstOf(key: string, set: Pick<NftSet, 'flags'>): string {
	if (!set.flags.includes('interval')) return key
	return key
		.split(' . ')
		.map((part) => part.replace(/[/-].*$/, ''))
		.join(' . ')
}

/** `meta mark & 0x000000ff`: a term with what bitwise expressions did to it. */
export function masked(term: Term): string {
	if (term.mask === undefined) return term.text
	const fields = term.fields[0] as Field
	const type = dataType(fields.type)
	const print = (hex: string) => {
		const bytes = Buffer.from(hex, 'hex')
		if (type.style === 'ip' || bytes.length > 4) return printFields([fields], bytes)
		const value = readUint(bytes, type.order, bytes.length)
		return type.style === 'hex' ? printNumber(type, value) : `0x${value.toString(16)}`
	}
	const mask = Buffer.from(term.mask, 'hex')
	const xor = Buffer.from(term.xor ?? '', 'hex')
	const zero = xor.every((b) => b === 0)
	if (zero) return `${term.text} & ${print(term.mask)}`
	if (mask.every((b) => b === 0xff)) return `${term.text} ^ ${print(term.xor ?? '')}`
	// value & ~x ^ x sets the bits of x.
	if (mask.every((b, i) => b === (~(xor[i] ?? 0) & 0xff))) return `${term.text} | ${print(term.xor ?? '')}`
	return `${term.text} & ${print(term.mask)} ^ ${print(term.xor ?? '')}`
}

/** Bits of a mask that is ones, then zeros; undefined for another. */
export function prefixLength(mask: Buffer): number | undefined {
	let bits = 0
	let ended = false
	for (const byte of mask) {
		for (let bit = 7; bit >= 0; bit--) {
			if ((byte & (1 << bit)) !== 0) {
				if (ended) return undefined
				bits++
			} else ended = true
		}
	}
	return bits
}

/** `1d2h3m4s5ms`, as nft prints a time. */
export function duration(milliseconds: number): string {
	const units: readonly (readonly [string, number])[] = [
		['d', 86400000],
		['h', 3600000],
		['m', 60000],
		['s', 1000],
		['ms', 1],
	]
	let rest = milliseconds
	let text = ''
	for (const [name, size] of units) {
		const count = Math.floor(rest / size)
		if (count > 0) text += `${count}${name}`
		rest -= count * size
	}
	return text === '' ? '0s' : text
}
