// The health of all containers of one pod: a watch for each run that has probes or a hook, ended with the run.

import type { Clock } from '../../base/clock.ts'
import { type Ip, parseIp } from '../../base/ip.ts'
import type { EventRecorder } from '../../controllers/events.ts'
import type { Container, Pod, Probe } from '../../kube/objects/pod.ts'
import type { ContainerStatus } from '../workloads/protocol.ts'
import type { CommandEnd } from './command.ts'
import type { ContainerPlan } from './containers.ts'
import { type ContainerHealth, type HealthWatch, hasHealth, watchHealth } from './health.ts'
import { runHook } from './hooks.ts'
import type { PodWiring } from './network.ts'
import { type CheckTarget, check, uncheckable } from './probe-check.ts'

export interface PodHealth {
	/** Begins and ends watches so that they fit what runs. `status` undefined: it has not begun. */
	follow(
		pod: Pod,
		container: Container,
		plan: ContainerPlan,
		status: ContainerStatus | undefined,
		wiring: PodWiring,
	): void
	/** undefined: there is nothing to watch, running is all there is to its health. */
	of(container: string): ContainerHealth | undefined
	/** Resolves when the probes that were due at once have answered, after `most` milliseconds at the latest. */
	first(most: number): Promise<void>
	/** The pod ends: readiness is asked on, liveness and startup are not. */
	terminate(): void
	stop(): void
}

export interface PodHealthOptions {
	readonly clock: Clock
	readonly recorder: EventRecorder | undefined
	readonly component: string
	/** undefined: there is no kernel to ask through; what runs is healthy. */
	readonly run:
		| ((
				pod: Pod,
				container: Container,
				wiring: PodWiring,
				command: readonly string[],
				timeout: number,
		  ) => Promise<CommandEnd>)
		| undefined
	changed(): void
	/** Ends the container's run so that the next begins. `grace`: milliseconds. */
	restart(container: Container, grace: number, message: string): void
}

export function createPodHealth(options: PodHealthOptions): PodHealth {
	const { clock, recorder, component } = options
	const watches = new Map<string, { readonly run: string; readonly watch: HealthWatch }>()
	let latest: Pod | undefined

	function begin(
		pod: Pod,
		container: Container,
		plan: ContainerPlan,
		wiring: PodWiring,
		before: ContainerHealth | undefined,
	): HealthWatch {
		const told = () => latest ?? pod
		const target = targetOf(pod, container, plan, wiring, options.run as NonNullable<typeof options.run>)
		const passed = new Set<string>()
		return watchHealth(container, {
			clock,
			skipDelay: target.isStandIn,
			before,
			async check(probe, timeout) {
				const why = target.isStandIn ? uncheckable(probe) : undefined
				if (why !== undefined && !passed.has(why)) {
					passed.add(why)
					const text = `Container ${container.name}: a probe counts as passed against a stand-in: ${why}`
					recorder?.record(component, told(), 'Normal', 'ProbeAssumed', text)
				}
				return check(probe, target, timeout)
			},
			postStart: (handler) => runHook(handler, target, clock, noEnd, (text) => hookSkipped('PostStart', text)),
			changed: options.changed,
			unhealthy(kind, text) {
				recorder?.record(component, told(), 'Warning', 'Unhealthy', `${kind} probe failed: ${text}`)
			},
			kill(why, text, probe) {
				const what = why === 'PostStartHook' ? 'FailedPostStartHook' : `failed ${why.toLowerCase()} probe`
				if (why === 'PostStartHook') {
					recorder?.record(component, told(), 'Warning', 'FailedPostStartHook', `PostStartHook failed: ${text}`)
				}
				const message = `Container ${container.name} ${what}, will be restarted`
				recorder?.record(component, told(), 'Normal', 'Killing', message)
				options.restart(container, killGrace(pod, probe) * 1000, message)
			},
		})

		function hookSkipped(which: string, text: string): void {
			recorder?.record(component, told(), 'Normal', `${which}HookSkipped`, `Container ${container.name}: ${text}`)
		}
	}

	return {
		follow(pod, container, plan, status, wiring) {
			latest = pod
			if (options.run === undefined || !hasHealth(container)) return
			const known = watches.get(container.name)
			const run = status?.state.state === 'running' ? `${status.restarts}/${status.state.startedAt}` : undefined
			if (known?.run === run) return
			known?.watch.stop()
			watches.delete(container.name)
			if (run === undefined || status === undefined) return
			const before = known === undefined ? reported(pod, container, status) : undefined
			watches.set(container.name, { run, watch: begin(pod, container, plan, wiring, before) })
		},
		of: (name) => watches.get(name)?.watch.health,
		first(most) {
			const firsts = [...watches.values()].map(({ watch }) => watch.first)
			if (firsts.length === 0) return Promise.resolve()
			return new Promise((resolve) => {
				const cancel = clock.after(most, resolve)
				void Promise.all(firsts).then(() => {
					cancel()
					resolve()
				})
			})
		},
		terminate() {
			for (const { watch } of watches.values()) watch.terminate()
		},
		stop() {
			for (const { watch } of watches.values()) watch.stop()
		},
	}
}

const noEnd = new AbortController().signal

export function targetOf(
	pod: Pod,
	container: Container,
	plan: ContainerPlan,
	wiring: PodWiring,
	run: NonNullable<PodHealthOptions['run']>,
): CheckTarget {
	return {
		netns: wiring.netns,
		ip: wiring.ips[0] ?? (parseIp('127.0.0.1') as Ip),
		container,
		isStandIn: plan.kind !== 'program',
		run: (command, timeout) => run(pod, container, wiring, command, timeout),
	}
}

/** What an earlier process of ours told the API about this very run. */
function reported(pod: Pod, container: Container, status: ContainerStatus): ContainerHealth | undefined {
	const all = [...(pod.status?.containerStatuses ?? []), ...(pod.status?.initContainerStatuses ?? [])]
	const told = all.find((s) => s.name === container.name)
	if (told?.containerID === undefined || told.state?.running === undefined) return undefined
	if (!told.containerID.endsWith(`/${container.name}/${status.restarts}`)) return undefined
	return { ready: told.ready, started: told.started === true }
}

/** Seconds (Probe.terminationGracePeriodSeconds goes before the pod's). */
function killGrace(pod: Pod, probe: Probe | undefined): number {
	return probe?.terminationGracePeriodSeconds ?? pod.spec?.terminationGracePeriodSeconds ?? 30
}
