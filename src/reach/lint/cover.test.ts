// A rule that is said to have no effect has none: without it everybody may say what they said before.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { makeWorld } from '../../../test/reach/world.ts'
import type { NetworkPolicy } from '../../kube/objects/networking.ts'
import { build } from '../../model/build.ts'
import type { NetworkModel } from '../../model/network.ts'
import { setObject } from '../../model/state.ts'
import { connectionsText } from '../connections.ts'
import { Reach } from '../engine.ts'
import { partiesOf } from '../parties.ts'
import { lint } from './check.ts'

function everything(model: NetworkModel): string {
	const reach = new Reach({ model })
	const pods = [...model.pods.keys()].sort()
	const lines: string[] = []
	for (const pod of pods) {
		for (const own of reach.classesOf(pod)) {
			for (const other of pods)
				for (const id of reach.classesOf(other))
					lines.push(`${pod} ${other} ${connectionsText(reach.pool.setOf(reach.between(own, id)))}`)
			for (const ip of ['10.244.1.9', '10.9.9.9', '192.0.2.1', '192.0.2.200', '203.0.113.1', 'fd00::1', '2001:db8::1'])
				for (const direction of ['ingress', 'egress'] as const)
					lines.push(
						`${pod} ${direction} ${ip} ${connectionsText(reach.pool.setOf(reach.withAddress(direction, own, ip as never)))}`,
					)
		}
	}
	return lines.join('\n')
}

test('a rule that is shadowed can go', () => {
	let gone = 0
	for (let seed = 300; seed < 330; seed++) {
		const { state } = makeWorld({ seed, pods: 20, policies: 10, namespaces: 2, replicas: 1, odd: true })
		const model = build(state)
		const reach = new Reach({ model })
		const input = { state, model, reach, parties: partiesOf(model, reach), ingresses: [], needs: [] }
		const before = everything(model)
		const shadowed = lint(input).filter((f) => f.code === 'PW0041')
		for (const finding of shadowed.slice(0, 4)) {
			const origin = finding.because[0]!
			assert.ok('field' in origin)
			const [, direction, at] = /^spec\.(ingress|egress)\[(\d+)\]$/.exec(origin.field ?? '') as unknown as [
				string,
				'ingress' | 'egress',
				string,
			]
			const policy = state.networkPolicies.get(origin.key) as NetworkPolicy
			const rules = policy.spec![direction]!.filter((_, i) => i !== Number(at))
			const next = setObject(state, { ...policy, spec: { ...policy.spec, [direction]: rules } } as NetworkPolicy)
			assert.equal(everything(build(next)), before, `seed ${seed}: ${finding.text}`)
			gone++
		}
	}
	assert.ok(gone > 30, `only ${gone} rules went`)
})
