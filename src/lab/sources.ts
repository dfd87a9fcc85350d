// Where `up -f` read each object: kept beside the store, so that a trace names the user's own files after a restart.

import { readFileSync } from 'node:fs'
import { Failure, messageOf } from '../base/failure.ts'
import type { Sources } from './control.ts'
import { replaceFile } from './kept.ts'

/** Empty where nothing was kept, or what was kept cannot be read: places of objects are a comfort, not a state. */
export function readSources(path: string): Sources {
	try {
		return JSON.parse(readFileSync(path, 'utf8')) as Sources
	} catch {
		return {}
	}
}

/** Written whole, synced and renamed: what is there is always complete. Throws Failure CannotWrite. */
export function writeSources(path: string, sources: Sources): void {
	try {
		replaceFile(path, JSON.stringify(sources), true)
	} catch (e) {
		throw new Failure('CannotWrite', `Cannot keep the sources in ${JSON.stringify(path)}: ${messageOf(e)}`, { path })
	}
}
