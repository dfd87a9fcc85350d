// The string extension of CEL (cel-go ext.Strings, version 2, as Kubernetes switches it on) and regular expressions.

import type { Budget, Library } from './functions.ts'
import { regexOf } from './regex.ts'
import { printDouble, printDuration } from './standard.ts'
import {
	CelError,
	Duration,
	List,
	ListValue,
	lengthOf,
	MapValue,
	pointsOf,
	sliceOf,
	Timestamp,
	TypeName,
	typeNameOf,
	Uint,
	type Value,
} from './values.ts'

function charge(budget: Budget, text: string): void {
	budget.left -= text.length / 10
}

function indexOf(text: string, part: string, from: bigint, last: boolean): bigint {
	const points = pointsOf(text)
	if (from < 0n || from > BigInt(points.length)) throw new CelError(`index out of range: ${from}`)
	if (part === '') return from
	const wanted = pointsOf(part)
	const fitsAt = (at: number): boolean => wanted.every((point, i) => points[at + i] === point)
	const step = last ? -1 : 1
	const start = last ? Math.min(Number(from), points.length - wanted.length) : Number(from)
	for (let at = start; at >= 0 && at <= points.length - wanted.length; at += step) if (fitsAt(at)) return BigInt(at)
	return -1n
}

function substring(text: string, start: bigint, end: bigint): string {
	const found = sliceOf(text, Number(start), Number(end))
	if (found !== undefined) return found
	const length = BigInt(lengthOf(text))
	if (start < 0n || start > length) throw new CelError(`index out of range: ${start}`)
	if (end < 0n || end > length) throw new CelError(`index out of range: ${end}`)
	throw new CelError(`invalid substring range. start: ${start}, end: ${end}`)
}

function split(text: string, by: string, limit: bigint): List {
	if (limit === 0n) return new List([])
	const parts = by === '' ? [...pointsOf(text)] : text.split(by)
	const count = Number(limit)
	if (limit < 0n || parts.length <= count) return new List(parts)
	return new List([...parts.slice(0, count - 1), parts.slice(count - 1).join(by)])
}

function replace(text: string, what: string, by: string, limit: bigint): string {
	if (limit === 0n) return text
	let left = limit < 0n ? Number.POSITIVE_INFINITY : Number(limit)
	if (what === '') {
		const points = pointsOf(text)
		let out = ''
		for (let i = 0; i <= points.length; i++) {
			if (left-- > 0) out += by
			out += points[i] ?? ''
		}
		return out
	}
	let out = ''
	let at = 0
	for (let next = text.indexOf(what); next >= 0 && left > 0; next = text.indexOf(what, at), left--) {
		out += text.slice(at, next) + by
		at = next + what.length
	}
	return out + text.slice(at)
}

function join(list: ListValue, by: string): string {
	const parts: string[] = []
	for (const item of list) {
		if (typeof item !== 'string') throw new CelError('no such overload')
		parts.push(item)
	}
	return parts.join(by)
}

// Unicode's white space, as Go's strings.TrimSpace.
const space = '[\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]'
const edges = new RegExp(`^${space}+|${space}+$`, 'g')

export const strings: Library = {
	'string.charAt(int) string': ([text, at]: readonly [string, bigint]) => {
		const length = BigInt(lengthOf(text))
		if (at < 0n || at > length) throw new CelError(`index out of range: ${at}`)
		return at === length ? '' : sliceOf(text, Number(at), Number(at) + 1)!
	},
	'string.indexOf(string) int': ([text, part]: readonly [string, string]) => indexOf(text, part, 0n, false),
	'string.indexOf(string, int) int': ([text, part, from]: readonly [string, string, bigint]) =>
		indexOf(text, part, from, false),
	'string.lastIndexOf(string) int': ([text, part]: readonly [string, string]) =>
		indexOf(text, part, BigInt(lengthOf(text)), true),
	'string.lastIndexOf(string, int) int': ([text, part, from]: readonly [string, string, bigint]) =>
		indexOf(text, part, from, true),
	'string.lowerAscii() string': ([text]: readonly [string], budget) => {
		charge(budget, text)
		return text.replace(/[A-Z]+/g, (part) => part.toLowerCase())
	},
	'string.upperAscii() string': ([text]: readonly [string], budget) => {
		charge(budget, text)
		return text.replace(/[a-z]+/g, (part) => part.toUpperCase())
	},
	'string.replace(string, string) string': ([text, what, by]: readonly [string, string, string], budget) => {
		charge(budget, text)
		return replace(text, what, by, -1n)
	},
	'string.replace(string, string, int) string': (
		[text, what, by, limit]: readonly [string, string, string, bigint],
		budget,
	) => {
		charge(budget, text)
		return replace(text, what, by, limit)
	},
	'string.split(string) list<string>': ([text, by]: readonly [string, string], budget) => {
		charge(budget, text)
		return split(text, by, -1n)
	},
	'string.split(string, int) list<string>': ([text, by, limit]: readonly [string, string, bigint], budget) => {
		charge(budget, text)
		return split(text, by, limit)
	},
	'string.substring(int) string': ([text, start]: readonly [string, bigint]) =>
		substring(text, start, BigInt(lengthOf(text))),
	'string.substring(int, int) string': ([text, start, end]: readonly [string, bigint, bigint]) =>
		substring(text, start, end),
	'string.trim() string': ([text]: readonly [string], budget) => {
		charge(budget, text)
		return text.replace(edges, '')
	},
	'list<string>.join() string': ([list]: readonly [ListValue]) => join(list, ''),
	'list<string>.join(string) string': ([list, by]: readonly [ListValue, string]) => join(list, by),
	'string.format(list<dyn>) string': ([text, list]: readonly [string, ListValue], budget) => {
		charge(budget, text)
		return format(text, list)
	},
	':strings.quote(string) string': ([text]: readonly [string]) => quote(text),
	'string.find(string) string': ([text, by]: readonly [string, string], budget) => {
		charge(budget, text)
		return regexOf(by).findAll(text, 1)[0] ?? ''
	},
	'string.findAll(string) list<string>': ([text, by]: readonly [string, string], budget) => {
		charge(budget, text)
		return new List(regexOf(by).findAll(text, -1))
	},
	'string.findAll(string, int) list<string>': ([text, by, limit]: readonly [string, string, bigint], budget) => {
		charge(budget, text)
		return new List(regexOf(by).findAll(text, Number(limit)))
	},
}

function quote(text: string): string {
	const escapes: Record<string, string> = {
		'\x07': '\\a',
		'\b': '\\b',
		'\f': '\\f',
		'\n': '\\n',
		'\r': '\\r',
		'\t': '\\t',
		'\v': '\\v',
		'\\': '\\\\',
		'"': '\\"',
	}
	// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is escaped
	return `"${text.replace(/[\x07\b\f\n\r\t\v\\"]/g, (char) => escapes[char]!)}"`
}

/** printf of CEL: %s %d %f %e %b %o %x %X %%, with a precision for %f and %e. */
function format(pattern: string, list: ListValue): string {
	let at = 0
	const out = pattern.replace(/%(%|(?:\.(\d+))?([a-zA-Z])?)/g, (whole, rest: string, digits: string, verb: string) => {
		if (rest === '%') return '%'
		if (verb === undefined) throw new CelError('could not parse formatting clause: unexpected end of string')
		if (at >= list.size) throw new CelError(`index ${at} out of range`)
		const value = list.at(at++)
		const precision = digits === undefined ? 6 : Math.min(Number(digits), 100)
		switch (verb) {
			case 's':
				return show(value)
			case 'd':
				return String(integerOf(value, verb))
			case 'f':
				return fixed(doubleOf(value, verb), (n) => n.toFixed(precision))
			case 'e':
				return fixed(doubleOf(value, verb), (n) => n.toExponential(precision).replace(/e([+-])(\d)$/, 'e$10$2'))
			case 'b':
				return typeof value === 'boolean' ? (value ? '1' : '0') : integerOf(value, verb).toString(2)
			case 'o':
				return integerOf(value, verb).toString(8)
			case 'x':
			case 'X': {
				const bytes =
					typeof value === 'string' ? Buffer.from(value) : value instanceof Uint8Array ? Buffer.from(value) : undefined
				const text = bytes?.toString('hex') ?? integerOf(value, verb).toString(16)
				return verb === 'X' ? text.toUpperCase() : text
			}
			default:
				throw new CelError(`could not parse formatting clause: unrecognized formatting clause "${whole.slice(-1)}"`)
		}
	})
	return out
}

function integerOf(value: Value, verb: string): bigint {
	if (typeof value === 'bigint') return value
	if (value instanceof Uint) return value.value
	throw new CelError(`error during formatting: %${verb} is not for a ${typeNameOf(value)}`)
}

function doubleOf(value: Value, verb: string): number {
	if (typeof value === 'number') return value
	if (typeof value === 'bigint') return Number(value)
	if (value instanceof Uint) return Number(value.value)
	throw new CelError(`error during formatting: %${verb} is not for a ${typeNameOf(value)}`)
}

function fixed(value: number, print: (value: number) => string): string {
	if (Number.isNaN(value)) return 'NaN'
	return Number.isFinite(value) ? print(value) : value > 0 ? 'Infinity' : '-Infinity'
}

function show(value: Value): string {
	if (value === null) return 'null'
	switch (typeof value) {
		case 'string':
			return value
		case 'boolean':
		case 'bigint':
			return String(value)
		case 'number':
			return Number.isFinite(value) ? printDouble(value) : fixed(value, String)
		default:
	}
	if (value instanceof Uint) return String(value.value)
	if (value instanceof Uint8Array) return new TextDecoder().decode(value)
	if (value instanceof Duration) return printDuration(value)
	if (value instanceof Timestamp)
		return new Date(Number(value.nanos / 1_000_000n)).toISOString().replace(/\.000Z$/, 'Z')
	if (value instanceof TypeName) return value.name
	if (value instanceof ListValue) return `[${[...value].map(show).join(', ')}]`
	if (value instanceof MapValue) {
		const keys = [...value.keys()]
		return `{${keys
			.map((key) => `${String(key)}: ${show(value.get(key)!)}`)
			.sort()
			.join(', ')}}`
	}
	throw new CelError(
		`error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps, was given ${typeNameOf(value)}`,
	)
}
