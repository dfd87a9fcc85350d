// Watches: the changes of a selection as a stream of JSON lines, from a revision, with bookmarks and a time limit.
// A watcher is a place in the store's history and nothing else; one that falls behind its beginning is told 410.

import type { Clock } from '../base/clock.ts'
import { tableOptions } from './answer.ts'
import { type Call, shownBytes, shownObject } from './api.ts'
import type { Range } from './collection.ts'
import type { Log } from './history.ts'
import { metadataOnly } from './metadata-only.ts'
import { isSelective, readCount, readRevision, readSelection, type Selection, selects } from './read.ts'
import { cause, invalid, refuse, statusOf } from './status.ts'
import type { Change, ChangeType, Entry, Store } from './store.ts'
import { tableOf } from './table/table.ts'

/** Lines are handed over in chunks of about so many bytes. */
const chunkBytes = 64 * 1024
const bookmarkEvery = 60_000

/** All running watches of a server. */
export class Watches {
	readonly #running = new Set<Watcher>()
	readonly lines = new Lines()
	get count(): number {
		return this.#running.size
	}
	add(watcher: Watcher): void {
		this.#running.add(watcher)
	}
	delete(watcher: Watcher): void {
		this.#running.delete(watcher)
	}
	/** Ends those of a storage: what it holds is served no longer. */
	endOf(storage: string): void {
		for (const watcher of [...this.#running]) if (watcher.storage === storage) watcher.end()
	}
	/** Ends all; clients connect anew. */
	close(): void {
		for (const watcher of [...this.#running]) watcher.end()
	}
}

type Writer = (type: ChangeType, entry: Entry) => Uint8Array

/** Lines made once for all watchers: so many, of so many bytes together. */
const mostLines = 512
const mostLineBytes = 4 * 1024 * 1024

/** The lines of the newest changes. */
class Lines {
	readonly #made = new Map<Entry, readonly [ChangeType, Uint8Array]>()
	#bytes = 0
	of(type: ChangeType, entry: Entry): Uint8Array {
		const made = this.#made.get(entry)
		if (made !== undefined && made[0] === type) return made[1]
		const line = makeLine(type, entry.bytes)
		this.#forget(entry)
		this.#made.set(entry, [type, line])
		this.#bytes += line.length
		while (this.#made.size > 1 && (this.#made.size > mostLines || this.#bytes > mostLineBytes)) {
			this.#forget(this.#made.keys().next().value!)
		}
		return line
	}
	#forget(entry: Entry): void {
		const made = this.#made.get(entry)
		if (made === undefined) return
		this.#made.delete(entry)
		this.#bytes -= made[1].length
	}
}

const heads: Readonly<Record<ChangeType, Buffer>> = {
	ADDED: Buffer.from('{"type":"ADDED","object":'),
	MODIFIED: Buffer.from('{"type":"MODIFIED","object":'),
	DELETED: Buffer.from('{"type":"DELETED","object":'),
}

function makeLine(type: ChangeType, object: Uint8Array): Uint8Array {
	const head = heads[type]
	const line = new Uint8Array(head.length + object.length + 2)
	line.set(head)
	line.set(object, head.length)
	line[line.length - 2] = 125
	line[line.length - 1] = 10
	return line
}

const encoder = new TextEncoder()
const lineOf = (type: string, object: unknown) => encoder.encode(`${JSON.stringify({ type, object })}\n`)

export async function watchObjects(call: Call): Promise<Response> {
	const { api, query, served } = call
	const { store } = api
	const selection = readSelection(call)
	const revision = readRevision(query.get('resourceVersion'))
	const seconds = readCount(query.get('timeoutSeconds'), 'timeoutSeconds') ?? 0
	const bookmarks = isTrue(query.get('allowWatchBookmarks'))
	const asked = query.get('sendInitialEvents')
	const match = query.get('resourceVersionMatch') ?? ''
	const options = { group: 'meta.k8s.io', kind: 'ListOptions' }
	if (asked !== null && match !== 'NotOlderThan') {
		const why = 'sendInitialEvents requires setting resourceVersionMatch to NotOlderThan'
		throw invalid(options, '', [cause.forbidden('resourceVersionMatch', why)])
	}
	if (asked === null && match !== '') {
		const why = 'resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided'
		throw invalid(options, '', [cause.forbidden('resourceVersionMatch', why)])
	}
	const form = formOf(call, selection)
	const initial = asked === null ? (revision ?? 0) === 0 : isTrue(asked)
	if (revision !== undefined && revision > store.revision) {
		// A version of another life of this server: the client must list again (504 would make it wait for it).
		throw expired(revision, store)
	}
	const since = initial ? store.revision : (revision ?? store.revision)
	if (since < store.compacted) throw expired(since, store)
	const log = store.log(served.storage)
	// As the real server: half an hour to an hour where the client does not say.
	const ms = (seconds > 0 ? seconds : 1800 + Math.random() * 1800) * 1000
	const watcher = new Watcher({
		storage: served.storage,
		log,
		place: log.after(since),
		form,
		...(initial ? { initial: store.range(served.storage, selection.prefix) } : {}),
		...(initial && asked !== null && bookmarks
			? { afterInitial: bookmarkLine(call, since, { 'k8s.io/initial-events-end': 'true' }) }
			: {}),
		tooOld: () => errorLine(expired(since, store)),
		clock: api.clock,
		lifetime: ms,
		ended: (w) => {
			api.watches.delete(w)
			stop()
		},
		...(bookmarks ? { bookmark: () => bookmarkLine(call, store.revision) } : {}),
	})
	const stop = store.subscribe(served.storage, () => watcher.stir())
	api.watches.add(watcher)
	const { signal } = call.request
	if (signal.aborted) watcher.end()
	else signal.addEventListener('abort', () => watcher.end(), { once: true })
	return new Response(watcher.stream, {
		headers: { 'content-type': 'application/json', 'cache-control': 'no-cache, private' },
	})
}

function expired(revision: number, store: Store) {
	return refuse('Expired', `too old resource version: ${revision} (${store.compacted + 1})`)
}

function errorLine(error: unknown): Uint8Array {
	return lineOf('ERROR', statusOf(error))
}

function isTrue(value: string | null): boolean {
	return value === 'true' || value === '1'
}

function bookmarkLine(call: Call, revision: number, annotations?: Readonly<Record<string, string>>): Uint8Array {
	const { resource, apiVersion } = call.served
	const metadata = {
		resourceVersion: String(revision),
		creationTimestamp: null,
		...(annotations === undefined ? {} : { annotations }),
	}
	const object =
		call.accept.as === 'PartialObjectMetadata'
			? { kind: 'PartialObjectMetadata', apiVersion: 'meta.k8s.io/v1', metadata }
			: call.accept.as === 'Table'
				? { kind: 'Table', apiVersion: 'meta.k8s.io/v1', metadata, columnDefinitions: null, rows: [] }
				: { kind: resource.kind, apiVersion, metadata }
	return lineOf('BOOKMARK', object)
}

/** How changes are written, and the objects that are there at first; undefined where it is nothing for this selection. */
interface Form {
	first(entry: Entry): Uint8Array | undefined
	change(change: Change): Uint8Array | undefined
}

function formOf(call: Call, selection: Selection): Form {
	const { served, api } = call
	const write = writerOf(call)
	const selective = isSelective(selection)
	const change = ({ type, entry, before }: Change): Uint8Array | undefined => {
		if (!entry.key.startsWith(selection.prefix)) return undefined
		if (!selective) return write(type, entry)
		const was = before !== undefined && selects(selection, served, before)
		const is = type !== 'DELETED' && selects(selection, served, entry)
		if (is) return write(was ? 'MODIFIED' : 'ADDED', entry)
		if (!was) return undefined
		if (type === 'DELETED') return write('DELETED', entry)
		// It left the selection: the client sees its last state inside, at the version of the change.
		const object = shownObject(served, before)
		const metadata = { ...object.metadata, resourceVersion: String(entry.revision) }
		const left = { ...object, metadata }
		if (call.accept.as === 'Table') {
			return lineOf(
				'DELETED',
				tableOf(
					served,
					[left],
					{ resourceVersion: metadata.resourceVersion },
					{ ...tableOptions(call), bare: true, now: api.clock.now() },
				),
			)
		}
		return lineOf('DELETED', call.accept.as === 'PartialObjectMetadata' ? metadataOnly(left) : left)
	}
	return {
		first: (entry) => (selects(selection, served, entry) ? write('ADDED', entry) : undefined),
		change,
	}
}

function writerOf(call: Call): Writer {
	const { served, api, accept } = call
	if (accept.media !== 'json') throw refuse('NotAcceptable', 'a watch is answered as application/json only')
	switch (accept.as) {
		case 'object':
			if (served.fromKept === undefined) return (type, entry) => api.watches.lines.of(type, entry)
			return (type, entry) => makeLine(type, shownBytes(served, entry))
		case 'PartialObjectMetadata':
			return (type, entry) => lineOf(type, metadataOnly(shownObject(served, entry)))
		case 'Table': {
			const options = tableOptions(call)
			// Only the first table carries the columns.
			let bare = false
			return (type, entry) => {
				const object = shownObject(served, entry)
				const { resourceVersion } = object.metadata
				const table = tableOf(served, [object], { resourceVersion }, { ...options, bare, now: api.clock.now() })
				bare = true
				return lineOf(type, table)
			}
		}
		default:
			return accept.as satisfies never
	}
}

interface WatcherOptions {
	readonly storage: string
	readonly log: Log
	/** Where in the log it begins. */
	readonly place: number
	readonly form: Form
	/** What there is at first, and a line that says that it was all. */
	readonly initial?: Range
	readonly afterInitial?: Uint8Array
	/** Said to a watcher that has fallen behind what is remembered. */
	readonly tooOld: () => Uint8Array
	readonly clock: Clock
	/** Milliseconds. */
	readonly lifetime: number
	readonly bookmark?: () => Uint8Array
	readonly ended: (watcher: Watcher) => void
}

/** Lines made in one turn, at most: to look into an object may mean to read it. */
const linesAtOnce = 128

/** One running watch. Lines are made when the client takes them. */
class Watcher {
	readonly stream: ReadableStream<Uint8Array>
	readonly storage: string
	readonly #options: WatcherOptions
	#initial: Range | undefined
	#nextInitial = 0
	/** Of the next change to send. */
	#place: number
	/** Where it ends, once it is to end. */
	#until = Number.POSITIVE_INFINITY
	#markDue = false
	#wake: (() => void) | undefined
	#ending = false
	#stopClocks: (() => void)[] = []

	constructor(options: WatcherOptions) {
		this.#options = options
		this.storage = options.storage
		this.#place = options.place
		this.#initial = options.initial
		this.#nextInitial = options.initial?.start ?? 0
		this.stream = new ReadableStream<Uint8Array>(
			{
				pull: (controller) => this.#pull(controller),
				cancel: () => this.#finish(),
			},
			{ highWaterMark: 0 },
		)
		this.#stopClocks.push(options.clock.after(options.lifetime, () => this.end()))
		if (options.bookmark !== undefined) this.#keepMarking()
	}

	/** There is something new. */
	stir(): void {
		const wake = this.#wake
		this.#wake = undefined
		wake?.()
	}

	/** Sends what there is now, then ends the stream. */
	end(): void {
		if (this.#ending) return
		this.#ending = true
		this.#until = this.#options.log.end
		this.#release()
		this.stir()
	}

	async #pull(controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> {
		for (;;) {
			const chunk = this.#next()
			if (chunk === 'later') {
				await new Promise((resolve) => setImmediate(resolve))
				continue
			}
			if (chunk !== undefined) {
				controller.enqueue(chunk)
				return
			}
			if (this.#ending) {
				this.#finish()
				controller.close()
				return
			}
			await new Promise<void>((resolve) => {
				this.#wake = resolve
			})
		}
	}

	/** The next lines, together about `chunkBytes`; undefined: there is nothing to send; later: nothing found so far. */
	#next(): Uint8Array | 'later' | undefined {
		const { form, log, afterInitial, tooOld, bookmark } = this.#options
		const lines: Uint8Array[] = []
		let bytes = 0
		let made = 0
		const isFull = () => bytes >= chunkBytes || made >= linesAtOnce
		const add = (line: Uint8Array | undefined) => {
			made++
			if (line === undefined) return
			lines.push(line)
			bytes += line.length
		}
		if (this.#initial !== undefined) {
			const { entries, end } = this.#initial
			while (this.#nextInitial < end && !isFull()) add(form.first(entries[this.#nextInitial++]!))
			if (this.#nextInitial >= end) {
				this.#initial = undefined
				add(afterInitial)
			}
		}
		if (this.#initial === undefined) {
			if (this.#place < log.from && this.#place < this.#until) {
				add(tooOld())
				this.end()
				this.#place = this.#until = log.end
			}
			const until = Math.min(log.end, this.#until)
			while (this.#place < until && !isFull()) add(form.change(log.at(this.#place++)))
			// Behind others it would claim what is not sent yet; being last, it is true.
			if (this.#markDue && this.#place >= until && bookmark !== undefined) {
				this.#markDue = false
				add(bookmark())
			}
		}
		if (lines.length === 0) return made >= linesAtOnce ? 'later' : undefined
		return lines.length === 1 ? lines[0] : Buffer.concat(lines, bytes)
	}

	#keepMarking(): void {
		const again = () => {
			this.#markDue = true
			this.stir()
			this.#stopClocks[1] = this.#options.clock.after(bookmarkEvery, again)
		}
		this.#stopClocks[1] = this.#options.clock.after(bookmarkEvery, again)
	}

	#release(): void {
		for (const stop of this.#stopClocks) stop()
		this.#stopClocks = []
		this.#options.ended(this)
	}

	#finish(): void {
		if (!this.#ending) {
			this.#ending = true
			this.#release()
		}
		this.#initial = undefined
		this.#place = this.#until = this.#options.log.end
	}
}
