// What is really installed: tables, chains, rules, sets and elements of one network namespace, as one consistent
// program (the kernel counts generations; a change under our hands starts the reading over).

import { Failure } from '../../base/failure.ts'
import { emptyTable, type Table, tableOf } from '../../base/table.ts'
import { attributesOf, type NetlinkMessage, readString } from '../netlink/decode.ts'
import { NLM_F_DUMP } from '../netlink/encode.ts'
import type { NetlinkSocket } from '../netlink/socket.ts'
import { readComment, readTypeof } from './comment.ts'
import { type Field, fieldsOfType } from './datatype.ts'
import { decodeElements, textKeys } from './elements.ts'
import { decodeExpressions } from './expr/expression.ts'
import type { BaseChain, NftChain, NftElement, NftProgram, NftRule, NftSet, NftTable, SetFlag } from './program.ts'
import { tableKey } from './program.ts'
import {
	CHAIN,
	DATA_VERDICT,
	DESC,
	ELEMENTS,
	type Family,
	families,
	familyName,
	HOOK,
	hookNames,
	MSG,
	nftType,
	RULE,
	SET,
	SET_FLAG,
	TABLE,
} from './wire.ts'

const attempts = 20

/**
 * Reads everything, or the tables `only` accepts, with the elements of the sets `filled` accepts. Throws Failure
 * (EPERM; EBUSY when it never stands still).
 */
export function readProgram(
	socket: NetlinkSocket,
	only: (family: Family, name: string) => boolean = () => true,
	filled: (set: string) => boolean = () => true,
): NftProgram {
	for (let attempt = 0; attempt < attempts; attempt++) {
		const generation = readGeneration(socket)
		let program: NftProgram
		try {
			program = readOnce(socket, only, filled)
		} catch (e) {
			// A set that was listed a moment ago is gone: read again.
			if (readGeneration(socket) !== generation) continue
			throw e
		}
		if (readGeneration(socket) === generation) return program
	}
	throw new Failure('EBUSY', `Cannot read the nftables rules: they changed ${attempts} times while being read`)
}

/** Counts transactions of the namespace. */
export function readGeneration(socket: NetlinkSocket): number {
	const [message] = get(socket, MSG.GETGEN, 0)
	return message === undefined ? 0 : (attributesOf(message.body, 4).get(1)?.readUInt32BE(0) ?? 0)
}

function get(socket: NetlinkSocket, message: number, flags: number): NetlinkMessage[] {
	return socket.dump((e) => e.begin(nftType(message), flags).nfgen(0).end()).filter((m) => m.type >> 8 === 10)
}

function readOnce(
	socket: NetlinkSocket,
	only: (family: Family, name: string) => boolean,
	filled: (set: string) => boolean,
): NftProgram {
	const tables = new Map<
		string,
		{ table: NftTable; chains: Map<string, NftChain>; rules: Map<string, NftRule[]>; sets: NftSet[] }
	>()
	for (const { body } of get(socket, MSG.GETTABLE, NLM_F_DUMP)) {
		const table = readTable(body)
		if (table === undefined || !only(table.family, table.name)) continue
		tables.set(tableKey(table.family, table.name), { table, chains: new Map(), rules: new Map(), sets: [] })
	}
	const place = (body: Buffer, name: Buffer | undefined) => tables.get(tableKey(familyName(body[0] ?? 0), text(name)))
	for (const { body } of get(socket, MSG.GETCHAIN, NLM_F_DUMP)) {
		const a = attributesOf(body, 4)
		const chain = readChain(a)
		place(body, a.get(CHAIN.TABLE))?.chains.set(chain.name, chain)
	}
	for (const { body } of get(socket, MSG.GETRULE, NLM_F_DUMP)) {
		const a = attributesOf(body, 4)
		const rules = place(body, a.get(RULE.TABLE))?.rules
		if (rules === undefined) continue
		const chain = text(a.get(RULE.CHAIN))
		const list = rules.get(chain) ?? []
		rules.set(chain, list)
		list.push(readRule(a))
	}
	for (const { body } of get(socket, MSG.GETSET, NLM_F_DUMP)) {
		const a = attributesOf(body, 4)
		const at = place(body, a.get(SET.TABLE))
		const set = at === undefined ? undefined : readSet(a)
		if (at === undefined || set === undefined) continue
		at.sets.push({ ...set, elements: filled(set.name) ? readElements(socket, at.table, set) : set.elements })
	}
	return {
		tables: tableOf(
			[...tables].map(([key, { table, chains, rules, sets }]) => [
				key,
				{
					...table,
					chains: tableOf([...chains].map(([name, chain]) => [name, { ...chain, rules: rules.get(name) ?? [] }])),
					sets: tableOf(sets.map((set) => [set.name, set])),
				},
			]),
		),
	}
}

function text(value: Buffer | undefined): string {
	return value === undefined ? '' : readString(value)
}

function handle(value: Buffer | undefined): { handle?: number } {
	return value === undefined ? {} : { handle: Number(value.readBigUInt64BE(0)) }
}

function comment(value: Buffer | undefined, carrier: Parameters<typeof readComment>[1]): { comment?: string } {
	const found = readComment(value, carrier)
	return found === undefined ? {} : { comment: found }
}

function readTable(body: Buffer): NftTable | undefined {
	const a = attributesOf(body, 4)
	if (!Object.values(families).includes((body[0] ?? 0) as 2)) return undefined
	return {
		family: familyName(body[0] ?? 0),
		name: text(a.get(TABLE.NAME)),
		...comment(a.get(TABLE.USERDATA), 'table'),
		...handle(a.get(TABLE.HANDLE)),
		chains: emptyTable(),
		sets: emptyTable(),
	}
}

function readChain(a: Map<number, Buffer>): NftChain {
	const hook = a.get(CHAIN.HOOK)
	return {
		name: text(a.get(CHAIN.NAME)),
		...comment(a.get(CHAIN.USERDATA), 'chain'),
		...handle(a.get(CHAIN.HANDLE)),
		...(hook === undefined ? {} : { base: readBase(a, attributesOf(hook)) }),
		rules: [],
	}
}

function readBase(a: Map<number, Buffer>, hook: Map<number, Buffer>): BaseChain {
	return {
		type: text(a.get(CHAIN.TYPE)) as BaseChain['type'],
		hook: hookNames[hook.get(HOOK.NUM)?.readUInt32BE(0) ?? 0] ?? 'ingress',
		priority: hook.get(HOOK.PRIORITY)?.readInt32BE(0) ?? 0,
		policy: (a.get(CHAIN.POLICY)?.readUInt32BE(0) ?? 1) === 0 ? 'drop' : 'accept',
	}
}

function readRule(a: Map<number, Buffer>): NftRule {
	return {
		expressions: decodeExpressions(a.get(RULE.EXPRESSIONS) ?? Buffer.alloc(0)),
		...comment(a.get(RULE.USERDATA), 'rule'),
		...handle(a.get(RULE.HANDLE)),
	}
}

const flagNames: readonly (readonly [number, SetFlag])[] = [
	[SET_FLAG.ANONYMOUS, 'anonymous'],
	[SET_FLAG.CONSTANT, 'constant'],
	[SET_FLAG.INTERVAL, 'interval'],
	[SET_FLAG.EVAL, 'dynamic'],
	[SET_FLAG.TIMEOUT, 'timeout'],
]

function readSet(a: Map<number, Buffer>): NftSet | undefined {
	const number = (type: number) => a.get(type)?.readUInt32BE(0) ?? 0
	const userdata = a.get(SET.USERDATA)
	const flags = number(SET.FLAGS)
	const desc = a.get(SET.DESC)
	const size = desc === undefined ? undefined : attributesOf(desc).get(DESC.SIZE)?.readUInt32BE(0)
	const timeout = Number(a.get(SET.TIMEOUT)?.readBigUInt64BE(0) ?? 0n)
	const data =
		(flags & SET_FLAG.MAP) === 0
			? undefined
			: number(SET.DATA_TYPE) === DATA_VERDICT
				? ('verdict' as const)
				: readFields(number(SET.DATA_TYPE), number(SET.DATA_LEN), readTypeof(userdata, 'data'))
	return {
		name: text(a.get(SET.NAME)),
		...comment(userdata, 'set'),
		...handle(a.get(SET.HANDLE)),
		key: readFields(number(SET.KEY_TYPE), number(SET.KEY_LEN), readTypeof(userdata, 'key')),
		...(data === undefined ? {} : { data }),
		flags: flagNames.filter(([bit]) => (flags & bit) !== 0).map(([, name]) => name),
		...(size === undefined || size === 0 ? {} : { size }),
		...(timeout === 0 ? {} : { timeout }),
		elements: emptyTable(),
	}
}

function readFields(type: number, length: number, expressions: string[] | undefined): Field[] {
	const fields = fieldsOfType(type, length) ?? [{ type: 'integer', bytes: length }]
	if (expressions?.length !== fields.length) return fields
	return fields.map((f, i) => ({ ...f, expression: expressions[i] as string }))
}

function readElements(socket: NetlinkSocket, table: NftTable, set: NftSet): Table<string, NftElement> {
	const messages = socket.dump((e) =>
		e
			.begin(nftType(MSG.GETSETELEM), NLM_F_DUMP)
			.nfgen(families[table.family])
			.string(ELEMENTS.TABLE, table.name)
			.string(ELEMENTS.SET, set.name)
			.end(),
	)
	const decoded = messages.flatMap(({ body }) => {
		const list = attributesOf(body, 4).get(ELEMENTS.ELEMENTS)
		return list === undefined ? [] : decodeElements(set, list)
	})
	return tableOf(textKeys(set, decoded))
}
