// Rows of policy, access, scheduling, storage and extension kinds.

import type { UnknownObject } from '../../kube/objects/meta.ts'
import { ageOf, at, type Cell, humanDuration, items, none, number, text, texts } from './cells.ts'
import type { KindTable } from './table.ts'

const age = (object: UnknownObject, now: number): Cell => ageOf(object.metadata.creationTimestamp, now)
const created = (object: UnknownObject): Cell => text(object.metadata.creationTimestamp)

const binding: KindTable = {
	columns: ['Name', 'Role', 'Age', '+Users', '+Groups', '+ServiceAccounts'],
	cells(o, now) {
		const subjects = items(at(o, 'subjects'))
		const names = (kind: string) =>
			subjects
				.filter((s) => s.kind === kind)
				.map((s) => (kind === 'ServiceAccount' ? `${text(s.namespace)}/${text(s.name)}` : text(s.name)))
				.join(', ')
		return [
			o.metadata.name,
			`${text(at(o, 'roleRef', 'kind'))}/${text(at(o, 'roleRef', 'name'))}`,
			age(o, now),
			names('User'),
			names('Group'),
			names('ServiceAccount'),
		]
	},
}

const role: KindTable = { columns: ['Name', 'Created At'], cells: (o) => [o.metadata.name, created(o)] }

const webhooks: KindTable = {
	columns: ['Name', 'Webhooks#', 'Age'],
	cells: (o, now) => [o.metadata.name, items(at(o, 'webhooks')).length, age(o, now)],
}

export const clusterTables: Readonly<Record<string, KindTable>> = {
	'poddisruptionbudgets.policy': {
		columns: ['Name', 'Min Available', 'Max Unavailable', 'Allowed Disruptions#', 'Age'],
		cells: (o, now) => [
			o.metadata.name,
			text(at(o, 'spec', 'minAvailable'), 'N/A'),
			text(at(o, 'spec', 'maxUnavailable'), 'N/A'),
			number(at(o, 'status', 'disruptionsAllowed')),
			age(o, now),
		],
	},
	'roles.rbac.authorization.k8s.io': role,
	'clusterroles.rbac.authorization.k8s.io': role,
	'rolebindings.rbac.authorization.k8s.io': binding,
	'clusterrolebindings.rbac.authorization.k8s.io': binding,
	'leases.coordination.k8s.io': {
		columns: ['Name', 'Holder', 'Age'],
		cells: (o, now) => [o.metadata.name, text(at(o, 'spec', 'holderIdentity')), age(o, now)],
	},
	'storageclasses.storage.k8s.io': {
		columns: ['Name', 'Provisioner', 'ReclaimPolicy', 'VolumeBindingMode', 'AllowVolumeExpansion?', 'Age'],
		cells(o, now) {
			const standard = o.metadata.annotations?.['storageclass.kubernetes.io/is-default-class'] === 'true'
			return [
				standard ? `${o.metadata.name} (default)` : o.metadata.name,
				text(at(o, 'provisioner')),
				text(at(o, 'reclaimPolicy'), 'Delete'),
				text(at(o, 'volumeBindingMode'), 'Immediate'),
				at(o, 'allowVolumeExpansion') === true,
				age(o, now),
			]
		},
	},
	'volumeattachments.storage.k8s.io': {
		columns: ['Name', 'Attacher', 'PV', 'Node', 'Attached?', 'Age'],
		cells: (o, now) => [
			o.metadata.name,
			text(at(o, 'spec', 'attacher')),
			text(at(o, 'spec', 'source', 'persistentVolumeName')),
			text(at(o, 'spec', 'nodeName')),
			at(o, 'status', 'attached') === true,
			age(o, now),
		],
	},
	'csinodes.storage.k8s.io': {
		columns: ['Name', 'Drivers#', 'Age'],
		cells: (o, now) => [o.metadata.name, items(at(o, 'spec', 'drivers')).length, age(o, now)],
	},
	'csidrivers.storage.k8s.io': {
		columns: [
			'Name',
			'AttachRequired?',
			'PodInfoOnMount?',
			'StorageCapacity?',
			'TokenRequests',
			'RequiresRepublish?',
			'Modes',
			'Age',
		],
		cells: (o, now) => [
			o.metadata.name,
			at(o, 'spec', 'attachRequired') !== false,
			at(o, 'spec', 'podInfoOnMount') === true,
			at(o, 'spec', 'storageCapacity') === true,
			items(at(o, 'spec', 'tokenRequests'))
				.map((request) => text(request.audience))
				.join(',') || '<unset>',
			at(o, 'spec', 'requiresRepublish') === true,
			texts(at(o, 'spec', 'volumeLifecycleModes')).join(',') || none,
			age(o, now),
		],
	},
	'priorityclasses.scheduling.k8s.io': {
		columns: ['Name', 'Value#', 'Global-Default?', 'Age', 'PreemptionPolicy'],
		cells: (o, now) => [
			o.metadata.name,
			number(at(o, 'value')),
			at(o, 'globalDefault') === true,
			age(o, now),
			text(at(o, 'preemptionPolicy'), 'PreemptLowerPriority'),
		],
	},
	'runtimeclasses.node.k8s.io': {
		columns: ['Name', 'Handler', 'Age'],
		cells: (o, now) => [o.metadata.name, text(at(o, 'handler')), age(o, now)],
	},
	'certificatesigningrequests.certificates.k8s.io': {
		columns: ['Name', 'Age', 'SignerName', 'Requestor', 'RequestedDuration', 'Condition'],
		cells(o, now) {
			const conditions = items(at(o, 'status', 'conditions'))
			const parts = conditions.some((c) => c.type === 'Denied')
				? ['Denied']
				: conditions.some((c) => c.type === 'Approved')
					? ['Approved']
					: ['Pending']
			if (conditions.some((c) => c.type === 'Failed')) parts.push('Failed')
			if (text(at(o, 'status', 'certificate')) !== '') parts.push('Issued')
			const seconds = at(o, 'spec', 'expirationSeconds')
			return [
				o.metadata.name,
				age(o, now),
				text(at(o, 'spec', 'signerName'), none),
				text(at(o, 'spec', 'username')),
				typeof seconds === 'number' ? humanDuration(seconds * 1000) : none,
				parts.join(','),
			]
		},
	},
	'horizontalpodautoscalers.autoscaling': {
		columns: ['Name', 'Reference', 'Targets', 'MinPods', 'MaxPods', 'Replicas', 'Age'],
		cells(o, now) {
			const targets = items(at(o, 'spec', 'metrics')).map((metric, i) => {
				const name = text(at(metric, 'resource', 'name'), text(at(metric, 'type')).toLowerCase())
				const current = at(items(at(o, 'status', 'currentMetrics'))[i], 'resource', 'current', 'averageUtilization')
				const wanted = at(metric, 'resource', 'target', 'averageUtilization')
				return `${name}: ${current === undefined ? '<unknown>' : `${text(current)}%`}/${wanted === undefined ? '<auto>' : `${text(wanted)}%`}`
			})
			return [
				o.metadata.name,
				`${text(at(o, 'spec', 'scaleTargetRef', 'kind'))}/${text(at(o, 'spec', 'scaleTargetRef', 'name'))}`,
				targets.length === 0 ? none : targets.join(', '),
				text(at(o, 'spec', 'minReplicas'), '<unset>'),
				number(at(o, 'spec', 'maxReplicas')),
				number(at(o, 'status', 'currentReplicas')),
				age(o, now),
			]
		},
	},
	'mutatingwebhookconfigurations.admissionregistration.k8s.io': webhooks,
	'validatingwebhookconfigurations.admissionregistration.k8s.io': webhooks,
	'customresourcedefinitions.apiextensions.k8s.io': role,
	'apiservices.apiregistration.k8s.io': {
		columns: ['Name', 'Service', 'Available', 'Age'],
		cells(o, now) {
			const service = at(o, 'spec', 'service')
			const available = items(at(o, 'status', 'conditions')).find((c) => c.type === 'Available')
			const reason = text(available?.reason)
			const state = text(available?.status, 'Unknown')
			return [
				o.metadata.name,
				service === undefined || service === null
					? 'Local'
					: `${text(at(service, 'namespace'))}/${text(at(service, 'name'))}`,
				state === 'True' ? state : `${state}${reason === '' ? '' : ` (${reason})`}`,
				age(o, now),
			]
		},
	},
}
