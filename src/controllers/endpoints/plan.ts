// The old Endpoints object of a Service: one list of addresses for each set of ports. Deprecated since Kubernetes 1.33,
// and still what older clients read. Pure.

import type { EndpointAddress, EndpointSubset, Endpoints, Node, Service } from '../../kube/objects/core.ts'
import type { Endpoint, EndpointPort } from '../../kube/objects/discovery.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { familiesOf, isHeadless, portsText, selectsPods, wantedEndpoints } from '../endpointslice/endpoints.ts'
import { headlessLabel, triggerTime } from '../endpointslice/plan.ts'
import { canonicalJson } from '../hash.ts'

const managedByLabel = 'endpoints.kubernetes.io/managed-by'
const overCapacity = 'endpoints.kubernetes.io/over-capacity'
/** Addresses an Endpoints object holds at most. */
const mostAddresses = 1000

export type EndpointsPlan =
	| { readonly do: 'nothing' }
	| { readonly do: 'create' | 'update'; readonly endpoints: Endpoints }

export interface EndpointsFacts {
	readonly service: Service
	readonly pods: Iterable<Pod>
	readonly existing: Endpoints | undefined
	nodeOf(name: string): Node | undefined
	/** As in SliceFacts. */
	readonly changedAt?: string | undefined
}

/** undefined `existing`: there is none yet. A Service without selector keeps what its user wrote. */
export function planEndpoints({ service, pods, existing, nodeOf, changedAt }: EndpointsFacts): EndpointsPlan {
	const gone = service.metadata.deletionTimestamp !== undefined
	if (gone || service.spec?.type === 'ExternalName' || !selectsPods(service)) return { do: 'nothing' }
	const publish = service.spec?.publishNotReadyAddresses === true
	const groups = wantedEndpoints(service, pods, familiesOf(service)[0]!, nodeOf)
	const all: { endpoint: Endpoint; ports: readonly EndpointPort[] }[] = []
	for (const { ports, endpoints } of groups.values()) {
		for (const endpoint of endpoints.values()) {
			if (publish || endpoint.conditions?.terminating !== true) all.push({ endpoint, ports })
		}
	}
	// Where not all fit, those that serve are kept.
	const ready = all.filter(({ endpoint }) => endpoint.conditions?.ready === true)
	const kept = [...ready, ...all.filter((e) => !ready.includes(e))].slice(0, mostAddresses)
	const subsets = pack(kept)
	const annotations: Record<string, string> = { ...existing?.metadata.annotations }
	delete annotations[overCapacity]
	if (kept.length < all.length) annotations[overCapacity] = 'truncated'
	const labels = {
		...service.metadata.labels,
		[managedByLabel]: 'endpoint-controller',
		...(isHeadless(service) ? { [headlessLabel]: '' } : {}),
	}
	const same =
		existing !== undefined &&
		subsetsText(existing.subsets) === subsetsText(subsets) &&
		canonicalJson(existing.metadata.labels ?? {}) === canonicalJson(labels) &&
		canonicalJson(existing.metadata.annotations ?? {}) === canonicalJson(annotations)
	if (same) return { do: 'nothing' }
	const { name, namespace } = service.metadata
	delete annotations[triggerTime]
	if (changedAt !== undefined) annotations[triggerTime] = changedAt
	const metadata = { ...(existing?.metadata ?? { name, namespace: namespace! }), labels, annotations }
	return {
		do: existing === undefined ? 'create' : 'update',
		endpoints: { apiVersion: 'v1', kind: 'Endpoints', metadata, subsets },
	}
}

/** Ports that have the same addresses share a subset. */
function pack(all: readonly { endpoint: Endpoint; ports: readonly EndpointPort[] }[]): readonly EndpointSubset[] {
	const byPort = new Map<string, { port: EndpointPort | undefined; ready: Endpoint[]; notReady: Endpoint[] }>()
	for (const { endpoint, ports } of all) {
		for (const port of ports.length === 0 ? [undefined] : ports) {
			const key = port === undefined ? '' : portsText([port])
			let entry = byPort.get(key)
			if (entry === undefined) byPort.set(key, (entry = { port, ready: [], notReady: [] }))
			entry[endpoint.conditions?.ready === true ? 'ready' : 'notReady'].push(endpoint)
		}
	}
	const addressText = (list: readonly Endpoint[]): string =>
		list
			.map((e) => `${e.addresses[0]} ${e.targetRef?.uid}`)
			.sort()
			.join(',')
	const byAddresses = Map.groupBy(
		byPort.values(),
		({ ready, notReady }) => `${addressText(ready)}|${addressText(notReady)}`,
	)
	return [...byAddresses.values()].map((entries) => {
		const { ready, notReady } = entries[0]!
		const ports = entries.flatMap(({ port }) =>
			port === undefined ? [] : [{ ...port, ...(port.name === '' ? { name: undefined } : {}), port: port.port! }],
		)
		return {
			...(ready.length === 0 ? {} : { addresses: sorted(ready) }),
			...(notReady.length === 0 ? {} : { notReadyAddresses: sorted(notReady) }),
			...(ports.length === 0 ? {} : { ports: ports.map(withoutUndefined) }),
		}
	})
}

function withoutUndefined<T extends object>(value: T): { [K in keyof T]: Exclude<T[K], undefined> } {
	return JSON.parse(JSON.stringify(value)) as { [K in keyof T]: Exclude<T[K], undefined> }
}

function sorted(endpoints: readonly Endpoint[]): readonly EndpointAddress[] {
	return endpoints
		.map(({ addresses, hostname, nodeName, targetRef }) => ({
			ip: addresses[0]!,
			...(hostname === undefined ? {} : { hostname }),
			...(nodeName === undefined ? {} : { nodeName }),
			...(targetRef === undefined ? {} : { targetRef }),
		}))
		.sort((a, b) => (a.ip < b.ip ? -1 : 1))
}

/** Subsets, addresses and ports in any order mean the same. */
function subsetsText(subsets: readonly EndpointSubset[] | undefined): string {
	const unordered = <T>(list: readonly T[] | undefined): string[] => (list ?? []).map(canonicalJson).sort()
	return unordered(
		(subsets ?? []).map((s) => [
			unordered(s.addresses),
			unordered(s.notReadyAddresses),
			unordered(s.ports?.map((p) => ({ protocol: 'TCP', ...p }))),
		]),
	).join()
}
