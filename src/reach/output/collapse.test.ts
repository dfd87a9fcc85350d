// Few lines stand for many rows: each for rows that are all there, and together for all of them.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { collapseLines, type Line } from './collapse.ts'

const parties = Array.from({ length: 24 }, (_, i) => ({
	name: `ns-${i % 3}/deploy/w-${i}`,
	namespace: `ns-${i % 3}`,
	pods: 1 + (i % 2),
}))
const byName = new Map(parties.map((p) => [p.name, p]))

/** The names a text stands for. */
function meant(text: string): readonly string[] {
	const [, whole = '', except] = /^(any workload|\S+\/\*)(?: except (.*))?$/.exec(text) ?? []
	if (whole === '') return [text]
	const without = new Set((except ?? '').split(', ').flatMap((t) => (t === '' ? [] : meant(t))))
	return parties
		.filter((p) => whole === 'any workload' || whole === `${p.namespace}/*`)
		.flatMap((p) => (without.has(p.name) ? [] : [p.name]))
}

/** Rows by `from to ports`. One pod alone has no row with itself, and a line for all counts it in. */
function rowsOf(lines: readonly Line[]): ReadonlySet<string> {
	return new Set(
		lines.flatMap(({ from, to, ports }) =>
			meant(from).flatMap((a) =>
				meant(to).flatMap((b) => (a === b && byName.get(a)?.pods === 1 ? [] : [`${a} ${b} ${ports}`])),
			),
		),
	)
}

test('lines stand for exactly the rows', () => {
	const name = fc.constantFrom(...parties.map((p) => p.name))
	fc.assert(
		fc.property(
			// Mostly everything, less some sources, some destinations, some pairs; and a few rows besides.
			fc.array(name, { maxLength: 8 }),
			fc.array(name, { maxLength: 8 }),
			fc.array(fc.tuple(name, name), { maxLength: 20 }),
			fc.array(fc.record({ from: name, to: fc.oneof(name, fc.constant('0.0.0.0/0')), ports: fc.constant('TCP 80') }), {
				maxLength: 10,
			}),
			(sources, destinations, pairs, more) => {
				const gone = new Set(pairs.map((pair) => pair.join(' ')))
				const lines: Line[] = [...more]
				for (const { name: from } of parties)
					for (const { name: to } of parties)
						if (!sources.includes(from) && !destinations.includes(to) && !gone.has(`${from} ${to}`))
							lines.push({ from, to, ports: 'all' })
				const rows = lines.filter(({ from, to }) => from !== to || byName.get(from)?.pods !== 1)
				const few = collapseLines(rows, parties)
				assert.deepEqual([...rowsOf(few)].sort(), [...rowsOf(rows)].sort())
				assert.deepEqual(collapseLines([...rows].reverse(), parties), few, 'in whatever order they come')
			},
		),
		{ numRuns: 200 },
	)
})

test('all but a few are said as such', () => {
	const to = parties[0]!.name
	const rows = (sources: readonly { readonly name: string }[]) =>
		sources.filter((p) => p.name !== to).map((p) => ({ from: p.name, to, ports: 'all' }))
	const texts = (sources: readonly { readonly name: string }[]) =>
		collapseLines(rows(sources), parties).map((l) => l.from)
	assert.deepEqual(texts(parties), ['any workload'])
	assert.deepEqual(texts(parties.filter((p) => p.name !== 'ns-1/deploy/w-4')), ['any workload except ns-1/deploy/w-4'])
	assert.deepEqual(
		texts(parties.filter((p) => p.namespace !== 'ns-1')),
		['ns-0/*', 'ns-2/*'],
		'a third is no exception',
	)
	assert.deepEqual(texts(parties.filter((p) => p.namespace === 'ns-1' && p.name !== 'ns-1/deploy/w-4')), [
		'ns-1/* except ns-1/deploy/w-4',
	])
})
