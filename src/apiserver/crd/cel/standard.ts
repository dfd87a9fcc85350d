// The standard functions of CEL: operators, conversions, sizes, times.
// Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md (standard definitions).

import { printTime } from '../../../kube/schema/time.ts'
import type { Budget, Library } from './functions.ts'
import { regexOf } from './regex.ts'
import {
	amountOf,
	CelError,
	compareBytes,
	compareTexts,
	Duration,
	equal,
	findSame,
	keyOf,
	List,
	type ListValue,
	lengthOf,
	type MapValue,
	Timestamp,
	TypeName,
	typeNameOf,
	Uint,
	type Value,
} from './values.ts'

const minInt = -(1n << 63n)
const maxInt = (1n << 63n) - 1n
const second = 1_000_000_000n

function int(value: bigint): bigint {
	if (value < minInt || value > maxInt) throw new CelError('integer overflow')
	return value
}

function charge(budget: Budget, amount: number): void {
	budget.left -= amount
}

type Two<T> = readonly [T, T]

function compare(a: Value, b: Value): number {
	const x = amountOf(a)
	const y = amountOf(b)
	if (x !== undefined && y !== undefined)
		return x < y ? -1 : x > y ? 1 : Number.isNaN(x) || Number.isNaN(y) ? Number.NaN : 0
	if (typeof a === 'string' && typeof b === 'string') return compareTexts(a, b)
	if (typeof a === 'boolean' && typeof b === 'boolean') return Number(a) - Number(b)
	if (a instanceof Uint8Array && b instanceof Uint8Array) return compareBytes(a, b)
	if (a instanceof Timestamp && b instanceof Timestamp) return Number(a.nanos > b.nanos) - Number(a.nanos < b.nanos)
	if (a instanceof Duration && b instanceof Duration) return Number(a.nanos > b.nanos) - Number(a.nanos < b.nanos)
	throw new CelError('no such overload')
}

function relations(): Library {
	const out: Record<string, (args: never) => Value> = {}
	const kinds = ['bool', 'int', 'uint', 'double', 'string', 'bytes', 'timestamp', 'duration']
	const numbers = ['int', 'uint', 'double']
	const pairs = [
		...kinds.map((k) => [k, k]),
		...numbers.flatMap((a) => numbers.filter((b) => a !== b).map((b) => [a, b])),
	]
	const tests: Record<string, (order: number) => boolean> = {
		'_<_': (order) => order < 0,
		'_<=_': (order) => order <= 0,
		'_>_': (order) => order > 0,
		'_>=_': (order) => order >= 0,
	}
	for (const [name, test] of Object.entries(tests))
		for (const [a, b] of pairs) out[`:${name}(${a}, ${b}) bool`] = ([x, y]: readonly Value[]) => test(compare(x!, y!))
	return out
}

const operators: Library = {
	':_==_(A, A) bool': ([a, b]: Two<Value>, budget) => {
		charge(budget, weightOf(a))
		return equal(a, b)
	},
	':_!=_(A, A) bool': ([a, b]: Two<Value>, budget) => {
		charge(budget, weightOf(a))
		return !equal(a, b)
	},
	':@in(A, list<A>) bool': ([item, list]: readonly [Value, ListValue], budget) => {
		charge(budget, list.size)
		for (const other of list) if (equal(item, other)) return true
		return false
	},
	':@in(A, map<A, B>) bool': ([key, map]: readonly [Value, MapValue]) => {
		const k = keyOf(key)
		return k !== undefined && map.has(k)
	},
	':!_(bool) bool': ([a]: readonly [boolean]) => !a,
	':-_(int) int': ([a]: readonly [bigint]) => int(-a),
	':-_(double) double': ([a]: readonly [number]) => -a,
	':_+_(int, int) int': ([a, b]: Two<bigint>) => int(a + b),
	':_-_(int, int) int': ([a, b]: Two<bigint>) => int(a - b),
	':_*_(int, int) int': ([a, b]: Two<bigint>) => int(a * b),
	':_/_(int, int) int': ([a, b]: Two<bigint>) => int(a / divisor(b, 'division')),
	':_%_(int, int) int': ([a, b]: Two<bigint>) => int(a % divisor(b, 'modulus')),
	':_+_(uint, uint) uint': ([a, b]: Two<Uint>) => new Uint(a.value + b.value),
	':_-_(uint, uint) uint': ([a, b]: Two<Uint>) => new Uint(a.value - b.value),
	':_*_(uint, uint) uint': ([a, b]: Two<Uint>) => new Uint(a.value * b.value),
	':_/_(uint, uint) uint': ([a, b]: Two<Uint>) => new Uint(a.value / divisor(b.value, 'division')),
	':_%_(uint, uint) uint': ([a, b]: Two<Uint>) => new Uint(a.value % divisor(b.value, 'modulus')),
	':_+_(double, double) double': ([a, b]: Two<number>) => a + b,
	':_-_(double, double) double': ([a, b]: Two<number>) => a - b,
	':_*_(double, double) double': ([a, b]: Two<number>) => a * b,
	':_/_(double, double) double': ([a, b]: Two<number>) => a / b,
	':_+_(string, string) string': ([a, b]: Two<string>, budget) => {
		charge(budget, (a.length + b.length) / 10)
		return a + b
	},
	':_+_(bytes, bytes) bytes': ([a, b]: Two<Uint8Array>) => Uint8Array.from([...a, ...b]),
	':_+_(list<A>, list<A>) list<A>': ([a, b]: Two<ListValue>, budget) => {
		charge(budget, a.size + b.size)
		const { merge } = a
		if (merge === undefined) return new List([...a, ...b])
		// Sets and lists with keys stay what they are: what is there already keeps its place.
		const kept = [...a].map((item) => findSame(b, item, merge) ?? item)
		return new List([...kept, ...[...b].filter((item) => findSame(a, item, merge) === undefined)], merge)
	},
	':_+_(timestamp, duration) timestamp': ([a, b]: readonly [Timestamp, Duration]) => new Timestamp(a.nanos + b.nanos),
	':_+_(duration, timestamp) timestamp': ([a, b]: readonly [Duration, Timestamp]) => new Timestamp(a.nanos + b.nanos),
	':_+_(duration, duration) duration': ([a, b]: Two<Duration>) => new Duration(a.nanos + b.nanos),
	':_-_(timestamp, timestamp) duration': ([a, b]: Two<Timestamp>) => new Duration(a.nanos - b.nanos),
	':_-_(timestamp, duration) timestamp': ([a, b]: readonly [Timestamp, Duration]) => new Timestamp(a.nanos - b.nanos),
	':_-_(duration, duration) duration': ([a, b]: Two<Duration>) => new Duration(a.nanos - b.nanos),
}

function divisor(value: bigint, what: string): bigint {
	if (value === 0n) throw new CelError(what === 'division' ? 'division by zero' : 'modulus by zero')
	return value
}

/** About how much there is to compare. */
function weightOf(value: Value): number {
	if (typeof value === 'string') return value.length / 10
	if (typeof value !== 'object' || value === null) return 0
	return 'size' in value ? Number(value.size) : 0
}

const wholeNumber = /^[+-]?\d+$/
const decimal = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/
const truths: Readonly<Record<string, boolean>> = {
	1: true,
	t: true,
	T: true,
	true: true,
	TRUE: true,
	True: true,
	0: false,
	f: false,
	F: false,
	false: false,
	FALSE: false,
	False: false,
}
const same = ([a]: readonly [Value]) => a

const conversions: Library = {
	':dyn(A) dyn': same,
	':type(A) type': ([a]: readonly [Value]) => new TypeName(typeNameOf(a)),
	':bool(bool) bool': same,
	':bool(string) bool': ([a]: readonly [string]) => {
		const found = Object.hasOwn(truths, a) ? truths[a] : undefined
		if (found === undefined) throw new CelError(`type conversion error from 'string' to 'bool'`)
		return found
	},
	':int(int) int': same,
	':int(uint) int': ([a]: readonly [Uint]) => int(a.value),
	':int(double) int': ([a]: readonly [number]) => {
		if (!Number.isFinite(a) || a <= -(2 ** 63) || a >= 2 ** 63) throw new CelError('integer overflow')
		return BigInt(Math.trunc(a))
	},
	':int(string) int': ([a]: readonly [string]) => {
		if (!wholeNumber.test(a) || a.length > 30)
			throw new CelError(`strconv.ParseInt: parsing ${JSON.stringify(a)}: invalid syntax`)
		const value = BigInt(a.replace(/^\+/, ''))
		if (value < minInt || value > maxInt)
			throw new CelError(`strconv.ParseInt: parsing ${JSON.stringify(a)}: value out of range`)
		return value
	},
	':int(timestamp) int': ([a]: readonly [Timestamp]) => floor(a.nanos, second),
	':int(duration) int': ([a]: readonly [Duration]) => a.nanos,
	':uint(uint) uint': same,
	':uint(int) uint': ([a]: readonly [bigint]) => new Uint(a),
	':uint(double) uint': ([a]: readonly [number]) => {
		if (!Number.isFinite(a) || a < 0 || a >= 2 ** 64) throw new CelError('unsigned integer overflow')
		return new Uint(BigInt(Math.trunc(a)))
	},
	':uint(string) uint': ([a]: readonly [string]) => {
		if (!/^\d{1,20}$/.test(a)) throw new CelError(`strconv.ParseUint: parsing ${JSON.stringify(a)}: invalid syntax`)
		return new Uint(BigInt(a))
	},
	':double(double) double': same,
	':double(int) double': ([a]: readonly [bigint]) => Number(a),
	':double(uint) double': ([a]: readonly [Uint]) => Number(a.value),
	':double(string) double': ([a]: readonly [string]) => {
		const special = /^([+-]?)(?:(inf|infinity)|nan)$/i.exec(a)
		if (special !== null) return special[2] === undefined ? Number.NaN : special[1] === '-' ? -Infinity : Infinity
		if (!decimal.test(a)) throw new CelError(`strconv.ParseFloat: parsing ${JSON.stringify(a)}: invalid syntax`)
		return Number(a)
	},
	':string(string) string': same,
	':string(bool) string': ([a]: readonly [boolean]) => String(a),
	':string(int) string': ([a]: readonly [bigint]) => String(a),
	':string(uint) string': ([a]: readonly [Uint]) => String(a.value),
	':string(double) string': ([a]: readonly [number]) => printDouble(a),
	':string(bytes) string': ([a]: readonly [Uint8Array]) => {
		try {
			return new TextDecoder('utf-8', { fatal: true }).decode(a)
		} catch {
			throw new CelError('invalid UTF-8 in bytes, cannot convert to string')
		}
	},
	':string(timestamp) string': ([a]: readonly [Timestamp]) => printTimestamp(a),
	':string(duration) string': ([a]: readonly [Duration]) => printDuration(a),
	':bytes(bytes) bytes': same,
	':bytes(string) bytes': ([a]: readonly [string]) => new TextEncoder().encode(a),
	':timestamp(timestamp) timestamp': same,
	':timestamp(int) timestamp': ([a]: readonly [bigint]) => new Timestamp(a * second),
	':timestamp(string) timestamp': ([a]: readonly [string]) => {
		const value = parseTimestamp(a)
		if (value === undefined)
			throw new CelError(`parsing time ${JSON.stringify(a)} as "2006-01-02T15:04:05Z07:00": cannot parse`)
		return value
	},
	':duration(duration) duration': same,
	':duration(string) duration': ([a]: readonly [string]) => {
		const value = parseDuration(a)
		if (value === undefined) throw new CelError(`time: invalid duration ${JSON.stringify(a)}`)
		return value
	},
	':size(string) int': ([a]: readonly [string]) => BigInt(lengthOf(a)),
	':size(bytes) int': ([a]: readonly [Uint8Array]) => BigInt(a.length),
	':size(list<A>) int': ([a]: readonly [ListValue]) => BigInt(a.size),
	':size(map<A, B>) int': ([a]: readonly [MapValue]) => BigInt(a.size),
	'string.size() int': ([a]: readonly [string]) => BigInt(lengthOf(a)),
	'bytes.size() int': ([a]: readonly [Uint8Array]) => BigInt(a.length),
	'list<A>.size() int': ([a]: readonly [ListValue]) => BigInt(a.size),
	'map<A, B>.size() int': ([a]: readonly [MapValue]) => BigInt(a.size),
	'string.contains(string) bool': ([a, b]: Two<string>, budget) => {
		charge(budget, a.length / 10)
		return a.includes(b)
	},
	'string.startsWith(string) bool': ([a, b]: Two<string>) => a.startsWith(b),
	'string.endsWith(string) bool': ([a, b]: Two<string>) => a.endsWith(b),
	'string.matches(string) bool': ([a, b]: Two<string>, budget) => {
		charge(budget, ((a.length + 1) * (b.length + 1)) / 40)
		return regexOf(b).test(a)
	},
	':matches(string, string) bool': ([a, b]: Two<string>, budget) => {
		charge(budget, ((a.length + 1) * (b.length + 1)) / 40)
		return regexOf(b).test(a)
	},
}

/** As Go's %g of the shortest form. */
export function printDouble(value: number): string {
	if (Number.isNaN(value)) return 'NaN'
	if (!Number.isFinite(value)) return value > 0 ? '+Inf' : '-Inf'
	if (Object.is(value, -0)) return '-0'
	const size = Math.abs(value)
	if (size !== 0 && (size < 1e-4 || size >= 1e21)) return value.toExponential().replace(/e([+-])(\d)$/, 'e$10$2')
	return String(value)
}

export function parseTimestamp(text: string): Timestamp | undefined {
	const m = /^(\d{4})-(\d{2})-(\d{2})[Tt](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d{2}:\d{2})$/.exec(text)
	if (m === null) return undefined
	const [, year, month, day, hour, minute, sec, fraction = '', zone = 'Z'] = m
	const ms = Date.UTC(Number(year), Number(month) - 1, Number(day), Number(hour), Number(minute), Number(sec))
	const date = new Date(ms)
	// Years before 100 are taken for years of the last century.
	if (Number(year) < 100) date.setUTCFullYear(Number(year))
	if (date.getUTCMonth() !== Number(month) - 1 || date.getUTCDate() !== Number(day) || Number(hour) > 23)
		return undefined
	if (Number(minute) > 59 || Number(sec) > 59) return undefined
	const offset = /^[Zz]$/.test(zone)
		? 0
		: (zone[0] === '-' ? -1 : 1) * (Number(zone.slice(1, 3)) * 60 + Number(zone.slice(4, 6)))
	const nanos = BigInt(date.getTime() - offset * 60_000) * 1_000_000n + BigInt(fraction.padEnd(9, '0'))
	try {
		return new Timestamp(nanos)
	} catch {
		return undefined
	}
}

const units: Readonly<Record<string, bigint>> = {
	ns: 1n,
	us: 1000n,
	µs: 1000n,
	μs: 1000n,
	ms: 1_000_000n,
	s: second,
	m: 60n * second,
	h: 3600n * second,
}

/** Go's time.ParseDuration. */
export function parseDuration(text: string): Duration | undefined {
	const m = /^([+-]?)((?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+|0)$/.exec(text)
	if (m === null) return undefined
	let nanos = 0n
	for (const [, whole = '', fraction = '', unit = 's'] of m[2]!.matchAll(/(\d*)\.?(\d*)(ns|us|µs|μs|ms|s|m|h)/g)) {
		const size = units[unit]!
		nanos += BigInt(whole || '0') * size
		if (fraction !== '') nanos += (BigInt(fraction) * size) / 10n ** BigInt(fraction.length)
	}
	const signed = m[1] === '-' ? -nanos : nanos
	return signed > maxInt || signed < minInt ? undefined : new Duration(signed)
}

function floor(value: bigint, by: bigint): bigint {
	const whole = value / by
	return value % by < 0n ? whole - 1n : whole
}

function printTimestamp({ nanos }: Timestamp): string {
	const seconds = floor(nanos, second)
	const rest = Number(nanos - seconds * second)
	const text = printTime({ seconds: Number(seconds), nanos: 0 } as Parameters<typeof printTime>[0])
	if (rest === 0) return text
	return text.replace(/Z$/, `.${String(rest).padStart(9, '0').replace(/0+$/, '')}Z`)
}

/** `90s`, `1.5s`: seconds, as cel-go prints durations. */
export function printDuration({ nanos }: Duration): string {
	const sign = nanos < 0n ? '-' : ''
	const size = nanos < 0n ? -nanos : nanos
	const fraction = String(size % second)
		.padStart(9, '0')
		.replace(/0+$/, '')
	return `${sign}${size / second}${fraction === '' ? '' : `.${fraction}`}s`
}

interface Clock {
	readonly year: number
	readonly month: number
	readonly day: number
	readonly weekday: number
	readonly yearday: number
	readonly hour: number
	readonly minute: number
	readonly second: number
	readonly ms: number
}

/** What clocks show at a time in a zone: `UTC`, `America/New_York`, `-07:00`. */
function clockOf({ nanos }: Timestamp, zone: string): Clock {
	const ms = Number(floor(nanos, 1_000_000n))
	const fixed = /^([+-]?)(\d{1,2}):(\d{2})$/.exec(zone)
	let shift = 0
	if (fixed !== null) shift = (fixed[1] === '-' ? -1 : 1) * (Number(fixed[2]) * 60 + Number(fixed[3])) * 60_000
	else if (zone !== 'UTC' && zone !== '') {
		let parts: Intl.DateTimeFormatPart[]
		try {
			parts = new Intl.DateTimeFormat('en-US', {
				timeZone: zone,
				hourCycle: 'h23',
				year: 'numeric',
				month: 'numeric',
				day: 'numeric',
				hour: 'numeric',
				minute: 'numeric',
				second: 'numeric',
			}).formatToParts(ms)
		} catch {
			throw new CelError(`unknown time zone ${zone}`)
		}
		const of = (type: string) => Number(parts.find((part) => part.type === type)?.value)
		const local = Date.UTC(of('year'), of('month') - 1, of('day'), of('hour'), of('minute'), of('second'))
		shift = local - Math.floor(ms / 1000) * 1000
	}
	const d = new Date(ms + shift)
	const year = d.getUTCFullYear()
	return {
		year,
		month: d.getUTCMonth(),
		day: d.getUTCDate(),
		weekday: d.getUTCDay(),
		yearday: Math.floor((Date.UTC(year, d.getUTCMonth(), d.getUTCDate()) - Date.UTC(year, 0, 1)) / 86_400_000),
		hour: d.getUTCHours(),
		minute: d.getUTCMinutes(),
		second: d.getUTCSeconds(),
		ms: d.getUTCMilliseconds(),
	}
}

const clockParts: Readonly<Record<string, (clock: Clock) => number>> = {
	getFullYear: (c) => c.year,
	getMonth: (c) => c.month,
	getDate: (c) => c.day,
	getDayOfMonth: (c) => c.day - 1,
	getDayOfWeek: (c) => c.weekday,
	getDayOfYear: (c) => c.yearday,
	getHours: (c) => c.hour,
	getMinutes: (c) => c.minute,
	getSeconds: (c) => c.second,
	getMilliseconds: (c) => c.ms,
}

function times(): Library {
	const out: Record<string, (args: never) => Value> = {}
	for (const [name, part] of Object.entries(clockParts)) {
		out[`timestamp.${name}() int`] = ([t]: readonly [Timestamp]) => BigInt(part(clockOf(t, 'UTC')))
		out[`timestamp.${name}(string) int`] = ([t, zone]: readonly [Timestamp, string]) => BigInt(part(clockOf(t, zone)))
	}
	const amounts: Record<string, bigint> = {
		getHours: 3600n * second,
		getMinutes: 60n * second,
		getSeconds: second,
	}
	for (const [name, unit] of Object.entries(amounts))
		out[`duration.${name}() int`] = ([d]: readonly [Duration]) => d.nanos / unit
	out['duration.getMilliseconds() int'] = ([d]: readonly [Duration]) => d.nanos / 1_000_000n
	return out
}

export const standard: readonly Library[] = [operators, relations(), conversions, times()]
