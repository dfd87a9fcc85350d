// The oracle (a plain reading of the APIs, sharing nothing with the model) and the model's decide() say the same of
// every connection of thousands of small clusters, NetworkPolicy alone and with the tiers around it.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Ip } from '../../src/base/ip.ts'
import type { Protocol } from '../../src/base/packet.ts'
import { build } from '../../src/model/build.ts'
import { decide, type Peer } from '../../src/model/policy.ts'
import { policyProfiles } from '../../src/model/policy-profile.ts'
import { emptyState, setObject } from '../../src/model/state.ts'
import { cornersOf, diceOf, makeCluster, objectsOf, resolvedNamesOf } from './policy-clusters.ts'
import { type OracleConnection, type OraclePod, oracle } from './policy-oracle.ts'

const asked: readonly (readonly [Protocol, number])[] = [
	['TCP', 80],
	['TCP', 8080],
	['TCP', 9000],
	['UDP', 53],
	['UDP', 80],
	['SCTP', 80],
	['ICMP', 0],
]

for (const [kinds, count, profile] of [
	['v1', 1200, 'default'],
	['all', 2000, 'default'],
	['all', 600, 'calico-like'],
	['all', 600, 'cilium-like'],
] as const) {
	const which = kinds === 'v1' ? 'NetworkPolicy alone' : 'all tiers'
	test(`the oracle and decide() agree, ${which}, ${profile}: ${count} clusters`, () => {
		const seen: Record<string, number> = {}
		for (let seed = 1; seed <= count; seed++) {
			const drawn = makeCluster(diceOf(seed * (kinds === 'v1' ? 7919 : 104_729)), kinds)
			const cluster = { ...drawn, corners: cornersOf[profile] }
			let state = emptyState()
			for (const object of objectsOf(cluster)) state = setObject(state, object)
			const model = build({ ...state, resolvedNames: resolvedNamesOf(cluster) })
			const others: OracleConnection['other'][] = [
				...cluster.pods.map((pod) => (pod.hostNetwork ? { ip: pod.ip, node: pod.node } : { ip: pod.ip, pod })),
				...Object.entries(cluster.nodes).map(([node, { ip }]) => ({ ip, node })),
				{ ip: '203.0.113.9' },
			]
			for (const pod of cluster.pods) {
				for (const other of others) {
					for (const direction of ['ingress', 'egress'] as const) {
						const [protocol, port] = asked[seed % 2 === 0 ? (pod.name.charCodeAt(1) + others.indexOf(other)) % 7 : 0]!
						const want = oracle(cluster, { direction, pod, other, protocol, port })
						const peer: Peer = {
							ip: other.ip as Ip,
							...(other.pod === undefined ? {} : { pod: model.pods.get(keyOf(other.pod))! }),
							...(other.node === undefined ? {} : { node: other.node }),
						}
						const question = { direction, pod: model.pods.get(keyOf(pod))!, peer, protocol, port }
						const got = decide(model, question, undefined, policyProfiles[profile])
						if (`${got.verdict} ${got.tier}` !== want) {
							assert.fail(
								`seed ${seed}: ${direction} of ${keyOf(pod)} with ${other.ip} ${protocol}/${port}: oracle ${want}, decide ${got.verdict} ${got.tier}\n${JSON.stringify(cluster, undefined, 1)}`,
							)
						}
						seen[want] = (seen[want] ?? 0) + 1
					}
				}
			}
		}
		const answers = ['allow default', 'allow NetworkPolicy', 'deny NetworkPolicy']
		if (kinds === 'all') answers.push('allow Admin', 'deny Admin', 'allow Baseline', 'deny Baseline')
		for (const answer of answers) assert.ok((seen[answer] ?? 0) > count / 4, `${answer}: ${seen[answer]}`)
	})
}

function keyOf(pod: OraclePod): string {
	return `${pod.namespace}/${pod.name}`
}
