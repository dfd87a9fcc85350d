// Where each field of a manifest stands, kept as small as the value itself.

/** A scalar is just its line; a mapping and a list know their parts. Lines are 1-based. */
export type Place = number | MappingPlace | ListPlace

export interface MappingPlace {
	readonly line: number
	readonly fields: ReadonlyMap<string, { readonly line: number; readonly value: Place }>
}

export interface ListPlace {
	readonly line: number
	readonly items: readonly Place[]
}

/** One document of a file: its value as plain data, and the places of its fields. */
export interface ParsedDocument {
	readonly value: unknown
	readonly place: Place
}

export interface TextError {
	/** 1-based. */
	readonly line: number
	readonly column: number
	/** What is wrong and what would be right. */
	readonly text: string
}

export interface ParsedText {
	readonly documents: readonly ParsedDocument[]
	readonly errors: readonly TextError[]
}

export function lineOfPlace(place: Place): number {
	return typeof place === 'number' ? place : place.line
}

/**
 * The line of the field at `path` (`spec.ports[0].targetPort`; '' is the whole), or of the nearest one around it
 * that is written. Keys may hold dots (`metadata.labels.app.kubernetes.io/name`).
 */
export function findLine(root: Place, path: string): number {
	let place = root
	let line = lineOfPlace(root)
	let rest = path
	while (rest !== '' && typeof place !== 'number') {
		if (rest.startsWith('.')) rest = rest.slice(1)
		if ('items' in place) {
			const index = /^\[(\d+)\]/.exec(rest)
			const item = index === null ? undefined : place.items[Number(index[1])]
			if (index === null || item === undefined) return line
			rest = rest.slice(index[0].length)
			place = item
			line = lineOfPlace(item)
		} else {
			const key = findKey(place, rest)
			if (key === undefined) return line
			const field = place.fields.get(key)!
			rest = rest.slice(key.length)
			place = field.value
			line = field.line
		}
	}
	return line
}

/** The key of the mapping that `path` begins with: up to the next dot or bracket, else the longest that fits. */
function findKey(place: MappingPlace, path: string): string | undefined {
	const end = path.search(/[.[]/)
	const simple = end < 0 ? path : path.slice(0, end)
	if (place.fields.has(simple)) return simple
	let best: string | undefined
	for (const key of place.fields.keys()) {
		if (key.length <= (best?.length ?? 0) || !path.startsWith(key)) continue
		const next = path[key.length]
		if (next === undefined || next === '.' || next === '[') best = key
	}
	return best
}
