// The data planes of one node in the kernel: wiring first, so that a Service never leads to a pod that is not wired.

import type { Clock } from '../base/clock.ts'
import { emptyTable } from '../base/table.ts'
import { changedPorts, isLeftBehind } from '../dataplane/hostports/flush.ts'
import { createHostports } from '../dataplane/hostports/hostports.ts'
import type { LinksChange } from '../dataplane/links/diff.ts'
import { createLinks } from '../dataplane/links/links.ts'
import { lostBackends } from '../dataplane/nftables/flush.ts'
import { createNftables } from '../dataplane/nftables/nftables.ts'
import { deleteConnections, openConntrack, readConntrack } from '../linux/conntrack.ts'
import type { NetlinkSocket } from '../linux/netlink/socket.ts'
import { inNetnsAt } from '../linux/netns.ts'
import type { NftChange } from '../linux/nft/change.ts'
import type { NodeName } from '../model/network.ts'
import { type NodeAttachments, NodeFailure, type NodePlanes } from './loop.ts'
import { createPlane, PlaneFailure } from './plane.ts'

export interface NodePlanesOptions {
	readonly node: NodeName
	/** Path of the node's network namespace. */
	readonly netns: string
	/** Interface the other nodes are reached by. */
	readonly uplink: string
	readonly clock: Clock
}

export function createNodePlanes(options: NodePlanesOptions): NodePlanes {
	const { node, netns, clock } = options
	let attachments: NodeAttachments = emptyTable()
	let conntrack: NetlinkSocket | undefined
	const links = createLinks({ netns, uplink: options.uplink, attachments: () => attachments, clock })
	const nftables = createNftables({ netns })
	const wiring = createPlane('links', links)
	const services = createPlane('nftables', {
		diff: nftables.diff,
		read: nftables.read,
		async apply(changes) {
			const outcome = await nftables.apply(changes)
			if (outcome.ok) forget(changes)
			return outcome
		},
	})

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

	/**
	 * UDP has no end: connection tracking would go on sending a client's datagrams to the endpoint it once chose.
	 * TCP connections are left alone, so that one that is being closed in good order can.
	 */
	function forget(changes: readonly NftChange[]): void {
		for (const { protocol, frontend, backend } of lostBackends(changes)) {
			if (protocol !== 'UDP') continue
			conntrack ??= inNetnsAt(netns, openConntrack)
			deleteConnections(
				conntrack,
				readConntrack(conntrack, {
					original: { protocol, destination: frontend.ip, destinationPort: frontend.port },
					reply: { source: backend.ip, sourcePort: backend.port },
				}),
			)
		}
	}

	return {
		async bring(model, want) {
			attachments = want
			let failed: NodeFailure | undefined
			try {
				await wiring.bring(links.compile(model, node))
			} catch (e) {
				failed = podFailure(e)
				// What concerns single pods does not keep the Services of the node back.
				if (failed === undefined) throw e
			}
			await services.bring(nftables.compile(model, node))
			await ports.bring(hostports.compile(model, node))
			if (failed !== undefined) throw failed
		},
		async repair() {
			const drifted: string[] = []
			for (const plane of [wiring, services, ports]) if ((await plane.repair()) > 0) drifted.push(plane.name)
			return drifted
		},
		// The Services' plane reads every table of the namespace, that of the host ports too.
		read: async () => ({ node, links: await wiring.read(), nftables: await services.read() }),
		close() {
			links.close()
			nftables.close()
			hostports.close()
			conntrack?.close()
		},
	}
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
