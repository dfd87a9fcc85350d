// What Ingress objects lead to: the ports of pods that a controller must reach to serve them. Where the controller runs
// and what its labels are no manifest says for certain, so it is a pod of any namespace with any labels.

import { unitePorts } from '../base/ports.ts'
import type { KubeObject, ObjectKey } from '../kube/objects/meta.ts'
import type { IngressBackend as Backend, Ingress } from '../kube/objects/networking.ts'
import type { NetworkModel } from '../model/network.ts'
import type { Origin } from '../model/origin.ts'
import { type ClusterState, originOf } from '../model/state.ts'
import { type Connections, connectionsOf, noConnections } from './connections.ts'
import type { Party } from './parties.ts'

export interface IngressBackend {
	readonly ingress: ObjectKey
	readonly service: ObjectKey
	readonly port: number | string | undefined
	/** Pods behind the Service, with the port each listens on. */
	readonly targets: readonly { readonly pod: ObjectKey; readonly port: number }[]
	readonly origin: Origin
}

export function backendsOf(
	model: Pick<NetworkModel, 'services'>,
	state: Pick<ClusterState, 'sources'>,
	objects: readonly KubeObject[],
): readonly IngressBackend[] {
	const found: IngressBackend[] = []
	for (const object of objects) {
		if (object.kind !== 'Ingress') continue
		const { metadata, spec } = object as Ingress
		const namespace = metadata.namespace ?? ''
		const key = `${namespace}/${metadata.name}`
		const add = (backend: Backend | undefined, field: string) => {
			const service = backend?.service
			if (service === undefined) return
			const port = service.port?.name ?? service.port?.number
			const target = `${namespace}/${service.name}`
			const ports =
				model.services.get(target)?.ports.filter((p) => p.protocol === 'TCP' && (p.name === port || p.port === port)) ??
				[]
			found.push({
				ingress: key,
				service: target,
				port,
				targets: ports.flatMap((p) =>
					p.endpoints.flatMap((e) => (e.pod === undefined ? [] : [{ pod: e.pod, port: e.port }])),
				),
				origin: originOf(state, 'Ingress', key, field),
			})
		}
		add(spec?.defaultBackend, 'spec.defaultBackend')
		for (const [i, rule] of (spec?.rules ?? []).entries())
			for (const [j, path] of (rule.http?.paths ?? []).entries())
				add(path.backend, `spec.rules[${i}].http.paths[${j}].backend`)
	}
	return found.sort((a, b) => (a.ingress < b.ingress ? -1 : a.ingress > b.ingress ? 1 : 0))
}

/** The ports of the workload that some Ingress leads to. */
export function portsBehind(
	backends: readonly IngressBackend[],
	party: Party,
): { readonly connections: Connections; readonly because: readonly Origin[] } {
	let connections = noConnections
	const because: Origin[] = []
	if (backends.length === 0) return { connections, because }
	const pods = new Set(party.members.flatMap((m) => (m.kind === 'pods' ? m.pods : [])))
	for (const { targets, origin } of backends) {
		const ports = targets.filter((t) => pods.has(t.pod))
		if (ports.length === 0) continue
		because.push(origin)
		for (const { port } of ports) connections = unitePorts(connections, connectionsOf('TCP', port))
	}
	return { connections, because }
}
