// The life of namespaces: nothing is created where there is none, or where it is ending. Some may not end.
// Rules: admission plugin NamespaceLifecycle; the label is that of the plugin NamespaceDefaultLabelName.

import type { UnknownObject } from '../../kube/objects/meta.ts'
import type { Served } from '../registry.ts'
import { forbidden, notFound } from '../status.ts'
import type { Store } from '../store.ts'

const namespaces = { group: '', plural: 'namespaces', kind: 'Namespace' }

export function checkNamespace(store: Store, served: Served, object: UnknownObject): void {
	const { namespace } = object.metadata
	if (!served.resource.namespaced || namespace === undefined) return
	const entry = store.current('namespaces', namespace)
	if (entry === undefined) throw notFound(namespaces, namespace)
	if (entry.object.metadata.deletionTimestamp === undefined) return
	throw forbidden(
		served.resource,
		object.metadata.name ?? '',
		`unable to create new content in namespace ${namespace} because it is being terminated`,
		[
			{
				reason: 'NamespaceTerminating',
				message: `namespace ${namespace} is being terminated`,
				field: 'metadata.namespace',
			},
		],
	)
}

export function prepareNamespace(object: UnknownObject): UnknownObject {
	const { name, labels } = object.metadata
	if (name === undefined || labels?.['kubernetes.io/metadata.name'] === name) return object
	return {
		...object,
		metadata: { ...object.metadata, labels: { ...labels, 'kubernetes.io/metadata.name': name } },
	}
}

const immortal: ReadonlySet<string> = new Set(['default', 'kube-system', 'kube-public'])

export function protectNamespace(served: Served, object: UnknownObject): void {
	const { name } = object.metadata
	if (immortal.has(name)) throw forbidden(served.resource, name, 'this namespace may not be deleted')
}
