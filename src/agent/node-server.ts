// What a node answers about its Services, as kube-proxy does: /healthz and /livez on 10256, metrics on 10249 of the
// loopback, and one port for each Service with a health check node port, which tells load balancers whether this node
// has an endpoint (KEP-1669, KEP-3836).

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Clock } from '../base/clock.ts'
import { isFailure, messageOf } from '../base/failure.ts'
import { familyOf, type Ip, parseIp } from '../base/ip.ts'
import { diffTables, emptyTable, type Table } from '../base/table.ts'
import { bindTcp } from '../linux/listen.ts'
import { servingEndpoints } from '../model/endpoints.ts'
import type { NetworkModel, NodeName, Service } from '../model/network.ts'
import { nodeHealth } from '../model/node-health.ts'
import type { ObjectKey } from '../model/origin.ts'
import type { NodeMetrics } from './metrics.ts'

export const healthPort = 10256
export const metricsPort = 10249

/** Milliseconds after which a change that is not in force makes the node unhealthy (kube-proxy: twice its sync period). */
const healthTimeout = 60_000

/** How the node's programs stand, as its loop knows. */
export interface NodeProgress {
	/** When a change came that is not in force yet; milliseconds of the clock. Undefined: everything is in force. */
	readonly pendingSince?: number
	/** When the last pass ended well. Undefined: none has. */
	readonly appliedAt?: number
}

export interface NodeServer {
	/** After each pass: opens and closes health check ports. Does no work where no Service changed. */
	update(model: NetworkModel): void
	close(): Promise<void>
}

/** `listeners` that cannot be opened are said by `onFailure` and tried again with the next change of their Service. */
export function createNodeServer(options: {
	readonly node: NodeName
	/** Path of the node's network namespace. */
	readonly netns: string
	readonly clock: Clock
	readonly progress: () => NodeProgress
	readonly metrics: NodeMetrics
	readonly onFailure: (what: string, error: unknown) => void
}): NodeServer {
	const { node, netns, clock, metrics } = options
	let model: NetworkModel | undefined
	let services: Table<ObjectKey, Service> = emptyTable()
	const checks = new Map<number, { readonly service: ObjectKey; readonly server: Server }>()
	const servers = new Set<Server>()

	/** Without `ip`: on every address of the node, of both families where the kernel has both. */
	function open(
		ip: Ip | undefined,
		port: number,
		answer: (request: IncomingMessage, response: ServerResponse) => void,
	): Server {
		const fd = ip === undefined ? bindEverywhere(port) : bindTcp(netns, ip, port)
		const server = createServer({ keepAlive: true }, answer)
		server.on('error', (e) => options.onFailure(`node ${node} port ${port}`, e))
		server.listen({ fd })
		servers.add(server)
		return server
	}

	function bindEverywhere(port: number): number {
		try {
			return bindTcp(netns, parseIp('::'), port)
		} catch (e) {
			if (!isFailure(e, 'EAFNOSUPPORT') && !isFailure(e, 'EADDRNOTAVAIL')) throw e
			return bindTcp(netns, parseIp('0.0.0.0'), port)
		}
	}

	function shut(server: Server): Promise<void> {
		servers.delete(server)
		return new Promise((resolve) => {
			server.close(() => resolve())
			server.closeAllConnections()
		})
	}

	function healthy(): boolean {
		const { pendingSince, appliedAt } = options.progress()
		if (appliedAt === undefined) return false
		return pendingSince === undefined || clock.now() - pendingSince < healthTimeout
	}

	function serveHealth(request: IncomingMessage, response: ServerResponse): void {
		const path = (request.url ?? '/').split('?', 1)[0]
		if (path !== '/healthz' && path !== '/livez') {
			send(response, 404, 'text/plain', '404 page not found\n')
			return
		}
		const now = clock.now()
		const { appliedAt } = options.progress()
		const state = model?.nodes.get(node)
		// A node that is about to go takes no new traffic, but its proxy lives.
		const eligible = state === undefined || !state.leaving
		const alive = healthy()
		const ok = path === '/livez' ? alive : alive && eligible
		metrics.asked(path === '/livez' ? 'livez' : 'healthz', ok ? 200 : 503)
		// A node whose program is in force is as fresh as its clock.
		const lastUpdated = alive ? now : (appliedAt ?? 0)
		const body = {
			lastUpdated: new Date(lastUpdated).toISOString(),
			currentTime: new Date(now).toISOString(),
			...(path === '/livez' ? {} : { nodeEligible: eligible }),
		}
		send(response, ok ? 200 : 503, 'application/json', JSON.stringify(body))
	}

	function serveCheck(key: ObjectKey, response: ServerResponse): void {
		const service = model?.services.get(key)
		const count = service === undefined ? 0 : nodeHealth(service, node).localEndpoints
		const proxy = healthy()
		response.setHeader('X-Load-Balancing-Endpoint-Weight', String(count))
		send(
			response,
			count > 0 && proxy ? 200 : 503,
			'application/json',
			JSON.stringify({
				service: { namespace: service?.namespace ?? '', name: service?.name ?? '' },
				localEndpoints: count,
				serviceProxyHealthy: proxy,
			}),
		)
	}

	function tryOpen(what: string, opening: () => Server): Server | undefined {
		try {
			return opening()
		} catch (e) {
			options.onFailure(`node ${node}`, isFailure(e) ? new Error(`Cannot serve ${what}: ${messageOf(e)}`) : e)
			return undefined
		}
	}

	tryOpen(`/healthz on port ${healthPort}`, () => open(undefined, healthPort, serveHealth))
	tryOpen(`metrics on port ${metricsPort}`, () =>
		open(parseIp('127.0.0.1'), metricsPort, (request, response) => {
			const path = (request.url ?? '/').split('?', 1)[0]
			if (path === '/metrics') {
				if (model !== undefined) countNoLocal(model, node, metrics)
				metrics.text().then(
					({ type, text }) => send(response, 200, type, text),
					(e) => send(response, 500, 'text/plain', `${messageOf(e)}\n`),
				)
			} else if (path === '/healthz') send(response, 200, 'text/plain', 'ok')
			else if (path === '/proxyMode') send(response, 200, 'text/plain', metrics.mode())
			else send(response, 404, 'text/plain', '404 page not found\n')
		}),
	)

	return {
		update(next) {
			model = next
			if (next.services === services) return
			const closing: number[] = []
			const opening: { readonly port: number; readonly service: ObjectKey }[] = []
			diffTables(services, next.services, (key, a, b) => {
				if (a?.healthCheckNodePort === b?.healthCheckNodePort) return
				if (a?.healthCheckNodePort !== undefined) closing.push(a.healthCheckNodePort)
				if (b?.healthCheckNodePort !== undefined) opening.push({ port: b.healthCheckNodePort, service: key })
			})
			services = next.services
			for (const port of closing) {
				const check = checks.get(port)
				if (check === undefined) continue
				checks.delete(port)
				void shut(check.server)
			}
			for (const { port, service } of opening) {
				if (checks.has(port)) continue
				const server = tryOpen(`the health check of Service ${JSON.stringify(service)} on port ${port}`, () =>
					open(undefined, port, (_, response) => serveCheck(service, response)),
				)
				if (server !== undefined) checks.set(port, { service, server })
			}
		},
		async close() {
			await Promise.all([...servers].map(shut))
		},
	}
}

/** Services whose Local policy serves nobody here, though somebody serves elsewhere (kube-proxy's meaning of the figure). */
function countNoLocal(model: NetworkModel, node: NodeName, metrics: NodeMetrics): void {
	const zone = model.nodes.get(node)?.zone
	const families = ([4, 6] as const).filter((f) => model.config.serviceCidrs.some((cidr) => familyOf(cidr) === f))
	for (const family of families) {
		const where = { node, family, ...(zone === undefined ? {} : { zone }) }
		for (const traffic of ['internal', 'external'] as const) {
			let count = 0
			for (const service of model.services.values()) {
				const policy = traffic === 'internal' ? service.internalTrafficPolicy : service.externalTrafficPolicy
				if (policy !== 'Local' || (traffic === 'external' && !isExternal(service))) continue
				if (service.ports.some((port) => servingEndpoints(service, port, { ...where, traffic }).none === 'drop'))
					count++
			}
			metrics.noLocalEndpoints(traffic, family, count)
		}
	}
}

function isExternal(service: Service): boolean {
	return service.type === 'NodePort' || service.type === 'LoadBalancer' || service.externalIps.length > 0
}

function send(response: ServerResponse, status: number, type: string, text: string): void {
	response.writeHead(status, {
		'content-type': type,
		'content-length': Buffer.byteLength(text),
		'x-content-type-options': 'nosniff',
	})
	response.end(text)
}
