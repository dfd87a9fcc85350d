// A program against a packet, in the terms of the contract: every rule that matched says why it is there, from the
// comments of the rule and of the elements it looked up.

import type { Hook, Packet } from '../../base/packet.ts'
import { describeHandle, type EvaluationContext, evaluateProgram, type NftHit } from '../../linux/nft/evaluate.ts'
import type { NftProgram } from '../../linux/nft/program.ts'
import { defaultOrigin, type Origin } from '../../model/origin.ts'
import type { Evaluated, RuleHit } from '../dataplane.ts'
import { parseOrigin } from '../origin.ts'
import { choiceOfMap } from './layout.ts'

export { type EvaluationContext, NotEvaluable } from '../../linux/nft/evaluate.ts'

/** All outcomes for one packet at one hook. Throws NotEvaluable where a rule asks for what is not known of the packet. */
export function evaluate(
	program: NftProgram,
	packet: Packet,
	hook: Hook,
	context: EvaluationContext = {},
): readonly Evaluated[] {
	return evaluateProgram(program, packet, hook, context).map(({ verdict, packet, rules, chance }) => ({
		verdict,
		packet,
		rules: rules.map(ruleHit),
		chance,
	}))
}

/** The rule a kernel trace names by its handle; undefined where the program has none such. */
export function describeRule(
	program: NftProgram,
	family: string,
	table: string,
	chain: string,
	handle: number,
): RuleHit | undefined {
	const hit = describeHandle(program, family, table, chain, handle)
	return hit === undefined ? undefined : ruleHit(hit)
}

function ruleHit(hit: NftHit): RuleHit {
	const { found, ...rest } = hit
	const because: Origin[] = []
	for (const { set, key, element } of found) {
		// Only the first slot of a frontend carries its comment.
		const first =
			choiceOfMap(set.name) !== undefined && set.key.length === 4
				? set.elements.get(key.replace(/[0-9]+$/, '0'))
				: undefined
		const comment = element.comment ?? first?.comment
		const origin = comment === undefined ? undefined : parseOrigin(comment)
		if (origin !== undefined) because.push(origin)
	}
	if (because.length === 0 && hit.comment !== undefined)
		because.push(parseOrigin(hit.comment) ?? defaultOrigin(hit.comment))
	return { ...rest, because }
}
