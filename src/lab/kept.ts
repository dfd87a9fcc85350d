// Small files that a lab keeps beside its store: each is replaced whole, so that a reader never sees half of one, and
// on a full disk the old text stays.

import { renameSync, rmSync, writeFileSync } from 'node:fs'
import { Failure, messageOf } from '../base/failure.ts'

/** `flush`: on the disk before the old text goes. Throws what the system says; then nothing is left but the old text. */
export function replaceFile(path: string, text: string, flush = false): void {
	const temporary = `${path}.${process.pid}`
	try {
		writeFileSync(temporary, text, { mode: 0o600, flush })
		renameSync(temporary, path)
	} catch (e) {
		rmSync(temporary, { force: true })
		throw e
	}
}

/** One line. Throws Failure CannotWrite. */
export function keepLine(path: string, line: string): void {
	try {
		replaceFile(path, `${line}\n`)
	} catch (e) {
		throw new Failure('CannotWrite', `Cannot write ${JSON.stringify(path)}: ${messageOf(e)}`)
	}
}
