// The last joint of the policies' law: what the oracle says of every pair of ends of a generated cluster, kernels do to a
// real packet; NetworkPolicy and the tiers, both families, every protocol, policies on trial. Nobody waits for what does
// not come: a packet that is dropped is counted by the rule that drops it. PODWIRE_LAW_CLUSTERS=5000 asks so many.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Ip } from '../../src/base/ip.ts'
import type { Protocol } from '../../src/base/packet.ts'
import { createPolicy } from '../../src/dataplane/policy/policy.ts'
import type { NftProgram } from '../../src/linux/nft/program.ts'
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
} from '../laws/policy-clusters.ts'
import { type OracleCluster, type OraclePod, oracle } from '../laws/policy-oracle.ts'
import { reasonToSkip } from './services-world.ts'
import { Packets, type Sent } from './support-policy/packets.ts'
import { nodeNames, type PolicyWorld, withPolicyWorld } from './support-policy/world.ts'

const skip = reasonToSkip()
const asked: readonly (readonly [Protocol, number])[] = [
	['TCP', 80],
	['TCP', 8080],
	['TCP', 9000],
	['UDP', 53],
	['UDP', 80],
	['SCTP', 80],
	['ICMP', 0],
]
/** So long a machine may be busy with something else while packets are on their way. */
const patience = 5_000
/** A packet may be lost for reasons of its own; what policies do with it is the same each time. */
const attempts = 4

interface End {
	readonly ip: string
	readonly pod?: OraclePod
	readonly node?: string
}

for (const [kinds, usual, profile, family, trials] of [
	['v1', 40, 'default', 'ipv4', false],
	['all', 60, 'default', 'dual', false],
	['all', 40, 'default', 'ipv6', false],
	['all', 40, 'default', 'dual', true],
	['all', 20, 'cilium-like', 'dual', false],
] as const) {
	const clusters = clustersOf(usual)
	const what = `${kinds === 'v1' ? 'NetworkPolicy alone' : 'all tiers'}${trials ? ', some on trial' : ''}`
	test(`oracle = real packets, ${what}, ${profile}, ${family}: ${clusters} clusters`, { skip }, () =>
		withPolicyWorld((world) => law(world, clusters, { kinds, profile, family, trials })),
	)
}

async function law(
	world: PolicyWorld,
	clusters: number,
	how: {
		readonly kinds: 'v1' | 'all'
		readonly profile: ProfileName
		readonly family: ClusterFamily
		readonly trials: boolean
	},
): Promise<void> {
	const { kinds, profile, family, trials } = how
	const seen: Record<string, number> = {}
	const nodes = nodeNames.map((name) => ({
		name,
		plane: createPolicy({ uplink: 'eth0', netns: world.node(name), profile: policyProfiles[profile] }),
		have: undefined as NftProgram | undefined,
	}))
	const packets = new Packets(world.places)
	try {
		for (let seed = 1; seed <= clusters; seed++) {
			const dice = diceOf(seed * 15_485_867)
			const drawn = inFamily(makeCluster(dice, kinds), family, dice)
			const cluster = { ...(trials ? withTrials(drawn, dice) : drawn), corners: cornersOf[profile] }
			let state = emptyState()
			for (const object of objectsOf(cluster)) state = setObject(state, object)
			const model = build({ ...state, resolvedNames: resolvedNamesOf(cluster) })
			for (const node of nodes) {
				const want = node.plane.compile(model, node.name)
				const outcome = await node.plane.apply(node.plane.diff(node.have, want))
				if (!outcome.ok) throw outcome.error
				node.have = want
			}
			const dropped = async () =>
				(await Promise.all(nodes.map(({ plane }) => plane.read()))).reduce((n, p) => n + dropsOf(p), 0)
			for (let attempt = 1; ; attempt++) {
				const before = await dropped()
				const expected = new Map<number, { readonly sent: Sent; readonly answer: string }>()
				const ends = endsOf(cluster)
				for (const [i, from] of ends.entries()) {
					for (const [k, to] of ends.entries()) {
						// To itself it never leaves the pod; two that are no pods of ours no policy is about.
						if (from.pod === to.pod || from.ip.includes(':') !== to.ip.includes(':')) continue
						const [protocol, port] = asked[(seed + i * 3 + k) % asked.length]!
						const sent: Sent = { from: from.ip as Ip, to: to.ip as Ip, protocol, port }
						expected.set(packets.send(sent), { sent, answer: answerOf(cluster, from, to, protocol, port) })
					}
				}
				const arrived = new Map<number, Ip>()
				let drops = 0
				for (const end = Date.now() + patience; ; ) {
					for (const [id, at] of packets.heard()) if (expected.get(id)?.sent.to === at) arrived.set(id, at)
					drops = (await dropped()) - before
					if (arrived.size + drops >= expected.size || Date.now() > end) break
					await new Promise((resolve) => setTimeout(resolve, 1))
				}
				const wrong = [...expected].flatMap(([id, { sent, answer }]) => {
					seen[answer] = (seen[answer] ?? 0) + 1
					return (answer === 'passes') === arrived.has(id)
						? []
						: [
								`${sent.from} to ${sent.to} ${sent.protocol}/${sent.port}: oracle ${answer}, packet ${arrived.has(id) ? 'arrived' : 'did not'}`,
							]
				})
				const sum = `${arrived.size} arrived, ${drops} dropped of ${expected.size}`
				if (wrong.length === 0 && arrived.size + drops === expected.size) break
				if (attempt === attempts)
					assert.fail(`seed ${seed}: ${sum}\n${wrong.join('\n')}\n${JSON.stringify(cluster, undefined, 1)}`)
			}
		}
	} finally {
		packets.close()
		for (const { plane } of nodes) plane.close()
	}
	for (const answer of ['egress', 'ingress', 'passes']) assert.ok((seen[answer] ?? 0) > clusters, JSON.stringify(seen))
}

function endsOf(cluster: OracleCluster): End[] {
	return [
		...cluster.pods
			.filter((p) => !p.hostNetwork)
			.flatMap((pod) => addressesOf(pod).map((ip) => ({ ip, pod, node: pod.node }))),
		...Object.entries(cluster.nodes).flatMap(([node, of]) => addressesOf(of).map((ip) => ({ ip, node }))),
		...strangersOf(cluster).map((ip) => ({ ip })),
	]
}

/** Which policies drop it; `passes`. */
function answerOf(cluster: OracleCluster, from: End, to: End, protocol: Protocol, port: number): string {
	const other = ({ ip, pod, node }: End) => ({
		ip,
		...(pod !== undefined ? { pod } : node === undefined ? {} : { node }),
	})
	for (const [direction, of, with_] of [
		['egress', from, to],
		['ingress', to, from],
	] as const) {
		if (of.pod === undefined) continue
		const answer = oracle(cluster, { direction, pod: of.pod, other: other(with_), protocol, port })
		if (answer.startsWith('deny')) return direction
	}
	return 'passes'
}

/** Packets that rules of policies have dropped. */
function dropsOf(program: NftProgram): number {
	let drops = 0
	for (const table of program.tables.values())
		for (const { rules } of table.chains.values())
			for (const { expressions } of rules) {
				const [counter] = expressions.filter((e) => e.kind === 'counter')
				const verdict = expressions.at(-1)
				if (counter?.kind === 'counter' && JSON.stringify(verdict).includes('"drop"')) drops += counter.packets ?? 0
			}
	return drops
}
