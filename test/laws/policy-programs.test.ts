// The oracle of policies and the compiled programs of both nodes say the same of every connection of many small
// clusters: NetworkPolicy with the tiers around it, of either family and of both; what is denied is logged as denied, and
// what policies on trial alone would deny is logged and passes. Each node's compiler goes from cluster to cluster, and what it has
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
import {
	addressesOf,
	type ClusterFamily,
	clustersOf,
	cornersOf,
	diceOf,
	inFamily,
	makeCluster,
	objectsOf,
	resolvedNamesOf,
	strangersOf,
	withTrials,
} from './policy-clusters.ts'
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

/** With `PODWIRE_LAW_CLUSTERS=20000` each of them asks so many. */
for (const [profile, usual, family, trials] of [
	['default', 600, 'ipv4', false],
	['calico-like', 250, 'ipv4', false],
	['cilium-like', 250, 'ipv4', false],
	['default', 200, 'ipv6', false],
	['default', 250, 'dual', false],
	['calico-like', 100, 'dual', false],
	['cilium-like', 100, 'dual', false],
	['default', 300, 'dual', true],
] as const) {
	const clusters = clustersOf(usual)
	const what = `${profile}, ${family}${trials ? ', some on trial' : ''}: ${clusters} clusters of all tiers`
	test(`oracle = evaluated programs, ${what}`, () => law(profile, clusters, family, trials))
}

function law(profile: ProfileName, clusters: number, family: ClusterFamily, trials: boolean): void {
	const options = { uplink: 'eth0', profile: policyProfiles[profile], log: { group: 1, allowed: false } }
	const seen: Record<string, number> = {}
	const nodes = ['n1', 'n2'].map((name) => ({
		name,
		plane: createPolicy(options),
		kernel: createFakeKernel(),
		have: undefined as NftProgram | undefined,
	}))
	for (let seed = 1; seed <= clusters; seed++) {
		const dice = diceOf(seed * 31_337)
		const drawn = inFamily(makeCluster(dice, 'all'), family, dice)
		const cluster = { ...(trials ? withTrials(drawn, dice) : drawn), corners: cornersOf[profile] }
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
			...cluster.pods
				.filter((p) => !p.hostNetwork)
				.flatMap((pod) => addressesOf(pod).map((ip) => ({ ip, pod, node: pod.node }))),
			...Object.entries(cluster.nodes).flatMap(([node, of]) => addressesOf(of).map((ip) => ({ ip, node }))),
			...strangersOf(cluster).map((ip) => ({ ip })),
		]
		for (const [i, from] of ends.entries()) {
			for (const [k, to] of ends.entries()) {
				// To itself, as a pod comes back that asked a Service.
				if ((i === k && from.pod === undefined) || (from.pod === undefined && to.pod === undefined)) continue
				if (from.ip.includes(':') !== to.ip.includes(':')) continue
				const [protocol, port] = asked[(seed + i * 3 + k) % asked.length]!
				const want = expected(cluster, from, to, protocol, port)
				const got = met(nodes, from, to, protocol, port)
				if (got !== want) {
					const what = `seed ${seed}: ${from.ip} to ${to.ip} ${protocol}/${port}: oracle ${want}, programs ${got}`
					assert.fail(`${what}\n${JSON.stringify(cluster, undefined, 1)}`)
				}
				for (const word of want.split(' ')) seen[word] = (seen[word] ?? 0) + 1
			}
		}
	}
	for (const end of ['egress', 'ingress', 'passes']) assert.ok((seen[end] ?? 0) > clusters, `${end}: ${seen[end]}`)
	if (trials)
		for (const end of ['audit-egress', 'audit-ingress'])
			assert.ok((seen[end] ?? 0) > clusters / 4, `${end}: ${seen[end]}`)
}

/** Where it ends, after what is only told of it: `audit-egress ingress`. */
function expected(cluster: OracleCluster, from: End, to: End, protocol: Protocol, port: number): string {
	const other = (end: End) => ({
		ip: end.ip,
		...(end.pod === undefined ? (end.node === undefined ? {} : { node: end.node }) : { pod: end.pod }),
	})
	const says = (direction: 'egress' | 'ingress', of: End, with_: End) =>
		of.pod === undefined
			? 'allow default'
			: oracle(cluster, { direction, pod: of.pod, other: other(with_), protocol, port })
	const told: string[] = []
	for (const [direction, of, with_] of [
		['egress', from, to],
		['ingress', to, from],
	] as const) {
		const answer = says(direction, of, with_)
		if (answer.startsWith('deny')) return [...told, direction].join(' ')
		if (answer.startsWith('audit')) told.push(`audit-${direction}`)
	}
	return [...told, 'passes'].join(' ')
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
	const told: string[] = []
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
		const rules = outcome?.rules ?? []
		const logged = rules.flatMap(
			(r) => /log prefix "podwire (deny|audit) (egress|ingress)-/.exec(r.text)?.slice(1) ?? [],
		)
		for (let i = 0; i < logged.length; i += 2) if (logged[i] === 'audit') told.push(`audit-${logged[i + 1]}`)
		const denied = logged.indexOf('deny')
		if (outcome?.verdict === 'accept') assert.equal(denied, -1, 'logged as denied, and passes')
		else {
			const direction = rules.at(-1)?.chain.split('-')[0] ?? 'nobody'
			assert.equal(logged[denied + 1], direction, 'denied, and logged as that')
			return [...told, direction].join(' ')
		}
	}
	return [...told, 'passes'].join(' ')
}
