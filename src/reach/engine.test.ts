// The engine says what `decide` says: for every pair of pods, every protocol and every port at which an answer may change;
// and following a change gives what building from nothing gives.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addresses, disagreements } from '../../test/reach/oracle.ts'
import { makeWorld, type WorldOptions } from '../../test/reach/world.ts'
import { build } from '../model/build.ts'
import type { NetworkModel } from '../model/network.ts'
import { policyProfiles } from '../model/policy-profile.ts'
import { connectionsText } from './connections.ts'
import { Reach } from './engine.ts'

const small: Omit<WorldOptions, 'seed'> = { pods: 24, policies: 8, namespaces: 3, replicas: 2, odd: true }

test('what decide says, of small clusters along their changes', () => {
	for (let seed = 1; seed <= 12; seed++) {
		const world = makeWorld({ ...small, seed })
		let { state } = world
		let model = build(state)
		const reach = new Reach({ model })
		for (let step = 0; step < 6; step++) {
			const { wrong } = disagreements(model, reach, { every: 11 })
			assert.deepEqual(wrong.slice(0, 3), [], `seed ${seed}, step ${step}`)
			const next = world.change(state)
			model = build(next, { state, model })
			state = next
			reach.update({ model })
		}
	}
})

test('what decide says with tiers around and policies on trial', () => {
	for (let seed = 50; seed < 56; seed++) {
		const world = makeWorld({ ...small, seed, tiers: 4 })
		let { state } = world
		let model = build(state)
		const reach = new Reach({ model })
		for (let step = 0; step < 6; step++) {
			const { wrong } = disagreements(model, reach, { every: 11 })
			assert.deepEqual(wrong.slice(0, 3), [], `seed ${seed}, step ${step}`)
			const next = world.change(state)
			model = build(next, { state, model })
			state = next
			reach.update({ model })
		}
	}
})

test('what decide says where networks mean neither pods nor nodes', () => {
	const profile = policyProfiles['cilium-like']
	for (let seed = 70; seed < 75; seed++) {
		const world = makeWorld({ ...small, seed, tiers: seed % 2 })
		let { state } = world
		let model = build(state)
		const reach = new Reach({ model, profile })
		for (let step = 0; step < 5; step++) {
			const { wrong } = disagreements(model, reach, { every: 11, profile })
			assert.deepEqual(wrong.slice(0, 3), [], `seed ${seed}, step ${step}`)
			const next = world.change(state)
			model = build(next, { state, model })
			state = next
			reach.update({ model, profile })
		}
	}
})

test('what decide says, of pairs of 300 pods', () => {
	// Every pair takes a minute of two busy cores: `npm run bench reach --full` asks them all, here every 41st.
	const { state } = makeWorld({ seed: 8, pods: 300, policies: 60, namespaces: 6, replicas: 4, odd: true })
	const model = build(state)
	const { asked, wrong } = disagreements(model, new Reach({ model }), { every: 41 })
	assert.deepEqual(wrong.slice(0, 3), [])
	assert.ok(asked > 50_000, `${asked}`)
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

/** Follows changes by chance, and lays the answers beside those of a computation from nothing. Returns how many were followed. */
function followAll(options: WorldOptions, steps: number): number {
	const world = makeWorld(options)
	let { state } = world
	let model = build(state)
	const reach = new Reach({ model })
	everything(model, reach)
	let kept = 0
	for (let step = 0; step < steps; step++) {
		const before = new Map([...model.pods.keys()].map((key) => [key, reach.classesOf(key)]))
		const next = world.change(state)
		model = build(next, { state, model })
		state = next
		const change = reach.update({ model })
		const whole = new Reach({ model })
		const at = `seed ${options.seed}, step ${step}`
		assert.deepEqual(everything(model, reach), everything(model, whole), at)
		if (change.rebuilt) continue
		kept++
		for (const key of model.pods.keys())
			if (before.get(key)?.join() !== reach.classesOf(key).join())
				assert.ok(
					reach.classesOf(key).every((id) => change.members.has(id)),
					`${at}: ${key} moved, and nobody was told`,
				)
		// Labels that no policy names any more keep telling pods apart: only makeWorld's odd clusters have such.
		if (options.odd === true) continue
		const sizes = (r: Reach) => r.classes.map((c) => c.pods.size).filter((size) => size > 0)
		assert.deepEqual(sizes(reach).sort(), sizes(whole).sort(), `${at}: other classes`)
	}
	return kept
}

test('following a change gives what building from nothing gives', () => {
	let kept = 0
	for (let seed = 100; seed < 112; seed++) kept += followAll({ ...small, seed, tiers: seed % 3 }, 12)
	assert.ok(kept > 100, `only ${kept} changes were followed`)
})

test('the same where changes divide classes and join them again', () => {
	let kept = 0
	for (let seed = 300; seed < 312; seed++)
		kept += followAll({ ...small, pods: 36, replicas: 6, seed, tiers: seed % 2, odd: seed % 3 > 0, divided: true }, 15)
	assert.ok(kept > 100, `only ${kept} changes were followed`)
})

test('a change names every class with a pair that changed', () => {
	for (let seed = 200; seed < 215; seed++) {
		const world = makeWorld({ ...small, odd: false, seed, divided: seed % 2 === 0 })
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
