// The last flows of one node, oldest first: bounded, and it says how many it had to give up.

export class FlowRing<T> {
	readonly #limit: number
	#items: T[] = []
	/** Where the oldest one is, once it is full. */
	#start = 0
	/** Overwritten ones since the beginning. */
	dropped = 0

	constructor(limit: number) {
		this.#limit = limit
	}

	get size(): number {
		return this.#items.length
	}

	push(item: T): void {
		if (this.#items.length < this.#limit) {
			this.#items.push(item)
			return
		}
		this.#items[this.#start] = item
		this.#start = (this.#start + 1) % this.#limit
		this.dropped++
	}

	*[Symbol.iterator](): IterableIterator<T> {
		for (let i = 0; i < this.#items.length; i++) yield this.#items[(this.#start + i) % this.#items.length] as T
	}
}
