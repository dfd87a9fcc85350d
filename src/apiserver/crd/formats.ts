// The formats a schema may want of a text. What is not here is not checked, as on the real server.
// Source: the formats apiextensions v1 names (k8s.io/apiextensions-apiserver/pkg/apiserver/validation/formats.go).

import { tryParseIp } from '../../base/ip.ts'
import { readUrl } from './cel/network.ts'
import { parseDuration, parseTimestamp } from './cel/standard.ts'

const uuid = (version: string) =>
	new RegExp(
		`^[0-9a-f]{8}-?[0-9a-f]{4}-?${version}[0-9a-f]{3}-?${version === '[0-9a-f]' || version === '3' ? '[0-9a-f]' : '[89ab]'}[0-9a-f]{3}-?[0-9a-f]{12}$`,
		'i',
	)
const label = /^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$/i

const tests: Readonly<Record<string, (text: string) => boolean>> = {
	bsonobjectid: (text) => /^[0-9a-f]{24}$/i.test(text),
	uri: (text) => typeof readUrl(text) !== 'string',
	email: (text) => /^[^\s@<>"]+@[^\s@<>"]+$/.test(text),
	hostname: (text) => text.length <= 255 && text.split('.').every((part) => part.length <= 63 && label.test(part)),
	ipv4: (text) => tryParseIp(text) !== undefined && text.includes('.') && !text.includes(':'),
	ipv6: (text) => tryParseIp(text) !== undefined && text.includes(':'),
	cidr: isCidr,
	mac: (text) =>
		/^(?:[0-9a-f]{2}([:-]))(?:[0-9a-f]{2}\1){4}(?:[0-9a-f]{2}|(?:[0-9a-f]{2}\1)[0-9a-f]{2}\1[0-9a-f]{2})$/i.test(
			text,
		) || /^(?:[0-9a-f]{4}\.){2,3}[0-9a-f]{4}$/i.test(text),
	uuid: (text) => uuid('[0-9a-f]').test(text),
	uuid3: (text) => uuid('3').test(text),
	uuid4: (text) => uuid('4').test(text),
	uuid5: (text) => uuid('5').test(text),
	isbn: (text) => isIsbn10(text) || isIsbn13(text),
	isbn10: isIsbn10,
	isbn13: isIsbn13,
	creditcard: isCreditCard,
	ssn: (text) => /^\d{3}[- ]?\d{2}[- ]?\d{4}$/.test(text),
	hexcolor: (text) => /^#?(?:[0-9a-f]{3}|[0-9a-f]{6})$/i.test(text),
	rgbcolor: (text) => {
		const m = /^rgb\(\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*\)$/.exec(text)
		return m?.slice(1).every((part) => Number(part) <= 255) ?? false
	},
	byte: (text) => text.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(text.replace(/[\r\n]/g, '')),
	password: () => true,
	date: (text) => /^\d{4}-\d{2}-\d{2}$/.test(text) && parseTimestamp(`${text}T00:00:00Z`) !== undefined,
	duration: (text) => parseDuration(text.replace(/\s+/g, '')) !== undefined || isWordDuration(text),
	datetime: (text) => parseTimestamp(text) !== undefined,
}

/** Whether a text is of a format; true for formats nobody knows. */
export function isFormat(format: string, text: string): boolean {
	const name = format.replaceAll('-', '')
	return Object.hasOwn(tests, name) ? tests[name]!(text) : true
}

export function isKnownFormat(format: string): boolean {
	return Object.hasOwn(tests, format.replaceAll('-', '')) || ['int32', 'int64', 'float', 'double'].includes(format)
}

function isCidr(text: string): boolean {
	const m = /^(.+)\/(\d{1,3})$/.exec(text)
	const ip = m === null ? undefined : tryParseIp(m[1]!)
	return m !== null && ip !== undefined && Number(m[2]) <= (ip.includes(':') ? 128 : 32)
}

/** `3 weeks`, `2 days`: strfmt's durations have words too. */
function isWordDuration(text: string): boolean {
	return /^\s*(?:\d+\s*(?:ns|nanos?|nanoseconds?|us|micros?|microseconds?|ms|millis?|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hr|hrs|hours?|d|days?|w|wks?|weeks?)\s*)+$/i.test(
		text,
	)
}

function isIsbn10(text: string): boolean {
	const digits = text.replace(/[\s-]/g, '')
	if (!/^\d{9}[\dX]$/.test(digits)) return false
	return [...digits].reduce((sum, d, i) => sum + (10 - i) * (d === 'X' ? 10 : Number(d)), 0) % 11 === 0
}

function isIsbn13(text: string): boolean {
	const digits = text.replace(/[\s-]/g, '')
	return (
		/^\d{13}$/.test(digits) && [...digits].reduce((sum, d, i) => sum + Number(d) * (i % 2 === 0 ? 1 : 3), 0) % 10 === 0
	)
}

function isCreditCard(text: string): boolean {
	const digits = text.replace(/[^0-9]/g, '')
	if (!/^\d{13,19}$/.test(digits)) return false
	const sum = [...digits].reverse().reduce((total, d, i) => {
		const doubled = i % 2 === 1 ? Number(d) * 2 : Number(d)
		return total + (doubled > 9 ? doubled - 9 : doubled)
	}, 0)
	return sum % 10 === 0
}
