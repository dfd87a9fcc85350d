// All controllers of a cluster on one client, sharing one live copy of each kind. They see nothing but the API, so they
// run as well on an API server elsewhere.

import type { Clock } from '../base/clock.ts'
import { isConflict, isNotFound } from '../kube/answer.ts'
import type { KubeClient } from '../kube/client.ts'
import { keyOf } from '../kube/objects/meta.ts'
import type { Cluster, Controller } from './controller.ts'
import { daemonSetController } from './daemonset/controller.ts'
import { deploymentController } from './deployment/controller.ts'
import { disruptionController } from './disruption/controller.ts'
import { endpointsController } from './endpoints/controller.ts'
import { endpointSliceController } from './endpointslice/controller.ts'
import { endpointSliceMirroring } from './endpointslice/mirror.ts'
import { createEventRecorder, type EventRecorder } from './events.ts'
import { garbageCollector } from './gc/controller.ts'
import { createInventory } from './inventory.ts'
import { jobControllers } from './job/controller.ts'
import { loadBalancerController } from './loadbalancer/controller.ts'
import type { AddressPool } from './loadbalancer/pools.ts'
import { namespaceFinalizer } from './namespaces/finalize.ts'
import { namespaceFurnisher } from './namespaces/furnish.ts'
import type { PodNetwork } from './nodes/cidrs.ts'
import { nodeCidrController, podCollector } from './nodes/controller.ts'
import { nodeMonitor, taintEviction } from './nodes/monitor.ts'
import { replicaSetController, replicationController } from './replicaset/controller.ts'
import { schedulerController } from './scheduler/controller.ts'
import { statefulSetController } from './statefulset/controller.ts'
import { createViews, type View } from './view.ts'
import { volumeControllers } from './volumes/controller.ts'

export type { EventRecorder } from './events.ts'
export type { AddressPool } from './loadbalancer/pools.ts'
export type { PodNetwork } from './nodes/cidrs.ts'

export interface ControllersOptions {
	readonly clock: Clock
	/** Ends all controllers. */
	readonly signal: AbortSignal
	/** The pod network of the cluster, one entry a family, and how much of it a node gets. Absent: nodes come with theirs. */
	readonly podNetworks?: readonly PodNetwork[]
	/** Where load balancers get their addresses. Absent: a cloud's own controller gives them, or nobody does. */
	readonly addressPools?: () => readonly AddressPool[]
	/** Milliseconds until a node without a sign of life counts as not ready (Kubernetes: 40,000). Absent: nodes need none. */
	readonly nodeGrace?: number
	/** PEM; published in each namespace as ConfigMap kube-root-ca.crt. */
	readonly caCertificate?: string
	/** Hears of turns that failed (they are tried again) and of watches that broke (they are taken up again). */
	readonly onFailure?: (failure: ControllerFailure) => void
}

export interface ControllerFailure {
	readonly controller: string
	/** What it worked on; '' for a watch. */
	readonly key: string
	readonly error: unknown
	/** Counts from 1; a conflict is news only when it comes again and again. */
	readonly attempt: number
}

export interface Controllers {
	/** Resolves when every copy is complete and the controllers work. */
	readonly ready: Promise<void>
	/**
	 * Resolves when nothing is left to do: no key waits, and every copy shows what the API has. Dates in the future
	 * (minReadySeconds, deadlines, back-off beyond a second) are not waited for.
	 */
	settled(): Promise<void>
	/** What each controller that is not at rest still works on. */
	pending(): readonly { readonly controller: string; readonly keys: readonly string[] }[]
	/** For others who have events to tell, the kubelet for one. */
	readonly recorder: EventRecorder
	stop(): void
}

/** The copy may lag behind for a while; the retries until then take about half a second together. */
const quietConflicts = 7

export function startControllers(client: KubeClient, options: ControllersOptions): Controllers {
	const { clock } = options
	const ending = new AbortController()
	const stop = (): void => ending.abort()
	if (options.signal.aborted) stop()
	options.signal.addEventListener('abort', stop, { once: true })
	const { signal } = ending

	const views = createViews(client, {
		clock,
		signal,
		onFailure: (error) => options.onFailure?.({ controller: 'informer', key: '', error, attempt: 1 }),
	})
	const recorder = createEventRecorder(client, { clock, signal })
	const resting = new Set<() => void>()
	const { promise: ready, resolve: begin, reject: fail } = Promise.withResolvers<void>()
	ready.catch(() => {})
	const cluster: Cluster = {
		client,
		clock,
		views,
		recorder,
		ready,
		signal,
		onFailure: (controller, key, error, attempt) => {
			// Somebody wrote in between, or took it away: the next turn sees it.
			if (attempt <= quietConflicts && (isConflict(error) || isNotFound(error))) return
			options.onFailure?.({ controller, key, error, attempt })
		},
		onRest: () => {
			for (const wake of resting) wake()
		},
	}
	const inventory = createInventory(views)
	const controllers: readonly Controller[] = [
		endpointSliceController(cluster),
		endpointSliceMirroring(cluster),
		endpointsController(cluster),
		schedulerController(cluster),
		deploymentController(cluster),
		replicaSetController(cluster),
		replicationController(cluster),
		statefulSetController(cluster),
		daemonSetController(cluster),
		...jobControllers(cluster),
		namespaceFurnisher(cluster, options.caCertificate),
		namespaceFinalizer(cluster, inventory),
		garbageCollector(cluster, inventory),
		podCollector(cluster),
		...volumeControllers(cluster),
		disruptionController(cluster),
		taintEviction(cluster),
		...(options.nodeGrace === undefined ? [] : [nodeMonitor(cluster, options.nodeGrace)]),
		...(options.addressPools === undefined ? [] : [loadBalancerController(cluster, options.addressPools)]),
		...(options.podNetworks === undefined ? [] : [nodeCidrController(cluster, options.podNetworks)]),
	]
	views.start().then(begin, fail)

	const isIdle = (): boolean => controllers.every((controller) => controller.queue.idle())
	const idle = async (): Promise<void> => {
		while (!isIdle() && !signal.aborted) {
			const { promise, resolve } = Promise.withResolvers<void>()
			resting.add(resolve)
			signal.addEventListener('abort', () => resolve(), { once: true })
			await promise
			resting.delete(resolve)
		}
	}

	return {
		ready,
		recorder,
		pending: () =>
			controllers
				.map(({ name, queue }) => ({ controller: name, keys: queue.pending() }))
				.filter(({ keys }) => keys.length > 0),
		stop,
		async settled() {
			await ready
			for (;;) {
				await idle()
				const behind = await Promise.all([...views.all()].map((view) => missing(client, view)))
				if (signal.aborted) return
				const waits = behind.flat()
				if (waits.length === 0 && isIdle()) return
				await Promise.all(waits.map((wait) => wait()))
			}
		},
	}
}

/** For each object the API has in another version than the copy: how to wait until the copy has it too. */
async function missing(client: KubeClient, view: View): Promise<(() => Promise<void>)[]> {
	const { items } = await client.list(view.kind)
	const waits: (() => Promise<void>)[] = []
	const listed = new Set<string>()
	for (const object of items) {
		const key = keyOf(object)
		listed.add(key)
		const resourceVersion = object.metadata.resourceVersion!
		if (view.get(key)?.metadata.resourceVersion !== resourceVersion) {
			waits.push(() => view.shows({ key, resourceVersion }))
		}
	}
	for (const object of view.values()) {
		const key = keyOf(object)
		if (!listed.has(key)) waits.push(() => view.shows({ key, deletedUid: object.metadata.uid! }))
	}
	return waits
}
