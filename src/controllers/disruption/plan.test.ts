import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Pod } from '../../kube/objects/pod.ts'
import type { PodDisruptionBudget } from '../../kube/objects/policy.ts'
import { planDisruption } from './plan.ts'

const now = Date.parse('2026-01-01T00:10:00Z')

function pod(name: string, more: { ready?: boolean; going?: boolean; phase?: string; owner?: string } = {}): Pod {
	return {
		metadata: {
			name,
			namespace: 'a',
			labels: { of: more.owner ?? 'web' },
			...(more.going ? { deletionTimestamp: 'x' } : {}),
		},
		status: {
			phase: more.phase ?? 'Running',
			conditions: [{ type: 'Ready', status: more.ready === false ? 'False' : 'True' }],
		},
	} as unknown as Pod
}

function plan(spec: PodDisruptionBudget['spec'], pods: Pod[], replicas: number | undefined, status?: object) {
	return planDisruption({
		budget: { metadata: { name: 'b', generation: 2 }, spec, status } as unknown as PodDisruptionBudget,
		pods,
		scaleOf: (p) => (replicas === undefined ? undefined : { key: p.metadata.labels!.of!, replicas }),
		now,
	})
}

const three = [pod('1'), pod('2'), pod('3')]

for (const [what, spec, pods, replicas, want] of [
	['a number to stay', { minAvailable: 2 }, three, undefined, [1, 3, 2, 3]],
	[
		'a number to stay, one sick',
		{ minAvailable: 2 },
		[pod('1'), pod('2'), pod('3', { ready: false })],
		undefined,
		[0, 2, 2, 3],
	],
	[
		'one going counts as a pod, not as healthy',
		{ minAvailable: 1 },
		[pod('1'), pod('2', { going: true })],
		undefined,
		[0, 1, 1, 2],
	],
	[
		'one that has ended counts for nothing',
		{ minAvailable: 1 },
		[pod('1'), pod('2', { phase: 'Succeeded' })],
		undefined,
		[0, 1, 1, 1],
	],
	['a part to stay, rounded up', { minAvailable: '50%' }, three, 3, [1, 3, 2, 3]],
	['a number to go', { maxUnavailable: 1 }, three, 3, [1, 3, 2, 3]],
	['a number to go, pods are missing', { maxUnavailable: 1 }, [pod('1'), pod('2')], 3, [0, 2, 2, 3]],
	['a part to go, rounded up', { maxUnavailable: '34%' }, three, 3, [2, 3, 1, 3]],
	['more to go than there are', { maxUnavailable: 9 }, three, 3, [3, 3, 0, 3]],
	['two owners', { maxUnavailable: 1 }, [pod('1'), pod('2', { owner: 'db' })], 1, [1, 2, 1, 2]],
	['no pods', { minAvailable: 0 }, [], undefined, [0, 0, 0, 0]],
] as const) {
	test(`disruptions allowed: ${what}`, () => {
		const { status } = plan(spec, [...pods], replicas)
		assert.deepEqual(
			[status.disruptionsAllowed, status.currentHealthy, status.desiredHealthy, status.expectedPods],
			want,
		)
		assert.equal(status.observedGeneration, 2)
		assert.equal(status.conditions![0]!.status, want[0] > 0 ? 'True' : 'False')
	})
}

test('a granted eviction counts until the pod shows it, or for two minutes', () => {
	const granted = { disruptedPods: { 1: '2026-01-01T00:09:00Z', 2: '2026-01-01T00:07:00Z', 9: '2026-01-01T00:09:00Z' } }
	const fresh = plan({ minAvailable: 1 }, three, undefined, granted)
	assert.deepEqual(fresh.status.disruptedPods, { 1: '2026-01-01T00:09:00Z' })
	assert.equal(fresh.status.disruptionsAllowed, 1)
	assert.equal(fresh.wait, 60_000)
	const shown = plan({ minAvailable: 1 }, [pod('1', { going: true }), pod('2'), pod('3')], undefined, granted)
	assert.equal(shown.status.disruptedPods, undefined)
	assert.equal(shown.wait, undefined)
})

test('a part of pods nobody controls cannot be told', () => {
	const { status, fault } = plan({ maxUnavailable: 1 }, three, undefined)
	assert.match(fault!, /found no controllers for pod "1"/)
	assert.deepEqual([status.disruptionsAllowed, status.conditions![0]!.reason], [0, 'SyncFailed'])
})
