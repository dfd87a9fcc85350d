// `npm run bench [-- GROUP…] [-o json] [--full]`: every figure is a ratio measured side by side in one run.
// Nothing here judges: it prints. A row whose baseline is missing on this machine says so.

import { cpus, release } from 'node:os'
import type { Row } from './row.ts'

interface Group {
	readonly name: string
	readonly load: () => Promise<{ run(options: { full: boolean }): Promise<readonly Row[]> }>
}

const groups: readonly Group[] = [
	{ name: 'api', load: () => import('./api.ts') },
	{ name: 'attach', load: () => import('./attach.ts') },
	{ name: 'boot', load: () => import('./boot.ts') },
	{ name: 'services', load: () => import('./services.ts') },
	{ name: 'growth', load: () => import('./growth.ts') },
	{ name: 'policy', load: () => import('./policy.ts') },
	{ name: 'reach', load: () => import('./reach.ts') },
	{ name: 'programming', load: () => import('./programming.ts') },
]

const args = process.argv.slice(2)
const output = args.indexOf('-o')
const json = output >= 0 && args[output + 1] === 'json'
const full = args.includes('--full')
const plotAt = args.indexOf('--plot')
const wanted = args.filter((a, i) => !a.startsWith('-') && ![output, plotAt].some((at) => at >= 0 && i === at + 1))
const unknown = wanted.filter((w) => !groups.some((g) => g.name === w))
if (unknown.length > 0) {
	process.stderr.write(`no group ${unknown.join(', ')}; there are: ${groups.map((g) => g.name).join(', ')}\n`)
	process.exit(2)
}

const rows: Row[] = []
for (const group of groups) {
	if (wanted.length > 0 && !wanted.includes(group.name)) continue
	process.stderr.write(`${group.name} …\n`)
	const { run } = await group.load()
	rows.push(...(await run({ full })))
}

const machine = {
	kernel: release(),
	arch: process.arch,
	cpus: cpus().length,
	cpu: cpus()[0]?.model,
	node: process.version,
}
if (json) {
	process.stdout.write(
		`${JSON.stringify({ apiVersion: 'podwire.dev/v1alpha1', kind: 'Bench', machine, rows }, null, 2)}\n`,
	)
} else {
	process.stdout.write(
		`Linux ${machine.kernel} ${machine.arch}, ${machine.cpus} × ${machine.cpu}, Node ${machine.node}\n\n`,
	)
	for (const row of rows) process.stdout.write(`${text(row)}\n`)
}

function text(row: Row): string {
	const value = (n: number) => (n >= 100 ? n.toFixed(0) : n >= 1 ? n.toFixed(2) : n.toPrecision(2))
	const spread = `[${value(row.spread[0])}, ${value(row.spread[1])}]`
	const against = row.baseline === undefined ? '' : `  against ${value(row.baseline)} ${row.unit}`
	const ratio =
		row.ratio === undefined ? '' : `  ratio ${row.ratio >= 0.01 ? row.ratio.toFixed(3) : row.ratio.toExponential(2)}`
	const bar = row.bar === undefined ? '' : `  (bar: ${row.bar})`
	const note = row.note === undefined ? '' : `\n${' '.repeat(12)}${row.note}`
	return `${row.group.padEnd(10)}  ${row.name}: ${value(row.ours)} ${row.unit} ${spread} n=${row.repeats}${against}${ratio}${bar}${note}`
}
