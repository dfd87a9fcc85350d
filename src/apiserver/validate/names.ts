// What names, labels, ports and addresses may look like. Each function gives the reasons against a value; none: it is
// right. Sources: RFC 1123, RFC 1035, RFC 6335; k8s.io/apimachinery/pkg/util/validation.

import { tryParseCidr, tryParseIp } from '../../base/ip.ts'

const label = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/
const subdomain = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/
const qualified = /^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$/

function longerThan(value: string, limit: number): string[] {
	return value.length > limit ? [`must be no more than ${limit} characters`] : []
}

const labelRule =
	"must be a lowercase RFC 1123 label: a-z, 0-9 and '-', beginning and ending with a letter or digit (e.g. 'my-name' or '123-abc')"

/** A lowercase RFC 1123 label. */
export function labelFaults(value: string): string[] {
	return [...longerThan(value, 63), ...(label.test(value) ? [] : [labelRule])]
}

/** A lowercase RFC 1123 subdomain. */
export function subdomainFaults(value: string): string[] {
	return [
		...longerThan(value, 253),
		...(subdomain.test(value)
			? []
			: [
					"must be a lowercase RFC 1123 subdomain: a-z, 0-9, '-' and '.', each part beginning and ending with a letter or digit (e.g. 'example.com')",
				]),
	]
}

/** An RFC 1035 label: it begins with a letter. */
export function label1035Faults(value: string): string[] {
	return [
		...longerThan(value, 63),
		...(/^[a-z]([-a-z0-9]*[a-z0-9])?$/.test(value)
			? []
			: [
					"must be a DNS-1035 label: a-z, 0-9 and '-', beginning with a letter and ending with a letter or digit (e.g. 'my-name' or 'abc-123')",
				]),
	]
}

/** A key of labels: an optional prefix that is a subdomain, `/`, a name. */
export function qualifiedNameFaults(value: string): string[] {
	const parts = value.split('/')
	const faults: string[] = []
	if (parts.length > 2)
		return ["must be a name with at most one prefix before a '/' (e.g. 'MyName' or 'example.com/MyName')"]
	if (parts.length === 2) {
		if (parts[0] === '') faults.push('prefix part must be non-empty')
		else faults.push(...subdomainFaults(parts[0]!).map((why) => `prefix part ${why}`))
	}
	const name = parts.at(-1)!
	if (name === '') faults.push('name part must be non-empty')
	else {
		faults.push(...longerThan(name, 63).map((why) => `name part ${why}`))
		if (!qualified.test(name))
			faults.push(
				"name part must consist of A-Z, a-z, 0-9, '-', '_' and '.', beginning and ending with a letter or digit (e.g. 'MyName' or 'my.name')",
			)
	}
	return faults
}

export function labelValueFaults(value: string): string[] {
	if (value === '') return []
	return [
		...longerThan(value, 63),
		...(qualified.test(value)
			? []
			: [
					"a label must be empty or consist of A-Z, a-z, 0-9, '-', '_' and '.', beginning and ending with a letter or digit (e.g. 'MyValue' or '12345')",
				]),
	]
}

/** A name as a part of a URL path: roles and their bindings. */
export function pathSegmentFaults(value: string): string[] {
	if (value === '.' || value === '..') return [`may not be '${value}'`]
	return ['/', '%'].filter((c) => value.includes(c)).map((c) => `may not contain '${c}'`)
}

/** A port's name in a pod: RFC 6335 service name. */
export function portNameFaults(value: string): string[] {
	const faults = longerThan(value, 15)
	if (!/^[-a-z0-9]+$/.test(value)) faults.push("must contain only a-z, 0-9, and '-'")
	if (!/[a-z]/.test(value)) faults.push('must contain at least one letter (a-z)')
	if (value.includes('--')) faults.push('must not contain consecutive hyphens')
	if (value.startsWith('-') || value.endsWith('-')) faults.push('must not begin or end with a hyphen')
	return faults
}

export function ipFaults(value: string): string[] {
	return tryParseIp(value) ? [] : ['must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)']
}

export function cidrFaults(value: string): string[] {
	return tryParseCidr(value, { mask: true }) ? [] : ['must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)']
}

/** A key of a ConfigMap or Secret. */
export function dataKeyFaults(value: string): string[] {
	const faults = longerThan(value, 253)
	if (!/^[-._a-zA-Z0-9]+$/.test(value)) faults.push("must consist of A-Z, a-z, 0-9, '-', '_' and '.' (e.g. 'my.name')")
	if (value === '.' || value === '..') faults.push(`must not be '${value}'`)
	else if (value.startsWith('..')) faults.push("must not start with '..'")
	return faults
}

/** The name of an environment variable: anything printable but '='. */
export function envNameFaults(value: string): string[] {
	return /^[ -<>-~]+$/.test(value) ? [] : ["must consist of printable ASCII characters other than '='"]
}
