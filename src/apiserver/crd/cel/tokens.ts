// The words of a CEL expression.

import { CelCompileError, type Literal } from './syntax.ts'

export type Token =
	| { readonly type: 'literal'; readonly literal: Literal; readonly at: number }
	/** `quoted`: written in backticks, good as a field only. */
	| { readonly type: 'name'; readonly text: string; readonly quoted: boolean; readonly at: number }
	| { readonly type: 'sign'; readonly text: string; readonly at: number }
	| { readonly type: 'end'; readonly at: number }

const space = /(?:[\t\n\f\r ]+|\/\/[^\n]*)+/y
const number = /0[xX][0-9a-fA-F]+[uU]?|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?[uU]?|\.\d+(?:[eE][+-]?\d+)?/y
const name = /[_a-zA-Z][_a-zA-Z0-9]*/y
const quoted = /`([a-zA-Z0-9_.\-/ ]+)`/y
const text = /([rRbB]{0,2})("""|'''|"|')/y
const sign = /&&|\|\||==|!=|<=|>=|\.\?|\[\?|[-+*/%<>!?:.,()[\]{}]/y

/** Throws CelCompileError. */
export function tokensOf(source: string): readonly Token[] {
	const tokens: Token[] = []
	let at = 0
	const match = (pattern: RegExp): RegExpExecArray | null => {
		pattern.lastIndex = at
		return pattern.exec(source)
	}
	for (;;) {
		at += match(space)?.[0].length ?? 0
		if (at >= source.length) {
			tokens.push({ type: 'end', at })
			return tokens
		}
		const opening = match(text)
		if (opening !== null && isPrefix(opening[1]!)) {
			const { literal, end } = readText(source, at, opening)
			tokens.push({ type: 'literal', literal, at })
			at = end
			continue
		}
		const digits = match(number)
		// `1.` before a method is no fraction; a dot before digits is one only where a value may stand.
		if (digits !== null && (digits[0][0] !== '.' || startsValue(tokens.at(-1)))) {
			tokens.push({ type: 'literal', literal: readNumber(source, at, digits[0]), at })
			at += digits[0].length
			continue
		}
		const word = match(name)
		if (word !== null) {
			const { 0: found } = word
			const literal: Literal | undefined =
				found === 'true' || found === 'false'
					? { type: 'bool', value: found === 'true' }
					: found === 'null'
						? { type: 'null', value: null }
						: undefined
			tokens.push(literal ? { type: 'literal', literal, at } : { type: 'name', text: found, quoted: false, at })
			at += found.length
			continue
		}
		const escaped = match(quoted)
		if (escaped !== null) {
			tokens.push({ type: 'name', text: escaped[1]!, quoted: true, at })
			at += escaped[0].length
			continue
		}
		const mark = match(sign)
		if (mark === null) {
			const shown = JSON.stringify(source[at])
			throw new CelCompileError(source, at, `Syntax error: token recognition error at: ${shown}`)
		}
		tokens.push({ type: 'sign', text: mark[0], at })
		at += mark[0].length
	}
}

function isPrefix(prefix: string): boolean {
	return /^(?:[rR]?[bB]?|[bB][rR])$/.test(prefix)
}

function startsValue(before: Token | undefined): boolean {
	return before === undefined || (before.type === 'sign' && before.text !== ')' && before.text !== ']')
}

const largestInt = (1n << 63n) - 1n

function readNumber(source: string, at: number, written: string): Literal {
	const isUnsigned = /[uU]$/.test(written)
	const digits = isUnsigned ? written.slice(0, -1) : written
	if (!/^0[xX]/.test(digits) && /[.eE]/.test(digits)) {
		if (isUnsigned) throw new CelCompileError(source, at, `Syntax error: invalid number ${written}`)
		return { type: 'double', value: Number(digits) }
	}
	const value = BigInt(digits)
	// -9223372036854775808 is written with the number after it: the parser looks at the sign.
	if (value > (isUnsigned ? (1n << 64n) - 1n : largestInt + 1n))
		throw new CelCompileError(source, at, `invalid ${isUnsigned ? 'uint' : 'int'} literal`)
	return { type: isUnsigned ? 'uint' : 'int', value }
}

const encoder = new TextEncoder()

function readText(source: string, start: number, opening: RegExpExecArray): { literal: Literal; end: number } {
	const [whole, prefix = '', quote = '"'] = opening
	const isRaw = /r/i.test(prefix)
	const isBytes = /b/i.test(prefix)
	let out = ''
	const bytes: number[] = []
	const add = (piece: string): void => {
		if (isBytes) bytes.push(...encoder.encode(piece))
		else out += piece
	}
	let at = start + whole.length
	for (;;) {
		if (at >= source.length) throw new CelCompileError(source, start, 'Syntax error: unterminated string')
		if (source.startsWith(quote, at)) break
		const char = source[at]!
		if (quote.length === 1 && (char === '\n' || char === '\r'))
			throw new CelCompileError(source, start, 'Syntax error: unterminated string')
		if (char !== '\\' || isRaw) {
			const whole = String.fromCodePoint(source.codePointAt(at)!)
			add(whole)
			at += whole.length
			continue
		}
		const escaped = /\\(?:([abfnrtv\\?"'`])|[xX]([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2}))/y
		escaped.lastIndex = at
		const found = escaped.exec(source)
		if (found === null) throw new CelCompileError(source, at, 'Syntax error: invalid escape sequence')
		const [written, plain, byte, short, long, octal] = found
		if (plain !== undefined) add(plainEscapes[plain] ?? plain)
		else if (byte !== undefined || octal !== undefined) {
			const code = byte !== undefined ? Number.parseInt(byte, 16) : Number.parseInt(octal!, 8)
			if (isBytes) bytes.push(code)
			else out += String.fromCodePoint(code)
		} else {
			const code = Number.parseInt(short ?? long!, 16)
			if (isBytes || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
				throw new CelCompileError(source, at, 'Syntax error: invalid unicode code point')
			out += String.fromCodePoint(code)
		}
		at += written.length
	}
	const literal: Literal = isBytes ? { type: 'bytes', value: Uint8Array.from(bytes) } : { type: 'string', value: out }
	return { literal, end: at + quote.length }
}

const plainEscapes: Readonly<Record<string, string>> = {
	a: '\x07',
	b: '\b',
	f: '\f',
	n: '\n',
	r: '\r',
	t: '\t',
	v: '\v',
}
