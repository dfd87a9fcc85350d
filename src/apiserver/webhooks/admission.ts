// Asks the admission webhooks of a write: those that may change the object one after the other, those that only judge it
// all at once. Source: apiserver pkg/admission/plugin/webhook, its rules.

import { randomUUID } from 'node:crypto'
import { messageOf } from '../../base/failure.ts'
import type { UnknownObject } from '../../kube/objects/meta.ts'
import { type Json, type JsonObject, sameJson } from '../../kube/schema/json.ts'
import { matchesLabelSelector } from '../../kube/selector.ts'
import type { User } from '../api.ts'
import type { WebhookClient } from '../crd/definition.ts'
import type { Registry, Served } from '../registry.ts'
import { badRequest, refuse } from '../status.ts'
import type { Store } from '../store.ts'
import { followWebhooks, type Operation, storages, type Webhook, type WebhookKind } from './configuration.ts'
import { type Asked, selectsObject, versionFor } from './match.ts'
import { denial, patched, readAnswer, requestOf, reviewVersions } from './review.ts'

/** One write, before it is kept. Objects are in the form in which they are kept. */
export interface Write {
	readonly operation: Operation
	/** The version of the request. */
	readonly served: Served
	readonly subresource: string | undefined
	/** '' for cluster-scoped objects. */
	readonly namespace: string
	readonly name: string
	readonly user: User
	readonly dryRun: boolean
	/** CreateOptions, UpdateOptions or DeleteOptions as the webhook is told them. */
	readonly options: JsonObject
	readonly object: UnknownObject | undefined
	readonly before: UnknownObject | undefined
}

export interface WebhookAdmission {
	/** undefined: nobody is to be asked. `object` undefined in what it gives: nothing was changed. */
	mutate(write: Write): Promise<{ readonly object?: UnknownObject; readonly warnings: readonly string[] }> | undefined
	/** Throws Refusal where one denies. undefined: nobody is to be asked. */
	validate(write: Write): Promise<readonly string[]> | undefined
	close(): void
}

export type CallAdmission = (client: WebhookClient, review: JsonObject, timeout: number) => Promise<JsonObject>

/** Kinds that no webhook is asked about: one that is wrong could not be mended. */
const exempt: ReadonlySet<string> = new Set(Object.values(storages))

export function createWebhookAdmission(store: Store, registry: Registry, call: CallAdmission): WebhookAdmission {
	const webhooks = followWebhooks(store)

	/** Each with the version that it is asked in. */
	function chosen(kind: WebhookKind, write: Write): readonly { webhook: Webhook; served: Served }[] {
		const all = webhooks.of(kind)
		if (all.length === 0 || exempt.has(write.served.storage)) return []
		const { operation, served, subresource, namespace } = write
		const namespaced = served.resource.namespaced
		const asked: Asked = { operation, served, subresource, namespaced }
		// What a conversion webhook would have to be asked for first is shown in the request's version alone.
		const others =
			served.toStorage === undefined ? registry.all().filter((other) => other.storage === served.storage) : []
		return all.flatMap((webhook) => {
			const version = versionFor(webhook, asked, others)
			if (version === undefined) return []
			// The namespace an object is in; of a Namespace its own labels, old and new; other cluster-scoped ones always.
			const { object, before } = write
			const inside =
				served.storage === 'namespaces'
					? selectsNamespace(webhook, object, before)
					: !namespaced || selectsNamespace(webhook, store.current('namespaces', namespace)?.object)
			if (!inside || !selectsObject(webhook, object, before)) return []
			return [{ webhook, served: version }]
		})
	}

	/** undefined: it is not asked after all. Throws Refusal where it denies, or fails and may not. */
	async function ask(
		{ webhook, served }: { webhook: Webhook; served: Served },
		write: Write,
		kind: WebhookKind,
	): Promise<{ readonly object?: UnknownObject; readonly warnings: readonly string[] } | undefined> {
		const uid = randomUUID()
		const shown = (object: UnknownObject | undefined) =>
			object === undefined || served.toStorage !== undefined ? object : (served.fromKept?.(object) ?? object)
		const object = shown(write.object)
		const request = requestOf({
			...write,
			uid,
			served,
			requested: write.served,
			object,
			before: shown(write.before),
		})
		const failed = (why: string) =>
			refuse(
				'InternalError',
				`Internal error occurred: failed calling webhook ${JSON.stringify(webhook.name)}: ${why}`,
				{ causes: [{ message: `failed calling webhook ${JSON.stringify(webhook.name)}: ${why}` }] },
			)
		const mayFail = webhook.failurePolicy === 'Ignore'
		const conditional = (webhook.matchConditions ?? []).length > 0
		const holds = conditional ? (await import('./conditions.ts')).conditionsHold(webhook, request) : true
		if (holds === false) return undefined
		if (holds instanceof Error) {
			if (mayFail) return undefined
			throw failed(holds.message)
		}
		if (write.dryRun && webhook.sideEffects !== 'None' && webhook.sideEffects !== 'NoneOnDryRun')
			throw badRequest(`admission webhook ${JSON.stringify(webhook.name)} does not support dry run`)
		let answer: ReturnType<typeof readAnswer>
		let next: UnknownObject | undefined
		try {
			const version = webhook.admissionReviewVersions.find((v) => reviewVersions.includes(v)) ?? 'v1'
			const review = { kind: 'AdmissionReview', apiVersion: `admission.k8s.io/${version}`, request }
			const timeout = (webhook.timeoutSeconds ?? 10) * 1000
			const body = await call(webhook.clientConfig, review, timeout).catch((e: unknown) => {
				throw new Error(`failed to call webhook: ${messageOf(e)}`)
			})
			answer = readAnswer(body, uid, kind === 'mutating')
			if (answer.allowed && answer.patch !== undefined && object !== undefined) next = patched(object, answer.patch)
		} catch (e) {
			if (!mayFail) throw failed(messageOf(e))
			return undefined
		}
		if (!answer.allowed) throw denial(webhook.name, answer.status)
		if (next === undefined) return { warnings: answer.warnings }
		const kept = served.toKept?.(next) ?? next
		return { object: kept, warnings: answer.warnings }
	}

	return {
		mutate(write) {
			const all = chosen('mutating', write)
			if (all.length === 0) return undefined
			return (async () => {
				const warnings: string[] = []
				let object = write.object
				/** The last webhook that changed something: those before it may be asked again. */
				let changedBy = -1
				const round = async (list: readonly (typeof all)[number][], again: boolean) => {
					for (const [i, one] of list.entries()) {
						if (again && (one.webhook.reinvocationPolicy !== 'IfNeeded' || all.indexOf(one) >= changedBy)) continue
						const said = await ask(one, { ...write, object }, 'mutating')
						warnings.push(...(said?.warnings ?? []))
						if (said?.object === undefined || same(said.object, object)) continue
						object = said.object
						if (!again) changedBy = i
					}
				}
				await round(all, false)
				if (changedBy > 0) await round(all, true)
				return object === write.object || object === undefined ? { warnings } : { object, warnings }
			})()
		},
		validate(write) {
			const all = chosen('validating', write)
			if (all.length === 0) return undefined
			return Promise.allSettled(all.map((one) => ask(one, write, 'validating'))).then((said) => {
				const denied = said.find((one) => one.status === 'rejected')
				if (denied !== undefined) throw denied.reason
				return said.flatMap((one) => (one.status === 'fulfilled' ? (one.value?.warnings ?? []) : []))
			})
		},
		close: webhooks.close,
	}
}

function selectsNamespace(webhook: Webhook, ...namespaces: readonly (UnknownObject | undefined)[]): boolean {
	return namespaces.some((n) => n !== undefined && matchesLabelSelector(webhook.namespaceSelector, n.metadata.labels))
}

function same(a: UnknownObject, b: UnknownObject | undefined): boolean {
	return sameJson(a as unknown as Json, b as unknown as Json)
}
