// JSON with places: a parser of our own, because JSON.parse tells neither lines nor duplicate keys. Streams of several
// objects are read as kubectl does.

import type { MappingPlace, ParsedDocument, ParsedText, Place } from './manifest-place.ts'

const deepest = 500
const literals = [
	['true', true],
	['false', false],
	['null', null],
] as const

/** All values of `text`, one after the other. Stops at the first error. */
export function parseJsonText(text: string): ParsedText {
	const reader = new JsonReader(text)
	const documents: ParsedDocument[] = []
	try {
		while (reader.more()) documents.push(reader.value(0))
	} catch (e) {
		if (!(e instanceof JsonError)) throw e
		return { documents, errors: [{ ...reader.position(e.at), text: e.message }] }
	}
	return { documents, errors: [] }
}

class JsonError extends Error {
	readonly at: number
	constructor(at: number, message: string) {
		super(message)
		this.at = at
	}
}

class JsonReader {
	readonly #text: string
	#at = 0
	#line = 1
	constructor(text: string) {
		this.#text = text
	}

	/** Skips white space; false at the end. */
	more(): boolean {
		for (; this.#at < this.#text.length; this.#at++) {
			const c = this.#text.charCodeAt(this.#at)
			if (c === 10) this.#line++
			else if (c !== 32 && c !== 9 && c !== 13) return true
		}
		return false
	}

	position(at: number): { line: number; column: number } {
		const start = this.#text.lastIndexOf('\n', at - 1) + 1
		let line = 1
		for (let i = this.#text.indexOf('\n'); i >= 0 && i < at; i = this.#text.indexOf('\n', i + 1)) line++
		return { line, column: at - start + 1 }
	}

	value(depth: number): ParsedDocument {
		if (depth > deepest) throw this.#error(`nested deeper than ${deepest} levels`)
		const line = this.#line
		switch (this.#text[this.#at]) {
			case '{':
				return this.#mapping(depth)
			case '[':
				return this.#list(depth)
			case '"':
				return { value: this.#string(), place: line }
			default:
				return { value: this.#scalar(), place: line }
		}
	}

	#mapping(depth: number): ParsedDocument {
		const line = this.#line
		const start = this.#at++
		const value: Record<string, unknown> = {}
		const fields = new Map<string, { line: number; value: Place }>()
		const place: MappingPlace = { line, fields }
		if (this.#next('"key"') === '}') {
			this.#at++
			return { value, place }
		}
		for (;;) {
			if (this.#next('"key"') !== '"') throw this.#error(`expected a key in double quotes, found ${this.#found()}`)
			const at = this.#at
			const keyLine = this.#line
			const key = this.#string()
			const first = fields.get(key)
			if (first !== undefined) {
				throw new JsonError(at, `key ${JSON.stringify(key)} is given twice (first in line ${first.line}): keep one`)
			}
			if (this.#next('":"') !== ':')
				throw this.#error(`expected ":" after ${JSON.stringify(key)}, found ${this.#found()}`)
			this.#at++
			this.#next('a value')
			const item = this.value(depth + 1)
			setOwn(value, key, item.value)
			fields.set(key, { line: keyLine, value: item.place })
			const end = this.#next('"," or "}"', start)
			if (end !== ',' && end !== '}') throw this.#error(`expected "," or "}", found ${this.#found()}`)
			this.#at++
			if (end === '}') return { value, place }
		}
	}

	#list(depth: number): ParsedDocument {
		const line = this.#line
		const start = this.#at++
		const value: unknown[] = []
		const items: Place[] = []
		if (this.#next('a value') === ']') {
			this.#at++
			return { value, place: { line, items } }
		}
		for (;;) {
			this.#next('a value')
			const item = this.value(depth + 1)
			value.push(item.value)
			items.push(item.place)
			const end = this.#next('"," or "]"', start)
			if (end !== ',' && end !== ']') throw this.#error(`expected "," or "]", found ${this.#found()}`)
			this.#at++
			if (end === ']') return { value, place: { line, items } }
		}
	}

	#string(): string {
		const start = this.#at
		let escaped = false
		for (let at = start + 1; ; at++) {
			const c = this.#text.charCodeAt(at)
			if (c === 34) {
				this.#at = at + 1
				if (!escaped) return this.#text.slice(start + 1, at)
				try {
					return JSON.parse(this.#text.slice(start, at + 1)) as string
				} catch {
					throw new JsonError(
						start,
						`the string has a bad escape: ${this.#text.slice(start, Math.min(at + 1, start + 60))}`,
					)
				}
			}
			if (c === 92) {
				escaped = true
				at++
			} else if (Number.isNaN(c) || c < 32) throw new JsonError(start, 'the string has no closing quote in its line')
		}
	}

	#scalar(): unknown {
		const rest = this.#text.slice(this.#at, this.#at + 64)
		const number = /^-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?/.exec(rest)
		if (number !== null) {
			this.#at += number[0].length
			return Number(number[0])
		}
		for (const [word, value] of literals) {
			if (rest.startsWith(word)) {
				this.#at += word.length
				return value
			}
		}
		throw this.#error(`expected a value, found ${this.#found()}`)
	}

	/** The next character that is no white space. */
	#next(expected: string, opened?: number): string {
		if (this.more()) return this.#text[this.#at]!
		const since = opened === undefined ? '' : ` (opened in line ${this.position(opened).line})`
		throw this.#error(`expected ${expected}, found the end of the text${since}`)
	}

	#found(): string {
		return JSON.stringify(/^(\w+|.)/.exec(this.#text.slice(this.#at, this.#at + 20))?.[0] ?? this.#text[this.#at])
	}

	#error(message: string): JsonError {
		return new JsonError(this.#at, message)
	}
}

/** Sets a key that may be called `__proto__`. */
export function setOwn(object: Record<string, unknown>, key: string, value: unknown): void {
	if (key !== '__proto__') object[key] = value
	else Object.defineProperty(object, key, { value, enumerable: true, configurable: true, writable: true })
}
