// The first witness: the model's walk, in the form the others are compared with.

import { type Origin, originText } from '../model/origin.ts'
import { adviceText } from '../walk/explain.ts'
import type { Hop, Step, StepWithReason, Trace } from '../walk/trace.ts'
import type { Path, Point, Stage } from './witness.ts'

/** The walk's traces as paths. */
export function pathsOfTraces(traces: readonly Trace[]): readonly Path[] {
	return traces.map(pathOfTrace)
}

interface Draft {
	result?: string
	text?: string
	because: Origin[]
	details: string[]
	advice?: readonly string[]
	enforced?: boolean
}

function pathOfTrace(trace: Trace): Path {
	const drafts = new Map<Stage, Draft>()
	const draft = (stage: Stage): Draft => {
		let d = drafts.get(stage)
		if (d === undefined) drafts.set(stage, (d = { because: [], details: [] }))
		return d
	}
	const nodes: string[] = []
	let unanswered = false
	for (const hop of trace.hops) {
		if (hop.node !== undefined && nodes.at(-1) !== hop.node) nodes.push(hop.node)
		for (const step of hop.steps) {
			// After a question that finds no server the steps are those of the question, not of the flow.
			if (unanswered) recordQuestion(draft('name'), step)
			else record(draft, hop, step, trace)
			unanswered ||= step.step === 'query' && step.answer === 'no-answer'
		}
	}
	const route = drafts.get('route')
	if (route !== undefined) {
		route.result = nodes.join(' > ')
		route.text =
			nodes.length > 1
				? nodes.join(' → ')
				: `within ${nodes[0] ?? (trace.flow.from.kind === 'outside' ? 'the network outside' : 'the pod')}`
	}
	if (!unanswered && trace.reply.length > 0) recordReply(draft('reply'), trace)
	const points: Point[] = []
	for (const [stage, d] of drafts) {
		if (d.result === undefined) continue
		points.push({
			stage,
			result: d.result,
			text: d.text ?? d.result,
			because: d.because,
			rules: [],
			details: d.details,
			...(d.advice === undefined ? {} : { advice: d.advice }),
			...(d.enforced === undefined ? {} : { enforced: d.enforced }),
		})
	}
	const sticky = trace.hops.some((h) => h.steps.some((s) => s.step === 'endpoint' && s.affinity !== undefined))
	return {
		chance: trace.chance,
		points,
		disposition: trace.disposition,
		delivered: trace.disposition === 'delivered',
		...(sticky ? { sticky } : {}),
	}
}

function record(draft: (stage: Stage) => Draft, hop: Hop, step: StepWithReason, trace: Trace): void {
	const note = step.note?.split('\n') ?? []
	switch (step.step) {
		case 'query': {
			const d = draft('name')
			d.details.push(`${step.name} ${step.answer === 'found' ? step.addresses.join(', ') : step.answer}`)
			if (step.answer === 'found') d.because.push(...step.because)
			if (step.answer === 'forwarded') {
				d.result = 'forwarded'
				d.text = `${step.name} is answered outside of the cluster`
				d.because.push(...step.because)
			}
			d.details.push(...note)
			return
		}
		case 'resolve': {
			const d = draft('name')
			d.result = step.address
			d.text = `${step.name} is ${step.address}`
			d.because.push(...step.because.filter((o) => !d.because.includes(o)))
			d.details.push(...note)
			return
		}
		case 'service': {
			const d = draft('service')
			const by = step.frontend === undefined ? '' : ` by its ${frontendNames[step.frontend]}`
			d.text = `Service ${step.service} port ${step.port === '' ? trace.flow.port : step.port}${by}`
			d.because.push(...step.because)
			d.details.push(...note)
			return
		}
		case 'endpoint': {
			const d = draft('service')
			d.result = `${step.ip}:${step.port}`
			const chance = step.of === 1 ? 'the only endpoint' : `1 of ${step.of} endpoints, ${percent(step.chance)}`
			d.text = `${d.text ?? ''} → ${step.ip}:${step.port}${step.pod === undefined ? '' : ` (pod ${step.pod})`}, ${chance}`
			d.because.push(...step.because)
			d.details.push(...note)
			return
		}
		case 'balance': {
			const how = step.how === 'announce' ? 'announces the address' : 'gets it from the load balancer'
			const chance = step.of === 1 ? '' : `, 1 of ${step.of} nodes, ${percent(step.chance)}`
			const d = draft('service')
			d.details.push(`node ${step.node} ${how}${chance}`, ...note)
			d.because.push(...step.because)
			return
		}
		case 'translate': {
			// What the load balancer does is said by its own step.
			if (hop.balancer === true) return
			if (step.what === 'destination') {
				// Without an endpoint chosen before: a port of the node.
				const d = draft('service')
				if (d.result !== undefined) return
				d.result = `${step.after.destination}:${step.after.destinationPort}`
				d.text = `${note[0] ?? 'a port of the node'} → ${d.result}`
				d.because.push(...step.because)
			} else
				draft('service').details.push(
					`source becomes ${step.after.source}: ${note[0] ?? (step.because[0] === undefined ? 'masquerade' : originText(step.because[0]))}`,
				)
			return
		}
		case 'policy': {
			const d = draft(step.direction)
			d.result = step.verdict
			d.text = `${step.verdict === 'allow' ? 'allowed' : 'denied'} ${step.direction === 'egress' ? 'out of' : 'into'} pod ${step.pod}`
			d.because.push(...step.because)
			d.details.push(...note.filter((line) => !line.startsWith('not enforced')))
			d.enforced = step.enforced
			if (step.explanation !== undefined) {
				const others = step.explanation.allowing.filter(
					(o) => !step.because.some((b) => originText(b) === originText(o)),
				)
				d.because.push(...others)
			}
			adviseOn(d, step)
			return
		}
		case 'route': {
			const d = draft('route')
			const where = hop.node ?? (hop.pod === undefined ? 'outside' : `pod ${hop.pod}`)
			const via = step.via === undefined ? '' : ` via ${step.via}`
			d.details.push(
				`${where}: ${step.destination}${via} dev ${step.device}${step.mtu === undefined ? '' : ` mtu ${step.mtu}`}`,
			)
			d.because.push(...step.because)
			return
		}
		case 'deliver': {
			const d = draft('deliver')
			d.result = 'delivered'
			d.text = step.pod === undefined ? `to node ${step.node ?? ''}` : `to pod ${step.pod} port ${step.port}`
			d.because.push(...step.because)
			d.details.push(...note)
			return
		}
		case 'drop': {
			const stage = stageOfDrop(step)
			const d = draft(stage)
			d.result ??= step.how
			const fate = `${step.how === 'reject' ? 'rejected' : 'dropped'}: ${step.disposition}`
			if (d.text === undefined) d.text = fate
			else if (stage === 'service') d.text = `${d.text}, ${fate}`
			d.because.push(...step.because.filter((o) => !d.because.includes(o)))
			d.details.push(...note)
			return
		}
		default:
			unknownStep(step, trace)
	}
}

const frontendNames = { 'external-ip': 'external IP', 'load-balancer': 'load balancer', 'node-port': 'node port' }

function recordQuestion(d: Draft, step: StepWithReason): void {
	d.because.push(...step.because.filter((o) => !d.because.includes(o)))
	if (step.step === 'drop') {
		d.result = 'drop'
		d.text = `the name server is not reached: ${step.disposition}`
	}
	if (step.step === 'policy') {
		d.details.push(`${step.direction} ${step.verdict} at pod ${step.pod}`)
		if (step.verdict === 'deny') adviseOn(d, step)
	}
	d.details.push(...(step.note?.split('\n') ?? []))
}

function adviseOn(d: Draft, { explanation }: Extract<Step, { step: 'policy' }>): void {
	const advice = explanation === undefined ? [] : adviceText(explanation)
	if (advice.length > 0) d.advice = advice
}

function unknownStep(step: never, trace: Trace): never {
	throw new Error(`Cannot read step ${JSON.stringify(step)} of a trace to port ${trace.flow.port}`)
}

function stageOfDrop({ disposition, how }: Extract<StepWithReason, { step: 'drop' }>): Stage {
	switch (disposition) {
		case 'no-such-name':
			return 'name'
		case 'denied-source-range':
		case 'no-endpoints':
		case 'unknown-service-port':
			return 'service'
		case 'unassigned-address':
			// The rules for Services drop what is sent into their network; a node's route refuses for its pods.
			return how === 'drop' ? 'service' : 'route'
		case 'denied-egress':
			return 'egress'
		case 'denied-ingress':
		case 'denied-mesh':
			return 'ingress'
		case 'delivered':
		case 'answered-by-proxy':
			return 'deliver'
		default:
			return 'route'
	}
}

function recordReply(d: Draft, trace: Trace): void {
	const translations = trace.reply.flatMap((h) => h.steps).filter((s) => s.step === 'translate')
	const restored = translations.at(-1)
	const first = translations[0]
	const lost = trace.reply.flatMap((h) => h.steps).find((s) => s.step === 'drop')
	d.result = lost === undefined ? 'returned' : 'drop'
	if (lost !== undefined) d.because.push(...lost.because)
	d.details.push(...(lost?.note?.split('\n') ?? []))
	d.text =
		lost?.step === 'drop'
			? `the answer is lost: ${lost.disposition}`
			: restored?.step === 'translate' && first?.step === 'translate'
				? `source ${first.before.source}:${first.before.sourcePort} is shown as ${restored.after.source}:${restored.after.sourcePort} again`
				: 'returns untranslated'
	for (const hop of trace.reply) {
		for (const step of hop.steps) {
			if (step.step !== 'route') continue
			const via = step.via === undefined ? '' : ` via ${step.via}`
			d.details.push(`${hop.node ?? `pod ${hop.pod ?? ''}`}: ${step.destination}${via} dev ${step.device}`)
		}
	}
}

function percent(chance: number): string {
	return `${Math.round(chance * 1000) / 10} %`
}
