// Which nodes the user has stopped: kept beside the store, so that they stay so when the daemon is started anew.

import { readFileSync } from 'node:fs'
import { Failure, messageOf } from '../base/failure.ts'
import { replaceFile } from './kept.ts'

/** Empty where none were, or where it cannot be read: then all nodes are started. */
export function readStopped(path: string): Set<string> {
	try {
		const names: unknown = JSON.parse(readFileSync(path, 'utf8'))
		return new Set(Array.isArray(names) ? names.filter((name) => typeof name === 'string') : [])
	} catch {
		return new Set()
	}
}

/** Throws Failure CannotWrite. */
export function writeStopped(path: string, names: ReadonlySet<string>): void {
	try {
		replaceFile(path, `${JSON.stringify([...names])}\n`, true)
	} catch (e) {
		throw new Failure('CannotWrite', `Cannot keep in ${JSON.stringify(path)} which nodes are stopped: ${messageOf(e)}`)
	}
}
