// The oracle of policies and the compiled programs of both nodes say the same of every connection of many small
// clusters: NetworkPolicy with the tiers around it. Each node's compiler goes from cluster to cluster, and what it has
// then is what a new one makes.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Ip } from '../../src/base/ip.ts'
import type { Hook, Packet, Protocol } from '../../src/base/packet.ts'
import { createPolicy } from '../../src/dataplane/policy/policy.ts'
import { createFakeKernel } from '../../src/linux/nft/fake.ts'
import { type NftProgram, sameProgram } from '../../src/linux/nft/program.ts'
import { build } from '../../src/model/build.ts'
import { type ProfileName, policyProfiles } from '../../src/model/policy-profile.ts'
import { emptyState, setObject } from '../../src/model/state.ts'
import { cornersOf, diceOf, makeCluster, objectsOf, resolvedNamesOf } from './policy-clusters.ts'
import { type OracleCluster, type OraclePod, oracle } from './policy-oracle.ts'

const asked: readonly (readonly [Protocol, number])[] = [
	['TCP', 80],
	['TCP', 8080],
	['TCP', 9000],
	['UDP', 53],
	['UDP', 80],
	['SCTP', 80],
	['ICMP', 0],
]

interface End {
	readonly ip: string
	/** Of its own address. */
	readonly pod?: OraclePod
	/** Where it is; a node itself, or a hostNetwork pod on it, has no `pod`. */
	readonly node?: string
}

for (const [profile, clusters] of [
	['default', 600],
	['calico-like', 250],
	['cilium-like', 250],
] as const) {
	test(`oracle = evaluated programs, ${profile}: ${clusters} clusters of all tiers`, () => law(profile, clusters))
}

function law(profile: ProfileName, clusters: number): void {
	const options = { uplink: 'eth0', profile: policyProfiles[profile] }
	const seen: Record<string, number> = {}
	const nodes = ['n1', 'n2'].map((name) => ({
		name,
		plane: createPolicy(options),
		kernel: createFakeKernel(),
		have: undefined as NftProgram | undefined,
	}))
	for (let seed = 1; seed <= clusters; seed++) {
		const cluster = { ...makeCluster(diceOf(seed * 31_337), 'all'), corners: cornersOf[profile] }
		let state = emptyState()
		const objects = objectsOf(cluster)
		// Some policies come when the pods are there.
		const late = objects.length - (seed % (cluster.policies.length + 1))
		for (const object of objects.slice(0, late)) state = setObject(state, object)
		const early = build(state)
		const before = state
		for (const object of objects.slice(late)) state = setObject(state, object)
		// Names are answered, and forgotten, at any time.
		state = { ...state, resolvedNames: resolvedNamesOf(cluster) }
		const model = build(state, { state: before, model: early })
		for (const node of nodes) {
			const first = node.plane.compile(early, node.name)
			node.kernel.apply(node.plane.diff(node.have, first))
			node.have = first
			const want = node.plane.compile(model, node.name)
			node.kernel.apply(node.plane.diff(node.have, want))
			node.have = want
			assert.ok(sameProgram(want, createPolicy(options).compile(model, node.name)), `seed ${seed}: anew`)
			assert.deepEqual(node.plane.diff(node.kernel.read(), want), [], `seed ${seed}: in the kernel`)
		}
		const ends: End[] = [
			...cluster.pods.filter((p) => !p.hostNetwork).map((pod) => ({ ip: pod.ip, pod, node: pod.node })),
			...Object.entries(cluster.nodes).map(([node, { ip }]) => ({ ip, node })),
			{ ip: '203.0.113.9' },
		]
		for (const [i, from] of ends.entries()) {
			for (const [k, to] of ends.entries()) {
				// To itself, as a pod comes back that asked a Service.
				if ((i === k && from.pod === undefined) || (from.pod === undefined && to.pod === undefined)) continue
				const [protocol, port] = asked[(seed + i * 3 + k) % asked.length]!
				const want = expected(cluster, from, to, protocol, port)
				const got = met(nodes, from, to, protocol, port)
				if (got !== want) {
					const what = `seed ${seed}: ${from.ip} to ${to.ip} ${protocol}/${port}: oracle ${want}, programs ${got}`
					assert.fail(`${what}\n${JSON.stringify(cluster, undefined, 1)}`)
				}
				seen[want] = (seen[want] ?? 0) + 1
			}
		}
	}
	for (const end of ['egress', 'ingress', 'passes']) assert.ok((seen[end] ?? 0) > clusters, `${end}: ${seen[end]}`)
}

function expected(cluster: OracleCluster, from: End, to: End, protocol: Protocol, port: number): string {
	const other = (end: End) => ({
		ip: end.ip,
		...(end.pod === undefined ? (end.node === undefined ? {} : { node: end.node }) : { pod: end.pod }),
	})
	const denies = (direction: 'egress' | 'ingress', of: End, with_: End) =>
		of.pod !== undefined &&
		oracle(cluster, { direction, pod: of.pod, other: other(with_), protocol, port }).startsWith('deny')
	return denies('egress', from, to) ? 'egress' : denies('ingress', to, from) ? 'ingress' : 'passes'
}

function met(
	nodes: readonly {
		readonly name: string
		readonly plane: ReturnType<typeof createPolicy>
		readonly have: NftProgram | undefined
	}[],
	from: End,
	to: End,
	protocol: Protocol,
	port: number,
): string {
	const packet: Packet = {
		protocol,
		source: from.ip as Ip,
		destination: to.ip as Ip,
		sourcePort: protocol === 'ICMP' ? 0 : 40000,
		destinationPort: port,
		state: 'new',
		mark: 0,
	}
	const visits: (readonly [node: string, hook: Hook, inInterface?: string])[] = []
	if (from.node !== undefined) {
		if (from.pod === undefined) visits.push([from.node, 'output'])
		else visits.push([from.node, to.pod === undefined && to.node === from.node ? 'input' : 'forward', 'pw0'])
	}
	if (to.node !== undefined && to.node !== from.node)
		visits.push([to.node, to.pod === undefined ? 'input' : 'forward', 'eth0'])
	for (const [name, hook, inInterface] of visits) {
		const node = nodes.find((n) => n.name === name)!
		const [outcome] = node.plane.evaluate(
			node.have!,
			{ ...packet, ...(inInterface === undefined ? {} : { inInterface }) },
			hook,
		)
		if (outcome?.verdict !== 'accept') return outcome?.rules.at(-1)?.chain.split('-')[0] ?? 'nobody'
	}
	return 'passes'
}
