// `web → db:5432`: one question, answered for every pair of pods it speaks of, with what decided.

import { Failure, isFailure } from '../base/failure.ts'
import { familyOf, type Ip } from '../base/ip.ts'
import type { Protocol } from '../base/packet.ts'
import { hasPort } from '../base/ports.ts'
import type { NetworkModel, Pod, Service } from '../model/network.ts'
import { type Origin, originText } from '../model/origin.ts'
import { decide, type Peer } from '../model/policy.ts'
import type { PolicyProfile } from '../model/policy-profile.ts'
import { planFlows, type Target } from '../walk/endpoint.ts'
import { type PortText, parseTarget } from '../walk/endpoint-text.ts'
import { explainDenial } from '../walk/explain.ts'
import { type ConnectionPool, connectionsText, pointOf } from './connections.ts'
import type { Reach } from './engine.ts'
import { type Party, partyName } from './parties.ts'

export interface QueryInput {
	readonly model: NetworkModel
	readonly reach: Reach
	readonly parties: readonly Party[]
	/** Where bare names are looked up. Undefined: in any namespace, where only one has the name. */
	readonly namespace?: string
	/** That of `reach`; the default without. */
	readonly profile?: PolicyProfile
}

export interface QueryAnswer {
	readonly apiVersion: 'podwire.dev/v1alpha1'
	readonly kind: 'ReachAnswer'
	readonly query: string
	/** Every pair of pods may, on every port asked for. */
	readonly allowed: boolean
	/** Pairs of a source and a port of a destination that were asked, and how many of them may. */
	readonly pairs: number
	readonly allowedPairs: number
	readonly flows: readonly FlowAnswer[]
	/** More flows than are listed. */
	readonly truncated: boolean
}

export interface FlowAnswer {
	readonly from: string
	readonly to: string
	/** `TCP 5432`; undefined: any. */
	readonly port?: string
	readonly allowed: boolean
	/** Without a port asked for: what may be said. */
	readonly connections: string
	readonly egress: DirectionAnswer
	readonly ingress: DirectionAnswer
}

export interface DirectionAnswer {
	readonly verdict: 'allow' | 'deny'
	readonly because: readonly Origin[]
	/** Of each rule that does not match the first requirement that fails. */
	readonly failed: readonly string[]
}

/** Most flows that an answer lists: one for each pair of classes. */
const listed = 50

interface Point {
	readonly text: string
	readonly pod?: Pod
	readonly ip: Ip
	/** The node whose address it is. */
	readonly node?: string
}

interface Sink extends Point {
	readonly protocol?: Protocol
	readonly port?: number
	/** The port of the Service that leads here. */
	readonly servicePort?: number
}

/** Throws Failure: InvalidQuery, and what planFlows throws for an end that is not there. */
export function answerQuery(input: QueryInput, query: string): QueryAnswer {
	const match = /^\s*(\S+)\s*(?:→|->|=>|\s)\s*(\S+)\s*$/.exec(query)
	if (match === null)
		throw new Failure('InvalidQuery', `Cannot read the query ${JSON.stringify(query)}: write it as 'web -> api:80'`)
	const [, fromText = '', toText = ''] = match
	const from = findEnd(input, fromText, 'from')
	const home = from.kind === 'pod' ? from.pod.namespace : from.kind === 'workload' ? from.pods[0]?.namespace : undefined
	const to = findEnd(input, toText, 'to', home)
	const { port } = parseTarget(toText, 'to')
	const sinks = sinksOf(input.model, to, port, toText)
	const sources = pointsOf(input.model, from)
	let pairs = 0
	let allowedPairs = 0
	const flows = new Map<string, FlowAnswer>()
	let truncated = false
	for (const source of sources) {
		for (const sink of sinks) {
			if (familyOf(source.ip) !== familyOf(sink.ip)) continue
			const may = allowedPorts(input, source, sink)
			const allowed =
				sink.port === undefined || sink.protocol === undefined
					? may !== 0
					: hasPort(input.reach.pool.setOf(may), pointOf(sink.protocol, sink.port))
			pairs++
			if (allowed) allowedPairs++
			// Pods of one class have one answer: it is told once.
			const id = [shapeOf(input.reach, source), shapeOf(input.reach, sink), sink.protocol, sink.port, allowed].join(' ')
			if (flows.has(id)) continue
			if (flows.size >= listed) truncated = true
			else flows.set(id, flowAnswer(input, source, sink, may, allowed))
		}
	}
	if (pairs === 0)
		throw new Failure(
			'InvalidQuery',
			`Cannot answer ${JSON.stringify(query)}: no address of "${fromText}" and "${toText}" has a family in common`,
		)
	return {
		apiVersion: 'podwire.dev/v1alpha1',
		kind: 'ReachAnswer',
		query,
		allowed: allowedPairs === pairs,
		pairs,
		allowedPairs,
		flows: [...flows.values()],
		truncated,
	}
}

function findEnd({ model, namespace }: QueryInput, text: string, side: 'from' | 'to', home?: string): Target {
	const inside = (place: string): Target => {
		if (side === 'from') return planFlows(model, { from: text, to: 'outside:1', namespace: place }).from
		const hasPort = parseTarget(text, 'to').port !== undefined
		const bare = hasPort ? text.replace(/:[^:]*$/, ':1') : text.includes(':') ? `[${text}]:1` : `${text}:1`
		return planFlows(model, { from: 'outside', to: bare, namespace: place }).to
	}
	const first = namespace ?? home ?? 'default'
	try {
		const found = inside(first)
		if (found.kind !== 'name' || namespace !== undefined) return found
	} catch (e) {
		if (!isFailure(e, 'UnknownEndpoint') || namespace !== undefined) throw e
		const found = [...model.namespaces.keys()].sort().flatMap((name) => {
			try {
				const target = inside(name)
				return target.kind === 'name' ? [] : [{ name, target }]
			} catch (other) {
				if (isFailure(other, 'UnknownEndpoint')) return []
				throw other
			}
		})
		if (found.length === 0) throw e
		if (found.length > 1)
			throw new Failure(
				'AmbiguousEndpoint',
				`Cannot tell what "${text}" means: it is in namespaces ${found.map((f) => f.name).join(', ')}; choose one with -n`,
			)
		return found[0]!.target
	}
	throw new Failure('InvalidQuery', `Cannot answer for "${text}": policies know pods and addresses, not DNS names`)
}

function pointsOf(model: NetworkModel, target: Target): readonly Point[] {
	switch (target.kind) {
		case 'pod':
			return ofPods([target.pod])
		case 'workload':
			return ofPods(target.pods)
		case 'node':
			return target.node.addresses.map((ip) => ({ text: `node ${target.node.name}`, ip, node: target.node.name }))
		case 'ip': {
			const owner = model.addresses.get(target.ip)
			const pod = owner?.kind === 'pod' ? model.pods.get(owner.pod) : undefined
			if (pod !== undefined) return ofPods([pod]).filter((p) => p.ip === target.ip)
			return [{ text: target.ip, ip: target.ip, ...(owner?.kind === 'node' ? { node: owner.node } : {}) }]
		}
		case 'outside':
			return [{ text: 'outside', ip: '203.0.113.1' as Ip }]
		case 'service':
		case 'name':
			throw new Failure(
				'InvalidQuery',
				`Cannot start at a ${target.kind}: name a pod, a workload, a node or an address`,
			)
		default: {
			const never: never = target
			throw new Error(`No such target: ${JSON.stringify(never)}`)
		}
	}
}

/** Its workload: the names of its pods are made up. */
function podText(pod: Pod): string {
	return partyName(pod.owner)
}

function ofPods(pods: readonly Pod[]): readonly Point[] {
	const points = pods.flatMap((pod) =>
		pod.ips.map((ip) => ({
			text: podText(pod),
			pod,
			ip,
			...(pod.hostNetwork && pod.node !== undefined ? { node: pod.node } : {}),
		})),
	)
	if (points.length === 0)
		throw new Failure('NoAddress', `Cannot answer for pod "${pods[0]?.key ?? ''}": it has no address`)
	return points
}

function sinksOf(model: NetworkModel, target: Target, port: PortText | undefined, text: string): readonly Sink[] {
	if (target.kind === 'service') return ofService(model, target.service, port, text)
	if (target.kind === 'ip') {
		const owner = model.addresses.get(target.ip)
		const service = owner?.kind === 'service' ? model.services.get(owner.service) : undefined
		if (service !== undefined) return ofService(model, service, port, text)
	}
	const points = pointsOf(model, target)
	if (port === undefined) return points
	return points.map((point) => {
		if (typeof port.port === 'number')
			return { ...point, protocol: port.protocol ?? protocolOf(point.pod, port.port), port: port.port }
		const named = point.pod?.ports.find((p) => p.name === port.port && (port.protocol ?? p.protocol) === p.protocol)
		if (named === undefined)
			throw new Failure('UnknownPort', `Cannot answer for "${text}": ${point.text} has no port "${port.port}"`)
		return { ...point, protocol: named.protocol, port: named.port }
	})
}

/** 53 of a pod that declares it for UDP only means UDP. */
function protocolOf(pod: Pod | undefined, port: number): Protocol {
	const declared = pod?.ports.filter((p) => p.port === port) ?? []
	return declared.length === 0 || declared.some((p) => p.protocol === 'TCP') ? 'TCP' : declared[0]!.protocol
}

/** The pods behind it: policies see the address and the port of the pod. */
function ofService(model: NetworkModel, service: Service, port: PortText | undefined, text: string): readonly Sink[] {
	const wanted = service.ports.filter(
		(p) =>
			port === undefined ||
			((p.port === port.port || p.name === port.port) && (port.protocol === undefined || p.protocol === port.protocol)),
	)
	const chosen =
		port !== undefined && port.protocol === undefined && wanted.some((p) => p.protocol === 'TCP')
			? wanted.filter((p) => p.protocol === 'TCP')
			: wanted
	if (chosen.length === 0) {
		const ports = service.ports.map(
			(p) =>
				`${p.protocol === 'TCP' ? '' : `${p.protocol.toLowerCase()}/`}${p.port}${p.name === '' ? '' : ` (${p.name})`}`,
		)
		throw new Failure(
			'UnknownPort',
			`Cannot answer for "${text}": Service "${service.key}" has ${ports.length === 0 ? 'no port' : ports.join(', ')}${hintOf(model, service, port)}`,
		)
	}
	const sinks = chosen.flatMap((p) =>
		p.endpoints.map((e): Sink => {
			const pod = e.pod === undefined ? undefined : model.pods.get(e.pod)
			const owner = model.addresses.get(e.ip)
			return {
				text: pod === undefined ? e.ip : podText(pod),
				ip: e.ip,
				...(pod === undefined ? {} : { pod }),
				...(owner?.kind === 'node' ? { node: owner.node } : {}),
				protocol: p.protocol,
				port: e.port,
				servicePort: p.port,
			}
		}),
	)
	if (sinks.length === 0)
		throw new Failure('NoAddress', `Cannot answer for "${text}": no pod is behind Service "${service.key}"`)
	return sinks
}

/** The port is that of the pods behind it, as rows name it: the workload is asked for then. */
function hintOf(model: NetworkModel, service: Service, port: PortText | undefined): string {
	const endpoint = service.ports.flatMap((p) => p.endpoints).find((e) => e.port === port?.port)
	const pod = endpoint?.pod === undefined ? undefined : model.pods.get(endpoint.pod)
	return pod === undefined ? '' : `; for the port of its pods ask for ${podText(pod)}:${endpoint!.port}`
}

function isSubject(point: Point): point is Point & { pod: Pod } {
	return point.pod !== undefined && !point.pod.hostNetwork
}

function classOf(reach: Reach, point: Point & { pod: Pod }): number | undefined {
	return reach.classesOf(point.pod.key).find((id) => reach.classes[id]!.family === familyOf(point.ip))
}

function shapeOf(reach: Reach, point: Point): string {
	return isSubject(point) ? `class ${classOf(reach, point)}` : `${point.ip} ${point.node ?? ''}`
}

function allowedPorts({ reach, profile }: QueryInput, from: Point, to: Point): number {
	const all: typeof ConnectionPool.all = 1
	if (isSubject(from) && isSubject(to) && from.pod.key === to.pod.key && profile?.hairpin !== 'by-policy') return all
	const source = isSubject(from) ? classOf(reach, from) : undefined
	const destination = isSubject(to) ? classOf(reach, to) : undefined
	const out =
		source === undefined
			? all
			: destination === undefined
				? reach.withAddress('egress', source, to.ip)
				: reach.egress(source, destination)
	if (destination === undefined || !isSubject(to)) return out
	if (from.node !== undefined && from.node === to.pod.node) return out
	const into =
		source === undefined ? reach.withAddress('ingress', destination, from.ip) : reach.ingress(destination, source)
	return reach.pool.intersect(out, into)
}

function flowAnswer(
	{ model, reach, profile }: QueryInput,
	source: Point,
	sink: Sink,
	may: number,
	allowed: boolean,
): FlowAnswer {
	const connections = connectionsText(reach.pool.setOf(may))
	const port = sink.port === undefined ? undefined : `${sink.protocol} ${sink.port}`
	const ask = (direction: 'egress' | 'ingress', own: Point, other: Point): DirectionAnswer => {
		if (!isSubject(own))
			return {
				verdict: 'allow',
				because: [
					{
						default:
							own.pod === undefined
								? `${own.text} is no pod: NetworkPolicy does not apply`
								: 'a hostNetwork pod is not subject to NetworkPolicy',
					},
				],
				failed: [],
			}
		const peer: Peer = {
			ip: other.ip,
			...(isSubject(other) ? { pod: other.pod } : {}),
			...(other.node === undefined ? {} : { node: other.node }),
		}
		// Without a port the first that is allowed (or port 1) stands for all.
		const first = reach.pool.setOf(may)[0]
		const protocol = sink.protocol ?? protocolAt(first)
		const decision = decide(
			model,
			{ direction, pod: own.pod, peer, protocol, port: sink.port ?? portAt(first) },
			undefined,
			profile,
		)
		const translated =
			sink.servicePort !== undefined && sink.port !== undefined ? { from: sink.servicePort, to: sink.port } : undefined
		return {
			verdict: decision.verdict,
			because: decision.because,
			failed: explainDenial(decision, direction, translated),
		}
	}
	return {
		from: source.text,
		to: sink.text,
		...(port === undefined ? {} : { port }),
		allowed,
		connections,
		egress: ask('egress', source, sink),
		ingress: ask('ingress', sink, source),
	}
}

function protocolAt(point: number | undefined): Protocol {
	return (['TCP', 'UDP', 'SCTP', 'ICMP'] as const)[Math.floor((point ?? 0) / 65_536)] ?? 'TCP'
}

function portAt(point: number | undefined): number {
	return Math.max(1, (point ?? 1) % 65_536)
}

/** Yes or no first, then why. */
export function queryText(answer: QueryAnswer, explain: boolean): string {
	const { allowed, pairs, allowedPairs, flows } = answer
	const partly = !allowed && allowedPairs > 0 ? ` (${allowedPairs} of ${pairs} pairs)` : ''
	const lines = [`${allowed ? 'yes' : allowedPairs > 0 ? 'not all' : 'no'}: ${answer.query.trim()}${partly}`]
	const shown =
		explain || flows.length <= 1
			? flows
			: [...flows.filter((f) => !f.allowed), ...(allowed ? flows.slice(0, 1) : [])].slice(0, explain ? flows.length : 3)
	for (const flow of shown) {
		lines.push(
			`  ${flow.from} → ${flow.to}${flow.port === undefined ? `: ${flow.connections}` : ` ${flow.port}: ${flow.allowed ? 'allowed' : 'denied'}`}`,
		)
		for (const direction of ['egress', 'ingress'] as const) {
			const { verdict, because, failed } = flow[direction]
			lines.push(`    ${direction} ${verdict}: ${because.map(originText).join('; ')}`)
			for (const text of failed) lines.push(`      ${text}`)
		}
	}
	if (shown.length < flows.length) lines.push(`  and ${flows.length - shown.length} more kinds of pairs (--explain)`)
	return `${lines.join('\n')}\n`
}
