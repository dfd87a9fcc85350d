// Rows of core kinds other than pods and Services.

import { isObject, type JsonObject } from '../../kube/schema/json.ts'
import { ageOf, at, containersText, items, mapText, none, number, text, texts } from './cells.ts'
import type { KindTable } from './table.ts'

const count = (value: unknown) => (isObject(value) ? Object.keys(value).length : 0)

export const coreTables: Readonly<Record<string, KindTable>> = {
	namespaces: {
		columns: ['Name', 'Status', 'Age'],
		cells: (o, now) => [o.metadata.name, text(at(o, 'status', 'phase')), ageOf(o.metadata.creationTimestamp, now)],
	},
	nodes: {
		columns: [
			'Name',
			'Status',
			'Roles',
			'Age',
			'Version',
			'+Internal-IP',
			'+External-IP',
			'+OS-Image',
			'+Kernel-Version',
			'+Container-Runtime',
		],
		cells(node, now) {
			const ready = items(at(node, 'status', 'conditions')).find((c) => c.type === 'Ready')
			const status = ready === undefined ? 'Unknown' : ready.status === 'True' ? 'Ready' : 'NotReady'
			const info = at(node, 'status', 'nodeInfo')
			const address = (type: string) =>
				text(items(at(node, 'status', 'addresses')).find((a) => a.type === type)?.address, none)
			return [
				node.metadata.name,
				at(node, 'spec', 'unschedulable') === true ? `${status},SchedulingDisabled` : status,
				rolesOf(node.metadata.labels ?? {}),
				ageOf(node.metadata.creationTimestamp, now),
				text(at(info, 'kubeletVersion')),
				address('InternalIP'),
				address('ExternalIP'),
				text(at(info, 'osImage'), '<unknown>'),
				text(at(info, 'kernelVersion'), '<unknown>'),
				text(at(info, 'containerRuntimeVersion'), '<unknown>'),
			]
		},
	},
	configmaps: {
		columns: ['Name', 'Data', 'Age'],
		cells: (o, now) => [o.metadata.name, count(o.data) + count(o.binaryData), ageOf(o.metadata.creationTimestamp, now)],
	},
	secrets: {
		columns: ['Name', 'Type', 'Data', 'Age'],
		cells: (o, now) => [o.metadata.name, text(at(o, 'type')), count(o.data), ageOf(o.metadata.creationTimestamp, now)],
	},
	serviceaccounts: {
		columns: ['Name', 'Secrets', 'Age'],
		cells: (o, now) => [o.metadata.name, items(at(o, 'secrets')).length, ageOf(o.metadata.creationTimestamp, now)],
	},
	events: {
		columns: [
			'Last Seen',
			'Type',
			'Reason',
			'Object',
			'+Subobject',
			'+Source',
			'Message',
			'+First Seen',
			'+Count',
			'+Name',
		],
		cells(event, now) {
			const about = at(event, 'involvedObject')
			const kind = text(at(about, 'kind')).toLowerCase()
			const first = at(event, 'firstTimestamp') ?? at(event, 'eventTime')
			const last = at(event, 'series', 'lastObservedTime') ?? at(event, 'lastTimestamp') ?? first
			const component = text(at(event, 'source', 'component'), text(at(event, 'reportingComponent')))
			const host = text(at(event, 'source', 'host'))
			return [
				ageOf(last, now),
				text(at(event, 'type')),
				text(at(event, 'reason')),
				kind === '' ? '' : `${kind}/${text(at(about, 'name'))}`,
				text(at(about, 'fieldPath')),
				[component, host].filter((s) => s !== '').join(', '),
				text(at(event, 'message')).trim(),
				ageOf(first, now),
				Math.max(1, number(at(event, 'series', 'count')) || number(at(event, 'count'))),
				event.metadata.name,
			]
		},
	},
	replicationcontrollers: {
		columns: ['Name', 'Desired#', 'Current#', 'Ready#', 'Age', '+Containers', '+Images', '+Selector'],
		cells: (o, now) => [
			o.metadata.name,
			number(at(o, 'spec', 'replicas')),
			number(at(o, 'status', 'replicas')),
			number(at(o, 'status', 'readyReplicas')),
			ageOf(o.metadata.creationTimestamp, now),
			...containersText(at(o, 'spec', 'template', 'spec')),
			mapText(at(o, 'spec', 'selector')),
		],
	},
	podtemplates: {
		columns: ['Name', 'Containers', 'Images', 'Pod Labels'],
		cells: (o) => [
			o.metadata.name,
			...containersText(at(o, 'template', 'spec')),
			mapText(at(o, 'template', 'metadata', 'labels')),
		],
	},
	persistentvolumes: {
		columns: [
			'Name',
			'Capacity',
			'Access Modes',
			'Reclaim Policy',
			'Status',
			'Claim',
			'StorageClass',
			'VolumeAttributesClass',
			'Reason',
			'Age',
			'+VolumeMode',
		],
		cells(o, now) {
			const claim = at(o, 'spec', 'claimRef')
			return [
				o.metadata.name,
				text(at(o, 'spec', 'capacity', 'storage')),
				accessModes(texts(at(o, 'spec', 'accessModes'))),
				text(at(o, 'spec', 'persistentVolumeReclaimPolicy')),
				phaseOf(o as unknown as JsonObject),
				claim === undefined ? '' : `${text(at(claim, 'namespace'))}/${text(at(claim, 'name'))}`,
				text(at(o, 'spec', 'storageClassName')),
				text(at(o, 'spec', 'volumeAttributesClassName'), '<unset>'),
				text(at(o, 'status', 'reason')),
				ageOf(o.metadata.creationTimestamp, now),
				text(at(o, 'spec', 'volumeMode'), '<unset>'),
			]
		},
	},
	persistentvolumeclaims: {
		columns: [
			'Name',
			'Status',
			'Volume',
			'Capacity',
			'Access Modes',
			'StorageClass',
			'VolumeAttributesClass',
			'Age',
			'+VolumeMode',
		],
		cells(o, now) {
			const bound = text(at(o, 'spec', 'volumeName'))
			return [
				o.metadata.name,
				phaseOf(o as unknown as JsonObject),
				bound,
				bound === '' ? '' : text(at(o, 'status', 'capacity', 'storage')),
				bound === '' ? '' : accessModes(texts(at(o, 'status', 'accessModes'))),
				text(at(o, 'spec', 'storageClassName')),
				text(at(o, 'spec', 'volumeAttributesClassName'), '<unset>'),
				ageOf(o.metadata.creationTimestamp, now),
				text(at(o, 'spec', 'volumeMode'), '<unset>'),
			]
		},
	},
	resourcequotas: {
		columns: ['Name', 'Request', 'Limit', 'Age'],
		cells(o, now) {
			const hard = (at(o, 'status', 'hard') ?? at(o, 'spec', 'hard') ?? {}) as JsonObject
			const list = (limits: boolean) =>
				Object.keys(hard)
					.filter((name) => name.startsWith('limits.') === limits)
					.sort()
					.map((name) => `${name}: ${text(at(o, 'status', 'used', name), '0')}/${text(hard[name])}`)
					.join(', ')
			return [o.metadata.name, list(false), list(true), ageOf(o.metadata.creationTimestamp, now)]
		},
	},
	limitranges: {
		columns: ['Name', 'Created At'],
		cells: (o) => [o.metadata.name, text(o.metadata.creationTimestamp)],
	},
}

function phaseOf(object: JsonObject): string {
	return at(object, 'metadata', 'deletionTimestamp') === undefined ? text(at(object, 'status', 'phase')) : 'Terminating'
}

const shortModes: Readonly<Record<string, string>> = {
	ReadWriteOnce: 'RWO',
	ReadOnlyMany: 'ROX',
	ReadWriteMany: 'RWX',
	ReadWriteOncePod: 'RWOP',
}

function accessModes(modes: readonly string[]): string {
	const have = new Set(modes)
	return Object.keys(shortModes)
		.filter((mode) => have.has(mode))
		.map((mode) => shortModes[mode])
		.join(',')
}

/** `control-plane,worker`, of the labels node-role.kubernetes.io/ROLE and kubernetes.io/role. */
function rolesOf(labels: Readonly<Record<string, string>>): string {
	const roles = new Set<string>()
	for (const [key, value] of Object.entries(labels)) {
		if (key.startsWith('node-role.kubernetes.io/')) {
			const role = key.slice('node-role.kubernetes.io/'.length)
			if (role !== '') roles.add(role)
		} else if (key === 'kubernetes.io/role' && value !== '') roles.add(value)
	}
	return roles.size === 0 ? none : [...roles].sort().join(',')
}
