// One free place of many, from a random one on.

/** The first free offset of first…last from a random place on, round about; undefined: none is free. */
export function pick(
	first: bigint,
	last: bigint,
	random: () => number,
	free: (offset: bigint) => boolean,
): bigint | undefined {
	const size = last - first + 1n
	if (size <= 0n) return undefined
	const start = BigInt(Math.floor(random() * Number(size > 0xffff_ffffn ? 0xffff_ffffn : size)))
	for (let i = 0n; i < size; i++) {
		const offset = first + ((start + i) % size)
		if (free(offset)) return offset
	}
	return undefined
}
