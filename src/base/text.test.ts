import assert from 'node:assert/strict'
import { test } from 'node:test'
import { alignColumns, textWidth } from './text.ts'

test('columns stand under each other', () => {
	assert.deepEqual(
		alignColumns([
			['NAME', 'READY', 'AGE'],
			['web-1', '', '5m'],
			['\x1b[31mx\x1b[0m', '1/1'],
		]),
		['NAME    READY   AGE', 'web-1           5m', '\x1b[31mx\x1b[0m       1/1'],
	)
	assert.deepEqual(
		alignColumns(
			[
				['a', 'b'],
				['日本', 'c'],
			],
			{ gap: 1, indent: 2 },
		),
		['  a    b', '  日本 c'],
	)
	assert.deepEqual(alignColumns([]), [])
})

test('width', () => {
	const table: [string, number][] = [
		['', 0],
		['web', 3],
		['é', 1],
		['e\u0301', 1],
		['日本', 4],
		['→', 1],
		['\x1b[1;32mok\x1b[0m', 2],
	]
	for (const [text, width] of table) assert.equal(textWidth(text), width, JSON.stringify(text))
})
