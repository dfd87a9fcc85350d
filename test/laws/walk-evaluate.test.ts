// The law between the first two witnesses: what the walk says should become of a packet for a Service is what the
// evaluation of the compiled nftables program says would: the same endpoints with the same chances, the same
// translation of the source, the same rejections and drops. For every pod and node, every frontend and near misses.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { cidrContains, familyOf, type Ip } from '../../src/base/ip.ts'
import type { Packet } from '../../src/base/packet.ts'
import { evaluate } from '../../src/dataplane/nftables/evaluate.ts'
import { createNftables } from '../../src/dataplane/nftables/nftables.ts'
import { build } from '../../src/model/build.ts'
import { findFrontend, frontendsOf } from '../../src/model/frontends.ts'
import type { NetworkModel, Node } from '../../src/model/network.ts'
import { routeFrom } from '../../src/walk/route.ts'
import type { Disposition, Flow, FlowSource } from '../../src/walk/trace.ts'
import { clientPort, walk, walkAt } from '../../src/walk/walk.ts'
import { apply, type Edit, edits, nothing } from './cluster.ts'
import './seed.ts'

/** `endpoint from source` or `reject` or `drop`, each with its chance. */
type Outcomes = Map<string, number>

interface Client {
	/** Undefined: the packet comes over the wire. */
	readonly from?: FlowSource
	readonly node: Node
	readonly source: Ip
	/** A pod of another node: only for the ports of this one it comes by, at all else its own node takes it. */
	readonly elsewhere?: true
}

interface Frontend {
	readonly ip: Ip
	readonly protocol: 'TCP' | 'UDP' | 'SCTP'
	readonly port: number
}

test('walk = evaluated nftables program', () => {
	const seen = { translated: 0, masqueraded: 0, passed: 0, reject: 0, drop: 0, elsewhere: 0 }
	fc.assert(
		fc.property(edits, (list) => {
			let state = nothing
			let model = build(state)
			// Compiled twice on the way: what is left of an earlier cluster must not show.
			const planes = new Map<string, ReturnType<typeof createNftables>>()
			const planeOf = (node: string) => {
				const plane = planes.get(node) ?? createNftables()
				planes.set(node, plane)
				return plane
			}
			for (const [i, edit] of list.filter((e) => !isPolicy(e)).entries()) {
				const next = apply(state, edit)
				model = build(next, { state, model })
				state = next
				if (i === 20 || i === 40) for (const node of model.nodes.keys()) planeOf(node).compile(model, node)
			}
			const all = frontends(model)
			for (const node of model.nodes.values()) {
				const nftables = planeOf(node.name)
				const program = nftables.compile(model, node.name)
				const evaluated = (packet: Packet, client: Client) =>
					would(model, client, packet, (p, at) =>
						evaluate(program, p, at, {
							original: packet,
							addressType: (ip) => (client.node.addresses.some((a) => a === ip) ? 'local' : 'unicast'),
							connectionStatus: same(p, packet) ? 0 : 32,
							masqueradeAddress: (m) => client.node.addresses.find((a) => familyOf(a) === familyOf(m.destination)),
						}),
					)
				for (const client of clientsOn(model, node)) {
					for (const to of all) {
						// What a pod sends to itself never leaves it.
						if (familyOf(to.ip) !== familyOf(client.source) || isOwn(model, client, to.ip)) continue
						if (client.elsewhere === true && !isNodePort(model, node, to)) continue
						if (isItsOwnEndpoint(model, node, to)) continue
						const from = client.from ?? { kind: 'outside', ip: client.source }
						const flow: Flow = { from, to: { ip: to.ip }, protocol: to.protocol, port: to.port }
						const packet: Packet = {
							protocol: to.protocol,
							source: client.source,
							sourcePort: clientPort,
							destination: to.ip,
							destinationPort: to.port,
							state: 'new',
							mark: 0,
						}
						const expected = should(model, flow, packet, client)
						assert.deepEqual(text(evaluated(packet, client)), text(expected), JSON.stringify(flow))
						for (const key of expected.keys()) {
							if (key === 'reject' || key === 'drop') seen[key]++
							else if (key.startsWith(`${to.ip}:${to.port} `)) seen.passed++
							else if (key.endsWith(`from ${client.source}`)) seen.translated++
							else seen.masqueraded++
							if (client.elsewhere === true && key.startsWith(`${client.source}:`)) seen.elsewhere++
						}
					}
				}
			}
		}),
		{ numRuns: 100, interruptAfterTimeLimit: 120_000 },
	)
	for (const [what, count] of Object.entries(seen)) assert.ok(count > 3, `${what} was seen ${count} times only`)
})

/** Conntrack calls a connection translated where its answers are expected from somewhere else. */
function same(a: Packet, b: Packet): boolean {
	return a.destination === b.destination && a.destinationPort === b.destinationPort
}

function isPolicy(edit: Edit): boolean {
	return ('set' in edit ? edit.set.kind : 'place' in edit ? edit.place.kind : edit.delete.kind) === 'NetworkPolicy'
}

/** The pods of the node that can send, the node itself, and what comes over the wire; each of both families. */
function clientsOn(model: NetworkModel, node: Node): Client[] {
	const clients: Client[] = []
	for (const source of ['203.0.113.9', '198.51.100.7', '2001:db8:1::9', '10.244.9.9', '172.18.0.99'] as Ip[])
		clients.push({ node, source })
	for (const family of [4, 6] as const) {
		const own = node.addresses.find((a) => familyOf(a) === family)
		if (own !== undefined) clients.push({ from: { kind: 'node', node: node.name }, node, source: own })
	}
	for (const pod of model.pods.values()) {
		// A pod that ended sends nothing.
		if (pod.hostNetwork || pod.phase === 'Succeeded' || pod.phase === 'Failed') continue
		for (const source of pod.ips) {
			if (pod.node === node.name) clients.push({ from: { kind: 'pod', pod: pod.key }, node, source })
			else if (pod.node !== undefined) clients.push({ node, source, elsewhere: true })
		}
	}
	// A node without an address of a family carries nothing of it: there is none to masquerade with.
	return clients.filter(({ source }) => node.addresses.some((a) => familyOf(a) === familyOf(source)))
}

function isNodePort(model: NetworkModel, node: Node, to: Frontend): boolean {
	const found = findFrontend(model, node, to)
	return found?.kind === 'frontend' && found.frontend.kind === 'node-port'
}

/**
 * An external IP that is an endpoint of its own Service: to translate it into itself is nothing to the kernel, which does
 * not call the connection translated (IPS_DST_NAT) and so does not masquerade it, as rules that mark packets would.
 */
function isItsOwnEndpoint(model: NetworkModel, node: Node, to: Frontend): boolean {
	const found = findFrontend(model, node, to)
	return found?.kind === 'frontend' && found.port.endpoints.some((e) => e.ip === to.ip && e.port === to.port)
}

function isOwn(model: NetworkModel, { from }: Client, ip: Ip): boolean {
	return from?.kind === 'pod' && model.pods.get(from.pod)?.ips.includes(ip) === true
}

function frontends(model: NetworkModel): Frontend[] {
	const all = new Map<string, Frontend>()
	const add = (ip: Ip, protocol: Frontend['protocol'], port: number) =>
		all.set(`${ip} ${protocol} ${port}`, { ip, protocol, port })
	add('10.96.9.9' as Ip, 'TCP', 80)
	const addresses = [...model.nodes.values()].flatMap((node) => node.addresses)
	for (const service of model.services.values()) {
		for (const port of service.ports) {
			for (const { ip, protocol, port: number } of frontendsOf(service, port)) {
				for (const at of ip === undefined ? addresses : [ip]) add(at, protocol as Frontend['protocol'], number)
			}
		}
		for (const ip of [...service.clusterIps, ...service.externalIps]) {
			add(ip, 'UDP', 80)
			add(ip, 'TCP', 9)
		}
		// Addresses that no rule may take: ipMode Proxy, those of a family without ClusterIP.
		for (const { ip } of service.loadBalancer?.ingress ?? []) if (ip !== undefined) add(ip, 'TCP', 80)
	}
	return [...all.values()]
}

/** What the walk says leaves the client's node. */
function should(model: NetworkModel, flow: Flow, packet: Packet, { node, from }: Client): Outcomes {
	const outcomes: Outcomes = new Map()
	for (const trace of from === undefined ? walkAt(model, flow, node, packet) : walk(model, flow)) {
		const start = trace.hops.findIndex((h) => h.node === node.name && h.pod === undefined)
		// As far as the packet stays: it may come back, by a load balancer or another node.
		const rest = trace.hops.slice(start)
		const end = rest.findIndex((h) => h.node !== node.name || h.pod !== undefined)
		const steps = (end < 0 ? rest : rest.slice(0, end)).flatMap((h) => h.steps)
		const translations = steps.filter((s) => s.step === 'translate')
		const drop = steps.find((s) => s.step === 'drop')
		const last = translations.at(-1)
		if (drop?.step === 'drop' && drop.disposition === 'no-endpoints') count(outcomes, drop.how, trace.chance)
		else if (last !== undefined) count(outcomes, leaving(last.after), trace.chance)
		else if (drop?.step === 'drop' && isOfServices(model, packet.destination, drop.disposition))
			count(outcomes, drop.how, trace.chance)
		else count(outcomes, leaving(packet), trace.chance)
	}
	return outcomes
}

/** Ends that this program decides; what becomes of a packet that no Service takes is not its to say. */
function isOfServices(model: NetworkModel, to: Ip, disposition: Disposition): boolean {
	return (
		['no-endpoints', 'unknown-service-port', 'denied-source-range'].includes(disposition) ||
		(disposition === 'unassigned-address' && inServiceNetwork(model, to))
	)
}

function inServiceNetwork(model: NetworkModel, ip: Ip): boolean {
	return model.config.serviceCidrs.some((cidr) => cidrContains(cidr, ip))
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
				follow(
					outcome.packet,
					hook === 'prerouting' ? afterRouting(model, client, outcome.packet) : onward(rest, outcome.packet),
					next,
				)
			else count(outcomes, outcome.verdict, next)
		}
	}
	/** A process's packet that no route takes after its translation gets no further. */
	const onward = (rest: readonly Parameters<Evaluate>[1][], p: Packet) =>
		routeFrom(model, client.node, p.destination).to === 'nowhere' ? [] : rest
	follow(packet, client.from?.kind === 'node' ? ['output', 'postrouting'] : ['prerouting'], 1)
	return outcomes
}

/** Local delivery or forwarding; the routing itself is not this program's. */
function afterRouting(model: NetworkModel, { node }: Client, packet: Packet): readonly Parameters<Evaluate>[1][] {
	const { to } = routeFrom(model, node, packet.destination)
	return to === 'self' ? ['input'] : to === 'nowhere' ? ['forward'] : ['forward', 'postrouting']
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
