// Every code that a check can yield has its page and a story that shows it, and every page its code.

import assert from 'node:assert/strict'
import { globSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

test('codes and pages', () => {
	const root = join(import.meta.dirname, '../../..')
	const sources = globSync('src/{model,reach}/**/*.ts', { cwd: root }).filter((f) => !f.endsWith('.test.ts'))
	const codes = new Set(
		sources.flatMap((f) => readFileSync(join(root, f), 'utf8').match(/'PW\d{4}'/g) ?? []).map((c) => c.slice(1, -1)),
	)
	const pages = readdirSync(join(root, 'docs/findings')).filter((f) => f.startsWith('PW'))
	assert.deepEqual([...codes].sort(), pages.map((f) => f.replace('.md', '')).sort())
	const index = readFileSync(join(root, 'docs/findings/README.md'), 'utf8')
	for (const page of pages) {
		const text = readFileSync(join(root, 'docs/findings', page), 'utf8')
		for (const part of ['## Cause', '## Evidence', '## Fix']) assert.ok(text.includes(part), `${page} lacks ${part}`)
		assert.ok(index.includes(page), `the index lacks ${page}`)
	}
	const goldens = globSync('test/{scenarios/stories/*/expect,reach/lint}.golden.txt', { cwd: root }).map((f) =>
		readFileSync(join(root, f), 'utf8'),
	)
	for (const code of codes) {
		assert.ok(
			goldens.some((text) => text.includes(`${code} `)),
			`no story shows ${code}`,
		)
	}
})
