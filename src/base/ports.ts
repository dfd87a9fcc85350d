// Sets of ports as what policies and reachability compute with: unions of intervals of 0…65535.

/** Boundaries in ascending order: ports from the 1st up to before the 2nd belong to it, from the 3rd up to before the 4th… Equal sets are equal lists. */
export type PortSet = readonly number[]

export const noPorts: PortSet = []
export const allPorts: PortSet = [0, 65536]

/** The ports from `first` to `last`, both included. Empty where `last` is smaller. */
export function portRange(first: number, last: number = first): PortSet {
	return last < first ? noPorts : [first, last + 1]
}

export function hasPort(set: PortSet, port: number): boolean {
	// The number of boundaries at or before the port is odd inside of an interval.
	let low = 0
	let high = set.length
	while (low < high) {
		const middle = (low + high) >> 1
		if (set[middle]! <= port) low = middle + 1
		else high = middle
	}
	return low % 2 === 1
}

function combine(a: PortSet, b: PortSet, keep: (inA: boolean, inB: boolean) => boolean): PortSet {
	const out: number[] = []
	let i = 0
	let j = 0
	let inside = false
	while (i < a.length || j < b.length) {
		const at = Math.min(a[i] ?? Number.POSITIVE_INFINITY, b[j] ?? Number.POSITIVE_INFINITY)
		if (a[i] === at) i++
		if (b[j] === at) j++
		const now = keep(i % 2 === 1, j % 2 === 1)
		if (now !== inside) out.push(at)
		inside = now
	}
	return out
}

export function unitePorts(a: PortSet, b: PortSet): PortSet {
	return combine(a, b, (x, y) => x || y)
}

export function intersectPorts(a: PortSet, b: PortSet): PortSet {
	return combine(a, b, (x, y) => x && y)
}

/** The ports of `a` that are not in `b`. */
export function subtractPorts(a: PortSet, b: PortSet): PortSet {
	return combine(a, b, (x, y) => x && !y)
}

export function samePorts(a: PortSet, b: PortSet): boolean {
	return a.length === b.length && a.every((x, i) => x === b[i])
}

/** First and last port of each interval. */
export function portRanges(set: PortSet): { readonly first: number; readonly last: number }[] {
	const out: { first: number; last: number }[] = []
	for (let i = 0; i + 1 < set.length; i += 2) out.push({ first: set[i]!, last: set[i + 1]! - 1 })
	return out
}

/** `80,443,8000-8100`; `all`, `none`. */
export function formatPorts(set: PortSet): string {
	if (set.length === 0) return 'none'
	if (samePorts(set, allPorts)) return 'all'
	return portRanges(set)
		.map(({ first, last }) => (first === last ? String(first) : `${first}-${last}`))
		.join(',')
}
