// The law between the first two witnesses: what the walk says should become of a packet for a Service is what the
// evaluation of the compiled nftables program says would: the same endpoints with the same chances, the same
// translation of the source, the same rejections and drops. For every pod and node, every frontend and near misses.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Ip } from '../../src/base/ip.ts'
import type { Packet } from '../../src/base/packet.ts'
import { evaluate } from '../../src/dataplane/nftables/evaluate.ts'
import { createNftables } from '../../src/dataplane/nftables/nftables.ts'
import { build } from '../../src/model/build.ts'
import type { NetworkModel, Node } from '../../src/model/network.ts'
import { routeFrom } from '../../src/walk/route.ts'
import type { Flow, FlowSource } from '../../src/walk/trace.ts'
import { clientPort, walk } from '../../src/walk/walk.ts'
import { apply, type Edit, edits, nothing } from './cluster.ts'

/** `endpoint from source` or `reject` or `drop`, each with its chance. */
type Outcomes = Map<string, number>

interface Client {
	readonly from: FlowSource
	readonly node: Node
	readonly source: Ip
}

test('walk = evaluated nftables program', () => {
	const seen = { translated: 0, masqueraded: 0, reject: 0, drop: 0 }
	fc.assert(
		fc.property(edits, (list) => {
			let state = nothing
			let model = build(state)
			for (const edit of list.filter((e) => !isPolicy(e))) {
				const next = apply(state, edit)
				model = build(next, { state, model })
				state = next
			}
			for (const node of model.nodes.values()) {
				const nftables = createNftables()
				const program = nftables.compile(model, node.name)
				const evaluated = (packet: Packet, client: Client) =>
					would(model, client, packet, (p, at) =>
						evaluate(program, p, at, {
							original: packet,
							connectionStatus: p.destination === packet.destination ? 0 : 32,
							masqueradeAddress: () => client.node.addresses[0],
						}),
					)
				for (const client of clientsOn(model, node)) {
					for (const to of frontends(model)) {
						const flow: Flow = { from: client.from, to: { ip: to.ip }, protocol: to.protocol, port: to.port }
						const packet: Packet = {
							protocol: to.protocol,
							source: client.source,
							sourcePort: clientPort,
							destination: to.ip,
							destinationPort: to.port,
							state: 'new',
							mark: 0,
						}
						const expected = should(model, flow, client)
						assert.deepEqual(text(evaluated(packet, client)), text(expected), JSON.stringify(flow))
						for (const key of expected.keys()) {
							if (key === 'reject' || key === 'drop') seen[key]++
							else if (key.endsWith(`from ${client.source}`)) seen.translated++
							else seen.masqueraded++
						}
					}
				}
			}
		}),
		{ numRuns: 100 },
	)
	for (const [what, count] of Object.entries(seen)) assert.ok(count > 3, `${what} was seen ${count} times only`)
})

function isPolicy(edit: Edit): boolean {
	return ('set' in edit ? edit.set.kind : 'place' in edit ? edit.place.kind : edit.delete.kind) === 'NetworkPolicy'
}

/** The pods of the node that can send, and the node itself. */
function clientsOn(model: NetworkModel, node: Node): Client[] {
	const clients: Client[] = [{ from: { kind: 'node', node: node.name }, node, source: node.addresses[0]! }]
	for (const pod of model.pods.values()) {
		const source = pod.ips[0]
		if (pod.node !== node.name || pod.hostNetwork || source === undefined) continue
		// A pod that ended sends nothing.
		if (pod.phase === 'Succeeded' || pod.phase === 'Failed') continue
		clients.push({ from: { kind: 'pod', pod: pod.key }, node, source })
	}
	return clients
}

function frontends(model: NetworkModel) {
	const all: { ip: Ip; protocol: 'TCP' | 'UDP'; port: number }[] = [
		{ ip: '10.96.9.9' as Ip, protocol: 'TCP', port: 80 },
	]
	for (const service of model.services.values()) {
		for (const ip of service.clusterIps) {
			for (const [protocol, port] of [
				['TCP', 80],
				['TCP', 81],
				['UDP', 53],
				['UDP', 80],
				['TCP', 9],
			] as const)
				all.push({ ip, protocol, port })
		}
	}
	return all
}

/** What the walk says leaves the client's node. */
function should(model: NetworkModel, flow: Flow, { node }: Client): Outcomes {
	const outcomes: Outcomes = new Map()
	for (const trace of walk(model, flow)) {
		const steps = trace.hops.filter((h) => h.node === node.name).flatMap((h) => h.steps)
		const translations = steps.filter((s) => s.step === 'translate')
		const drop = steps.find((s) => s.step === 'drop')
		const last = translations.at(-1)
		if (last !== undefined) count(outcomes, leaving(last.after), trace.chance)
		else {
			assert.ok(drop?.step === 'drop', JSON.stringify(trace))
			count(outcomes, drop.how, trace.chance)
		}
	}
	return outcomes
}

type Evaluate = (
	packet: Packet,
	at: 'prerouting' | 'output' | 'input' | 'forward' | 'postrouting',
) => readonly { verdict: string; packet: Packet; chance: number }[]

/** What the program of the client's node says: its hooks in the order a packet meets them. */
function would(model: NetworkModel, client: Client, packet: Packet, evaluate: Evaluate): Outcomes {
	const outcomes: Outcomes = new Map()
	const follow = (p: Packet, hooks: readonly Parameters<Evaluate>[1][], chance: number): void => {
		const [hook, ...rest] = hooks
		if (hook === undefined) {
			count(outcomes, leaving(p), chance)
			return
		}
		for (const outcome of evaluate(p, hook)) {
			const next = chance * outcome.chance
			if (outcome.verdict === 'accept')
				follow(outcome.packet, hook === 'prerouting' ? afterRouting(model, client, outcome.packet) : rest, next)
			else count(outcomes, outcome.verdict, next)
		}
	}
	follow(packet, client.from.kind === 'node' ? ['output', 'postrouting'] : ['prerouting'], 1)
	return outcomes
}

/** Local delivery or forwarding; the routing itself is not this program's. */
function afterRouting(model: NetworkModel, { node }: Client, packet: Packet): readonly Parameters<Evaluate>[1][] {
	return routeFrom(model, node, packet.destination).to === 'self' ? ['input'] : ['forward', 'postrouting']
}

function leaving(packet: Packet): string {
	return `${packet.destination}:${packet.destinationPort} from ${packet.source}`
}

function count(outcomes: Outcomes, key: string, chance: number): void {
	outcomes.set(key, (outcomes.get(key) ?? 0) + chance)
}

function text(outcomes: Outcomes): string[] {
	return [...outcomes].map(([key, chance]) => `${key} ${chance.toFixed(6)}`).sort()
}
