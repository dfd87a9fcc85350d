// Laws of the build: the difference followed gives what building from nothing gives, whatever the order of events.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Table } from '../../src/base/table.ts'
import { keyOf } from '../../src/kube/objects/meta.ts'
import { build } from '../../src/model/build.ts'
import type { NetworkModel } from '../../src/model/network.ts'
import { decodeState, encodeState, setObject } from '../../src/model/state.ts'
import { apply, type Edit, edits, nothing, stateOf } from './cluster.ts'
import './seed.ts'

const runs = { numRuns: 150 }

/** Tables as plain objects in the order of keys. */
function plain(model: NetworkModel): unknown {
	const sorted = <V>(table: Table<string, V>) => Object.fromEntries([...table].sort(([a], [b]) => (a < b ? -1 : 1)))
	const { config, nodes, pods, services, addresses, frontends, policies, namespaces, findings } = model
	return {
		config,
		nodes: sorted(nodes),
		pods: sorted(pods),
		services: sorted(services),
		addresses: sorted(addresses),
		frontends: sorted(frontends),
		policies: sorted(policies),
		namespaces: sorted(namespaces),
		findings,
	}
}

test('a model built along the way is the model built from nothing', () => {
	fc.assert(
		fc.property(edits, fc.array(fc.boolean(), { minLength: 50, maxLength: 50 }), (list, stops) => {
			let state = nothing
			let model = build(state)
			let built = state
			for (const [i, edit] of list.entries()) {
				state = apply(state, edit)
				if (!stops[i % stops.length]) continue
				model = build(state, { state: built, model })
				built = state
			}
			model = build(state, { state: built, model })
			assert.deepEqual(plain(model), plain(build(state)))
		}),
		runs,
	)
})

test('the order of events does not matter', () => {
	const idOf = (edit: Edit) => {
		const { kind, key } =
			'set' in edit ? { kind: edit.set.kind, key: keyOf(edit.set) } : 'place' in edit ? edit.place : edit.delete
		return `${kind} ${key}`
	}
	fc.assert(
		fc.property(edits, fc.array(fc.nat(), { minLength: 64, maxLength: 64 }), (list, order) => {
			// Only events of different objects may change places.
			const lastOfEach = new Map(list.map((edit) => [idOf(edit), edit]))
			const kept = [...lastOfEach.values()]
			const shuffled = kept.map((edit, i) => ({ edit, at: order[i % order.length]! })).sort((a, b) => a.at - b.at)
			const step = (events: readonly Edit[]) => {
				let state = nothing
				let model = build(state)
				for (const edit of events) {
					const next = apply(state, edit)
					model = build(next, { state, model })
					state = next
				}
				return plain(model)
			}
			assert.deepEqual(step(shuffled.map((s) => s.edit)), step(kept))
		}),
		{ numRuns: 60 },
	)
})

test('what means the same stays the same object', () => {
	fc.assert(
		fc.property(edits, (list) => {
			const state = stateOf(list)
			const model = build(state)
			let next = state
			for (const object of encodeState(state).objects) {
				const copy = structuredClone(object)
				next = setObject(next, { ...copy, metadata: { ...copy.metadata, resourceVersion: '2' } })
			}
			const again = build(next, { state, model })
			for (const table of [
				'nodes',
				'pods',
				'services',
				'addresses',
				'frontends',
				'policies',
				'namespaces',
				'config',
			] as const) {
				assert.equal(again[table], model[table], table)
			}
			assert.equal(build(next, { state: next, model: again }), again, 'the very model where nothing changed')
		}),
		runs,
	)
})

test('a state survives JSON', () => {
	fc.assert(
		fc.property(edits, (list) => {
			const state = stateOf(list)
			const copy = decodeState(JSON.parse(JSON.stringify(encodeState(state))))
			assert.deepEqual(plain(build(copy)), plain(build(state)))
		}),
		{ numRuns: 50 },
	)
})
