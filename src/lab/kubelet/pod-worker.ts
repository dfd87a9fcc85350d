// One pod on its node, from scheduled to gone. Level-triggered: each turn compares what should be with what is, and
// takes the next step; turns of one pod never overlap.

import type { Clock } from '../../base/clock.ts'
import { isFailure, messageOf } from '../../base/failure.ts'
import { type Ip, tryParseIp } from '../../base/ip.ts'
import type { EventRecorder } from '../../controllers/events.ts'
import { isConflict, isNotFound } from '../../kube/answer.ts'
import type { KubeClient } from '../../kube/client.ts'
import { pods } from '../../kube/kinds.ts'
import { keyOf } from '../../kube/objects/meta.ts'
import type { Container, Pod } from '../../kube/objects/pod.ts'
import type { ContainerStatus, WorkloadContainer, WorkloadPod } from '../workloads/protocol.ts'
import type { CommandEnd } from './command.ts'
import { type ContainerPlan, isSidecar, planText } from './containers.ts'
import { type ContainerHealth, hasHealth } from './health.ts'
import { runHook } from './hooks.ts'
import type { PodNetwork, PodWiring } from './network.ts'
import { createPodEvents, kubeletComponent } from './pod-events.ts'
import { createPodHealth, targetOf } from './pod-health.ts'
import type { PodRuntime } from './runtime.ts'
import { podStatusOf } from './status.ts'
import { type Ending, endContainers, leastGrace } from './termination.ts'

export interface PodContext {
	readonly client: KubeClient
	readonly clock: Clock
	readonly recorder: EventRecorder | undefined
	readonly network: PodNetwork
	readonly runtime: PodRuntime
	/** Of the node, the primary family first. */
	readonly nodeIps: readonly Ip[]
	/** Path of the node's own namespace, where hostNetwork pods live. */
	readonly nodeNetns: string
	plan(pod: Pod, container: Container): ContainerPlan
	/** The container as the runtime takes it; files are written, references read. Throws Failure CreateContainerConfigError. */
	prepare(pod: Pod, container: Container, plan: ContainerPlan, wiring: PodWiring): Promise<WorkloadContainer>
	/** The pod is gone for good: its files may go. */
	forget(pod: Pod): void
	/** Runs a host program inside a container to its end; undefined on paper, where nothing runs. `timeout`: milliseconds. */
	readonly runCommand:
		| ((
				pod: Pod,
				container: Container,
				wiring: PodWiring,
				command: readonly string[],
				timeout: number,
		  ) => Promise<CommandEnd>)
		| undefined
	failed(pod: Pod, error: unknown): void
	/** The worker has come to rest: nothing to do until something changes, or a retry is due. */
	rested(): void
}

export interface PodWorker {
	/** Something changed; `pod` undefined: it is no longer in the API. */
	update(pod: Pod | undefined): void
	/** Resolves when the worker has nothing left to do and the pod is gone. */
	readonly gone: Promise<void>
	/** The containers that have been prepared, for exec. */
	readonly wiring: PodWiring | undefined
	/** A turn is under way or due at once. */
	readonly busy: boolean
	/** Everything that ran is lost: begin anew. */
	lost(): void
	/** The node is cut off: what runs runs on, but nothing is begun or told until `resume`. */
	pause(): void
	/** Tells the API anew how the pod is: others may have spoken for it meanwhile. */
	resume(): void
	stop(): void
}

const retryFirst = 500
const retryLimit = 30_000
/** Milliseconds the first status waits for probes that are due at once. */
const firstProbes = 50

export function createPodWorker(first: Pod, context: PodContext): PodWorker {
	const { client, clock, network, runtime, recorder } = context
	const events = createPodEvents(recorder)
	const uid = first.metadata.uid as string
	const key = keyOf(first)
	let pod = first
	let inApi = true
	let running = false
	let again = false
	let stopped = false
	/** Resolves when the node is back. */
	let cutOff: PromiseWithResolvers<void> | undefined
	let failures = 0
	let cancelRetry: (() => void) | undefined
	let wiring: PodWiring | undefined
	let sent: WorkloadPod | undefined = runtime.find(uid)?.pod
	let lastStatus = JSON.stringify(first.status ?? {})
	/** Of a pod that is deleted, until it is gone or could not be ended. */
	let terminating: Promise<void> | undefined
	let ending: Ending | undefined
	/** All containers are over, and none begins again. */
	let over = false
	/** How they ended: the runtime forgets a pod before the API does, and nothing else may be told of it meanwhile. */
	let ends: readonly ContainerStatus[] = []
	let writing: Promise<void> = Promise.resolve()
	/** The sidecars of a pod whose work is done are being ended. */
	let retiring: Promise<void> | undefined
	/** Containers that are over without ever having been given to the runtime: stand-ins that only had to succeed. */
	const succeeded = new Map<string, ContainerStatus>()
	const announced = new Set<string>()
	let hasBegun = false
	const restartsBefore = restartsOf(first)
	const gone = Promise.withResolvers<void>()
	const health = createPodHealth({
		clock,
		recorder,
		component: kubeletComponent,
		run: context.runCommand,
		changed: () => wake(),
		restart(container, grace, message) {
			void restart(container, grace, message).catch((e) => context.failed(pod, e))
		},
	})

	function restartsOf(from: Pod): Map<string, number> {
		const known = runtime.find(uid)?.status.containers ?? []
		return new Map(
			[...(from.status?.containerStatuses ?? []), ...(from.status?.initContainerStatuses ?? [])].map((status) => {
				const now = known.find((c) => c.name === status.name)
				if (now !== undefined) return [status.name, Math.max(0, status.restartCount - now.restarts)]
				const ran = status.containerID !== undefined && status.state?.terminated === undefined
				return [status.name, status.restartCount + (ran ? 1 : 0)]
			}),
		)
	}

	function wake(): void {
		if (stopped || cutOff !== undefined) return
		if (running) {
			again = true
			return
		}
		cancelRetry?.()
		cancelRetry = undefined
		running = true
		void turn()
			.then(() => {
				failures = 0
			})
			.catch((e) => {
				retryLater(e)
			})
			.finally(() => {
				running = false
				if (again) {
					again = false
					wake()
				}
				if (!running) context.rested()
			})
	}

	function retryLater(e: unknown): void {
		failures++
		context.failed(pod, e)
		if (!stopped) cancelRetry = clock.after(Math.min(retryLimit, retryFirst * 2 ** (failures - 1)), wake)
	}

	async function turn(): Promise<void> {
		if (!inApi || pod.metadata.deletionTimestamp !== undefined) {
			terminate()
			// What becomes of its containers and their readiness is told until the end.
			if (inApi && !stopped && wiring !== undefined) await writeStatus()
			return
		}
		const { phase } = pod.status ?? {}
		if (phase === 'Succeeded' || phase === 'Failed') {
			// Its logs stay until it is deleted.
			await runtime.stop(uid, { grace: 0, keepLogs: true })
			health.stop()
			await network.detach(uid)
			wiring = undefined
			return
		}
		try {
			await wire()
		} catch (e) {
			events.sandboxFailed(pod, e)
			await writeStatus({ reason: 'ContainerCreating', message: messageOf(e) })
			throw e
		}
		try {
			await run()
		} catch (e) {
			if (isFailure(e, 'FailedMount')) {
				events.mountFailed(pod, e)
				await writeStatus({ reason: 'ContainerCreating', message: messageOf(e) })
				throw e
			}
			const reason = isFailure(e, 'CreateContainerConfigError') ? e.code : 'CreateContainerError'
			events.createFailed(pod, e)
			await writeStatus({ reason, message: messageOf(e) })
			throw e
		}
		followHealth()
		retire()
		// Most probes of a container just started answer at once: then one status says it all.
		if (!hasBegun) await health.first(firstProbes)
		hasBegun = true
		await writeStatus()
	}

	function followHealth(): void {
		const statuses = new Map((runtime.find(uid)?.status.containers ?? []).map((c) => [c.name, c]))
		for (const container of [...(pod.spec?.initContainers ?? []), ...(pod.spec?.containers ?? [])]) {
			if (!hasHealth(container)) continue
			const status = statuses.get(container.name)
			health.follow(pod, container, context.plan(pod, container), status, wiring as PodWiring)
		}
	}

	async function wire(): Promise<void> {
		if (wiring !== undefined) return
		if (pod.spec?.hostNetwork === true) {
			wiring = { ips: context.nodeIps, netns: context.nodeNetns }
			return
		}
		wiring = await network.attach({
			uid,
			key,
			node: pod.spec?.nodeName as string,
			prefer: (pod.status?.podIPs ?? []).flatMap(({ ip }) => tryParseIp(ip) ?? []),
		})
	}

	/** Gives the runtime every container whose turn has come. */
	async function run(): Promise<void> {
		const wired = wiring as PodWiring
		const containers: WorkloadContainer[] = []
		const statuses = () => new Map((runtime.find(uid)?.status.containers ?? []).map((c) => [c.name, c]))
		let blocked = false
		for (const container of pod.spec?.initContainers ?? []) {
			if (blocked) break
			const plan = context.plan(pod, container)
			if (plan.kind === 'stand-in' && !isSidecar(container)) {
				succeed(container, plan)
				continue
			}
			containers.push(await preparedOf(container, plan, wired))
			const state = statuses().get(container.name)?.state
			blocked = isSidecar(container)
				? state !== undefined && container.startupProbe !== undefined && health.of(container.name)?.started !== true
				: !(state?.state === 'terminated' && state.exitCode === 0)
		}
		if (!blocked) {
			for (const container of pod.spec?.containers ?? []) {
				const plan = context.plan(pod, container)
				// A Job is work that ends; what stands in for it has nothing to do.
				const isWork = pod.metadata.ownerReferences?.some((o) => o.controller === true && o.kind === 'Job')
				if (plan.kind === 'stand-in' && isWork) succeed(container, plan)
				else containers.push(await preparedOf(container, plan, wired))
			}
		}
		const want: WorkloadPod = {
			uid,
			namespace: pod.metadata.namespace as string,
			name: pod.metadata.name,
			node: pod.spec?.nodeName as string,
			ips: wired.ips,
			netns: wired.netns,
			containers,
		}
		if (containers.length === 0 || JSON.stringify(want) === JSON.stringify(sent)) return
		await runtime.set(want)
		sent = want
		for (const container of containers) {
			if (announced.has(container.name)) continue
			announced.add(container.name)
			const spec = [...(pod.spec?.initContainers ?? []), ...(pod.spec?.containers ?? [])].find(
				(c) => c.name === container.name,
			)!
			events.started(pod, spec, context.plan(pod, spec))
		}
	}

	async function preparedOf(container: Container, plan: ContainerPlan, wired: PodWiring): Promise<WorkloadContainer> {
		// What a program was started with stays as it was: Service variables of later Services do not restart it.
		const before = sent?.containers.find((c) => c.name === container.name)
		if (before?.kind === 'program' && plan.kind === 'program' && before.image === container.image) return before
		// Nor does a changed image map.
		if (before !== undefined && before.kind !== plan.kind && before.image === container.image) return before
		return context.prepare(pod, container, plan, wired)
	}

	function succeed(container: Container, plan: ContainerPlan): void {
		if (succeeded.has(container.name)) return
		const reported = [...(pod.status?.initContainerStatuses ?? []), ...(pod.status?.containerStatuses ?? [])].find(
			(s) => s.name === container.name,
		)?.state?.terminated
		const at = reported?.finishedAt === undefined ? clock.now() : Date.parse(reported.finishedAt)
		succeeded.set(container.name, {
			name: container.name,
			restarts: 0,
			state: {
				state: 'terminated',
				startedAt: reported?.startedAt === undefined ? at : Date.parse(reported.startedAt),
				finishedAt: at,
				exitCode: 0,
				reason: 'Completed',
				message: `nothing was run: ${planText(container.image ?? '', plan)}`,
			},
		})
		if (reported === undefined) events.started(pod, container, plan)
	}

	function writeStatus(waiting?: { readonly reason: string; readonly message: string }): Promise<void> {
		const written = writing.then(() => writeNow(waiting))
		writing = written.catch(() => {})
		return written
	}

	async function writeNow(waiting?: { readonly reason: string; readonly message: string }): Promise<void> {
		const containers = new Map(succeeded)
		for (const status of over ? ends : (runtime.find(uid)?.status.containers ?? [])) {
			containers.set(status.name, status)
			events.backedOff(pod, status)
		}
		const healths = new Map<string, ContainerHealth>()
		for (const name of containers.keys()) {
			const found = health.of(name)
			if (found !== undefined) healths.set(name, found)
		}
		const status = podStatusOf({
			health: healths,
			pod,
			hostIps: context.nodeIps,
			podIps: wiring?.ips ?? [],
			containers,
			restartsBefore,
			over,
			now: clock.now(),
			...(waiting === undefined ? {} : { waiting }),
		})
		const text = JSON.stringify(status)
		if (text === lastStatus || cutOff !== undefined) return
		try {
			// The uid is a precondition: a pod of the same name that came later is another pod.
			const written = await client.patch(pods, key, { metadata: { uid }, status }, { subresource: 'status' })
			if (written.metadata.uid === uid && inApi && !again) pod = written
			lastStatus = text
		} catch (e) {
			if (!isNotFound(e) && !isConflict(e)) throw e
		}
	}

	/** Waits until no Service sends here, stops the containers, unwires, and lets the API forget the pod. */
	function terminate(): void {
		terminating ??= (async () => {
			const grace = inApi ? graceOf(pod) * 1000 : 0
			health.terminate()
			if (inApi) events.killing(pod)
			ending = endContainers({
				...endOptions,
				grace,
				initContainers: pod.spec?.initContainers ?? [],
				containers: pod.spec?.containers ?? [],
				ready: (signal) => (inApi ? network.drained(key, signal).catch(() => {}) : Promise.resolve()),
			})
			await ending.done
			health.stop()
			if (!over) ends = runtime.find(uid)?.status.containers ?? []
			over = true
			if (inApi && grace > 0 && wiring !== undefined) await writeStatus()
			await runtime.stop(uid, { grace: 0, keepLogs: false })
			await network.detach(uid)
			await cutOff?.promise
			if (inApi) {
				try {
					await client.delete(pods, key, { gracePeriodSeconds: 0, preconditions: { uid } })
				} catch (e) {
					if (!isNotFound(e) && !isConflict(e)) throw e
				}
			}
			stopped = true
			context.forget(pod)
			gone.resolve()
		})()
			.catch((e) => {
				terminating = undefined
				retryLater(e)
			})
			.finally(() => {
				if (!running) context.rested()
			})
	}

	const endOptions = {
		clock,
		preStop: (container: Container, signal: AbortSignal) => preStop(container, signal),
		stop: (container: Container, grace: number) => runtime.stopContainer(uid, container.name, grace),
	}

	/** Sidecars have nobody left to serve once every container has ended for good. */
	function retire(): void {
		const sidecars = (pod.spec?.initContainers ?? []).filter(isSidecar)
		if (sidecars.length === 0 || retiring !== undefined) return
		const statuses = new Map((runtime.find(uid)?.status.containers ?? []).map((c) => [c.name, c]))
		const isOver = ({ name }: Container) => (succeeded.get(name) ?? statuses.get(name))?.state.state === 'terminated'
		if (!(pod.spec?.containers ?? []).every(isOver)) return
		const grace = (pod.spec?.terminationGracePeriodSeconds ?? 30) * 1000
		const how = { ...endOptions, grace, initContainers: sidecars, containers: [], ready: () => Promise.resolve() }
		retiring = endContainers(how).done.then(wake, (e) => {
			retiring = undefined
			retryLater(e)
		})
	}

	/** After a failed probe or hook: its preStop hook, then its end, then the next run. */
	async function restart(container: Container, grace: number, message: string): Promise<void> {
		const begun = clock.now()
		if (grace > 0 && container.lifecycle?.preStop !== undefined) {
			const late = new AbortController()
			const cancel = clock.after(grace, () => late.abort())
			await preStop(container, late.signal)
			cancel()
		}
		const left = grace === 0 ? 0 : Math.max(leastGrace, grace - (clock.now() - begun))
		if (terminating === undefined) await runtime.restart(uid, container.name, { grace: left, message })
	}

	/** The preStop hook of a container that runs; its time is part of the grace period. Never rejects. */
	async function preStop(container: Container, signal: AbortSignal): Promise<void> {
		const hook = container.lifecycle?.preStop
		const wired = wiring
		const { runCommand } = context
		if (hook === undefined || wired === undefined || runCommand === undefined || !inApi) return
		const status = runtime.find(uid)?.status.containers.find((c) => c.name === container.name)
		if (status?.state.state !== 'running') return
		const target = targetOf(pod, container, context.plan(pod, container), wired, runCommand)
		const skipped = (why: string) => events.preStopSkipped(pod, container, why)
		const result = await runHook(hook, target, clock, signal, skipped)
		if (!result.ok) events.preStopFailed(pod, result.text ?? '')
	}

	return {
		update(next) {
			if (next === undefined) {
				inApi = false
				// Deleted by force: nothing to wait for.
				ending?.shorten(clock.now())
			} else {
				const before = pod
				pod = next
				const { deletionTimestamp, deletionGracePeriodSeconds } = next.metadata
				// Deleted again, with less patience.
				if (
					deletionTimestamp !== undefined &&
					deletionGracePeriodSeconds !== before.metadata.deletionGracePeriodSeconds
				)
					ending?.shorten(clock.now() + graceOf(next) * 1000)
			}
			wake()
		},
		gone: gone.promise,
		get busy() {
			return running || (terminating !== undefined && !stopped)
		},
		get wiring() {
			return wiring
		},
		lost() {
			if (sent === undefined) return
			sent = undefined
			for (const [name, count] of restartsOf(pod)) restartsBefore.set(name, count)
			wake()
		},
		pause() {
			cutOff ??= Promise.withResolvers()
		},
		resume() {
			cutOff?.resolve()
			cutOff = undefined
			lastStatus = ''
			wake()
		},
		stop() {
			stopped = true
			cutOff?.resolve()
			cancelRetry?.()
		},
	}
}

function graceOf(pod: Pod): number {
	return pod.metadata.deletionGracePeriodSeconds ?? pod.spec?.terminationGracePeriodSeconds ?? 30
}
