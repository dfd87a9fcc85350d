// Checks of workloads: Deployment, ReplicaSet, StatefulSet, DaemonSet, ReplicationController, Job, CronJob.
// Source: Kubernetes' pkg/apis/apps/validation and pkg/apis/batch/validation.

import { type Json, type JsonObject, sameJson } from '../../kube/schema/json.ts'
import { checkSelector, isEmptySelector, selectorAt, selects } from './metadata.ts'
import { checkPodTemplate } from './pod.ts'
import { isSet, objectAt, objectsAt, type Report, textAt } from './report.ts'

function checkSelectorAndTemplate(spec: JsonObject, kind: string, policies: readonly string[], report: Report): void {
	const selector = selectorAt(spec)
	const template = objectAt(spec, 'template')
	const labels = objectAt(objectAt(template, 'metadata'), 'labels')
	if (!selector) report.required('spec.selector')
	else {
		checkSelector(selector, 'spec.selector', report)
		if (isEmptySelector(selector)) report.invalid('spec.selector', selector, `empty selector is invalid for ${kind}`)
		else if (!selects(selector, labels))
			report.invalid('spec.template.metadata.labels', labels, '`selector` does not match template `labels`')
	}
	checkPodTemplate(template, 'spec.template', policies, report)
}

/** A number of at least 0, or a percentage of at most `most`. */
function checkCountOrPercent(value: Json | undefined, at: string, report: Report): void {
	if (typeof value === 'number') report.notNegative(at, value)
	else if (typeof value === 'string') {
		if (!/^\d+%$/.test(value))
			report.invalid(
				at,
				value,
				"a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%' or '93%')",
			)
	}
}

function isZero(value: Json | undefined): boolean {
	return value === 0 || value === '0%'
}

function checkMinReady(spec: JsonObject, report: Report): void {
	report.notNegative('spec.minReadySeconds', spec.minReadySeconds)
	report.notNegative('spec.revisionHistoryLimit', spec.revisionHistoryLimit)
}

export function checkDeployment(object: JsonObject, report: Report): void {
	const spec = objectAt(object, 'spec')
	checkSelectorAndTemplate(spec, 'deployment', ['Always'], report)
	report.notNegative('spec.replicas', spec.replicas)
	checkMinReady(spec, report)
	const strategy = objectAt(spec, 'strategy')
	const type = textAt(strategy, 'type')
	report.oneOf('spec.strategy.type', type, ['Recreate', 'RollingUpdate'])
	const rolling = objectAt(strategy, 'rollingUpdate')
	if (type === 'Recreate' && isSet(strategy.rollingUpdate))
		report.forbidden('spec.strategy.rollingUpdate', "may not be specified when strategy `type` is 'Recreate'")
	if (type === 'RollingUpdate') {
		const at = 'spec.strategy.rollingUpdate'
		checkCountOrPercent(rolling.maxUnavailable, `${at}.maxUnavailable`, report)
		checkCountOrPercent(rolling.maxSurge, `${at}.maxSurge`, report)
		if (isZero(rolling.maxUnavailable) && isZero(rolling.maxSurge))
			report.invalid(`${at}.maxUnavailable`, rolling.maxUnavailable, 'may not be 0 when `maxSurge` is 0')
		checkPercentCap(rolling.maxUnavailable, `${at}.maxUnavailable`, report)
	}
	const deadline = spec.progressDeadlineSeconds
	if (typeof deadline === 'number') {
		report.notNegative('spec.progressDeadlineSeconds', deadline)
		const minReady = spec.minReadySeconds
		if (deadline <= (typeof minReady === 'number' ? minReady : 0))
			report.invalid('spec.progressDeadlineSeconds', deadline, 'must be greater than minReadySeconds')
	}
}

function checkPercentCap(value: Json | undefined, at: string, report: Report): void {
	if (typeof value === 'string' && Number.parseInt(value, 10) > 100)
		report.invalid(at, value, 'must not be greater than 100%')
}

export function checkReplicaSet(object: JsonObject, report: Report): void {
	const spec = objectAt(object, 'spec')
	checkSelectorAndTemplate(spec, 'replicaset', ['Always'], report)
	report.notNegative('spec.replicas', spec.replicas)
	checkMinReady(spec, report)
}

export function checkReplicationController(object: JsonObject, report: Report): void {
	const spec = objectAt(object, 'spec')
	const selector = objectAt(spec, 'selector')
	const labels = objectAt(objectAt(objectAt(spec, 'template'), 'metadata'), 'labels')
	if (Object.keys(selector).length === 0) report.required('spec.selector')
	else if (!selects({ matchLabels: selector }, labels))
		report.invalid('spec.template.metadata.labels', labels, '`selector` does not match template `labels`')
	report.notNegative('spec.replicas', spec.replicas)
	report.notNegative('spec.minReadySeconds', spec.minReadySeconds)
	checkPodTemplate(objectAt(spec, 'template'), 'spec.template', ['Always'], report)
}

/** With the volumes that its claim templates will be: containers mount them by name. */
function withClaims(spec: JsonObject): JsonObject {
	const template = objectAt(spec, 'template')
	const pod = objectAt(template, 'spec')
	const volumes = objectsAt(pod, 'volumes')
	const claims = objectsAt(spec, 'volumeClaimTemplates')
		.map((claim) => textAt(objectAt(claim, 'metadata'), 'name'))
		.filter((name) => name !== '' && !volumes.some((volume) => volume.name === name))
		.map((name) => ({ name, persistentVolumeClaim: { claimName: name } }))
	if (claims.length === 0) return spec
	return { ...spec, template: { ...template, spec: { ...pod, volumes: [...volumes, ...claims] } } }
}

export function checkStatefulSet(object: JsonObject, report: Report): void {
	const spec = objectAt(object, 'spec')
	checkSelectorAndTemplate(withClaims(spec), 'statefulset', ['Always'], report)
	report.notNegative('spec.replicas', spec.replicas)
	checkMinReady(spec, report)
	const policy = textAt(spec, 'podManagementPolicy')
	if (policy === '') report.required('spec.podManagementPolicy')
	else report.oneOf('spec.podManagementPolicy', policy, ['OrderedReady', 'Parallel'])
	const strategy = objectAt(spec, 'updateStrategy')
	const type = textAt(strategy, 'type')
	if (type === '') report.required('spec.updateStrategy')
	else report.oneOf('spec.updateStrategy', type, ['OnDelete', 'RollingUpdate'])
	if (type === 'OnDelete' && isSet(strategy.rollingUpdate))
		report.invalid(
			'spec.updateStrategy.rollingUpdate',
			strategy.rollingUpdate,
			`only allowed for updateStrategy 'RollingUpdate'`,
		)
	report.notNegative('spec.updateStrategy.rollingUpdate.partition', objectAt(strategy, 'rollingUpdate').partition)
	report.notNegative('spec.ordinals.start', objectAt(spec, 'ordinals').start)
	const retention = objectAt(spec, 'persistentVolumeClaimRetentionPolicy')
	for (const field of ['whenDeleted', 'whenScaled'])
		report.oneOf(`spec.persistentVolumeClaimRetentionPolicy.${field}`, retention[field], ['Delete', 'Retain'])
}

export function checkDaemonSet(object: JsonObject, report: Report): void {
	const spec = objectAt(object, 'spec')
	checkSelectorAndTemplate(spec, 'daemonset', ['Always'], report)
	checkMinReady(spec, report)
	const strategy = objectAt(spec, 'updateStrategy')
	const type = textAt(strategy, 'type')
	report.oneOf('spec.updateStrategy.type', type, ['OnDelete', 'RollingUpdate'])
	if (type !== 'RollingUpdate') return
	const rolling = objectAt(strategy, 'rollingUpdate')
	const at = 'spec.updateStrategy.rollingUpdate'
	checkCountOrPercent(rolling.maxUnavailable, `${at}.maxUnavailable`, report)
	checkCountOrPercent(rolling.maxSurge, `${at}.maxSurge`, report)
	const [unavailable, surge] = [rolling.maxUnavailable, rolling.maxSurge]
	if (isZero(unavailable) && (surge === undefined || isZero(surge)))
		report.required(`${at}.maxUnavailable`, 'cannot be 0 when maxSurge is 0')
	if (unavailable !== undefined && surge !== undefined && !isZero(unavailable) && !isZero(surge))
		report.invalid(`${at}.maxSurge`, surge, 'may not be set when maxUnavailable is non-zero')
}

export function checkJob(object: JsonObject, report: Report): void {
	checkJobSpec(objectAt(object, 'spec'), 'spec', report)
	const spec = objectAt(object, 'spec')
	const selector = selectorAt(spec)
	// The server makes the selector itself unless `manualSelector` says the user does.
	if (!selector) {
		if (spec.manualSelector === true) report.required('spec.selector')
		return
	}
	checkSelector(selector, 'spec.selector', report)
	const labels = objectAt(objectAt(objectAt(spec, 'template'), 'metadata'), 'labels')
	if (!selects(selector, labels))
		report.invalid('spec.template.metadata.labels', labels, '`selector` does not match template `labels`')
}

function checkJobSpec(spec: JsonObject, at: string, report: Report): void {
	for (const field of [
		'parallelism',
		'completions',
		'backoffLimit',
		'backoffLimitPerIndex',
		'maxFailedIndexes',
		'ttlSecondsAfterFinished',
		'activeDeadlineSeconds',
	])
		report.notNegative(`${at}.${field}`, spec[field])
	const mode = textAt(spec, 'completionMode')
	report.oneOf(`${at}.completionMode`, mode, ['Indexed', 'NonIndexed'])
	if (mode === 'Indexed' && !isSet(spec.completions))
		report.required(`${at}.completions`, 'when completion mode is Indexed')
	checkPodTemplate(objectAt(spec, 'template'), `${at}.template`, ['OnFailure', 'Never'], report)
	if (textAt(objectAt(objectAt(spec, 'template'), 'spec'), 'restartPolicy') === '')
		report.required(`${at}.template.spec.restartPolicy`)
}

export function checkCronJob(object: JsonObject, report: Report): void {
	const spec = objectAt(object, 'spec')
	const name = textAt(objectAt(object, 'metadata'), 'name')
	// Jobs get the name and eleven characters more.
	if (name.length > 52) report.invalid('metadata.name', name, 'must be no more than 52 characters')
	const schedule = textAt(spec, 'schedule')
	if (schedule === '') report.required('spec.schedule')
	else {
		const why = scheduleFault(schedule)
		if (why) report.invalid('spec.schedule', schedule, why)
	}
	const policy = textAt(spec, 'concurrencyPolicy')
	if (policy === '') report.required('spec.concurrencyPolicy')
	else report.oneOf('spec.concurrencyPolicy', policy, ['Allow', 'Forbid', 'Replace'])
	for (const field of ['startingDeadlineSeconds', 'successfulJobsHistoryLimit', 'failedJobsHistoryLimit'])
		report.notNegative(`spec.${field}`, spec[field])
	const job = objectAt(objectAt(spec, 'jobTemplate'), 'spec')
	checkJobSpec(job, 'spec.jobTemplate.spec', report)
	if (spec.manualSelector === true) report.notSupported('spec.jobTemplate.spec.manualSelector', true, ['nil', 'false'])
	if (isSet(job.selector))
		report.invalid('spec.jobTemplate.spec.selector', job.selector, '`selector` will be auto-generated')
}

const cronFields: readonly (readonly [name: string, low: number, high: number, names: readonly string[]])[] = [
	['minute', 0, 59, []],
	['hour', 0, 23, []],
	['day of month', 1, 31, []],
	['month', 1, 12, 'jan feb mar apr may jun jul aug sep oct nov dec'.split(' ')],
	['day of week', 0, 6, 'sun mon tue wed thu fri sat'.split(' ')],
]

/** Why a cron schedule is none; undefined: it is one. */
export function scheduleFault(schedule: string): string | undefined {
	if (schedule.startsWith('@')) {
		if (/^@(yearly|annually|monthly|weekly|daily|midnight|hourly)$/.test(schedule)) return undefined
		return /^@every (\d+(\.\d*)?(h|m|s|ms|us|µs|ns))+$/.test(schedule)
			? undefined
			: `unrecognized descriptor: ${schedule}`
	}
	if (/^(CRON_TZ|TZ)=/.test(schedule)) return 'cannot use TZ or CRON_TZ in schedule, use timeZone field instead'
	const parts = schedule.trim().split(/\s+/)
	if (parts.length !== 5) return `expected exactly 5 fields, found ${parts.length}: [${schedule}]`
	for (const [i, part] of parts.entries()) {
		const [name, low, high, names] = cronFields[i]!
		for (const range of part.split(',')) {
			const m = /^(\*|\?|[a-z\d]+)(?:-([a-z\d]+))?(?:\/(\d+))?$/i.exec(range)
			if (!m) return `failed to parse the ${name}: ${range}`
			const numbers = [m[1]!, m[2]].filter((n) => n !== undefined && n !== '*' && n !== '?') as string[]
			const values = numbers.map((n) => {
				const index = names.indexOf(n.toLowerCase())
				return index >= 0 ? index + low : /^\d+$/.test(n) ? Number(n) : Number.NaN
			})
			for (const [j, value] of values.entries()) {
				if (Number.isNaN(value)) return `failed to parse the ${name}: ${numbers[j]}`
				if (value < low || value > high) return `the ${name} ${value} is not between ${low} and ${high}`
			}
			if (values.length === 2 && values[0]! > values[1]!) return `the ${name} range ${range} ends before it begins`
			if (m[3] !== undefined && Number(m[3]) === 0) return `the step of the ${name} ${range} is 0`
		}
	}
	return undefined
}

/** Workloads of apps/v1 keep their selector. */
export function checkSelectorUpdate(before: JsonObject, after: JsonObject, report: Report): void {
	const had = objectAt(before, 'spec').selector
	const has = objectAt(after, 'spec').selector
	if (!sameJson(had, has)) report.invalid('spec.selector', has, 'field is immutable')
}

const statefulSetFields = [
	'replicas',
	'ordinals',
	'template',
	'updateStrategy',
	'revisionHistoryLimit',
	'persistentVolumeClaimRetentionPolicy',
	'minReadySeconds',
]

export function checkStatefulSetUpdate(before: JsonObject, after: JsonObject, report: Report): void {
	const fixed = (object: JsonObject): JsonObject =>
		Object.fromEntries(Object.entries(objectAt(object, 'spec')).filter(([key]) => !statefulSetFields.includes(key)))
	if (!sameJson(fixed(before), fixed(after)))
		report.forbidden(
			'spec',
			`updates to statefulset spec for fields other than ${statefulSetFields
				.map((f) => `'${f}'`)
				.join(', ')
				.replace(/, (?=[^,]*$)/, ' and ')} are forbidden`,
		)
}

export function checkJobUpdate(before: JsonObject, after: JsonObject, report: Report): void {
	const had = objectAt(before, 'spec')
	const has = objectAt(after, 'spec')
	for (const field of ['selector', 'completionMode', 'podFailurePolicy', 'backoffLimitPerIndex', 'managedBy'])
		if (!sameJson(had[field], has[field])) report.invalid(`spec.${field}`, has[field] ?? null, 'field is immutable')
	const isElastic = has.completionMode === 'Indexed' && sameJson(has.completions, has.parallelism)
	if (!sameJson(had.completions, has.completions) && !isElastic)
		report.invalid('spec.completions', has.completions ?? null, 'field is immutable')
	// A suspended job that never started may still be placed.
	const mayPlace = had.suspend === true && !isSet(objectAt(before, 'status').startTime)
	const fixed = (spec: JsonObject): JsonObject => {
		const template = objectAt(spec, 'template')
		if (!mayPlace) return template
		const {
			nodeSelector: _,
			tolerations: __,
			affinity: ___,
			schedulingGates: ____,
			...pod
		} = objectAt(template, 'spec')
		return { ...template, metadata: {}, spec: pod }
	}
	if (!sameJson(fixed(had), fixed(has))) report.invalid('spec.template', has.template, 'field is immutable')
}
