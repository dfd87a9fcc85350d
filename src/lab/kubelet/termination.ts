// The end of a pod's containers, in the order Kubernetes documents (Pod Lifecycle, "Termination of Pods"; KEP-753):
// preStop hooks of all begin at once; a container hears TERM after its own hook; sidecars hear it only when the
// containers they serve are over, the last one first; when the grace period is over, what still runs is killed.

import type { Clock } from '../../base/clock.ts'
import type { Container } from '../../kube/objects/pod.ts'
import { isSidecar } from './containers.ts'

/** Milliseconds a container has after a hook or a turn that took all of the grace (as the kubelet gives it). */
export const leastGrace = 2_000

export interface EndOptions {
	readonly clock: Clock
	/** Milliseconds; 0: killed at once, without hooks. */
	readonly grace: number
	/** Of the pod, in the order of its specification. */
	readonly initContainers: readonly Container[]
	readonly containers: readonly Container[]
	/** Runs the container's preStop hook, where it has one; ends early when `signal` aborts. Never rejects. */
	preStop(container: Container, signal: AbortSignal): Promise<void>
	/** What else the containers wait for before they hear TERM. Never rejects. */
	ready(signal: AbortSignal): Promise<void>
	/** TERM, and KILL after `grace` milliseconds; resolves when it is over. Again with 0: now. */
	stop(container: Container, grace: number): Promise<void>
}

export interface Ending {
	/** Resolves when no container runs any more. */
	readonly done: Promise<void>
	/** Kills what runs at that time (milliseconds since the epoch), where that is sooner than now foreseen. */
	shorten(at: number): void
}

export function endContainers(options: EndOptions): Ending {
	const { clock, grace } = options
	const over = new AbortController()
	let deadline = clock.now() + grace
	let cancel = clock.after(grace, () => over.abort())
	const left = new Set<Container>()
	const readied = grace === 0 ? Promise.resolve() : options.ready(over.signal)

	async function end(container: Container, turn: Promise<unknown>): Promise<void> {
		left.add(container)
		if (grace > 0) {
			const hook = options.preStop(container, over.signal)
			await Promise.race([Promise.all([hook, turn]), aborted(over.signal)])
		}
		await options.stop(container, grace === 0 ? 0 : Math.max(leastGrace, deadline - clock.now()))
		left.delete(container)
	}

	const sidecars = options.initContainers.filter(isSidecar)
	const served = [...options.containers, ...options.initContainers.filter((c) => !isSidecar(c))]
	let all: Promise<unknown> = Promise.all(served.map((container) => end(container, readied)))
	// Each waits for those that come after it in the specification, and for everything they served.
	for (const sidecar of sidecars.toReversed()) {
		const before = all
		all = Promise.all([before, end(sidecar, before)])
	}
	return {
		done: all.then(() => cancel()),
		shorten(at) {
			if (at >= deadline) return
			deadline = at
			cancel()
			cancel = clock.after(Math.max(0, at - clock.now()), () => {
				over.abort()
				for (const container of left) void options.stop(container, 0).catch(() => {})
			})
		},
	}
}

function aborted(signal: AbortSignal): Promise<void> {
	return new Promise((resolve) => {
		if (signal.aborted) resolve()
		else signal.addEventListener('abort', () => resolve(), { once: true })
	})
}
