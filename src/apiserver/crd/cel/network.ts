// The network libraries Kubernetes adds to CEL: URLs, IP addresses, CIDRs.
// Source: https://kubernetes.io/docs/reference/using-api/cel/ (URL library, IP address library, CIDR library).

import {
	type Cidr,
	cidrAddress,
	cidrContains,
	cidrLength,
	familyOf,
	type Ip,
	ipToBytes,
	maskIp,
	tryParseCidr,
	tryParseIp,
} from '../../../base/ip.ts'
import type { Library } from './functions.ts'
import { CelError, Entries, type Key, List, Opaque, type Value } from './values.ts'

export class IpValue extends Opaque {
	readonly typeName = 'net.IP'
	readonly ip: Ip
	constructor(ip: Ip) {
		super()
		this.ip = ip
	}
	equals(other: Opaque): boolean {
		return other instanceof IpValue && other.ip === this.ip
	}
}

export class CidrValue extends Opaque {
	readonly typeName = 'net.CIDR'
	readonly cidr: Cidr
	constructor(cidr: Cidr) {
		super()
		this.cidr = cidr
	}
	equals(other: Opaque): boolean {
		return other instanceof CidrValue && other.cidr === this.cidr
	}
}

/** Zones and IPv4-mapped addresses are refused, as Kubernetes' library does. */
function readIp(text: string): Ip | string {
	if (text.includes('%')) return `IP Address ${JSON.stringify(text)} with zone value is not allowed`
	if (/^::ffff:\d+\.\d+\.\d+\.\d+$/i.test(text))
		return `IPv4-mapped IPv6 address ${JSON.stringify(text)} is not allowed`
	return (
		tryParseIp(text) ??
		`IP Address ${JSON.stringify(text)} parse error during conversion from string: unable to parse IP`
	)
}

function ipOf(text: string): Ip {
	const ip = readIp(text)
	if (tryParseIp(ip) === undefined) throw new CelError(ip)
	return ip as Ip
}

function isIp(text: string): boolean {
	return tryParseIp(readIp(text)) !== undefined
}

function readCidr(text: string): Cidr | undefined {
	if (text.includes('%') || /^::ffff:\d+\.\d+/i.test(text)) return undefined
	return tryParseCidr(text, { mask: false }) ?? looseCidr(text)
}

/** With bits of the host set it is a CIDR all the same. */
function looseCidr(text: string): Cidr | undefined {
	const m = /^(.+)\/(0|[1-9]\d{0,2})$/.exec(text)
	const ip = m === null ? undefined : tryParseIp(m[1]!)
	if (m === null || ip === undefined || Number(m[2]) > (familyOf(ip) === 4 ? 32 : 128)) return undefined
	return `${ip}/${m[2]}` as Cidr
}

function cidrOf(text: string): Cidr {
	const cidr = readCidr(text)
	if (cidr === undefined)
		throw new CelError(`network address parse error during conversion from string: ${JSON.stringify(text)}`)
	return cidr
}

function masked(cidr: Cidr): Cidr {
	return `${maskIp(cidrAddress(cidr), cidrLength(cidr))}/${cidrLength(cidr)}` as Cidr
}

function containsIp(cidr: Cidr, ip: Ip): boolean {
	return familyOf(cidr) === familyOf(ip) && cidrContains(masked(cidr), ip)
}

function containsCidr(cidr: Cidr, other: Cidr): boolean {
	return cidrLength(other) >= cidrLength(cidr) && containsIp(cidr, cidrAddress(other))
}

function isKind(
	ip: Ip,
	kind: 'unspecified' | 'loopback' | 'linkLocalMulticast' | 'linkLocalUnicast' | 'multicast',
): boolean {
	const bytes = ipToBytes(ip)
	const v4 = bytes.length === 4
	switch (kind) {
		case 'unspecified':
			return bytes.every((b) => b === 0)
		case 'loopback':
			return v4 ? bytes[0] === 127 : bytes.every((b, i) => b === (i === 15 ? 1 : 0))
		case 'linkLocalMulticast':
			return v4 ? bytes[0] === 224 && bytes[1] === 0 && bytes[2] === 0 : bytes[0] === 0xff && (bytes[1]! & 0x0f) === 2
		case 'linkLocalUnicast':
			return v4 ? bytes[0] === 169 && bytes[1] === 254 : bytes[0] === 0xfe && (bytes[1]! & 0xc0) === 0x80
		case 'multicast':
			return v4 ? (bytes[0]! & 0xf0) === 0xe0 : bytes[0] === 0xff
	}
}

function isGlobalUnicast(ip: Ip): boolean {
	if (familyOf(ip) === 4 && ipToBytes(ip).every((b) => b === 255)) return false
	return (
		!isKind(ip, 'unspecified') && !isKind(ip, 'loopback') && !isKind(ip, 'multicast') && !isKind(ip, 'linkLocalUnicast')
	)
}

const addresses: Library = {
	':ip(string) net.IP': ([text]: readonly [string]) => new IpValue(ipOf(text)),
	':isIP(string) bool': ([text]: readonly [string]) => isIp(text),
	':ip.isCanonical(string) bool': ([text]: readonly [string]) => ipOf(text) === text,
	':string(net.IP) string': ([ip]: readonly [IpValue]) => ip.ip,
	'net.IP.family() int': ([ip]: readonly [IpValue]) => BigInt(familyOf(ip.ip)),
	'net.IP.isUnspecified() bool': ([ip]: readonly [IpValue]) => isKind(ip.ip, 'unspecified'),
	'net.IP.isLoopback() bool': ([ip]: readonly [IpValue]) => isKind(ip.ip, 'loopback'),
	'net.IP.isLinkLocalMulticast() bool': ([ip]: readonly [IpValue]) => isKind(ip.ip, 'linkLocalMulticast'),
	'net.IP.isLinkLocalUnicast() bool': ([ip]: readonly [IpValue]) => isKind(ip.ip, 'linkLocalUnicast'),
	'net.IP.isGlobalUnicast() bool': ([ip]: readonly [IpValue]) => isGlobalUnicast(ip.ip),
	':cidr(string) net.CIDR': ([text]: readonly [string]) => new CidrValue(cidrOf(text)),
	':isCIDR(string) bool': ([text]: readonly [string]) => readCidr(text) !== undefined,
	':string(net.CIDR) string': ([cidr]: readonly [CidrValue]) => cidr.cidr,
	'net.CIDR.containsIP(net.IP) bool': ([cidr, ip]: readonly [CidrValue, IpValue]) => containsIp(cidr.cidr, ip.ip),
	'net.CIDR.containsIP(string) bool': ([cidr, ip]: readonly [CidrValue, string]) => containsIp(cidr.cidr, ipOf(ip)),
	'net.CIDR.containsCIDR(net.CIDR) bool': ([cidr, other]: readonly [CidrValue, CidrValue]) =>
		containsCidr(cidr.cidr, other.cidr),
	'net.CIDR.containsCIDR(string) bool': ([cidr, other]: readonly [CidrValue, string]) =>
		containsCidr(cidr.cidr, cidrOf(other)),
	'net.CIDR.ip() net.IP': ([cidr]: readonly [CidrValue]) => new IpValue(cidrAddress(cidr.cidr)),
	'net.CIDR.masked() net.CIDR': ([cidr]: readonly [CidrValue]) => new CidrValue(masked(cidr.cidr)),
	'net.CIDR.prefixLength() int': ([cidr]: readonly [CidrValue]) => BigInt(cidrLength(cidr.cidr)),
}

/** The parts of a URL as Go's url.ParseRequestURI sees them. */
export class UrlValue extends Opaque {
	readonly typeName = 'kubernetes.URL'
	readonly scheme: string
	/** With the port. */
	readonly host: string
	readonly path: string
	readonly query: string
	readonly text: string
	constructor(parts: { scheme: string; host: string; path: string; query: string; text: string }) {
		super()
		this.scheme = parts.scheme
		this.host = parts.host
		this.path = parts.path
		this.query = parts.query
		this.text = parts.text
	}
	equals(other: Opaque): boolean {
		return other instanceof UrlValue && other.text === this.text
	}
}

/** Absolute URLs and absolute paths; a text: what is wrong. */
export function readUrl(text: string): UrlValue | string {
	const fail = (why: string): string => `parse ${JSON.stringify(text)}: ${why}`
	if (text === '') return fail('empty url')
	// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
	if (/[\x00-\x1f\x7f]/.test(text)) return fail('net/url: invalid control character in URL')
	// There are no fragments in requests: a # is part of what it stands in.
	const scheme = /^([a-zA-Z][a-zA-Z0-9+.-]*):/.exec(text)?.[1]?.toLowerCase() ?? ''
	if (scheme === '' && /^[^/?#]*:/.test(text)) {
		if (text.startsWith(':')) return fail('missing protocol scheme')
		if (!text.startsWith('/')) return fail('first path segment in URL cannot contain colon')
	}
	let rest = scheme === '' ? text : text.slice(scheme.length + 1)
	const mark = rest.indexOf('?')
	const query = mark < 0 ? '' : rest.slice(mark + 1)
	if (mark >= 0) rest = rest.slice(0, mark)
	if (!rest.startsWith('/')) {
		if (scheme === '') return fail('invalid URI for request')
		// Opaque: mailto:x
		return new UrlValue({ scheme, host: '', path: '', query, text })
	}
	let host = ''
	let path = rest
	if ((scheme !== '' || !rest.startsWith('///')) && rest.startsWith('//')) {
		const slash = rest.indexOf('/', 2)
		const authority = slash < 0 ? rest.slice(2) : rest.slice(2, slash)
		path = slash < 0 ? '' : rest.slice(slash)
		const at = authority.lastIndexOf('@')
		if (at >= 0 && !/^[A-Za-z0-9\-._~!$&'()*+,;=:%]*$/.test(authority.slice(0, at)))
			return fail('net/url: invalid userinfo')
		host = authority.slice(at + 1)
		const why = hostFault(host)
		if (why !== undefined) return fail(why)
	}
	const bad = /%(?![0-9a-fA-F]{2}).{0,2}/.exec(path)
	if (bad !== null) return fail(`invalid URL escape ${JSON.stringify(bad[0])}`)
	return new UrlValue({ scheme, host, path, query, text })
}

function hostFault(host: string): string | undefined {
	const bracket = /^\[([^\]]*)\](.*)$/.exec(host)
	if (host.startsWith('[') && bracket === null) return "missing ']' in host"
	const port = bracket === null ? host.slice(host.lastIndexOf(':')) : bracket[2]!
	const hasPort = bracket === null ? host.includes(':') : port !== ''
	if (hasPort && !/^:\d*$/.test(port)) return `invalid port ${JSON.stringify(port)} after host`
	const name = bracket === null ? host : bracket[1]!
	const bad = /[ "<>\\^`{|}#]/.exec(name)
	if (bad !== null) return `invalid character ${JSON.stringify(bad[0])} in host name`
	const broken = /%(?![0-9a-fA-F]{2}).{0,2}/.exec(bracket === null ? name : '')
	return broken === null ? undefined : `invalid URL escape ${JSON.stringify(broken[0])}`
}

function urlOf(text: string): UrlValue {
	const url = readUrl(text)
	if (typeof url === 'string') throw new CelError(`URL parse error during conversion from string: ${url}`)
	return url
}

function hostnameOf(host: string): string {
	const bracket = /^\[([^\]]*)\]/.exec(host)
	return bracket !== null ? bracket[1]! : host.replace(/:\d*$/, '')
}

function queryOf(text: string): Entries {
	const out = new Map<Key, string[]>()
	for (const part of text.split('&')) {
		if (part === '' || part.includes(';')) continue
		const [key, value] = splitOnce(part, '=').map((piece) => unescaped(piece.replaceAll('+', ' ')))
		if (key === undefined || value === undefined) continue
		const list = out.get(key)
		if (list === undefined) out.set(key, [value])
		else list.push(value)
	}
	return new Entries(new Map([...out].map(([key, list]) => [key, new List(list) as Value])))
}

function splitOnce(text: string, by: string): readonly [string, string] {
	const at = text.indexOf(by)
	return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)]
}

function unescaped(text: string): string | undefined {
	try {
		return decodeURIComponent(text)
	} catch {
		return undefined
	}
}

const allowedInPath = /[^A-Za-z0-9\-._~!$&'()*+,;=:@/%]/gu

const urls: Library = {
	':url(string) kubernetes.URL': ([text]: readonly [string]) => urlOf(text),
	':isURL(string) bool': ([text]: readonly [string]) => typeof readUrl(text) !== 'string',
	'kubernetes.URL.getScheme() string': ([url]: readonly [UrlValue]) => url.scheme,
	'kubernetes.URL.getHost() string': ([url]: readonly [UrlValue]) => url.host,
	'kubernetes.URL.getHostname() string': ([url]: readonly [UrlValue]) => hostnameOf(url.host),
	'kubernetes.URL.getPort() string': ([url]: readonly [UrlValue]) => /:(\d*)$/.exec(url.host)?.[1] ?? '',
	'kubernetes.URL.getEscapedPath() string': ([url]: readonly [UrlValue]) =>
		url.path.replace(allowedInPath, (char) => encodeURIComponent(char)),
	'kubernetes.URL.getQuery() map<string, list<string>>': ([url]: readonly [UrlValue]) => queryOf(url.query),
}

export const network: readonly Library[] = [addresses, urls]
