// What the kubelet asks of the container runtime: the workloads process, or on paper nothing but the claim.

import type { Clock } from '../../base/clock.ts'
import { Failure, isFailure } from '../../base/failure.ts'
import type { AnsweredName } from '../../dataplane/dns/answered.ts'
import type { WorkloadsClient } from '../workloads/client.ts'
import type {
	ContainerStatus,
	LogLine,
	LogQuery,
	WorkloadCalls,
	WorkloadPod,
	WorkloadPodStatus,
	WorkloadStreams,
} from '../workloads/protocol.ts'

export interface PodRuntime {
	/** What is known of a pod without asking. */
	find(uid: string): { readonly pod: WorkloadPod; readonly status: WorkloadPodStatus } | undefined
	readonly known: readonly string[]
	set(pod: WorkloadPod): Promise<WorkloadPodStatus>
	/** `grace`: milliseconds. Without `keepLogs` the pod is forgotten. */
	stop(uid: string, how: { readonly grace: number; readonly keepLogs: boolean }): Promise<void>
	/** Ends one container for good. `grace`: milliseconds; again with 0: now. */
	stopContainer(uid: string, container: string, grace: number): Promise<void>
	/** Ends a container's run, as after a failed probe; what comes next is heard by onChange. `grace`: milliseconds. */
	restart(uid: string, container: string, how: { readonly grace: number; readonly message: string }): Promise<void>
	logs(query: LogQuery, signal: AbortSignal): AsyncIterable<LogLine>
	/** What a program writes from now on. Throws Failure BadRequest where none runs. */
	attach(at: PlaceOfContainer, signal: AbortSignal): AsyncIterable<WorkloadStreams['attach']['item']>
	input(input: WorkloadCalls['input']['argument']): Promise<void>
	resize(size: WorkloadCalls['resize']['argument']): Promise<void>
	/** Hears when a pod's containers changed by themselves, or (uid undefined) when everything that ran is lost. */
	onChange(listener: (uid: string | undefined) => void): void
}

export type PlaceOfContainer = WorkloadStreams['attach']['argument']

/**
 * `restart` makes a new workloads process when the old one has died; `onFailure` hears that it did, and why it cannot.
 * `onNames`: a pod is about to be answered with addresses of names that are watched; `known` lets it.
 */
export async function createRuntime(
	first: WorkloadsClient,
	restart: () => Promise<WorkloadsClient>,
	onFailure: (e: unknown) => void,
	onNames: (names: readonly AnsweredName[], known: () => Promise<unknown>) => void = (_, known) => void known(),
): Promise<PodRuntime & { readonly client: WorkloadsClient; stopWatching(): void }> {
	let client = first
	let watching = true
	let pods = new Map<string, { pod: WorkloadPod; status: WorkloadPodStatus }>()
	const listeners: ((uid: string | undefined) => void)[] = []
	const tell = (uid: string | undefined) => {
		for (const listener of listeners) listener(uid)
	}

	async function follow(next: WorkloadsClient): Promise<void> {
		client = next
		pods = new Map((await next.call('pods', null)).map((entry) => [entry.pod.uid, entry]))
		next.onEvent((event) => {
			if (event.event === 'names') return void onNames(event.names, () => next.call('namesKnown', event.number))
			const { status } = event
			const known = pods.get(status.uid)
			if (known === undefined) return
			known.status = status
			tell(status.uid)
		})
		void next.closed.then(async () => {
			if (watching) onFailure(new Failure('Unavailable', 'the workloads process ended; starting it again'))
			while (watching) {
				try {
					await follow(await restart())
					tell(undefined)
					return
				} catch (e) {
					onFailure(e)
					await new Promise((resolve) => setTimeout(resolve, 1_000))
				}
			}
		})
	}
	await follow(first)
	return {
		get client() {
			return client
		},
		find: (uid) => pods.get(uid),
		get known() {
			return [...pods.keys()]
		},
		async set(pod) {
			const status = await client.call('setPod', pod)
			pods.set(pod.uid, { pod, status })
			return status
		},
		async stop(uid, how) {
			if (!pods.has(uid)) return
			try {
				await client.call('stopPod', { uid, ...how })
			} catch (e) {
				// The process died, and with it what was to be stopped.
				if (!isFailure(e, 'Unavailable')) throw e
			}
			if (!how.keepLogs) pods.delete(uid)
		},
		async stopContainer(uid, container, grace) {
			if (!pods.has(uid)) return
			try {
				await client.call('stopContainer', { uid, container, grace })
			} catch (e) {
				if (!isFailure(e, 'Unavailable')) throw e
			}
		},
		async restart(uid, container, how) {
			await client.call('restartContainer', { uid, container, ...how })
		},
		attach: (at, signal) => client.stream('attach', at, signal),
		async input(input) {
			await client.call('input', input)
		},
		async resize(size) {
			await client.call('resize', size)
		},
		logs: (query, signal) => client.stream('logs', query, signal),
		onChange: (listener) => void listeners.push(listener),
		stopWatching() {
			watching = false
		},
	}
}

/** Nothing runs; every container counts as running from the moment it is asked for. */
export function createPaperRuntime(clock: Clock): PodRuntime {
	const pods = new Map<string, { pod: WorkloadPod; status: WorkloadPodStatus }>()
	return {
		find: (uid) => pods.get(uid),
		get known() {
			return [...pods.keys()]
		},
		async set(pod) {
			const before = pods.get(pod.uid)?.status.containers ?? []
			const containers = pod.containers.map(
				(c): ContainerStatus =>
					before.find((b) => b.name === c.name) ?? {
						name: c.name,
						state: { state: 'running', startedAt: clock.now() },
						restarts: 0,
					},
			)
			const status = { uid: pod.uid, containers }
			pods.set(pod.uid, { pod, status })
			return status
		},
		async stop(uid, { keepLogs }) {
			if (!keepLogs) pods.delete(uid)
		},
		async stopContainer(uid, container) {
			const known = pods.get(uid)
			if (known === undefined) return
			const end = (c: ContainerStatus): ContainerStatus => {
				if (c.name !== container || c.state.state !== 'running') return c
				const { startedAt } = c.state
				return {
					...c,
					state: { state: 'terminated', startedAt, finishedAt: clock.now(), exitCode: 0, reason: 'Completed' },
				}
			}
			known.status = { ...known.status, containers: known.status.containers.map(end) }
		},
		async restart() {},
		// biome-ignore lint/correctness/useYield: it only refuses.
		async *attach() {
			throw new Failure('Unavailable', noKernel('there is nothing to attach to'))
		},
		async input() {},
		async resize() {},
		// biome-ignore lint/correctness/useYield: it only refuses.
		async *logs() {
			throw new Failure('Unavailable', noKernel('there are no logs'))
		},
		onChange() {},
	}
}

/** The one sentence for everything that needs a kernel and has none. */
export function noKernel(what: string): string {
	return `${what}: this lab runs on the paper data plane, without a kernel, so no container is really running (podwire doctor says why)`
}
