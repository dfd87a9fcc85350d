// Regular expressions as Go's regexp package (RE2) reads them: no backtracking, so no text can make one slow.

import { createRequire } from 'node:module'
import { CelError } from './values.ts'

export interface Regex {
	/** Whether it matches anywhere. */
	test(text: string): boolean
	/** Every match, at most `limit`; -1: all. */
	findAll(text: string, limit: number): readonly string[]
}

type Re2 = typeof import('re2js').RE2JS
let library: Re2 | undefined

/** Loaded when the first expression is there. */
function re2(): Re2 {
	return (library ??= (createRequire(import.meta.url)('re2js') as typeof import('re2js')).RE2JS)
}

const kept = new Map<string, Regex>()

/** Throws CelError with Go's kind of text where the expression is none. */
export function regexOf(source: string): Regex {
	const known = kept.get(source)
	if (known !== undefined) return known
	let compiled: InstanceType<Re2>
	try {
		compiled = re2().compile(source)
	} catch (e) {
		throw new CelError(e instanceof Error ? e.message : String(e))
	}
	const regex: Regex = {
		test: (text) => compiled.test(text),
		findAll(text, limit) {
			const out: string[] = []
			const matcher = compiled.matcher(text)
			while ((limit < 0 || out.length < limit) && matcher.find()) out.push(matcher.group() ?? '')
			return out
		},
	}
	// Expressions come from definitions, of which there are few; those made of data must not fill the memory.
	if (kept.size >= 2000) kept.clear()
	kept.set(source, regex)
	return regex
}
