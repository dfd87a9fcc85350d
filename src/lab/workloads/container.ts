// The life of one container: started, ended, started again with back-off. What it runs is a stand-in, a program of
// the host, or the DNS server; this file knows only that a run begins and may end.

import type { Clock } from '../../base/clock.ts'
import { messageOf } from '../../base/failure.ts'
import type { Console } from './console.ts'
import { type ContainerLog, createContainerLog } from './log.ts'
import type { ContainerState, ContainerStatus, WorkloadContainer } from './protocol.ts'

/** One run of a container. */
export interface Run {
	readonly pid?: number
	/** Of a program: what one can attach to. */
	readonly console?: Console
	/** Takes over a specification that differs only in what can change while it runs; false: it must be restarted. */
	update(container: WorkloadContainer): boolean
	/** Asks it to end; resolves when it has, after `grace` milliseconds at the latest. */
	stop(grace: number): Promise<void>
	/** Resolves when it ends by itself; a stand-in's never does. */
	readonly ended: Promise<{ readonly exitCode: number; readonly signal?: string; readonly message?: string }>
}

export type StartRun = (container: WorkloadContainer, log: ContainerLog) => Run

export interface Container {
	readonly status: ContainerStatus
	update(container: WorkloadContainer): void
	stop(grace: number): Promise<void>
	/** Ends the present run, as after a failed probe, and starts the next by the restart policy and its back-off. */
	restart(grace: number, message: string): Promise<void>
	log(previous: boolean): ContainerLog | undefined
	/** Of the present run. */
	readonly console: Console | undefined
}

/** First wait, doubled for each failure up to the limit; a run of ten minutes starts it over (as the kubelet does). */
const backOffFirst = 1_000
const backOffLimit = 300_000
const backOffReset = 600_000

/** The exit code of a run that has none of its own: as of one that was killed. */
const killedCode = 137

export function startContainer(
	first: WorkloadContainer,
	start: StartRun,
	clock: Clock,
	changed: () => void,
): Container {
	let container = first
	let run: Run | undefined
	let state: ContainerState = { state: 'waiting', reason: 'ContainerCreating' }
	let last: ContainerState | undefined
	let log = createContainerLog(clock.now)
	let previousLog: ContainerLog | undefined
	let restarts = 0
	let wait = 0
	let cancelWait: (() => void) | undefined
	let stopped = false
	/** A restart waits for the old run's end. */
	let ending: Promise<void> | undefined

	function begin(): void {
		const startedAt = clock.now()
		let begun: Run
		try {
			begun = start(container, log)
		} catch (e) {
			log.write('stderr', messageOf(e))
			afterEnd({
				state: 'terminated',
				startedAt,
				finishedAt: startedAt,
				exitCode: 128,
				reason: 'StartError',
				message: messageOf(e),
			})
			return
		}
		run = begun
		state = { state: 'running', startedAt, ...(begun.pid === undefined ? {} : { pid: begun.pid }) }
		void begun.ended.then((end) => {
			if (run !== begun) return
			run = undefined
			afterEnd({
				state: 'terminated',
				startedAt,
				finishedAt: clock.now(),
				exitCode: end.exitCode,
				...(end.signal === undefined ? {} : { signal: end.signal }),
				reason: end.exitCode === 0 ? 'Completed' : 'Error',
				...(end.message === undefined ? {} : { message: end.message }),
			})
			changed()
		})
	}

	function afterEnd(end: ContainerState & { readonly state: 'terminated' }): void {
		const again = container.restart === 'Always' || (container.restart === 'OnFailure' && end.exitCode !== 0)
		if (stopped || !again) {
			state = end
			log.end()
			return
		}
		if (end.finishedAt - end.startedAt >= backOffReset) wait = 0
		last = end
		const now = wait
		wait = wait === 0 ? backOffFirst : Math.min(wait * 2, backOffLimit)
		state = {
			state: 'waiting',
			reason: 'CrashLoopBackOff',
			message: `back-off ${now / 1000}s restarting failed container=${container.name}${end.message === undefined ? '' : `: ${end.message}`}`,
		}
		cancelWait = clock.after(now, () => {
			cancelWait = undefined
			restart()
			changed()
		})
	}

	function restart(): void {
		restarts++
		previousLog?.end()
		log.end()
		previousLog = log
		log = createContainerLog(clock.now)
		begin()
	}

	begin()
	return {
		get status() {
			return { name: container.name, state, restarts, ...(last === undefined ? {} : { last }) }
		},
		update(next) {
			container = next
			if (run === undefined) {
				// A new specification may well start where the old one could not.
				if (cancelWait !== undefined) {
					cancelWait()
					cancelWait = undefined
					wait = 0
					restart()
				}
				return
			}
			if (run.update(next)) return
			const old = run
			run = undefined
			void old.stop(0)
			last = {
				state: 'terminated',
				startedAt: state.state === 'running' ? state.startedAt : clock.now(),
				finishedAt: clock.now(),
				exitCode: 0,
				reason: 'Completed',
			}
			restart()
		},
		async stop(grace) {
			stopped = true
			if (cancelWait !== undefined) {
				cancelWait()
				cancelWait = undefined
				// There is no next run to wait for: the last one was the last.
				if (last !== undefined) state = last
			}
			const running = run
			await Promise.all([running?.stop(grace), ending])
			if (running !== undefined && run === running) {
				run = undefined
				state = {
					state: 'terminated',
					startedAt: state.state === 'running' ? state.startedAt : clock.now(),
					finishedAt: clock.now(),
					exitCode: 0,
					reason: 'Completed',
				}
			}
			log.end()
		},
		async restart(grace, message) {
			const old = run
			if (old === undefined || stopped) return
			const startedAt = state.state === 'running' ? state.startedAt : clock.now()
			// Its own end is not told as one: who ended it is.
			run = undefined
			ending = old.stop(grace)
			await ending
			ending = undefined
			const end = await Promise.race([old.ended, Promise.resolve({ exitCode: killedCode })])
			afterEnd({ state: 'terminated', startedAt, finishedAt: clock.now(), ...end, reason: 'Error', message })
			changed()
		},
		get console() {
			return run?.console
		},
		log: (previous) => (previous ? previousLog : log),
	}
}
