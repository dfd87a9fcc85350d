// The shared live copies the controllers read: one informer a kind, with indexes kept current before anybody hears of
// a change, and the moment known at which the copy shows what somebody wrote.

import type { Clock } from '../base/clock.ts'
import type { KubeClient } from '../kube/client.ts'
import { type ChangeListener, createInformer, type Informer } from '../kube/informer.ts'
import type { Kind } from '../kube/kinds.ts'
import { type KubeObject, keyOf, type ObjectKey } from '../kube/objects/meta.ts'
import { apiVersionOf } from '../kube/resources.ts'

/** The objects of a kind by something else than their key. */
export interface Index<T> {
	/** In no particular order. */
	get(value: string): Iterable<T>
	/** How many there are under a value. */
	count(value: string): number
}

/** What a write left behind, to be looked for in the copy. */
export type Written =
	| { readonly key: ObjectKey; readonly resourceVersion: string }
	| { readonly key: ObjectKey; readonly deletedUid: string }

export interface View<T extends KubeObject = KubeObject> {
	readonly kind: Kind<T>
	readonly informer: Informer<T>
	get(key: ObjectKey): T | undefined
	values(): Iterable<T>
	/** The index of that name, made by the first who asks; to be asked for before the informer starts. */
	index(name: string, valuesOf: (object: T) => Iterable<string>): Index<T>
	/** Hears every change after the indexes have it. */
	onChange(listener: ChangeListener<T>): void
	/** Resolves when the copy shows the write, or something later. */
	shows(written: Written): Promise<void>
}

/** The views of one cluster, made when first asked for. */
export interface Views {
	of<T extends KubeObject>(kind: Kind<T>): View<T>
	/** The view of a kind if somebody asked for it before. */
	watched<T extends KubeObject>(kind: Kind<T>): View<T> | undefined
	all(): Iterable<View>
	/** Ends the view of a kind that is no more. */
	drop(kind: Kind): void
	/** Starts what is not started; resolves when every copy is complete. */
	start(): Promise<void>
}

export interface ViewOptions {
	readonly clock: Clock
	readonly signal: AbortSignal
	readonly onFailure?: (error: unknown) => void
}

export function createViews(client: KubeClient, options: ViewOptions): Views {
	const views = new Map<string, View>()
	const nameOf = (kind: Kind): string => `${apiVersionOf(kind)} ${kind.plural}`
	return {
		of<T extends KubeObject>(kind: Kind<T>): View<T> {
			let view = views.get(nameOf(kind))
			if (view === undefined) {
				view = createView(kind as Kind, createInformer(client, kind as Kind, options), options)
				views.set(nameOf(kind), view)
			}
			return view as unknown as View<T>
		},
		watched: <T extends KubeObject>(kind: Kind<T>) => views.get(nameOf(kind)) as unknown as View<T> | undefined,
		all: () => views.values(),
		drop(kind) {
			views.get(nameOf(kind))?.informer.stop()
			views.delete(nameOf(kind))
		},
		async start() {
			for (const view of views.values()) view.informer.start()
			await Promise.all([...views.values()].map((view) => view.informer.synced))
		},
	}
}

/** A write nobody tells us of for so long is taken for seen: better one turn on an old copy than none ever again. */
const patience = 30_000

interface Waiting {
	readonly written: Written
	readonly done: () => void
}

function createView<T extends KubeObject>(
	kind: Kind<T>,
	informer: Informer<T>,
	{ clock, signal }: ViewOptions,
): View<T> {
	const indexes = new Map<string, MutableIndex<T>>()
	const listeners: ChangeListener<T>[] = []
	const waiting = new Set<Waiting>()

	const isShown = (written: Written): boolean => {
		const now = informer.store.get(written.key)
		if ('deletedUid' in written) {
			return now?.metadata.uid !== written.deletedUid || now.metadata.deletionTimestamp !== undefined
		}
		return (
			now?.metadata.resourceVersion === written.resourceVersion ||
			!isOlder(informer.resourceVersion, written.resourceVersion)
		)
	}

	// Nobody is told anything after the end: whoever waits is let go.
	const letGo = (): void => {
		for (const entry of waiting) entry.done()
	}
	signal.addEventListener('abort', letGo, { once: true })
	informer.onChange((key, before, after) => {
		for (const index of indexes.values()) index.change(key, before, after)
		for (const listener of listeners) listener(key, before, after)
		for (const entry of waiting) if (isShown(entry.written)) entry.done()
	})

	return {
		kind,
		informer,
		get: (key) => informer.store.get(key),
		values: () => informer.store.values(),
		index(name, valuesOf) {
			let index = indexes.get(name)
			if (index === undefined) {
				index = new MutableIndex(valuesOf)
				for (const object of informer.store.values()) index.change(keyOf(object), undefined, object)
				indexes.set(name, index)
			}
			return index
		},
		onChange(listener) {
			listeners.push(listener)
		},
		shows(written) {
			if (signal.aborted || isShown(written)) return Promise.resolve()
			const { promise, resolve } = Promise.withResolvers<void>()
			const done = (): void => {
				waiting.delete(entry)
				cancel()
				resolve()
			}
			const cancel = clock.after(patience, done)
			const entry: Waiting = { written, done }
			waiting.add(entry)
			return promise
		},
	}
}

/** Versions of one kind compare as numbers (KEP-5504). */
function isOlder(version: string, than: string): boolean {
	return version.length === than.length ? version < than : version.length < than.length
}

const nothing: readonly never[] = []

class MutableIndex<T> implements Index<T> {
	readonly #valuesOf: (object: T) => Iterable<string>
	readonly #byValue = new Map<string, Map<ObjectKey, T>>()
	constructor(valuesOf: (object: T) => Iterable<string>) {
		this.#valuesOf = valuesOf
	}
	get(value: string): Iterable<T> {
		return this.#byValue.get(value)?.values() ?? nothing
	}
	count(value: string): number {
		return this.#byValue.get(value)?.size ?? 0
	}
	change(key: ObjectKey, before: T | undefined, after: T | undefined): void {
		if (before !== undefined) {
			for (const value of this.#valuesOf(before)) {
				const objects = this.#byValue.get(value)
				objects?.delete(key)
				if (objects?.size === 0) this.#byValue.delete(value)
			}
		}
		if (after === undefined) return
		for (const value of this.#valuesOf(after)) {
			const objects = this.#byValue.get(value)
			if (objects === undefined) this.#byValue.set(value, new Map([[key, after]]))
			else objects.set(key, after)
		}
	}
}
