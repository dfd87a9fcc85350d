// What is open: to the whole cluster, to addresses outside, and by which doors the outside comes in.

import { intersectPorts, unitePorts } from '../base/ports.ts'
import type { NetworkModel, Service } from '../model/network.ts'
import type { Origin } from '../model/origin.ts'
import { anyPod } from './classes.ts'
import { ConnectionPool, type Connections, connectionsOf, noConnections } from './connections.ts'
import type { Reach } from './engine.ts'
import { type IngressBackend, portsBehind } from './ingresses.ts'
import { type ConnectionsDocument, connectionsDocument } from './output/document.ts'
import type { Party } from './parties.ts'
import { fromAnyPod, type OutsideGroup, outsideOf, rangesText, unique } from './table.ts'

export interface Exposure {
	readonly name: string
	readonly namespace: string
	readonly kind: string
	/** Which directions some NetworkPolicy isolates, for all of its pods. */
	readonly isolated: readonly ('ingress' | 'egress')[]
	/** Doors through which somebody outside of the cluster gets in, and on which ports of the pods the policies let him. */
	readonly internet: readonly {
		readonly via: string
		readonly connections: ConnectionsDocument
		readonly because: readonly Origin[]
	}[]
	/** From any pod of the cluster, also one that is not there yet. */
	readonly fromCluster: ConnectionsDocument
	readonly toCluster: ConnectionsDocument
	/** Addresses that are no pod's. */
	readonly fromOutside: readonly RangeDocument[]
	readonly toOutside: readonly RangeDocument[]
}

export interface RangeDocument {
	readonly ranges: string
	readonly connections: ConnectionsDocument
}

export interface ExposureInput {
	readonly model: NetworkModel
	readonly reach: Reach
	readonly parties: readonly Party[]
	readonly ingresses: readonly IngressBackend[]
}

export function exposureOf({ model, reach, parties, ingresses }: ExposureInput): readonly Exposure[] {
	const doors = doorsOf(model)
	return parties.map((party) => {
		const pods = party.members.filter((m) => m.kind === 'pods')
		const into = outsideOf(reach, 'ingress', party)
		const open = into.reduce<Connections>((set, group) => unitePorts(set, reach.pool.setOf(group.some)), noConnections)
		const cluster = reach.pool.setOf(fromAnyPod(reach, party.members))
		const names = new Set(pods.flatMap((m) => m.pods))
		const internet: Exposure['internet'][number][] = []
		const push = (via: string, connections: Connections, because: readonly Origin[]) => {
			if (connections.length > 0) internet.push({ via, connections: connectionsDocument(connections), because })
		}
		for (const door of doors) {
			let ports = noConnections
			for (const target of door.targets)
				if (names.has(target.pod)) ports = unitePorts(ports, connectionsOf(target.protocol, target.port))
			push(door.via, intersectPorts(ports, open), door.because)
		}
		const byIngress = new Map<string, IngressBackend[]>()
		for (const backend of ingresses)
			byIngress.set(backend.ingress, [...(byIngress.get(backend.ingress) ?? []), backend])
		for (const [key, backends] of byIngress) {
			const { connections, because } = portsBehind(backends, party)
			push(`Ingress ${key}`, intersectPorts(connections, cluster), unique(because))
		}
		if (party.hostNetwork) push('hostNetwork', [0, 3 * 65_536 + 1], [party.origin])
		let toCluster: number = party.hostNetwork ? ConnectionPool.all : ConnectionPool.none
		for (const m of pods) toCluster = reach.pool.unite(toCluster, reach.egress(m.class, anyPod))
		const isolated = (['ingress', 'egress'] as const).filter(
			(d) => pods.length > 0 && pods.every((m) => reach.isIsolated(d, m.class)),
		)
		return {
			name: party.name,
			namespace: party.namespace,
			kind: party.kind,
			isolated,
			internet,
			fromCluster: connectionsDocument(cluster),
			toCluster: connectionsDocument(reach.pool.setOf(toCluster)),
			fromOutside: into.map((g) => rangeDocument(reach, g)),
			toOutside: outsideOf(reach, 'egress', party).map((g) => rangeDocument(reach, g)),
		}
	})
}

function rangeDocument(reach: Reach, { ranges, some }: OutsideGroup): RangeDocument {
	return { ranges: rangesText(ranges), connections: connectionsDocument(reach.pool.setOf(some)) }
}

interface Door {
	readonly via: string
	readonly targets: readonly {
		readonly pod: string
		readonly protocol: Parameters<typeof connectionsOf>[0]
		readonly port: number
	}[]
	readonly because: readonly Origin[]
}

/** Services that answer outside of the cluster, and ports of nodes that lead to pods. */
function doorsOf(model: NetworkModel): readonly Door[] {
	const doors: Door[] = []
	for (const service of [...model.services.values()].sort((a, b) => (a.key < b.key ? -1 : 1))) {
		const kind = doorKind(service)
		if (kind === undefined) continue
		const targets = service.ports.flatMap((p) =>
			p.endpoints.flatMap((e) => (e.pod === undefined ? [] : [{ pod: e.pod, protocol: p.protocol, port: e.port }])),
		)
		doors.push({ via: `Service ${service.key} (${kind})`, targets, because: [service.fields?.type ?? service.origin] })
	}
	for (const pod of [...model.pods.values()].sort((a, b) => (a.key < b.key ? -1 : 1))) {
		for (const port of pod.ports) {
			if (port.hostPort === undefined) continue
			const targets = [{ pod: pod.key, protocol: port.protocol, port: port.port }]
			doors.push({
				via: `hostPort ${port.hostPort}${pod.node === undefined ? '' : ` of ${pod.node}`}`,
				targets,
				because: [port.origin],
			})
		}
	}
	return doors
}

function doorKind(service: Service): string | undefined {
	if (service.loadBalancer !== undefined) {
		const ranges = service.loadBalancer.sourceRanges
		return `LoadBalancer${service.loadBalancer.internal === undefined ? '' : ', internal'}${ranges.length === 0 ? '' : ` for ${ranges.join(', ')}`}`
	}
	if (service.type === 'NodePort') return 'NodePort'
	return service.externalIps.length > 0 ? 'external IPs' : undefined
}

export function exposureTable(items: readonly Exposure[]): {
	readonly head: readonly string[]
	readonly rows: readonly (readonly string[])[]
} {
	const list = (texts: readonly string[]) => (texts.length === 0 ? '-' : texts.join('; '))
	const ranges = (groups: readonly RangeDocument[]) => list(groups.map((g) => `${g.ranges}: ${g.connections.text}`))
	return {
		head: ['workload', 'isolated', 'from internet', 'from any pod', 'from addresses', 'to any pod', 'to addresses'],
		rows: items.map((item) => [
			item.name,
			list(item.isolated),
			list(item.internet.map((door) => `${door.connections.text} via ${door.via}`)),
			dash(item.fromCluster.text),
			ranges(item.fromOutside),
			dash(item.toCluster.text),
			ranges(item.toOutside),
		]),
	}
}

function dash(text: string): string {
	return text === 'none' ? '-' : text
}
