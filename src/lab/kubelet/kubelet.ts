// The kubelet stand-in of all nodes of a lab: a worker for each pod that is bound to one of them.

import { chmodSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Clock } from '../../base/clock.ts'
import { Failure } from '../../base/failure.ts'
import type { EventRecorder } from '../../controllers/events.ts'
import { isNotFound } from '../../kube/answer.ts'
import type { KubeClient } from '../../kube/client.ts'
import type { Informer } from '../../kube/informer.ts'
import { configMaps, pods, secrets } from '../../kube/kinds.ts'
import type { ConfigMap, Secret, Service } from '../../kube/objects/core.ts'
import { keyOf } from '../../kube/objects/meta.ts'
import type { Container, Pod } from '../../kube/objects/pod.ts'
import type { ClusterDns } from '../../model/names.ts'
import type { NodeName } from '../../model/network.ts'
import type { LabConfig } from '../config.ts'
import type { ProgramRun, WorkloadContainer } from '../workloads/protocol.ts'
import { createClaims } from './claims.ts'
import { runToEnd } from './command.ts'
import { type ContainerPlan, declaresNoPort, planContainer, restartOf } from './containers.ts'
import { environmentOf, expand, fieldOf, resourceOf } from './environment.ts'
import { hostnameOf, hostsOf, resolvConfOf } from './files.ts'
import type { PodNetwork, PodWiring } from './network.ts'
import { type LabNode, nodeResources } from './nodes.ts'
import { createPodWorker, type PodWorker } from './pod-worker.ts'
import type { PodRuntime } from './runtime.ts'
import { filesOf, mountsOf, writeVersion } from './volumes.ts'

export interface KubeletOptions {
	readonly client: KubeClient
	readonly clock: Clock
	readonly recorder: EventRecorder | undefined
	readonly nodes: readonly LabNode[]
	readonly pods: Informer<Pod>
	readonly services: Informer<Service>
	readonly network: PodNetwork
	readonly runtime: PodRuntime
	/** The image map now in force. */
	readonly config: () => LabConfig
	readonly dns: () => ClusterDns
	readonly netnsOfNode: (node: string) => string
	/** Folder for the pods' files; undefined on paper, where none are written. */
	readonly folder: string | undefined
	/** Folder for persistent volumes, which outlives pods; undefined on paper. */
	readonly volumeFolder: string | undefined
	readonly onFailure: (what: string, error: unknown) => void
}

export interface Kubelet {
	/** Begins once the informers are complete: takes up pods that run already and lets go of those that are no more. */
	start(): Promise<void>
	/** A pod and its container, whatever has become of them. Throws Failure NotFound, BadRequest. */
	locate(namespace: string, name: string, container?: string): { readonly pod: Pod; readonly container: Container }
	/** What exec and port-forward need of a pod that lives. Throws Failure NotFound, BadRequest. */
	find(namespace: string, name: string, container?: string): PodOnNode
	/** How a host program is started inside a container. */
	programRun(target: PodOnNode, command: readonly string[]): Promise<ProgramRun>
	/** Resolves when every pod of the API has been seen and no worker has anything to do; retries that are due later do not count. */
	settled(): Promise<void>
	/** The node is cut off from the cluster: its pods run on, but nothing is begun, ended or told there. */
	pause(node: NodeName): void
	/** The node is back: its pods are brought to what is wanted by now, and the API is told how they are. */
	resume(node: NodeName): void
	isPaused(node: NodeName): boolean
	stop(): void
}

export interface PodOnNode {
	readonly pod: Pod
	readonly container: Container
	readonly wiring: PodWiring
}

/** Milliseconds between two looks at the sources of the volumes in use. */
const volumePeriod = 5_000

export function createKubelet(options: KubeletOptions): Kubelet {
	const { client, clock, network, runtime } = options
	const byName = new Map(options.nodes.map((node) => [node.name, node]))
	/** By uid. */
	const workers = new Map<string, PodWorker>()
	const tokens = new Map<string, { readonly token: string; readonly until: number }>()
	/** Uids of pods whose volumes are kept current. */
	const refreshed = new Set<string>()
	let cancelRefresh: (() => void) | undefined
	let ended = false
	const nodeOf = new WeakMap<PodWorker, NodeName>()
	const paused = new Set<NodeName>()

	const claims = createClaims({
		client,
		clock,
		folder: options.volumeFolder,
		changed: claimChanged,
		onFailure: options.onFailure,
	})

	/** Pods that wait for it need not wait for their next try. */
	function claimChanged(claim: string): void {
		for (const pod of options.pods.store.values()) {
			const uses = pod.spec?.volumes?.some(
				(v) =>
					v.persistentVolumeClaim !== undefined &&
					`${pod.metadata.namespace}/${v.persistentVolumeClaim.claimName}` === claim,
			)
			if (uses === true && pod.status?.phase === 'Pending' && workers.has(pod.metadata.uid as string)) follow(pod)
		}
	}

	function* servicesIn(namespace: string): Iterable<Service> {
		for (const service of options.services.store.values()) {
			if (service.metadata.namespace === namespace) yield service
		}
	}

	const plan = (pod: Pod, container: Container): ContainerPlan =>
		planContainer(pod, container, servicesIn(pod.metadata.namespace as string), options.config())

	/** Writes /etc/resolv.conf and /etc/hosts of the pod; the folder that holds them. */
	function writeFiles(pod: Pod, wiring: PodWiring): string {
		const folder = join(options.folder as string, pod.metadata.uid as string)
		const dns = options.dns()
		mkdirSync(folder, { recursive: true, mode: 0o700 })
		writeFileSync(join(folder, 'resolv.conf'), resolvConfOf(pod, dns), { mode: 0o644 })
		writeFileSync(join(folder, 'hosts'), hostsOf(pod, wiring.ips, dns.clusterDomain), { mode: 0o644 })
		return folder
	}

	/** Brings the volumes of a pod up to date. Throws Failure CreateContainerConfigError where something is missing. */
	async function writeVolumes(pod: Pod, wiring: PodWiring): Promise<void> {
		const namespace = pod.metadata.namespace as string
		const folder = join(options.folder as string, pod.metadata.uid as string, 'volumes')
		const account = pod.spec?.serviceAccountName ?? 'default'
		const nodeIps = byName.get(pod.spec?.nodeName ?? '')?.ips ?? []
		const missing: string[] = []
		for (const volume of pod.spec?.volumes ?? []) {
			const files = await filesOf(
				volume,
				{
					pod,
					configMap: (name) => client.find(configMaps, `${namespace}/${name}`),
					secret: (name) => client.find(secrets, `${namespace}/${name}`),
					token: (audience, seconds) => tokenOf(pod, account, audience, seconds),
					downward: ({ fieldRef, resourceFieldRef }) =>
						fieldRef !== undefined
							? (fieldOf(fieldRef.fieldPath, { pod, nodeIps, podIps: wiring.ips }) ?? '')
							: resourceFieldRef !== undefined
								? resourceOf(resourceFieldRef, pod, nodeResources())
								: '',
				},
				missing,
			)
			if (files !== undefined) writeVersion(join(folder, volume.name), files)
			else if (volume.persistentVolumeClaim !== undefined) continue
			else if (!existsSync(join(folder, volume.name))) {
				mkdirSync(join(folder, volume.name), { recursive: true })
				chmodSync(join(folder, volume.name), 0o777)
			}
		}
		if (missing.length > 0) throw new Failure('CreateContainerConfigError', missing.join(', '))
	}

	/** A token of the pod's account, kept until four fifths of its life are over, as the kubelet does. */
	async function tokenOf(pod: Pod, account: string, audience: string | undefined, seconds: number): Promise<string> {
		const key = `${pod.metadata.uid}/${audience ?? ''}/${seconds}`
		const kept = tokens.get(key)
		if (kept !== undefined && clock.now() < kept.until) return kept.token
		const { status } = await client.raw<{ readonly status: { readonly token: string } }>(
			`/api/v1/namespaces/${pod.metadata.namespace}/serviceaccounts/${account}/token`,
			{
				method: 'POST',
				body: {
					apiVersion: 'authentication.k8s.io/v1',
					kind: 'TokenRequest',
					spec: {
						...(audience === undefined ? {} : { audiences: [audience] }),
						expirationSeconds: seconds,
						boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name: pod.metadata.name, uid: pod.metadata.uid },
					},
				},
			},
		)
		tokens.set(key, { token: status.token, until: clock.now() + seconds * 800 })
		return status.token
	}

	async function volumesFor(pod: Pod, container: Container, wiring: PodWiring): Promise<void> {
		if ((container.volumeMounts ?? []).length === 0 || options.folder === undefined) return
		await writeVolumes(pod, wiring)
		keepVolumes(pod.metadata.uid as string)
	}

	/** Volumes that were written are kept current; a pod whose containers are all stand-ins has none until an exec. */
	function keepVolumes(uid: string): void {
		if (refreshed.has(uid)) return
		refreshed.add(uid)
		cancelRefresh ??= clock.after(volumePeriod, () => void refreshVolumes())
	}
	async function refreshVolumes(): Promise<void> {
		for (const uid of [...refreshed]) {
			const worker = workers.get(uid)
			const pod = [...options.pods.store.values()].find((p) => p.metadata.uid === uid)
			if (worker?.wiring === undefined || pod === undefined) refreshed.delete(uid)
			else await writeVolumes(pod, worker.wiring).catch(() => {})
		}
		cancelRefresh = refreshed.size === 0 || ended ? undefined : clock.after(volumePeriod, () => void refreshVolumes())
	}

	async function environment(pod: Pod, container: Container, wiring: PodWiring) {
		const namespace = pod.metadata.namespace as string
		const wanted = referencesOf(container)
		const load = async <T>(names: ReadonlySet<string>, get: (key: string) => Promise<T>) => {
			const found = new Map<string, T>()
			for (const name of names) {
				try {
					found.set(name, await get(`${namespace}/${name}`))
				} catch (e) {
					if (!isNotFound(e)) throw e
				}
			}
			return found
		}
		const kubernetes = options.services.store.get('default/kubernetes')
		return environmentOf({
			pod,
			container,
			services: servicesIn(namespace),
			...(kubernetes === undefined ? {} : { kubernetes }),
			allocatable: nodeResources(),
			configMaps: await load<ConfigMap>(wanted.configMaps, (key) => client.get(configMaps, key)),
			secrets: await load<Secret>(wanted.secrets, (key) => client.get(secrets, key)),
			hostname: hostnameOf(pod, options.dns().clusterDomain).hostname,
			nodeIps: byName.get(pod.spec?.nodeName ?? '')?.ips ?? [],
			podIps: wiring.ips,
		})
	}

	async function prepare(
		pod: Pod,
		container: Container,
		planned: ContainerPlan,
		wiring: PodWiring,
	): Promise<WorkloadContainer> {
		// Also what stands in for a program begins only when the pod's storage is there.
		await claims.foldersOf(pod)
		const isInit = pod.spec?.initContainers?.includes(container) === true && container.restartPolicy !== 'Always'
		const policy = pod.spec?.restartPolicy ?? 'Always'
		const base = {
			name: container.name,
			image: container.image ?? '',
			restart: restartOf(container, policy, isInit),
		}
		switch (planned.kind) {
			case 'dns':
				return { ...base, kind: 'dns' }
			case 'stand-in':
				return { ...base, kind: 'stand-in', listeners: planned.listeners }
			case 'program': {
				if (options.folder === undefined) return { ...base, kind: 'stand-in', listeners: [] }
				await volumesFor(pod, container, wiring)
				const { env, missing } = await environment(pod, container, wiring)
				if (missing.length > 0) {
					throw new Failure('CreateContainerConfigError', missing.map((m) => m.text).join(', '))
				}
				return {
					...base,
					kind: 'program',
					...(container.stdin === true ? { stdin: { once: container.stdinOnce === true } } : {}),
					...(container.tty === true ? { tty: true as const } : {}),
					run: await runOf(
						pod,
						container,
						wiring,
						planned.command.map((word) => expand(word, env)),
						{
							...env,
							...planned.rule?.env,
						},
						planned.rule?.workingDir ?? container.workingDir,
					),
				}
			}
			default: {
				const never: never = planned
				throw new Error(`No such plan: ${JSON.stringify(never)}`)
			}
		}
	}

	async function runOf(
		pod: Pod,
		container: Container,
		wiring: PodWiring,
		command: readonly string[],
		env: Readonly<Record<string, string>>,
		workingDir: string | undefined,
	): Promise<ProgramRun> {
		const folder = writeFiles(pod, wiring)
		const volumes = join(folder, 'volumes')
		const scratch = join(folder, 'scratch')
		const mounts = mountsOf(pod, container, volumes, env, await claims.foldersOf(pod))
		if (mounts.length > 0) mkdirSync(scratch, { recursive: true, mode: 0o755 })
		return {
			...(mounts.length === 0 ? {} : { volumes: { mounts, scratch } }),
			command,
			env,
			hostname: hostnameOf(pod, options.dns().clusterDomain).hostname,
			resolvConf: join(folder, 'resolv.conf'),
			hosts: join(folder, 'hosts'),
			...(workingDir === undefined ? {} : { workingDir }),
		}
	}

	async function programRun({ pod, container, wiring }: PodOnNode, command: readonly string[]): Promise<ProgramRun> {
		await volumesFor(pod, container, wiring)
		// What the main process was started with is what another one in the container sees.
		const running = runtime.find(pod.metadata.uid as string)?.pod.containers.find((c) => c.name === container.name)
		const env = running?.kind === 'program' ? running.run.env : (await environment(pod, container, wiring)).env
		return runOf(pod, container, wiring, command, env, container.workingDir)
	}

	function forget(pod: Pod): void {
		workers.delete(pod.metadata.uid as string)
		for (const key of tokens.keys()) if (key.startsWith(`${pod.metadata.uid}/`)) tokens.delete(key)
		if (options.folder !== undefined) {
			rmSync(join(options.folder, pod.metadata.uid as string), { recursive: true, force: true })
		}
	}

	function follow(pod: Pod): void {
		const node = byName.get(pod.spec?.nodeName ?? '')
		if (node === undefined) return
		const uid = pod.metadata.uid as string
		const known = workers.get(uid)
		if (known !== undefined) {
			known.update(pod)
			return
		}
		const worker = createPodWorker(pod, {
			client,
			clock,
			recorder: options.recorder,
			network,
			runtime,
			nodeIps: node.ips,
			nodeNetns: options.netnsOfNode(node.name),
			plan,
			prepare,
			forget,
			runCommand:
				options.folder === undefined
					? undefined
					: async (of, container, wiring, command, timeout) => {
							const run = await programRun({ pod: of, container, wiring }, command)
							// The pods' folder is one of the lab's own.
							return runToEnd(run, { netns: wiring.netns, lab: dirname(options.folder as string), timeout })
						},
			rested() {
				for (const wake of resting) wake()
			},
			failed: (of, e) => options.onFailure(`pod ${of.metadata.namespace}/${of.metadata.name}`, e),
		})
		workers.set(uid, worker)
		nodeOf.set(worker, node.name)
		if (paused.has(node.name)) worker.pause()
		worker.update(pod)
	}

	/** Pods without a declared port listen where Services aim: a changed Service may move that. */
	function serviceChanged(namespace: string): void {
		for (const pod of options.pods.store.values()) {
			if (pod.metadata.namespace === namespace && declaresNoPort(pod) && workers.has(pod.metadata.uid as string)) {
				follow(pod)
			}
		}
	}

	function locate(namespace: string, name: string, containerName?: string) {
		const pod = options.pods.store.get(`${namespace}/${name}`)
		if (pod === undefined) throw new Failure('NotFound', `pods "${name}" not found`)
		const all = [...(pod.spec?.containers ?? []), ...(pod.spec?.initContainers ?? [])]
		const container =
			containerName === undefined || containerName === '' ? all[0] : all.find((c) => c.name === containerName)
		if (container === undefined) {
			throw new Failure('BadRequest', `container ${containerName} is not valid for pod ${name}`)
		}
		return { pod, container }
	}

	const resting = new Set<() => void>()
	const undo: (() => void)[] = []
	return {
		async start() {
			await Promise.all([options.pods.synced, options.services.synced, claims.start()])
			undo.push(
				options.pods.onChange((_key, before, after) => {
					// Deleted and made again under the same name between two looks: the old one is gone.
					if (before !== undefined && before.metadata.uid !== after?.metadata.uid) {
						workers.get(before.metadata.uid as string)?.update(undefined)
					}
					if (after !== undefined) follow(after)
				}),
				options.services.onChange((_key, before, after) => {
					serviceChanged(((after ?? before) as Service).metadata.namespace as string)
				}),
			)
			runtime.onChange((uid) => {
				if (uid === undefined) for (const worker of workers.values()) worker.lost()
				else {
					const pod = [...options.pods.store.values()].find((p) => p.metadata.uid === uid)
					if (pod !== undefined) follow(pod)
				}
			})
			const living = new Set<string>()
			for (const pod of options.pods.store.values()) {
				living.add(pod.metadata.uid as string)
				follow(pod)
			}
			// Wired or running, but deleted while nobody looked.
			const orphans = new Set([...runtime.known, ...network.known].filter((uid) => !living.has(uid)))
			for (const uid of orphans) {
				void runtime
					.stop(uid, { grace: 0, keepLogs: false })
					.then(() => network.detach(uid))
					.catch((e) => options.onFailure(`pod ${uid}`, e))
			}
		},
		locate,
		find(namespace, name, containerName) {
			const { pod, container } = locate(namespace, name, containerName)
			const node = pod.spec?.nodeName ?? ''
			if (paused.has(node)) {
				const address = byName.get(node)?.ips[0] ?? ''
				const place = address.includes(':') ? `[${address}]` : address
				throw new Failure('Unreachable', `error dialing backend: dial tcp ${place}:10250: connect: no route to host`)
			}
			const { phase = 'Pending' } = pod.status ?? {}
			if (phase === 'Succeeded' || phase === 'Failed') {
				throw new Failure('BadRequest', `pod ${name} has ended: its phase is ${phase}`)
			}
			const wiring = workers.get(pod.metadata.uid as string)?.wiring
			if (wiring === undefined) {
				throw new Failure('BadRequest', `pod ${name} does not have a network yet: its phase is ${phase}`)
			}
			return { pod, container, wiring }
		},
		programRun,
		async settled() {
			for (;;) {
				const { items, metadata } = await client.list(pods)
				await options.pods.until((store) => items.every((pod) => isSeen(store.get(keyOf(pod)), pod)))
				while ([...workers.values()].some((worker) => worker.busy)) {
					const { promise, resolve } = Promise.withResolvers<void>()
					resting.add(resolve)
					await promise
					resting.delete(resolve)
				}
				const now = await client.list(pods)
				if (now.metadata.resourceVersion === metadata.resourceVersion) return
			}
		},
		pause(node) {
			paused.add(node)
			for (const worker of workers.values()) if (nodeOf.get(worker) === node) worker.pause()
		},
		resume(node) {
			paused.delete(node)
			for (const worker of workers.values()) if (nodeOf.get(worker) === node) worker.resume()
		},
		isPaused: (node) => paused.has(node),
		stop() {
			ended = true
			cancelRefresh?.()
			claims.stop()
			for (const end of undo) end()
			for (const worker of workers.values()) worker.stop()
		},
	}
}

/** Whether a copy shows this version of the pod, or a later one. */
function isSeen(copy: Pod | undefined, pod: Pod): boolean {
	if (copy === undefined) return false
	return BigInt(copy.metadata.resourceVersion ?? '0') >= BigInt(pod.metadata.resourceVersion ?? '0')
}

function referencesOf(container: Container): {
	readonly configMaps: ReadonlySet<string>
	readonly secrets: ReadonlySet<string>
} {
	const configMaps = new Set<string>()
	const secrets = new Set<string>()
	for (const from of container.envFrom ?? []) {
		if (from.configMapRef?.name !== undefined) configMaps.add(from.configMapRef.name)
		if (from.secretRef?.name !== undefined) secrets.add(from.secretRef.name)
	}
	for (const { valueFrom } of container.env ?? []) {
		if (valueFrom?.configMapKeyRef?.name !== undefined) configMaps.add(valueFrom.configMapKeyRef.name)
		if (valueFrom?.secretKeyRef?.name !== undefined) secrets.add(valueFrom.secretKeyRef.name)
	}
	return { configMaps, secrets }
}
