// The data planes of one node in the kernel: policies first, so that a pod is isolated before it is wired; then the
// wiring, so that a Service never leads to a pod that is not wired.

import type { Clock } from '../base/clock.ts'
import { familyOf, type IpFamily } from '../base/ip.ts'
import { diffTables, emptyTable } from '../base/table.ts'
import type { ServiceProxyMode } from '../dataplane/dataplane.ts'
import { changedPorts, isLeftBehind } from '../dataplane/hostports/flush.ts'
import { createHostports } from '../dataplane/hostports/hostports.ts'
import type { LinksChange } from '../dataplane/links/diff.ts'
import { createLinks } from '../dataplane/links/links.ts'
import type { Attachment } from '../dataplane/links/program.ts'
import { createSources } from '../dataplane/links/sources.ts'
import { createPolicy } from '../dataplane/policy/policy.ts'
import { serviceProxyModes } from '../dataplane/proxies/service-proxies.ts'
import { type Connection, deleteConnections, openConntrack, readConntrack } from '../linux/conntrack.ts'
import type { Scheduler } from '../linux/ipvs/ipvs.ts'
import type { NetlinkSocket } from '../linux/netlink/socket.ts'
import { inNetnsAt } from '../linux/netns.ts'
import type { NftChange } from '../linux/nft/change.ts'
import { readProgram } from '../linux/nft/read.ts'
import { openNftSocket } from '../linux/nft/transaction.ts'
import type { NetworkModel, NodeName } from '../model/network.ts'
import { type PolicyProfile, policyProfiles } from '../model/policy-profile.ts'
import { createFlowReader } from './flows.ts'
import { type NodeAttachments, NodeFailure, type NodePlanes } from './loop.ts'
import { createNodeMetrics } from './metrics.ts'
import { createNodeServer } from './node-server.ts'
import { createPlane, PlaneFailure } from './plane.ts'
import { createServicePlanes } from './service-planes.ts'
import { forgetStale, touchedFrontends } from './stale-connections.ts'

export interface NodePlanesOptions {
	readonly node: NodeName
	/** Path of the node's network namespace. */
	readonly netns: string
	/** Interface the other nodes are reached by. */
	readonly uplink: string
	readonly clock: Clock
	/** Default: nftables. */
	readonly serviceProxy?: ServiceProxyMode
	/** How IPVS chooses: asked at each pass. Default: rr. */
	readonly scheduler?: () => Scheduler
	/** How policies are enforced: asked at each pass. Absent: as the default profile does. */
	readonly policies?: () => { readonly profile: PolicyProfile; readonly cutEstablished: boolean }
	/** A change of the service proxy was cut off: whatever is left of the others goes with the first pass. */
	readonly cleanOthers?: boolean
	/** Something beside the programs does not work. */
	readonly onFailure?: (what: string, error: unknown) => void
}

export function createNodePlanes(options: NodePlanesOptions): NodePlanes {
	const { node, netns, clock } = options
	let attachments: NodeAttachments = emptyTable()
	let conntrack: NetlinkSocket | undefined
	const links = createLinks({ netns, uplink: options.uplink, attachments: () => attachments, clock })
	const wiring = createPlane('links', links)
	const sources = createSources({ netns })
	const senders = createPlane('links (sources)', sources)
	const services = createServicePlanes(node, options.serviceProxy ?? 'nftables', {
		netns,
		*namespaces() {
			yield { path: netns, ips: [] }
			for (const [, attachment] of attachments) yield { path: attachment.namespace, ips: attachment.ips }
		},
		...(options.scheduler === undefined ? {} : { scheduler: options.scheduler }),
	})
	const flows = createFlowReader({ node, netns, clock, onFailure: options.onFailure ?? (() => {}) })
	const metrics = createNodeMetrics(
		services.mode,
		() => clock.now() / 1000,
		() => flows.counts,
	)
	let cleaning = options.cleanOthers === true
	/** The model whose Services are in force. */
	let carried: NetworkModel | undefined
	let nft: NetlinkSocket | undefined
	let last: Promise<unknown> = Promise.resolve()

	/** One after the other: a change of the service proxy and a pass would each see the other's half. */
	function exclusive<T>(work: () => Promise<T>): Promise<T> {
		const next = last.then(work)
		last = next.catch(() => {})
		return next
	}

	/** Those that policies count with: also pods whose wiring is about to go. */
	let guarded: NodeAttachments = emptyTable()
	const policy = createPolicy({
		netns,
		uplink: options.uplink,
		local: () => guarded,
		get profile() {
			return options.policies?.().profile ?? policyProfiles.default
		},
		get cutEstablished() {
			return options.policies?.().cutEstablished ?? false
		},
		get log() {
			return flows.log
		},
	})
	const policies = createPlane('policy', policy)

	async function bringPolicies(model: NetworkModel, pods: NodeAttachments): Promise<void> {
		guarded = pods
		const program = policy.compile(model, node)
		// Who listens is there before the first packet is denied.
		flows.update(model, program)
		await policies.bring(program)
	}

	const hostports = createHostports({ netns })
	const ports = createPlane('hostports', {
		diff: hostports.diff,
		read: hostports.read,
		async apply(changes) {
			const outcome = await hostports.apply(changes)
			if (outcome.ok) forgetPorts(changes)
			return outcome
		},
	})

	/** Likewise where a UDP host port is new or leads elsewhere. */
	function forgetPorts(changes: readonly NftChange[]): void {
		for (const port of changedPorts(changes)) {
			conntrack ??= inNetnsAt(netns, openConntrack)
			const all = readConntrack(conntrack, { original: { protocol: 'UDP', destinationPort: port.number } }, port.family)
			deleteConnections(
				conntrack,
				all.filter((c) => isLeftBehind(c, port)),
			)
		}
	}

	async function bringServices(model: NetworkModel): Promise<void> {
		const begun = performance.now()
		metrics.setFamilies(familiesOf(model))
		try {
			await services.bring(model)
			metrics.synced((performance.now() - begun) / 1000, true)
		} catch (e) {
			metrics.synced((performance.now() - begun) / 1000, false)
			throw e
		}
		const touched = touchedFrontends(carried, model, node)
		carried = model
		if (touched.size > 0) {
			conntrack ??= inNetnsAt(netns, openConntrack)
			const from = performance.now()
			const forgotten = forgetStale(conntrack, touched)
			metrics.reconciled(forgotten, (performance.now() - from) / 1000)
		}
		if (cleaning) {
			try {
				await services.clean(serviceProxyModes)
			} catch (e) {
				// The next pass tries again.
				metrics.cleanupFailed()
				throw e
			}
			cleaning = false
		}
	}

	return {
		metrics,
		flows,
		serve: (progress, onFailure) => createNodeServer({ node, netns, clock, progress, metrics, onFailure }),
		bring: (model, want) =>
			exclusive(async () => {
				// Who comes is isolated before it is wired, who goes until it is no more.
				const leaving = leavingOf(guarded, want)
				try {
					await bringPolicies(model, leaving.length === 0 ? want : withLeaving(want, leaving))
				} catch (e) {
					// Nobody is wired whom no policy guards; those who are go on, and so do the Services.
					await bringServices(model)
					throw e
				}
				await senders.bring(sources.compile(model, node))
				attachments = want
				let failed: NodeFailure | undefined
				try {
					await wiring.bring(links.compile(model, node))
				} catch (e) {
					failed = podFailure(e)
					// What concerns single pods does not keep the Services of the node back.
					if (failed === undefined) throw e
				}
				await bringServices(model)
				await ports.bring(hostports.compile(model, node))
				if (leaving.length > 0 && failed === undefined) await bringPolicies(model, want)
				if (failed !== undefined) throw failed
			}),
		*connectedTo(ips) {
			conntrack ??= inNetnsAt(netns, openConntrack)
			for (const ip of ips) if (readConntrack(conntrack, { original: { destination: ip } }).some(isAlive)) yield ip
		},
		repair: () =>
			exclusive(async () => {
				const drifted = [...(await services.repair())]
				for (const plane of [policies, senders, wiring, ports]) if ((await plane.repair()) > 0) drifted.push(plane.name)
				return drifted
			}),
		setServiceProxy: (mode) =>
			exclusive(async () => {
				try {
					await services.switchTo(mode)
				} catch (e) {
					// The new one carries; what could not be taken away is the old one.
					if (services.mode === mode) metrics.cleanupFailed()
					throw e
				} finally {
					metrics.setMode(services.mode)
				}
			}),
		get serviceProxy() {
			return services.mode
		},
		async read() {
			nft ??= inNetnsAt(netns, openNftSocket)
			return {
				node,
				links: await wiring.read(),
				nftables: readProgram(nft),
				serviceProxy: services.mode,
				proxies: await services.read(),
			}
		},
		close() {
			links.close()
			sources.close()
			services.close()
			hostports.close()
			policy.close()
			flows.close()
			nft?.close()
			conntrack?.close()
		},
	}
}

/** What only waits to be forgotten holds nobody. */
function isAlive({ state }: Connection): boolean {
	return state !== 'TIME_WAIT' && state !== 'CLOSE'
}

/** The families in which the node has Services. */
function familiesOf({ config }: NetworkModel): readonly IpFamily[] {
	return ([4, 6] as const).filter((family) => config.serviceCidrs.some((cidr) => familyOf(cidr) === family))
}

function leavingOf(before: NodeAttachments, want: NodeAttachments): Attachment[] {
	const leaving: Attachment[] = []
	diffTables(before, want, (_, was, is) => {
		if (was !== undefined && is === undefined) leaving.push(was)
	})
	return leaving
}

/** An address that passes to another pod is that pod's at once. */
function withLeaving(want: NodeAttachments, leaving: readonly Attachment[]): NodeAttachments {
	const taken = new Set([...want.values()].flatMap((a) => a.ips))
	return want.mutate((draft) => {
		for (const pod of leaving) if (!pod.ips.some((ip) => taken.has(ip))) draft.set(pod.uid, pod)
	})
}

/** The pods a partial failure of the wiring concerns; undefined where it concerns the node itself. */
function podFailure(e: unknown): NodeFailure | undefined {
	if (!(e instanceof PlaneFailure) || !e.partial) return undefined
	const changes = e.changes as readonly LinksChange[]
	const errors = e.cause instanceof AggregateError ? e.cause.errors : [e.cause]
	const pods = new Map<string, Error>()
	for (const [i, change] of changes.entries()) {
		if (change.change !== 'attach' && change.change !== 'detach') return undefined
		pods.set(change.attachment.uid, (errors[i] ?? e) as Error)
	}
	return new NodeFailure(e.message, pods, { cause: e.cause })
}
