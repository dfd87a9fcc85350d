// The store: every object as frozen value and as JSON bytes, one growing revision for all kinds, a bounded history for
// watches. All writes of one turn of the event loop are kept by one synced transaction and answered after it.

import { Failure } from '../base/failure.ts'
import type { KubeObject, UnknownObject } from '../kube/objects/meta.ts'
import { Collection, emptyRange, type Range, withUndone } from './collection.ts'
import { History, type Log } from './history.ts'
import type { Journal, JournalWrite } from './journal.ts'

/**
 * Read forms are several times as large as bytes, and most objects are seldom looked into: only of so many, those read
 * last, they are kept.
 */
const mostRead = 4096

/** The entries whose read form is there, the oldest first. */
class ReadForms {
	readonly #entries = new Set<Entry>()
	add(entry: Entry): void {
		this.#entries.add(entry)
		if (this.#entries.size > mostRead) this.#entries.values().next().value!.release()
	}
	delete(entry: Entry): void {
		this.#entries.delete(entry)
	}
}

/** One object at one revision. */
export class Entry {
	/** Where it is kept: `pods`, `deployments.apps`. */
	readonly storage: string
	/** `namespace/name`, or `name`. */
	readonly key: string
	readonly revision: number
	/** The revision it was created at; names the object for life. */
	readonly id: number
	/** The object as JSON. Never change them. */
	readonly bytes: Uint8Array
	readonly #forms: ReadForms
	#object: UnknownObject | undefined

	constructor(forms: ReadForms, storage: string, key: string, revision: number, id: number, bytes: Uint8Array) {
		this.#forms = forms
		this.storage = storage
		this.key = key
		this.revision = revision
		this.id = id
		this.bytes = bytes
	}

	/** The object, deeply frozen; read from the bytes when it is not at hand. */
	get object(): UnknownObject {
		if (this.#object !== undefined) return this.#object
		const object = deepFreeze(JSON.parse(decoder.decode(this.bytes)) as UnknownObject)
		this.#object = object
		this.#forms.add(this)
		return object
	}

	/** Forgets the read form: of what is past only the bytes are kept. */
	release(): void {
		this.#object = undefined
		this.#forms.delete(this)
	}
}

const decoder = new TextDecoder()
const encoder = new TextEncoder()

export type ChangeType = 'ADDED' | 'MODIFIED' | 'DELETED'

/** One write. A deleted object's entry holds its last state at the revision of the deletion. */
export interface Change {
	readonly type: ChangeType
	readonly revision: number
	readonly entry: Entry
	readonly before: Entry | undefined
}

/** Values of a storage's objects by which no two may be equal, such as addresses. Sees staged writes too. */
export interface StoreIndex {
	/** The key of the object that has the value. */
	owner(value: string): string | undefined
	readonly size: number
}

export interface StoreOptions {
	/** Absent: memory only. */
	readonly journal?: Journal
	/** How much history is kept for watches: number of changes, and bytes of their objects. */
	readonly historyLength?: number
	readonly historyBytes?: number
}

interface Batch {
	readonly changes: Change[]
	readonly promise: Promise<void>
	readonly resolve: () => void
	readonly reject: (e: unknown) => void
}

interface Index extends StoreIndex {
	replace(before: Entry | undefined, after: Entry | undefined): void
}

export type Subscriber = (changes: readonly Change[]) => void

export function createStore(options: StoreOptions = {}): Store {
	return new Store(options)
}

export class Store {
	readonly #journal: Journal | undefined
	readonly #collections = new Map<string, Collection>()
	readonly #indexes = new Map<string, Index[]>()
	readonly #subscribers = new Map<string, Set<Subscriber>>()
	readonly #history: History
	readonly #forms = new ReadForms()
	#revision = 0
	/** What was staged in this turn, by `storage key`. */
	#staged = new Map<string, Entry | undefined>()
	#batch: Batch | undefined
	#closed = false

	constructor(options: StoreOptions) {
		this.#journal = options.journal
		this.#history = new History({
			length: options.historyLength ?? 50_000,
			bytes: options.historyBytes ?? 64 * 1024 * 1024,
		})
		const kept = options.journal?.load()
		if (kept === undefined) return
		for (const r of kept.records) {
			this.#collection(r.storage).set(r.key, new Entry(this.#forms, r.storage, r.key, r.revision, r.id, r.bytes))
		}
		// History is not kept beyond the process: a watch goes on from this very revision, or begins anew.
		this.#revision = kept.revision
		this.#history.begin(kept.revision)
	}

	/** The revision of the last write that is kept. */
	get revision(): number {
		return this.#revision
	}

	/** Changes up to here are forgotten. */
	get compacted(): number {
		return this.#history.compacted
	}

	/** The object as it is kept. */
	get(storage: string, key: string): Entry | undefined {
		return this.#collections.get(storage)?.get(key)
	}

	/**
	 * The object with the writes of this turn, which may still fail. What a write is based on, and nothing else:
	 * whoever answers with it must wait for the promise of a write, or for `settled`.
	 */
	current(storage: string, key: string): Entry | undefined {
		const at = `${storage} ${key}`
		return this.#staged.has(at) ? this.#staged.get(at) : this.get(storage, key)
	}

	/** Ends when the writes staged so far are kept, or failed. */
	async settled(): Promise<void> {
		await this.#batch?.promise.catch(() => {})
	}

	/** Objects in the order of their keys, as they are now; `prefix` is `namespace/` or ''. `from` is exclusive. */
	*list(storage: string, prefix = '', from = ''): Generator<Entry, void, undefined> {
		const { entries, start, end } = this.range(storage, prefix, from)
		for (let i = start; i < end; i++) yield entries[i]!
	}

	/** As list; a value that later writes do not change. */
	range(storage: string, prefix = '', from = ''): Range {
		return this.#collections.get(storage)?.range(prefix, from) ?? emptyRange
	}

	count(storage: string): number {
		return this.#collections.get(storage)?.size ?? 0
	}

	/** The storages that hold an object. */
	storages(): readonly string[] {
		return [...this.#collections].filter(([, c]) => c.size > 0).map(([name]) => name)
	}

	/** As range, as it was at `revision`; undefined: that is forgotten. */
	rangeAt(storage: string, revision: number, prefix = '', from = ''): Range | undefined {
		if (revision < this.compacted) return undefined
		const log = this.log(storage)
		const undone = new Map<string, Entry | undefined>()
		const after = log.after(revision)
		for (let place = log.end - 1; place >= after; place--) {
			const change = log.at(place)
			undone.set(change.entry.key, change.before)
		}
		return withUndone(this.range(storage, prefix, from), undone, prefix, from)
	}

	/**
	 * Stages an object in place of `before`, which must be what `current` says. `entry` is how it will be kept, with
	 * `metadata.resourceVersion`; it counts only when `kept` resolves. On rejection nothing was changed.
	 */
	put(
		storage: string,
		key: string,
		object: KubeObject,
		before: Entry | undefined,
	): { readonly entry: Entry; readonly kept: Promise<void> } {
		const revision = this.#next(storage, key, before)
		const entry = makeEntry(this.#forms, storage, key, revision, before?.id ?? revision, object)
		return { entry, kept: this.#stage({ type: before ? 'MODIFIED' : 'ADDED', revision, entry, before }) }
	}

	/** Stages a deletion. `last` is the object's last state where it is not `before`'s. */
	remove(before: Entry, last?: KubeObject): { readonly entry: Entry; readonly kept: Promise<void> } {
		const { storage, key } = before
		const revision = this.#next(storage, key, before)
		const entry = makeEntry(this.#forms, storage, key, revision, before.id, last ?? before.object)
		return { entry, kept: this.#stage({ type: 'DELETED', revision, entry, before }) }
	}

	/** Hears all changes of a storage once they are kept, in order. The returned function ends it. */
	subscribe(storage: string, subscriber: Subscriber): () => void {
		let subscribers = this.#subscribers.get(storage)
		if (subscribers === undefined) this.#subscribers.set(storage, (subscribers = new Set()))
		subscribers.add(subscriber)
		return () => subscribers.delete(subscriber)
	}

	/** What happened to the objects of a storage. Read it at places from `log.after(revision)`, `revision >= compacted`. */
	log(storage: string): Log {
		return this.#history.log(storage)
	}

	/** An index over a storage, kept with every write from now on. */
	index(storage: string, valuesOf: (object: UnknownObject) => readonly string[]): StoreIndex {
		const owners = new Map<string, string>()
		const index: Index = {
			owner: (value) => owners.get(value),
			get size() {
				return owners.size
			},
			replace(before, after) {
				if (before) for (const v of valuesOf(before.object)) if (owners.get(v) === before.key) owners.delete(v)
				if (after) for (const v of valuesOf(after.object)) owners.set(v, after.key)
			},
		}
		for (const entry of this.list(storage)) index.replace(undefined, entry)
		for (const c of this.#batch?.changes ?? []) if (c.entry.storage === storage) this.#reindex(c, [index])
		const indexes = this.#indexes.get(storage)
		if (indexes === undefined) this.#indexes.set(storage, [index])
		else indexes.push(index)
		return index
	}

	/** Keeps what is staged and closes the journal. Reads still answer. */
	close(): void {
		if (this.#closed) return
		this.#flush()
		this.#closed = true
		this.#journal?.close()
	}

	#next(storage: string, key: string, before: Entry | undefined): number {
		if (this.#closed) throw new Failure('ServiceUnavailable', 'Cannot write: the store is closed')
		if (this.current(storage, key) !== before) throw new Error(`A write to ${storage} ${key} is based on an old state`)
		return this.#revision + (this.#batch?.changes.length ?? 0) + 1
	}

	#stage(change: Change): Promise<void> {
		if (this.#batch === undefined) {
			this.#batch = { changes: [], ...Promise.withResolvers<void>() }
			// A writer that no longer waits must not turn a refusal into an unhandled rejection.
			this.#batch.promise.catch(() => {})
			// Not a microtask: every request that can run now joins the transaction.
			setImmediate(() => this.#flush())
		}
		this.#batch.changes.push(change)
		this.#staged.set(
			`${change.entry.storage} ${change.entry.key}`,
			change.type === 'DELETED' ? undefined : change.entry,
		)
		this.#reindex(change, this.#indexes.get(change.entry.storage))
		return this.#batch.promise
	}

	#reindex(change: Change, indexes: readonly Index[] | undefined, undo = false): void {
		if (indexes === undefined) return
		const after = change.type === 'DELETED' ? undefined : change.entry
		for (const index of indexes) {
			if (undo) index.replace(after, change.before)
			else index.replace(change.before, after)
		}
	}

	#flush(): void {
		const batch = this.#batch
		if (batch === undefined) return
		this.#batch = undefined
		this.#staged = new Map()
		const revision = this.#revision + batch.changes.length
		try {
			this.#journal?.commit(batch.changes.map(writeOf), revision)
		} catch (e) {
			for (const c of batch.changes.toReversed()) this.#reindex(c, this.#indexes.get(c.entry.storage), true)
			batch.reject(e)
			return
		}
		this.#revision = revision
		// Before, not after: a watch that keeps up can read all of a batch, however large.
		this.#history.compact()
		for (const change of batch.changes) {
			const { entry } = change
			if (change.type === 'DELETED') this.#collection(entry.storage).delete(entry.key)
			else this.#collection(entry.storage).set(entry.key, entry)
			this.#history.push(change)
		}
		this.#tell(batch.changes)
		for (const change of batch.changes) change.before?.release()
		batch.resolve()
	}

	#tell(changes: readonly Change[]): void {
		const byStorage = new Map<string, Change[]>()
		for (const change of changes) {
			const of = byStorage.get(change.entry.storage)
			if (of === undefined) byStorage.set(change.entry.storage, [change])
			else of.push(change)
		}
		for (const [storage, of] of byStorage) {
			for (const subscriber of this.#subscribers.get(storage) ?? []) subscriber(of)
		}
	}

	#collection(storage: string): Collection {
		let collection = this.#collections.get(storage)
		if (collection === undefined) this.#collections.set(storage, (collection = new Collection()))
		return collection
	}
}

function writeOf(change: Change): JournalWrite {
	const { storage, key, revision, id, bytes } = change.entry
	return { id, storage, key, revision, bytes: change.type === 'DELETED' ? undefined : bytes }
}

function makeEntry(
	forms: ReadForms,
	storage: string,
	key: string,
	revision: number,
	id: number,
	object: KubeObject,
): Entry {
	const stamped = { ...object, metadata: { ...object.metadata, resourceVersion: String(revision) } }
	// The form it was written in is let go: put together of parts, it takes three times the memory of one that is read.
	return new Entry(forms, storage, key, revision, id, encoder.encode(JSON.stringify(stamped)))
}

/** Freezes what is not frozen yet; a frozen part is taken to be frozen all the way down. */
export function deepFreeze<T>(value: T): T {
	if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value
	Object.freeze(value)
	for (const key in value) deepFreeze(value[key])
	return value
}
