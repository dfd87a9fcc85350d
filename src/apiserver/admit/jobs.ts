// A Job that brings no selector gets one of its own, by its uid. Rule: registry/batch/job/strategy.go, generateSelector.

import type { UnknownObject } from '../../kube/objects/meta.ts'
import { isObject, type JsonObject } from '../../kube/schema/json.ts'

export function prepareJob(job: UnknownObject): UnknownObject {
	const spec = isObject(job.spec) ? job.spec : undefined
	const { uid, name } = job.metadata
	if (spec === undefined || spec.manualSelector === true || uid === undefined) return job
	const template: JsonObject = isObject(spec.template) ? spec.template : {}
	const metadata: JsonObject = isObject(template.metadata) ? template.metadata : {}
	const labels = {
		...(isObject(metadata.labels) ? metadata.labels : {}),
		'batch.kubernetes.io/controller-uid': uid,
		'batch.kubernetes.io/job-name': name,
		'controller-uid': uid,
		'job-name': name,
	}
	const selector: JsonObject = isObject(spec.selector) ? spec.selector : {}
	const matchLabels = isObject(selector.matchLabels) ? selector.matchLabels : {}
	return {
		...job,
		spec: {
			...spec,
			selector: { ...selector, matchLabels: { ...matchLabels, 'batch.kubernetes.io/controller-uid': uid } },
			template: { ...template, metadata: { ...metadata, labels } },
		},
	}
}
