// What may be said between two ends: ports of TCP, UDP and SCTP, and every other protocol as one point. All of it lies on
// one axis of numbers, so that one interval algebra (base/ports.ts) does for all; equal sets have one number in a pool.

import type { Protocol } from '../base/packet.ts'
import { intersectPorts, type PortSet, portRange, subtractPorts, unitePorts } from '../base/ports.ts'

/** TCP ports at 0, UDP at 65,536, SCTP at 131,072, and whatever has no ports (ICMP…) at 196,608. */
export type Connections = PortSet

const span = 65_536
const protocols = ['TCP', 'UDP', 'SCTP'] as const
export type PortProtocol = (typeof protocols)[number]

export const noConnections: Connections = []
export const allConnections: Connections = [0, 3 * span + 1]

function baseOf(protocol: Protocol): number {
	const at = protocols.indexOf(protocol as PortProtocol)
	return at < 0 ? 3 * span : at * span
}

/** `first` to `last`, both included, of one protocol; all of its ports without numbers. Port 0 goes with 1: nothing has it. */
export function connectionsOf(protocol: Protocol, first = 0, last = first === 0 ? span - 1 : first): Connections {
	const base = baseOf(protocol)
	if (base === 3 * span) return [base, base + 1]
	return portRange(base + (first <= 1 ? 0 : first), base + Math.min(last, span - 1))
}

/** Where on the axis a packet lies. */
export function pointOf(protocol: Protocol, port: number): number {
	const base = baseOf(protocol)
	return base === 3 * span ? base : base + port
}

export interface ConnectionRange {
	readonly protocol: PortProtocol | 'other'
	/** 1 to 65,535; both 0 for `other`. */
	readonly first: number
	readonly last: number
}

/** By protocol (TCP, UDP, SCTP, other), then by port. */
export function rangesOf(set: Connections): readonly ConnectionRange[] {
	const ranges: ConnectionRange[] = []
	for (const [i, protocol] of protocols.entries()) {
		const part = intersectPorts(set, [i * span, (i + 1) * span])
		for (let at = 0; at + 1 < part.length; at += 2) {
			const first = Math.max(1, part[at]! - i * span)
			const last = part[at + 1]! - 1 - i * span
			if (last >= first) ranges.push({ protocol, first, last })
		}
	}
	if (intersectPorts(set, [3 * span, 3 * span + 1]).length > 0) ranges.push({ protocol: 'other', first: 0, last: 0 })
	return ranges
}

export function connectionsOfRanges(ranges: readonly ConnectionRange[]): Connections {
	let set = noConnections
	for (const { protocol, first, last } of ranges)
		set = unitePorts(set, protocol === 'other' ? [3 * span, 3 * span + 1] : connectionsOf(protocol, first, last))
	return set
}

/** `all`, `none`, `TCP 80,443 UDP 53`, `TCP all`. */
export function connectionsText(set: Connections): string {
	if (set.length === 0) return 'none'
	if (set.length === 2 && set[0] === 0 && set[1] === allConnections[1]) return 'all'
	const parts = new Map<string, string[]>()
	for (const { protocol, first, last } of rangesOf(set)) {
		const list = parts.get(protocol) ?? []
		if (protocol !== 'other')
			list.push(first === 1 && last === span - 1 ? 'all' : first === last ? `${first}` : `${first}-${last}`)
		parts.set(protocol, list)
	}
	return [...parts]
		.map(([protocol, list]) => (list.length === 0 ? protocol : `${protocol} ${list.join(',')}`))
		.join(' ')
}

/** Sets by number: equality is ===, and what was computed once is only looked up. 0 is the empty set, 1 is all. */
export class ConnectionPool {
	static readonly none = 0
	static readonly all = 1
	readonly #sets: Connections[] = [noConnections, allConnections]
	readonly #ids = new Map<string, number>([
		['', 0],
		[allConnections.join(), 1],
	])
	readonly #unions = new Map<number, number>()
	readonly #meets = new Map<number, number>()
	readonly #rests = new Map<number, number>()

	get size(): number {
		return this.#sets.length
	}

	idOf(set: Connections): number {
		const key = set.join()
		let id = this.#ids.get(key)
		if (id === undefined) {
			id = this.#sets.length
			this.#sets.push(set)
			this.#ids.set(key, id)
		}
		return id
	}

	setOf(id: number): Connections {
		return this.#sets[id]!
	}

	unite(a: number, b: number): number {
		if (a === b || b === 0) return a
		if (a === 0) return b
		if (a === 1 || b === 1) return 1
		const key = a < b ? a * 0x4000000 + b : b * 0x4000000 + a
		let id = this.#unions.get(key)
		if (id === undefined) this.#unions.set(key, (id = this.idOf(unitePorts(this.#sets[a]!, this.#sets[b]!))))
		return id
	}

	intersect(a: number, b: number): number {
		if (a === b || b === 1) return a
		if (a === 1) return b
		if (a === 0 || b === 0) return 0
		const key = a < b ? a * 0x4000000 + b : b * 0x4000000 + a
		let id = this.#meets.get(key)
		if (id === undefined) this.#meets.set(key, (id = this.idOf(intersectPorts(this.#sets[a]!, this.#sets[b]!))))
		return id
	}

	/** What of `a` is not in `b`. */
	subtract(a: number, b: number): number {
		if (b === 0 || a === 0) return a
		if (a === b || b === 1) return 0
		const key = a * 0x4000000 + b
		let id = this.#rests.get(key)
		if (id === undefined) this.#rests.set(key, (id = this.idOf(subtractPorts(this.#sets[a]!, this.#sets[b]!))))
		return id
	}
}
