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
 * details.applied counts batches before it that are (0 where there was one), details.change is the index of the
 * change that was refused.
 */
export function applyChanges(socket: NetlinkSocket, changes: readonly NftChange[]): NftReceipt {
	if (changes.length === 0) return { transactions: 0, bytes: 0 }
	const limit = sendLimit(socket)
	const out = idle.get(socket) ?? new NetlinkEncoder(1 << 13)
	idle.delete(socket)
	const whole = new Batch(out.reset())
	changes.forEach((change, index) => {
		whole.add({ change, index })
	})
	const { length } = whole
	if (length <= limit) {
		try {
			send(socket, whole, changes, 0)
		} finally {
			if (length <= mostIdle) idle.set(socket, out)
		}
		return { transactions: 1, bytes: length }
	}
	let transactions = 0
	let bytes = 0
	for (const batch of batches(changes, limit)) {
		send(socket, batch, changes, transactions)
		transactions++
		bytes += batch.length
	}
	return { transactions, bytes }
}

/** The memory of a socket's last small batch: a change a moment costs more than writing it where each takes its own. */
const idle = new WeakMap<NetlinkSocket, NetlinkEncoder>()
const mostIdle = 1 << 16

const sendLimits = new WeakMap<NetlinkSocket, number>()

/** The kernel refuses a datagram that does not fit its accounting of the send buffer. */
function sendLimit(socket: NetlinkSocket): number {
	let limit = sendLimits.get(socket)
	if (limit === undefined) {
		limit = getsockoptInt(socket.fd, SOL_SOCKET, SO_SNDBUF) - 4096
		sendLimits.set(socket, limit)
	}
	return limit
}

/** A change, or a part of its elements, and which change it is of. */
interface Piece {
	readonly change: NftChange
	readonly index: number
	/** First of the elements. */
	readonly from?: number
}

/** As few batches as fit the limit, changes in order. */
function* batches(changes: readonly NftChange[], limit: number): Iterable<Batch> {
	let batch = new Batch()
	for (const piece of changes.flatMap((change, index) => cut({ change, index }, limit / 4))) {
		const alone = new Batch()
		alone.add(piece)
		if (batch.length + alone.length > limit) {
			yield batch
			batch = new Batch()
		}
		batch.add(piece)
	}
	yield batch
}

function cut(piece: Piece, most: number): Piece[] {
	const { change, index } = piece
	if (change.op !== 'add-elements' && change.op !== 'delete-elements') return [piece]
	const alone = new Batch()
	alone.add(piece)
	const parts = Math.ceil(alone.length / most)
	const size = Math.ceil(change.elements.length / parts)
	return Array.from({ length: parts }, (_, i) => {
		const from = i * size
		return { change: { ...change, elements: change.elements.slice(from, from + size) }, index, from }
	})
}

interface MessageMark {
	readonly change: number
	readonly first?: number
	readonly starts?: readonly number[]
}

class Batch {
	readonly #out: NetlinkEncoder
	readonly #marks = new Map<number, MessageMark>()

	constructor(out: NetlinkEncoder = new NetlinkEncoder(1 << 13)) {
		this.#out = out
		this.#out.begin(NFNL_MSG_BATCH_BEGIN, 0).nfgen(0, NFNL_SUBSYS_NFTABLES).end()
	}

	/** Bytes, with the end that is still to be written. */
	get length(): number {
		return this.#out.length + 20
	}

	add({ change, index, from = 0 }: Piece): void {
		encodeChange(change, this.#out, (sequence, items) => {
			this.#marks.set(
				sequence,
				items === undefined ? { change: index } : { change: index, first: from + items.first, starts: items.starts },
			)
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
			// A kernel that does not acknowledge the end of a batch: no error is success.
			if (e.code === 'EPROTO') return
			const text = `Cannot apply ${changes.length} nftables changes: ${messageOf(e)}`
			throw new Failure(e.code, text, { applied }, { cause: e })
		}
		const change = changes[mark.change] as NftChange
		const details = { errno: first.errno, applied, change: mark.change }
		throw new Failure(errnoName(first.errno), refusal(socket, change, mark, first, changes), details, { cause: e })
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
