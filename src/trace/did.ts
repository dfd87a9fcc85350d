// The third witness: a real packet. What the probe saw, in the form the others are compared with.

import type { ConntrackEntry, ProbeResult, Sighting } from '../agent/protocol.ts'
import type { Ip } from '../base/ip.ts'
import { directionOf, tableName as policyTable } from '../dataplane/policy/layout.ts'
import { findFrontend } from '../model/frontends.ts'
import { hostPortAt } from '../model/host-ports.ts'
import { balancedAt, isReachable } from '../model/load-balancer.ts'
import type { NetworkModel } from '../model/network.ts'
import type { Flow } from '../walk/trace.ts'
import type { Path, Point } from './witness.ts'

/** What the packet's DNS query brought, asked from inside the source pod. */
export interface Answered {
	readonly name: string
	readonly address: string | undefined
	readonly queries: readonly { readonly name: string; readonly answer: string; readonly milliseconds: number }[]
	readonly server: string
	/** The server did not answer the last question; what came of it. */
	readonly silent?: 'refused' | 'timeout' | 'unreachable' | 'error'
}

/** Where no address was found: as the resolver tells it, the server silent or the name unknown. */
export function unansweredPath(answered: Answered | undefined, flow: Flow): Path {
	const silent = answered?.silent
	const point: Point = {
		...(answered === undefined
			? { stage: 'name' as const, text: 'the pod has no resolver', because: [], rules: [] }
			: namePoint(answered)),
		result: 'drop',
		details: [
			...(answered?.queries.map((q) => `${q.name} ${q.answer}`) ?? []),
			...(silent === undefined ? [] : [`why: podwire trace ${senderText(flow)} ${answered?.server}:udp/53`]),
		],
	}
	return { chance: 1, points: [point], disposition: silent ?? 'no-such-name', delivered: false }
}

function senderText({ from }: Flow): string {
	if (from.kind !== 'pod') return 'node' in from ? `node/${from.node}` : 'outside'
	const [namespace, name] = from.pod.split('/')
	return `-n ${namespace} pod/${name}`
}

/** One packet takes one path. */
export function pathOfProbe(probe: ProbeResult, flow: Flow, model: NetworkModel, answered: Answered | undefined): Path {
	const points: Point[] = []
	if (answered !== undefined) points.push(namePoint(answered))
	const destination = 'ip' in flow.to ? flow.to.ip : answered?.address
	const isService = destination !== undefined && leadsToService(model, flow, destination as Ip)
	const entries = entriesAlong(probe)
	const entry = entries.length < 2 ? entries[0] : { ...entries[0]!, reply: entries.at(-1)!.reply }
	const translated =
		entry !== undefined &&
		(entry.reply.source !== entry.original.destination || entry.reply.sourcePort !== entry.original.destinationPort)
	const connected = probe.outcome === 'connected'
	const refused = probe.outcome === 'refused' || probe.outcome === 'unreachable'
	const rules = probe.rules.filter(
		(r, i) => probe.rules.findIndex((o) => o.node === r.node && o.chain === r.chain && o.handle === r.handle) === i,
	)
	const policies = policyPoints(rules)
	const denied = policies.some((p) => p.result === 'deny')
	const translating = rules.filter(
		(r) => r.table !== policyTable && (r.elements.length > 0 || /dnat|masquerade|snat|reject|drop/.test(r.text)),
	)
	// A refusal takes the entry away at once: then the packets tell where they went.
	const went = probe.sightings.findLast((s) => !s.reply && s.destinationPort !== 0)
	// Translated before there was a packet: the first one seen goes to the endpoint already.
	const first = probe.sightings.find((s) => !s.reply && s.destinationPort !== 0)
	// (A node's own packets are translated by a rule before an interface sees them: then conntrack knows.)
	const atSocket = isService && !translated && first !== undefined && first.destination !== destination
	const endpoint = atSocket
		? `${first.destination}:${first.destinationPort}`
		: translated && entry !== undefined
			? `${entry.reply.source}:${entry.reply.sourcePort}`
			: entry === undefined && isService && went !== undefined && went.destination !== destination
				? `${went.destination}:${went.destinationPort}`
				: undefined
	// Translated to an address there is no route to: nobody saw the packet after that.
	const lost = isService && endpoint === undefined && translating.some((r) => /\bdnat\b/.test(r.text))
	if (endpoint !== undefined) {
		points.push({
			stage: 'service',
			result: endpoint,
			text: atSocket ? `went to ${endpoint}, chosen at the socket before there was a packet` : `went to ${endpoint}`,
			because: [],
			rules: translating,
			details: probe.conntrack.map(
				(e) =>
					`conntrack on ${e.node}: ${e.protocol}${e.state === undefined ? '' : ` ${e.state}`} ${e.original.source}:${e.original.sourcePort} → ${e.original.destination}:${e.original.destinationPort}, reply ${e.reply.source}:${e.reply.sourcePort} → ${e.reply.destination}:${e.reply.destinationPort}`,
			),
		})
	} else if (isService && !connected && !lost && !denied) {
		points.push({
			stage: 'service',
			result: refused ? 'reject' : 'drop',
			text: refused
				? `refused at once${probe.errno === undefined ? '' : ` (${probe.errno})`}`
				: `no answer in ${Math.round(probe.elapsed)} ms`,
			because: [],
			rules: rules.filter((r) => !r.text.startsWith('policy of chain')).slice(-2),
			details: [],
		})
	}
	const way = probe.sightings.filter((s) => !s.reply)
	const nodes = [...nodesOf(way)]
	// Captures follow the source port: once a node has changed it, the rest of the way is not seen.
	const unseen = entries.some((e) => e.reply.destinationPort !== e.original.sourcePort)
	const end =
		unseen && endpoint !== undefined && entry !== undefined ? model.addresses.get(entry.reply.source) : undefined
	const endNode = end?.kind === 'pod' ? model.pods.get(end.pod)?.node : undefined
	if (endNode !== undefined && nodes.length > 0 && nodes.at(-1) !== endNode) nodes.push(endNode)
	points.push(...policies)
	const ended = isService && endpoint === undefined && !lost && !connected && !denied
	if (!ended && nodes.length > 0) {
		points.push({
			stage: 'route',
			result: nodes.join(' > '),
			text: nodes.length > 1 ? nodes.join(' → ') : `within ${nodes[0]}`,
			because: [],
			rules: [],
			details: way.map(sightingText),
			summary: sightingsText(way),
		})
	}
	// The pod's own kernel answered that nobody listens: the network has done its part.
	const last = way.at(-1)?.pod
	const source = flow.from.kind === 'pod' ? flow.from.pod : undefined
	const seenThere = last !== undefined && (last !== source || way.length > 1)
	// So does a node that is asked itself, unless one of its rules refuses.
	const owner = destination === undefined ? undefined : model.addresses.get(destination as Ip)
	const asked = owner?.kind === 'node' && !isService && nodes.at(-1) === owner.node ? owner.node : undefined
	// What a pod of the node should have got has not arrived.
	const there = asked === undefined ? undefined : model.nodes.get(asked)
	const forPod =
		there !== undefined && hostPortAt(model, there, destination as Ip, flow.protocol, flow.port) !== undefined
	const byRule = rules.some((r) => r.verdict === 'drop' || /\breject\b/.test(r.text))
	const arrived = probe.outcome === 'refused' && (seenThere || (asked !== undefined && !byRule && !forPod))
	const place = seenThere ? `pod ${last}` : `node ${asked}`
	// It got there, and whatever was answered did not come back.
	const unanswered = probe.outcome === 'timeout' && seenThere
	if (!ended && !denied) {
		const elapsed = formatMilliseconds(probe.elapsed)
		const failure = `${probe.outcome}${probe.errno === undefined ? '' : ` (${probe.errno})`} after ${elapsed}`
		points.push({
			stage: 'deliver',
			result: connected || arrived || unanswered ? 'delivered' : probe.outcome,
			text: connected
				? `${flow.protocol === 'UDP' ? 'answered' : 'connected'} in ${elapsed}${answerText(probe)}`
				: arrived
					? `arrived at ${place}, and nothing listens there: ${failure}`
					: unanswered
						? `arrived at pod ${last}, and no answer came in ${Math.round(probe.elapsed)} ms`
						: failure,
			because: [],
			rules: endpoint !== undefined || arrived || unanswered ? [] : translating,
			details: probe.counters
				.filter((c) => c.packets > 0)
				.map((c) => `counter of ${c.rule.chain} handle ${c.rule.handle ?? '?'} on ${c.node}: +${c.packets}`),
		})
	}
	const back = probe.sightings.filter((s) => s.reply)
	if (connected && back.length > 0) {
		const last = back.at(-1)
		points.push({
			stage: 'reply',
			result: 'returned',
			text: atSocket
				? `came back as ${last?.source}:${last?.sourcePort}, which the socket was translated to`
				: `came back as ${last?.source}:${last?.sourcePort}`,
			because: [],
			rules: [],
			details: back.map(sightingText),
			summary: sightingsText(back),
		})
	}
	// Whether a datagram is answered is the application's affair.
	if (unanswered && flow.protocol === 'TCP') {
		points.push({
			stage: 'reply',
			result: 'drop',
			text: back.length === 0 ? 'no answer was seen on any interface' : `the answer was last seen at ${placeOf(back)}`,
			because: [],
			rules: [],
			details: back.map(sightingText),
			...(back.length === 0 ? {} : { summary: sightingsText(back) }),
		})
	}
	return { chance: 1, points, disposition: connected ? 'delivered' : probe.outcome, delivered: connected }
}

/** The rules of policies that the packet met: the last of each direction decided. */
function policyPoints(rules: ProbeResult['rules']): Point[] {
	return (['egress', 'ingress'] as const).flatMap((stage): Point[] => {
		const rule = rules.findLast((r) => directionOf(r) === stage)
		if (rule === undefined) return []
		const dropped = rule.verdict === 'drop'
		const text = dropped ? `dropped on ${rule.node}` : `passed on ${rule.node}`
		return [{ stage, result: dropped ? 'deny' : 'allow', text, because: rule.because, rules: [rule], details: [] }]
	})
}

/** Whether some node takes what is sent there for a Service: a ClusterIP, a node port, an address from outside. */
function leadsToService(model: NetworkModel, { from, protocol, port }: Flow, ip: Ip): boolean {
	if (from.kind === 'outside' && !isRoutedOutside(model, ip)) return false
	if (model.addresses.get(ip)?.kind === 'service') return true
	for (const node of model.nodes.values()) {
		if (findFrontend(model, node, { ip, protocol, port }) !== undefined) return true
	}
	return false
}

/** From outside only nodes and load balancers that are not internal can be reached. */
function isRoutedOutside(model: NetworkModel, ip: Ip): boolean {
	if (model.addresses.get(ip)?.kind === 'node') return true
	return balancedAt(model, ip).some((service) => isReachable(service, 'outside'))
}

/** The connection as each place on its way tracks it, beginning at the first: what one made of it is what the next one got. */
function entriesAlong(probe: ProbeResult): readonly ConntrackEntry[] {
	const left = [...probe.conntrack]
	const along: ConntrackEntry[] = []
	const take = (test: (e: ConntrackEntry) => boolean) => {
		const at = left.findIndex(test)
		if (at >= 0) along.push(...left.splice(at, 1))
		return at >= 0
	}
	const { ip, port } = probe.source
	// The first is the one that no other leads to.
	const sent = left.filter((e) => e.original.source === ip && e.original.sourcePort === port)
	const first = sent.find((e) => !sent.some((o) => o !== e && leadsTo(o, e))) ?? sent[0]
	if (first === undefined) return []
	take((e) => e === first)
	while (take((e) => leadsTo(along.at(-1)!, e)));
	return along
}

function leadsTo(before: ConntrackEntry, after: ConntrackEntry): boolean {
	const { reply } = before
	const { original } = after
	return (
		reply.source === original.destination &&
		reply.sourcePort === original.destinationPort &&
		reply.destination === original.source &&
		reply.destinationPort === original.sourcePort
	)
}

function namePoint(answered: Answered): Point {
	const total = answered.queries.reduce((sum, q) => sum + q.milliseconds, 0)
	return {
		stage: 'name',
		result: answered.address ?? 'reject',
		text:
			answered.address === undefined
				? answered.silent === undefined
					? `${answered.server} knows no such name`
					: `${answered.server} does not answer: ${answered.silent} after ${formatMilliseconds(answered.queries.at(-1)?.milliseconds ?? 0)}`
				: `${answered.server} answered ${answered.address} in ${formatMilliseconds(total)}, ${answered.queries.length} ${answered.queries.length === 1 ? 'query' : 'queries'}`,
		because: [],
		rules: [],
		details:
			answered.queries.length === 1 && answered.address !== undefined
				? []
				: answered.queries.map((q) => `${q.name} ${q.answer} ${formatMilliseconds(q.milliseconds)}`),
	}
}

function placeOf(sightings: readonly Sighting[]): string {
	const last = sightings.at(-1)
	return last?.pod !== undefined
		? `pod ${last.pod} ${last.device}`
		: `${last?.node ?? last?.place ?? '?'} ${last?.device}`
}

function nodesOf(sightings: readonly Sighting[]): readonly string[] {
	const nodes: string[] = []
	for (const s of sightings) if (s.node !== undefined && nodes.at(-1) !== s.node) nodes.push(s.node)
	return nodes
}

function sightingText(s: Sighting): string {
	const where = s.pod === undefined ? (s.node ?? s.place ?? '?') : `pod ${s.pod}`
	return `+${s.microseconds.toFixed(0)} µs ${where} ${s.device} ${s.direction} ${s.source}:${s.sourcePort} > ${s.destination}:${s.destinationPort}${s.flags === '' ? '' : ` [${s.flags}]`}`
}

/** `+0 µs pod eth0, +5 node-1 pw82, +80 node-1 eth0` */
function sightingsText(sightings: readonly Sighting[]): string {
	return sightings
		.map(
			(s, i) =>
				`+${s.microseconds.toFixed(0)}${i === 0 ? ' µs' : ''} ${s.pod === undefined ? `${s.node ?? s.place ?? '?'} ${s.device}` : `pod ${s.device}`}`,
		)
		.join(', ')
}

function answerText(probe: ProbeResult): string {
	if (probe.answer === undefined) return ''
	const pod = /"pod"\s*:\s*"([^"]+)"/.exec(probe.answer)?.[1]
	if (pod !== undefined) return `, answered by pod ${pod}`
	const line = probe.answer.split('\n')[0]?.trim() ?? ''
	return line === '' ? '' : `, it said ${JSON.stringify(line.slice(0, 60))}`
}

function formatMilliseconds(ms: number): string {
	return ms < 10 ? `${ms.toFixed(2)} ms` : `${Math.round(ms)} ms`
}
