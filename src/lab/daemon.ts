// The lab's one background process: API server, controllers, node agents, kubelets, control socket. It owns nothing
// in the host's network: the API's listening socket was handed to it, everything else lives in namespaces of its own.

import { rmSync } from 'node:fs'
import type { Server } from 'node:http'
import { join } from 'node:path'
import { openAttachments } from '../agent/attachments.ts'
import type { AgentLoop } from '../agent/loop.ts'
import type { NodeAgentApi } from '../agent/protocol.ts'
import type { KubeletApi } from '../apiserver/kubelet.ts'
import { systemClock } from '../base/clock.ts'
import { Failure, messageOf } from '../base/failure.ts'
import type { ServiceProxyMode } from '../dataplane/dataplane.ts'
import { noOutsideNames } from '../dataplane/dns/outside.ts'
import type { Scheduler } from '../linux/ipvs/ipvs.ts'
import type { LabApi } from './api.ts'
import { type Cluster, startCluster } from './cluster.ts'
import { listenControl } from './control.ts'
import type { DaemonOptions } from './daemon-options.ts'
import { createLabEvents } from './events.ts'
import { networksOf } from './ip-family.ts'
import { createAgentApi, type LabKernel, podNetnsOf, startKernel } from './kernel.ts'
import { createKubeletApi, paperKubeletApi } from './kubelet/exec.ts'
import { labNodes } from './kubelet/nodes.ts'
import { createPaperRuntime, type PodRuntime } from './kubelet/runtime.ts'
import { policyModeOf, policyStatusOf, settlePolicySettings } from './policy-settings.ts'
import { identifyProcess } from './process-identity.ts'
import { bootId, writeRecord } from './record.ts'
import {
	chooseServiceProxy,
	defaultServiceProxy,
	keepScheduler,
	keepServiceProxy,
	readScheduler,
	readServiceProxy,
	type ServiceProxyChoice,
} from './service-proxy.ts'
import { readSources, writeSources } from './sources.ts'
import type { LabStatus } from './status.ts'
import { readStopped, writeStopped } from './stopped.ts'

/** Kubernetes waits 40 s for a silent node; why less here: docs/decisions/node-lifecycle.md. */
const nodeGrace = 4_000

/** Runs until it is told to stop; resolves when everything has ended and been removed. */
export async function runDaemon(
	options: DaemonOptions,
	handOver: { readonly apiFd: number; answering(): void },
): Promise<void> {
	const { paths } = options
	const clock = systemClock
	const startedAt = new Date(clock.now()).toISOString()
	const events = createLabEvents((text) => process.stderr.write(`${text}\n`))
	const networks = networksOf(options.ipFamily, options.network)
	const nodes = labNodes(options.nodes, (number) => networks.map((n) => n.nodeIp(number)))
	/** Nodes the user has stopped. */
	const stoppedFile = join(paths.state, 'stopped-nodes')
	const stoppedNodes = readStopped(stoppedFile)
	/** What does not work now, by what it concerns. */
	const trouble = new Map<string, string>()
	let dataplane = options.dataplane
	let whyPaper = options.whyPaper
	let cluster: Cluster | undefined
	let agent: NodeAgentApi | undefined
	let api: LabApi | undefined
	let sources = readSources(paths.sources)
	let { config } = options
	let policies = settlePolicySettings(paths, options.policies ?? {})
	let scheduler = options.scheduler ?? readScheduler(paths)
	keepScheduler(paths, scheduler)
	const stopped = Promise.withResolvers<void>()
	let stopping: Promise<void> | undefined
	const ended = new AbortController()

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
			kernel?.setOutsideNames(next.dns ?? noOutsideNames)
		},
		async repair() {
			await cluster?.loop?.repair()
			await kernel?.external.repair()
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
		async setNode(name, running) {
			const node = nodes.find((n) => n.name === name)
			if (node === undefined) {
				const known = nodes.map((n) => n.name).join(', ')
				throw new Failure('NotFound', `There is no node ${JSON.stringify(name)} in this lab; there are ${known}`)
			}
			if (cluster === undefined) throw new Failure('Unavailable', 'The lab is still starting')
			if (running) stoppedNodes.delete(name)
			else stoppedNodes.add(name)
			writeStopped(stoppedFile, stoppedNodes)
			if (running) {
				kernel?.underlay.setCable(node, true)
				await cluster.startNode(name)
			} else {
				cluster.stopNode(name)
				kernel?.underlay.setCable(node, false)
			}
			events.progress(`node ${name} is ${running ? 'started' : 'stopped'}`)
		},
		setServiceProxy: (choice, asked) => setServiceProxy(choice, asked),
		answeredNames: async () => (await kernel?.answeredNames()) ?? [],
		async putPolicies(choice) {
			policies = settlePolicySettings(paths, choice)
			await cluster?.loop?.bringAgain()
		},
		flows(query, signal) {
			if (kernel === undefined) {
				const why = dataplane === 'paper' ? 'the data plane is on paper: nothing flows' : 'the lab is still starting'
				throw new Failure('Unavailable', `Cannot observe flows: ${why}`)
			}
			return kernel.flows(query, AbortSignal.any([signal, ended.signal]))
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
			...(proxy === undefined ? {} : { serviceProxy: proxy.mode }),
			...(proxy?.mode === 'ipvs' ? { scheduler } : {}),
			ipFamily: options.ipFamily,
			network: options.network,
			policies: policyStatusOf(policies),
			rights: options.rights,
			nodes: nodes.map((node) => {
				const object = cluster?.view.informer('nodes').store.get(node.name)
				return {
					name: node.name,
					ip: node.ips[0]!,
					ips: node.ips,
					podCidrs: object?.spec?.podCIDRs ?? [],
					ready: object?.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') === true,
				}
			}),
			podCidrs: networks.map((n) => n.pods),
			serviceCidrs: networks.map((n) => n.services),
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

	let kernel: LabKernel | undefined
	let proxy: { readonly mode: ServiceProxyMode; readonly unfinished: boolean } | undefined

	async function setServiceProxy(choice: ServiceProxyChoice, asked: Scheduler = scheduler): Promise<void> {
		if (kernel === undefined || proxy === undefined)
			throw new Failure('Unsupported', 'There is no data plane to change: the lab is on paper')
		if (cluster?.loop === undefined) throw new Failure('Unavailable', 'The lab is still starting')
		const mode = await chooseServiceProxy(choice, nodes.length)
		const before = scheduler
		scheduler = asked
		try {
			if (mode !== proxy.mode) await changeServiceProxy(cluster.loop, mode, proxy.mode)
			else if (mode === 'ipvs' && asked !== before) await cluster.loop.bringAgain()
		} catch (e) {
			scheduler = before
			throw e
		}
		keepScheduler(paths, scheduler)
	}

	async function changeServiceProxy(loop: AgentLoop, mode: ServiceProxyMode, before: ServiceProxyMode): Promise<void> {
		keepServiceProxy(paths, before, mode)
		try {
			await loop.setServiceProxy(mode)
			proxy = { mode, unfinished: false }
			events.progress(`Services are carried by ${mode}`)
		} finally {
			keepServiceProxy(paths, proxy?.mode ?? before)
		}
	}

	async function start(): Promise<void> {
		// The store is read while the kernel's part is laid.
		let kubeletApi: KubeletApi = paperKubeletApi
		const lateKubelet: KubeletApi = {
			exec: (request) => kubeletApi.exec(request),
			attach: (request) => kubeletApi.attach!(request),
			logs: (request) => kubeletApi.logs(request),
			dial: (pod) => kubeletApi.dial(pod),
		}
		const opening = import('./api.ts').then(({ startApi }) =>
			startApi({
				paths,
				networks,
				network: options.network,
				clock,
				kubelet: lateKubelet,
				fd: handOver.apiFd,
				onFault: (e) => onFailure('API server', e),
			}),
		)
		opening.catch(() => {})
		if (dataplane === 'kernel') {
			events.progress(
				nodes.length === 1 ? 'making a node' : `making ${nodes.length} nodes and the network between them`,
			)
			try {
				const kept = readServiceProxy(paths)
				const mode = await chooseServiceProxy(options.serviceProxy ?? kept?.mode ?? defaultServiceProxy, nodes.length)
				const unfinished = kept !== undefined && (kept.unfinished || kept.mode !== mode)
				if (kept === undefined) keepServiceProxy(paths, mode)
				else if (kept.mode !== mode) keepServiceProxy(paths, kept.mode, mode)
				proxy = { mode, unfinished }
				const replaced = () => record(kernel?.runtime.client.pid)
				kernel = await startKernel({
					paths,
					nodes,
					networks,
					onFailure,
					replaced,
					proxy,
					policies: () => policyModeOf(policies),
					onNames: async (names) => cluster?.learnNames(names),
					scheduler: () => scheduler,
					say: (text) => events.progress(text),
				})
			} catch (e) {
				if (options.forced) throw e
				dataplane = 'paper'
				whyPaper = `the kernel refused: ${messageOf(e)}`
				events.warning(`using the paper data plane: ${whyPaper}`)
			}
		}
		for (const node of nodes) if (stoppedNodes.has(node.name)) kernel?.underlay.setCable(node, false)
		api = await opening
		events.progress(`the API server answers on https://127.0.0.1:${api.port}`)
		await kernel?.listen(api)
		record(kernel?.runtime.client.pid)
		kernel?.setOutsideNames(config.dns ?? noOutsideNames)
		// Nodes still hold them; the first pass must not take them away.
		const answeredNames = await (kernel?.answeredNames() ?? Promise.resolve([])).catch((e) => {
			onFailure('DNS', e)
			return []
		})
		const runtime: PodRuntime = kernel?.runtime ?? createPaperRuntime(clock)
		cluster = await startCluster({
			transport: api.server.transport,
			clock,
			ipFamily: options.ipFamily,
			network: options.network,
			nodes,
			stopped: stoppedNodes,
			runtime,
			attachments: openAttachments(paths.attachments),
			config: () => config,
			caCertificate: api.caCertificate,
			...(kernel === undefined ? {} : { planes: kernel.planes }),
			answeredNames,
			keepUsedNames: () => policyModeOf(policies).cutEstablished,
			agentEvents: {
				failed(node, e) {
					trouble.set(`node ${node}`, `node "${node}": ${messageOf(e)}`)
					events.warning(`node "${node}": ${messageOf(e)}`)
				},
				drifted: (node, planes) =>
					events.warning(
						`node "${node}": somebody else had changed ${planes.join(' and ')}; it is as it should be again`,
					),
				applied(model) {
					kernel?.applied(model)
					// Once around: nothing of another data plane is left.
					if (proxy?.unfinished !== true) return
					proxy = { mode: proxy.mode, unfinished: false }
					keepServiceProxy(paths, proxy.mode)
				},
				warned: onFailure,
				recovered: (node) => void trouble.delete(`node ${node}`),
			},
			netnsOfNode: (node) => join(paths.namespaces, node),
			netnsOfPod: (uid) => podNetnsOf(paths, uid),
			podFolder: kernel === undefined ? undefined : paths.pods,
			volumeFolder: kernel === undefined ? undefined : paths.volumes,
			nodeGrace,
			events: true,
			onFailure,
		})
		cluster.view.setSources(sources)
		events.progress(nodes.length === 1 ? 'the node is ready' : `${nodes.length} nodes are ready`)
		if (kernel !== undefined) {
			kubeletApi = createKubeletApi({ kubelet: cluster.kubelet, runtime, lab: paths.runtime })
			agent = await createAgentApi(cluster, kernel)
		}
		events.setPhase('running')
	}

	start().catch(async (e) => {
		// Told to stop while starting: what was half there is gone, and that is as it should be.
		if (stopping !== undefined) return
		events.warning(messageOf(e))
		await stop()
		stopped.reject(e)
	})
	await stopped.promise

	function stop(): Promise<void> {
		stopping ??= (async () => {
			events.setPhase('stopping')
			await cluster?.stop()
			await kernel?.remove()
			await api?.close()
			rmSync(paths.pods, { recursive: true, force: true })
			events.end()
			ended.abort()
			// After the answer to whoever asked for it.
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
