// The sizes of a client's terminal, as they change.

interface Size {
	readonly width: number
	readonly height: number
}

/** Terminal sizes; only the newest matters to a reader that is behind. */
export class Sizes implements AsyncIterable<Size> {
	#newest: Size | undefined
	#ended = false
	#wake: (() => void) | undefined

	push(message: Buffer): void {
		try {
			const { Width, Height } = JSON.parse(message.toString()) as { Width?: unknown; Height?: unknown }
			if (!Number.isInteger(Width) || !Number.isInteger(Height)) return
			this.#newest = { width: Width as number, height: Height as number }
			this.#wake?.()
		} catch {
			// A size that cannot be read changes nothing.
		}
	}

	end(): void {
		this.#ended = true
		this.#wake?.()
	}

	async *[Symbol.asyncIterator](): AsyncGenerator<Size, void, undefined> {
		for (;;) {
			if (this.#newest !== undefined) {
				const size = this.#newest
				this.#newest = undefined
				yield size
			} else if (this.#ended) return
			else {
				await new Promise<void>((resolve) => {
					this.#wake = resolve
				})
				this.#wake = undefined
			}
		}
	}
}
