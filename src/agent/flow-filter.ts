// Which flows an observer wants to see: written as text on the command line, sent as JSON, asked of each flow.

import { Failure } from '../base/failure.ts'
import { type Cidr, cidrContains, type Ip, parseCidr, parseIp, tryParseCidr, tryParseIp } from '../base/ip.ts'
import { type FlowEnd, type FlowEvent, type FlowVerdict, flowPorts, flowProtocol } from './flow-event.ts'

export interface FlowFilter {
	/** Either end. */
	readonly namespace?: string
	/** Either end: `NAME`, `NAMESPACE/NAME`, with `*` at the end for all that begin so. */
	readonly pod?: string
	readonly from?: EndSelector
	readonly to?: EndSelector
	readonly verdicts?: readonly FlowVerdict[]
	/** Destination port: what the client asked for or what it was translated to. */
	readonly port?: number
	readonly protocol?: 'TCP' | 'UDP' | 'SCTP' | 'ICMP'
	readonly node?: string
	/** Milliseconds since the epoch. */
	readonly since?: number
	/** The ends of connections as well. */
	readonly ended?: boolean
}

export type EndSelector =
	| { readonly kind: 'name' | 'pod' | 'service'; readonly namespace?: string; readonly name: string }
	| { readonly kind: 'workload'; readonly of: string; readonly namespace?: string; readonly name: string }
	| { readonly kind: 'node' | 'namespace'; readonly name: string }
	| { readonly kind: 'network'; readonly cidr: Cidr }
	| { readonly kind: 'labels'; readonly labels: readonly string[] }
	| { readonly kind: 'outside' }

const workloads: Readonly<Record<string, string>> = {
	deploy: 'Deployment',
	deployment: 'Deployment',
	ds: 'DaemonSet',
	daemonset: 'DaemonSet',
	sts: 'StatefulSet',
	statefulset: 'StatefulSet',
	rs: 'ReplicaSet',
	replicaset: 'ReplicaSet',
	job: 'Job',
	cronjob: 'CronJob',
	cj: 'CronJob',
}

/**
 * `NAME` (pod, workload or Service), `NAMESPACE/NAME`, `pod/NAME`, `deploy/NAME`, `svc/NAME`, `node/NAME`, `ns/X`,
 * `ns/X/pod/NAME`, an address, a network, labels `app=web,tier=db`, `outside`. `namespace`: of names without one.
 * Throws Failure BadRequest.
 */
export function parseEnd(text: string, namespace?: string): EndSelector {
	const bad = (why: string) =>
		new Failure('BadRequest', `Cannot read ${JSON.stringify(text)} as an end of a flow: ${why}`)
	if (text === '') throw bad('it is empty')
	if (text === 'outside' || text === 'world') return { kind: 'outside' }
	if (tryParseIp(text) !== undefined) {
		const ip = parseIp(text)
		return { kind: 'network', cidr: parseCidr(`${ip}/${ip.includes(':') ? 128 : 32}`) }
	}
	const cidr = tryParseCidr(text)
	if (cidr !== undefined) return { kind: 'network', cidr }
	if (text.includes('=')) {
		const labels = text.split(',').map((l) => l.trim())
		if (labels.some((l) => !/^[^=]+=[^=]*$/.test(l))) throw bad('labels are written key=value,key=value')
		return { kind: 'labels', labels }
	}
	const words = text.split('/')
	let within = namespace
	if (words[0] === 'ns' && words.length > 1) {
		within = words[1] as string
		if (within === '') throw bad('the namespace has no name')
		words.splice(0, 2)
		if (words.length === 0) return { kind: 'namespace', name: within }
	}
	if (words.some((w) => !/^[A-Za-z0-9][-A-Za-z0-9.]*\*?$/.test(w))) throw bad('that is no name of an object')
	const place = within === undefined ? {} : { namespace: within }
	const [first = '', second, ...rest] = words
	if (rest.length > 0) throw bad('it has too many parts')
	if (second === undefined) return { kind: 'name', ...place, name: first }
	const kind = first.toLowerCase()
	if (kind === 'pod' || kind === 'po') return { kind: 'pod', ...place, name: second }
	if (kind === 'svc' || kind === 'service') return { kind: 'service', ...place, name: second }
	if (kind === 'node') return { kind: 'node', name: second }
	const of = workloads[kind]
	if (of !== undefined) return { kind: 'workload', of, ...place, name: second }
	return { kind: 'name', namespace: first, name: second }
}

/** `now` is not asked: times are compared as they are written. */
export function matchesFlow(filter: FlowFilter, event: FlowEvent): boolean {
	const { flow, podwire } = event
	if (podwire.event === 'end' && filter.ended !== true) return false
	if (filter.since !== undefined && Date.parse(event.time) < filter.since) return false
	if (filter.verdicts !== undefined && !filter.verdicts.includes(flow.verdict)) return false
	if (filter.node !== undefined && filter.node !== event.node_name) return false
	if (filter.protocol !== undefined && !flowProtocol(flow).startsWith(filter.protocol)) return false
	if (
		filter.port !== undefined &&
		flowPorts(flow)?.destination_port !== filter.port &&
		podwire.asked?.port !== filter.port
	)
		return false
	const { source, destination } = flow
	const { namespace, pod } = filter
	if (namespace !== undefined) {
		const found = [source.namespace, destination.namespace, flow.destination_service?.namespace]
		if (!found.includes(namespace)) return false
	}
	if (pod !== undefined && !isPod(source, pod) && !isPod(destination, pod)) return false
	if (filter.from !== undefined && !isEnd(filter.from, event, 'source')) return false
	return filter.to === undefined || isEnd(filter.to, event, 'destination')
}

function isPod(end: FlowEnd, text: string): boolean {
	const at = text.indexOf('/')
	if (at >= 0 && end.namespace !== text.slice(0, at)) return false
	return end.pod_name !== undefined && named(text.slice(at + 1), end.pod_name)
}

function named(pattern: string, name: string): boolean {
	return pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : name === pattern
}

function isEnd(selector: EndSelector, { flow, podwire }: FlowEvent, side: 'source' | 'destination'): boolean {
	const end = flow[side]
	const within = (namespace: string | undefined) => namespace === undefined || end.namespace === namespace
	const isService = (of: { readonly namespace?: string; readonly name: string }) => {
		const service = side === 'destination' ? flow.destination_service : undefined
		if (service === undefined || (of.namespace !== undefined && of.namespace !== service.namespace)) return false
		return named(of.name, service.name)
	}
	switch (selector.kind) {
		case 'pod':
			return within(selector.namespace) && end.pod_name !== undefined && named(selector.name, end.pod_name)
		case 'workload':
			return (
				within(selector.namespace) &&
				end.workloads?.some((w) => w.kind === selector.of && named(selector.name, w.name)) === true
			)
		case 'service':
			return isService(selector)
		case 'name':
			if (isService(selector)) return true
			return (
				within(selector.namespace) &&
				((end.pod_name !== undefined && named(selector.name, end.pod_name)) ||
					end.workloads?.some((w) => named(selector.name, w.name)) === true)
			)
		case 'node':
			return podwire[side] === `node/${selector.name}`
		case 'namespace':
			return end.namespace === selector.name
		case 'network': {
			if (cidrContains(selector.cidr, flow.IP[side] as Ip)) return true
			return (
				side === 'destination' && podwire.asked !== undefined && cidrContains(selector.cidr, podwire.asked.ip as Ip)
			)
		}
		case 'labels':
			return selector.labels.every((label) => end.labels.includes(`k8s:${label}`))
		case 'outside':
			return end.labels.includes('reserved:world')
		default:
			return selector satisfies never
	}
}
