// The flows of one node, live from its kernel: what policies deny (or would) by nflog, from the first policy on; what is
// allowed by conntrack's events, while somebody observes. One reader a node; what it keeps is bounded, what is lost is
// counted.

import type { Clock } from '../base/clock.ts'
import { isFailure } from '../base/failure.ts'
import { familyOf, type Ip } from '../base/ip.ts'
import { tableName } from '../dataplane/policy/layout.ts'
import { type LogConfig, parseLogPrefix } from '../dataplane/policy/log.ts'
import { type ConnectionEvent, openConnectionEvents, readConnectionEvents } from '../linux/conntrack-events.ts'
import type { NetlinkSocket } from '../linux/netlink/socket.ts'
import { inNetnsAt } from '../linux/netns.ts'
import { type LoggedPacket, openLog, type PacketHeaders, readLog } from '../linux/nflog.ts'
import type { NftChange } from '../linux/nft/change.ts'
import type { NftProgram } from '../linux/nft/program.ts'
import { readProgram } from '../linux/nft/read.ts'
import { applyChanges, openNftSocket } from '../linux/nft/transaction.ts'
import type { NetworkModel, NodeName } from '../model/network.ts'
import type { Origin } from '../model/origin.ts'
import {
	type DropReason,
	dropReasons,
	type Flow,
	type FlowDetails,
	type FlowEvent,
	type FlowMessage,
	type FlowPolicy,
	type FlowVerdict,
	type LostEvents,
} from './flow-event.ts'
import { FlowNames, type NamedEnd, type NamedRule } from './flow-names.ts'
import { FlowRing } from './flow-ring.ts'
import { UnloggedPackets, verdictOf } from './flow-unlogged.ts'

/** Groups belong to a network namespace: nobody else is in a node's. */
const logGroup = 5771
/** Flows remembered of a node. */
const remembered = 4_096
/** Milliseconds between two looks at the kernel's buffers: while nobody watches, and while somebody does. */
const idleInterval = 500
const watchedInterval = 50
/** A SYN is sent again after 1, 3, 7, 15, 31 s: still the same flow. */
const repeatTime = 60_000
const repeatsLimit = 8_192
/**
 * A limit that is used up has room again after 20 ms: what it keeps quiet comes so soon after a packet that it tells of.
 * So much later (ms, with what the kernel and we gather) a rule that logs nothing has kept nothing quiet.
 */
const limitTime = 100
/** Milliseconds between two looks at what the rules count, while somebody watches. */
const countInterval = 1_000

export interface FlowCounts {
	/** By verdict and protocol, as `FORWARDED TCP`. */
	readonly processed: ReadonlyMap<string, number>
	/** Packets that were dropped, by reason and protocol, as `POLICY_DENIED TCP`. */
	readonly dropped: ReadonlyMap<string, number>
	/** Never told, because the kernel's buffer was full. */
	readonly lost: number
	/** Packets that the limit of the log kept quiet, by verdict: DROPPED, AUDIT. */
	readonly unlogged: ReadonlyMap<FlowVerdict, number>
}

export interface FlowReader {
	readonly node: NodeName
	/** Where policies shall log to; undefined where this kernel cannot. Tried with the first call. */
	readonly log: LogConfig | undefined
	/** The programs that are about to be, or are, in force. Opens the log with the first policy. */
	update(model: NetworkModel, policies: NftProgram): void
	/** What is remembered, oldest first, and how many older ones are not. */
	recent(): { readonly events: Iterable<FlowEvent>; readonly overwritten: number }
	/** Calls `tell` with everything that comes, allowed flows too; the function it returns ends that. */
	watch(tell: (message: FlowMessage) => void): () => void
	/** Reads what the rules count. */
	readonly counts: FlowCounts
	/** Packets, denied or on trial, that the limit of the log kept quiet, as the counters of the rules say. Reads them. */
	unlogged(): number
	/** Packets that the rules in force had logged when this reader came: who heard of them has gone. */
	readonly missed: number
	close(): void
}

export function createFlowReader(options: {
	readonly node: NodeName
	/** Path of the node's network namespace. */
	readonly netns: string
	readonly clock: Clock
	readonly onFailure: (what: string, error: unknown) => void
}): FlowReader {
	const { node, netns, clock } = options
	const names = new FlowNames(node)
	const ring = new FlowRing<FlowEvent>(remembered)
	const watchers = new Set<(message: FlowMessage) => void>()
	const processed = new Map<string, number>()
	const dropped = new Map<string, number>()
	const repeats = new Map<string, { until: number; readonly event: FlowEvent }>()
	let lost = 0
	let supported: boolean | undefined
	let logged: NetlinkSocket | undefined
	/** Of the last packet read; the group's first one is 0. */
	let sequence = 0xffffffff
	let connections: NetlinkSocket | undefined
	let cancel: (() => void) | undefined
	let interval = 0
	let closed = false
	let nft: NetlinkSocket | undefined
	const quiet = new UnloggedPackets()
	/** What watchers know of it. */
	let quietTold = 0
	let missed = 0
	/** Milliseconds: when the log last told of something, and when the rules' counters were last read. */
	let heardAt = Number.NEGATIVE_INFINITY
	let countedAt = Number.NEGATIVE_INFINITY

	function canLog(): boolean {
		supported ??= inNetnsAt(netns, tryLog)
		return supported
	}

	function openLogged(): void {
		if (logged !== undefined || !canLog()) return
		countUnlogged()
		missed += quiet.logged
		try {
			logged = inNetnsAt(netns, () => openLog(logGroup))
			sequence = 0xffffffff
		} catch (e) {
			if (!isFailure(e)) throw e
			// Denied is denied, with or without a log of it.
			options.onFailure(`flow log of node ${node}`, e)
			supported = false
		}
	}

	function schedule(): void {
		const wanted =
			closed || (logged === undefined && connections === undefined)
				? 0
				: watchers.size > 0
					? watchedInterval
					: idleInterval
		if (wanted === interval && (wanted === 0) === (cancel === undefined)) return
		cancel?.()
		cancel = undefined
		interval = wanted
		if (wanted > 0)
			cancel = clock.after(wanted, () => {
				cancel = undefined
				try {
					poll()
				} catch (e) {
					options.onFailure(`flow log of node ${node}`, e)
				}
				schedule()
			})
	}

	function poll(): void {
		const now = clock.now()
		if (logged !== undefined) {
			for (const packet of readLog(logged)) {
				heardAt = now
				countGap(packet.sequence)
				tellLogged(packet, now)
			}
			if (watchers.size > 0 && mayBeQuiet() && now - countedAt >= countInterval) countUnlogged()
		}
		if (connections !== undefined) {
			const before = connections.overruns
			for (const event of readConnectionEvents(connections)) tellConnection(event, now)
			// conntrack does not number its events: at least one each time.
			if (connections.overruns > before) lose(connections.overruns - before, now)
		}
		for (const [key, { until }] of repeats) {
			if (until > now && repeats.size <= repeatsLimit) break
			repeats.delete(key)
		}
	}

	function countGap(next: number | undefined): void {
		if (next === undefined) return
		const missing = (next - sequence - 1) >>> 0
		sequence = next
		if (missing > 0) lose(missing, clock.now())
	}

	function lose(count: number, now: number): void {
		lost += count
		tellLost('NETLINK_SOCKET', count, now)
	}

	function tellLost(source: LostEvents['lost_events']['source'], count: number, now: number): void {
		const message: LostEvents = {
			lost_events: { source, num_events_lost: count },
			node_name: node,
			time: new Date(now).toISOString(),
		}
		for (const tell of watchers) tell(message)
	}

	/** Whether the rules may have counted something since they were read that was not logged. */
	function mayBeQuiet(): boolean {
		return countedAt <= heardAt + limitTime
	}

	/** What watchers do not know yet they are told. */
	function countUnlogged(): void {
		const now = clock.now()
		try {
			nft ??= inNetnsAt(netns, openNftSocket)
			const ours = (_: unknown, name: string) => name === tableName
			quiet.see(readProgram(nft, ours, () => false))
		} catch (e) {
			if (!isFailure(e)) throw e
			options.onFailure(`flow log of node ${node}: what it does not tell`, e)
			return
		}
		countedAt = now
		const { total } = quiet
		if (total <= quietTold) return
		tellLost('RATE_LIMIT', total - quietTold, now)
		quietTold = total
	}

	function tellLogged(logged: LoggedPacket, now: number): void {
		const prefix = parseLogPrefix(logged.prefix)
		const { packet } = logged
		if (prefix === undefined || packet === undefined) return
		const verdict = verdictOf(prefix.verdict)
		const source = names.endOf(packet.source)
		const destination = names.endOf(packet.destination)
		const family = familyOf(packet.source) === 4 ? 'ip' : 'ip6'
		const subject = prefix.direction === 'ingress' ? destination.pod : source.pod
		const named = names.ruleOf(prefix, family, subject)
		const reason = verdict === 'DROPPED' ? reasonOf(named.because) : undefined
		const protocol = protocolText(packet)
		if (reason !== undefined) increase(dropped, `${reason} ${protocol}`)
		const { sourcePort, destinationPort } = packet
		const key = `${logged.prefix} ${packet.source} ${sourcePort} ${packet.destination} ${destinationPort} ${packet.protocolNumber} ${packet.icmp?.type ?? ''}`
		const before = repeats.get(key)
		if (before !== undefined && before.until > now) {
			before.event.podwire.repeats = (before.event.podwire.repeats ?? 0) + 1
			before.until = now + repeatTime
			// Last seen last: the oldest is the first to be forgotten.
			repeats.delete(key)
			repeats.set(key, before)
			return
		}
		const event = makeEvent(
			packet,
			{ source, destination, direction: prefix.direction === 'ingress' ? 'INGRESS' : 'EGRESS' },
			new Date(logged.time ?? now).toISOString(),
			{ verdict, ...(reason === undefined ? {} : { reason }), named, event: 'new' },
		)
		repeats.set(key, { until: now + repeatTime, event })
		tell(event)
	}

	function tellConnection({ event, connection, counted, icmp }: ConnectionEvent, now: number): void {
		const { original, reply } = connection
		const source = names.endOf(original.source)
		const destination = names.endOf(reply.source)
		if (source.pod === undefined && destination.pod === undefined) return
		const direction =
			names.isLocal(source) || source.name === `node/${node}`
				? ('EGRESS' as const)
				: names.isLocal(destination)
					? ('INGRESS' as const)
					: ('TRAFFIC_DIRECTION_UNKNOWN' as const)
		const { protocol } = original
		const translated = original.destination !== reply.source || original.destinationPort !== reply.sourcePort
		const asked = { ip: original.destination, port: original.destinationPort }
		const service = protocol === 'ICMP' || !translated ? undefined : names.serviceAt({ ...asked, protocol })
		const six = original.source.includes(':')
		const headers: PacketHeaders = {
			source: original.source,
			destination: reply.source,
			protocol,
			protocolNumber: protocol === 'ICMP' && six ? 58 : 0,
			sourcePort: original.sourcePort,
			destinationPort: protocol === 'ICMP' ? 0 : reply.sourcePort,
			...(protocol === 'ICMP' ? { icmp: icmp ?? { type: six ? 128 : 8, code: 0 } } : {}),
			length: 0,
		}
		tell(
			makeEvent(headers, { source, destination, direction }, new Date(now).toISOString(), {
				verdict: 'FORWARDED',
				event,
				...(service === undefined ? {} : { service }),
				...(translated && protocol !== 'ICMP' ? { asked } : {}),
				...(counted === undefined ? {} : { counted }),
			}),
		)
	}

	function tell(event: FlowEvent): void {
		const [protocol = 'unknown'] = Object.keys(event.flow.l4)
		if (event.podwire.event === 'new') increase(processed, `${event.flow.verdict} ${protocol}`)
		ring.push(event)
		for (const watcher of watchers) watcher(event)
	}

	function makeEvent(
		packet: PacketHeaders,
		ends: {
			readonly source: NamedEnd
			readonly destination: NamedEnd
			readonly direction: Flow['traffic_direction']
		},
		time: string,
		what: {
			readonly verdict: FlowVerdict
			readonly reason?: DropReason
			readonly named?: NamedRule
			readonly service?: { readonly name: string; readonly namespace: string }
		} & Pick<FlowDetails, 'event' | 'asked' | 'counted'>,
	): FlowEvent {
		const { verdict, reason, named, service, event, asked, counted } = what
		const { source, destination, direction } = ends
		const deniedBy = verdict === 'DROPPED' && named !== undefined ? named.because.flatMap(policyOf) : []
		return {
			flow: {
				time,
				verdict,
				...(reason === undefined ? {} : { drop_reason: dropReasons[reason], drop_reason_desc: reason }),
				IP: {
					source: packet.source,
					destination: packet.destination,
					ipVersion: packet.source.includes(':') ? 'IPv6' : 'IPv4',
				},
				l4: l4Of(packet),
				source: source.end,
				destination: destination.end,
				Type: 'L3_L4',
				node_name: node,
				...(service === undefined ? {} : { destination_service: service }),
				traffic_direction: direction,
				is_reply: false,
				...(deniedBy.length === 0
					? {}
					: direction === 'INGRESS'
						? { ingress_denied_by: deniedBy }
						: { egress_denied_by: deniedBy }),
				Summary: summaryOf(packet),
			},
			node_name: node,
			time,
			podwire: {
				event,
				because: named?.because ?? [],
				...(named === undefined ? {} : { rule: named.rule }),
				...(source.name === undefined ? {} : { source: source.name }),
				...(destination.name === undefined ? {} : { destination: destination.name }),
				...(asked === undefined ? {} : { asked }),
				...(counted === undefined ? {} : { counted }),
			},
		}
	}

	function openConnections(): void {
		if (connections !== undefined) return
		try {
			connections = inNetnsAt(netns, openConnectionEvents)
		} catch (e) {
			if (!isFailure(e)) throw e
			options.onFailure(`flow log of node ${node}: allowed flows`, e)
		}
	}

	return {
		node,
		get log() {
			return canLog() ? { group: logGroup, allowed: false } : undefined
		},
		update(model, policies) {
			try {
				// What happened so far happened under the model before.
				if (logged !== undefined || connections !== undefined) poll()
				// What a rule counts goes with it.
				if (logged !== undefined && mayBeQuiet()) countUnlogged()
			} catch (e) {
				// Policies come into force, whatever becomes of their log.
				options.onFailure(`flow log of node ${node}`, e)
			}
			names.update(model, policies, clock.now())
			if (policies.tables.size > 0) openLogged()
			else {
				logged?.close()
				logged = undefined
			}
			schedule()
		},
		recent() {
			if (logged !== undefined || connections !== undefined) poll()
			return { events: ring, overwritten: ring.dropped }
		},
		watch(tell) {
			if (logged !== undefined) countUnlogged()
			watchers.add(tell)
			openConnections()
			schedule()
			return () => {
				if (!watchers.delete(tell) || watchers.size > 0) return
				connections?.close()
				connections = undefined
				schedule()
			}
		},
		get counts() {
			if (logged !== undefined) countUnlogged()
			return { processed, dropped, lost, unlogged: quiet.byVerdict }
		},
		unlogged() {
			if (logged !== undefined) countUnlogged()
			return quiet.total
		},
		get missed() {
			return missed
		},
		close() {
			closed = true
			nft?.close()
			nft = undefined
			watchers.clear()
			logged?.close()
			connections?.close()
			logged = undefined
			connections = undefined
			schedule()
		},
	}
}

/** Whether rules may log to a group here: made and unmade in one transaction, so that nothing is ever in force. */
function tryLog(): boolean {
	const table = { family: 'ip', table: 'podwire-log-trial' } as const
	const rule: NftChange = {
		...table,
		op: 'add-rule',
		chain: 'trial',
		rule: {
			expressions: [
				{ kind: 'limit', of: 'packets', rate: 1, per: 1, burst: 1 },
				{ kind: 'log', prefix: 'podwire', group: logGroup },
			],
		},
	}
	const socket = openNftSocket()
	try {
		applyChanges(socket, [
			{ ...table, op: 'add-table' },
			{ ...table, op: 'add-chain', chain: { name: 'trial' } },
			rule,
			{ ...table, op: 'delete-table' },
		])
		return true
	} catch (e) {
		if (isFailure(e)) return false
		throw e
	} finally {
		socket.close()
	}
}

function increase(counts: Map<string, number>, key: string): void {
	counts.set(key, (counts.get(key) ?? 0) + 1)
}

/** The ports of a NetworkPolicy only allow: what is denied is denied because nothing allows it. Other kinds have rules that deny. */
function reasonOf(because: readonly Origin[]): DropReason {
	const [first] = because
	const denies = first !== undefined && 'key' in first && first.kind !== 'NetworkPolicy' && first.field !== undefined
	return denies ? 'POLICY_DENY' : 'POLICY_DENIED'
}

function policyOf(origin: Origin): FlowPolicy[] {
	if (!('key' in origin)) return []
	const at = origin.key.indexOf('/')
	if (at < 0) return [{ name: origin.key, kind: origin.kind }]
	return [{ name: origin.key.slice(at + 1), namespace: origin.key.slice(0, at), kind: origin.kind }]
}

function protocolText({ protocol, source }: { readonly protocol?: string; readonly source: Ip }): string {
	if (protocol === 'ICMP') return source.includes(':') ? 'ICMPv6' : 'ICMPv4'
	return protocol ?? 'unknown'
}

const flagNames: Readonly<Record<string, string>> = {
	F: 'FIN',
	S: 'SYN',
	R: 'RST',
	P: 'PSH',
	'.': 'ACK',
	U: 'URG',
	E: 'ECE',
	W: 'CWR',
}

function flagsOf(text: string | undefined): string[] {
	return [...(text ?? '')].flatMap((letter) => flagNames[letter] ?? [])
}

function l4Of(packet: PacketHeaders): Flow['l4'] {
	const ports = { source_port: packet.sourcePort, destination_port: packet.destinationPort }
	switch (packet.protocol) {
		case 'TCP': {
			const flags = Object.fromEntries(flagsOf(packet.tcpFlags).map((name) => [name, true as const]))
			return { TCP: Object.keys(flags).length === 0 ? ports : { ...ports, flags } }
		}
		case 'UDP':
			return { UDP: ports }
		case 'SCTP':
			return { SCTP: ports }
		case 'ICMP':
			return { [packet.source.includes(':') ? 'ICMPv6' : 'ICMPv4']: packet.icmp ?? { type: 0, code: 0 } }
		case undefined:
			return {}
		default:
			return packet.protocol satisfies never
	}
}

function summaryOf(packet: PacketHeaders): string {
	if (packet.protocol === 'TCP') {
		const flags = flagsOf(packet.tcpFlags)
		return flags.length === 0 ? 'TCP' : `TCP Flags: ${flags.join(', ')}`
	}
	return packet.protocol === undefined ? `IP protocol ${packet.protocolNumber}` : protocolText(packet)
}
