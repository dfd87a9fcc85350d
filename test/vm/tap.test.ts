import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fileMode, folderMode, writeArchive } from './archive.ts'
import { readTap } from './tap.ts'

test('TAP: innermost tests with their reasons', () => {
	const text = `TAP version 13
# Subtest: all
    # Subtest: one
    ok 1 - one
      ---
      duration_ms: 1
      ...
    not ok 2 - two \\# three
      ---
      error: 'no'
      ...
    ok 3 - four # SKIP not here
not ok 1 - all
`
	assert.deepEqual(
		readTap(text.split('\n')).map(({ name, ok, skipped, why }) => [name, ok, skipped, why?.includes("'no'")]),
		[
			['one', true, undefined, undefined],
			['two # three', false, undefined, true],
			['four', true, 'not here', undefined],
		],
	)
})

test('cpio: headers and contents on multiples of four', () => {
	const archive = writeArchive([
		{ path: 'a', mode: folderMode },
		{ path: 'a/bc', content: Buffer.from('hello'), mode: fileMode },
	])
	assert.equal(archive.length % 4, 0)
	assert.equal(archive.toString('latin1', 0, 6), '070701')
	const at = archive.indexOf('hello')
	assert.equal(at % 4, 0)
	assert.ok(archive.includes('TRAILER!!!'))
})
