// A live copy of one kind of object: list, then watch, for ever. Survives servers that restart, watches that end
// and versions that expire; changes reach listeners in order, each exactly as a difference of the copy.

import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import { diffTables, emptyTable, type Table, tableOf } from '../base/table.ts'
import { isExpired } from './answer.ts'
import type { KubeClient, SelectOptions } from './client.ts'
import type { Kind } from './kinds.ts'
import { type KubeObject, keyOf, type ObjectKey } from './objects/meta.ts'

/** `before` undefined: new; `after` undefined: gone. The store holds `after` already (after a relist, all the others too). */
export type ChangeListener<T> = (key: ObjectKey, before: T | undefined, after: T | undefined) => void

export interface Informer<T extends KubeObject> {
	/** Begins; a second call does nothing. */
	start(): void
	/** Ends for good; listeners hear nothing more. */
	stop(): void
	/** Resolves when the first list is in the store; rejects with Failure `Stopped` when stopped before. */
	readonly synced: Promise<void>
	readonly isSynced: boolean
	/** The copy as it is now. A value: hold it and it does not change. */
	readonly store: Table<ObjectKey, T>
	/** The last version seen, '' before the first list. */
	readonly resourceVersion: string
	/** Hears every change from now on (not what is in the store already). The returned function ends it. */
	onChange(listener: ChangeListener<T>): () => void
	/**
	 * Resolves with the first result of `test` that is not undefined or false: now, or after a change. Asked first when
	 * the first list is in the store: before it, nothing can be told.
	 */
	until<R>(test: (store: Table<ObjectKey, T>) => R | undefined | false, signal?: AbortSignal): Promise<R>
}

export interface InformerOptions extends SelectOptions {
	readonly clock: Clock
	/** Same as calling stop(). */
	readonly signal?: AbortSignal
	/** Hears why a list or watch failed; the informer goes on by itself. */
	readonly onFailure?: (error: unknown) => void
	/** 0 ≤ x < 1, spreads the retries of many informers. */
	readonly random?: () => number
	/** List in pages of so many; absent: in one. */
	readonly pageSize?: number
}

const firstDelay = 100
const longestDelay = 10_000

export function createInformer<T extends KubeObject>(
	client: KubeClient,
	kind: Kind<T>,
	options: InformerOptions,
): Informer<T> {
	return new ListWatch(client, kind, options)
}

class ListWatch<T extends KubeObject> implements Informer<T> {
	readonly synced: Promise<void>
	isSynced = false
	store: Table<ObjectKey, T> = emptyTable()
	resourceVersion = ''
	readonly #client: KubeClient
	readonly #kind: Kind<T>
	readonly #options: InformerOptions
	readonly #listeners = new Set<ChangeListener<T>>()
	readonly #ending = new AbortController()
	readonly #first = Promise.withResolvers<void>()
	#started = false
	#delay = 0
	/** No watch has worked since the last list. */
	#untried = true

	constructor(client: KubeClient, kind: Kind<T>, options: InformerOptions) {
		this.#client = client
		this.#kind = kind
		this.#options = options
		this.synced = this.#first.promise
		// Whoever waits hears the rejection; where no one does it is no error.
		this.synced.catch(() => {})
		if (options.signal?.aborted) this.stop()
		else options.signal?.addEventListener('abort', () => this.stop(), { once: true, signal: this.#ending.signal })
	}

	start(): void {
		if (this.#started || this.#ending.signal.aborted) return
		this.#started = true
		void this.#run()
	}

	stop(): void {
		if (this.#ending.signal.aborted) return
		this.#ending.abort()
		this.#listeners.clear()
		if (!this.isSynced) this.#first.reject(new Failure('Stopped', `The informer of ${this.#kind.plural} was stopped`))
	}

	onChange(listener: ChangeListener<T>): () => void {
		this.#listeners.add(listener)
		return () => this.#listeners.delete(listener)
	}

	until<R>(test: (store: Table<ObjectKey, T>) => R | undefined | false, signal?: AbortSignal): Promise<R> {
		const { promise, resolve, reject } = Promise.withResolvers<R>()
		const done = new AbortController()
		const check = () => {
			try {
				const result = test(this.store)
				if (result === undefined || result === false) return
				resolve(result as R)
			} catch (e) {
				reject(e)
			}
			done.abort()
		}
		const listener = () => this.isSynced && check()
		const fail = (reason: () => unknown) => () => {
			reject(reason())
			done.abort()
		}
		done.signal.addEventListener('abort', () => this.#listeners.delete(listener), { once: true })
		const once = { once: true, signal: done.signal }
		if (signal?.aborted) fail(() => signal.reason)()
		signal?.addEventListener(
			'abort',
			fail(() => signal.reason),
			once,
		)
		const stopped = fail(() => new Failure('Stopped', `The informer of ${this.#kind.plural} was stopped`))
		if (this.#ending.signal.aborted) stopped()
		this.#ending.signal.addEventListener('abort', stopped, once)
		if (!done.signal.aborted) {
			this.#listeners.add(listener)
			if (this.isSynced) check()
			else
				this.synced.then(
					() => done.signal.aborted || check(),
					() => {},
				)
		}
		return promise
	}

	async #run(): Promise<void> {
		const signal = this.#ending.signal
		let stale = true
		while (!signal.aborted) {
			try {
				if (stale) {
					await this.#list(signal)
					stale = false
					this.#untried = true
				}
				const before = this.resourceVersion
				await this.#watch(signal)
				this.#untried = false
				// A server that ends every watch at once must not be asked in a tight loop.
				if (before === this.resourceVersion) await this.#pause(signal)
			} catch (e) {
				if (signal.aborted) return
				if (e instanceof ListenerError) throw e.cause
				if (isExpired(e) && !stale) {
					stale = true
					// List again at once, unless the server expires what it just listed.
					if (!this.#untried) continue
				}
				this.#options.onFailure?.(e)
				await this.#pause(signal)
			}
		}
	}

	async #list(signal: AbortSignal): Promise<void> {
		const { namespace, labelSelector, fieldSelector, pageSize } = this.#options
		const list = await this.#client.list(this.#kind, { namespace, labelSelector, fieldSelector, pageSize, signal })
		if (signal.aborted) return
		const before = this.store
		// An object of the same version stays the same object, so that tables made of it stay the same too.
		const after = tableOf(
			list.items.map((item) => {
				const key = keyOf(item)
				const old = before.get(key)
				const same = old !== undefined && old.metadata.uid === item.metadata.uid
				return [key, same && old.metadata.resourceVersion === item.metadata.resourceVersion ? old : item] as const
			}),
		)
		this.resourceVersion = list.metadata.resourceVersion ?? ''
		this.store = after
		diffTables(before, after, (key, old, item) => this.#tell(key, old, item))
		if (this.isSynced) return
		this.isSynced = true
		this.#first.resolve()
	}

	async #watch(signal: AbortSignal): Promise<void> {
		const { namespace, labelSelector, fieldSelector } = this.#options
		const events = this.#client.watch(this.#kind, {
			namespace,
			labelSelector,
			fieldSelector,
			resourceVersion: this.resourceVersion,
			allowWatchBookmarks: true,
			signal,
		})
		for await (const event of events) {
			if (signal.aborted) return
			this.#delay = 0
			this.#untried = false
			const { object } = event
			if (object.metadata.resourceVersion !== undefined) this.resourceVersion = object.metadata.resourceVersion
			if (event.type === 'BOOKMARK') continue
			const key = keyOf(object)
			const before = this.store.get(key)
			if (event.type === 'DELETED') {
				if (before !== undefined) this.#change(key, before, undefined)
			} else this.#change(key, before, event.object)
		}
	}

	#change(key: ObjectKey, before: T | undefined, after: T | undefined): void {
		this.store = after === undefined ? this.store.delete(key) : this.store.set(key, after)
		this.#tell(key, before, after)
	}

	#tell(key: ObjectKey, before: T | undefined, after: T | undefined): void {
		for (const listener of this.#listeners) {
			try {
				listener(key, before, after)
			} catch (cause) {
				throw new ListenerError('A listener threw', { cause })
			}
		}
	}

	async #pause(signal: AbortSignal): Promise<void> {
		const { clock, random = Math.random } = this.#options
		this.#delay = Math.min(longestDelay, this.#delay === 0 ? firstDelay : this.#delay * 2)
		const { promise, resolve } = Promise.withResolvers<void>()
		const cancel = clock.after(this.#delay * (0.5 + random() / 2), resolve)
		const stop = () => resolve()
		signal.addEventListener('abort', stop)
		await promise
		signal.removeEventListener('abort', stop)
		cancel()
	}
}

/** Our own bug in a listener: it must not pass for a failed watch and be retried; it ends the process as an unhandled rejection. */
class ListenerError extends Error {}
