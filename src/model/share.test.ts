// Equal parts become the same object.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { share } from './share.ts'

test('equal values are the old object, changed ones share their equal parts', () => {
	const before = { a: { x: 1 }, list: [{ n: 1 }, { n: 2 }], gone: undefined }
	assert.equal(share(before, structuredClone(before)), before)
	const after = share(before, { a: { x: 1 }, list: [{ n: 1 }, { n: 3 }], gone: undefined })
	assert.notEqual(after, before)
	assert.equal(after.a, before.a)
	assert.equal(after.list[0], before.list[0])
	assert.deepEqual(after.list[1], { n: 3 })
})

test('an absent field, a shorter list and another type are differences', () => {
	const rows: [unknown, unknown][] = [
		[{ a: undefined }, {}],
		[{}, { a: undefined }],
		[[1, 2], [1]],
		[[1], [1, 2]],
		[[], {}],
		[{}, []],
		[null, {}],
		[undefined, { a: 1 }],
	]
	for (const [before, next] of rows) {
		const shared = share(before, next)
		assert.deepEqual(shared, next)
		assert.notEqual(shared, before)
	}
})
