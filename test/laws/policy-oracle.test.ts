// The oracle (a plain reading of the APIs, sharing nothing with the model), the model's decide() and the walk say the same
// of every connection of thousands of small clusters: NetworkPolicy alone and with the tiers around it, of either family
// and of both, with policies on trial.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Ip } from '../../src/base/ip.ts'
import type { Protocol } from '../../src/base/packet.ts'
import { build } from '../../src/model/build.ts'
import { decide, type Peer } from '../../src/model/policy.ts'
import { policyProfiles } from '../../src/model/policy-profile.ts'
import { emptyState, setObject } from '../../src/model/state.ts'
import type { Flow } from '../../src/walk/trace.ts'
import { walk } from '../../src/walk/walk.ts'
import {
	addressesOf,
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
import { type OracleCluster, type OracleConnection, type OraclePod, oracle } from './policy-oracle.ts'

const asked: readonly (readonly [Protocol, number])[] = [
	['TCP', 80],
	['TCP', 8080],
	['TCP', 9000],
	['UDP', 53],
	['UDP', 80],
	['SCTP', 80],
	['ICMP', 0],
]

/** With `PODWIRE_LAW_CLUSTERS=100000` each of them asks so many. */
for (const [kinds, usual, profile, family, trials] of [
	['v1', 1200, 'default', 'ipv4', false],
	['all', 2000, 'default', 'ipv4', false],
	['all', 600, 'calico-like', 'ipv4', false],
	['all', 600, 'cilium-like', 'ipv4', false],
	['all', 1000, 'default', 'ipv6', false],
	['all', 1000, 'default', 'dual', false],
	['all', 300, 'cilium-like', 'dual', false],
	['v1', 600, 'default', 'dual', true],
	['all', 1200, 'default', 'dual', true],
] as const) {
	const which = `${kinds === 'v1' ? 'NetworkPolicy alone' : 'all tiers'}${trials ? ', some on trial' : ''}`
	const count = clustersOf(usual)
	test(`the oracle, decide() and walk() agree, ${which}, ${profile}, ${family}: ${count} clusters`, () => {
		const seen: Record<string, number> = {}
		let walked = 0
		for (let seed = 1; seed <= count; seed++) {
			const dice = diceOf(seed * (kinds === 'v1' ? 7919 : 104_729))
			const drawn = inFamily(makeCluster(dice, kinds), family, dice)
			const cluster = { ...(trials ? withTrials(drawn, dice) : drawn), corners: cornersOf[profile] }
			let state = emptyState()
			for (const object of objectsOf(cluster)) state = setObject(state, object)
			const model = build({ ...state, resolvedNames: resolvedNamesOf(cluster) })
			const others: OracleConnection['other'][] = [
				...cluster.pods.flatMap((pod) =>
					addressesOf(pod).map((ip) => (pod.hostNetwork ? { ip, node: pod.node } : { ip, pod })),
				),
				...Object.entries(cluster.nodes).flatMap(([node, of]) => addressesOf(of).map((ip) => ({ ip, node }))),
				...strangersOf(cluster).map((ip) => ({ ip })),
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
						const said = `${got.audited === true ? 'audit' : got.verdict} ${got.tier}`
						const about = () =>
							`seed ${seed}: ${direction} of ${keyOf(pod)} with ${other.ip} ${protocol}/${port}: oracle ${want}, `
						if (said !== want) assert.fail(`${about()}decide ${said}\n${JSON.stringify(cluster, undefined, 1)}`)
						seen[want] = (seen[want] ?? 0) + 1
						// What leaves a pod meets its egress first: there the walk must say the same.
						if (direction !== 'egress' || pod.hostNetwork || other.pod === pod) continue
						const flow: Flow = {
							from: { kind: 'pod', pod: keyOf(pod) },
							to: { ip: other.ip as Ip },
							protocol,
							port,
						}
						const denies = (at: 'egress' | 'ingress') =>
							(at === 'egress' ? want : into(cluster, pod, other, protocol, port)).startsWith('deny')
						const [trace, ...more] = walk(model, flow, { policyProfile: policyProfiles[profile] })
						const end = denies('egress') ? 'denied-egress' : denies('ingress') ? 'denied-ingress' : 'allowed'
						const met = trace?.disposition.startsWith('denied-') === true ? trace.disposition : 'allowed'
						if (met !== end || more.length > 0)
							assert.fail(`${about()}${end}, walk ${trace?.disposition}\n${JSON.stringify(cluster, undefined, 1)}`)
						walked++
					}
				}
			}
		}
		const answers = ['allow default', 'allow NetworkPolicy', 'deny NetworkPolicy']
		if (kinds === 'all') answers.push('allow Admin', 'deny Admin', 'allow Baseline', 'deny Baseline')
		if (trials) answers.push('audit NetworkPolicy')
		for (const answer of answers) assert.ok((seen[answer] ?? 0) > count / 4, `${answer}: ${seen[answer]}`)
		assert.ok(walked > count, `${walked} flows were walked`)
	})
}

/** What the other side's policies say; a node has none. */
function into(
	cluster: OracleCluster,
	from: OraclePod,
	{ pod, ip }: OracleConnection['other'],
	protocol: string,
	port: number,
): string {
	if (pod === undefined) return 'allow default'
	const source = addressesOf(from).find((a) => a.includes(':') === ip.includes(':')) ?? ''
	return oracle(cluster, { direction: 'ingress', pod, other: { ip: source, pod: from }, protocol, port })
}

function keyOf(pod: OraclePod): string {
	return `${pod.namespace}/${pod.name}`
}
