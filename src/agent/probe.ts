// The third witness: one real connection from inside a pod, seen by every kernel it may cross. nftables tracing is on
// for this flow only, packet sockets copy this flow only; all of it is gone afterwards, and what a crash leaves behind
// is one table `podwire_trace` a node, which the next probe replaces.

import { Failure, isFailure, messageOf } from '../base/failure.ts'
import { familyOf, type Ip } from '../base/ip.ts'
import type { Packet, Protocol } from '../base/packet.ts'
import type { RuleHit } from '../dataplane/dataplane.ts'
import type { Connection, Tuple } from '../linux/conntrack.ts'
import { NetlinkEncoder } from '../linux/netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../linux/netlink/socket.ts'
import { inNetns, openNetns } from '../linux/netns.ts'
import { describeHandle, type NftHit } from '../linux/nft/evaluate.ts'
import type { TraceMessage } from '../linux/nftrace.ts'
import { lookUpRoute } from '../linux/route/routes.ts'
import { close } from '../linux/syscalls.ts'
import type { NodeName } from '../model/network.ts'
import type { ObjectKey, Origin } from '../model/origin.ts'
import { ProbeConnection, probeProtocol } from './connection.ts'
import { FlowForms, Observation, type Where, whereText } from './observation.ts'
import type { ConntrackEntry, OutsidePlace, ProbeRequest, ProbeResult, Sighting } from './protocol.ts'
import { hitKey, hitsOfTrace } from './trace-hits.ts'

export interface ProbePlace {
	/** Path of the network namespace. */
	readonly namespace: string
	readonly ips: readonly Ip[]
}

/** What a probe has to know of the cluster on this machine. */
export interface ProbeAccess {
	/** undefined: the pod is not wired here. */
	pod(key: ObjectKey): ProbePlace | undefined
	/** undefined: the node is not on this machine. */
	node(name: NodeName): ProbePlace | undefined
	/** undefined: there is no such place here. `ips` of the load balancer: what it may put in place of a source. */
	place?(name: OutsidePlace): ProbePlace | undefined
	/** Whether the address is a load balancer's: then what happens there belongs to the way. */
	balances?(to: Ip): boolean
	/** Pods the connection may end in: their interfaces are watched, too. */
	targets(to: Ip, port: number, protocol: Protocol): Iterable<ObjectKey>
	/** Why a rule is there. */
	because?(hit: NftHit): readonly Origin[]
}

export interface Prober {
	probe(request: ProbeRequest): Promise<ProbeResult>
}

type TracedRule = ProbeResult['rules'][number]

/** More pods than these are not watched from inside: a packet socket each. */
const watchedPods = 32

/** Probes one after the other: two at once would take each other's table away. One prober for all nodes of a process. */
export function createProber(access: ProbeAccess): Prober {
	let last: Promise<unknown> = Promise.resolve()
	return {
		probe(request) {
			const next = last.then(() => probe(request, access))
			last = next.catch(() => undefined)
			return next
		},
	}
}

/**
 * Makes the connection and tells all that was seen of it. Whatever cannot be observed stands in `missing`. Throws
 * Failure where there is nothing to probe from: NotFound (pod or node not here), Unsupported (protocol),
 * EADDRNOTAVAIL (the pod lost its address).
 */
export async function probe(request: ProbeRequest, access: ProbeAccess): Promise<ProbeResult> {
	const protocol = probeProtocol(request.protocol)
	const place = placeOf(sourceOf(request), access)
	const missing: string[] = []
	const observations: Observation[] = []
	const connection = openConnection(place, request.to, protocol)
	try {
		const sent: Tuple = {
			protocol,
			source: connection.ip,
			sourcePort: connection.port,
			destination: request.to,
			destinationPort: request.port,
		}
		const nodeIps = [
			...request.nodes.flatMap((node) => access.node(node)?.ips ?? []),
			...(access.place?.('load balancer')?.ips ?? []),
		]
		const sameFamily = nodeIps.filter((ip) => familyOf(ip) === familyOf(sent.source) && ip !== sent.source)
		const watched = { protocol, port: connection.port, sources: [sent.source, ...sameFamily] }
		for (const where of request.observe === false ? [] : placesToWatch(request, access, missing)) {
			const namespace = placeOf(where, access).namespace
			try {
				observations.push(new Observation(where, namespace, watched, missing))
			} catch (e) {
				if (!isFailure(e)) throw e
				missing.push(`everything on ${whereText(where)}: ${messageOf(e)}`)
			}
		}
		await observations.at(-1)?.ready()
		const payload = request.payload === undefined ? undefined : Buffer.from(request.payload, 'base64')
		const result = await connection.run(request.to, request.port, request.timeout, payload)
		const { answer } = result
		return {
			outcome: result.outcome,
			...(result.errno === undefined ? {} : { errno: result.errno }),
			source: { ip: connection.ip, port: connection.port },
			elapsed: result.elapsed,
			...(answer === undefined ? {} : { answer: answer.toString('utf8'), answerBytes: answer.toString('base64') }),
			...tell(sent, watched.sources, observations, access, missing),
			missing,
		}
	} finally {
		connection.close()
		for (const observation of observations) observation.close()
	}
}

function sourceOf({ from }: ProbeRequest): Where {
	return 'outside' in from ? { place: 'outside' } : from
}

function placeOf(where: Where, access: ProbeAccess): ProbePlace {
	const place =
		'pod' in where ? access.pod(where.pod) : 'node' in where ? access.node(where.node) : access.place?.(where.place)
	if (place === undefined)
		throw new Failure('NotFound', `Cannot probe ${whereText(where)}: it is not wired on this machine`)
	return place
}

/** The source, the nodes, the pods the connection may end in; each once. */
function placesToWatch(request: ProbeRequest, access: ProbeAccess, missing: string[]): Where[] {
	const places: Where[] = []
	for (const node of request.nodes) {
		if (access.node(node) !== undefined) places.push({ node })
		else missing.push(`everything on node ${JSON.stringify(node)}: it is not on this machine`)
	}
	if ('node' in request.from && !request.nodes.includes(request.from.node)) places.push(request.from)
	if ('outside' in request.from) places.push({ place: 'outside' })
	if ('outside' in request.from || access.balances?.(request.to) === true) {
		if (access.place?.('load balancer') !== undefined) places.push({ place: 'load balancer' })
	}
	// A hostNetwork pod has no interface of its own: everything there is the node's.
	const watched = new Set(places.map((place) => placeOf(place, access).namespace))
	const pods = new Set<ObjectKey>()
	const add = (pod: ObjectKey) => {
		const namespace = access.pod(pod)?.namespace
		if (namespace !== undefined && !watched.has(namespace)) pods.add(pod)
	}
	if ('pod' in request.from) add(request.from.pod)
	for (const pod of access.targets(request.to, request.port, request.protocol)) add(pod)
	if (pods.size > watchedPods)
		missing.push(`packet capture in ${pods.size - watchedPods} of ${pods.size} pods: too many`)
	for (const pod of [...pods].slice(0, watchedPods)) places.push({ pod })
	return places
}

function openConnection(place: ProbePlace, to: Ip, protocol: 'TCP' | 'UDP'): ProbeConnection {
	const netns = openNetns(place.namespace)
	try {
		return new ProbeConnection(netns, sourceFor(netns, place, to), protocol)
	} finally {
		close(netns)
	}
}

/** The address the kernel itself would take; where no route leads there, the place's own of that family. */
function sourceFor(netns: number, place: ProbePlace, to: Ip): Ip {
	const socket = inNetns(netns, () => new NetlinkSocket(NETLINK_ROUTE))
	try {
		const source = lookUpRoute(socket, new NetlinkEncoder(128), to)?.source
		if (source !== undefined) return source
	} catch (e) {
		if (!isFailure(e)) throw e
	} finally {
		socket.close()
	}
	const own = place.ips.find((ip) => familyOf(ip) === familyOf(to))
	if (own === undefined)
		throw new Failure('EADDRNOTAVAIL', `Cannot probe ${to}: the source has no address of that family`)
	return own
}

function tell(
	sent: Tuple,
	sources: readonly Ip[],
	observations: readonly Observation[],
	access: ProbeAccess,
	missing: string[],
): Pick<ProbeResult, 'rules' | 'sightings' | 'conntrack' | 'counters'> {
	const nodes = observations.flatMap((each) => {
		const { where } = each
		if ('node' in where) return [{ node: where.node, each }]
		return 'place' in where && where.place === 'load balancer' ? [{ node: where.place as NodeName, each }] : []
	})
	const connections = nodes.map(({ each }) => each.connections())
	const forms = new FlowForms(sent, connections.flat(), sources)
	const renamed = connections.flat().find((c) => c.reply.destinationPort !== sent.sourcePort)
	if (renamed !== undefined) {
		missing.push(
			`packets after source port ${sent.sourcePort} became ${renamed.reply.destinationPort}: captures follow the port`,
		)
	}
	const sightings = tellSightings(forms, observations)
	// Nodes in the order the packet met them: traces carry no time.
	const met = (node: NodeName) => {
		const at = sightings.findIndex((s) => (s.node ?? s.place) === node)
		return at < 0 ? sightings.length : at
	}
	const inOrder = [...nodes].sort((a, b) => met(a.node) - met(b.node))
	const forth: TracedRule[] = []
	const back: TracedRule[] = []
	for (const { node, each } of inOrder) {
		const rules = tellRules(node, each, forms, sent, access)
		forth.push(...rules.forth)
		// The way back meets the nodes in reverse.
		back.unshift(...rules.back)
	}
	return {
		rules: [...forth, ...back],
		sightings,
		conntrack: nodes.flatMap(({ node }, i) => (connections[i] as Connection[]).map((c) => toEntry(node, c))),
		counters: nodes.flatMap(({ node, each }) =>
			each.counters().map(({ packets, ...rule }) => ({ node, rule: describe(each, rule, access), packets })),
		),
	}
}

/** The first packet of each direction on each interface, in time order. */
function tellSightings(forms: FlowForms, observations: readonly Observation[]): Sighting[] {
	const seen = new Set<string>()
	const found: { readonly time: bigint; readonly sighting: Omit<Sighting, 'microseconds'> }[] = []
	for (const [i, each] of observations.entries()) {
		for (const packet of each.packets()) {
			const direction = packet.icmp
				? forms.concerns(packet.destination)
					? 'back'
					: undefined
				: forms.directionOf(packet)
			if (direction === undefined) continue
			const key = `${i} ${packet.index} ${packet.direction} ${direction}`
			if (seen.has(key)) continue
			seen.add(key)
			found.push({
				time: packet.time,
				sighting: {
					...each.where,
					device: packet.device,
					direction: packet.direction,
					source: packet.source,
					sourcePort: packet.icmp ? 0 : packet.sourcePort,
					destination: packet.destination,
					destinationPort: packet.icmp ? 0 : packet.destinationPort,
					reply: direction === 'back',
					flags: packet.flags,
				},
			})
		}
	}
	found.sort((a, b) => (a.time < b.time ? -1 : a.time > b.time ? 1 : 0))
	const first = found[0]?.time ?? 0n
	return found.map(({ time, sighting }) => ({ ...sighting, microseconds: Number(time - first) / 1000 }))
}

/** What the first packet of each direction met on one node. */
function tellRules(
	node: NodeName,
	observation: Observation,
	forms: FlowForms,
	sent: Tuple,
	access: ProbeAccess,
): { readonly forth: TracedRule[]; readonly back: TracedRule[] } {
	const packets = { forth: [] as TraceMessage[], back: [] as TraceMessage[] }
	for (const message of observation.traces()) {
		const way =
			(['forth', 'back'] as const).find((w) => packets[w][0]?.id === message.id) ?? wayOf(message, forms, sent)
		// A later packet of the same direction (the ACK, data, a second try) tells nothing new.
		if (way !== undefined && (packets[way][0]?.id ?? message.id) === message.id) packets[way].push(message)
	}
	const happened = (packet: Packet) => forms.directionOf(packet) === 'forth'
	const hits =
		observation.program === undefined
			? undefined
			: hitsOfTrace(observation.program, packets.forth, (index) => observation.deviceOf(index), happened)
	const tellAll = (messages: readonly TraceMessage[], found: ReadonlyMap<string, NftHit> | undefined): TracedRule[] =>
		messages
			.filter((message) => message.kind !== 'return')
			.map((message) => ({ node, ...describe(observation, message, access, found), verdict: verdictText(message) }))
	return { forth: tellAll(packets.forth, hits), back: tellAll(packets.back, undefined) }
}

function wayOf(message: TraceMessage, forms: FlowForms, sent: Tuple): 'forth' | 'back' | undefined {
	if (message.packet === undefined) return undefined
	const known = forms.directionOf(message.packet)
	if (known !== undefined) return known
	// Without an entry in connection tracking (dropped before one was kept) the ends we know decide.
	const { source, sourcePort, destination, destinationPort } = message.packet
	if (source === sent.source && sourcePort === sent.sourcePort) return 'forth'
	return destination === sent.source && destinationPort === sent.sourcePort ? 'back' : undefined
}

function verdictText(message: TraceMessage): string {
	return message.target === undefined ? message.verdict : `${message.verdict} ${message.target}`
}

interface RulePlace {
	readonly family: string
	readonly table: string
	readonly chain: string
	/** undefined: the chain's policy. */
	readonly handle?: number | undefined
}

function describe(
	observation: Observation,
	at: RulePlace,
	access: ProbeAccess,
	hits?: ReadonlyMap<string, NftHit>,
): RuleHit {
	const { family, table, chain, handle } = at
	const place = { family, table, chain }
	if (handle === undefined) return { ...place, text: `policy of chain ${chain}`, elements: [], because: [] }
	const hit =
		hits?.get(hitKey({ ...place, handle })) ??
		(observation.program === undefined ? undefined : describeHandle(observation.program, family, table, chain, handle))
	if (hit === undefined) return { ...place, handle, text: `handle ${handle}`, elements: [], because: [] }
	return {
		...place,
		handle,
		text: hit.text,
		...(hit.comment === undefined ? {} : { comment: hit.comment }),
		elements: hit.elements,
		because: access.because?.(hit) ?? [],
	}
}

function toEntry(node: NodeName, connection: Connection): ConntrackEntry {
	const ends = ({ source, sourcePort, destination, destinationPort }: Tuple) => ({
		source,
		sourcePort,
		destination,
		destinationPort,
	})
	return {
		node,
		protocol: connection.original.protocol,
		...(connection.state === undefined ? {} : { state: connection.state }),
		original: ends(connection.original),
		reply: ends(connection.reply),
	}
}
