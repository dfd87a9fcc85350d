// A disk that is really full: the store on a tmpfs of one megabyte, in a mount namespace of its own.

import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

const script = `
import { writeFileSync, rmSync, statfsSync } from 'node:fs'
import { openJournal } from './src/apiserver/journal.ts'
import { createStore } from './src/apiserver/store.ts'
const [dir] = process.argv.slice(1)
const store = createStore({ journal: await openJournal(dir + '/store.db') })
const put = async (name, size) => {
	const key = 'default/' + name
	const object = { kind: 'ConfigMap', apiVersion: 'v1', metadata: { name, namespace: 'default' }, data: { x: 'x'.repeat(size) } }
	await store.put('configmaps', key, object, store.current('configmaps', key)).kept
}
await put('first', 10)
const { bavail, bsize } = statfsSync(dir)
writeFileSync(dir + '/ballast', Buffer.alloc(bavail * bsize))
const said = []
for (let i = 0; i < 20; i++) await put('n' + i, 20_000).catch((e) => said.push(e.code + ': ' + e.message))
const during = [...store.list('configmaps')].map((e) => e.key)
rmSync(dir + '/ballast')
await put('after', 20_000)
store.close()
const again = createStore({ journal: await openJournal(dir + '/store.db') })
console.log(JSON.stringify({ said, during, after: [...again.list('configmaps')].map((e) => e.key) }))
`

test('a full disk refuses writes, keeps reads and all that was kept, and works again with space', (t) => {
	const probe = spawnSync('unshare', ['-Urm', 'true'])
	if (probe.status !== 0) return t.skip('cannot make a mount namespace here (unshare -Urm)')
	const directory = mkdtempSync(join(tmpdir(), 'podwire-full-'))
	t.after(() => rmSync(directory, { recursive: true, force: true }))
	const out = execFileSync(
		'unshare',
		[
			'-Urm',
			'sh',
			'-c',
			'mount -t tmpfs -o size=1m none "$1" && exec "$2" --disable-warning=ExperimentalWarning --input-type=module-typescript -e "$3" "$1"',
			'sh',
			directory,
			process.execPath,
			script,
		],
		{ cwd: new URL('../..', import.meta.url).pathname, encoding: 'utf8' },
	)
	const { said, during, after } = JSON.parse(out) as { said: string[]; during: string[]; after: string[] }
	assert.ok(said.length > 0)
	for (const text of said)
		assert.match(text, /^InsufficientStorage: Cannot write to the store .*no space is left; nothing was changed$/)
	assert.equal(during.length, 1 + 20 - said.length)
	assert.deepEqual(after, [...during, 'default/after'].sort())
})
