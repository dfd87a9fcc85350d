// The address space, cut where any ipBlock begins or ends: within one piece no policy can tell two addresses apart.

import {
	type Cidr,
	cidrAddress,
	cidrLength,
	familyOf,
	type Ip,
	type IpFamily,
	ipFromBigInt,
	ipToBigInt,
} from '../base/ip.ts'

/** An IPv4 address as a number, an IPv6 address as a bigint. */
export type Position = number | bigint

export function positionOf(ip: Ip): Position {
	if (familyOf(ip) === 6) return ipToBigInt(ip)
	let value = 0
	let octet = 0
	for (let i = 0; i < ip.length; i++) {
		const c = ip.charCodeAt(i)
		if (c === 46) {
			value = value * 256 + octet
			octet = 0
		} else octet = octet * 10 + (c - 48)
	}
	return value * 256 + octet
}

export interface Interval {
	readonly family: IpFamily
	/** First and last address, both included. */
	readonly first: Position
	readonly last: Position
}

export function intervalOf(cidr: Cidr): Interval {
	const family = familyOf(cidr)
	const first = positionOf(cidrAddress(cidr))
	if (family === 4) return { family, first, last: Number(first) + 2 ** (32 - cidrLength(cidr)) - 1 }
	return { family, first, last: BigInt(first) + (1n << BigInt(128 - cidrLength(cidr))) - 1n }
}

/** Whether all of `part` lies within `whole`. */
export function isWithin(part: Interval, whole: Interval): boolean {
	return part.family === whole.family && part.first >= whole.first && part.last <= whole.last
}

export function contains(interval: Interval, family: IpFamily, position: Position): boolean {
	return interval.family === family && position >= interval.first && position <= interval.last
}

/** A range of pieces: from `from` up to before `to`. */
export interface Pieces {
	readonly from: number
	readonly to: number
}

/** A network that some policy names, and the smallest other one around it. */
export interface Network extends Interval {
	readonly cidr: Cidr
	readonly around: Network | undefined
}

export interface AddressSpace {
	/** Number of pieces: first those of IPv4, then those of IPv6. */
	readonly size: number
	/** What the pieces are cut by; equal keys, equal spaces. */
	readonly key: string
	readonly networks: ReadonlyMap<Cidr, Network>
	pieceOf(family: IpFamily, position: Position): number
	/**
	 * The smallest of the networks with this address. Networks lie within each other or apart, so it tells every network that
	 * holds the address: two addresses with the same one are alike to all policies, in however many pieces they lie.
	 */
	networkOf(family: IpFamily, position: Position): Network | undefined
	/** The pieces of a network that the space was made with. */
	piecesOf(cidr: Cidr): Pieces
	intervalOf(piece: number): Interval
	allOf(family: IpFamily): Pieces
}

const end4 = 2 ** 32
const end6 = 1n << 128n

/** `cidrs`: every network that policies name. */
export function cutAddresses(cidrs: Iterable<Cidr>): AddressSpace {
	const starts4 = new Set<number>([0])
	const starts6 = new Set<bigint>([0n])
	const names = [...new Set(cidrs)].sort()
	const named = names
		.map((cidr) => ({ cidr, ...intervalOf(cidr) }))
		.sort((a, b) => a.family - b.family || (a.first < b.first ? -1 : a.first > b.first ? 1 : a.last > b.last ? -1 : 1))
	for (const { family, first, last } of named) {
		if (family === 4) {
			starts4.add(first as number)
			if ((last as number) + 1 < end4) starts4.add((last as number) + 1)
		} else {
			starts6.add(first as bigint)
			if ((last as bigint) + 1n < end6) starts6.add((last as bigint) + 1n)
		}
	}
	const v4 = [...starts4].sort((a, b) => a - b)
	const v6 = [...starts6].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0))
	const find = (list: readonly Position[], position: Position): number => {
		let low = 0
		let high = list.length
		while (low < high) {
			const middle = (low + high) >> 1
			if (list[middle]! <= position) low = middle + 1
			else high = middle
		}
		return low - 1
	}
	const pieceOf = (family: IpFamily, position: Position) =>
		family === 4 ? find(v4, position) : v4.length + find(v6, position)
	const networks = nest(named)
	const innermost = [...smallestAt(v4, 4, networks), ...smallestAt(v6, 6, networks)]
	return {
		size: v4.length + v6.length,
		key: names.join(),
		networks: new Map(networks.map((network) => [network.cidr, network])),
		pieceOf,
		networkOf: (family, position) => innermost[pieceOf(family, position)],
		piecesOf(cidr) {
			const { family, first, last } = intervalOf(cidr)
			return { from: pieceOf(family, first), to: pieceOf(family, last) + 1 }
		},
		intervalOf(piece) {
			if (piece < v4.length) return { family: 4, first: v4[piece]!, last: (v4[piece + 1] ?? end4) - 1 }
			const at = piece - v4.length
			return { family: 6, first: v6[at]!, last: (v6[at + 1] ?? end6) - 1n }
		},
		allOf: (family) => (family === 4 ? { from: 0, to: v4.length } : { from: v4.length, to: v4.length + v6.length }),
	}
}

/** `sorted`: by family, then first address, the larger of two before the smaller. */
function nest(sorted: readonly (Interval & { readonly cidr: Cidr })[]): readonly Network[] {
	let around: Network | undefined
	return sorted.map((next) => {
		while (around !== undefined && !contains(around, next.family, next.first)) around = around.around
		around = { ...next, around }
		return around
	})
}

/** For each of the ascending positions the smallest network with it. `networks` in the order of `nest`. */
function smallestAt(
	positions: readonly Position[],
	family: IpFamily,
	networks: readonly Network[],
): readonly (Network | undefined)[] {
	const own = networks.filter((n) => n.family === family)
	let next = 0
	let at: Network | undefined
	return positions.map((position) => {
		while (next < own.length && own[next]!.first <= position) at = own[next++]
		while (at !== undefined && at.last < position) at = at.around
		return at
	})
}

/** Touching intervals joined; IPv4 first, ascending. */
export function joinIntervals(intervals: readonly Interval[]): readonly Interval[] {
	const sorted = [...intervals].sort(
		(a, b) => a.family - b.family || (a.first < b.first ? -1 : a.first > b.first ? 1 : 0),
	)
	const out: Interval[] = []
	for (const next of sorted) {
		const last = out.at(-1)
		if (last === undefined || last.family !== next.family || BigInt(next.first) > BigInt(last.last) + 1n) out.push(next)
		else if (next.last > last.last) out[out.length - 1] = { ...last, last: next.last }
	}
	return out
}

/** What of the family is in none of the intervals, which are all of one family, joined and in order. */
export function gapsOf(intervals: readonly Interval[]): readonly Interval[] {
	const family = intervals[0]?.family
	if (family === undefined) return []
	const number = (n: bigint): Position => (family === 4 ? Number(n) : n)
	const gaps: Interval[] = []
	let at = 0n
	for (const { first, last } of intervals) {
		if (BigInt(first) > at) gaps.push({ family, first: number(at), last: number(BigInt(first) - 1n) })
		at = BigInt(last) + 1n
	}
	const end = 1n << (family === 4 ? 32n : 128n)
	if (at < end) gaps.push({ family, first: number(at), last: number(end - 1n) })
	return gaps
}

/** The fewest networks that are exactly the interval. */
export function cidrsOf({ family, first, last }: Interval): readonly Cidr[] {
	const bits = family === 4 ? 32 : 128
	const out: Cidr[] = []
	let at = BigInt(first)
	const end = BigInt(last) + 1n
	while (at < end) {
		let size = 1n
		let length = bits
		while (length > 0 && at % (size * 2n) === 0n && at + size * 2n <= end) {
			size *= 2n
			length--
		}
		out.push(`${ipFromBigInt(at, family)}/${length}` as Cidr)
		at += size
	}
	return out
}

/** `10.0.0.0/8`, or `10.0.0.1-10.0.0.9` where more than two networks would be needed. */
export function intervalText(interval: Interval): string {
	const cidrs = cidrsOf(interval)
	if (cidrs.length <= 2) return cidrs.join(', ')
	const { family, first, last } = interval
	return `${ipFromBigInt(BigInt(first), family)}-${ipFromBigInt(BigInt(last), family)}`
}
