// A whole cluster in memory inside the caller's process: API, controllers, kubelets, no kernel and no files.
// Manifests are applied to it, it settles, and its state is what a real cluster would have.

import type { AttachmentRecord, AttachmentStore } from '../agent/attachments.ts'
import { allTables } from '../agent/view.ts'
import { createApiServer } from '../apiserver/server.ts'
import { createStore } from '../apiserver/store.ts'
import { type Clock, systemClock } from '../base/clock.ts'
import type { Transport } from '../kube/transport.ts'
import type { NetworkModel } from '../model/network.ts'
import type { ClusterState, ObjectSource } from '../model/state.ts'
import { apiPort } from './addresses.ts'
import { startCluster } from './cluster.ts'
import { emptyConfig } from './config.ts'
import { defaultIpFamily, type LabIpFamily, networksOf } from './ip-family.ts'
import { paperKubeletApi } from './kubelet/exec.ts'
import { labNodes } from './kubelet/nodes.ts'
import { createPaperRuntime } from './kubelet/runtime.ts'

export interface PaperCluster {
	/** The API as administrator. */
	readonly transport: Transport
	/**
	 * Resolves when controllers and kubelets have nothing left to do: every pod that can run is Ready and every
	 * EndpointSlice says so. What waits for time (back-off, minReadySeconds) is not waited for.
	 */
	settle(): Promise<void>
	/** After `settle`: the cluster as the model's input, with the places its objects were read from. */
	readonly state: ClusterState
	readonly model: NetworkModel
	setSources(sources: Readonly<Record<string, ObjectSource>>): void
	close(): Promise<void>
}

export async function createPaperCluster(
	options: {
		readonly nodes?: number
		/** Default: IPv4. */
		readonly ipFamily?: LabIpFamily
		readonly clock?: Clock
		readonly onFailure?: (what: string, e: unknown) => void
	} = {},
): Promise<PaperCluster> {
	const clock = options.clock ?? systemClock
	const ipFamily = options.ipFamily ?? defaultIpFamily
	const networks = networksOf(ipFamily)
	const store = createStore()
	const api = await createApiServer({
		store,
		clock,
		serviceCidrs: networks.map((n) => n.services),
		advertise: { ip: networks[0]!.router, port: apiPort },
		kubelet: paperKubeletApi,
		...(options.onFailure === undefined ? {} : { onFault: (e: unknown) => options.onFailure?.('apiserver', e) }),
	})
	const cluster = await startCluster({
		transport: api.transport,
		clock,
		ipFamily,
		nodes: labNodes(options.nodes ?? 3, (number) => networks.map((n) => n.nodeIp(number))),
		runtime: createPaperRuntime(clock),
		attachments: memoryAttachments(),
		config: () => emptyConfig,
		netnsOfNode: () => '',
		netnsOfPod: () => '',
		podFolder: undefined,
		volumeFolder: undefined,
		tables: allTables,
		events: false,
		onFailure: options.onFailure ?? (() => {}),
	})
	return {
		transport: api.transport,
		async settle() {
			for (;;) {
				await cluster.controllers.settled()
				const { revision } = store
				await cluster.kubelet.settled()
				// Whoever wrote last may have given the others something to do.
				if (store.revision === revision) break
			}
			await cluster.view.caughtUp()
		},
		get state() {
			return cluster.view.state
		},
		get model() {
			return cluster.view.model
		},
		setSources: (sources) => cluster.view.setSources(sources),
		async close() {
			await cluster.stop()
			api.close()
		},
	}
}

/** Attachments that need not outlive the process. */
export function memoryAttachments(): AttachmentStore {
	const records = new Map<string, AttachmentRecord>()
	return {
		all: () => [...records.values()],
		put: (record) => void records.set(record.uid, record),
		delete: (uid) => void records.delete(uid),
		close() {},
	}
}
