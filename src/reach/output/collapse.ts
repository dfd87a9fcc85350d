// Many rows said in few lines: `any workload`, or `shop/*` for all workloads of a namespace, where all have the same answer.

import { type Connections, connectionsText } from '../connections.ts'
import type { Party } from '../parties.ts'
import { endName, type ReachRow } from '../table.ts'

export interface Line {
	readonly from: string
	readonly to: string
	readonly ports: string
}

/** Fewer than these of a namespace are named one by one. */
const fewest = 3
/** "All except": of so many at least, for at most a quarter of them, and never more names than these. */
const exceptions = { of: 8, share: 0.25, names: 6 }

const everyone = 'any workload'

/** Sets of one engine are few, and rows many. */
const texts = new WeakMap<Connections, string>()

function textOf(set: Connections): string {
	let text = texts.get(set)
	if (text === undefined) texts.set(set, (text = connectionsText(set)))
	return text
}

export function portsText(row: Pick<ReachRow, 'connections' | 'every'>): string {
	const text = textOf(row.connections)
	return row.every === undefined ? text : `${text} (between every pair: ${connectionsText(row.every)})`
}

/** Exact: a line stands for rows that are all there. Rows are not kept, only their ends. */
export function collapse(rows: Iterable<ReachRow>, parties: readonly Party[]): readonly Line[] {
	function* lines(): Iterable<Line> {
		for (const row of rows) yield { from: endName(row.from), to: endName(row.to), ports: portsText(row) }
	}
	return collapseLines(lines(), parties)
}

type Known = Pick<Party, 'name' | 'namespace' | 'pods'>

/**
 * Names said in few: `any workload`, `shop/*`, either with `except …`. `self`: the name that has no row with itself where
 * it is one pod alone, and counts as there.
 */
export function folderOf(
	parties: readonly Known[],
): (names: ReadonlySet<string>, self: string | undefined) => readonly string[] {
	const namespaces = new Map<string, string[]>()
	const single = new Set<string>()
	for (const { name, namespace, pods } of parties) {
		const list = namespaces.get(namespace)
		if (list === undefined) namespaces.set(namespace, [name])
		else list.push(name)
		if (pods === 1) single.add(name)
	}
	const all = parties.map((p) => p.name)
	/** Whole namespaces by one name. */
	const written = (missing: readonly string[]): readonly string[] => {
		const gone = new Set(missing)
		const whole = [...namespaces].filter(([, list]) => list.length > 1 && list.every((name) => gone.has(name)))
		for (const [, list] of whole) for (const name of list) gone.delete(name)
		return [...whole.map(([namespace]) => `${namespace}/*`), ...gone].sort()
	}
	return (names, self) => {
		const has = (name: string) => names.has(name) || (name === self && single.has(name))
		const said = (list: readonly string[], text: string): string | undefined => {
			const missing = list.filter((name) => !has(name))
			if (missing.length === 0) return text
			if (list.length < exceptions.of || missing.length > list.length * exceptions.share) return undefined
			const except = written(missing)
			return except.length > exceptions.names ? undefined : `${text} except ${except.join(', ')}`
		}
		const out: string[] = []
		const done = new Set<string>()
		const take = (list: readonly string[], text: string | undefined) => {
			if (text === undefined) return
			out.push(text)
			for (const name of list) done.add(name)
		}
		if (all.length >= 2) take(all, said(all, everyone))
		if (out.length === 0)
			for (const [namespace, list] of namespaces) if (list.length >= fewest) take(list, said(list, `${namespace}/*`))
		for (const name of names) if (!done.has(name)) out.push(name)
		return out
	}
}

/** Lines with the same text for `ports`, which may be any that is the same for all of them. */
export function collapseLines(pairs: Iterable<Line>, parties: readonly Known[]): readonly Line[] {
	const known = new Set(parties.map((p) => p.name))
	const fold = folderOf(parties)
	const bySink = new Map<string, { to: string; ports: string; from: Set<string> }>()
	for (const { from, to, ports } of pairs) {
		const id = `${to}\n${ports}`
		let group = bySink.get(id)
		if (group === undefined) bySink.set(id, (group = { to, ports, from: new Set() }))
		group.from.add(from)
	}
	const bySource = new Map<string, { from: string; ports: string; to: Set<string> }>()
	for (const { to, ports, from } of bySink.values()) {
		for (const source of fold(from, to)) {
			const id = `${source}\n${ports}`
			let group = bySource.get(id)
			if (group === undefined) bySource.set(id, (group = { from: source, ports, to: new Set() }))
			group.to.add(to)
		}
	}
	const lines: Line[] = []
	for (const { from, ports, to } of bySource.values())
		for (const sink of fold(to, known.has(from) ? from : undefined)) lines.push({ from, to: sink, ports })
	return lines.sort((a, b) => compare(a.to, b.to) || compare(a.from, b.from) || compare(a.ports, b.ports))
}

/** Workloads first, then addresses. */
function compare(a: string, b: string): number {
	const rank = (text: string) => (text.startsWith(everyone) ? 0 : /^[\d:]/.test(text) ? 2 : 1)
	return rank(a) - rank(b) || (a < b ? -1 : a > b ? 1 : 0)
}
