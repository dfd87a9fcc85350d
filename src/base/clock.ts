// Time as an argument, so that a test can hold it.

export interface Clock {
	/** Milliseconds since the epoch. */
	now(): number
	/** Calls `task` once after `ms` milliseconds; the returned function cancels. */
	after(ms: number, task: () => void): () => void
}

export const systemClock: Clock = {
	now: () => Date.now(),
	after(ms, task) {
		const timer = setTimeout(task, ms)
		return () => clearTimeout(timer)
	},
}
