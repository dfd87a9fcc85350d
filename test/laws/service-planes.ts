// The law of a data plane that carries Services: on generated clusters its evaluated program does with a packet what the
// model's own words (findFrontend, admits, treat) say: the same endpoints with the same chances, the same translation of
// the source, the same rejections and drops. For pods, nodes and strangers, every frontend and near misses.

import assert from 'node:assert/strict'
import fc from 'fast-check'
import { cidrContains, familyOf, type Ip } from '../../src/base/ip.ts'
import type { Hook, Packet } from '../../src/base/packet.ts'
import type { ServiceDataplane } from '../../src/dataplane/dataplane.ts'
import { build } from '../../src/model/build.ts'
import { admits, findFrontend, frontendsOf, nodePortIps, placeOf, treat } from '../../src/model/frontends.ts'
import type { NetworkModel, Node, Service } from '../../src/model/network.ts'
import { apply, type Edit, edits, nothing } from './cluster.ts'
import './seed.ts'

/** `endpoint from source`, `reject` or `drop`, each with its chance. */
type Outcomes = Map<string, number>

// biome-ignore lint/suspicious/noExplicitAny: a program is only handed back to the data plane it came from.
type AnyPlane = ServiceDataplane<any, any>

export interface LawOptions {
	readonly make: () => AnyPlane
	/** Where this mode's rules differ from the model's words on purpose: what they do instead; undefined: they do not. */
	readonly differs?: (asked: Asked) => 'drop' | 'reject' | 'pass' | 'skip' | undefined
	readonly runs?: number
}

export interface Asked {
	readonly model: NetworkModel
	readonly node: Node
	readonly packet: Packet
	readonly found: ReturnType<typeof findFrontend>
	readonly admitted: boolean
	/** The Service has an endpoint that may serve somewhere. */
	readonly served: boolean
}

export function checkLaw({ make, differs, runs = 60 }: LawOptions): void {
	const seen = { translated: 0, masqueraded: 0, reject: 0, drop: 0, pass: 0 }
	fc.assert(
		fc.property(edits, (list) => {
			const planes = new Map<string, AnyPlane>()
			let state = nothing
			let model = build(state)
			const relevant = list.filter((e) => !isPolicy(e))
			for (const [i, edit] of relevant.entries()) {
				const next = apply(state, edit)
				model = build(next, { state, model })
				state = next
				for (const node of model.nodes.values()) {
					// One that has compiled before, now and then: what it keeps must not show.
					const plane = planes.get(node.name) ?? make()
					planes.set(node.name, plane)
					if (i % 3 === 0) plane.compile(model, node.name)
				}
			}
			for (const node of model.nodes.values()) {
				const plane = planes.get(node.name) ?? make()
				const program = plane.compile(model, node.name)
				assert.deepEqual(sorted(plane.toJson(program)), sorted(make().toJson(make().compile(model, node.name))))
				for (const source of clientsOf(model, node)) {
					for (const to of targets(model, node)) {
						if (familyOf(to.ip) !== familyOf(source)) continue
						const packet: Packet = {
							protocol: to.protocol,
							source,
							sourcePort: 40000,
							destination: to.ip,
							destinationPort: to.port,
							state: 'new',
							mark: 0,
						}
						const expected = should(model, node, packet, differs)
						if (expected === undefined) continue
						assert.deepEqual(
							text(would(plane, program, node, packet)),
							text(expected),
							JSON.stringify({ node, packet }),
						)
						for (const key of expected.keys()) {
							if (key === 'reject' || key === 'drop') seen[key]++
							else if (key.startsWith(`${to.ip} ${to.port} `)) seen.pass++
							else if (key.endsWith(` ${source}`)) seen.translated++
							else seen.masqueraded++
						}
					}
				}
			}
		}),
		{ numRuns: runs, endOnFailure: true },
	)
	for (const [what, count] of Object.entries(seen)) assert.ok(count > 3, `${what} was seen ${count} times only`)
}

/** Tables in JSON come in any order. */
function sorted(json: unknown): unknown {
	return JSON.parse(JSON.stringify(json), (_, value) =>
		Array.isArray(value) && Array.isArray(value[0])
			? value.toSorted((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1))
			: value,
	)
}

function isPolicy(edit: Edit): boolean {
	return ('set' in edit ? edit.set.kind : 'place' in edit ? edit.place.kind : edit.delete.kind) === 'NetworkPolicy'
}

function clientsOf(model: NetworkModel, node: Node): Ip[] {
	const all: Ip[] = [...node.addresses, '203.0.113.9' as Ip, '2001:db8:1::9' as Ip]
	for (const pod of model.pods.values()) {
		if (pod.node === node.name && !pod.hostNetwork && pod.phase === 'Running') all.push(...pod.ips)
	}
	// One of another node is a stranger to this one.
	for (const other of model.nodes.values()) if (other !== node) all.push(...other.addresses)
	// Packets of a family that the node does not speak do not come by.
	return all.filter((ip) => node.addresses.some((own) => familyOf(own) === familyOf(ip)))
}

function targets(model: NetworkModel, node: Node): { ip: Ip; protocol: Packet['protocol']; port: number }[] {
	const all = new Map<string, { ip: Ip; protocol: Packet['protocol']; port: number }>()
	const add = (ip: Ip, protocol: Packet['protocol'], port: number) =>
		all.set(`${ip} ${protocol} ${port}`, { ip, protocol, port })
	add('10.96.9.9' as Ip, 'TCP', 80)
	for (const service of model.services.values()) {
		for (const port of service.ports) {
			for (const frontend of frontendsOf(service, port)) {
				const ips = frontend.ip === undefined ? nodePortIps(model, node) : [frontend.ip]
				for (const ip of ips) {
					if (familyOf(ip) !== frontend.family) continue
					add(ip, frontend.protocol, frontend.port)
					add(ip, frontend.protocol, frontend.port + 7)
				}
			}
		}
	}
	return [...all.values()]
}

function should(model: NetworkModel, node: Node, packet: Packet, differs: LawOptions['differs']): Outcomes | undefined {
	const { source, destination, destinationPort, protocol } = packet
	const found = findFrontend(model, node, { ip: destination, protocol, port: destinationPort })
	const admitted = found?.kind !== 'frontend' || admits(found.frontend, source)
	const asked: Asked = { model, node, packet, found, admitted, served: isServed(found) }
	const other = differs?.(asked)
	const passes = `${destination} ${destinationPort} ${source}`
	if (other === 'skip') return undefined
	if (other !== undefined) return new Map([[other === 'pass' ? passes : other, 1]])
	if (found === undefined) {
		// Nobody has the address, or a Service that is left to another proxy.
		const ours = model.config.serviceCidrs.some((cidr) => cidrContains(cidr, destination))
		return new Map([[ours ? 'drop' : passes, 1]])
	}
	if (found.kind === 'unknown-port') return new Map([['reject', 1]])
	if (!admitted) return new Map([['drop', 1]])
	const { service, port, frontend } = found
	const place = placeOf(model, node, source)
	const client = { place, node: node.name, ...(node.zone === undefined ? {} : { zone: node.zone }) }
	const { serving, masquerade } = treat(service, port, frontend, client)
	if (serving.none !== undefined) return new Map([[serving.none, 1]])
	const outcomes: Outcomes = new Map()
	for (const endpoint of serving.endpoints) {
		const own = node.addresses.find((ip) => familyOf(ip) === familyOf(source))
		// What comes from elsewhere and is delivered on the node never passes postrouting, where masquerading is done.
		const passes = node.addresses.includes(source) || !node.addresses.includes(endpoint.ip)
		const from = passes && (masquerade !== undefined || endpoint.ip === source) ? own : source
		count(outcomes, `${endpoint.ip} ${endpoint.port} ${from}`, 1 / serving.endpoints.length)
	}
	return outcomes
}

function isServed(found: ReturnType<typeof findFrontend>): boolean {
	if (found?.kind !== 'frontend') return false
	const { service, port, frontend } = found
	const open: Service = { ...service, internalTrafficPolicy: 'Cluster', externalTrafficPolicy: 'Cluster' }
	return treat(open, port, frontend, { place: 'outside', node: '' }).serving.none === undefined
}

/** The node's hooks in the order a packet meets them. */
function would(plane: AnyPlane, program: unknown, node: Node, packet: Packet): Outcomes {
	const outcomes: Outcomes = new Map()
	const follow = (p: Packet, hooks: readonly Hook[], chance: number): void => {
		const [hook, ...rest] = hooks
		if (hook === undefined) {
			count(outcomes, `${p.destination} ${p.destinationPort} ${p.source}`, chance)
			return
		}
		for (const outcome of plane.evaluate(program, p, hook)) {
			const next = chance * outcome.chance
			if (outcome.verdict !== 'accept') count(outcomes, outcome.verdict, next)
			else
				follow(
					outcome.packet,
					hook === 'prerouting' || hook === 'output' ? routed(node, hook, outcome.packet) : rest,
					next,
				)
		}
	}
	follow(packet, [node.addresses.includes(packet.source) ? 'output' : 'prerouting'], 1)
	return outcomes
}

/** What is for the node itself and comes from it goes out at the loopback and in again, translated once. */
function routed(node: Node, hook: 'prerouting' | 'output', packet: Packet): readonly Hook[] {
	const here = node.addresses.includes(packet.destination)
	if (hook === 'output') return here ? ['postrouting', 'input'] : ['postrouting']
	return here ? ['input'] : ['forward', 'postrouting']
}

function count(outcomes: Outcomes, key: string, chance: number): void {
	outcomes.set(key, (outcomes.get(key) ?? 0) + chance)
}

function text(outcomes: Outcomes): string[] {
	return [...outcomes].map(([key, chance]) => `${key} ${chance.toFixed(6)}`).sort()
}
