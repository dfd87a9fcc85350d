// Brings the objects of the user's manifests to an API server: namespaces first, all or none where that can be known
// beforehand, each refusal with the file and line of the field that is wrong. Objects of custom kinds come last.

import { isFailure, messageOf } from '../base/failure.ts'
import type { KubeClient } from '../kube/client.ts'
import { namespaces } from '../kube/kinds.ts'
import type { Service } from '../kube/objects/core.ts'
import { type KubeObject, keyOf, type Status } from '../kube/objects/meta.ts'
import { findResource, type Resource } from '../kube/resources.ts'
import { lineOf, type ObjectSource, sourceKey } from '../model/state.ts'
import { definitionsOf, isDefinition, kindsOf, whenServed } from './custom-kinds.ts'

/** One object of a manifest, its namespace filled in. */
export interface Item {
	readonly object: KubeObject
	readonly source: ObjectSource
	readonly resource: Resource
	/** The CustomResourceDefinition its kind comes from; absent: a built-in kind. */
	readonly definition?: string
}

export interface Ignored {
	readonly object: KubeObject
	readonly apiVersion: string
	readonly kind: string
	readonly source: ObjectSource
}

export interface Refusal {
	readonly object: KubeObject
	/** `file:line: text`, one for each field that is wrong. */
	readonly lines: readonly string[]
}

/**
 * Sorts what the API server knows from what it does not, and fills in the namespace. Known are the built-in kinds, those
 * the objects themselves define, and those of `there`: the definitions of the cluster.
 */
export function sortItems(
	objects: readonly { readonly object: KubeObject; readonly source: ObjectSource }[],
	namespace: string,
	there: readonly KubeObject[] = [],
): { readonly items: readonly Item[]; readonly ignored: readonly Ignored[] } {
	const custom = kindsOf([...there, ...objects.map(({ object }) => object)])
	const items: Item[] = []
	const ignored: Ignored[] = []
	for (const { object, source } of objects) {
		const resource = findResource({ apiVersion: object.apiVersion, kind: object.kind })
		const own = resource === undefined ? custom.get(`${object.apiVersion} ${object.kind}`) : undefined
		if (own !== undefined)
			items.push({
				object: inNamespace(object, own.resource, namespace),
				source,
				resource: own.resource,
				definition: own.definition,
			})
		else if (resource === undefined || !resource.stored)
			ignored.push({ object, apiVersion: object.apiVersion, kind: object.kind, source })
		else items.push({ object: inNamespace(object, resource, namespace), source, resource })
	}
	return { items: items.sort((a, b) => rank(a) - rank(b)), ignored }
}

/** As sortItems, once there is a cluster: what was ignored may be of a kind it has. */
export async function claimItems(
	client: KubeClient,
	loaded: { readonly items: readonly Item[]; readonly ignored: readonly Ignored[] },
	namespace: string,
): Promise<{ readonly items: readonly Item[]; readonly ignored: readonly Ignored[] }> {
	if (loaded.ignored.length === 0) return loaded
	return sortItems([...loaded.items, ...loaded.ignored], namespace, await definitionsOf(client))
}

function inNamespace(object: KubeObject, resource: Resource, namespace: string): KubeObject {
	if (!resource.namespaced || object.metadata.namespace !== undefined) return object
	return { ...object, metadata: { ...object.metadata, namespace } }
}

/** What others need comes first; workloads last, so that Services are there when pods start. */
function rank({ object, definition }: Item): number {
	const order = [
		'Namespace',
		'CustomResourceDefinition',
		'ServiceAccount',
		'ConfigMap',
		'Secret',
		'NetworkPolicy',
		'Service',
	]
	if (definition !== undefined) return order.length + 1
	const at = order.indexOf(object.kind)
	return at < 0 ? order.length : at
}

/** How many requests are under way at once. */
const width = 16

/** A namespace that every cluster has and nobody puts objects into. */
const dryNamespace = 'kube-node-lease'

/**
 * Server-side apply of every item as field manager `podwire-up`. A dry run goes first: when the server refuses one,
 * none is applied. What belongs into a namespace that the items only bring is tried in another one.
 */
export async function applyItems(
	client: KubeClient,
	items: readonly Item[],
	onProgress: (done: number, total: number) => void,
): Promise<readonly Refusal[]> {
	const options = { fieldManager: 'podwire-up', force: true, fieldValidation: 'Strict' } as const
	const clashes = findClashes(items)
	if (clashes.length > 0) return clashes
	const brought = new Set(items.filter((i) => i.object.kind === 'Namespace').map((i) => i.object.metadata.name))
	const there = brought.size === 0 ? [] : (await client.list(namespaces)).items
	for (const namespace of there) brought.delete(namespace.metadata.name)
	const tryOut = (some: readonly Item[]) =>
		eachOf(some, async ({ resource, object }) => {
			const { metadata } = object
			const tried = brought.has(metadata.namespace ?? '')
				? { ...object, metadata: { ...metadata, namespace: dryNamespace } }
				: object
			await client.apply(resource, tried, { ...options, dryRun: true })
		})
	// Objects of kinds that come with the items cannot be tried before their definitions are applied.
	const defined = new Set(items.filter((i) => isDefinition(i.object)).map((i) => i.object.metadata.name))
	const known = defined.size === 0 ? [] : await definitionsOf(client)
	const pending = new Set([...defined].filter((name) => !known.some((d) => d.metadata.name === name)))
	const isPending = ({ definition }: Item): boolean => definition !== undefined && pending.has(definition)
	const refused = await tryOut(items.filter((item) => !isPending(item)))
	if (refused.length > 0) return refused
	let done = 0
	const failed: Refusal[] = []
	for (const group of byRank(items)) {
		failed.push(
			...(await eachOf(group, async (item) => {
				await client.apply(item.resource, item.object, options)
				onProgress(++done, items.length)
			})),
		)
		if (defined.size === 0 || !isDefinition(group[0]!.object) || failed.length > 0) continue
		const why = await whenServed(client, [...defined])
		if (why !== undefined) return group.slice(0, 1).map(({ object }) => ({ object, lines: [why] }))
		const wrong = await tryOut(items.filter(isPending))
		if (wrong.length > 0) return wrong
	}
	return failed
}

/** What two of the items want for themselves: each alone would pass the dry run. */
function findClashes(items: readonly Item[]): readonly Refusal[] {
	const holders = new Map<string, { readonly item: Item; readonly field: string }>()
	const refusals: Refusal[] = []
	for (const item of items) {
		if (item.object.kind !== 'Service') continue
		const { spec } = item.object as Service
		const claims = new Map<string, string>()
		for (const [i, ip] of (spec?.clusterIPs ?? []).entries()) claims.set(`address ${ip}`, `spec.clusterIPs[${i}]`)
		if (spec?.clusterIP !== undefined) claims.set(`address ${spec.clusterIP}`, 'spec.clusterIP')
		for (const [i, port] of (spec?.ports ?? []).entries()) {
			const field = `spec.ports[${i}].nodePort`
			if (port.nodePort) claims.set(`node port ${port.nodePort}/${port.protocol ?? 'TCP'}`, field)
		}
		const lines: string[] = []
		for (const [claim, field] of claims) {
			if (/^address (None|)$/.test(claim)) continue
			const holder = holders.get(claim)
			if (holder === undefined) holders.set(claim, { item, field })
			else {
				const first = `Service ${keyOf(holder.item.object)} (${whereIs(holder.item, holder.field)})`
				lines.push(`${whereIs(item, field)}: Service ${keyOf(item.object)}: ${field}: the ${claim} is that of ${first}`)
			}
		}
		if (lines.length > 0) refusals.push({ object: item.object, lines })
	}
	return refusals
}

/** `file:line` of the field, or of the nearest one around it that the manifest spells out. */
function whereIs({ source }: Item, field: string): string {
	// The server speaks of the list that the single field stands for.
	const written = field.replace(/^spec\.clusterIPs(\[0\])?$/, (list) =>
		list in source.lines ? list : 'spec.clusterIP',
	)
	const line = lineOf(source, written)
	return line === undefined ? source.file : `${source.file}:${line}`
}

function byRank(items: readonly Item[]): readonly (readonly Item[])[] {
	const groups = new Map<number, Item[]>()
	for (const item of items) {
		const group = groups.get(rank(item))
		if (group === undefined) groups.set(rank(item), [item])
		else group.push(item)
	}
	return [...groups.values()]
}

async function eachOf(items: readonly Item[], act: (item: Item) => Promise<void>): Promise<Refusal[]> {
	const refusals: Refusal[] = []
	const queue = [...items]
	const worker = async () => {
		for (let item = queue.shift(); item !== undefined; item = queue.shift()) {
			try {
				await act(item)
			} catch (e) {
				refusals.push({ object: item.object, lines: explainRefusal(item, e) })
			}
		}
	}
	await Promise.all(Array.from({ length: Math.min(width, items.length) }, worker))
	return refusals
}

/** Server-side apply has the field within its message: `.spec.selektor: field not declared in schema`. */
const typedFault = /^\.(\S+): (.+)$/

/** Each cause of the server's Status at the line of its field. */
export function explainRefusal(item: Item, error: unknown): readonly string[] {
	const name = `${item.object.kind} ${keyOf(item.object)}`
	const status = isFailure(error) ? (error.details.status as Status | undefined) : undefined
	const causes = status?.details?.causes ?? []
	if (causes.length > 0) {
		return causes.map((c) => {
			const [, field = c.field ?? '', why = c.message ?? c.reason ?? ''] = typedFault.exec(c.message ?? '') ?? []
			if (why === 'field not declared in schema') return unknownField(field)
			return `${whereIs(item, field)}: ${name}: ${field === '' ? '' : `${field}: `}${why}`
		})
	}
	const text = status?.message ?? messageOf(error)
	const unknown = [...text.matchAll(/(?:unknown|duplicate) field "([^"]+)"/g)].map((m) => m[1] ?? '')
	if (unknown.length > 0) return unknown.map(unknownField)
	return [`${whereIs(item, '')}: ${name}: ${text}`]

	function unknownField(field: string): string {
		return `${whereIs(item, field)}: ${name}: unknown field ${JSON.stringify(field)}; kubectl explain ${item.resource.plural} lists the known ones`
	}
}

/** What the lab remembers of where each object was read. */
export function sourcesOf(items: readonly Pick<Item, 'object' | 'source'>[]): Record<string, ObjectSource> {
	return Object.fromEntries(items.map((i) => [sourceKey(i.object.kind, keyOf(i.object)), i.source]))
}
