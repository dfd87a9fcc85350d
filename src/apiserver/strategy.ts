// What the server itself sets on objects of a kind when they are created or updated: generation, status, initial phases.
// Source: the strategies of Kubernetes' registry packages (pkg/registry/<group>/<kind>/strategy.go), rewritten as data.

import type { UnknownObject } from '../kube/objects/meta.ts'
import { isObject, type Json, sameJson } from '../kube/schema/json.ts'
import type { Served } from './registry.ts'

/** Kinds with `metadata.generation`: it grows when anything but metadata and status changes. */
const withGeneration: ReadonlySet<string> = new Set([
	'pods',
	'replicationcontrollers',
	'deployments.apps',
	'replicasets.apps',
	'statefulsets.apps',
	'daemonsets.apps',
	'jobs.batch',
	'cronjobs.batch',
	'endpointslices.discovery.k8s.io',
	'ingresses.networking.k8s.io',
	'ingressclasses.networking.k8s.io',
	'networkpolicies.networking.k8s.io',
	'poddisruptionbudgets.policy',
	'customresourcedefinitions.apiextensions.k8s.io',
	'mutatingwebhookconfigurations.admissionregistration.k8s.io',
	'validatingwebhookconfigurations.admissionregistration.k8s.io',
	'priorityclasses.scheduling.k8s.io',
])

export function hasGeneration(served: Served): boolean {
	return served.custom || withGeneration.has(served.storage)
}

export function hasStatus(served: Served): boolean {
	return served.resource.subresources.some((sub) => sub.name === 'status')
}

/** DELETE answers the object instead of a Status. */
export function answersDeleted(served: Served): boolean {
	return served.custom || returned.has(served.storage)
}
const returned: ReadonlySet<string> = new Set([
	'pods',
	'namespaces',
	'services',
	'serviceaccounts',
	'persistentvolumes',
	'persistentvolumeclaims',
	'podtemplates',
	'resourcequotas',
])

/** Updates without a resourceVersion are refused. */
export function needsRevision(served: Served): boolean {
	return served.custom || served.storage === 'leases.coordination.k8s.io'
}

/** A new object as it is kept: the client's status is dropped, the first one is set. */
export function prepareCreate(served: Served, object: UnknownObject): UnknownObject {
	const out: Record<string, unknown> = { ...object }
	// A node registers itself together with its status.
	if (hasStatus(served) && served.storage !== 'nodes') {
		const first = firstStatus(served, object)
		if (first !== undefined) out.status = first
		else if (out.status !== undefined) delete out.status
	}
	if (served.storage === 'namespaces') {
		const spec = isObject(object.spec) ? object.spec : {}
		const finalizers = Array.isArray(spec.finalizers) ? (spec.finalizers as string[]) : []
		out.spec = {
			...spec,
			finalizers: finalizers.includes('kubernetes') ? finalizers : [...finalizers, 'kubernetes'],
		}
	}
	if (hasGeneration(served)) out.metadata = { ...object.metadata, generation: 1 }
	return out as UnknownObject
}

function firstStatus(served: Served, object: UnknownObject): Json | undefined {
	switch (served.storage) {
		case 'namespaces':
			return { phase: 'Active' }
		case 'pods':
			return { phase: 'Pending', qosClass: qualityOf(object) }
		case 'persistentvolumeclaims':
		case 'persistentvolumes':
			return { phase: 'Pending' }
		case 'services':
			return { loadBalancer: {} }
		case 'ingresses.networking.k8s.io':
			return { loadBalancer: {} }
		case 'deployments.apps':
		case 'jobs.batch':
		case 'cronjobs.batch':
			return {}
		case 'replicasets.apps':
		case 'replicationcontrollers':
			return { replicas: 0 }
		case 'statefulsets.apps':
			return { replicas: 0, availableReplicas: 0 }
		case 'daemonsets.apps':
			return { currentNumberScheduled: 0, numberMisscheduled: 0, desiredNumberScheduled: 0, numberReady: 0 }
		default:
			return undefined
	}
}

/**
 * An update of the object itself: status and what the system sets stay as they were, the generation grows with the
 * specification.
 */
export function prepareUpdate(served: Served, before: UnknownObject, next: UnknownObject): UnknownObject {
	const out: Record<string, unknown> = { ...next }
	if (hasStatus(served)) {
		if (before.status === undefined) delete out.status
		else out.status = before.status
	}
	// Only the finalize subresource takes finalizers away.
	if (served.storage === 'namespaces') out.spec = before.spec
	out.metadata = systemMetadata(before, next)
	return withNextGeneration(served, before, out as UnknownObject)
}

/** An update of the status subresource: only the status, and of the metadata what kubelets and controllers write there. */
export function prepareStatusUpdate(served: Served, before: UnknownObject, next: UnknownObject): UnknownObject {
	if (served.custom) return prepareCustomStatus(before, next)
	const metadata = systemMetadata(before, next)
	const { generation } = before.metadata
	const out: Record<string, unknown> = {
		...before,
		metadata: {
			...metadata,
			...(generation === undefined ? {} : { generation }),
			...(before.metadata.ownerReferences === undefined ? {} : { ownerReferences: before.metadata.ownerReferences }),
		},
	}
	if (next.status === undefined) delete out.status
	else out.status = next.status
	return out as UnknownObject
}

/** Of custom objects nothing but the status and who owns it. */
function prepareCustomStatus(before: UnknownObject, next: UnknownObject): UnknownObject {
	const { managedFields } = next.metadata
	const { managedFields: _, ...metadata } = before.metadata
	const out: Record<string, unknown> = {
		...before,
		metadata: managedFields === undefined ? metadata : { ...metadata, managedFields },
	}
	if (next.status === undefined) delete out.status
	else out.status = next.status
	return out as UnknownObject
}

/** The client's metadata with what only the server decides. */
function systemMetadata(before: UnknownObject, next: UnknownObject): UnknownObject['metadata'] {
	const metadata: Record<string, unknown> = { ...next.metadata }
	for (const field of [
		'name',
		'namespace',
		'uid',
		'creationTimestamp',
		'generation',
		'deletionTimestamp',
		'deletionGracePeriodSeconds',
	] as const) {
		const value = before.metadata[field]
		if (value === undefined) delete metadata[field]
		else metadata[field] = value
	}
	return metadata as unknown as UnknownObject['metadata']
}

function withNextGeneration(served: Served, before: UnknownObject, next: UnknownObject): UnknownObject {
	const generation = before.metadata.generation
	if (generation === undefined || !hasGeneration(served)) return next
	const ignore = new Set(['metadata', 'kind', 'apiVersion', ...(hasStatus(served) ? ['status'] : [])])
	const names = new Set([...Object.keys(before), ...Object.keys(next)])
	for (const name of names) {
		if (ignore.has(name) || sameJson(before[name] as Json, next[name] as Json)) continue
		return { ...next, metadata: { ...next.metadata, generation: generation + 1 } }
	}
	return next
}

/** The quality-of-service class of a pod: by requests and limits of cpu and memory. */
function qualityOf(pod: UnknownObject): 'Guaranteed' | 'Burstable' | 'BestEffort' {
	const spec = isObject(pod.spec) ? pod.spec : {}
	let any = false
	let guaranteed = true
	for (const list of [spec.containers, spec.initContainers]) {
		for (const container of Array.isArray(list) ? list : []) {
			const resources = isObject(container) && isObject(container.resources) ? container.resources : {}
			const requests = isObject(resources.requests) ? resources.requests : {}
			const limits = isObject(resources.limits) ? resources.limits : {}
			for (const name of ['cpu', 'memory']) {
				if (requests[name] !== undefined || limits[name] !== undefined) any = true
				const request = requests[name] ?? limits[name]
				if (limits[name] === undefined || String(request) !== String(limits[name])) guaranteed = false
			}
		}
	}
	return !any ? 'BestEffort' : guaranteed ? 'Guaranteed' : 'Burstable'
}
