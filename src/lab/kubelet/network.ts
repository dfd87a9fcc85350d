// What the kubelet asks of the node's network for one pod: wire it, unwire it, and say when nobody sends to it any more.

import type { AttachmentRecord, AttachmentStore } from '../../agent/attachments.ts'
import { hostInterfaceOf } from '../../agent/attachments.ts'
import { createIpam, type Ipam } from '../../agent/ipam.ts'
import type { AgentLoop } from '../../agent/loop.ts'
import { Failure } from '../../base/failure.ts'
import type { Cidr, Ip } from '../../base/ip.ts'
import type { NetworkModel, NodeName } from '../../model/network.ts'
import type { ObjectKey } from '../../model/origin.ts'

export interface PodNetwork {
	/**
	 * ADD: an address and its wiring; resolves when the kernel has it. Again for the same pod: the same answer.
	 * `prefer`: addresses the pod is known to have had. Throws Failure AddressesExhausted, or what the kernel refused.
	 */
	attach(pod: {
		readonly uid: string
		readonly key: ObjectKey
		readonly node: NodeName
		readonly prefer: readonly Ip[]
	}): Promise<PodWiring>
	/** DEL: resolves when nothing of it is left. Unknown: nothing to do. */
	detach(uid: string): Promise<void>
	/** Uids of pods that are wired. */
	readonly known: readonly string[]
	/** Resolves when no Service of the applied programs sends new connections to the pod. Rejects when `signal` aborts. */
	drained(pod: ObjectKey, signal: AbortSignal): Promise<void>
}

export interface PodWiring {
	readonly ips: readonly Ip[]
	/** Path of the pod's network namespace. */
	readonly netns: string
}

export interface PodNetworkOptions {
	/** Pod CIDRs of a node; waits a while for a node that has none yet. Empty: it got none. */
	readonly podCidrsOf: (node: NodeName) => Promise<readonly Cidr[]>
	readonly netnsOf: (uid: string) => string
	readonly mtu: number
	readonly store: AttachmentStore
	/** undefined: the paper data plane, where an address is all there is. */
	readonly loop: AgentLoop | undefined
}

export function createPodNetwork(options: PodNetworkOptions): PodNetwork {
	const { store, loop } = options
	const records = new Map<string, AttachmentRecord>()
	const ipams = new Map<NodeName, { readonly cidrs: string; readonly ipam: Ipam }>()
	for (const record of store.all()) records.set(record.uid, record)
	loop?.restore([...records.values()])

	async function ipamOf(node: NodeName): Promise<Ipam> {
		const cidrs = await options.podCidrsOf(node)
		const found = ipams.get(node)
		if (found !== undefined && found.cidrs === cidrs.join()) return found.ipam
		if (cidrs.length === 0) {
			throw new Failure('NoPodCidr', `Cannot give a pod an address: node "${node}" has no pod CIDR`, { node })
		}
		const ipam = createIpam(node, cidrs)
		for (const record of records.values()) if (record.node === node) ipam.restore(record.uid, record.ips)
		ipams.set(node, { cidrs: cidrs.join(), ipam })
		return ipam
	}

	return {
		async attach({ uid, key, node, prefer }) {
			let record = records.get(uid)
			if (record === undefined) {
				const ipam = await ipamOf(node)
				const ips = ipam.allocate(uid, prefer)
				record = {
					uid,
					pod: key,
					node,
					ips,
					namespace: options.netnsOf(uid),
					hostInterface: hostInterfaceOf(uid),
					mtu: options.mtu,
				}
				try {
					store.put(record)
				} catch (e) {
					ipam.release(uid)
					throw e
				}
				records.set(uid, record)
			}
			await loop?.attach(record)
			return { ips: record.ips, netns: record.namespace }
		},
		async detach(uid) {
			const record = records.get(uid)
			if (record === undefined) return
			await loop?.detach(record.node, uid)
			records.delete(uid)
			store.delete(uid)
			ipams.get(record.node)?.ipam.release(uid)
		},
		get known() {
			return [...records.keys()]
		},
		drained: (pod, signal) => loop?.waitApplied((model) => !receives(model, pod), signal) ?? Promise.resolve(),
	}
}

/**
 * Whether a Service sends new connections to the pod, and will stop. One that publishes addresses that are not ready
 * goes on until the pod is gone, and slices written by hand name it as long as their author likes: nothing to wait for.
 */
function receives(model: NetworkModel, pod: ObjectKey): boolean {
	const namespace = pod.slice(0, pod.indexOf('/'))
	for (const service of model.services.values()) {
		if (service.namespace !== namespace || service.publishNotReadyAddresses || service.selector === undefined) continue
		for (const port of service.ports) {
			if (port.endpoints.some((endpoint) => endpoint.pod === pod && endpoint.ready)) return true
		}
	}
	return false
}
