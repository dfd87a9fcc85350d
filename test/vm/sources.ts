// A program of ours as plain JavaScript with everything it imports: what a slow machine can start without work.

import { readFileSync } from 'node:fs'
import { stripTypeScriptTypes } from 'node:module'
import { dirname, join, relative } from 'node:path'

const specifier = /(\bfrom\s*|\bimport\s*\(?\s*)'(\.{1,2}\/[^'\n]+)\.ts'/g

/** By path from the repository's root, `.js` for `.ts`: the text of the file and of all files it names. */
export function collectSources(entry: string, repository: string): Map<string, string> {
	const found = new Map<string, string>()
	const open = [join(repository, entry)]
	for (let path = open.pop(); path !== undefined; path = open.pop()) {
		const name = relative(repository, path).replace(/\.ts$/, '.js')
		if (found.has(name)) continue
		const script = stripTypeScriptTypes(readFileSync(path, 'utf8'))
		const text = script.replaceAll(specifier, (_, head: string, to: string) => {
			open.push(join(dirname(path), `${to}.ts`))
			return `${head}'${to}.js'`
		})
		found.set(name, text)
	}
	return found
}
