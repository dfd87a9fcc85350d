// The law of Services at the socket: on generated clusters a call is led to the very endpoints, with the very chances, that
// the model's own words (findFrontend, treat) give its client; or it is left to packets, exactly where the words ask for
// what a socket cannot do: a masquerade, a refusal, a question about the packet's source.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { familyOf, type Ip } from '../../src/base/ip.ts'
import type { Packet } from '../../src/base/packet.ts'
import { createEbpf } from '../../src/dataplane/ebpf/ebpf.ts'
import { evaluateCall } from '../../src/dataplane/ebpf/evaluate.ts'
import { build } from '../../src/model/build.ts'
import { findFrontend, frontendsOf, nodePortIps, placeOf, treat } from '../../src/model/frontends.ts'
import { type NetworkModel, type Node, podAddresses } from '../../src/model/network.ts'
import { apply, edits, nothing } from './cluster.ts'
import './seed.ts'

const seen = { led: 0, 'no Service': 0, 'by its source': 0, 'nobody serves': 0, masquerade: 0, itself: 0, SCTP: 0 }
type Left = Exclude<keyof typeof seen, 'led'>

test('calls at the socket = the words of the model', () => {
	fc.assert(
		fc.property(edits, (list) => {
			const planes = new Map<string, ReturnType<typeof createEbpf>>()
			let state = nothing
			let model = build(state)
			for (const [i, edit] of list.entries()) {
				const next = apply(state, edit)
				model = build(next, { state, model })
				state = next
				// One that has compiled before: what it keeps must not show.
				if (i % 3 !== 0) continue
				for (const node of model.nodes.keys()) {
					const plane = planes.get(node) ?? createEbpf()
					planes.set(node, plane)
					plane.compile(model, node)
				}
			}
			for (const node of model.nodes.values()) {
				const plane = planes.get(node.name) ?? createEbpf()
				const program = plane.compile(model, node.name)
				const anew = createEbpf().compile(model, node.name)
				assert.deepEqual(plane.toJson(program), plane.toJson(anew))
				for (const source of clientsOf(model, node)) {
					for (const to of targets(model, node)) {
						if (familyOf(to.ip) !== familyOf(source)) continue
						const packet: Packet = {
							protocol: to.protocol,
							source,
							sourcePort: 0,
							destination: to.ip,
							destinationPort: to.port,
							state: 'new',
							mark: 0,
						}
						const call = to.protocol === 'UDP' ? 'sendmsg' : 'connect'
						const got = evaluateCall(program, packet, call)
						const want = should(model, node, packet)
						seen[typeof want === 'string' ? want : 'led']++
						const outcomes = typeof want === 'string' ? [`${to.ip} ${to.port} 1.000000`] : want
						assert.deepEqual(
							got.map((o) => `${o.packet.destination} ${o.packet.destinationPort} ${o.chance.toFixed(6)}`).sort(),
							outcomes,
							JSON.stringify({ node: node.name, packet, want }),
						)
						for (const one of got) assert.deepEqual([one.verdict, one.packet.source], ['accept', source])
					}
				}
			}
		}),
		{ numRuns: 60, endOnFailure: true },
	)
	for (const [what, count] of Object.entries(seen)) assert.ok(count > 3, `${what} was seen ${count} times only`)
})

/** Sockets of the node: its pods' and its own. */
function clientsOf(model: NetworkModel, node: Node): Ip[] {
	const all = nodePortIps({ config: { ...model.config, nodePortAddresses: undefined as never } }, node).slice()
	for (const pod of model.pods.values()) if (pod.node === node.name) all.push(...podAddresses(pod))
	return all.filter((ip) => placeOf(model, node, ip) !== 'outside')
}

function targets(model: NetworkModel, node: Node): { ip: Ip; protocol: Packet['protocol']; port: number }[] {
	const all = new Map<string, { ip: Ip; protocol: Packet['protocol']; port: number }>()
	for (const service of model.services.values()) {
		for (const port of service.ports) {
			for (const frontend of frontendsOf(service, port)) {
				for (const ip of frontend.ip === undefined ? nodePortIps(model, node) : [frontend.ip]) {
					if (familyOf(ip) !== frontend.family) continue
					for (const number of [frontend.port, frontend.port + 7])
						all.set(`${ip} ${frontend.protocol} ${number}`, { ip, protocol: frontend.protocol, port: number })
				}
			}
		}
	}
	return [...all.values()]
}

/** Endpoints with their chances, or why the call is left to packets. */
function should(model: NetworkModel, node: Node, packet: Packet): string[] | Left {
	const { source, destination, destinationPort, protocol } = packet
	const found = findFrontend(model, node, { ip: destination, protocol, port: destinationPort })
	if (found?.kind !== 'frontend') return 'no Service'
	const { service, port, frontend } = found
	if (protocol === 'SCTP') return 'SCTP'
	if (frontend.sourceRanges !== undefined) return 'by its source'
	const place = placeOf(model, node, source)
	const client = { place, node: node.name, ...(node.zone === undefined ? {} : { zone: node.zone }) }
	const { serving, masquerade } = treat(service, port, frontend, client)
	if (serving.none !== undefined) return 'nobody serves'
	// A process of the node has the node's address, masqueraded or not.
	if (place === 'pod' && masquerade !== undefined) return 'masquerade'
	if (place === 'pod' && serving.endpoints.some((e) => e.ip === source)) return 'itself'
	return serving.endpoints.map((e) => `${e.ip} ${e.port} ${(1 / serving.endpoints.length).toFixed(6)}`).sort()
}
