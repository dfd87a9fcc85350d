// One order for everything that has a key.

export function findingOrder<T extends { readonly key: string }>(items: Iterable<T>): readonly T[] {
	return [...items].sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0))
}
