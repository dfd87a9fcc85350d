// The test runner: `npm test` runs everything, `npm run unit` what needs no kernel and no cluster.
import { globSync } from 'node:fs'
import { run } from 'node:test'
import { spec } from 'node:test/reporters'

const unit = ['src/**/*.test.ts', 'test/layers.test.ts', 'test/scenarios/**/*.test.ts', 'test/laws/**/*.test.ts']
const all = [
	...unit,
	'test/suites/**/*.test.ts',
	'test/net/**/*.test.ts',
	'test/e2e/**/*.test.ts',
	'test/docs/**/*.test.ts',
]

const patterns = process.argv.slice(2)
const globs = patterns.length === 0 ? all : patterns.flatMap((p) => (p === 'unit' ? unit : [p]))
const files = globs.flatMap((g) => globSync(g)).sort()
if (files.length === 0) {
	process.stderr.write(`no test file matches ${globs.join(' ')}\n`)
	process.exit(2)
}
const tally = { passed: 0, failed: 0, skipped: 0 }
const stream = run({ files, concurrency: 2, execArgv: ['--disable-warning=ExperimentalWarning'] })
stream.on('test:pass', (data) => {
	if (data.details.type === 'suite') return
	if (data.skip !== undefined || data.todo !== undefined) tally.skipped++
	else tally.passed++
})
stream.on('test:fail', (data) => {
	if (data.details.type !== 'suite') tally.failed++
	process.exitCode = 1
})
stream.compose(spec).pipe(process.stdout)
process.on('exit', () => {
	console.log(`${tally.passed} passed, ${tally.failed} failed, ${tally.skipped} skipped`)
})
