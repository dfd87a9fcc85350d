// What every part of the server works with, and one call to it.

import type { Clock } from '../base/clock.ts'
import type { UnknownObject } from '../kube/objects/meta.ts'
import type { Admission } from './admit/admission.ts'
import type { Authenticator } from './auth/authenticate.ts'
import type { Authorizer } from './auth/rbac.ts'
import type { Tokens } from './auth/tokens.ts'
import type { KubeletApi } from './kubelet.ts'
import type { Metrics } from './metrics.ts'
import type { Accepted } from './negotiate.ts'
import type { Registry, Served } from './registry.ts'
import type { Entry, Store } from './store.ts'
import type { Watches } from './watch.ts'
import type { WebhookAdmission } from './webhooks/admission.ts'

/** Who asks. */
export interface User {
	readonly name: string
	readonly uid?: string
	readonly groups: readonly string[]
	/** What else the credentials say. */
	readonly extra?: Readonly<Record<string, readonly string[]>>
}

export interface Api {
	readonly store: Store
	readonly clock: Clock
	readonly registry: Registry
	readonly admission: Admission
	/** Others who have a say in writes, over HTTPS. */
	readonly webhooks: WebhookAdmission
	readonly watches: Watches
	readonly kubelet: KubeletApi | undefined
	readonly metrics: Metrics
	readonly tokens: Tokens
	readonly authenticator: Authenticator
	readonly authorizer: Authorizer
	/** Answers /openapi; loaded when it is first asked for. */
	openApi(): Promise<(request: Request) => Response>
	/** Hears of our own bugs, which clients see as 500. */
	reportFault(error: unknown, request: Request): void
	/** RFC 3339 with seconds, as objects carry it. */
	now(): string
}

/** One request for a resource, read as far as its URL and headers say. */
export interface Call {
	readonly api: Api
	readonly request: Request
	readonly query: URLSearchParams
	readonly user: User
	readonly accept: Accepted
	readonly served: Served
	/** '' for all namespaces and cluster-scoped resources. */
	readonly namespace: string
	readonly name: string | undefined
	readonly subresource: string | undefined
	/** What a proxy path goes on with. */
	readonly rest: string | undefined
}

export function keyIn(namespace: string, name: string): string {
	return namespace === '' ? name : `${namespace}/${name}`
}

/** The object as clients of this version see it. */
export function shownObject(served: Served, entry: Entry): UnknownObject {
	return served.fromKept === undefined ? entry.object : served.fromKept(entry.object)
}

const encoder = new TextEncoder()

/** As shownObject, its JSON. */
export function shownBytes(served: Served, entry: Entry): Uint8Array {
	if (served.fromKept === undefined) return entry.bytes
	const shown = served.fromKept(entry.object)
	return shown === entry.object ? entry.bytes : encoder.encode(JSON.stringify(shown))
}
