// One line of a benchmark's result, and how to measure it: everything that is compared runs interleaved in one process.

export interface Row {
	readonly group: string
	readonly name: string
	readonly unit: string
	readonly ours: number
	readonly baseline?: number
	/** ours against baseline, as `bar` is worded. */
	readonly ratio?: number
	readonly bar?: string
	/** Smallest and largest of the repeats of `ours`. */
	readonly spread: readonly [number, number]
	readonly note?: string
	readonly repeats: number
}

/** The value at `fraction` (0…1) of the sorted samples; 0.5 is the median. NaN without samples. */
export function quantile(samples: readonly number[], fraction: number): number {
	const sorted = [...samples].sort((a, b) => a - b)
	if (sorted.length === 0) return Number.NaN
	const at = (sorted.length - 1) * fraction
	const low = sorted[Math.floor(at)] as number
	const high = sorted[Math.ceil(at)] as number
	return low + (high - low) * (at - Math.floor(at))
}

export function median(samples: readonly number[]): number {
	return quantile(samples, 0.5)
}

export function spreadOf(samples: readonly number[]): readonly [number, number] {
	return [Math.min(...samples), Math.max(...samples)]
}

/** Milliseconds one call takes. */
export async function measure(task: () => unknown): Promise<number> {
	const start = performance.now()
	await task()
	return performance.now() - start
}

/**
 * Runs every variant once a round, in turn, so that what disturbs the machine disturbs all. Each variant returns its
 * own figure for the round.
 */
export async function interleave<K extends string>(
	rounds: number,
	variants: Readonly<Record<K, () => number | Promise<number>>>,
): Promise<Record<K, number[]>> {
	const names = Object.keys(variants) as K[]
	const results = Object.fromEntries(names.map((name) => [name, [] as number[]])) as Record<K, number[]>
	for (let round = 0; round < rounds; round++) {
		for (const name of names) results[name].push(await variants[name]())
	}
	return results
}
