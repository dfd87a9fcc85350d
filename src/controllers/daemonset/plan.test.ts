import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { DaemonSet, DaemonSetSpec } from '../../kube/objects/apps.ts'
import type { Node, Taint } from '../../kube/objects/core.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { hashOf, planRevision } from '../revisions.ts'
import { planDaemonSet } from './plan.ts'
import { makeDaemon, nodeOfDaemon } from './pods.ts'

const node = (name: string, labels: Record<string, string> = {}, ...taints: Taint[]): Node => ({
	apiVersion: 'v1',
	kind: 'Node',
	metadata: { name, labels },
	spec: taints.length === 0 ? {} : { taints },
})

class World {
	set: DaemonSet
	nodes: Node[]
	pods: Pod[] = []
	serial = 0
	constructor(nodes: Node[], spec: Partial<DaemonSetSpec> = {}) {
		this.nodes = nodes
		this.set = {
			apiVersion: 'apps/v1',
			kind: 'DaemonSet',
			metadata: { name: 'agent', namespace: 'default', uid: 'ds', generation: 1 },
			spec: {
				selector: { matchLabels: { app: 'agent' } },
				template: { metadata: { labels: { app: 'agent' } }, spec: { containers: [{ name: 'c', image: 'a' }] } },
				...spec,
			},
		}
	}
	step(): string {
		const { update } = planRevision(this.set, [])
		const facts = { set: this.set, pods: this.pods, nodes: this.nodes, hash: hashOf(update), now: 0 }
		const plan = planDaemonSet(facts)
		for (const name of plan.create) {
			const pod = makeDaemon(this.set, this.set.spec!.template, update, name)
			const metadata = { ...pod.metadata, name: `agent-${this.serial++}` }
			this.pods.push({ ...pod, metadata, status: { phase: 'Pending' } })
		}
		this.set = { ...this.set, status: plan.status }
		const gone = plan.remove.map((pod) => `-${nodeOfDaemon(pod)}`)
		this.pods = this.pods.filter((pod) => !plan.remove.includes(pod))
		return [...plan.create.map((n) => `+${n}`), ...gone].join(' ')
	}
	ready(): void {
		const conditions = [{ type: 'Ready', status: 'True' as const }]
		this.pods = this.pods.map((pod) => ({
			...pod,
			spec: { ...pod.spec!, nodeName: nodeOfDaemon(pod)! },
			status: { phase: 'Running', conditions },
		}))
	}
	settle(): string[] {
		const log: string[] = []
		for (;;) {
			const did = this.step()
			if (did === '') {
				if (this.pods.every((p) => p.status?.phase === 'Running')) return log
				this.ready()
			} else log.push(did)
			assert.ok(log.length < 50)
		}
	}
	rollTo(image: string): void {
		const template = { metadata: { labels: { app: 'agent' } }, spec: { containers: [{ name: 'c', image }] } }
		this.set = { ...this.set, spec: { ...this.set.spec!, template } }
	}
}

const three = () => [node('a'), node('b'), node('c')]

test('one pod on every node, also on one that comes later, none on one that goes', () => {
	const world = new World(three())
	assert.deepEqual(world.settle(), ['+a +b +c'])
	world.nodes.push(node('d'))
	assert.deepEqual(world.settle(), ['+d'])
	world.nodes.shift()
	assert.deepEqual(world.settle(), ['-a'])
	const { currentNumberScheduled, desiredNumberScheduled, numberReady, numberUnavailable } = world.set.status!
	assert.deepEqual(
		[currentNumberScheduled, desiredNumberScheduled, numberReady, numberUnavailable],
		[3, 3, 3, undefined],
	)
})

test('only on nodes it selects and whose taints it tolerates', () => {
	const no: Taint = { key: 'k', effect: 'NoSchedule' }
	const out: Taint = { key: 'k', effect: 'NoExecute' }
	const cordoned: Taint = { key: 'node.kubernetes.io/unschedulable', effect: 'NoSchedule' }
	const template = {
		metadata: { labels: { app: 'agent' } },
		spec: { containers: [{ name: 'c' }], nodeSelector: { role: 'x' } },
	}
	const x = { role: 'x' }
	const world = new World([node('a', x), node('b'), node('c', x, no), node('d', x, out), node('e', x, cordoned)], {
		template,
	})
	assert.deepEqual(world.settle(), ['+a +e'])
	// A taint NoSchedule that comes later lets it stay, NoExecute does not.
	world.nodes = [node('a', x, no), node('e', x, out)]
	assert.deepEqual(world.settle(), ['-e'])
	assert.equal(world.set.status!.numberMisscheduled, 1)
})

test('a new version comes node by node', () => {
	const world = new World(three())
	world.settle()
	world.rollTo('b')
	assert.deepEqual(world.settle(), ['-a', '+a', '-b', '+b', '-c', '+c'])
	assert.equal(world.set.status!.updatedNumberScheduled, 3)
})

test('as many nodes at once as may be without', () => {
	const world = new World(three(), { updateStrategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 2 } } })
	world.settle()
	world.rollTo('b')
	assert.deepEqual(world.settle(), ['-a -b', '+a +b', '-c', '+c'])
})

test('with surge the new pod comes before the old one goes', () => {
	const rollingUpdate = { maxSurge: 1, maxUnavailable: 0 }
	const world = new World(three(), { updateStrategy: { type: 'RollingUpdate', rollingUpdate } })
	world.settle()
	world.rollTo('b')
	assert.deepEqual(world.settle(), ['+a', '+b -a', '+c -b', '-c'])
})

test('OnDelete waits for the hand', () => {
	const world = new World(three(), { updateStrategy: { type: 'OnDelete' } })
	world.settle()
	world.rollTo('b')
	assert.deepEqual(world.settle(), [])
	world.pods.shift()
	assert.deepEqual(world.settle(), ['+a'])
})

test('a failed daemon is replaced, a second one on a node goes', () => {
	const world = new World([node('a')])
	world.settle()
	world.pods = world.pods.map((pod) => ({ ...pod, status: { phase: 'Failed' } }))
	assert.equal(world.step(), '-a')
	assert.equal(world.step(), '+a')
	world.ready()
	const twin = { ...world.pods[0]!, metadata: { ...world.pods[0]!.metadata, name: 'agent-z' } }
	world.pods.push(twin)
	assert.equal(world.step(), '-a')
	assert.equal(world.pods.length, 1)
	assert.notEqual(world.pods[0]!.metadata.name, 'agent-z')
})
