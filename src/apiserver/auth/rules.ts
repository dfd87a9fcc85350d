// RBAC rules as data: what one allows, whether some cover others, how they are written in messages.
// Source: kubernetes.io/docs/reference/access-authn-authz/rbac; component-helpers auth/rbac/validation, its rules.

import type { Attributes, ResourceAttributes } from './attributes.ts'

/** rbac.authorization.k8s.io/v1 PolicyRule. */
export interface Rule {
	readonly verbs: readonly string[]
	readonly apiGroups?: readonly string[]
	/** `pods`, `pods/log`, `*`; a star before the slash: this subresource of every resource. */
	readonly resources?: readonly string[]
	/** None: any. */
	readonly resourceNames?: readonly string[]
	readonly nonResourceURLs?: readonly string[]
}

const none: readonly string[] = []

export function allows(rule: Rule, attributes: Attributes): boolean {
	if (!has(rule.verbs, attributes.verb)) return false
	if ('path' in attributes) return (rule.nonResourceURLs ?? none).some((url) => fits(url, attributes.path))
	if (!has(rule.apiGroups ?? none, attributes.group)) return false
	if (!namesResource(rule.resources ?? none, attributes)) return false
	const names = rule.resourceNames ?? none
	return names.length === 0 || names.includes(attributes.name)
}

function has(values: readonly string[], value: string): boolean {
	return values.includes(value) || values.includes('*')
}

function namesResource(resources: readonly string[], { resource, subresource }: ResourceAttributes): boolean {
	const whole = subresource === '' ? resource : `${resource}/${subresource}`
	if (has(resources, whole)) return true
	return subresource !== '' && resources.includes(`*/${subresource}`)
}

/** A trailing star stands for anything. */
function fits(pattern: string, path: string): boolean {
	if (pattern === path) return true
	return pattern.endsWith('*') && path.startsWith(pattern.replace(/\*+$/, ''))
}

/** Whether `owner` alone allows everything `rule` does. */
function coversRule(owner: Rule, rule: Rule): boolean {
	const { verbs, apiGroups = none, resources = none, resourceNames = none, nonResourceURLs = none } = owner
	if (!hasAll(verbs, rule.verbs)) return false
	if (!hasAll(apiGroups, rule.apiGroups ?? none)) return false
	for (const resource of rule.resources ?? none) {
		if (has(resources, resource)) continue
		const slash = resource.indexOf('/')
		if (slash < 0 || !resources.includes(`*/${resource.slice(slash + 1)}`)) return false
	}
	for (const url of rule.nonResourceURLs ?? none) if (!nonResourceURLs.some((own) => fits(own, url))) return false
	if (resourceNames.length === 0) return true
	const names = rule.resourceNames ?? none
	return names.length > 0 && names.every((name) => resourceNames.includes(name))
}

function hasAll(values: readonly string[], wanted: readonly string[]): boolean {
	return values.includes('*') || wanted.every((value) => values.includes(value))
}

/** More combinations than any role of a person's hand; a product of long lists must not hold up the server. */
const mostParts = 100_000

/** Of `wanted` what no rule of `owned` covers, in parts of one verb on one resource; undefined: too many parts to tell. */
export function missing(owned: readonly Rule[], wanted: readonly Rule[]): readonly Rule[] | undefined {
	const out: Rule[] = []
	for (const rule of wanted) {
		if (owned.some((own) => coversRule(own, rule))) continue
		const count = (list: readonly string[] | undefined) => Math.max(1, list?.length ?? 0)
		const parts =
			count(rule.apiGroups) * count(rule.resources) * count(rule.verbs) * count(rule.resourceNames) +
			count(rule.nonResourceURLs) * count(rule.verbs)
		if (parts * Math.max(1, owned.length) > mostParts * 100 || parts > mostParts) return undefined
		for (const part of partsOf(rule)) if (!owned.some((own) => coversRule(own, part))) out.push(part)
	}
	return out
}

function* partsOf(rule: Rule): Generator<Rule, void, undefined> {
	for (const group of rule.apiGroups ?? none) {
		for (const resource of rule.resources ?? none) {
			for (const verb of rule.verbs) {
				const part = { apiGroups: [group], resources: [resource], verbs: [verb] }
				const names = rule.resourceNames ?? none
				if (names.length === 0) yield part
				for (const name of names) yield { ...part, resourceNames: [name] }
			}
		}
	}
	for (const url of rule.nonResourceURLs ?? none)
		for (const verb of rule.verbs) yield { nonResourceURLs: [url], verbs: [verb] }
}

/** Parts that differ in their verb alone, as one. */
export function compact(parts: readonly Rule[]): readonly Rule[] {
	const out = new Map<string, Rule>()
	for (const part of parts) {
		const { verbs, ...rest } = part
		const key = JSON.stringify(rest)
		const have = out.get(key)
		out.set(key, have === undefined ? part : { ...have, verbs: [...have.verbs, ...verbs] })
	}
	return [...out.values()]
}

/** `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`, as messages have it. */
export function writeRule(rule: Rule): string {
	const parts: string[] = []
	const add = (name: string, values: readonly string[] | undefined) => {
		if (values !== undefined && values.length > 0) parts.push(`${name}:${writeList(values)}`)
	}
	add('APIGroups', rule.apiGroups)
	add('Resources', rule.resources)
	add('NonResourceURLs', rule.nonResourceURLs)
	add('ResourceNames', rule.resourceNames)
	add('Verbs', rule.verbs)
	return `{${parts.join(', ')}}`
}

/** `["a" "b"]`. */
export function writeList(values: readonly string[]): string {
	return `[${values.map((value) => JSON.stringify(value)).join(' ')}]`
}
