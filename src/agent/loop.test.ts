import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from '../base/clock.ts'
import type { Ip } from '../base/ip.ts'
import { emptyTable } from '../base/table.ts'
import type { ServiceProxyMode } from '../dataplane/dataplane.ts'
import { emptyProgram } from '../linux/nft/program.ts'
import { build } from '../model/build.ts'
import type { NetworkModel } from '../model/network.ts'
import { type ClusterState, emptyState, setObject } from '../model/state.ts'
import type { AttachmentRecord } from './attachments.ts'
import { createAgentLoop, type NodeAttachments, NodeFailure, type NodePlanes } from './loop.ts'
import type { ClusterView } from './view.ts'

/** A view that holds what the test puts into it. */
function fakeView() {
	let state: ClusterState = emptyState()
	let built: { state: ClusterState; model: NetworkModel } | undefined
	const listeners: (() => void)[] = []
	const view = {
		start() {},
		stop() {},
		synced: Promise.resolve(),
		get state() {
			return state
		},
		get model() {
			if (built?.state !== state) built = { state, model: build(state, built) }
			return built.model
		},
		onChange: (listener: () => void) => void listeners.push(listener),
	} as unknown as ClusterView
	const addNamespace = (name: string) => {
		state = setObject(state, { apiVersion: 'v1', kind: 'Namespace', metadata: { name } })
		for (const listener of listeners) listener()
	}
	return { view, addNamespace }
}

/** A node's kernel that keeps what it was brought to, and refuses when told to. */
function fakeNode() {
	const node = {
		model: undefined as NetworkModel | undefined,
		attachments: emptyTable() as NodeAttachments,
		brought: 0,
		refuse: undefined as Error | undefined,
		drift: [] as string[],
	}
	const planes: NodePlanes = {
		async bring(model, attachments) {
			node.brought++
			if (node.refuse !== undefined) throw node.refuse
			node.model = model
			node.attachments = attachments
		},
		async repair() {
			return node.drift.splice(0)
		},
		read: async () => ({
			node: 'n',
			links: { attachments: node.attachments, routes: emptyTable(), sysctls: emptyTable() },
			nftables: emptyProgram,
		}),
		close() {},
	}
	return { node, planes }
}

const record = (uid: string, on: string): AttachmentRecord => ({
	uid,
	pod: `default/${uid}`,
	node: on,
	ips: ['10.244.0.2' as Ip],
	namespace: `/run/${uid}`,
	hostInterface: 'pw0',
	mtu: 1500,
})

function twoNodes() {
	const { view, addNamespace } = fakeView()
	const a = fakeNode()
	const b = fakeNode()
	const said: string[] = []
	const loop = createAgentLoop({
		view,
		clock: systemClock,
		nodes: new Map([
			['a', a.planes],
			['b', b.planes],
		]),
		events: {
			failed: (node, e) => said.push(`failed ${node}: ${(e as Error).message}`),
			recovered: (node) => said.push(`recovered ${node}`),
			drifted: (node, planes) => said.push(`drifted ${node}: ${planes.join()}`),
		},
	})
	return { loop, a: a.node, b: b.node, said, addNamespace }
}

test('ADD resolves when the wiring is in force, on its node alone', async () => {
	const { loop, a, b } = twoNodes()
	await loop.start()
	const before = b.brought
	await loop.attach(record('u1', 'a'))
	assert.equal(a.attachments.get('u1')?.pod, 'default/u1')
	assert.equal(b.brought, before, 'the other node has nothing to do')
	await loop.detach('a', 'u1')
	assert.equal(a.attachments.size, 0)
	await loop.stop()
})

test('a node in trouble refuses its own pods, holds up no other, and is tried again by itself', async () => {
	const { loop, a, b, said } = twoNodes()
	await loop.start()
	a.refuse = new Error('no memory')
	await assert.rejects(loop.attach(record('u1', 'a')), /no memory/)
	await loop.attach(record('u2', 'b'))
	assert.ok(b.attachments.has('u2'))
	a.refuse = undefined
	await loop.waitReconciled('a')
	assert.ok(a.attachments.has('u1'), 'what was wanted is still wanted')
	assert.deepEqual([said[0], said.at(-1)], ['failed a: no memory', 'recovered a'])
	await loop.stop()
})

test('trouble with one pod is that pod alone', async () => {
	const { loop, a } = twoNodes()
	await loop.start()
	a.refuse = new NodeFailure('1 of 2', new Map([['bad', new Error('name taken')]]))
	const results = await Promise.allSettled([loop.attach(record('bad', 'a')), loop.attach(record('good', 'a'))])
	assert.deepEqual(
		results.map((r) => r.status),
		['rejected', 'fulfilled'],
	)
	await loop.stop()
})

test('many changes are few passes, and the last one is in force', async () => {
	const { loop, a, addNamespace } = twoNodes()
	await loop.start()
	const before = a.brought
	for (let i = 0; i < 500; i++) addNamespace(`n${i}`)
	await loop.waitReconciled()
	assert.equal(a.model?.namespaces.size, 500)
	assert.ok(a.brought - before <= 2, `${a.brought - before} passes`)
	await loop.stop()
})

test('waitApplied looks at each model that is in force', async () => {
	const { loop, addNamespace } = twoNodes()
	await loop.start()
	const seen = loop.waitApplied((model) => model.namespaces.has('late'), new AbortController().signal)
	addNamespace('early')
	addNamespace('late')
	await seen
	assert.ok(loop.applied?.namespaces.has('late'))
	const never = new AbortController()
	const waiting = loop.waitApplied(() => false, never.signal)
	never.abort(new Error('grace is over'))
	await assert.rejects(waiting, /grace is over/)
	await loop.stop()
})

test('drift is repaired on demand and said', async () => {
	const { loop, a, said } = twoNodes()
	await loop.start()
	a.drift.push('nftables')
	await loop.repair()
	await loop.repair()
	assert.deepEqual(said, ['drifted a: nftables'])
	await assert.rejects(loop.read('c'), /Cannot find node "c"/)
	await loop.stop()
})

test('a change of the service proxy that one node refuses leaves every node as it was', async () => {
	const { view } = fakeView()
	const asked: string[] = []
	const node = (name: string, refuses: (mode: ServiceProxyMode) => 'before' | 'after' | undefined) => {
		let mode: ServiceProxyMode = 'nftables'
		const planes: NodePlanes = {
			...fakeNode().planes,
			get serviceProxy() {
				return mode
			},
			async setServiceProxy(next) {
				asked.push(`${name} ${next}`)
				if (refuses(next) === 'before') throw new Error('not here')
				mode = next
				if (refuses(next) === 'after') throw new Error('the old one does not go')
			},
		}
		return [name, planes] as const
	}
	for (const [when, last] of [
		['before', []],
		['after', ['b nftables']],
	] as const) {
		asked.length = 0
		const nodes = new Map([
			node('a', () => undefined),
			node('b', (mode) => (mode === 'iptables' ? when : undefined)),
			node('c', () => undefined),
		])
		const loop = createAgentLoop({ view, clock: systemClock, nodes })
		await assert.rejects(loop.setServiceProxy('iptables'), /not here|does not go/)
		assert.deepEqual(asked, ['a iptables', 'b iptables', 'a nftables', ...last])
		assert.deepEqual(
			[...nodes.values()].map((planes) => planes.serviceProxy),
			['nftables', 'nftables', 'nftables'],
		)
	}
})
