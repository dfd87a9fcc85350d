// Why the policies of a pod allow or deny: for each policy that selects it, the rule that allows, or of every rule the
// first requirement that did not match. The rule that did not match is the explanation.

import { originText } from '../model/origin.ts'
import type { Decision, Direction, RuleTrial } from '../model/policy.ts'

export interface Translated {
	/** The port the client asked for, before translation. */
	readonly from: number
	/** The port of the pod, which policies see. */
	readonly to: number
}

/** One line for each policy without rules and each rule that failed; empty where the connection is allowed by one. */
export function explainDenial(decision: Decision, direction: Direction, translated?: Translated): readonly string[] {
	if (decision.verdict === 'allow' && decision.audited !== true) return []
	return decision.trials.flatMap(({ policy, rules }) =>
		rules.length === 0
			? [`${originText(policy.origin)} has no ${direction} rule: it denies all`]
			: rules.flatMap((trial) => {
					const text = ruleText(trial, translated)
					return text === undefined ? [] : [text]
				}),
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
