// The whole lab without rights: an ordinary user, in a user namespace found by itself, through a crash and down.

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

for (const ipFamily of ['ipv4', 'dual']) {
	test(`up, a Service by name, kill -9, up again, down: without root, ${ipFamily}`, { skip, timeout: 120_000 }, () => {
		const root = mkdtempSync(join(tmpdir(), 'pw-'))
		if (asUser.length > 0) spawnSync('chown', [`${nobody}:${nobody}`, root])
		try {
			const [node, ...rest] = [
				...asUser,
				process.execPath,
				'--disable-warning=ExperimentalWarning',
				join(import.meta.dirname, 'rootless-run.ts'),
				ipFamily,
			]
			const env: NodeJS.ProcessEnv = {
				...process.env,
				HOME: root,
				XDG_STATE_HOME: join(root, 's'),
				XDG_RUNTIME_DIR: join(root, 'r'),
			}
			const result = spawnSync(node as string, rest, { encoding: 'utf8', env, cwd: root, timeout: 90_000 })
			assert.equal(result.status, 0, `${result.stdout}\n${result.stderr}`)
			assert.deepEqual(JSON.parse(result.stdout), {
				rights: 'user namespace',
				dataplane: 'kernel',
				answered: 'web',
				afterCrash: { sameAddresses: true, restarts: 0, answered: 'web' },
				afterBoth: { sameAddresses: true, restarts: 1, answered: 'web' },
				leftovers: [],
			})
		} finally {
			rmSync(root, { recursive: true, force: true })
		}
	})
}
