// `podwire diff OLD NEW`: what a change of manifests means for who can talk to whom.

import { originText } from '../model/origin.ts'
import { policyProfiles } from '../model/policy-profile.ts'
import { type Difference, differenceCells, differences, type Side, summaryText } from '../reach/diff.ts'
import { Reach } from '../reach/engine.ts'
import { endDocument, extentDocument } from '../reach/output/document.ts'
import { pullRequestText } from '../reach/output/pull-request.ts'
import { csvTable } from '../reach/output/tables.ts'
import { partiesOf } from '../reach/parties.ts'
import type { RowEnd } from '../reach/table.ts'
import { CommandError, exit } from './exit.ts'
import { type CommonOptions, readCount } from './options.ts'
import { formatOf, printDocument } from './output.ts'
import { profileOf } from './policy-profile.ts'
import { readCluster } from './reach-cluster.ts'

export interface DiffOptions extends CommonOptions {
	readonly namespace?: string
	readonly limit?: string
	readonly policyProfile?: string
}

const formats = ['txt', 'md', 'csv', 'json', 'yaml'] as const
/** GitHub refuses a comment with more than 65,536 characters; some are left for what is put around. */
const commentSize = 60_000
const head = ['change', 'from', 'to', 'before', 'after', 'because'] as const

export async function diff(options: DiffOptions, args: readonly string[]): Promise<number> {
	const [before, after, ...rest] = args
	if (before === undefined || after === undefined || rest.length > 0)
		throw new CommandError(
			exit.usage,
			'diff takes two sets of manifests: OLD NEW',
			'each is a file, a directory or several with commas between',
		)
	const format = formatOf(options.output, formats)
	const limit = readCount('--limit', options.limit, { min: 1, max: 1_000_000, fallback: 10_000 })
	const profile = profileOf(options.policyProfile) ?? policyProfiles.default
	if (before === '-' && after === '-')
		throw new CommandError(exit.usage, 'Only one of OLD and NEW can be standard input')
	// One after the other: both may want the same standard input and the same terminal line.
	const [was, is] = [await sideOf(before), await sideOf(after)]
	const touches = (end: RowEnd) => end.kind === 'workload' && end.party.namespace === options.namespace
	const all = differences(was, is).filter((d) => options.namespace === undefined || touches(d.from) || touches(d.to))
	const list = all.slice(0, limit)
	if (list.length < all.length)
		process.stderr.write(`podwire: only the first ${limit} of ${all.length} differences: raise --limit\n`)
	const rows = list.map(differenceCells)
	switch (format) {
		case 'txt':
			process.stdout.write(list.map(plainText).join(''))
			process.stdout.write(`${summaryText(all)}\n`)
			break
		case 'md':
			process.stdout.write(
				pullRequestText({
					differences: list,
					parties: [...new Map([...was.parties, ...is.parties].map((p) => [p.name, p])).values()],
					// Who says how much is asked for gets it.
					size: options.limit === undefined ? commentSize : Number.POSITIVE_INFINITY,
				}),
			)
			break
		case 'csv':
			process.stdout.write(csvTable(head, rows))
			break
		case 'json':
		case 'yaml':
			printDocument(format, {
				apiVersion: 'podwire.dev/v1alpha1',
				kind: 'ReachDiff',
				summary: summaryText(all),
				items: list.map((d) => ({
					change: d.change,
					from: endDocument(d.from),
					to: endDocument(d.to),
					before: extentDocument(d.before),
					after: extentDocument(d.after),
					fresh: d.fresh,
					because: d.because,
				})),
			})
			break
		default: {
			const never: never = format
			throw new Error(`No such format: ${never}`)
		}
	}
	return all.length === 0 ? exit.ok : exit.no

	async function sideOf(paths: string): Promise<Side> {
		const { model, ingresses } = await readCluster({
			...options,
			filename: paths.split(','),
			namespace: options.namespace ?? 'default',
		})
		const reach = new Reach({ model, profile })
		return { model, reach, parties: partiesOf(model, reach), ingresses }
	}
}

/** What changes in one line, then what changed it. */
function plainText(d: Difference): string {
	const [change = '', from, to, before, after] = differenceCells(d)
	const text = d.change === 'added' ? after : d.change === 'removed' ? before : `${before} → ${after}`
	return `${change.padEnd(8)} ${from} → ${to}: ${text}\n${d.because.map((o) => `           ${originText(o)}\n`).join('')}`
}
