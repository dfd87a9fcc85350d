// The objects of one storage, by key and in the order of keys. What was handed out does not change: a later write is made
// in a copy, so that a long list and a hundred watches that begin together read one array.

import type { Entry } from './store.ts'

/** `entries[start]` to before `entries[end]`, in the order of keys. Never changes. */
export interface Range {
	readonly entries: readonly Entry[]
	readonly start: number
	readonly end: number
}

export const emptyRange: Range = { entries: [], start: 0, end: 0 }

export class Collection {
	readonly #byKey = new Map<string, Entry>()
	/** In order, once someone asked for a list. */
	#sorted: Entry[] | undefined
	/** Somebody reads `#sorted`. */
	#shared = false

	get size(): number {
		return this.#byKey.size
	}

	get(key: string): Entry | undefined {
		return this.#byKey.get(key)
	}

	set(key: string, entry: Entry): void {
		const known = this.#byKey.has(key)
		this.#byKey.set(key, entry)
		if (this.#sorted === undefined) return
		const sorted = this.#own(this.#sorted)
		const at = firstAfter(sorted, key)
		if (known) sorted[at - 1] = entry
		else sorted.splice(at, 0, entry)
	}

	delete(key: string): void {
		if (!this.#byKey.delete(key) || this.#sorted === undefined) return
		const sorted = this.#own(this.#sorted)
		sorted.splice(firstAfter(sorted, key) - 1, 1)
	}

	/** Those whose keys begin with `prefix` and come after `from`. */
	range(prefix: string, from: string): Range {
		this.#sorted ??= [...this.#byKey.values()].sort(byKey)
		this.#shared = true
		return rangeIn(this.#sorted, prefix, from)
	}

	#own(sorted: Entry[]): Entry[] {
		if (!this.#shared) return sorted
		this.#shared = false
		this.#sorted = sorted.slice()
		return this.#sorted
	}
}

/**
 * A range with single objects as they were: `undone` says what was under a key, or that nothing was. One pass, so that
 * the page of a long list costs no sorting of it.
 */
export function withUndone(
	range: Range,
	undone: ReadonlyMap<string, Entry | undefined>,
	prefix: string,
	from: string,
): Range {
	const keys = [...undone.keys()].filter((key) => key.startsWith(prefix) && key > from).sort()
	if (keys.length === 0) return range
	const out: Entry[] = []
	let next = range.start
	for (const key of keys) {
		const until = Math.max(next, Math.min(range.end, firstNotBefore(range.entries, key)))
		for (; next < until; next++) out.push(range.entries[next]!)
		if (next < range.end && range.entries[next]!.key === key) next++
		const was = undone.get(key)
		if (was !== undefined) out.push(was)
	}
	for (; next < range.end; next++) out.push(range.entries[next]!)
	return { entries: out, start: 0, end: out.length }
}

function rangeIn(sorted: readonly Entry[], prefix: string, from: string): Range {
	const start = from > prefix ? firstAfter(sorted, from) : firstNotBefore(sorted, prefix)
	// Keys are ASCII: nothing that begins with the prefix comes after this.
	const end = prefix === '' ? sorted.length : firstAfter(sorted, `${prefix}\uffff`)
	return { entries: sorted, start, end: Math.max(start, end) }
}

function byKey(a: Entry, b: Entry): number {
	return a.key < b.key ? -1 : a.key > b.key ? 1 : 0
}

/** The place of the first entry whose key is greater than `key`. */
function firstAfter(entries: readonly Entry[], key: string): number {
	let low = 0
	let high = entries.length
	while (low < high) {
		const middle = (low + high) >>> 1
		if (entries[middle]!.key <= key) low = middle + 1
		else high = middle
	}
	return low
}

/** The place of the first entry whose key is `key` or greater. */
function firstNotBefore(entries: readonly Entry[], key: string): number {
	let low = 0
	let high = entries.length
	while (low < high) {
		const middle = (low + high) >>> 1
		if (entries[middle]!.key < key) low = middle + 1
		else high = middle
	}
	return low
}
