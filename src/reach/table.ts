// The answer as a table: one row for each pair that may talk, with what it may say and why.

import type { Origin } from '../model/origin.ts'
import { originText } from '../model/origin.ts'
import type { Direction } from '../model/policy.ts'
import { cidrsOf, gapsOf, type Interval, intervalText, joinIntervals } from './addresses.ts'
import { anyPod } from './classes.ts'
import { ConnectionPool, type Connections } from './connections.ts'
import type { Reach, Reason } from './engine.ts'
import { type IngressBackend, portsBehind } from './ingresses.ts'
import { allowedBetween, type Member, type Party } from './parties.ts'

export type RowEnd =
	| { readonly kind: 'workload'; readonly party: Party }
	/** Addresses that are no pod's. */
	| { readonly kind: 'outside'; readonly ranges: readonly Interval[] }
	/** Whatever serves Ingress objects here: a pod of which the manifests say nothing. */
	| { readonly kind: 'ingress-controller' }

export interface ReachRow {
	readonly from: RowEnd
	readonly to: RowEnd
	/** What at least one pair of their pods may say. */
	readonly connections: Connections
	/** What every pair may say, where that is less. */
	readonly every?: Connections
	/** The rules and defaults that allow it, egress before ingress. Computed when read. */
	readonly because: readonly Origin[]
}

export function endName(end: RowEnd): string {
	switch (end.kind) {
		case 'workload':
			return end.party.name
		case 'outside':
			return rangesText(end.ranges)
		case 'ingress-controller':
			return 'ingress-controller'
		default: {
			const never: never = end
			throw new Error(`No such end: ${never}`)
		}
	}
}

/** At most this many ranges are written out. */
const shownRanges = 8

export function rangesText(ranges: readonly Interval[]): string {
	const texts = ([4, 6] as const).flatMap((family) => {
		const own = ranges.filter((r) => r.family === family)
		return own.length === 0 ? [] : (allBut(own) ?? own.map(intervalText))
	})
	const rest = texts.length - shownRanges
	return rest > 0 ? `${texts.slice(0, shownRanges).join(', ')} and ${rest} more` : texts.join(', ')
}

/** `0.0.0.0/0 except 10.0.0.0/8`, where that is shorter. */
function allBut(ranges: readonly Interval[]): readonly string[] | undefined {
	const { family } = ranges[0]!
	const holes = gapsOf(ranges).flatMap(cidrsOf)
	const written = ranges.reduce((sum, range) => sum + cidrsOf(range).length, 0)
	if (holes.length + 1 >= written) return undefined
	const whole = family === 4 ? '0.0.0.0/0' : '::/0'
	return [`${whole}${holes.length === 0 ? '' : ` except ${holes.join(', ')}`}`]
}

export interface RowsInput {
	readonly reach: Reach
	readonly parties: readonly Party[]
	readonly ingresses: readonly IngressBackend[]
	/** Only rows with such a source, such a destination. Undefined: any. */
	readonly from?: (end: RowEnd) => boolean
	readonly to?: (end: RowEnd) => boolean
	/** Only rows with such a source or destination. */
	readonly touching?: (end: RowEnd) => boolean
}

/** Rows by source, then destination, workloads before addresses. Pairs that may say nothing have none. */
export function* rowsOf(input: RowsInput): Iterable<ReachRow> {
	const { reach, parties, ingresses } = input
	const wants = (from: RowEnd, to: RowEnd) =>
		(input.from?.(from) ?? true) &&
		(input.to?.(to) ?? true) &&
		(input.touching === undefined || input.touching(from) || input.touching(to))
	const ends = parties.map((party) => ({ kind: 'workload', party }) as const)
	for (const from of ends) {
		for (const to of ends) {
			if (!wants(from, to)) continue
			const allowed = allowedBetween(reach, from.party.members, to.party.members)
			if (allowed === undefined || allowed.some === ConnectionPool.none) continue
			yield rowOf(reach, from, to, allowed.some, allowed.every, () => whyPair(reach, from.party, to.party))
		}
		for (const { ranges, some, every } of outsideOf(reach, 'egress', from.party)) {
			const to = { kind: 'outside', ranges } as const
			if (wants(from, to))
				yield rowOf(reach, from, to, some, every, () => whyOutside(reach, 'egress', from.party, ranges))
		}
	}
	for (const to of ends) {
		for (const { ranges, some, every } of outsideOf(reach, 'ingress', to.party)) {
			const from = { kind: 'outside', ranges } as const
			if (wants(from, to))
				yield rowOf(reach, from, to, some, every, () => whyOutside(reach, 'ingress', to.party, ranges))
		}
	}
	const controller = { kind: 'ingress-controller' } as const
	for (const to of ends) {
		if (!wants(controller, to)) continue
		const behind = portsBehind(ingresses, to.party)
		if (behind.connections.length === 0) continue
		const asked = reach.pool.idOf(behind.connections)
		const open = fromAnyPod(reach, to.party.members)
		const some = reach.pool.intersect(open, asked)
		if (some === ConnectionPool.none) continue
		yield rowOf(reach, controller, to, some, some, () => behind.because)
	}
}

function rowOf(
	reach: Reach,
	from: RowEnd,
	to: RowEnd,
	some: number,
	every: number,
	why: () => readonly Origin[],
): ReachRow {
	let because: readonly Origin[] | undefined
	return {
		from,
		to,
		connections: reach.pool.setOf(some),
		...(every === some ? {} : { every: reach.pool.setOf(every) }),
		get because() {
			because ??= why()
			return because
		},
	}
}

/** What every pod of the members lets in from any pod of the cluster, also one that is not there yet. */
export function fromAnyPod(reach: Reach, members: readonly Member[]): number {
	let open: number = ConnectionPool.none
	for (const member of members)
		open = reach.pool.unite(open, member.kind === 'host' ? ConnectionPool.all : reach.ingress(member.class, anyPod))
	return open
}

export interface OutsideGroup {
	readonly ranges: readonly Interval[]
	readonly some: number
	readonly every: number
}

/** Addresses outside, those with the same answer together; without those that may say nothing. */
export function outsideOf(reach: Reach, direction: Direction, party: Party): readonly OutsideGroup[] {
	const groups = new Map<string, { pieces: number[]; some: number; every: number }>()
	for (const family of [4, 6] as const) {
		const members = party.members.filter((m) => m.kind === 'host' || reach.classes[m.class]!.family === family)
		if (members.length === 0) continue
		const pods = members.filter((m) => m.kind === 'pods')
		// Another class with the same rules has the same answer.
		const distinct = [...new Map(pods.map((m) => [reach.profileOf(direction, m.class), m.class])).values()]
		const { from, to } = reach.space.allOf(family)
		const hosts = party.members.some((m) => m.kind === 'host' && (m.ip.includes(':') ? 6 : 4) === family)
		if (!hosts && distinct.length === 0) continue
		for (let piece = from; piece < to; piece++) {
			let some: number = hosts ? ConnectionPool.all : -1
			let every = some
			for (const id of distinct) {
				const value = reach.withPiece(direction, id, piece)
				some = some < 0 ? value : reach.pool.unite(some, value)
				every = every < 0 ? value : reach.pool.intersect(every, value)
			}
			if (some === ConnectionPool.none) continue
			const key = `${some} ${every}`
			const group = groups.get(key)
			if (group === undefined) groups.set(key, { pieces: [piece], some, every })
			else group.pieces.push(piece)
		}
	}
	return [...groups.values()].map(({ pieces, some, every }) => ({
		ranges: joinIntervals(pieces.map((piece) => reach.space.intervalOf(piece))),
		some,
		every,
	}))
}

const noPolicy: Readonly<Record<Direction, Origin>> = {
	egress: { default: 'no policy selects the source for egress' },
	ingress: { default: 'no policy selects the destination for ingress' },
}
const noneDenies: Origin = { default: 'no rule of a tier denies it, and no NetworkPolicy in force isolates the pod' }
const fromNode: Origin = { default: "traffic from the pod's own node is always allowed" }
const hostNetwork: Origin = { default: 'hostNetwork pods are not subject to NetworkPolicy' }

/** The rules of the first pair of members that may talk; the default where none applies. */
export function whyPair(reach: Reach, from: Party, to: Party): readonly Origin[] {
	for (const a of from.members) {
		for (const b of to.members) {
			const allowed = allowedBetween(reach, [a], [b])
			if (allowed === undefined || allowed.some === ConnectionPool.none) continue
			const out = a.kind === 'host' ? [hostNetwork] : allowing(reach, 'egress', a.class, otherOf(reach, b))
			const into =
				b.kind === 'host'
					? [hostNetwork]
					: a.kind === 'host' && b.nodes.has(a.node)
						? [fromNode]
						: allowing(reach, 'ingress', b.class, otherOf(reach, a))
			return unique([...out, ...into])
		}
	}
	return []
}

function whyOutside(reach: Reach, direction: Direction, party: Party, ranges: readonly Interval[]): readonly Origin[] {
	const [first] = ranges
	for (const member of party.members) {
		if (member.kind === 'host') return [hostNetwork]
		if (first === undefined || reach.classes[member.class]!.family !== first.family) continue
		const piece = reach.space.pieceOf(first.family, first.first)
		if (reach.withPiece(direction, member.class, piece) === ConnectionPool.none) continue
		return unique(allowing(reach, direction, member.class, { piece }))
	}
	return []
}

type Other = { readonly class: number } | { readonly piece: number }

export function otherOf(reach: Reach, member: Member): Other {
	return member.kind === 'pods' ? { class: member.class } : { piece: reach.pieceOfAddress(member.ip) }
}

function allowing(reach: Reach, direction: Direction, own: number, other: Other): readonly Origin[] {
	if (!reach.isSubject(direction, own)) return [noPolicy[direction]]
	const rules = reach
		.reasons(direction, own, other)
		.filter((r): r is Reason & { rule: Origin } => r.rule !== undefined && r.action === 'Accept')
	return rules.length > 0 ? rules.map((r) => r.rule) : [noneDenies]
}

export function unique(origins: readonly Origin[]): readonly Origin[] {
	return [...new Map(origins.map((o) => [originText(o), o])).values()]
}
