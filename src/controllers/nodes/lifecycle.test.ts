import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Node, Taint } from '../../kube/objects/core.ts'
import type { Pod, Toleration } from '../../kube/objects/pod.ts'
import { evictionModes, evictionTime, planTaints, silentConditions } from './lifecycle.ts'

const now = Date.parse('2026-01-01T00:01:00Z')
const nowText = '2026-01-01T00:01:00Z'

function node(
	name: string,
	ready: 'True' | 'False' | 'Unknown' | undefined,
	more: Partial<Node['spec']> = {},
	zone = '',
) {
	const object: Node = {
		apiVersion: 'v1',
		kind: 'Node',
		metadata: { name, ...(zone === '' ? {} : { labels: { 'topology.kubernetes.io/zone': zone } }) },
		spec: more,
		status: ready === undefined ? {} : { conditions: [{ type: 'Ready', status: ready, lastHeartbeatTime: 'then' }] },
	}
	return object
}

test('a silent node: every condition of its kubelet is unknown, once', () => {
	const conditions = silentConditions(node('a', 'True'), now)!
	assert.deepEqual(
		conditions.map((c) => [c.type, c.status, c.reason, c.lastTransitionTime]),
		[
			['Ready', 'Unknown', 'NodeStatusUnknown', nowText],
			['MemoryPressure', 'Unknown', 'NodeStatusNeverUpdated', nowText],
			['DiskPressure', 'Unknown', 'NodeStatusNeverUpdated', nowText],
			['PIDPressure', 'Unknown', 'NodeStatusNeverUpdated', nowText],
		],
	)
	assert.equal(conditions[0]!.lastHeartbeatTime, 'then', 'the heartbeat is that of the kubelet')
	const silent = { ...node('a', 'True'), status: { conditions } }
	assert.equal(silentConditions(silent, now + 5), undefined)
})

const key = (name: string) => `node.kubernetes.io/${name}`
const since = '2026-01-01T00:00:00Z'

for (const [what, of, mode, want] of [
	['ready', node('a', 'True'), 'evict', undefined],
	['nothing said yet', node('a', undefined), 'evict', undefined],
	['silent', node('a', 'Unknown'), 'evict', ['unreachable:NoSchedule', `unreachable:NoExecute@${nowText}`]],
	['not ready', node('a', 'False'), 'evict', ['not-ready:NoSchedule', `not-ready:NoExecute@${nowText}`]],
	['silent as all others', node('a', 'Unknown'), 'none', ['unreachable:NoSchedule']],
	['silent as most', node('a', 'Unknown'), 'hold', ['unreachable:NoSchedule']],
	[
		'silent before most were',
		node('a', 'Unknown', { taints: [{ key: key('unreachable'), effect: 'NoExecute', timeAdded: since }] }),
		'hold',
		[`unreachable:NoExecute@${since}`, 'unreachable:NoSchedule'],
	],
	['cordoned', node('a', 'True', { unschedulable: true }), 'evict', ['unschedulable:NoSchedule']],
	[
		'back, with a taint of its user',
		node('a', 'True', {
			taints: [
				{ key: 'mine', effect: 'NoExecute' },
				{ key: key('unreachable'), effect: 'NoExecute', timeAdded: since },
				{ key: key('unreachable'), effect: 'NoSchedule' },
				{ key: key('unschedulable'), effect: 'NoSchedule' },
			],
		}),
		'evict',
		['mine:NoExecute'],
	],
	[
		'silent already: since when stays',
		node('a', 'Unknown', {
			taints: [
				{ key: key('unreachable'), effect: 'NoSchedule' },
				{ key: key('unreachable'), effect: 'NoExecute', timeAdded: since },
			],
		}),
		'evict',
		undefined,
	],
] as const) {
	test(`taints of a node: ${what}`, () => {
		const text = (t: Taint) =>
			`${t.key.replace('node.kubernetes.io/', '')}:${t.effect}${t.timeAdded === undefined ? '' : `@${t.timeAdded}`}`
		assert.deepEqual(planTaints(of, mode, now)?.map(text), want)
	})
}

test('who is driven out: nobody where all are silent, no more where most of a zone is', () => {
	const modes = (...nodes: Node[]) => nodes.map(evictionModes(nodes))
	assert.deepEqual(modes(node('a', 'Unknown'), node('b', 'True')), ['evict', 'evict'])
	assert.deepEqual(modes(node('a', 'Unknown'), node('b', 'False')), ['none', 'none'])
	assert.deepEqual(modes(node('a', undefined)), ['evict'])
	const three = ['a', 'b', 'c'].map((name) => node(name, 'Unknown', {}, 'z1'))
	assert.deepEqual(modes(...three, node('d', 'True', {}, 'z1'), node('e', 'True', {}, 'z2')), [
		'hold',
		'hold',
		'hold',
		'hold',
		'evict',
	])
	assert.deepEqual(modes(...three, node('e', 'True', {}, 'z2')).at(0), 'evict', 'a zone lost whole, others live')
})

test('when a pod has to leave', () => {
	const added = Date.parse(since)
	const taint: Taint = { key: key('unreachable'), effect: 'NoExecute', timeAdded: since }
	const at = (tolerations: readonly Toleration[], ...taints: Taint[]) =>
		evictionTime({ spec: { tolerations, containers: [] } } as unknown as Pod, taints, now)
	const stays: Toleration = { key: key('unreachable'), operator: 'Exists', effect: 'NoExecute' }
	assert.equal(at([]), undefined)
	assert.equal(at([], { key: 'x', effect: 'NoSchedule' }), undefined)
	assert.equal(at([], taint), added)
	assert.equal(at([], { key: 'x', effect: 'NoExecute' }), now, 'a taint without a date counts from when it was seen')
	assert.equal(at([stays], taint), undefined)
	assert.equal(at([{ ...stays, tolerationSeconds: 300 }], taint), added + 300_000)
	assert.equal(at([{ ...stays, tolerationSeconds: 0 }], taint), added)
	assert.equal(
		at([{ ...stays, tolerationSeconds: 9 }], taint, { key: 'x', effect: 'NoExecute', timeAdded: since }),
		added,
	)
})
