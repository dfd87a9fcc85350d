// A trace for a person: the headline, then each stage with what the witnesses say and why.

import type { RuleHit } from '../dataplane/dataplane.ts'
import { type Origin, originText } from '../model/origin.ts'
import type { Row } from './compare.ts'
import type { TraceReport } from './report.ts'
import type { Path, Point, Testimony, WitnessName } from './witness.ts'

export type Paint = (colour: 'red' | 'green' | 'yellow' | 'blue' | 'cyan' | 'dim' | 'bold', text: string) => string

export interface TextOptions {
	readonly paint: Paint
	/** Also every query, route and time of a stage, and the paths not taken. */
	readonly wide: boolean
}

const indent = ' '.repeat(12)

export function traceText(report: TraceReport, options: TextOptions): string {
	const { paint } = options
	const lines: string[] = []
	lines.push(`${report.flow.protocol} ${report.question.from} → ${report.question.to}`)
	const colour =
		report.disagreement !== undefined
			? 'yellow'
			: report.verdict === 'delivered'
				? 'green'
				: report.verdict === 'unknown'
					? 'yellow'
					: 'red'
	lines.push(paint('bold', paint(colour, report.headline)), '')
	for (const [i, row] of report.stages.entries()) lines.push(...stageText(i + 1, row, options))
	lines.push(...othersText(report, options))
	const trivial = report.verdict === 'delivered' && report.disagreement === undefined
	if ('silent' in report.would && 'silent' in report.did && report.would.silent === report.did.silent) {
		lines.push('', paint('dim', `would, did: ${report.would.silent}`))
	} else {
		for (const [name, testimony] of [
			['would', report.would],
			['did', report.did],
		] as const)
			lines.push(...silence(name, testimony, trivial, options))
	}
	for (const finding of report.findings) {
		lines.push('', `${paint('yellow', finding.code)} ${finding.text}`)
		for (const origin of finding.because) lines.push(`${indent}${originText(origin)}`)
	}
	return `${lines.join('\n')}\n`
}

function stageText(number: number, row: Row, options: TextOptions): string[] {
	const { paint } = options
	const main = row.should ?? row.would ?? row.did
	if (main === undefined) return []
	const mark = row.agree ? '' : paint('yellow', '  ← they disagree')
	const unenforced = isUnenforced(row) ? paint('yellow', '  (not enforced here)') : ''
	const lines = [`${String(number).padStart(2)} ${paint('bold', row.stage.padEnd(8))} ${main.text}${unenforced}${mark}`]
	// Where the rules say what the manifests say, and no rule had to be named for it, once is enough.
	const same =
		!options.wide && row.agree && row.should !== undefined && row.would !== undefined && row.would.rules.length === 0
	for (const name of ['should', 'would', 'did'] as const) {
		const point = row[name]
		if (point === undefined || (same && name === 'would')) continue
		const label = (same && name === 'should' ? 'should, would' : name).padEnd(7)
		const evidence = evidenceOf(name, point, row, options)
		const next = ' '.repeat(7)
		lines.push(...evidence.map((text, i) => `${indent}${i === 0 ? paint('dim', label) : next} ${text}`))
	}
	for (const text of row.should?.advice ?? []) lines.push(`${indent}${' '.repeat(7)} ${paint('green', text)}`)
	return lines
}

/** A policy speaks and the data plane does not carry it out. Where no policy selects the pod there is nothing to enforce. */
function isUnenforced({ should }: Row): boolean {
	return should?.enforced === false && (should.result === 'deny' || should.because.some((o) => 'kind' in o))
}

function evidenceOf(name: WitnessName, point: Point, row: Row, options: TextOptions): string[] {
	const lines: string[] = []
	if (point !== (row.should ?? row.would ?? row.did)) lines.push(point.text)
	// The packet's own evidence is what was seen; the rules' is the rule; the manifests' is their line.
	if (name !== 'would' || point.rules.length === 0 || options.wide) {
		for (const origin of distinct(point.because)) lines.push(options.paint('cyan', originText(origin)))
	}
	const shownAlready = new Set(name === 'did' && !options.wide ? row.would?.rules.map(placeOf) : [])
	for (const rule of point.rules) {
		if (shownAlready.has(placeOf(rule))) lines.push(`met ${placeOf(rule)}`)
		else lines.push(...ruleLines(rule, options))
	}
	const summary = options.wide ? undefined : point.summary
	if (summary !== undefined) return [...lines, summary]
	const shown = options.wide || point.details.length <= 6 ? point.details : point.details.slice(0, 5)
	lines.push(...shown)
	if (shown.length < point.details.length)
		lines.push(options.paint('dim', `… ${point.details.length - shown.length} more with -o wide`))
	return lines.length === 0 ? [point.text] : lines
}

function distinct(origins: readonly Origin[]): readonly Origin[] {
	const seen = new Set<string>()
	return origins.filter((o) => {
		const text = originText(o)
		if (seen.has(text)) return false
		seen.add(text)
		return true
	})
}

/** `ip podwire services handle 12: …` as `nft -a list chain` shows it, then the elements looked up. */
function ruleLines(rule: RuleHit, options: TextOptions): string[] {
	const comment = rule.comment === undefined || rule.text.includes(rule.comment) ? '' : `  # ${rule.comment}`
	const lines = [`${options.paint('blue', placeOf(rule))}: ${rule.text}${comment}`]
	for (const element of rule.elements) lines.push(`  { ${element} }`)
	return lines
}

function placeOf(rule: RuleHit): string {
	return `${rule.family} ${rule.table} ${rule.chain}${rule.handle === undefined ? '' : ` handle ${rule.handle}`}`
}

/** The endpoints the flow could also have taken. */
function othersText(report: TraceReport, options: TextOptions): string[] {
	if (!('paths' in report.should) || report.should.paths.length < 2) return []
	const taken = report.stages.find((r) => r.stage === 'service')?.should?.result
	const others = report.should.paths.filter((p) => p.points.find((x) => x.stage === 'service')?.result !== taken)
	if (others.length === 0) return []
	const shown = options.wide ? others : others.slice(0, 3)
	const lines = ['', `Could also have gone to:`]
	for (const path of shown) lines.push(`  ${describe(path)}`)
	if (shown.length < others.length)
		lines.push(options.paint('dim', `  … and ${others.length - shown.length} more (-o wide)`))
	return lines
}

function describe(path: Path): string {
	const service = path.points.find((p) => p.stage === 'service')
	const route = path.points.find((p) => p.stage === 'route')
	const way = route === undefined ? '' : `, ${route.text}`
	return `${service?.text ?? path.disposition}${way}${path.delivered ? '' : `: ${path.disposition}`}`
}

/** `trivial`: all agree, and what was not seen changes nothing. */
function silence(name: string, testimony: Testimony, trivial: boolean, options: TextOptions): string[] {
	if ('silent' in testimony) return ['', options.paint('dim', `${name}: ${testimony.silent}`)]
	if (testimony.missing.length === 0 || (trivial && !options.wide)) return []
	return ['', ...testimony.missing.map((text) => options.paint('dim', `${name} could not see: ${text}`))]
}
