// A cluster in one process for the tests of the controllers: the embedded API server, the controllers, and a kubelet
// that makes pods ready (or not) as their image says. Nothing sleeps: tests wait for what the API shows.

import type { TestContext } from 'node:test'
import { createApiServer } from '../../../src/apiserver/server.ts'
import { createStore } from '../../../src/apiserver/store.ts'
import { systemClock } from '../../../src/base/clock.ts'
import { parseCidr } from '../../../src/base/ip.ts'
import {
	type AddressPool,
	type ControllerFailure,
	type Controllers,
	startControllers,
} from '../../../src/controllers/main.ts'
import { createWorkQueue } from '../../../src/controllers/queue.ts'
import { isConflict, isNotFound } from '../../../src/kube/answer.ts'
import { createKubeClient, type KubeClient } from '../../../src/kube/client.ts'
import { createInformer, type Informer } from '../../../src/kube/informer.ts'
import { type Kind, nodes, pods } from '../../../src/kube/kinds.ts'
import type { KubeObject, ObjectKey } from '../../../src/kube/objects/meta.ts'
import type { Pod } from '../../../src/kube/objects/pod.ts'
import type { Transport } from '../../../src/kube/transport.ts'

export interface World {
	readonly client: KubeClient
	/** Those of now. */
	readonly controllers: Controllers
	readonly failures: ControllerFailure[]
	/** Waits until `test` gives something for the object (undefined: it is not there). */
	until<T extends KubeObject, R>(
		kind: Kind<T>,
		key: ObjectKey,
		test: (object: T | undefined) => R | undefined | false,
	): Promise<R>
	/** Waits until `test` gives something for all objects of a kind. */
	untilAll<T extends KubeObject, R>(kind: Kind<T>, test: (objects: readonly T[]) => R | undefined | false): Promise<R>
	addNode(name: string, labels?: Record<string, string>): Promise<void>
	/** Ends the controllers and starts new ones on the same cluster. */
	restart(): Promise<void>
	/** Changes what the kubelet says of a pod. */
	setReady(key: ObjectKey, ready: boolean): Promise<void>
}

export interface WorldOptions {
	readonly nodes?: number
	/** Milliseconds until a node without a sign of life is not ready; absent: nodes need none. */
	readonly nodeGrace?: number
	/** How long a terminating pod lives: until this resolves. */
	readonly letGo?: (pod: Pod) => Promise<void>
	/** Where load balancers get their addresses; absent: there are none. */
	readonly addressPools?: () => readonly AddressPool[]
	/** What lies between the controllers and the server. */
	readonly between?: (transport: Transport) => Transport
}

export async function openWorld(t: TestContext, options: WorldOptions = {}): Promise<World> {
	const ending = new AbortController()
	const { signal } = ending
	const clock = systemClock
	const store = createStore()
	const faults: unknown[] = []
	const server = await createApiServer({ store, clock, onFault: (error) => faults.push(error) })
	const client = createKubeClient(server.transport)
	const failures: ControllerFailure[] = []
	const informers = new Map<string, Informer<KubeObject>>()
	const informerOf = <T extends KubeObject>(kind: Kind<T>): Informer<T> => {
		const name = `${kind.group} ${kind.plural}`
		let informer = informers.get(name)
		if (informer === undefined) {
			informer = createInformer(client, kind as Kind, { clock, signal })
			informers.set(name, informer)
			informer.start()
		}
		return informer as unknown as Informer<T>
	}
	const kubelet = startKubelet(client, informerOf(pods), signal, options.letGo)
	const { between = (transport) => transport } = options
	const start = (): Controllers =>
		startControllers(createKubeClient(between(server.transport)), {
			clock,
			signal,
			podNetworks: [{ cidr: parseCidr('10.244.0.0/16'), nodeMask: 24 }],
			caCertificate: 'certificate',
			...(options.addressPools === undefined ? {} : { addressPools: options.addressPools }),
			...(options.nodeGrace === undefined ? {} : { nodeGrace: options.nodeGrace }),
			onFailure: (failure) => failures.push(failure),
		})
	let controllers = start()
	t.after(() => {
		ending.abort()
		server.close()
		if (faults.length > 0) throw faults[0]
	})
	const world: World = {
		client,
		get controllers() {
			return controllers
		},
		failures,
		// Before the first list nothing can be told, least of all that something is not there.
		async until(kind, key, test) {
			const informer = informerOf(kind)
			await informer.synced
			return informer.until((s) => test(s.get(key)), t.signal)
		},
		async untilAll(kind, test) {
			const informer = informerOf(kind)
			await informer.synced
			return informer.until((s) => test([...s.values()]), t.signal)
		},
		async addNode(name, labels = {}) {
			await client.create(nodes, {
				metadata: { name, labels: { 'kubernetes.io/hostname': name, ...labels } },
				status: { allocatable: { pods: '1000' } },
			})
		},
		async restart() {
			controllers.stop()
			controllers = start()
			await controllers.ready
		},
		setReady: (key, ready) => kubelet.setReady(key, ready),
	}
	for (let i = 1; i <= (options.nodes ?? 3); i++) await world.addNode(`node-${i}`)
	await controllers.ready
	return world
}

/**
 * Images say what becomes of a pod: `never-ready`, `exit-0`, `exit-1`; any other runs and is ready at once. A pod whose
 * grace has run out, as soon as it is asked to end, is gone.
 */
function startKubelet(
	client: KubeClient,
	informer: Informer<Pod>,
	signal: AbortSignal,
	letGo: (pod: Pod) => Promise<void> = async () => {},
) {
	let address = 0
	const failed: unknown[] = []
	const queue = createWorkQueue({
		clock: systemClock,
		parallel: 32,
		async handle(key) {
			const pod = informer.store.get(key)
			if (pod?.spec?.nodeName === undefined) return undefined
			try {
				if (pod.metadata.deletionTimestamp !== undefined) {
					if (pod.metadata.deletionGracePeriodSeconds === 0) return undefined
					await letGo(pod)
					await client.delete(pods, key, { gracePeriodSeconds: 0, preconditions: { uid: pod.metadata.uid! } })
				} else if (pod.status?.podIP === undefined) {
					address++
					await client.patch(pods, key, { status: statusFor(pod, `10.244.${address >> 8}.${address & 255}`) }, asStatus)
				}
			} catch (e) {
				if (!isNotFound(e) && !isConflict(e)) throw e
			}
			return undefined
		},
		failed: (_, error) => failed.push(error),
	})
	informer.onChange((key) => queue.add(key))
	signal.addEventListener('abort', () => queue.stop(), { once: true })
	return {
		async setReady(key: ObjectKey, ready: boolean) {
			const pod = await client.get(pods, key)
			const conditions = (pod.status?.conditions ?? []).filter((c) => c.type !== 'Ready')
			await client.patch(pods, key, { status: { conditions: [...conditions, readyCondition(ready)] } }, asStatus)
		},
	}
}

const asStatus = { subresource: 'status' } as const

function readyCondition(ready: boolean) {
	const time = new Date().toISOString().replace(/\.\d+Z$/, 'Z')
	return { type: 'Ready', status: ready ? 'True' : 'False', lastTransitionTime: time } as const
}

function statusFor(pod: Pod, ip: string): Pod['status'] {
	const [container] = pod.spec!.containers
	const image = container!.image ?? ''
	const exit = /^exit-(\d)$/.exec(image)?.[1]
	const now = new Date().toISOString().replace(/\.\d+Z$/, 'Z')
	const ready = exit === undefined && image !== 'never-ready'
	const state =
		exit === undefined ? { running: { startedAt: now } } : { terminated: { exitCode: Number(exit), finishedAt: now } }
	return {
		phase: exit === undefined ? 'Running' : exit === '0' ? 'Succeeded' : 'Failed',
		podIP: ip,
		podIPs: [{ ip }],
		conditions: [...(pod.status?.conditions ?? []).filter((c) => c.type !== 'Ready'), readyCondition(ready)],
		containerStatuses: [{ name: container!.name, ready, restartCount: 0, image, imageID: '', state }],
	}
}

/** A template of pods labelled `app`. */
export function template(app: string, image = 'web') {
	return {
		metadata: { labels: { app } },
		spec: { containers: [{ name: 'c', image, ports: [{ name: 'http', containerPort: 8080 }] }] },
	}
}

export function selecting(app: string) {
	return { matchLabels: { app } }
}
