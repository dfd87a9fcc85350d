// Quantities of resources (`100m`, `1Gi`, `2e3`) in the one spelling the API server gives back.
// Rules: k8s.io/apimachinery/pkg/api/resource (documentation of the type Quantity).

const binary: Readonly<Record<string, bigint>> = {
	Ki: 1n << 10n,
	Mi: 1n << 20n,
	Gi: 1n << 30n,
	Ti: 1n << 40n,
	Pi: 1n << 50n,
	Ei: 1n << 60n,
}
const decimal: Readonly<Record<string, number>> = { n: -9, u: -6, m: -3, '': 0, k: 3, M: 6, G: 9, T: 12, P: 15, E: 18 }
const letters = new Map(Object.entries(decimal).map(([letter, exponent]) => [exponent, letter]))
const binaryLetters = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei']
const nano = 1_000_000_000n
const largest = ((1n << 63n) - 1n) * nano

export interface Quantity {
	/** In billionths: the smallest amount a quantity can say. */
	readonly nano: bigint
	readonly format: 'decimal' | 'binary' | 'exponent'
}

/** Reads a quantity; undefined if it is none. Amounts are rounded up to a billionth and capped at 2^63-1. */
export function parseQuantity(text: string): Quantity | undefined {
	const m = /^([+-]?)(\d*)(?:\.(\d*))?(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?\d{1,4})?$/.exec(text)
	if (!m || (m[2] === '' && !m[3])) return undefined
	const fraction = m[3] ?? ''
	const suffix = m[4] ?? ''
	const digits = BigInt(m[2] + fraction || '0')
	const multiple = binary[suffix]
	const exponent = multiple !== undefined ? 0 : (decimal[suffix] ?? Number(suffix.slice(1)))
	const shift = exponent + 9 - fraction.length
	let amount = digits * (multiple ?? 1n)
	if (digits === 0n) amount = 0n
	else if (shift >= 0) amount = shift > 60 ? largest : amount * 10n ** BigInt(shift)
	else {
		const divisor = 10n ** BigInt(-shift)
		amount = (amount + divisor - 1n) / divisor
	}
	if (amount > largest) amount = largest
	const format = multiple !== undefined ? 'binary' : /^[eE]./.test(suffix) ? 'exponent' : 'decimal'
	return { nano: m[1] === '-' ? -amount : amount, format }
}

/** The canonical spelling: `1000m` is `1`, `1024Mi` is `1Gi`, `0.5` is `500m`. */
export function printQuantity({ nano: value, format }: Quantity): string {
	if (value === 0n) return '0'
	const sign = value < 0n ? '-' : ''
	let amount = value < 0n ? -value : value
	if (format === 'binary' && amount >= 1024n * nano && amount % nano === 0n) {
		amount /= nano
		let power = 0
		while (power < 6 && amount % 1024n === 0n) {
			amount /= 1024n
			power++
		}
		return sign + amount + binaryLetters[power]
	}
	let exponent = -9
	while (amount % 1000n === 0n && (format === 'exponent' || exponent < 18)) {
		amount /= 1000n
		exponent += 3
	}
	return sign + amount + (format === 'exponent' && exponent !== 0 ? `e${exponent}` : (letters.get(exponent) ?? ''))
}

/** The canonical spelling of a quantity as JSON gives it (string or number); undefined if it is none. */
export function canonicalQuantity(value: string | number): string | undefined {
	const quantity = parseQuantity(String(value))
	return quantity && printQuantity(quantity)
}

/** a < b: negative. Undefined where either is no quantity. */
export function compareQuantities(a: string | number, b: string | number): number | undefined {
	const left = parseQuantity(String(a))
	const right = parseQuantity(String(b))
	if (!left || !right) return undefined
	return left.nano < right.nano ? -1 : left.nano > right.nano ? 1 : 0
}
