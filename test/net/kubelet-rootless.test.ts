// Volumes, own commands and host ports without rights: an ordinary user in a user namespace.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

const nobody = 65534
const asUser =
	process.getuid?.() === 0 ? ['setpriv', `--reuid=${nobody}`, `--regid=${nobody}`, '--clear-groups', '--'] : []
const [command, ...args] = [...asUser, 'unshare', '-U', '-r', '-n', '-m', 'true']
const attempt = spawnSync(command as string, args, { encoding: 'utf8' })
const skip = attempt.status === 0 ? false : `no user namespace for an ordinary user: ${attempt.stderr?.trim()}`

test('volumes of every kind, storage that outlives pods, host ports: without root', { skip, timeout: 120_000 }, () => {
	const root = mkdtempSync(join(tmpdir(), 'pw-'))
	if (asUser.length > 0) spawnSync('chown', [`${nobody}:${nobody}`, root])
	try {
		const [node, ...rest] = [
			...asUser,
			process.execPath,
			'--disable-warning=ExperimentalWarning',
			join(import.meta.dirname, 'kubelet-rootless-run.ts'),
		]
		const env: NodeJS.ProcessEnv = {
			...process.env,
			HOME: root,
			TMPDIR: root,
			XDG_STATE_HOME: join(root, 's'),
			XDG_RUNTIME_DIR: join(root, 'r'),
		}
		const result = spawnSync(node as string, rest, { encoding: 'utf8', env, cwd: root, timeout: 90_000 })
		assert.equal(result.status, 0, `${result.stdout}\n${result.stderr}`)
		assert.deepEqual(JSON.parse(result.stdout), {
			rights: 'user namespace',
			logs: [
				['red', 'one', 'scratch', 'read-only', 'one', 'host port'],
				['red', 'two', 'scratch', 'read-only', 'one', 'two', 'host port'],
			],
			kept: ['one', 'two'],
		})
	} finally {
		rmSync(root, { recursive: true, force: true })
	}
})
