// What else an edit of policies changes: every connection between pods, on the port asked and on those the destination
// declares, that the policies decide otherwise after it.

import type { Pod } from '../model/network.ts'
import { type Decision, type Direction, decide, policiesByNamespace, type Question } from '../model/policy.ts'
import type { PolicyProfile } from '../model/policy-profile.ts'
import type { Candidate, EditModel } from './policy-edits.ts'

/** Decisions asked at most; beyond, nothing is counted. */
const mostDecisions = 40_000

export interface Opened {
	readonly opens?: number
	readonly closes?: number
}

/** `question` itself is not counted, nor the same of other replicas. Connections are those of the model's pods; outside has no end. */
export function countOpened(
	model: EditModel,
	question: Question,
	{ after, touched }: Pick<Candidate, 'after' | 'touched'>,
	profile: PolicyProfile,
): Opened {
	const relabelled = touched.side === 'relabelled'
	const ways = relabelled ? 8 : 2
	if (model.pods.size * ways > mostDecisions) return {}
	const pods = [...model.pods.values()].filter((pod) => !pod.hostNetwork && pod.ips.length > 0)
	const changed = touched.pods()
	if (changed.length * pods.length * ways > mostDecisions) return {}
	const before = decider(model, profile)
	const then = decider(after, profile)
	const seen = new Set<string>()
	let opens = 0
	let closes = 0
	const ask = (direction: Direction, pod: Pod, other: Pod) => {
		if (pod.key === other.key) return
		const destination = direction === 'ingress' ? pod : other
		const declared = destination.ports.map(({ protocol, port }) => `${protocol}/${port}`)
		for (const text of new Set([`${question.protocol}/${question.port}`, ...declared])) {
			const id = `${direction} ${pod.key} ${other.key} ${text}`
			if (seen.has(id)) continue
			seen.add(id)
			const [protocol, port] = text.split('/') as [Question['protocol'], string]
			if (isAsked(question, direction, pod, other, protocol, Number(port))) continue
			const was = before(direction, pod, other, protocol, Number(port))
			const is = then(direction, pod, other, protocol, Number(port))
			if (was.verdict === 'deny' && is.verdict === 'allow') opens++
			if (was.verdict === 'allow' && is.verdict === 'deny') closes++
		}
	}
	for (const pod of changed) {
		if (pod.hostNetwork || pod.ips.length === 0) continue
		for (const other of pods) {
			const directions: readonly Direction[] = relabelled ? ['ingress', 'egress'] : [question.direction]
			for (const direction of directions) {
				ask(direction, pod, other)
				if (relabelled) ask(direction, other, pod)
			}
		}
	}
	return { opens, ...(closes === 0 ? {} : { closes }) }
}

function isAsked(
	question: Question,
	direction: Direction,
	pod: Pod,
	other: Pod,
	protocol: string,
	port: number,
): boolean {
	return (
		direction === question.direction &&
		isReplica(pod, question.pod) &&
		question.peer.pod !== undefined &&
		isReplica(other, question.peer.pod) &&
		protocol === question.protocol &&
		port === question.port
	)
}

/** Itself, or another pod of its workload: whoever opens for one means both. */
function isReplica(a: Pod, b: Pod): boolean {
	return a.owner.kind === b.owner.kind && a.owner.key === b.owner.key
}

function decider(model: EditModel, profile: PolicyProfile) {
	const policies = policiesByNamespace(model.policies.values())
	return (direction: Direction, pod: Pod, other: Pod, protocol: Question['protocol'], port: number): Decision => {
		const own = model.pods.get(pod.key)!
		const peer = model.pods.get(other.key)!
		const ip = peer.ips[0]!
		return decide(
			model,
			{ direction, pod: own, peer: { ip, pod: peer }, protocol, port },
			policies.get(own.namespace) ?? [],
			profile,
		)
	}
}
