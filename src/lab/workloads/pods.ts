// All pods of a workloads process: what runs in each, kept as the daemon last said.

import type { Clock } from '../../base/clock.ts'
import { Failure } from '../../base/failure.ts'
import { type Console, followConsole } from './console.ts'
import { type Container, type Run, startContainer } from './container.ts'
import type { ContainerLog } from './log.ts'
import { startProgram } from './program.ts'
import type {
	LogLine,
	LogQuery,
	WorkloadCalls,
	WorkloadContainer,
	WorkloadPod,
	WorkloadPodStatus,
	WorkloadStreams,
} from './protocol.ts'
import { createStandInHttp, openStandIn } from './stand-in.ts'

export interface WorkloadPods {
	all(): readonly { readonly pod: WorkloadPod; readonly status: WorkloadPodStatus }[]
	set(pod: WorkloadPod): WorkloadPodStatus
	stop(uid: string, grace: number, keepLogs: boolean): Promise<void>
	restart(uid: string, container: string, grace: number, message: string): Promise<void>
	stopContainer(uid: string, container: string, grace: number): Promise<void>
	/** Throws Failure BadRequest where no program runs. */
	attach(at: Place, signal: AbortSignal): AsyncIterable<WorkloadStreams['attach']['item']>
	input(input: WorkloadCalls['input']['argument']): Promise<void>
	resize(size: WorkloadCalls['resize']['argument']): void
	logs(query: LogQuery, signal: AbortSignal): AsyncIterable<LogLine>
}

interface Place {
	readonly uid: string
	readonly container: string
}

/** Starts the DNS server of one container of one pod. */
export type StartDns = (pod: WorkloadPod, log: ContainerLog) => Run

export function createWorkloadPods(options: {
	readonly clock: Clock
	/** The lab's runtime folder. */
	readonly lab: string
	readonly startDns: StartDns
	/** A container's state changed by itself. */
	readonly changed: (status: WorkloadPodStatus) => void
}): WorkloadPods {
	const pods = new Map<
		string,
		{ pod: WorkloadPod; readonly containers: Map<string, Container>; stopping?: Promise<void> }
	>()
	const http = createStandInHttp()

	function start(pod: WorkloadPod, container: WorkloadContainer, log: ContainerLog): Run {
		switch (container.kind) {
			case 'program':
				return startProgram(pod, container, log, options.lab)
			case 'dns':
				return options.startDns(pod, log)
			case 'stand-in': {
				const standIn = openStandIn(pod, container, log, http)
				try {
					standIn.listen(container.listeners)
				} catch (e) {
					void standIn.stop(0)
					throw e
				}
				return {
					update(next) {
						if (next.kind !== 'stand-in' || next.image !== container.image) return false
						try {
							standIn.listen(next.listeners)
							return true
						} catch {
							// Starting again says why it cannot.
							return false
						}
					},
					stop: (grace) => standIn.stop(grace),
					ended: new Promise(() => {}),
				}
			}
			default: {
				const never: never = container
				throw new Error(`No such kind of container: ${JSON.stringify(never)}`)
			}
		}
	}

	function statusOf(uid: string): WorkloadPodStatus {
		return { uid, containers: [...(pods.get(uid)?.containers.values() ?? [])].map((c) => c.status) }
	}

	function consoleOf({ uid, container }: Place): Console | undefined {
		return pods.get(uid)?.containers.get(container)?.console
	}

	return {
		all: () => [...pods.values()].map(({ pod }) => ({ pod, status: statusOf(pod.uid) })),
		set(pod) {
			const known = pods.get(pod.uid) ?? { pod, containers: new Map<string, Container>() }
			if (known.stopping !== undefined) {
				throw new Failure('Conflict', `Cannot run pod "${pod.namespace}/${pod.name}": it is being stopped`)
			}
			known.pod = pod
			pods.set(pod.uid, known)
			for (const container of pod.containers) {
				const running = known.containers.get(container.name)
				if (running !== undefined) running.update(container)
				else {
					const started = startContainer(
						container,
						(c, log) => start(known.pod, c, log),
						options.clock,
						() => options.changed(statusOf(pod.uid)),
					)
					known.containers.set(container.name, started)
				}
			}
			return statusOf(pod.uid)
		},
		async stop(uid, grace, keepLogs) {
			const known = pods.get(uid)
			if (known === undefined) return
			known.stopping ??= Promise.all([...known.containers.values()].map((c) => c.stop(grace))).then(() => {})
			await known.stopping
			if (!keepLogs) pods.delete(uid)
		},
		async restart(uid, container, grace, message) {
			await pods.get(uid)?.containers.get(container)?.restart(grace, message)
		},
		async stopContainer(uid, name, grace) {
			const container = pods.get(uid)?.containers.get(name)
			if (container === undefined) return
			await container.stop(grace)
			options.changed(statusOf(uid))
		},
		attach(at, signal) {
			const console = consoleOf(at)
			if (console === undefined) {
				throw new Failure('BadRequest', `Cannot attach to container "${at.container}": no program runs in it`)
			}
			return followConsole(console, signal)
		},
		async input({ data, end, ...at }) {
			const console = consoleOf(at)
			if (data !== undefined) await console?.write(Buffer.from(data, 'base64'))
			const container = pods.get(at.uid)?.pod.containers.find((c) => c.name === at.container)
			if (end === true && container?.kind === 'program' && container.stdin?.once === true) console?.closeInput()
		},
		resize: ({ width, height, ...at }) => consoleOf(at)?.resize({ width, height }),
		async *logs(query, signal) {
			const container = pods.get(query.uid)?.containers.get(query.container)
			if (container === undefined) {
				throw new Failure('NotFound', `Cannot read the log of container "${query.container}": it is not running`)
			}
			const log = container.log(query.previous)
			if (log === undefined) {
				throw new Failure('BadRequest', `previous terminated container "${query.container}" not found`)
			}
			yield* log.read({
				follow: query.follow,
				signal,
				...(query.tailLines === undefined ? {} : { tailLines: query.tailLines }),
				...(query.since === undefined ? {} : { since: query.since }),
			})
		},
	}
}
