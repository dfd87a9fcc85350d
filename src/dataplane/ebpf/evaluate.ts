// What becomes of a call at the socket: our own code, run on paper on the maps of a program. Without a program attached
// at the place, and for every other hook, the packet goes on as it is.

import { familyOf, type Ip, ipToBytes } from '../../base/ip.ts'
import type { Hook, Packet, Protocol } from '../../base/packet.ts'
import { interpret, type Lookup, type Outcome, type Surroundings } from '../../linux/bpf/interpret.ts'
import type { AttachType } from '../../linux/bpf/system.ts'
import { defaultOrigin, type Origin } from '../../model/origin.ts'
import type { Evaluated, RuleHit } from '../dataplane.ts'
import { parseOrigin } from '../origin.ts'
import { codes, IPPROTO_TCP, IPPROTO_UDP, sockAddr } from './code.ts'
import { attachedCode } from './compile.ts'
import {
	choiceValue,
	chunks,
	chunksOf,
	type MapName,
	mapLayouts,
	mapNames,
	namespaceValue,
	readFrontendKey,
	readMember,
	readRemembered,
	writeChunk,
	writeIp,
} from './layout.ts'
import {
	type Address,
	addressText,
	type EbpfFrontend,
	type EbpfNamespace,
	type EbpfProgram,
	frontendKey,
} from './program.ts'

/** Which of the calls of a process: connect, or sending a datagram from a socket that is not connected. */
export type SocketCall = 'connect' | 'sendmsg'

/**
 * All outcomes of connect for one packet. A connected UDP socket is left to the packet rules: that is what is said of
 * UDP here. Throws Error where the attached code is none of this version's (read gives its tag).
 */
export function evaluate(program: EbpfProgram, packet: Packet, at: Hook): readonly Evaluated[] {
	return at === 'connect' ? evaluateCall(program, packet, 'connect') : [untouched(packet)]
}

function untouched(packet: Packet): Evaluated {
	return { verdict: 'accept', packet, rules: [], chance: 1 }
}

const protocols: Partial<Record<Protocol, number>> = { TCP: IPPROTO_TCP, UDP: IPPROTO_UDP, SCTP: 132 }

export function evaluateCall(program: EbpfProgram, packet: Packet, call: SocketCall): readonly Evaluated[] {
	const family = familyOf(packet.destination)
	const type: AttachType = `${call}${family}`
	const tag = program.attached.get(type)
	const protocol = protocols[packet.protocol]
	if (tag === undefined || protocol === undefined) return [untouched(packet)]
	if (tag !== attachedCode().get(type))
		throw new Error(`the program at ${type} (tag ${tag}) is none that is known here: it cannot be evaluated`)
	const socket = [...program.namespaces.values()].find((n) => n.ips.includes(packet.source))
	const outcomes = interpret(codes[type], {
		context: contextOf(packet, protocol),
		sizes,
		surroundings: () => mapsOf(program, socket),
	})
	return merge(outcomes.map((outcome) => evaluated(program, packet, type, socket, outcome)))
}

const sizes = Object.fromEntries(
	mapNames.map((name) => [name, { key: mapLayouts[name].keySize, value: mapLayouts[name].valueSize }]),
)

function contextOf(packet: Packet, protocol: number): Uint8Array {
	const bytes = new Uint8Array(sockAddr.bytes)
	const view = new DataView(bytes.buffer)
	bytes.set(ipToBytes(packet.destination), familyOf(packet.destination) === 4 ? sockAddr.ip4 : sockAddr.ip6)
	view.setUint16(sockAddr.port, packet.destinationPort)
	view.setUint32(sockAddr.protocol, protocol, true)
	return bytes
}

/** Any number that is no other's: programs only compare it. */
const ownCookie = 1n
const foreignCookie = 0n
/** When the clock of the evaluation stands, nanoseconds. */
const evaluationTime = 1n

/** The maps as the programs see them, made from the program as data when they are asked for. */
function mapsOf(program: EbpfProgram, socket: EbpfNamespace | undefined): Surroundings {
	const find = (id: Parameters<typeof frontendKey>[0]): EbpfFrontend | undefined =>
		program.frontends.get(frontendKey(id))
	return {
		netnsCookie: () => (socket === undefined ? foreignCookie : ownCookie),
		socketCookie: () => ownCookie,
		now: () => evaluationTime,
		lookUp(name, key) {
			const map = name as MapName
			switch (map) {
				case 'namespaces':
					return socket !== undefined && new DataView(key.buffer, key.byteOffset).getBigUint64(0, true) === ownCookie
						? namespaceValue(socket)
						: undefined
				case 'frontends4':
				case 'frontends6': {
					const { id, chunk } = readFrontendKey(key, map === 'frontends4' ? 4 : 6)
					const frontend = find(id)
					if (frontend === undefined || chunk >= chunksOf(frontend)) return undefined
					const value = new Uint8Array(mapLayouts[map].valueSize)
					writeChunk(value, 0, frontend, chunk)
					return value
				}
				case 'members': {
					const { id, endpoint } = readMember(key)
					return find(id)?.members.some((m) => same(m, endpoint)) === true ? new Uint8Array(4) : undefined
				}
				case 'clients': {
					const { id } = readRemembered(key, new Uint8Array(mapLayouts.clients.valueSize))
					const client = program.clients?.find((c) => c.namespace === socket?.path && c.frontend === frontendKey(id))
					return client === undefined ? undefined : choiceValue(client.endpoint, evaluationTime + 1n)
				}
				// A new socket has no memory.
				case 'datagrams':
				case 'replies':
				case 'origins4':
				case 'origins6':
					return undefined
				case 'peers':
					return new Uint8Array(mapLayouts.peers.valueSize)
				default:
					return map satisfies never
			}
		},
	}
}

function same(a: Address, b: Address): boolean {
	return a.port === b.port && a.ip === b.ip
}

function evaluated(
	program: EbpfProgram,
	packet: Packet,
	type: AttachType,
	socket: EbpfNamespace | undefined,
	outcome: Outcome,
): Evaluated {
	const context = new DataView(outcome.context.buffer)
	const family = familyOf(packet.destination)
	const at = family === 4 ? sockAddr.ip4 : sockAddr.ip6
	const bytes = outcome.context.subarray(at, at + (family === 4 ? 4 : 16))
	const port = context.getUint16(sockAddr.port)
	const translated = port !== packet.destinationPort || !equal(bytes, packet.destination)
	const frontend = frontendOf(program, outcome.lookups)
	if (frontend === undefined || socket === undefined) return { ...untouched(packet), chance: outcome.chance }
	const endpoint = frontend.endpoints.find((e) => e.port === port && equal(bytes, e.ip))
	const next: Packet =
		translated && endpoint !== undefined
			? { ...packet, destination: endpoint.ip, destinationPort: endpoint.port }
			: packet
	return {
		verdict: outcome.result === 1n ? 'accept' : 'reject',
		packet: next,
		rules: [hitOf(type, socket, frontend, outcome, next === packet ? undefined : endpoint)],
		chance: outcome.chance,
	}
}

function equal(bytes: Uint8Array, ip: Ip): boolean {
	const other = new Uint8Array(bytes.length)
	if (bytes.length !== (familyOf(ip) === 4 ? 4 : 16)) return false
	writeIp(other, 0, ip)
	return other.every((b, i) => b === bytes[i])
}

function frontendOf(program: EbpfProgram, lookups: readonly Lookup[]): EbpfFrontend | undefined {
	const lookup = lookups.find((l) => l.found && (l.map === 'frontends4' || l.map === 'frontends6'))
	if (lookup === undefined) return undefined
	return program.frontends.get(frontendKey(readFrontendKey(lookup.key, lookup.map === 'frontends4' ? 4 : 6).id))
}

/** What decided, in words, with the elements that were looked at. */
function hitOf(
	type: AttachType,
	socket: EbpfNamespace,
	frontend: EbpfFrontend,
	{ lookups }: Outcome,
	endpoint: Address | undefined,
): RuleHit {
	const family = familyOf(frontend.ip)
	const origin: Origin | undefined = parseOrigin(frontend.comment)
	const why = reason(frontend, lookups, endpoint)
	const chosen = endpoint === undefined ? -1 : frontend.endpoints.findIndex((e) => same(e, endpoint))
	const elements = [
		`namespaces: ${socket.path} : ${socket.place}`,
		`frontends${family}: ${frontendKey(frontend)} : ${frontend.endpoints.length} ${frontend.endpoints.length === 1 ? 'endpoint' : 'endpoints'}`,
	]
	if (endpoint !== undefined) {
		const { endpoints } = chunks[family]
		const chunk = Math.floor(chosen / endpoints)
		elements.push(
			`frontends${family}${chunk === 0 ? '' : ` chunk ${chunk}`}: slot ${chosen} : ${addressText(endpoint)}`,
		)
	}
	return {
		family: 'bpf',
		table: type,
		chain: `frontends${family}`,
		text:
			endpoint === undefined
				? `${frontendKey(frontend)} left to packets: ${why}`
				: `${frontendKey(frontend)} becomes ${addressText(endpoint)}: ${why}`,
		...(frontend.comment === '' ? {} : { comment: frontend.comment }),
		elements,
		because: [
			origin ?? defaultOrigin(frontend.comment === '' ? 'a Service address without an origin' : frontend.comment),
		],
	}
}

function reason(frontend: EbpfFrontend, lookups: readonly Lookup[], endpoint: Address | undefined): string {
	const asked = lookups.filter((l) => l.map === 'members' && l.found)
	if (endpoint === undefined) {
		if (asked.length > 0) return 'this pod is one of its endpoints, and one that reaches itself must be masqueraded'
		if (frontend.nodeOnly === true) return 'a pod must be masqueraded there'
		return 'no endpoint in its place'
	}
	if (lookups.some((l) => l.map === 'clients' && l.found) && asked.length > 0)
		return 'the endpoint this client had before'
	return frontend.endpoints.length === 1 ? 'its endpoint' : `one of ${frontend.endpoints.length} endpoints`
}

/** Slots with the same endpoint are one outcome. */
function merge(all: readonly Evaluated[]): Evaluated[] {
	const merged = new Map<string, Evaluated>()
	for (const one of all) {
		const key = `${one.verdict} ${one.packet.destination} ${one.packet.destinationPort}`
		const old = merged.get(key)
		merged.set(key, old === undefined ? one : { ...old, chance: old.chance + one.chance })
	}
	return [...merged.values()]
}
