// Names outside of the cluster's domain: those the user has written down, and for the rest the servers that know (as the
// plugins hosts and forward of CoreDNS). Where there is neither, such names are answered by nobody.

import { createSocket } from 'node:dgram'
import { Socket } from 'node:net'
import type { Clock } from '../../base/clock.ts'
import { familyOf, type Ip, type IpFamily } from '../../base/ip.ts'
import { normalName } from '../../model/zone.ts'
import type { Forward } from './responder.ts'
import { type DnsMessage, decodeMessage, encodeMessage, type WireRecord } from './wire.ts'

/** Plain data: it crosses sockets as JSON. */
export interface OutsideNames {
	readonly hosts: readonly OutsideHost[]
	/** Asked in this order on port 53, the next where one does not answer. */
	readonly upstreams: readonly Ip[]
}

export interface OutsideHost {
	readonly name: string
	readonly addresses: readonly Ip[]
	/** Seconds. */
	readonly ttl: number
}

export const noOutsideNames: OutsideNames = { hosts: [], upstreams: [] }

/** Sockets in the namespace that the server answers in. */
export interface OutsideSockets {
	/** Bound, of the family. Whoever gets it closes it. */
	udp(family: IpFamily): number
	/** On its way to the server; it does not block. */
	tcp(server: Ip, port: number): number
}

/** Milliseconds for each server. A resolver gives up after five seconds. */
const patience = 1_500
const port = 53

/** undefined: nothing is known of names outside. */
export function forwardOutside(
	{ hosts, upstreams }: OutsideNames,
	sockets: OutsideSockets,
	clock: Clock,
): Forward | undefined {
	if (hosts.length === 0 && upstreams.length === 0) return undefined
	const byName = new Map<string, OutsideHost>(hosts.map((host) => [normalName(host.name), host]))
	return async (query) => {
		const asked = decodeMessage(query)
		const host = byName.get(normalName(asked.questions[0]?.name ?? ''))
		if (host !== undefined) return encodeMessage(answerOf(host, asked))
		let failure: unknown = new Error('no server for names outside of the cluster')
		for (const server of upstreams) {
			try {
				const answer = await askUdp(sockets, clock, server, query)
				// What was cut is asked for whole.
				return isTruncated(answer) ? await askTcp(sockets, clock, server, query) : answer
			} catch (e) {
				failure = e
			}
		}
		throw failure
	}
}

function answerOf({ addresses, ttl }: OutsideHost, query: DnsMessage): DnsMessage {
	const question = query.questions[0]!
	const answers = addresses.flatMap((address): WireRecord[] => {
		const type = familyOf(address) === 4 ? 'A' : 'AAAA'
		const isWanted = question.type === type || question.type === 'ANY'
		return isWanted ? [{ name: question.name, class: 1, ttl, type, address }] : []
	})
	return { ...query, response: true, recursionAvailable: true, answers, authorities: [], additionals: [] }
}

function isTruncated(answer: Uint8Array): boolean {
	return (answer[2]! & 2) !== 0
}

/** An answer to this very question, and no other that happens to come. */
function answers(query: Uint8Array, answer: Uint8Array): boolean {
	if (answer.length < 12 || answer[0] !== query[0] || answer[1] !== query[1] || (answer[2]! & 0x80) === 0) return false
	const [asked, told] = [decodeMessage(query), decodeMessage(answer)].map(({ questions: [q] }) => q)
	return asked !== undefined && normalName(told?.name ?? '') === normalName(asked.name) && told?.type === asked.type
}

function askUdp(sockets: OutsideSockets, clock: Clock, server: Ip, query: Uint8Array): Promise<Uint8Array> {
	const family = familyOf(server)
	const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>()
	const socket = createSocket(family === 4 ? 'udp4' : 'udp6')
	const cancel = clock.after(patience, () => reject(new Error(`${server} does not answer`)))
	socket.on('message', (answer) => {
		if (answers(query, answer)) resolve(answer)
	})
	socket.on('error', reject)
	// Connected, so that only the server is heard, and that nobody is there is known at once.
	socket.bind({ fd: sockets.udp(family) }, () => socket.connect(port, server, () => socket.send(query)))
	return promise.finally(() => {
		cancel()
		socket.close()
	})
}

function askTcp(sockets: OutsideSockets, clock: Clock, server: Ip, query: Uint8Array): Promise<Uint8Array> {
	const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>()
	const socket = new Socket({ fd: sockets.tcp(server, port), readable: true, writable: true })
	const cancel = clock.after(patience, () => reject(new Error(`${server} does not answer`)))
	let held: Buffer = Buffer.alloc(0)
	socket.on('data', (chunk) => {
		held = Buffer.concat([held, chunk])
		if (held.length < 2 || held.length < 2 + held.readUInt16BE(0)) return
		const answer = held.subarray(2, 2 + held.readUInt16BE(0))
		if (answers(query, answer)) resolve(answer)
		else reject(new Error(`${server} answers something else`))
	})
	socket.on('error', reject)
	socket.on('close', () => reject(new Error(`${server} does not answer`)))
	socket.write(Buffer.concat([Buffer.from([query.length >> 8, query.length & 255]), query]))
	return promise.finally(() => {
		cancel()
		socket.destroy()
	})
}
