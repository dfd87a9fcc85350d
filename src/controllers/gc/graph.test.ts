import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pods } from '../../kube/kinds.ts'
import type { KubeObject } from '../../kube/objects/meta.ts'
import { createGraph, judge, type OwnerState } from './graph.ts'

const object = (uid: string, owners: string[] = [], finalizers: string[] = []): KubeObject => ({
	apiVersion: 'v1',
	kind: 'Pod',
	metadata: {
		name: uid,
		namespace: 'default',
		uid,
		finalizers,
		ownerReferences: owners.map((o) => ({ apiVersion: 'v1', kind: 'Pod', name: o, uid: o })),
	},
})

const verdicts: [owners: OwnerState[], dependents: boolean, finalizers: string[], verdict: string][] = [
	[[], false, [], 'nothing'],
	[['solid'], false, [], 'nothing'],
	[['dangling'], false, [], 'delete Background'],
	[['dangling', 'dangling'], true, [], 'delete Background'],
	[['solid', 'dangling'], false, [], 'forget o1'],
	[['solid', 'waiting'], false, [], 'forget o1'],
	[['dangling', 'waiting', 'solid'], false, [], 'forget o0,o1'],
	[['waiting'], false, [], 'delete Background'],
	[['waiting'], true, [], 'delete Foreground'],
	[['waiting', 'dangling'], true, [], 'delete Foreground'],
	[['dangling'], true, ['orphan'], 'delete Orphan'],
	[['dangling'], true, ['foregroundDeletion'], 'delete Foreground'],
	[['unknown', 'dangling'], false, [], 'nothing'],
]
for (const [owners, dependents, finalizers, verdict] of verdicts) {
	test(`owners ${owners.join(', ') || 'none'}${dependents ? ', with dependents' : ''}: ${verdict}`, () => {
		const names = owners.map((_, i) => `o${i}`)
		const me = object('me', names, finalizers)
		const states = me.metadata.ownerReferences!.map((owner, i) => ({ owner, state: owners[i]! }))
		const judged = judge(me, states, dependents)
		const text =
			judged.do === 'delete'
				? `delete ${judged.policy}`
				: judged.do === 'forget'
					? `forget ${[...judged.owners].join()}`
					: judged.do
		assert.equal(text, verdict)
	})
}

test('the graph follows changes of owners and uids', () => {
	const graph = createGraph()
	const names = (uid: string) => [...graph.dependentsOf(uid)].map((i) => i.object.metadata.name)
	const a = object('a')
	const b = object('b', ['a'])
	graph.change(pods, undefined, b)
	assert.deepEqual(names('a'), ['b'], 'before the owner is known')
	graph.change(pods, undefined, a)
	assert.equal(graph.get('a')!.object, a)
	const both = object('b', ['a', 'c'])
	graph.change(pods, b, both)
	assert.deepEqual([names('a'), names('c')], [['b'], ['b']])
	graph.change(pods, both, object('b', ['c']))
	assert.deepEqual([names('a'), names('c')], [[], ['b']])
	graph.change(pods, object('b', ['c']), undefined)
	assert.deepEqual([names('c'), graph.get('b')], [[], undefined])
	graph.change(pods, a, object('a2'))
	assert.deepEqual([graph.get('a'), graph.get('a2')?.object.metadata.name], [undefined, 'a2'])
})
