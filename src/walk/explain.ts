// Why the policies of a pod allow or deny: for each policy that selects it, the rule that allows, or of every rule the
// first requirement that did not match. The rule that did not match is the explanation; the smallest edit is the advice.

import { type Origin, originText } from '../model/origin.ts'
import {
	type DecidingTier,
	type Decision,
	type Direction,
	decide,
	type Question,
	type Requirement,
	type RuleTrial,
	type TierTrial,
} from '../model/policy.ts'
import { type PolicyProfile, type ProfileName, policyProfiles } from '../model/policy-profile.ts'
import { type EditModel, type PolicyEdit, policyEdits } from './policy-edits.ts'

export interface Translated {
	/** The port the client asked for, before translation. */
	readonly from: number
	/** The port of the pod, which policies see. */
	readonly to: number
}

/** One direction of one connection, as data. */
export interface PolicyExplanation {
	readonly verdict: 'allow' | 'deny'
	readonly tier: DecidingTier
	/** The rule that decided; undefined where none did (nothing matched, no policy selects the pod). */
	readonly rule?: Origin
	/** The policies that select the pod, in the order they are asked. */
	readonly policies: readonly ExplainedPolicy[]
	/** Every rule that allows the connection; empty where it is denied. */
	readonly allowing: readonly Origin[]
	/** What would allow it; empty where it is allowed. The one that opens least is first. */
	readonly edits: readonly PolicyEdit[]
	/** Implementations that would decide otherwise, in a corner the API leaves open. */
	readonly elsewhere: readonly { readonly profile: ProfileName; readonly verdict: 'allow' | 'deny' }[]
}

export interface ExplainedPolicy {
	readonly policy: Origin
	readonly tier: Exclude<DecidingTier, 'default'>
	/** Empty: it has no rule, and denies all. */
	readonly rules: readonly ExplainedRule[]
}

export interface ExplainedRule {
	readonly rule: Origin
	readonly action: 'Accept' | 'Deny' | 'Pass'
	/** Absent: the rule matches the connection. */
	readonly failed?: { readonly text: string; readonly at: Origin; readonly requirement?: Requirement }
}

/** The decision as an explanation. Costs more than deciding: edits are tried, other profiles asked. */
export function explainPolicy(
	model: EditModel,
	question: Question,
	decision: Decision,
	profile: PolicyProfile = policyProfiles.default,
): PolicyExplanation {
	const { verdict, tier, rule, trials, tiers } = decision
	const explained = (name: 'Admin' | 'Baseline') => tiers.filter((t) => t.policy.tier === name).map(explainTier)
	const matching = trials.flatMap(({ rules }) => rules.filter((r) => r.failed === undefined).map((r) => r.rule.origin))
	return {
		verdict,
		tier,
		...(rule === undefined ? {} : { rule }),
		policies: [
			...explained('Admin'),
			...trials.map(
				({ policy, rules }): ExplainedPolicy => ({
					policy: policy.origin,
					tier: 'NetworkPolicy',
					rules: rules.map((r) => ({ rule: r.rule.origin, action: 'Accept', ...failedOf(r) })),
				}),
			),
			...explained('Baseline'),
		],
		allowing: verdict === 'deny' ? [] : tier === 'NetworkPolicy' ? matching : rule === undefined ? [] : [rule],
		edits: policyEdits(model, question, decision, profile),
		elsewhere: otherProfiles(model, question, verdict, profile),
	}
}

function explainTier({ policy, rules }: TierTrial): ExplainedPolicy {
	return {
		policy: policy.origin,
		tier: policy.tier,
		rules: rules.map((r) => ({ rule: r.rule.origin, action: r.rule.action, ...failedOf(r) })),
	}
}

function failedOf({ failed }: Pick<RuleTrial, 'failed'>): Pick<ExplainedRule, 'failed'> {
	if (failed === undefined) return {}
	const { text, origin: at, requirement } = failed
	return { failed: { text, at, ...(requirement === undefined ? {} : { requirement }) } }
}

function otherProfiles(
	model: EditModel,
	question: Question,
	verdict: 'allow' | 'deny',
	profile: PolicyProfile,
): PolicyExplanation['elsewhere'] {
	return Object.values(policyProfiles)
		.filter((other) => other.name !== profile.name)
		.map((other) => ({ profile: other.name, verdict: decide(model, question, undefined, other).verdict }))
		.filter((other) => other.verdict !== verdict)
}

/** `from[0].namespaceSelector.matchLabels.team wants team=web: namespace "shop" has team=Web`. */
export function requirementText({ field, wanted, actual, of, name }: Requirement): string {
	const who = of === 'address' || of === 'connection' ? `the ${of} is ${name}` : `${of} "${name}" has ${actual}`
	return `${field} wants ${wanted}: ${who}`
}

/** What the reader gets beside the reasons, one line each: the edits (the first as a patch), then other profiles. */
export function adviceText({ edits, elsewhere }: PolicyExplanation): readonly string[] {
	const lines = edits.flatMap((edit, i) => {
		const place = originText(edit.at)
		const head = `${i === 0 ? 'to allow it' : 'or'}: ${edit.text}${effectText(edit)}`
		if (i > 0) return [head]
		return [head, `  at ${place}`, ...edit.yaml.split('\n').map((line) => `    ${line}`), `  ${commandText(edit)}`]
	})
	return [
		...lines,
		...elsewhere.map(({ profile, verdict }) => `a ${profile} network would ${verdict} it: the API leaves this open`),
	]
}

function effectText({ opens, closes }: PolicyEdit): string {
	const others = (n: number) => `${n} other connection${n === 1 ? '' : 's'}`
	const opened = opens === undefined ? undefined : opens === 0 ? 'opens nothing else' : `opens ${others(opens)} too`
	const parts = [opened, closes === undefined ? undefined : `closes ${others(closes)}`].filter((p) => p !== undefined)
	return parts.length === 0 ? '' : ` (${parts.join(', ')})`
}

/** The edit as a command for the shell. */
export function commandText({ object, patch }: PolicyEdit): string {
	const where = object.namespace === undefined ? '' : ` -n ${object.namespace}`
	return `kubectl patch ${object.kind.toLowerCase()} ${object.name}${where} --type json -p '${JSON.stringify(patch).replaceAll("'", "'\\''")}'`
}

/** One line for each policy without rules and each rule that failed; empty where the connection is allowed by one. */
export function explainDenial(decision: Decision, direction: Direction, translated?: Translated): readonly string[] {
	const passed = decision.tiers.flatMap(({ rules }) =>
		rules.flatMap(({ rule, failed, names }) => {
			if (failed !== undefined) return []
			if (names !== undefined)
				return [`${originText(rule.origin)}: an address of ${names.join(', ')}, as the cluster's DNS server answered`]
			return rule.action === 'Pass' ? [`${originText(rule.origin)} passes it to the next tier`] : []
		}),
	)
	if (decision.verdict === 'allow' && decision.audited !== true) return passed
	if (decision.tier === 'Admin' || decision.tier === 'Baseline') {
		const last = decision.tiers.at(-1)!
		const { rule } = last.rules.at(-1)!
		const named = rule.name === undefined ? '' : ` ("${rule.name}")`
		const unread = (rule.unreadable ?? []).map(
			(o) => `${originText(o)} cannot be read: the rule fails closed and denies all`,
		)
		return [
			...passed,
			...unresolved(decision),
			`${originText(rule.origin)}${named} denies it, of the ${decision.tier} tier, priority ${last.policy.priority}`,
			...unread,
		]
	}
	return [
		...passed,
		...decision.trials.flatMap(({ policy, rules }) =>
			rules.length === 0
				? [`${originText(policy.origin)} has no ${direction} rule: it denies all`]
				: rules.flatMap((trial) => {
						const text = ruleText(trial, translated)
						return text === undefined ? [] : [text]
					}),
		),
	]
}

/** Rules that would have accepted it by a name that the address does not have, as far as anybody has asked. */
function unresolved({ tiers }: Decision): readonly string[] {
	const rules = tiers.flatMap((t) => t.rules)
	return rules.flatMap(({ rule, failed }) =>
		failed?.requirement?.field.endsWith('domainNames') === true && rule.action === 'Accept'
			? [`${originText(failed.origin)}: ${failed.text}`]
			: [],
	)
}

function ruleText({ rule, failed }: RuleTrial, translated: Translated | undefined): string | undefined {
	if (failed === undefined) return undefined
	const asked =
		failed.part === 'port' &&
		translated !== undefined &&
		translated.from !== translated.to &&
		rule.ports.some((p) => p.port === translated.from)
	const hint = asked ? `; policies see the pod's port ${translated.to}, not the Service's port ${translated.from}` : ''
	return `${originText(failed.origin)}: ${failed.text}${hint}`
}
