import assert from 'node:assert/strict'
import { test } from 'node:test'
import { believe, type HealthBelief } from './external-health.ts'

const good = undefined
const bad = { why: 'answers 503' }

for (const [what, answers, healthy] of [
	['not asked yet: as the API says', [], true],
	['one bad answer is none', [bad], true],
	['two in a row take it out', [bad, bad], false],
	['two with a good one between do not', [bad, good, bad], true],
	['out, one good answer is none', [bad, bad, good], false],
	['out, two good ones bring it back', [bad, bad, good, good], true],
	['out, a bad one between begins anew', [bad, bad, good, bad, good], false],
] as const) {
	test(`health: ${what}`, () => {
		let belief: HealthBelief | undefined
		for (const answer of answers) belief = believe(belief, answer)
		assert.equal(belief?.healthy ?? true, healthy)
	})
}

test('why a node is out is what it said last', () => {
	const out = [bad, bad, { why: 'does not answer', mute: true as const }].reduce<HealthBelief | undefined>(
		believe,
		undefined,
	)
	assert.deepEqual(out?.fault, { why: 'does not answer', mute: true })
})
