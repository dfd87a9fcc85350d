// The external side of a lab's Services, kept at what the model says: the appliance in the router's namespace with its
// addresses and health probes, and the nodes that announce addresses. All of it is found again after a crash.

import { createPlane } from '../agent/plane.ts'
import type { BalancerPrograms } from '../agent/protocol.ts'
import { createRunner } from '../agent/runner.ts'
import type { Clock } from '../base/clock.ts'
import { cidrContains, cidrLength, familyOf, hostCidr, type Ip } from '../base/ip.ts'
import { diffTables, emptyTable, type Table } from '../base/table.ts'
import { holdersOf } from '../dataplane/loadbalancer/compile.ts'
import { changedDatagramPorts } from '../dataplane/loadbalancer/flush.ts'
import { tableName as balancerTable, names } from '../dataplane/loadbalancer/layout.ts'
import { createBalancer } from '../dataplane/loadbalancer/loadbalancer.ts'
import { deleteConnections, openConntrack, readConntrack } from '../linux/conntrack.ts'
import { NetlinkEncoder } from '../linux/netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../linux/netlink/socket.ts'
import { inNetnsAt } from '../linux/netns.ts'
import { type NftProgram, tableKey } from '../linux/nft/program.ts'
import { deleteAddress, readAddresses } from '../linux/route/addresses.ts'
import { addServedAddress } from '../linux/route/dummy.ts'
import { readLink } from '../linux/route/links.ts'
import { electNode, servesExternally, takesPart, wayOf } from '../model/load-balancer.ts'
import type { NetworkModel, Node, NodeName, Service } from '../model/network.ts'
import type { ObjectKey } from '../model/origin.ts'
import { nodeInterface, underlayInterface } from './addresses.ts'
import { type Announcer, createAnnouncer } from './external-announce.ts'
import { askHealth, believe, type HealthAnswer, type HealthBelief, type HealthCheck } from './external-health.ts'
import type { FamilyNetworks } from './ip-family.ts'
import { outsideInterface } from './outside.ts'
import type { Underlay } from './underlay.ts'

/** kube-proxy's own health, which clouds ask for Services with policy Cluster (KEP-3836). */
const proxyHealthPort = 10256
/** Milliseconds between two rounds of probes, and how long one may take. */
const probeInterval = 500
const probeTimeout = 400
/** Milliseconds in which changes are gathered after one was brought about. */
const gather = 50
/** Milliseconds between two looks at what is really installed. */
const repairInterval = 30_000
/** When a move is told again, milliseconds: a neighbour may have been busy, or may not take two changes at once. */
const retell = [1_100, 3_000]

export interface External {
	/** Follows a model that is in force on the nodes. */
	applied(model: NetworkModel): void
	/** What is installed, read back. */
	read(): Promise<BalancerPrograms>
	/** Undoes what somebody else changed; how many changes that took. */
	repair(): Promise<number>
	stop(): Promise<void>
}

/** As much of the model as concerns load balancers of ours: a Service without one costs nothing here. */
type BalancedModel = Pick<NetworkModel, 'services' | 'nodes'>

export function createExternal(options: {
	readonly underlay: Pick<Underlay, 'netns' | 'netnsOf' | 'ips'>
	readonly networks: readonly Pick<FamilyNetworks, 'underlay'>[]
	readonly nodes: readonly { readonly name: NodeName }[]
	readonly clock: Clock
	readonly onFailure: (what: string, error: unknown) => void
	/** Hears of nodes that begin or cease to pass a health check. */
	readonly onHealth?: (text: string) => void
}): External {
	const { underlay, clock } = options
	const { netns } = underlay
	const edge = { outsideInterface, nodesInterface: underlayInterface, nodes: options.networks.map((n) => n.underlay) }
	const balancer = createBalancer({ netns, edge, addresses: underlay.ips })
	const plane = createPlane('load balancer', balancer)
	const router = inNetnsAt(netns, () => new NetlinkSocket(NETLINK_ROUTE))
	const conntrack = inNetnsAt(netns, openConntrack)
	const encoder = new NetlinkEncoder(4096)
	const { index: routerIndex } = readLink(router, underlayInterface)
	const announcers = new Map<NodeName, Announcer>(
		options.nodes.map(({ name }) => [name, createAnnouncer(underlay.netnsOf(name), nodeInterface)]),
	)
	const cancels = new Set<() => void>()
	const beliefs = new Map<string, HealthBelief>()
	/** Nodes that were just found dead: what goes to them is not ended yet. */
	const died = new Set<NodeName>()
	let all: Table<ObjectKey, Service> = emptyTable()
	let model: BalancedModel | undefined
	let inForce: NftProgram | undefined
	let stopped = false
	let probing = false

	/** One at a time touches the kernel. */
	let last: Promise<unknown> = Promise.resolve()
	function alone<T>(task: () => Promise<T>): Promise<T> {
		const next = last.then(task)
		last = next.catch(() => undefined)
		return next
	}
	const runner = createRunner(clock, gather, async () => {
		try {
			await alone(bring)
			return undefined
		} catch (e) {
			options.onFailure('load balancer', e)
			return 1_000
		}
	})

	/** As the last probes say; what was not asked yet passes. */
	function isHealthy(key: ObjectKey, node: NodeName): boolean {
		const local = model?.services.get(key)?.healthCheckNodePort !== undefined
		const ids = local ? [node, `${node} ${key}`] : [node]
		return ids.every((id) => beliefs.get(id)?.healthy !== false)
	}

	async function bring(): Promise<void> {
		const now = model
		if (now === undefined || stopped) return
		const before = inForce
		const program = balancer.compile(now, isHealthy)
		// New addresses first, so that no packet finds the rules without them; what goes, goes last.
		const wanted = new Set<Ip>()
		for (const family of ['ip', 'ip6'] as const) {
			const table = program.tables.get(tableKey(family, balancerTable))
			for (const ip of table?.sets.get(names.addresses)?.elements.keys() ?? []) wanted.add(ip as Ip)
		}
		const have = new Set(
			readAddresses(router).flatMap(({ index, ip, prefixLength }) =>
				index === routerIndex && prefixLength === cidrLength(hostCidr(ip)) ? [ip] : [],
			),
		)
		// Nor does the router speak from one: a node would answer its health probes to the load balancer.
		for (const ip of wanted) if (!have.has(ip)) addServedAddress(encoder, routerIndex, ip)
		if (encoder.length > 0) router.request(encoder)
		await plane.bring(program)
		inForce = program
		for (const ip of have) if (!wanted.has(ip)) deleteAddress(encoder, routerIndex, ip, cidrLength(hostCidr(ip)))
		if (encoder.length > 0) router.request(encoder)
		forget(before, program)
		endConnections(now, wanted)
		announce(now)
		if (!probing && checksOf(now).length > 0) void probe()
	}

	/**
	 * UDP has no end: a client that never falls silent would go on being sent to the node it once got, or, where it asked
	 * before there was a load balancer, nowhere. TCP ends by itself.
	 */
	function forget(before: NftProgram | undefined, after: NftProgram): void {
		for (const { destination, port, targets } of changedDatagramPorts(before, after)) {
			const filter = { original: { protocol: 'UDP', destination, destinationPort: port } } as const
			const stale = readConntrack(conntrack, filter, familyOf(destination)).filter(
				({ reply }) => !targets.has(`${reply.source} . ${reply.sourcePort}`),
			)
			if (stale.length > 0) deleteConnections(conntrack, stale)
		}
	}

	/**
	 * A node that is gone answers nobody: a client that goes on sending to it would wait until its own TCP gives up, a
	 * quarter of an hour. Forgotten here, its next packet goes to another node, where a pod knows of no such connection and
	 * resets it. Not where a node says that it is unwell, or is taken out: what it has, it ends in good order.
	 */
	function endConnections(now: BalancedModel, addresses: ReadonlySet<Ip>): void {
		for (const name of died) {
			for (const ip of now.nodes.get(name)?.addresses ?? []) {
				const filter = { reply: { protocol: 'TCP', source: ip } } as const
				const dead = readConntrack(conntrack, filter, familyOf(ip)).filter(({ original }) =>
					addresses.has(original.destination),
				)
				if (dead.length > 0) deleteConnections(conntrack, dead)
			}
		}
		died.clear()
	}

	function announce(now: BalancedModel): void {
		const byNode = new Map<NodeName, Set<Ip>>([...announcers.keys()].map((name) => [name, new Set()]))
		for (const [ip, services] of holdersOf(now)) {
			if (wayOf(services) !== 'announce' || !edge.nodes.some((cidr) => cidrContains(cidr, ip))) continue
			// A node that the probes found dead announces nothing, though its object may still say that it is ready.
			const node = electNode(now, ip, services, isHealthy)
			if (node !== undefined) byNode.get(node.name)?.add(ip)
		}
		// The old node falls silent before the new one speaks up.
		const ordered = [...announcers].sort(([a], [b]) => byNode.get(a)!.size - byNode.get(b)!.size)
		for (const [name, announcer] of ordered) {
			const ips = byNode.get(name)!
			const keep = new Set(announcer.read().filter((ip) => ips.has(ip)))
			announcer.bring(keep)
		}
		for (const [name, announcer] of ordered) for (const ip of announcer.bring(byNode.get(name)!)) tell(announcer, ip)
	}

	function tell(announcer: Announcer, ip: Ip): void {
		const say = () => {
			try {
				announcer.tell(ip)
			} catch (e) {
				options.onFailure(`announcement of ${ip}`, e)
			}
		}
		say()
		for (const wait of retell) {
			const cancel = clock.after(wait, () => {
				cancels.delete(cancel)
				if (announcer.read().includes(ip)) say()
			})
			cancels.add(cancel)
		}
	}

	function repair(): Promise<number> {
		return alone(async () => {
			for (const announcer of announcers.values()) announcer.forget()
			const changes = await plane.repair()
			// Addresses are read back each time.
			await bring()
			return changes
		})
	}

	function repairLater(): void {
		const cancel = clock.after(repairInterval, () => {
			cancels.delete(cancel)
			repair()
				.then((changes) => {
					if (changes > 0)
						options.onHealth?.('somebody else had changed the load balancer; it is as it should be again')
				})
				.catch((e) => options.onFailure('load balancer', e))
				.finally(() => {
					if (!stopped) repairLater()
				})
		})
		cancels.add(cancel)
	}
	repairLater()

	function checksOf(now: BalancedModel): HealthCheck[] {
		const services = [...now.services.values()]
		if (services.length === 0) return []
		return [...now.nodes.values()].flatMap((node) => checksOfNode(node, services))
	}

	async function probe(): Promise<void> {
		probing = true
		try {
			while (!stopped && model !== undefined) {
				const checks = checksOf(model)
				if (checks.length === 0) return
				const began = clock.now()
				note(checks, await askHealth(netns, checks, probeTimeout))
				const pause = Promise.withResolvers<void>()
				const cancel = clock.after(Math.max(0, began + probeInterval - clock.now()), pause.resolve)
				const undo = () => {
					cancel()
					pause.resolve()
				}
				cancels.add(undo)
				await pause.promise
				cancels.delete(undo)
			}
		} catch (e) {
			options.onFailure('health probes', e)
		} finally {
			probing = false
		}
	}

	function note(checks: readonly HealthCheck[], answers: ReadonlyMap<string, HealthAnswer>): void {
		const ids = new Set(checks.map((check) => check.id))
		let changed = false
		for (const id of [...beliefs.keys()]) if (!ids.has(id)) beliefs.delete(id)
		for (const id of ids) {
			const before = beliefs.get(id)
			const after = believe(before, answers.get(id))
			beliefs.set(id, after)
			if ((before?.healthy ?? true) === after.healthy) continue
			changed = true
			const [node = '', service] = id.split(' ')
			if (service === undefined && after.fault?.mute === true) died.add(node)
			// A node without an endpoint fails as it should: that is no news.
			const asked = service === undefined ? undefined : model?.services.get(service)
			if (asked !== undefined && !servesExternally(asked, node)) continue
			const of = service === undefined ? '' : ` of Service "${service}"`
			options.onHealth?.(
				`node ${node} ${after.healthy ? 'passes' : 'fails'} the load balancer's health check${of}${after.healthy ? '' : `: ${after.fault?.why}`}`,
			)
		}
		if (changed) runner.trigger()
	}

	return {
		applied(next) {
			const services = (model?.services ?? emptyTable<ObjectKey, Service>()).mutate((draft) => {
				diffTables(all, next.services, (key, _, service) => {
					if (service !== undefined && isBalanced(service)) draft.set(key, service)
					else if (draft.has(key)) draft.delete(key)
				})
			})
			all = next.services
			if (model?.services === services && model.nodes === next.nodes) return
			model = { services, nodes: next.nodes }
			runner.trigger()
		},
		async read() {
			const announced: Record<Ip, NodeName> = {}
			for (const [name, announcer] of announcers) for (const ip of announcer.read()) announced[ip] = name
			const interfaces = { outside: outsideInterface, nodes: underlayInterface }
			return { nftables: await plane.read(), announced, interfaces, addresses: underlay.ips }
		},
		repair: () => repair(),
		async stop() {
			stopped = true
			for (const cancel of cancels) cancel()
			await runner.stop()
			await last
			balancer.close()
			router.close()
			conntrack.close()
			for (const announcer of announcers.values()) announcer.close()
		},
	}
}

function isBalanced({ loadBalancer }: Service): boolean {
	return loadBalancer?.by !== undefined && loadBalancer.ingress.length > 0
}

/** What the load balancer asks a node: its service proxy's health, and for each Service with policy Local its own port. */
function checksOfNode(node: Node, services: readonly Service[]): HealthCheck[] {
	const ip = node.addresses.find((a) => familyOf(a) === 4) ?? node.addresses[0]
	if (ip === undefined || (!takesPart(node).takes && node.ready)) return []
	const checks: HealthCheck[] = [{ id: node.name, ip, port: proxyHealthPort, path: '/healthz' }]
	for (const { key, healthCheckNodePort } of services) {
		if (healthCheckNodePort === undefined) continue
		checks.push({ id: `${node.name} ${key}`, ip, port: healthCheckNodePort, path: '/healthz' })
	}
	return checks
}
