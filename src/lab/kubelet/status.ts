// A pod's status as the kubelet reports it, from what runs. Pure: the same containers give the same status, and a
// condition keeps the time of its last change.

import type {
	ContainerStatus as ApiContainerStatus,
	ContainerState as ApiState,
	Container,
	Pod,
	PodCondition,
	PodPhase,
	PodStatus,
} from '../../kube/objects/pod.ts'
import type { ContainerState, ContainerStatus } from '../workloads/protocol.ts'
import { isSidecar, restartOf } from './containers.ts'

export interface PodFacts {
	readonly pod: Pod
	/** Of the node, the primary family first. */
	readonly hostIps: readonly string[]
	/** Empty until the pod is wired. */
	readonly podIps: readonly string[]
	/** What runs or ran, by container name; a container that has not begun is absent. */
	readonly containers: ReadonlyMap<string, ContainerStatus>
	/** Restarts counted before the workloads process began to count. */
	readonly restartsBefore: ReadonlyMap<string, number>
	/** What probes and hooks say of a container; one that is absent has none and is healthy as long as it runs. */
	readonly health?: ReadonlyMap<string, { readonly ready: boolean; readonly started: boolean }>
	/** The pod is deleted and its containers are over: none begins again. */
	readonly over?: boolean
	/** Why nothing runs yet, if something is wrong. */
	readonly waiting?: { readonly reason: string; readonly message: string }
	/** Milliseconds since the epoch. */
	readonly now: number
}

export function podStatusOf(facts: PodFacts): PodStatus {
	const { pod, podIps, now } = facts
	const before = pod.status
	const init = (pod.spec?.initContainers ?? []).map((c) => containerStatusOf(c, facts, 'init'))
	const main = (pod.spec?.containers ?? []).map((c) => containerStatusOf(c, facts, 'main'))
	// A sidecar that ends later does not undo it.
	const initialized =
		main.some((c) => c.containerID !== undefined) ||
		(pod.spec?.initContainers ?? []).every((c, i) =>
			isSidecar(c) ? init[i]?.started === true : init[i]?.state?.terminated?.exitCode === 0,
		)
	const phase = phaseOf(facts, main, init, initialized)
	const finished = phase === 'Succeeded' || phase === 'Failed'
	const sidecars = init.filter((_, i) => isSidecar(pod.spec?.initContainers?.[i] as Container))
	const lasting = [...sidecars, ...main]
	const ready = phase === 'Running' && lasting.every((c) => c.ready)
	const gates = pod.spec?.readinessGates ?? []
	const gatesOpen = gates.every((g) =>
		before?.conditions?.some((c) => c.type === g.conditionType && c.status === 'True'),
	)
	const unready = lasting.filter((c) => !c.ready).map((c) => c.name)
	const why =
		finished && phase === 'Succeeded' ? { reason: 'PodCompleted' } : finished ? { reason: 'PodFailed' } : undefined
	const notReady = why ?? {
		reason: 'ContainersNotReady',
		message: `containers with unready status: [${unready.join(' ')}]`,
	}
	const conditions = mergeConditions(
		before?.conditions ?? [],
		[
			{ type: 'PodReadyToStartContainers', status: truth(podIps.length > 0 && !finished) },
			{
				type: 'Initialized',
				status: truth(initialized),
				...(initialized
					? phase === 'Succeeded'
						? { reason: 'PodCompleted' }
						: {}
					: {
							reason: 'ContainersNotInitialized',
							message: `containers with incomplete status: [${init
								.filter((c) => c.state?.terminated?.exitCode !== 0)
								.map((c) => c.name)
								.join(' ')}]`,
						}),
			},
			{
				type: 'Ready',
				status: truth(ready && gatesOpen),
				...(ready ? (gatesOpen ? {} : { reason: 'ReadinessGatesNotReady' }) : notReady),
			},
			{ type: 'ContainersReady', status: truth(ready), ...(ready ? {} : notReady) },
			{ type: 'PodScheduled', status: 'True' },
		],
		time(now),
	)
	return {
		phase,
		conditions,
		...(facts.hostIps.length === 0 ? {} : { hostIP: facts.hostIps[0]!, hostIPs: facts.hostIps.map((ip) => ({ ip })) }),
		...(podIps.length === 0 ? {} : { podIP: podIps[0]!, podIPs: podIps.map((ip) => ({ ip })) }),
		startTime: before?.startTime ?? time(now),
		...(init.length === 0 ? {} : { initContainerStatuses: init }),
		containerStatuses: main,
		...(before?.qosClass === undefined ? {} : { qosClass: before.qosClass }),
		...(pod.metadata.generation === undefined ? {} : { observedGeneration: pod.metadata.generation }),
	}
}

/** Seconds precision, UTC, as the API prints times. */
export function time(milliseconds: number): string {
	return `${new Date(milliseconds).toISOString().slice(0, 19)}Z`
}

function truth(value: boolean): 'True' | 'False' {
	return value ? 'True' : 'False'
}

/** Ours replace those of the same type; others (readiness gates, disruption) stay; times move only when the status does. */
function mergeConditions(
	before: readonly PodCondition[],
	ours: readonly PodCondition[],
	now: string,
): readonly PodCondition[] {
	const mine = ours.map((condition) => {
		const old = before.find((c) => c.type === condition.type)
		const same = old !== undefined && old.status === condition.status
		return { ...condition, lastProbeTime: null, lastTransitionTime: same ? (old.lastTransitionTime ?? now) : now }
	})
	return [...mine, ...before.filter((c) => !ours.some((o) => o.type === c.type))]
}

function containerStatusOf(container: Container, facts: PodFacts, kind: 'init' | 'main'): ApiContainerStatus {
	const found = facts.containers.get(container.name)
	const image = container.image ?? ''
	const uid = facts.pod.metadata.uid ?? ''
	const id = `podwire://${uid}/${container.name}/${found?.restarts ?? 0}`
	if (found === undefined) {
		const creating = kind === 'init' || (facts.pod.spec?.initContainers ?? []).length === 0
		return {
			name: container.name,
			state: { waiting: facts.waiting ?? { reason: creating ? 'ContainerCreating' : 'PodInitializing' } },
			lastState: {},
			ready: false,
			started: false,
			restartCount: facts.restartsBefore.get(container.name) ?? 0,
			image,
			imageID: '',
		}
	}
	const running = found.state.state === 'running'
	const health = facts.health?.get(container.name)
	const done = found.state.state === 'terminated' && found.state.exitCode === 0
	return {
		name: container.name,
		state: apiState(found.state, id),
		lastState: found.last === undefined ? {} : apiState(found.last, id),
		ready: kind === 'init' && !isSidecar(container) ? done : running && (health?.ready ?? true),
		started: running && (health?.started ?? true),
		restartCount: (facts.restartsBefore.get(container.name) ?? 0) + found.restarts,
		image,
		imageID: '',
		containerID: id,
	}
}

function apiState(state: ContainerState, id: string): ApiState {
	switch (state.state) {
		case 'waiting':
			return {
				waiting: { reason: state.reason, ...(state.message === undefined ? {} : { message: state.message }) },
			}
		case 'running':
			return { running: { startedAt: time(state.startedAt) } }
		case 'terminated':
			return {
				terminated: {
					exitCode: state.exitCode,
					reason: state.reason,
					...(state.message === undefined ? {} : { message: state.message }),
					startedAt: time(state.startedAt),
					finishedAt: time(state.finishedAt),
					containerID: id,
				},
			}
		default: {
			const never: never = state
			throw new Error(`No such state: ${JSON.stringify(never)}`)
		}
	}
}

function phaseOf(
	{ pod, over }: PodFacts,
	main: readonly ApiContainerStatus[],
	init: readonly ApiContainerStatus[],
	initialized: boolean,
): PodPhase {
	const policy = pod.spec?.restartPolicy ?? 'Always'
	const comesAgain = (status: ApiContainerStatus, container: Container | undefined, isInit: boolean): boolean => {
		const restart = restartOf(container as Container, policy, isInit)
		return over !== true && (restart === 'Always' || (restart === 'OnFailure' && code(status) !== 0))
	}
	if (!initialized && over !== true) {
		const failed = init.some((c, i) => {
			const container = pod.spec?.initContainers?.[i] as Container
			return (code(c) ?? 0) !== 0 && !isSidecar(container) && !comesAgain(c, container, true)
		})
		return failed ? 'Failed' : 'Pending'
	}
	if (main.every((c) => code(c) !== undefined)) {
		// Where it may come again it only rests here between two runs.
		if (main.some((c, i) => comesAgain(c, pod.spec?.containers[i], false))) return 'Running'
		// Sidecars are ended next; how they end does not count.
		if (init.some((c) => c.state?.running !== undefined)) return 'Running'
		return main.every((c) => code(c) === 0) ? 'Succeeded' : 'Failed'
	}
	const begun = main.some(
		(c) =>
			c.state?.running !== undefined ||
			c.state?.terminated !== undefined ||
			c.restartCount > 0 ||
			c.containerID !== undefined,
	)
	return begun ? 'Running' : 'Pending'
}

function code(status: ApiContainerStatus): number | undefined {
	return status.state?.terminated?.exitCode
}
