// The lab's one background process: API server, controllers, node agents, kubelets, control socket. It owns nothing
// in the host's network: the API's listening socket was handed to it, everything else lives in namespaces of its own.

import { readdirSync, rmSync } from 'node:fs'
import type { Server } from 'node:http'
import { join } from 'node:path'
import { openAttachments } from '../agent/attachments.ts'
import type { NodePlanes } from '../agent/loop.ts'
import type { NodeAgentApi } from '../agent/protocol.ts'
import type { KubeletApi } from '../apiserver/kubelet.ts'
import { systemClock } from '../base/clock.ts'
import { messageOf } from '../base/failure.ts'
import type { DnsProgram } from '../dataplane/dns/program.ts'
import type { NetworkModel } from '../model/network.ts'
import { nodeInterface, nodeIp, podCidr, serviceCidr } from './addresses.ts'
import type { LabApi } from './api.ts'
import { type Cluster, startCluster } from './cluster.ts'
import { listenControl } from './control.ts'
import type { DaemonOptions } from './daemon-options.ts'
import { createLabEvents } from './events.ts'
import { createKubeletApi, paperKubeletApi } from './kubelet/exec.ts'
import { labNodes } from './kubelet/nodes.ts'
import { createPaperRuntime, createRuntime, type PodRuntime } from './kubelet/runtime.ts'
import type { LabPaths } from './paths.ts'
import { identifyProcess } from './process-identity.ts'
import { bootId, writeRecord } from './record.ts'
import { readSources, writeSources } from './sources.ts'
import type { LabStatus } from './status.ts'
import type { Underlay } from './underlay.ts'

/** Runs until it is told to stop; resolves when everything has ended and been removed. */
export async function runDaemon(
	options: DaemonOptions,
	handOver: { readonly apiFd: number; answering(): void },
): Promise<void> {
	const { paths } = options
	const clock = systemClock
	const startedAt = new Date(clock.now()).toISOString()
	const events = createLabEvents((text) => process.stderr.write(`${text}\n`))
	const nodes = labNodes(options.nodes, nodeIp)
	/** What does not work now, by what it concerns. */
	const trouble = new Map<string, string>()
	let dataplane = options.dataplane
	let whyPaper = options.whyPaper
	let cluster: Cluster | undefined
	let agent: NodeAgentApi | undefined
	let api: LabApi | undefined
	let sources = readSources(paths.sources)
	let { config } = options
	const stopped = Promise.withResolvers<void>()
	let stopping: Promise<void> | undefined

	const onFailure = (what: string, e: unknown) => {
		events.warning(`${what}: ${messageOf(e)}`)
	}
	process.on('uncaughtException', (e) => {
		events.warning(`a fault of podwire itself: ${e.stack}`)
	})
	process.on('unhandledRejection', (e) => {
		events.warning(`a fault of podwire itself: ${e instanceof Error ? e.stack : String(e)}`)
	})

	const control: Server = await listenControl(paths.controlSocket, {
		status,
		events: (signal) => events.follow(signal),
		getSources: () => sources,
		putSources(next) {
			writeSources(paths.sources, next)
			sources = next
			cluster?.view.setSources(next)
		},
		putConfig(next) {
			config = next
		},
		get agent() {
			return agent
		},
		get api() {
			return api?.server
		},
		get context() {
			return api?.context
		},
		stop: () => stop(),
	})
	const record = (workloads?: number) =>
		writeRecord(paths, {
			name: paths.name,
			daemon: identifyProcess(process.pid)!,
			...(workloads === undefined ? {} : { workloads: identifyProcess(workloads)! }),
			dataplane,
			...(whyPaper === undefined ? {} : { whyPaper }),
			rights: options.rights,
			nodes: options.nodes,
			apiPort: api?.port ?? 0,
			startedAt,
			version: options.version,
			bootId: bootId(),
		})
	record()
	handOver.answering()
	events.setPhase('starting')
	for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => void stop())

	function status(): LabStatus {
		const pods = [...(cluster?.view.informer('pods').store.values() ?? [])].filter(
			(pod) => pod.status?.phase !== 'Succeeded' && pod.status?.phase !== 'Failed',
		)
		return {
			name: paths.name,
			phase: events.phase,
			pid: process.pid,
			dataplane,
			...(whyPaper === undefined ? {} : { whyPaper }),
			rights: options.rights,
			nodes: nodes.map((node) => {
				const object = cluster?.view.informer('nodes').store.get(node.name)
				return {
					name: node.name,
					ip: node.ip,
					podCidrs: object?.spec?.podCIDRs ?? [],
					ready: object?.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') === true,
				}
			}),
			podCidrs: [podCidr],
			serviceCidrs: [serviceCidr],
			...(api === undefined ? {} : { api: `https://127.0.0.1:${api.port}` }),
			pods: {
				ready: pods.filter((pod) => pod.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True'))
					.length,
				total: pods.length,
			},
			startedAt,
			version: options.version,
			trouble: [...trouble.values()],
			stateFolder: paths.state,
			runtimeFolder: paths.runtime,
		}
	}

	let kernel: Kernel | undefined
	try {
		// The store is read while the kernel's part is laid.
		let kubeletApi: KubeletApi = paperKubeletApi
		const lateKubelet: KubeletApi = {
			exec: (request) => kubeletApi.exec(request),
			logs: (request) => kubeletApi.logs(request),
			dial: (pod) => kubeletApi.dial(pod),
		}
		const opening = import('./api.ts').then(({ startApi }) =>
			startApi({ paths, clock, kubelet: lateKubelet, fd: handOver.apiFd, onFault: (e) => onFailure('API server', e) }),
		)
		opening.catch(() => {})
		if (dataplane === 'kernel') {
			try {
				kernel = await startKernel(options, nodes, onFailure, () => record(kernel?.runtime.client.pid))
			} catch (e) {
				if (options.forced) throw e
				dataplane = 'paper'
				whyPaper = `the kernel refused: ${messageOf(e)}`
				events.warning(`using the paper data plane: ${whyPaper}`)
			}
		}
		api = await opening
		await kernel?.listen(api)
		record(kernel?.runtime.client.pid)
		const runtime: PodRuntime = kernel?.runtime ?? createPaperRuntime(clock)
		cluster = await startCluster({
			transport: api.server.transport,
			clock,
			nodes,
			runtime,
			attachments: openAttachments(paths.attachments),
			config: () => config,
			caCertificate: api.caCertificate,
			...(kernel === undefined ? {} : { planes: kernel.planes }),
			agentEvents: {
				failed(node, e) {
					trouble.set(`node ${node}`, `node "${node}": ${messageOf(e)}`)
					events.warning(`node "${node}": ${messageOf(e)}`)
				},
				drifted: (node, planes) =>
					events.warning(
						`node "${node}": somebody else had changed ${planes.join(' and ')}; it is as it should be again`,
					),
				applied: (model) => kernel?.applied(model),
				recovered: (node) => void trouble.delete(`node ${node}`),
			},
			netnsOfNode: (node) => join(paths.namespaces, node),
			netnsOfPod: (uid) => podNetnsOf(paths, uid),
			podFolder: kernel === undefined ? undefined : paths.pods,
			events: true,
			onFailure,
		})
		cluster.view.setSources(sources)
		if (kernel !== undefined) {
			kubeletApi = createKubeletApi({ kubelet: cluster.kubelet, runtime, lab: paths.runtime })
			agent = await createAgentApi(cluster, kernel)
		}
		events.setPhase('running')
	} catch (e) {
		events.warning(messageOf(e))
		await stop()
		throw e
	}
	await stopped.promise

	function stop(): Promise<void> {
		stopping ??= (async () => {
			events.setPhase('stopping')
			await cluster?.stop()
			await kernel?.remove()
			await api?.close()
			rmSync(paths.pods, { recursive: true, force: true })
			events.end()
			setImmediate(() => {
				control.close()
				control.closeAllConnections()
				rmSync(paths.controlSocket, { force: true })
				stopped.resolve()
			})
		})()
		return stopping
	}
}

interface Kernel {
	readonly underlay: Underlay
	readonly planes: ReadonlyMap<string, NodePlanes>
	readonly runtime: Awaited<ReturnType<typeof createRuntime>>
	podNetns(uid: string): string
	listen(api: LabApi): Promise<void>
	/** Brings the underlay's routes and the DNS servers' names to a model that is in force. */
	applied(model: NetworkModel): void
	/** Ends the workloads and unbinds every namespace. */
	remove(): Promise<void>
}

/** Namespaces, agents' data planes and the workloads process. Throws Failure with what the kernel refused. */
async function startKernel(
	options: DaemonOptions,
	nodes: readonly { readonly name: string; readonly number: number; readonly ip: string }[],
	onFailure: (what: string, e: unknown) => void,
	replaced: () => void,
): Promise<Kernel> {
	const { paths } = options
	const [{ findWorkloads, startWorkloads }, { createUnderlay }, { createNodePlanes }, { deleteNetns }, dns] =
		await Promise.all([
			import('./workloads/client.ts'),
			import('./underlay.ts'),
			import('../agent/planes.ts'),
			import('../linux/netns.ts'),
			import('../dataplane/dns/program.ts'),
		])
	const connecting = findWorkloads(paths).then((found) => found ?? startWorkloads(paths))
	connecting.catch(() => {})
	const underlay = createUnderlay(paths.namespaces, nodes)
	const planes = new Map(
		nodes.map((node) => [
			node.name,
			createNodePlanes({
				node: node.name,
				netns: underlay.netnsOf(node.name),
				uplink: nodeInterface,
				clock: systemClock,
			}),
		]),
	)
	const runtime = await createRuntime(
		await connecting,
		() => startWorkloads(paths),
		(e) => onFailure('workloads', e),
	)
	/** What the DNS servers of the present workloads process were last told. */
	let told: DnsProgram | undefined
	let wanted: DnsProgram | undefined
	runtime.onChange((uid) => {
		if (uid !== undefined) return
		replaced()
		told = undefined
		tellDns()
	})

	function tellDns(): void {
		if (wanted === undefined) return
		const changes = dns.diffDns(told, wanted)
		if (changes.length === 0) return
		told = wanted
		runtime.client.call('dns', changes).catch((e) => {
			told = undefined
			onFailure('DNS', e)
		})
	}
	return {
		underlay,
		planes,
		runtime,
		podNetns: (uid) => podNetnsOf(paths, uid),
		listen: (api) => api.listenInside(underlay.netns),
		applied(model) {
			for (const node of model.nodes.values()) {
				const ip = node.addresses[0]
				if (ip !== undefined) for (const cidr of node.podCidrs) underlay.route(cidr, ip)
			}
			wanted = dns.compileDns(model, wanted)
			if (wanted !== told) tellDns()
		},
		async remove() {
			runtime.stopWatching()
			await runtime.client.call('exit', null).catch(() => {})
			await runtime.client.closed
			underlay.close()
			for (const entry of readdirSync(paths.namespaces)) deleteNetns(join(paths.namespaces, entry))
		},
	}
}

/** A path that fits any pod: its name may be longer than a file's. */
function podNetnsOf(paths: LabPaths, uid: string): string {
	return join(paths.namespaces, `pod-${uid}`)
}

/** Reads programs back and makes probes, for those who explain. */
async function createAgentApi(cluster: Cluster, kernel: Kernel): Promise<NodeAgentApi> {
	const { loop, view } = cluster
	if (loop === undefined) throw new Error('there are no agents on paper')
	const { createProber } = await import('../agent/probe.ts')
	const { parseOrigin } = await import('../dataplane/nftables/origin.ts')
	const prober = createProber({
		pod(key) {
			const pod = view.model.pods.get(key)
			if (pod?.node === undefined || pod.ips.length === 0) return undefined
			const namespace = pod.hostNetwork ? kernel.underlay.netnsOf(pod.node) : kernel.podNetns(pod.uid)
			return { namespace, ips: pod.ips, node: pod.node }
		},
		node(name) {
			const node = view.model.nodes.get(name)
			return node === undefined
				? undefined
				: { namespace: kernel.underlay.netnsOf(name), ips: node.addresses, node: name }
		},
		*targets(to, port, protocol) {
			const owner = view.model.addresses.get(to)
			if (owner?.kind === 'pod') yield owner.pod
			if (owner?.kind !== 'service') return
			for (const service of view.model.services.get(owner.service)?.ports ?? []) {
				if (service.port !== port || service.protocol !== protocol) continue
				for (const endpoint of service.endpoints) if (endpoint.pod !== undefined) yield endpoint.pod
			}
		},
		because: (hit) =>
			[hit.comment, ...hit.found.map((f) => f.element.comment)].flatMap((comment) =>
				comment === undefined ? [] : (parseOrigin(comment) ?? []),
			),
	})
	return { read: (node) => loop.read(node), probe: (request) => prober.probe(request) }
}
