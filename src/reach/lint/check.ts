// What policies say that was hardly meant. Each finding has a code, the lines, and what would be right.

import type { Finding, Severity } from '../../model/finding.ts'
import type { NetworkModel } from '../../model/network.ts'
import type { ClusterState } from '../../model/state.ts'
import type { Reach } from '../engine.ts'
import type { IngressBackend } from '../ingresses.ts'
import type { Need } from '../needs.ts'
import type { Party } from '../parties.ts'
import { checkConnections } from './connections.ts'
import { checkNamespaces } from './open.ts'
import { checkPeers } from './peers.ts'
import { checkRules } from './rules.ts'

export interface LintInput {
	readonly state: ClusterState
	readonly model: NetworkModel
	readonly reach: Reach
	readonly parties: readonly Party[]
	readonly ingresses: readonly IngressBackend[]
	readonly needs: readonly Need[]
}

/** Findings of the model that are about policies. */
const ofModel: ReadonlySet<string> = new Set(['PW0015', 'PW0016', 'PW0017', 'PW0018', 'PW0019', 'PW0020'])

const checks: readonly ((input: LintInput) => Iterable<Finding>)[] = [
	checkRules,
	checkPeers,
	checkNamespaces,
	checkConnections,
]

/** By severity, then code, then text. */
export function lint(input: LintInput): readonly Finding[] {
	const own = checks.flatMap((check) => [...check(input)])
	// A peer of which more is known need not be told twice.
	const told = new Set(
		own.filter((f) => ['PW0045', 'PW0046', 'PW0047'].includes(f.code)).map((f) => JSON.stringify(f.because[0])),
	)
	const known = input.model.findings.filter(
		(f) => ofModel.has(f.code) && !(f.code === 'PW0016' && told.has(JSON.stringify(f.because[0]))),
	)
	return [...known, ...own].sort(
		(a, b) => rank(a.severity) - rank(b.severity) || compare(a.code, b.code) || compare(a.text, b.text),
	)
}

const severities: readonly Severity[] = ['error', 'warning', 'info']

export function rank(severity: Severity): number {
	return severities.indexOf(severity)
}

function compare(a: string, b: string): number {
	return a < b ? -1 : a > b ? 1 : 0
}
