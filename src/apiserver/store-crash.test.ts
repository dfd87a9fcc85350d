// What was acknowledged survives kill -9, at whatever moment it comes.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { openJournal } from './journal.ts'
import { createStore } from './store.ts'

const writers = 20
const kills = Number(process.env.PODWIRE_KILLS ?? 8)
const script = new URL('../../test/fixtures/store-writer.ts', import.meta.url).pathname

test(`a store whose process is killed ${kills} times under load has all it acknowledged`, async (t) => {
	const directory = mkdtempSync(join(tmpdir(), 'podwire-crash-'))
	t.after(() => rmSync(directory, { recursive: true, force: true }))
	const path = join(directory, 'store.db')
	let from = 0
	let acknowledged = 0
	for (let kill = 0; kill < kills; kill++) {
		// Each kill comes after another number of acknowledgements, so that it falls on another moment.
		const after = 200 + ((kill * 379) % 1000)
		const last = await writeAndKill(path, from, after)
		acknowledged += [...last.values()].reduce((sum, step) => sum + step - from + 1, 0)
		const store = createStore({ journal: await openJournal(path) })
		for (let writer = 0; writer < writers; writer++) {
			const step = last.get(writer) ?? from - 1
			const entry = store.get('configmaps', `default/w${writer}`)
			const have = entry === undefined ? 'gone' : String((entry.object.data as { step: string }).step)
			// The write that was under way may have been kept without our hearing of it.
			const allowed = [step, step + 1].map((n) => (n < 0 || n % 4 === 3 ? 'gone' : String(n)))
			assert.ok(allowed.includes(have), `writer ${writer}: acknowledged step ${step}, found ${have}`)
		}
		from = Math.max(...last.values()) + 5
		from -= from % 4
		for (const entry of [...store.list('configmaps')]) await store.remove(entry).kept
		store.close()
	}
	assert.ok(acknowledged > kills * 200, `only ${acknowledged} writes were acknowledged`)
})

/** The last step each writer was acknowledged. */
async function writeAndKill(path: string, from: number, after: number): Promise<Map<number, number>> {
	const child = spawn(
		process.execPath,
		['--disable-warning=ExperimentalWarning', script, path, String(writers), String(from)],
		{ stdio: ['ignore', 'pipe', 'inherit'] },
	)
	const last = new Map<number, number>()
	let rest = ''
	let lines = 0
	child.stdout.setEncoding('utf8')
	child.stdout.on('data', (chunk: string) => {
		const parts = (rest + chunk).split('\n')
		// A line that the kill cut off was not said.
		rest = parts.pop() ?? ''
		for (const line of parts) {
			const [writer, step] = line.split(' ')
			if (step === undefined) continue
			last.set(Number(writer), Number(step))
			if (++lines === after) child.kill('SIGKILL')
		}
	})
	const [, signal] = (await once(child, 'close')) as [number | null, string | null]
	assert.equal(signal, 'SIGKILL')
	return last
}
