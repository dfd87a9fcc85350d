// The subresources: status, scale, binding, eviction, token, finalize, log and the parts of a pod changed one by one.
// exec, attach and port-forward are upgrades: see upgrade.ts.

import type { UnknownObject } from '../kube/objects/meta.ts'
import type { Pod } from '../kube/objects/pod.ts'
import { isObject, type Json, type JsonObject } from '../kube/schema/json.ts'
import { formatSelector, matchesLabelSelector, selectorOf } from '../kube/selector.ts'
import { json, objectAnswer, text } from './answer.ts'
import { type Call, keyIn, shownObject } from './api.ts'
import { issueToken } from './auth/token-request.ts'
import { mediaTypeOf, parseBody, readBody } from './body.ts'
import { valueAtPath, withValueAtPath } from './crd/field-path.ts'
import { remove } from './delete.ts'
import { answerLog } from './log.ts'
import { patch } from './patch/patch.ts'
import { getObject } from './read.ts'
import type { KindRules, Served } from './registry.ts'
import { badRequest, cause, conflict, invalid, methodNotAllowed, notFound, refuse } from './status.ts'
import type { Entry } from './store.ts'
import { ageOf } from './table/cells.ts'
import type { KindTable } from './table/table.ts'
import { again, patchObject, readWriteOptions, replace, updateObject } from './write.ts'

export async function handleSubresource(call: Call): Promise<Response> {
	const { request, served } = call
	const { method } = request
	const name = call.subresource ?? (served.resource.kind === 'Binding' ? 'binding' : '')
	switch (name) {
		case 'status':
		case 'approval':
			if (method === 'GET') return getObject(call)
			if (method === 'PUT') return updateObject({ ...call, subresource: 'status' })
			if (method === 'PATCH') return patchObject({ ...call, subresource: 'status' })
			throw methodNotAllowed()
		case 'scale':
			return handleScale(call)
		case 'ephemeralcontainers':
		case 'resize':
			if (method === 'GET') return getObject(call)
			if (method === 'PUT' || method === 'PATCH') return changePart(call, name)
			throw methodNotAllowed()
		case 'binding':
			if (method !== 'POST') throw methodNotAllowed()
			return bind(call)
		case 'eviction':
			if (method !== 'POST') throw methodNotAllowed()
			return evict(call)
		case 'token':
			if (method !== 'POST') throw methodNotAllowed()
			return issueToken(call)
		case 'finalize':
			if (method !== 'PUT') throw methodNotAllowed()
			return finalize(call)
		case 'log':
			if (method !== 'GET') throw methodNotAllowed()
			return answerLog(call)
		case 'exec':
		case 'attach':
		case 'portforward':
			throw badRequest('Upgrade request required')
		case 'proxy':
			if (served.resource.plural === 'nodes') return answerNodeProxy(call)
			return (await import('./stream/proxy.ts')).answerProxy(call)
		default:
			throw methodNotAllowed()
	}
}

/** The object a subresource belongs to, as the next write must see it. */
function parentOf(call: Call): Entry {
	const { api, served, namespace, name = '' } = call
	const entry = api.store.current(served.storage, keyIn(namespace, name))
	if (entry === undefined) throw notFound(served.resource, name)
	return entry
}

async function bodyOf(call: Call, apiVersion: string, kind: string): Promise<JsonObject> {
	const bytes = await readBody(call.request)
	const { object } = await parseBody(bytes, mediaTypeOf(call.request), { apiVersion, kind })
	const have = object.kind ?? kind
	if (have !== kind) throw badRequest(`${String(have)} cannot be handled as a ${kind}`)
	return object
}

function success(code: number): Response {
	return json(code, { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', code })
}

const part = (object: UnknownObject | JsonObject, name: string): JsonObject => {
	const value = (object as JsonObject)[name]
	return isObject(value) ? value : {}
}

// scale

const scaleKind = { group: 'autoscaling', version: 'v1', kind: 'Scale' }

/** autoscaling/v1 Scale of a workload. */
function scaleOf(served: Served, object: UnknownObject): UnknownObject {
	if (served.rules?.scale !== undefined) return customScaleOf(served.rules.scale, object)
	const spec = part(object, 'spec')
	const status = part(object, 'status')
	const { name, namespace, uid, resourceVersion, creationTimestamp } = object.metadata
	const selector = spec.selector
	const query =
		object.kind === 'ReplicationController'
			? formatSelector(selectorOf({ matchLabels: (selector ?? {}) as Record<string, string> }))
			: formatSelector(selectorOf((selector ?? {}) as Parameters<typeof selectorOf>[0]))
	return {
		kind: 'Scale',
		apiVersion: 'autoscaling/v1',
		metadata: { name, namespace, uid, resourceVersion, creationTimestamp },
		spec: { ...(spec.replicas ? { replicas: spec.replicas } : {}) },
		status: { replicas: status.replicas ?? 0, selector: query },
	} as unknown as UnknownObject
}

/** By the paths the definition of a custom kind names. */
function customScaleOf(paths: NonNullable<KindRules['scale']>, object: UnknownObject): UnknownObject {
	const at = (path: string | undefined): Json | undefined =>
		path === undefined || path === '' ? undefined : valueAtPath(object as unknown as Json, path)
	const { name, namespace, uid, resourceVersion, creationTimestamp } = object.metadata
	const selector = at(paths.labelSelectorPath)
	const replicas = at(paths.specReplicasPath)
	return {
		kind: 'Scale',
		apiVersion: 'autoscaling/v1',
		metadata: { name, namespace, uid, resourceVersion, creationTimestamp },
		spec: { ...(replicas ? { replicas } : {}) },
		status: {
			replicas: at(paths.statusReplicasPath) ?? 0,
			...(typeof selector === 'string' && selector !== '' ? { selector } : {}),
		},
	} as unknown as UnknownObject
}

/** The Scale of an object; as a table with columns of its own. */
function scaleAnswer(call: Call, object: UnknownObject): Promise<Response> {
	const { served } = call
	const { resource, apiVersion, storage, type, custom } = served
	const shown: Served = { resource, apiVersion, storage, type, custom, rules: { table: scaleTable } }
	return objectAnswer({ ...call, served: shown }, 200, scaleOf(served, object))
}

const scaleTable: KindTable = {
	columns: ['Name', 'Desired', 'Available', 'Age'],
	cells: (scale, now) => [
		scale.metadata.name,
		String(part(scale, 'spec').replicas ?? 0),
		String(part(scale, 'status').replicas ?? 0),
		ageOf(scale.metadata.creationTimestamp, now),
	],
}

async function handleScale(call: Call): Promise<Response> {
	const { method } = call.request
	if (method === 'GET') {
		const { api, served, namespace, name = '' } = call
		const entry = api.store.get(served.storage, keyIn(namespace, name))
		if (entry === undefined) throw notFound(served.resource, name)
		return scaleAnswer(call, shownObject(served, entry))
	}
	if (method !== 'PUT' && method !== 'PATCH') throw methodNotAllowed()
	const options = readWriteOptions(call)
	let scale: JsonObject
	if (method === 'PUT') scale = await bodyOf(call, 'autoscaling/v1', 'Scale')
	else {
		const bytes = await readBody(call.request)
		const current = scaleOf(call.served, parentOf(call).object) as unknown as JsonObject
		scale = patch(mediaTypeOf(call.request), bytes, current, {
			apiVersion: 'autoscaling/v1',
			fieldManager: options.fieldManager,
			force: call.query.get('force') === 'true',
			subresource: 'scale',
			now: call.api.now(),
			custom: false,
		}).object
	}
	const replicas = part(scale, 'spec').replicas ?? 0
	if (!Number.isInteger(replicas) || (replicas as number) < 0) {
		throw invalid(scaleKind, call.name ?? '', [
			cause.invalid('spec.replicas', replicas, 'must be greater than or equal to 0'),
		])
	}
	const before = parentOf(call)
	const given = part(scale, 'metadata') as { uid?: string; resourceVersion?: string }
	const metadata = {
		...before.object.metadata,
		...(given.uid ? { uid: given.uid } : {}),
		resourceVersion: given.resourceVersion ?? String(before.revision),
	}
	const { scale: paths } = call.served.rules ?? {}
	const next = (
		paths === undefined
			? { ...before.object, metadata, spec: { ...part(before.object, 'spec'), replicas } }
			: { ...withScale(shownObject(call.served, before), paths.specReplicasPath, replicas), metadata }
	) as UnknownObject
	const { subresource: _, ...parent } = call
	if (options.dryRun) return scaleAnswer(call, next)
	return replace({ ...parent, subresource: undefined }, before, next, options, {
		unasked: true,
		managedBy: 'scale',
		answer: (entry) => scaleAnswer(call, shownObject(call.served, entry)),
	})
}

function withScale(object: UnknownObject, path: string, replicas: Json): object {
	return withValueAtPath(object as unknown as Json, path, replicas) as object
}

// nodes

/** What of a kubelet's own HTTP API can be answered without one: its health and its pods. */
function answerNodeProxy(call: Call): Promise<Response> | Response {
	const { api, request, rest = '' } = call
	const { name } = parentOf(call).object.metadata
	if (request.method !== 'GET' && request.method !== 'HEAD') throw methodNotAllowed()
	switch (rest) {
		case 'healthz':
		case 'healthz/ping': {
			const conditions = part(parentOf(call).object, 'status').conditions
			const ready =
				Array.isArray(conditions) &&
				conditions.some((one: Json) => isObject(one) && one.type === 'Ready' && one.status === 'True')
			if (!ready) throw refuse('ServiceUnavailable', `node ${JSON.stringify(name)} is not ready`, {})
			return text(200, 'ok')
		}
		case 'pods':
		case 'pods/': {
			const all = [...api.store.list('pods')].filter(({ object }) => part(object, 'spec').nodeName === name)
			return json(200, { kind: 'PodList', apiVersion: 'v1', metadata: {}, items: all.map((entry) => entry.object) })
		}
		default:
			throw refuse(
				'NotImplemented',
				`nodes/proxy/${rest} is not served: the nodes of this cluster have no kubelet, of its API there is healthz and pods`,
				{},
			)
	}
}

// pods

/** `ephemeralcontainers` and `resize` change one part of a pod's spec. */
async function changePart(call: Call, which: 'ephemeralcontainers' | 'resize'): Promise<Response> {
	const options = readWriteOptions(call)
	const bytes = await readBody(call.request)
	const before = parentOf(call)
	const current = before.object as unknown as JsonObject
	const given =
		call.request.method === 'PUT'
			? (await parseBody(bytes, mediaTypeOf(call.request), { apiVersion: 'v1', kind: 'Pod' })).object
			: patch(mediaTypeOf(call.request), bytes, current, {
					...(call.served.type === undefined ? {} : { schema: call.served.type }),
					apiVersion: 'v1',
					fieldManager: options.fieldManager,
					force: false,
					subresource: which,
					now: call.api.now(),
				}).object
	const extra: Parameters<typeof replace>[4] = {
		warnings: which === 'ephemeralcontainers' ? [ephemeralWarning] : [],
		prepare(old, next) {
			const spec = part(old, 'spec')
			const wanted = part(next, 'spec')
			const field = which === 'resize' ? 'containers' : 'ephemeralContainers'
			const merged =
				which === 'resize' ? withResources(spec.containers, wanted.containers) : (wanted[field] ?? spec[field])
			const { generation } = old.metadata
			return {
				...old,
				metadata: {
					...old.metadata,
					...(next.metadata.resourceVersion ? { resourceVersion: next.metadata.resourceVersion } : {}),
					...(generation === undefined ? {} : { generation: generation + 1 }),
				},
				spec: { ...spec, [field]: merged },
			} as UnknownObject
		},
	}
	return again(call, () => replace(call, parentOf(call), given as unknown as UnknownObject, options, extra))
}

const ephemeralWarning =
	"ephemeral containers are kept and not started here: kubectl exec runs this machine's programs in the pod's network"

function withResources(have: Json | undefined, want: Json | undefined): Json {
	const wanted = new Map((Array.isArray(want) ? want : []).map((c: JsonObject) => [c.name, c] as const))
	return (Array.isArray(have) ? have : []).map((c: JsonObject) => {
		const next = wanted.get(c.name)
		return next?.resources === undefined ? c : { ...c, resources: next.resources }
	})
}

/** The scheduler's decision: the pod belongs to a node from now on. */
async function bind(call: Call): Promise<Response> {
	const options = readWriteOptions(call)
	const binding = await bodyOf(call, 'v1', 'Binding')
	const meta = part(binding, 'metadata')
	const pods = call.api.registry.ofStorage('pods')!
	const name = call.name ?? (typeof meta.name === 'string' ? meta.name : '')
	const target = part(binding, 'target')
	const node = target.name
	if ((target.kind ?? 'Node') !== 'Node' || typeof node !== 'string' || node === '') {
		throw invalid({ group: '', kind: 'Binding' }, name, [
			node === undefined || node === ''
				? cause.required('target.name')
				: cause.notSupported('target.kind', target.kind, ['Node']),
		])
	}
	const podCall: Call = { ...call, served: pods, name, subresource: undefined }
	const before = parentOf(podCall)
	const pod = before.object as unknown as Pod
	if (typeof meta.uid === 'string' && meta.uid !== '' && meta.uid !== pod.metadata.uid) {
		throw conflict(
			pods.resource,
			name,
			`Precondition failed: UID in precondition: ${meta.uid}, UID in object meta: ${pod.metadata.uid}`,
		)
	}
	if (pod.metadata.deletionTimestamp !== undefined) {
		throw conflict(
			{ group: '', plural: 'pods/binding', kind: 'Pod' },
			name,
			`pod ${name} is being deleted, cannot be assigned to a host`,
		)
	}
	if (pod.spec?.nodeName) {
		throw conflict(
			{ group: '', plural: 'pods/binding', kind: 'Pod' },
			name,
			`pod ${name} is already assigned to node "${pod.spec.nodeName}"`,
		)
	}
	if (options.dryRun) return success(201)
	const now = call.api.now()
	const condition = { type: 'PodScheduled', status: 'True', lastProbeTime: null, lastTransitionTime: now }
	const conditions = [...(pod.status?.conditions ?? []).filter((c) => c.type !== 'PodScheduled'), condition]
	const generation = pod.metadata.generation
	const annotations = part(meta, 'annotations')
	const labels = part(meta, 'labels')
	const metadata = {
		...pod.metadata,
		...(generation === undefined ? {} : { generation: generation + 1 }),
		...(Object.keys(annotations).length > 0 ? { annotations: { ...pod.metadata.annotations, ...annotations } } : {}),
		...(Object.keys(labels).length > 0 ? { labels: { ...labels, ...pod.metadata.labels } } : {}),
	}
	return replace(
		podCall,
		before,
		{
			...before.object,
			metadata,
			spec: { ...part(before.object, 'spec'), nodeName: node },
			status: { ...part(before.object, 'status'), conditions },
		} as unknown as UnknownObject,
		options,
		{ specStays: true, unasked: true, prepare: (_, next) => next, answer: async () => success(201) },
	)
}

/** Deletes a pod unless a disruption budget forbids it. */
async function evict(call: Call): Promise<Response> {
	const { api, namespace, name = '' } = call
	const eviction = await bodyOf(call, 'policy/v1', 'Eviction')
	const before = parentOf(call)
	const pod = before.object
	const wanted = part(eviction, 'deleteOptions')
	const preconditions = part(wanted, 'preconditions')
	const dryRun = readWriteOptions(call).dryRun || (Array.isArray(wanted.dryRun) && wanted.dryRun.includes('All'))
	const phase = part(pod, 'status').phase
	const budgets = [...api.store.list('poddisruptionbudgets.policy', `${namespace}/`)]
		.map((entry) => api.store.current(entry.storage, entry.key) ?? entry)
		.filter((entry) =>
			matchesLabelSelector(
				part(entry.object, 'spec').selector as Parameters<typeof matchesLabelSelector>[0],
				pod.metadata.labels,
			),
		)
	// A pod that has ended or never began protects nothing.
	const counts =
		phase !== 'Succeeded' && phase !== 'Failed' && phase !== 'Pending' && pod.metadata.deletionTimestamp === undefined
	if (counts && budgets.length > 1) {
		throw refuse(
			'InternalError',
			'This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.',
		)
	}
	const budget = budgets[0]
	const kept: Promise<void>[] = []
	if (counts && budget !== undefined && !isFreeToGo(pod, budget.object)) {
		const status = part(budget.object, 'status')
		const seen = typeof status.observedGeneration === 'number' ? status.observedGeneration : 0
		if (seen < (budget.object.metadata.generation ?? 0)) {
			throw refuse('TooManyRequests', "Cannot evict pod as it would violate the pod's disruption budget.", {
				causes: [
					{
						reason: 'DisruptionBudget',
						message: `The disruption budget ${budget.object.metadata.name} is still being processed by the server.`,
					},
				],
			})
		}
		const allowed = typeof status.disruptionsAllowed === 'number' ? status.disruptionsAllowed : 0
		if (allowed <= 0) {
			throw refuse('TooManyRequests', "Cannot evict pod as it would violate the pod's disruption budget.", {
				causes: [
					{
						reason: 'DisruptionBudget',
						message: `The disruption budget ${budget.object.metadata.name} needs ${status.desiredHealthy ?? 0} healthy pods and has ${status.currentHealthy ?? 0} currently`,
					},
				],
			})
		}
		if (!dryRun) {
			const disrupted = part(status, 'disruptedPods')
			const next = {
				...budget.object,
				status: { ...status, disruptionsAllowed: allowed - 1, disruptedPods: { ...disrupted, [name]: api.now() } },
			} as unknown as UnknownObject
			kept.push(api.store.put(budget.storage, budget.key, next, budget).kept)
		}
	}
	const grace = wanted.gracePeriodSeconds
	const { write } = remove(call, before, {
		...(typeof grace === 'number' ? { gracePeriodSeconds: grace } : {}),
		...(typeof preconditions.uid === 'string' ? { uid: preconditions.uid } : {}),
		...(typeof preconditions.resourceVersion === 'string' ? { resourceVersion: preconditions.resourceVersion } : {}),
		dryRun,
	})
	if (write !== undefined) kept.push(write.kept)
	await Promise.all(kept)
	return success(201)
}

/** A pod that is not ready protects nothing while enough others are, or where its budget says so (KEP-3017). */
function isFreeToGo(pod: UnknownObject, budget: UnknownObject): boolean {
	const { conditions } = part(pod, 'status')
	const ready = (Array.isArray(conditions) ? conditions : []).some((c) => c.type === 'Ready' && c.status === 'True')
	if (ready) return false
	if (part(budget, 'spec').unhealthyPodEvictionPolicy === 'AlwaysAllow') return true
	const { currentHealthy, desiredHealthy } = part(budget, 'status')
	const desired = typeof desiredHealthy === 'number' ? desiredHealthy : 0
	return desired > 0 && typeof currentHealthy === 'number' && currentHealthy >= desired
}

// others

async function finalize(call: Call): Promise<Response> {
	const options = readWriteOptions(call)
	const body = await bodyOf(call, 'v1', 'Namespace')
	const prepare = (old: UnknownObject, next: UnknownObject) =>
		({ ...old, spec: { ...part(old, 'spec'), finalizers: part(next, 'spec').finalizers ?? [] } }) as UnknownObject
	return again(call, () => {
		const before = parentOf(call)
		const metadata = { ...before.object.metadata, ...part(body, 'metadata') }
		const next = { ...before.object, ...body, metadata } as unknown as UnknownObject
		return replace(call, before, next, options, { prepare })
	})
}
