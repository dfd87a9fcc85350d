// The health of one run of a container: postStart first, then the startup probe, then readiness and liveness side by
// side. A container without any of these costs nothing: no timer is ever set for it.

import type { Clock } from '../../base/clock.ts'
import type { Container, Handler, Probe } from '../../kube/objects/pod.ts'
import type { CheckResult } from './probe-check.ts'

export type ProbeKind = 'Startup' | 'Readiness' | 'Liveness'

export interface ContainerHealth {
	readonly ready: boolean
	readonly started: boolean
}

export interface HealthWatch {
	readonly health: ContainerHealth
	/** Resolves when every probe that was due at once has answered for the first time. */
	readonly first: Promise<void>
	/** The pod ends: only readiness is still asked, and nothing is started again. */
	terminate(): void
	/** Nothing is asked any more; the health stays what it was. */
	stop(): void
}

export interface HealthOptions {
	readonly clock: Clock
	/** A stand-in has nothing to initialise: its initialDelaySeconds are not waited for. */
	readonly skipDelay: boolean
	/** What an earlier look at this very run found; the hook has run and nothing is asked anew before it is due. */
	readonly before: ContainerHealth | undefined
	/** `timeout`: milliseconds. Never rejects. */
	check(probe: Probe, timeout: number): Promise<CheckResult>
	postStart(handler: Handler): Promise<CheckResult>
	/** The health is another. */
	changed(): void
	/** One check failed. */
	unhealthy(kind: ProbeKind, text: string): void
	/** The container must be started again. */
	kill(why: 'PostStartHook' | 'Startup' | 'Liveness', text: string, probe: Probe | undefined): void
}

export function hasHealth(container: Container): boolean {
	const { startupProbe, readinessProbe, livenessProbe, lifecycle } = container
	return (startupProbe ?? readinessProbe ?? livenessProbe ?? lifecycle?.postStart) !== undefined
}

/** Begins at once. The defaults are those of the API (Probe: 1 s, every 10 s, 3 failures, 1 success). */
export function watchHealth(container: Container, options: HealthOptions): HealthWatch {
	const { clock, before } = options
	const { startupProbe, readinessProbe, livenessProbe } = container
	const begun = clock.now()
	let started = before?.started ?? false
	let ready = before?.ready ?? false
	let stopped = false
	let terminating = false
	const cancels = new Set<() => void>()
	const firsts: Promise<void>[] = []

	function set(next: Partial<ContainerHealth>): void {
		const old = { started, ready }
		started = next.started ?? started
		ready = next.ready ?? ready
		if (old.started !== started || old.ready !== ready) options.changed()
	}

	function later(delay: number, task: () => void): void {
		const cancel = clock.after(delay, () => {
			cancels.delete(cancel)
			if (!stopped) task()
		})
		cancels.add(cancel)
	}

	/** Asks again and again; `passed` and `failed` hear when a threshold is reached. Returning true ends it. */
	function ask(kind: ProbeKind, probe: Probe, passed: () => boolean, failed: (text: string) => boolean): void {
		const period = Math.max(1, probe.periodSeconds ?? 10) * 1000
		const timeout = Math.max(1, probe.timeoutSeconds ?? 1) * 1000
		let successes = 0
		let failures = 0
		const turn = async (): Promise<void> => {
			const asked = clock.now()
			if (terminating && kind !== 'Readiness') return
			const result = await options.check(probe, timeout)
			if (stopped || (terminating && kind !== 'Readiness')) return
			let end: boolean
			if (result.ok) {
				successes++
				failures = 0
				end = successes >= (probe.successThreshold ?? 1) && passed()
			} else {
				failures++
				successes = 0
				options.unhealthy(kind, result.text ?? '')
				end = failures >= (probe.failureThreshold ?? 3) && failed(result.text ?? '')
			}
			if (!end && !stopped) later(Math.max(0, asked + period - clock.now()), () => void turn())
		}
		const delay = options.skipDelay ? 0 : (probe.initialDelaySeconds ?? 0) * 1000 - (clock.now() - begun)
		if (delay <= 0) firsts.push(turn())
		else later(delay, () => void turn())
	}

	function afterStart(): void {
		set({ started: true, ...(readinessProbe === undefined ? { ready: true } : {}) })
		if (readinessProbe !== undefined) {
			ask(
				'Readiness',
				readinessProbe,
				() => {
					set({ ready: true })
					return false
				},
				() => {
					set({ ready: false })
					return false
				},
			)
		}
		if (livenessProbe !== undefined) {
			ask(
				'Liveness',
				livenessProbe,
				() => false,
				(text) => {
					options.kill('Liveness', text, livenessProbe)
					return true
				},
			)
		}
	}

	function afterHook(): void {
		if (startupProbe === undefined || started) {
			afterStart()
			return
		}
		ask(
			'Startup',
			startupProbe,
			() => {
				afterStart()
				return true
			},
			(text) => {
				options.kill('Startup', text, startupProbe)
				return true
			},
		)
	}

	const hook = container.lifecycle?.postStart
	if (hook === undefined || before !== undefined) afterHook()
	else {
		void options.postStart(hook).then((result) => {
			if (stopped) return
			if (result.ok) afterHook()
			else if (!terminating) options.kill('PostStartHook', result.text ?? '', undefined)
		})
	}
	return {
		get health() {
			return { started, ready }
		},
		terminate() {
			terminating = true
		},
		first: Promise.all(firsts).then(() => {}),
		stop() {
			stopped = true
			for (const cancel of cancels) cancel()
			cancels.clear()
		},
	}
}
