// Longest-prefix match: which of many networks an address belongs to. One hash table for each prefix length that
// occurs, asked from the longest down: a handful of look-ups, where real sets have a handful of lengths.

import { type Cidr, cidrAddress, cidrLength, familyOf, type Ip, type IpFamily, ipToBigInt } from './ip.ts'

export interface PrefixMatch<V> {
	readonly cidr: Cidr
	readonly value: V
}

/** A fixed set of networks. */
export interface PrefixTable<V> {
	readonly size: number
	/** The value of exactly this network. */
	get(cidr: Cidr): V | undefined
	/** The most specific network that holds the address. */
	find(ip: Ip): PrefixMatch<V> | undefined
	/** Every network that holds the address, the most specific first. */
	findAll(ip: Ip): PrefixMatch<V>[]
}

/** Of two entries with one network the later stays. */
export function prefixTable<V>(entries: Iterable<readonly [Cidr, V]>): PrefixTable<V> {
	const families: Record<IpFamily, Map<number, Map<bigint, PrefixMatch<V>>>> = { 4: new Map(), 6: new Map() }
	const all = new Map<Cidr, V>()
	for (const [cidr, value] of entries) {
		all.set(cidr, value)
		const lengths = families[familyOf(cidr)]
		const length = cidrLength(cidr)
		let networks = lengths.get(length)
		if (networks === undefined) lengths.set(length, (networks = new Map()))
		networks.set(network(cidrAddress(cidr), length), { cidr, value })
	}
	const ordered: Record<IpFamily, [number, Map<bigint, PrefixMatch<V>>][]> = {
		4: [...families[4]].sort(([a], [b]) => b - a),
		6: [...families[6]].sort(([a], [b]) => b - a),
	}
	function* search(ip: Ip): Generator<PrefixMatch<V>> {
		const family = familyOf(ip)
		const bits = family === 4 ? 32 : 128
		const address = ipToBigInt(ip)
		for (const [length, networks] of ordered[family]) {
			const match = networks.get(address >> BigInt(bits - length))
			if (match !== undefined) yield match
		}
	}
	return {
		size: all.size,
		get: (cidr) => all.get(cidr),
		find: (ip) => search(ip).next().value ?? undefined,
		findAll: (ip) => [...search(ip)],
	}
}

/** The bits of the prefix as a number. */
function network(ip: Ip, length: number): bigint {
	return ipToBigInt(ip) >> BigInt((familyOf(ip) === 4 ? 32 : 128) - length)
}
