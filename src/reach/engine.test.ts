// The engine says what `decide` says: for every pair of pods, every protocol and every port at which an answer may change;
// and following a change gives what building from nothing gives.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { makeWorld, type WorldOptions } from '../../test/reach/world.ts'
import { familyOf, type Ip } from '../base/ip.ts'
import type { Protocol } from '../base/packet.ts'
import { hasPort } from '../base/ports.ts'
import { build } from '../model/build.ts'
import type { NetworkModel, Pod } from '../model/network.ts'
import { decide, type Peer, policiesByNamespace } from '../model/policy.ts'
import { hasIdentity } from './classes.ts'
import { connectionsText, pointOf } from './connections.ts'
import { Reach } from './engine.ts'

interface Probe {
	readonly protocol: Protocol
	readonly port: number
}

/** A port below, at and above every boundary that a policy or a pod names. */
function probesOf(model: NetworkModel): readonly Probe[] {
	const ports = new Set([1, 65535])
	const near = (port: number) => {
		for (const p of [port - 1, port, port + 1]) if (p > 0 && p < 65536) ports.add(p)
	}
	for (const policy of model.policies.values())
		for (const rule of [...(policy.ingress ?? []), ...(policy.egress ?? [])])
			for (const port of rule.ports) {
				if (typeof port.port === 'number') near(port.port)
				if (port.endPort !== undefined) near(port.endPort)
			}
	for (const pod of model.pods.values()) for (const port of pod.ports) near(port.port)
	const list: Probe[] = [{ protocol: 'ICMP', port: 0 }]
	for (const protocol of ['TCP', 'UDP', 'SCTP'] as const) for (const port of ports) list.push({ protocol, port })
	return list
}

const addresses = [
	'10.244.0.1',
	'10.244.1.200',
	'10.1.2.3',
	'172.18.0.2',
	'172.18.0.77',
	'192.0.2.1',
	'192.0.2.200',
	'198.51.100.7',
	'203.0.113.9',
	'fd00::1',
	'2001:db8::1',
] as Ip[]

function disagreements(
	model: NetworkModel,
	reach: Reach,
	every = 1,
): { readonly asked: number; readonly wrong: readonly string[] } {
	const policies = policiesByNamespace(model.policies.values())
	const probes = probesOf(model)
	const wrong: string[] = []
	let asked = 0
	const pods = [...model.pods.values()]
		.filter((pod) => hasIdentity(pod) && pod.ips.length > 0)
		.sort((a, b) => (a.key < b.key ? -1 : 1))
	const may = (direction: 'ingress' | 'egress', pod: Pod, peer: Peer, probe: Probe): boolean =>
		decide(model, { direction, pod, peer, ...probe }, policies.get(pod.namespace) ?? []).verdict === 'allow'
	const classOf = (pod: Pod, ip: Ip) =>
		reach.classesOf(pod.key).find((id) => reach.classes[id]!.family === familyOf(ip))!
	const check = (says: number, truth: (probe: Probe) => boolean, what: () => string) => {
		const set = reach.pool.setOf(says)
		for (const probe of probes) {
			asked++
			const engine = hasPort(set, pointOf(probe.protocol, probe.port))
			if (engine !== truth(probe))
				wrong.push(`${what()} ${probe.protocol}/${probe.port}: engine ${engine} (${connectionsText(set)})`)
		}
	}
	let turn = 0
	for (const from of pods) {
		for (const to of pods) {
			if (from === to || turn++ % every !== 0) continue
			for (const ip of from.ips) {
				const there = to.ips.find((other) => familyOf(other) === familyOf(ip))
				if (there === undefined) continue
				check(
					reach.between(classOf(from, ip), classOf(to, there)),
					(probe) => may('egress', from, { ip: there, pod: to }, probe) && may('ingress', to, { ip, pod: from }, probe),
					() => `${from.key} → ${to.key}`,
				)
			}
		}
		if (turn % every !== 0) continue
		for (const ip of addresses) {
			const own = from.ips.find((other) => familyOf(other) === familyOf(ip))
			if (own === undefined) continue
			for (const direction of ['ingress', 'egress'] as const)
				check(
					reach.withAddress(direction, classOf(from, own), ip),
					(probe) => may(direction, from, { ip }, probe),
					() => `${direction} of ${from.key} with ${ip}`,
				)
		}
	}
	return { asked, wrong }
}

const small: Omit<WorldOptions, 'seed'> = { pods: 24, policies: 8, namespaces: 3, replicas: 2, odd: true }

test('what decide says, of small clusters along their changes', () => {
	for (let seed = 1; seed <= 40; seed++) {
		const world = makeWorld({ ...small, seed })
		let { state } = world
		let model = build(state)
		const reach = new Reach({ model })
		for (let step = 0; step < 6; step++) {
			const { wrong } = disagreements(model, reach, 5)
			assert.deepEqual(wrong.slice(0, 3), [], `seed ${seed}, step ${step}`)
			const next = world.change(state)
			model = build(next, { state, model })
			state = next
			reach.update({ model })
		}
	}
})

test('what decide says, of every pair of 300 pods', () => {
	for (const seed of [7, 8]) {
		const { state } = makeWorld({ seed, pods: 300, policies: 60, namespaces: 6, replicas: 4, odd: seed === 8 })
		const model = build(state)
		const reach = new Reach({ model })
		// Every pair once over both seeds' runs of a quarter each would hide a row: all pairs, one port list in seven.
		const { asked, wrong } = disagreements(model, reach, 7)
		assert.deepEqual(wrong.slice(0, 3), [])
		assert.ok(asked > 100_000)
	}
})

/** What the engine says about every pair of pods, by name. */
function everything(model: NetworkModel, reach: Reach): readonly string[] {
	const lines: string[] = []
	for (const from of model.pods.values())
		for (const to of model.pods.values())
			for (const a of reach.classesOf(from.key))
				for (const b of reach.classesOf(to.key)) {
					if (reach.classes[a]!.family !== reach.classes[b]!.family) continue
					lines.push(
						`${from.key} ${to.key} ${reach.classes[a]!.family} ${connectionsText(reach.pool.setOf(reach.between(a, b)))}`,
					)
				}
	for (const pod of model.pods.values())
		for (const id of reach.classesOf(pod.key))
			for (const ip of addresses)
				for (const direction of ['ingress', 'egress'] as const)
					lines.push(
						`${pod.key} ${reach.classes[id]!.family} ${direction} ${ip} ${connectionsText(reach.pool.setOf(reach.withAddress(direction, id, ip)))}`,
					)
	return lines.sort()
}

test('following a change gives what building from nothing gives', () => {
	let kept = 0
	for (let seed = 100; seed < 130; seed++) {
		const world = makeWorld({ ...small, seed })
		let { state } = world
		let model = build(state)
		const reach = new Reach({ model })
		everything(model, reach)
		for (let step = 0; step < 12; step++) {
			const before = new Map([...model.pods.keys()].map((key) => [key, reach.classesOf(key)]))
			const next = world.change(state)
			model = build(next, { state, model })
			state = next
			const change = reach.update({ model })
			if (!change.rebuilt) kept++
			assert.deepEqual(everything(model, reach), everything(model, new Reach({ model })), `seed ${seed}, step ${step}`)
			if (!change.rebuilt)
				for (const key of model.pods.keys())
					if (before.get(key)?.join() !== reach.classesOf(key).join())
						assert.ok(
							reach.classesOf(key).every((id) => change.classes.has(id)),
							`${key} moved, and nobody was told`,
						)
		}
	}
	assert.ok(kept > 100, `only ${kept} changes were followed`)
})

test('a change names every class with a pair that changed', () => {
	for (let seed = 200; seed < 215; seed++) {
		const world = makeWorld({ ...small, odd: false, seed })
		let { state } = world
		let model = build(state)
		const reach = new Reach({ model })
		for (let step = 0; step < 10; step++) {
			const size = reach.classes.length
			const before = Array.from({ length: size }, (_, a) => Array.from({ length: size }, (_, b) => reach.between(a, b)))
			const next = world.change(state)
			model = build(next, { state, model })
			state = next
			const change = reach.update({ model })
			if (change.rebuilt) continue
			for (let a = 0; a < size; a++)
				for (let b = 0; b < size; b++)
					if (reach.between(a, b) !== before[a]![b])
						assert.ok(change.classes.has(a) || change.classes.has(b), `seed ${seed}, step ${step}: ${a} → ${b}`)
		}
	}
})
