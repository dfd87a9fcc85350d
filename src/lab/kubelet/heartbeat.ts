// The sign of life of all nodes of a lab: a Lease each in kube-node-lease, renewed by one timer (KEP-589).

import type { Clock } from '../../base/clock.ts'
import { microTimestamp } from '../../controllers/conditions.ts'
import { isNotFound } from '../../kube/answer.ts'
import type { KubeClient } from '../../kube/client.ts'
import type { Informer } from '../../kube/informer.ts'
import { leases } from '../../kube/kinds.ts'
import type { Node } from '../../kube/objects/core.ts'
import { type LabNode, registerNode } from './nodes.ts'

export interface HeartbeatOptions {
	readonly client: KubeClient
	readonly clock: Clock
	/** Milliseconds after which a silent node counts as not ready; a lease is renewed four times as often. */
	readonly grace: number
	readonly nodes: readonly LabNode[]
	readonly objects: Informer<Node>
	/** A node that was taken for silent although it was not has said so. */
	readonly recovered: (node: string) => void
	readonly onFailure: (what: string, error: unknown) => void
}

export interface Heartbeat {
	/** Resolves when every node that is not paused, registered before, has its lease. */
	start(): Promise<void>
	pause(node: string): void
	/** Resolves when the node's status and lease say that it is there. */
	resume(node: string): Promise<void>
	stop(): void
}

const namespace = 'kube-node-lease'

export function createHeartbeat(options: HeartbeatOptions): Heartbeat {
	const { client, clock, grace, nodes, objects } = options
	const silent = new Set<string>()
	let stopped = false
	let cancel = (): void => {}

	async function renew({ name }: LabNode): Promise<void> {
		const renewTime = microTimestamp(clock.now())
		const spec = { holderIdentity: name, leaseDurationSeconds: Math.ceil(grace / 1000), renewTime }
		try {
			await client.patch(leases, `${namespace}/${name}`, { spec })
		} catch (e) {
			if (!isNotFound(e)) throw e
			const uid = objects.store.get(name)?.metadata.uid
			const owner = { apiVersion: 'v1', kind: 'Node', name, uid: uid ?? '' }
			const ownerReferences = uid === undefined ? [] : [owner]
			await client.create(leases, { metadata: { name, namespace, ownerReferences }, spec })
		}
	}

	const isReady = (node: LabNode) =>
		objects.store.get(node.name)?.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') === true

	async function beat(): Promise<void> {
		await Promise.all(
			nodes.map(async (node) => {
				// An object somebody deleted stays deleted: as of a kubelet, until it is started anew.
				if (silent.has(node.name) || (objects.isSynced && objects.store.get(node.name) === undefined)) return
				try {
					await renew(node)
					if (stopped || silent.has(node.name) || isReady(node)) return
					await registerNode(client, node, clock.now())
					if (!silent.has(node.name)) options.recovered(node.name)
				} catch (e) {
					if (!stopped) options.onFailure(`the lease of node "${node.name}"`, e)
				}
			}),
		)
		if (!stopped) cancel = clock.after(grace / 4, () => void beat())
	}

	return {
		async start() {
			await objects.until(() => nodes.every((node) => silent.has(node.name) || isReady(node)))
			await beat()
		},
		pause: (node) => void silent.add(node),
		async resume(name) {
			const node = nodes.find((n) => n.name === name)
			if (node === undefined) return
			silent.delete(name)
			await renew(node)
			await registerNode(client, node, clock.now())
		},
		stop() {
			stopped = true
			cancel()
		},
	}
}
