// Networks with exceptions as disjoint ranges of addresses, in the words in which nft lists the elements of a set.

import {
	type Cidr,
	cidrAddress,
	cidrLength,
	type IpFamily,
	ipFromBigInt,
	ipToBigInt,
	ipToBytes,
} from '../../base/ip.ts'
import { field } from '../../linux/nft/datatype.ts'
import { printInterval } from '../../linux/nft/elements.ts'

export interface Block {
	readonly cidr: Cidr
	readonly except: readonly Cidr[]
}

interface Range {
	readonly low: bigint
	/** Inclusive. */
	readonly high: bigint
}

/** The addresses of the blocks, sorted, joined where they touch: `10.0.0.0/9`, `10.128.0.0-10.200.0.255`. */
export function rangesOf(blocks: readonly Block[], family: IpFamily): string[] {
	const ranges = blocks.flatMap(({ cidr, except }) => {
		let left = [rangeOf(cidr)]
		for (const hole of except) left = left.flatMap((range) => subtract(range, rangeOf(hole)))
		return left
	})
	ranges.sort((a, b) => (a.low < b.low ? -1 : a.low > b.low ? 1 : 0))
	const joined: Range[] = []
	for (const range of ranges) {
		const last = joined.at(-1)
		if (last === undefined || range.low > last.high + 1n) joined.push(range)
		else if (range.high > last.high) joined[joined.length - 1] = { low: last.low, high: range.high }
	}
	const type = field(family === 4 ? 'ipv4_addr' : 'ipv6_addr')
	const bytes = (value: bigint) => Buffer.from(ipToBytes(ipFromBigInt(value, family)))
	return joined.map(({ low, high }) => printInterval(type, bytes(low), bytes(high)))
}

function rangeOf(cidr: Cidr): Range {
	const address = cidrAddress(cidr)
	const low = ipToBigInt(address)
	const bits = (address.includes(':') ? 128 : 32) - cidrLength(cidr)
	return { low, high: low | ((1n << BigInt(bits)) - 1n) }
}

function subtract(range: Range, hole: Range): Range[] {
	if (hole.high < range.low || hole.low > range.high) return [range]
	const rest: Range[] = []
	if (hole.low > range.low) rest.push({ low: range.low, high: hole.low - 1n })
	if (hole.high < range.high) rest.push({ low: hole.high + 1n, high: range.high })
	return rest
}
