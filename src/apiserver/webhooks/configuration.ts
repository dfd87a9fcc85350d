// Admission webhooks as their configurations declare them, in the order in which they are asked.
// Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/

import type { LabelSelector, ObjectMeta } from '../../kube/objects/meta.ts'
import type { WebhookClient } from '../crd/definition.ts'
import type { Store } from '../store.ts'

export type Operation = 'CREATE' | 'UPDATE' | 'DELETE'

export interface WebhookRule {
	readonly operations?: readonly string[]
	readonly apiGroups?: readonly string[]
	readonly apiVersions?: readonly string[]
	readonly resources?: readonly string[]
	readonly scope?: string
}

/** Defaults are filled in when a configuration is written. */
export interface Webhook {
	readonly name: string
	readonly clientConfig: WebhookClient
	readonly rules?: readonly WebhookRule[]
	readonly failurePolicy?: 'Fail' | 'Ignore'
	readonly matchPolicy?: 'Equivalent' | 'Exact'
	readonly namespaceSelector?: LabelSelector
	readonly objectSelector?: LabelSelector
	readonly matchConditions?: readonly { readonly name: string; readonly expression: string }[]
	readonly sideEffects: string
	readonly timeoutSeconds?: number
	readonly admissionReviewVersions: readonly string[]
	readonly reinvocationPolicy?: 'Never' | 'IfNeeded'
}

const group = 'admissionregistration.k8s.io'
export const storages = {
	mutating: `mutatingwebhookconfigurations.${group}`,
	validating: `validatingwebhookconfigurations.${group}`,
} as const
export type WebhookKind = keyof typeof storages

export interface Webhooks {
	/** By the names of their configurations, then as each lists them. */
	of(kind: WebhookKind): readonly Webhook[]
	close(): void
}

/** The webhooks of the configurations that are kept now. */
export function followWebhooks(store: Store): Webhooks {
	const known = new Map<WebhookKind, readonly Webhook[]>()
	const stops = (Object.keys(storages) as WebhookKind[]).map((kind) =>
		store.subscribe(storages[kind], () => known.delete(kind)),
	)
	return {
		of(kind) {
			let list = known.get(kind)
			if (list === undefined) {
				// The store lists by key, and these have no namespace.
				list = [...store.list(storages[kind])].flatMap(
					({ object }) => (object as unknown as { metadata: ObjectMeta; webhooks?: Webhook[] }).webhooks ?? [],
				)
				known.set(kind, list)
			}
			return list
		},
		close() {
			for (const stop of stops) stop()
		},
	}
}
