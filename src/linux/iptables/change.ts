// What turns one ruleset into another, and the text that makes iptables-restore do it. Only chains that differ are
// written, each as a whole (a line `:NAME` empties it), and in the chains that iptables has itself only our own jumps
// are touched: everything else there belongs to others.

import type { IpFamily } from '../../base/ip.ts'
import { diffTables, emptyTable } from '../../base/table.ts'
import { type Chain, chainAfter, type Rule, type Ruleset, type TableName } from './program.ts'
import { renderDeclaration, renderRule, ruleText } from './render.ts'

export type IptablesChange =
	/** The chain has exactly these rules afterwards. */
	| { readonly op: 'write'; readonly family: IpFamily; readonly chain: Chain }
	/** Not there afterwards. */
	| { readonly op: 'delete'; readonly family: IpFamily; readonly table: TableName; readonly name: string }
	/** A rule at the top of one of iptables' own chains. */
	| {
			readonly op: 'insert' | 'remove'
			readonly family: IpFamily
			readonly table: TableName
			readonly name: string
			readonly rule: Rule
	  }

/** `owns` says which chains are ours, by name. */
export function diffRulesets(
	have: Ruleset | undefined,
	want: Ruleset,
	family: IpFamily,
	owns: (chain: string) => boolean,
): IptablesChange[] {
	const changes: IptablesChange[] = []
	diffTables(have ?? emptyTable<string, Chain>(), want, (_, before, after) => {
		const { table, name } = (after ?? before) as Chain
		if ((after ?? before)?.policy !== undefined) {
			changes.push(...diffJumps(before, after, family, owns))
			return
		}
		if (!owns(name)) return
		if (after === undefined) changes.push({ op: 'delete', family, table, name })
		else if (before === undefined || !sameRules(before.rules, after.rules, family))
			changes.push({ op: 'write', family, chain: after })
	})
	return changes
}

function diffJumps(
	before: Chain | undefined,
	after: Chain | undefined,
	family: IpFamily,
	owns: (chain: string) => boolean,
): IptablesChange[] {
	const { table, name } = (after ?? before) as Chain
	const ours = (chain: Chain | undefined) =>
		(chain?.rules ?? []).filter((rule) => {
			const to = chainAfter(rule)
			return to !== undefined && owns(to)
		})
	const [old, wanted] = [ours(before), ours(after)]
	if (sameRules(old, wanted, family)) return []
	return [
		...old.map((rule): IptablesChange => ({ op: 'remove', family, table, name, rule })),
		// Each goes to the top: the last one is first.
		...wanted.toReversed().map((rule): IptablesChange => ({ op: 'insert', family, table, name, rule })),
	]
}

export function sameRules(a: readonly Rule[], b: readonly Rule[], family: IpFamily): boolean {
	return a === b || (a.length === b.length && a.every((rule, i) => sameRule(rule, b[i] as Rule, family)))
}

/** Counters do not count, nor does the order of matches, which versions of iptables-save print differently. */
export function sameRule(a: Rule, b: Rule, family: IpFamily): boolean {
	if (a === b || ruleText(a, family) === ruleText(b, family)) return true
	if (a.matches.length !== b.matches.length) return false
	return ruleText(sorted(a), family) === ruleText(sorted(b), family)
}

function sorted(rule: Rule): Rule {
	return { ...rule, matches: rule.matches.toSorted((a, b) => (a.match < b.match ? -1 : a.match > b.match ? 1 : 0)) }
}

export interface RestoreText {
	readonly text: string
	/** The line each table ends on, 1-based: what iptables-restore says went wrong there. */
	readonly commits: readonly { readonly table: TableName; readonly line: number }[]
}

const restoreOrder: readonly TableName[] = ['raw', 'mangle', 'filter', 'nat', 'security']

/** For `iptables-restore --noflush`: each table is one transaction. The changes are of one family. */
export function restoreText(changes: readonly IptablesChange[]): RestoreText {
	const lines: string[] = []
	const commits: { table: TableName; line: number }[] = []
	for (const table of restoreOrder) {
		const mine = changes.filter((c) => tableOfChange(c) === table)
		if (mine.length === 0) continue
		lines.push(`*${table}`)
		for (const change of mine) {
			if (change.op === 'write') lines.push(renderDeclaration(change.chain))
			else if (change.op === 'delete') lines.push(renderDeclaration({ name: change.name }))
		}
		for (const change of mine) {
			if (change.op === 'remove') lines.push(`-D ${change.name} ${ruleText(change.rule, change.family)}`)
			else if (change.op === 'insert') lines.push(`-I ${change.name} ${ruleText(change.rule, change.family)}`)
			else if (change.op === 'write') {
				const { name, rules } = change.chain
				for (const rule of rules) lines.push(renderRule(name, rule, { family: change.family }))
			}
		}
		// A chain can go once nothing leads there.
		for (const change of mine) if (change.op === 'delete') lines.push(`-X ${change.name}`)
		lines.push('COMMIT')
		commits.push({ table, line: lines.length })
	}
	return { text: lines.map((line) => `${line}\n`).join(''), commits }
}

export function tableOfChange(change: IptablesChange): TableName {
	return change.op === 'write' ? change.chain.table : change.table
}
