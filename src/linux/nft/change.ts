// What turns one program into another, in the order the kernel can take it, and each change as netlink messages.

import type { NetlinkEncoder } from '../netlink/encode.ts'
import { NLM_F_APPEND, NLM_F_CREATE } from '../netlink/encode.ts'
import { commentData, setUserdata } from './comment.ts'
import { keyLength, typeNumber } from './datatype.ts'
import { type ElementSet, ElementWriter } from './elements.ts'
import { encodeExpression } from './expr/expression.ts'
import type { NftChain, NftElement, NftRule, NftSet } from './program.ts'
import {
	CHAIN,
	DATA_VERDICT,
	DESC,
	ELEMENTS,
	type Family,
	families,
	HOOK,
	hookNames,
	MSG,
	nftType,
	RULE,
	SET,
	SET_FLAG,
	TABLE,
} from './wire.ts'

/** The table a change is made in. */
interface Place {
	readonly family: Family
	readonly table: string
}

export type NftChange =
	| (Place & { readonly op: 'add-table'; readonly comment?: string })
	/** ifPresent: whatever is there under that name goes, nothing there is no error. */
	| (Place & { readonly op: 'delete-table'; readonly ifPresent?: true })
	| (Place & { readonly op: 'add-chain'; readonly chain: Omit<NftChain, 'rules'> })
	| (Place & { readonly op: 'delete-chain'; readonly chain: string })
	/** Deletes every rule of the chain. */
	| (Place & { readonly op: 'flush-chain'; readonly chain: string })
	/** Appends. */
	| (Place & { readonly op: 'add-rule'; readonly chain: string; readonly rule: NftRule })
	| (Place & { readonly op: 'add-set'; readonly set: Omit<NftSet, 'elements'> })
	| (Place & { readonly op: 'delete-set'; readonly set: string })
	| (Place & { readonly op: 'add-elements'; readonly set: ElementSet; readonly elements: readonly ElementEntry[] })
	| (Place & { readonly op: 'delete-elements'; readonly set: ElementSet; readonly elements: readonly ElementEntry[] })

export type ElementEntry = readonly [key: string, element: NftElement]

/** Called for every message: what it is of, and for lists where each item begins (offsets from the message's start). */
export type Mark = (sequence: number, items?: { readonly first: number; readonly starts: readonly number[] }) => void

/** Appends the messages of one change. */
export function encodeChange(change: NftChange, out: NetlinkEncoder, mark: Mark): void {
	const family = families[change.family]
	const begin = (message: number, flags = 0): NetlinkEncoder => out.begin(nftType(message), flags).nfgen(family)
	switch (change.op) {
		case 'add-table':
			begin(MSG.NEWTABLE, NLM_F_CREATE).string(TABLE.NAME, change.table).u32be(TABLE.FLAGS, 0)
			if (change.comment !== undefined) out.attr(TABLE.USERDATA, commentData(change.comment, 'table'))
			out.end()
			break
		case 'delete-table':
			if (change.ifPresent === true) {
				// Deleting what is absent fails; DESTROY exists only since Linux 6.3. Adding first is no error.
				begin(MSG.NEWTABLE, NLM_F_CREATE).string(TABLE.NAME, change.table).u32be(TABLE.FLAGS, 0).end()
				mark(out.sequence)
			}
			begin(MSG.DELTABLE).string(TABLE.NAME, change.table).end()
			break
		case 'add-chain':
			encodeChain(change.table, change.chain, begin(MSG.NEWCHAIN, NLM_F_CREATE))
			break
		case 'delete-chain':
			begin(MSG.DELCHAIN).string(CHAIN.TABLE, change.table).string(CHAIN.NAME, change.chain).end()
			break
		case 'flush-chain':
			begin(MSG.DELRULE).string(RULE.TABLE, change.table).string(RULE.CHAIN, change.chain).end()
			break
		case 'add-rule': {
			begin(MSG.NEWRULE, NLM_F_CREATE | NLM_F_APPEND)
				.string(RULE.TABLE, change.table)
				.string(RULE.CHAIN, change.chain)
			const list = out.nest(RULE.EXPRESSIONS)
			for (const e of change.rule.expressions) encodeExpression(e, out)
			out.close(list)
			if (change.rule.comment !== undefined) out.attr(RULE.USERDATA, commentData(change.rule.comment, 'rule'))
			out.end()
			break
		}
		case 'add-set':
			encodeSet(change.table, change.set, begin(MSG.NEWSET, NLM_F_CREATE), out.sequence)
			break
		case 'delete-set':
			begin(MSG.DELSET).string(SET.TABLE, change.table).string(SET.NAME, change.set).end()
			break
		case 'add-elements':
			encodeElements(change, MSG.NEWSETELEM, NLM_F_CREATE, false, out, mark)
			return
		case 'delete-elements':
			encodeElements(change, MSG.DELSETELEM, 0, true, out, mark)
			return
		default: {
			const never: never = change
			throw new Error(`unknown change ${JSON.stringify(never)}`)
		}
	}
	mark(out.sequence)
}

function encodeChain(table: string, chain: Omit<NftChain, 'rules'>, out: NetlinkEncoder): void {
	out.string(CHAIN.TABLE, table).string(CHAIN.NAME, chain.name)
	const { base } = chain
	if (base !== undefined) {
		const hook = out.nest(CHAIN.HOOK)
		out.u32be(HOOK.NUM, hookNames.indexOf(base.hook)).u32be(HOOK.PRIORITY, base.priority).close(hook)
		out.u32be(CHAIN.POLICY, base.policy === 'accept' ? 1 : 0).string(CHAIN.TYPE, base.type)
	}
	if (chain.comment !== undefined) out.attr(CHAIN.USERDATA, commentData(chain.comment, 'chain'))
	out.end()
}

const flagBits = {
	constant: SET_FLAG.CONSTANT,
	interval: SET_FLAG.INTERVAL,
	timeout: SET_FLAG.TIMEOUT,
	dynamic: SET_FLAG.EVAL,
	anonymous: SET_FLAG.ANONYMOUS,
} as const

function encodeSet(table: string, set: Omit<NftSet, 'elements'>, out: NetlinkEncoder, id: number): void {
	const ranges = set.flags.includes('interval') && set.key.length > 1
	let flags = set.data === undefined ? 0 : SET_FLAG.MAP
	for (const flag of set.flags) flags |= flagBits[flag]
	if (ranges) flags |= SET_FLAG.CONCAT
	out.string(SET.TABLE, table).string(SET.NAME, set.name).u32be(SET.FLAGS, flags)
	out.u32be(SET.KEY_TYPE, typeNumber(set.key)).u32be(SET.KEY_LEN, keyLength(set.key))
	if (set.data === 'verdict') out.u32be(SET.DATA_TYPE, DATA_VERDICT)
	else if (set.data !== undefined) {
		out.u32be(SET.DATA_TYPE, typeNumber(set.data)).u32be(SET.DATA_LEN, keyLength(set.data))
	}
	// Unique in the batch; the kernel wants one even where everything else names the set.
	out.u32be(SET.ID, id)
	if (set.size !== undefined || ranges) {
		const desc = out.nest(SET.DESC)
		if (set.size !== undefined) out.u32be(DESC.SIZE, set.size)
		if (ranges) {
			const fields = out.nest(DESC.CONCAT)
			for (const f of set.key) {
				const one = out.nest(1)
				out.u32be(DESC.FIELD_LEN, f.bytes).close(one)
			}
			out.close(fields)
		}
		out.close(desc)
	}
	if (set.timeout !== undefined) out.u64be(SET.TIMEOUT, BigInt(set.timeout))
	out.attr(SET.USERDATA, setUserdata(set.key, set.data, set.comment)).end()
}

function encodeElements(
	change: Extract<NftChange, { op: 'add-elements' | 'delete-elements' }>,
	message: number,
	flags: number,
	keyOnly: boolean,
	out: NetlinkEncoder,
	mark: Mark,
): void {
	const writer = new ElementWriter(change.set, change.elements.length)
	let first = 0
	const flush = (next: number) => {
		if (next === first) return
		const from = out.begin(nftType(message), flags).nfgen(families[change.family]).length - 20
		out.string(ELEMENTS.TABLE, change.table).string(ELEMENTS.SET, change.set.name)
		const list = out.length - from + 4
		const starts = writer.starts.map((at) => list + at)
		out.attr(ELEMENTS.ELEMENTS | 0x8000, writer.take()).end()
		mark(out.sequence, { first, starts })
		first = next
	}
	for (const [i, [key, element]] of change.elements.entries()) {
		writer.add(key, element, keyOnly)
		if (writer.full) flush(i + 1)
	}
	flush(change.elements.length)
}
