// Mirrors the Endpoints a user keeps for a Service without selector into EndpointSlices, which is what nodes read.
// Rules: KEP-752 (EndpointSlice mirroring) and Kubernetes documentation, "EndpointSlices".

import { endpointSlices, endpoints, services } from '../../kube/kinds.ts'
import type { EndpointAddress, Endpoints, Service } from '../../kube/objects/core.ts'
import {
	type Endpoint,
	type EndpointPort,
	type EndpointSlice,
	managedByLabel,
	serviceNameLabel,
} from '../../kube/objects/discovery.ts'
import { namespacedKey } from '../../kube/objects/meta.ts'
import { type Cluster, type Controller, createController } from '../controller.ts'
import { isNamespaceGoing } from '../replicaset/controller.ts'
import { endpointIdentity, type Family, type PortGroup, portsText, selectsPods } from './endpoints.ts'
import { planFamily, type SliceBase, type SlicePlan, triggerTime } from './plan.ts'

export const mirrorManager = 'endpointslicemirroring-controller.k8s.io'
const skipLabel = 'endpointslice.kubernetes.io/skip-mirror'
const leaderAnnotation = 'control-plane.alpha.kubernetes.io/leader'
const lastApplied = 'kubectl.kubernetes.io/last-applied-configuration'
/** Addresses of one subset that are mirrored at most. */
const mostAddresses = 1000

/** The slices for these Endpoints; undefined `service` or `object`: there is none. */
export function planMirror(
	service: Service | undefined,
	object: Endpoints | undefined,
	slices: readonly EndpointSlice[],
): SlicePlan {
	if (object === undefined || !isMirrored(service, object)) return { create: [], update: [], remove: slices }
	const { [lastApplied]: _, [triggerTime]: changedAt, ...annotations } = object.metadata.annotations ?? {}
	const base: SliceBase = {
		owner: object,
		labels: {
			...object.metadata.labels,
			[serviceNameLabel]: object.metadata.name,
			[managedByLabel]: mirrorManager,
		},
		annotations: { ...annotations, ...(changedAt === undefined ? {} : { [triggerTime]: changedAt }) },
	}
	const plans = (['IPv4', 'IPv6'] as const).map((family) => {
		const mine = slices.filter((slice) => slice.addressType === family)
		const wanted = groupsOf(object, family)
		// Unlike a Service's own, a family without addresses has no slice at all.
		return wanted.size === 0 ? { create: [], update: [], remove: mine } : planFamily(base, family, wanted, mine)
	})
	return {
		create: plans.flatMap((plan) => plan.create),
		update: plans.flatMap((plan) => plan.update),
		remove: plans.flatMap((plan) => plan.remove),
	}
}

function isMirrored(service: Service | undefined, { metadata }: Endpoints): boolean {
	if (service === undefined || service.metadata.deletionTimestamp !== undefined || selectsPods(service)) return false
	return metadata.labels?.[skipLabel] !== 'true' && metadata.annotations?.[leaderAnnotation] === undefined
}

function groupsOf(object: Endpoints, family: Family): Map<string, PortGroup> {
	const groups = new Map<string, PortGroup>()
	for (const subset of object.subsets ?? []) {
		const ports: EndpointPort[] = (subset.ports ?? []).map(({ name = '', protocol = 'TCP', port, appProtocol }) => ({
			name,
			protocol,
			port,
			...(appProtocol === undefined ? {} : { appProtocol }),
		}))
		const text = portsText(ports)
		let left = mostAddresses
		for (const [addresses, ready] of [
			[subset.addresses, true],
			[subset.notReadyAddresses, false],
		] as const) {
			for (const address of addresses ?? []) {
				if (address.ip.includes(':') !== (family === 'IPv6') || left-- <= 0) continue
				let group = groups.get(text)
				if (group === undefined) groups.set(text, (group = { ports, endpoints: new Map() }))
				const endpoint = endpointOf(address, ready)
				group.endpoints.set(endpointIdentity(endpoint), endpoint)
			}
		}
	}
	return groups
}

function endpointOf({ ip, hostname, nodeName, targetRef }: EndpointAddress, ready: boolean): Endpoint {
	return {
		addresses: [ip],
		conditions: { ready },
		...(hostname === undefined ? {} : { hostname }),
		...(nodeName === undefined ? {} : { nodeName }),
		...(targetRef === undefined ? {} : { targetRef }),
	}
}

export function endpointSliceMirroring(cluster: Cluster): Controller {
	const { views } = cluster
	const serviceView = views.of(services)
	const endpointsView = views.of(endpoints)
	const sliceView = views.of(endpointSlices)
	const slicesOf = sliceView.index('mirrored', (slice) => mirroredOf(slice) ?? [])
	const controller = createController(cluster, {
		name: 'endpointslicemirroring-controller',
		parallel: 4,
		async reconcile(key, turn) {
			const plan = planMirror(serviceView.get(key), endpointsView.get(key), [...slicesOf.get(key)])
			await Promise.all([
				...plan.create.map((slice) => turn.create(endpointSlices, slice)),
				...plan.update.map((slice) => turn.update(endpointSlices, slice)),
			]).catch((e: unknown) => {
				if (!isNamespaceGoing(e)) throw e
			})
			await Promise.all(plan.remove.map((slice) => turn.delete(endpointSlices, slice)))
			return undefined
		},
	})
	const due = controller.queue.add
	// Most Services select pods, and their Endpoints change often: not ours to look at.
	endpointsView.onChange((key) => {
		const service = serviceView.get(key)
		if (service === undefined || !selectsPods(service)) due(key)
	})
	serviceView.onChange((key, before, after) => {
		const selected = [before, after].map((service) => service !== undefined && selectsPods(service))
		if (selected[0] !== selected[1] || (before === undefined) !== (after === undefined)) due(key)
	})
	sliceView.onChange((_, before, after) => {
		for (const slice of [before, after]) for (const key of (slice && mirroredOf(slice)) ?? []) due(key)
	})
	return controller
}

/** The key of the Endpoints whose mirror this is, if it is one. */
function mirroredOf(slice: EndpointSlice): readonly string[] | undefined {
	const { labels, namespace = '' } = slice.metadata
	const name = labels?.[serviceNameLabel]
	return name !== undefined && labels?.[managedByLabel] === mirrorManager ? [namespacedKey(namespace, name)] : undefined
}
