// Entry of the lab's daemon. Argument: DaemonOptions as JSON. File descriptor 3: the API's listening TCP socket, made in
// the host's network; 4: written to when the control socket answers.

import { closeSync, writeSync } from 'node:fs'
import { messageOf } from '../base/failure.ts'
import { runDaemon } from './daemon.ts'
import type { DaemonOptions } from './daemon-options.ts'

process.umask(0o077)
try {
	await runDaemon(JSON.parse(process.argv[2] ?? '') as DaemonOptions, {
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
