// Connections the manifests ask for, and the policies do not allow.

import { hasPort, subtractPorts } from '../../base/ports.ts'
import type { Finding } from '../../model/finding.ts'
import type { Origin } from '../../model/origin.ts'
import { connectionsText, pointOf } from '../connections.ts'
import { portsBehind } from '../ingresses.ts'
import { allowedBetween, type Party } from '../parties.ts'
import { fromAnyPod } from '../table.ts'
import type { LintInput } from './check.ts'

export function* checkConnections(input: LintInput): Iterable<Finding> {
	yield* checkNeeds(input)
	yield* checkIngresses(input)
}

/** PW0052: a program is told to use a Service that its policies, or those of the Service's pods, do not let it reach. */
function* checkNeeds({ reach, needs }: LintInput): Iterable<Finding> {
	for (const { from, to, protocol, port, because, why } of needs) {
		// DNS has a finding of its own (PW0019).
		if (from.kind !== 'workload' || to.kind !== 'workload' || why === 'cluster DNS') continue
		const allowed = allowedBetween(reach, from.party.members, to.party.members)
		if (allowed === undefined || hasPort(reach.pool.setOf(allowed.every), pointOf(protocol, port))) continue
		const { sides, policies } = deniers(from.party, to.party, pointOf(protocol, port))
		yield {
			code: 'PW0052',
			severity: 'warning',
			text: `"${from.party.name}" is told to use "${to.party.name}" on ${protocol} ${port} (${why}), and ${sides.join(' and ')} ${sides.length > 1 ? 'do' : 'does'} not allow it`,
			because: [...because.slice(0, 1), ...policies],
		}
	}

	function deniers(
		from: Party,
		to: Party,
		point: number,
	): { readonly sides: readonly string[]; readonly policies: readonly Origin[] } {
		const sides: string[] = []
		const policies: Origin[] = []
		for (const a of from.members) {
			for (const b of to.members) {
				if (a.kind !== 'pods' || b.kind !== 'pods') continue
				for (const [direction, own, other, text] of [
					['egress', a.class, b.class, 'the egress of the former'],
					['ingress', b.class, a.class, 'the ingress of the latter'],
				] as const) {
					if (sides.includes(text) || hasPort(reach.pool.setOf(reach[direction](own, other)), point)) continue
					sides.push(text)
					policies.push(...reach.reasons(direction, own, { class: other }).map((r) => r.policy))
				}
			}
		}
		return {
			sides: sides.length === 0 ? ['a policy'] : sides,
			policies: [...new Map(policies.map((o) => [JSON.stringify(o), o])).values()],
		}
	}
}

/** PW0053 */
function* checkIngresses({ reach, parties, ingresses }: LintInput): Iterable<Finding> {
	for (const party of parties) {
		const { connections, because } = portsBehind(ingresses, party)
		if (connections.length === 0 || party.hostNetwork) continue
		const lacking = subtractPorts(connections, reach.pool.setOf(fromAnyPod(reach, party.members)))
		if (lacking.length === 0) continue
		yield {
			code: 'PW0053',
			severity: 'info',
			text: `An Ingress leads to "${party.name}" on ${connectionsText(lacking)}, and its policies let in only pods they name: make sure that the controller that serves the Ingress is one of them`,
			because: [...because],
		}
	}
}
