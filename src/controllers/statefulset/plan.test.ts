import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ControllerRevision, StatefulSet, StatefulSetSpec } from '../../kube/objects/apps.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { planRevision, surplusRevisions, templateOf } from '../revisions.ts'
import { planStatefulSet } from './plan.ts'
import { claimsOf, identityLabels, makePod, ordinalOf } from './pods.ts'

function statefulSet(spec: Partial<StatefulSetSpec> = {}): StatefulSet {
	return {
		apiVersion: 'apps/v1',
		kind: 'StatefulSet',
		metadata: { name: 'db', namespace: 'default', uid: 'ss', generation: 1 },
		spec: {
			replicas: 3,
			serviceName: 'db-peers',
			selector: { matchLabels: { app: 'db' } },
			template: { metadata: { labels: { app: 'db' } }, spec: { containers: [{ name: 'c', image: 'a' }] } },
			updateStrategy: { type: 'RollingUpdate', rollingUpdate: { partition: 0 } },
			...spec,
		},
	}
}

/** A StatefulSet whose pods become ready, and leave, when told. */
class World {
	set: StatefulSet
	pods: Pod[] = []
	revisions: ControllerRevision[] = []
	log: string[] = []
	constructor(spec: Partial<StatefulSetSpec> = {}) {
		this.set = statefulSet(spec)
	}
	step(): boolean {
		const { update, write, history } = planRevision(this.set, this.revisions)
		if (write === 'create') this.revisions.push(update)
		if (write === 'renumber') {
			this.revisions = this.revisions.map((r) => (r.metadata.name === update.metadata.name ? update : r))
		}
		const current = history.find((r) => r.metadata.name === this.set.status?.currentRevision) ?? update
		const names = { current: current.metadata.name, update: update.metadata.name }
		const plan = planStatefulSet({ set: this.set, pods: this.pods, ...names, now: 0 })
		for (const { ordinal, revision } of plan.create) {
			const from = revision === 'current' ? current : update
			const pod = makePod(this.set, templateOf(from), from.metadata.name, ordinal)
			const metadata = { ...pod.metadata, name: pod.metadata.name!, uid: `${pod.metadata.name}` }
			this.pods.push({ ...pod, metadata, status: { phase: 'Pending' } })
			this.log.push(`+${ordinal}`)
		}
		for (const pod of plan.remove) {
			this.log.push(`-${ordinalOf(this.set, pod)}`)
			this.change(pod, { ...pod, metadata: { ...pod.metadata, deletionTimestamp: '2026-01-01T00:00:00Z' } })
		}
		this.set = { ...this.set, status: plan.status }
		return plan.create.length + plan.remove.length > 0
	}
	change(pod: Pod, to: Pod): void {
		this.pods = this.pods.map((p) => (p === pod ? to : p))
	}
	ready(): void {
		const conditions = [{ type: 'Ready', status: 'True' as const }]
		this.pods = this.pods
			.filter((pod) => pod.metadata.deletionTimestamp === undefined)
			.map((pod) => ({ ...pod, status: { phase: 'Running', conditions } }))
	}
	/** Steps until nothing is to do; the log tells the order, a space wherever the set had to wait. */
	settle(): string {
		this.log = []
		for (let i = 0; i < 50; i++) {
			const did = this.step()
			if (!did && this.pods.every((p) => p.status?.phase === 'Running' && !p.metadata.deletionTimestamp)) {
				this.step()
				return this.log.join('').trim()
			}
			if (!did) {
				this.ready()
				this.log.push(' ')
			}
		}
		throw new Error(`does not come to rest: ${this.log.join('')}`)
	}
	image(ordinal: number): string {
		return this.pods.find((p) => p.metadata.name === `db-${ordinal}`)!.spec!.containers[0]!.image!
	}
	edit(spec: Partial<StatefulSetSpec>): void {
		this.set = { ...this.set, spec: { ...this.set.spec!, ...spec } }
	}
	rollTo(image: string): void {
		this.edit({ template: { metadata: { labels: { app: 'db' } }, spec: { containers: [{ name: 'c', image }] } } })
	}
	images(): string {
		return [...this.pods]
			.sort((a, b) => ordinalOf(this.set, a)! - ordinalOf(this.set, b)!)
			.map((p) => p.spec!.containers[0]!.image)
			.join('')
	}
}

test('pods come one after the other, in order, and go in reverse', () => {
	const world = new World()
	assert.equal(world.settle(), '+0 +1 +2')
	world.edit({ replicas: 1 })
	assert.equal(world.settle(), '-2 -1')
	world.edit({ replicas: 0 })
	assert.equal(world.settle(), '-0')
})

test('in parallel all at once', () => {
	const world = new World({ podManagementPolicy: 'Parallel' })
	assert.equal(world.settle(), '+0+1+2')
	world.edit({ replicas: 0 })
	assert.equal(world.settle(), '-2-1-0')
})

test('an update goes from the highest ordinal down, one at a time', () => {
	const world = new World()
	world.settle()
	world.rollTo('b')
	assert.equal(world.settle(), '-2 +2 -1 +1 -0 +0')
	assert.equal(world.images(), 'bbb')
	assert.equal(world.set.status!.currentRevision, world.set.status!.updateRevision)
	assert.deepEqual([world.set.status!.currentReplicas, world.set.status!.updatedReplicas], [3, 3])
})

test('an update stops at the partition; a pod lost below it comes back as it was', () => {
	const world = new World({ updateStrategy: { type: 'RollingUpdate', rollingUpdate: { partition: 2 } } })
	world.settle()
	world.rollTo('b')
	assert.equal(world.settle(), '-2 +2')
	assert.equal(world.images(), 'aab')
	assert.notEqual(world.set.status!.currentRevision, world.set.status!.updateRevision)
	world.pods = world.pods.filter((p) => p.metadata.name !== 'db-0')
	assert.equal(world.settle(), '+0')
	assert.equal(world.images(), 'aab')
	world.edit({ updateStrategy: { type: 'RollingUpdate', rollingUpdate: { partition: 0 } } })
	world.settle()
	assert.equal(world.images(), 'bbb')
})

test('OnDelete updates what is deleted by hand', () => {
	const world = new World({ updateStrategy: { type: 'OnDelete' } })
	world.settle()
	world.rollTo('b')
	assert.equal(world.settle(), '')
	world.pods = world.pods.filter((p) => p.metadata.name !== 'db-1')
	assert.equal(world.settle(), '+1')
	assert.equal(world.images(), 'aba')
})

test('more than one may be missing during an update', () => {
	const updateStrategy = { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 2 } } as const
	const world = new World({ replicas: 4, updateStrategy, podManagementPolicy: 'Parallel' })
	world.settle()
	world.rollTo('b')
	assert.equal(world.settle(), '-3-2 +2+3 -1-0 +0+1')
})

test('an update that fails stops at the broken pod', () => {
	const world = new World()
	world.settle()
	world.rollTo('broken')
	for (let i = 0; i < 10; i++) {
		world.step()
		world.pods = world.pods.filter((p) => p.metadata.deletionTimestamp === undefined)
	}
	assert.equal(world.images(), 'aabroken')
})

test('a pod that has ended is replaced; a terminating one is waited for', () => {
	const world = new World()
	world.settle()
	const failed = world.pods[1]!
	world.change(failed, { ...failed, status: { phase: 'Failed' } })
	world.log = []
	world.step()
	assert.deepEqual(world.log, ['-1'])
	world.step()
	assert.deepEqual(world.log, ['-1'], 'not before it is gone')
	world.pods = world.pods.filter((p) => p.metadata.deletionTimestamp === undefined)
	world.step()
	assert.deepEqual(world.log, ['-1', '+1'])
})

test('ordinals may start anywhere', () => {
	const world = new World({ replicas: 2, ordinals: { start: 5 } })
	assert.equal(world.settle(), '+5 +6')
	world.edit({ ordinals: { start: 6 } })
	assert.equal(world.settle(), '+7 -5')
})

test('a broken pod above goes even while one below is broken', () => {
	const world = new World()
	world.settle()
	const last = world.pods[2]!
	world.change(last, { ...last, status: { phase: 'Running' } })
	world.edit({ replicas: 2 })
	world.log = []
	world.step()
	assert.deepEqual(world.log, ['-2'])
})

test('the identity of a pod', () => {
	const set = statefulSet({
		volumeClaimTemplates: [
			{ metadata: { name: 'data', labels: { tier: 'x' } }, spec: { accessModes: ['ReadWriteOnce'] } },
		],
	})
	const pod = makePod(set, set.spec!.template, 'db-rev', 2)
	assert.deepEqual(
		{ ...pod.metadata, ownerReferences: undefined },
		{
			name: 'db-2',
			generateName: 'db-',
			namespace: 'default',
			labels: {
				app: 'db',
				'statefulset.kubernetes.io/pod-name': 'db-2',
				'apps.kubernetes.io/pod-index': '2',
				'controller-revision-hash': 'db-rev',
			},
			ownerReferences: undefined,
		},
	)
	assert.equal(pod.spec.hostname, 'db-2')
	assert.equal(pod.spec.subdomain, 'db-peers')
	assert.deepEqual(pod.spec.volumes, [
		{ name: 'data', persistentVolumeClaim: { claimName: 'data-db-2', readOnly: false } },
	])
	assert.deepEqual(claimsOf(set, 2)[0], {
		apiVersion: 'v1',
		kind: 'PersistentVolumeClaim',
		metadata: { name: 'data-db-2', namespace: 'default', labels: { tier: 'x', app: 'db' } },
		spec: { accessModes: ['ReadWriteOnce'] },
	})
	const bare: Pod = { ...pod, metadata: { name: 'db-2', labels: { app: 'db' } } }
	assert.deepEqual(identityLabels(bare, 2), {
		'statefulset.kubernetes.io/pod-name': 'db-2',
		'apps.kubernetes.io/pod-index': '2',
	})
	for (const [name, ordinal] of [
		['db-10', 10],
		['db-01', undefined],
		['db-', undefined],
		['dbx-1', undefined],
	] as const) {
		assert.equal(ordinalOf(set, { ...bare, metadata: { name } }), ordinal)
	}
})

test('revisions: one a template, an old one renumbered when it comes back, the unused ones limited', () => {
	const set = statefulSet()
	const first = planRevision(set, [])
	assert.equal(first.write, 'create')
	assert.deepEqual([first.update.revision, templateOf(first.update)], [1, set.spec!.template])
	assert.match(first.update.metadata.name, /^db-[bcdfghjklmnpqrstvwxz2456789]+$/)
	assert.equal(planRevision(set, [first.update]).write, undefined)
	const second = { ...first.update, data: 'other', revision: 2, metadata: { name: 'db-2nd' } }
	const back = planRevision(set, [second, first.update])
	assert.deepEqual(
		[back.write, back.update.revision, back.update.metadata.name],
		['renumber', 3, first.update.metadata.name],
	)
	const history = [1, 2, 3, 4, 5].map((revision) => ({ ...second, revision, metadata: { name: `r${revision}` } }))
	const surplus = surplusRevisions(history, (r) => r.revision === 2 || r.revision === 5, 2)
	assert.deepEqual(
		surplus.map((r) => r.revision),
		[1],
	)
})
