// The other libraries Kubernetes adds to CEL: quantities, named formats, semantic versions; and all of them together.
// Source: https://kubernetes.io/docs/reference/using-api/cel/

import { parseQuantity, type Quantity } from '../../../kube/schema/quantity.ts'
import {
	label1035Faults,
	labelFaults,
	labelValueFaults,
	qualifiedNameFaults,
	subdomainFaults,
} from '../../validate/names.ts'
import { isFormat } from '../formats.ts'
import { type Functions, functionsOf, type Library } from './functions.ts'
import { lists } from './lists.ts'
import { network, readUrl } from './network.ts'
import { standard } from './standard.ts'
import { strings } from './strings.ts'
import { CelError, List, none, Opaque, Optional } from './values.ts'

class QuantityValue extends Opaque {
	readonly typeName = 'kubernetes.Quantity'
	readonly quantity: Quantity
	constructor(quantity: Quantity) {
		super()
		this.quantity = quantity
	}
	get nano(): bigint {
		return this.quantity.nano
	}
	equals(other: Opaque): boolean {
		return other instanceof QuantityValue && other.nano === this.nano
	}
}

const nano = 1_000_000_000n

function quantityOf(text: string): QuantityValue {
	const quantity = parseQuantity(text)
	if (quantity === undefined)
		throw new CelError("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
	return new QuantityValue(quantity)
}

function withNano(like: QuantityValue, value: bigint): QuantityValue {
	return new QuantityValue({ nano: value, format: like.quantity.format })
}

type Two<A, B = A> = readonly [A, B]
const order = (a: bigint, b: bigint): bigint => (a < b ? -1n : a > b ? 1n : 0n)

const quantities: Library = {
	':quantity(string) kubernetes.Quantity': ([text]: readonly [string]) => quantityOf(text),
	':isQuantity(string) bool': ([text]: readonly [string]) => parseQuantity(text) !== undefined,
	'kubernetes.Quantity.sign() int': ([q]: readonly [QuantityValue]) => order(q.nano, 0n),
	'kubernetes.Quantity.isInteger() bool': ([q]: readonly [QuantityValue]) => q.nano % nano === 0n,
	'kubernetes.Quantity.asInteger() int': ([q]: readonly [QuantityValue]) => {
		if (q.nano % nano !== 0n) throw new CelError('cannot convert value to integer')
		return q.nano / nano
	},
	'kubernetes.Quantity.asApproximateFloat() double': ([q]: readonly [QuantityValue]) => Number(q.nano) / 1e9,
	'kubernetes.Quantity.isGreaterThan(kubernetes.Quantity) bool': ([a, b]: Two<QuantityValue>) => a.nano > b.nano,
	'kubernetes.Quantity.isLessThan(kubernetes.Quantity) bool': ([a, b]: Two<QuantityValue>) => a.nano < b.nano,
	'kubernetes.Quantity.compareTo(kubernetes.Quantity) int': ([a, b]: Two<QuantityValue>) => order(a.nano, b.nano),
	'kubernetes.Quantity.add(kubernetes.Quantity) kubernetes.Quantity': ([a, b]: Two<QuantityValue>) =>
		withNano(a, a.nano + b.nano),
	'kubernetes.Quantity.add(int) kubernetes.Quantity': ([a, b]: Two<QuantityValue, bigint>) =>
		withNano(a, a.nano + b * nano),
	'kubernetes.Quantity.sub(kubernetes.Quantity) kubernetes.Quantity': ([a, b]: Two<QuantityValue>) =>
		withNano(a, a.nano - b.nano),
	'kubernetes.Quantity.sub(int) kubernetes.Quantity': ([a, b]: Two<QuantityValue, bigint>) =>
		withNano(a, a.nano - b * nano),
}

class FormatValue extends Opaque {
	readonly typeName = 'kubernetes.NamedFormat'
	readonly name: string
	readonly faults: (text: string) => readonly string[]
	constructor(name: string, faults: (text: string) => readonly string[]) {
		super()
		this.name = name
		this.faults = faults
	}
	equals(other: Opaque): boolean {
		return other instanceof FormatValue && other.name === this.name
	}
}

/** A name that more is added to: a dash at its end is no fault. */
const prefixOf = (faults: (text: string) => readonly string[]) => (text: string) => faults(text.replace(/-$/, 'a'))
const asFormat = (name: string, why: string) => (text: string) => (isFormat(name, text) ? [] : [why])

const formats: Readonly<Record<string, FormatValue>> = Object.fromEntries(
	Object.entries<(text: string) => readonly string[]>({
		dns1123Label: labelFaults,
		dns1123Subdomain: subdomainFaults,
		dns1035Label: label1035Faults,
		qualifiedName: qualifiedNameFaults,
		dns1123LabelPrefix: prefixOf(labelFaults),
		dns1123SubdomainPrefix: prefixOf(subdomainFaults),
		dns1035LabelPrefix: prefixOf(label1035Faults),
		labelValue: labelValueFaults,
		uri(text) {
			const url = readUrl(text)
			return typeof url === 'string' ? [url] : []
		},
		uuid: asFormat('uuid', 'does not match the UUID format'),
		byte: asFormat('byte', 'invalid base64'),
		date: asFormat('date', 'invalid date'),
		datetime: asFormat('date-time', 'invalid datetime'),
	}).map(([name, faults]) => [name, new FormatValue(name, faults)]),
)

const named: Library = {
	...Object.fromEntries(
		Object.entries(formats).map(([name, format]) => [`:format.${name}() kubernetes.NamedFormat`, () => format]),
	),
	':format.named(string) optional<kubernetes.NamedFormat>': ([name]: readonly [string]) =>
		Object.hasOwn(formats, name) ? new Optional(formats[name]!) : none,
	'kubernetes.NamedFormat.validate(string) optional<list<string>>': ([format, text]: Two<FormatValue, string>) => {
		const faults = format.faults(text)
		return faults.length === 0 ? none : new Optional(new List(faults))
	},
}

const versionForm =
	/^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?$/

class VersionValue extends Opaque {
	readonly typeName = 'kubernetes.Semver'
	readonly numbers: readonly [bigint, bigint, bigint]
	readonly pre: readonly string[]
	constructor(numbers: readonly [bigint, bigint, bigint], pre: readonly string[]) {
		super()
		this.numbers = numbers
		this.pre = pre
	}
	equals(other: Opaque): boolean {
		return other instanceof VersionValue && compareVersions(this, other) === 0n
	}
}

function readVersion(text: string, normalize: boolean): VersionValue | undefined {
	let given = text
	if (normalize) {
		given = text
			.replace(/^v/, '')
			.replace(/^(\d+)(?=[-+]|$)/, '$1.0.0')
			.replace(/^(\d+\.\d+)(?=[-+]|$)/, '$1.0')
		given = given.replace(/^[\d.]+/, (digits) => digits.replace(/(^|\.)0+(?=\d)/g, '$1'))
	}
	const m = versionForm.exec(given)
	if (m === null) return undefined
	return new VersionValue([BigInt(m[1]!), BigInt(m[2]!), BigInt(m[3]!)], m[4]?.split('.') ?? [])
}

function versionOf(text: string, normalize: boolean): VersionValue {
	const version = readVersion(text, normalize)
	if (version === undefined)
		throw new CelError(`Semver parse error during conversion from string: ${JSON.stringify(text)}`)
	return version
}

/** semver.org §11. */
function compareVersions(a: VersionValue, b: VersionValue): bigint {
	for (const i of [0, 1, 2] as const) if (a.numbers[i] !== b.numbers[i]) return order(a.numbers[i], b.numbers[i])
	if (a.pre.length === 0 || b.pre.length === 0) return BigInt(Number(a.pre.length === 0) - Number(b.pre.length === 0))
	for (let i = 0; i < Math.max(a.pre.length, b.pre.length); i++) {
		const [x, y] = [a.pre[i], b.pre[i]]
		if (x === undefined || y === undefined) return x === undefined ? -1n : 1n
		if (x === y) continue
		const numeric = [/^\d+$/.test(x), /^\d+$/.test(y)]
		if (numeric[0] && numeric[1]) return order(BigInt(x), BigInt(y))
		if (numeric[0] !== numeric[1]) return numeric[0] ? -1n : 1n
		return x < y ? -1n : 1n
	}
	return 0n
}

const versions: Library = {
	':semver(string) kubernetes.Semver': ([text]: readonly [string]) => versionOf(text, false),
	':semver(string, bool) kubernetes.Semver': ([text, normalize]: Two<string, boolean>) => versionOf(text, normalize),
	':isSemver(string) bool': ([text]: readonly [string]) => readVersion(text, false) !== undefined,
	':isSemver(string, bool) bool': ([text, normalize]: Two<string, boolean>) =>
		readVersion(text, normalize) !== undefined,
	'kubernetes.Semver.major() int': ([v]: readonly [VersionValue]) => v.numbers[0],
	'kubernetes.Semver.minor() int': ([v]: readonly [VersionValue]) => v.numbers[1],
	'kubernetes.Semver.patch() int': ([v]: readonly [VersionValue]) => v.numbers[2],
	'kubernetes.Semver.isGreaterThan(kubernetes.Semver) bool': ([a, b]: Two<VersionValue>) => compareVersions(a, b) > 0n,
	'kubernetes.Semver.isLessThan(kubernetes.Semver) bool': ([a, b]: Two<VersionValue>) => compareVersions(a, b) < 0n,
	'kubernetes.Semver.compareTo(kubernetes.Semver) int': ([a, b]: Two<VersionValue>) => compareVersions(a, b),
}

let all: Functions | undefined

/** What rules of CustomResourceDefinitions may call. */
export function kubernetesFunctions(): Functions {
	return (all ??= functionsOf([...standard, strings, ...lists, ...network, quantities, named, versions]))
}
