import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Deployment, ReplicaSet } from '../../kube/objects/apps.ts'
import { type DeploymentPlan, planDeployment } from './plan.ts'
import { fenceposts, replicasOf, scaleOnly, shrinkOld } from './replicas.ts'
import { revisionAnnotation, revisionHistoryAnnotation, revisionOf } from './template.ts'

const start = Date.parse('2026-01-01T00:00:00Z')

function deployment(spec: Partial<Deployment['spec']> & object, image = 'a'): Deployment {
	return {
		apiVersion: 'apps/v1',
		kind: 'Deployment',
		metadata: { name: 'web', namespace: 'default', uid: 'd1', generation: 1 },
		spec: {
			replicas: 4,
			selector: { matchLabels: { app: 'web' } },
			template: { metadata: { labels: { app: 'web' } }, spec: { containers: [{ name: 'c', image }] } },
			progressDeadlineSeconds: 600,
			...spec,
		},
	}
}

/** A world of one Deployment whose ReplicaSets obey at once, and whose pods become available when told. */
class World {
	deployment: Deployment
	sets: ReplicaSet[] = []
	now = start
	plan: DeploymentPlan | undefined
	constructor(d: Deployment) {
		this.deployment = d
	}
	/** Plans once and applies it; false when the plan changed nothing but the status. */
	step(): boolean {
		const plan = planDeployment({ deployment: this.deployment, sets: this.sets, podsOf: () => [], now: this.now })
		this.plan = plan
		if (plan.create !== undefined) {
			const created = { ...plan.create.metadata, uid: `rs${this.sets.length}`, creationTimestamp: this.time() }
			this.sets.push({ ...plan.create, metadata: { ...created, generation: 1 } })
		}
		for (const change of plan.changes) {
			const at = this.sets.indexOf(change.set)
			this.sets[at] = {
				...change.set,
				metadata: {
					...change.set.metadata,
					annotations: { ...change.set.metadata.annotations, ...change.annotations },
				},
				spec: { ...change.set.spec!, ...(change.replicas === undefined ? {} : { replicas: change.replicas }) },
			}
		}
		this.sets = this.sets.filter((set) => !plan.remove.includes(set))
		const annotations = { ...this.deployment.metadata.annotations }
		if (plan.revision !== undefined) annotations[revisionAnnotation] = plan.revision
		this.deployment = {
			...this.deployment,
			metadata: { ...this.deployment.metadata, annotations },
			status: plan.status,
		}
		return plan.create !== undefined || plan.changes.length > 0 || plan.remove.length > 0
	}
	/** ReplicaSets make the pods they are asked for; at most `ready` of each new one become available. */
	obey(ready = Number.POSITIVE_INFINITY): void {
		this.now += 1000
		this.sets = this.sets.map((set) => {
			const replicas = replicasOf(set)
			const available = Math.min(replicas, Math.max(set.status?.availableReplicas ?? 0, ready))
			return {
				...set,
				status: { observedGeneration: 1, replicas, readyReplicas: available, availableReplicas: available },
			}
		})
	}
	settle(check: () => void = () => {}): void {
		for (let i = 0; i < 100; i++) {
			const changed = this.step()
			check()
			this.obey()
			check()
			if (!changed && !this.step()) return
		}
		assert.fail('does not come to rest')
	}
	sizes(): number[] {
		return this.sets.map(replicasOf)
	}
	available(): number {
		return this.sets.reduce((sum, set) => sum + (set.status?.availableReplicas ?? 0), 0)
	}
	rollTo(image: string): void {
		const spec = this.deployment.spec!
		const template = { ...spec.template, spec: { containers: [{ name: 'c', image }] } }
		const generation = this.deployment.metadata.generation! + 1
		this.deployment = {
			...this.deployment,
			metadata: { ...this.deployment.metadata, generation },
			spec: { ...spec, template },
		}
	}
	scaleTo(replicas: number): void {
		this.deployment = { ...this.deployment, spec: { ...this.deployment.spec!, replicas } }
	}
	condition(type: string) {
		return this.deployment.status?.conditions?.find((c) => c.type === type)
	}
	private time(): string {
		return new Date(this.now).toISOString()
	}
}

test('a first rollout makes one ReplicaSet of the wanted size and ends complete', () => {
	const world = new World(deployment({}))
	world.step()
	const set = world.sets[0]!
	assert.match(set.metadata.name, /^web-[bcdfghjklmnpqrstvwxz2456789]{1,10}$/)
	const hash = set.metadata.labels!['pod-template-hash']!
	assert.equal(set.metadata.name, `web-${hash}`)
	assert.equal(set.spec!.selector.matchLabels!['pod-template-hash'], hash)
	assert.equal(set.spec!.template!.metadata!.labels!['pod-template-hash'], hash)
	assert.deepEqual(set.metadata.annotations, {
		'deployment.kubernetes.io/revision': '1',
		'deployment.kubernetes.io/desired-replicas': '4',
		'deployment.kubernetes.io/max-replicas': '5',
	})
	assert.equal(world.condition('Progressing')!.reason, 'NewReplicaSetCreated')
	assert.equal(world.condition('Available')!.status, 'False')
	world.obey()
	world.settle()
	assert.deepEqual(world.sizes(), [4])
	assert.equal(world.deployment.metadata.annotations![revisionAnnotation], '1')
	assert.equal(world.condition('Progressing')!.reason, 'NewReplicaSetAvailable')
	assert.equal(world.condition('Available')!.status, 'True')
	const { conditions: _, ...counts } = world.deployment.status!
	assert.deepEqual(counts, {
		observedGeneration: 1,
		replicas: 4,
		updatedReplicas: 4,
		readyReplicas: 4,
		availableReplicas: 4,
		terminatingReplicas: 0,
	})
})

for (const [maxSurge, maxUnavailable] of [
	['25%', '25%'],
	[1, 0],
	[0, 1],
	['100%', 0],
	[0, 0],
	[3, '50%'],
] as const) {
	test(`a rolling update with maxSurge ${maxSurge} and maxUnavailable ${maxUnavailable} stays between its posts`, () => {
		const rollingUpdate = { maxSurge, maxUnavailable }
		const world = new World(deployment({ replicas: 10, strategy: { type: 'RollingUpdate', rollingUpdate } }))
		world.settle()
		const { surge, unavailable } = fenceposts(world.deployment)
		world.rollTo('b')
		world.settle(() => {
			assert.ok(world.sizes().reduce((a, b) => a + b, 0) <= 10 + surge, `too many: ${world.sizes()}`)
			assert.ok(world.available() >= 10 - unavailable, `too few available: ${world.available()}`)
		})
		assert.deepEqual(world.sizes(), [0, 10])
		assert.equal(world.deployment.metadata.annotations![revisionAnnotation], '2')
		assert.equal(world.condition('Progressing')!.reason, 'NewReplicaSetAvailable')
	})
}

test('the percentages round as the API says: surge up, unavailable down, never both 0', () => {
	const of = (replicas: number, maxSurge: number | string, maxUnavailable: number | string) =>
		fenceposts(deployment({ replicas, strategy: { rollingUpdate: { maxSurge, maxUnavailable } } }))
	assert.deepEqual(of(10, '25%', '25%'), { surge: 3, unavailable: 2 })
	assert.deepEqual(of(1, '25%', '25%'), { surge: 1, unavailable: 0 })
	assert.deepEqual(of(3, 0, '25%'), { surge: 0, unavailable: 1 })
	assert.deepEqual(of(0, '25%', '25%'), { surge: 0, unavailable: 1 })
})

test('a broken new version stops the rollout and reports the missed deadline', () => {
	const world = new World(deployment({ replicas: 4 }))
	world.settle()
	world.rollTo('broken')
	for (let i = 0; i < 20; i++) {
		world.step()
		world.obey(0)
	}
	assert.deepEqual(world.sizes(), [3, 2], 'one may be missing, one may be above')
	assert.ok(world.plan!.after! > 0)
	world.now += 700_000
	world.step()
	assert.equal(world.condition('Progressing')!.reason, 'ProgressDeadlineExceeded')
	assert.equal(world.condition('Progressing')!.status, 'False')
	assert.equal(world.plan!.after, undefined)
	// Unhealthy replicas of an old version go first when the template is changed again.
	world.rollTo('c')
	world.settle()
	assert.deepEqual(world.sizes(), [0, 0, 4])
})

test('a rollback takes the old ReplicaSet again under a new revision', () => {
	const world = new World(deployment({}))
	world.settle()
	world.rollTo('b')
	world.settle()
	world.rollTo('a')
	world.settle()
	assert.deepEqual(world.sizes(), [4, 0])
	assert.equal(revisionOf(world.sets[0]!), 3)
	assert.equal(world.sets[0]!.metadata.annotations![revisionHistoryAnnotation], '1')
	assert.equal(world.deployment.metadata.annotations![revisionAnnotation], '3')
})

test('Recreate empties the old version before it makes the new one', () => {
	const world = new World(deployment({ strategy: { type: 'Recreate' } }))
	world.settle()
	world.rollTo('b')
	world.step()
	assert.deepEqual(world.sizes(), [0])
	const running = { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'p' }, status: { phase: 'Running' } } as const
	const facts = { deployment: world.deployment, sets: world.sets, now: world.now }
	const waits = planDeployment({ ...facts, podsOf: () => [running] })
	assert.equal(waits.create, undefined, 'a pod of the old version still runs')
	world.obey()
	world.settle()
	assert.deepEqual(world.sizes(), [0, 4])
})

test('a paused Deployment scales but does not roll out', () => {
	const world = new World(deployment({}))
	world.settle()
	world.deployment = { ...world.deployment, spec: { ...world.deployment.spec!, paused: true } }
	world.rollTo('b')
	world.scaleTo(6)
	world.settle()
	assert.deepEqual(world.sizes(), [6])
	assert.equal(world.condition('Progressing')!.reason, 'DeploymentPaused')
	world.deployment = { ...world.deployment, spec: { ...world.deployment.spec!, paused: false } }
	world.settle()
	assert.deepEqual(world.sizes(), [0, 6])
})

test('a template may not start paused: nothing is created', () => {
	const world = new World(deployment({ paused: true }))
	world.settle()
	assert.deepEqual(world.sizes(), [])
})

test('scaling in the middle of a rollout is in proportion', () => {
	const set = (name: string, replicas: number, age: number): ReplicaSet => ({
		apiVersion: 'apps/v1',
		kind: 'ReplicaSet',
		metadata: {
			name,
			creationTimestamp: new Date(start + age * 1000).toISOString(),
			annotations: {
				'deployment.kubernetes.io/desired-replicas': '10',
				'deployment.kubernetes.io/max-replicas': '13',
			},
		},
		spec: { replicas, selector: {} },
		status: { replicas, availableReplicas: replicas },
	})
	const spec = { strategy: { rollingUpdate: { maxSurge: 3, maxUnavailable: 2 } } }
	// The example of the Deployment documentation: 10 → 15 in the middle of 8 old and 5 new.
	const sizes = (wanted: number, newSize: number, oldSizes: number[]) =>
		Object.fromEntries(
			scaleOnly(
				deployment({ replicas: wanted, ...spec }),
				set('new', newSize, 9),
				oldSizes.map((n, i) => set(`old${i}`, n, i)),
			).map((r) => [r.set.metadata.name, r.replicas]),
		)
	assert.deepEqual(sizes(15, 5, [8]), { old0: 11, new: 7 })
	assert.deepEqual(sizes(5, 5, [8]), { old0: 5, new: 3 })
	assert.deepEqual(sizes(0, 5, [8]), { old0: 0, new: 0 })
	assert.deepEqual(sizes(12, 3, [3, 3]), { old0: 3, old1: 3, new: 9 }, 'what rounding leaves goes to one')
	assert.deepEqual(sizes(10, 10, [3]), { old0: 0 }, 'a finished rollout empties what is left')
	assert.deepEqual(sizes(12, 0, [10]), { old0: 12 }, 'the only live one takes all')
	assert.deepEqual(sizes(12, 0, [0, 0]), { new: 12 })
})

test('old pods that are not available go first, and only so many that enough stay', () => {
	const set = (name: string, replicas: number, available: number, age: number): ReplicaSet => ({
		apiVersion: 'apps/v1',
		kind: 'ReplicaSet',
		metadata: { name, creationTimestamp: new Date(start + age * 1000).toISOString() },
		spec: { replicas, selector: {} },
		status: { replicas, availableReplicas: available },
	})
	const d = deployment({ replicas: 10, strategy: { rollingUpdate: { maxSurge: 3, maxUnavailable: 2 } } })
	const shrink = (next: [number, number], ...olds: [number, number][]) =>
		shrinkOld(
			d,
			set('new', ...next, 99),
			olds.map((o, i) => set(`old${i}`, ...o, i)),
		).map((r) => `${r.set.metadata.name}=${r.replicas}`)
	assert.deepEqual(shrink([3, 0], [10, 10]), ['old0=8'])
	assert.deepEqual(shrink([3, 0], [10, 8]), ['old0=8'])
	assert.deepEqual(shrink([3, 0], [8, 8]), [])
	assert.deepEqual(shrink([5, 5], [8, 8]), ['old0=3'])
	assert.deepEqual(shrink([5, 3], [4, 4], [4, 0]), ['old1=1'])
	assert.deepEqual(shrink([10, 10], [0, 0]), [])
})

test('empty old ReplicaSets beyond the history limit are removed, oldest revision first', () => {
	const world = new World(deployment({ revisionHistoryLimit: 2 }))
	for (const image of ['a', 'b', 'c', 'd', 'e']) {
		world.rollTo(image)
		world.settle()
	}
	assert.deepEqual(world.sets.map(revisionOf), [3, 4, 5])
})

test('a plan for a world at rest is empty', () => {
	const world = new World(deployment({}))
	world.settle()
	const before = world.deployment
	assert.equal(world.step(), false)
	assert.deepEqual(world.deployment, before)
})
