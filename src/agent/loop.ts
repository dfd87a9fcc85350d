// The node agents of a process: one shared view and model, and for each node the programs compiled from it, brought
// to the kernel as differences. A node in trouble is tried again by itself and holds up no other.

import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import type { Ip } from '../base/ip.ts'
import { diffTables, emptyTable, type Table } from '../base/table.ts'
import type { ServiceProxyMode } from '../dataplane/dataplane.ts'
import type { Attachment } from '../dataplane/links/program.ts'
import type { NetworkModel, NodeName } from '../model/network.ts'
import { objectOrigin } from '../model/origin.ts'
import { type ClusterState, emptyState } from '../model/state.ts'
import type { AttachmentRecord } from './attachments.ts'
import type { FlowReader } from './flows.ts'
import type { NodeMetrics } from './metrics.ts'
import type { NodeProgress, NodeServer } from './node-server.ts'
import type { NodePrograms } from './protocol.ts'
import { createRunner } from './runner.ts'
import type { ClusterView } from './view.ts'

/** The attachments of one node by pod uid: the input of its links program beside the model. */
export type NodeAttachments = Table<string, Attachment>

/** The data planes of one node, as the loop drives them. */
export interface NodePlanes {
	/**
	 * Brings the node to what the model and its attachments mean. Throws with what the kernel refused;
	 * NodeFailure where that concerns some pods only.
	 */
	bring(model: NetworkModel, attachments: NodeAttachments): Promise<void>
	/** Reads back, repairs; the names of the planes that had drifted. */
	repair(): Promise<readonly string[]>
	read(): Promise<NodePrograms>
	/** The node's own figures, where it keeps some. */
	readonly metrics?: NodeMetrics
	/** What its policies deny, and what it carries. */
	readonly flows?: FlowReader
	/** Opens what the node answers about itself: health, metrics. */
	serve?(progress: () => NodeProgress, onFailure: (what: string, error: unknown) => void): NodeServer
	/** Which data plane carries Services. */
	readonly serviceProxy?: ServiceProxyMode
	/** Those of the addresses that connections of its pods still go to. */
	connectedTo?(ips: readonly Ip[]): Iterable<Ip>
	/** Throws Failure; the old one carries on then. */
	setServiceProxy?(mode: ServiceProxyMode): Promise<void>
	close(): void
}

/** Everything is in force but for these pods. */
export class NodeFailure extends Error {
	/** By uid. */
	readonly pods: ReadonlyMap<string, Error>
	constructor(message: string, pods: ReadonlyMap<string, Error>, options?: ErrorOptions) {
		super(message, options)
		this.pods = pods
	}
}

export interface AgentEvents {
	/** A node's program could not be applied; it is tried again. */
	failed?(node: NodeName, error: unknown): void
	/** The model is in force on every healthy node. */
	applied?(model: NetworkModel): void
	/** After `failed`: the node is as it should be. */
	recovered?(node: NodeName): void
	/** Something beside the programs does not work. */
	warned?(what: string, error: unknown): void
	/** Somebody else had changed the node's kernel; it is as it should be again. */
	drifted?(node: NodeName, planes: readonly string[]): void
}

export interface AgentLoop {
	/** Resolves when every node has been brought up to date once or has failed to. */
	start(): Promise<void>
	/** The model that was last applied on every healthy node. */
	readonly applied: NetworkModel | undefined
	/** Records wiring as wanted; resolves when the node's kernel has it, rejects when the kernel refuses. */
	attach(record: AttachmentRecord): Promise<void>
	/** The reverse; resolves when it is gone. */
	detach(node: NodeName, uid: string): Promise<void>
	/** Takes over known attachments before start. */
	restore(records: readonly AttachmentRecord[]): void
	/** Resolves when everything known by now is in force on `node` (on all nodes without one). Rejects when a node refuses. */
	waitReconciled(node?: NodeName): Promise<void>
	/** Resolves when the applied model passes `test`; checked after each pass. Rejects when `signal` aborts. */
	waitApplied(test: (model: NetworkModel) => boolean, signal: AbortSignal): Promise<void>
	/** Those of the addresses that connections of pods still go to, on any node. */
	connectedTo(ips: readonly Ip[]): ReadonlySet<Ip>
	/** Reads every node back and repairs it now. */
	repair(): Promise<void>
	/** Brings every node to its model again, since something beside the model is another. Rejects when a node refuses. */
	bringAgain(): Promise<void>
	/** Changes the data plane that carries Services on every node. Where one refuses all go back, and it throws why. */
	setServiceProxy(mode: ServiceProxyMode): Promise<void>
	read(node: NodeName): Promise<NodePrograms>
	stop(): Promise<void>
}

interface Waiting {
	readonly revision: number
	/** Waits for the wiring of this pod alone. */
	readonly uid: string | undefined
	resolve(): void
	reject(e: unknown): void
}

interface NodeState {
	readonly name: NodeName
	readonly planes: NodePlanes
	attachments: NodeAttachments
	/** The last change that is in force. */
	done: number
	model?: NetworkModel
	appliedAttachments?: NodeAttachments
	failures: number
	/** Read back before the next pass. */
	repair: boolean
	/** Bring it to the model once more, even if that is the same. */
	again: boolean
	waiting: Waiting[]
	/** What the node answers about itself, from its first good pass on. */
	server?: NodeServer
	/** When a change came that is not in force yet. */
	pendingSince?: number
	appliedAt?: number
}

/** On an EndpointSlice: when the change of a pod or Service happened that it tells of. */
const triggerTime = 'endpoints.kubernetes.io/last-change-trigger-time'
/** Milliseconds in which changes are gathered; the first one goes at once. */
const gatherInterval = 2
const repairInterval = 60_000
const retryFirst = 250
const retryLimit = 30_000

export function createAgentLoop(options: {
	readonly view: ClusterView
	readonly clock: Clock
	readonly nodes: ReadonlyMap<NodeName, NodePlanes>
	readonly events?: AgentEvents
}): AgentLoop {
	const { view, clock, events = {} } = options
	const nodes = new Map<NodeName, NodeState>(
		[...options.nodes].map(([name, planes]) => [
			name,
			{ name, planes, attachments: emptyTable(), done: 0, failures: 0, repair: false, again: false, waiting: [] },
		]),
	)
	/** Counts changes; a pass covers those up to the number at its start. */
	let revision = 1
	let applied: NetworkModel | undefined
	/** The state that the last pass brought to the nodes. */
	let seen: ClusterState | undefined
	let started = false
	let cancelRepair: (() => void) | undefined
	const watchers = new Set<() => void>()
	const runner = createRunner(clock, gatherInterval, pass)

	async function pass(): Promise<number | undefined> {
		if (!started) return undefined
		const covered = revision
		let model: NetworkModel
		try {
			model = view.model
		} catch (e) {
			// Our own bug in the model: said loudly, and the agent lives on what it last understood.
			for (const node of nodes.keys()) events.failed?.(node, e)
			return retryLimit
		}
		const { state } = view
		noteChanges(state)
		const results = await Promise.all([...nodes.values()].map((node) => bring(node, model, covered)))
		applied = model
		noteProgrammed(state)
		events.applied?.(model)
		for (const check of [...watchers]) check()
		const retries = results.filter((r) => r !== undefined)
		return retries.length === 0 ? undefined : Math.min(...retries)
	}

	const { services: noServices, endpointSlices: noSlices } = emptyState()

	/** Objects that changed since the last pass, for the figures of each node. */
	function noteChanges(state: ClusterState): void {
		let services = 0
		let endpoints = 0
		diffTables(seen?.services ?? noServices, state.services, () => services++)
		diffTables(seen?.endpointSlices ?? noSlices, state.endpointSlices, () => endpoints++)
		if (services + endpoints === 0) return
		for (const { planes } of nodes.values()) planes.metrics?.queued({ services, endpoints })
	}

	/** How long the changes of EndpointSlices took from what caused them to here. */
	function noteProgrammed(state: ClusterState): void {
		const now = clock.now()
		const first = seen === undefined
		diffTables(seen?.endpointSlices ?? noSlices, state.endpointSlices, (_, before, after) => {
			const at = after?.metadata.annotations?.[triggerTime]
			// What was there before the agent is no change.
			if (first || at === undefined || at === before?.metadata.annotations?.[triggerTime]) return
			const seconds = (now - Date.parse(at)) / 1000
			if (seconds >= 0) for (const { planes } of nodes.values()) planes.metrics?.programmed(seconds)
		})
		seen = state
	}

	async function bring(node: NodeState, model: NetworkModel, covered: number): Promise<number | undefined> {
		const { attachments } = node
		try {
			if (node.repair && node.model !== undefined) {
				node.repair = false
				const planes = await node.planes.repair()
				if (planes.length > 0) events.drifted?.(node.name, planes)
			}
			const { again } = node
			node.again = false
			if (again || node.model !== model || node.appliedAttachments !== attachments || node.failures > 0) {
				await node.planes.bring(model, attachments)
				node.model = model
				node.appliedAttachments = attachments
				if (node.failures > 0) events.recovered?.(node.name)
				node.failures = 0
			}
			node.done = covered
			node.appliedAt = clock.now()
			if (covered === revision) delete node.pendingSince
			node.server ??= node.planes.serve?.(
				() => ({
					...(node.pendingSince === undefined ? {} : { pendingSince: node.pendingSince }),
					...(node.appliedAt === undefined ? {} : { appliedAt: node.appliedAt }),
				}),
				(what, e) => events.warned?.(what, e),
			)
			node.server?.update(model)
			settle(node, (waiting) => waiting.resolve())
			return undefined
		} catch (e) {
			node.failures++
			events.failed?.(node.name, e)
			node.done = covered
			settle(node, (waiting) => {
				if (!(e instanceof NodeFailure)) waiting.reject(e)
				else if (waiting.uid === undefined) waiting.reject(e)
				else if (e.pods.has(waiting.uid)) waiting.reject(e.pods.get(waiting.uid))
				else waiting.resolve()
			})
			return Math.min(retryLimit, retryFirst * 2 ** (node.failures - 1))
		}
	}

	function settle(node: NodeState, how: (waiting: Waiting) => void): void {
		const ready = node.waiting.filter((w) => w.revision <= node.done)
		node.waiting = node.waiting.filter((w) => w.revision > node.done)
		for (const waiting of ready) how(waiting)
	}

	function changed(): number {
		revision++
		const now = clock.now()
		for (const node of nodes.values()) node.pendingSince ??= now
		runner.trigger()
		return revision
	}

	function waitFor(node: NodeState, at: number, uid?: string): Promise<void> {
		if (node.done >= at && node.failures === 0) return Promise.resolve()
		return new Promise((resolve, reject) => node.waiting.push({ revision: at, uid, resolve, reject }))
	}

	function nodeOf(name: NodeName): NodeState {
		const node = nodes.get(name)
		if (node === undefined)
			throw new Failure('NotFound', `Cannot find node ${JSON.stringify(name)}: there is no agent for it here`)
		return node
	}

	function scheduleRepair(): void {
		cancelRepair = clock.after(repairInterval, () => void loop.repair().then(scheduleRepair))
	}

	const loop: AgentLoop = {
		async start() {
			view.onChange(changed)
			view.start()
			await view.synced
			started = true
			const at = changed()
			await Promise.allSettled([...nodes.values()].map((node) => waitFor(node, at)))
			scheduleRepair()
		},
		get applied() {
			return applied
		},
		attach(record) {
			const node = nodeOf(record.node)
			if (!node.attachments.has(record.uid)) node.attachments = node.attachments.set(record.uid, attachmentOf(record))
			return waitFor(node, changed(), record.uid)
		},
		detach(name, uid) {
			const node = nodeOf(name)
			node.attachments = node.attachments.delete(uid)
			return waitFor(node, changed(), uid)
		},
		restore(records) {
			for (const record of records) {
				const node = nodes.get(record.node)
				if (node !== undefined) node.attachments = node.attachments.set(record.uid, attachmentOf(record))
			}
		},
		async waitReconciled(name) {
			const at = revision
			await Promise.all((name === undefined ? [...nodes.values()] : [nodeOf(name)]).map((node) => waitFor(node, at)))
		},
		waitApplied(test, signal) {
			return new Promise((resolve, reject) => {
				const check = () => {
					if (applied === undefined || !test(applied)) return
					watchers.delete(check)
					signal.removeEventListener('abort', abort)
					resolve()
				}
				const abort = () => {
					watchers.delete(check)
					reject(signal.reason)
				}
				if (signal.aborted) return abort()
				signal.addEventListener('abort', abort, { once: true })
				watchers.add(check)
				check()
			})
		},
		connectedTo: (ips) => new Set([...nodes.values()].flatMap(({ planes }) => [...(planes.connectedTo?.(ips) ?? [])])),
		async repair() {
			for (const node of nodes.values()) node.repair = true
			const at = changed()
			await Promise.allSettled([...nodes.values()].map((node) => waitFor(node, at)))
		},
		async bringAgain() {
			for (const node of nodes.values()) node.again = true
			const at = changed()
			await Promise.all([...nodes.values()].map((node) => waitFor(node, at)))
		},
		async setServiceProxy(mode) {
			const before = new Map([...nodes.values()].map((node) => [node, node.planes.serviceProxy] as const))
			try {
				for (const node of nodes.values()) await node.planes.setServiceProxy?.(mode)
			} catch (e) {
				// Also the one that failed, where the new one carries already and the old one would not go.
				for (const [node, was] of before) {
					if (was === undefined || node.planes.serviceProxy === was) continue
					try {
						await node.planes.setServiceProxy?.(was)
					} catch (again) {
						events.warned?.(`service proxy of node ${node.name}`, again)
					}
				}
				throw e
			}
		},
		read: async (name) => nodeOf(name).planes.read(),
		async stop() {
			cancelRepair?.()
			await runner.stop()
			view.stop()
			await Promise.all([...nodes.values()].map((node) => node.server?.close()))
			for (const node of nodes.values()) node.planes.close()
		},
	}
	return loop
}

function attachmentOf(record: AttachmentRecord): Attachment {
	return {
		uid: record.uid,
		pod: record.pod,
		namespace: record.namespace,
		ips: record.ips,
		hostInterface: record.hostInterface,
		podInterface: 'eth0',
		mtu: record.mtu,
		because: [objectOrigin('Pod', record.pod)],
	}
}
