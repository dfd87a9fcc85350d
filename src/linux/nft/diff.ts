// What turns one program into another: cost proportional to the difference (shared subtrees are skipped), changes in an
// order the kernel accepts at every step.

import { diffTables, emptyTable } from '../../base/table.ts'
import type { ElementEntry, NftChange } from './change.ts'
import {
	emptyProgram,
	type NftChain,
	type NftElement,
	type NftProgram,
	type NftSet,
	type NftTable,
	orderChains,
	orderSets,
	orderTables,
	ruleWithoutState,
} from './program.ts'

export interface DiffOptions {
	/** Tables that are ours to delete. Tables of `have` that are not wanted and not ours stay. */
	readonly owns: (table: Pick<NftTable, 'family' | 'name'>) => boolean
}

/**
 * Changes from `have` to `want`, empty when they mean the same (handles, counters and the contents of dynamic sets do
 * not count). `have` undefined: nothing is known of the kernel; each wanted table replaces whatever has its name.
 */
export function diffPrograms(have: NftProgram | undefined, want: NftProgram, options: DiffOptions): NftChange[] {
	const changes: NftChange[] = []
	const created: NftTable[] = []
	diffTables((have ?? emptyProgram).tables, want.tables, (_, before, after) => {
		if (after === undefined) {
			if (before !== undefined && options.owns(before)) changes.push({ ...placeOf(before), op: 'delete-table' })
		} else if (before === undefined) created.push(after)
		else changeTable(before, after, changes)
	})
	for (const table of orderTables(created)) {
		if (have === undefined) changes.push({ ...placeOf(table), op: 'delete-table', ifPresent: true })
		create(table, changes)
	}
	return changes
}

function placeOf(table: NftTable): { family: NftTable['family']; table: string } {
	return { family: table.family, table: table.name }
}

function create(table: NftTable, changes: NftChange[]): void {
	const place = placeOf(table)
	changes.push({ ...place, op: 'add-table', ...(table.comment === undefined ? {} : { comment: table.comment }) })
	changeParts({ ...table, chains: emptyTable(), sets: emptyTable() }, table, changes)
}

function changeTable(before: NftTable, after: NftTable, changes: NftChange[]): void {
	if (before.comment !== after.comment || redeclares(before, after)) {
		// The kernel cannot change a declaration in place. The new table appears in the same instant as the old one goes.
		changes.push({ ...placeOf(before), op: 'delete-table' })
		create(after, changes)
		return
	}
	changeParts(before, after, changes)
}

/** Whether a chain or set of both is declared otherwise. */
function redeclares(before: NftTable, after: NftTable): boolean {
	let differs = false
	diffTables(before.chains, after.chains, (_, a, b) => {
		if (a !== undefined && b !== undefined && !sameJson(chainDeclaration(a), chainDeclaration(b))) differs = true
	})
	diffTables(before.sets, after.sets, (_, a, b) => {
		if (a !== undefined && b !== undefined && !sameSetDeclaration(a, b)) differs = true
	})
	return differs
}

function chainDeclaration(chain: NftChain): unknown {
	return [chain.comment, chain.base?.type, chain.base?.hook, chain.base?.priority, chain.base?.policy]
}

function sameSetDeclaration(a: NftSet, b: NftSet): boolean {
	const same =
		a.key === b.key &&
		a.data === b.data &&
		a.flags === b.flags &&
		a.size === b.size &&
		a.timeout === b.timeout &&
		a.comment === b.comment
	return same || sameJson(setDeclaration(a), setDeclaration(b))
}

function setDeclaration(set: NftSet): unknown {
	const fields = (list: readonly { type: string; bytes: number; expression?: string }[]) =>
		list.map((f) => [f.type, f.bytes, f.expression])
	const data = set.data === undefined || set.data === 'verdict' ? set.data : fields(set.data)
	return [fields(set.key), data, [...set.flags].sort(), set.size, set.timeout, set.comment]
}

function sameJson(a: unknown, b: unknown): boolean {
	return JSON.stringify(a) === JSON.stringify(b)
}

/** New chains and sets first, then what refers to them; what goes, goes last. */
function changeParts(before: NftTable, after: NftTable, changes: NftChange[]): void {
	const place = placeOf(after)
	const flushed: NftChange[] = []
	const goneChains: NftChange[] = []
	const newChains: NftChain[] = []
	const ruled: NftChain[] = []
	diffTables(before.chains, after.chains, (name, a, b) => {
		if (b === undefined) {
			flushed.push({ ...place, op: 'flush-chain', chain: name })
			goneChains.push({ ...place, op: 'delete-chain', chain: name })
			return
		}
		if (a === undefined) newChains.push(b)
		else if (sameRules(a, b)) return
		else if (a.rules.length > 0) flushed.push({ ...place, op: 'flush-chain', chain: name })
		ruled.push(b)
	})
	for (const { rules: _, handle: __, ...chain } of orderChains(newChains))
		changes.push({ ...place, op: 'add-chain', chain })
	const removed: NftChange[] = []
	const added: NftChange[] = []
	const goneSets: NftChange[] = []
	const newSets: NftSet[] = []
	diffTables(before.sets, after.sets, (name, a, b) => {
		if (b === undefined) {
			// Its elements by name, too: who follows the changes sees what left.
			if (a !== undefined && a.elements.size > 0 && !a.flags.includes('dynamic')) {
				const { elements, handle: _, ...set } = a
				removed.push({ ...place, op: 'delete-elements', set, elements: [...elements] })
			}
			goneSets.push({ ...place, op: 'delete-set', set: name })
			return
		}
		const { elements: _, handle: __, ...set } = b
		if (a === undefined) newSets.push(b)
		// What a dynamic set holds is the kernel's.
		if (b.flags.includes('dynamic')) return
		const gone: ElementEntry[] = []
		const come: ElementEntry[] = []
		diffTables(a?.elements ?? emptyTable<string, NftElement>(), b.elements, (key, x, y) => {
			if (x !== undefined && y !== undefined && sameElement(x, y)) return
			if (x !== undefined) gone.push([key, x])
			if (y !== undefined) come.push([key, y])
		})
		if (gone.length > 0) removed.push({ ...place, op: 'delete-elements', set, elements: gone })
		if (come.length > 0) added.push({ ...place, op: 'add-elements', set, elements: come })
	})
	for (const { elements: _, handle: __, ...set } of orderSets(newSets)) changes.push({ ...place, op: 'add-set', set })
	const rules: NftChange[] = orderChains(ruled).flatMap((chain) =>
		chain.rules.map((rule) => ({ ...place, op: 'add-rule', chain: chain.name, rule }) as const),
	)
	// A chain of the old program may be named by an old verdict element: elements go before chains.
	changes.push(...flushed, ...removed, ...added, ...rules, ...goneSets, ...goneChains)
}

function sameElement(a: NftElement, b: NftElement): boolean {
	return a.data === b.data && a.comment === b.comment && a.timeout === b.timeout
}

function sameRules(a: NftChain, b: NftChain): boolean {
	if (a.rules === b.rules) return true
	if (a.rules.length !== b.rules.length) return false
	return a.rules.every((rule, i) => rule === b.rules[i] || sameRule(rule, b.rules[i] as NftChain['rules'][number]))
}

function sameRule(a: NftChain['rules'][number], b: NftChain['rules'][number]): boolean {
	const canonical = (rule: NftChain['rules'][number]) => {
		const { expressions, comment } = ruleWithoutState(rule)
		return JSON.stringify([comment, expressions.map((e) => Object.entries(e).sort(([x], [y]) => (x < y ? -1 : 1)))])
	}
	return canonical(a) === canonical(b)
}
