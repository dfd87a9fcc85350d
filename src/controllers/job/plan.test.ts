import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Job, JobSpec } from '../../kube/objects/batch.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { conditionOf } from '../conditions.ts'
import { printIndexes, readIndexes } from './indexes.ts'
import { planJob } from './plan.ts'
import { indexOf, isIndexed, makeJobPod } from './pods.ts'

class World {
	job: Job
	pods: Pod[] = []
	now = Date.parse('2026-01-01T00:00:00Z')
	serial = 0
	constructor(spec: Partial<JobSpec> = {}) {
		const template = { spec: { containers: [{ name: 'c' }], restartPolicy: 'Never' as const } }
		this.job = {
			apiVersion: 'batch/v1',
			kind: 'Job',
			metadata: { name: 'sum', namespace: 'default', uid: 'job', generation: 1 },
			spec: { parallelism: 1, completions: 1, backoffLimit: 6, template, ...spec },
		}
	}
	step() {
		const plan = planJob({ job: this.job, pods: this.pods, now: this.now })
		this.job = { ...this.job, status: plan.status }
		this.pods = this.pods
			.map((pod) => (plan.release.includes(pod) ? { ...pod, metadata: { ...pod.metadata, finalizers: [] } } : pod))
			.filter((pod) => !plan.remove.includes(pod))
		for (const index of plan.create) {
			const pod = makeJobPod(this.job, isIndexed(this.job) ? index : undefined)
			const uid = `p${this.serial++}`
			this.pods.push({ ...pod, metadata: { ...pod.metadata, name: uid, uid }, status: { phase: 'Running' } })
		}
		return plan
	}
	settle(): void {
		for (let i = 0; i < 10; i++) this.step()
	}
	running(): string[] {
		return this.pods.filter((p) => p.status?.phase === 'Running').map((p) => p.metadata.name)
	}
	end(name: string, phase: 'Succeeded' | 'Failed'): void {
		const terminated = { exitCode: phase === 'Failed' ? 1 : 0, finishedAt: new Date(this.now).toISOString() }
		const statuses = [{ name: 'c', ready: false, restartCount: 0, image: '', imageID: '', state: { terminated } }]
		this.pods = this.pods.map((p) =>
			p.metadata.name === name ? { ...p, status: { phase, containerStatuses: statuses } } : p,
		)
	}
	condition(type: string): string | undefined {
		const c = conditionOf(this.job.status?.conditions, type)
		return c === undefined ? undefined : `${c.status} ${c.reason}`
	}
}

test('so many completions, so many at once', () => {
	const world = new World({ completions: 5, parallelism: 2 })
	for (let i = 0; i < 5; i++) {
		world.settle()
		assert.equal(world.running().length, Math.min(2, 5 - i))
		world.end(world.running()[0]!, 'Succeeded')
	}
	world.settle()
	assert.deepEqual([world.job.status!.succeeded, world.pods.length], [5, 5])
	assert.equal(world.condition('Complete'), 'True CompletionsReached')
	assert.equal(world.job.status!.completionTime, '2026-01-01T00:00:00Z')
	assert.deepEqual(world.job.status!.uncountedTerminatedPods, {})
})

test('a pod is counted once, whatever moment the controller is lost', () => {
	const world = new World({ completions: 2 })
	world.settle()
	world.end(world.running()[0]!, 'Succeeded')
	const before = world.job
	const plan = planJob({ job: world.job, pods: world.pods, now: world.now })
	assert.deepEqual(plan.status.uncountedTerminatedPods, { succeeded: ['p0'] })
	assert.equal(plan.status.succeeded, undefined)
	// Lost before the status was written: the same again.
	assert.deepEqual(planJob({ job: before, pods: world.pods, now: world.now }).status, plan.status)
	// Lost after the status, before the finalizer went.
	world.job = { ...world.job, status: plan.status }
	world.settle()
	assert.equal(world.job.status!.succeeded, 1)
	// The pod is deleted after it was counted: the number stays.
	world.pods = world.pods.filter((p) => p.metadata.name !== 'p0')
	world.settle()
	assert.equal(world.job.status!.succeeded, 1)
})

test('failures are replaced with growing delay, until there are too many', () => {
	const world = new World({ backoffLimit: 2 })
	world.settle()
	world.end('p0', 'Failed')
	world.step()
	const plan = world.step()
	assert.equal(plan.after, 10_000)
	assert.deepEqual(world.running(), [])
	world.now += 10_000
	world.settle()
	assert.deepEqual(world.running(), ['p1'])
	world.end('p1', 'Failed')
	world.step()
	assert.equal(world.step().after, 20_000)
	world.now += 20_000
	world.settle()
	world.end('p2', 'Failed')
	world.settle()
	assert.equal(world.condition('Failed'), 'True BackoffLimitExceeded')
	assert.equal(world.job.status!.failed, 3)
})

test('indexes: the lowest free one, a failed one again, completed ones in ranges', () => {
	const world = new World({ completionMode: 'Indexed', completions: 4, parallelism: 3 })
	world.settle()
	assert.deepEqual(world.pods.map(indexOf), [0, 1, 2])
	const [first] = world.pods
	assert.equal(first!.spec!.hostname, 'sum-0')
	assert.equal(first!.metadata.generateName, 'sum-0-')
	assert.equal(first!.spec!.containers[0]!.env![0]!.name, 'JOB_COMPLETION_INDEX')
	world.end('p0', 'Succeeded')
	world.end('p2', 'Failed')
	world.now += 60_000
	world.settle()
	assert.deepEqual(
		world.running().map((n) => indexOf(world.pods.find((p) => p.metadata.name === n)!)),
		[1, 2, 3],
	)
	assert.equal(world.job.status!.completedIndexes, '0')
	for (const name of world.running()) world.end(name, 'Succeeded')
	world.settle()
	assert.deepEqual([world.job.status!.completedIndexes, world.job.status!.succeeded], ['0-3', 4])
	assert.equal(world.condition('Complete'), 'True CompletionsReached')
})

test('the text of indexes', () => {
	for (const text of ['', '0', '0,1', '0-2', '1,3-5,7,9,10']) assert.equal(printIndexes(readIndexes(text)), text)
	assert.deepEqual([...readIndexes('x,2-,3')], [3])
})

test('a work queue is done when one succeeded and none runs', () => {
	const { completions: _, ...spec } = new World({ parallelism: 3 }).job.spec!
	const world = new World()
	world.job = { ...world.job, spec }
	world.settle()
	assert.equal(world.running().length, 3)
	world.end('p0', 'Succeeded')
	world.settle()
	assert.equal(world.running().length, 2, 'no new ones')
	world.end('p1', 'Succeeded')
	world.end('p2', 'Succeeded')
	world.settle()
	assert.equal(world.condition('Complete'), 'True CompletionsReached')
})

test('a deadline, suspension, expiry', () => {
	const world = new World({ activeDeadlineSeconds: 30, ttlSecondsAfterFinished: 100 })
	world.settle()
	assert.equal(world.step().after, 30_000)
	world.now += 30_000
	world.settle()
	assert.equal(world.condition('Failed'), 'True DeadlineExceeded')
	assert.deepEqual(world.running(), [])
	assert.equal(world.step().after, 100_000)
	world.now += 100_000
	assert.equal(world.step().expired, true)

	const paused = new World()
	paused.settle()
	paused.job = { ...paused.job, spec: { ...paused.job.spec!, suspend: true } }
	paused.settle()
	assert.deepEqual([paused.running(), paused.condition('Suspended')], [[], 'True JobSuspended'])
	assert.equal(paused.job.status!.startTime, undefined)
	paused.job = { ...paused.job, spec: { ...paused.job.spec!, suspend: false } }
	paused.settle()
	assert.deepEqual([paused.running().length, paused.condition('Suspended')], [1, 'False JobResumed'])
})
