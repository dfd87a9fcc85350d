// Switches nftables tracing on for one flow and its answer: a temporary table whose chains come before all others and
// only mark packets (`meta nftrace set 1`). The table changes nothing else and is removed by name.

import { familyOf, type Ip } from '../../base/ip.ts'
import type { Protocol } from '../../base/packet.ts'
import type { NetlinkSocket } from '../netlink/socket.ts'
import { addresses, matchAddress, matchPort, matchProtocol, th } from './build.ts'
import type { NftChange } from './change.ts'
import { protocols } from './datatype.ts'
import type { Expression } from './expr/expression.ts'
import { applyChanges } from './transaction.ts'

export const traceTable = 'podwire_trace'

/** Before everything that could translate or drop: conntrack is at -200, raw at -300. */
const first = -350

/** One flow as its client sends it. Ports 0: any port (ICMP, or not chosen yet). */
export interface TracedFlow {
	readonly protocol: Protocol
	readonly source: Ip
	readonly sourcePort: number
	readonly destination: Ip
	readonly destinationPort: number
}

/**
 * Traces the flow and packets between its client and anyone that come back to the client's port: after translation the
 * answer comes from another address. One flow at a time: a second call replaces the first. `socket`: of the namespace,
 * see openNftSocket. Throws Failure.
 */
export function installFlowTrace(socket: NetlinkSocket, flow: TracedFlow): void {
	const family = familyOf(flow.source) === 4 ? 'ip' : 'ip6'
	const place = { family, table: traceTable } as const
	const { saddr, daddr } = addresses(family)
	const ports = (part: typeof th.sport, port: number): Expression[] => (port === 0 ? [] : matchPort(part, port))
	const trace: Expression[] = [
		{ kind: 'immediate', to: 0, value: '01' },
		{ kind: 'meta', key: 'nftrace', from: 0 },
	]
	const protocol = matchProtocol(protocolOf(flow.protocol, family))
	const forward: Expression[] = [
		...protocol,
		...matchAddress(saddr, flow.source),
		...matchAddress(daddr, flow.destination),
		...ports(th.sport, flow.sourcePort),
		...ports(th.dport, flow.destinationPort),
		...trace,
	]
	// Known by the client's end alone where it has a port; else by both addresses.
	const back: Expression[] = [
		...protocol,
		...matchAddress(daddr, flow.source),
		...(flow.sourcePort === 0 ? matchAddress(saddr, flow.destination) : ports(th.dport, flow.sourcePort)),
		...trace,
	]
	const changes: NftChange[] = [
		{ ...place, op: 'delete-table', ifPresent: true },
		{ ...place, op: 'add-table', comment: 'traces one flow for podwire; safe to delete' },
	]
	for (const hook of ['prerouting', 'output'] as const) {
		changes.push({
			...place,
			op: 'add-chain',
			chain: { name: hook, base: { type: 'filter', hook, priority: first, policy: 'accept' } },
		})
		for (const [comment, expressions] of [
			['the flow', forward],
			['its answer', back],
		] as const) {
			changes.push({ ...place, op: 'add-rule', chain: hook, rule: { expressions, comment } })
		}
	}
	applyChanges(socket, changes)
}

/** Nothing to remove is no error. */
export function removeFlowTrace(socket: NetlinkSocket): void {
	applyChanges(
		socket,
		(['ip', 'ip6'] as const).map(
			(family) => ({ family, table: traceTable, op: 'delete-table', ifPresent: true }) as const,
		),
	)
}

function protocolOf(protocol: Protocol, family: 'ip' | 'ip6'): number {
	switch (protocol) {
		case 'TCP':
			return protocols.tcp
		case 'UDP':
			return protocols.udp
		case 'SCTP':
			return protocols.sctp
		case 'ICMP':
			return family === 'ip' ? protocols.icmp : protocols['ipv6-icmp']
		default: {
			const never: never = protocol
			return never
		}
	}
}
