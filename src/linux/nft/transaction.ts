// Changes to the kernel: one nfnetlink batch, sent at once, in force as a whole or not at all. An error is told with the
// item it belongs to. Only a batch larger than the socket may send (8 MiB without privileges, some 44,000 Services) is
// cut into several; each is valid by itself because changes come in dependency order.

import { Failure, isFailure, messageOf } from '../../base/failure.ts'
import { attributesOf, readString } from '../netlink/decode.ts'
import { NetlinkEncoder, NLM_F_ACK, NLM_F_DUMP } from '../netlink/encode.ts'
import { type NetlinkError, NetlinkSocket } from '../netlink/socket.ts'
import { errnoName, errnoText, getsockoptInt, SO_SNDBUF, SOL_SOCKET } from '../syscalls.ts'
import { encodeChange, type NftChange } from './change.ts'
import { references } from './expr/expression.ts'
import { printRule } from './print.ts'
import { tableKey } from './program.ts'
import {
	CHAIN,
	families,
	MSG,
	NFNL_MSG_BATCH_BEGIN,
	NFNL_MSG_BATCH_END,
	NFNL_SUBSYS_NFTABLES,
	nftType,
	SET,
	TABLE,
} from './wire.ts'

const NETLINK_NETFILTER = 12
/** Asked for; without privileges the system's wmem_max decides. */
const wantedBuffer = 128 << 20

export interface NftReceipt {
	/** Batches it took: 1 unless the socket could not send it at once. */
	readonly transactions: number
	readonly bytes: number
}

/** A socket for nf_tables in the calling thread's namespace. */
export function openNftSocket(): NetlinkSocket {
	return new NetlinkSocket(NETLINK_NETFILTER, { sendBuffer: wantedBuffer, receiveBuffer: 16 << 20 })
}

/**
 * Applies the changes. Throws Failure with code = errno name: nothing of the failed batch is in force;
 * details.applied counts changes of earlier batches that are (0 where there was one batch), details.change is the
 * index of the change that was refused.
 */
export function applyChanges(socket: NetlinkSocket, changes: readonly NftChange[]): NftReceipt {
	if (changes.length === 0) return { transactions: 0, bytes: 0 }
	// The kernel refuses a datagram that does not fit its accounting of the send buffer.
	const limit = getsockoptInt(socket.fd, SOL_SOCKET, SO_SNDBUF) - 4096
	let transactions = 0
	let bytes = 0
	for (let from = 0; from < changes.length; ) {
		const batch = new Batch()
		let to = from
		while (to < changes.length && (batch.length < limit * 0.9 || to === from)) batch.add(changes[to] as NftChange, to++)
		if (batch.length > limit && to - from === 1) {
			// One set's elements alone are too much: halves of it are changes, too.
			const halves = split(changes[from] as NftChange)
			if (halves !== undefined)
				return applyChanges(socket, [...changes.slice(0, from), ...halves, ...changes.slice(from + 1)])
		} else if (batch.length > limit) {
			const last = changes[to - 1] as NftChange
			const halves = split(last)
			if (halves !== undefined) return applyParts(socket, changes, to - 1, halves, from, { transactions, bytes })
		}
		send(socket, batch, changes, from)
		transactions++
		bytes += batch.length
		from = to
	}
	return { transactions, bytes }
}

/** The change at `at` was too large for the batch that began at `from`: goes on with its halves in its place. */
function applyParts(
	socket: NetlinkSocket,
	changes: readonly NftChange[],
	at: number,
	halves: readonly NftChange[],
	from: number,
	before: NftReceipt,
): NftReceipt {
	const rest = applyChanges(socket, [...changes.slice(from, at), ...halves, ...changes.slice(at + 1)])
	return { transactions: before.transactions + rest.transactions, bytes: before.bytes + rest.bytes }
}

function split(change: NftChange): readonly NftChange[] | undefined {
	if ((change.op !== 'add-elements' && change.op !== 'delete-elements') || change.elements.length < 2) return undefined
	const middle = change.elements.length >> 1
	return [
		{ ...change, elements: change.elements.slice(0, middle) },
		{ ...change, elements: change.elements.slice(middle) },
	]
}

interface MessageMark {
	readonly change: number
	readonly first?: number
	readonly starts?: readonly number[]
}

class Batch {
	readonly #out = new NetlinkEncoder(1 << 16)
	readonly #marks = new Map<number, MessageMark>()

	constructor() {
		this.#out.begin(NFNL_MSG_BATCH_BEGIN, 0).nfgen(0, NFNL_SUBSYS_NFTABLES).end()
	}

	get length(): number {
		return this.#out.length + 20
	}

	add(change: NftChange, index: number): void {
		encodeChange(change, this.#out, (sequence, items) => {
			this.#marks.set(sequence, { change: index, ...items })
		})
	}

	/** Ends the batch; the kernel acknowledges the end once everything is committed. */
	finish(): NetlinkEncoder {
		return this.#out.begin(NFNL_MSG_BATCH_END, NLM_F_ACK).nfgen(0, NFNL_SUBSYS_NFTABLES).end()
	}

	markOf(sequence: number): MessageMark | undefined {
		return this.#marks.get(sequence)
	}
}

function send(socket: NetlinkSocket, batch: Batch, changes: readonly NftChange[], applied: number): void {
	try {
		socket.request(batch.finish())
	} catch (e) {
		if (!isFailure(e)) throw e
		const errors = (e.details.errors ?? []) as readonly NetlinkError[]
		// The first refused message is the cause; the others may only follow from it.
		const first = [...errors].sort((a, b) => a.sequence - b.sequence)[0]
		const mark = first === undefined ? undefined : batch.markOf(first.sequence)
		if (first === undefined || mark === undefined) {
			// EPROTO: an older kernel that does not acknowledge the end of a batch would land here; success has no error.
			if (e.code === 'EPROTO') return
			throw new Failure(
				e.code,
				`Cannot apply ${changes.length} nftables changes: ${messageOf(e)}`,
				{ applied },
				{ cause: e },
			)
		}
		const change = changes[mark.change] as NftChange
		throw new Failure(
			errnoName(first.errno),
			refusal(socket, change, mark, first, changes),
			{
				errno: first.errno,
				applied,
				change: mark.change,
			},
			{ cause: e },
		)
	}
}

/** `Cannot apply rule "…" in chain "services" of table "ip podwire": set "x" does not exist`. */
function refusal(
	socket: NetlinkSocket,
	change: NftChange,
	mark: MessageMark,
	error: NetlinkError,
	changes: readonly NftChange[],
): string {
	return `Cannot apply ${describeChange(change, itemAt(mark, error.offset))}: ${reasonOf(socket, change, error, changes)}`
}

function itemAt(mark: MessageMark, offset: number | undefined): number | undefined {
	if (mark.starts === undefined || mark.first === undefined) return undefined
	if (mark.starts.length === 1) return mark.first
	if (offset === undefined) return undefined
	let at = -1
	for (const start of mark.starts) {
		if (start > offset) break
		at++
	}
	return at < 0 ? undefined : mark.first + at
}

/** A change in words, for error texts. `item`: which of its elements. */
export function describeChange(change: NftChange, item?: number): string {
	const table = `table "${tableKey(change.family, change.table)}"`
	switch (change.op) {
		case 'add-table':
			return table
		case 'delete-table':
			return `deletion of ${table}`
		case 'add-chain':
			return `chain "${change.chain.name}" of ${table}`
		case 'delete-chain':
			return `deletion of chain "${change.chain}" of ${table}`
		case 'flush-chain':
			return `flush of chain "${change.chain}" of ${table}`
		case 'add-rule':
			return `rule "${printRule(change.family, change.rule, () => undefined)}" in chain "${change.chain}" of ${table}`
		case 'add-set':
			return `${change.set.data === undefined ? 'set' : 'map'} "${change.set.name}" of ${table}`
		case 'delete-set':
			return `deletion of set "${change.set}" of ${table}`
		case 'add-elements':
		case 'delete-elements': {
			const kind = change.set.data === undefined ? 'set' : 'map'
			const what = change.op === 'add-elements' ? '' : 'deletion of '
			const entry = item === undefined ? undefined : change.elements[item]
			if (entry === undefined)
				return `${what}${change.elements.length} elements of ${kind} "${change.set.name}" of ${table}`
			const data = entry[1].data === undefined ? '' : ` : ${entry[1].data}`
			return `${what}element "${entry[0]}${change.op === 'add-elements' ? data : ''}" of ${kind} "${change.set.name}" of ${table}`
		}
		default: {
			const never: never = change
			return never
		}
	}
}

function reasonOf(
	socket: NetlinkSocket,
	change: NftChange,
	error: NetlinkError,
	changes: readonly NftChange[],
): string {
	const code = errnoName(error.errno)
	const plain = `${errnoText(error.errno)} (${code})${error.text === undefined ? '' : `: ${error.text}`}`
	if (code === 'ENOENT') {
		const missing = missingOf(socket, change, changes)
		if (missing.length > 0) return missing.join(', ')
		return change.op === 'delete-elements' ? 'the element does not exist' : plain
	}
	if (code === 'EEXIST')
		return change.op === 'add-elements'
			? 'the key is there with another value'
			: `it is there in another form (${code})`
	if (code === 'EBUSY') return 'it is still in use'
	if (code === 'EPERM') return `${plain}; nftables needs CAP_NET_ADMIN in the namespace's user namespace`
	return plain
}

/** What the change refers to that is neither in the kernel nor made by an earlier change of the same batch. */
function missingOf(socket: NetlinkSocket, change: NftChange, changes: readonly NftChange[]): string[] {
	const there = readNames(socket, change.family)
	for (const c of changes.slice(0, changes.indexOf(change))) {
		if (c.family !== change.family) continue
		if (c.op === 'add-table') there.add(nameOf('table', c.table))
		else if (c.op === 'delete-table')
			for (const name of [...there]) if (name.split(' ')[1] === c.table) there.delete(name)
		if (c.op === 'add-chain') there.add(nameOf('chain', c.table, c.chain.name))
		if (c.op === 'delete-chain') there.delete(nameOf('chain', c.table, c.chain))
		if (c.op === 'add-set') there.add(nameOf('set', c.table, c.set.name))
		if (c.op === 'delete-set') there.delete(nameOf('set', c.table, c.set))
	}
	if (!there.has(nameOf('table', change.table)))
		return [`table "${tableKey(change.family, change.table)}" does not exist`]
	const chains: string[] = []
	const sets: string[] = []
	switch (change.op) {
		case 'add-rule': {
			const named = references(change.rule.expressions)
			chains.push(change.chain, ...named.chains)
			sets.push(...named.sets)
			break
		}
		case 'flush-chain':
		case 'delete-chain':
			chains.push(change.chain)
			break
		case 'delete-set':
			sets.push(change.set)
			break
		case 'add-elements':
		case 'delete-elements':
			sets.push(change.set.name)
			if (change.op === 'add-elements' && change.set.data === 'verdict') {
				for (const [, { data }] of change.elements) chains.push(...(data?.split(' ').slice(1) ?? []))
			}
			break
		default:
			break
	}
	return [
		...new Set([
			...chains
				.filter((name) => !there.has(nameOf('chain', change.table, name)))
				.map((name) => `chain "${name}" does not exist`),
			...sets
				.filter((name) => !there.has(nameOf('set', change.table, name)))
				.map((name) => `set "${name}" does not exist`),
		]),
	]
}

function nameOf(kind: 'table' | 'chain' | 'set', table: string, name = ''): string {
	return `${kind} ${table} ${name}`
}

/** Tables, chains and sets of a family. */
function readNames(socket: NetlinkSocket, family: NftChange['family']): Set<string> {
	const names = new Set<string>()
	for (const [kind, message, table, name] of [
		['table', MSG.GETTABLE, TABLE.NAME, undefined],
		['chain', MSG.GETCHAIN, CHAIN.TABLE, CHAIN.NAME],
		['set', MSG.GETSET, SET.TABLE, SET.NAME],
	] as const) {
		for (const { body } of socket.dump((e) => e.begin(nftType(message), NLM_F_DUMP).nfgen(families[family]).end())) {
			const a = attributesOf(body, 4)
			const text = (type: number) => readString(a.get(type) ?? Buffer.alloc(0))
			names.add(nameOf(kind, text(table), name === undefined ? '' : text(name)))
		}
	}
	return names
}
