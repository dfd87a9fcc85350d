// The embedded Kubernetes API server: a store, what is served, and one function from Request to Response.

import type { KeyObject } from 'node:crypto'
import type { Clock } from '../base/clock.ts'
import { type Cidr, parseCidr } from '../base/ip.ts'
import type { Transport } from '../kube/transport.ts'
import { type AdmitHook, createAdmission } from './admit/admission.ts'
import { keepAddresses } from './admit/ip-addresses.ts'
import type { Api, User } from './api.ts'
import { createAccountSecrets } from './auth/account-secrets.ts'
import { createAccountVolumes } from './auth/account-volume.ts'
import { startAggregation } from './auth/aggregation.ts'
import { createAuthenticator } from './auth/authenticate.ts'
import { createRequestCheck, type Signer, startSigning } from './auth/certificate-requests.ts'
import { createEscalationCheck } from './auth/escalation.ts'
import { createAuthorizer } from './auth/rbac.ts'
import { reconcileDefaults } from './auth/reconcile.ts'
import { createTokens } from './auth/tokens.ts'
import { bootstrap } from './bootstrap.ts'
import { serveDefinitions } from './crd/definitions.ts'
import { keepEventsShort } from './event-expiry.ts'
import { handle } from './handle.ts'
import type { KubeletApi } from './kubelet.ts'
import { createMetrics } from './metrics.ts'
import { createRegistry, type Registry } from './registry.ts'
import type { Store } from './store.ts'
import { version } from './version.ts'
import { Watches } from './watch.ts'
import { createWebhookAdmission } from './webhooks/admission.ts'

export interface ApiServerOptions {
	readonly store: Store
	readonly clock: Clock
	/** One or two networks (of different families) for Services; default 10.96.0.0/16. */
	readonly serviceCidrs?: readonly Cidr[]
	/** Default 30000–32767. */
	readonly nodePorts?: { readonly from: number; readonly to: number }
	/** Where pods reach this server: the endpoint of the Service default/kubernetes. Absent: it has none. */
	readonly advertise?: { readonly ip: string; readonly port: number }
	/** Answers logs, exec and port-forward. Absent: these are refused with 503. */
	readonly kubelet?: KubeletApi
	/** A further say in every create and update. */
	readonly admit?: readonly AdmitHook[]
	/** Signs ServiceAccount tokens: a private key on P-256. Absent: one is made that lives as long as the process. */
	readonly tokenKey?: KeyObject
	/** Signs approved requests for certificates of users. Absent: they stay approved and unsigned. */
	readonly signer?: Signer
	/** 0 ≤ x < 1; chooses addresses and ports. */
	readonly random?: () => number
	/** Hears of our own bugs, which clients see as a 500. */
	readonly onFault?: (error: unknown, request: Request) => void
}

export interface ApiServer {
	/** In process, as the administrator. */
	readonly transport: Transport
	/** One request of a user: what listeners call. Never rejects. */
	handle(request: Request, user: User): Promise<Response>
	readonly api: Api
	readonly registry: Registry
	/** Ends all watches. The store stays the caller's to close. */
	close(): void
}

export { anonymous } from './auth/authenticate.ts'

/** The user of the in-process transport and of the admin kubeconfig. */
export const admin: User = { name: 'kubernetes-admin', groups: ['system:masters', 'system:authenticated'] }

/** Starts a server on a store; resolves when the namespaces and the Service default/kubernetes are there. */
export async function createApiServer(options: ApiServerOptions): Promise<ApiServer> {
	const { store, clock } = options
	const serviceCidrs = options.serviceCidrs ?? [parseCidr('10.96.0.0/16')]
	const registry = createRegistry()
	const authorizer = createAuthorizer(store)
	const tokens = createTokens(options.tokenKey)
	let openApi: ReturnType<Api['openApi']> | undefined
	const api: Api = {
		store,
		clock,
		registry,
		admission: createAdmission(store, {
			serviceCidrs,
			nodePorts: options.nodePorts ?? { from: 30000, to: 32767 },
			random: options.random ?? Math.random,
			hooks: [
				createEscalationCheck(authorizer),
				createRequestCheck(authorizer),
				createAccountVolumes(store),
				createAccountSecrets(store, tokens, () => clock.now()),
				...(options.admit ?? []),
			],
		}),
		webhooks: createWebhookAdmission(store, registry, async (client, review, timeout) => {
			const { callWebhook } = await import('./crd/webhook.ts')
			return callWebhook(api, client, review, timeout)
		}),
		watches: new Watches(),
		kubelet: options.kubelet,
		metrics: createMetrics(),
		tokens,
		authenticator: createAuthenticator({ store, clock, tokens }),
		authorizer,
		openApi: () =>
			(openApi ??= import('./openapi/serve.ts').then(({ createOpenApi }) =>
				createOpenApi(
					{
						all: () => registry.all(),
						get generation() {
							return registry.generation
						},
					},
					version.gitVersion,
				),
			)),
		reportFault: (error, request) => options.onFault?.(error, request),
		now: () => `${new Date(clock.now()).toISOString().slice(0, 19)}Z`,
	}
	const transport: Transport = (request) => handle(api, request, admin)
	const onFailure = (e: unknown) => options.onFault?.(e, new Request('http://kubernetes/'))
	const stopAddresses = keepAddresses(store, { now: api.now, onFailure })
	await serveDefinitions(api)
	await Promise.all([
		bootstrap(transport, { serviceCidrs, ...(options.advertise ? { advertise: options.advertise } : {}) }),
		reconcileDefaults(store, transport, api.now()),
	])
	const aggregation = startAggregation(store, transport, onFailure)
	await aggregation.settle()
	const { signer } = options
	const signing = signer && startSigning({ store, transport, clock, sign: signer, onFailure })
	const stopExpiry = keepEventsShort(api)
	return {
		transport,
		handle: (request, user) => handle(api, request, user),
		api,
		registry,
		close() {
			stopExpiry()
			stopAddresses()
			aggregation.close()
			api.webhooks.close()
			signing?.close()
			authorizer.close()
			api.watches.close()
		},
	}
}
