// The published package is compiled: what `npm pack` would ship runs without the sources.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'

const root = join(import.meta.dirname, '../..')

test('the compiled package explains a flow', () => {
	const folder = mkdtempSync(join(tmpdir(), 'pw-pack-'))
	after(() => rmSync(folder, { recursive: true, force: true }))
	const build = spawnSync('npx', ['tsc', '-p', 'tsconfig.build.json', '--outDir', join(folder, 'dist')], {
		cwd: root,
		encoding: 'utf8',
	})
	assert.equal(build.status, 0, build.stdout)
	cpSync(join(root, 'src/kube/schema/types.json'), join(folder, 'dist/kube/schema/types.json'))
	for (const name of ['bin', 'package.json']) cpSync(join(root, name), join(folder, name), { recursive: true })
	symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'))
	const run = spawnSync(
		process.execPath,
		[
			join(folder, 'bin/podwire.js'),
			'trace',
			'-f',
			join(root, 'examples/shop'),
			'-n',
			'shop',
			'deploy/web',
			'api:80',
			'-o',
			'json',
		],
		{ encoding: 'utf8' },
	)
	assert.equal(run.status, 0, run.stderr)
	const list = JSON.parse(run.stdout) as { kind: string; items: { verdict: string; disposition: string }[] }
	assert.equal(list.kind, 'TraceList')
	assert.equal(list.items[0]?.verdict, 'delivered')
})
