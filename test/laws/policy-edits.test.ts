// The advice holds: of every denied connection of many small clusters, each patch that is offered, applied to the API
// object, makes the policies allow the connection, and changes exactly as many others as it says.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { jsonPatch } from '../../src/apiserver/patch/json-patch.ts'
import type { Ip } from '../../src/base/ip.ts'
import type { Protocol } from '../../src/base/packet.ts'
import type { KubeObject } from '../../src/kube/objects/meta.ts'
import { build } from '../../src/model/build.ts'
import type { NetworkModel, Pod } from '../../src/model/network.ts'
import { type Decision, type Direction, decide, type Peer } from '../../src/model/policy.ts'
import { policyProfiles } from '../../src/model/policy-profile.ts'
import { type ClusterState, emptyState, getObject, type StateKind, setObject } from '../../src/model/state.ts'
import { type PolicyEdit, policyEdits, questionIn } from '../../src/walk/policy-edits.ts'
import { diceOf, makeCluster, objectsOf } from './policy-clusters.ts'

test('every patch that is offered allows the connection and opens what it says', () => {
	const seen: Record<string, number> = {}
	let none = 0
	for (let seed = 1; seed <= 700; seed++) {
		const cluster = makeCluster(diceOf(seed * 15_485_863), seed % 3 === 0 ? 'all' : 'v1')
		let state = emptyState()
		for (const object of objectsOf(cluster)) state = setObject(state, object)
		const model = build(state)
		const dice = diceOf(seed)
		for (let asked = 0; asked < 12; asked++) {
			const pod = dice.one([...model.pods.values()])
			const peer = dice.one<Peer>([
				...[...model.pods.values()].filter((p) => !p.hostNetwork).map((p) => ({ ip: p.ips[0]!, pod: p })),
				{ ip: '203.0.113.9' as Ip },
				{ ip: '172.18.0.3' as Ip, node: 'n2' },
			])
			const direction = dice.one<Direction>(['ingress', 'egress'])
			const [protocol, port] = dice.one<[Protocol, number]>([
				['TCP', 80],
				['TCP', 9000],
				['UDP', 53],
				['ICMP', 0],
			])
			const question = { direction, pod, peer, protocol, port }
			const decision = decide(model, question)
			if (decision.verdict === 'allow') {
				assert.deepEqual(policyEdits(model, question, decision, policyProfiles.default), [])
				continue
			}
			const edits = policyEdits(model, question, decision, policyProfiles.default)
			if (edits.length === 0) none++
			for (const edit of edits) {
				const key = `${edit.kind} of ${edit.object.kind}`
				seen[key] = (seen[key] ?? 0) + 1
				const after = build(patched(state, edit), { state, model })
				const then = decide(after, questionIn(after, question))
				const about = `seed ${seed}: ${direction} of ${pod.key} with ${peer.ip} ${protocol}/${port}: ${edit.text}`
				assert.equal(then.verdict, 'allow', about)
				assert.deepEqual(changes(model, after, question), { opens: edit.opens, closes: edit.closes ?? 0 }, about)
			}
		}
	}
	for (const [kind, least] of Object.entries({
		'port of NetworkPolicy': 20,
		'peer of NetworkPolicy': 50,
		'rule of NetworkPolicy': 100,
		'label of Pod': 3,
		'label of Namespace': 2,
		'rule of ClusterNetworkPolicy': 20,
		'rule of AdminNetworkPolicy': 5,
		'rule of BaselineAdminNetworkPolicy': 5,
	}))
		assert.ok((seen[kind] ?? 0) >= least, `${kind}: ${JSON.stringify(seen)}`)
	assert.ok(none < 700, `${none} without advice`)
})

function patched(state: ClusterState, { object, patch }: PolicyEdit): ClusterState {
	const key = object.namespace === undefined ? object.name : `${object.namespace}/${object.name}`
	const before = getObject(state, object.kind as StateKind, key)
	assert.ok(before !== undefined, `${object.kind} ${key} is there`)
	return setObject(state, jsonPatch(structuredClone(before) as never, patch) as unknown as KubeObject)
}

/** Every connection between pods, on the port asked and those declared, that is decided otherwise. */
function changes(before: NetworkModel, after: NetworkModel, question: Parameters<typeof decide>[1]) {
	let opens = 0
	let closes = 0
	for (const pod of before.pods.values()) {
		for (const other of before.pods.values()) {
			if (pod.key === other.key || pod.hostNetwork || other.hostNetwork) continue
			for (const direction of ['ingress', 'egress'] as const) {
				const declared = (direction === 'ingress' ? pod : other).ports.map((p) => `${p.protocol}/${p.port}`)
				for (const text of new Set([`${question.protocol}/${question.port}`, ...declared])) {
					const [protocol, port] = text.split('/') as [Protocol, string]
					const self =
						direction === question.direction &&
						pod.key === question.pod.key &&
						other.key === question.peer.pod?.key &&
						protocol === question.protocol &&
						Number(port) === question.port
					if (self) continue
					const ask = (model: NetworkModel): Decision => {
						const of = (p: Pod) => model.pods.get(p.key)!
						const peer = { ip: other.ips[0]!, pod: of(other) }
						return decide(model, { direction, pod: of(pod), peer, protocol, port: Number(port) })
					}
					const was = ask(before).verdict
					const is = ask(after).verdict
					if (was !== is && is === 'allow') opens++
					else if (was !== is) closes++
				}
			}
		}
	}
	return { opens, closes }
}
