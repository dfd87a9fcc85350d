// Watches: the changes of a selection as a stream of JSON lines, from a revision, with bookmarks and a time limit.
// A watcher that does not keep up is ended (it resumes from its last version), never buffered without bound.

import type { Clock } from '../base/clock.ts'
import { tableOptions } from './answer.ts'
import { type Call, shownBytes, shownObject } from './api.ts'
import { metadataOnly } from './metadata-only.ts'
import { isSelective, readCount, readRevision, readSelection, type Selection, selects } from './read.ts'
import { cause, invalid, refuse } from './status.ts'
import type { Change, ChangeType, Entry, Store } from './store.ts'
import { tableOf } from './table/table.ts'

/** A watcher this many changes behind is ended. */
const longestQueue = 20_000
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

type Form = (type: ChangeType, entry: Entry) => Uint8Array

/** The lines of the newest changes, made once for all watchers. */
class Lines {
	readonly #made = new Map<Entry, readonly [ChangeType, Uint8Array]>()
	of(type: ChangeType, entry: Entry): Uint8Array {
		const made = this.#made.get(entry)
		if (made !== undefined && made[0] === type) return made[1]
		const line = makeLine(type, entry.bytes)
		this.#made.set(entry, [type, line])
		if (this.#made.size > 512) this.#made.delete(this.#made.keys().next().value!)
		return line
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

/** What a watcher still has to send. */
type Pending = { readonly initial: Entry } | { readonly change: Change } | { readonly line: Uint8Array }

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
	const pending: Pending[] = []
	if (revision !== undefined && revision > store.revision) {
		// A version of another life of this server: the client must list again (504 would make it wait for it).
		throw expired(revision, store)
	}
	if (initial) {
		for (const entry of store.list(served.storage, selection.prefix)) {
			if (selects(selection, served, entry)) pending.push({ initial: entry })
		}
		if (asked !== null && bookmarks) {
			const annotations = { 'k8s.io/initial-events-end': 'true' }
			pending.push({ line: bookmarkLine(call, store.revision, annotations) })
		}
	} else {
		const since = store.changesSince(served.storage, revision ?? store.revision)
		if (since === undefined) throw expired(revision ?? 0, store)
		for (const change of since) pending.push({ change })
	}
	// As the real server: half an hour to an hour where the client does not say.
	const ms = (seconds > 0 ? seconds : 1800 + Math.random() * 1800) * 1000
	const watcher = new Watcher({
		storage: served.storage,
		pending,
		form,
		clock: api.clock,
		lifetime: ms,
		ended: (w) => {
			api.watches.delete(w)
			stop()
		},
		concerns: (change) => change.entry.key.startsWith(selection.prefix),
		...(bookmarks ? { bookmark: () => bookmarkLine(call, store.revision) } : {}),
	})
	const stop = store.subscribe(served.storage, (changes) => watcher.push(changes))
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

/** How one pending thing is written; an empty result is nothing for this selection. */
function formOf(call: Call, selection: Selection): (pending: Pending) => Uint8Array | undefined {
	const { served, api } = call
	const write = writerOf(call)
	const selective = isSelective(selection)
	return (pending) => {
		if ('line' in pending) return pending.line
		if ('initial' in pending) return write('ADDED', pending.initial)
		const { type, entry, before } = pending.change
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
}

function writerOf(call: Call): Form {
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
	readonly pending: Pending[]
	readonly form: (pending: Pending) => Uint8Array | undefined
	readonly concerns: (change: Change) => boolean
	readonly clock: Clock
	/** Milliseconds. */
	readonly lifetime: number
	readonly bookmark?: () => Uint8Array
	readonly ended: (watcher: Watcher) => void
}

/** One running watch. Lines are made when the client takes them. */
class Watcher {
	readonly stream: ReadableStream<Uint8Array>
	readonly storage: string
	readonly #options: WatcherOptions
	/** The initial state of a large collection does not count as being behind. */
	readonly #longest: number
	#pending: Pending[]
	/** The first of `#pending` that is not sent. */
	#at = 0
	#wake: (() => void) | undefined
	#ending = false
	#stopClocks: (() => void)[] = []

	constructor(options: WatcherOptions) {
		this.#options = options
		this.storage = options.storage
		this.#pending = options.pending
		this.#longest = longestQueue + options.pending.length
		this.stream = new ReadableStream<Uint8Array>(
			{
				pull: (controller) => this.#pull(controller),
				cancel: () => this.#finish(),
			},
			{ highWaterMark: 0 },
		)
		this.#stopClocks.push(options.clock.after(options.lifetime, () => this.end()))
		if (options.bookmark !== undefined) this.#keepMarking(options.bookmark)
	}

	push(changes: readonly Change[]): void {
		if (this.#ending) return
		for (const change of changes) if (this.#options.concerns(change)) this.#pending.push({ change })
		if (this.#pending.length - this.#at > this.#longest) {
			this.#pending = []
			this.#at = 0
			this.end()
			return
		}
		this.#stir()
	}

	/** Sends what is pending, then ends the stream. */
	end(): void {
		if (this.#ending) return
		this.#ending = true
		this.#release()
		this.#stir()
	}

	#stir(): void {
		const wake = this.#wake
		this.#wake = undefined
		wake?.()
	}

	async #pull(controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> {
		for (;;) {
			const chunk = this.#next()
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

	/** The next lines, together about `chunkBytes`; undefined: nothing is pending. */
	#next(): Uint8Array | undefined {
		const lines: Uint8Array[] = []
		let bytes = 0
		while (this.#at < this.#pending.length && bytes < chunkBytes) {
			const line = this.#options.form(this.#pending[this.#at++]!)
			if (line === undefined) continue
			lines.push(line)
			bytes += line.length
		}
		if (this.#at >= this.#pending.length) {
			this.#pending = []
			this.#at = 0
		} else if (this.#at > 1024) {
			this.#pending = this.#pending.slice(this.#at)
			this.#at = 0
		}
		if (lines.length <= 1) return lines[0]
		return Buffer.concat(lines, bytes)
	}

	#keepMarking(bookmark: () => Uint8Array): void {
		const again = () => {
			// Behind others it would claim what is not sent yet; being last, it is true.
			this.#pending.push({ line: bookmark() })
			this.#stir()
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
		this.#pending = []
	}
}
