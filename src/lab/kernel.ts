// The kernel's side of a lab: namespaces of underlay and nodes, the agents' data planes, the workloads process, and
// what has to follow each applied model besides the nodes: the underlay's routes, the DNS servers' names.

import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { FlowMessage } from '../agent/flow-event.ts'
import type { FlowQuery } from '../agent/flow-log.ts'
import type { NodePlanes } from '../agent/loop.ts'
import type { NodeAgentApi } from '../agent/protocol.ts'
import { systemClock } from '../base/clock.ts'
import { familyOf } from '../base/ip.ts'
import type { ServiceProxyMode } from '../dataplane/dataplane.ts'
import type { AnsweredName } from '../dataplane/dns/answered.ts'
import { noOutsideNames, type OutsideNames } from '../dataplane/dns/outside.ts'
import type { DnsProgram } from '../dataplane/dns/program.ts'
import type { Scheduler } from '../linux/ipvs/ipvs.ts'
import type { NetworkModel } from '../model/network.ts'
import { nodeInterface } from './addresses.ts'
import type { LabApi } from './api.ts'
import type { Cluster } from './cluster.ts'
import type { External } from './external.ts'
import type { FamilyNetworks } from './ip-family.ts'
import type { LabNode } from './kubelet/nodes.ts'
import { createRuntime } from './kubelet/runtime.ts'
import type { LabPaths } from './paths.ts'
import type { PolicyMode } from './policy-settings.ts'
import type { Underlay } from './underlay.ts'

export interface LabKernel {
	readonly networks: readonly FamilyNetworks[]
	readonly underlay: Underlay
	readonly planes: ReadonlyMap<string, NodePlanes>
	readonly external: External
	readonly runtime: Awaited<ReturnType<typeof createRuntime>>
	podNetns(uid: string): string
	listen(api: LabApi): Promise<void>
	/** Brings the underlay's routes and the DNS servers' names to a model that is in force. */
	applied(model: NetworkModel): void
	/** What the DNS servers answer of names outside of the cluster, from now on. */
	setOutsideNames(names: OutsideNames): void
	/** What the DNS servers answered with addresses, and still holds. */
	answeredNames(): Promise<readonly AnsweredName[]>
	/** What the nodes remember of their flows, then (follow) what comes. */
	flows(query: FlowQuery, signal: AbortSignal): AsyncIterable<FlowMessage>
	/** Ends the workloads and unbinds every namespace. */
	remove(): Promise<void>
}

/** Namespaces, agents' data planes and the workloads process. Throws Failure with what the kernel refused. */
export async function startKernel(options: {
	readonly paths: LabPaths
	readonly nodes: readonly LabNode[]
	readonly networks: readonly FamilyNetworks[]
	readonly onFailure: (what: string, e: unknown) => void
	/** Another workloads process runs now. */
	readonly replaced: () => void
	readonly proxy: { readonly mode: ServiceProxyMode; readonly unfinished: boolean }
	/** How IPVS chooses; asked, as the next one, whenever the nodes are brought to a model. */
	readonly scheduler: () => Scheduler
	readonly policies: () => PolicyMode
	/** A pod is about to be answered with addresses of names that policies mean; resolves when the nodes know. */
	readonly onNames: (names: readonly AnsweredName[]) => Promise<void>
	readonly say: (text: string) => void
}): Promise<LabKernel> {
	const { paths, nodes, networks, onFailure, replaced, proxy, say } = options
	const [
		{ findWorkloads, startWorkloads },
		{ createUnderlay },
		{ createExternal },
		{ createNodePlanes },
		{ deleteNetns },
		dns,
	] = await Promise.all([
		import('./workloads/client.ts'),
		import('./underlay.ts'),
		import('./external.ts'),
		import('../agent/planes.ts'),
		import('../linux/netns.ts'),
		import('../dataplane/dns/program.ts'),
	])
	const connecting = findWorkloads(paths).then((found) => found ?? startWorkloads(paths))
	connecting.catch(() => {})
	const underlay = createUnderlay(paths.namespaces, nodes, networks)
	const external = createExternal({
		underlay,
		networks,
		nodes,
		clock: systemClock,
		onFailure,
		onHealth: say,
	})
	const planes = new Map(
		nodes.map((node) => [
			node.name,
			createNodePlanes({
				node: node.name,
				netns: underlay.netnsOf(node.name),
				uplink: nodeInterface,
				clock: systemClock,
				serviceProxy: proxy.mode,
				cleanOthers: proxy.unfinished,
				policies: options.policies,
				scheduler: options.scheduler,
				onFailure,
			}),
		]),
	)
	const runtime = await createRuntime(
		await connecting,
		() => startWorkloads(paths),
		(e) => onFailure('workloads', e),
		(names, known) =>
			options
				.onNames(names)
				.then(known)
				.catch((e) => onFailure('DNS', e)),
	)
	/** What the DNS servers of the present workloads process were last told. */
	let told: DnsProgram | undefined
	let wanted: DnsProgram | undefined
	let outside = noOutsideNames
	/** The names that policies mean, and those the servers were told to watch. */
	let meant: readonly string[] = []
	let watched: string | undefined
	runtime.onChange((uid) => {
		if (uid !== undefined) return
		replaced()
		told = undefined
		watched = undefined
		tellDns()
		tellOutside()
		watchNames()
	})

	function tellOutside(): void {
		runtime.client.call('outsideNames', outside).catch((e) => onFailure('DNS', e))
	}

	/** Those that were asked for before a policy meant them are known at once. */
	function watchNames(): void {
		const text = JSON.stringify(meant)
		if (text === watched) return
		watched = text
		runtime.client
			.call('watchNames', meant)
			.then((known) => options.onNames(known))
			.catch((e) => {
				watched = undefined
				onFailure('DNS', e)
			})
	}

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
		networks,
		underlay,
		planes,
		external,
		runtime,
		podNetns: (uid) => podNetnsOf(paths, uid),
		listen: (api) => api.listenInside(underlay.netns),
		async *flows(query, signal) {
			const { observeFlows } = await import('../agent/flow-log.ts')
			const readers = [...planes.values()].flatMap((p) => p.flows ?? [])
			yield* observeFlows(readers, query, systemClock, signal)
		},
		setOutsideNames(names) {
			outside = names
			tellOutside()
		},
		answeredNames: () => runtime.client.call('answeredNames', null),
		applied(model) {
			for (const node of model.nodes.values()) {
				for (const cidr of node.podCidrs) {
					const ip = node.addresses.find((a) => familyOf(a) === familyOf(cidr))
					if (ip !== undefined) underlay.route(cidr, ip)
				}
			}
			external.applied(model)
			wanted = dns.compileDns(model, wanted)
			if (wanted !== told) tellDns()
			meant = namesOfPolicies(model)
			watchNames()
		},
		async remove() {
			runtime.stopWatching()
			await external.stop()
			await runtime.client.call('exit', null).catch(() => {})
			await runtime.client.closed
			underlay.close()
			for (const entry of readdirSync(paths.namespaces)) deleteNetns(join(paths.namespaces, entry))
		},
	}
}

/** The names of domains in all policies, sorted. */
function namesOfPolicies({ tieredPolicies }: NetworkModel): readonly string[] {
	const names = new Set<string>()
	for (const { egress } of tieredPolicies.values())
		for (const { peers } of egress)
			for (const peer of peers) if (peer.kind === 'domains') for (const name of peer.names) names.add(name)
	return [...names].sort()
}

/** A path that fits any pod: its name may be longer than a file's. */
export function podNetnsOf(paths: LabPaths, uid: string): string {
	return join(paths.namespaces, `pod-${uid}`)
}

/** Reads programs back and makes probes, for those who explain. */
export async function createAgentApi(cluster: Cluster, kernel: LabKernel): Promise<NodeAgentApi> {
	const { loop, view } = cluster
	if (loop === undefined) throw new Error('there are no agents on paper')
	const { createProber } = await import('../agent/probe.ts')
	const { parseOrigin } = await import('../dataplane/origin.ts')
	const { findFrontend } = await import('../model/frontends.ts')
	const { balancedAt } = await import('../model/load-balancer.ts')
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
		place: (name) =>
			name === 'outside'
				? { namespace: kernel.underlay.outside, ips: kernel.networks.map((n) => n.outsideIp) }
				: { namespace: kernel.underlay.netns, ips: kernel.underlay.ips },
		balances: (to) => balancedAt(view.model, to).length > 0,
		*targets(to, port, protocol) {
			const { model } = view
			const owner = model.addresses.get(to)
			if (owner?.kind === 'pod') yield owner.pod
			const node = owner?.kind === 'node' ? model.nodes.get(owner.node) : undefined
			const found = findFrontend(model, node ?? { addresses: [] }, { ip: to, protocol, port })
			if (found?.kind !== 'frontend') return
			for (const endpoint of found.port.endpoints) if (endpoint.pod !== undefined) yield endpoint.pod
		},
		because: (hit) =>
			[hit.comment, ...hit.found.map((f) => f.element.comment)].flatMap((comment) =>
				comment === undefined ? [] : (parseOrigin(comment) ?? []),
			),
	})
	return {
		read: (node) => loop.read(node),
		probe: (request) => prober.probe(request),
		readBalancer: () => kernel.external.read(),
	}
}
