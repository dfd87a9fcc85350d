import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { diffTables, emptyTable, type Table, tableOf } from './table.ts'

type Change = { key: string; value: number | undefined }

// Two keys of equal FNV-1a hash, found by search; more are made by appending the same suffix to both.
const twins = ['costarring', 'liquid', 'declinate', 'macallums', 'altarage', 'zinke']
const key = fc.oneof(
	fc.string({ maxLength: 3 }),
	fc.nat(50).map((n) => `k${n}`),
	fc.constantFrom(...twins).chain((t) => fc.constantFrom(t, `${t}/a`, `${t}/b`)),
)
const changes = fc.array(fc.record({ key, value: fc.option(fc.nat(5), { nil: undefined }) }), {
	maxLength: 200,
	size: 'max',
})

function run(table: Table<string, number>, list: readonly Change[]): Table<string, number> {
	return list.reduce((t, c) => (c.value === undefined ? t.delete(c.key) : t.set(c.key, c.value)), table)
}
function runDraft(table: Table<string, number>, list: readonly Change[]): Table<string, number> {
	return table.mutate((draft) => {
		for (const c of list) c.value === undefined ? draft.delete(c.key) : draft.set(c.key, c.value)
	})
}
function runMap(list: readonly Change[]): Map<string, number> {
	const map = new Map<string, number>()
	for (const c of list) c.value === undefined ? map.delete(c.key) : map.set(c.key, c.value)
	return map
}
const sorted = (x: Iterable<readonly [string, number]>) => [...x].sort(([a], [b]) => (a < b ? -1 : 1))

test('a table is a map', () => {
	fc.assert(
		fc.property(changes, key, (list, probe) => {
			const map = runMap(list)
			for (const table of [run(emptyTable(), list), runDraft(emptyTable(), list)]) {
				assert.deepEqual(sorted(table), sorted(map))
				assert.equal(table.size, map.size)
				assert.equal(table.get(probe), map.get(probe))
				assert.equal(table.has(probe), map.has(probe))
				assert.deepEqual([...table.keys()].sort(), [...map.keys()].sort())
				assert.deepEqual([...table.values()].sort(), [...map.values()].sort())
			}
		}),
	)
})

test('editing leaves the earlier table as it was', () => {
	fc.assert(
		fc.property(changes, changes, (first, second) => {
			const before = run(emptyTable(), first)
			run(before, second)
			runDraft(before, second)
			assert.deepEqual(sorted(before), sorted(runMap(first)))
		}),
	)
})

test('apply(diff(a, b), a) = b, each key once', () => {
	fc.assert(
		fc.property(changes, changes, fc.boolean(), (first, second, related) => {
			const a = run(emptyTable<string, number>(), first)
			const b = runDraft(related ? a : emptyTable<string, number>(), second)
			let out = a
			const seen = new Set<string>()
			diffTables(a, b, (k, before, after) => {
				assert.ok(!seen.has(k), `${k} reported twice`)
				seen.add(k)
				assert.equal(before, a.get(k))
				assert.equal(after, b.get(k))
				assert.notEqual(before, after)
				out = after === undefined ? out.delete(k) : out.set(k, after)
			})
			assert.deepEqual(sorted(out), sorted(b))
		}),
	)
})

test('the same entries have the same shape, whatever the order they came in', () => {
	const shape = (t: Table<string, number>) => JSON.stringify(t, (name, v) => (name === 'owner' ? undefined : v))
	fc.assert(
		fc.property(changes, (list) => {
			// Of a collision the order of arrival shows; that costs nothing and is left as it is.
			const plain = list.filter((c) => !twins.some((w) => c.key.startsWith(w)))
			assert.equal(shape(run(emptyTable(), plain)), shape(tableOf(sorted(runMap(plain)))))
			assert.equal(shape(runDraft(emptyTable(), plain)), shape(tableOf(sorted(runMap(plain)))))
		}),
	)
})

test('nothing changed: the same table', () => {
	const t = tableOf<string, unknown>([['a', 1], ['b', Number.NaN], ...twins.map((w) => [w, w] as const)])
	assert.equal(t.set('a', 1), t)
	assert.equal(t.set('b', Number.NaN), t)
	assert.equal(t.set('liquid', 'liquid'), t)
	assert.equal(t.delete('c'), t)
	assert.equal(
		t.mutate((d) => {
			d.set('a', 1)
			d.delete('zzz')
		}),
		t,
	)
	assert.notEqual(t.set('a', 2), t)
})

test('a draft ends with its mutate, and a throw keeps the table', () => {
	const t = tableOf([['a', 1]])
	let late: { set(k: string, v: number): void } | undefined
	t.mutate((d) => {
		late = d
	})
	assert.throws(() => late?.set('b', 2), /after mutate returned/)
	assert.throws(() =>
		t.mutate((d) => {
			d.set('a', 5)
			throw new Error('no')
		}),
	)
	assert.equal(t.get('a'), 1)
})

test('a diff visits what differs, not what is there', () => {
	const a = tableOf<string, number>(Array.from({ length: 20_000 }, (_, i) => [`default/service-${i}`, i] as const))
	const b = a.set('default/service-77', -1).delete('default/service-5').set('new', 1)
	const seen: unknown[] = []
	diffTables(a, b, (k, before, after) => seen.push([k, before, after]))
	assert.deepEqual(seen.sort(), [
		['default/service-5', 5, undefined],
		['default/service-77', 77, -1],
		['new', undefined, 1],
	])
})
