// A model, its findings and traces as text for goldens: everything a reader of a diff wants to see, nothing volatile.

import type { NetworkModel } from '../../src/model/network.ts'
import { type Origin, originText } from '../../src/model/origin.ts'
import { adviceText } from '../../src/walk/explain.ts'
import type { Hop, StepWithReason, Trace } from '../../src/walk/trace.ts'

export function modelText(model: NetworkModel): string {
	const lines: string[] = []
	const sorted = <T>(table: Iterable<readonly [string, T]>): T[] =>
		[...table].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, value]) => value)
	for (const node of sorted(model.nodes)) {
		lines.push(
			`node ${node.name} ${node.addresses.join(',')} pods ${node.podCidrs.join(',') || 'none'}${node.zone === undefined ? '' : ` zone ${node.zone}`}${node.ready ? '' : ' NOT READY'}`,
		)
	}
	for (const pod of sorted(model.pods)) {
		const state = [
			pod.phase,
			...(pod.ready ? ['ready'] : []),
			...(pod.terminating ? ['terminating'] : []),
			...(pod.hostNetwork ? ['hostNetwork'] : []),
		]
		lines.push(
			`pod ${pod.key} ${pod.ips.join(',') || 'no address'} on ${pod.node ?? 'no node'} ${state.join(' ')} of ${pod.owner.kind} ${pod.owner.key}`,
		)
	}
	for (const service of sorted(model.services)) {
		const address = service.headless
			? 'headless'
			: service.type === 'ExternalName'
				? `is ${service.externalName}`
				: service.clusterIps.join(',')
		lines.push(`service ${service.key} ${service.type} ${address}`)
		for (const port of service.ports) {
			lines.push(
				`  port ${port.name || '-'} ${port.port}/${port.protocol}${port.nodePort === undefined ? '' : ` node port ${port.nodePort}`} -> ${port.targetPort} (${originText(port.origin)})`,
			)
			for (const e of port.endpoints) {
				const flags = [
					e.ready ? 'ready' : 'not-ready',
					...(e.serving ? ['serving'] : []),
					...(e.terminating ? ['terminating'] : []),
					...e.hints.map((h) => `for ${h.kind} ${h.name}`),
				]
				lines.push(`    ${e.ip}:${e.port} ${e.pod ?? '-'} on ${e.node ?? '-'} ${flags.join(' ')}`)
			}
		}
	}
	return lines.join('\n')
}

export function findingsText(model: NetworkModel): string {
	if (model.findings.length === 0) return 'none'
	return model.findings.map((f) => `${f.code} ${f.severity}: ${f.text}\n${because('    ', f.because)}`).join('\n')
}

export function tracesText(traces: readonly Trace[]): string {
	return traces
		.map((trace) => {
			const lines = [`${trace.disposition} chance ${round(trace.chance)}`]
			for (const hop of trace.hops) lines.push(...hopLines(hop))
			if (trace.reply.length > 0) lines.push('  the answer:')
			for (const hop of trace.reply) lines.push(...hopLines(hop))
			return lines.join('\n')
		})
		.join('\n')
}

/** `web-1:80 from 10.244.0.5 by node-1>node-2 50%; no-endpoints drop 50%`: each way, the same ones together. */
export function endsText(traces: readonly Trace[]): string {
	const ends = new Map<string, number>()
	for (const trace of traces) {
		const text = endText(trace)
		ends.set(text, (ends.get(text) ?? 0) + trace.chance)
	}
	return [...ends]
		.sort(([a], [b]) => (a < b ? -1 : 1))
		.map(([text, chance]) => (chance > 0.999 ? text : `${text} ${Math.round(chance * 100)}%`))
		.join('; ')
}

function endText({ disposition, hops, reply }: Trace): string {
	const steps = hops.flatMap((h) => h.steps)
	const nodes = hops.flatMap((h) => (h.node === undefined ? [] : [h.node])).filter((n, i, all) => n !== all[i - 1])
	const drop = [...steps, ...reply.flatMap((h) => h.steps)].findLast((s) => s.step === 'drop')
	const deliver = steps.findLast((s) => s.step === 'deliver')
	if (deliver?.step !== 'deliver') return `${disposition}${drop?.step === 'drop' ? ` ${drop.how}` : ''}`
	const last = steps.findLast((s) => s.step === 'translate')
	const target = `${(deliver.pod ?? deliver.node)?.replace('default/', '')}:${deliver.port}`
	const source = last?.step === 'translate' ? ` from ${last.after.source}` : ''
	const lost = drop === undefined ? '' : `, answer ${disposition}`
	return `${target}${source} by ${nodes.join('>')}${lost}`
}

function round(chance: number): number {
	return Math.round(chance * 1000) / 1000
}

function hopLines(hop: Hop): string[] {
	const place = [
		hop.node === undefined ? undefined : `node ${hop.node}`,
		hop.pod === undefined ? undefined : `pod ${hop.pod}`,
		hop.balancer === undefined ? undefined : 'load balancer',
	]
	return [
		`  ${place.filter((p) => p !== undefined).join(', ') || 'outside'}`,
		...hop.steps.flatMap((step) => [
			`    ${stepText(step)}`,
			...(step.note === undefined ? [] : step.note.split('\n').map((line) => `        note: ${line}`)),
			...(step.because.length === 0 ? [] : [because('        ', step.because)]),
			...adviceLines(step).map((line) => `        ${line}`),
		]),
	]
}

function adviceLines(step: StepWithReason): readonly string[] {
	return step.step === 'policy' && step.explanation !== undefined ? adviceText(step.explanation) : []
}

function because(indent: string, origins: readonly Origin[]): string {
	return origins.map((o) => `${indent}by ${originText(o)}`).join('\n')
}

function stepText(step: StepWithReason): string {
	switch (step.step) {
		case 'query':
			return `query ${step.name} ${step.answer}${step.addresses.length === 0 ? '' : ` ${step.addresses.join(', ')}`}`
		case 'resolve':
			return `resolve ${step.name} ${step.address}`
		case 'policy':
			return `policy ${step.direction} ${step.verdict} ${step.pod}${step.enforced ? '' : ' (not enforced)'}`
		case 'service':
			return `service ${step.service} port ${step.port || '-'}${step.frontend === undefined ? '' : ` by ${step.frontend}`}`
		case 'balance':
			return `balance ${step.how} ${step.node} chance ${round(step.chance)} of ${step.of}`
		case 'endpoint':
			return `endpoint ${step.ip}:${step.port} ${step.pod ?? '-'} chance ${round(step.chance)} of ${step.of}`
		case 'translate': {
			const p = (x: typeof step.before) => `${x.source}:${x.sourcePort} > ${x.destination}:${x.destinationPort}`
			return `translate ${step.what} ${p(step.before)} => ${p(step.after)}`
		}
		case 'route':
			return `route ${step.destination}${step.via === undefined ? '' : ` via ${step.via}`} dev ${step.device}`
		case 'deliver':
			return `deliver ${step.pod === undefined ? `node ${step.node}` : `pod ${step.pod}`} port ${step.port}`
		case 'drop':
			return `${step.how} ${step.disposition}`
		default: {
			const never: never = step
			throw new Error(`No such step: ${JSON.stringify(never)}`)
		}
	}
}
