// What is wrong with a webhook configuration. Wording and rules: Kubernetes pkg/apis/admissionregistration/validation.

import { messageOf } from '../../base/failure.ts'
import type { StatusCause } from '../../kube/objects/meta.ts'
import { isObject, type JsonObject } from '../../kube/schema/json.ts'
import { subdomainFaults } from '../validate/names.ts'
import { isSet, objectAt, objectsAt, Report, textAt, textsAt } from '../validate/report.ts'
import { reviewVersions } from './review.ts'

const operations = ['*', 'CONNECT', 'CREATE', 'DELETE', 'UPDATE']
const mostConditions = 64

export function checkConfiguration(
	configuration: JsonObject,
	/** Throws where the expression cannot be compiled. */
	compileCondition: (expression: string) => unknown,
): readonly StatusCause[] {
	const report = new Report()
	const names = new Set<string>()
	objectsAt(configuration, 'webhooks').forEach((webhook, i) => {
		const at = `webhooks[${i}]`
		const name = textAt(webhook, 'name')
		if (name === '') report.required(`${at}.name`)
		else {
			report.invalidFor(`${at}.name`, name, subdomainFaults(name))
			if (name.split('.').length < 3)
				report.invalid(`${at}.name`, name, 'should be a domain with at least three segments separated by dots')
			if (names.has(name)) report.duplicate(`${at}.name`, name)
			names.add(name)
		}
		checkWebhook(webhook, at, report, compileCondition)
	})
	return report.causes
}

function checkWebhook(webhook: JsonObject, at: string, report: Report, compileCondition: (text: string) => unknown) {
	for (const [i, rule] of objectsAt(webhook, 'rules').entries()) checkRule(rule, `${at}.rules[${i}]`, report)
	report.oneOf(`${at}.failurePolicy`, webhook.failurePolicy, ['Fail', 'Ignore'])
	report.oneOf(`${at}.matchPolicy`, webhook.matchPolicy, ['Equivalent', 'Exact'])
	report.oneOf(`${at}.reinvocationPolicy`, webhook.reinvocationPolicy, ['IfNeeded', 'Never'])
	if (!isSet(webhook.sideEffects)) report.required(`${at}.sideEffects`, 'must specify one of None, NoneOnDryRun')
	else report.oneOf(`${at}.sideEffects`, webhook.sideEffects, ['None', 'NoneOnDryRun'])
	const { timeoutSeconds } = webhook
	if (typeof timeoutSeconds === 'number' && (timeoutSeconds < 1 || timeoutSeconds > 30))
		report.invalid(`${at}.timeoutSeconds`, timeoutSeconds, 'the timeout value must be between 1 and 30 seconds')
	const versions = textsAt(webhook, 'admissionReviewVersions')
	if (versions.length === 0)
		report.required(`${at}.admissionReviewVersions`, `must specify one of ${reviewVersions.join(', ')}`)
	else if (!versions.some((version) => reviewVersions.includes(version)))
		report.invalid(
			`${at}.admissionReviewVersions`,
			versions,
			`must include at least one of ${reviewVersions.join(', ')}`,
		)
	const client = objectAt(webhook, 'clientConfig')
	const { url, service } = client
	const place = `${at}.clientConfig`
	if (isSet(url) === isObject(service)) report.required(place, 'exactly one of url or service is required')
	else if (isObject(service)) {
		for (const field of ['namespace', 'name'])
			if (textAt(service, field) === '') report.required(`${place}.service.${field}`)
	} else checkUrl(String(url), `${place}.url`, report)
	const conditions = objectsAt(webhook, 'matchConditions')
	if (conditions.length > mostConditions) report.tooMany(`${at}.matchConditions`, conditions.length, mostConditions)
	conditions.forEach((condition, i) => {
		const here = `${at}.matchConditions[${i}]`
		if (textAt(condition, 'name') === '') report.required(`${here}.name`)
		const expression = textAt(condition, 'expression')
		if (expression.trim() === '') {
			report.required(`${here}.expression`)
			return
		}
		try {
			compileCondition(expression)
		} catch (e) {
			report.invalid(`${here}.expression`, expression, `compilation failed: ${messageOf(e)}`)
		}
	})
}

function checkRule(rule: JsonObject, at: string, report: Report): void {
	for (const field of ['apiGroups', 'apiVersions', 'resources', 'operations']) {
		const values = textsAt(rule, field)
		if (values.length === 0) report.required(`${at}.${field}`)
		if (values.length > 1 && values.includes('*'))
			report.invalid(
				`${at}.${field}`,
				values,
				`if '*' is present, must not specify other ${field === 'apiGroups' ? 'API groups' : field === 'apiVersions' ? 'API versions' : field}`,
			)
	}
	textsAt(rule, 'operations').forEach((operation, i) => {
		if (!operations.includes(operation)) report.notSupported(`${at}.operations[${i}]`, operation, operations)
	})
	report.oneOf(`${at}.scope`, rule.scope, ['*', 'Cluster', 'Namespaced'])
}

function checkUrl(text: string, at: string, report: Report): void {
	const form = 'desired format: https://host[/path]'
	let url: URL
	try {
		url = new URL(text)
	} catch (e) {
		report.required(at, `url must be a valid URL: ${messageOf(e)}; ${form}`)
		return
	}
	if (url.protocol !== 'https:')
		report.invalid(at, url.protocol.slice(0, -1), `'https' is the only allowed URL scheme; ${form}`)
	if (url.username !== '') report.invalid(at, url.username, 'user information is not permitted in the URL')
	if (url.hash !== '') report.invalid(at, url.hash.slice(1), 'fragments are not permitted in the URL')
	if (url.search !== '') report.invalid(at, url.search.slice(1), 'query parameters are not permitted in the URL')
}
