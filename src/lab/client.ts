// A running lab from outside: its control socket as functions.

import { request as httpRequest } from 'node:http'
import type { FlowMessage } from '../agent/flow-event.ts'
import type { FlowQuery } from '../agent/flow-log.ts'
import type { BalancerPrograms, NodeAgentApi, NodePrograms, ProbeResult } from '../agent/protocol.ts'
import { Failure } from '../base/failure.ts'
import type { AnsweredName } from '../dataplane/dns/answered.ts'
import { type LinksProgramJson, linksFromJson } from '../dataplane/links/program.ts'
import type { OwnContext } from '../kube/kubeconfig.ts'
import type { Transport } from '../kube/transport.ts'
import type { Scheduler } from '../linux/ipvs/ipvs.ts'
import { fromJson } from '../linux/nft/program.ts'
import type { LabConfig } from './config.ts'
import type { Sources } from './control.ts'
import { unixTransport } from './http.ts'
import { labPaths } from './paths.ts'
import type { PolicyChoice } from './policy-settings.ts'
import type { ServiceProxyChoice } from './service-proxy.ts'
import type { LabEvent, LabStatus } from './status.ts'

export interface LabClient {
	readonly name: string
	status(): Promise<LabStatus>
	/** What was said since the daemon started, then what comes, until it ends or `signal` aborts. */
	events(signal?: AbortSignal): AsyncIterable<LabEvent>
	/** What the nodes remember of their flows, then (follow) what comes. Throws Failure Unavailable where there is no kernel. */
	flows(query: FlowQuery, signal?: AbortSignal): AsyncIterable<FlowMessage>
	/** The Kubernetes API as the cluster's administrator. */
	readonly transport: Transport
	readonly agent: NodeAgentApi
	/** What a kubeconfig needs to reach the cluster as administrator. */
	context(): Promise<OwnContext>
	putSources(sources: Sources): Promise<void>
	getSources(): Promise<Sources>
	/** The image map for containers started from now on; running ones stay as they are. */
	putConfig(config: LabConfig): Promise<void>
	/** Reads every node back now and repairs what somebody else changed; a warning event says so. */
	repair(): Promise<void>
	/** Cuts a node off: its kubelet falls silent and its cable is pulled. Throws Failure NotFound. */
	stopNode(node: string): Promise<void>
	/** Brings it back. */
	startNode(node: string): Promise<void>
	/** Changes the data plane that carries Services, and how IPVS chooses. Throws Failure Unsupported with the reason. */
	setServiceProxy(choice: ServiceProxyChoice, scheduler?: Scheduler): Promise<void>
	/** What the cluster's DNS servers answered with addresses, and still holds. */
	answeredNames(): Promise<readonly AnsweredName[]>
	/** How policies are enforced from now on. Throws Failure Unavailable while the lab starts, or what a node refused. */
	putPolicies(choice: PolicyChoice): Promise<void>
	/** Ends the lab in good order; resolves when everything but the daemon's own process is gone. */
	stop(): Promise<void>
}

/** Every call throws Failure Unreachable where no lab of that name runs. */
export function labClient(name: string): LabClient {
	return controlClient(name, labPaths(name).controlSocket)
}

export function controlClient(name: string, socketPath: string): LabClient {
	async function call(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<unknown> {
		const text = body === undefined ? undefined : JSON.stringify(body)
		const { status, data } = await new Promise<{ status: number; data: string }>((resolve, reject) => {
			const outgoing = httpRequest(
				{
					socketPath,
					method,
					path,
					...(signal === undefined ? {} : { signal }),
					...(text === undefined
						? {}
						: { headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) } }),
				},
				(message) => {
					const chunks: Buffer[] = []
					message.on('data', (chunk: Buffer) => chunks.push(chunk))
					message.on('error', reject)
					message.on('end', () =>
						resolve({ status: message.statusCode ?? 500, data: Buffer.concat(chunks).toString('utf8') }),
					)
				},
			)
			outgoing.once('error', (e) =>
				reject(
					new Failure('Unreachable', `Cannot reach lab ${JSON.stringify(name)}: ${e.message}`, { name }, { cause: e }),
				),
			)
			outgoing.end(text)
		})
		const value = JSON.parse(data) as { readonly error?: { readonly code: string; readonly message: string } }
		if (status >= 400) throw new Failure(value.error?.code ?? 'Internal', value.error?.message ?? data)
		return value
	}

	/** The lines of a stream as JSON, until it ends or `signal` aborts. */
	async function* lines<T>(path: string, signal: AbortSignal | undefined): AsyncIterable<T> {
		try {
			const response = await unixTransport(
				socketPath,
				'',
			)(new Request(`http://lab${path}`, signal === undefined ? {} : { signal }))
			if (response.status >= 400) {
				const { error } = (await response.json()) as {
					readonly error?: { readonly code: string; readonly message: string }
				}
				throw new Failure(error?.code ?? 'Internal', error?.message ?? `the lab answered ${response.status}`)
			}
			let rest = ''
			const decoder = new TextDecoder()
			for await (const chunk of response.body as ReadableStream<Uint8Array>) {
				const complete = (rest + decoder.decode(chunk, { stream: true })).split('\n')
				rest = complete.pop() as string
				for (const line of complete) yield JSON.parse(line) as T
			}
		} catch (e) {
			// The daemon ended, or the caller had enough.
			if (signal?.aborted !== true && (e as NodeJS.ErrnoException).code !== 'ECONNRESET') throw e
		}
	}

	return {
		name,
		status: async () => (await call('GET', '/status')) as LabStatus,
		events: (signal) => lines<LabEvent>('/events', signal),
		flows(query, signal) {
			return lines<FlowMessage>(`/flows?query=${encodeURIComponent(JSON.stringify(query))}`, signal)
		},
		transport: unixTransport(socketPath, '/kube'),
		agent: {
			async read(node) {
				const json = (await call('GET', `/nodes/${encodeURIComponent(node)}/programs`)) as {
					readonly node: string
					readonly links: LinksProgramJson
					readonly nftables: Parameters<typeof fromJson>[0]
				} & Pick<NodePrograms, 'serviceProxy' | 'proxies'>
				const { links, nftables, ...rest } = json
				return { ...rest, links: linksFromJson(links), nftables: fromJson(nftables) }
			},
			probe: async (request) => (await call('POST', '/probe', request)) as ProbeResult,
			async readBalancer() {
				const json = (await call('GET', '/balancer')) as Omit<BalancerPrograms, 'nftables'> & {
					readonly nftables: Parameters<typeof fromJson>[0]
				}
				return { ...json, nftables: fromJson(json.nftables) }
			},
		},
		context: async () => (await call('GET', '/context')) as OwnContext,
		async putSources(sources) {
			await call('PUT', '/sources', sources)
		},
		async putConfig(config) {
			await call('PUT', '/config', config)
		},
		getSources: async () => (await call('GET', '/sources')) as Sources,
		async repair() {
			await call('POST', '/repair')
		},
		async stopNode(node) {
			await call('POST', `/nodes/${encodeURIComponent(node)}/stop`)
		},
		async startNode(node) {
			await call('POST', `/nodes/${encodeURIComponent(node)}/start`)
		},
		async setServiceProxy(mode, scheduler) {
			await call('PUT', '/service-proxy', { mode, ...(scheduler === undefined ? {} : { scheduler }) })
		},
		answeredNames: async () => (await call('GET', '/names')) as readonly AnsweredName[],
		async putPolicies(choice) {
			await call('PUT', '/policies', choice)
		},
		async stop() {
			await call('POST', '/stop')
		},
	}
}
