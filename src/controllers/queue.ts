// A queue of keys to reconcile: a key waits once however often it is added, is never handled twice at once, and a
// failed one comes back after a growing delay. Time is injected; nothing here knows what a key means.

import type { Clock } from '../base/clock.ts'

export interface WorkQueueOptions {
	readonly clock: Clock
	/** How many keys may be handled at once. */
	readonly parallel: number
	/**
	 * Handles one key. Resolves to the milliseconds after which the key is due again without any change, or undefined.
	 * A rejection puts the key back with back-off.
	 */
	handle(key: string): Promise<number | undefined>
	/** Called with each failure; `attempt` counts from 1. */
	failed(key: string, error: unknown, attempt: number): void
	/** Called whenever the queue may have become idle. */
	rested?(): void
}

export interface WorkQueue {
	/** Asks for `key` to be handled soon; while it is being handled, once more afterwards. */
	add(key: string): void
	/** Asks for `key` to be handled in `ms` milliseconds; an earlier date already set stays. */
	addAfter(key: string, ms: number): void
	/** True when nothing waits, runs, or is about to be tried again within a second. */
	idle(): boolean
	/** The keys that wait, run, or are to be tried again. */
	pending(): readonly string[]
	/** Handles nothing more; what runs runs on. */
	stop(): void
}

const firstDelay = 5
const longestDelay = 30_000
/** A retry later than this does not keep the queue from being idle: something outside has to change first. */
const soon = 1_000

interface Due {
	readonly at: number
	readonly cancel: () => void
	readonly retry: boolean
}

/** A work queue in the manner of client-go's rate limiting queue: 5 ms doubling to 30 s per failing key. */
export function createWorkQueue(options: WorkQueueOptions): WorkQueue {
	const { clock } = options
	const waiting = new Set<string>()
	const running = new Set<string>()
	const again = new Set<string>()
	const later = new Map<string, Due>()
	const attempts = new Map<string, number>()
	let scheduled = false
	let stopped = false

	/** Starts work on the next microtask, so that a burst of additions of one key is one turn. */
	const wake = (): void => {
		if (scheduled || stopped) return
		scheduled = true
		queueMicrotask(() => {
			scheduled = false
			pump()
		})
	}

	const pump = (): void => {
		for (const key of waiting) {
			if (stopped || running.size >= options.parallel) return
			waiting.delete(key)
			running.add(key)
			void run(key)
		}
	}

	const run = async (key: string): Promise<void> => {
		try {
			const due = await options.handle(key)
			attempts.delete(key)
			if (due !== undefined) schedule(key, due, false)
		} catch (e) {
			const attempt = (attempts.get(key) ?? 0) + 1
			attempts.set(key, attempt)
			if (!stopped) options.failed(key, e, attempt)
			schedule(key, Math.min(firstDelay * 2 ** (attempt - 1), longestDelay), true)
		} finally {
			running.delete(key)
			if (again.delete(key)) queue.add(key)
			wake()
			if (queue.idle()) options.rested?.()
		}
	}

	const schedule = (key: string, ms: number, retry: boolean): void => {
		if (stopped) return
		const at = clock.now() + ms
		const before = later.get(key)
		if (before !== undefined && before.at <= at) return
		before?.cancel()
		const cancel = clock.after(ms, () => {
			later.delete(key)
			queue.add(key)
		})
		later.set(key, { at, cancel, retry })
	}

	const queue: WorkQueue = {
		add(key) {
			if (stopped) return
			if (running.has(key)) again.add(key)
			else {
				waiting.add(key)
				wake()
			}
		},
		addAfter(key, ms) {
			if (ms <= 0) queue.add(key)
			else schedule(key, ms, false)
		},
		idle() {
			if (stopped) return true
			if (waiting.size > 0 || running.size > 0) return false
			for (const [key, due] of later) {
				if (due.retry && firstDelay * 2 ** ((attempts.get(key) ?? 1) - 1) <= soon) return false
			}
			return true
		},
		pending() {
			const retries = [...later].filter(([, due]) => due.retry).map(([key]) => key)
			return [...new Set([...running, ...waiting, ...again, ...retries])]
		},
		stop() {
			stopped = true
			waiting.clear()
			again.clear()
			for (const due of later.values()) due.cancel()
			later.clear()
		},
	}
	return queue
}
