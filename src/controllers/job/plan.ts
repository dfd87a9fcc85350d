// What a Job does next: how many pods run, which ended pods are counted, and whether it is done. Each ended pod is
// counted exactly once, also over a crash: first its uid is written among the uncounted, then its finalizer goes, then
// the number grows (KEP-2307). Pure.

import type { Job, JobStatus } from '../../kube/objects/batch.ts'
import type { Condition } from '../../kube/objects/meta.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { conditionOf, timestamp, withCondition } from '../conditions.ts'
import { isPodActive, isPodReady, isPodTerminating, millisOf } from '../pods.ts'
import { printIndexes, readIndexes } from './indexes.ts'
import { hasFailed, indexOf, isIndexed, isTracked } from './pods.ts'

export interface JobFacts {
	readonly job: Job
	/** The pods it controls, ended ones as well. */
	readonly pods: readonly Pod[]
	readonly now: number
}

export interface JobPlan {
	/** A pod to create for each entry: its index, or undefined where the Job is not indexed. */
	readonly create: readonly (number | undefined)[]
	readonly remove: readonly Pod[]
	/** Pods that are counted when the status is written: their finalizer goes after that. */
	readonly release: readonly Pod[]
	readonly status: JobStatus
	/** The Job itself has been done for long enough. */
	readonly expired: boolean
	readonly after?: number
}

const firstDelay = 10_000
const longestDelay = 600_000

interface Tally {
	readonly succeeded: number
	readonly failed: number
	readonly completed: ReadonlySet<number>
	readonly uncounted: { readonly succeeded: readonly string[]; readonly failed: readonly string[] }
	/** Ended pods that are or will be noted, to be released. */
	readonly release: readonly Pod[]
}

export function isFinished(job: Job): boolean {
	const conditions = job.status?.conditions
	return ['Complete', 'Failed'].some((type) => conditionOf(conditions, type)?.status === 'True')
}

export function planJob(facts: JobFacts): JobPlan {
	const { job, pods, now } = facts
	const tally = count(facts)
	const active = pods.filter(isPodActive)
	if (isFinished(job) || job.metadata.deletionTimestamp !== undefined) return wind(facts, tally, active)

	const suspended = job.spec!.suspend === true
	const startTime = suspended ? undefined : (job.status?.startTime ?? timestamp(now))
	const failure = suspended ? undefined : failureOf(facts, tally, active, millisOf(startTime))
	const done = failure === undefined && isDone(job, tally, active)
	const step =
		failure !== undefined || done || suspended ? { create: [], remove: active } : resize(facts, tally, active)

	let conditions = job.status?.conditions ?? []
	const say = (type: string, status: 'True' | 'False', reason: string, message: string): void => {
		conditions = withCondition(conditions, {
			type,
			status,
			reason,
			message,
			lastTransitionTime: timestamp(now),
		} as Condition)
	}
	const was = conditionOf(conditions, 'Suspended')?.status === 'True'
	if (suspended) say('Suspended', 'True', 'JobSuspended', 'Job suspended')
	else if (was) say('Suspended', 'False', 'JobResumed', 'Job resumed')
	// The last word waits until the last pod is gone or counted.
	const quiet = active.length === 0 && !pods.some(isPodTerminating) && tally.release.length === 0
	if (failure !== undefined) {
		say('FailureTarget', 'True', failure.reason, failure.message)
		if (quiet) say('Failed', 'True', failure.reason, failure.message)
	} else if (done) {
		const message = 'Reached expected number of succeeded pods'
		say('SuccessCriteriaMet', 'True', 'CompletionsReached', message)
		if (quiet) say('Complete', 'True', 'CompletionsReached', message)
	}
	const complete = conditionOf(conditions, 'Complete')?.status === 'True'
	const status: JobStatus = {
		...counts(facts, tally, active),
		...(conditions.length === 0 ? {} : { conditions }),
		...(startTime === undefined ? {} : { startTime }),
		...(complete ? { completionTime: job.status?.completionTime ?? timestamp(now) } : {}),
	}
	const deadline = job.spec!.activeDeadlineSeconds
	const waits = [
		step.after,
		deadline === undefined || startTime === undefined
			? undefined
			: Math.max(1, millisOf(startTime) + deadline * 1000 - now),
	].filter((w) => w !== undefined)
	return {
		create: step.create,
		remove: step.remove,
		release: tally.release,
		status,
		expired: false,
		...(waits.length === 0 ? {} : { after: Math.min(...waits) }),
	}
}

/** What is left to do for a Job that is done: end its pods, count them, and go when its time is up. */
function wind(facts: JobFacts, tally: Tally, active: readonly Pod[]): JobPlan {
	const { job, now } = facts
	const status: JobStatus = { ...job.status, ...counts(facts, tally, active) }
	const ttl = job.spec!.ttlSecondsAfterFinished
	const plan = { create: [], remove: active, release: tally.release, status }
	if (ttl === undefined || !isFinished(job)) return { ...plan, expired: false }
	const finished = job.status?.conditions?.find((c) => ['Complete', 'Failed'].includes(c.type) && c.status === 'True')
	const left = millisOf(finished?.lastTransitionTime) + ttl * 1000 - now
	return left <= 0 ? { ...plan, expired: true } : { ...plan, expired: false, after: left }
}

function count({ job, pods }: JobFacts): Tally {
	const noted = job.status?.uncountedTerminatedPods
	const byUid = new Map(pods.map((pod) => [pod.metadata.uid!, pod]))
	const completed = readIndexes(job.status?.completedIndexes)
	let succeeded = job.status?.succeeded ?? 0
	let failed = job.status?.failed ?? 0
	const uncounted: { succeeded: string[]; failed: string[] } = { succeeded: [], failed: [] }
	const release: Pod[] = []
	const seen = new Set<string>()
	for (const outcome of ['succeeded', 'failed'] as const) {
		for (const uid of noted?.[outcome] ?? []) {
			seen.add(uid)
			const pod = byUid.get(uid)
			if (pod !== undefined && isTracked(pod)) {
				uncounted[outcome].push(uid)
				release.push(pod)
			} else if (outcome === 'failed') failed++
			else if (!isIndexed(job)) succeeded++
		}
	}
	for (const pod of pods) {
		const uid = pod.metadata.uid!
		if (!isTracked(pod) || seen.has(uid)) continue
		if (pod.status?.phase === 'Succeeded') {
			const index = indexOf(pod)
			if (isIndexed(job)) {
				// The index is what counts, and a set cannot count twice: nothing to note.
				if (index !== undefined && index < (job.spec!.completions ?? 0)) completed.add(index)
			} else uncounted.succeeded.push(uid)
			release.push(pod)
		} else if (hasFailed(pod)) {
			uncounted.failed.push(uid)
			release.push(pod)
		}
	}
	if (isIndexed(job)) succeeded = completed.size
	return { succeeded, failed, completed, uncounted, release }
}

const total = (tally: Tally, outcome: 'succeeded' | 'failed'): number =>
	tally[outcome] + tally.uncounted[outcome].length

function counts({ job, pods }: JobFacts, tally: Tally, active: readonly Pod[]): JobStatus {
	const ready = active.filter(isPodReady).length
	const terminating = pods.filter(isPodTerminating).length
	const completed = printIndexes(tally.completed)
	const { succeeded, failed } = tally.uncounted
	return {
		...(active.length === 0 ? {} : { active: active.length }),
		...(tally.succeeded === 0 ? {} : { succeeded: tally.succeeded }),
		...(tally.failed === 0 ? {} : { failed: tally.failed }),
		ready,
		terminating,
		...(isIndexed(job) && completed !== '' ? { completedIndexes: completed } : {}),
		uncountedTerminatedPods: {
			...(succeeded.length === 0 ? {} : { succeeded }),
			...(failed.length === 0 ? {} : { failed }),
		},
	}
}

function isDone(job: Job, tally: Tally, active: readonly Pod[]): boolean {
	const { completions } = job.spec!
	const succeeded = total(tally, 'succeeded')
	// A work queue: one success says that there is no work left, and the others finish theirs.
	if (completions === undefined) return succeeded > 0 && active.length === 0
	return succeeded >= completions
}

function failureOf(
	{ job, now }: JobFacts,
	tally: Tally,
	active: readonly Pod[],
	started: number,
): { readonly reason: string; readonly message: string } | undefined {
	const target = conditionOf(job.status?.conditions, 'FailureTarget')
	if (target?.status === 'True') return { reason: target.reason ?? '', message: target.message ?? '' }
	const limit = job.spec!.backoffLimit ?? 6
	const backoff = {
		reason: 'BackoffLimitExceeded',
		message: 'Job has reached the specified backoff limit',
	}
	if (total(tally, 'failed') > limit) return backoff
	if (job.spec!.template.spec?.restartPolicy === 'OnFailure') {
		let restarts = 0
		for (const pod of active) for (const c of pod.status?.containerStatuses ?? []) restarts += c.restartCount
		if (limit === 0 ? restarts > 0 : restarts >= limit) return backoff
	}
	const deadline = job.spec!.activeDeadlineSeconds
	if (deadline !== undefined && now - started >= deadline * 1000) {
		return { reason: 'DeadlineExceeded', message: 'Job was active longer than specified deadline' }
	}
	return undefined
}

function resize(
	facts: JobFacts,
	tally: Tally,
	active: readonly Pod[],
): { readonly create: readonly (number | undefined)[]; readonly remove: readonly Pod[]; readonly after?: number } {
	const { job } = facts
	const { completions, parallelism = 1 } = job.spec!
	const succeeded = total(tally, 'succeeded')
	let wanted = parallelism
	if (completions === undefined) {
		// After a first success no new pods: those that run go on.
		if (succeeded > 0) wanted = Math.min(parallelism, active.length)
	} else wanted = Math.min(parallelism, completions - succeeded)
	if (active.length > wanted) {
		const youngest = [...active].sort(
			(a, b) =>
				Number(isPodReady(a)) - Number(isPodReady(b)) ||
				millisOf(b.metadata.creationTimestamp) - millisOf(a.metadata.creationTimestamp),
		)
		return { create: [], remove: youngest.slice(0, active.length - wanted) }
	}
	const missing = wanted - active.length
	if (missing === 0) return { create: [], remove: [] }
	const delay = backoff(facts)
	if (delay > 0) return { create: [], remove: [], after: delay }
	if (!isIndexed(job)) return { create: Array.from({ length: missing }, () => undefined), remove: [] }
	const taken = new Set(tally.completed)
	for (const pod of active) taken.add(indexOf(pod) ?? -1)
	const free: number[] = []
	for (let i = 0; i < completions! && free.length < missing; i++) if (!taken.has(i)) free.push(i)
	return { create: free, remove: [] }
}

/** Milliseconds to wait before a failed pod is replaced: 10 s after the first failure, doubling up to ten minutes. */
function backoff({ pods, now }: JobFacts): number {
	const endOf = (pod: Pod): number =>
		Math.max(
			0,
			...(pod.status?.containerStatuses ?? []).map((c) => millisOf(c.state?.terminated?.finishedAt)),
			millisOf(pod.metadata.deletionTimestamp),
		)
	const lastSuccess = Math.max(0, ...pods.filter((p) => p.status?.phase === 'Succeeded').map(endOf))
	const failures = pods
		.filter(hasFailed)
		.map(endOf)
		.filter((end) => end > lastSuccess)
	if (failures.length === 0) return 0
	const delay = Math.min(firstDelay * 2 ** (failures.length - 1), longestDelay)
	return Math.max(0, Math.max(...failures) + delay - now)
}
