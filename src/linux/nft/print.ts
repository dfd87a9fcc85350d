// A program as `nft list ruleset` of nftables 1.0.6 prints it, byte for byte for everything this code writes.

import { dataType, type Field } from './datatype.ts'
import { printExpression } from './expr/expression.ts'
import { duration, RulePrinter, sortElements } from './expr/printer.ts'
import {
	type BaseChain,
	type NftChain,
	type NftElement,
	type NftProgram,
	type NftRule,
	type NftSet,
	type NftTable,
	orderChains,
	orderSets,
	orderTables,
} from './program.ts'
import type { Family } from './wire.ts'

export interface PrintOptions {
	/** As `nft -a`: the kernel's handles, to find or delete a rule by. */
	readonly handles?: boolean
	/** Leaves the elements of sets out, as `nft -t`. */
	readonly terse?: boolean
}

/** The whole ruleset; ends with a newline unless empty. */
export function printProgram(program: NftProgram, options: PrintOptions = {}): string {
	const tables = orderTables([...program.tables].map(([, table]) => table))
	return tables.map((table) => printTable(table, options)).join('')
}

export function printTable(table: NftTable, options: PrintOptions = {}): string {
	const mark = (item: { readonly handle?: number }) =>
		options.handles === true && item.handle !== undefined ? ` # handle ${item.handle}` : ''
	let out = `table ${table.family} ${table.name} {${mark(table)}\n`
	if (table.comment !== undefined) out += `\tcomment "${table.comment}"\n`
	// A blank line goes between the items of a table.
	let separator = ''
	for (const set of orderSets(table.sets.values())) {
		if (set.flags.includes('anonymous')) continue
		out += `${separator}${printSet(set, mark(set), options)}`
		separator = '\n'
	}
	for (const chain of orderChains(table.chains.values())) {
		out += `${separator}${printChain(table, chain, mark)}`
		separator = '\n'
	}
	return `${out}}\n`
}

function printSet(set: NftSet, mark: string, options: PrintOptions): string {
	let out = `\t${set.data === undefined ? 'set' : 'map'} ${set.name} {${mark}\n\t\t${declaration(set)}\n`
	if (set.size !== undefined && !set.flags.includes('constant')) out += `\t\tsize ${set.size}\n`
	const flags = (['constant', 'interval', 'dynamic', 'timeout'] as const).filter((flag) => set.flags.includes(flag))
	if (flags.length > 0) out += `\t\tflags ${flags.join(',')}\n`
	if (set.timeout !== undefined) out += `\t\ttimeout ${duration(set.timeout)}\n`
	if (set.comment !== undefined) out += `\t\tcomment "${set.comment}"\n`
	if (set.elements.size > 0 && options.terse !== true) out += `\t\telements = { ${printElements(set)} }\n`
	return `${out}\t}\n`
}

function declaration(set: NftSet): string {
	const named = (fields: readonly Field[]) => fields.every((f) => f.expression !== undefined)
	const texts = (fields: readonly Field[], of: boolean) => fields.map((f) => (of ? f.expression : f.type)).join(' . ')
	const data = set.data === undefined || set.data === 'verdict' ? undefined : set.data
	// With verdicts nft falls back to the types.
	const of = named(set.key) && set.data !== 'verdict' && (data === undefined || named(data))
	const right = set.data === 'verdict' ? ' : verdict' : data === undefined ? '' : ` : ${texts(data, of)}`
	return `${of ? 'typeof' : 'type'} ${texts(set.key, of)}${right}`
}

function printElements(set: NftSet): string {
	const only = set.key.length === 1 ? dataType((set.key[0] as Field).type) : undefined
	const perLine = only === undefined ? 1 : only.perLine
	let out = ''
	let count = 0
	for (const [key, element] of sortElements(set)) {
		if (out !== '') {
			if (count >= perLine) {
				out += ',\n\t\t\t     '
				count = 0
			} else out += ', '
		}
		out += printElement(key, element)
		count++
	}
	return out
}

/** One element as nft prints it in a listing. */
export function printElement(key: string, element: NftElement): string {
	const timeout = element.timeout === undefined ? '' : ` timeout ${duration(element.timeout)}`
	const expires = element.expires === undefined ? '' : ` expires ${duration(element.expires)}`
	const comment = element.comment === undefined ? '' : ` comment "${element.comment}"`
	const data = element.data === undefined ? '' : ` : ${element.data}`
	return `${key}${timeout}${expires}${comment}${data}`
}

function printChain(table: NftTable, chain: NftChain, mark: (item: { readonly handle?: number }) => string): string {
	let out = `\tchain ${chain.name} {${mark(chain)}\n`
	if (chain.comment !== undefined) out += `\t\tcomment "${chain.comment}"\n`
	if (chain.base !== undefined) out += `\t\t${printBase(table.family, chain.base)}\n`
	for (const rule of chain.rules) {
		const comment = rule.comment === undefined ? '' : ` comment "${rule.comment}"`
		out += `\t\t${printRule(table.family, rule, (name) => table.sets.get(name))}${comment}${mark(rule)}\n`
	}
	return `${out}\t}\n`
}

/** The rule without its comment. `findSet` gives the sets of its table: without it elements of literal sets are missing. */
export function printRule(
	family: Family,
	rule: Pick<NftRule, 'expressions'>,
	findSet: (name: string) => NftSet | undefined,
): string {
	const printer = new RulePrinter(family, findSet)
	for (const e of rule.expressions) printExpression(e, printer)
	return printer.text()
}

/** Standard priorities by the hooks they are used at; nft prints a name and a distance of at most 10. */
const priorities: readonly (readonly [name: string, value: number, hooks?: readonly string[]])[] = [
	['raw', -300],
	['mangle', -150],
	['dstnat', -100, ['prerouting']],
	['filter', 0],
	['security', 50],
	['srcnat', 100, ['postrouting']],
]

function printBase(family: Family, base: BaseChain): string {
	return `type ${base.type} hook ${base.hook} priority ${priorityText(family, base)}; policy ${base.policy};`
}

function priorityText(family: Family, base: BaseChain): string {
	if (family === 'ip' || family === 'ip6' || family === 'inet') {
		for (const [name, value, hooks] of priorities) {
			if (hooks !== undefined && !hooks.includes(base.hook)) continue
			const distance = base.priority - value
			if (distance === 0) return name
			if (Math.abs(distance) <= 10) return `${name} ${distance < 0 ? '-' : '+'} ${Math.abs(distance)}`
		}
	}
	return String(base.priority)
}
