// The appliance's program against a packet, in the terms of the contract.

import { familyOf, type Ip } from '../../base/ip.ts'
import type { Hook, Packet } from '../../base/packet.ts'
import { evaluateProgram } from '../../linux/nft/evaluate.ts'
import { type NftProgram, tableKey } from '../../linux/nft/program.ts'
import { defaultOrigin } from '../../model/origin.ts'
import type { Evaluated, RuleHit } from '../dataplane.ts'
import { parseOrigin } from '../origin.ts'
import { names, tableName, unrouted } from './layout.ts'

/** All outcomes at one hook. `addresses`: the router's own, for what is masqueraded. */
export function evaluateBalancer(
	program: NftProgram,
	packet: Packet,
	at: Hook,
	addresses: readonly Ip[] = [],
): readonly Evaluated[] {
	const outcomes = evaluateProgram(program, packet, at, {
		masqueradeAddress: (p) => addresses.find((a) => familyOf(a) === familyOf(p.destination)),
	})
	return outcomes.map(({ rules, ...outcome }) => ({
		...outcome,
		rules: rules.map(({ found, ...hit }) => ({
			...hit,
			because: [...found.map((f) => f.element.comment), hit.comment]
				.flatMap((c) => (c === undefined ? [] : [parseOrigin(c) ?? defaultOrigin(c)]))
				.slice(0, 1),
		})),
	}))
}

/** Whether the router has the address itself: what is not translated ends there. */
export function hasAddress(program: NftProgram, ip: Ip): boolean {
	const table = program.tables.get(tableKey(familyOf(ip) === 4 ? 'ip' : 'ip6', tableName))
	return table?.sets.get(names.addresses)?.elements.has(ip) === true
}

/** Whether the rule stands for a route that is not there. */
export function isUnrouted(rule: RuleHit | undefined): boolean {
	return rule?.table === tableName && (Object.values(unrouted) as (string | undefined)[]).includes(rule.comment)
}
