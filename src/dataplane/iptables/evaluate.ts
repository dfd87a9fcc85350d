// A program against a packet, in the terms of the contract: every rule that matched says why it is there, from the
// Service port its comment names.

import { familyOf } from '../../base/ip.ts'
import type { Hook, Packet } from '../../base/packet.ts'
import { evaluateRuleset } from '../../linux/iptables/evaluate.ts'
import { commentOf, type Rule } from '../../linux/iptables/program.ts'
import { defaultOrigin, type Origin, objectOrigin } from '../../model/origin.ts'
import type { Evaluated } from '../dataplane.ts'
import { ruleHit } from '../kube-chains.ts'
import { titleIn } from './names.ts'
import type { IptablesProgram } from './program.ts'

/** All outcomes for one packet at one hook. Throws NotEvaluable where a rule asks for what is not known of the packet. */
export function evaluate(program: IptablesProgram, packet: Packet, hook: Hook): readonly Evaluated[] {
	const family = familyOf(packet.destination)
	const { localAddresses } = program
	const outcomes = evaluateRuleset(program.rulesets[family], packet, hook, {
		localAddresses,
		masqueradeAddress: () => localAddresses.find((ip) => familyOf(ip) === family),
	})
	return outcomes.map(({ verdict, packet, rules, chance }) => ({
		verdict,
		packet,
		rules: rules.map((hit) => ruleHit(hit, originsOf(program, hit.rule))),
		chance,
	}))
}

/** The Service port a rule is there for; a comment that names none is the reason itself. */
export function originsOf(program: Pick<IptablesProgram, 'origins'>, rule: Rule): Origin[] {
	const text = commentOf(rule)
	if (text === undefined) return []
	const title = titleIn(text)
	if (title === undefined) return [defaultOrigin(text)]
	const [service = title, port] = title.split(':')
	return [
		program.origins.get(title) ??
			objectOrigin('Service', service, port === undefined ? undefined : `spec.ports[?(@.name=="${port}")]`),
	]
}
