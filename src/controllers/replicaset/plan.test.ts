import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ReplicaSet } from '../../kube/objects/apps.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { podsToDelete } from './deletion.ts'
import { planReplicas, replicaStatus } from './plan.ts'

const now = Date.parse('2026-01-01T12:00:00Z')
const ago = (seconds: number): string => new Date(now - seconds * 1000).toISOString()

interface PodFacts {
	node?: string
	phase?: 'Pending' | 'Running' | 'Unknown' | 'Failed' | 'Succeeded'
	ready?: number | false
	cost?: string
	restarts?: number
	age?: number
	deleted?: boolean
	labels?: Record<string, string>
}

function pod(name: string, facts: PodFacts = {}): Pod {
	const { node = 'n1', phase = 'Running', ready = 100, age = 100 } = facts
	return {
		apiVersion: 'v1',
		kind: 'Pod',
		metadata: {
			name,
			uid: `uid-${name}`,
			labels: facts.labels ?? { app: 'web' },
			creationTimestamp: ago(age),
			...(facts.cost === undefined
				? {}
				: { annotations: { 'controller.kubernetes.io/pod-deletion-cost': facts.cost } }),
			...(facts.deleted ? { deletionTimestamp: ago(1) } : {}),
		},
		spec: { containers: [], ...(node === '' ? {} : { nodeName: node }) },
		status: {
			phase,
			conditions: [
				{
					type: 'Ready',
					status: ready === false ? 'False' : 'True',
					lastTransitionTime: ago(ready === false ? 0 : ready),
				},
			],
			containerStatuses: [{ name: 'c', ready: true, restartCount: facts.restarts ?? 0, image: '', imageID: '' }],
		},
	}
}

function set(replicas: number, extra: Partial<ReplicaSet['spec']> = {}): ReplicaSet {
	return {
		apiVersion: 'apps/v1',
		kind: 'ReplicaSet',
		metadata: { name: 'web', namespace: 'default', uid: 'rs', generation: 3 },
		spec: {
			replicas,
			selector: { matchLabels: { app: 'web' } },
			template: { metadata: { labels: { app: 'web' } }, spec: { containers: [] } },
			...extra,
		},
	}
}

const order: [why: string, first: Pod, second: Pod, related?: Pod[]][] = [
	['unscheduled before scheduled', pod('a', { node: '' }), pod('b', { phase: 'Pending' })],
	['pending before running', pod('a', { phase: 'Pending', ready: false }), pod('b', { ready: false })],
	['unknown before running', pod('a', { phase: 'Unknown' }), pod('b')],
	['not ready before ready', pod('a', { ready: false }), pod('b', { cost: '-100' })],
	['the cheaper first', pod('a', { cost: '-5' }), pod('b', { age: 1, ready: 1 })],
	['a cost that is no number is 0', pod('a', { cost: '-1' }), pod('b', { cost: '01' })],
	[
		'the crowded node first',
		pod('a', { node: 'n2' }),
		pod('b', { node: 'n1', age: 1, ready: 1 }),
		[pod('x', { node: 'n2' })],
	],
	['the one ready more recently', pod('a', { ready: 10 }), pod('b', { ready: 1000 })],
	['about equally long ready: by uid', pod('a', { ready: 110 }), pod('b', { ready: 100 })],
	['more restarts first', pod('a', { restarts: 3 }), pod('b', { restarts: 1, age: 1 })],
	['the younger first', pod('a', { age: 10 }), pod('b', { age: 1000 })],
]
for (const [why, first, second, related = []] of order) {
	test(`deleted first: ${why}`, () => {
		const all = [first, second, ...related]
		assert.deepEqual(podsToDelete([first, second], 1, all, now), [first])
		assert.deepEqual(podsToDelete([second, first], 1, all, now), [first])
	})
}

test('the number of pods to make or delete', () => {
	const plan = (replicas: number, pods: Pod[]) => {
		const { create, remove } = planReplicas({ owner: set(replicas), pods, related: () => pods, now })
		return [create, remove.map((p) => p.metadata.name)]
	}
	assert.deepEqual(plan(3, []), [3, []])
	assert.deepEqual(plan(3, [pod('a'), pod('b', { deleted: true }), pod('c', { phase: 'Failed' })]), [2, []])
	assert.deepEqual(plan(1, [pod('a')]), [0, []])
	assert.deepEqual(plan(1, [pod('a'), pod('b', { ready: false })]), [0, ['b']])
	assert.deepEqual(plan(0, [pod('a')]), [0, ['a']])
	assert.deepEqual(plan(2000, []), [500, []], 'no more than a burst in one turn')
	const dying = { ...set(3), metadata: { ...set(3).metadata, deletionTimestamp: ago(0) } }
	assert.equal(planReplicas({ owner: dying, pods: [], related: () => [], now }).create, 0)
})

test('the status counts what counts', () => {
	const pods = [
		pod('a'),
		pod('b', { ready: 3 }),
		pod('c', { ready: false, labels: { app: 'other' } }),
		pod('d', { deleted: true }),
		pod('e', { phase: 'Succeeded' }),
	]
	const owner = set(3, { minReadySeconds: 10 })
	assert.deepEqual(replicaStatus({ owner, pods, now }), {
		replicas: 3,
		fullyLabeledReplicas: 2,
		readyReplicas: 2,
		availableReplicas: 1,
		terminatingReplicas: 1,
		observedGeneration: 3,
	})
	assert.equal(planReplicas({ owner, pods, related: () => pods, now }).after, 7000)
})

test('a failure to create is a condition, and goes when it is over', () => {
	const failure = { reason: 'FailedCreate', message: 'exceeded quota' } as const
	const status = replicaStatus({ owner: set(1), pods: [], now }, failure)
	assert.deepEqual(status.conditions, [
		{ type: 'ReplicaFailure', status: 'True', ...failure, lastTransitionTime: '2026-01-01T12:00:00Z' },
	])
	const owner = { ...set(1), status }
	assert.deepEqual(replicaStatus({ owner, pods: [], now: now + 5000 }, failure).conditions, status.conditions)
	assert.equal(replicaStatus({ owner, pods: [], now }).conditions, undefined)
})
