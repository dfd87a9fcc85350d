// Conversion of custom objects between versions by the webhook their definition names. The webhook is asked before
// anything is written or read, and what it said is remembered by what the object says, so that all who need another
// version afterwards (answers, watches) have it at once. Source: apiextensions-apiserver pkg/apiserver/conversion.

import { randomUUID } from 'node:crypto'
import { messageOf } from '../../base/failure.ts'
import type { UnknownObject } from '../../kube/objects/meta.ts'
import { isObject, type Json, type JsonObject, sameJson } from '../../kube/schema/json.ts'
import { refuse } from '../status.ts'
import type { Definition, WebhookClient } from './definition.ts'

/** Sends a review to the webhook; the answer's JSON. */
export type CallWebhook = (client: WebhookClient, review: JsonObject) => Promise<JsonObject>

export interface Converter {
	/** The object in another version (`group/version`). Throws Refusal InternalError where the webhook was not asked yet. */
	convert(object: UnknownObject, apiVersion: string): UnknownObject
	/** Asks the webhook for what it was not asked yet. Throws Refusal InternalError. */
	ready(objects: Iterable<UnknownObject>, apiVersion: string): Promise<void>
	/** What a write makes of an object: in the stored version, and known in all served ones. */
	store(object: UnknownObject): Promise<UnknownObject>
}

/** Versions of reviews this server speaks, and how many objects it sends at once. */
export const reviewVersions = ['v1', 'v1beta1']
const atOnce = 500
/** How many states of one object are remembered, for each version. */
const statesKept = 8

export function createConverter(
	definition: Definition,
	options: {
		readonly call: CallWebhook
		/** The keys of all kept objects; what was remembered of others may be forgotten. */
		readonly count: () => number
		readonly has: (key: string) => boolean
	},
): Converter {
	const { group, names, versions, conversion } = definition.spec
	const webhook = conversion?.webhook
	const stored = `${group}/${versions.find((version) => version.storage)!.name}`
	const served = versions.filter((version) => version.served).map((version) => `${group}/${version.name}`)
	/** By object and version: by what the object said, what it is in that version. */
	const known = new Map<string, Map<string, UnknownObject>>()
	const seen = new WeakMap<UnknownObject, Map<string, UnknownObject>>()

	const keyOf = ({ metadata }: UnknownObject) =>
		metadata.namespace === undefined ? (metadata.name ?? '') : `${metadata.namespace}/${metadata.name}`

	function remember(object: UnknownObject, apiVersion: string, converted: UnknownObject): void {
		const place = `${apiVersion} ${keyOf(object)}`
		let states = known.get(place)
		if (states === undefined) known.set(place, (states = new Map()))
		states.set(contentOf(object), converted)
		if (states.size > statesKept) states.delete(states.keys().next().value!)
	}

	function find(object: UnknownObject, apiVersion: string): UnknownObject | undefined {
		if (object.apiVersion === apiVersion) return object
		const before = seen.get(object)?.get(apiVersion)
		if (before !== undefined) return before
		const converted = known.get(`${apiVersion} ${keyOf(object)}`)?.get(contentOf(object))
		if (converted === undefined) return undefined
		const shown = withMetadata(converted, object)
		let all = seen.get(object)
		if (all === undefined) seen.set(object, (all = new Map()))
		all.set(apiVersion, shown)
		return shown
	}

	function forgetOthers(): void {
		if (known.size <= 2 * served.length * options.count() + 1000) return
		for (const place of known.keys()) if (!options.has(place.slice(place.indexOf(' ') + 1))) known.delete(place)
	}

	async function ready(objects: Iterable<UnknownObject>, apiVersion: string): Promise<void> {
		const missing = [...objects].filter((object) => find(object, apiVersion) === undefined)
		for (let i = 0; i < missing.length; i += atOnce) {
			const some = missing.slice(i, i + atOnce)
			const converted = await ask(some, apiVersion)
			for (const [j, object] of some.entries()) remember(object, apiVersion, converted[j]!)
		}
		if (missing.length > 0) forgetOthers()
	}

	async function ask(objects: readonly UnknownObject[], apiVersion: string): Promise<readonly UnknownObject[]> {
		const of = `${objects[0]!.apiVersion}, Kind=${names.kind}`
		const failed = (why: string) => refuse('InternalError', `conversion webhook for ${of} failed: ${why}`, {})
		const version = webhook?.conversionReviewVersions?.find((one) => reviewVersions.includes(one)) ?? 'v1'
		const uid = randomUUID()
		const review: JsonObject = {
			kind: 'ConversionReview',
			apiVersion: `apiextensions.k8s.io/${version}`,
			request: { uid, desiredAPIVersion: apiVersion, objects: objects as unknown as readonly Json[] },
		}
		let answer: JsonObject
		try {
			answer = await options.call(webhook?.clientConfig ?? {}, review)
		} catch (e) {
			throw failed(messageOf(e))
		}
		const response = isObject(answer.response) ? answer.response : undefined
		if (response === undefined) throw failed('its answer has no response')
		if (response.uid !== uid)
			throw failed(`expected response.uid ${JSON.stringify(uid)}, got ${JSON.stringify(response.uid)}`)
		const result = isObject(response.result) ? response.result : {}
		if (result.status !== 'Success')
			throw failed(typeof result.message === 'string' && result.message !== '' ? result.message : 'it gave no reason')
		const list = Array.isArray(response.convertedObjects) ? (response.convertedObjects as readonly Json[]) : []
		if (list.length !== objects.length) throw failed(`it returned ${list.length} objects, expected ${objects.length}`)
		return list.map((one, i) => {
			const why = faultOf(one, objects[i]!, apiVersion)
			if (why !== undefined) throw failed(`invalid converted object at index ${i}: ${why}`)
			return one as unknown as UnknownObject
		})
	}

	return {
		convert(object, apiVersion) {
			const found = find(object, apiVersion)
			if (found !== undefined) return found
			throw refuse(
				'InternalError',
				`${names.kind} ${JSON.stringify(keyOf(object))} is not converted to ${apiVersion} yet: ask again`,
				{},
			)
		},
		ready,
		async store(object) {
			await ready([object], stored)
			const kept = find(object, stored)!
			const given = String(object.apiVersion)
			// There and back may not be the same; but who wrote it sees what was written.
			if (given !== stored) remember(kept, given, object)
			for (const version of served) if (version !== given) await ready([kept], version)
			return kept
		},
	}
}

/** What a webhook may look at; the rest of the metadata is the server's. */
function contentOf(object: UnknownObject): string {
	const { metadata, ...rest } = object
	return JSON.stringify([rest, metadata.labels, metadata.annotations])
}

/** Labels and annotations are those of the conversion, all else of the metadata stays. */
function withMetadata(converted: UnknownObject, { metadata }: UnknownObject): UnknownObject {
	const { labels: _l, annotations: _a, ...rest } = metadata
	const { labels, annotations } = converted.metadata
	return {
		...converted,
		metadata: {
			...rest,
			...(labels === undefined ? {} : { labels }),
			...(annotations === undefined ? {} : { annotations }),
		},
	} as UnknownObject
}

function faultOf(converted: Json | undefined, object: UnknownObject, apiVersion: string): string | undefined {
	if (!isObject(converted) || !isObject(converted.metadata)) return 'it is no object'
	if (converted.apiVersion !== apiVersion)
		return `invalid apiVersion ${JSON.stringify(converted.apiVersion)}, expected ${JSON.stringify(apiVersion)}`
	if (converted.kind !== object.kind)
		return `invalid kind ${JSON.stringify(converted.kind)}, expected ${JSON.stringify(object.kind)}`
	for (const field of ['name', 'namespace', 'uid'] as const)
		if (!sameJson(converted.metadata[field], object.metadata[field])) return `metadata.${field} was changed`
	return undefined
}
