// The input of the model: immutable tables of API objects, and where in the user's manifests each was read.
// A new state shares everything that did not change with the old one, so that `build` can follow the difference.

import type { Cidr, Ip } from '../base/ip.ts'
import { emptyTable, type Table, tableOf } from '../base/table.ts'
import type { DaemonSet, Deployment, ReplicaSet, StatefulSet } from '../kube/objects/apps.ts'
import type { Job } from '../kube/objects/batch.ts'
import type { Namespace, Node, Service } from '../kube/objects/core.ts'
import type { EndpointSlice } from '../kube/objects/discovery.ts'
import { type KubeObject, keyOf, type ObjectKey } from '../kube/objects/meta.ts'
import type {
	AdminNetworkPolicy,
	BaselineAdminNetworkPolicy,
	ClusterNetworkPolicy,
} from '../kube/objects/network-policy-api.ts'
import type { NetworkPolicy } from '../kube/objects/networking.ts'
import type { Pod } from '../kube/objects/pod.ts'
import type { ResolverConfig } from './network.ts'
import { type Origin, objectOrigin } from './origin.ts'
import type { ResolvedNames } from './resolved-names.ts'

export interface ClusterState extends ObjectTables {
	readonly config: ClusterConfig
	/** By `Kind namespace/name`. */
	readonly sources: Table<string, ObjectSource>
	/** What the cluster's DNS server has answered with and still holds; no object says it. */
	readonly resolvedNames: ResolvedNames
}

export interface ObjectTables {
	readonly nodes: Table<ObjectKey, Node>
	readonly namespaces: Table<ObjectKey, Namespace>
	readonly pods: Table<ObjectKey, Pod>
	readonly services: Table<ObjectKey, Service>
	readonly endpointSlices: Table<ObjectKey, EndpointSlice>
	readonly networkPolicies: Table<ObjectKey, NetworkPolicy>
	readonly clusterNetworkPolicies: Table<ObjectKey, ClusterNetworkPolicy>
	readonly adminNetworkPolicies: Table<ObjectKey, AdminNetworkPolicy>
	readonly baselineAdminNetworkPolicies: Table<ObjectKey, BaselineAdminNetworkPolicy>
	readonly deployments: Table<ObjectKey, Deployment>
	readonly replicaSets: Table<ObjectKey, ReplicaSet>
	readonly statefulSets: Table<ObjectKey, StatefulSet>
	readonly daemonSets: Table<ObjectKey, DaemonSet>
	readonly jobs: Table<ObjectKey, Job>
}

/** What no API object says about the cluster's network. */
export interface ClusterConfig {
	readonly clusterDomain: string
	readonly podCidrs: readonly Cidr[]
	readonly serviceCidrs: readonly Cidr[]
	/** MTU of a pod's interface, bytes. */
	readonly mtu: number
	/** The Service whose ClusterIP pods ask for names. */
	readonly dnsService: ObjectKey
	/** Overrides the ClusterIP of `dnsService` (a kubelet's --cluster-dns). */
	readonly dnsServiceIp?: Ip
	readonly nodeDns?: ResolverConfig
	/** Addresses of the nodes' default router on their network. */
	readonly routerIps?: readonly Ip[]
	/** Networks whose node addresses answer for node ports (kube-proxy: --nodeport-addresses). Undefined: primary. */
	readonly nodePortAddresses?: readonly Cidr[]
	/** Services' externalIPs count for nothing: kube-proxy's feature gate AllowServiceExternalIPs is off (KEP-5707). */
	readonly ignoreExternalIps?: true
}

/** Where an object was read. Plain data: it crosses sockets as JSON. */
export interface ObjectSource {
	readonly file: string
	/** 1-based line of each field by its path (`spec.ports[0].port`); '' is the object's first line. */
	readonly lines: Readonly<Record<string, number>>
}

/**
 * The kinds the model reads, each with its table and API version. Others are ignored by `setObject`. `plural`: a custom
 * resource, which a cluster may not have.
 */
export const stateKinds = {
	Node: { table: 'nodes', apiVersion: 'v1' },
	Namespace: { table: 'namespaces', apiVersion: 'v1' },
	Pod: { table: 'pods', apiVersion: 'v1' },
	Service: { table: 'services', apiVersion: 'v1' },
	EndpointSlice: { table: 'endpointSlices', apiVersion: 'discovery.k8s.io/v1' },
	NetworkPolicy: { table: 'networkPolicies', apiVersion: 'networking.k8s.io/v1' },
	ClusterNetworkPolicy: {
		table: 'clusterNetworkPolicies',
		apiVersion: 'policy.networking.k8s.io/v1alpha2',
		plural: 'clusternetworkpolicies',
	},
	AdminNetworkPolicy: {
		table: 'adminNetworkPolicies',
		apiVersion: 'policy.networking.k8s.io/v1alpha1',
		plural: 'adminnetworkpolicies',
	},
	BaselineAdminNetworkPolicy: {
		table: 'baselineAdminNetworkPolicies',
		apiVersion: 'policy.networking.k8s.io/v1alpha1',
		plural: 'baselineadminnetworkpolicies',
	},
	Deployment: { table: 'deployments', apiVersion: 'apps/v1' },
	ReplicaSet: { table: 'replicaSets', apiVersion: 'apps/v1' },
	StatefulSet: { table: 'statefulSets', apiVersion: 'apps/v1' },
	DaemonSet: { table: 'daemonSets', apiVersion: 'apps/v1' },
	Job: { table: 'jobs', apiVersion: 'batch/v1' },
} as const satisfies Record<string, { table: keyof ObjectTables; apiVersion: string; plural?: string }>

export type StateKind = keyof typeof stateKinds

export type CustomTable = Extract<(typeof stateKinds)[StateKind], { plural: string }>['table']

/** The custom resources among them: what a client needs to list one, and the table it belongs in. */
export const customKinds = Object.entries(stateKinds).flatMap(([kind, row]) => {
	if (!('plural' in row)) return []
	const [group = '', version = ''] = row.apiVersion.split('/')
	return [{ table: row.table, group, version, kind, plural: row.plural, namespaced: false }]
})

export function isStateKind(kind: string): kind is StateKind {
	return Object.hasOwn(stateKinds, kind)
}

/** A cluster without objects. `config` fills in over the defaults of a kubeadm-like cluster. */
export function emptyState(config: Partial<ClusterConfig> = {}): ClusterState {
	const none = emptyTable<ObjectKey, never>()
	return {
		config: {
			clusterDomain: 'cluster.local',
			podCidrs: ['10.244.0.0/16' as Cidr],
			serviceCidrs: ['10.96.0.0/16' as Cidr],
			mtu: 1500,
			dnsService: 'kube-system/kube-dns',
			...config,
		},
		sources: emptyTable(),
		resolvedNames: emptyTable(),
		nodes: none,
		namespaces: none,
		pods: none,
		services: none,
		endpointSlices: none,
		networkPolicies: none,
		clusterNetworkPolicies: none,
		adminNetworkPolicies: none,
		baselineAdminNetworkPolicies: none,
		deployments: none,
		replicaSets: none,
		statefulSets: none,
		daemonSets: none,
		jobs: none,
	}
}

/** The state with `object` added or replaced; the same state where its kind is none of `stateKinds` or nothing changes. */
export function setObject(state: ClusterState, object: KubeObject, source?: ObjectSource): ClusterState {
	if (!isStateKind(object.kind)) return state
	const key = keyOf(object)
	const next = withTable(state, object.kind, (table) => table.set(key, object as never))
	return source === undefined ? next : setSource(next, object.kind, key, source)
}

/** The state without the object and without its source; the same state where it has neither. */
export function deleteObject(state: ClusterState, kind: string, key: ObjectKey): ClusterState {
	if (!isStateKind(kind)) return state
	return setSource(
		withTable(state, kind, (table) => table.delete(key)),
		kind,
		key,
		undefined,
	)
}

/** Many objects at once. */
export function setObjects(
	state: ClusterState,
	objects: Iterable<{ readonly object: KubeObject; readonly source?: ObjectSource }>,
): ClusterState {
	let next = state
	for (const { object, source } of objects) next = setObject(next, object, source)
	return next
}

export function getObject(state: ClusterState, kind: StateKind, key: ObjectKey): KubeObject | undefined {
	return state[stateKinds[kind].table].get(key)
}

/** Records where an object was read, before or after the object itself arrives. */
export function setSource(
	state: ClusterState,
	kind: string,
	key: ObjectKey,
	source: ObjectSource | undefined,
): ClusterState {
	const id = sourceKey(kind, key)
	const sources = source === undefined ? state.sources.delete(id) : state.sources.set(id, source)
	return sources === state.sources ? state : { ...state, sources }
}

/** Replaces a whole table, as an informer hands it over. */
export function setTable<T extends keyof ObjectTables>(
	state: ClusterState,
	table: T,
	objects: ObjectTables[T],
): ClusterState {
	return state[table] === objects ? state : { ...state, [table]: objects }
}

export function sourceKey(kind: string, key: ObjectKey): string {
	return `${kind} ${key}`
}

function withTable(
	state: ClusterState,
	kind: StateKind,
	change: (table: Table<ObjectKey, never>) => Table<ObjectKey, never>,
): ClusterState {
	const name = stateKinds[kind].table
	const before = state[name] as unknown as Table<ObjectKey, never>
	const after = change(before)
	return after === before ? state : { ...state, [name]: after }
}

/** The line of every field of `object` that the manifest's parser knows, as data. */
export function recordSource(
	object: KubeObject,
	source: { readonly file: string; lineOf(path: string): number | undefined },
): ObjectSource {
	const lines: Record<string, number> = {}
	const visit = (value: unknown, path: string) => {
		const line = source.lineOf(path)
		if (line !== undefined) lines[path] = line
		if (Array.isArray(value)) for (const [i, item] of value.entries()) visit(item, `${path}[${i}]`)
		else if (typeof value === 'object' && value !== null) {
			for (const [key, item] of Object.entries(value)) visit(item, path === '' ? key : `${path}.${key}`)
		}
	}
	visit(object, '')
	return { file: source.file, lines }
}

/** The line of `path`, or of the nearest field around it that the manifest spells out. */
export function lineOf(source: ObjectSource, path: string): number | undefined {
	for (let at = path; ; ) {
		const line = source.lines[at]
		if (line !== undefined || at === '') return line
		const cut = Math.max(at.lastIndexOf('.'), at.lastIndexOf('['))
		at = cut < 0 ? '' : at.slice(0, cut)
	}
}

/** The origin of a field (of the whole object without one), with its line where the source is known. */
export function originOf(state: Pick<ClusterState, 'sources'>, kind: string, key: ObjectKey, field?: string): Origin {
	const source = state.sources.get(sourceKey(kind, key))
	const line = source === undefined ? undefined : lineOf(source, field ?? '')
	return objectOrigin(kind, key, field, line === undefined ? undefined : { file: source!.file, line })
}

/** What `decodeState` reads back: the whole state as JSON. */
export interface EncodedState {
	readonly config: ClusterConfig
	readonly objects: readonly KubeObject[]
	readonly sources: Readonly<Record<string, ObjectSource>>
	readonly resolvedNames?: Readonly<Record<string, readonly Ip[]>>
}

export function encodeState(state: ClusterState): EncodedState {
	const objects: KubeObject[] = []
	for (const { table } of Object.values(stateKinds)) objects.push(...(state[table].values() as Iterable<KubeObject>))
	const { config, sources, resolvedNames } = state
	return {
		config,
		objects,
		sources: Object.fromEntries(sources),
		...(resolvedNames.size === 0 ? {} : { resolvedNames: Object.fromEntries(resolvedNames) }),
	}
}

export function decodeState(encoded: EncodedState): ClusterState {
	let state = emptyState(encoded.config)
	for (const object of encoded.objects) state = setObject(state, object)
	for (const [id, source] of Object.entries(encoded.sources)) {
		const space = id.indexOf(' ')
		state = setSource(state, id.slice(0, space), id.slice(space + 1), source)
	}
	return { ...state, resolvedNames: tableOf(Object.entries(encoded.resolvedNames ?? {})) }
}
