// What `podwire trace` answers: the versioned document (-o json|yaml) and what its text is made from.

import type { Finding } from '../model/finding.ts'
import type { Flow } from '../walk/trace.ts'
import type { Comparison } from './compare.ts'
import type { Testimony } from './witness.ts'

export interface TraceReport {
	readonly apiVersion: 'podwire.dev/v1alpha1'
	readonly kind: 'Trace'
	/** As it was asked: `deploy/frontend` to `cartservice:7070`. */
	readonly question: { readonly from: string; readonly to: string }
	readonly flow: Flow
	readonly verdict: Comparison['verdict']
	readonly disposition: string
	readonly headline: string
	readonly disagreement?: Comparison['disagreement']
	readonly stages: Comparison['rows']
	/** Every path of each witness, not only the one the stages show. */
	readonly should: Testimony
	readonly would: Testimony
	readonly did: Testimony
	/** Faults of the configuration that touch the objects of this flow. */
	readonly findings: readonly Finding[]
}

/** A list even when it holds one: a workload or a Service can stand for several flows. */
export interface TraceReportList {
	readonly apiVersion: 'podwire.dev/v1alpha1'
	readonly kind: 'TraceList'
	readonly items: readonly TraceReport[]
}
