// Runs one task after changes: the first at once, later ones gathered, never two at the same time.

import type { Clock } from '../base/clock.ts'

export interface Runner {
	/** A change happened: the task will run after now. */
	trigger(): void
	/** Ends; a run under way is waited for. */
	stop(): Promise<void>
}

/**
 * `interval`: milliseconds from one run's end to the next one's start, in which changes are gathered; a change after
 * a pause starts the task at once (after the changes of the same turn of the event loop). `task` must not throw;
 * it returns milliseconds after which to run again by itself, or undefined.
 */
export function createRunner(clock: Clock, interval: number, task: () => Promise<number | undefined>): Runner {
	let pending = false
	let running: Promise<void> | undefined
	let cancel: (() => void) | undefined
	let cancelRetry: (() => void) | undefined
	let lastEnd = Number.NEGATIVE_INFINITY
	let stopped = false

	function schedule(): void {
		if (stopped || running !== undefined || cancel !== undefined) return
		const wait = lastEnd + interval - clock.now()
		if (wait > 0) {
			const undo = clock.after(wait, run)
			cancel = undo
		} else {
			const immediate = setImmediate(run)
			cancel = () => clearImmediate(immediate)
		}
	}
	function run(): void {
		cancel = undefined
		cancelRetry?.()
		cancelRetry = undefined
		pending = false
		running = task().then((again) => {
			running = undefined
			lastEnd = clock.now()
			if (pending) schedule()
			else if (again !== undefined && !stopped) {
				cancelRetry = clock.after(again, () => {
					cancelRetry = undefined
					trigger()
				})
			}
		})
	}
	function trigger(): void {
		pending = true
		schedule()
	}
	return {
		trigger,
		async stop() {
			stopped = true
			cancel?.()
			cancelRetry?.()
			await running
		},
	}
}
