// A whole nftables ruleset as a value: tables, chains with their rules, sets and maps with their elements.
// What is compiled, applied, read back, printed, evaluated and sent over a socket is this one shape.

import { emptyTable, type Table, tableOf } from '../../base/table.ts'
import type { Field } from './datatype.ts'
import type { Expression } from './expr/expression.ts'
import { type Family, families, hookNames } from './wire.ts'

export interface NftProgram {
	/** By tableKey: `ip podwire`. */
	readonly tables: Table<string, NftTable>
}

export interface NftTable {
	readonly family: Family
	readonly name: string
	readonly comment?: string
	/** The kernel's handle; absent in a program that was compiled and not read. */
	readonly handle?: number
	readonly chains: Table<string, NftChain>
	readonly sets: Table<string, NftSet>
}

export interface NftChain {
	readonly name: string
	readonly comment?: string
	readonly handle?: number
	/** Where packets enter; undefined for a chain that is only jumped to. */
	readonly base?: BaseChain
	readonly rules: readonly NftRule[]
}

export interface BaseChain {
	readonly type: 'filter' | 'nat' | 'route'
	readonly hook: 'prerouting' | 'input' | 'forward' | 'output' | 'postrouting' | 'ingress'
	readonly priority: number
	readonly policy: 'accept' | 'drop'
}

export interface NftRule {
	readonly expressions: readonly Expression[]
	readonly comment?: string
	readonly handle?: number
}

export interface NftSet {
	readonly name: string
	readonly comment?: string
	readonly handle?: number
	readonly key: readonly Field[]
	/** Present: a map. */
	readonly data?: readonly Field[] | 'verdict'
	readonly flags: readonly SetFlag[]
	/** Most elements; needed for a dynamic set. */
	readonly size?: number
	/** Milliseconds after which elements leave by themselves. */
	readonly timeout?: number
	/**
	 * By the key's text as nft prints it: `10.96.0.10 . udp . 53`, in an interval set also `10.0.0.0/8` and `1-5`.
	 * Empty in the compiled form of a dynamic set: its elements are the kernel's.
	 */
	readonly elements: Table<string, NftElement>
}

/** anonymous: a literal `{ … }` inside one rule. */
export type SetFlag = 'constant' | 'interval' | 'timeout' | 'dynamic' | 'anonymous'

export interface NftElement {
	/** Of a map, as nft prints it: `10.244.1.5 . 53`, `goto pick-12`. */
	readonly data?: string
	readonly comment?: string
	/** Milliseconds. */
	readonly timeout?: number
	/** Milliseconds left when it was read. */
	readonly expires?: number
}

export const emptyProgram: NftProgram = { tables: emptyTable() }

/** An element without data, comment or timeout: the usual member of a set. */
export const bareElement: NftElement = Object.freeze({})

export function tableKey(family: Family, name: string): string {
	return `${family} ${name}`
}

export function findTable(program: NftProgram, family: string, name: string): NftTable | undefined {
	return program.tables.get(`${family} ${name}`)
}

/** Tables in the order they are made and nft lists them. */
export function orderTables(tables: Iterable<NftTable>): NftTable[] {
	return [...tables].sort(
		(a, b) =>
			(a.handle ?? 0) - (b.handle ?? 0) || families[a.family] - families[b.family] || compareText(a.name, b.name),
	)
}

/** Chains in the order they are made and nft lists them: base chains along a packet's path, then the others by name. */
export function orderChains(chains: Iterable<NftChain>): NftChain[] {
	const rank = ({ base }: NftChain) => (base === undefined ? 99 : hookNames.indexOf(base.hook))
	return [...chains].sort(
		(a, b) =>
			(a.handle ?? 0) - (b.handle ?? 0) ||
			rank(a) - rank(b) ||
			(a.base?.priority ?? 0) - (b.base?.priority ?? 0) ||
			compareText(a.name, b.name),
	)
}

/** Sets likewise, by name. */
export function orderSets(sets: Iterable<NftSet>): NftSet[] {
	return [...sets].sort((a, b) => (a.handle ?? 0) - (b.handle ?? 0) || compareText(a.name, b.name))
}

function compareText(a: string, b: string): number {
	return a < b ? -1 : a === b ? 0 : 1
}

/** Whether two programs mean the same: handles, counter values and the elements of dynamic sets aside. */
export function sameProgram(a: NftProgram, b: NftProgram): boolean {
	return JSON.stringify(toJson(withoutState(a))) === JSON.stringify(toJson(withoutState(b)))
}

/** The program as it was compiled: without handles, counter values, expiry, and what the kernel put into dynamic sets. */
export function withoutState(program: NftProgram): NftProgram {
	return {
		tables: mapValues(program.tables, ({ handle: _, ...table }) => ({
			...table,
			chains: mapValues(table.chains, ({ handle: _, ...chain }) => ({
				...chain,
				rules: chain.rules.map(ruleWithoutState),
			})),
			sets: mapValues(table.sets, ({ handle: _, ...set }) => ({
				...set,
				elements: set.flags.includes('dynamic') ? emptyTable<string, NftElement>() : set.elements,
			})),
		})),
	}
}

export function ruleWithoutState(rule: NftRule): NftRule {
	return {
		expressions: rule.expressions.map((e) => (e.kind === 'counter' ? { kind: 'counter', packets: 0, bytes: 0 } : e)),
		...(rule.comment === undefined ? {} : { comment: rule.comment }),
	}
}

function mapValues<V, W>(table: Table<string, V>, f: (value: V) => W): Table<string, W> {
	return tableOf([...table].map(([key, value]) => [key, f(value)] as const))
}

/** The JSON form: tables, chains and sets as lists by name, elements as `[key, data?, comment?]`. */
export interface NftProgramJson {
	readonly tables: readonly NftTableJson[]
}
interface NftTableJson extends Omit<NftTable, 'chains' | 'sets'> {
	readonly chains: readonly NftChain[]
	readonly sets: readonly (Omit<NftSet, 'elements'> & { readonly elements: readonly ElementJson[] })[]
}
type ElementJson = readonly [key: string, element?: NftElement]

/** Keys sorted, so that equal programs give equal text. */
export function toJson(program: NftProgram): NftProgramJson {
	return {
		tables: byKey(program.tables).map(([, table]) => ({
			...sorted(table, ['chains', 'sets']),
			chains: byKey(table.chains).map(([, chain]) => ({
				...sorted(chain, ['rules']),
				rules: chain.rules.map((rule) => ({
					...sorted(rule, ['expressions']),
					expressions: rule.expressions.map((e) => sorted(e, [])),
				})),
			})),
			sets: byKey(table.sets).map(([, set]) => ({
				...sorted(set, ['elements']),
				flags: [...set.flags].sort(),
				elements: byKey(set.elements).map(
					([key, element]): ElementJson => (Object.keys(element).length === 0 ? [key] : [key, sorted(element, [])]),
				),
			})),
		})) as unknown as NftTableJson[],
	}
}

export function fromJson(json: NftProgramJson): NftProgram {
	return {
		tables: tableOf(
			json.tables.map((table) => [
				tableKey(table.family, table.name),
				{
					...table,
					chains: tableOf(table.chains.map((chain) => [chain.name, chain])),
					sets: tableOf(
						table.sets.map((set) => [
							set.name,
							{ ...set, elements: tableOf(set.elements.map(([key, element]) => [key, element ?? bareElement])) },
						]),
					),
				},
			]),
		),
	}
}

function byKey<V>(table: Table<string, V>): (readonly [string, V])[] {
	return [...table].sort(([a], [b]) => (a < b ? -1 : a === b ? 0 : 1))
}

/** Own properties by name, without `except`. */
function sorted<T extends object>(value: T, except: readonly string[]): T {
	const entries = Object.entries(value).filter(([key, v]) => v !== undefined && !except.includes(key))
	return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1))) as T
}
