// Nodes and namespaces of the model.

import { tryParseCidr, tryParseIp } from '../../base/ip.ts'
import { emptyTable, type Table } from '../../base/table.ts'
import type * as core from '../../kube/objects/core.ts'
import { namespaceNameLabel, zoneLabel } from '../labels.ts'
import type { Namespace, Node } from '../network.ts'
import { share } from '../share.ts'
import { type ClusterState, originOf } from '../state.ts'
import { type BuildInput, changedKeys } from './input.ts'

export function buildNamespaces(input: BuildInput): Table<string, Namespace> {
	const before = input.last?.parts.namespaces ?? emptyTable<string, Namespace>()
	return before.mutate((draft) => {
		for (const name of changedKeys(input, 'Namespace', 'namespaces')) {
			const object = input.state.namespaces.get(name)
			if (object === undefined) draft.delete(name)
			else draft.set(name, share(draft.get(name), readNamespace(input.state, object)))
		}
	})
}

export function buildNodes(input: BuildInput): Table<string, Node> {
	const before = input.last?.parts.nodes ?? emptyTable<string, Node>()
	return before.mutate((draft) => {
		for (const name of changedKeys(input, 'Node', 'nodes')) {
			const object = input.state.nodes.get(name)
			if (object === undefined) draft.delete(name)
			else draft.set(name, share(draft.get(name), readNode(input.state, object)))
		}
	})
}

function readNamespace(state: ClusterState, object: core.Namespace): Namespace {
	const { name, labels } = object.metadata
	return { name, labels: { [namespaceNameLabel]: name, ...labels }, origin: originOf(state, 'Namespace', name) }
}

/** Only InternalIP addresses: an ExternalIP need not exist on the node (it is often translated on the way). */
function readNode(state: ClusterState, object: core.Node): Node {
	const { name } = object.metadata
	const labels = object.metadata.labels ?? {}
	const zone = labels[zoneLabel]
	const cidrs = object.spec?.podCIDRs ?? (object.spec?.podCIDR ? [object.spec.podCIDR] : [])
	// A node that never reported (manifests without a status) counts as ready: nothing says otherwise.
	const ready = object.status?.conditions?.find((c) => c.type === 'Ready')?.status ?? 'True'
	return {
		name,
		addresses: (object.status?.addresses ?? [])
			.filter((a) => a.type === 'InternalIP')
			.flatMap((a) => tryParseIp(a.address) ?? []),
		podCidrs: cidrs.flatMap((text) => tryParseCidr(text, { mask: true }) ?? []),
		ready: ready === 'True',
		...(isLeaving(object) ? { leaving: true as const } : {}),
		...(zone === undefined ? {} : { zone }),
		labels,
		origin: originOf(state, 'Node', name),
	}
}

const toBeDeleted = 'ToBeDeletedByClusterAutoscaler'

function isLeaving(object: core.Node): boolean {
	return (
		object.metadata.deletionTimestamp !== undefined || (object.spec?.taints ?? []).some((t) => t.key === toBeDeleted)
	)
}
