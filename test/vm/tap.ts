// What a test program reports in TAP (Test Anything Protocol 13), as node:test writes it.

export interface TestResult {
	readonly name: string
	readonly ok: boolean
	/** Why it was not run. */
	readonly skipped?: string
	/** What went wrong. */
	readonly why?: string
}

/** The innermost tests: a suite is no result of its own. */
export function readTap(lines: readonly string[]): TestResult[] {
	const results: (TestResult & { readonly depth: number })[] = []
	for (let i = 0; i < lines.length; i++) {
		const match = /^( *)(not )?ok \d+ - (.*?)(?: # SKIP ?(.*))?$/.exec(lines[i] as string)
		if (match === null) continue
		const [, indent = '', not, name = '', skipped] = match
		const why: string[] = []
		while (lines[i + 1]?.trim() !== '...' && i + 1 < lines.length && not !== undefined) why.push(lines[++i] as string)
		// One that comes after deeper ones is their suite.
		if ((results.at(-1)?.depth ?? 0) > indent.length) continue
		results.push({
			depth: indent.length,
			name: name.replaceAll(/\\(.)/g, '$1'),
			ok: not === undefined,
			...(skipped === undefined ? {} : { skipped: skipped || 'skipped' }),
			...(why.length === 0 ? {} : { why: why.join('\n') }),
		})
	}
	return results.map(({ depth: _, ...result }) => result)
}
