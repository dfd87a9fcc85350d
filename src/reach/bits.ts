// A set of small numbers that grows: 32 members a word.

export class Bits {
	words = new Uint32Array(4)

	has(n: number): boolean {
		return ((this.words[n >>> 5] ?? 0) & (1 << (n & 31))) !== 0
	}

	set(n: number, on: boolean): void {
		const at = n >>> 5
		if (at >= this.words.length) {
			if (!on) return
			const more = new Uint32Array(Math.max(at + 1, this.words.length * 2))
			more.set(this.words)
			this.words = more
		}
		if (on) this.words[at]! |= 1 << (n & 31)
		else this.words[at]! &= ~(1 << (n & 31))
	}
}

/** Calls `each` with every number that is in all of the sets, in ascending order. `sets` must not be empty. */
export function eachOfAll(sets: readonly Bits[], each: (n: number) => void): void {
	let length = Number.POSITIVE_INFINITY
	for (const { words } of sets) length = Math.min(length, words.length)
	const first = sets[0]!.words
	for (let w = 0; w < length; w++) {
		let word = first[w]!
		for (let i = 1; i < sets.length && word !== 0; i++) word &= sets[i]!.words[w]!
		while (word !== 0) {
			const bit = 31 - Math.clz32(word & -word)
			each(w * 32 + bit)
			word &= word - 1
		}
	}
}
