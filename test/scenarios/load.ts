// Reads a story: the objects of a cluster as a live API server would hold them, with the line of every field.

import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { failureOf, parseManifests } from '../../src/kube/manifests.ts'
import { type ClusterState, emptyState, recordSource, setObject } from '../../src/model/state.ts'

/** The state that the files describe, later files over earlier ones. Sources name the file without its folder. */
export function loadState(...files: readonly string[]): ClusterState {
	return loadTexts(...files.map((file) => ({ file: basename(file), text: readFileSync(file, 'utf8') })))
}

export function loadTexts(...texts: readonly { readonly file: string; readonly text: string }[]): ClusterState {
	let state = emptyState()
	for (const { file, text } of texts) {
		const { objects, problems } = parseManifests(text, file)
		const failure = failureOf(problems)
		if (failure !== undefined) throw failure
		for (const { object, source } of objects) state = setObject(state, object, recordSource(object, source))
	}
	return state
}
