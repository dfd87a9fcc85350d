// Watching one flow in one namespace: packet sockets on all interfaces, and on a node nftables tracing, connection
// tracking and the counters of rules. What the kernel refuses is noted in `missing`, and the rest goes on.

import { isFailure, messageOf } from '../base/failure.ts'
import { familyOf, type Ip } from '../base/ip.ts'
import { Capture, type CapturedPacket, waitForTimestamps } from '../linux/capture.ts'
import { type Connection, openConntrack, protocolNumber, readConntrack, type Tuple } from '../linux/conntrack.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../linux/netlink/socket.ts'
import { inNetns, openNetns } from '../linux/netns.ts'
import { addresses, matchAddress, matchPort, matchProtocol, th } from '../linux/nft/build.ts'
import type { NftChange } from '../linux/nft/change.ts'
import type { Expression } from '../linux/nft/expr/expression.ts'
import type { NftProgram, NftRule } from '../linux/nft/program.ts'
import { readProgram } from '../linux/nft/read.ts'
import { applyChanges, openNftSocket } from '../linux/nft/transaction.ts'
import { openTraces, readTraces, type TraceMessage } from '../linux/nftrace.ts'
import { readLinks } from '../linux/route/links.ts'
import { close } from '../linux/syscalls.ts'
import type { NodeName } from '../model/network.ts'
import type { ObjectKey } from '../model/origin.ts'
import type { OutsidePlace } from './protocol.ts'

/** The one table a probe makes on each node; whoever cleans up after a crash deletes it. */
export const traceTable = 'podwire_trace'
/** Before connection tracking (-200) and raw (-300). */
const earliest = -350

export type Where = { readonly pod: ObjectKey } | { readonly node: NodeName } | { readonly place: OutsidePlace }

/** `pod "default/web"`. */
export function whereText(where: Where): string {
	if ('place' in where) return `the ${where.place === 'outside' ? 'client outside' : where.place}`
	return 'pod' in where ? `pod ${JSON.stringify(where.pod)}` : `node ${JSON.stringify(where.node)}`
}

/** The flow to watch, before and after whatever translation: its source port stays, its addresses are among these. */
export interface WatchedFlow {
	readonly protocol: 'TCP' | 'UDP'
	readonly port: number
	/** The source, and what a node may translate it to: node addresses. */
	readonly sources: readonly Ip[]
}

export interface RuleCounter {
	readonly family: string
	readonly table: string
	readonly chain: string
	readonly handle: number
	readonly packets: number
}

/** One namespace under observation, from its construction until close. */
export class Observation {
	readonly where: Where
	/** Rules as they stood before the connection; undefined for a pod and the client outside, or where they could not be read. */
	readonly program: NftProgram | undefined
	readonly #missing: string[]
	readonly #netns: number
	readonly #flow: WatchedFlow
	readonly #devices: ReadonlyMap<number, string>
	readonly #capture: Capture | undefined
	readonly #nft: NetlinkSocket | undefined
	readonly #traces: NetlinkSocket | undefined

	/** Throws Failure where the namespace cannot be opened. */
	constructor(where: Where, namespace: string, flow: WatchedFlow, missing: string[]) {
		this.where = where
		this.#missing = missing
		this.#flow = flow
		this.#netns = openNetns(namespace)
		this.#devices = this.#try('interfaces', () => deviceNames()) ?? new Map()
		this.#capture = this.#try('packet capture', () => new Capture(flow))
		if ('pod' in where || ('place' in where && where.place === 'outside')) return
		this.#traces = this.#try('nftables tracing', openTraces)
		this.#nft = this.#try('nftables', openNftSocket)
		const nft = this.#nft
		if (nft === undefined) return
		this.program = this.#try('nftables rules', () => readProgram(nft, (_, name) => name !== traceTable))
		if (this.#traces !== undefined) this.#try('nftables tracing', () => applyChanges(nft, traceChanges(flow)))
	}

	/** Resolves when packets are stamped as they pass; notes it where that cannot be seen. */
	async ready(): Promise<void> {
		if (this.#capture === undefined || (await waitForTimestamps(this.#netns))) return
		this.#note('exact times', 'the kernel does not stamp packets as they pass')
	}

	/** What crossed the interfaces so far, in this namespace's order, with device names. */
	packets(): (CapturedPacket & { readonly device: string })[] {
		const packets = this.#try('packet capture', () => this.#capture?.read()) ?? []
		return packets.map((packet) => ({ ...packet, device: this.#devices.get(packet.index) ?? `if${packet.index}` }))
	}

	deviceOf(index: number): string | undefined {
		return this.#devices.get(index)
	}

	/** Trace messages in the kernel's order, without those about our own table. */
	traces(): TraceMessage[] {
		const socket = this.#traces
		if (socket === undefined) return []
		const messages = this.#try('nftables tracing', () => readTraces(socket)) ?? []
		if (socket.overruns > 0) this.#note('nftables tracing', 'some messages were lost, the kernel sent more than fit')
		return messages.filter((message) => message.table !== traceTable)
	}

	/** Connections that belong to the flow, before or after translation of its source. */
	connections(): Connection[] {
		const read = (): Connection[] => {
			const socket = openConntrack()
			try {
				const { protocol, port, sources } = this.#flow
				// Through a load balancer a flow may come to the same node twice.
				return sources.flatMap((source) => readConntrack(socket, { original: { protocol, source, sourcePort: port } }))
			} finally {
				socket.close()
			}
		}
		return this.#try('connection tracking', read) ?? []
	}

	/** Counters that rose since the observation began. */
	counters(): RuleCounter[] {
		const nft = this.#nft
		const before = this.program
		if (nft === undefined || before === undefined) return []
		const after = this.#try('counters', () => readProgram(nft, (_, name) => name !== traceTable))
		if (after === undefined) return []
		const were = countersOf(before)
		return [...countersOf(after)].flatMap(([key, now]) => {
			const packets = now.packets - (were.get(key)?.packets ?? 0)
			return packets > 0 ? [{ ...now, packets }] : []
		})
	}

	/** Takes the trace table away and closes everything. */
	close(): void {
		const nft = this.#nft
		if (nft !== undefined) {
			this.#try('removing the trace table', () => {
				try {
					applyChanges(nft, [{ op: 'delete-table', family: 'inet', table: traceTable, ifPresent: true }])
				} catch (e) {
					if (!isFailure(e, 'ENOENT')) throw e
				}
			})
			nft.close()
		}
		this.#traces?.close()
		this.#capture?.close()
		close(this.#netns)
	}

	#try<T>(what: string, task: () => T): T | undefined {
		try {
			return inNetns(this.#netns, task)
		} catch (e) {
			if (!isFailure(e)) throw e
			this.#note(what, messageOf(e))
			return undefined
		}
	}

	#note(what: string, why: string): void {
		const text = `${what} on ${whereText(this.where)}: ${why}`
		if (!this.#missing.includes(text)) this.#missing.push(text)
	}
}

function deviceNames(): ReadonlyMap<number, string> {
	const socket = new NetlinkSocket(NETLINK_ROUTE)
	try {
		return new Map(readLinks(socket).map((link) => [link.index, link.name]))
	} finally {
		socket.close()
	}
}

/** Switches tracing on for packets of the flow, either way, where they enter a namespace: from outside or from a socket. */
function traceChanges(flow: WatchedFlow): NftChange[] {
	const table = { family: 'inet', table: traceTable } as const
	const changes: NftChange[] = [
		{ ...table, op: 'delete-table', ifPresent: true },
		{ ...table, op: 'add-table', comment: 'a podwire probe is running; delete it freely' },
	]
	for (const hook of ['prerouting', 'output'] as const) {
		changes.push({
			...table,
			op: 'add-chain',
			chain: { name: hook, base: { type: 'filter', hook, priority: earliest, policy: 'accept' } },
		})
		for (const source of flow.sources) {
			for (const direction of ['forth', 'back'] as const) {
				changes.push({ ...table, op: 'add-rule', chain: hook, rule: traceRule(flow, source, direction) })
			}
		}
	}
	return changes
}

function traceRule(flow: WatchedFlow, source: Ip, direction: 'forth' | 'back'): NftRule {
	const family = familyOf(source) === 4 ? 'ip' : 'ip6'
	const { saddr, daddr } = addresses(family)
	const on: Expression[] = [
		{ kind: 'immediate', to: 0, value: '01' },
		{ kind: 'meta', key: 'nftrace', from: 0 },
	]
	return {
		expressions: [
			{ kind: 'meta', key: 'nfproto', to: 0 },
			{ kind: 'cmp', op: 'eq', from: 0, value: family === 'ip' ? '02' : '0a' },
			...matchAddress(direction === 'forth' ? saddr : daddr, source),
			...matchProtocol(protocolNumber(flow.protocol)),
			...matchPort(direction === 'forth' ? th.sport : th.dport, flow.port),
			...on,
		],
	}
}

function countersOf(program: NftProgram): Map<string, RuleCounter> {
	const counters = new Map<string, RuleCounter>()
	for (const table of program.tables.values()) {
		for (const chain of table.chains.values()) {
			for (const { handle, expressions } of chain.rules) {
				const counter = expressions.find((e) => e.kind === 'counter')
				if (counter === undefined || handle === undefined) continue
				const at = { family: table.family, table: table.name, chain: chain.name, handle }
				counters.set(Object.values(at).join(' '), { ...at, packets: counter.packets })
			}
		}
	}
	return counters
}

/** The flow as it looks on its way and on its way back: as sent, and as each node's connection tracking has it. */
export class FlowForms {
	readonly #forth = new Set<string>()
	readonly #back = new Set<string>()
	readonly #port: number
	/** Where nothing was tracked to the end (a refusal takes the entry away at once): whom the source port tells. */
	readonly #sources: ReadonlySet<Ip>

	/** `sources`: the source's addresses, before and after translation. */
	constructor(sent: Tuple, connections: readonly Connection[], sources: readonly Ip[]) {
		this.#add(sent)
		this.#port = sent.sourcePort
		this.#sources = new Set(connections.length === 0 ? sources : [])
		for (const { original, reply } of connections) {
			this.#add(original)
			this.#add(reversed(reply))
		}
	}

	/** undefined: another flow. */
	directionOf(packet: Omit<Tuple, 'protocol'>): 'forth' | 'back' | undefined {
		const key = keyOf(packet)
		if (this.#forth.has(key)) return 'forth'
		if (this.#back.has(key)) return 'back'
		if (packet.sourcePort === this.#port && this.#sources.has(packet.source)) return 'forth'
		return packet.destinationPort === this.#port && this.#sources.has(packet.destination) ? 'back' : undefined
	}

	/** Whether a packet to `ip` with the quoted ports can be an error about the flow. */
	concerns(ip: Ip): boolean {
		return [...this.#forth].some((key) => key.startsWith(`${ip} `))
	}

	#add(tuple: Tuple): void {
		this.#forth.add(keyOf(tuple))
		this.#back.add(keyOf(reversed(tuple)))
	}
}

function keyOf(tuple: Omit<Tuple, 'protocol'>): string {
	return `${tuple.source} ${tuple.sourcePort} ${tuple.destination} ${tuple.destinationPort}`
}

function reversed(tuple: Tuple): Tuple {
	return {
		protocol: tuple.protocol,
		source: tuple.destination,
		sourcePort: tuple.destinationPort,
		destination: tuple.source,
		destinationPort: tuple.sourcePort,
	}
}
