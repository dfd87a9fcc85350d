// A flow as `podwire observe -o jsonl` and Hubble's exporter write it (cilium/cilium api/v1/flow/flow.proto, as protojson),
// read as a connection that was made. What denies, answers or only reports says nothing of what is needed.

import { type Ip, tryParseIp } from '../base/ip.ts'
import type { PortProtocol } from './connections.ts'
import type { NeedEnd } from './needs.ts'
import type { Party } from './parties.ts'

export interface ObservedFlow {
	readonly from: NeedEnd
	readonly to: NeedEnd
	readonly protocol: PortProtocol
	readonly port: number
}

/** A problem with its field; a workload that the cluster does not have (any more); a flow that says nothing of needs. */
export type HubbleAnswer =
	| { readonly flow: ObservedFlow }
	| { readonly problem: string }
	| { readonly gone: string }
	| 'nothing'

interface Values {
	readonly [key: string]: unknown
}

function asObject(value: unknown): Values | undefined {
	return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Values) : undefined
}

/** The flow within a line of the exporter, or the line itself where it is one; undefined: the line is of another kind. */
export function hubbleFlow(line: Readonly<Record<string, unknown>>): Values | undefined {
	return asObject(line.flow) ?? (asObject(line.IP) !== undefined ? line : undefined)
}

/** A line that tells how many flows nobody could write down. */
export function isLostEvents(line: Readonly<Record<string, unknown>>): boolean {
	return asObject(line.lost_events) !== undefined
}

/** What was let through; AUDIT is what a policy on trial would deny. */
const passing: ReadonlySet<unknown> = new Set(['FORWARDED', 'AUDIT', 'REDIRECTED'])

/** `byWorkload`: by `namespace/name`, workloads and bare pods; those of several kinds with one name together. */
export function readHubble(flow: Values, byWorkload: ReadonlyMap<string, readonly Party[]>): HubbleAnswer {
	if (!passing.has(flow.verdict) || flow.is_reply === true) return 'nothing'
	const l4 = asObject(flow.l4) ?? {}
	const protocol = (['TCP', 'UDP', 'SCTP'] as const).find((p) => asObject(l4[p]) !== undefined)
	// ICMP and the rest: no rule of a NetworkPolicy can name it.
	if (protocol === undefined) return 'nothing'
	const port = Number(asObject(l4[protocol])?.destination_port)
	if (!Number.isInteger(port) || port < 1 || port > 65535)
		return { problem: `l4.${protocol}.destination_port is no number from 1 to 65535` }
	const from = endOf(flow, 'source', byWorkload)
	const to = endOf(flow, 'destination', byWorkload)
	for (const end of [from, to]) if (end === 'nothing' || 'problem' in end || 'gone' in end) return end
	return { flow: { from: from as NeedEnd, to: to as NeedEnd, protocol, port } }
}

function endOf(
	flow: Values,
	side: 'source' | 'destination',
	byWorkload: ReadonlyMap<string, readonly Party[]>,
): NeedEnd | HubbleAnswer {
	const end = asObject(flow[side]) ?? {}
	const namespace = typeof end.namespace === 'string' ? end.namespace : undefined
	if (namespace !== undefined) {
		const [workload] = (Array.isArray(end.workloads) ? end.workloads : []).map(asObject)
		const name = workload?.name ?? end.pod_name
		if (typeof name !== 'string') return { problem: `${side} names neither a workload nor a pod` }
		const found = byWorkload.get(`${namespace}/${name}`) ?? []
		const party = found.find((p) => p.kind === workload?.kind) ?? found[0]
		return party === undefined ? { gone: `${namespace}/${name}` } : { kind: 'workload', party }
	}
	const ip = tryParseIp(String(asObject(flow.IP)?.[side] ?? ''))
	if (ip === undefined) return { problem: `IP.${side} is no address` }
	const labels = Array.isArray(end.labels) ? end.labels : []
	// A pod's own node always gets in, and has no name in a policy.
	if (side === 'source' && labels.includes('reserved:host')) return 'nothing'
	// Whoever comes from outside today has another address tomorrow; where a pod goes to is what it needs.
	if (side === 'source' && labels.includes('reserved:world')) return { kind: 'outside', cidrs: [everything(ip)] }
	return { kind: 'outside', cidrs: [`${ip}/${ip.includes(':') ? 128 : 32}`] }
}

function everything(ip: Ip): string {
	return ip.includes(':') ? '::/0' : '0.0.0.0/0'
}
