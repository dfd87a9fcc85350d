// Connections that conntrack would keep sending to where they no longer belong. UDP has no end: as long as a client
// goes on sending, its entry lives, with the endpoint it got once, or with none where there was none. So entries of
// Services whose endpoints change are compared with what may serve now (kube-proxy does the same, KEP-3866).
// TCP is left alone: its connections end, and those that are being closed in good order may do so.

import { familyOf, type Ip, type IpFamily } from '../base/ip.ts'
import { diffTables, emptyTable } from '../base/table.ts'
import { type Connection, deleteConnections, readConntrack } from '../linux/conntrack.ts'
import type { NetlinkSocket } from '../linux/netlink/socket.ts'
import { frontendsOf, nodePortIps } from '../model/frontends.ts'
import type { NetworkModel, NodeName, Service } from '../model/network.ts'
import type { ObjectKey } from '../model/origin.ts'

type Before = Pick<NetworkModel, 'services'> | undefined

/** `address port` → `address port` of every endpoint that serves there; an empty set where nobody does. */
export type TouchedFrontends = ReadonlyMap<string, ReadonlySet<string>>

/**
 * The UDP frontends of this node whose connections may be stale after a change of the model, each with the endpoints
 * that serve it. Without `before` (the agent has just started) every frontend is one.
 *
 * Which endpoints a new connection gets (policies, hints, whether they terminate) does not count: like a TCP connection
 * an exchange goes on with its endpoint, also with one that drains, as long as that serves.
 */
export function touchedFrontends(before: Before, model: NetworkModel, node: NodeName): TouchedFrontends {
	const touched = new Map<string, Set<string>>()
	const here = model.nodes.get(node)
	const nodeIps = here === undefined ? [] : nodePortIps(model, here)
	const gone: Service[] = []
	const now: Service[] = []
	diffTables(before?.services ?? emptyTable<ObjectKey, Service>(), model.services, (_, a, b) => {
		if (a !== undefined && hasUdp(a)) gone.push(a)
		if (b !== undefined && hasUdp(b)) now.push(b)
	})
	const each = (service: Service, visit: (id: string, endpoints: () => Iterable<string>) => void) => {
		for (const port of service.ports) {
			if (port.protocol !== 'UDP') continue
			const endpoints = function* () {
				for (const e of port.endpoints) if (e.ready || e.serving) yield `${e.ip} ${e.port}`
			}
			for (const frontend of frontendsOf(service, port)) {
				const ips = frontend.ip === undefined ? nodeIps.filter((ip) => familyOf(ip) === frontend.family) : [frontend.ip]
				for (const ip of ips) visit(`${ip} ${frontend.port}`, endpoints)
			}
		}
	}
	for (const service of gone) each(service, (id) => void touched.set(id, new Set()))
	for (const service of now) {
		each(service, (id, endpoints) => {
			const set = touched.get(id) ?? new Set()
			for (const endpoint of endpoints()) set.add(endpoint)
			touched.set(id, set)
		})
	}
	return touched
}

/**
 * Whether an entry leads where nobody serves any more, or where nobody served when it was made. What was never
 * translated and is still served by nobody is left: it does no harm, and a listener on the node itself may own it.
 */
export function isStale(connection: Connection, touched: TouchedFrontends): boolean {
	const { original, reply } = connection
	if (original.protocol !== 'UDP') return false
	const serving = touched.get(`${original.destination} ${original.destinationPort}`)
	if (serving === undefined) return false
	const translated = reply.source !== original.destination || reply.sourcePort !== original.destinationPort
	return translated ? !serving.has(`${reply.source} ${reply.sourcePort}`) : serving.size > 0
}

/**
 * Deletes the stale entries among `touched`; how many, by family. One dump of the namespace's UDP entries a family,
 * whatever changed.
 */
export function forgetStale(socket: NetlinkSocket, touched: TouchedFrontends): ReadonlyMap<IpFamily, number> {
	const forgotten = new Map<IpFamily, number>()
	const families = new Set([...touched.keys()].map((id) => familyOf(id.slice(0, id.indexOf(' ')) as Ip)))
	for (const family of families) {
		const stale = readConntrack(socket, { original: { protocol: 'UDP' } }, family).filter((c) => isStale(c, touched))
		forgotten.set(family, stale.length === 0 ? 0 : deleteConnections(socket, stale))
	}
	return forgotten
}

function hasUdp(service: Service): boolean {
	return service.ports.some((port) => port.protocol === 'UDP')
}
