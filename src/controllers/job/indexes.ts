// Sets of completion indexes, written as a Job's status writes them: `0-2,5,7-9`. KEP-2214.

/** Reads the text form; what is not understood is left out. */
export function readIndexes(text: string | undefined): Set<number> {
	const indexes = new Set<number>()
	for (const part of (text ?? '').split(',')) {
		const range = /^(\d{1,9})(?:-(\d{1,9}))?$/.exec(part)
		if (range === null) continue
		for (let i = Number(range[1]); i <= Number(range[2] ?? range[1]); i++) indexes.add(i)
	}
	return indexes
}

/** The text form, in order, three and more in a row as a range. */
export function printIndexes(indexes: ReadonlySet<number>): string {
	const parts: string[] = []
	const sorted = [...indexes].sort((a, b) => a - b)
	for (let i = 0; i < sorted.length; ) {
		let end = i
		while (end + 1 < sorted.length && sorted[end + 1] === sorted[end]! + 1) end++
		const [first, last] = [sorted[i]!, sorted[end]!]
		parts.push(first === last ? `${first}` : last === first + 1 ? `${first},${last}` : `${first}-${last}`)
		i = end + 1
	}
	return parts.join(',')
}
