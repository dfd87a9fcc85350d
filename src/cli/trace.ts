// `podwire trace FROM TO[:PORT]`: one flow, asked of the manifests, the rules and a packet.

import { systemClock } from '../base/clock.ts'
import { isFailure } from '../base/failure.ts'
import type { Protocol } from '../base/packet.ts'
import { build } from '../model/build.ts'
import type { NetworkModel } from '../model/network.ts'
import type { PolicyProfile } from '../model/policy-profile.ts'
import { collectState } from '../trace/collect.ts'
import type { TraceReport, TraceReportList } from '../trace/report.ts'
import { type TraceInput, traceFlow } from '../trace/run.ts'
import { traceText } from '../trace/text.ts'
import { planFlows } from '../walk/endpoint.ts'
import type { Flow } from '../walk/trace.ts'
import { CommandError, exit } from './exit.ts'
import { type ClusterOptions, readDuration } from './options.ts'
import { outputFormat, paint, printDocument, progressOn, styleFor } from './output.ts'
import { profileOf } from './policy-profile.ts'
import { openCluster } from './source.ts'

interface TraceOptions extends ClusterOptions {
	/** false by --no-probe. */
	readonly probe: boolean
	readonly protocol?: string
	readonly policyProfile?: string
}

export async function trace(options: TraceOptions, args: readonly string[]): Promise<number> {
	const [from, to] = args
	if (from === undefined || to === undefined) throw new CommandError(exit.usage, 'trace takes two ends: FROM TO[:PORT]')
	const format = outputFormat(options.output)
	const protocol = readProtocol(options.protocol)
	const asked = readProfile(options.policyProfile, options.filename.length > 0)
	const timeout = readDuration(options.timeout, 2_000)
	const progress = progressOn(process.stderr, { quiet: options.quiet === true, verbose: options.verbose === true })
	const cluster = await openCluster(options, progress)
	const policyProfile = asked ?? cluster.policyProfile
	try {
		progress.say('reading the cluster')
		const { state, missing } = await collectState(cluster.client, {
			clock: systemClock,
			...(cluster.config === undefined ? {} : { config: cluster.config }),
			...(cluster.sources === undefined ? {} : { sources: cluster.sources }),
			...(cluster.objects === undefined ? {} : { objects: cluster.objects }),
			...(cluster.resolvedNames === undefined ? {} : { resolvedNames: cluster.resolvedNames }),
		})
		progress.done()
		for (const text of missing) process.stderr.write(`podwire: not readable: ${text}\n`)
		const model = build(state)
		const flows = flowsOf(model, {
			from,
			to,
			namespace: options.namespace,
			...(protocol === undefined ? {} : { protocol }),
		})
		const reports: TraceReport[] = []
		for (const flow of flows) {
			progress.say(`tracing ${from} → ${to}`)
			reports.push(await traceFlow(inputOf(flow)))
		}
		progress.done()
		print(reports)
		return exitOf(reports)

		function inputOf(flow: Flow): TraceInput {
			return {
				question: { from: args[0] ?? '', to: args[1] ?? '' },
				flow,
				model,
				agent: cluster.agent,
				probe: options.probe,
				timeout,
				policyEnforced: !('absent' in cluster.agent),
				...(policyProfile === undefined ? {} : { policyProfile }),
			}
		}
	} finally {
		await cluster.close()
	}

	function print(reports: readonly TraceReport[]): void {
		if (format === 'json' || format === 'yaml') {
			const list: TraceReportList = { apiVersion: 'podwire.dev/v1alpha1', kind: 'TraceList', items: reports }
			printDocument(format, list)
			return
		}
		const style = styleFor(process.stdout, options.color)
		for (const [i, report] of reports.entries()) {
			if (i > 0) process.stdout.write('\n')
			process.stdout.write(
				traceText(report, { wide: format === 'wide', paint: (colour, text) => paint(style, colour, text) }),
			)
		}
	}
}

function flowsOf(model: NetworkModel, request: Parameters<typeof planFlows>[1]): readonly Flow[] {
	try {
		return planFlows(model, request).flows
	} catch (e) {
		if (isFailure(e)) throw new CommandError(exit.usage, e.message)
		throw e
	}
}

function readProtocol(text: string | undefined): Protocol | undefined {
	if (text === undefined) return undefined
	const name = text.toUpperCase()
	if (name === 'TCP' || name === 'UDP' || name === 'SCTP') return name
	throw new CommandError(exit.usage, `Unknown protocol ${JSON.stringify(text)}`, 'use tcp, udp or sctp')
}

/** A lab enforces policies in its own way; only manifests can be read as another implementation would. */
function readProfile(text: string | undefined, manifests: boolean): PolicyProfile | undefined {
	const profile = profileOf(text)
	if (profile !== undefined && !manifests)
		throw new CommandError(
			exit.usage,
			'--policy-profile reads manifests: a cluster decides as it does',
			'give them by -f; podwire up --policy-profile changes a lab',
		)
	return profile
}

/** The worst of all flows: one that was not delivered before one that could not be told. */
function exitOf(reports: readonly TraceReport[]): number {
	if (reports.some((r) => r.verdict === 'not-delivered')) return exit.no
	return reports.some((r) => r.verdict === 'unknown') ? exit.unknown : exit.ok
}
