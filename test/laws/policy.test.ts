// The law of NetworkPolicy between the first two witnesses: what the walk says of a connection between any two ends is
// what the compiled programs of the nodes on the way do to its first packet; step by step as at once, with a kernel.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { familyOf, type Ip } from '../../src/base/ip.ts'
import type { Hook, Packet, Protocol } from '../../src/base/packet.ts'
import { createPolicy, type PolicyDataplane } from '../../src/dataplane/policy/policy.ts'
import { createFakeKernel } from '../../src/linux/nft/fake.ts'
import { type NftProgram, sameProgram } from '../../src/linux/nft/program.ts'
import { build } from '../../src/model/build.ts'
import type { NetworkModel, NodeName, Pod } from '../../src/model/network.ts'
import type { Flow, FlowSource } from '../../src/walk/trace.ts'
import { walk } from '../../src/walk/walk.ts'
import { apply, type Edit, nothing } from './cluster.ts'
import { policyEdits } from './policies.ts'
import './seed.ts'

const outside = ['203.0.113.9', '2001:db8:1::9'] as Ip[]
const questions: readonly (readonly [Protocol, number])[] = [
	['TCP', 8080],
	['TCP', 9090],
	['TCP', 9050],
	['UDP', 53],
	['UDP', 8080],
	['SCTP', 8080],
	['ICMP', 0],
]

test('walk = evaluated policy programs', () => {
	const seen = { 'denied-egress': 0, 'denied-ingress': 0, allowed: 0, audited: 0 }
	fc.assert(
		fc.property(policyEdits, (list) => {
			const { model, program, planes } = compiledStepByStep(list)
			for (const from of sourcesOf(model)) {
				for (const to of addressesOf(model)) {
					if (familyOf(to) !== familyOf(from.ip) || from.pod?.ips.includes(to) === true) continue
					for (const [protocol, port] of questions) {
						const flow: Flow = { from: from.source, to: { ip: to }, protocol, port }
						const [trace] = walk(model, flow, { policyEnforced: true })
						const said = trace?.disposition ?? ''
						const steps = (trace?.hops ?? []).flatMap((h) => h.steps)
						// Who comes to no policy, for want of a route or a node that is up, says nothing here.
						if (said !== 'denied-egress' && !steps.some((s) => s.step === 'route' && s.device !== 'eth0')) continue
						// A node's address may be a Service's besides: what is translated is no matter of this program alone.
						if (steps.some((s) => s.step === 'service' || s.step === 'balance' || s.step === 'translate')) continue
						const expected = said.startsWith('denied-') ? said : 'allowed'
						const packet: Packet = {
							protocol,
							source: from.ip,
							destination: to,
							sourcePort: protocol === 'ICMP' ? 0 : 40000,
							destinationPort: port,
							state: 'new',
							mark: 0,
						}
						assert.equal(would(model, program, planes, from, packet), expected, `${JSON.stringify(flow)} ${from.ip}`)
						seen[expected as keyof typeof seen]++
						if (JSON.stringify(steps).includes('podwire.dev/audit')) seen.audited++
					}
				}
			}
		}),
		{ numRuns: 150, endOnFailure: process.env.PODWIRE_NO_SHRINK !== undefined },
	)
	for (const [what, count] of Object.entries(seen)) assert.ok(count > 100, `${what} was seen ${count} times only`)
})

/** Programs as they come out of a life of edits are those of a fresh start, and the kernel holds them. */
function compiledStepByStep(list: readonly Edit[]): {
	readonly model: NetworkModel
	readonly program: ReadonlyMap<NodeName, NftProgram>
	readonly planes: ReadonlyMap<NodeName, PolicyDataplane>
} {
	let state = nothing
	let model = build(state)
	const planes = new Map(['node-1', 'node-2', 'node-3'].map((n) => [n, createPolicy({ uplink: 'eth0' })]))
	const kernels = new Map([...planes.keys()].map((n) => [n, createFakeKernel()]))
	const program = new Map<NodeName, NftProgram>()
	const bring = () => {
		for (const [node, plane] of planes) {
			const want = plane.compile(model, node)
			const kernel = kernels.get(node)!
			kernel.apply(plane.diff(program.get(node), want))
			program.set(node, want)
		}
	}
	for (const [i, edit] of list.entries()) {
		const next = apply(state, edit)
		model = build(next, { state, model })
		state = next
		if (i % 7 === 6) bring()
	}
	bring()
	for (const [node, plane] of planes) {
		const want = program.get(node)!
		assert.ok(sameProgram(want, createPolicy({ uplink: 'eth0' }).compile(model, node)), `${node}: as from scratch`)
		assert.deepEqual(plane.diff(kernels.get(node)!.read(), want), [], `${node}: as in the kernel`)
		assert.equal(plane.compile({ ...model }, node), want, 'nothing changed')
	}
	return { model, program, planes }
}

interface Source {
	readonly source: FlowSource
	readonly ip: Ip
	readonly node?: NodeName
	readonly pod?: Pod
}

function sourcesOf(model: NetworkModel): Source[] {
	const sources: Source[] = []
	for (const node of model.nodes.values()) {
		for (const family of [4, 6] as const) {
			const ip = node.addresses.find((a) => familyOf(a) === family)
			if (ip !== undefined) sources.push({ source: { kind: 'node', node: node.name }, ip, node: node.name })
		}
	}
	for (const pod of model.pods.values()) {
		if (pod.hostNetwork || pod.node === undefined || !model.nodes.has(pod.node)) continue
		for (const ip of pod.ips) {
			const owner = model.addresses.get(ip)
			// Of two that claim an address the kernel sees one.
			if (owner?.kind !== 'pod' || owner.pod !== pod.key) continue
			sources.push({ source: { kind: 'pod', pod: pod.key }, ip, node: pod.node, pod })
		}
	}
	return sources
}

function addressesOf(model: NetworkModel): Ip[] {
	const all = new Set<Ip>(outside)
	for (const [ip, owner] of model.addresses) if (owner.kind !== 'service') all.add(ip)
	return [...all]
}

/** The hooks the packet meets, node by node. */
function would(
	model: NetworkModel,
	program: ReadonlyMap<NodeName, NftProgram>,
	planes: ReadonlyMap<NodeName, PolicyDataplane>,
	from: Source,
	packet: Packet,
): string {
	const owner = model.addresses.get(packet.destination)
	const target =
		owner?.kind === 'node' ? owner.node : owner?.kind === 'pod' ? model.pods.get(owner.pod)?.node : undefined
	const meet = (node: NodeName | undefined, hook: Hook, inInterface?: string): string | undefined => {
		const plane = node === undefined ? undefined : planes.get(node)
		if (node === undefined || plane === undefined) return undefined
		const outcomes = plane.evaluate(
			program.get(node)!,
			{ ...packet, ...(inInterface === undefined ? {} : { inInterface }) },
			hook,
		)
		assert.equal(outcomes.length, 1)
		const [outcome] = outcomes
		if (outcome?.verdict === 'accept') return undefined
		return `denied-${outcome?.rules.at(-1)?.chain.split('-')[0]}`
	}
	const here = from.node
	if (from.pod !== undefined) {
		const hook = owner?.kind === 'node' && target === here ? 'input' : 'forward'
		const denied = meet(here, hook, 'pw0')
		if (denied !== undefined) return denied
	} else {
		const denied = meet(here, 'output')
		if (denied !== undefined) return denied
	}
	if (target !== undefined && target !== here) {
		const denied = meet(target, owner?.kind === 'node' ? 'input' : 'forward', 'eth0')
		if (denied !== undefined) return denied
	}
	return 'allowed'
}
