// What a change of manifests means: connections that are added, removed or changed, and the lines that did it.

import { samePorts } from '../base/ports.ts'
import type { NetworkModel } from '../model/network.ts'
import { type Origin, originText } from '../model/origin.ts'
import type { Direction } from '../model/policy.ts'
import { type Interval, joinIntervals } from './addresses.ts'
import { connectionsText, noConnections } from './connections.ts'
import type { Reach } from './engine.ts'
import type { IngressBackend } from './ingresses.ts'
import { portsText } from './output/collapse.ts'
import { allowedBetween, anyMember, type Member, type Party } from './parties.ts'
import { endName, otherOf, outsideOf, type ReachRow, type RowEnd, rowsOf, unique } from './table.ts'

export interface Side {
	readonly model: NetworkModel
	readonly reach: Reach
	readonly parties: readonly Party[]
	readonly ingresses: readonly IngressBackend[]
}

/** What some pair of pods may say, and what every pair may, where that is less. */
export type Extent = Pick<ReachRow, 'connections' | 'every'>

const nothing: Extent = { connections: noConnections }

function extentOf(reach: Reach, some: number, every: number): Extent {
	const connections = reach.pool.setOf(some)
	return every === some ? { connections } : { connections, every: reach.pool.setOf(every) }
}

function sameExtent(a: Extent, b: Extent): boolean {
	return samePorts(a.connections, b.connections) && samePorts(a.every ?? a.connections, b.every ?? b.connections)
}

export interface Difference {
	readonly change: 'added' | 'removed' | 'changed'
	readonly from: RowEnd
	readonly to: RowEnd
	readonly before: Extent
	readonly after: Extent
	/** Ends that are only in one of the two. */
	readonly fresh: readonly string[]
	/** What is new, gone or otherwise: rules, policies, labels. */
	readonly because: readonly Origin[]
}

/** By destination, then source. */
export function differences(before: Side, after: Side): readonly Difference[] {
	const found: Difference[] = []
	const names = (side: Side) => new Map(side.parties.map((p) => [p.name, p]))
	const [oldParties, newParties] = [names(before), names(after)]
	const isFresh = (end: RowEnd) =>
		end.kind === 'workload' && !(oldParties.has(end.party.name) && newParties.has(end.party.name))
	const push = (from: RowEnd, to: RowEnd, was: Extent, is: Extent, because: () => readonly Origin[]) => {
		if (sameExtent(was, is)) return
		const change = was.connections.length === 0 ? 'added' : is.connections.length === 0 ? 'removed' : 'changed'
		found.push({
			change,
			from,
			to,
			before: was,
			after: is,
			fresh: [from, to].filter(isFresh).map(endName),
			because: because(),
		})
	}

	const every = [...new Set([...oldParties.keys(), ...newParties.keys()])]
	const between = (side: Side, from: Party | undefined, to: Party | undefined): Extent => {
		const allowed =
			from === undefined || to === undefined ? undefined : allowedBetween(side.reach, from.members, to.members)
		return allowed === undefined ? nothing : extentOf(side.reach, allowed.some, allowed.every)
	}
	for (const from of every) {
		const [a0, a1] = [oldParties.get(from), newParties.get(from)]
		for (const to of every) {
			const [b0, b1] = [oldParties.get(to), newParties.get(to)]
			const ends = [(a1 ?? a0)!, (b1 ?? b0)!].map((party) => ({ kind: 'workload', party }) as const)
			push(ends[0]!, ends[1]!, between(before, a0, b0), between(after, a1, b1), () =>
				whyPairChanged(before, after, [a0, a1], [b0, b1]),
			)
		}
	}

	const routed = (side: Side) => {
		const map = new Map<string, ReachRow>()
		for (const row of rowsOf({ ...side, from: (end) => end.kind === 'ingress-controller' }))
			map.set(endName(row.to), row)
		return map
	}
	const [oldRoutes, newRoutes] = [routed(before), routed(after)]
	for (const name of new Set([...oldRoutes.keys(), ...newRoutes.keys()])) {
		const [was, is] = [oldRoutes.get(name), newRoutes.get(name)]
		const row = (is ?? was)!
		push(row.from, row.to, was ?? nothing, is ?? nothing, () => {
			const why = whyPairChanged(before, after, undefined, [oldParties.get(name), newParties.get(name)])
			return why.length > 0 ? why : row.because
		})
	}

	for (const name of every) {
		const [was, is] = [oldParties.get(name), newParties.get(name)]
		const own = { kind: 'workload', party: (is ?? was)! } as const
		for (const direction of ['ingress', 'egress'] as const) {
			for (const { ranges, from: old, to: now } of changedRanges(
				was === undefined ? [] : segmentsOf(before.reach, direction, was),
				is === undefined ? [] : segmentsOf(after.reach, direction, is),
			)) {
				const outside = { kind: 'outside', ranges } as const
				const why = () => whyOutsideChanged(before, after, direction, was, is, ranges)
				if (direction === 'egress') push(own, outside, old, now, why)
				else push(outside, own, old, now, why)
			}
		}
	}
	return found.sort((a, b) => order(endName(a.to), endName(b.to)) || order(endName(a.from), endName(b.from)))
}

function order(a: string, b: string): number {
	return a < b ? -1 : a > b ? 1 : 0
}

interface Segment {
	readonly interval: Interval
	readonly extent: Extent
}

function segmentsOf(reach: Reach, direction: Direction, party: Party): readonly Segment[] {
	return outsideOf(reach, direction, party).flatMap(({ ranges, some, every }) => {
		const extent = extentOf(reach, some, every)
		return ranges.map((interval) => ({ interval, extent }))
	})
}

interface ChangedRange {
	readonly ranges: readonly Interval[]
	readonly from: Extent
	readonly to: Extent
}

/** Both partitions laid over each other; ranges with the same change together. */
function changedRanges(before: readonly Segment[], after: readonly Segment[]): readonly ChangedRange[] {
	const groups = new Map<string, { intervals: Interval[]; from: Extent; to: Extent }>()
	for (const family of [4, 6] as const) {
		const ofFamily = (list: readonly Segment[]) => list.filter((s) => s.interval.family === family)
		const [a, b] = [ofFamily(before), ofFamily(after)]
		const starts = new Set<bigint>()
		for (const { interval } of [...a, ...b]) {
			starts.add(BigInt(interval.first))
			starts.add(BigInt(interval.last) + 1n)
		}
		const sorted = [...starts].sort((x, y) => (x < y ? -1 : 1))
		const at = (list: readonly Segment[], position: bigint): Extent =>
			list.find((s) => BigInt(s.interval.first) <= position && position <= BigInt(s.interval.last))?.extent ?? nothing
		for (let i = 0; i + 1 < sorted.length; i++) {
			const [first, end] = [sorted[i]!, sorted[i + 1]!]
			const [from, to] = [at(a, first), at(b, first)]
			if (sameExtent(from, to)) continue
			const number = (n: bigint) => (family === 4 ? Number(n) : n)
			const interval = { family, first: number(first), last: number(end - 1n) }
			const id = [from.connections, from.every, to.connections, to.every].map((set) => set?.join() ?? '').join('|')
			const group = groups.get(id)
			if (group === undefined) groups.set(id, { intervals: [interval], from, to })
			else group.intervals.push(interval)
		}
	}
	return [...groups.values()].map(({ intervals, from, to }) => ({ ranges: joinIntervals(intervals), from, to }))
}

/** Kinds of pods of one workload that are asked for reasons: nearly all have one. */
const asked = 4

interface Told {
	readonly id: string
	readonly origin: Origin
}

/** The rules that have a say between two members, each with what it says. */
function told(
	reach: Reach,
	direction: Direction,
	own: Member | undefined,
	other: { readonly class: number } | { readonly piece: number } | undefined,
): readonly Told[] {
	if (own?.kind !== 'pods' || other === undefined) return []
	return reach.reasons(direction, own.class, other).map((reason) => {
		const origin = reason.rule ?? reason.policy
		return { id: `${nameOf(origin)} ${reason.action} ${connectionsText(reach.pool.setOf(reason.connections))}`, origin }
	})
}

/** Without the line: a rule that only moved is the same. */
function nameOf(origin: Origin): string {
	return 'default' in origin ? origin.default : `${origin.kind} ${origin.key} ${origin.field ?? ''}`
}

function changedOf(before: readonly Told[], after: readonly Told[]): readonly Origin[] {
	const [was, is] = [new Set(before.map((t) => t.id)), new Set(after.map((t) => t.id))]
	return [...after.filter((t) => !was.has(t.id)), ...before.filter((t) => !is.has(t.id))].map((t) => t.origin)
}

/** Before and after; no source: any pod, as whatever serves Ingress objects. */
function whyPairChanged(before: Side, after: Side, from: Pair | undefined, to: Pair): readonly Origin[] {
	const gone = (from === undefined ? undefined : missing(from)) ?? missing(to)
	if (gone !== undefined) return gone
	const say = (side: Side, source: Party | undefined, destination: Party | undefined) =>
		(source?.members ?? [anyMember])
			.slice(0, asked)
			.flatMap((a) =>
				(destination?.members ?? [])
					.slice(0, asked)
					.flatMap((b) => [
						...told(side.reach, 'egress', source === undefined ? undefined : a, otherOf(side.reach, b)),
						...told(side.reach, 'ingress', b, otherOf(side.reach, a)),
					]),
			)
	const changed = changedOf(say(before, from?.[0], to[0]), say(after, from?.[1], to[1]))
	if (changed.length > 0) return unique(changed)
	return unique(labelsChanged(before, after, [from?.[0], to[0]], [from?.[1], to[1]]))
}

type Pair = readonly [Party | undefined, Party | undefined]

/** The workload itself, where it is only in one of the two. */
function missing([was, is]: Pair): readonly Origin[] | undefined {
	return was !== undefined && is !== undefined ? undefined : [(is ?? was)!.origin]
}

function whyOutsideChanged(
	before: Side,
	after: Side,
	direction: Direction,
	was: Party | undefined,
	is: Party | undefined,
	ranges: readonly Interval[],
): readonly Origin[] {
	if (was === undefined || is === undefined) return [(is ?? was)!.origin]
	const { family, first } = ranges[0]!
	const say = (side: Side, party: Party) => {
		const piece = side.reach.space.pieceOf(family, first)
		return party.members.slice(0, asked).flatMap((member) => told(side.reach, direction, member, { piece }))
	}
	const changed = changedOf(say(before, was), say(after, is))
	return unique(changed.length > 0 ? changed : labelsChanged(before, after, [was], [is]))
}

/** The same rules, and another answer: then labels or ports of pods, or labels of a namespace are other than they were. */
function labelsChanged(
	before: Side,
	after: Side,
	was: readonly (Party | undefined)[],
	is: readonly (Party | undefined)[],
): readonly Origin[] {
	const origins: Origin[] = []
	for (const [i, now] of is.entries()) {
		const then = was[i]
		if (now === undefined || then === undefined) continue
		const shape = (p: Party) =>
			JSON.stringify([p.sample.labels, p.sample.ports.map(({ name, port, protocol }) => [name, port, protocol])])
		const hash = (text: string) => text.replaceAll(/"(pod-template-hash|controller-revision-hash)":"[^"]*",?/g, '')
		if (hash(shape(now)) !== hash(shape(then))) origins.push(now.origin)
		const labels = (side: Side) => side.model.namespaces.get(now.namespace)
		if (JSON.stringify(labels(before)?.labels) !== JSON.stringify(labels(after)?.labels)) {
			const origin = labels(after)?.origin ?? labels(before)?.origin
			if (origin !== undefined) origins.push(origin)
		}
	}
	return origins
}

/** `3 connections added, 1 removed, 2 changed`. */
export function summaryText(list: readonly Difference[]): string {
	if (list.length === 0) return 'No connection changes'
	const parts = (['added', 'removed', 'changed'] as const).flatMap((change) => {
		const count = list.filter((d) => d.change === change).length
		return count === 0 ? [] : [`${count} ${change}`]
	})
	return `Connections: ${parts.join(', ')}`
}

export function differenceCells(d: Difference): readonly string[] {
	const text = (extent: Extent) => (extent.connections.length === 0 ? '-' : portsText(extent))
	return [d.change, endName(d.from), endName(d.to), text(d.before), text(d.after), d.because.map(originText).join('; ')]
}
