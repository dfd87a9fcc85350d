// Whether a webhook is to be asked about a write: its rules and its selectors.

import type { UnknownObject } from '../../kube/objects/meta.ts'
import { matchesLabelSelector } from '../../kube/selector.ts'
import type { Served } from '../registry.ts'
import type { Operation, Webhook, WebhookRule } from './configuration.ts'

/** A write as rules see it. */
export interface Asked {
	readonly operation: Operation
	readonly served: Served
	readonly subresource: string | undefined
	readonly namespaced: boolean
}

function names(list: readonly string[] | undefined, value: string): boolean {
	return list?.some((one) => one === '*' || one === value) === true
}

/** `pods`, `pods/status`, `*`, `pods/*`, `*` `/status`, `*` `/*`: without a slash the object itself alone is meant. */
function namesResource(list: readonly string[] | undefined, plural: string, subresource: string | undefined): boolean {
	return (
		list?.some((one) => {
			const [resource, sub] = one.split('/', 2)
			if (resource !== '*' && resource !== plural) return false
			return sub === undefined ? subresource === undefined : sub === '*' || sub === subresource
		}) === true
	)
}

export function ruleMatches(rule: WebhookRule, { operation, served, subresource, namespaced }: Asked): boolean {
	const { group, version, plural } = served.resource
	const scope = rule.scope ?? '*'
	return (
		names(rule.operations, operation) &&
		names(rule.apiGroups, group) &&
		names(rule.apiVersions, version) &&
		namesResource(rule.resources, plural, subresource) &&
		(scope === '*' || (scope === 'Namespaced') === namespaced)
	)
}

/**
 * The version in which the webhook takes the object: the request's where a rule names it, else with matchPolicy
 * Equivalent the first other one that a rule names. undefined: it is not asked.
 */
export function versionFor(webhook: Webhook, asked: Asked, others: readonly Served[]): Served | undefined {
	const rules = webhook.rules ?? []
	const matching = (served: Served) => rules.some((rule) => ruleMatches(rule, { ...asked, served }))
	if (matching(asked.served)) return asked.served
	return webhook.matchPolicy === 'Exact' ? undefined : others.find((other) => other !== asked.served && matching(other))
}

/** Either of the two objects may have the labels, so that nobody escapes by taking them away. */
export function selectsObject(webhook: Webhook, ...objects: readonly (UnknownObject | undefined)[]): boolean {
	return objects.some((o) => o !== undefined && matchesLabelSelector(webhook.objectSelector, o.metadata.labels))
}
