// A clock that moves when it is told to: for tests and for replaying.

import type { Clock } from './clock.ts'

export interface ManualClock extends Clock {
	/** Moves time on, calling what falls due in order of time; tasks that set new tasks within the span see them called too. */
	advance(ms: number): void
	/** How many tasks wait. */
	readonly waiting: number
}

export function createManualClock(start = 0): ManualClock {
	let now = start
	let tasks: { readonly at: number; readonly task: () => void }[] = []
	return {
		now: () => now,
		after(ms, task) {
			const entry = { at: now + Math.max(0, ms), task }
			tasks.push(entry)
			return () => {
				tasks = tasks.filter((t) => t !== entry)
			}
		},
		advance(ms) {
			const end = now + ms
			for (;;) {
				// The earliest; of equals the one set first.
				const next = tasks.reduce<(typeof tasks)[0] | undefined>(
					(a, b) => (a !== undefined && a.at <= b.at ? a : b),
					undefined,
				)
				if (next === undefined || next.at > end) break
				tasks = tasks.filter((t) => t !== next)
				now = Math.max(now, next.at)
				next.task()
			}
			now = end
		},
		get waiting() {
			return tasks.length
		},
	}
}
