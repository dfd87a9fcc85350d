// Rows of the apps and batch kinds.

import type { UnknownObject } from '../../kube/objects/meta.ts'
import { ageOf, at, containersText, humanDuration, items, mapText, none, number, selectorText, text } from './cells.ts'
import type { KindTable } from './table.ts'

const template = (object: UnknownObject) => containersText(at(object, 'spec', 'template', 'spec'))

export const workloadTables: Readonly<Record<string, KindTable>> = {
	'deployments.apps': {
		columns: ['Name', 'Ready', 'Up-to-date', 'Available', 'Age', '+Containers', '+Images', '+Selector'],
		cells: (o, now) => [
			o.metadata.name,
			`${number(at(o, 'status', 'readyReplicas'))}/${number(at(o, 'spec', 'replicas'))}`,
			number(at(o, 'status', 'updatedReplicas')),
			number(at(o, 'status', 'availableReplicas')),
			ageOf(o.metadata.creationTimestamp, now),
			...template(o),
			selectorText(at(o, 'spec', 'selector')),
		],
	},
	'replicasets.apps': {
		columns: ['Name', 'Desired#', 'Current#', 'Ready#', 'Age', '+Containers', '+Images', '+Selector'],
		cells: (o, now) => [
			o.metadata.name,
			number(at(o, 'spec', 'replicas')),
			number(at(o, 'status', 'replicas')),
			number(at(o, 'status', 'readyReplicas')),
			ageOf(o.metadata.creationTimestamp, now),
			...template(o),
			selectorText(at(o, 'spec', 'selector')),
		],
	},
	'statefulsets.apps': {
		columns: ['Name', 'Ready', 'Age', '+Containers', '+Images'],
		cells: (o, now) => [
			o.metadata.name,
			`${number(at(o, 'status', 'readyReplicas'))}/${number(at(o, 'spec', 'replicas'))}`,
			ageOf(o.metadata.creationTimestamp, now),
			...template(o),
		],
	},
	'daemonsets.apps': {
		columns: [
			'Name',
			'Desired#',
			'Current#',
			'Ready#',
			'Up-to-date#',
			'Available#',
			'Node Selector',
			'Age',
			'+Containers',
			'+Images',
			'+Selector',
		],
		cells: (o, now) => [
			o.metadata.name,
			number(at(o, 'status', 'desiredNumberScheduled')),
			number(at(o, 'status', 'currentNumberScheduled')),
			number(at(o, 'status', 'numberReady')),
			number(at(o, 'status', 'updatedNumberScheduled')),
			number(at(o, 'status', 'numberAvailable')),
			mapText(at(o, 'spec', 'template', 'spec', 'nodeSelector')),
			ageOf(o.metadata.creationTimestamp, now),
			...template(o),
			selectorText(at(o, 'spec', 'selector')),
		],
	},
	'controllerrevisions.apps': {
		columns: ['Name', 'Controller', 'Revision', 'Age'],
		cells(o, now) {
			const owner = o.metadata.ownerReferences?.find((ref) => ref.controller === true)
			const group = owner?.apiVersion.includes('/') ? `.${owner.apiVersion.split('/')[0]}` : ''
			return [
				o.metadata.name,
				owner === undefined ? none : `${owner.kind.toLowerCase()}${group}/${owner.name}`,
				number(at(o, 'revision')),
				ageOf(o.metadata.creationTimestamp, now),
			]
		},
	},
	'jobs.batch': {
		columns: ['Name', 'Status', 'Completions', 'Duration', 'Age', '+Containers', '+Images', '+Selector'],
		cells(o, now) {
			const started = at(o, 'status', 'startTime')
			const ended = at(o, 'status', 'completionTime')
			const until = typeof ended === 'string' ? Date.parse(ended) : now
			return [
				o.metadata.name,
				jobStatus(o),
				completionsOf(o),
				typeof started === 'string' ? humanDuration(until - Date.parse(started)) : '',
				ageOf(o.metadata.creationTimestamp, now),
				...template(o),
				selectorText(at(o, 'spec', 'selector')),
			]
		},
	},
	'cronjobs.batch': {
		columns: [
			'Name',
			'Schedule',
			'Timezone',
			'Suspend',
			'Active#',
			'Last Schedule',
			'Age',
			'+Containers',
			'+Images',
			'+Selector',
		],
		cells(o, now) {
			const last = at(o, 'status', 'lastScheduleTime')
			return [
				o.metadata.name,
				text(at(o, 'spec', 'schedule')),
				text(at(o, 'spec', 'timeZone'), none),
				at(o, 'spec', 'suspend') === true ? 'True' : 'False',
				items(at(o, 'status', 'active')).length,
				last === undefined ? none : ageOf(last, now),
				ageOf(o.metadata.creationTimestamp, now),
				...containersText(at(o, 'spec', 'jobTemplate', 'spec', 'template', 'spec')),
				selectorText(at(o, 'spec', 'jobTemplate', 'spec', 'selector')),
			]
		},
	},
}

function jobStatus(job: UnknownObject): string {
	const is = (type: string) =>
		items(at(job, 'status', 'conditions')).some((c) => c.type === type && c.status === 'True')
	if (is('Complete')) return 'Complete'
	if (is('Failed')) return 'Failed'
	if (job.metadata.deletionTimestamp !== undefined) return 'Terminating'
	if (is('Suspended')) return 'Suspended'
	if (is('FailureTarget')) return 'FailureTarget'
	if (is('SuccessCriteriaMet')) return 'SuccessCriteriaMet'
	return 'Running'
}

function completionsOf(job: UnknownObject): string {
	const succeeded = number(at(job, 'status', 'succeeded'))
	const completions = at(job, 'spec', 'completions')
	if (typeof completions === 'number') return `${succeeded}/${completions}`
	const parallelism = number(at(job, 'spec', 'parallelism'))
	return parallelism > 1 ? `${succeeded}/1 of ${parallelism}` : `${succeeded}/1`
}
