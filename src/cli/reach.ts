// `podwire reach`: who can talk to whom on which ports, as the policies say.

import { isFailure } from '../base/failure.ts'
import { originText } from '../model/origin.ts'
import { Reach } from '../reach/engine.ts'
import { exposureOf, exposureTable } from '../reach/exposure.ts'
import { collapse, portsText } from '../reach/output/collapse.ts'
import { rowDocument } from '../reach/output/document.ts'
import { dotGraph, type GraphInput, mermaidGraph } from '../reach/output/graph.ts'
import { svgGraph } from '../reach/output/svg.ts'
import { csvTable, markdownTable, textTable } from '../reach/output/tables.ts'
import { partiesOf } from '../reach/parties.ts'
import { answerQuery, queryText } from '../reach/query.ts'
import { endName, type ReachRow, type RowEnd, rowsOf } from '../reach/table.ts'
import { CommandError, exit } from './exit.ts'
import { type ClusterOptions, readCount } from './options.ts'
import { formatOf, printDocument } from './output.ts'
import { profileOf } from './policy-profile.ts'
import { readCluster } from './reach-cluster.ts'

export interface ReachOptions extends Omit<ClusterOptions, 'namespace'> {
	readonly namespace?: string
	readonly from?: string
	readonly to?: string
	readonly exposure?: boolean
	readonly query?: string
	readonly explain?: boolean
	readonly limit?: string
	readonly policyProfile?: string
}

const formats = ['txt', 'md', 'csv', 'json', 'yaml', 'dot', 'mermaid', 'svg', 'wide'] as const

export async function reach(options: ReachOptions, args: readonly string[]): Promise<number> {
	if (args.length > 0)
		throw new CommandError(
			exit.usage,
			`reach takes no argument: ${JSON.stringify(args[0])}`,
			"ask for one flow with --query 'web -> api:80'",
		)
	if (
		options.query !== undefined &&
		(options.exposure === true || options.from !== undefined || options.to !== undefined)
	)
		throw new CommandError(exit.usage, '--query asks for one flow: --exposure, --from and --to do not go with it')
	const format = formatOf(options.output, formats)
	const limit = readCount('--limit', options.limit, { min: 1, max: 10_000_000, fallback: 100_000 })
	const asked = profileOf(options.policyProfile)
	const { model, ingresses, policyProfile } = await readCluster({
		...options,
		namespace: options.namespace ?? 'default',
	})
	const profile = asked ?? policyProfile
	const engine = new Reach({ model, profile })
	const parties = partiesOf(model, engine)

	if (options.query !== undefined) {
		if (!['txt', 'wide', 'json', 'yaml'].includes(format))
			throw new CommandError(exit.usage, `A query is answered as txt, json or yaml, not ${format}`)
		const answer = usage(() =>
			answerQuery(
				{
					model,
					reach: engine,
					parties,
					profile,
					...(options.namespace === undefined ? {} : { namespace: options.namespace }),
				},
				options.query!,
			),
		)
		if (format === 'json' || format === 'yaml') printDocument(format, answer)
		else process.stdout.write(queryText(answer, options.explain === true))
		return answer.allowed ? exit.ok : exit.no
	}

	const inNamespace = (end: RowEnd) => end.kind === 'workload' && end.party.namespace === options.namespace
	if (options.exposure === true) {
		const items = exposureOf({
			model,
			reach: engine,
			ingresses,
			parties: parties.filter((p) => options.namespace === undefined || p.namespace === options.namespace),
		})
		if (format === 'json' || format === 'yaml')
			printDocument(format, { apiVersion: 'podwire.dev/v1alpha1', kind: 'ExposureList', items })
		else {
			const { head, rows } = exposureTable(items)
			if (format === 'md') process.stdout.write(markdownTable(head, rows))
			else if (format === 'csv') process.stdout.write(csvTable(head, rows))
			else if (format === 'txt' || format === 'wide')
				process.stdout.write(
					textTable(
						head.map((h) => h.toUpperCase()),
						rows,
					),
				)
			else throw new CommandError(exit.usage, `Exposure is listed as txt, md, csv, json or yaml, not ${format}`)
		}
		return exit.ok
	}

	const names = parties.map((p) => p.name)
	const all = rowsOf({
		reach: engine,
		parties,
		ingresses,
		...(options.namespace === undefined ? {} : { touching: inNamespace }),
		...(options.from === undefined ? {} : { from: filterOf(options.from, names, '--from') }),
		...(options.to === undefined ? {} : { to: filterOf(options.to, names, '--to') }),
	})
	if ((format === 'txt' || format === 'md') && options.explain !== true) {
		const lines = first(collapse(all, parties)).map((l) => [l.from, l.to, l.ports])
		process.stdout.write(
			format === 'txt' ? textTable(['FROM', 'TO', 'PORTS'], lines) : markdownTable(['from', 'to', 'ports'], lines),
		)
	} else print(first(all))
	return exit.ok

	/** Up to the limit; says so where there are more. */
	function first<T>(items: Iterable<T>): readonly T[] {
		const list: T[] = []
		for (const item of items) {
			if (list.length === limit) {
				process.stderr.write(
					`podwire: only the first ${limit} rows: narrow it with -n, --from or --to, or raise --limit\n`,
				)
				break
			}
			list.push(item)
		}
		return list
	}

	/** Who talks to nobody is drawn where all of the cluster, or of a namespace, was asked for. */
	function drawing(rows: readonly ReachRow[]): GraphInput {
		const some = options.from !== undefined || options.to !== undefined
		return {
			rows,
			parties,
			alone: (party) => !some && (options.namespace === undefined || party.namespace === options.namespace),
		}
	}

	function mermaid(rows: readonly ReachRow[]): string {
		const text = mermaidGraph(drawing(rows))
		if (text.length > mermaidLimits.characters || text.split(' -->').length > mermaidLimits.edges + 1)
			process.stderr.write(
				`podwire: GitHub draws at most ${mermaidLimits.edges} edges and ${mermaidLimits.characters} characters: narrow it with -n, --from or --to\n`,
			)
		return text
	}

	function print(rows: readonly ReachRow[]): void {
		const plain = () =>
			rows.map((row) => [
				endName(row.from),
				endName(row.to),
				portsText(row),
				...(options.explain === true ? [row.because.map(originText).join('; ')] : []),
			])
		const head = ['from', 'to', 'ports', ...(options.explain === true ? ['because'] : [])]
		switch (format) {
			case 'txt':
				process.stdout.write(explainedText(rows))
				return
			case 'wide':
				process.stdout.write(
					textTable(
						head.map((h) => h.toUpperCase()),
						plain(),
					),
				)
				return
			case 'md':
				process.stdout.write(markdownTable(head, plain()))
				return
			case 'csv':
				process.stdout.write(csvTable(head, plain()))
				return
			case 'json':
			case 'yaml':
				printDocument(format, {
					apiVersion: 'podwire.dev/v1alpha1',
					kind: 'ReachList',
					workloads: parties.map(({ name, kind, namespace, pods, hostNetwork }) => ({
						name,
						kind,
						namespace,
						pods,
						...(hostNetwork ? { hostNetwork } : {}),
					})),
					items: rows.map((row) => rowDocument(row, options.explain === true)),
				})
				return
			case 'dot':
				process.stdout.write(dotGraph(drawing(rows)))
				return
			case 'mermaid':
				process.stdout.write(mermaid(rows))
				return
			case 'svg':
				refuseLarge(rows)
				process.stdout.write(svgGraph(drawing(rows)))
				return
			default: {
				const never: never = format
				throw new Error(`No such format: ${never}`)
			}
		}
	}
}

/** Nobody can look at more, and drawing it takes long. */
const drawn = { nodes: 400, edges: 4000 }

/** Mermaid's own defaults (maxEdges, maxTextSize), which pages that show it seldom raise. */
const mermaidLimits = { edges: 500, characters: 50_000 }

function refuseLarge(rows: readonly ReachRow[]): void {
	const nodes = new Set(rows.flatMap((row) => [endName(row.from), endName(row.to)])).size
	if (nodes <= drawn.nodes && rows.length <= drawn.edges) return
	throw new CommandError(
		exit.usage,
		`Cannot draw ${nodes} nodes and ${rows.length} connections: at most ${drawn.nodes} and ${drawn.edges}`,
		'narrow it with -n, --from or --to, or let Graphviz draw -o dot',
	)
}

function explainedText(rows: readonly ReachRow[]): string {
	return rows
		.map(
			(row) =>
				`${endName(row.from)} → ${endName(row.to)}: ${portsText(row)}\n${row.because.map((o) => `  because ${originText(o)}\n`).join('')}`,
		)
		.join('')
}

/** A workload as it is printed, its name alone or with its namespace, `NAMESPACE/*`, `outside`, `ingress-controller`. */
function filterOf(text: string, names: readonly string[], flag: string): (end: RowEnd) => boolean {
	if (text === 'outside') return (end) => end.kind === 'outside'
	if (text === 'ingress-controller') return (end) => end.kind === 'ingress-controller'
	const matches = (name: string) => {
		const [namespace = '', kind = '', ...rest] = name.split('/')
		const short = rest.join('/')
		return [
			name,
			short,
			`${namespace}/${short}`,
			`${kind}/${short}`,
			`${short}.${namespace}`,
			`${namespace}/*`,
		].includes(text)
	}
	if (!names.some(matches))
		throw new CommandError(
			exit.usage,
			`${flag}: there is no workload ${JSON.stringify(text)}`,
			`there are: ${names.slice(0, 12).join(', ')}${names.length > 12 ? ', …' : ''}`,
		)
	return (end) => end.kind === 'workload' && matches(end.party.name)
}

function usage<T>(ask: () => T): T {
	try {
		return ask()
	} catch (e) {
		if (isFailure(e)) throw new CommandError(exit.usage, e.message)
		throw e
	}
}
