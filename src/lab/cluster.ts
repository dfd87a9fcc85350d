// The parts of a cluster that live beside its API server, put together: controllers, node agents, kubelets, add-ons.
// The same for a lab's daemon and for a cluster on paper inside somebody else's process.

import type { AttachmentStore } from '../agent/attachments.ts'
import { type AgentEvents, type AgentLoop, createAgentLoop, type NodePlanes } from '../agent/loop.ts'
import { createNameKeeper } from '../agent/name-keeper.ts'
import { type ClusterView, createClusterView, dataplaneTables, type ViewTable } from '../agent/view.ts'
import type { Clock } from '../base/clock.ts'
import { tryParseCidr } from '../base/ip.ts'
import { type AddressPool, type ControllerFailure, type Controllers, startControllers } from '../controllers/main.ts'
import type { AnsweredName } from '../dataplane/dns/answered.ts'
import { createKubeClient, type KubeClient } from '../kube/client.ts'
import { observed } from '../kube/observed.ts'
import type { Transport } from '../kube/transport.ts'
import type { NetworkModel } from '../model/network.ts'
import { createAddons } from './addons.ts'
import type { LabConfig } from './config.ts'
import { clusterConfigOf, type LabIpFamily, networksOf } from './ip-family.ts'
import { createHeartbeat } from './kubelet/heartbeat.ts'
import { createKubelet, type Kubelet } from './kubelet/kubelet.ts'
import { createPodNetwork, type PodNetwork } from './kubelet/network.ts'
import { type LabNode, registerNode } from './kubelet/nodes.ts'
import type { PodRuntime } from './kubelet/runtime.ts'
import type { NetworkChoice } from './network-choice.ts'

export interface ClusterOptions {
	readonly transport: Transport
	readonly clock: Clock
	readonly ipFamily: LabIpFamily
	readonly network?: NetworkChoice
	readonly nodes: readonly LabNode[]
	/** Those that stay silent until they are started. */
	readonly stopped?: ReadonlySet<string>
	readonly runtime: PodRuntime
	readonly attachments: AttachmentStore
	/** The image map now in force. */
	readonly config: () => LabConfig
	/** PEM of the API server's authority. */
	readonly caCertificate?: string
	/** The nodes' data planes; undefined: paper. */
	readonly planes?: ReadonlyMap<string, NodePlanes>
	readonly agentEvents?: AgentEvents
	/** What the DNS servers answered before, and still holds. */
	readonly answeredNames?: readonly AnsweredName[]
	/** Whether addresses of names stay while connections go to them. */
	readonly keepUsedNames?: () => boolean
	readonly netnsOfNode: (node: string) => string
	readonly netnsOfPod: (uid: string) => string
	/** Folder of the pods' files; undefined on paper. */
	readonly podFolder: string | undefined
	/** Folder of the persistent volumes; undefined on paper. */
	readonly volumeFolder: string | undefined
	readonly tables?: readonly ViewTable[]
	/**
	 * Milliseconds without a renewed lease after which a node counts as not ready. Absent: nodes renew none and cannot
	 * be stopped.
	 */
	readonly nodeGrace?: number
	/** Record events of the kubelets. */
	readonly events: boolean
	readonly onFailure: (what: string, error: unknown) => void
}

export interface Cluster {
	readonly client: KubeClient
	readonly controllers: Controllers
	readonly view: ClusterView
	/** undefined on paper. */
	readonly loop: AgentLoop | undefined
	readonly network: PodNetwork
	readonly kubelet: Kubelet
	/** Takes in what pods are about to be answered; resolves when it is in force on the nodes, or they take too long. */
	learnNames(names: readonly AnsweredName[]): Promise<void>
	/** The node's kubelet falls silent, its pods run on. */
	stopNode(name: string): void
	/** Resolves when the node's kubelet has said that it is back. */
	startNode(name: string): Promise<void>
	stop(): Promise<void>
}

/** Resolves when the nodes are registered, the add-ons are there and every part has begun to work. */
export async function startCluster(options: ClusterOptions): Promise<Cluster> {
	const { clock, nodes, onFailure } = options
	const networks = networksOf(options.ipFamily, options.network)
	const config = clusterConfigOf(options.ipFamily, options.network)
	const { clusterDomain, dnsServiceIp } = config
	/** Where load balancers get their addresses unless podwire.yaml says otherwise. */
	const defaultPools: readonly AddressPool[] = [
		{ name: 'default', cidrs: networks.map((n) => n.balancers), autoAssign: true },
	]
	const ending = new AbortController()
	const client = createKubeClient(options.transport, { fieldManager: 'podwire', userAgent: 'podwire' })
	const controllers = startControllers(client, {
		clock,
		signal: ending.signal,
		podNetworks: networks.map(({ pods, nodeMask }) => ({ cidr: pods, nodeMask })),
		addressPools: () => options.config().addressPools ?? defaultPools,
		...(options.nodeGrace === undefined ? {} : { nodeGrace: options.nodeGrace }),
		...(options.caCertificate === undefined ? {} : { caCertificate: options.caCertificate }),
		onFailure: (failure) => onFailure(describe(failure), failure.error),
	})
	// What the agents ask is one of their figures; they share the view.
	const asking = observed(options.transport, (request) => {
		for (const { metrics } of options.planes?.values() ?? []) metrics?.requested(request)
	})
	const view = createClusterView({
		client: createKubeClient(asking, { fieldManager: 'podwire', userAgent: 'podwire' }),
		clock,
		tables: options.tables ?? dataplaneTables,
		config,
		onFailure: (e) => onFailure('informer', e),
	})
	const loop =
		options.planes === undefined
			? undefined
			: createAgentLoop({
					view,
					clock,
					nodes: options.planes,
					...(options.agentEvents === undefined ? {} : { events: options.agentEvents }),
				})
	const names = createNameKeeper({
		clock,
		publish: (resolved) => view.setResolvedNames(resolved),
		inUse: (ips) => (options.keepUsedNames?.() === true ? (loop?.connectedTo(ips) ?? []) : []),
	})
	names.learn(options.answeredNames ?? [])
	const network = createPodNetwork({
		async podCidrsOf(node) {
			const give = new AbortController()
			const cancel = clock.after(5_000, () => give.abort())
			try {
				return await view.informer('nodes').until((store) => {
					const { podCIDRs, podCIDR } = store.get(node)?.spec ?? {}
					const texts = podCIDRs ?? (podCIDR === undefined ? [] : [podCIDR])
					return texts.length > 0 && texts.flatMap((text) => tryParseCidr(text) ?? [])
				}, give.signal)
			} catch {
				return []
			} finally {
				cancel()
			}
		},
		netnsOf: options.netnsOfPod,
		mtu: config.mtu,
		store: options.attachments,
		loop,
	})
	const kubelet = createKubelet({
		client,
		clock,
		recorder: options.events ? controllers.recorder : undefined,
		nodes,
		pods: view.informer('pods'),
		services: view.informer('services'),
		network,
		runtime: options.runtime,
		config: options.config,
		dns: () => ({ clusterDomain, ...(dnsServiceIp === undefined ? {} : { dnsServiceIp }) }),
		netnsOfNode: options.netnsOfNode,
		folder: options.podFolder,
		volumeFolder: options.volumeFolder,
		onFailure,
	})
	const heartbeat =
		options.nodeGrace === undefined
			? undefined
			: createHeartbeat({
					client,
					clock,
					grace: options.nodeGrace,
					nodes,
					objects: view.informer('nodes'),
					// Taken for silent while we were only slow: what was said of its pods is put right.
					recovered: (node) => kubelet.resume(node),
					onFailure,
				})
	for (const name of options.stopped ?? []) {
		heartbeat?.pause(name)
		kubelet.pause(name)
	}
	if (loop === undefined) view.start()
	await Promise.all([
		...nodes.filter((node) => !options.stopped?.has(node.name)).map((node) => registerNode(client, node, clock.now())),
		createAddons(client, networks),
		loop?.start(),
		kubelet.start(),
		controllers.ready,
	])
	await heartbeat?.start()
	return {
		client,
		controllers,
		view,
		loop,
		network,
		kubelet,
		async learnNames(learned) {
			names.learn(learned)
			const enough = new AbortController()
			const cancel = clock.after(mostWaiting, () => enough.abort())
			await loop?.waitApplied((model) => hasNames(model, learned), enough.signal).catch(() => {})
			cancel()
		},
		stopNode(name) {
			heartbeat?.pause(name)
			kubelet.pause(name)
		},
		async startNode(name) {
			await heartbeat?.resume(name)
			kubelet.resume(name)
		},
		async stop() {
			ending.abort()
			names.stop()
			heartbeat?.stop()
			kubelet.stop()
			if (loop === undefined) view.stop()
			else await loop.stop()
		},
	}
}

/** Milliseconds that a pod's answer waits for the nodes. */
const mostWaiting = 2_000

function hasNames({ resolvedNames }: NetworkModel, names: readonly AnsweredName[]): boolean {
	return names.every(({ name, addresses }) => {
		const known = resolvedNames?.get(name) ?? []
		return addresses.every(({ ip }) => known.includes(ip))
	})
}

function describe({ controller, key, attempt }: ControllerFailure): string {
	return `${controller}${key === '' ? '' : ` ${key}`} (attempt ${attempt})`
}
