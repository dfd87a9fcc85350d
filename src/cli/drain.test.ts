import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Pod } from '../kube/objects/pod.ts'
import { planDrain } from './drain.ts'

const pod = (name: string, owner?: string, spec: object = {}, phase = 'Running', annotations = {}): Pod =>
	({
		metadata: {
			name,
			namespace: 'a',
			annotations,
			ownerReferences: owner === undefined ? [] : [{ kind: owner, name: 'o', uid: 'u', controller: true }],
		},
		spec,
		status: { phase },
	}) as unknown as Pod
const none = { ignoreDaemonSets: false, force: false, deleteEmptyDir: false }
const all = { ignoreDaemonSets: true, force: true, deleteEmptyDir: true }
const pods = [
	pod('web', 'ReplicaSet'),
	pod('agent', 'DaemonSet'),
	pod('bare'),
	pod('done', undefined, {}, 'Succeeded'),
	pod('cache', 'ReplicaSet', { volumes: [{ name: 'v', emptyDir: {} }] }),
	pod('static', 'Node', {}, 'Running', { 'kubernetes.io/config.mirror': 'x' }),
]

test('a drain refuses what would be lost, unless told', () => {
	assert.deepEqual(planDrain(pods, none, () => true).refusals, [
		'cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore): a/agent',
		'cannot delete Pods with local storage (use --delete-emptydir-data to override): a/cache',
		'cannot delete Pods that declare no controller (use --force to override): a/bare',
	])
	const plan = planDrain(pods, all, () => true)
	assert.deepEqual(plan.refusals, [])
	assert.equal(plan.warnings.length, 3)
	assert.deepEqual(
		plan.go.map((p) => p.metadata.name),
		['web', 'bare', 'done', 'cache'],
	)
})

test('the pod of a DaemonSet that is no more is one nobody controls', () => {
	const plan = planDrain([pod('agent', 'DaemonSet')], none, () => false)
	assert.match(plan.refusals.join(), /declare no controller.*a\/agent/)
})
