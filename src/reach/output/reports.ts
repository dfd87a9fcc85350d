// Findings as SARIF 2.1.0 (code scanning) and JUnit XML (test reports).

import type { Finding, Severity } from '../../model/finding.ts'
import { type Origin, originText } from '../../model/origin.ts'
import { titles } from '../lint/titles.ts'

const levels: Readonly<Record<Severity, string>> = { error: 'error', warning: 'warning', info: 'note' }

interface Place {
	readonly file: string
	readonly line: number
}

export function placeOf(origin: Origin | undefined): Place | undefined {
	return origin !== undefined && 'source' in origin ? origin.source : undefined
}

/** The first line that is known. */
export function placeOfFinding(finding: Finding): Place | undefined {
	for (const origin of finding.because) {
		const place = placeOf(origin)
		if (place !== undefined) return place
	}
	return undefined
}

/** OASIS SARIF 2.1.0. Files are relative to where the command runs, as code scanning wants them. */
export function sarif(findings: readonly Finding[], version: string): unknown {
	const codes = [...new Set(findings.map((f) => f.code))].sort()
	const location = (origin: Origin) => {
		const place = placeOf(origin)
		return place === undefined
			? { logicalLocations: [{ fullyQualifiedName: originText(origin) }] }
			: {
					physicalLocation: { artifactLocation: { uri: uriOf(place.file) }, region: { startLine: place.line } },
					logicalLocations: [
						{
							fullyQualifiedName:
								'default' in origin
									? origin.default
									: `${origin.kind} ${origin.key}${origin.field === undefined ? '' : ` ${origin.field}`}`,
						},
					],
				}
	}
	return {
		$schema: 'https://json.schemastore.org/sarif-2.1.0.json',
		version: '2.1.0',
		runs: [
			{
				tool: {
					driver: {
						name: 'podwire',
						version,
						rules: codes.map((code) => ({
							id: code,
							shortDescription: { text: titles[code] ?? code },
							help: { text: `docs/findings/${code}.md of podwire has cause, evidence and fix` },
						})),
					},
				},
				results: findings.map((finding) => {
					const [first, ...more] = [...finding.because].sort(
						(a, b) => Number(placeOf(a) === undefined) - Number(placeOf(b) === undefined),
					)
					return {
						ruleId: finding.code,
						ruleIndex: codes.indexOf(finding.code),
						level: levels[finding.severity],
						message: { text: finding.text },
						locations: first === undefined ? [] : [location(first)],
						...(more.length === 0 ? {} : { relatedLocations: more.map((origin, id) => ({ id, ...location(origin) })) }),
						partialFingerprints: { podwire: fingerprint(finding) },
					}
				}),
				columnKind: 'utf16CodeUnits',
			},
		],
	}
}

function uriOf(file: string): string {
	return file.replace(/^\.\//, '').split('/').map(encodeURIComponent).join('/')
}

/** The same finding keeps it when lines move. */
function fingerprint(finding: Finding): string {
	return `${finding.code}/${finding.because.map((o) => ('default' in o ? o.default : `${o.kind} ${o.key} ${o.field ?? ''}`)).join('/')}`
}

/** One test case for each finding, failed from `failing` on; one that passed where there is none. */
export function junit(findings: readonly Finding[], fails: (finding: Finding) => boolean): string {
	const failures = findings.filter(fails).length
	const cases = findings.map((finding) => {
		const place = placeOfFinding(finding)
		const at = place === undefined ? '' : ` file="${xml(place.file)}" line="${place.line}"`
		const detail = finding.because.map(originText).join('\n')
		const body = fails(finding)
			? `<failure type="${finding.code}" message="${xml(finding.text)}">${xml(detail)}</failure>`
			: `<system-out>${xml(`${finding.text}\n${detail}`)}</system-out>`
		return `    <testcase classname="podwire.policy.${finding.code}" name="${xml(finding.text)}"${at}>${body}</testcase>`
	})
	if (cases.length === 0) cases.push('    <testcase classname="podwire.policy" name="policies"/>')
	return `${[
		'<?xml version="1.0" encoding="UTF-8"?>',
		`<testsuites tests="${cases.length}" failures="${failures}">`,
		`  <testsuite name="podwire policy lint" tests="${cases.length}" failures="${failures}" errors="0" skipped="0">`,
		...cases,
		'  </testsuite>',
		'</testsuites>',
	].join('\n')}\n`
}

function xml(text: string): string {
	return (
		text
			.replaceAll('&', '&amp;')
			.replaceAll('<', '&lt;')
			.replaceAll('>', '&gt;')
			.replaceAll('"', '&quot;')
			.replaceAll('\n', '&#10;')
			// biome-ignore lint/suspicious/noControlCharactersInRegex: XML 1.0 has no way to write these
			.replaceAll(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, '�')
	)
}
