// A node's figures under kube-proxy's names (KEP-3866, kubernetes-mixin), so that dashboards of today show them.
// Written down at no cost while the node works; the library that prints them is loaded with the first question.

import type { Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { IpFamily } from '../base/ip.ts'
import type { ServiceProxyMode } from '../dataplane/dataplane.ts'
import type { ApiRequest } from '../kube/observed.ts'
import type { FlowCounts } from './flows.ts'

export interface NodeMetrics {
	/** Those in which the node has Services; IPv4 until it is said. Both are programmed in one pass, and so have its figures. */
	setFamilies(families: readonly IpFamily[]): void
	/** A change came that is to be programmed. Counts of objects that changed. */
	queued(changes: { readonly services: number; readonly endpoints: number }): void
	/** A pass over Services ended; seconds it took. */
	synced(seconds: number, ok: boolean): void
	/** Seconds from the change that caused an EndpointSlice to its being in force here. */
	programmed(seconds: number): void
	/** Services whose Local policy serves nobody on this node. */
	noLocalEndpoints(traffic: 'internal' | 'external', family: IpFamily, count: number): void
	/** Connection tracking was compared with the endpoints; entries deleted, and the seconds it took. */
	reconciled(deleted: ReadonlyMap<IpFamily, number>, seconds: number): void
	/** The agent asked the API server. */
	requested(request: ApiRequest): void
	cleanupFailed(): void
	asked(what: 'healthz' | 'livez', code: number): void
	mode(): ServiceProxyMode
	setMode(mode: ServiceProxyMode): void
	/** Prometheus' text format. */
	text(): Promise<{ readonly type: string; readonly text: string }>
}

const noFlows: FlowCounts = { processed: new Map(), dropped: new Map(), lost: 0, unlogged: new Map() }

/** As kube-proxy has them, seconds. */
const syncBuckets = Array.from({ length: 15 }, (_, i) => 0.001 * 2 ** i)
const programmingBuckets = [
	0.25,
	0.5,
	...Array.from({ length: 59 }, (_, i) => i + 1),
	...Array.from({ length: 12 }, (_, i) => 60 + i * 5),
	...Array.from({ length: 7 }, (_, i) => 120 + i * 30),
]
/** Ours are quicker than the first of those. */
const fastBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1]
/** As client-go has them, seconds. */
const requestBuckets = [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60]

interface Printed {
	readonly registry: Registry
	readonly duration: Histogram
	readonly latency: Histogram
	readonly lastSync: Gauge
	readonly lastQueued: Gauge
	readonly changes: Readonly<Record<'services' | 'endpoints', { readonly pending: Gauge; readonly total: Counter }>>
	readonly noLocal: Gauge
	readonly syncFailures: Counter
	readonly restoreFailures: Counter
	readonly reconcileTime: Histogram
	readonly reconcileDeleted: Counter
	readonly requests: Counter
	readonly requestTime: Histogram
	readonly cleanupFailures: Counter
	readonly health: Readonly<Record<'healthz' | 'livez', Counter>>
}

/** `now`: seconds since 1970. `flows`: asked with each question. */
export function createNodeMetrics(
	mode: ServiceProxyMode,
	now: () => number,
	flows: () => FlowCounts = () => noFlows,
): NodeMetrics {
	/** What happened before anybody asked. */
	const waiting: ((p: Printed) => void)[] = []
	const waitingLimit = 10_000
	let printed: Printed | undefined
	let loading: Promise<Printed> | undefined
	let current = mode
	let families: readonly IpFamily[] = [4]

	function note(action: (p: Printed) => void): void {
		if (printed !== undefined) action(printed)
		else if (waiting.length < waitingLimit) waiting.push(action)
		else void load()
	}

	/** The same for each family the node has by then. */
	function noteEach(action: (p: Printed, ip_family: string) => void): void {
		note((p) => {
			for (const family of families) action(p, textOf(family))
		})
	}

	function load(): Promise<Printed> {
		loading ??= createPrinted(flows).then((p) => {
			printed = p
			for (const family of families) zero(p, textOf(family))
			for (const action of waiting.splice(0)) action(p)
			return p
		})
		return loading
	}

	return {
		queued({ services, endpoints }) {
			const at = now()
			noteEach((p, ip_family) => {
				p.lastQueued.set({ ip_family }, at)
				for (const [name, count] of [
					['services', services],
					['endpoints', endpoints],
				] as const) {
					if (count === 0) continue
					p.changes[name].pending.inc({ ip_family }, count)
					p.changes[name].total.inc({ ip_family }, count)
				}
			})
		},
		synced(seconds, ok) {
			const at = now()
			const by = current
			noteEach((p, ip_family) => {
				p.duration.observe({ ip_family }, seconds)
				if (ok) {
					p.lastSync.set({ ip_family }, at)
					p.changes.services.pending.set({ ip_family }, 0)
					p.changes.endpoints.pending.set({ ip_family }, 0)
				} else if (by === 'iptables') p.restoreFailures.inc({ ip_family })
				else p.syncFailures.inc({ ip_family })
			})
		},
		setFamilies(next) {
			if (next.length > 0) families = next
		},
		programmed: (seconds) => noteEach((p, ip_family) => p.latency.observe({ ip_family }, seconds)),
		noLocalEndpoints: (traffic, family, count) =>
			note((p) => p.noLocal.set({ traffic_policy: traffic, ip_family: textOf(family) }, count)),
		cleanupFailed: () => noteEach((p, ip_family) => p.cleanupFailures.inc({ ip_family })),
		reconciled: (deleted, seconds) =>
			note((p) => {
				for (const [family, count] of deleted) {
					const labels = { ip_family: textOf(family) }
					p.reconcileTime.observe(labels, seconds)
					p.reconcileDeleted.inc(labels, count)
				}
			}),
		requested: ({ method, code, host, seconds }) =>
			note((p) => {
				p.requests.inc({ code, method, host })
				p.requestTime.observe({ verb: method, host }, seconds)
			}),
		asked: (what, code) => note((p) => p.health[what].inc({ code })),
		mode: () => current,
		setMode(next) {
			current = next
		},
		async text() {
			const { registry } = await load()
			return { type: registry.contentType, text: await registry.metrics() }
		},
	}
}

function textOf(family: IpFamily): string {
	return `IPv${family}`
}

/** What has not happened yet is printed as 0, so that its rate is known from the first time on. */
function zero(p: Printed, ip_family: string): void {
	for (const name of ['services', 'endpoints'] as const) {
		p.changes[name].pending.inc({ ip_family }, 0)
		p.changes[name].total.inc({ ip_family }, 0)
	}
	for (const counter of [p.syncFailures, p.restoreFailures, p.cleanupFailures, p.reconcileDeleted])
		counter.inc({ ip_family }, 0)
}

async function createPrinted(flows: () => FlowCounts): Promise<Printed> {
	const { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } = await import('prom-client')
	const registry = new Registry()
	const registers = [registry]
	collectDefaultMetrics({ register: registry })
	const labelNames = ['ip_family']
	const changes = (what: 'service' | 'endpoint', text: string) => ({
		pending: new Gauge({
			name: `kubeproxy_sync_proxy_rules_${what}_changes_pending`,
			help: `Changes of ${text} that are not programmed yet`,
			labelNames,
			registers,
		}),
		total: new Counter({
			name: `kubeproxy_sync_proxy_rules_${what}_changes_total`,
			help: `Changes of ${text} seen`,
			labelNames,
			registers,
		}),
	})
	const health = (what: 'healthz' | 'livez') =>
		new Counter({
			name: `proxy_${what}_total`,
			help: `Answers of /${what} by HTTP status`,
			labelNames: ['code'],
			registers,
		})
	registerFlows(Counter, registers, flows)
	return {
		registry,
		duration: new Histogram({
			name: 'kubeproxy_sync_proxy_rules_duration_seconds',
			help: 'Time to program the Services of the node',
			labelNames,
			buckets: syncBuckets,
			registers,
		}),
		latency: new Histogram({
			name: 'kubeproxy_network_programming_duration_seconds',
			help: 'Time from the change of a pod or Service to its being programmed',
			labelNames,
			buckets: [...fastBuckets, ...programmingBuckets],
			registers,
		}),
		lastSync: new Gauge({
			name: 'kubeproxy_sync_proxy_rules_last_timestamp_seconds',
			help: 'When Services were last programmed, seconds since 1970',
			labelNames,
			registers,
		}),
		lastQueued: new Gauge({
			name: 'kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds',
			help: 'When a change last came, seconds since 1970',
			labelNames,
			registers,
		}),
		changes: {
			services: changes('service', 'Services'),
			endpoints: changes('endpoint', 'EndpointSlices'),
		},
		noLocal: new Gauge({
			name: 'kubeproxy_sync_proxy_rules_no_local_endpoints_total',
			help: 'Services with a Local traffic policy and no endpoint on this node',
			labelNames: ['traffic_policy', ...labelNames],
			registers,
		}),
		syncFailures: new Counter({
			name: 'kubeproxy_sync_proxy_rules_nftables_sync_failures_total',
			help: 'Transactions the kernel refused',
			labelNames,
			registers,
		}),
		restoreFailures: new Counter({
			name: 'kubeproxy_sync_proxy_rules_iptables_restore_failures_total',
			help: 'Runs of iptables-restore that failed',
			labelNames,
			registers,
		}),
		reconcileTime: new Histogram({
			name: 'kubeproxy_conntrack_reconciler_sync_duration_seconds',
			help: 'Time to compare connection tracking with the endpoints',
			labelNames,
			buckets: syncBuckets,
			registers,
		}),
		reconcileDeleted: new Counter({
			name: 'kubeproxy_conntrack_reconciler_deleted_entries_total',
			help: 'Entries of UDP deleted because their endpoint serves no more',
			labelNames,
			registers,
		}),
		requests: new Counter({
			name: 'rest_client_requests_total',
			help: "The agent's requests to the API server, by status, method and host",
			labelNames: ['code', 'method', 'host'],
			registers,
		}),
		requestTime: new Histogram({
			name: 'rest_client_request_duration_seconds',
			help: 'Time until the API server began to answer',
			labelNames: ['verb', 'host'],
			buckets: requestBuckets,
			registers,
		}),
		cleanupFailures: new Counter({
			name: 'kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total',
			help: 'What could not be taken out of the kernel',
			labelNames,
			registers,
		}),
		health: { healthz: health('healthz'), livez: health('livez') },
	}
}

/** Under Hubble's names where Hubble counts the same. Their labels have a handful of values each, whatever flows. */
function registerFlows(Counters: typeof Counter, registers: Registry[], flows: () => FlowCounts): void {
	const counted = (
		name: string,
		help: string,
		labelNames: readonly string[],
		counts: (now: FlowCounts) => ReadonlyMap<string, number>,
	) =>
		new Counters({
			name,
			help,
			labelNames: [...labelNames],
			registers,
			collect() {
				this.reset()
				for (const [key, count] of counts(flows())) {
					const words = key.split(' ')
					this.inc(Object.fromEntries(labelNames.map((label, i) => [label, words[i] ?? ''])), count)
				}
			},
		})
	counted(
		'hubble_flows_processed_total',
		'Flows told, by verdict; allowed ones are told while somebody observes',
		['verdict', 'protocol'],
		(now) => now.processed,
	)
	counted(
		'hubble_drop_total',
		'Packets that policies dropped and the log told of',
		['reason', 'protocol'],
		(now) => now.dropped,
	)
	counted(
		'podwire_flow_packets_unlogged_total',
		'Packets that policies dropped (or would have) and that the limit of the log kept quiet',
		['verdict'],
		(now) => now.unlogged,
	)
	counted(
		'podwire_flow_events_lost_total',
		"Events of flows that did not fit the kernel's buffer",
		[],
		(now) => new Map([['', now.lost]]),
	)
}
