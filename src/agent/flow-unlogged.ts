// What the log does not tell: a rule that logs stands before the one it tells of, its limit lets so many packets a second
// through, and both rules count. The difference is what was kept quiet; it outlives the rules it was counted by.

import { parseLogPrefix } from '../dataplane/policy/log.ts'
import type { NftProgram, NftRule } from '../linux/nft/program.ts'
import type { FlowVerdict } from './flow-event.ts'

interface Counted {
	readonly verdict: FlowVerdict
	/** Packets that were logged, that the rule after it met, and the difference. */
	readonly logged: number
	readonly met: number
	readonly quiet: number
}

export class UnloggedPackets {
	/** By the rule that logs: `table handle, rule handle`. */
	#rules = new Map<string, Counted>()
	/** Of rules that are no more. */
	readonly #past = new Map<FlowVerdict, number>()

	/** What the rules in the kernel count now. A rule that is replaced has to be seen before: what it counts goes with it. */
	see(program: NftProgram): void {
		const now = new Map<string, Counted>()
		for (const table of program.tables.values()) {
			for (const { name, rules } of table.chains.values()) {
				for (const [i, rule] of rules.entries()) {
					const counted = countedOf(rule, rules[i + 1])
					if (counted === undefined) continue
					// Handles of rules begin anew with a table, those of tables do not.
					const id = `${table.family} ${table.handle} ${name} ${rule.handle ?? i}`
					const before = this.#rules.get(id)
					const same = before !== undefined && before.met <= counted.met
					// The two are read one after the other: what came between them may count as quiet, and never takes it back.
					now.set(id, same ? { ...counted, quiet: Math.max(counted.quiet, before.quiet) } : counted)
				}
			}
		}
		for (const [id, before] of this.#rules) {
			const after = now.get(id)
			if (after === undefined || after.met < before.met)
				this.#past.set(before.verdict, (this.#past.get(before.verdict) ?? 0) + before.quiet)
		}
		this.#rules = now
	}

	/** Packets by verdict, since the rules came into force. */
	get byVerdict(): ReadonlyMap<FlowVerdict, number> {
		const counts = new Map(this.#past)
		for (const { verdict, quiet } of this.#rules.values()) counts.set(verdict, (counts.get(verdict) ?? 0) + quiet)
		return counts
	}

	get total(): number {
		return [...this.byVerdict.values()].reduce((a, b) => a + b, 0)
	}

	/** Packets that the rules in the kernel have logged, whoever heard it. */
	get logged(): number {
		return [...this.#rules.values()].reduce((n, rule) => n + rule.logged, 0)
	}
}

function countedOf(rule: NftRule, next: NftRule | undefined): Counted | undefined {
	const log = rule.expressions.find((e) => e.kind === 'log')
	if (log?.kind !== 'log') return undefined
	const prefix = parseLogPrefix(log.prefix ?? '')
	const logged = packetsOf(rule)
	const met = packetsOf(next)
	if (prefix === undefined || logged === undefined || met === undefined) return undefined
	return { verdict: verdictOf(prefix.verdict), logged, met, quiet: Math.max(0, met - logged) }
}

export function verdictOf(logged: 'allow' | 'deny' | 'audit'): FlowVerdict {
	return logged === 'deny' ? 'DROPPED' : logged === 'audit' ? 'AUDIT' : 'FORWARDED'
}

function packetsOf(rule: NftRule | undefined): number | undefined {
	const counter = rule?.expressions.find((e) => e.kind === 'counter')
	return counter?.kind === 'counter' ? counter.packets : undefined
}
