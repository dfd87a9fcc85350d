// `podwire policy lint` and `podwire policy generate`.

import { readFile } from 'node:fs/promises'
import { stringify } from 'yaml'
import { messageOf } from '../base/failure.ts'
import { emptyTable } from '../base/table.ts'
import { build } from '../model/build.ts'
import type { Finding, Severity } from '../model/finding.ts'
import { originText } from '../model/origin.ts'
import { setObject, setTable } from '../model/state.ts'
import { Reach } from '../reach/engine.ts'
import { readFlows } from '../reach/flows.ts'
import { commentOf, compareWithNeeds, generatePolicies, mismatchText } from '../reach/generate.ts'
import { lint, rank } from '../reach/lint/check.ts'
import { declaredNeeds } from '../reach/needs.ts'
import { junit, placeOfFinding, sarif } from '../reach/output/reports.ts'
import { csvTable, markdownTable } from '../reach/output/tables.ts'
import { partiesOf } from '../reach/parties.ts'
import { CommandError, exit } from './exit.ts'
import { readStdin } from './manifests.ts'
import type { ClusterOptions } from './options.ts'
import { formatOf, paint, printDocument, styleFor } from './output.ts'
import { readCluster } from './reach-cluster.ts'
import { packageVersion } from './version.ts'

interface PolicyOptions extends Omit<ClusterOptions, 'namespace'> {
	readonly namespace?: string
}

export interface LintOptions extends PolicyOptions {
	readonly failOn?: string
}

const configMaps = [['v1', 'ConfigMap']] as const

export async function lintPolicies(options: LintOptions, args: readonly string[]): Promise<number> {
	if (args.length > 0)
		throw new CommandError(
			exit.usage,
			`policy lint takes no argument: ${JSON.stringify(args[0])}`,
			'give manifests with -f',
		)
	const format = formatOf(options.output, ['txt', 'json', 'yaml', 'md', 'csv', 'sarif', 'junit'] as const)
	const failOn = readFailOn(options.failOn)
	const fails = (finding: Finding) => failOn !== undefined && rank(finding.severity) <= rank(failOn)
	const { model, state, ingresses, others } = await readCluster(
		{ ...options, namespace: options.namespace ?? 'default' },
		configMaps,
	)
	const reach = new Reach({ model })
	const parties = partiesOf(model, reach)
	const needs = declaredNeeds({ state, model, parties, ingresses, configMaps: others.get('ConfigMap') ?? [] })
	const all = lint({ state, model, reach, parties, ingresses, needs })
	const findings =
		options.namespace === undefined
			? all
			: all.filter((f) =>
					f.because.some(
						(o) => 'key' in o && (o.key === options.namespace || o.key.startsWith(`${options.namespace}/`)),
					),
				)
	const cells = () => findings.map((f) => [f.severity, f.code, f.text, f.because.map(originText).join('; ')])
	const head = ['severity', 'code', 'finding', 'because']
	switch (format) {
		case 'txt':
			process.stdout.write(text(findings))
			break
		case 'md':
			process.stdout.write(markdownTable(head, cells()))
			break
		case 'csv':
			process.stdout.write(csvTable(head, cells()))
			break
		case 'json':
		case 'yaml':
			printDocument(format, { apiVersion: 'podwire.dev/v1alpha1', kind: 'FindingList', items: findings })
			break
		case 'sarif':
			printDocument('json', sarif(findings, packageVersion()))
			break
		case 'junit':
			process.stdout.write(junit(findings, fails))
			break
		default: {
			const never: never = format
			throw new Error(`No such format: ${never}`)
		}
	}
	return findings.some(fails) ? exit.no : exit.ok

	function text(list: readonly Finding[]): string {
		if (list.length === 0) return 'nothing found\n'
		const style = styleFor(process.stdout, options.color)
		const colours = { error: 'red', warning: 'yellow', info: 'blue' } as const
		const lines = list.map((finding) => {
			const place = placeOfFinding(finding)
			const where = place === undefined ? '' : `${place.file}:${place.line}: `
			const because = finding.because.map((o) => `    ${paint(style, 'dim', originText(o))}\n`).join('')
			return `${where}${paint(style, colours[finding.severity], finding.severity)} ${finding.code}: ${finding.text}\n${because}`
		})
		const count = (severity: Severity, word: string) => {
			const n = list.filter((f) => f.severity === severity).length
			return `${n} ${word}${n === 1 ? '' : 's'}`
		}
		return `${lines.join('')}${count('error', 'error')}, ${count('warning', 'warning')}, ${count('info', 'note')}\n`
	}
}

function readFailOn(text: string | undefined): Severity | undefined {
	switch (text) {
		case undefined:
		case 'warning':
			return 'warning'
		case 'error':
		case 'info':
			return text
		case 'never':
			return undefined
		default:
			throw new CommandError(
				exit.usage,
				`Unknown value ${JSON.stringify(text)} for --fail-on`,
				'use error, warning, info or never',
			)
	}
}

export interface GenerateOptions extends PolicyOptions {
	readonly fromFlows?: string
	readonly ingressNamespace?: string
}

export async function generate(options: GenerateOptions, args: readonly string[]): Promise<number> {
	if (args.length > 0)
		throw new CommandError(
			exit.usage,
			`policy generate takes no argument: ${JSON.stringify(args[0])}`,
			'give manifests with -f',
		)
	const format = formatOf(options.output, ['yaml', 'json'] as const)
	if (options.fromFlows === '-' && options.filename.includes('-'))
		throw new CommandError(exit.usage, 'Only one of --filename and --from-flows can be standard input')
	const cluster = await readCluster({ ...options, namespace: options.namespace ?? 'default' }, configMaps)
	const { model, state, ingresses, others } = cluster
	// What the policies of today allow or deny is not asked: the new ones take their place.
	const bare = { ...model, policies: emptyTable<string, never>() }
	const before = new Reach({ model: bare })
	const parties = partiesOf(model, before)
	const needs =
		options.fromFlows === undefined
			? declaredNeeds({ state, model, parties, ingresses, configMaps: others.get('ConfigMap') ?? [] })
			: await flowsOf(options.fromFlows)
	const generated = generatePolicies({
		state,
		parties,
		needs,
		wanted: (party) =>
			options.namespace === undefined ? party.namespace !== 'kube-system' : party.namespace === options.namespace,
		...(options.ingressNamespace === undefined ? {} : { ingressNamespace: options.ingressNamespace }),
	})
	if (generated.length === 0)
		throw new CommandError(
			exit.usage,
			'Cannot generate policies: there is no workload with pods',
			options.namespace === undefined ? undefined : `in namespace "${options.namespace}"`,
		)

	if (format === 'json')
		printDocument('json', { apiVersion: 'v1', kind: 'List', items: generated.map((g) => g.policy) })
	else
		process.stdout.write(
			generated
				.map((g) => `${commentOf(g).join('\n')}\n${stringify(g.policy, { aliasDuplicateObjects: false })}`)
				.join('---\n'),
		)

	let next = setTable(state, 'networkPolicies', emptyTable())
	for (const { policy } of generated) next = setObject(next, policy)
	const after = build(next)
	const reach = new Reach({ model: after })
	const wrong = compareWithNeeds(reach, partiesOf(after, reach), generated, needs)
	for (const mismatch of wrong) process.stderr.write(`podwire: not exactly what is needed: ${mismatchText(mismatch)}\n`)
	return wrong.length === 0 ? exit.ok : exit.no

	async function flowsOf(file: string) {
		let text: string
		try {
			text = file === '-' ? await readStdin('flows') : await readFile(file, 'utf8')
		} catch (e) {
			if (e instanceof CommandError) throw e
			throw new CommandError(exit.usage, `Cannot read the flows ${JSON.stringify(file)}: ${messageOf(e)}`)
		}
		const { needs, problems, gone, lost } = readFlows(text, file === '-' ? 'stdin' : file, parties)
		if (problems.length > 0) {
			const shown = problems.slice(0, 20).map((p) => `${file}:${p.line}: ${p.text}`)
			if (problems.length > shown.length) shown.push(`and ${problems.length - shown.length} more`)
			throw new CommandError(exit.usage, `Cannot use the flows:\n  ${shown.join('\n  ')}`)
		}
		if (gone.size > 0 && options.quiet !== true)
			process.stderr.write(
				`podwire: flows of workloads that are not there, left out: ${[...gone.keys()].sort().join(', ')}\n`,
			)
		if (lost > 0 && options.quiet !== true)
			process.stderr.write(`podwire: the log lost flows ${lost} times: what is needed may be more\n`)
		if (needs.length === 0)
			throw new CommandError(
				exit.usage,
				`Cannot generate policies: no line of ${file === '-' ? 'stdin' : file} is a flow that was let through`,
			)
		return needs
	}
}
