// Entry of the lab's daemon. Standard input: DaemonOptions as JSON. File descriptor 3: the API's listening TCP socket, made in
// the host's network; 4: written to when the control socket answers.

import { closeSync, readFileSync, writeSync } from 'node:fs'
import { messageOf } from '../base/failure.ts'
import { runDaemon } from './daemon.ts'
import type { DaemonOptions } from './daemon-options.ts'

process.umask(0o077)
try {
	await runDaemon(JSON.parse(readFileSync(0, 'utf8')) as DaemonOptions, {
		apiFd: 3,
		answering() {
			writeSync(4, 'answering\n')
			closeSync(4)
		},
	})
	process.exit(0)
} catch (e) {
	process.stderr.write(`${messageOf(e)}\n${e instanceof Error ? e.stack : ''}\n`)
	process.exit(1)
}
