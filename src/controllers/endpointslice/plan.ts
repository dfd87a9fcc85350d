// Which EndpointSlices of a Service to create, change and remove so that they hold its endpoints. As few writes as
// possible: an endpoint stays in its slice, an unchanged slice is not written, new endpoints first fill slices that
// are written anyway, and a slice that would go takes over what would be created.

import type { Node, Service } from '../../kube/objects/core.ts'
import { type Endpoint, type EndpointSlice, managedByLabel, serviceNameLabel } from '../../kube/objects/discovery.ts'
import type { KubeObject } from '../../kube/objects/meta.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { canonicalJson } from '../hash.ts'
import { controllerReference } from '../owners.ts'
import {
	endpointIdentity,
	type Family,
	familiesOf,
	isHeadless,
	type PortGroup,
	portsText,
	selectsPods,
	wantedEndpoints,
} from './endpoints.ts'
import { assignZones, isTopologyAuto } from './topology.ts'

/** How many endpoints a slice holds at most (the default of kube-controller-manager). */
export const mostEndpoints = 100

export const sliceManager = 'endpointslice-controller.k8s.io'
export const headlessLabel = 'service.kubernetes.io/headless'

export interface SliceFacts {
	readonly service: Service
	/** The pods its selector selects. */
	readonly pods: Iterable<Pod>
	/** The slices of the Service that this controller manages. */
	readonly slices: readonly EndpointSlice[]
	nodeOf(name: string): Node | undefined
	/** The zones' shares (zoneShares); asked for where the Service wants topology aware routing. */
	readonly shares?: () => ReadonlyMap<string, number> | undefined
	/** Since when the change is there that the slices are to show; undefined: not known, as after a restart. */
	readonly changedAt?: string | undefined
}

export const triggerTime = 'endpoints.kubernetes.io/last-change-trigger-time'

/** A slice to be created: the server completes the name. */
export type NewSlice = Omit<EndpointSlice, 'metadata'> & {
	readonly metadata: Omit<EndpointSlice['metadata'], 'name'>
}

export interface SlicePlan {
	readonly create: readonly NewSlice[]
	/** Whole slices, with the resourceVersion they replace. */
	readonly update: readonly EndpointSlice[]
	readonly remove: readonly EndpointSlice[]
}

export function planSlices(facts: SliceFacts): SlicePlan {
	const { service, slices } = facts
	if (service.metadata.deletionTimestamp !== undefined) return { create: [], update: [], remove: [] }
	if (service.spec?.type === 'ExternalName' || !selectsPods(service)) return { create: [], update: [], remove: slices }
	const families = familiesOf(service)
	const pods = [...facts.pods]
	const base: SliceBase = {
		owner: service,
		labels: sliceLabels(service),
		annotations: facts.changedAt === undefined ? {} : { [triggerTime]: facts.changedAt },
	}
	const create: NewSlice[] = []
	const update: EndpointSlice[] = []
	const remove = slices.filter((slice) => !families.some((family) => family === slice.addressType))
	for (const family of families) {
		let wanted = wantedEndpoints(service, pods, family, facts.nodeOf)
		if (isTopologyAuto(service)) wanted = withZoneHints(wanted, facts.shares?.())
		const mine = slices.filter((slice) => slice.addressType === family)
		const plan = planFamily(base, family, wanted, mine)
		create.push(...plan.create)
		update.push(...plan.update)
		remove.push(...plan.remove)
	}
	return { create, update, remove }
}

/** Hints by topology in place of those by preference: for all ready endpoints, or for none. */
function withZoneHints(
	groups: ReadonlyMap<string, PortGroup>,
	shares: ReadonlyMap<string, number> | undefined,
): Map<string, PortGroup> {
	const all = [...groups.values()].flatMap((group) => [...group.endpoints.values()])
	const zones = shares === undefined ? undefined : assignZones(all, shares)
	const hinted = (endpoint: Endpoint): Endpoint => {
		const { hints: _, ...rest } = endpoint
		const zone = zones?.get(endpoint)
		return zone === undefined ? rest : { ...rest, hints: { forZones: [{ name: zone }] } }
	}
	return new Map(
		[...groups].map(([text, { ports, endpoints }]) => [
			text,
			{ ports, endpoints: new Map([...endpoints].map(([identity, endpoint]) => [identity, hinted(endpoint)])) },
		]),
	)
}

interface Draft {
	readonly slice: EndpointSlice
	readonly endpoints: Endpoint[]
}

/** What all slices of a Service have in common. */
export interface SliceBase {
	readonly owner: KubeObject
	readonly labels: Readonly<Record<string, string>>
	/** Put on slices that are written; a difference is no reason to write one. */
	readonly annotations: Readonly<Record<string, string>>
}

/** As planSlices for the endpoints of one family. */
export function planFamily(
	base: SliceBase,
	family: Family,
	wanted: Map<string, PortGroup>,
	slices: readonly EndpointSlice[],
): SlicePlan {
	const { labels } = base
	const create: NewSlice[] = []
	const changed: Draft[] = []
	let remove: EndpointSlice[] = []
	const byPorts = Map.groupBy(slices, (slice) => portsText(slice.ports))
	for (const [ports, having] of byPorts) if (!wanted.has(ports)) remove.push(...having)
	for (const [ports, group] of wanted) {
		const plan = planGroup(group, byPorts.get(ports) ?? [], labels)
		changed.push(...plan.changed)
		remove.push(...plan.remove)
		for (const endpoints of plan.create) create.push(newSlice(base, family, group.ports, endpoints))
	}

	// A Service without endpoints keeps one empty slice, to say that there are none.
	if (remove.length === slices.length && create.length === 0) {
		const placeholder = newSlice(base, family, [], [])
		const kept = remove.length === 1 && isPlaceholder(remove[0]!, labels)
		if (kept) remove = []
		else create.push(placeholder)
	}

	const update = changed.map(({ slice, endpoints }) => withContent(slice, { ...slice, endpoints }, base))
	while (remove.length > 0 && create.length > 0) {
		update.push(withContent(remove.shift()!, create.pop()!, base))
	}
	return { create, update, remove }
}

/** Distributes the endpoints of one port group over its slices. */
function planGroup(
	group: PortGroup,
	slices: readonly EndpointSlice[],
	labels: Readonly<Record<string, string>>,
): { readonly changed: readonly Draft[]; readonly remove: readonly EndpointSlice[]; readonly create: Endpoint[][] } {
	const left = new Map(group.endpoints)
	const changed: Draft[] = []
	const unchanged: Draft[] = []
	const remove: EndpointSlice[] = []
	for (const slice of slices) {
		const have = slice.endpoints ?? []
		const endpoints: Endpoint[] = []
		let differs = !sameLabels(slice, labels)
		for (const endpoint of have) {
			const identity = endpointIdentity(endpoint)
			const want = left.get(identity)
			if (want === undefined) continue
			left.delete(identity)
			endpoints.push(want)
			if (endpointText(want) !== endpointText(endpoint)) differs = true
		}
		if (endpoints.length !== have.length) differs = true
		if (endpoints.length === 0) remove.push(slice)
		else if (differs) changed.push({ slice, endpoints })
		else unchanged.push({ slice, endpoints })
	}

	const rest = [...left.values()]
	changed.sort((a, b) => b.endpoints.length - a.endpoints.length)
	for (const draft of changed) {
		if (rest.length === 0) break
		draft.endpoints.push(...rest.splice(0, Math.max(0, mostEndpoints - draft.endpoints.length)))
	}
	const create: Endpoint[][] = []
	while (rest.length > 0) {
		const fit = rest.length < mostEndpoints ? tightestFit(unchanged, rest.length) : undefined
		if (fit === undefined) {
			create.push(rest.splice(0, mostEndpoints))
		} else {
			unchanged.splice(unchanged.indexOf(fit), 1)
			changed.push({ slice: fit.slice, endpoints: [...fit.endpoints, ...rest.splice(0)] })
		}
	}
	return { changed, remove, create }
}

/** The fullest slice that still takes `count` more. */
function tightestFit(drafts: readonly Draft[], count: number): Draft | undefined {
	let best: Draft | undefined
	for (const draft of drafts) {
		const size = draft.endpoints.length
		if (size + count <= mostEndpoints && (best === undefined || size > best.endpoints.length)) best = draft
	}
	return best
}

const texts = new WeakMap<Endpoint, string>()

/** The endpoint as text; an absent condition reads as what it means, so that defaults make no difference. */
function endpointText(endpoint: Endpoint): string {
	let text = texts.get(endpoint)
	if (text === undefined) {
		const { ready = true, serving = true, terminating = false } = endpoint.conditions ?? {}
		const { resourceVersion: _, ...target } = endpoint.targetRef ?? {}
		text = canonicalJson({ ...endpoint, conditions: { ready, serving, terminating }, targetRef: target })
		texts.set(endpoint, text)
	}
	return text
}

const reserved: ReadonlySet<string> = new Set([serviceNameLabel, managedByLabel, headlessLabel])

/** A slice carries the labels of its Service, and those that say whose it is. */
function sliceLabels(service: Service): Readonly<Record<string, string>> {
	const labels: Record<string, string> = {}
	for (const [key, value] of Object.entries(service.metadata.labels ?? {})) if (!reserved.has(key)) labels[key] = value
	labels[serviceNameLabel] = service.metadata.name
	labels[managedByLabel] = sliceManager
	if (isHeadless(service)) labels[headlessLabel] = ''
	return labels
}

function sameLabels(slice: EndpointSlice, labels: Readonly<Record<string, string>>): boolean {
	return canonicalJson(slice.metadata.labels ?? {}) === canonicalJson(labels)
}

function isPlaceholder(slice: EndpointSlice, labels: Readonly<Record<string, string>>): boolean {
	return (slice.endpoints ?? []).length === 0 && (slice.ports ?? []).length === 0 && sameLabels(slice, labels)
}

function newSlice(
	{ owner, labels, annotations }: SliceBase,
	family: Family,
	ports: EndpointSlice['ports'] & object,
	endpoints: readonly Endpoint[],
): NewSlice {
	return {
		apiVersion: 'discovery.k8s.io/v1',
		kind: 'EndpointSlice',
		metadata: {
			generateName: `${owner.metadata.name}-`,
			namespace: owner.metadata.namespace!,
			labels,
			...(Object.keys(annotations).length === 0 ? {} : { annotations }),
			ownerReferences: [controllerReference(owner)],
		},
		addressType: family,
		endpoints,
		ports,
	}
}

/** `slice` with the labels, endpoints and ports of another; its name, owner and version stay. */
function withContent(
	slice: EndpointSlice,
	content: Pick<EndpointSlice, 'endpoints' | 'ports'>,
	{ labels, annotations: added }: SliceBase,
): EndpointSlice {
	const { endpoints, ports } = content
	const { annotations: before, ...rest } = slice.metadata
	const { [triggerTime]: _, ...kept } = before ?? {}
	const annotations = { ...kept, ...added }
	const metadata = { ...rest, labels, ...(Object.keys(annotations).length === 0 ? {} : { annotations }) }
	return { ...slice, metadata, endpoints: endpoints ?? [], ports: ports ?? [] }
}
