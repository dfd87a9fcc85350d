// What happened, as far as it is remembered: one log a storage, read by watches each at a place of its own, so that a
// watch that is behind costs nothing but its place. Bounded over all storages by number and bytes; the oldest goes first.

import type { Change } from './store.ts'

/** The changes of one storage, oldest first. Places count from the first change ever. */
export class Log {
	#changes: Change[] = []
	#from = 0

	/** The place of the oldest change that is remembered. */
	get from(): number {
		return this.#from
	}

	/** The place of the change to come. */
	get end(): number {
		return this.#from + this.#changes.length
	}

	/** The change at a place from `from` to before `end`. */
	at(place: number): Change {
		return this.#changes[place - this.#from]!
	}

	/** The place of the first change after a revision. */
	after(revision: number): number {
		let low = 0
		let high = this.#changes.length
		while (low < high) {
			const middle = (low + high) >>> 1
			if (this.#changes[middle]!.revision <= revision) low = middle + 1
			else high = middle
		}
		return this.#from + low
	}

	push(change: Change): void {
		this.#changes.push(change)
	}

	forget(count: number): void {
		this.#changes = this.#changes.slice(count)
		this.#from += count
	}
}

export interface HistoryBounds {
	/** Number of changes. */
	readonly length: number
	/** Bytes of their objects. */
	readonly bytes: number
}

export class History {
	readonly #logs = new Map<string, Log>()
	readonly #bounds: HistoryBounds
	/** All that is remembered, one a revision, without gaps: the first has revision `compacted + 1`. */
	#all: Change[] = []
	#bytes = 0
	#compacted = 0

	constructor(bounds: HistoryBounds) {
		this.#bounds = bounds
	}

	/** Changes up to this revision are forgotten. */
	get compacted(): number {
		return this.#compacted
	}

	log(storage: string): Log {
		let log = this.#logs.get(storage)
		if (log === undefined) this.#logs.set(storage, (log = new Log()))
		return log
	}

	/** Begins after a revision. */
	begin(revision: number): void {
		this.#compacted = revision
	}

	push(change: Change): void {
		this.#all.push(change)
		this.#bytes += change.entry.bytes.length
		this.log(change.entry.storage).push(change)
	}

	/** Forgets the oldest changes when a bound is passed; a quarter at once, so that it seldom happens. */
	compact(): void {
		const { length, bytes } = this.#bounds
		if (this.#all.length <= length && this.#bytes <= bytes) return
		const forgotten = new Map<string, number>()
		let drop = 0
		while (drop < this.#all.length && (this.#all.length - drop > length * 0.75 || this.#bytes > bytes * 0.75)) {
			const { entry } = this.#all[drop++]!
			this.#bytes -= entry.bytes.length
			forgotten.set(entry.storage, (forgotten.get(entry.storage) ?? 0) + 1)
		}
		this.#all = this.#all.slice(drop)
		this.#compacted += drop
		for (const [storage, count] of forgotten) this.log(storage).forget(count)
	}
}
