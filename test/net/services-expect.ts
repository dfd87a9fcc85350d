// What the suite of Service data planes asks, and how it judges the answers: servers at every place of the cluster, Services
// that follow its plan, questions with all the answers that may come.

import assert from 'node:assert/strict'
import { forgetStale, touchedFrontends } from '../../src/agent/stale-connections.ts'
import type { Ip } from '../../src/base/ip.ts'
import { openConntrack } from '../../src/linux/conntrack.ts'
import { inNetnsAt } from '../../src/linux/netns.ts'
import type { Endpoint, Service } from '../../src/model/network.ts'
import {
	type AfterBring,
	Cluster,
	externalIp,
	type Family,
	ipOf,
	type MakePlanes,
	type NodeName,
	nodeNames,
	type Place,
	podNames,
} from './services-cluster.ts'
import { askTcp, askUdp, type ServiceSketch, sketchService, tcpServer, udpServer } from './services-world.ts'

export interface World {
	readonly cluster: Cluster
	/** From now on `PLACE:PORT` answers there, TCP and UDP. */
	serve(place: Place, port: number): void
	/** The nodes carry these Services and no others. */
	bring(services: readonly Service[], after?: AfterBring): Promise<void>
	remove(): void
}

export const podPort = 8080
/** Where a hostNetwork pod answers. */
export const hostPort = 9090

export async function createWorld(make: MakePlanes): Promise<World> {
	const cluster = await Cluster.create(make)
	const servers: { close(): void }[] = []
	for (const name of [...podNames, ...nodeNames]) {
		const port = name.startsWith('node-') ? hostPort : podPort
		servers.push(tcpServer(cluster.netns(name), port, name), udpServer(cluster.netns(name), port, name))
	}
	const more = new Set<string>()
	return {
		cluster,
		serve(place, port) {
			const name = `${place}:${port}`
			if (more.has(name)) return
			more.add(name)
			servers.push(tcpServer(cluster.netns(place), port, name), udpServer(cluster.netns(place), port, name))
		},
		bring: (services, after = forgetUdp) => cluster.bring(services, after),
		remove() {
			for (const server of servers) server.close()
			cluster.remove()
		},
	}
}

/** As the agent does, so that no entry of conntrack leads where nobody serves any more. */
export const forgetUdp: AfterBring = (node, before, after) => {
	const socket = inNetnsAt(node.netns, openConntrack)
	try {
		forgetStale(socket, touchedFrontends(before, after, node.name))
	} finally {
		socket.close()
	}
}

// --- Services of the plan ---

export interface Wish {
	readonly name: string
	/** ClusterIPs 10.96.0.n and fd00:10:96::n, node ports 30000 + n. */
	readonly n: number
	readonly endpoints: readonly (Place | (Partial<Endpoint> & { readonly at: Place }))[]
	readonly type?: 'ClusterIP' | 'NodePort' | 'LoadBalancer'
	readonly vips?: readonly Ip[]
	readonly sourceRanges?: readonly string[]
	readonly ipMode?: 'VIP' | 'Proxy'
	readonly more?: Partial<Service>
}

export const servicePort = 80
export const clusterIp = (n: number, family: Family) =>
	(family === 4 ? `10.96.0.${n}` : `fd00:10:96::${n.toString(16)}`) as Ip
export const nodePort = (n: number) => 30000 + n

/** A dual-stack Service with port 80 for TCP and UDP; its endpoints are the places' servers. */
export function service(wish: Wish): Service {
	const { name, n, type = 'ClusterIP' } = wish
	const endpoints = ([4, 6] as const).flatMap((family) =>
		wish.endpoints.map((e) => {
			const { at, ...more } = typeof e === 'string' ? { at: e } : e
			const onNode = at.startsWith('node-')
			const node = onNode ? at : `node-${at[1]}`
			return { ip: ipOf(at, family), port: onNode ? hostPort : podPort, ...(at === 'outside' ? {} : { node }), ...more }
		}),
	)
	const sketch: ServiceSketch = {
		name,
		ips: [clusterIp(n, 4), clusterIp(n, 6)],
		ports: (['TCP', 'UDP'] as const).map((protocol) => ({ port: servicePort, protocol, endpoints })),
	}
	const made = sketchService(sketch)
	return {
		...made,
		type,
		ports: made.ports.map((p) => (type === 'ClusterIP' ? p : { ...p, nodePort: nodePort(n) })),
		...(type !== 'LoadBalancer'
			? {}
			: {
					loadBalancer: {
						ingress: (wish.vips ?? []).map((ip) => ({ ip, ipMode: wish.ipMode ?? 'VIP' })),
						sourceRanges: (wish.sourceRanges ?? []) as never,
						allocateNodePorts: true,
					},
				}),
		...wish.more,
	}
}

// --- what is asked, and what comes of it ---

export type Expected = readonly string[] | 'refused' | 'silence'

export interface Question {
	readonly from: Place
	readonly to: Ip | ((family: Family) => Ip)
	readonly port?: number
	/** All answers that may come, and do when one asks often enough; `NAME SOURCE`. */
	readonly gives: Expected | ((family: Family) => Expected)
	readonly protocols?: readonly ('TCP' | 'UDP')[]
}

/** Asks everything at once, both protocols and both families, each until all answers were seen. */
export async function expect(world: World, questions: readonly Question[]): Promise<void> {
	const asked = questions.flatMap((q) =>
		(typeof q.to === 'string' ? [q.to.includes(':') ? 6 : 4] : [4, 6]).flatMap((family) =>
			(q.protocols ?? ['TCP', 'UDP']).map((protocol) => ({ ...q, family: family as Family, protocol })),
		),
	)
	const wrong: string[] = []
	await Promise.all(
		asked.map(async ({ from, to, port = servicePort, gives, family, protocol }) => {
			const ip = typeof to === 'string' ? to : to(family)
			const expected = typeof gives === 'function' ? gives(family) : gives
			const seen = await askUntil(world.cluster.netns(from), ip, port, protocol, expected)
			const complaint = complain(seen, expected)
			if (complaint !== undefined) wrong.push(`${protocol} from ${from} to ${ip} port ${port}: ${complaint}`)
		}),
	)
	assert.equal(wrong.join('\n'), '')
}

/** Milliseconds for an answer that is to come: an emulated machine on a busy one takes seconds. */
const patience = 8000

async function askUntil(netns: string, ip: Ip, port: number, protocol: 'TCP' | 'UDP', expected: Expected) {
	const ask = (timeout: number) => (protocol === 'TCP' ? askTcp : askUdp)(netns, ip, port, timeout)
	if (expected === 'silence') return new Set([await ask(250)])
	const seen = new Set<string>()
	// Of k endpoints one stays unseen in 16 × k tries once in millions of runs.
	const most = expected === 'refused' ? 2 : 16 * expected.length
	for (let i = 0; i < most && (i < 3 || expected === 'refused' || seen.size < expected.length); i++)
		seen.add(await ask(patience))
	return seen
}

/** A node's own datagram is refused by its own rules: EPERM. */
const refusals = new Set(['ECONNREFUSED', 'EPERM'])

function complain(seen: ReadonlySet<string>, expected: Expected): string | undefined {
	const got = [...seen].sort()
	const text = `${JSON.stringify(got)} instead of ${JSON.stringify(expected)}`
	if (expected === 'refused') return got.every((answer) => refusals.has(answer)) ? undefined : text
	// What a node drops of its own fails there with EPERM.
	if (expected === 'silence')
		return got.every((answer) => answer === 'timeout' || answer === 'EPERM') ? undefined : text
	return got.length === expected.length && [...expected].sort().every((e, i) => e === got[i]) ? undefined : text
}

/** `NAME SOURCE` for each server, the source being the address of `source`. */
export const seenAs =
	(source: Place, ...servers: readonly Place[]) =>
	(family: Family) =>
		servers.map((name) => `${name} ${ipOf(source, family)}`)

export const at = (n: number) => (family: Family) => clusterIp(n, family)
export const nodeIp = (node: NodeName) => (family: Family) => ipOf(node, family)
export const through = (node: NodeName, host: number) => (family: Family) => externalIp(node, host, family)
export const vips = (host: number) =>
	nodeNames.flatMap((node) => ([4, 6] as const).map((family) => externalIp(node, host, family)))
