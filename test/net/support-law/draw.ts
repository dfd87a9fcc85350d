// Random choices that a seed repeats: the same seed draws the same clusters, changes and flows.

export interface Draw {
	/** 0 … n-1. */
	below(n: number): number
	/** from … to, both included. */
	between(from: number, to: number): number
	/** True so many times in a hundred. */
	percent(chance: number): boolean
	/** One of a list that is not empty. */
	of<T>(list: readonly T[]): T
	/** At most `n` of a list, each once, in a random order. */
	some<T>(list: readonly T[], n: number): T[]
}

/** Mulberry32: 32 bits of state, good enough to choose by. */
export function createDraw(seed: number): Draw {
	let state = seed >>> 0
	const next = (): number => {
		state = (state + 0x6d2b79f5) >>> 0
		let t = state
		t = Math.imul(t ^ (t >>> 15), t | 1)
		t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
		return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
	}
	const below = (n: number) => Math.floor(next() * n)
	const draw: Draw = {
		below,
		between: (from, to) => from + below(to - from + 1),
		percent: (chance) => below(100) < chance,
		of(list) {
			if (list.length === 0) throw new Error('nothing to draw from')
			return list[below(list.length)] as (typeof list)[number]
		},
		some(list, n) {
			const left = [...list]
			const taken: typeof left = []
			while (left.length > 0 && taken.length < n) taken.push(...left.splice(below(left.length), 1))
			return taken
		},
	}
	return draw
}
