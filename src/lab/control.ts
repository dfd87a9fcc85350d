// The lab's control socket: HTTP over a unix socket that only its owner may open. Status, progress, sources, the
// nodes' programs, probes, and the Kubernetes API as administrator.

import { chmodSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { FlowMessage } from '../agent/flow-event.ts'
import type { FlowQuery } from '../agent/flow-log.ts'
import type { NodeAgentApi, ProbeRequest } from '../agent/protocol.ts'
import { answerRequest, answerUpgrade } from '../apiserver/listen.ts'
import { type ApiServer, admin } from '../apiserver/server.ts'
import { isFailure, messageOf } from '../base/failure.ts'
import type { AnsweredName } from '../dataplane/dns/answered.ts'
import { linksToJson } from '../dataplane/links/program.ts'
import type { OwnContext } from '../kube/kubeconfig.ts'
import type { Scheduler } from '../linux/ipvs/ipvs.ts'
import { toJson } from '../linux/nft/program.ts'
import type { ObjectSource } from '../model/state.ts'
import type { LabConfig } from './config.ts'
import type { PolicyChoice } from './policy-settings.ts'
import type { ServiceProxyChoice } from './service-proxy.ts'
import type { LabEvent, LabStatus } from './status.ts'

export type Sources = Readonly<Record<string, ObjectSource>>

export interface ControlHandlers {
	status(): LabStatus
	/** What was said so far, then what comes. */
	events(signal: AbortSignal): AsyncIterable<LabEvent>
	getSources(): Sources
	/** Durable when it returns. */
	putSources(sources: Sources): void
	/** In force for containers started from now on. */
	putConfig(config: LabConfig): void
	/** undefined on paper, and while starting. */
	readonly agent: NodeAgentApi | undefined
	/** Served below /kube as administrator, upgrades too; undefined while starting. */
	readonly api: ApiServer | undefined
	/** What a kubeconfig needs; undefined while starting. */
	readonly context: OwnContext | undefined
	/** What is remembered of the nodes' flows, then (follow) what comes. Throws Failure Unavailable without a kernel. */
	flows(query: FlowQuery, signal: AbortSignal): AsyncIterable<FlowMessage>
	/** Reads every node back and repairs what somebody else changed. */
	repair(): Promise<void>
	/** Cuts a node off, or brings it back. Throws Failure NotFound, Unavailable while starting. */
	setNode(name: string, running: boolean): Promise<void>
	/** Changes the data plane that carries Services, on every node. Throws Failure Unsupported, Unavailable. */
	setServiceProxy(choice: ServiceProxyChoice, scheduler?: Scheduler): Promise<void>
	/** What the cluster's DNS servers answered with addresses, and still holds; none on paper. */
	answeredNames(): Promise<readonly AnsweredName[]>
	/** Enforces policies in another way, on every node; what is absent stays. Throws Failure CannotWrite, or what a node refused. */
	putPolicies(choice: PolicyChoice): Promise<void>
	/** Ends the lab; answers when all of it is gone but the daemon itself. */
	stop(): Promise<void>
}

/** Whoever may open the socket is the cluster's administrator. */
const asAdmin = { identify: () => admin, prefix: '/kube' }

/** Largest body of a request to the control socket itself: the sources of a large application. */
const bodyLimit = 256 * 1024 * 1024

export function listenControl(path: string, handlers: ControlHandlers): Promise<Server> {
	rmSync(path, { force: true })
	// Idle connections are the client's to close: where the server does, the next request may be on its way already.
	const server = createServer({ keepAlive: true, keepAliveTimeout: 0, requestTimeout: 0 }, (message, response) => {
		serve(message, response, handlers).catch((e) => {
			const code = isFailure(e) ? e.code : 'Internal'
			if (response.headersSent) response.destroy()
			else
				sendJson(response, code === 'NotFound' ? 404 : code === 'BadRequest' ? 400 : 500, {
					error: { code, message: messageOf(e) },
				})
		})
	})
	server.on('upgrade', (message, socket, head) => {
		if (handlers.api === undefined) socket.destroy()
		else answerUpgrade(handlers.api, message, socket, head, asAdmin)
	})
	return new Promise((resolve, reject) => {
		server.once('error', reject)
		const old = process.umask(0o177)
		server.listen(path, () => {
			chmodSync(path, 0o600)
			resolve(server)
		})
		process.umask(old)
	})
}

async function serve(message: IncomingMessage, response: ServerResponse, handlers: ControlHandlers): Promise<void> {
	const url = message.url ?? '/'
	const path = url.split('?', 1)[0] as string
	const route = `${message.method} ${path}`
	if (url.startsWith('/kube/')) {
		if (handlers.api === undefined) return unavailable(response, 'the API server is not running')
		await answerRequest(handlers.api, message, response, asAdmin)
		return
	}
	switch (route) {
		case 'GET /status':
			return sendJson(response, 200, handlers.status())
		case 'GET /events':
			return sendLines(response, (signal) => handlers.events(signal))
		case 'GET /flows': {
			const query = JSON.parse(new URL(url, 'http://lab').searchParams.get('query') ?? '{}') as Partial<FlowQuery>
			const whole = { filter: {}, follow: false, ...query }
			return sendLines(response, (signal) => handlers.flows(whole, signal))
		}
		case 'GET /context':
			if (handlers.context === undefined) return unavailable(response, 'the API server is not running')
			return sendJson(response, 200, handlers.context)
		case 'GET /sources':
			return sendJson(response, 200, handlers.getSources())
		case 'PUT /sources':
			handlers.putSources((await readJson(message)) as Sources)
			return sendJson(response, 200, {})
		case 'PUT /config':
			handlers.putConfig((await readJson(message)) as LabConfig)
			return sendJson(response, 200, {})
		case 'POST /probe': {
			if (handlers.agent === undefined) return unavailable(response, 'there is no kernel to probe')
			return sendJson(response, 200, await handlers.agent.probe((await readJson(message)) as ProbeRequest))
		}
		case 'GET /balancer': {
			const read = await handlers.agent?.readBalancer?.()
			if (read === undefined) return unavailable(response, 'there is no kernel to read')
			return sendJson(response, 200, { ...read, nftables: toJson(read.nftables) })
		}
		case 'POST /repair':
			await handlers.repair()
			return sendJson(response, 200, {})
		case 'PUT /service-proxy': {
			const { mode, scheduler } = (await readJson(message)) as { mode: ServiceProxyChoice; scheduler?: Scheduler }
			await handlers.setServiceProxy(mode, scheduler)
			return sendJson(response, 200, {})
		}
		case 'GET /names':
			return sendJson(response, 200, await handlers.answeredNames())
		case 'PUT /policies':
			await handlers.putPolicies((await readJson(message)) as PolicyChoice)
			return sendJson(response, 200, {})
		case 'POST /stop':
			await handlers.stop()
			return sendJson(response, 200, {})
		default: {
			const power = /^POST \/nodes\/([^/]+)\/(stop|start)$/.exec(route)
			if (power !== null) {
				await handlers.setNode(decodeURIComponent(power[1] as string), power[2] === 'start')
				return sendJson(response, 200, {})
			}
			const programs = /^GET \/nodes\/([^/]+)\/programs$/.exec(route)
			if (programs === null)
				return sendJson(response, 404, { error: { code: 'NotFound', message: `no such path ${route}` } })
			if (handlers.agent === undefined) return unavailable(response, 'there is no kernel to read')
			const read = await handlers.agent.read(decodeURIComponent(programs[1] as string))
			return sendJson(response, 200, {
				node: read.node,
				links: linksToJson(read.links),
				nftables: toJson(read.nftables),
				serviceProxy: read.serviceProxy,
				proxies: read.proxies,
			})
		}
	}
}

/** One JSON document a line, until they end or the reader goes. A reader who is slow holds back only his own. */
async function sendLines(
	response: ServerResponse,
	lines: (signal: AbortSignal) => AsyncIterable<unknown>,
): Promise<void> {
	const abort = new AbortController()
	response.once('close', () => abort.abort())
	const source = lines(abort.signal)
	response.writeHead(200, { 'content-type': 'application/x-ndjson' })
	response.flushHeaders()
	for await (const line of source) {
		if (response.write(`${JSON.stringify(line)}\n`)) continue
		await new Promise<void>((resolve) => {
			const go = () => {
				response.off('drain', go)
				abort.signal.removeEventListener('abort', go)
				resolve()
			}
			response.once('drain', go)
			abort.signal.addEventListener('abort', go, { once: true })
		})
	}
	response.end()
}

function unavailable(response: ServerResponse, message: string): void {
	sendJson(response, 503, { error: { code: 'Unavailable', message } })
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
	const text = JSON.stringify(body)
	response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) })
	response.end(text)
}

async function readJson(message: IncomingMessage): Promise<unknown> {
	const chunks: Buffer[] = []
	let size = 0
	for await (const chunk of message) {
		size += (chunk as Buffer).length
		if (size > bodyLimit) throw new Error(`the body is larger than ${bodyLimit} bytes`)
		chunks.push(chunk as Buffer)
	}
	return JSON.parse(Buffer.concat(chunks).toString('utf8'))
}
