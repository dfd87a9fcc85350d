// Host-local address management: one node's pod addresses out of its pod CIDRs. Pure bookkeeping; attachments.ts makes it durable.

import { Failure } from '../base/failure.ts'
import {
	type Cidr,
	cidrAddress,
	cidrContains,
	cidrLength,
	familyOf,
	type Ip,
	ipFromBigInt,
	ipToBigInt,
} from '../base/ip.ts'

export interface Ipam {
	/**
	 * One address of each pod CIDR for `owner`: what it holds already, else `prefer` where free, else the lowest free
	 * address after the one given out last (wrapping), so that an address just left is used again last.
	 * Throws Failure AddressesExhausted, NoPodCidr; then nothing is taken.
	 */
	allocate(owner: string, prefer?: readonly Ip[]): readonly Ip[]
	/** Puts back an assignment known from before. Throws Failure AddressTaken if another owner has it. */
	restore(owner: string, ips: readonly Ip[]): void
	release(owner: string): void
	readonly used: number
	/** Addresses a CIDR can give, over all of the first family. */
	readonly capacity: number
}

interface Range {
	readonly cidr: Cidr
	readonly first: bigint
	readonly last: bigint
	cursor: bigint
	readonly taken: Map<bigint, string>
}

/**
 * The network address, the first address (by convention a gateway's; ours is link-local, and dumps stay familiar)
 * and, in IPv4, the broadcast address are never given out. A network too small for that gives out nothing.
 */
function rangeOf(cidr: Cidr): Range {
	const base = ipToBigInt(cidrAddress(cidr))
	const bits = familyOf(cidr) === 4 ? 32 : 128
	const size = 1n << BigInt(bits - cidrLength(cidr))
	const last = base + size - (bits === 32 ? 2n : 1n)
	const first = base + 2n
	return { cidr, first, last, cursor: first - 1n, taken: new Map() }
}

function rangeSize(range: Range): bigint {
	return range.last < range.first ? 0n : range.last - range.first + 1n
}

export function createIpam(node: string, cidrs: readonly Cidr[]): Ipam {
	const ranges = cidrs.map(rangeOf)
	const owned = new Map<string, readonly Ip[]>()

	function take(range: Range, owner: string, prefer: readonly Ip[]): bigint {
		const size = rangeSize(range)
		for (const ip of prefer) {
			if (!cidrContains(range.cidr, ip)) continue
			const value = ipToBigInt(ip)
			if (value >= range.first && value <= range.last && !range.taken.has(value)) return value
		}
		if (BigInt(range.taken.size) < size) {
			let at = range.cursor
			for (let i = 0; i <= range.taken.size; i++) {
				at = at >= range.last || at < range.first ? range.first : at + 1n
				if (!range.taken.has(at)) return at
			}
		}
		throw new Failure(
			'AddressesExhausted',
			`Cannot give pod ${JSON.stringify(owner)} an address on node ${JSON.stringify(node)}: all ${size} addresses of ${range.cidr} are taken`,
			{ node, cidr: range.cidr },
		)
	}

	return {
		allocate(owner, prefer = []) {
			const held = owned.get(owner)
			if (held !== undefined) return held
			if (ranges.length === 0) {
				throw new Failure(
					'NoPodCidr',
					`Cannot give pod ${JSON.stringify(owner)} an address: node ${JSON.stringify(node)} has no pod CIDR`,
					{ node },
				)
			}
			const values = ranges.map((range) => take(range, owner, prefer))
			const ips = ranges.map((range, i) => {
				const ip = ipFromBigInt(values[i]!, familyOf(range.cidr))
				range.taken.set(values[i]!, owner)
				if (!prefer.includes(ip)) range.cursor = values[i]!
				return ip
			})
			owned.set(owner, ips)
			return ips
		},
		restore(owner, ips) {
			for (const ip of ips) {
				const range = ranges.find((r) => cidrContains(r.cidr, ip))
				const other = range?.taken.get(ipToBigInt(ip))
				if (other !== undefined && other !== owner) {
					throw new Failure(
						'AddressTaken',
						`Cannot give ${ip} to pod ${JSON.stringify(owner)}: ${JSON.stringify(other)} has it`,
						{
							ip,
						},
					)
				}
			}
			for (const ip of ips) {
				const range = ranges.find((r) => cidrContains(r.cidr, ip))
				if (range === undefined) continue
				const value = ipToBigInt(ip)
				range.taken.set(value, owner)
				if (value > range.cursor && value <= range.last) range.cursor = value
			}
			owned.set(owner, ips)
		},
		release(owner) {
			const ips = owned.get(owner)
			if (ips === undefined) return
			owned.delete(owner)
			for (const ip of ips) {
				for (const range of ranges) {
					const value = ipToBigInt(ip)
					if (cidrContains(range.cidr, ip) && range.taken.get(value) === owner) range.taken.delete(value)
				}
			}
		},
		get used() {
			return owned.size
		},
		get capacity() {
			return ranges.length === 0 ? 0 : Number(rangeSize(ranges[0]!))
		},
	}
}
