// The published package is compiled: what `npm pack` would ship runs without the sources.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { isAbsolute, join } from 'node:path'
import { after, test } from 'node:test'
import { messageOf } from '../../src/base/failure.ts'
import { findTool } from '../tools.ts'

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

test('kubectl finds it as a plugin', async (t) => {
	const kubectl = await findTool('kubectl').catch(messageOf)
	if (!isAbsolute(kubectl)) return t.skip(kubectl)
	const folder = mkdtempSync(join(tmpdir(), 'pw-plugin-'))
	t.after(() => rmSync(folder, { recursive: true, force: true }))
	symlinkSync(join(root, 'bin/podwire.js'), join(folder, 'kubectl-podwire'))
	const env = { ...process.env, PATH: `${folder}:${process.env.PATH ?? ''}` }
	const run = spawnSync(kubectl, ['podwire', 'version', '-o', 'json'], { encoding: 'utf8', env })
	assert.equal(run.status, 0, run.stderr)
	assert.equal((JSON.parse(run.stdout) as { kind: string }).kind, 'Version')
})
