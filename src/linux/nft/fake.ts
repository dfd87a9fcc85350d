// A kernel in memory: the same transactions, atomic, refusing what nf_tables refuses (dangling references, a key with
// another value, chains and sets in use, loops), and reading back what it holds. One suite runs on it and on the real one.

import { Failure } from '../../base/failure.ts'
import { emptyTable, type Table } from '../../base/table.ts'
import type { NftChange } from './change.ts'
import { keyLength, printFields, writeFields } from './datatype.ts'
import { bounds, ElementWriter } from './elements.ts'
import { references } from './expr/expression.ts'
import type { NftKernel } from './kernel.ts'
import {
	emptyProgram,
	type NftChain,
	type NftElement,
	type NftProgram,
	type NftSet,
	type NftTable,
	tableKey,
} from './program.ts'
import { describeChange } from './transaction.ts'

export function createFakeKernel(): NftKernel {
	let program: NftProgram = emptyProgram
	let handles = 0
	return {
		apply(changes) {
			let next = program
			let handle = handles
			changes.forEach((change, index) => {
				try {
					next = applyChange(next, change, () => ++handle)
				} catch (e) {
					if (!(e instanceof Refusal)) throw e
					throw new Failure(e.code, `Cannot apply ${describeChange(change, e.item)}: ${e.message}`, {
						applied: 0,
						change: index,
					})
				}
			})
			program = next
			handles = handle
			return { transactions: changes.length === 0 ? 0 : 1, bytes: 0 }
		},
		read: () => program,
		close() {},
	}
}

class Refusal extends Error {
	readonly code: string
	readonly item: number | undefined
	constructor(code: string, message: string, item?: number) {
		super(message)
		this.code = code
		this.item = item
	}
}

function missing(kind: string, name: string, item?: number): Refusal {
	return new Refusal('ENOENT', `${kind} "${name}" does not exist`, item)
}

type Handle = () => number

function applyChange(program: NftProgram, change: NftChange, handle: Handle): NftProgram {
	const key = tableKey(change.family, change.table)
	const table = program.tables.get(key)
	if (change.op === 'add-table') {
		if (table !== undefined) return program
		const { family, table: name, comment } = change
		return put(program, {
			family,
			name,
			...(comment === undefined ? {} : { comment }),
			handle: handle(),
			chains: emptyTable(),
			sets: emptyTable(),
		})
	}
	if (table === undefined) {
		if (change.op === 'delete-table' && change.ifPresent === true) return program
		throw missing('table', key)
	}
	if (change.op === 'delete-table') return { tables: program.tables.delete(key) }
	return put(program, changeTable(table, change, handle))
}

function put(program: NftProgram, table: NftTable): NftProgram {
	return { tables: program.tables.set(tableKey(table.family, table.name), table) }
}

function changeTable(
	table: NftTable,
	change: Exclude<NftChange, { op: 'add-table' | 'delete-table' }>,
	handle: Handle,
): NftTable {
	switch (change.op) {
		case 'add-chain':
			return addChain(table, change.chain, handle)
		case 'delete-chain': {
			const chain = chainOf(table, change.chain)
			const without = { ...table, chains: table.chains.delete(chain.name) }
			if (chainUsers(without, chain.name)) throw new Refusal('EBUSY', 'it is still in use')
			return without
		}
		case 'flush-chain':
			return withChain(table, { ...chainOf(table, change.chain), rules: [] })
		case 'add-rule': {
			const chain = chainOf(table, change.chain)
			const { sets, chains } = references(change.rule.expressions)
			for (const name of chains) {
				const target = table.chains.get(name)
				if (target === undefined) throw missing('chain', name)
				if (target.base !== undefined) throw new Refusal('EOPNOTSUPP', 'a base chain cannot be jumped to (EOPNOTSUPP)')
			}
			for (const name of sets) if (!table.sets.has(name)) throw missing('set', name)
			const next = withChain(table, { ...chain, rules: [...chain.rules, { ...change.rule, handle: handle() }] })
			if (loops(next, chain.name)) throw new Refusal('EMLINK', 'Too many links (EMLINK)')
			return next
		}
		case 'add-set': {
			const old = table.sets.get(change.set.name)
			if (old !== undefined) {
				if (declaration(old) !== declaration(change.set))
					throw new Refusal('EEXIST', 'it is there in another form (EEXIST)')
				return table
			}
			return withSet(table, { ...change.set, handle: handle(), elements: emptyTable() })
		}
		case 'delete-set': {
			const set = setOf(table, change.set)
			if (setUsers(table, set.name)) throw new Refusal('EBUSY', 'it is still in use')
			return { ...table, sets: table.sets.delete(set.name) }
		}
		case 'add-elements':
			return withSet(table, addElements(table, setOf(table, change.set.name), change.elements))
		case 'delete-elements': {
			const set = setOf(table, change.set.name)
			checkText(set, change.elements, true)
			const elements = set.elements.mutate((draft) => {
				change.elements.forEach(([key], i) => {
					const canonical = canonicalKey(set, key)
					if (!draft.has(canonical)) throw new Refusal('ENOENT', 'the element does not exist', i)
					draft.delete(canonical)
				})
			})
			return withSet(table, { ...set, elements })
		}
		default: {
			const never: never = change
			throw new Error(`unknown change ${JSON.stringify(never)}`)
		}
	}
}

function addChain(table: NftTable, chain: Omit<NftChain, 'rules'>, handle: Handle): NftTable {
	const old = table.chains.get(chain.name)
	if (old === undefined) return withChain(table, { ...chain, handle: handle(), rules: [] })
	const { base } = chain
	if (
		base !== undefined &&
		(old.base?.hook !== base.hook || old.base.priority !== base.priority || old.base.type !== base.type)
	) {
		throw new Refusal('EEXIST', 'it is there in another form (EEXIST)')
	}
	return table
}

function addElements(table: NftTable, set: NftSet, elements: readonly (readonly [string, NftElement])[]): NftSet {
	checkText(set, elements, false)
	return {
		...set,
		elements: set.elements.mutate((draft) => {
			elements.forEach(([text, element], i) => {
				const key = canonicalKey(set, text)
				const target = set.data === 'verdict' ? element.data?.split(' ')[1] : undefined
				if (target !== undefined && !table.chains.has(target)) throw missing('chain', target, i)
				const data =
					set.data === undefined || set.data === 'verdict' ? element.data : canonicalData(set, element.data ?? '')
				const old = draft.get(key)
				if (old !== undefined) {
					if (old.data !== data) throw new Refusal('EEXIST', 'the key is there with another value', i)
					return
				}
				draft.set(key, { ...element, ...(data === undefined ? {} : { data }) })
			})
		}),
	}
}

/** Refuses, as encoding for the real kernel does, text that is not of the set's types. */
function checkText(set: NftSet, elements: readonly (readonly [string, NftElement])[], keyOnly: boolean): void {
	const writer = new ElementWriter(set)
	for (const [key, element] of elements) {
		writer.add(key, element, keyOnly)
		if (writer.full) writer.take()
	}
}

/** The text the kernel's bytes print as. */
function canonicalKey(set: NftSet, text: string): string {
	if (set.flags.includes('interval')) {
		bounds(set.key, text)
		return text
	}
	return canonical(set.key, text)
}

function canonicalData(set: NftSet, text: string): string {
	return set.data === undefined || set.data === 'verdict' ? text : canonical(set.data, text)
}

function canonical(fields: NftSet['key'], text: string): string {
	const bytes = Buffer.alloc(keyLength(fields))
	writeFields(fields, text, bytes, 0)
	return printFields(fields, bytes)
}

function chainOf(table: NftTable, name: string): NftChain {
	const chain = table.chains.get(name)
	if (chain === undefined) throw missing('chain', name)
	return chain
}

function setOf(table: NftTable, name: string): NftSet {
	const set = table.sets.get(name)
	if (set === undefined) throw missing('set', name)
	return set
}

function withChain(table: NftTable, chain: NftChain): NftTable {
	return { ...table, chains: table.chains.set(chain.name, chain) }
}

function withSet(table: NftTable, set: NftSet): NftTable {
	return { ...table, sets: table.sets.set(set.name, set) }
}

function declaration(set: Omit<NftSet, 'elements'>): string {
	const fields = (list: NftSet['key']) => list.map((f) => `${f.type}/${f.bytes}`)
	const data = set.data === undefined || set.data === 'verdict' ? set.data : fields(set.data)
	return JSON.stringify([fields(set.key), data, [...set.flags].sort(), set.size, set.timeout])
}

function chainUsers(table: NftTable, name: string): boolean {
	for (const [, chain] of table.chains) {
		for (const rule of chain.rules) if (references(rule.expressions).chains.includes(name)) return true
	}
	return [...table.sets.values()].some((set) => set.data === 'verdict' && targets(set.elements).has(name))
}

function targets(elements: Table<string, NftElement>): Set<string> {
	const names = new Set<string>()
	for (const element of elements.values()) {
		const name = element.data?.split(' ')[1]
		if (name !== undefined) names.add(name)
	}
	return names
}

function setUsers(table: NftTable, name: string): boolean {
	for (const [, chain] of table.chains) {
		for (const rule of chain.rules) if (references(rule.expressions).sets.includes(name)) return true
	}
	return false
}

/** Whether a jump leads from the chain back to it. */
function loops(table: NftTable, from: string): boolean {
	const seen = new Set<string>()
	const stack = [from]
	for (;;) {
		const name = stack.pop()
		if (name === undefined) return false
		for (const rule of table.chains.get(name)?.rules ?? []) {
			const { sets, chains } = references(rule.expressions)
			const all = [...chains]
			for (const set of sets) {
				const found = table.sets.get(set)
				if (found?.data === 'verdict') all.push(...targets(found.elements))
			}
			for (const next of all) {
				if (next === from) return true
				if (!seen.has(next)) {
					seen.add(next)
					stack.push(next)
				}
			}
		}
	}
}
