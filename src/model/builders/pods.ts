// Pods of the model: address, readiness, ports, resolver, and the workload a person knows them by.

import { tryParseIp } from '../../base/ip.ts'
import { emptyTable, type Table } from '../../base/table.ts'
import { controllerOf, type KubeObject, namespacedKey, type ObjectKey } from '../../kube/objects/meta.ts'
import type * as kube from '../../kube/objects/pod.ts'
import { type DnsPolicy, podDns } from '../names.ts'
import type { ContainerPort, NetworkConfig, Pod, PodDns } from '../network.ts'
import type { Origin } from '../origin.ts'
import { share } from '../share.ts'
import { type ClusterState, isStateKind, lineOf, originOf, sourceKey, stateKinds } from '../state.ts'
import { type BuildInput, changedKeys, changedSources, moveInIndex } from './input.ts'

/** Kinds that stand between a pod and what the user wrote, or that the user wrote. */
const ownerKinds = ['ReplicaSet', 'Deployment', 'StatefulSet', 'DaemonSet', 'Job', 'ReplicationController'] as const

export interface BuiltPods {
	readonly pods: Table<ObjectKey, Pod>
	readonly podsByOwner: Table<string, readonly ObjectKey[]>
}

export function buildPods(input: BuildInput): BuiltPods {
	const { state, last } = input
	const changed = changedKeys(input, 'Pod', 'pods')
	// The name of the owner and the lines of its template show in the pod: both may arrive after the pod.
	for (const kind of ownerKinds) {
		const owners = new Set(changedSources(input, kind))
		if (isStateKind(kind)) for (const key of changedKeys(input, kind, stateKinds[kind].table)) owners.add(key)
		for (const key of owners)
			for (const pod of last?.index.podsByOwner.get(sourceKey(kind, key)) ?? []) changed.add(pod)
	}
	let podsByOwner = last?.index.podsByOwner ?? emptyTable<string, readonly ObjectKey[]>()
	const pods = (last?.parts.pods ?? emptyTable<ObjectKey, Pod>()).mutate((draft) => {
		for (const key of changed) {
			const object = state.pods.get(key)
			const before = last?.state.pods.get(key)
			podsByOwner = moveInIndex(
				podsByOwner,
				key,
				before === undefined ? [] : ownersOf(last!.state, before).map(ownerId),
				object === undefined ? [] : ownersOf(state, object).map(ownerId),
			)
			if (object === undefined) draft.delete(key)
			else draft.set(key, share(draft.get(key), readPod(state, input.config, object)))
		}
	})
	return { pods, podsByOwner }
}

interface Owner {
	readonly kind: string
	readonly key: ObjectKey
}

function ownerId(owner: Owner): string {
	return sourceKey(owner.kind, owner.key)
}

/** The chain of controllers from the pod upward: its ReplicaSet, that one's Deployment. Not the pod itself. */
function ownersOf(state: ClusterState, pod: kube.Pod): Owner[] {
	const owners: Owner[] = []
	let object: KubeObject | undefined = pod
	while (object !== undefined && owners.length < 4) {
		const reference = controllerOf(object)
		if (reference === undefined) break
		// A static pod's owner is its Node, which lives in no namespace and is no workload.
		if (reference.kind === 'Node') break
		const key = namespacedKey(object.metadata.namespace ?? '', reference.name)
		owners.push({ kind: reference.kind, key })
		object = isStateKind(reference.kind)
			? (state[stateKinds[reference.kind].table].get(key) as KubeObject | undefined)
			: undefined
	}
	return owners
}

function readPod(state: ClusterState, config: NetworkConfig, object: kube.Pod): Pod {
	const { name, uid = '', labels = {}, deletionTimestamp } = object.metadata
	const namespace = object.metadata.namespace ?? ''
	const key = namespacedKey(namespace, name)
	const { spec, status } = object
	const owners = ownersOf(state, object)
	const origin = (field?: string) => podOrigin(state, key, owners, field)
	const ips = status?.podIPs?.map((p) => p.ip) ?? (status?.podIP ? [status.podIP] : [])
	const hostNetwork = spec?.hostNetwork === true
	return {
		key,
		uid,
		namespace,
		name,
		labels,
		...(spec?.nodeName ? { node: spec.nodeName } : {}),
		ips: ips.flatMap((ip) => tryParseIp(ip) ?? []),
		hostNetwork,
		phase: status?.phase ?? 'Pending',
		ready: status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') ?? false,
		terminating: deletionTimestamp !== undefined,
		...(spec?.hostname ? { hostname: spec.hostname } : {}),
		...(spec?.subdomain ? { subdomain: spec.subdomain } : {}),
		ports: spec === undefined ? [] : readPorts(spec, origin),
		dns: readDns(config, namespace, hostNetwork, spec, origin),
		owner: owners.at(-1) ?? { kind: 'Pod', key },
		origin: origin(),
	}
}

/** Containers that run beside each other: the ordinary ones, and init containers that stay (sidecars, KEP-753). */
function readPorts(spec: kube.PodSpec, origin: (field: string) => Origin): ContainerPort[] {
	const ports: ContainerPort[] = []
	const read = (list: readonly kube.Container[], field: string) => {
		for (const [i, container] of list.entries()) {
			if (field === 'initContainers' && container.restartPolicy !== 'Always') continue
			for (const [j, port] of (container.ports ?? []).entries()) {
				const hostIp = port.hostIP ? tryParseIp(port.hostIP) : undefined
				// An address that cannot be read is a finding, and nothing listens for it.
				const unread = !!port.hostIP && hostIp === undefined
				const hostPort = spec.hostNetwork === true || unread ? 0 : (port.hostPort ?? 0)
				ports.push({
					container: container.name,
					...(port.name ? { name: port.name } : {}),
					port: port.containerPort,
					protocol: port.protocol ?? 'TCP',
					...(hostPort === 0 ? {} : { hostPort }),
					...(hostPort === 0 || hostIp === undefined ? {} : { hostIp }),
					origin: origin(`spec.${field}[${i}].ports[${j}]`),
				})
			}
		}
	}
	read(spec.containers ?? [], 'containers')
	read(spec.initContainers ?? [], 'initContainers')
	return ports
}

function readDns(
	config: NetworkConfig,
	namespace: string,
	hostNetwork: boolean,
	spec: kube.PodSpec | undefined,
	origin: (field: string) => Origin,
): PodDns {
	const wanted = spec?.dnsConfig
	const dns = podDns(
		{
			namespace,
			policy: (spec?.dnsPolicy ?? 'ClusterFirst') as DnsPolicy,
			hostNetwork,
			...(wanted === undefined
				? {}
				: {
						config: {
							nameservers: (wanted.nameservers ?? []).flatMap((ip) => tryParseIp(ip) ?? []),
							searches: wanted.searches ?? [],
							options: (wanted.options ?? []).flatMap((o) =>
								o.name ? [{ name: o.name, ...(o.value === undefined ? {} : { value: o.value }) }] : [],
							),
						},
					}),
		},
		config,
	)
	return { ...dns, origin: origin(wanted === undefined ? 'spec.dnsPolicy' : 'spec.dnsConfig') }
}

/**
 * A pod that a workload made was read nowhere: its fields stand in the workload's template, whose lines it borrows.
 * The key stays the pod's.
 */
function podOrigin(state: ClusterState, key: ObjectKey, owners: readonly Owner[], field?: string): Origin {
	if (state.sources.has(sourceKey('Pod', key))) return originOf(state, 'Pod', key, field)
	for (const owner of owners) {
		const source = state.sources.get(ownerId(owner))
		if (source === undefined) continue
		const line = lineOf(source, field === undefined ? 'spec.template' : `spec.template.${field}`)
		if (line !== undefined) {
			return { kind: 'Pod', key, ...(field === undefined ? {} : { field }), source: { file: source.file, line } }
		}
	}
	return originOf(state, 'Pod', key, field)
}
