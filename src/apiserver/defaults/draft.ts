// A private copy of an object while its defaults are filled in.

export type Draft = Record<string, unknown>

export function isDraft(value: unknown): value is Draft {
	return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Sets what is absent (or empty text, which is the same to Kubernetes' types). */
export function preset(draft: Draft, key: string, value: unknown): void {
	const have = draft[key]
	if ((have === undefined || have === null || have === '') && value !== undefined) draft[key] = value
}

/** The object at a key, if there is one. */
export function inner(draft: Draft, key: string): Draft | undefined {
	const value = draft[key]
	return isDraft(value) ? value : undefined
}

/** The object at a key, made where it is absent. */
export function ensure(draft: Draft, key: string): Draft {
	const have = inner(draft, key)
	if (have) return have
	const made: Draft = {}
	draft[key] = made
	return made
}

/** Every object of the list at a key. */
export function each(draft: Draft, key: string, visit: (item: Draft) => void): void {
	const list = draft[key]
	if (Array.isArray(list)) for (const item of list) if (isDraft(item)) visit(item)
}
